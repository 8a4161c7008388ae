"""The proctor's wall in a browser, on the real system: what it shows, what can be done, and how it survives trouble."""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING, Any

import pytest

from tests.browser.conftest import IN_A_BROWSER
from tests.browser.support.scripted_plan import ScriptedPlan
from tests.browser.support.site import WAIT_SECONDS, Screens, Site, audit, audit_light_and_dark, with_own_clock
from tests.integration.support.system import RawClient

if TYPE_CHECKING:
    from playwright.async_api import Locator, Page

expect = pytest.importorskip("playwright.async_api", reason="Playwright is not installed: no browser tests").expect

pytestmark = IN_A_BROWSER

REFUSED = r"WebSocket connection to .* failed"


@pytest.fixture
def changes() -> dict[str, Any]:
    """A short ladder, so that its end is seen as well."""
    return {"reconnect.max_attempts": 2, "reconnect.backoff_seconds": [1.0, 1.0], "mobile_sync.timeout_seconds": 60}


SLOW_LADDER = pytest.mark.parametrize(
    "changes", [{"reconnect.max_attempts": 2, "reconnect.backoff_seconds": [60.0, 60.0]}], ids=["slow"]
)
"""A test in which nobody is to be shut out while it looks."""


def tile(page: Page, examinee_id: str) -> Locator:
    return page.locator(f'.tile[data-id="{examinee_id}"]')


async def wall(site: Site, screens: Screens, **options: Any) -> Page:
    """The wall of P001, up to date."""
    page = await screens.open(site.link("proctor", "proctor", "kim"), **options)
    await expect(page.locator("#link")).to_contain_text(re.compile("(Connected|연결됨) · SOCK00"))
    return page


async def shut_out(site: Site, page: Page, client: RawClient, examinee_id: str = "E001") -> None:
    client.abort()
    await expect(tile(page, examinee_id)).to_have_attribute("data-state", "exhausted")


@SLOW_LADDER
async def test_a_loss_and_a_recovery_are_seen_on_the_wall(site: Site, screens: Screens) -> None:
    first = await site.system.examinee("E001")
    await site.system.examinee("E002")
    page = await wall(site, screens)
    await expect(tile(page, "E001")).to_have_attribute("data-state", "connected")
    assert "token" not in page.url
    first.abort()
    await expect(tile(page, "E001")).to_have_attribute("data-state", "lost")
    await expect(tile(page, "E001")).to_contain_text("attempt 1/2")
    await expect(page.locator(".tile").first).to_have_attribute("data-id", "E001")
    await expect(page).to_have_title("(1) Plan P001")
    await expect(page.locator("#live")).to_contain_text("E001 lost")
    await site.system.examinee("E001", "SOCK002", connection_no=2)
    await expect(tile(page, "E001")).to_have_attribute("data-state", "connected")
    await expect(tile(page, "E001")).to_contain_text("came back once")
    await expect(page).to_have_title("Plan P001")


async def test_a_reload_in_the_middle_finds_everything_again(site: Site, screens: Screens) -> None:
    client = await site.system.examinee("E001")
    page = await wall(site, screens)
    client.abort()
    await expect(tile(page, "E001")).to_have_attribute("data-state", "lost")
    await page.reload()
    await expect(tile(page, "E001")).to_have_attribute("data-state", re.compile("lost|exhausted"))
    assert await tile(page, "E001").locator(".tile-clock").text_content() != ""


async def test_a_server_that_dies_under_the_page_costs_no_event(site: Site, screens: Screens) -> None:
    screens.complaints.expect(REFUSED)
    page = await wall(site, screens)
    used = (await page.locator("#link").text_content() or "").split("· ")[-1].strip()
    other = "SOCK002" if used == "SOCK001" else "SOCK001"
    client = await site.system.examinee("E001", other)
    await expect(tile(page, "E001")).to_have_attribute("data-state", "connected")
    await site.system.stop(used)
    client.abort()  # while nobody tells the page
    await expect(page.locator("#link")).to_contain_text(f"Connected · {other}")
    await expect(page.locator("#stale")).to_be_hidden()
    await expect(tile(page, "E001")).to_have_attribute("data-state", re.compile("lost|exhausted"))
    await site.system.start_server(used)


