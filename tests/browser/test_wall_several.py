"""Many examinees who are shut out are readmitted at once: by keyboard, on the real system, and through trouble."""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING, Any

import pytest

from protocol.times import format_time
from tests.browser.conftest import IN_A_BROWSER
from tests.browser.support.scripted_plan import Event, ScriptedPlan
from tests.browser.support.site import WAIT_SECONDS, Screens, Site, audit, audit_light_and_dark
from tests.browser.test_wall import REFUSED, expect, shut_out, tile, wall
from tests.integration.support.system import eventually

if TYPE_CHECKING:
    from playwright.async_api import Page

pytestmark = IN_A_BROWSER

SIX = [f"E{k:03}" for k in range(1, 7)]


@pytest.fixture
def changes() -> dict[str, Any]:
    """A short ladder: its end is where this begins."""
    return {"reconnect.max_attempts": 2, "reconnect.backoff_seconds": [1.0, 1.0]}


async def press_until(page: Page, key: str, selector: str) -> None:
    """Press a key until the focus is there, as somebody does who has no mouse."""
    for _ in range(40):
        if await page.locator(selector).evaluate("(one) => one === document.activeElement"):
            return
        await page.keyboard.press(key)
    raise AssertionError(f"{key} does not lead to {selector}")


async def hear(page: Page) -> None:
    """Remember each sentence of the live region in `window.heard`."""
    await page.evaluate(
        "window.heard = []; new MutationObserver(() => window.heard.push(document.getElementById('live').textContent))"
        ".observe(document.getElementById('live'), {childList: true, characterData: true, subtree: true})"
    )


async def test_all_exhausted_examinees_are_readmitted_by_keyboard_alone(site: Site, screens: Screens) -> None:
    clients = await asyncio.gather(*(site.system.examinee(examinee_id) for examinee_id in SIX))
    proctor = await site.system.proctor(name="lee")
    await proctor.say("remove", examineeId="E006", requestId="x1")
    page = await wall(site, screens)
    for client, examinee_id in zip(clients[:4], SIX, strict=False):
        client.abort()
        await expect(tile(page, examinee_id)).to_have_attribute("data-state", re.compile("lost|exhausted"))
    for client, examinee_id in zip(clients[:4], SIX, strict=False):
        await shut_out(site, page, client, examinee_id)
    await expect(tile(page, "E006")).to_have_attribute("data-state", "removed")
    await expect(page.locator("#readmit-listed")).to_be_hidden()  # nothing is chosen
    await hear(page)
    await page.keyboard.press("f")
    await press_until(page, "Tab", '#filters [data-state="exhausted"]')
    await page.keyboard.press("Enter")
    await press_until(page, "Tab", '#filters [data-state="removed"]')
    await page.keyboard.press("Enter")
    await expect(page.locator(".tile")).to_have_count(5)
    await expect(page.locator("#readmit-listed")).to_have_text("Readmit these 4")
    await press_until(page, "Tab", "#readmit-listed")
    await page.keyboard.press("Enter")
    dialog = page.get_by_role("dialog", name="Readmit 4 examinees?")
    await expect(dialog).to_contain_text("E001, E002, E003, E004")
    await expect(dialog).not_to_contain_text("E006")
    assert await audit(page) == []
    await page.keyboard.press("Escape")
    await expect(page.locator("#readmit-listed")).to_be_focused()
    await page.keyboard.press("Enter")
    await expect(dialog.get_by_role("button", name="Cancel")).to_be_focused()
    await page.keyboard.press("Tab")
    await page.keyboard.press("Enter")
    await expect(page.locator("#several-line")).to_be_focused()
    await expect(page.locator("#several-text")).to_have_text("4 readmitted")
    await expect(page.locator("#readmit-listed")).to_be_hidden()
    await expect(tile(page, "E006")).to_have_attribute("data-state", "removed")
    await expect(page.locator("#live")).to_contain_text("4 readmitted.")
    announcements = await page.evaluate("window.heard")
    assert sum(text.count("readmitted") for text in announcements) == 1, announcements
    assert await audit(page) == []
    await page.keyboard.press("Tab")
    await page.keyboard.press("Enter")  # it is read, and put away
    await expect(page.locator("#several-line")).to_be_hidden()
    await expect(tile(page, "E006")).to_be_focused()
    for examinee_id in SIX[:4]:
        await site.system.examinee(examinee_id, "SOCK002", connection_no=2)
    await page.keyboard.press("/")
    await page.keyboard.press("Escape")
    for examinee_id in SIX[:4]:
        await expect(tile(page, examinee_id)).to_have_attribute("data-state", "connected")
    await tile(page, "E003").click()
    await expect(page.locator("#timeline")).to_contain_text("Readmitted")
    await expect(page.locator("#timeline")).to_contain_text("by kim")
    await expect(page.locator('#actions [data-outcome="confirmed"]')).to_contain_text("Readmit")


