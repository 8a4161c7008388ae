"""The wall's tiles before a scripted plan: their places, and where focus and tab order go while these change."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from tests.browser.conftest import IN_A_BROWSER
from tests.browser.support.scripted_plan import ScriptedPlan
from tests.browser.support.site import Screens, audit
from tests.browser.test_wall import expect, tile

if TYPE_CHECKING:
    from playwright.async_api import FloatRect, Locator, Page

pytestmark = IN_A_BROWSER


async def test_the_focus_stays_with_its_examinee_while_the_order_changes(screens: Screens) -> None:
    async with ScriptedPlan(120) as plan, screens:
        page = await screens.open(plan.link, viewport={"width": 1280, "height": 800})
        await expect(page.locator("#live")).to_contain_text("120 examinees")
        focused = tile(page, "E0030")
        await focused.focus()
        await focused.evaluate(
            "(tile) => { window.held = tile; window.left = 0; tile.onblur = () => { window.left += 1; }; }"
        )
        for happens, to_whom, place in (
            (plan.lost, range(40, 100), 90),  # it goes down, by some rows and a column
            (plan.lost, range(30, 31), 61),  # and up
            (plan.back, range(40, 90), 11),
        ):
            await plan.say(*(happens(f"E{k:04}", ago=20 * k) for k in to_whom))  # no incident
            slot = page.locator(".slot", has=focused)
            await expect(slot).to_have_attribute("aria-posinset", str(place))
            await expect(focused).to_be_focused()
            await expect(focused).to_be_in_viewport(ratio=0.9)
            assert await focused.evaluate(SEEN), "something lies over what has the focus"
            assert await places(page) == sorted(await places(page))
        assert await focused.evaluate("(tile) => tile === window.held && window.left === 0")
        await expect(page.locator(".tile[tabindex='0']")).to_have_attribute("data-id", "E0030")


async def test_the_focus_of_a_hidden_tile_moves_to_the_tile_in_its_place(screens: Screens) -> None:
    async with ScriptedPlan(40) as plan, screens:
        page = await screens.open(plan.link, viewport={"width": 1280, "height": 800})
        await plan.say(*(plan.lost(f"E{k:04}", ago=100 - k) for k in range(1, 11)))
        await page.locator('#filters [data-state="lost"]').click()
        await expect(page.locator(".tile")).to_have_count(10)
        await tile(page, "E0003").focus()
        await plan.say(plan.back("E0003"))
        await expect(page.locator(".tile")).to_have_count(9)
        await expect(tile(page, "E0004")).to_be_focused()
        await plan.say(*(plan.back(f"E{k:04}") for k in (1, 2, *range(4, 11))))
        await expect(page.locator("#nobody")).to_be_visible(timeout=15_000)
        await expect(page.locator("#tiles")).to_be_focused()


async def test_the_tab_key_finds_the_tiles_also_when_they_were_scrolled_away(screens: Screens) -> None:
    async with ScriptedPlan(1000) as plan, screens:
        page = await screens.open(plan.link, viewport={"width": 1280, "height": 800})
        await tile(page, "E0001").wait_for()
        await page.evaluate("scrollTo(0, 5000)")
        await expect(tile(page, "E0001")).not_to_be_in_viewport()
        await page.locator('#filters [data-state="done"]').focus()
        await page.keyboard.press("Tab")
        await expect(tile(page, "E0001")).to_be_focused()
        await expect(tile(page, "E0001")).to_be_in_viewport()


async def test_at_a_glance_2000_are_in_view_and_everybody_has_a_fixed_place(screens: Screens) -> None:
    async with ScriptedPlan(2000) as plan, screens:
        plan.seat(lambda k: str(k // 288))
        page = await screens.open(plan.link, viewport={"width": 1366, "height": 768})
        sort = page.get_by_label("Sort")
        await expect(sort).to_have_value("attention")
        await sort.select_option("name")
        await plan.say(plan.lost("E1800"))
        await expect(page.locator("#below")).to_contain_text("below · 1 needs attention")
        await page.get_by_label("Tiles").select_option("dots")
        await expect(sort).to_have_value("id")
        await expect(page.locator(".tile")).to_have_count(2000)
        await expect(page.locator("#below")).to_be_hidden()  # and it covers nothing that it could count
        await plan.say(plan.back("E1800"))
        labels = await page.locator(".tile-row").evaluate_all("(rows) => rows.map((row) => row.dataset.label)")
        assert labels[:3] == ["E0001", "E0071", "E0141"]
        before = await box_of(tile(page, "E2000"))
        await plan.say(*(plan.lost(f"E{k:04}") for k in range(200, 260)))  # the line of an incident appears
        await expect(page.locator(".incident")).to_be_visible()
        await expect(tile(page, "E2000")).to_be_in_viewport(ratio=1)
        after = await box_of(tile(page, "E2000"))
        assert (before["x"], before["width"]) == (after["x"], after["width"])
        await expect(page.locator("#below")).to_be_hidden()
        await expect(page.locator("#hidden")).to_be_hidden()  # a map has no holes
        assert await places(page) == list(range(1, 2001))
        assert await page.locator(".tile").nth(199).get_attribute("data-id") == "E0200"
        # Dots for a mouse are small; the search and the larger tiles do the same (WCAG 2.5.8, "equivalent").
        assert [text for text in await audit(page) if not text.startswith("target-size")] == []
        await page.emulate_media(forced_colors="active")
        colours = {who: await tile(page, who).evaluate(BACKGROUND) for who in ("E0001", "E0200")}
        assert colours["E0001"] != colours["E0200"], "the lost look like the others"
        await page.emulate_media(forced_colors="none")
        await page.set_viewport_size({"width": 800, "height": 600})
        await plan.say(plan.lost("E2000"))
        await expect(page.locator("#below")).to_have_text(re.compile(r"^\s*1,\d\d\d below · 61 need attention\s*$"))
        await page.locator("#below").click()
        await expect(tile(page, "E0200")).to_be_focused()
        await expect(tile(page, "E0259")).to_be_in_viewport(ratio=1)
        await expect(page.locator("#below")).to_contain_text("below · 1 needs attention")
        await page.set_viewport_size({"width": 1366, "height": 768})
        await expect(tile(page, "E0200")).to_have_accessible_name(re.compile("E0200 .* · Lost"))
        await sort.select_option("attention")
        await expect(page.locator(".tile").first).to_have_attribute("data-id", "E0200")
        await expect(page.locator("#hidden")).to_be_hidden()
        await page.get_by_label("Tiles").select_option("small")
        await expect(page.locator("#hidden-text")).to_contain_text("50 lost together")
        await expect(sort).to_have_value("attention")
        await page.reload()
        await page.get_by_label("Tiles").select_option("dots")
        await expect(sort).to_have_value("attention")  # chosen once, kept


BACKGROUND = "(one) => getComputedStyle(one).backgroundColor"


async def box_of(element: Locator) -> FloatRect:
    """Where an element is in the window, and its size, in px, once what has just changed is drawn."""
    await element.page.evaluate("new Promise((drawn) => requestAnimationFrame(() => requestAnimationFrame(drawn)))")
    box = await element.bounding_box()
    assert box is not None, "it has no place"
    return box


async def places(page: Page) -> list[int]:
    """The places of the tiles in the order of the document, as screen readers hear of them."""
    positions: list[int] = await page.locator(".slot").evaluate_all(
        "(all) => all.map((one) => Number(one.ariaPosInSet))"
    )
    return positions


async def test_one_key_turns_the_alerts_off_also_under_a_korean_input_method(screens: Screens) -> None:
    screens.complaints.expect("timeline")  # the scripted plan has no log
    async with ScriptedPlan(20) as plan, screens:
        page = await screens.open(plan.link, before=lambda page: page.add_init_script(LISTEN))
        sound, root = page.locator("#sound"), page.locator("html")
        await expect(tile(page, "E0001")).to_be_visible()
        await plan.say(plan.lost("E0001"), plan.lost("E0002"))
        await expect(page).to_have_title("(2) Plan P001")
        await expect(page.locator("#live")).to_contain_text("E0001 김민준, E0002 이하윤 lost.")
        await expect(sound).to_have_text("Click once to hear alerts")
        # The sound is due, and the browser allows none.
        await expect(tile(page, "E0001")).to_contain_text(re.compile("0:(0[4-9]|[1-5])"))
        await page.locator("#plan").click()
        await expect(root).to_have_attribute("data-tones", "2")  # late, but heard
        await expect(sound).to_have_text("Alerts on")
        await page.keyboard.press("m")
        await expect(page).to_have_title("Plan P001")
        await plan.say(plan.lost("E0003"))
        await expect(page.locator('#filters [data-state="lost"]')).to_have_text("Lost 3")
        await expect(page).to_have_title("Plan P001")
        await press(page, "body", key="Process", code="KeyM", keyCode=229)
        await expect(page).to_have_title("(3) Plan P001")
        await press(page, "body", key="ㅡ", code="KeyM")
        await expect(page).to_have_title("Plan P001")
        await press(page, "body", key="Process", code="Slash", keyCode=229)
        await expect(page.locator("#search")).to_be_focused()
        keyboard = await page.context.new_cdp_session(page)
        for typed, found in (("ㄱ", 4), ("김", 2), ("김ㅁ", 2), ("김믽", 2)):
            await keyboard.send("Input.imeSetComposition", {"text": typed, "selectionStart": 1, "selectionEnd": 1})
            await expect(page.locator(".tile")).to_have_count(found)
        await expect(page.locator("#live")).to_have_text(re.compile(r"^2 examinees shown\.(?!.*shown)"))
        for key in ("Escape", "ArrowDown", "m"):  # they belong to the syllable
            await press(page, "#search", key=key, isComposing=True)
        await expect(page.locator("#search")).to_have_value("김믽")
        await expect(page.locator("#search")).to_be_focused()
        await keyboard.send("Input.insertText", {"text": "김민"})
        await page.keyboard.press("Escape")
        await expect(page.locator(".tile")).to_have_count(20)
        await tile(page, "E0001").click()
        await page.locator("#notify-text").focus()
        await keyboard.send("Input.imeSetComposition", {"text": "네", "selectionStart": 1, "selectionEnd": 1})
        await press(page, "#notify-text", key="Escape", isComposing=True)
        await press(page, "#notify-text", key="Process", code="Enter", ctrlKey=True, isComposing=True)
        await expect(page.locator("#panel")).to_be_visible()
        assert plan.asked == []
        await keyboard.send("Input.insertText", {"text": "네"})
        await expect(page.locator("#actions li")).to_contain_text("Message “네”")
        await press(page, "#notify-text", key="Enter", ctrlKey=True)  # some browsers say it again
        await expect(page.locator("#actions li")).to_have_count(1)


LISTEN = """
  const made = AudioContext.prototype.createOscillator;
  AudioContext.prototype.createOscillator = function () {
    const { dataset } = document.documentElement;
    dataset.tones = Number(dataset.tones ?? 0) + 1;
    return made.call(this);
  };"""


async def press(page: Page, where: str, **event: str | int | bool) -> None:
    """A key as an input method lets the page see it."""
    init = {"bubbles": True, "cancelable": True, **event}
    await page.locator(where).dispatch_event("keydown", init)


@pytest.mark.parametrize("size", [(1280, 800), (760, 1024), (390, 844)])
async def test_the_own_connection_and_the_alarms_are_in_view_wherever_one_has_scrolled_to(
    screens: Screens, size: tuple[int, int]
) -> None:
    screens.complaints.expect("timeline")  # the scripted plan has no log
    async with ScriptedPlan(1000) as plan, screens:
        page = await screens.open(plan.link, viewport={"width": size[0], "height": size[1]})
        await tile(page, "E0001").focus()
        await page.keyboard.press("End")
        await expect(tile(page, "E1000")).to_be_in_viewport(ratio=0.9)
        await expect(page.locator("#sound")).to_have_text("Alerts on")  # the key has allowed them: a lower header
        assert await tile(page, "E1000").evaluate(SEEN), "the bar lies over what has the focus"
        for _ in range(3):
            await page.keyboard.press("PageUp")
            focused = page.locator(".tile:focus")
            await expect(focused).to_be_in_viewport(ratio=0.9)
            assert await focused.evaluate(SEEN), "the header lies over what has the focus"
        await plan.say(*(plan.lost(f"E{k:04}", ago=100 * k) for k in range(1, 6)))
        alarms = page.locator("#attention")
        await expect(alarms).to_have_text("5 need attention")
        link = page.locator("#link")
        for part in (link, alarms):
            await expect(part).to_be_in_viewport(ratio=1)
            assert await part.evaluate(SEEN)
        opened = tile(page, await page.locator(".tile:focus").get_attribute("data-id") or "")
        before = await box_of(opened)
        await page.keyboard.press("Enter")
        await expect(page.locator("#panel")).to_be_visible()
        for part in (link, alarms):
            assert await part.evaluate(SEEN)
        assert await page.evaluate(COVERED) == [], "the panel lies over the wall"
        beside = await box_of(opened)
        await page.keyboard.press("Escape")
        await expect(opened).to_be_focused()
        after = await box_of(opened)
        assert max(abs(before["y"] - box["y"]) for box in (beside, after)) <= 1, "it stays where it was"
        await page.keyboard.press("Enter")
        await alarms.click()
        await expect(page.locator(".tile")).to_have_count(5)
        await expect(tile(page, "E0005")).to_be_in_viewport()
        await page.keyboard.press("Escape")  # where there is room, the panel is beside them
        await alarms.click()
        await page.get_by_label("Search").fill("E1000")
        await expect(page.locator("#hidden-text")).to_have_text("5 who need attention are hidden")
        await page.locator("#hidden").get_by_role("button", name="Show").click()
        await expect(page.locator(".tile")).to_have_count(5)
        await expect(page.locator(".tile:focus")).to_be_visible()


COVERED = """() => {
  const panel = document.getElementById("panel").getBoundingClientRect();
  const shown = [...document.querySelectorAll(".tile, button, input, select")].filter((one) => (
    !one.closest("#panel, #link, #attention") && one.checkVisibility({ visibilityProperty: true })));
  return shown.filter((one) => one.getBoundingClientRect().right > panel.left).map((one) => one.id || one.dataset.id);
}"""

SEEN = """(one) => {
  const { left, top, width, height } = one.getBoundingClientRect();
  return [2, height / 2, height - 2].every((y) => one.contains(document.elementFromPoint(left + width / 2, top + y)));
}"""


@pytest.mark.parametrize("locale", ["en-GB", "ko-KR"])
async def test_on_a_phone_no_state_and_no_countdown_is_cut_off(screens: Screens, locale: str) -> None:
    async with ScriptedPlan(12) as plan, screens:
        plan.never_came("E0012")
        page = await screens.open(plan.link, viewport={"width": 390, "height": 844}, locale=locale)
        await tile(page, "E0001").wait_for()
        await plan.say(
            plan.lost("E0001", ago=75),
            plan.lost("E0002", ago=75),
            plan.trying("E0002", 2, after=59),
            plan.lost("E0003", ago=3800),
            plan.shut_out("E0003"),
            plan.phone("E0004", "WAITING"),
            plan.phone("E0005", "WAITING", left=-5),
            plan.phone("E0006", "FAILED"),
            plan.phone("E0007", "TIMED_OUT"),
            plan.pictured("E0008"),
            plan.moving("E0009"),
            plan.back("E0010"),
        )
        await expect(tile(page, "E0009")).to_have_attribute("data-state", "migrating")
        await expect(tile(page, "E0002")).to_contain_text(re.compile("0:5[0-9]"))
        cut_off = await page.locator(".tile *").evaluate_all(
            "(parts) => parts.filter((part) => part.scrollWidth > part.clientWidth).map((part) => part.textContent)"
        )
        assert cut_off == []