async def test_a_wall_without_a_connection_says_so_and_fills_the_gap(site: Site, screens: Screens) -> None:
    screens.complaints.expect(REFUSED)
    screens.complaints.expect("503 .*/v1/endpoints")  # while there is no server, that is the answer
    client = await site.system.examinee("E001", "SOCK002")
    page = await wall(site, screens, before=with_own_clock)
    urls = {server: site.system.server(server).url for server in ("SOCK001", "SOCK002")}
    for server in urls:
        await site.system.stop(server)
    await expect(page.locator("#stale")).to_be_visible()
    await expect(page.locator("#stale-what")).to_contain_text("The wall shows the state at")
    await expect(page.locator("html")).to_have_attribute("data-stale", "")
    await expect(page.locator("#link")).to_contain_text(re.compile("ttempt"))
    assert await audit(page) == []
    await client.closed(WAIT_SECONDS)
    await expect(page.locator("#stale-why")).to_contain_text("all attempts are used up")
    for server, url in urls.items():
        await site.start_where_it_was(server, url)
    await page.clock.fast_forward(75_000)  # more than the longest pause between two looks
    await expect(page.locator("#stale")).to_be_hidden()  # by itself: nobody may be near to press a button
    await expect(tile(page, "E001")).to_have_attribute("data-state", re.compile("lost|exhausted"))


async def two_halls(site: Site, screens: Screens) -> tuple[Page, list[RawClient]]:
    """The wall with twelve on each server, and those of SOCK001."""
    clients = [await site.system.examinee(f"A{k:02}", "SOCK001") for k in range(12)]
    for k in range(12):
        await site.system.examinee(f"B{k:02}", "SOCK002")
    page = await wall(site, screens)
    await expect(page.locator('#filters [data-state="all"]')).to_have_text("All 24")
    return page, clients


@SLOW_LADDER
async def test_many_losses_together_are_one_incident(site: Site, screens: Screens) -> None:
    page, hall = await two_halls(site, screens)
    for client in hall[:10]:
        client.abort()
    line = page.locator(".incident")
    await expect(line).to_contain_text(re.compile("Server SOCK001: 10 lost since .*, 0 back, 10 not back"))
    await expect(page.locator(".tile")).to_have_count(14)  # the others are behind the line
    await expect(page.locator("#hidden-text")).to_contain_text("10 lost together: see the line above")
    await expect(page.locator("#attention")).to_have_text("10 need attention")
    await site.system.examinee("A00", "SOCK002", connection_no=2)
    await expect(line).to_contain_text("1 back, 9 not back")
    await line.locator("summary").click()
    await expect(line.locator(".incident-who li")).to_have_count(10)
    await expect(line.locator(".incident-who li").last).to_have_text("A00 · back")
    await line.get_by_role("button", name="Show these").click()
    ids = [f"A{k:02}" for k in (*range(1, 10), 0)]  # by id, the lost first
    await expect(page.locator(".tile .tile-id")).to_have_text(ids)
    assert await audit(page) == []
    await page.keyboard.press("Escape")
    await expect(page.locator(".tile")).to_have_count(15)
    await line.get_by_role("button", name="Dismiss").click()
    await expect(page.locator(".tile")).to_have_count(24)
    await expect(page.locator("#hidden")).to_be_hidden()


async def test_an_incident_is_over_when_nobody_is_left_to_wait_for(site: Site, screens: Screens) -> None:
    page, hall = await two_halls(site, screens)
    for client in hall[:10]:
        client.abort()
    await expect(page.locator(".incident")).to_contain_text("0 back, 0 not back · 10 shut out · over after")
    await page.locator("#attention").click()
    for k in range(10):
        await expect(tile(page, f"A{k:02}")).to_have_attribute("data-state", "exhausted")


async def test_an_exhausted_examinee_is_readmitted_by_keyboard_alone(site: Site, screens: Screens) -> None:
    client = await site.system.examinee("E001")
    await site.system.examinee("E002")
    page = await wall(site, screens)
    await shut_out(site, page, client)
    await page.keyboard.press("/")
    await expect(page.locator("#search")).to_be_focused()
    await page.keyboard.type("e001")
    await expect(page.locator(".tile")).to_have_count(1)
    await page.keyboard.press("ArrowDown")
    await expect(tile(page, "E001")).to_be_focused()
    await page.keyboard.press("Enter")
    await expect(page.locator("#panel-name")).to_be_focused()
    await expect(page.locator("#timeline")).to_contain_text("Shut out: all attempts are used up")
    await expect(page.locator("#outages")).to_contain_text("1 outage")
    for _ in range(2):  # past the button that closes: what is needed comes first
        await page.keyboard.press("Tab")
    await expect(page.locator("#panel-needed #readmit")).to_be_focused()
    await page.keyboard.press("Enter")
    await expect(page.locator('#actions [data-outcome="confirmed"]')).to_contain_text("Readmit")
    await expect(page.locator("#actions")).to_contain_text("kim")
    await expect(page.locator("#panel-state")).to_have_text("Readmitted")
    await expect(page.locator("#timeline")).to_contain_text("by kim")
    await expect(page.locator("#readmit")).to_be_focused()
    await page.keyboard.press("Tab")
    await expect(page.locator("#panel-needed")).to_be_hidden()
    await expect(page.locator("#panel-facts")).to_contain_text(re.compile(r"BrowserChrome \d+ on Linux|BrowserPython"))
    assert await audit(page) == []
    await page.keyboard.press("Escape")
    await expect(page.locator("#panel")).to_be_hidden()
    await expect(tile(page, "E001")).to_be_focused()


