"""What people are told while the connection stands and what is behind it stands still (a server, an engine)."""

from __future__ import annotations

import asyncio
import os
import re
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from cli.local.engines import NatsServer, RedisServer
from tests.browser.conftest import IN_A_BROWSER
from tests.browser.support.examinee_scene import CONNECTED, connected, headline
from tests.browser.support.site import WAIT_SECONDS, Screens, Site, audit
from tests.integration.support.drains import drain, end_of, know_each_other

if TYPE_CHECKING:
    from playwright.async_api import Page, WebSocketRoute

expect = pytest.importorskip("playwright.async_api", reason="Playwright is not installed: no browser tests").expect

pytestmark = IN_A_BROWSER

PHONE_SIZE = {"width": 360, "height": 740}


@asynccontextmanager
async def standing_still(engines: tuple[NatsServer, RedisServer]) -> AsyncIterator[None]:
    """Redis does not answer meanwhile."""
    pid = engines[1].pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


async def test_a_wall_whose_picture_stands_still_says_so_and_is_not_green(
    site: Site, screens: Screens, engines: tuple[NatsServer, RedisServer]
) -> None:
    await site.system.examinee("E001")
    wall = await screens.open(site.link("proctor", "proctor", "kim"))
    small = await screens.open(site.link("proctor", "proctor", "lee"), viewport=PHONE_SIZE, locale="ko-KR")
    await expect(wall.locator("#link")).to_have_attribute("data-tone", "good")
    await expect(small.locator("#link")).to_have_attribute("data-tone", "good")
    async with standing_still(engines):
        await expect(wall.locator("#stale")).to_contain_text(re.compile(r"The wall shows the state at \d\d:\d\d:\d\d"))
        await expect(wall.locator("#stale")).to_contain_text("Redis does not answer")
        await expect(wall.locator("#link")).to_have_text("Connected · not up to date")
        await expect(wall.locator("#link")).to_have_attribute("data-tone", "bad")
        await expect(wall.locator("html[data-stale]")).to_be_attached()
        await expect(wall.locator("#live")).to_contain_text("an earlier state")
        await expect(small.locator("#stale")).to_contain_text("Redis가 응답하지 않습니다")
        for page in (wall, small):
            assert await page.evaluate("document.documentElement.scrollWidth <= innerWidth")
            assert await audit(page) == []
    for page in (wall, small):
        await expect(page.locator("#stale")).to_be_hidden()
        await expect(page.locator("html[data-stale]")).not_to_be_attached()
        await expect(page.locator("#link")).to_have_attribute("data-tone", "good")
    await expect(wall.locator("#live")).to_contain_text("up to date")


async def test_an_examinee_is_not_told_that_the_proctor_sees_them_while_nothing_is_recorded(
    site: Site, screens: Screens, engines: tuple[NatsServer, RedisServer]
) -> None:
    page = await connected(site, screens)
    text = page.locator("#connection-text")
    await expect(text).to_contain_text("Your proctor sees that you are here")
    async with standing_still(engines):
        await headline(page, "You are connected; the exam system is delayed")
        await expect(text).not_to_contain_text("sees that you are here")
        await expect(page.locator("#connection")).to_have_attribute("data-tone", "warn")
        assert await audit(page) == []
        # Whoever comes now hears the same, and not that all is well.
        another = await screens.open(site.link("examinee", "examinee", "E002"), locale="ko-KR", viewport=PHONE_SIZE)
        await headline(another, "연결되어 있으나 시험 시스템이 지연되고 있습니다")
        assert await another.evaluate("document.documentElement.scrollWidth <= innerWidth")
    await headline(page, CONNECTED)
    await expect(text).to_contain_text("Your proctor sees that you are here")
    await headline(another, "정상적으로 연결되어 있습니다")


async def test_a_wall_whose_server_does_not_answer_says_so_long_before_it_gives_the_connection_up(
    site: Site, screens: Screens
) -> None:
    answer_arrived = asyncio.Event()
    answer_arrived.set()

    async def between(page: Page) -> None:
        def connect(client: WebSocketRoute) -> None:
            server = client.connect_to_server()
            server.on_message(lambda frame: client.send(frame) if answer_arrived.is_set() else None)

        await page.route_web_socket(re.compile("/v1/connect"), connect)

    await site.system.examinee("E001")
    wall = await screens.open(site.link("proctor", "proctor", "kim"), before=between)
    small = await screens.open(
        site.link("proctor", "proctor", "lee"), before=between, viewport=PHONE_SIZE, locale="ko-KR"
    )
    for page in (wall, small):
        await expect(page.locator("#link")).to_have_attribute("data-tone", "good")
    answer_arrived.clear()
    # The server's heartbeat interval is longer than a test waits: it is the wall that asks.
    await expect(wall.locator("#link")).to_have_text("The server does not answer")
    await expect(wall.locator("#stale")).to_contain_text(re.compile(r"The wall shows the state at \d\d:\d\d:\d\d"))
    await expect(wall.locator("#stale")).to_contain_text("The server does not answer at the moment")
    await expect(wall.locator("html[data-stale]")).to_be_attached()
    await expect(wall.locator("#live")).to_contain_text("an earlier state")
    await expect(small.locator("#link")).to_have_text("서버 응답 없음")
    for page in (wall, small):
        assert await page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        assert await audit(page) == []
    answer_arrived.set()
    for page in (wall, small):
        await expect(page.locator("#stale")).to_be_hidden()
        await expect(page.locator("html[data-stale]")).not_to_be_attached()
        await expect(page.locator("#link")).to_have_attribute("data-tone", "good")


NOTES_STALE = """() => {
  window.staleFrames = [];
  const note = () => {
    if (document.documentElement.hasAttribute("data-stale")) {
      window.staleFrames.push(document.querySelector("#link").textContent.trim());
    }
    requestAnimationFrame(note);
  };
  requestAnimationFrame(note);
}"""


async def test_a_wall_that_is_sent_to_another_server_is_not_called_out_of_date_on_the_way(
    site: Site, screens: Screens
) -> None:
    await know_each_other(site.system)
    await site.system.examinee("E001", "SOCK001")
    held_frames: list[tuple[WebSocketRoute, str | bytes]] = []
    connections: list[WebSocketRoute] = []

    async def between(page: Page) -> None:
        def connect(client: WebSocketRoute) -> None:
            connections.append(client)
            server, second = client.connect_to_server(), len(connections) > 1

            def passed_on(frame: str | bytes) -> None:
                if second and "plan_snapshot" in str(frame):
                    held_frames.append((client, frame))
                else:
                    client.send(frame)

            server.on_message(passed_on)

        await page.route_web_socket(re.compile("/v1/connect"), connect)

    wall = await screens.open(site.link("proctor", "proctor", "kim"), before=between)
    link = wall.locator("#link")
    await expect(link).to_have_attribute("data-tone", "good")
    server_id = re.compile("SOCK00[12]").search(await link.inner_text())
    assert server_id is not None
    await wall.evaluate(NOTES_STALE)
    server_end = end_of(site.system, server_id[0])
    other = {"SOCK001": "SOCK002", "SOCK002": "SOCK001"}[server_id[0]]
    await drain(site.system._buses[other], server_id[0])
    await expect(link).to_contain_text("loading the plan")
    await wall.evaluate("new Promise((shown) => requestAnimationFrame(() => requestAnimationFrame(shown)))")
    for client, frame in held_frames:
        client.send(frame)
    await expect(link).to_contain_text(f"Connected · {other}")
    assert await wall.evaluate("window.staleFrames") == []
    async with asyncio.timeout(WAIT_SECONDS):
        await server_end.wait()
