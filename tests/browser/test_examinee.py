"""The examinee's page in a browser: connected or not, in plain words, whatever happens to servers, network and tab."""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import pytest

from tests.browser.conftest import IN_A_BROWSER, QUICK_LADDER
from tests.browser.support.examinee_scene import CONNECTED, INTERRUPTED, Cable, connected, expect, headline
from tests.browser.support.phone_scene import Scene, choose, photo
from tests.browser.support.site import WAIT_SECONDS, Screens, Site, audit, with_own_clock
from tests.integration.support.drains import drain, know_each_other
from tests.integration.support.server_process import ServerProcess
from tests.integration.support.system import RawClient, eventually

if TYPE_CHECKING:
    from playwright.async_api import Page, Route, WebSocketRoute

pytestmark = IN_A_BROWSER

MOVING = ("You are being moved to another server", "Connecting")
"""What is said of a change of server that takes longer than a second, as it may on a busy machine."""


def client_of(site: Site, examinee_id: str = "E001") -> tuple[str, int] | None:
    """The clientId and connectionNo that a socket server has of an examinee."""
    for server_id in ("SOCK001", "SOCK002"):
        for session in site.system.server(server_id).sessions.examinees.values():
            if session.examinee_id == examinee_id:
                details = session.details()
                return str(details["clientId"]), int(details["connectionNo"])
    return None


async def test_a_token_in_the_address_connects_and_is_not_left_there(site: Site, screens: Screens) -> None:
    page = await connected(site, screens)
    assert page.url == f"{site.url}/examinee"
    await expect(page.locator("#who")).to_have_text("Examinee E001, exam P001")
    await expect(page).to_have_title("Exam connection")
    await site.system.status("E001", "CONNECTED")
    assert await audit(page) == []


async def test_without_a_token_the_page_asks_for_one_and_keeps_the_input(site: Site, screens: Screens) -> None:
    page = await screens.open(f"{site.url}/examinee")
    field = page.locator("#token")
    await field.fill("half a tok")
    await page.locator("#language").select_option("ko")
    await expect(field).to_have_value("half a tok")
    await page.locator("#language").select_option("en")
    await field.press("Enter")
    await expect(page.locator("#token-error")).to_contain_text("not an access token")
    await expect(field).to_be_focused()
    await expect(field).to_have_value("half a tok")
    assert await audit(page) == []
    await field.fill(site.system.token("proctor", "kim"))
    await field.press("Enter")
    await expect(page.locator("#token-error")).to_contain_text("“proctor”")
    await field.fill(site.system.token("examinee", "E001"))
    await field.press("Enter")
    await headline(page, CONNECTED)


async def test_a_loss_says_when_it_is_tried_again_and_a_button_tries_now(site: Site, screens: Screens) -> None:
    proctor = await site.system.proctor()
    cable = Cable()
    page = await connected(site, screens, with_own_clock, cable.plug)
    await cable.cut()
    await headline(page, INTERRUPTED)
    await expect(page.locator("#said")).to_contain_text(INTERRUPTED)
    await expect(page.locator("#connection-next")).to_have_text(
        re.compile(r"Next attempt in \d+ seconds? \([1-5] of 5\)\.")
    )
    await expect(page).to_have_title(re.compile(f"^{INTERRUPTED}"))
    assert await audit(page) == []
    loss = await proctor.expect("examinee_disconnected", seconds=WAIT_SECONDS, examineeId="E001")
    await page.clock.pause_at(await page.evaluate("Date.now() + 5000"))  # from now on it tries nothing by itself
    cable.mend()
    await page.get_by_role("button", name="Try now").click()
    await page.clock.run_for(1100)  # of two tries the second one waits until a second is over
    await headline(page, CONNECTED)
    back = await proctor.expect("examinee_connected", seconds=WAIT_SECONDS, examineeId="E001", recovered=True)
    assert back["data"]["version"] > loss["data"]["version"]


