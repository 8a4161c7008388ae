"""The wall at the beginning, in the middle and at the end of an exam, and what a proctor decides about it."""

from __future__ import annotations

import csv
import io
import re
import time
from typing import TYPE_CHECKING, Any

import pytest

from actors.runtime.broker.connection import Bus
from protocol.messages.plan_facts import PlanClose, PlanFact, PlanSchedule
from protocol.times import format_time
from tests.browser.conftest import IN_A_BROWSER
from tests.browser.support.scripted_plan import ScriptedPlan
from tests.browser.support.site import Screens, Site, audit, with_own_clock
from tests.browser.test_wall import expect, tile, wall
from tests.integration.exam.test_life_of_a_plan import decide

if TYPE_CHECKING:
    from playwright.async_api import Page

pytestmark = IN_A_BROWSER

IDS = [f"E{k:04}" for k in range(1, 31)]
RED = "(tiles) => tiles.filter((tile) => tile.dataset.tone === 'bad').map((tile) => tile.dataset.id)"
WORDS = {
    "en-GB": ("Not here yet 20", "Here, waiting 10", "Finished 21", "Over 9", "starts in", "Over", "left"),
    "ko-KR": ("입장 전 20", "입장, 대기 중 10", "응시 완료 21", "시험 종료 9", "후 시작", "종료", "남음"),
}


@pytest.fixture
def changes() -> dict[str, Any]:
    return {"reconnect.max_attempts": 2, "reconnect.backoff_seconds": [60.0, 60.0]}


async def quiet(page: Page) -> None:
    """Nothing is red, nobody needs attention, nothing is an incident."""
    assert await page.locator(".tile").evaluate_all(RED) == []
    await expect(page).to_have_title(re.compile(r"^[^(]"))
    await expect(page.locator("#incidents")).to_be_hidden()


async def counts_add_up(page: Page) -> None:
    counts = await page.locator("#filters button:not([hidden])").evaluate_all(
        "(all) => all.map((one) => Number(one.textContent.replace(/\\D/g, '')))"
    )
    assert counts[0] == sum(counts[1:]) == len(IDS)


@pytest.mark.parametrize("locale", list(WORDS))
async def test_before_the_start_and_after_the_end_nothing_is_red(screens: Screens, locale: str) -> None:
    not_started, early, finished, over, starts_in, is_over, left = WORDS[locale]
    async with ScriptedPlan(30) as plan, screens:
        for examinee_id in IDS[18:]:
            plan.never_came(examinee_id)
        plan.exam("SCHEDULED", starts_in=60, ends_in=3600, name="Mathematics")
        page = await screens.open(plan.link, locale=locale, before=with_own_clock)
        await expect(page.locator('#filters [data-state="early"]')).to_contain_text("18")
        await expect(page.locator("#exam-clock")).to_contain_text(starts_in)
        # Many leave the waiting room at once: nobody is missed, and it is no incident, also not later.
        await plan.say(plan.phone("E0018", "TIMED_OUT"), *(plan.lost(examinee_id) for examinee_id in IDS[:8]))
        await expect(page.locator('#filters [data-state="notStarted"]')).to_have_text(not_started)
        await expect(page.locator('#filters [data-state="early"]')).to_have_text(early)
        await quiet(page)
        await counts_add_up(page)
        assert await audit(page) == []
        await page.clock.fast_forward(61_000)  # no message says that the time has come
        await expect(tile(page, "E0005")).to_have_attribute("data-state", "lost")
        await expect(tile(page, "E0018")).to_have_attribute("data-state", "syncFailed")
        await expect(page.locator("#incidents")).to_be_hidden()
        await expect(page.locator("#exam-clock")).to_contain_text(left)
        await counts_add_up(page)
        await plan.say(*(plan.finished(examinee_id) for examinee_id in IDS[:14]), plan.exam("OPEN", ends_in=3600))
        await plan.say(*(plan.lost(examinee_id) for examinee_id in IDS[14:24]))
        await expect(page.locator(".incident")).to_be_visible()
        await counts_add_up(page)
        closed = plan.exam("CLOSED", ends_in=-1, closedAt=format_time(time.time()), closedBy="schedule")
        await plan.say(closed, *(plan.finished(examinee_id, by="plan") for examinee_id in (*IDS[14:20], "E0028")))
        await expect(page.locator('#filters [data-state="finished"]')).to_have_text(finished)
        await expect(page.locator('#filters [data-state="over"]')).to_have_text(over)
        await expect(page.locator("#exam-status")).to_have_text(is_over)
        await quiet(page)
        await counts_add_up(page)
        await plan.say(plan.lost("E0029"))
        await expect(tile(page, "E0029")).to_have_attribute("data-state", "over")
        assert await audit(page) == []


