"""A proctor looks at pictures: in the gallery, by keyboard, and what the phone and the examinee's page say then."""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from protocol.messages.plan_facts import PlanPolicy, PlanSchedule
from protocol.records import keys
from tests.browser.conftest import IN_A_BROWSER
from tests.browser.support.phone_scene import Scene
from tests.browser.support.site import WAIT_SECONDS, Screens, Site, audit_light_and_dark, with_own_clock
from tests.integration.support.clients.phones import picture
from tests.integration.support.system import eventually

playwright_api = pytest.importorskip("playwright.async_api", reason="Playwright is not installed: no browser tests")
expect = playwright_api.expect

if TYPE_CHECKING:
    from playwright.async_api import Page

pytestmark = IN_A_BROWSER

UNTIL_IT_ASKS = 20_000
"""More than the longest pause, in ms, after which a phone asks how its stage stands."""


async def wall(screens: Screens, site: Site, **options: Any) -> Page:
    page = await screens.open(site.link("proctor", "proctor", "kim"), **options)
    await expect(page.locator("#gallery-open")).to_be_visible()
    return page


async def test_a_picture_is_asked_for_again_and_the_next_one_accepted(scene: Scene) -> None:
    policy = PlanPolicy(picture_challenge=True)
    await scene.site.decide(PlanSchedule, policy=policy)
    proctor = await wall(scene.screens, scene.site)
    phone = await scene.phone(await scene.waiting(), before=with_own_clock)
    number = (await scene.record())["challenge"]
    assert re.fullmatch(r"\d{6}", number)
    await expect(scene.computer.locator("#mobile-challenge")).to_contain_text(number)
    await expect(phone.locator("#challenge")).to_contain_text(number)
    await phone.locator("#shutter").click()
    await phone.locator("#use").click()
    await expect(phone.locator("#done-title")).to_be_visible()

    await expect(proctor.locator("#gallery-open-count")).to_have_text("1")
    await proctor.locator("#gallery-open").click()
    await expect(proctor.locator("#gallery-picture")).to_be_visible()
    await expect(proctor.locator("#gallery-name")).to_have_text("Picture of E001")
    await expect(proctor.locator("#gallery-challenge")).to_contain_text(number)
    await expect(proctor.locator("#gallery-previous")).to_have_accessible_description("This is the first picture.")
    await expect(proctor.locator("#gallery-next")).to_have_accessible_description("This is the last picture.")
    assert await audit_light_and_dark(proctor) == []
    await proctor.keyboard.press("r")
    await expect(proctor.locator("#gallery-reasons button").first).to_be_focused()
    assert await audit_light_and_dark(proctor) == []
    await proctor.keyboard.press("Escape")
    await expect(proctor.locator("#gallery-reason")).to_be_hidden()
    await proctor.keyboard.press("r")
    await proctor.locator("#gallery-words").fill("Show both of your hands, please.")
    await proctor.keyboard.press("Enter")
    await expect(proctor.locator("#gallery-verdict")).to_have_text("Another one requested")
    await expect(proctor.locator("#gallery-open-count")).to_have_text("0")

    note = scene.computer.locator("#mobile-note")
    await expect(note).to_have_text("Your proctor asks for another picture. Show both of your hands, please.")
    await phone.clock.fast_forward(UNTIL_IT_ASKS)
    await expect(phone.locator("#rejected")).to_contain_text("Show both of your hands, please.")
    second_number = (await scene.record())["challenge"]
    assert second_number != number
    await expect(phone.locator("#challenge")).to_contain_text(second_number)
    assert await audit_light_and_dark(phone) == []
    assert await audit_light_and_dark(scene.computer) == []
    await phone.locator("#shutter").click()
    await phone.locator("#use").click()
    await expect(phone.locator("#done-title")).to_be_visible()
    await expect(note).to_be_hidden()

    await expect(proctor.locator("#gallery-open-count")).to_have_text("1")
    await proctor.keyboard.press("ArrowRight")
    await expect(proctor.locator("#gallery-challenge")).to_contain_text(second_number)
    await proctor.keyboard.press("a")
    await expect(proctor.locator("#gallery-verdict")).to_have_text("Accepted")
    await proctor.keyboard.press("a")
    await expect(proctor.locator("#gallery")).to_contain_text("This picture is accepted already.")
    await expect(scene.computer.locator("#mobile-text")).to_contain_text("has accepted the picture")
    await proctor.keyboard.press("Escape")
    await expect(proctor.locator("#gallery")).to_be_hidden()


async def send(site: Site, examinee_id: str) -> None:
    """A phone's picture, before the stage."""
    token = site.system.token("mobile", examinee_id)
    path = f"/v1/plans/P001/examinees/{examinee_id}/mobile-sync?deviceId=M-{examinee_id}"
    async with httpx.AsyncClient(trust_env=False) as http:
        answer = await http.put(
            f"{site.url}{path}", content=picture(), headers={"Authorization": f"Bearer {token}"}, timeout=30
        )
    assert answer.status_code == 201, answer.text


@pytest.mark.parametrize("locale", ["ko-KR"])
async def test_many_pictures_are_gone_through_by_keyboard_without_waiting(
    site: Site, screens: Screens, locale: str
) -> None:
    ids = [f"E{number:03}" for number in range(1, 25)]
    for examinee_id in ids:
        await send(site, examinee_id)
    await eventually(lambda: all_recorded(site, ids), "all pictures are recorded", WAIT_SECONDS)
    page = await wall(screens, site, locale=locale, viewport={"width": 760, "height": 700})
    await expect(page.locator("#gallery-open-count")).to_have_text("24")
    await page.locator("#gallery-open").click()
    small = page.locator("#gallery-strip img:not([hidden])")
    await expect(small).to_have_count(8)
    assert set(await small.evaluate_all(HEIGHTS)) == {192}
    await page.set_viewport_size({"width": 683, "height": 384})  # as at 200 % zoom
    side = await page.locator(".gallery-side").bounding_box()
    strip = await page.locator("#gallery-strip").bounding_box()
    assert side is not None
    assert strip is not None
    assert side["y"] + side["height"] <= strip["y"], "the small pictures lie over the buttons"
    await page.set_viewport_size({"width": 760, "height": 700})
    assert await audit_light_and_dark(page) == []
    for number in range(len(ids)):
        await page.keyboard.press("a" if number % 6 else "r")
        if not number % 6:
            await page.keyboard.press("2")
    await expect(page.locator("#gallery-open-count")).to_have_text("0")
    assert await page.evaluate("document.documentElement.scrollWidth <= innerWidth")

    async def decided() -> bool:
        records = [await site.system.store.entries(keys.mobile_sync("P001", examinee_id)) for examinee_id in ids]
        verdicts = ["TOO_DARK" in record["review"] if record["review"] else None for record in records]
        return verdicts == [not number % 6 for number in range(len(ids))]

    await eventually(decided, "every verdict is recorded", WAIT_SECONDS)
    await expect(page.locator("#gallery-note")).to_be_hidden()


HEIGHTS = "(all) => Promise.all(all.map(async (one) => (await one.decode(), one.naturalHeight)))"


async def all_recorded(site: Site, ids: list[str]) -> bool:
    records = await asyncio.gather(*(site.system.store.entries(keys.mobile_sync("P001", name)) for name in ids))
    return all(record.get("captures") for record in records)