async def test_a_page_without_a_network_says_so_and_reconnects_by_itself(site: Site, screens: Screens) -> None:
    screens.complaints.expect("ERR_INTERNET_DISCONNECTED")
    page = await connected(site, screens)
    await page.context.set_offline(True)
    await headline(page, "This computer has no network")
    assert await audit(page) == []
    await page.context.set_offline(False)
    await headline(page, CONNECTED)


async def test_while_nothing_can_be_recorded_nobody_says_that_the_proctor_sees_it(site: Site, screens: Screens) -> None:
    """As with Redis away: the connection stands, and what the server says of the session does not come."""
    held_frames: list[tuple[WebSocketRoute, str | bytes]] = []

    async def plug(socket: WebSocketRoute) -> None:
        server = socket.connect_to_server()

        def from_server(text: str | bytes) -> None:
            if "session_state" in str(text):
                held_frames.append((socket, text))
            else:
                socket.send(text)

        server.on_message(from_server)

    page = await connected(site, screens, lambda page: page.route_web_socket("**/v1/connect", plug))
    text = page.locator("#connection-text")
    await expect(text).to_have_text(
        "You can go on with your exam. Your proctor will see in a moment that you are here."
    )
    await expect(page).to_have_title("Exam connection")
    for socket, frame in held_frames:
        socket.send(frame)
    await expect(text).to_have_text("Your proctor sees that you are here. You can go on with your exam.")


async def test_a_server_that_is_drained_goes_unnoticed(site: Site, screens: Screens) -> None:
    page = await connected(site, screens, _only(site.system.server("SOCK001").url))
    await page.evaluate(
        """() => {
          const title = document.getElementById("connection-title");
          window.seen = [];
          const look = () => window.seen.push(title.textContent);
          new MutationObserver(look).observe(title, {childList: true, characterData: true, subtree: true});
        }"""
    )
    await know_each_other(site.system)
    await drain(site.system._buses["SOCK002"], "SOCK001")

    async def moved() -> bool:
        return (await site.system.progress()).get("serverId") == "SOCK002"

    await eventually(moved, "E001 on SOCK002", WAIT_SECONDS)
    await headline(page, CONNECTED)
    assert set(await page.evaluate("window.seen")) <= {CONNECTED, *MOVING}


@QUICK_LADDER
async def test_a_server_that_is_killed_under_the_page_has_a_fallback(site: Site, screens: Screens) -> None:
    screens.complaints.expect("WebSocket connection to")
    killed = await ServerProcess.start(site.settings, "SOCK003")
    try:

        async def known() -> bool:  # to the web server, which then lets its pages connect there
            return killed.url in site.web._endpoints.known

        await eventually(known, "SOCK003 known to the web server", WAIT_SECONDS)
        page = await connected(site, screens, _only(killed.url))
        await eventually(lambda: _is_on(site, "SOCK003"), "E001 on SOCK003", WAIT_SECONDS)
        await killed.kill()
        await eventually(lambda: _is_on(site, "SOCK001", "SOCK002"), "E001 on another server", WAIT_SECONDS)
        await headline(page, CONNECTED)
    finally:
        await killed.kill()


async def _is_on(site: Site, *server_ids: str) -> bool:
    progress = await site.system.progress()
    return progress.get("serverId") in server_ids and progress.get("connStatusCode") == "CONNECTED"


def _only(url: str) -> Callable[[Page], Awaitable[object]]:
    """A page that is told of this socket server alone."""

    async def answer(route: Route) -> None:
        endpoints = {"socketServers": [url], "mobileSyncSeconds": 120, "maxPictureBytes": 20971520}
        await route.fulfill(json=endpoints)

    return lambda page: page.route("**/v1/endpoints", answer)