async def test_the_plan_says_how_long_it_lasts_and_who_has_more_time(screens: Screens) -> None:
    async with ScriptedPlan(3) as plan, screens:
        own = {"E0001": {"startsIn": -60.0, "endsIn": 5400.0}}
        plan.exam("OPEN", starts_in=-60, ends_in=3600.5, own=own, name="Mathematics")
        page = await screens.open(plan.link)
        await expect(page).to_have_title("Mathematics")
        pattern = r"^(1:00:00|59:5\d) left, 1 with more time, until \d\d:\d\d$"
        await expect(page.locator("#exam-clock")).to_have_text(re.compile(pattern))
        await expect(tile(page, "E0001")).to_contain_text(re.compile(r"until \d\d:\d\d"))
        await page.get_by_role("button", name="More time for everybody").click()
        dialog = page.get_by_role("dialog", name="More time for everybody?")
        await dialog.get_by_label("Longer by").select_option("300")
        assert await audit(page) == []
        await dialog.get_by_role("button", name="Give more time").click()
        await expect(page.locator("#exam-action")).to_contain_text("5 mins more for everybody: sending")
        (frame,) = plan.asked
        assert (frame["type"], frame["data"]["seconds"], "examineeId" in frame["data"]) == ("extend_exam", 300, False)
        answer = {"requestType": "extend_exam", "requestId": frame["data"]["requestId"]}
        await plan.say({"type": "error", "data": {**answer, "code": "CONFLICT", "message": "no end to move"}})
        await expect(page.locator("#exam-action")).to_contain_text("refused: the plan has no end that could be moved")


async def operator_decides(site: Site, fact: type[PlanFact], **fields: Any) -> None:
    bus = await Bus.connect(site.settings.nats_url, "operator")
    await decide(bus, fact, **fields)
    await bus.close()


async def test_a_proctor_finishes_resumes_and_extends(site: Site, screens: Screens) -> None:
    clients = [await site.system.examinee(f"E00{k}") for k in range(1, 4)]
    await operator_decides(site, PlanSchedule, ends_at=format_time(time.time() + 3600), name="Physics")
    page = await wall(site, screens)
    await expect(page.locator("#exam-status")).to_have_text("Running")
    await tile(page, "E001").click()
    await page.get_by_role("button", name="Finish exam").click()
    await page.get_by_role("dialog", name="Finish the exam of E001?").get_by_role("button", name="Finish").click()
    await expect(tile(page, "E001")).to_have_attribute("data-state", "finished")
    await expect(tile(page, "E001")).to_contain_text("by kim")
    await expect(page.locator('#actions [data-outcome="confirmed"]')).to_contain_text("Finish exam")
    await clients[0].close()  # and nobody is told
    await page.get_by_role("button", name="Resume exam").click()
    await expect(tile(page, "E001")).to_contain_text("Resumed")
    await page.get_by_role("button", name="More time …", exact=True).click()
    await page.get_by_role("dialog", name="More time for E001?").get_by_role("button", name="Give more time").click()
    await expect(page.locator("#exam-clock")).to_contain_text("1 with more time, until")
    for text in ("Exam scheduled, until", "Finished", "Disconnected after finishing", "Resumed", "more time, until"):
        await expect(page.locator("#timeline")).to_contain_text(text)
    await page.keyboard.press("Escape")
    await page.locator("#search").fill("E00")
    await page.get_by_role("button", name="Finish these 3").click()
    await (
        page.get_by_role("dialog", name="Finish the exam of 3 examinees?").get_by_role("button", name="Finish").click()
    )
    await expect(page.locator("#several-text")).to_have_text("3 finished")
    for k in range(1, 4):
        await expect(tile(page, f"E00{k}")).to_have_attribute("data-state", "finished")
    await operator_decides(site, PlanClose, reason="over")
    await expect(page.locator("#exam-status")).to_have_text("Over")
    await tile(page, "E002").click()
    await expect(page.get_by_role("button", name="Resume exam")).to_have_attribute("aria-disabled", "true")
    await expect(page.locator("#timeline")).to_contain_text("The exam is over: over")


