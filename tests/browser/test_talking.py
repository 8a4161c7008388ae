"""Examinees and proctors talk: help through both pages, a message to several with its count, and who is looking."""

from __future__ import annotations

from actors.runtime.broker.connection import Bus, Outgoing
from protocol.broker import subjects
from protocol.messages.plan_facts import PlanPolicy, PlanSchedule
from tests.browser.conftest import IN_A_BROWSER
from tests.browser.support.examinee_scene import connected
from tests.browser.support.site import WAIT_SECONDS, Screens, Site, audit, audit_light_and_dark
from tests.browser.test_wall import expect, tile, wall
from tests.unit.support import facts

pytestmark = IN_A_BROWSER


async def test_help_is_asked_on_one_page_and_given_on_the_other(site: Site, screens: Screens) -> None:
    lee = await site.system.proctor("SOCK002", name="lee")
    page = await connected(site, screens)
    watching = await wall(site, screens)
    await page.get_by_role("button", name="Ask for help").press("Enter")
    assert await audit(page) == []
    await page.keyboard.type("Page 3 does not load.")  # the focus is in the form
    await page.get_by_role("button", name="Send", exact=True).press("Enter")
    await expect(page.locator("#help-state")).to_contain_text("Your proctors have been told.")
    await expect(page.locator("#said")).to_contain_text("Your proctors have been told.")
    assert await audit(page) == []

    await expect(tile(watching, "E001")).to_have_attribute("data-state", "help")
    await expect(watching).to_have_title("(1) Plan P001")
    line = watching.locator("#help-list .help-line")
    await expect(line).to_contain_text("Page 3 does not load.")
    await expect(line).to_contain_text("not taken yet")
    assert await audit_light_and_dark(watching) == []
    await watching.get_by_role("button", name="Take request").first.press("Enter")
    await lee.expect("help_taken", seconds=WAIT_SECONDS, examineeId="E001", by="kim")
    await expect(page.locator("#help-state")).to_have_text("kim has taken your request.")
    await page.reload()
    await expect(page.locator("#help-state")).to_have_text("kim has taken your request.")
    await expect(page.locator("#help-said")).to_have_text("Page 3 does not load.")

    # The panel is open: the answer, and the end.
    await expect(tile(watching, "E001")).to_have_attribute("data-state", "helped")
    await lee.say("proctor_activity", examineeId="E001", doing="writing")
    await expect(watching.locator("#panel-others")).to_have_text("lee is writing a message")
    await expect(tile(watching, "E001")).to_contain_text("lee is writing a message")
    await watching.locator("#notify-text").fill("Please reload the page.")
    await lee.expect("proctor_activity", seconds=WAIT_SECONDS, examineeId="E001", doing="writing", by="kim")
    assert await audit(watching) == []
    await watching.locator("#notify-form button[type=submit]").click()
    await expect(page.locator("#messages-new .text")).to_have_text("Please reload the page.")
    await watching.locator("#panel-help .help-close").press("Enter")
    await expect(page.get_by_role("button", name="Ask for help")).to_be_visible()
    await expect(tile(watching, "E001")).to_have_attribute("data-state", "connected")
    await expect(watching.locator("#help-requests")).to_be_hidden()
    await watching.locator("#panel-close").click()
    await lee.expect("proctor_activity", seconds=WAIT_SECONDS, examineeId="E001", doing="nothing", by="kim")


async def test_a_message_to_several_is_counted_also_after_a_reload(site: Site, screens: Screens) -> None:
    await site.decide(PlanSchedule, policy=PlanPolicy(canned_texts=("Ten minutes are left.", "Please wait.")))
    clients = [await site.system.examinee(f"E00{number}") for number in (1, 2, 3)]
    page = await wall(site, screens)
    await expect(tile(page, "E003")).to_be_visible()
    await page.locator("#message-many").press("Enter")
    await expect(page.locator("#message-question")).to_have_text("Message to everybody (3 examinees)")
    assert await audit(page) == []
    await page.locator("#message-canned").select_option("Ten minutes are left.")
    await expect(page.locator("#message-text")).to_have_value("Ten minutes are left.")
    await page.get_by_role("button", name="Send", exact=True).press("Enter")
    await expect(page.locator("#sent-newest")).to_have_text("0 of 3 confirmed")
    for client in clients[:2]:
        told = (await client.expect("notice", seconds=WAIT_SECONDS, text="Ten minutes are left."))["data"]
        await client.say("notice_confirm", actionId=told["actionId"])
    await expect(page.locator("#sent-newest")).to_have_text("2 of 3 confirmed")

    await page.reload()
    await expect(page.locator("#sent-newest")).to_have_text("2 of 3 confirmed")
    await page.locator("#sent-summary").press("Enter")
    await page.locator("#sent-list summary").press("Enter")
    assert await audit(page) == []
    missing = page.locator("#sent-list ul button")
    await expect(missing).to_have_text(["E003"])
    await clients[2].say("notice_confirm", actionId=told["actionId"])
    await expect(page.locator("#sent-newest")).to_have_text("3 of 3 confirmed")

    await page.locator("#search").fill("E002")
    await page.get_by_role("button", name="Message to this examinee").click()
    await page.locator("#message-text").fill("Only for you.")
    await page.locator("#message-text").press("Tab")
    await page.get_by_role("button", name="Send", exact=True).click()
    await clients[1].expect("notice", seconds=WAIT_SECONDS, text="Only for you.")
    await expect(page.locator("#sent-newest")).to_have_text("0 of 1 confirmed")
    assert not [frame for frame in clients[0].frames if frame["data"].get("text") == "Only for you."]


async def test_the_earlier_entries_of_a_long_timeline_come_when_asked_for(site: Site, screens: Screens) -> None:
    await site.system.examinee("E001")
    texts = [f"Message {number:03}." for number in range(230)]
    notices = [facts.notice(f"a{number}", text) for number, text in enumerate(texts)]
    bus = await Bus.connect(site.settings, "test")
    await bus.publish_until_stored(Outgoing.batches(subjects.status_plan("P001", "test"), notices))
    await bus.close()
    page = await wall(site, screens)
    await tile(page, "E001").click()
    timeline, earlier = page.locator("#timeline"), page.get_by_role("button", name="Show earlier entries")
    await expect(timeline).to_contain_text(texts[-1])
    await expect(timeline).not_to_contain_text(texts[0])
    await earlier.click()
    await expect(timeline).to_contain_text("Joined on SOCK001")
    for text in (texts[0], texts[-1]):
        await expect(timeline).to_contain_text(text)
    await expect(earlier).to_be_hidden()