async def test_a_reload_is_the_same_client_with_the_next_number_and_nobody_stays_lost(
    site: Site, screens: Screens
) -> None:
    proctor = await site.system.proctor()
    page = await connected(site, screens)
    first = client_of(site)
    assert first is not None
    for expected in (2, 3):
        await page.reload()
        await headline(page, CONNECTED)

        async def counted(number: int = expected) -> bool:
            return client_of(site) == (first[0], number)

        await eventually(counted, f"connection {expected} of the same client", WAIT_SECONDS)
    await site.system.status("E001", "CONNECTED")
    newest = await site.system.progress()
    await _told_of(proctor, newest["version"])
    assert proctor.about("E001")[-1]["type"] == "examinee_connected"


async def _told_of(proctor: RawClient, version: str) -> None:
    async def told() -> bool:
        return any(frame["data"]["version"] >= int(version) for frame in proctor.about("E001"))

    await eventually(told, "the proctor told of the newest connection", WAIT_SECONDS)


async def test_another_tab_takes_over_and_this_one_says_so(site: Site, screens: Screens) -> None:
    page = await connected(site, screens)
    other = await screens.open(site.link("examinee", "examinee", "E001"))
    await headline(other, CONNECTED)
    await headline(page, "The exam is open somewhere else")
    assert await audit(page) == []
    await page.get_by_role("button", name="Continue here").click()
    await headline(page, CONNECTED)
    await headline(other, "The exam is open somewhere else")


async def test_a_token_that_has_expired_is_replaced_without_losing_the_page(site: Site, screens: Screens) -> None:
    from actors.runtime.config.tokens import issue_token

    old = issue_token(site.settings, "examinee", "P001", "E001", seconds=-60)
    page = await screens.open(f"{site.url}/examinee#token={old}")
    await headline(page, "Your access has expired")
    assert await audit(page) == []
    await page.locator("#token").fill(site.system.token("examinee", "E001"))
    await page.locator("#token").press("Enter")
    await headline(page, CONNECTED)
    await page.reload()
    await headline(page, CONNECTED)


async def test_a_message_of_the_proctor_is_shown_and_confirmed(site: Site, screens: Screens) -> None:
    proctor = await site.system.proctor()
    page = await connected(site, screens)
    text = "Thirty minutes left.\n<b>Save your work.</b>"
    await proctor.say("notify", examineeId="E001", requestId="n1", text=text)
    message = page.locator("#messages-new .message")
    await expect(message.locator(".text")).to_have_text("Thirty minutes left. <b>Save your work.</b>")
    await expect(page.locator("#said")).to_contain_text("Message from your proctor: Thirty minutes left.")
    await expect(page).to_have_title("(1) Exam connection")
    assert await audit(page) == []
    await page.reload()  # not confirmed: it comes again
    await expect(message).to_have_count(1)
    button = page.get_by_role("button", name="I have read this")
    await button.focus()
    await page.keyboard.press("Enter")
    confirmed = await proctor.expect("notice_confirmed", seconds=WAIT_SECONDS, examineeId="E001")
    assert confirmed["data"]["actionId"] == "n1"
    await expect(message).to_have_count(0)
    await expect(page.locator("#messages-title")).to_be_focused()
    await expect(page.locator("#messages-old-label")).to_have_text("1 message that you have read")
    await expect(page).to_have_title("Exam connection")
    assert await audit(page) == []


async def test_the_mobile_step_by_keyboard_with_code_and_countdown(scene: Scene) -> None:
    page = await scene.screens.open(scene.site.link("examinee", "examinee", "E001"))
    await page.locator("#mobile-start").wait_for()
    await page.keyboard.press("Tab")
    await expect(page.locator("#language")).to_be_focused()
    await page.keyboard.press("Tab")
    await expect(page.locator("#hand-in")).to_be_focused()
    await page.keyboard.press("Tab")
    await expect(page.locator("#help-ask")).to_be_focused()
    await page.keyboard.press("Tab")
    await expect(page.locator("#mobile-start")).to_be_focused()
    await page.keyboard.press("Enter")
    scene.computer = page
    code = await scene.code()
    image = page.locator("#qr-image")
    await expect(image).to_be_visible()
    await expect(image).to_have_attribute("alt", re.compile(re.escape(code)))
    assert await image.evaluate("image => image.decode().then(() => image.naturalWidth > 0)")
    await expect(page.locator("#left-time")).to_have_text(re.compile(r"^[12]:[0-5]\d$"))
    await expect(page.locator("#said")).to_contain_text("Waiting for the picture")
    assert await audit(page) == []
    await page.reload()  # in the middle: the stage goes on
    await expect(page.locator("#mobile-chip")).to_have_text("Waiting for the picture")
    assert await scene.code() != ""


