"""Tokens that are none, expired, forged or for others, and what another role or plan may do."""

from __future__ import annotations

import time

from actors.runtime.config.settings import token_secret
from protocol.records import keys
from tests.integration.bad_input.support import Neighbours, crafted, refused
from tests.integration.support.system import RawClient, System


async def test_an_invalid_expired_or_forged_token_is_refused(system: System, neighbours: Neighbours) -> None:
    settings = system.settings
    tokens: list[str | None] = [
        None,
        "",
        "nonsense",
        "a.b.c",
        "x" * 8000,
        crafted(settings, exp=int(time.time()) - 11),
        crafted(settings, exp=None),
        crafted(settings, aud="another-system"),
        crafted(settings, aud=None),
        crafted(settings, sub=None),
        crafted(settings, plan=None),
        crafted(settings, role="superuser"),
        crafted(settings, role=None),
        crafted(settings, plan=["P001"]),
        crafted(settings, role="proctor", scope={}),
        crafted(settings, role="proctor", scope="room=A"),
        crafted(settings, role="proctor", scope={"room": "A"}),
        crafted(settings, role="proctor", scope={"room": []}),
        crafted(settings, role="proctor", scope={"a room": ["A"]}),
        crafted(settings, key="another secret, as long as it has to be, and longer"),
        crafted(settings, key="", algorithm="none"),
        crafted(settings, algorithm="HS512", key=token_secret(settings) + "x" * 64),
    ]
    for token in tokens:
        client = await system.raw()
        arguments = {} if token is None else {"token": token}
        await client.say("hello", clientId="c", connectionNo=1, **arguments)
        await refused(client, 4502, "UNAUTHORIZED", "data.token")
        if token:
            assert token not in client.frames[0]["data"]["message"]


async def test_roles_other_than_examinee_and_proctor_are_refused(system: System, neighbours: Neighbours) -> None:
    for role in ("mobile", "operator"):
        client = await system.raw()
        await client.say("hello", token=crafted(system.settings, role=role), clientId="c", connectionNo=1)
        await refused(client, 4506, "FORBIDDEN", "data.token")


async def test_a_token_is_read_from_the_header_and_not_from_the_url(system: System, neighbours: Neighbours) -> None:
    token = system.token("examinee", "E001")
    url = f"{system.server('SOCK001').url}?token={token}&access_token={token}"
    client = await RawClient.open(url)
    system.clients.append(client)
    await client.say("hello", clientId="c", connectionNo=1)
    await refused(client, 4502, "UNAUTHORIZED", "data.token")
    client = await system.raw(additional_headers={"Authorization": f"Bearer {token}"})
    await client.say("hello", clientId="c", connectionNo=1)
    assert (await client.expect("welcome"))["data"]["examineeId"] == "E001"


async def test_what_another_role_may_do_is_refused(system: System, neighbours: Neighbours) -> None:
    examinee = await system.examinee("E001")
    await examinee.say("readmit", examineeId="E001")
    assert (await examinee.expect("error"))["data"]["code"] == "NOT_ALLOWED"
    await neighbours.proctor.say("mobile_sync_wait")
    assert (await neighbours.proctor.expect("error"))["data"]["code"] == "NOT_ALLOWED"
    before = len(examinee.frames)
    await examinee.say("mobile_sync_wait", planId="P001", examineeId="N001")
    error = await examinee.expect("error", after=before)
    assert (error["data"]["code"], error["data"]["field"]) == ("FORBIDDEN", "data.examineeId")
    before = len(examinee.frames)
    await examinee.say("mobile_sync_wait", planId="P002")
    error = await examinee.expect("error", after=before)
    assert (error["data"]["code"], error["data"]["field"]) == ("FORBIDDEN", "data.planId")
    assert await system.store.entries(keys.mobile_sync("P001", "E001")) == {}


async def test_a_proctor_of_another_plan_sees_and_changes_nothing_of_this_one(
    system: System, neighbours: Neighbours
) -> None:
    other = await system.proctor(plan_id="P002", name="proctor-2")
    examinee = await system.examinee("E001")
    await other.say("readmit", examineeId="E001", planId="P001", requestId="r1")
    await other.expect("error", code="NOT_FOUND", requestType="readmit")  # there is no E001 in the proctor's own plan
    examinee.abort()
    await neighbours.proctor.expect("examinee_disconnected", examineeId="E001")
    about_plans = [frame["type"] for frame in other.frames if frame["type"] != "view_status"]
    assert about_plans == ["welcome", "plan_state", "plan_snapshot", "error"]
    assert (await other.expect("plan_state"))["data"]["planId"] == "P002"
    assert "examinee_readmitted" not in [frame["type"] for frame in neighbours.proctor.frames]