async def test_the_line_of_an_incident_offers_its_exhausted_examinees(site: Site, screens: Screens) -> None:
    clients = [await site.system.examinee(f"A{k:02}", "SOCK001") for k in range(8)]
    for k in range(8):
        await site.system.examinee(f"B{k:02}", "SOCK002")
    page = await wall(site, screens)
    await expect(page.locator('#filters [data-state="all"]')).to_have_text("All 16")
    for client in clients:
        client.abort()
    line = page.locator(".incident")
    await expect(line).to_contain_text("8 shut out")
    await line.get_by_role("button", name="Readmit these 8").click()
    dialog = page.get_by_role("dialog", name="Readmit 8 examinees?")
    await expect(dialog).to_contain_text("and 3 more")
    await dialog.get_by_role("button", name="Readmit").click()
    await expect(page.locator("#several-text")).to_have_text("8 readmitted")
    await expect(line.locator(".incident-readmit")).to_be_hidden()
    for k in range(8):
        await expect(tile(page, f"A{k:02}")).to_have_attribute("data-state", "readmitted")


async def crowd(plan: ScriptedPlan, screens: Screens, many: int, **options: Any) -> Page:
    """The wall before a scripted plan in which the first `many` are shut out; only these are shown."""
    page = await screens.open(plan.link, **options)
    await expect(page.locator("#live")).to_contain_text("examinees")
    ids = list(plan.rows)[:many]
    await plan.say(*(plan.lost(examinee_id, ago=300) for examinee_id in ids))
    await plan.say(*(plan.shut_out(examinee_id) for examinee_id in ids))
    await page.locator('#filters [data-state="exhausted"]').click()
    await expect(page.locator("#readmit-listed")).to_have_text(f"Readmit these {many}")
    return page


def accepted(plan: ScriptedPlan, frame: Event) -> list[Event]:
    """What a server says to a `readmit`: that it is in the log, and its effect."""
    about = frame["data"]
    plan.version += 1
    row = plan.rows[about["examineeId"]]
    row["version"] = row["connection"]["version"] = plan.version
    row["reconnect"] |= {"exhausted": False, "attempt": 0}
    row["connection"]["reason"] = "READMITTED"
    event = {"planId": "P001", "examineeId": about["examineeId"], "by": "kim", "actionId": about["requestId"]}
    event |= {"status": "DISCONNECTED", "timestamp": format_time(0), "version": plan.version}
    answer = {"requestType": "readmit", "requestId": about["requestId"]}
    return [{"type": "accepted", "data": answer}, {"type": "examinee_readmitted", "data": event}]


def refused(frame: Event) -> Event:
    about = {"requestType": "readmit", "requestId": frame["data"]["requestId"]}
    return {"type": "error", "data": {**about, "code": "NOT_FOUND", "message": "no such examinee"}}


async def asked(plan: ScriptedPlan, many: int) -> list[Event]:
    """The frames that came, once there are so many."""

    async def there() -> bool:
        return len(plan.asked) >= many

    await eventually(there, f"{many} frames; {len(plan.asked)} came", WAIT_SECONDS)
    frames = plan.asked[:]
    plan.asked.clear()
    return frames


