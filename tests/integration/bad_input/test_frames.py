"""Bad frames: one clear error or close code each."""

from __future__ import annotations

import pytest

from actors.sessions.frames import reader
from actors.socket_server.handshake import hello
from protocol.records import keys
from tests.integration.bad_input.support import Neighbours, refused
from tests.integration.support.system import System

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


async def test_a_bad_frame_does_not_affect_its_neighbours(system: System, neighbours: Neighbours) -> None:
    client = await system.examinee("E001")
    await client.websocket.send('[{"type": "heartbeat"}, {"type": "nonsense"}, 7, {"type": "heartbeat"}]')
    await client.say("mobile_sync_wait")
    await client.expect("mobile_sync_status")
    kinds = [frame["type"] for frame in client.frames if frame["type"] in ("heartbeat", "error")]
    assert sorted(kinds) == ["error", "error", "heartbeat", "heartbeat"]


async def test_too_many_errors_end_the_connection(system: System, neighbours: Neighbours) -> None:
    client = await system.examinee("E001")
    for _ in range(reader.MAX_ERRORS + 1):
        await client.websocket.send("nonsense")
    assert await client.closed() == 4505
    assert sum(frame["type"] == "error" for frame in client.frames) == reader.MAX_ERRORS + 1
    loss = await neighbours.proctor.expect("examinee_disconnected", examineeId="E001")
    assert loss["data"]["reason"] == "PROTOCOL_ERROR"


@pytest.mark.parametrize(("frame", "code"), [("x" * 1024 * 1024, 1009), (b"\x00\x01", 1003), (b"", 1003)])
async def test_a_frame_that_is_too_long_or_binary_ends_the_connection(
    system: System, neighbours: Neighbours, frame: str | bytes, code: int
) -> None:
    greeted, stranger = await system.examinee("E001"), await system.raw()
    for client in (greeted, stranger):
        await client.websocket.send(frame)
        assert await client.closed() == code
    loss = await neighbours.proctor.expect("examinee_disconnected", examineeId="E001")
    assert loss["data"]["reason"] == "PROTOCOL_ERROR"


async def test_text_that_is_no_utf8_ends_the_connection(system: System, neighbours: Neighbours) -> None:
    client = await system.examinee("E001")
    await client.websocket.send(b"\xff\xfe", text=True)
    assert await client.closed() == 1007
    loss = await neighbours.proctor.expect("examinee_disconnected", examineeId="E001")
    assert loss["data"]["reason"] == "PROTOCOL_ERROR"


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
    monkeypatch.setattr(hello, "HELLO_SECONDS", 0.2)
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
