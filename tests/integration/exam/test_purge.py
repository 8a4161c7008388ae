"""Purging a plan or an examinee: nothing is left of them, and nobody else notices."""

from __future__ import annotations

import os
import re
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import pytest

from actors.retention.purger import Purger
from actors.runtime.broker.connection import Bus, Outgoing
from actors.runtime.broker.consumers.stream_reader import read_stream
from actors.runtime.broker.stream_state import StoredMessage
from actors.runtime.config.settings import Settings
from actors.state_manager.recovery.audit import Audit
from actors.status_log.plan_log import PlanLog
from actors.status_log.status_log import StatusLog
from actors.web_server.server import WebServer
from protocol.broker import subjects
from protocol.broker.streams import RECORDS, STREAMS
from protocol.close_codes import CloseCode
from protocol.log.entries import LogEntry
from protocol.messages.facts import ConnectionStatus, ConnectionStatusCode, Enrol, ExamineeFact
from protocol.messages.plan_facts import ExamExtend, ExamWindow, PlanClose, PlanFact, PlanNotice, PlanSchedule
from protocol.records import keys
from protocol.times import format_time
from tests.integration.support.settings import changed
from tests.integration.support.system import System, eventually


@pytest.fixture
async def system(bus: Bus, settings: Settings) -> AsyncIterator[System]:
    # Checkpoints are written all the time: none of them may bring anything back.
    async with System(changed(settings, {"checkpoints.seconds": 0.05})) as system:
        await system.start("web-server", lambda own: WebServer(changed(settings, {"web.port": 0}), own, system.store))
        yield system
        await agree(bus, system)
        assert system.failures == []


async def agree(bus: Bus, system: System) -> None:
    report = await Audit(StatusLog(bus), system.store).run()
    assert (report.differences, report.whole) == ([], True)


async def decide(bus: Bus, fact: type[PlanFact], plan_id: str = "P001", **fields: Any) -> None:
    message = fact(plan_id=plan_id, by="operator", timestamp=format_time(bus.clock.now()), **fields)
    await bus.publish_until_stored([Outgoing.of(subjects.status_plan(plan_id, subjects.OPERATOR), message)])


async def stored(bus: Bus, mention: bytes) -> list[StoredMessage]:
    """All messages of all streams that mention this."""
    found = []
    for spec in STREAMS:
        async for message in read_stream(bus, spec.name):
            if mention in message.payload or mention.decode() in message.subject.split("."):
                found.append(message)
    return found


async def entries_of(bus: Bus, examinee_id: str) -> list[LogEntry]:
    """What the log has about an examinee, without the facts about the plan."""
    entries = [entry async for entry in PlanLog(bus, "P001").new_entries(examinee_id)]
    return [entry for entry in entries if isinstance(entry.fact, ExamineeFact)]


def picture(settings: Settings, plan_id: str, examinee_id: str) -> None:
    directory = settings.data_dir / "captures" / plan_id / examinee_id
    directory.mkdir(parents=True)
    (directory / f"{'0a' * 32}.jpg").write_bytes(b"a picture")


