"""The proctor's wall in a browser: what it shows, what can be done with it, and how it goes on after trouble."""

from __future__ import annotations

from typing import Any

import pytest

from tests.browser.conftest import IN_A_BROWSER
from tests.browser.site import Screens, Site, audit

playwright_api = pytest.importorskip("playwright.async_api", reason="Playwright is not installed: no browser tests")
expect = playwright_api.expect

pytestmark = IN_A_BROWSER


def tile(page: Any, examinee_id: str) -> Any:
    return page.locator(f'.tile[data-id="{examinee_id}"]')


async def test_a_loss_and_a_recovery_are_seen_on_the_wall(site: Site, screens: Screens) -> None:
    first = await site.system.examinee("E001")
    await site.system.examinee("E002")
    page = await screens.open(site.link("proctor", "proctor", "kim"))
    await expect(page.locator("#link")).to_contain_text("Connected · SOCK00")
    await expect(tile(page, "E001")).to_have_attribute("data-state", "connected")
    assert "token" not in page.url
    first.abort()
    await expect(tile(page, "E001")).to_have_attribute("data-state", "lost")
    await expect(tile(page, "E001")).to_contain_text("attempt 1 of 5")
    await expect(page.locator('.tile[tabindex="0"]')).to_have_count(1)
    assert await page.locator(".tile").first.get_attribute("data-id") == "E001"
    await expect(page).to_have_title("(1) Plan P001")
    await expect(page.locator("#live")).to_contain_text("E001 lost")
    await site.system.examinee("E001", "SOCK002", connection_no=2)
    await expect(tile(page, "E001")).to_have_attribute("data-state", "connected")
    await expect(tile(page, "E001")).to_contain_text("came back once")
    await expect(page).to_have_title("Plan P001")
    assert await audit(page) == []
