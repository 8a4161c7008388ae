"""The examinee's page when it ends: attempts used up, let in again, removed. With a ladder of some seconds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.browser.conftest import IN_A_BROWSER
from tests.browser.support.examinee_scene import CONNECTED, Cable, connected, headline
from tests.browser.support.site import WAIT_SECONDS, Screens, Site, audit, with_own_clock
from tests.integration.support.system import RawClient

if TYPE_CHECKING:
    from playwright.async_api import Page

pytestmark = IN_A_BROWSER

SHUT_OUT = "Your proctor has to let you in again"
UNREACHABLE = "The exam server cannot be reached"
UNTIL_IT_ASKS = 75_000
"""More than the longest pause, in ms, after which a page asks whether it may come back."""


@pytest.fixture
def changes() -> dict[str, Any]:
    return {"reconnect.max_attempts": 2, "reconnect.backoff_seconds": [1.0, 1.0]}


async def given_up(site: Site, screens: Screens, proctor: RawClient) -> tuple[Page, Cable]:
    """A page that has used up its attempts, and the server knows; the cable is still cut."""
    cable = Cable()
    page = await connected(site, screens, with_own_clock, cable.plug)
    await cable.cut()
    await headline(page, UNREACHABLE)
    await proctor.expect("examinee_reconnect_exhausted", seconds=WAIT_SECONDS, examineeId="E001")
    return page, cable


async def comes_back(page: Page) -> None:
    """Without a hand on it: the page asks by itself after a while, which is made short."""
    await page.clock.fast_forward(UNTIL_IT_ASKS)
    await headline(page, CONNECTED)


async def test_an_exhausted_examinee_is_informed_and_reconnects_when_readmitted(site: Site, screens: Screens) -> None:
    proctor = await site.system.proctor()
    page, cable = await given_up(site, screens, proctor)
    assert await audit(page) == []
    cable.mend()
    await page.get_by_role("button", name="Try again").click()  # it gets as far as the server, which refuses
    await headline(page, SHUT_OUT)
    assert await audit(page) == []
    await proctor.say("readmit", examineeId="E001", requestId="r1")
    await proctor.expect("examinee_readmitted", seconds=WAIT_SECONDS, examineeId="E001")
    await comes_back(page)


async def test_a_page_that_gave_up_learns_by_itself_that_it_is_shut_out_and_let_in(
    site: Site, screens: Screens
) -> None:
    proctor = await site.system.proctor()
    page, cable = await given_up(site, screens, proctor)
    cable.mend()
    await page.clock.fast_forward(UNTIL_IT_ASKS)
    await headline(page, SHUT_OUT)
    await proctor.say("readmit", examineeId="E001", requestId="r1")
    await proctor.expect("examinee_readmitted", seconds=WAIT_SECONDS, examineeId="E001")
    await comes_back(page)


async def test_a_removed_examinee_is_informed_and_reconnects_when_readmitted(site: Site, screens: Screens) -> None:
    proctor = await site.system.proctor()
    page = await connected(site, screens, with_own_clock)
    await page.locator("#mobile-start").click()
    await page.locator("#qr-image").wait_for()
    await proctor.say("remove", examineeId="E001", requestId="x1")
    await headline(page, "You were removed from this exam")
    assert await audit(page) == []
    assert await page.locator("#try-now").is_hidden()
    assert await page.locator("#mobile").is_hidden()  # no code is shown that lets no phone in
    await proctor.say("readmit", examineeId="E001", requestId="x2")
    await proctor.expect("examinee_readmitted", seconds=WAIT_SECONDS, examineeId="E001")
    await comes_back(page)
    await page.locator("#qr-image").wait_for()
