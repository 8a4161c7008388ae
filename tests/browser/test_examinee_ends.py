"""The examinee's page when it ends: attempts used up, let in again, removed. With a ladder of some seconds."""

from __future__ import annotations

from typing import Any

import pytest

from tests.browser.conftest import IN_A_BROWSER
from tests.browser.site import Screens, Site, audit
from tests.browser.test_examinee import CONNECTED, Cable, headline

pytest.importorskip("playwright.async_api", reason="Playwright is not installed: no browser tests")

pytestmark = IN_A_BROWSER

SHUT_OUT = "Your proctor has to let you in again"


@pytest.fixture
def changes() -> dict[str, Any]:
    return {"reconnect.max_attempts": 2, "reconnect.backoff_seconds": [1.0, 1.0]}


async def test_whoever_used_up_the_attempts_is_told_so_and_is_back_when_readmitted(
    site: Site, screens: Screens
) -> None:
    proctor = await site.system.proctor()
    page = await screens.open(f"{site.url}/examinee")
    cable = await Cable.of(page)
    await page.goto(site.link("examinee", "examinee", "E001"))
    await page.reload()
    await headline(page, CONNECTED)
    await cable.cut()
    await headline(page, "The exam server cannot be reached")
    assert await audit(page) == []
    await proctor.expect("examinee_reconnect_exhausted", examineeId="E001")
    cable.mend()
    await page.get_by_role("button", name="Try again").click()  # it gets as far as the server, which refuses
    await headline(page, SHUT_OUT)
    assert await audit(page) == []
    await proctor.say("readmit", examineeId="E001", requestId="r1")
    await headline(page, CONNECTED, seconds=20)  # without a hand on it


async def test_a_page_that_gave_up_learns_by_itself_that_it_is_shut_out_and_let_in(
    site: Site, screens: Screens
) -> None:
    proctor = await site.system.proctor()
    page = await screens.open(f"{site.url}/examinee")
    cable = await Cable.of(page)
    await page.goto(site.link("examinee", "examinee", "E001"))
    await page.reload()
    await headline(page, CONNECTED)
    await cable.cut()
    await proctor.expect("examinee_reconnect_exhausted", examineeId="E001")
    cable.mend()
    await headline(page, SHUT_OUT, seconds=20)
    await proctor.say("readmit", examineeId="E001", requestId="r1")
    await headline(page, CONNECTED, seconds=20)


async def test_whoever_is_removed_is_told_so_and_is_back_when_let_in(site: Site, screens: Screens) -> None:
    proctor = await site.system.proctor()
    page = await screens.open(site.link("examinee", "examinee", "E001"))
    await headline(page, CONNECTED)
    await proctor.say("remove", examineeId="E001", requestId="x1")
    await headline(page, "You were removed from this exam")
    assert await audit(page) == []
    assert await page.locator("#try-now").is_hidden()
    await proctor.say("readmit", examineeId="E001", requestId="x2")
    await headline(page, CONNECTED, seconds=20)
