"""A whole exam with 200 examinees and two proctors: from the roster to the purge, with a second sitting in between.

After each step Redis, the log, and the view of every proctor say the same.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterable
from functools import partial
from pathlib import Path

import pytest

from actors.client.proctor import ProctorClient
from actors.runtime.broker.connection import Bus
from actors.runtime.config.settings import Settings
from actors.sessions.plan_snapshot import read_rows
from actors.state_manager.recovery.audit import Audit
from actors.status_log.plan_log import read_plan
from actors.status_log.status_log import StatusLog
from protocol.close_codes import CloseCode
from protocol.messages.facts import STATUS_CODEC
from protocol.messages.frames import ExamineeRow
from protocol.records import keys
from protocol.times import format_time
from tests.integration.support.command_line import Invoke
from tests.integration.support.settings import changed
from tests.integration.support.system import RawClient, System, eventually

ROOMS = ("A", "B")
EXAMINEES = [f"E{number:03}" for number in range(1, 201)]


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return changed(settings, {"reconnect.max_attempts": 2, "reconnect.backoff_seconds": [1.0, 1.0]})


@pytest.fixture
async def system(bus: Bus, settings: Settings) -> AsyncIterator[System]:
    async with System(settings) as system:
        yield system
        assert system.failures == []


class Exam:
    """The exam P001, its examinees' sockets and its proctors' clients."""

    def __init__(self, system: System, bus: Bus, invoke: Invoke) -> None:
        self.system = system
        self.bus = bus
        self.invoke = invoke
        self.sockets: dict[str, RawClient] = {}
        self.proctors: dict[str, ProctorClient] = {}
        self._watching: list[asyncio.Task[None]] = []
        self._connections: Counter[str] = Counter()
        self._rows: dict[str, ExamineeRow] = {}

    async def command(self, *arguments: str) -> str:
        """Run a command that must succeed; return what it prints."""
        done = await self.invoke(*arguments)
        assert done.exit_code == 0, done.output
        return done.stdout

    async def connect(self, examinee_ids: Iterable[str]) -> None:
        names = list(examinee_ids)
        self._connections.update(names)
        for start in range(0, len(names), 20):
            batch = names[start : start + 20]
            clients = await asyncio.gather(
                *(
                    self.system.examinee(name, f"SOCK00{1 + int(name[1:]) % 2}", connection_no=self._connections[name])
                    for name in batch
                )
            )
            self.sockets |= dict(zip(batch, clients, strict=True))

    async def watch(self, name: str, server_id: str, room: str | None = None) -> ProctorClient:
        """Connect a proctor's client, limited to a room or not, and have it follow the plan."""
        token = self.system.token("proctor", name, scope={"room": [room]} if room else None)
        client = ProctorClient(self.system.server(server_id).url, token, client_id=name, connection_no=1)
        await client.connect()
        self.proctors[name] = client

        async def follow() -> None:
            async for _ in client.frames():
                pass

        self._watching.append(asyncio.create_task(follow()))
        return client

    async def close(self) -> None:
        for client in self.proctors.values():
            await client.close()
        await asyncio.gather(*self._watching, return_exceptions=True)

    async def agree(self, expected: dict[str, int], step: str) -> None:
        """Wait until Redis has so many examinees of each status, and each proctor sees the very same; check the log."""
        examinees = sorted(await self.system.store.members(keys.plan_examinees("P001")))

        async def counted() -> bool:
            rows = await read_rows(self.system.store, "P001", examinees)
            self._rows = {row.examinee_id: row for row in rows}
            return Counter(row.status for row in rows) == Counter(expected)

        try:
            await eventually(counted, step)
        except AssertionError:
            pytest.fail(f"{step}: {expected}, but Redis has {Counter(row.status for row in self._rows.values())}")

        async def seen() -> bool:
            return not [name for name, client in self.proctors.items() if not self._sees(name, client)]

        await eventually(seen, f"{step}: every proctor sees what Redis holds")
        report = await Audit(StatusLog(self.bus), self.system.store).run()
        assert (report.differences, report.whole) == ([], True), step
        for client in self.proctors.values():
            assert (client.view.doubled, client.view.late) == (0, 0), step

    def _sees(self, name: str, client: ProctorClient) -> bool:
        room = {"kim": "A", "lee": "B"}.get(name)
        wanted = {
            examinee_id: (row.status, row.reconnect.exhausted, row.labels)
            for examinee_id, row in self._rows.items()
            if room is None or (row.labels or {}).get("room") == room
        }
        seen = client.view.examinees.items()
        return {name: (examinee.status, examinee.exhausted, examinee.labels) for name, examinee in seen} == wanted


@pytest.fixture
async def exam(system: System, bus: Bus, invoke: Invoke) -> AsyncIterator[Exam]:
    exam = Exam(system, bus, invoke)
    yield exam
    await exam.close()


def soon(seconds: float) -> str:
    return format_time(time.time() + seconds)


async def _status(client: ProctorClient, status: str) -> bool:
    return client.view.plan is not None and client.view.plan.status == status


async def _exhausted(client: ProctorClient, examinee_ids: Iterable[str]) -> bool:
    return all(client.view.examinees[name].exhausted for name in examinee_ids)


async def _help_of(client: ProctorClient, examinee_id: str, taken_by: str | None) -> bool:
    open_request = client.view.examinees[examinee_id].help
    return open_request is not None and open_request.taken_by == taken_by


