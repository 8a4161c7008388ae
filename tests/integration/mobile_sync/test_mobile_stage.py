"""How the mobile sync stage stands, told to phones; and that a removed examinee's phone is shut out until a readmit."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from redis.asyncio import Redis

from actors.runtime.broker.connection import Bus
from actors.runtime.config.settings import Settings
from actors.runtime.store.state_store import StateStore
from actors.web_server.server import WebServer
from protocol.broker.streams import PHONE
from protocol.messages.frames import Role
from protocol.records import keys
from tests.integration.support.clients.phones import Site, open_site, picture, problem, record, seconds_from_now
from tests.integration.support.system import RawClient, System, eventually

STAGE = "/v1/plans/P001/examinees/E001/mobile-stage"
CODE = "/v1/plans/P001/examinees/E001/phone-code"


@pytest.fixture
async def site(settings: Settings, bus: Bus, store: StateStore) -> AsyncIterator[Site]:
    await bus.apply_stream(PHONE)
    async with open_site(settings, bus, store) as site:
        yield site


async def removal(settings: Settings, removed: bool) -> None:
    """The progress record of E001, as the state manager would have written it."""
    redis = Redis.from_url(settings.redis_url)
    await redis.hset(keys.progress("P001", "E001"), "removed", str(int(removed)))
    await redis.aclose()


async def told(site: Site, role: Role = "mobile") -> dict[str, Any]:
    response = await site.http.get(STAGE, headers=site.bearer(role))
    assert response.status_code == 200, response.text
    assert response.headers["cache-control"] == "no-store"
    document: dict[str, Any] = response.json()
    return document


# -- how it stands ---------------------------------------------------------------------------------------


async def test_a_phone_gets_the_time_left_also_after_an_extension(site: Site) -> None:
    assert await told(site) == {"status": "NONE", "removed": False}
    for seconds in (60, 360, -5):
        deadline = seconds_from_now(seconds)
        await record(site.settings, status="WAITING", deadline=deadline)
        stage = await told(site, "examinee" if seconds == 360 else "mobile")
        assert (stage["status"], stage["deadline"], stage["removed"]) == ("WAITING", deadline, False)
        assert seconds - 5 < stage["secondsLeft"] <= seconds


@pytest.mark.parametrize(
    ("role", "subject", "plan_id"),
    [("mobile", "E002", "P001"), ("mobile", "E001", "P002"), ("proctor", "E001", "P001"), ("operator", "E001", "P001")],
)
async def test_nobody_asks_for_another(site: Site, role: Role, subject: str, plan_id: str) -> None:
    response = await site.http.get(STAGE, headers=site.bearer(role, subject, plan_id))
    assert (response.status_code, problem(response)["code"]) == (403, "FORBIDDEN")
    bare = await site.http.get(STAGE)
    assert (bare.status_code, problem(bare)["code"]) == (401, "UNAUTHORIZED")


async def test_an_id_that_can_be_none_is_named(site: Site) -> None:
    response = await site.http.get(STAGE.replace("E001", "E.1"), headers=site.bearer())
    assert (response.status_code, problem(response)["field"]) == (400, "examineeId")


async def test_without_redis_the_stage_is_unknown_and_a_picture_is_accepted(site: Site) -> None:
    redis = Redis.from_url(site.settings.redis_url)
    await redis.flushall()  # emptied: what it says may not be believed
    await redis.aclose()
    response = await site.http.get(STAGE, headers=site.bearer())
    assert (response.status_code, problem(response)["code"]) == (503, "UNAVAILABLE")
    assert int(response.headers["retry-after"]) > 0
    assert (await site.put(picture())).status_code == 201  # the log decides


# -- removed ---------------------------------------------------------------------------------------------


def is_shut_out(response: httpx.Response) -> bool:
    return (response.status_code, problem(response)["code"]) == (403, "REMOVED")


@pytest.mark.parametrize("role", ["mobile", "examinee"])
async def test_a_picture_of_a_removed_examinee_is_refused_until_readmitted(site: Site, role: Role) -> None:
    await record(site.settings, status="WAITING", deadline=seconds_from_now(60))
    await removal(site.settings, True)
    assert (await told(site))["removed"]
    assert is_shut_out(await site.put(picture(), headers=site.bearer(role)))
    assert is_shut_out(await site.put(b"no picture", headers=site.bearer(role)))  # nobody looks at it
    assert (await site.published(), site.stored(), site.leftovers()) == ([], None, [])
    assert site.server.outcomes["REMOVED"] == 2
    await removal(site.settings, False)
    assert not (await told(site))["removed"]
    assert (await site.put(picture(), headers=site.bearer(role))).status_code == 201


async def test_a_removal_during_an_upload_refuses_the_picture(site: Site) -> None:
    await record(site.settings, status="WAITING", deadline=seconds_from_now(60))
    content = picture()
    upload = await site.raw(len(content), content[:1000])
    await site.on_its_way()
    await removal(site.settings, True)
    await upload.send(content[1000:])
    status, document = await upload.response()
    assert (status, document["code"]) == (403, "REMOVED")
    assert (site.stored(), site.leftovers(), await site.published()) == (None, [], [])
    await upload.close()


async def test_a_removed_examinee_gets_no_code_and_earlier_codes_are_refused(site: Site) -> None:
    await record(site.settings, status="WAITING", deadline=seconds_from_now(60))
    code_response = await site.http.post(CODE, headers=site.bearer("examinee"))
    assert code_response.status_code == 201
    redeem = f"/v1/phone-codes/{code_response.json()['code']}"
    await removal(site.settings, True)
    assert is_shut_out(await site.http.post(CODE, headers=site.bearer("examinee")))
    assert is_shut_out(await site.http.post(redeem))
    await removal(site.settings, False)
    assert (await site.http.post(redeem)).status_code == 200
    assert (await site.http.post(CODE, headers=site.bearer("examinee"))).status_code == 201


async def test_a_remove_refuses_a_picture_and_a_readmit_accepts_it(
    settings: Settings, bus: Bus, store: StateStore
) -> None:
    async with System(settings, servers=("SOCK001",)) as system:
        server = WebServer(settings, bus, store)
        await server.start()
        site = Site(server, settings, bus)
        try:
            proctor, examinee = await system.proctor(), await system.examinee()
            await examinee.say("mobile_sync_wait")
            await proctor.expect("mobile_sync_status", status="WAITING")
            content = picture()
            await _act(proctor, "remove", "examinee_removed")
            await eventually(lambda: _removed(site, True), "the phone told of the removal")
            assert is_shut_out(await site.put(content))
            await _act(proctor, "readmit", "examinee_readmitted")
            await eventually(lambda: _removed(site, False), "the phone told of the readmission")
            assert (await site.put(content)).status_code == 201
            await proctor.expect("mobile_sync_completed", examineeId="E001")
            assert system.failures == []
        finally:
            await site.close()


async def _act(proctor: RawClient, action: str, effect: str) -> None:
    await proctor.say(action, examineeId="E001", requestId=action)
    await proctor.expect(effect, examineeId="E001")


async def _removed(site: Site, expected: bool) -> bool:
    return bool((await told(site))["removed"]) == expected