async def test_nothing_is_left_of_a_purged_plan_but_one_note(bus: Bus, system: System, settings: Settings) -> None:
    other = await system.proctor("SOCK002", plan_id="P002")
    await system.examinee("E100", "SOCK001", plan_id="P002")
    proctor = await system.proctor("SOCK001")
    examinees = [await system.examinee(f"E00{number}", f"SOCK00{1 + number % 2}") for number in range(4)]
    examinees.pop().abort()
    await proctor.expect("examinee_disconnected", examineeId="E003")
    await decide(bus, PlanSchedule, ends_at="2099-01-01T00:00:00.000Z")
    await decide(bus, PlanNotice, text="Good luck", action_id="n1")
    await proctor.say("notify", examineeId="E001", text="Hello", requestId="n2")
    await proctor.expect("notice", examineeId="E001")
    for client in (proctor, *examinees):
        await client.expect("plan_state", endsAt="2099-01-01T00:00:00.000Z")
    picture(settings, "P001", "E001")
    picture(settings, "P002", "E100")
    seen = len(other.frames)

    report = await Purger(bus, system.store, "kim").purge("P001", archive_sha256="0b" * 32)

    for client in (proctor, *examinees):
        assert await client.closed() == CloseCode.EXAM_OVER
    assert await system.store.raw_keys("plan:P001*") == []
    assert await system.store.members(keys.PLANS) == ["P002"]
    (note,) = await stored(bus, b"P001")
    assert b'"by":"kim"' in note.payload
    assert b'"archiveSha256":"' + b"0b" * 32 in note.payload
    assert (report.records > 10, report.messages > 5, report.pictures, report.remarks) == (True, True, 1, [])
    captures = settings.data_dir / "captures"
    assert sorted(path.name for path in captures.iterdir()) == ["P002"]
    assert [frame["type"] for frame in other.frames[seen:] if frame["type"] != "view_status"] == []
    await agree(bus, system)

    again = await system.proctor("SOCK001", name="proctor-2")  # the planId may be used again, and starts empty
    assert (await again.expect("plan_snapshot"))["data"]["examinees"] == []
    await system.examinee("E001", "SOCK002", client_id="browser-2")
    await again.expect("examinee_connected", examineeId="E001")
    assert (await again.expect("plan_state"))["data"]["version"] == 0


async def test_a_purge_that_died_at_any_step_goes_on(bus: Bus, system: System, monkeypatch: pytest.MonkeyPatch) -> None:
    await system.examinee("E001", "SOCK001")
    await system.examinee("E002", "SOCK002")
    for step in ("_told", "_pictures", "_purge_side_streams"):
        with monkeypatch.context() as patched:

            def died(*_: object) -> None:
                raise InterruptedError

            patched.setattr(Purger, step, died)
            with suppress(InterruptedError):
                await Purger(bus, system.store, "kim").purge("P001", "E001")
        await agree(bus, system)
    await Purger(bus, system.store, "kim").purge("P001", "E001")
    await Purger(bus, system.store, "kim").purge("P001")
    assert len(await stored(bus, b"P001")) == 1


async def test_an_examinee_is_deleted_and_the_others_keep_all_of_theirs(bus: Bus, system: System) -> None:
    now, names = format_time(bus.clock.now()), ("E001", "E002")
    enrolled = [Enrol(plan_id="P001", examinee_id=name, name=f"Name {name}", timestamp=now) for name in names]
    await bus.publish(Outgoing.of(subjects.status_plan("P001", subjects.OPERATOR), *enrolled))
    await decide(bus, PlanSchedule, ends_at="2099-01-01T00:00:00.000Z")
    await decide(bus, ExamWindow, examinee_id="E001", extra_seconds=600)
    await decide(bus, ExamExtend, examinee_id="E001", seconds=60)
    await decide(bus, PlanNotice, text="You two", action_id="n1", examinees=["E001", "E002"])
    proctor = await system.proctor("SOCK001")
    clients = {name: await system.examinee(name, "SOCK002") for name in ("E001", "E002")}
    await proctor.expect("examinee_connected", examineeId="E002")
    before = await entries_of(bus, "E002")
    record, seen = await system.progress("E002"), len(proctor.frames)

    await Purger(bus, system.store, "kim").purge("P001", "E001")

    assert await clients["E001"].closed() == CloseCode.EXAM_OVER
    snapshot = await proctor.expect("plan_snapshot", after=seen)
    assert [row["examineeId"] for row in snapshot["data"]["examinees"]] == ["E002"]
    assert await entries_of(bus, "E002") == before
    assert await system.progress("E002") == record
    assert await entries_of(bus, "E001") == []
    assert await system.store.raw_keys("plan:P001:*E001*") == []

    left = [each for each in await stored(bus, b"E001") if not each.subject.startswith("lease.")]
    note = left.pop(0)
    assert note.payload.startswith(b'{"type":"plan_purged"')
    for checkpoint in left:  # of the plan's records, which hold the note too
        assert checkpoint.subject in map(subjects.record, (keys.plan("P001"), keys.plan_notices("P001")))
        assert b"E001" not in re.sub(rb'\[\d+,\\"plan_purged\\",\{[^}]*\}\]', b"", checkpoint.payload)
    own = (await system.store.entries(keys.plan("P001")))["ownTimes"]
    assert "E001" not in own
    assert '"extraSeconds": 660' in own


