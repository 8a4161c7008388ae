"""Debian's Chromium, driven by Playwright, on real engines. All of these tests share one event loop and one browser.

Its headless shell is preferred: the same engine without the browser's own windows, and a page in it opens in a fifth
of the processor's time. Each test opens pages of several computers, so that this is what the tests' time depends on.

A test module says `pytestmark = IN_A_BROWSER` (below); its tests are coroutines and take `site` and `screens`.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio
from redis.asyncio import Redis

from actors.runtime.broker.connection import Bus
from actors.runtime.config.settings import Settings, load_settings
from actors.runtime.store.state_store import StateStore
from cli.local.engines import NatsServer, RedisServer
from protocol.broker.streams import STREAMS
from tests.browser.support.phone_scene import Scene
from tests.browser.support.site import CAMERA_ALLOWED, CAMERA_REFUSED, CHROMIUM_FLAGS, WAIT_SECONDS, Screens, Site
from tests.integration.conftest import engines as engines  # the same fixture: real engines for the session

if TYPE_CHECKING:
    from playwright.async_api import Browser

IN_A_BROWSER = pytest.mark.asyncio(loop_scope="session")
QUICK_LADDER = pytest.mark.parametrize(
    "changes", [{"reconnect.max_attempts": 10, "reconnect.backoff_seconds": [1.0] * 10}], ids=["quick"]
)
"""A test that waits for the next attempt, and not for the last one."""


def chromium() -> str | None:
    """The browser's binary; `EXAMWIRE_TEST_CHROMIUM` names another one than those on the PATH."""
    paths = (shutil.which(name) for name in ("chromium-headless-shell", "chromium", "chromium-browser"))
    return os.environ.get("EXAMWIRE_TEST_CHROMIUM") or next(filter(None, paths), None)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def browser() -> AsyncIterator[Browser]:
    """Chromium, in which pages that have the permission get a camera.

    Where it or Playwright is missing the tests are skipped, and say so.
    """
    async with _launched(CAMERA_ALLOWED) as browser:
        yield browser


@pytest_asyncio.fixture(loop_scope="session")
async def browser_that_refuses() -> AsyncIterator[Browser]:
    """Chromium, in which whoever is asked for the camera says no."""
    async with _launched(CAMERA_REFUSED) as browser:
        yield browser


@asynccontextmanager
async def _launched(camera: str) -> AsyncIterator[Browser]:
    try:
        from playwright.async_api import async_playwright, expect
    except ImportError:
        pytest.skip("Playwright is not installed (pip install -e '.[dev]'): no browser tests")
    binary = chromium()
    if binary is None:
        pytest.skip("Chromium is not installed (apt-get install chromium-headless-shell): no browser tests")
    expect.set_options(timeout=WAIT_SECONDS * 1000)  # of all assertions that wait; its own default is 5 s
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=binary, args=[*CHROMIUM_FLAGS, camera])
        yield browser
        await browser.close()


@pytest.fixture
def changes() -> dict[str, Any]:
    """Settings that a module's tests need otherwise: override this fixture there."""
    return {}


@pytest.fixture
def settings(engines: tuple[NatsServer, RedisServer], tmp_path: Path, changes: dict[str, Any]) -> Settings:
    where = {"nats_url": engines[0].url, "redis_url": engines[1].url, "data_dir": tmp_path / "data", "web.port": 0}
    return load_settings(**{**where, **changes})


@pytest_asyncio.fixture(loop_scope="session")
async def site(settings: Settings, browser: Browser) -> AsyncIterator[Site]:
    """The system with its web server, on empty engines."""
    await _empty(settings)
    async with Site.serve(settings) as site:
        yield site


@pytest_asyncio.fixture(loop_scope="session")
async def screens(browser: Browser, site: Site) -> AsyncIterator[Screens]:
    """Opens pages. Fails the test when one of them complained in its console (`screens.complaints`)."""
    screens = Screens(browser)
    yield screens
    await screens.close()
    assert screens.complaints.unexpected() == []


@pytest.fixture
def scene(site: Site, screens: Screens) -> Scene:
    """E001's computer and phone."""
    return Scene(site, screens)


async def _empty(settings: Settings) -> None:
    raw = Redis.from_url(settings.redis_url)
    await raw.flushall()
    await raw.aclose()
    store = StateStore(settings.redis_url, settings.redis)
    await store.mark.begin("test")
    await store.mark.end("test", 0)
    await store.close()
    bus = await Bus.connect(settings.nats_url, "test")
    for spec in STREAMS:
        if await bus.stream_config(spec.name) is not None:
            await bus._js.delete_stream(spec.name)
    await bus.close()