async def test_a_message_is_confirmed_by_the_examinee(site: Site, screens: Screens) -> None:
    client = await site.system.examinee("E001")
    page = await wall(site, screens)
    await tile(page, "E001").click()
    await page.get_by_label("Message to the examinee").fill("Please look into the camera.")
    await page.get_by_role("button", name="Send message").click()
    await expect(page.locator("#actions li")).to_have_attribute("data-outcome", "accepted")
    notice = await client.expect("notice", seconds=WAIT_SECONDS, text="Please look into the camera.", by="kim")
    await client.say("notice_confirm", actionId=notice["data"]["actionId"])
    await expect(page.locator("#actions li")).to_contain_text("confirmed by the examinee")
    await expect(page.locator("#timeline")).to_contain_text("Message: “Please look into the camera.”")


async def test_the_phone_step_is_extended_and_an_examinee_removed(site: Site, screens: Screens) -> None:
    client = await site.system.examinee("E001")
    page = await wall(site, screens)
    await client.say("mobile_sync_wait")
    await expect(tile(page, "E001")).to_have_attribute("data-state", "waiting")
    await expect(tile(page, "E001").locator(".tile-clock")).to_have_text(re.compile(r"^(1:00|0:\d\d)$"))
    await tile(page, "E001").click()
    not_shut_out = "You can only readmit examinees who are shut out or removed."
    await expect(page.locator("#readmit")).to_have_accessible_description(not_shut_out)
    await page.locator("#readmit").press("Enter")
    await expect(page.get_by_role("status").get_by_text(not_shut_out)).to_be_visible()
    await page.get_by_label("Extend by").select_option("300")
    await page.get_by_role("button", name="Extend phone step").click()
    await expect(page.locator("#actions li")).to_have_attribute("data-outcome", "confirmed")
    await expect(tile(page, "E001").locator(".tile-clock")).to_have_text(re.compile(r"^[56]:\d\d$"))
    await page.get_by_role("button", name="Remove from exam").click()
    dialog = page.get_by_role("dialog", name="Remove E001 from the exam?")
    await expect(dialog).to_be_visible()
    assert await audit(page) == []
    await dialog.get_by_role("button", name="Cancel").click()
    await expect(page.locator("#actions li")).to_have_count(1)
    await page.get_by_role("button", name="Remove from exam").click()
    await dialog.get_by_label("Reason").fill("left the room")
    await page.keyboard.press("Enter")
    await expect(dialog.get_by_role("button", name="Remove", exact=True)).to_be_focused()
    await page.keyboard.press("Enter")
    await expect(tile(page, "E001")).to_have_attribute("data-state", "removed")
    assert await client.closed(WAIT_SECONDS) == 4508
    await expect(page.locator("#timeline")).to_contain_text("Removed from the exam: left the room")
    await expect(page.get_by_text(not_shut_out)).to_have_count(0)
    await page.locator("#remove").press("Enter")
    await expect(dialog).to_be_hidden()
    await expect(page.locator("#panel")).to_contain_text("This examinee is removed already.")


async def test_both_languages_are_complete_and_the_choice_is_remembered(site: Site, screens: Screens) -> None:
    await site.system.examinee("E001")
    page = await wall(site, screens, locale="ko-KR")
    await expect(page.locator("html")).to_have_attribute("lang", "ko")
    await expect(tile(page, "E001")).to_contain_text("연결됨")
    await tile(page, "E001").click()
    await expect(page.locator("#timeline")).to_contain_text("에 접속")
    assert await audit(page) == []
    await page.get_by_label("언어").select_option("en")
    await expect(tile(page, "E001")).to_contain_text("Connected")
    await expect(page.locator("#timeline")).to_contain_text("Joined on SOCK001")
    await page.reload()
    await expect(page.locator("html")).to_have_attribute("lang", "en")