async def test_where_phones_get_no_codes_the_picture_comes_from_the_computer(site: Site, screens: Screens) -> None:
    screens.complaints.expect("501")

    async def none(route: Route) -> None:
        await route.fulfill(status=501, json={"code": "NO_SECRET", "detail": "no codes here"})

    page = await connected(site, screens, lambda page: page.route("**/phone-code", none))
    await page.locator("#mobile-start").click()
    await page.locator("#picker").wait_for()
    assert await audit(page) == []
    await choose(page, photo())
    await expect(page.locator("#mobile-chip")).to_have_text("Done")
    await expect(page.locator("#picture")).to_be_visible()
    assert Scene(site, screens).stored().size == (1365, 2048)


async def test_a_code_that_cannot_be_fetched_is_fetched_again(site: Site, screens: Screens) -> None:
    screens.complaints.expect("503")
    busy = True

    async def answer(route: Route) -> None:
        if busy:
            await route.fulfill(status=503, body=json.dumps({"detail": "now now"}))
        else:
            await route.continue_()

    page = await connected(site, screens, lambda page: page.route("**/phone-code", answer))
    await page.locator("#mobile-start").click()
    await expect(page.locator("#mobile-note")).to_contain_text("cannot be loaded at the moment")
    busy = False
    await expect(page.locator("#qr-image")).to_be_visible()
    await expect(page.locator("#mobile-note")).to_be_hidden()


async def test_more_time_that_a_proctor_gives_is_counted_down_at_once(scene: Scene) -> None:
    proctor = await scene.site.system.proctor()
    first = await scene.waiting()
    page = scene.computer
    countdown = page.locator("#left-time")
    await expect(countdown).to_have_text(re.compile(r"^(2:00|[01]:[0-5]\d)$"))
    await proctor.say("extend_mobile_sync", examineeId="E001", requestId="x1", seconds=600)
    await expect(countdown).to_have_text(re.compile(r"^1[0-2]:[0-5]\d$"))
    await expect(page.locator("#mobile-chip")).to_have_text("Waiting for the picture")
    await expect(page.locator("#phone-code")).not_to_have_text(first)  # one that lives as long as the stage does now
    await expect(page.locator("#phone-code")).to_have_text(re.compile("^....-....$"))
    assert await audit(page) == []


LOOKS = [
    {"viewport": {"width": 320, "height": 568}, "color_scheme": "light"},
    {"viewport": {"width": 1366, "height": 768}, "color_scheme": "dark"},
    {"viewport": {"width": 3840, "height": 2160}, "color_scheme": "light", "reduced_motion": "reduce"},
]


@pytest.mark.parametrize("look", LOOKS, ids=["small", "dark", "4k"])
async def test_the_page_is_korean_for_koreans_fits_every_screen_and_is_accessible(
    scene: Scene, look: dict[str, Any]
) -> None:
    await scene.waiting(locale="ko-KR", **look)
    page = scene.computer
    await headline(page, "정상적으로 연결되어 있습니다")
    await expect(page.locator("html")).to_have_attribute("lang", "ko")
    await expect(page.locator("#mobile-chip")).to_have_text("사진을 기다리는 중")
    assert await page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert await audit(page) == []
    await page.locator("#language").select_option("en")
    await headline(page, CONNECTED)
    await expect(page.locator("#mobile-chip")).to_have_text("Waiting for the picture")
