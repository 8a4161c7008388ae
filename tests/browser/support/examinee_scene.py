"""An examinee's page and the network between it and the servers: what the tests of that page do again and again."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import pytest

from tests.browser.support.site import Screens, Site

expect = pytest.importorskip("playwright.async_api", reason="Playwright is not installed: no browser tests").expect

if TYPE_CHECKING:
    from playwright.async_api import Page, WebSocketRoute

CONNECTED = "You are connected"
INTERRUPTED = "The connection is interrupted"


class Cable:
    """The network between a page and the socket servers: `cut` it, `mend` it."""

    def __init__(self) -> None:
        self._whole = True
        self._open: list[tuple[WebSocketRoute, WebSocketRoute]] = []

    async def plug(self, page: Page) -> None:
        """Into a page that has not connected yet."""
        await page.route_web_socket("**/v1/connect", self._connect)

    async def _connect(self, socket: WebSocketRoute) -> None:
        if self._whole:
            self._open.append((socket, socket.connect_to_server()))
        else:
            await socket.close(code=1011)  # before its welcome: as good as not reachable

    async def cut(self) -> None:
        self._whole = False
        for client, server in self._open:
            await server.close()
            await client.close(code=1011)
        self._open.clear()

    def mend(self) -> None:
        self._whole = True


async def headline(page: Page, text: str) -> None:
    await expect(page.locator("#connection-title")).to_have_text(text)


async def connected(site: Site, screens: Screens, *before: Callable[[Page], Awaitable[object]]) -> Page:
    """E001's page, once it is connected; each of `before` is done with it while it is still empty."""

    async def prepare(page: Page) -> None:
        for socket in before:
            await socket(page)

    page = await screens.open(site.link("examinee", "examinee", "E001"), before=prepare)
    await headline(page, CONNECTED)
    return page
