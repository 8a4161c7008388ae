"""Bad input at every door: one clear error or close code each, and nobody else notices anything."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
import time
from collections.abc import AsyncIterator
from typing import Any

import jwt
import pytest
from websockets.exceptions import InvalidStatus

from actors import clients, greeting
from actors.runtime.bus import Bus, Outgoing
from actors.runtime.settings import Settings, load_settings, token_secret
from actors.runtime.tokens import issue_token
from protocol import keys, subjects
from protocol.errors import ConfigurationError, InvalidField
from protocol.facts import ConnectionStatus, ConnectionStatusCode
from protocol.ids import check_server_id
from protocol.times import format_time
from tests.integration.settings import changed
from tests.integration.system import RawClient, System, eventually

BAD_IDS = [
    *("P.1", "P*", "*", ">", "P>", "P:1", "P/1", "../P", "P 1", " ", "", "P" * 65, "응시자", "E001\n", "E\x00", "É"),
]
"""Each would be a wildcard, another subject, another key or another file, or is too long."""


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return changed(
        settings,
        {
            "socket.max_buffer_bytes": 128 * 1024,
        },
    )


class Neighbours:
    """Another examinee and a proctor on the same server, who must notice nothing."""

    def __init__(self, system: System, examinee: RawClient, proctor: RawClient) -> None:
        self.system, self.examinee, self.proctor = system, examinee, proctor

    async def notice_nothing(self) -> None:
        """Both are answered, their statuses go through, and no event about them came in between."""
        for client in (self.examinee, self.proctor):
            before = len(client.frames)
            await client.say("heartbeat")
            await client.expect("heartbeat", after=before)
        before = len(self.proctor.frames)
        await self.examinee.say("mobile_sync_wait")
        await self.proctor.expect("mobile_sync_status", after=before, examineeId="N001", status="WAITING")
        kinds = [frame["type"] for frame in self.proctor.about("N001") if "mobile_sync" not in frame["type"]]
        assert kinds in ([], ["examinee_connected"])
        assert self.system.failures == []


@pytest.fixture
async def system(bus: Bus, settings: Settings) -> AsyncIterator[System]:
    async with System(settings, servers=("SOCK001",)) as system:
        yield system
        assert system.failures == []


@pytest.fixture
async def neighbours(system: System) -> AsyncIterator[Neighbours]:
    """Checked at the end of each test that asks for them."""
    neighbours = Neighbours(system, await system.examinee("N001"), await system.proctor())
    yield neighbours
    await neighbours.notice_nothing()


def crafted(settings: Settings, *, key: str | None = None, algorithm: str = "HS256", **claims: Any) -> str:
    """A token that says what the test wants, whether it may or not."""
    said = {"sub": "E001", "role": "examinee", "plan": "P001", "aud": "examwire", "exp": int(time.time()) + 60}
    said |= claims
    return jwt.encode(
        {name: value for name, value in said.items() if value is not None},
        token_secret(settings) if key is None else key,
        algorithm=algorithm,
    )


async def dead_letters(bus: Bus, count: int) -> list[dict[str, Any]]:
    """The first `count` dead letters, waiting for them."""

    async def found() -> list[dict[str, Any]]:
        letters = [await bus.message_at("DEADLETTER", number) for number in range(1, count + 1)]
        return [json.loads(one.payload) for one in letters if one] if all(letters) else []

    return await eventually(found, f"{count} dead letters")  # type: ignore[no-any-return]


async def refused(client: RawClient, code: int, error: str | None = None, field: str | None = None) -> None:
    """The connection ends with `code`, after one error frame that says why (where there is one)."""
    assert await client.closed() == code
    said = [(frame["data"]["code"], frame["data"].get("field")) for frame in client.frames]
    assert said == ([(error, field)] if error is not None else [])


# -- ids --------------------------------------------------------------------------------------------------


def test_no_token_is_issued_for_a_bad_id(settings: Settings) -> None:
    for bad in BAD_IDS:
        with pytest.raises(InvalidField, match="planId"):
            issue_token(settings, "examinee", bad, "E001")
        with pytest.raises(InvalidField, match="sub"):
            issue_token(settings, "examinee", "P001", bad)


def test_no_server_is_made_with_a_bad_id() -> None:
    for bad in [*BAD_IDS, "plan"]:
        with pytest.raises(InvalidField, match="serverId"):
            check_server_id(bad)


async def test_a_token_with_a_bad_id_opens_nothing(system: System, neighbours: Neighbours) -> None:
    for bad in BAD_IDS:
        for claim in ("sub", "plan"):
            client = await system.raw()
            await client.say("hello", token=crafted(system.settings, **{claim: bad}), clientId="c", connectionNo=1)
            await refused(client, 4502, "UNAUTHORIZED", "data.token")
            assert f"claim {claim}" in client.frames[0]["data"]["message"]


async def test_a_bad_client_id_opens_nothing(system: System, neighbours: Neighbours) -> None:
    for bad in [*BAD_IDS, None, 7]:
        client = await system.raw()
        await client.say("hello", token=system.token("examinee", "E001"), clientId=bad, connectionNo=1)
        await refused(client, 4501, "INVALID_FIELD", "data.clientId")


async def test_a_proctor_cannot_readmit_a_bad_id(system: System, neighbours: Neighbours) -> None:
    proctor = await system.proctor(name="proctor-2")
    for bad in [*BAD_IDS, None, 7, ["E001"]]:
        before = len(proctor.frames)
        await proctor.say("readmit", examineeId=bad)
        error = await proctor.expect("error", after=before)
        assert (error["data"]["code"], error["data"]["field"]) == ("INVALID_FIELD", "data.examineeId")
        if len(proctor.frames) > 15:  # a connection bears a number of errors only
            await proctor.close()
            proctor = await system.proctor(name="proctor-2")


async def test_no_queue_is_made_for_a_bad_id(system: System, bus: Bus) -> None:
    for bad in [*BAD_IDS, "plan", None, 7]:
        for data, field in (
            ({"serverId": bad, "queueId": f"{bad}_Q"}, "data.serverId"),
            ({"serverId": "SOCK009", "queueId": "SOCK009_Q", "proctorPlans": [bad]}, "data.proctorPlans.0"),
            ({"serverId": "SOCK009", "queueId": "SOCK009_Q", "examineePlans": [bad]}, "data.examineePlans.0"),
        ):
            if bad == "plan" and field != "data.serverId":
                continue  # a plan may be called so
            body = json.dumps({"type": "queue_create", "data": data}).encode()
            answer = json.loads(await bus.request(subjects.QUEUE_CREATE, body))
            assert (answer["type"], answer["data"].get("code")) == ("error", "INVALID_FIELD"), data
            assert answer["data"]["field"] == field
    for body in (b"", b"{", b"[]", b"7", b'{"type": "queue_drop"}', b'{"type": "queue_create", "data": []}', b"\xff"):
        answer = json.loads(await bus.request(subjects.QUEUE_CREATE, body))
        assert answer["type"] == "error"
    assert await bus.consumer_config("SOCKET", "SOCK009_Q") is None


def status(examinee_id: str, **changes: Any) -> dict[str, Any]:
    message = ConnectionStatus(
        plan_id="P001",
        examinee_id=examinee_id,
        socket_id=f"SOCK001-{examinee_id}",
        status=ConnectionStatusCode.CONNECTED,
        timestamp=format_time(time.time()),
    )
    return {"type": "connection_status", "data": {**message.data(), **changes}}


async def test_bad_messages_in_the_log_go_to_the_dead_letters_and_their_neighbours_go_on(
    system: System, bus: Bus, neighbours: Neighbours
) -> None:
    bad: list[Any] = [status("E001", examineeId=one) for one in BAD_IDS]
    bad += [status("E001", planId=one) for one in BAD_IDS]
    bad += [status("E001", socketId=one) for one in ["S.1", "S*", ">", "", "S" * 97, "소켓"]]
    bad += [status("E001", serverId=one) for one in [*BAD_IDS, "plan"]]
    bad += [
        status("E001", status="GONE"),
        status("E001", timestamp="yesterday"),
        status("E001", timestamp="2024-13-01T00:00:00Z"),
        status("E001", connectionNo=-1),
        status("E001", reason="because of the weather"),
        {"type": "connection_status"},
        {"type": "connection_status", "data": []},
        {"type": "connected", "data": {}},
        {"type": 7, "data": {}},
        {"data": {}},
        *("text", 7, None, True, []),
    ]
    before, after = status("E901"), status("E902")
    await bus.publish(Outgoing("status.plan.P001", json.dumps([before, *bad, after]).encode()))
    for examinee_id in ("E901", "E902"):
        await neighbours.proctor.expect("examinee_connected", examineeId=examinee_id)
        await system.status(examinee_id, "CONNECTED")
    letters = await dead_letters(bus, len(bad))
    assert [json.loads(letter["payload"]) for letter in letters] == bad
    for letter in letters:
        assert letter["reason"]
        assert letter["source"]["stream"] == "STATUS"
        assert letter["source"]["subject"] == "status.plan.P001"
    assert letters[0]["reason"].startswith("data.examineeId")
    assert await system.store.members(keys.PLANS) == ["P001"]
    assert await system.store.members(keys.plan_examinees("P001")) == ["E901", "E902", "N001"]


async def test_payloads_that_are_no_messages_at_all_are_put_aside_whole(
    system: System, bus: Bus, neighbours: Neighbours
) -> None:
    payloads = [
        b"",
        b"\x00\xff\xfe",
        b"{",
        b"NaN",
        b'{"type": "connection_status", "data": {"planId": "\\ud800"}}',
        b"[" * 5000,
        b"[" * 150 + b"]" * 150,
        b'{"type": "connection_status", "data": {"connectionNo": ' + b"9" * 5000 + b"}}",
        json.dumps([status(f"E{number:03}") for number in range(300)]).encode(),
    ]
    for payload in payloads:
        await bus.publish(Outgoing("status.plan.P001", payload))
    letters = await dead_letters(bus, len(payloads))
    assert all(letter["reason"] for letter in letters)
    assert "300 messages" in letters[-1]["reason"]


async def test_a_dead_letter_too_large_for_the_broker_does_not_block_the_log(
    system: System, bus: Bus, neighbours: Neighbours
) -> None:
    # Written as JSON, each of these bytes takes six: the letter would be over the broker's limit of 1 MB.
    ack = await bus.publish(Outgoing("status.plan.P001", b"\x01" * 900_000))
    (letter,) = await dead_letters(bus, 1)
    assert letter["source"]["number"] == ack.sequence  # where all of it is to be found
    assert letter["size"] == 900_000
    assert letter["payload"].startswith("\x01\x01")


async def test_what_is_no_loss_goes_to_the_dead_letters_and_the_attempts_of_others_go_on(
    system: System, bus: Bus, neighbours: Neighbours
) -> None:
    leaving = await system.examinee("E001")
    bad = [
        ("reconnect.P001.E009", b"nonsense"),
        ("reconnect.P001.E010", b"{}"),
        ("reconnect.P001.E011", b'{"lossVersion": "7"}'),
        ("reconnect.P$1.E012", b'{"lossVersion": 7}'),
    ]
    await leaving.close()
    await neighbours.proctor.expect("examinee_disconnected", examineeId="E001")
    for subject, payload in bad:
        await bus.publish(Outgoing(subject, payload))
    await neighbours.proctor.expect("examinee_reconnecting", examineeId="E001")
    letters = await dead_letters(bus, len(bad))
    assert [letter["source"]["subject"] for letter in letters] == [subject for subject, _ in bad]
    assert {letter["source"]["stream"] for letter in letters} == {"RECONNECT"}


async def test_bad_messages_to_a_socket_server_go_to_the_dead_letters(
    system: System, bus: Bus, neighbours: Neighbours
) -> None:
    payloads = [
        ("socket.SOCK001", b"{"),
        ("socket.SOCK001", b"7"),
        ("socket.SOCK001", b'{"type": "connection_status", "data": {}}'),
        ("socket.SOCK001", b'{"type": "session_close", "data": {"socketId": "S.1", "code": 4503}}'),
        ("socket.plan.P001.proctors", b"{"),
        ("socket.plan.P001.proctors", b"7"),
        ("socket.plan.P001.proctors", b'"text"'),
        ("socket.plan.P001.proctors", b'{"type": "examinee_connected"}'),
        ("socket.plan.P001.proctors", b'{"type": "examinee_connected", "data": 7}'),
        ("socket.plan.P001.proctors", b'{"type": "examinee_connected", "data": {"examineeId": [], "version": 1}}'),
        ("socket.plan.P001.proctors", b'{"type": "examinee_connected", "data": {"examineeId": "E001"}}'),
        ("socket.SOCK001", b"\x01" * 900_000),
    ]
    seen = len(neighbours.proctor.frames)
    for subject, payload in payloads:
        await bus.publish(Outgoing(subject, payload))
    letters = await dead_letters(bus, len(payloads))
    assert sorted(letter["source"]["subject"] for letter in letters) == sorted(subject for subject, _ in payloads)
    assert all(letter["reason"] for letter in letters)
    assert neighbours.proctor.frames[seen:] == []


async def test_a_bad_message_among_good_ones_to_a_socket_server_spoils_only_itself(
    system: System, bus: Bus, neighbours: Neighbours
) -> None:
    record = await system.progress("N001")
    state = {
        "type": "session_state",
        "data": {
            "planId": "P001",
            "examineeId": "N001",
            "socketId": record["socketId"],
            "connection": {},
            "version": 9,
        },
    }
    before = len(neighbours.examinee.frames)
    await bus.publish(Outgoing("socket.SOCK001", json.dumps([{"type": "nonsense"}, state]).encode()))
    await neighbours.examinee.expect("session_state", after=before, version=9)
    (letter,) = await dead_letters(bus, 1)
    assert "nonsense" in letter["reason"]
    assert json.loads(letter["payload"]) == {"type": "nonsense"}
    event = {"type": "examinee_connected", "data": {"planId": "P001", "examineeId": "E950", "version": 5}}
    await bus.publish(Outgoing("socket.plan.P001.proctors", json.dumps([{"type": "nonsense"}, event]).encode()))
    await neighbours.proctor.expect("examinee_connected", examineeId="E950")
    assert len(await dead_letters(bus, 2)) == 2


# -- frames -----------------------------------------------------------------------------------------------

BAD_FRAMES: list[tuple[str, str, str | None]] = [
    ("", "INVALID_JSON", None),
    ("not json", "INVALID_JSON", None),
    ("{", "INVALID_JSON", None),
    ("NaN", "INVALID_JSON", None),
    ("[" * 10_000, "INVALID_JSON", None),
    ('{"type": "heartbeat", "data": ' + '{"a": ' * 1000 + "1" + "}" * 1001, "INVALID_JSON", None),
    ('{"type": "\\ud800"}', "INVALID_JSON", None),
    ("7", "INVALID_MESSAGE", None),
    ('"hello"', "INVALID_MESSAGE", None),
    ("null", "INVALID_MESSAGE", None),
    ("[[]]", "INVALID_MESSAGE", None),
    ("{}", "INVALID_MESSAGE", "type"),
    ('{"type": 7}', "INVALID_MESSAGE", "type"),
    ('{"type": "heartbeat", "data": 7}', "INVALID_MESSAGE", "data"),
    ('{"type": "give_me_everything"}', "UNKNOWN_TYPE", "type"),
    ('{"type": "examinee_connected", "data": {}}', "UNKNOWN_TYPE", "type"),
    ('{"type": "readmit"}', "INVALID_FIELD", "data.examineeId"),
    ('{"type": "mobile_sync_wait", "data": {"planId": 7}}', "INVALID_FIELD", "data.planId"),
    ("[" + ",".join(['{"type": "heartbeat"}'] * 300) + "]", "TOO_LARGE", None),
]


async def test_each_bad_frame_gets_its_one_error_and_the_connection_goes_on(
    system: System, neighbours: Neighbours
) -> None:
    client = await system.examinee("E001")
    for text, code, field in BAD_FRAMES:
        before = len(client.frames)
        await client.websocket.send(text)
        await client.say("heartbeat")
        await client.expect("heartbeat", after=before)
        answers = [(f["data"]["code"], f["data"].get("field")) for f in client.frames[before:] if f["type"] == "error"]
        assert answers == [(code, field)], text[:60]
    await system.status("E001", "CONNECTED")


async def test_a_bad_frame_among_good_ones_spoils_only_itself(system: System, neighbours: Neighbours) -> None:
    client = await system.examinee("E001")
    await client.websocket.send('[{"type": "heartbeat"}, {"type": "nonsense"}, 7, {"type": "heartbeat"}]')
    await client.say("mobile_sync_wait")
    await client.expect("mobile_sync_status")
    kinds = [frame["type"] for frame in client.frames if frame["type"] in ("heartbeat", "error")]
    assert sorted(kinds) == ["error", "error", "heartbeat", "heartbeat"]


async def test_too_many_errors_end_the_connection(system: System, neighbours: Neighbours) -> None:
    client = await system.examinee("E001")
    for _ in range(clients.MAX_ERRORS + 1):
        await client.websocket.send("nonsense")
    assert await client.closed() == 4505
    assert sum(frame["type"] == "error" for frame in client.frames) == clients.MAX_ERRORS + 1
    lost = await neighbours.proctor.expect("examinee_disconnected", examineeId="E001")
    assert lost["data"]["reason"] == "PROTOCOL_ERROR"


@pytest.mark.parametrize(("frame", "code"), [("x" * 1024 * 1024, 1009), (b"\x00\x01", 1003), (b"", 1003)])
async def test_a_frame_that_is_too_long_or_binary_ends_the_connection(
    system: System, neighbours: Neighbours, frame: str | bytes, code: int
) -> None:
    greeted, stranger = await system.examinee("E001"), await system.raw()
    for client in (greeted, stranger):
        await client.websocket.send(frame)
        assert await client.closed() == code
    lost = await neighbours.proctor.expect("examinee_disconnected", examineeId="E001")
    assert lost["data"]["reason"] == "PROTOCOL_ERROR"


async def test_text_that_is_no_utf8_ends_the_connection(system: System, neighbours: Neighbours) -> None:
    client = await system.examinee("E001")
    await client.websocket.send(b"\xff\xfe", text=True)
    assert await client.closed() == 1007
    lost = await neighbours.proctor.expect("examinee_disconnected", examineeId="E001")
    assert lost["data"]["reason"] == "PROTOCOL_ERROR"


async def test_hello_twice_is_an_error_and_changes_nothing(system: System, neighbours: Neighbours) -> None:
    for client in (await system.examinee("E001"), await system.proctor(name="proctor-2")):
        await client.say("hello", token=system.token("examinee", "E002", "P002"), clientId="c", connectionNo=2)
        error = await client.expect("error")
        assert (error["data"]["code"], error["data"]["requestType"]) == ("ALREADY_GREETED", "hello")
        before = len(client.frames)
        await client.say("heartbeat")
        await client.expect("heartbeat", after=before)
    assert await system.store.members(keys.PLANS) == ["P001"]


async def test_no_hello_in_time_ends_the_connection(
    system: System, neighbours: Neighbours, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(greeting, "HELLO_SECONDS", 0.2)
    client = await system.raw()
    await refused(client, 4005)


@pytest.mark.parametrize(
    ("first", "error", "field"),
    [
        ('{"type": "heartbeat"}', "INVALID_MESSAGE", "type"),
        ('{"type": "readmit", "data": {"examineeId": "E001"}}', "INVALID_MESSAGE", "type"),
        ("nonsense", "INVALID_JSON", None),
        ('[{"type": "hello"}]', "INVALID_MESSAGE", None),
        ('{"type": "hello", "data": {"clientId": "c"}}', "INVALID_FIELD", "data.connectionNo"),
        ('{"type": "hello", "data": {"clientId": "c", "connectionNo": "1"}}', "INVALID_FIELD", "data.connectionNo"),
        ('{"type": "hello", "data": {"clientId": "c", "connectionNo": 1e99}}', "INVALID_FIELD", "data.connectionNo"),
        ('{"type": "hello", "data": {"clientId": "c", "connectionNo": -1}}', "INVALID_FIELD", "data.connectionNo"),
        ('{"type": "hello", "data": {"clientId": "c", "connectionNo": 1, "token": 7}}', "INVALID_FIELD", "data.token"),
    ],
)
async def test_a_first_frame_that_is_no_hello_ends_the_connection(
    system: System, neighbours: Neighbours, first: str, error: str, field: str | None
) -> None:
    client = await system.raw()
    await client.websocket.send(first)
    await refused(client, 4501, error, field)


# -- tokens -----------------------------------------------------------------------------------------------


async def test_a_token_that_is_none_expired_forged_or_for_others_opens_nothing(
    system: System, neighbours: Neighbours
) -> None:
    settings = system.settings
    tokens: list[str | None] = [
        None,
        "",
        "nonsense",
        "a.b.c",
        "x" * 8000,
        crafted(settings, exp=int(time.time()) - 1),
        crafted(settings, exp=None),
        crafted(settings, aud="another-system"),
        crafted(settings, aud=None),
        crafted(settings, sub=None),
        crafted(settings, plan=None),
        crafted(settings, role="superuser"),
        crafted(settings, role=None),
        crafted(settings, plan=["P001"]),
        crafted(settings, key="another secret, as long as it has to be, and longer"),
        crafted(settings, key="", algorithm="none"),
        crafted(settings, algorithm="HS512", key=token_secret(settings) + "x" * 64),
    ]
    for token in tokens:
        client = await system.raw()
        given = {} if token is None else {"token": token}
        await client.say("hello", clientId="c", connectionNo=1, **given)
        await refused(client, 4502, "UNAUTHORIZED", "data.token")
        if token:
            assert token not in client.frames[0]["data"]["message"]


async def test_roles_without_a_place_on_the_socket_are_turned_away(system: System, neighbours: Neighbours) -> None:
    for role in ("mobile", "operator"):
        client = await system.raw()
        await client.say("hello", token=crafted(system.settings, role=role), clientId="c", connectionNo=1)
        await refused(client, 4506, "FORBIDDEN", "data.token")


async def test_a_token_in_the_url_counts_for_nothing_and_one_in_the_header_does(
    system: System, neighbours: Neighbours
) -> None:
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
    assert [frame["type"] for frame in other.frames] == ["welcome", "plan_snapshot", "error"]
    assert "examinee_readmitted" not in [frame["type"] for frame in neighbours.proctor.frames]


# -- the door ---------------------------------------------------------------------------------------------


async def status_of(url: str, **options: Any) -> tuple[int, str | None]:
    """The HTTP status and Retry-After that a handshake is answered with."""
    with pytest.raises(InvalidStatus) as refusal:
        await RawClient.open(url, **options)
    response = refusal.value.response
    return response.status_code, response.headers.get("Retry-After")


async def test_a_wrong_origin_or_path_is_refused_before_there_is_a_websocket(
    system: System, neighbours: Neighbours
) -> None:
    url = system.server("SOCK001").url
    for origin in ("https://evil.example", "null", "http://127.0.0.1.evil.example", "http://[", "nonsense", "http://"):
        assert await status_of(url, origin=origin) == (403, None), origin
    base = url.removesuffix("/v1/connect")
    for path in ("/", "/v1/connect/", "/v1/connected", "/v2/connect", "//[", "/%2e%2e/v1/connect"):
        assert await status_of(base + path) == (404, None), path
    own = await RawClient.open(url, origin=url.replace("ws://", "http://").removesuffix("/v1/connect"))
    await own.close()


async def test_whoever_comes_too_fast_is_told_when_to_come_again(bus: Bus, settings: Settings) -> None:
    slow = settings.model_copy(
        update={"socket": settings.socket.model_copy(update={"accept_per_second": 5.0, "max_connections": 5})}
    )
    async with System(slow, servers=("SOCK001",)) as system:
        proctor = await system.proctor()
        url = system.server("SOCK001").url
        answers = await asyncio.gather(*(RawClient.open(url) for _ in range(12)), return_exceptions=True)
        inside = [one for one in answers if isinstance(one, RawClient)]
        outside = [one for one in answers if isinstance(one, InvalidStatus)]
        assert len(inside) + len(outside) == 12
        assert 1 <= len(inside) <= 5
        for one in outside:
            assert one.response.status_code == 503
            assert int(one.response.headers["Retry-After"]) >= 1
        for client in inside:
            await client.close()

        async def let_in() -> RawClient | None:
            try:
                return await RawClient.open(url)
            except InvalidStatus:
                return None

        again = await eventually(let_in, "there is room a moment later")
        await again.close()
        before = len(proctor.frames)
        await proctor.say("heartbeat")
        await proctor.expect("heartbeat", after=before)
        assert system.failures == []


async def test_less_than_one_a_second_still_lets_one_in(bus: Bus, settings: Settings) -> None:
    rare = settings.model_copy(update={"socket": settings.socket.model_copy(update={"accept_per_second": 0.01})})
    async with System(rare, servers=("SOCK001",)) as system:
        await system.examinee("E001")
        assert (await status_of(system.server("SOCK001").url))[0] == 503


def test_a_rate_that_lets_nobody_in_is_no_setting() -> None:
    with pytest.raises(ConfigurationError, match=r"socket\.accept_per_second"):
        load_settings(**{"socket.accept_per_second": 0})


# -- clients that do not read -----------------------------------------------------------------------------


class Deaf:
    """A client on a bare TCP socket with a tiny receive buffer, which reads only what the test reads."""

    def __init__(self, port: int) -> None:
        self._socket = socket.socket()
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1024)
        self._socket.setblocking(False)
        self._port = port

    async def hello(self, token: str) -> None:
        loop = asyncio.get_running_loop()
        await loop.sock_connect(self._socket, ("127.0.0.1", self._port))
        await loop.sock_sendall(
            self._socket,
            b"GET /v1/connect HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n",
        )
        answer = b""
        while b"\r\n\r\n" not in answer:
            answer += await loop.sock_recv(self._socket, 1)
        assert answer.startswith(b"HTTP/1.1 101")
        hello = {"type": "hello", "data": {"token": token, "clientId": "deaf", "connectionNo": 1}}
        await self.send(json.dumps(hello))

    async def send(self, text: str) -> None:
        body = text.encode()
        length = struct.pack("!BH", 0x80 | 126, len(body)) if len(body) > 125 else bytes([0x80 | len(body)])
        frame = b"\x81" + length + b"\x00\x00\x00\x00" + body  # masked with zeros
        await asyncio.get_running_loop().sock_sendall(self._socket, frame)

    def close(self) -> None:
        self._socket.close()


def port_of(system: System) -> int:
    return int(system.server("SOCK001").url.split(":")[2].split("/")[0])


async def test_a_proctor_who_does_not_read_is_ended_and_the_others_get_everything_at_once(
    system: System, bus: Bus, neighbours: Neighbours
) -> None:
    deaf = Deaf(port_of(system))
    await deaf.hello(system.token("proctor", "deaf"))

    def proctors() -> int:
        count: int = system.server("SOCK001").details()["proctors"]
        return count

    async def both_there() -> bool:
        return proctors() == 2

    await eventually(both_there, "the deaf proctor is in")
    slowest = 0.0
    number = 0
    deadline = time.monotonic() + 20
    while proctors() == 2:
        assert time.monotonic() < deadline, "the deaf proctor was never ended"
        number += 1
        padding = "x" * 40_000
        data = {"planId": "P001", "examineeId": f"E{number}", "version": number, "padding": padding}
        started = time.monotonic()
        await bus.publish(
            Outgoing("socket.plan.P001.proctors", json.dumps({"type": "examinee_connected", "data": data}).encode())
        )
        await neighbours.proctor.expect("examinee_connected", examineeId=f"E{number}")
        slowest = max(slowest, time.monotonic() - started)
    assert slowest < 1.0
    assert [event["data"]["examineeId"] for event in neighbours.proctor.frames if "padding" in event["data"]] == [
        f"E{one}" for one in range(1, number + 1)
    ]
    deaf.close()


async def test_an_examinee_who_talks_and_never_reads_is_ended(
    system: System, neighbours: Neighbours, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clients, "FRAMES_PER_SECOND", 1_000_000)  # else it takes an hour to fill the buffer
    deaf = Deaf(port_of(system))
    await deaf.hello(system.token("examinee", "E001"))
    await neighbours.proctor.expect("examinee_connected", examineeId="E001")
    many = "[" + ",".join(['{"type":"heartbeat"}'] * 256) + "]"

    async def talk() -> None:
        while True:
            await deaf.send(many)

    talking = asyncio.create_task(talk())
    lost = await neighbours.proctor.expect("examinee_disconnected", seconds=20, examineeId="E001")
    assert lost["data"]["reason"] == "SLOW_CLIENT"
    await asyncio.wait([talking])
    assert isinstance(talking.exception(), OSError)
    deaf.close()


async def test_an_examinee_who_floods_is_read_at_a_pace_and_the_log_does_not_notice(
    system: System, neighbours: Neighbours, bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clients, "FRAMES_PER_SECOND", 20)
    monkeypatch.setattr(clients, "FRAMES_AT_ONCE", 10)
    flooding = await system.examinee("E001")
    before = await bus.last_message("STATUS", subjects.status_plan("P001"))
    assert before is not None
    started = time.monotonic()
    await flooding.websocket.send("[" + ",".join(['{"type":"mobile_sync_wait"}'] * 40) + "]")
    await neighbours.examinee.say("heartbeat")
    await neighbours.examinee.expect("heartbeat", seconds=1)  # others are answered at once
    await flooding.say("heartbeat")
    await flooding.expect("heartbeat")
    assert time.monotonic() - started > 1.0, "forty frames at twenty a second, ten of them at once"