async def test_one_page_shows_several_plans(site: Site, screens: Screens) -> None:
    first = await site.system.examinee("E001")
    second = await site.system.examinee("E001", plan_id="P002")
    link = f"{site.link('proctor', 'proctor', 'kim')}&token={site.system.token('proctor', 'kim', 'P002')}"
    page = await screens.open(link)
    tabs = page.get_by_role("navigation", name="Plans").get_by_role("button")
    await expect(tabs).to_have_count(2)
    await expect(tabs.nth(0)).to_contain_text("1 of 1 connected")
    await expect(tabs.nth(1)).to_contain_text("1 of 1 connected")
    await expect(tile(page, "E001")).to_have_attribute("data-state", "connected")
    second.abort()
    await expect(tabs.nth(1)).to_contain_text("1 needs attention")
    await expect(tile(page, "E001")).to_have_attribute("data-state", "connected")
    await expect(page).to_have_title("(1) Plan P001")
    await expect(page.locator("#live")).to_contain_text(re.compile("P002: .*E001 lost"))
    assert await audit(page) == []
    await tabs.nth(1).click(delay=300)
    await expect(tile(page, "E001")).to_have_attribute("data-state", "lost")
    await tile(page, "E001").click()
    await expect(page.locator("#timeline")).to_contain_text("Lost")
    await page.reload()
    await expect(tabs).to_have_count(2)
    await expect(tabs.nth(0)).to_have_attribute("aria-current", "true")
    await expect(tile(page, "E001")).to_have_attribute("data-state", "connected")
    await first.close()