async def test_sound_goes_off_with_one_key_and_single_keys_can_be_switched_off(site: Site, screens: Screens) -> None:
    page = await wall(site, screens)
    sound = page.locator("#sound")
    await expect(sound).to_have_text("Click once to hear alerts")
    await sound.click()  # allows them, and turns nothing off
    await expect(sound).to_have_text("Alerts on")
    await expect(sound).to_have_attribute("aria-pressed", "true")
    await page.keyboard.press("m")
    await expect(sound).to_have_attribute("aria-pressed", "false")
    await page.reload()
    await expect(sound).to_have_attribute("aria-pressed", "false")
    await page.keyboard.press("?")
    dialog = page.get_by_role("dialog", name="Help")
    await expect(dialog).to_be_visible()
    assert await audit(page) == []
    await dialog.get_by_role("checkbox").uncheck()
    await page.keyboard.press("Escape")
    await expect(dialog).to_be_hidden()
    await page.keyboard.press("m")
    await page.keyboard.press("?")
    await expect(sound).to_have_attribute("aria-pressed", "false")
    await expect(dialog).to_be_hidden()


async def test_without_a_good_token_it_asks_for_one(site: Site, screens: Screens) -> None:
    page = await screens.open(f"{site.url}/proctor")
    dialog = page.get_by_role("dialog", name="Proctor’s wall")
    await expect(dialog).to_contain_text("You need a token")
    assert await audit(page) == []
    await dialog.get_by_label("Access token").fill(site.system.token("proctor", "kim")[:-4] + "AAAA")
    await dialog.get_by_role("button", name="Open the wall").click()
    await expect(page.locator("#door-why")).to_contain_text("The token was not accepted")
    await dialog.get_by_label("Access token").fill(site.system.token("proctor", "kim"))
    await dialog.get_by_role("button", name="Open the wall").click()
    await expect(page.locator("#link")).to_contain_text("Connected · SOCK00")
    await expect(dialog).to_be_hidden()


@pytest.mark.parametrize("size", [(320, 568), (1280, 800)])
async def test_nothing_hinders_anybody(site: Site, screens: Screens, size: tuple[int, int]) -> None:
    clients = await asyncio.gather(*(site.system.examinee(f"E{k:03}") for k in range(1, 5)))
    page = await wall(site, screens, viewport={"width": size[0], "height": size[1]})
    await clients[1].say("mobile_sync_wait")
    await shut_out(site, page, clients[0])
    for tiles in ("large", "small", "dots"):
        await page.get_by_label("Tiles").select_option(tiles)
        assert await audit_light_and_dark(page) == []
        wide = await page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        assert wide <= 0, f"{wide} px too wide with {tiles} tiles"
    await tile(page, "E001").click(delay=300)  # the first one on the page: it allows the sound, too
    await expect(page.locator("#timeline")).to_contain_text("Shut out")
    await expect(page.locator("#sound")).to_have_attribute("data-sound", "on")
    assert await audit_light_and_dark(page) == []


async def test_an_examinees_token_opens_no_wall_and_does_not_push_the_examinee_aside(
    site: Site, screens: Screens
) -> None:
    client = await site.system.examinee("E001")
    page = await screens.open(site.link("proctor", "examinee", "E001"))
    await expect(page.locator("#door-why")).to_contain_text("for the role “examinee”")
    await page.get_by_label("Access token").fill(site.system.token("mobile", "E001", "P001"))
    await page.get_by_role("button", name="Open the wall").click()
    await expect(page.locator("#door")).to_be_visible()
    await client.say("heartbeat")
    await client.expect("heartbeat", seconds=WAIT_SECONDS)
    await page.get_by_label("Access token").fill(site.system.token("proctor", "kim", "P001"))
    await page.get_by_role("button", name="Open the wall").click()
    await expect(tile(page, "E001")).to_have_attribute("data-state", "connected")


async def test_a_long_name_covers_neither_the_id_nor_the_neighbour(screens: Screens) -> None:
    async with ScriptedPlan(3) as plan, screens:
        plan.rows["E0002"]["name"] = "José María de la Santísima Trinidad Hernández-Rodríguez del Castillo y Fernández"
        page = await screens.open(plan.link)
        name = tile(page, "E0002").locator(".tile-name")
        await expect(name).to_contain_text("José María")
        boxes = [
            await part.bounding_box() for part in (tile(page, "E0002").locator(".tile-id"), name, tile(page, "E0002"))
        ]
        of_id, of_name, of_tile = (box for box in boxes if box is not None)
        assert of_id["x"] + of_id["width"] <= of_name["x"]
        assert of_name["x"] + of_name["width"] <= of_tile["x"] + of_tile["width"]
        assert of_id["width"] > 20, "the id gives way to nothing"


