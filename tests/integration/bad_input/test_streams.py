"""Bad messages in the streams: they go to the dead letters, and their neighbours go on."""

from __future__ import annotations

import json
import time
from typing import Any

from actors.runtime.broker.connection import Bus, Outgoing
from protocol.broker import subjects
from protocol.messages.facts import ConnectionStatus, ConnectionStatusCode
from protocol.records import keys
from protocol.times import format_time
from tests.integration.bad_input.support import BAD_IDS, Neighbours
from tests.integration.support.system import System, eventually


async def dead_letters(bus: Bus, count: int) -> list[dict[str, Any]]:
    """The first `count` dead letters, waiting for them."""

    async def found() -> list[dict[str, Any]]:
        letters = [await bus.message_at("DEADLETTER", number) for number in range(1, count + 1)]
        return [json.loads(letter.payload) for letter in letters if letter] if all(letters) else []

    return await eventually(found, f"{count} dead letters")  # type: ignore[no-any-return]


def status(examinee_id: str, **changes: Any) -> dict[str, Any]:
    message = ConnectionStatus(
        plan_id="P001",
        examinee_id=examinee_id,
        socket_id=f"SOCK001-{examinee_id}",
        status=ConnectionStatusCode.CONNECTED,
        timestamp=format_time(time.time()),
    )
    return {"type": "connection_status", "data": {**message.data(), **changes}}


async def test_bad_messages_in_the_log_become_dead_letters_and_the_others_are_applied(
    system: System, bus: Bus, neighbours: Neighbours
) -> None:
    bad_messages: list[Any] = [status("E001", examineeId=bad_id) for bad_id in BAD_IDS]
    bad_messages += [status("E001", planId=bad_id) for bad_id in BAD_IDS]
    bad_messages += [status("E001", socketId=bad_id) for bad_id in ["S.1", "S*", ">", "", "S" * 97, "소켓"]]
    bad_messages += [status("E001", serverId=bad_id) for bad_id in [*BAD_IDS, "plan"]]
    bad_messages += [
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
    await bus.publish(Outgoing("status.plan.P001", json.dumps([before, *bad_messages, after]).encode()))
    for examinee_id in ("E901", "E902"):
        await neighbours.proctor.expect("examinee_connected", examineeId=examinee_id)
        await system.status(examinee_id, "CONNECTED")
    letters = await dead_letters(bus, len(bad_messages))
    assert [json.loads(letter["payload"]) for letter in letters] == bad_messages
    for letter in letters:
        assert letter["reason"]
        assert letter["source"]["stream"] == "STATUS"
        assert letter["source"]["subject"] == subjects.status_plan("P001", "any")
    assert letters[0]["reason"].startswith("data.examineeId")
    assert await system.store.members(keys.PLANS) == ["P001"]
    assert await system.store.members(keys.plan_examinees("P001")) == ["E901", "E902", "N001"]


async def test_invalid_payloads_become_dead_letters_as_they_are(
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


async def test_invalid_losses_become_dead_letters_and_other_attempts_continue(
    system: System, bus: Bus, neighbours: Neighbours
) -> None:
    leaving = await system.examinee("E001")
    bad_messages = [
        ("reconnect.P001.E009", b"nonsense"),
        ("reconnect.P001.E010", b"{}"),
        ("reconnect.P001.E011", b'{"lossVersion": "7"}'),
        ("reconnect.P$1.E012", b'{"lossVersion": 7}'),
    ]
    await leaving.close()
    await neighbours.proctor.expect("examinee_disconnected", examineeId="E001")
    for subject, payload in bad_messages:
        await bus.publish(Outgoing(subject, payload))
    await neighbours.proctor.expect("examinee_reconnecting", examineeId="E001")
    letters = await dead_letters(bus, len(bad_messages))
    assert [letter["source"]["subject"] for letter in letters] == [subject for subject, _ in bad_messages]
    assert {letter["source"]["stream"] for letter in letters} == {"RECONNECT"}


async def test_bad_messages_to_a_socket_server_become_dead_letters(
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
    before = len(neighbours.proctor.frames)
    for subject, payload in payloads:
        await bus.publish(Outgoing(subject, payload))
    letters = await dead_letters(bus, len(payloads))
    assert sorted(letter["source"]["subject"] for letter in letters) == sorted(subject for subject, _ in payloads)
    assert all(letter["reason"] for letter in letters)
    assert neighbours.proctor.frames[before:] == []


async def test_a_bad_message_to_a_socket_server_does_not_affect_its_neighbours(
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
    about = {"planId": "P001", "examineeId": "E950", "socketId": "SOCK001-1", "timestamp": "2026-01-01T09:00:00.000Z"}
    event = {"type": "examinee_connected", "data": {**about, "version": 5}}
    await bus.publish(Outgoing("socket.plan.P001.proctors", json.dumps([{"type": "nonsense"}, event]).encode()))
    await neighbours.proctor.expect("examinee_connected", examineeId="E950")
    assert len(await dead_letters(bus, 2)) == 2
