"""Take the README's pictures of the proctor's wall: the real page in Chromium, with a scripted exam.

    python -m tests.browser.support.wall_picture

Writes docs/images/wall.png (English) and docs/images/wall.ko.png. Run it again when the wall looks different.
"""

from __future__ import annotations

import asyncio
import io
from pathlib import Path

from PIL import Image
from playwright.async_api import Browser, Page, async_playwright

from tests.browser.conftest import chromium
from tests.browser.support.scripted_plan import ScriptedPlan
from tests.browser.support.site import CHROMIUM_FLAGS

IMAGES = Path(__file__).parents[3] / "docs" / "images"
PICTURES = {"wall.png": "en-GB", "wall.ko.png": "ko-KR"}
MAX_BYTES = 300_000
EXAMINEES = 180
GIVEN = ("Ada", "Ben", "Chloé", "Dora", "Emil", "Farah", "Goro", "Hana", "Ivan", "José", "Kim", "Lena", "Mina")
FAMILY = ("Adler", "Brown", "Costa", "Diaz", "Eriksen", "Fischer", "Garcia", "Haddad", "Ito", "Jones", "Kaya")
EXAM_NAMES = {"en-GB": "Mathematics", "ko-KR": "수학"}
HELP_TEXTS = {"en-GB": "Page 3 does not load.", "ko-KR": "3쪽이 열리지 않습니다."}


def scripted_exam(locale: str) -> ScriptedPlan:
    """Return a plan that runs, with rooms and seats, in which some examinees have finished and some have not come."""
    plan = ScriptedPlan(EXAMINEES, seed=4)
    plan.seat(lambda k: "ABCDEF"[k // 30])
    for k, row in enumerate(plan.rows.values()):
        if locale == "en-GB":
            row["name"] = f"{GIVEN[k % len(GIVEN)]} {FAMILY[k * 5 % len(FAMILY)]}"
    ids = list(plan.rows)
    plan.exam("OPEN", starts_in=-2860, ends_in=4340, name=EXAM_NAMES[locale])
    for k in (7, 36, 171):
        plan.never_came(ids[k])
    for k in (12, 33, 90, 104, 140):
        plan.finished(ids[k], ago=60.0 + k)
    for k in range(20, 30):
        plan.pictured(ids[k])
    return plan


async def cause_trouble(plan: ScriptedPlan, locale: str) -> None:
    """Cause what a proctor has to see: a network that fails, single losses, somebody shut out, a request for help."""
    ids = list(plan.rows)
    network = ids[50:74]
    await plan.say(*(plan.lost(examinee_id, ago=41.0) for examinee_id in network))
    await plan.say(*(plan.back(examinee_id, ago=9.0, after=32.0) for examinee_id in network[:9]))
    await plan.say(
        *(plan.trying(examinee_id, 3, ago=6.0, after=14.0) for examinee_id in network[9:]),
        plan.lost(ids[128], ago=150.0),
        plan.shut_out(ids[128], ago=12.0),
        plan.lost(ids[145], ago=17.0, reason="CLIENT_CLOSED"),
        plan.trying(ids[145], 2, ago=10.0, after=21.0),
        plan.phone(ids[3], "WAITING", left=74),
        plan.phone(ids[4], "WAITING", left=51),
        plan.phone(ids[5], "TIMED_OUT"),
        plan.taken_over(ids[101], "browser", "device"),
        plan.asks_for_help(ids[17], HELP_TEXTS[locale]),
    )


async def picture(browser: Browser, locale: str) -> bytes:
    """Return the wall of a scripted exam as a PNG with at most 256 colours."""
    async with scripted_exam(locale) as plan:
        context = await browser.new_context(
            viewport={"width": 1280, "height": 900}, locale=locale, color_scheme="light", reduced_motion="reduce"
        )
        page: Page = await context.new_page()
        await page.goto(plan.link)
        await page.locator(f'#filters [data-state="all"]:has-text("{EXAMINEES}")').wait_for()
        await page.locator("h1").click()  # from now on the page may sound alerts, and does not ask for it
        await cause_trouble(plan, locale)
        await page.locator("#incidents:visible").wait_for()
        await page.locator('.tile[data-state="help"]').first.wait_for()
        await page.wait_for_timeout(3_000)  # the incident has settled, and the order of the tiles
        taken = await page.screenshot()
        await context.close()
    file = io.BytesIO()
    Image.open(io.BytesIO(taken)).convert("RGB").quantize(256, dither=Image.Dither.NONE).save(
        file, "PNG", optimize=True
    )
    return file.getvalue()


async def main() -> None:
    IMAGES.mkdir(exist_ok=True)
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=chromium(), args=list(CHROMIUM_FLAGS))
        for name, locale in PICTURES.items():
            content = await picture(browser, locale)
            assert len(content) < MAX_BYTES, f"{name}: {len(content)} bytes"
            (IMAGES / name).write_bytes(content)
            print(f"{IMAGES / name}: {len(content)} bytes")
        await browser.close()


if __name__ == "__main__":
    asyncio.run(main())
