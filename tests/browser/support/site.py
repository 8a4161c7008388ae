"""What a browser test stands on: the system with its web server, links into it, and pages that must not complain."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import urlsplit

from actors.runtime.broker.connection import Outgoing
from actors.runtime.config.settings import Settings, load_settings
from actors.socket_server.server import SocketServer
from actors.web_server.server import WebServer
from protocol.broker import subjects
from protocol.messages.facts import Enrol
from protocol.messages.frames import Role
from protocol.messages.plan_facts import PlanFact
from protocol.times import format_time
from tests.integration.support.system import System, eventually

if TYPE_CHECKING:
    from playwright.async_api import Browser, BrowserContext, ConsoleMessage, Page

CHROMIUM_FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--use-fake-device-for-media-stream",
)
CAMERA_ALLOWED = "--use-fake-ui-for-media-stream"  # what a person would answer; a headless shell has nobody to ask
CAMERA_REFUSED = "--use-fake-ui-for-media-stream=deny"
WAIT_SECONDS = 30.0
"""The longest wait for anything: an upper limit for a machine that is busy, which no good run comes near."""


class Site:
    """The whole system in this process, with the web server; `url` is where the pages are."""

    def __init__(self, system: System, settings: Settings) -> None:
        self.system = system
        self.settings = settings

    @classmethod
    @asynccontextmanager
    async def serve(cls, settings: Settings) -> AsyncIterator[Site]:
        """Start everything; at the end nothing must have failed."""
        async with System(settings) as system:
            site = cls(system, settings)
            await site.start_web_server()
            yield site
            assert system.failures == []

    async def start_web_server(self) -> None:
        """Begin to serve; after a `stop("web-server")`, on another port."""
        await self.system.start("web-server", lambda bus: WebServer(self.settings, bus, self.system.store))

    async def start_where_it_was(self, server_id: str, url: str) -> None:
        """Start a socket server that was stopped, on the port of `url` as in production; a page knows no other."""
        port = urlsplit(url).port
        changes = {"socket.port": port, "nats_url": self.settings.nats_url, "redis_url": self.settings.redis_url}
        settings = load_settings(**{**changes, "data_dir": self.settings.data_dir})
        await self.system.start(server_id, lambda bus: SocketServer(settings, bus, self.system.store, server_id))
        # A page that has one try left must not meet a server that says "not yet".
        await eventually(lambda: self.system.server_is(server_id, "READY"), f"{server_id} READY", WAIT_SECONDS)

    @property
    def web(self) -> WebServer:
        actor = self.system.actors["web-server"]
        assert isinstance(actor, WebServer)
        return actor

    @property
    def url(self) -> str:
        return self.web.url

    async def decide(self, fact: type[PlanFact] | type[Enrol], plan_id: str = "P001", **fields: Any) -> None:
        """Put a fact about a plan, or a line of its roster, into the log, as an operator does."""
        bus = self.web.bus
        message = fact(plan_id=plan_id, by="operator", timestamp=format_time(bus.clock.now()), **fields)
        await bus.publish_until_stored([Outgoing.of(subjects.status_plan(plan_id, subjects.OPERATOR), message)])

    def soon(self, seconds: float) -> str:
        """The time in so many seconds, by the broker."""
        return format_time(self.web.bus.clock.now() + seconds)

    def link(self, page: str, role: Role, subject: str, plan_id: str = "P001") -> str:
        """The address of a page with a token, as an exam platform gives it: `link("proctor", "proctor", "kim")`."""
        return f"{self.url}/{page}#token={self.system.token(role, subject, plan_id)}"


class Complaints:
    """What a page's console said that it should not say: errors, warnings, broken rules of the CSP."""

    def __init__(self) -> None:
        self._said: list[str] = []
        self._expected: list[re.Pattern[str]] = []

    def expect(self, pattern: str) -> None:
        """These are part of the test: the browser itself reports each connection that is refused, for one."""
        self._expected.append(re.compile(pattern))

    def watch(self, page: Page) -> None:
        page.on("console", self._console)
        page.on("pageerror", lambda error: self._said.append(f"uncaught: {error}"))

    def _console(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            where = message.location
            self._said.append(f"{message.type}: {message.text} ({where.get('url')}:{where.get('lineNumber')})")

    def unexpected(self) -> list[str]:
        return [text for text in self._said if not any(pattern.search(text) for pattern in self._expected)]


class Screens:
    """Opens pages, each in a profile of its own as a computer of its own would have.

    `async with screens:` closes them at its end, for what they look at may end before the test does.
    """

    def __init__(self, browser: Browser) -> None:
        self.browser = browser
        self.complaints = Complaints()
        self._contexts: list[BrowserContext] = []

    async def open(
        self,
        url: str,
        *,
        browser: Browser | None = None,
        before: Callable[[Page], Awaitable[object]] | None = None,
        **options: Any,
    ) -> Page:
        """A page; `options` as of Playwright's `new_context` (`locale`, `viewport`, `color_scheme`, …).

        `before` is done with the page while it is still empty: routes, scripts, another clock.
        """
        options.setdefault("locale", "en-GB")
        context = await (browser or self.browser).new_context(**options)
        context.set_default_timeout(WAIT_SECONDS * 1000)
        self._contexts.append(context)
        page = await context.new_page()
        self.complaints.watch(page)
        if before is not None:
            await before(page)
        await page.goto(url)
        return page

    async def close(self) -> None:
        while self._contexts:
            await self._contexts.pop().close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()


async def with_own_clock(page: Page) -> None:
    """For `open(before=…)`: time passes in the page as everywhere, and can be put forward (`page.clock`)."""
    await page.clock.install()


async def audit(page: Page) -> list[str]:
    """The violations of WCAG 2.2 AA that axe-core finds, each with where.

    Given to the page by the debugger, which the page's CSP does not bind; the page itself loads nothing for it.
    """
    from axe_playwright_python.base import AXE_FILE_PATH

    if not await page.evaluate("'axe' in window"):
        await page.evaluate(AXE_FILE_PATH.read_text())
    tags = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
    result = await page.evaluate(f"axe.run({{runOnly: {json.dumps(tags)}, resultTypes: ['violations']}})")
    return [
        f"{violation['id']}: {violation['help']} at {[node['target'] for node in violation['nodes'][:5]]}: "
        f"{violation['nodes'][0].get('failureSummary', '')}"
        for violation in result["violations"]
    ]


async def audit_light_and_dark(page: Page) -> list[str]:
    """The violations that `audit` finds in either colour scheme. The page is dark afterwards."""
    violations = []
    for scheme in ("light", "dark"):
        await page.emulate_media(color_scheme=scheme)
        violations += [f"{scheme}: {violation}" for violation in await audit(page)]
    return violations