async def _no_help(client: ProctorClient, examinee_id: str) -> bool:
    return client.view.examinees[examinee_id].help is None


async def test_a_whole_exam_from_the_roster_to_the_purge(exam: Exam, tmp_path: Path) -> None:
    roster = tmp_path / "roster.csv"
    lines = [
        f"{name},Name {name},{ROOMS[number % 2]},{30 if name == 'E001' else ''}"
        for number, name in enumerate(EXAMINEES)
    ]
    roster.write_text("\n".join(["examineeId,name,room,extraMinutes", *lines]) + "\n")

    # -- the waiting room --
    await exam.command("plans", "create", "P001", "--roster", str(roster), "--starts-at", soon(3600))
    kim = await exam.watch("kim", "SOCK001", room="A")
    lee = await exam.watch("lee", "SOCK002", room="B")
    chief = await exam.watch("chief", "SOCK001")
    await exam.connect(EXAMINEES)
    await exam.agree({"CONNECTED": 200}, "everybody waits")
    assert (len(kim.view.examinees), len(lee.view.examinees)) == (100, 100)
    for name in EXAMINEES[:5]:
        exam.sockets[name].abort()
    await exam.agree({"CONNECTED": 195, "DISCONNECTED": 5}, "some leave before the start")
    await exam.connect(EXAMINEES[:5])
    await exam.agree({"CONNECTED": 200}, "they are back")

    # -- the exam --
    await exam.command("plans", "schedule", "P001", "--starts-at", soon(1), "--name", "Mathematics")
    for client in (kim, lee, chief):
        await eventually(partial(_status, client, "OPEN"), "the exam begins", 40)
    for name in EXAMINEES[10:30]:
        exam.sockets[name].abort()
    await exam.agree({"CONNECTED": 180, "DISCONNECTED": 20}, "a row loses its network")
    await exam.connect(EXAMINEES[10:25])
    await exam.agree({"CONNECTED": 195, "DISCONNECTED": 5}, "fifteen are back")
    await eventually(partial(_exhausted, chief, EXAMINEES[25:30]), "five are shut out")

    # -- somebody asks for help --
    asking = exam.sockets["E003"]
    await asking.say("help_request", requestId="h1", text="The sound does not play.")
    await asking.expect("accepted", requestId="h1")
    await eventually(partial(_help_of, kim, "E003", None), "kim sees the request")
    await kim.take_help("E003", "h1")
    await eventually(partial(_help_of, chief, "E003", "kim"), "the chief sees that kim is on it")
    assert "E003" not in lee.view.examinees
    await kim.close_help("E003", "h1")
    await eventually(partial(_no_help, chief, "E003"), "the request is closed")

    # -- hand-ins, and the end --
    for name in EXAMINEES[50:100]:
        await exam.sockets[name].say("finish", requestId=f"f-{name}")
    for name in EXAMINEES[50:100]:
        await exam.sockets[name].expect("accepted", requestId=f"f-{name}")
        await exam.sockets[name].close()
    await exam.agree({"CONNECTED": 145, "FINISHED": 50, "DISCONNECTED": 5}, "fifty hand in and leave")
    await exam.command("plans", "schedule", "P001", "--ends-at", soon(3))
    there = [name for name in EXAMINEES if name not in EXAMINEES[25:30] and name not in EXAMINEES[50:100]]
    for name in there:
        if name != "E001":
            assert await exam.sockets[name].closed() == CloseCode.EXAM_OVER
    await exam.agree({"CONNECTED": 1, "FINISHED": 194, "DISCONNECTED": 5}, "the end, but not for E001")
    await exam.command("plans", "close", "P001", "--reason", "E001 is ready")
    assert await exam.sockets["E001"].closed() == CloseCode.EXAM_OVER
    await exam.agree({"FINISHED": 195, "DISCONNECTED": 5}, "the exam is over")
    assert chief.view.events["examinee_disconnected"] == 25, "each loss once, and nothing else"

    report = json.loads(await exam.command("plans", "report", "P001", "-o", "json"))
    by_id = {row["examineeId"]: row for row in report["examinees"]}
    assert Counter(row["endStatus"] for row in by_id.values()) == {"HANDED_IN": 50, "PLAN_ENDED": 145, "LOST": 5}
    assert all(by_id[name]["outages"] == 0 for name in (*EXAMINEES[:5], *EXAMINEES[50:]))
    assert all(by_id[name]["outages"] == 1 for name in EXAMINEES[10:30])

    # -- a second sitting of the same plan --
    await exam.command("plans", "open", "P001")
    await exam.connect([*there[:10], "E150"])
    await exam.agree({"CONNECTED": 11, "FINISHED": 50, "DISCONNECTED": 139}, "a second sitting")
    await exam.command("plans", "close", "P001")
    await exam.agree({"FINISHED": 61, "DISCONNECTED": 139}, "the second end")

    # -- archive and purge --
    archive = tmp_path / "P001.zip"
    await exam.command("plans", "archive", "P001", str(archive))
    assert archive.stat().st_size > 0
    await exam.command("plans", "purge", "P001", "--archive", str(archive), "--yes")
    assert await exam.system.store.raw_keys("plan:P001*") == []
    notes = [stored async for stored in read_plan(exam.bus, "P001")]
    assert [STATUS_CODEC.decode_one(note.payload).type for note in notes] == ["plan_purged"]
    await exam.close()
    report_of_log = await Audit(StatusLog(exam.bus), exam.system.store).run()
    assert (report_of_log.differences, report_of_log.whole) == ([], True)
