"""The exam on the examinee's page: the waiting room, the clock by the server's time, handing in, and the end."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from protocol.messages.facts import Enrol
from protocol.messages.plan_facts import PlanClose, PlanOpen, PlanPolicy, PlanSchedule
from tests.browser.conftest import IN_A_BROWSER, QUICK_LADDER
from tests.browser.support.examinee_scene import CONNECTED, INTERRUPTED, Cable, connected, expect, headline
from tests.browser.support.site import Screens, Site, audit, audit_light_and_dark

if TYPE_CHECKING:
    from playwright.async_api import Page

pytestmark = IN_A_BROWSER

WAITING = "You are in the waiting room"
HANDED_IN = "You have handed in"
OVER = "The exam is over"


async def on_a_wrong_laptop(page: Page) -> None:
    """The clock of this laptop is years behind."""
    await page.clock.install(time="2020-01-01T00:00:00Z")


async def clock_says(page: Page, pattern: str) -> None:
    await expect(page.locator("#exam-clock")).to_have_text(re.compile(pattern))


async def hand_in(page: Page) -> None:
    await page.locator("#hand-in").click()
    await page.locator("#hand-in-yes").click()


async def test_the_clock_counts_by_the_server_from_the_waiting_room_to_the_end(site: Site, screens: Screens) -> None:
    policy = PlanPolicy(grace_seconds=300)
    starts_at = site.soon(3600)
    await site.decide(Enrol, examinee_id="E001", name="김민준")
    await site.decide(PlanSchedule, name="Mathematics", starts_at=starts_at, ends_at=site.soon(7200))
    page = await screens.open(site.link("examinee", "examinee", "E001"), before=on_a_wrong_laptop)
    await headline(page, WAITING)
    await expect(page.locator("#who")).to_have_text("김민준 (E001), exam P001")
    await clock_says(page, r"^Starts in (59:\d\d|1:00:00)$")
    await expect(page.locator("#exam-title")).to_have_text("Mathematics")
    if starts_at[:10] == site.soon(0)[:10]:  # today, by the server: without the date
        await expect(page.locator("#exam-text")).to_have_text(re.compile(r"^The exam begins at [\d:]{5,8}\."))
    assert await page.locator("#hand-in").is_hidden()
    assert await audit_light_and_dark(page) == []
    await page.locator("#language").select_option("ko")
    await clock_says(page, r"^시작까지 ")
    await headline(page, "시험 대기실에 입장하였습니다")
    assert await audit(page) == []
    await page.locator("#language").select_option("en")
    await site.decide(PlanSchedule, ends_at=site.soon(640), policy=policy, starts_at=site.soon(-1))
    await headline(page, CONNECTED)
    await clock_says(page, r"^10:[0-4]\d left$")
    said = page.locator("#said")
    await expect(said).to_contain_text("The exam has begun.")
    await page.clock.fast_forward(60_000)
    await expect(said).to_contain_text("10 minutes left.")
    await page.clock.fast_forward(300_000)
    await expect(said).to_contain_text("5 minutes left.")
    assert await audit_light_and_dark(page) == []
    await page.clock.fast_forward(300_000)
    await expect(said).to_contain_text("The time is up. Please hand in now.")
    await clock_says(page, r"^[345]:\d\d left to hand in$")
    assert not re.search(r"\d+:\d\d", await said.text_content() or ""), "the clock itself is not announced"


async def test_an_extension_is_shown_and_announced(site: Site, screens: Screens) -> None:
    await site.decide(PlanSchedule, ends_at=site.soon(600))
    page = await connected(site, screens)
    proctor = await site.system.proctor()
    await clock_says(page, r"^(9:\d\d|10:00) left$")
    await proctor.say("extend_exam", examineeId="E001", seconds=3600, requestId="x1")
    await clock_says(page, r"^1:0[89]:\d\d left$")
    await expect(page.locator("#said")).to_contain_text("You have more time now")


async def test_handing_in_is_confirmed_and_the_page_says_what_it_means(site: Site, screens: Screens) -> None:
    page = await connected(site, screens)
    proctor = await site.system.proctor()
    await page.locator("#hand-in").click()
    assert await audit_light_and_dark(page) == []
    await page.get_by_role("button", name="Go on with the exam").click()
    await headline(page, CONNECTED)
    await hand_in(page)
    await headline(page, HANDED_IN)
    await expect(page.locator("#connection-text")).to_have_text(
        "You may close this page. If you need to go on, ask your proctor."
    )
    await expect(page.locator("#said")).to_contain_text(HANDED_IN)
    assert await page.locator("#exam").is_hidden()
    assert await page.locator("#mobile").is_hidden()
    await site.system.status("E001", "FINISHED")
    assert await audit_light_and_dark(page) == []
    await page.locator("#language").select_option("ko")
    await headline(page, "제출이 완료되었습니다")
    await page.locator("#language").select_option("en")
    await page.reload()
    await headline(page, HANDED_IN)
    await proctor.say("resume", examineeId="E001", requestId="r1")
    await headline(page, CONNECTED)
    await proctor.say("finish", examineeId="E001", requestId="f1")
    await headline(page, "A proctor has ended your exam")
    await proctor.say("resume", examineeId="E001", requestId="r2")
    await headline(page, CONNECTED)
    await site.decide(PlanClose)
    await headline(page, OVER)
    await expect(page.locator("#connection")).to_have_attribute("data-tone", "good")
    await page.reload()
    await headline(page, OVER)
    assert await audit(page) == []


@QUICK_LADDER
async def test_what_is_handed_in_without_a_connection_is_not_lost_by_a_reload(site: Site, screens: Screens) -> None:
    cable = Cable()
    page = await connected(site, screens, cable.plug)
    await cable.cut()
    await headline(page, INTERRUPTED)
    await page.locator("#hand-in").click()
    await expect(page.locator("#hand-in-offline")).to_be_visible()
    await page.locator("#hand-in-yes").click()
    await expect(page.locator("#hand-in-asked")).to_contain_text("as soon as the connection is back")
    await page.reload()
    cable.mend()
    await headline(page, HANDED_IN)
    await site.system.status("E001", "FINISHED")


@QUICK_LADDER
async def test_a_loss_in_the_waiting_room_is_not_red(site: Site, screens: Screens) -> None:
    await site.decide(PlanSchedule, starts_at=site.soon(3600))
    cable = Cable()
    page = await screens.open(site.link("examinee", "examinee", "E001"), before=cable.plug)
    await headline(page, WAITING)
    await cable.cut()
    await headline(page, INTERRUPTED)
    await expect(page.locator("#connection")).to_have_attribute("data-tone", "warn")
    cable.mend()
    await headline(page, WAITING)
    await site.decide(PlanOpen)
    await headline(page, CONNECTED)
