"""A token that has expired while a page was open: each page asks for another one, and waits for nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from actors.runtime.config.tokens import issue_token
from protocol.messages.frames import Role
from tests.browser.conftest import IN_A_BROWSER
from tests.browser.support.examinee_scene import CONNECTED, connected, headline
from tests.browser.support.phone_scene import Scene, choose, photo
from tests.browser.support.site import WAIT_SECONDS, Screens, Site, audit, with_own_clock
from tests.integration.support.system import eventually

expect = pytest.importorskip("playwright.async_api", reason="Playwright is not installed: no browser tests").expect

if TYPE_CHECKING:
    from playwright.async_api import Page, Route

pytestmark = IN_A_BROWSER

EXPIRED = "Your access has expired"
PHONE_EXPIRED = "This phone’s access has expired"
UNTIL_IT_ASKS = 75_000
"""More than the longest pause, in ms, after which a page asks again."""


class Expired:
    """The web server no longer accepts the first token that `page` shows it; `asked`: how often that was tried."""

    def __init__(self) -> None:
        self.asked = 0
        self._token: str | None = None

    async def on(self, page: Page) -> None:
        await page.route("**/v1/plans/**", self._answer)

    async def _answer(self, route: Route) -> None:
        authorization = route.request.headers.get("authorization")
        self._token = self._token or authorization
        if authorization != self._token:
            await route.continue_()
            return
        self.asked += 1
        problem = {"status": 401, "code": "UNAUTHORIZED", "detail": "the token has expired"}
        await route.fulfill(status=401, json=problem, content_type="application/problem+json")

    async def asks_no_more(self, page: Page) -> None:
        """Minutes later it is still the one time."""
        asked = self.asked
        assert asked >= 1
        for _ in range(3):
            await page.clock.fast_forward(UNTIL_IT_ASKS)
        assert self.asked == asked


def renewed(site: Site, role: Role, subject: str) -> str:
    """Another token of the same person."""
    return issue_token(site.settings, role, "P001", subject, seconds=7000)


async def give(page: Page, token: str) -> None:
    await page.locator("#token").fill(token)
    await page.locator("#token").press("Enter")


async def test_a_readmitted_examinee_with_an_expired_token_is_asked_for_a_new_one(site: Site, screens: Screens) -> None:
    screens.complaints.expect("401")
    proctor = await site.system.proctor()
    expired = Expired()
    page = await connected(site, screens, with_own_clock)
    await expired.on(page)
    await proctor.say("remove", examineeId="E001", requestId="x1")
    await headline(page, "You were removed from this exam")
    await proctor.say("readmit", examineeId="E001", requestId="x2")
    await proctor.expect("examinee_readmitted", seconds=WAIT_SECONDS, examineeId="E001")
    await page.clock.fast_forward(UNTIL_IT_ASKS)
    await headline(page, EXPIRED)
    assert await audit(page) == []
    await expired.asks_no_more(page)
    await give(page, renewed(site, "examinee", "E001"))
    await headline(page, CONNECTED)


async def test_a_phone_code_that_needs_another_token_says_so_and_comes_with_it(site: Site, screens: Screens) -> None:
    screens.complaints.expect("401")
    expired = Expired()
    page = await connected(site, screens, with_own_clock)
    await expired.on(page)
    await page.locator("#mobile-start").click()
    await headline(page, f"{CONNECTED}; your access has expired")
    await expect(page.locator("#mobile-note")).to_contain_text(EXPIRED)
    assert await audit(page) == []
    await page.clock.fast_forward(20_000)
    assert expired.asked == 1
    await page.get_by_role("button", name="Enter a new access token").click()
    await expect(page.locator("#token")).to_be_focused()
    await give(page, renewed(site, "examinee", "E001"))
    await headline(page, CONNECTED)
    await expect(page.locator("#qr-image")).to_be_visible()
    await expect(page.locator("#mobile-token")).to_be_hidden()


async def test_a_picture_from_the_computer_waits_for_another_token(site: Site, screens: Screens) -> None:
    screens.complaints.expect("401|501")
    expired = Expired()

    async def none(route: Route) -> None:
        await route.fulfill(status=501, json={"code": "NO_SECRET", "detail": "no codes here"})

    page = await connected(site, screens)
    await expired.on(page)
    await page.route("**/phone-code", none)
    await page.locator("#mobile-start").click()
    await page.locator("#picker").wait_for()
    await choose(page, photo(300, 200))
    await expect(page.locator("#upload-text")).to_contain_text(EXPIRED)
    await headline(page, f"{CONNECTED}; your access has expired")
    await give(page, renewed(site, "examinee", "E001"))
    await expect(page.locator("#mobile-chip")).to_have_text("Done")
    await expect(page.locator("#picture")).to_be_visible()


async def test_a_phone_that_waits_for_more_time_asks_for_another_code(scene: Scene) -> None:
    scene.screens.complaints.expect("401|409")
    proctor = await scene.site.system.proctor()
    phone = await scene.with_picture(before=with_own_clock)
    await scene.time_is_up()
    await proctor.expect("mobile_sync_status", seconds=WAIT_SECONDS, status="TIMED_OUT")
    await phone.locator("#use").click()
    await expect(phone.locator("#upload-title")).to_have_text("Time is up")
    expired = Expired()
    await expired.on(phone)
    await phone.clock.fast_forward(UNTIL_IT_ASKS)
    await expect(phone.locator("#upload-text")).to_contain_text(PHONE_EXPIRED)
    assert await audit(phone) == []
    await expired.asks_no_more(phone)
    await proctor.say("extend_mobile_sync", examineeId="E001", requestId="x1", seconds=300)
    await phone.get_by_role("button", name="Enter another code").click()
    await phone.locator("#code").fill(await scene.code())
    await phone.locator("#code-go").click()
    await expect(phone.locator("#step-done")).to_be_visible()


async def test_a_phone_without_a_picture_asks_for_another_code(scene: Scene) -> None:
    scene.screens.complaints.expect("401")
    phone = await scene.phone(await scene.waiting(), before=with_own_clock)
    await phone.locator("#shutter").wait_for()
    expired = Expired()
    await expired.on(phone)
    await phone.clock.fast_forward(UNTIL_IT_ASKS)
    await expect(phone.locator("#trouble-title")).to_have_text(PHONE_EXPIRED)
    assert await audit(phone) == []
    await expired.asks_no_more(phone)
    await phone.get_by_role("button", name="Enter another code").click()
    await phone.locator("#code").fill(await scene.code())
    await phone.locator("#code-go").click()
    await expect(phone.locator("#step-camera")).to_be_visible()
    await expect(phone.locator("#trouble-title")).not_to_have_text(PHONE_EXPIRED)


async def test_a_wall_whose_web_server_wants_another_token_asks_for_it_and_goes_on_meanwhile(
    site: Site, screens: Screens
) -> None:
    screens.complaints.expect("401")
    await site.system.examinee("E001")
    page = await screens.open(site.link("proctor", "proctor", "kim"))
    expired = Expired()
    await expired.on(page)
    await page.locator('.tile[data-id="E001"]').click()
    dialog = page.get_by_role("dialog", name="Proctor’s wall")
    await expect(dialog).to_contain_text(EXPIRED)
    assert await audit(page) == []
    await page.keyboard.press("Escape")  # not now
    await expect(page.locator("#link")).to_contain_text("Connected · SOCK00")
    await expect(page.locator("#timeline-note")).to_contain_text("the token has expired")
    await site.system.examinee("E002")
    await expect(page.locator('.tile[data-id="E002"]')).to_be_visible()
    await page.locator("#panel").get_by_role("button", name="Use another token").click()
    await dialog.get_by_label("Access token").fill(renewed(site, "proctor", "kim"))
    await dialog.get_by_role("button", name="Open the wall").click()

    async def told() -> bool:
        return await page.locator("#timeline li").count() > 0

    await eventually(told, "the timeline", WAIT_SECONDS)
    await expect(page.locator("#timeline-token")).to_be_hidden()
    await expect(page.locator("#link")).to_contain_text("Connected · SOCK00")
