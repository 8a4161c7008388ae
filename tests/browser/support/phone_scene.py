"""An examinee at a computer and a phone beside it: what the tests of both pages do again and again."""

from __future__ import annotations

import asyncio
import io
import time
from typing import TYPE_CHECKING, Any

from PIL import Image

from actors.runtime.broker.connection import Outgoing
from protocol.broker import subjects
from protocol.messages.codec import encode
from protocol.messages.facts import MobileSyncTimeout
from protocol.records import keys
from protocol.times import format_time
from tests.browser.support.site import WAIT_SECONDS, Screens, Site
from tests.integration.support.system import eventually

if TYPE_CHECKING:
    from playwright.async_api import Browser, Page, Route

UPLOADS = "**/mobile-sync?*"
SMALL_PHONE = {"width": 320, "height": 568}


class Scene:
    """E001's computer and phone. `phone` is there once it was opened."""

    def __init__(self, site: Site, screens: Screens) -> None:
        self.site = site
        self.screens = screens
        self.computer: Page

    async def waiting(self, **options: Any) -> str:
        """The examinee has begun the mobile step; the code to type."""
        self.computer = await self.screens.open(self.site.link("examinee", "examinee", "E001"), **options)
        await self.computer.locator("#mobile-start").click()
        return await self.code()

    async def code(self) -> str:
        """The code that the examinee's page shows, once it does."""
        code_text = self.computer.locator("#phone-code")

        async def complete() -> str | None:
            text = (await code_text.text_content() or "").strip()
            return text if len(text) == 9 else None

        code: str = await eventually(complete, "a code on the examinee's page", WAIT_SECONDS)
        return code

    async def phone(self, code: str | None = None, *, refused_by: Browser | None = None, **options: Any) -> Page:
        """The phone, with the camera allowed or `refused_by` a browser; with a `code`, opened as by its QR code."""
        options.setdefault("viewport", SMALL_PHONE)
        # The browser under test may not keep its screen on, and says so; the page goes on without.
        self.screens.complaints.expect("Wake Lock")
        permissions = [] if refused_by else ["camera"]
        fragment = f"#code={code.replace('-', '')}" if code else ""
        url = f"{self.site.url}/phone{fragment}"
        return await self.screens.open(url, browser=refused_by, permissions=permissions, **options)

    async def with_picture(self, **options: Any) -> Page:
        """A phone that has taken a picture which was not sent yet."""
        phone = await self.phone(await self.waiting(), **options)
        await phone.locator("#shutter").click()
        await phone.locator("#step-review").wait_for()
        return phone

    async def record(self) -> dict[str, str]:
        return await self.site.system.store.entries(keys.mobile_sync("P001", "E001"))

    async def recorded(self, status: str) -> dict[str, str]:
        """What is recorded about the mobile sync, once it has this status."""

        async def says() -> dict[str, str] | None:
            record = await self.record()
            return record if record.get("status") == status else None

        fields: dict[str, str] = await eventually(says, f"mobile sync {status}", WAIT_SECONDS)
        return fields

    async def time_is_up(self) -> None:
        """As the broker's schedule says it, which need not be when our clock or the phone's does."""
        record = await self.record()
        timeout = MobileSyncTimeout(
            plan_id="P001",
            examinee_id="E001",
            wait_version=int(record["version"]),
            timestamp=format_time(time.time()),
        )
        outgoing = Outgoing(subjects.status_plan("P001"), encode(timeout), "time-is-up")
        await self.site.web.bus.publish(outgoing)

    async def refused(self, code: str, times: int) -> bool:
        """Whether the web server has refused so many uploads for this reason."""
        return self.site.web.outcomes[code] >= times

    def stored(self) -> Image.Image:
        """The picture that the web server keeps."""
        path = self.site.settings.data_dir / "captures" / "P001" / "E001" / "sync_cap.jpg"
        return Image.open(io.BytesIO(path.read_bytes()))


class BadNetwork:
    """Uploads fail until `good`; `tries` counts them."""

    def __init__(self) -> None:
        self.tries = 0
        self.good = asyncio.Event()

    async def __call__(self, route: Route) -> None:
        self.tries += 1
        if self.good.is_set():
            await route.continue_()
        else:
            await route.abort("connectionreset")

    async def tried(self, times: int) -> None:
        """Wait until so many uploads were begun."""

        async def enough() -> bool:
            return self.tries >= times

        await eventually(enough, f"{times} tries", WAIT_SECONDS)


def photo(width: int = 3000, height: int = 2000, orientation: int = 6) -> bytes:
    """A photo of a phone that was held upright: stored lying, left half red, with EXIF that says how to turn it."""
    image = Image.new("RGB", (width, height), "blue")
    image.paste("red", (0, 0, width // 2, height))
    exif = Image.Exif()
    exif[0x0112] = orientation
    exif[0x0110] = "Secret model"
    target = io.BytesIO()
    image.save(target, "JPEG", exif=exif)
    return target.getvalue()


async def choose(page: Page, content: bytes, name: str = "photo.jpg") -> None:
    """Choose a file in the page's picker."""
    from playwright.async_api import FilePayload

    chosen = FilePayload(name=name, mimeType="image/jpeg", buffer=content)
    await page.locator("#file").set_input_files([chosen])
