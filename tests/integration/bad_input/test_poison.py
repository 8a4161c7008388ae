"""Payloads of every kind on every subject that somebody reads: each is one dead letter, and nobody stops for it."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from actors.runtime.broker.connection import Bus, Outgoing
from actors.runtime.config.settings import Settings
from protocol.broker import subjects
from protocol.messages.codec import Codec
from protocol.messages.frames import Error
from protocol.messages.server_messages import QueueCreated
from protocol.times import format_time
from tests.integration.bad_input.support import Neighbours
from tests.integration.support.system import System, eventually

HUGE = b"9" * 5000
ADVISORY = "$JS.EVENT.ADVISORY.CONSUMER"

NO_MESSAGE: dict[str, bytes] = {
    "nothing": b"",
    "not JSON": b"not json",
    "half": b'{"type": "lease", "data": {',
    "null": b"null",
    "a number": b"7",
    "a huge number": HUGE,
    "NaN": b"NaN",
    "infinity in it": b'{"type": "examinee_connected", "data": {"version": Infinity}}',
    "a text": b'"text"',
    "true": b"true",
    "an empty array": b"[]",
    "an empty object": b"{}",
    "no type": b'{"data": {"planId": "P001", "examineeId": "N001", "version": 7}}',
    "a type that is null": b'{"type": null, "data": {}}',
    "a type that is an object": b'{"type": {}, "data": {}}',
    "an unknown type": b'{"type": "nonsense", "data": {"examineeId": "N001", "version": 7}}',
    "data that are an array": b'{"type": "examinee_connected", "data": []}',
    "deep": b'{"a":' * 150 + b"1" + b"}" * 150,
    "too deep": b"[" * 5000,
    "invalid UTF-8": b'{"type": "\xff\xfe", "data": {}}',
    "a lone surrogate": b'{"type": "notice", "data": {"text": "\\ud800"}}',
    "a zero byte": b"\x00",
    "over 256": json.dumps([{"type": "heartbeat", "data": {}}] * 257).encode(),
}


def wire(kind: str, **data: Any) -> bytes:
    return json.dumps({"type": kind, "data": data}).encode()


def event(kind: str = "examinee_connected", **changes: Any) -> bytes:
    """An event that would do if it were not for the `changes`; `None` leaves a field out."""
    data = {
        "planId": "P001",
        "examineeId": "N001",
        "socketId": "SOCK001-1",
        "status": "CONNECTED",
        "timestamp": "2026-01-01T09:00:00.000Z",
        "version": 7,
    } | changes
    return wire(kind, **{name: value for name, value in data.items() if value is not None})


def enrolment(labels: dict[str, Any]) -> bytes:
    return wire("enrol", planId="P001", examineeId="N001", timestamp="2026-01-01T09:00:00.000Z", labels=labels)


def lease(**changes: Any) -> bytes:
    now = format_time(time.time())
    data = {"serverId": "SOCK900", "incarnation": "i", "timestamp": now, "cpuUsage": 1, "memoryUsage": 1}
    return wire("lease", **data | {"networkStatus": "GOOD"} | changes)


def advisory(**changes: Any) -> bytes:
    fields = {"stream": "SOCKET", "consumer": "SOCK001_Q", "stream_seq": 1, "deliveries": 3}
    return json.dumps(fields | changes).encode()


async def letters_of(bus: Bus) -> list[dict[str, Any]]:
    state = await bus.stream_state("DEADLETTER")
    stored = [await bus.message_at("DEADLETTER", number) for number in range(1, state.last + 1)]
    return [json.loads(message.payload) for message in stored if message is not None]


async def each_is_one_letter(bus: Bus, system: System, published: list[tuple[str, bytes]]) -> list[dict[str, Any]]:
    """Publish all, wait for as many letters, and for none beside them."""
    places: Counter[tuple[str, int]] = Counter()
    for subject, payload in published:
        ack = await bus.publish(Outgoing(subject, payload))
        places[ack.stream, ack.sequence] += 1

    async def arrived() -> bool:
        sources = {(letter["source"]["stream"], letter["source"]["number"]) for letter in await letters_of(bus)}
        return places.keys() <= sources

    await eventually(arrived, f"{len(published)} dead letters", 60)
    letters = await letters_of(bus)
    assert Counter((letter["source"]["stream"], letter["source"]["number"]) for letter in letters) == places
    assert all(letter["reason"] for letter in letters)
    assert system.failures == []
    return letters


@pytest.mark.parametrize(
    "subject",
    [
        lambda _: "status.plan.P001",
        lambda _: "status.server.SOCK001",
        lambda _: "socket.SOCK001",
        lambda _: "socket.plan.P001.proctors",
        lambda _: "socket.plan.P001.examinee.N001",
        lambda number: f"lease.BAD{number}",
        lambda number: f"reconnect.P001.B{number}",
        lambda _: f"{ADVISORY}.MAX_DELIVERIES.RECONNECT.reconnect-watch",
        lambda _: f"{ADVISORY}.MAX_DELIVERIES.SOCKET.SOCK001_Q",
        lambda _: f"{ADVISORY}.MSG_TERMINATED.STATUS.state-manager",
    ],
    ids=["plan", "server", "socket", "proctors", "examinee", "lease", "reconnect", "exhausted", "given-up", "ended"],
)
async def test_an_invalid_message_becomes_one_dead_letter_on_each_stream(
    system: System, bus: Bus, neighbours: Neighbours, subject: Callable[[int], str]
) -> None:
    published = [(subject(number), payload) for number, payload in enumerate(NO_MESSAGE.values())]
    if subject(0).startswith(("status.", "socket.")):  # where an array may travel, one of no messages says nothing
        await bus.publish(Outgoing(subject(0), b"[]"))
        published.remove((subject(0), b"[]"))
    await each_is_one_letter(bus, system, published)


async def test_a_message_that_does_not_fit_its_subject_becomes_one_dead_letter(
    system: System, bus: Bus, neighbours: Neighbours
) -> None:
    before = len(neighbours.proctor.frames), len(neighbours.examinee.frames)
    close = wire("session_close", socketId="SOCK001-1", code=4503)
    published = [
        ("socket.plan.P001.proctors", event(planId="P002")),
        ("socket.plan.P001.proctors", event(examineeId="E.1")),
        ("socket.plan.P001.proctors", event(examineeId=None)),
        ("socket.plan.P001.proctors", event(version=None)),
        ("socket.plan.P001.proctors", event(version="7")),
        ("socket.plan.P001.proctors", event(version=7.5)),
        ("socket.plan.P001.proctors", event(version=True)),
        ("socket.plan.P001.proctors", event(version=-1)),
        ("socket.plan.P001.proctors", event(version=2**53)),
        ("socket.plan.P001.proctors", event(version=2**53 - 1)),
        ("socket.plan.P001.proctors", event(socketId=None)),
        ("socket.plan.P001.proctors", event(timestamp="9999-12-31T23:59:59.000-23:59")),
        ("socket.plan.P001.proctors", event("mobile_sync_status", status="WAITING", version=None)),
        ("socket.plan.P001.proctors", close),
        ("socket.plan.P001.examinee.N001", event("mobile_sync_status", status="WAITING", examineeId="N002")),
        ("socket.plan.P001.examinee.N$1", event("mobile_sync_status", status="WAITING")),
        ("socket.plan.P001.examinee.N001", event()),
        ("socket.SOCK001", event()),
        ("socket.SOCK001", wire("session_lost", serverId="SOCK002", socketIds=[])),
        ("socket.SOCK001", wire("session_close", socketId="SOCK001-1", code=99999)),
        ("lease.SOCK901", lease()),
        ("lease.SOCK$1", lease()),
        ("lease.plan", lease(serverId="plan")),
        ("lease.SOCK902", lease(serverId="SOCK902", sessions=10**400)),
        ("lease.SOCK903", lease(serverId="SOCK903", active=[["P001", "N001"]])),
        ("reconnect.P001.B1", b'{"lossVersion": true}'),
        ("reconnect.P001.B2", b'{"lossVersion": -1}'),
        ("reconnect.P001.B3", b'{"lossVersion": %b}' % HUGE),
        ("reconnect.P$1.B4", b'{"lossVersion": 7}'),
        ("status.server.SOCK001", wire("server_status", serverId="SOCK002", status="LOST")),
        ("status.plan.P001", enrolment({"a room": "A"})),
        ("status.plan.P001", enrolment({"room": "A\nB"})),
        ("status.plan.P001", enrolment({"room": ""})),
        ("status.plan.P001", enrolment({"room": 7})),
        ("status.plan.P001", enrolment({f"l{number}": "A" for number in range(9)})),
        ("status.plan.P001", wire("reconnect_attempt", planId="P001", examineeId="N001", lossVersion=10**30)),
        (f"{ADVISORY}.MAX_DELIVERIES.SOCKET.SOCK001_Q", advisory(stream="SOCKET.>")),
        (f"{ADVISORY}.MAX_DELIVERIES.SOCKET.SOCK001_Q", advisory(stream="*")),
        (f"{ADVISORY}.MAX_DELIVERIES.SOCKET.SOCK001_Q", advisory(stream="STATUS")),
        (f"{ADVISORY}.MAX_DELIVERIES.SOCKET.SOCK001_Q", advisory(stream_seq=-1)),
        (f"{ADVISORY}.MAX_DELIVERIES.SOCKET.SOCK001_Q", advisory(stream_seq=2**64)),
        (f"{ADVISORY}.MAX_DELIVERIES.RECONNECT.reconnect-watch", advisory()),
    ]
    await each_is_one_letter(bus, system, published)
    assert neighbours.proctor.frames[before[0] :] == []
    assert neighbours.examinee.frames[before[1] :] == []


async def test_an_invalid_lease_takes_no_server_down(system: System, bus: Bus, neighbours: Neighbours) -> None:
    before = await bus.last_message("LEASE", "lease.SOCK001")
    assert before is not None
    await each_is_one_letter(bus, system, [("lease.SOCK001", b"not json")])

    async def renewed() -> bool:
        newest = await bus.last_message("LEASE", "lease.SOCK001")
        return newest is not None and newest.payload.startswith(b'{"type":"lease"')

    await eventually(renewed, "a lease of SOCK001 again")


async def test_expiry_markers_of_unknown_leases_are_ignored(system: System, bus: Bus, neighbours: Neighbours) -> None:
    marker = {"Nats-Marker-Reason": "MaxAge"}
    await bus.publish(Outgoing("lease.NOBODY", b"", headers=marker))
    await bus.publish(Outgoing("lease.NO$1", b"", headers=marker))
    await each_is_one_letter(bus, system, [("lease.BAD", b"{")])  # after them in the stream


async def test_a_bad_message_that_two_servers_read_is_one_dead_letter(bus: Bus, settings: Settings) -> None:
    async with System(settings) as system:
        proctors = [await system.proctor(server_id) for server_id in ("SOCK001", "SOCK002")]
        await each_is_one_letter(bus, system, [("socket.plan.P001.proctors", b'{"data": {}}')])
        examinee = await system.examinee("E001")
        for proctor in proctors:  # each has read it by then
            await proctor.expect("examinee_connected", examineeId="E001")
        await examinee.close()
        assert len(await letters_of(bus)) == 1


async def test_an_event_with_a_future_version_hides_no_later_event(
    system: System, bus: Bus, neighbours: Neighbours
) -> None:
    end = (await bus.stream_state("STATUS")).last
    now = int(time.time() * 1000)
    ahead = [
        event(version=(end + 50) * 256),
        event(version=(end + 100_000) * 256),
        event(version=(now + 10**9) * 256),
        event("mobile_sync_status", status="FAILED", version=2**53 - 1),
        event("notice_confirmed", actionId="a", unconfirmed=[], sent=1, version=2**53 - 1),
    ]
    letters = await each_is_one_letter(bus, system, [("socket.plan.P001.proctors", payload) for payload in ahead])
    assert all(letter["reason"].startswith("socket-server failed") for letter in letters)
    state = wire("session_state", planId="P001", examineeId="N001", socketId="x", connection={}, version=2**53 - 1)
    await bus.publish(Outgoing("socket.SOCK001", state))
    before = len(neighbours.proctor.frames)
    neighbours.examinee.abort()
    await neighbours.proctor.expect("examinee_disconnected", after=before, examineeId="N001")
    neighbours.examinee = await system.examinee("N001", connection_no=2)
    await neighbours.proctor.expect("examinee_connected", after=before, examineeId="N001")
    neighbours.proctor.frames = [frame for frame in neighbours.proctor.frames if frame["type"].startswith("mobile")]


REQUESTS: dict[str, bytes] = {
    **NO_MESSAGE,
    "a huge queue": wire("queue_create", serverId="SOCK9", queueId="SOCK9_Q").replace(
        b'"queueId"', b'"config": {"maxSize": %b}, "queueId"' % HUGE
    ),
    "many plans": wire("queue_create", serverId="SOCK9", queueId="SOCK9_Q", proctorPlans=["P$1"]),
    "sessions": b'{"sessions": 7}',
    "sessions of all kinds": b'{"sessions": {"limit": -1, "after": %b}}' % HUGE,
    "a tail": wire("tail", inbox="not an inbox"),
}


async def test_an_invalid_request_is_answered_and_the_actor_keeps_running(
    system: System, bus: Bus, neighbours: Neighbours
) -> None:
    server = system.server("SOCK001")
    inspections = [entry.metadata["inspect"] for entry in await bus.services()]
    addresses = [entry.metadata["address"] for entry in await bus.services()]
    assert len(addresses) >= 6
    request_subjects = [subjects.QUEUE_CREATE, subjects.session("P001", "N001"), *inspections]
    request_subjects += [subjects.control(address) for address in addresses]
    for subject in request_subjects:
        for payload in REQUESTS.values():
            assert json.loads(await bus.request(subject, payload, timeout=20))
    for payload in REQUESTS.values():
        answer = Codec.of((QueueCreated, Error)).decode_one(await bus.request(subjects.QUEUE_CREATE, payload))
        assert isinstance(answer, Error)
    assert server.running
    assert system.failures == []


async def test_invalid_answers_of_other_services_do_not_break_a_listing(
    system: System, bus: Bus, neighbours: Neighbours
) -> None:
    async def nonsense(msg: Any) -> None:
        await msg.respond(b"not json")

    async def foreign(msg: Any) -> None:
        await msg.respond(b'{"name": 7, "metadata": []}')

    for handler in (nonsense, foreign):
        await bus.subscribe("$SRV.INFO", handler)
    assert "socket.SOCK001" in [entry.metadata["address"] for entry in await bus.services()]