async def test_rooms_are_shown_searched_filtered_and_named_by_incidents(screens: Screens) -> None:
    async with ScriptedPlan(90) as plan, screens:
        plan.seat(lambda k: str(k // 30 + 1))
        plan.exam("OPEN", ends_in=3600)
        plan.scope = {"room": ["1", "2", "3"]}
        page = await screens.open(plan.link)
        await expect(page.locator("#exam-scope")).to_have_text("You see Room 1, Room 2, Room 3 only")
        await expect(page.locator("#extend-all")).to_be_hidden()  # there may be others
        await expect(tile(page, "E0031").locator(".tile-place")).to_have_text("2 · 1")
        chips = page.get_by_role("group", name="Show only some rooms").get_by_role("button")
        await expect(chips).to_have_text(["Room 1 30", "Room 2 30", "Room 3 30"])
        await chips.nth(2).click()
        await expect(page.locator(".tile")).to_have_count(30)
        assert await audit(page) == []
        saved, printed = await saved_and_printed(page, "30 of 90 examinees · Filter: Room 3")
        assert saved[0][:5] == ["ID", "Name", "Room", "Seat", "State"]
        assert [row[0] for row in saved[1:]] == printed == [f"E{k:04}" for k in range(61, 91)]
        assert saved[1][2:5] == ["3", "1", "Connected"]
        await page.locator("#search").fill("e0064 3")
        await expect(tile(page, "E0064")).to_be_visible()
        await expect(page.locator(".tile")).to_have_count(1)
        await expect(page.locator("#live")).to_contain_text("1 examinee shown.")
        await page.keyboard.press("Escape")
        await expect(page.locator("#live")).to_contain_text("90 examinees shown.", timeout=8_000)
        await expect(page.locator('#filters [data-state="all"]')).to_have_attribute("aria-pressed", "true")
        await expect(chips.nth(2)).to_have_attribute("aria-pressed", "false")
        await plan.say(*(plan.lost(f"E{k:04}") for k in range(61, 85)))
        await expect(page.locator(".incident")).to_contain_text("Room 3: 24 of 30 lost")
        await expect(tile(page, "E0061")).to_have_count(0)  # behind the line of the incident
        saved, printed = await saved_and_printed(page, "90 of 90 examinees")
        assert len(printed) == len(set(printed)) == 90, "the list leaves nobody out"
        assert [row[0] for row in saved[1:]] == printed
        await plan.say(
            {"type": "plan_snapshot", "data": {"planId": "P001", "examinees": list(plan.rows.values())[:60]}}
        )
        await expect(page.locator('#filters [data-state="all"]')).to_have_text("All 60")  # out of the proctor's scope
        await expect(page.locator("#incidents")).to_be_hidden()
        await expect(page).to_have_title("Plan P001")


async def saved_and_printed(page: Page, whom: str) -> tuple[list[list[str]], list[str]]:
    """The rows of the list as it is saved, and the ids of what is printed, whose head says `whom` the list has."""
    async with page.expect_download() as download:
        await page.get_by_role("button", name="Save as CSV").click()
    content = (await (await download.value).path()).read_bytes()
    await page.emulate_media(media="print")
    await page.evaluate("dispatchEvent(new Event('beforeprint'))")
    await expect(page.locator("#paper-what")).to_contain_text(whom)
    await expect(page.locator("#wall")).to_be_hidden()
    printed = await page.locator("#paper-table tbody td:first-child").all_inner_texts()
    await page.evaluate("dispatchEvent(new Event('afterprint'))")
    await page.emulate_media(media="screen")
    return list(csv.reader(io.StringIO(content.decode("utf-8-sig")))), printed


async def test_a_flag_comes_up_is_said_in_words_and_is_put_aside(screens: Screens) -> None:
    screens.complaints.expect("timeline")  # the scripted plan has no log
    async with ScriptedPlan(20) as plan, screens:
        page = await screens.open(plan.link)
        await tile(page, "E0001").wait_for()
        await plan.say(plan.taken_over("E0012", "address", "device"))
        flagged = tile(page, "E0012")
        await expect(page.locator(".tile").first).to_have_attribute("data-id", "E0012")
        await expect(flagged).to_contain_text("another address, device")
        await page.get_by_role("button", name="Check identity 1").click()
        await expect(page.locator(".tile")).to_have_count(1)
        await flagged.click()
        await expect(page.locator("#panel-marks")).to_contain_text("another address, device")
        assert await audit(page) == []
        await page.get_by_role("button", name="I have checked it").click()
        await expect(page.locator("#panel-marks")).to_be_hidden()
        await expect(page.locator(".tile")).to_have_count(0)
        await plan.say(plan.taken_over("E0012", "address", "device"))
        await expect(flagged).to_be_visible()


async def test_a_refused_token_of_one_plan_leaves_the_others_alone(site: Site, screens: Screens) -> None:
    await site.system.examinee("E001")
    good = site.system.token("proctor", "kim", "P002")
    link = f"{site.link('proctor', 'proctor', 'kim')}&token={good[:-4]}AAAA"
    page = await screens.open(link)
    door = page.get_by_role("dialog", name="Proctor’s wall")
    await expect(door).to_contain_text("P002: The token was not accepted")
    await page.keyboard.press("Escape")
    tabs = page.get_by_role("navigation", name="Plans").get_by_role("button")
    await expect(tabs.nth(1)).to_contain_text("Not connected: the token is not valid")
    await expect(tabs.nth(0)).to_contain_text("1 of 1 connected")
    await expect(page.locator("#stale")).to_be_hidden()
    await tabs.nth(1).click()
    await expect(page.locator("#stale")).to_be_visible()
    assert await audit(page) == []
    await page.get_by_role("button", name="Add a plan").click()
    await door.get_by_label("Access token").fill(good)
    await door.get_by_role("button", name="Open the wall").click()
    await expect(page.locator("#link")).to_contain_text("Connected · SOCK00")
    await page.get_by_role("button", name="Add a plan").click()
    await door.get_by_label("Access token").fill(site.system.token("proctor", "kim", "P003"))
    await door.get_by_role("button", name="Open the wall").click()
    await expect(tabs).to_have_count(3)