async def test_a_late_fact_of_a_purged_plan_makes_no_record(bus: Bus, system: System) -> None:
    examinee = await system.examinee("E001", "SOCK001")
    await Purger(bus, system.store, "kim").purge("P001")
    await examinee.closed()
    late = ConnectionStatus(
        plan_id="P001",
        examinee_id="E001",
        socket_id="SOCK001-zz",
        server_id="SOCK001",
        status=ConnectionStatusCode.DISCONNECTED,
        timestamp=format_time(bus.clock.now()),
    )
    ack = await bus.publish(Outgoing.of(subjects.status_plan("P001", subjects.socket_origin("SOCK001")), late))
    status = StatusLog(bus)

    async def applied() -> bool:
        return (await status.extent()).acknowledged >= ack.sequence

    await eventually(applied, "the late fact is processed")
    assert await system.store.raw_keys("plan:P001*") == []
    assert await system.store.members(keys.PLANS) == []


async def test_nothing_grows_with_the_number_of_past_exams_but_the_notes(bus: Bus, system: System) -> None:
    async def figures() -> tuple[set[str], int, dict[str, int]]:
        consumers = sum([len(await bus.consumer_states(spec.name)) for spec in STREAMS])
        messages = {spec.name: (await bus.stream_state(spec.name)).messages for spec in STREAMS if spec.name != "LEASE"}
        # Without the messages that say how far the checkpoints of a part are: they are replaced all the time.
        records = {each.subject async for each in read_stream(bus, RECORDS.name, subject="record.*.>")}
        messages[RECORDS.name] = len(records)
        return set(await system.store.raw_keys("*")), consumers, messages

    before: tuple[set[str], int, dict[str, int]] | None = None
    for number in range(3):
        plan_id = f"P10{number}"
        clients = [await system.examinee(f"E00{each}", plan_id=plan_id) for each in range(3)]
        clients[0].abort()
        await system.status("E000", "DISCONNECTED", plan_id)
        await decide(bus, PlanClose, plan_id)
        for client in clients[1:]:
            await client.closed()
        await Purger(bus, system.store, "kim").purge(plan_id)
        keys_now, consumers, messages = await figures()
        if before is not None:
            notes = before[2]["STATUS"] + 1
            assert (keys_now, consumers, messages) == (before[0], before[1], {**before[2], "STATUS": notes})
        before = keys_now, consumers, messages


async def test_a_web_server_that_did_not_run_deletes_pictures_later_but_not_newer_ones(
    bus: Bus, system: System, settings: Settings
) -> None:
    await system.stop("web-server")
    await system.examinee("E001")
    picture(settings, "P001", "E001")
    report = await Purger(bus, system.store, "kim").purge("P001")
    assert report.remarks == ["no web server runs: the next one that starts deletes its pictures"]
    picture(settings, "P001", "E002")  # the planId is in use again
    newer = time.time() + 3600
    os.utime(settings.data_dir / "captures" / "P001" / "E002" / f"{'0a' * 32}.jpg", (newer, newer))
    await system.start("web-server", lambda own: WebServer(changed(settings, {"web.port": 0}), own, system.store))
    directory = settings.data_dir / "captures" / "P001"

    async def deleted() -> bool:
        return not list(directory.glob("E001/*.jpg"))

    await eventually(deleted, "the picture is deleted")
    assert list(directory.glob("E002/*.jpg"))
