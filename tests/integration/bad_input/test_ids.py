"""Ids that are none, at every door: each would be another subject, key or file."""

from __future__ import annotations

import json

import pytest

from actors.runtime.broker.connection import Bus
from actors.runtime.config.settings import Settings
from actors.runtime.config.tokens import issue_token
from protocol.broker import subjects
from protocol.errors import InvalidField
from protocol.ids import check_server_id
from tests.integration.bad_input.support import BAD_IDS, Neighbours, crafted, refused
from tests.integration.support.system import System


def test_no_token_is_issued_for_a_bad_id(settings: Settings) -> None:
    for bad_id in BAD_IDS:
        with pytest.raises(InvalidField, match="planId"):
            issue_token(settings, "examinee", bad_id, "E001")
        with pytest.raises(InvalidField, match="sub"):
            issue_token(settings, "examinee", "P001", bad_id)


def test_no_server_is_made_with_a_bad_id() -> None:
    for bad_id in [*BAD_IDS, "plan"]:
        with pytest.raises(InvalidField, match="serverId"):
            check_server_id(bad_id)


async def test_a_token_with_a_bad_id_opens_nothing(system: System, neighbours: Neighbours) -> None:
    for bad_id in BAD_IDS:
        for claim in ("sub", "plan"):
            client = await system.raw()
            await client.say("hello", token=crafted(system.settings, **{claim: bad_id}), clientId="c", connectionNo=1)
            await refused(client, 4502, "UNAUTHORIZED", "data.token")
            assert f"claim {claim}" in client.frames[0]["data"]["message"]


async def test_a_bad_client_id_opens_nothing(system: System, neighbours: Neighbours) -> None:
    for bad_id in [*BAD_IDS, None, 7]:
        client = await system.raw()
        await client.say("hello", token=system.token("examinee", "E001"), clientId=bad_id, connectionNo=1)
        await refused(client, 4501, "INVALID_FIELD", "data.clientId")


async def test_a_proctor_cannot_readmit_a_bad_id(system: System, neighbours: Neighbours) -> None:
    proctor = await system.proctor(name="proctor-2")
    for bad_id in [*BAD_IDS, None, 7, ["E001"]]:
        before = len(proctor.frames)
        await proctor.say("readmit", examineeId=bad_id)
        error = await proctor.expect("error", after=before)
        assert (error["data"]["code"], error["data"]["field"]) == ("INVALID_FIELD", "data.examineeId")
        if len(proctor.frames) > 15:  # a connection bears a number of errors only
            await proctor.close()
            proctor = await system.proctor(name="proctor-2")


async def test_no_queue_is_made_for_a_bad_id(system: System, bus: Bus) -> None:
    for bad_id in [*BAD_IDS, "plan", None, 7]:
        for data, field in (
            ({"serverId": bad_id, "queueId": f"{bad_id}_Q"}, "data.serverId"),
            ({"serverId": "SOCK009", "queueId": "SOCK009_Q", "proctorPlans": [bad_id]}, "data.proctorPlans.0"),
            ({"serverId": "SOCK009", "queueId": "SOCK009_Q", "examineePlans": [bad_id]}, "data.examineePlans.0"),
        ):
            if bad_id == "plan" and field != "data.serverId":
                continue  # a plan may be called so
            body = json.dumps({"type": "queue_create", "data": data}).encode()
            answer = json.loads(await bus.request(subjects.QUEUE_CREATE, body))
            assert (answer["type"], answer["data"].get("code")) == ("error", "INVALID_FIELD"), data
            assert answer["data"]["field"] == field
    for body in (b"", b"{", b"[]", b"7", b'{"type": "queue_drop"}', b'{"type": "queue_create", "data": []}', b"\xff"):
        answer = json.loads(await bus.request(subjects.QUEUE_CREATE, body))
        assert answer["type"] == "error"
    assert await bus.consumer_config("SOCKET", "SOCK009_Q") is None
