"""Dead letters on real engines: what comes there, and that a replay has one effect."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from actors.runtime.broker.connection import Bus, Outgoing
from actors.runtime.broker.consumers.stream_reader import read_stream
from actors.runtime.broker.dead_letter import dead_letter
from actors.runtime.config.settings import Settings
from cli.operate.dead_letter_admin import MAX_AGES, DeadLetterAdmin, NoSuchLetter, NotReplayed, Replay, StoredLetter
from protocol.broker import subjects
from protocol.broker.dead_letters import REPLAY_OF
from protocol.broker.streams import ConsumerSpec
from protocol.log.version import version_of
from protocol.messages.codec import encode
from protocol.messages.facts import ConnectionStatus, ConnectionStatusCode, Readmit
from protocol.messages.server_messages import ServerStatus, ServerStatusCode
from protocol.times import format_time
from tests.integration.support.command_line import Invoke
from tests.integration.support.settings import changed
from tests.integration.support.system import System, eventually

PLAN = subjects.status_plan("P001", "any")


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return changed(settings, {"reconnect.max_attempts": 1, "reconnect.backoff_seconds": [0.2]})


@pytest.fixture
async def system(bus: Bus, settings: Settings) -> AsyncIterator[System]:
    async with System(settings, servers=("SOCK001",)) as system:
        yield system
        assert system.failures == []


@pytest.fixture
def desk(bus: Bus) -> DeadLetterAdmin:
    return DeadLetterAdmin(bus)


@pytest.fixture
def invoke(invoke: Invoke) -> Invoke:
    return partial(invoke, "dead-letters")


def status(
    examinee_id: str = "E001",
    said: ConnectionStatusCode = ConnectionStatusCode.CONNECTED,
    *,
    plan_id: str = "P001",
    socket: str = "a",
) -> ConnectionStatus:
    return ConnectionStatus(
        plan_id=plan_id,
        examinee_id=examinee_id,
        socket_id=f"SOCK009-{socket}",
        server_id="SOCK009",
        status=said,
        timestamp=format_time(time.time()),
    )


def damaged(message: ConnectionStatus, **changes: Any) -> bytes:
    return json.dumps({"type": message.type, "data": {**message.data(), **changes}}).encode()


async def letters(desk: DeadLetterAdmin, count: int) -> list[StoredLetter]:
    """All dead letters, when there are at least `count`."""

    async def found() -> list[StoredLetter]:
        filed = [letter async for letter in desk.letters()]
        return filed if len(filed) >= count else []

    return await eventually(found, f"{count} dead letters")  # type: ignore[no-any-return]


async def replayed_messages(bus: Bus, subject: str = PLAN) -> list[int]:
    """Where replayed messages lie in the log."""
    messages = read_stream(bus, "STATUS", subject=subject)
    return [stored.sequence async for stored in messages if REPLAY_OF in stored.headers]


# -- what comes here --------------------------------------------------------------------------------------


async def test_a_status_whose_subject_names_another_plan_or_server_is_a_dead_letter(
    system: System, bus: Bus, desk: DeadLetterAdmin
) -> None:
    stranger = ServerStatus(
        server_id="SOCK001",
        status=ServerStatusCode.FAILED,
        incarnation="i9",
        start_time=format_time(0),
        timestamp=format_time(time.time()),
    )
    own = status("E002")
    batch = b"[" + encode(status(plan_id="P002")) + b"," + encode(own) + b"]"
    await bus.publish(Outgoing(PLAN, batch))
    await bus.publish(Outgoing("status.server.SOCK002", encode(stranger)))
    await bus.publish(Outgoing("status.server.SOCK001", encode(status())))
    await bus.publish(Outgoing(PLAN, encode(stranger)))
    filed = await letters(desk, 4)
    reasons = sorted(letter.letter.reason for letter in filed)
    assert reasons == [
        f"data.planId: P002 has no place on {PLAN}",
        "data.serverId: SOCK001 has no place on status.server.SOCK002",
        "type: connection_status has no place on status.server.SOCK001",
        f"type: server_status has no place on {PLAN}",
    ]
    await system.status("E002", "CONNECTED")
    assert await system.progress("E001", "P002") == await system.progress("E001") == {}
    assert await system.server_is("SOCK001", "READY")


async def test_a_message_given_up_becomes_a_letter_and_a_used_up_ladder_does_not(
    system: System, bus: Bus, desk: DeadLetterAdmin
) -> None:
    client = await system.examinee()
    client.abort()  # one attempt of 0.2 s
    await system.status("E001", "DISCONNECTED")

    async def shut_out() -> bool:
        return (await system.progress())["exhausted"] == "1"

    await eventually(shut_out, "shut out")
    await bus.apply_consumer(ConsumerSpec("SOCKET", "audit", ("socket.nobody.*",), ack_wait=0.1, max_deliver=2))
    await bus.apply_consumer(ConsumerSpec("SOCKET", "archive", ("socket.nobody.*",)))
    ack = await bus.publish(Outgoing("socket.nobody.here", b"hello"))
    audit = await bus._js.pull_subscribe_bind("audit", "SOCKET")
    for _ in range(2):
        await audit.fetch(1, timeout=20)
    with pytest.raises(TimeoutError):
        await audit.fetch(1, timeout=0.5)  # the advisory comes when it would be delivered once more
    archive = await bus._js.pull_subscribe_bind("archive", "SOCKET")
    (message,) = await archive.fetch(1, timeout=20)
    # Deleted while somebody is at it: NATS calls that "terminated" as well, but nobody has given it up.
    deleted = await bus.publish(Outgoing("socket.nobody.here", b"gone"))
    await archive.fetch(1, timeout=20)
    assert await bus.delete_message("SOCKET", deleted.sequence)
    await message.term()

    filed = await letters(desk, 2)
    assert len(filed) == 2
    by_consumer = {letter.letter.consumer: letter.letter for letter in filed}
    given_up = by_consumer["audit"]
    assert (given_up.source.stream, given_up.source.subject) == ("SOCKET", "socket.nobody.here")
    assert (given_up.source.number, given_up.payload, given_up.deliveries) == (ack.sequence, "hello", 2)
    assert given_up.reason == "consumer audit of SOCKET gave up after 2 deliveries"
    assert by_consumer["archive"].reason == "terminated by consumer archive of SOCKET: without a reason"


# -- replay -----------------------------------------------------------------------------------------------


async def test_replaying_a_corrected_letter_reports_its_effect(
    system: System, bus: Bus, desk: DeadLetterAdmin, invoke: Invoke, tmp_path: Path
) -> None:
    await bus.publish(Outgoing(PLAN, damaged(status(), status="GONE")))
    (filed,) = await letters(desk, 1)
    shown_letter = json.loads((await invoke("show", str(filed.number), "-o", "json")).stdout)
    assert shown_letter["reason"].startswith("data.status")

    still_bad = tmp_path / "bad.json"
    still_bad.write_text(
        json.dumps({**shown_letter["message"], "data": {**shown_letter["message"]["data"], "socketId": "a.b"}})
    )
    refused = await invoke("replay", str(filed.number), "--edit", str(still_bad))
    assert refused.exit_code == 1
    assert "data.socketId" in refused.stderr
    foreign = tmp_path / "foreign.json"
    foreign.write_bytes(encode(status(plan_id="P002")))
    refused = await invoke("replay", str(filed.number), "--payload", str(foreign))
    assert refused.exit_code == 1
    assert "data.planId" in refused.stderr
    assert len(await letters(desk, 1)) == 1

    shown_letter["message"]["data"]["status"] = "CONNECTED"
    mended = tmp_path / "mended.json"
    mended.write_text(json.dumps(shown_letter["message"]))
    replayed = await invoke("replay", str(filed.number), "--payload", str(mended), "-o", "json")
    assert replayed.exit_code == 0, replayed.stderr
    (result,) = json.loads(replayed.stdout)
    progress = await system.progress()
    assert (progress["connStatusCode"], int(progress["version"])) == ("CONNECTED", result["version"])
    assert f"applied: version {result['version']}" in result["text"]
    assert [letter async for letter in desk.letters()] == []
    assert (await invoke("replay", str(filed.number))).exit_code == 3


async def test_a_letter_replayed_several_times_is_sent_once(
    system: System, bus: Bus, desk: DeadLetterAdmin, monkeypatch: pytest.MonkeyPatch
) -> None:
    await bus.publish(Outgoing(PLAN, damaged(status(), status="GONE")))
    (filed,) = await letters(desk, 1)
    mended = encode(status())
    discard = DeadLetterAdmin.discard

    async def dies(_self: DeadLetterAdmin, _number: int) -> bool:
        raise RuntimeError("killed between publish and delete")

    monkeypatch.setattr(DeadLetterAdmin, "discard", dies)
    with pytest.raises(RuntimeError):
        await desk.replay(filed.number, mended)
    monkeypatch.setattr(DeadLetterAdmin, "discard", discard)

    # No duplicate window has a part in this: the window of the stream is over at once.
    config = (await bus._js.stream_info("STATUS")).config
    await bus._js.update_stream(config.evolve(duplicate_window=0.1))
    buses = [await Bus.connect(system.settings.nats_url, f"operator {number}") for number in range(4)]
    try:
        results = await asyncio.gather(
            *(DeadLetterAdmin(other).replay(filed.number, mended) for other in buses), return_exceptions=True
        )
    finally:
        for other in buses:
            await other.close()
    sequences = await replayed_messages(bus)
    assert len(sequences) == 1
    replays = [result for result in results if isinstance(result, Replay)]
    assert replays
    assert all(replay.already and replay.sequence == sequences[0] for replay in replays)
    assert all(isinstance(result, Replay | NoSuchLetter) for result in results)
    assert [letter async for letter in desk.letters()] == []


async def test_a_letter_replayed_by_two_operators_at_once_is_sent_once(
    system: System, bus: Bus, desk: DeadLetterAdmin
) -> None:
    for number in range(5):
        await bus.publish(Outgoing(PLAN, damaged(status(f"E{number}"), status="GONE")))
    filed = await letters(desk, 5)
    buses = [await Bus.connect(system.settings.nats_url, f"operator {number}") for number in range(3)]
    try:
        results = await asyncio.gather(
            *(
                DeadLetterAdmin(other).replay(letter.number, encode(status(f"E{place}")))
                for place, letter in enumerate(filed)
                for other in buses
            ),
            return_exceptions=True,
        )
    finally:
        for other in buses:
            await other.close()
    assert all(isinstance(result, Replay | NoSuchLetter) for result in results), results
    assert len(await replayed_messages(bus)) == 5
    for number in range(5):
        await system.status(f"E{number}", "CONNECTED")


async def test_a_letter_that_fails_again_counts_its_replays(
    system: System, bus: Bus, desk: DeadLetterAdmin, invoke: Invoke
) -> None:
    await bus.publish(Outgoing(PLAN, b"[" + encode(status("E002")) + b',{"type":"nonsense","data":{}}]'))
    (filed,) = await letters(desk, 1)
    for replays in (1, 2):
        replayed = await invoke("replay", str(filed.number), "-o", "json")
        assert replayed.exit_code == 1
        (result,) = json.loads(replayed.stdout)
        (second_letter,) = await letters(desk, 1)
        assert (result["outcome"], result["returned"]) == ("returned", second_letter.number)
        assert (second_letter.letter.replays, second_letter.letter.replay_of) == (replays, filed.number)
        assert json.loads(second_letter.letter.payload) == {"type": "nonsense", "data": {}}
        filed = second_letter
    assert "2 times before" in (await invoke("show", str(filed.number))).stdout


async def test_a_fact_about_a_damaged_record_can_be_replayed_after_the_repair(
    system: System, bus: Bus, desk: DeadLetterAdmin, invoke: Invoke
) -> None:
    key = "plan:P001:examinee:E001:progress"
    await system.store._redis.set(key, "not a hash")
    ack = await bus.publish(Outgoing(PLAN, encode(status())))
    (filed,) = await letters(desk, 1)
    assert (filed.letter.source.number, filed.letter.source.index) == (ack.sequence, 0)
    assert key in filed.letter.reason
    assert filed.letter.mentions("P001", "E001")
    result = await invoke("replay", str(filed.number), "-o", "json")  # too early
    assert json.loads(result.stdout)[0]["outcome"] == "returned"
    await system.store._redis.delete(key)
    (filed,) = await letters(desk, 1)
    assert filed.letter.replays == 1
    result = await invoke("replay", str(filed.number), "-o", "json")
    assert result.exit_code == 0, result.stderr
    await system.status("E001", "CONNECTED")


async def test_an_outdated_fact_is_replayed_only_with_force(system: System, bus: Bus, desk: DeadLetterAdmin) -> None:
    await bus.publish(Outgoing(PLAN, damaged(status(socket="old"), status="GONE")))
    (filed,) = await letters(desk, 1)
    await bus.publish(Outgoing(PLAN, encode(status(socket="new"))))
    await system.status("E001", "CONNECTED")
    with pytest.raises(NotReplayed, match="E001 has connected or disconnected since"):
        await desk.replay(filed.number, encode(status(socket="old")))
    # A late disconnect of the old socket is fenced by the rules: it may come.
    replay = await desk.replay(filed.number, encode(status(said=ConnectionStatusCode.DISCONNECTED, socket="old")))
    became = await desk.wait_for_outcome(replay, system.store)
    assert became.handled
    assert "had no effect" in became.applied[0]
    assert (await system.progress())["socketId"] == "SOCK009-new"

    await bus.publish(Outgoing(PLAN, damaged(status(socket="newer"), status="GONE")))
    (filed,) = await letters(desk, 1)
    await bus.publish(
        Outgoing(PLAN, encode(Readmit(plan_id="P001", examinee_id="E001", by="p", timestamp=format_time(0))))
    )
    await bus.publish(Outgoing(PLAN, encode(status(said=ConnectionStatusCode.DISCONNECTED, socket="new"))))
    forced = await desk.replay(filed.number, encode(status(socket="newer")), force=True)
    became = await desk.wait_for_outcome(forced, system.store)
    assert became.applied[0].endswith(f"applied: version {version_of(forced.sequence)}")


async def test_a_letter_without_subject_or_detectable_replays_is_refused(
    system: System, bus: Bus, desk: DeadLetterAdmin, monkeypatch: pytest.MonkeyPatch
) -> None:
    await bus.publish(Outgoing(PLAN, damaged(status(), status="GONE")))
    await letters(desk, 1)
    await bus.publish(dead_letter("RECONNECT", "reconnect.P001.E001", 1, b"{}", "given up"))
    await bus.publish(dead_letter("STATUS", "", 7, b"", "given up; the message is not in the stream any more"))
    own, attempt, expired = await letters(desk, 3)
    # The marker of an earlier replay would have expired with the messages of STATUS of that time.
    monkeypatch.setitem(MAX_AGES, "STATUS", 0.0)
    reasons = ("is older than the messages of STATUS", "whose messages cannot be replayed", "has no subject")
    for letter, reason in zip((own, attempt, expired), reasons, strict=True):
        with pytest.raises(NotReplayed, match=reason):
            await desk.replay(letter.number, encode(status()), force=True)
    assert len(await letters(desk, 3)) == 3
    assert await replayed_messages(bus) == []


async def test_a_letter_with_a_forged_source_is_refused(
    system: System, bus: Bus, desk: DeadLetterAdmin, invoke: Invoke
) -> None:
    """A socket server may write letters about SOCKET, and must not have an operator speak for others by that."""
    own, stranger = encode(status()), encode(status("E002"))
    in_status = await bus.publish(Outgoing(PLAN, damaged(status(), status="GONE")))
    payload = b'{"type":"nonsense","data":{}}'
    in_socket = await bus.publish(Outgoing("socket.SOCK009", payload))
    (honest,) = await letters(desk, 1)
    forged = [
        (dead_letter("STATUS", PLAN, in_status.sequence, own, "trust me"), "but was written for SOCKET"),
        (dead_letter("STATUS", PLAN, in_status.sequence, own, "trust me"), "differs from message [0-9]+ of STATUS"),
        (dead_letter("SOCKET", PLAN, in_socket.sequence, payload, "trust me"), "but it has socket.SOCK009"),
        (dead_letter("SOCKET", "socket.SOCK009", in_socket.sequence, stranger, "trust me"), "differs from message"),
        (dead_letter("SOCKET", "socket.SOCK009", in_socket.sequence + 1000, payload, "trust me"), "no longer holds"),
        (dead_letter("SOCKET", "socket.SOCK009", 0, payload, "trust me"), "no longer holds"),
    ]
    for number, (outgoing, _) in enumerate(forged):
        subject = outgoing.subject if number else "deadletter.SOCKET"
        await bus.publish(Outgoing(subject, outgoing.payload))
    for letter, (_, reason) in zip((await letters(desk, 7))[1:], forged, strict=True):
        with pytest.raises(NotReplayed, match=reason):
            await desk.replay(letter.number, force=True)
    replayed = await invoke("replay", "--all", "--source", "SOCKET", "--yes", "-o", "json")
    assert replayed.exit_code == 1
    assert {result["outcome"] for result in json.loads(replayed.stdout)} == {"refused"}
    assert len(await letters(desk, 7)) == 7
    assert await replayed_messages(bus) == []
    # What an operator says in its own name needs a true source as well, and has its effect then.
    assert isinstance(await desk.replay(honest.number, own), Replay)
    await system.status("E001", "CONNECTED")
    assert await system.progress("E002") == {}


async def test_a_letter_with_a_truncated_payload_replays_the_full_one(
    system: System, bus: Bus, desk: DeadLetterAdmin, invoke: Invoke
) -> None:
    full_payload = b"\x01" * 900_000 + b"\xff"
    await bus.publish(Outgoing(PLAN, full_payload))
    await bus.publish(Outgoing("socket.SOCK001", full_payload))
    filed = await letters(desk, 2)
    for letter in filed:
        assert len(letter.letter.payload) < 100_000
        replayed = await desk.replay(letter.number)
        stored = await bus.message_at(replayed.stream, replayed.sequence)
        assert stored is not None
        assert stored.payload == full_payload
    letters_after = await letters(desk, 2)
    assert {letter.letter.replays for letter in letters_after} == {1}
    assert [letter.letter.size for letter in letters_after] == [len(full_payload)] * 2


async def test_a_letter_for_a_socket_server_is_sent_there_again(
    system: System, bus: Bus, desk: DeadLetterAdmin, invoke: Invoke, tmp_path: Path
) -> None:
    client = await system.examinee()
    state = next(frame for frame in client.frames if frame["type"] == "session_state")
    bad_message = {"type": "session_state", "data": {**state["data"], "version": "seven"}}
    await bus.publish(Outgoing("socket.SOCK001", json.dumps(bad_message).encode()))
    (filed,) = await letters(desk, 1)
    before = len(client.frames)
    mended = tmp_path / "mended.json"
    mended.write_text(json.dumps(state))
    result = await invoke("replay", str(filed.number), "--payload", str(mended))
    assert result.exit_code == 0, result.stderr
    assert "handled by 1 reader" in result.stdout
    await client.expect("session_state", after=before)


# -- the command ------------------------------------------------------------------------------------------


async def test_letters_are_listed_filtered_counted_paged_and_discarded(
    system: System, bus: Bus, desk: DeadLetterAdmin, invoke: Invoke
) -> None:
    assert (await invoke("ls")).exit_code == 0
    for payload in (b"{", b'{"type":"a"}', b'{"type":"a"}', b'{"type":"b"}'):
        await bus.publish(Outgoing(PLAN, payload))
    await bus.publish(Outgoing("socket.SOCK001", b'{"type":"a"}'))
    await letters(desk, 5)

    listed = json.loads((await invoke("ls", "-o", "json")).stdout)
    assert [letter["number"] for letter in listed] == [5, 4, 3, 2, 1]
    assert {"number", "time", "source", "reason", "size", "replays"} <= set(listed[0])
    page = json.loads((await invoke("ls", "-o", "json", "--limit", "2", "--offset", "1")).stdout)
    assert [letter["number"] for letter in page] == [4, 3]
    filtered = json.loads((await invoke("ls", "-o", "json", "--source", "STATUS", "--reason", "'A'")).stdout)
    assert len(filtered) == 2
    counts = json.loads((await invoke("ls", "-o", "json", "--by-reason")).stdout)
    assert [group["count"] for group in counts] == [2, 1, 1, 1]
    assert counts[0]["first"] <= counts[0]["last"]
    table = (await invoke("ls", "-o", "wide")).stdout
    assert "1 to 5 of 5" in table
    assert "socket.SOCK001" in table

    assert (await invoke("discard", "1", answer="n\n")).exit_code == 1
    assert len(await letters(desk, 5)) == 5
    assert (await invoke("discard", "1", answer="y\n")).exit_code == 0
    assert (await invoke("discard", "1", "--yes")).exit_code == 3
    assert (await invoke("show", "1")).exit_code == 3
    assert (await invoke("discard", "--all", "--source", "STATUS", "--yes")).exit_code == 0
    assert [letter.letter.source.stream async for letter in desk.letters()] == ["SOCKET"]
    for arguments in ((), ("5", "--all"), ("5", "--source", "STATUS")):
        assert (await invoke("discard", "--yes", *arguments)).exit_code == 2