async def test_a_message_of_one_long_word_leaves_the_actions_in_view(screens: Screens) -> None:
    gap = {"missingFrom": "2026-11-22T09:00:00.000Z", "missingTo": "2026-11-22T09:10:00.000Z"}
    async with ScriptedPlan(3) as plan, screens:
        page = await screens.open(plan.link, timezone_id="UTC")
        await page.route("**/timeline?*", lambda route: route.fulfill(json={"entries": [], "logGaps": [gap]}))
        await tile(page, "E0001").click()
        lost = re.compile("from 22 Nov 2026, 09:00:00 to 22 Nov 2026, 09:10:00 is missing from the log")
        await expect(page.locator("#outages-gaps")).to_have_text(lost)
        plan.version += 1
        timestamp = "2026-11-22T09:15:02.000Z"
        notice: dict[str, Any] = {"planId": "P001", "examineeId": "E0001", "timestamp": timestamp, "actionId": "a1"}
        notice |= {"unconfirmed": ["a1"], "sent": 1, "version": plan.version, "text": "W" * 1000, "by": "kim"}
        await plan.say({"type": "notice", "data": notice})
        await expect(page.locator("#timeline")).to_contain_text("WWW")
        await expect(page.get_by_role("button", name="Remove from exam")).to_be_in_viewport(ratio=1)
        assert await page.locator("#panel").evaluate("(panel) => panel.scrollWidth <= panel.clientWidth")


async def test_2000_examinees_fit_on_the_wall_and_none_is_miscounted(screens: Screens) -> None:
    async with ScriptedPlan(2000) as plan, screens:
        page = await screens.open(plan.link, viewport={"width": 1280, "height": 800})
        all_of_them = page.locator('#filters [data-state="all"]')
        await expect(all_of_them).to_have_text("All 2,000")
        assert await page.locator(".tile").count() < 150
        await page.locator(".tile").first.focus()
        await page.keyboard.press("End")
        await expect(tile(page, "E2000")).to_be_focused()
        await expect(tile(page, "E2000")).to_be_in_viewport()
        ids = list(plan.rows)
        absent: set[str] = set()
        for _ in range(100):
            events = []
            for examinee_id in plan.random.sample(ids, 20):
                events.append(plan.back(examinee_id) if examinee_id in absent else plan.lost(examinee_id))
                absent ^= {examinee_id}
            await plan.say(*events, *plan.random.sample(events, 5))  # some of it twice
        await expect(page.locator('#filters [data-state="lost"]')).to_have_text(f"Lost {len(absent)}")
        await expect(page.locator('#filters [data-state="connected"]')).to_have_text(
            f"Connected {2000 - len(absent):,}"
        )
        await page.keyboard.press("f")
        await expect(all_of_them).to_be_focused()
        await page.locator('#filters [data-state="lost"]').click()
        for _ in range(len(absent) // 20):  # through all of them, by keyboard
            await page.keyboard.press("PageDown")
        await page.set_viewport_size({"width": 1920, "height": 1080})  # where all of them are in view
        await page.locator("#size").select_option("dots")
        await expect(page.locator(".tile")).to_have_count(len(absent))
        assert set(await page.locator(".tile").evaluate_all("(all) => all.map((one) => one.dataset.id)")) == absent


async def test_a_request_without_a_connection_is_sent_on_the_next_one(screens: Screens) -> None:
    screens.complaints.expect(REFUSED)
    screens.complaints.expect("timeline")  # the scripted plan has no log
    async with ScriptedPlan(20) as plan, screens:
        page = await screens.open(plan.link)
        await tile(page, "E0001").click()
        await plan.close_socket()
        await expect(page.locator("#stale")).to_be_visible()
        await expect(page.locator("#panel-state")).to_have_css("border-top-style", "dashed")  # as its tile
        await page.get_by_label("Message to the examinee").fill("Still there?")
        await page.get_by_role("button", name="Send message").click()
        await expect(page.locator("#actions li")).to_contain_text("is sent when this page is connected again")
        assert plan.asked == []
        await plan.open_socket()
        await expect(page.locator("#stale")).to_be_hidden(timeout=20_000)
        await expect(page.locator("#actions li")).to_contain_text("sending")
        (sent_request,) = plan.asked
        assert sent_request["type"] == "notify"
        request = {"requestType": "notify", "requestId": sent_request["data"]["requestId"]}
        refusal = {**request, "code": "NOT_FOUND", "message": "no examinee E0001"}
        await plan.say({"type": "error", "data": refusal})
        await expect(page.locator("#actions li")).to_contain_text("refused: there is no such examinee in this plan")
