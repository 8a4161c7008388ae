"""The phone's page in a browser: from the code to the picture that has arrived, and whatever comes between."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest

from protocol.messages.plan_facts import PlanClose
from tests.browser.conftest import IN_A_BROWSER
from tests.browser.support.phone_scene import UPLOADS, BadNetwork, Scene, choose, photo
from tests.browser.support.site import WAIT_SECONDS, audit, with_own_clock
from tests.integration.support.system import eventually

playwright_api = pytest.importorskip("playwright.async_api", reason="Playwright is not installed: no browser tests")
expect = playwright_api.expect

if TYPE_CHECKING:
    from playwright.async_api import Browser, Page, Route

pytestmark = IN_A_BROWSER


UNTIL_IT_ASKS = 20_000
"""More than the longest pause, in ms, after which a phone asks how its stage stands."""


UNTIL_IT_SENDS = 12_000
"""More than the pause, in ms, after each of the first four tries."""


async def fits(page: Page) -> bool:
    """Whether nothing has to be scrolled sideways."""
    return bool(await page.evaluate("document.documentElement.scrollWidth <= innerWidth"))


async def test_a_picture_goes_from_the_phone_to_the_examinee_and_the_proctor(scene: Scene) -> None:
    proctor = await scene.site.system.proctor()
    code = await scene.waiting()
    phone = await scene.phone()
    assert await audit(phone) == []
    await expect(phone.locator("#code")).to_be_focused()
    await phone.keyboard.type(code.lower().replace("-", " "))
    await phone.keyboard.press("Enter")
    await phone.locator("#shutter").click()
    await phone.locator("#use").click()
    await expect(phone.locator("#done-title")).to_be_focused()
    await expect(phone.locator("#step-done")).to_contain_text("The picture has arrived")
    assert await audit(phone) == []

    completed = await proctor.expect("mobile_sync_completed", seconds=WAIT_SECONDS, examineeId="E001")
    record = await scene.recorded("COMPLETED")
    assert record["deviceId"] == completed["data"]["deviceId"]
    await expect(scene.computer.locator("#mobile-chip")).to_have_text("Done")
    picture = scene.computer.locator("#picture")
    await expect(picture).to_be_visible()
    await expect(picture).to_have_js_property("naturalWidth", scene.stored().width)
    await expect(scene.computer.locator("#picture-when")).to_have_text(re.compile(r"^Arrived at \d\d:\d\d:\d\d\.$"))
    assert await audit(scene.computer) == []


async def test_a_second_phone_learns_that_the_picture_is_there_and_counts_no_time_any_more(scene: Scene) -> None:
    code = await scene.waiting()
    second = await scene.phone(code, before=with_own_clock)
    scene.screens.complaints.expect("409")
    await second.locator("#shutter").wait_for()
    refused = await scene.phone(code)
    await expect(refused.locator("#code-error")).to_contain_text("was used on another phone")
    await scene.computer.locator("#mobile-new-code").click()
    first = await scene.phone(await scene.code())
    await first.locator("#shutter").click()
    await first.locator("#use").click()
    await expect(first.locator("#step-done")).to_be_visible()
    await scene.recorded("COMPLETED")
    await expect(second.locator("#left")).to_be_visible()
    await second.clock.fast_forward(UNTIL_IT_ASKS)
    await expect(second.locator("#camera-hint")).to_contain_text("A picture has arrived already")
    await expect(second.locator("#left")).to_be_hidden()


async def test_the_qr_code_opens_the_page_with_its_code_and_the_address_does_not_keep_it(scene: Scene) -> None:
    phone = await scene.phone(await scene.waiting())
    await expect(phone.locator("#shutter")).to_be_visible()
    assert phone.url == f"{scene.site.url}/phone"
    await expect(phone.locator("#who")).to_have_text("For examinee E001")
    await expect(phone.locator("#left-time")).to_have_text(re.compile(r"[12]:[0-5]\d"))


async def test_a_picture_is_sent_again_on_a_bad_network_and_stored_once(scene: Scene) -> None:
    phone = await scene.with_picture(before=with_own_clock)
    network = BadNetwork()
    scene.screens.complaints.expect("net::ERR_CONNECTION_RESET")
    await phone.route(UPLOADS, network)
    await phone.locator("#use").click()
    await expect(phone.locator("#upload-text")).to_contain_text("Your picture is kept and is sent again automatically")
    await network.tried(2)
    network.good.set()
    await phone.clock.fast_forward(UNTIL_IT_SENDS)
    await expect(phone.locator("#step-done")).to_be_visible()
    assert scene.site.web.outcomes["STORED"] == 1
    await scene.recorded("COMPLETED")


async def test_without_a_network_it_waits_and_goes_at_once_when_it_is_back(scene: Scene) -> None:
    phone = await scene.with_picture()
    scene.screens.complaints.expect("net::ERR_INTERNET_DISCONNECTED")
    await phone.context.set_offline(True)
    await phone.locator("#use").click()
    await expect(phone.locator("#upload-text")).to_contain_text("The phone has no network")
    assert await audit(phone) == []
    await phone.context.set_offline(False)
    await expect(phone.locator("#step-done")).to_be_visible()


async def test_a_reload_keeps_the_picture_until_it_has_arrived(scene: Scene) -> None:
    phone = await scene.with_picture(before=with_own_clock)
    network = BadNetwork()
    scene.screens.complaints.expect("net::ERR_CONNECTION_RESET")
    await phone.route(UPLOADS, network)
    await phone.locator("#use").click()
    await expect(phone.locator("#try-now")).to_be_visible()
    tries = network.tries
    await phone.reload()
    await expect(phone.locator("#step-upload")).to_be_visible()
    await expect(phone.locator("#sent")).to_have_js_property("complete", True)
    await network.tried(tries + 1)
    await phone.locator("#try-now").click()
    await network.tried(tries + 2)
    network.good.set()
    await phone.clock.fast_forward(UNTIL_IT_SENDS)
    await expect(phone.locator("#step-done")).to_be_visible()
    await phone.reload()  # and is not sent again
    await expect(phone.locator("#step-done")).to_be_visible()
    assert scene.site.web.outcomes["STORED"] == 1


NO_STORAGE = "indexedDB.open = () => { throw new DOMException('not here', 'SecurityError'); };"


async def test_a_browser_that_keeps_nothing_sends_all_the_same_and_says_to_stay(scene: Scene) -> None:
    scene.screens.complaints.expect("nothing can be kept on this device|net::ERR_CONNECTION_RESET")

    async def without_storage(page: Page) -> None:
        await with_own_clock(page)
        await page.add_init_script(NO_STORAGE)

    phone = await scene.with_picture(before=without_storage)
    network = BadNetwork()
    await phone.route(UPLOADS, network)
    await phone.locator("#use").click()
    await expect(phone.locator("#keep-open")).to_contain_text("do not close or reload this page")
    assert await audit(phone) == []
    network.good.set()
    await phone.clock.fast_forward(UNTIL_IT_SENDS)
    await expect(phone.locator("#step-done")).to_be_visible()


async def test_a_busy_server_is_retried_after_its_retry_after(scene: Scene) -> None:
    phone = await scene.with_picture()
    answers = [(503, "1"), (429, "1")]

    async def busy(route: Route) -> None:
        if not answers:
            await route.continue_()
            return
        status, after = answers.pop(0)
        await route.fulfill(status=status, headers={"Retry-After": after}, json={"detail": "busy"})

    scene.screens.complaints.expect("503|429")
    await phone.route(UPLOADS, busy)
    await phone.locator("#use").click()
    await expect(phone.locator("#step-done")).to_be_visible()
    assert answers == []


async def test_a_late_picture_is_kept_and_sent_when_the_time_is_extended(scene: Scene) -> None:
    proctor = await scene.site.system.proctor()
    phone = await scene.with_picture(before=with_own_clock)
    await scene.time_is_up()
    await proctor.expect("mobile_sync_status", seconds=WAIT_SECONDS, status="TIMED_OUT")
    scene.screens.complaints.expect("409")
    await phone.locator("#use").click()
    await expect(phone.locator("#upload-title")).to_have_text("Time is up")
    await expect(phone.locator("#upload-text")).to_contain_text("tell the proctor")
    assert await audit(phone) == []
    retry_button = phone.get_by_role("button", name="Send again")
    await retry_button.click()  # somebody who insists gets the same answer
    await eventually(lambda: scene.refused("DEADLINE_PASSED", 2), "the second refusal", WAIT_SECONDS)
    await expect(retry_button).to_be_visible()
    await proctor.say("extend_mobile_sync", examineeId="E001", requestId="x1", seconds=300)
    await proctor.expect("mobile_sync_status", seconds=WAIT_SECONDS, status="WAITING", actionId="x1")
    await phone.clock.fast_forward(UNTIL_IT_ASKS)
    await expect(phone.locator("#step-done")).to_be_visible()


async def test_the_page_shows_the_end_of_the_time_and_an_extension(scene: Scene) -> None:
    proctor = await scene.site.system.proctor()
    phone = await scene.phone(await scene.waiting(), before=with_own_clock)
    await phone.locator("#shutter").wait_for()
    scene.screens.complaints.expect("net::ERR_FAILED")
    await phone.route("**/mobile-stage", lambda route: route.abort())  # so that it has only its own clock to go by
    await phone.clock.fast_forward(125_000)
    await expect(phone.locator("#left")).to_have_text(re.compile(r"^\s*Time is up\s*$"))
    await expect(phone.locator("#trouble-title")).to_have_text("Time for this picture is up")
    await expect(phone.locator("#said")).to_contain_text("Time for this picture is up")
    assert await audit(phone) == []
    await proctor.say("extend_mobile_sync", examineeId="E001", requestId="x1", seconds=600)
    await proctor.expect("mobile_sync_status", seconds=WAIT_SECONDS, status="WAITING", actionId="x1")
    await phone.unroute("**/mobile-stage")
    await phone.clock.fast_forward(UNTIL_IT_ASKS)
    await expect(phone.locator("#left-time")).to_have_text(re.compile(r"^1[0-2]:[0-5]\d$"))
    await expect(phone.locator("#trouble")).to_be_hidden()


async def test_more_time_that_a_proctor_gives_is_counted_down_on_the_phone(scene: Scene) -> None:
    proctor = await scene.site.system.proctor()
    phone = await scene.phone(await scene.waiting(), before=with_own_clock)
    countdown = phone.locator("#left-time")
    await expect(countdown).to_have_text(re.compile(r"^(2:00|[01]:[0-5]\d)$"))
    await proctor.say("extend_mobile_sync", examineeId="E001", requestId="x1", seconds=600)
    await proctor.expect("mobile_sync_status", seconds=WAIT_SECONDS, status="WAITING", actionId="x1")
    await phone.clock.fast_forward(UNTIL_IT_ASKS)
    await expect(countdown).to_have_text(re.compile(r"^1[0-2]:[0-5]\d$"))


async def test_a_removed_examinees_phone_says_so_and_goes_on_when_they_are_let_in_again(scene: Scene) -> None:
    proctor = await scene.site.system.proctor()
    phone = await scene.with_picture(before=with_own_clock)
    scene.screens.complaints.expect("403")
    await proctor.say("remove", examineeId="E001", requestId="r1")
    await proctor.expect("examinee_removed", seconds=WAIT_SECONDS, examineeId="E001")
    await phone.locator("#use").click()
    await expect(phone.locator("#upload-title")).to_have_text("You were removed from this exam")
    await expect(phone.locator("#upload-text")).to_contain_text("this phone still has it. Please speak to the proctor")
    await expect(phone.locator("#said")).to_contain_text("You were removed from this exam")
    assert await audit(phone) == []
    await phone.clock.fast_forward(UNTIL_IT_ASKS)  # it asks, and sends nothing
    await expect(phone.locator("#upload-title")).to_have_text("You were removed from this exam")
    assert scene.site.web.outcomes["REMOVED"] == 1
    assert (await scene.record())["status"] == "WAITING"
    await proctor.say("readmit", examineeId="E001", requestId="r2")
    await proctor.expect("examinee_readmitted", seconds=WAIT_SECONDS, examineeId="E001")
    await phone.clock.fast_forward(UNTIL_IT_ASKS)
    await expect(phone.locator("#step-done")).to_be_visible()
    await scene.recorded("COMPLETED")


async def test_the_phone_says_when_the_exam_is_over_and_goes_on_when_it_does(scene: Scene) -> None:
    proctor = await scene.site.system.proctor()
    phone = await scene.phone(await scene.waiting(), before=with_own_clock)
    await phone.locator("#shutter").wait_for()
    await proctor.say("finish", examineeId="E001", requestId="f1")
    await proctor.expect("examinee_finished", seconds=WAIT_SECONDS, examineeId="E001")
    await phone.clock.fast_forward(UNTIL_IT_ASKS)
    await expect(phone.get_by_role("heading", name="The exam is over")).to_be_visible()
    await expect(phone.locator("#said")).to_contain_text("The exam is over")
    await expect(phone.locator("#left")).to_be_hidden()
    assert await audit(phone) == []
    await proctor.say("resume", examineeId="E001", requestId="r1")
    await proctor.expect("examinee_resumed", seconds=WAIT_SECONDS, examineeId="E001")
    await phone.clock.fast_forward(UNTIL_IT_ASKS)
    await expect(phone.locator("#step-camera")).to_be_visible()
    await scene.site.decide(PlanClose)
    await proctor.expect("plan_state", seconds=WAIT_SECONDS, status="CLOSED")
    await phone.clock.fast_forward(UNTIL_IT_ASKS)
    await expect(phone.locator("#over-title")).to_be_visible()


async def test_a_phone_of_a_removed_examinee_is_informed_and_continues_when_readmitted(scene: Scene) -> None:
    proctor = await scene.site.system.proctor()
    phone = await scene.phone(await scene.waiting(), before=with_own_clock)
    await phone.locator("#shutter").wait_for()
    await proctor.say("remove", examineeId="E001", requestId="r1")
    await proctor.expect("examinee_removed", seconds=WAIT_SECONDS, examineeId="E001")
    await phone.clock.fast_forward(UNTIL_IT_ASKS)
    await expect(phone.locator("#camera-title")).to_have_text("You were removed from this exam")
    await expect(phone.locator("#camera-hint")).to_contain_text("If you are let in again, you can go on here.")
    await expect(phone.locator("#shutter")).to_be_hidden()
    await expect(phone.locator("#picker")).to_be_hidden()
    assert await audit(phone) == []
    await proctor.say("readmit", examineeId="E001", requestId="r2")
    await proctor.expect("examinee_readmitted", seconds=WAIT_SECONDS, examineeId="E001")
    await phone.clock.fast_forward(UNTIL_IT_ASKS)
    await expect(phone.locator("#camera-title")).to_have_text("Take the picture")
    await phone.locator("#shutter").click()
    await phone.locator("#use").click()
    await expect(phone.locator("#step-done")).to_be_visible()


async def test_a_phone_whose_permission_ended_goes_on_with_a_new_code_and_the_same_picture(scene: Scene) -> None:
    phone = await scene.with_picture()
    refused = [True]

    async def answer(route: Route) -> None:
        if refused.pop() if refused else False:
            await route.fulfill(status=401, json={"code": "UNAUTHORIZED", "detail": "expired"})
        else:
            await route.continue_()

    scene.screens.complaints.expect("401")
    await phone.route(UPLOADS, answer)
    await phone.locator("#use").click()
    await expect(phone.locator("#upload-text")).to_contain_text("Your picture is kept")
    await phone.get_by_role("button", name="Enter another code").click()
    await phone.locator("#code").fill(await scene.code())
    await phone.locator("#code-go").click()
    await expect(phone.locator("#step-done")).to_be_visible()


async def test_a_refused_camera_is_explained_and_a_file_is_the_way_out(
    scene: Scene, browser_that_refuses: Browser
) -> None:
    phone = await scene.phone(await scene.waiting(), refused_by=browser_that_refuses)
    await expect(phone.locator("#trouble-title")).to_have_text("The camera is not allowed")
    await expect(phone.get_by_role("button", name="Try the camera again")).to_be_visible()
    assert await audit(phone) == []
    await choose(phone, photo())
    await phone.locator("#use").click()
    await expect(phone.locator("#step-done")).to_be_visible()
    await scene.recorded("COMPLETED")
    stored = scene.stored()
    assert stored.size == (1365, 2048)  # upright, and of a sensible size
    red, _, blue = stored.getpixel((680, 100))  # type: ignore[misc]
    assert red > blue  # what was left is on top after the turn
    assert dict(stored.getexif()) == {}


UNUSABLE = {
    "This file is not a picture.": b"Dear proctor",
    "This picture is damaged or not complete.": photo(320, 240, 1)[:-200],
    "This is a HEIC picture, which this browser cannot read.": b"\0\0\0\x10ftypheic\0\0\0\0",
    "This browser cannot read pictures of this format.": b"II*\0" + bytes(100),
}


async def test_why_a_file_cannot_be_used_is_said_and_the_next_picture_counts(
    scene: Scene, browser_that_refuses: Browser
) -> None:
    phone = await scene.phone(await scene.waiting(), refused_by=browser_that_refuses)
    await phone.locator("#trouble").wait_for()
    for told, content in UNUSABLE.items():
        await choose(phone, content)
        await expect(phone.locator("#trouble-title")).to_have_text(told)
        await expect(phone.locator("#trouble-text")).to_contain_text("choose")
        await expect(phone.locator("#said")).to_contain_text(told)
    assert await audit(phone) == []
    await expect(phone.get_by_role("button", name="Try the camera again")).to_be_visible()
    await choose(phone, photo(320, 240, 1)[:-2] + b"a film SEFT")  # a panorama of a Galaxy phone
    await expect(phone.locator("#step-review")).to_be_visible()


TROUBLES = {
    "Object.defineProperty(window, 'isSecureContext', {value: false})": "The camera cannot be used inside this page",
    "Object.defineProperty(Navigator.prototype, 'mediaDevices', {value: undefined})": "This browser cannot use",
    "MediaDevices.prototype.getUserMedia = async () => {throw new DOMException('', 'NotFoundError')}": "No camera was",
    "MediaDevices.prototype.getUserMedia = async () => {throw new DOMException('', 'NotReadableError')}": "Another app",
}


@pytest.mark.parametrize(("script", "told"), TROUBLES.items())
async def test_the_reason_for_a_missing_camera_is_shown(scene: Scene, script: str, told: str) -> None:
    phone = await scene.phone()
    await phone.add_init_script(script)
    # As on a phone, where a file input can open the phone's own camera.
    await phone.add_init_script(
        "Object.defineProperty(HTMLInputElement.prototype, 'capture', {value: '', writable: true})"
    )
    code = await scene.waiting()
    await phone.reload()
    await phone.locator("#code").fill(code)
    await phone.locator("#code-go").click()
    await expect(phone.locator("#trouble-title")).to_contain_text(told)
    await expect(phone.locator("#taker")).to_have_text("Open the phone’s camera")
    await expect(phone.locator("#own-camera")).to_have_attribute("capture", "environment")
    await expect(phone.locator("#picker")).to_have_text("Choose a picture instead")
    assert await phone.locator("#file").get_attribute("capture") is None, "it opens the camera"
    await expect(phone.locator("#shutter")).to_be_hidden()


async def test_a_wrong_code_is_shown_beside_the_field(scene: Scene) -> None:
    phone = await scene.phone()
    field = phone.locator("#code")
    await field.fill("ABC")
    await phone.locator("#code-go").click()
    await expect(phone.locator("#code-error")).to_contain_text("eight letters and digits")
    await expect(field).to_have_attribute("aria-invalid", "true")
    await expect(field).to_have_value("ABC")
    scene.screens.complaints.expect("404")
    await field.fill("ZZZZ-2222")
    await phone.locator("#code-go").click()
    await expect(phone.locator("#code-error")).to_contain_text("This code is not known")
    await expect(field).to_be_focused()
    await expect(field).to_have_value("ZZZZ-2222")
    assert await audit(phone) == []


async def test_a_picture_can_be_taken_again(scene: Scene) -> None:
    phone = await scene.with_picture()
    await phone.locator("#retake").click()
    await expect(phone.locator("#shutter")).to_be_visible()
    await expect(phone.locator("#camera-title")).to_be_focused()
    await phone.locator("#shutter").click()
    await expect(phone.locator("#step-review")).to_be_visible()


async def test_everything_works_by_keyboard_alone(scene: Scene) -> None:
    code = await scene.waiting()
    phone = await scene.phone()
    await expect(phone.locator("#code")).to_be_focused()
    await phone.keyboard.type(code)
    await phone.keyboard.press("Enter")
    await expect(phone.locator("#camera-title")).to_be_focused()
    await phone.locator("#shutter").wait_for()
    await phone.keyboard.press("Tab")
    await expect(phone.locator("#shutter")).to_be_focused()
    await phone.keyboard.press("Enter")
    await expect(phone.locator("#review-title")).to_be_focused()
    await phone.keyboard.press("Tab")
    await expect(phone.locator("#use")).to_be_focused()
    await phone.keyboard.press("Tab")
    await expect(phone.locator("#retake")).to_be_focused()
    await phone.keyboard.press("Shift+Tab")
    await phone.keyboard.press("Space")
    await expect(phone.locator("#done-title")).to_be_focused()


LOOKS = [
    {"viewport": {"width": 320, "height": 568}, "color_scheme": "light"},
    {"viewport": {"width": 568, "height": 320}, "color_scheme": "dark"},
    {"viewport": {"width": 390, "height": 844}, "color_scheme": "dark", "reduced_motion": "reduce"},
]


@pytest.mark.parametrize("look", LOOKS, ids=["small", "lying", "large"])
async def test_the_page_is_korean_for_koreans_fits_every_phone_and_is_accessible(
    scene: Scene, look: dict[str, Any]
) -> None:
    code = await scene.waiting()
    phone = await scene.phone(locale="ko-KR", **look)
    await expect(phone.locator("html")).to_have_attribute("lang", "ko")
    await expect(phone.locator("#code-title")).to_have_text("코드를 입력해 주세요")
    await phone.locator("#code").fill(code)
    await phone.locator("#code-go").click()
    shutter = phone.locator("#shutter")
    await shutter.wait_for()
    await expect(shutter).to_be_in_viewport(ratio=1)
    assert await fits(phone)
    assert await audit(phone) == []
    await shutter.click()
    await expect(phone.locator("#use")).to_be_in_viewport(ratio=1)
    assert await fits(phone)
    assert await audit(phone) == []
    await phone.locator("#language").select_option("en")
    await expect(phone.locator("#use")).to_have_text("Send this picture")
    await phone.locator("#language").select_option("ko")
    await phone.locator("#use").click()
    await expect(phone.locator("#step-done")).to_be_visible()
    await expect(phone.locator("#done-title")).to_have_text("사진이 도착했습니다")
    assert await fits(phone)
    assert await audit(phone) == []
