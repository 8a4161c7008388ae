"""The badge on somebody else's exam page: another origin, a strict Content-Security-Policy, no script of its own."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio

from protocol.messages.plan_facts import PlanClose, PlanOpen, PlanSchedule
from tests.browser.conftest import IN_A_BROWSER, QUICK_LADDER
from tests.browser.support.site import WAIT_SECONDS, Screens, Site, audit

if TYPE_CHECKING:
    from playwright.async_api import Page

expect = pytest.importorskip("playwright.async_api", reason="Playwright is not installed: no browser tests").expect

pytestmark = IN_A_BROWSER

README = Path(__file__).parents[2] / "README.md"
ELSEWHERE = "The exam is open in another window or on another device."


class ExamPlatform:
    """A web server of somebody else; it really listens, for Chromium lets only local pages reach a local system."""

    def __init__(self, site: Site, screens: Screens) -> None:
        self._site = site
        self._screens = screens
        self._answers: dict[str, bytes] = {}
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._answer, "127.0.0.1", 0)

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = (await reader.readuntil(b"\r\n\r\n")).decode()
        path = request.split(" ", 2)[1]
        writer.write(self._answers.get(path, b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n"))
        await writer.drain()
        writer.close()

    async def open(
        self, *, token: str | None = None, lang: str = "en", sockets: str = "ws://127.0.0.1:*", **options: Any
    ) -> Page:
        """An exam page that embeds the badge for E001 as the README says; its policy lets it connect to `sockets`."""
        assert self._server is not None
        url = self._site.url
        token = token or self._site.system.token("examinee", "E001")
        example = re.search(r"<!-- embed the badge -->\n```html\n(.+?)```", README.read_text(), re.DOTALL)
        assert example is not None
        script, badge = example[1].replace("https://exam.example", url).replace("eyJ…", token).splitlines()
        body = (
            f'<!doctype html><html lang="{lang}"><head><meta charset="utf-8"><title>Exam</title>'
            f"{script}</head><body><main><h1>1</h1>{badge}</main></body></html>"
        ).encode()
        policy = f"default-src 'none'; script-src {url}; connect-src {url} {sockets}"
        head = (
            f"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Security-Policy: {policy}\r\n"
            f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        )
        path = f"/exam/{len(self._answers)}"
        self._answers[path] = head.encode() + body
        port = self._server.sockets[0].getsockname()[1]
        return await self._screens.open(f"http://127.0.0.1:{port}{path}", **options)


@pytest_asyncio.fixture(loop_scope="session")
async def platform(site: Site, screens: Screens) -> AsyncIterator[ExamPlatform]:
    platform = ExamPlatform(site, screens)
    await platform.start()
    yield platform
    await platform.stop()


async def shows(page: Page, text: str) -> None:
    """Wait until the badge says this and nothing else: "Not connected" says something else than "Connected"."""
    await expect(page.get_by_role("status")).to_have_text(text)


async def test_it_connects_from_another_origin_under_a_strict_policy(site: Site, platform: ExamPlatform) -> None:
    page = await platform.open()
    await shows(page, "Connected")
    await site.system.status("E001", "CONNECTED")
    assert await audit(page) == []
    korean = await platform.open(token=site.system.token("examinee", "E002"), lang="ko")
    await shows(korean, "연결되었습니다")
    assert await audit(korean) == []


async def test_it_shows_the_clock_of_the_exam_and_its_end(site: Site, platform: ExamPlatform) -> None:
    await site.decide(PlanSchedule, starts_at=site.soon(700), ends_at=site.soon(7200))
    page = await platform.open()
    await shows(page, "Connected. The exam has not begun.")
    aside = page.locator("[part=aside]")
    await expect(aside).to_have_text(re.compile(r"^Starts in 1[01]:\d\d$"))
    await site.decide(PlanOpen)
    await shows(page, "Connected")
    await expect(aside).to_have_text(re.compile(r"^1:5\d:\d\d left$"))
    assert await audit(page) == []
    await page.evaluate("document.querySelector('examwire-status').client.finish()")
    await shows(page, "You have handed in.")
    assert await audit(page) == []
    await site.decide(PlanClose)
    newer = await platform.open(lang="ko")
    await shows(newer, "시험이 종료되었습니다.")


async def test_a_reload_is_the_same_client_and_leaving_ends_the_connection(site: Site, platform: ExamPlatform) -> None:
    page = await platform.open()
    await shows(page, "Connected")
    stored_client = "JSON.parse(sessionStorage.getItem('examwire.client'))"
    before = await page.evaluate(stored_client)
    await page.reload()
    await shows(page, "Connected")
    after = await page.evaluate(stored_client)
    assert (after["clientId"], after["no"]) == (before["clientId"], before["no"] + 1)
    await page.evaluate("document.querySelector('examwire-status').remove()")
    await site.system.status("E001", "DISCONNECTED")


async def test_the_words_follow_the_network_and_the_button_insists(screens: Screens, platform: ExamPlatform) -> None:
    screens.complaints.expect("WebSocket connection to|ERR_")
    page = await platform.open()
    await shows(page, "Connected")
    await page.context.set_offline(True)
    await shows(page, "No network. This page reconnects when the network is back.")
    assert await audit(page) == []
    await page.context.set_offline(False)
    await shows(page, "Connected")
    newer = await platform.open()
    await shows(page, ELSEWHERE)
    assert await audit(page) == []
    await page.get_by_role("button", name="Continue here").press("Enter")
    await shows(page, "Connected")
    await shows(newer, ELSEWHERE)


@QUICK_LADDER
async def test_the_other_server_takes_over_without_an_alarm_that_stays(
    site: Site, screens: Screens, platform: ExamPlatform
) -> None:
    screens.complaints.expect("WebSocket connection to|ERR_")
    page = await platform.open()
    await shows(page, "Connected")
    first = await page.evaluate("document.querySelector('examwire-status').client.status.serverId")
    await site.system.stop(first)
    await page.wait_for_function(
        "first => { const { state, serverId } = document.querySelector('examwire-status').client.status;"
        " return state === 'connected' && serverId !== first; }",
        arg=first,
    )
    await shows(page, "Connected")


REMEMBER = """
const attach = Element.prototype.attachShadow;
Element.prototype.attachShadow = function (options) {
  const root = attach.call(this, options);
  const look = () => (window.seen ??= []).push(root.querySelector("[role=status]")?.textContent);
  new MutationObserver(look).observe(root, { childList: true, subtree: true, characterData: true });
  return root;
};
"""
"""Whatever the badge has said, in `window.seen`."""


async def test_a_shut_out_examinee_is_never_shown_as_connected(
    site: Site, screens: Screens, platform: ExamPlatform
) -> None:
    proctor, examinee = await site.system.proctor(), await site.system.examinee()
    await proctor.say("remove", examineeId="E001", requestId="r1")
    assert await examinee.closed(WAIT_SECONDS) == 4508
    page = await platform.open(before=lambda page: page.add_init_script(REMEMBER))
    await shows(page, "A proctor has ended your exam. Ask the proctor.")
    assert "Connected" not in await page.evaluate("window.seen")
    await proctor.say("readmit", examineeId="E001", requestId="r2")
    await proctor.expect("examinee_readmitted", seconds=WAIT_SECONDS, examineeId="E001")
    await page.get_by_role("button", name="Try now").click()
    await shows(page, "Connected")
    assert "Connected" in await page.evaluate("window.seen")


async def test_a_token_that_is_refused_is_asked_for_and_another_one_connects(
    site: Site, platform: ExamPlatform
) -> None:
    listening = "window.asked = []; addEventListener('tokenNeeded', (event) => asked.push(event.detail.code))"
    page = await platform.open(token="no.such.token", before=lambda page: page.add_init_script(listening))
    await shows(page, "Your sign-in has expired. Sign in again.")
    assert await page.get_by_role("button").count() == 0
    assert await page.evaluate("window.asked") == [4502]  # the exam platform need not know of the client
    token = site.system.token("examinee", "E001")
    await page.evaluate("token => document.querySelector('examwire-status').setAttribute('token', token)", token)
    await shows(page, "Connected")


@pytest.mark.parametrize("changes", [{"reconnect.max_attempts": 2, "reconnect.backoff_seconds": [1.0, 1.0]}])
async def test_a_server_that_the_pages_policy_refuses_is_left_out_and_without_another_one_it_says_so(
    site: Site, screens: Screens, platform: ExamPlatform
) -> None:
    screens.complaints.expect("WebSocket connection to|ERR_|Content Security Policy")
    here, refused = (site.system.server(server_id) for server_id in ("SOCK001", "SOCK002"))
    page = await platform.open(sockets=here.url.removesuffix("/v1/connect"))
    await shows(page, "Connected")  # whichever of the two was first in the list
    assert await page.evaluate("document.querySelector('examwire-status').client.url") == here.url
    await site.system.stop("SOCK001")
    await shows(page, "Not connected. The exam servers have changed. Reload this page.")
    status = await page.evaluate("document.querySelector('examwire-status').client.status")
    assert (status["reason"], status["remedy"]) == ("BLOCKED", "RELOAD")
    assert refused.sessions.examinees == {}
    assert await audit(page) == []


async def test_a_platform_that_wants_it_lets_examinees_ask_for_help(site: Site, platform: ExamPlatform) -> None:
    proctor = await site.system.proctor(name="kim")
    page = await platform.open()
    await shows(page, "Connected")
    button = page.get_by_role("button", name="Ask for help")
    await expect(button).to_be_hidden()
    await page.locator("examwire-status").evaluate("badge => badge.setAttribute('help', '')")
    await button.press("Enter")
    asked = (await proctor.expect("help_requested", seconds=WAIT_SECONDS, examineeId="E001"))["data"]
    await expect(page.get_by_text("A proctor has been told.")).to_be_visible()
    await proctor.say("help_take", examineeId="E001", helpId=asked["requestId"], requestId="t1")
    await expect(page.get_by_text("kim has taken your request.")).to_be_visible()
    assert await audit(page) == []
    await page.get_by_role("button", name="No help needed").press("Enter")
    await proctor.expect("help_closed", seconds=WAIT_SECONDS, by="E001")
    await expect(button).to_be_visible()