async def test_a_connection_lost_in_the_middle_asks_for_nobody_twice(screens: Screens) -> None:
    screens.complaints.expect(REFUSED)
    async with ScriptedPlan(60) as plan, screens:
        page = await crowd(plan, screens, 40)
        await page.locator("#readmit-listed").click()
        await page.locator("#several-dialog").get_by_role("button", name="Readmit").click()
        first = await asked(plan, 16)
        actions = {frame["data"]["examineeId"]: frame["data"]["requestId"] for frame in first}
        for frame in first[:10]:
            accepted(plan, frame)  # in the log, but nobody has told the page
        await plan.close_socket()
        await expect(page.locator("#several-text")).to_contain_text("continues when this page is connected again")
        await plan.open_socket()
        second_requests = await asked(plan, 16)
        assert {frame["data"]["examineeId"]: frame["data"]["requestId"] for frame in second_requests[:16]} == actions
        request_ids = {frame["data"]["requestId"] for frame in second_requests}
        todo = second_requests
        while len(request_ids) < 40:
            await plan.say(*(event for frame in todo for event in accepted(plan, frame)))
            todo = await asked(plan, 1)
            assert not request_ids & {frame["data"]["requestId"] for frame in todo}
            request_ids |= {frame["data"]["requestId"] for frame in todo}
        *rest, one, other = todo if len(todo) > 1 else [*todo, *todo]
        await plan.say(*(event for frame in rest for event in accepted(plan, frame)), refused(one), refused(other))
        bad = sorted({frame["data"]["examineeId"] for frame in (one, other)})
        why = "there is no such examinee in this plan"
        text = f"{40 - len(bad)} readmitted, {len(bad)} refused: {', '.join(bad)} ({why})"
        await expect(page.locator("#several-text")).to_have_text(text)
        await page.locator("#several-again").click()
        await expect(page.locator("#several-line")).to_be_focused()
        for frame in await asked(plan, len(bad)):
            assert frame["data"]["requestId"] in request_ids
            await plan.say(*accepted(plan, frame))
        await expect(page.locator("#several-text")).to_have_text("40 readmitted")
        await expect(page.locator('#filters [data-state="all"]')).to_have_attribute("aria-pressed", "true")
        # Nobody is left in the filter, so it lets go.
        await expect(page.locator(".slot").first).to_have_attribute("aria-setsize", "60")


@pytest.mark.parametrize(("size", "locale"), [((320, 568), "ko-KR"), ((1280, 800), "en-GB")])
async def test_the_question_and_the_outcome_hinder_nobody(screens: Screens, size: tuple[int, int], locale: str) -> None:
    async with ScriptedPlan(60) as plan, screens:
        view = {"width": size[0], "height": size[1]}
        page = await screens.open(plan.link, viewport=view, locale=locale)
        await expect(page.locator(".tile").first).to_be_visible()
        ids = list(plan.rows)[:40]
        await plan.say(*(plan.lost(examinee_id, ago=300) for examinee_id in ids))
        await plan.say(*(plan.shut_out(examinee_id) for examinee_id in ids))
        await page.locator('#filters [data-state="exhausted"]').click()
        await page.locator("#readmit-listed").click()
        await expect(page.locator("#several-dialog")).to_be_visible()
        assert await audit_light_and_dark(page) == []
        await page.locator('#several-dialog [value="yes"]').click()
        answer_count = 0
        while answer_count < 40:
            frames = await asked(plan, 1)
            answer_count += len(frames)
            await plan.say(*(refused(frame) for frame in frames if frame["data"]["examineeId"] in ids[:9]))
            unanswered = [frame for frame in frames if frame["data"]["examineeId"] not in ids[:9]]
            await plan.say(*(event for frame in unanswered for event in accepted(plan, frame)))
        await expect(page.locator("#several-again")).to_be_visible()
        await expect(page.locator("#several-line")).to_be_focused()
        assert await audit_light_and_dark(page) == []
        assert await page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
