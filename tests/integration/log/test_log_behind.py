"""A log that is behind Redis: the broker is restored from an older copy of its data, or has lost a tail of it."""

from __future__ import annotations

import asyncio
import random
import shutil
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis
from websockets.exceptions import InvalidStatus
from websockets.protocol import State

from actors.runtime.config.settings import Settings
from actors.state_manager.manager import StateManager
from actors.state_manager.recovery.audit import Audit, AuditReport
from actors.state_manager.recovery.log_mending import LogMending
from actors.status_log.record_checkpoints import RecordCheckpoints
from actors.status_log.status_log import StatusLog
from cli.local.engines import NatsServer, RedisServer
from protocol.broker import subjects
from protocol.client.plan_view import PlanView
from protocol.errors import BrokerUnavailable
from protocol.log.partitions import part_of
from protocol.messages.frames import SERVER_FRAMES
from protocol.records import keys
from tests.integration.support.settings import changed
from tests.integration.support.system import RawClient, System, eventually
from tests.support.engine_copy import copy_while_stopped
from tests.support.metrics import sample

Engines = tuple[NatsServer, RedisServer]
NAMES = [f"E{number:03}" for number in range(30)]


@pytest.fixture
async def system(own_settings: Settings) -> AsyncIterator[System]:
    """A whole system on engines of this test alone; no actor may fail."""
    async with System(own_settings) as system:
        yield system
        assert system.failures == []


class Backup:
    """A copy of the broker's data, taken while it runs."""

    def __init__(self, nats: NatsServer, directory: Path) -> None:
        self._nats = nats
        self._copy = directory / "copy"
        assert nats.pid is not None
        copy_while_stopped(nats.pid, nats.directory / "jetstream", self._copy)

    def bring_back(self) -> None:
        """Stop the broker, replace its data by the copy, and start it again."""
        self._nats.stop()
        shutil.rmtree(self._nats.directory / "jetstream")
        shutil.copytree(self._copy, self._nats.directory / "jetstream")
        self._nats.start()


async def bring_back(system: System, backup: Backup) -> None:
    """Bring a copy back, and wait until everybody has the broker again."""
    await asyncio.to_thread(backup.bring_back)

    async def connected() -> bool:
        return all(bus.connected for bus in system._buses.values())

    await eventually(connected, "all have the broker again")


async def agreeing(system: System) -> AuditReport | None:
    """The result of comparing Redis with the log, if they agree."""
    report = await Audit(StatusLog(system._buses["state-manager"]), system.store).run()

    return report if not report.differences and not report.in_flight else None


async def test_a_broker_restored_from_a_backup_goes_on_and_everybody_is_told(
    system: System, own_engines: Engines, tmp_path: Path
) -> None:
    proctor = await system.proctor("SOCK002")
    early = {name: await system.examinee(name) for name in ("E001", "E002", "E003")}
    backup = Backup(own_engines[0], tmp_path)
    late = {name: await system.examinee(name, "SOCK002") for name in ("E004", "E005")}
    early["E003"].abort()
    await proctor.expect("examinee_disconnected", examineeId="E003")
    moved = await system.examinee("E002", "SOCK002", client_id="another-browser")

    gaps = sample("examwire_log_gaps_total")
    await bring_back(system, backup)

    late["E004"].abort()  # told at once or soon: nothing that happens from now on is lost
    begin = len(proctor.frames)
    await proctor.expect("examinee_disconnected", examineeId="E004", after=0, seconds=30)
    early["E001"].abort()
    await proctor.expect("examinee_disconnected", examineeId="E001", seconds=30)
    again = await system.examinee("E001", connection_no=2)
    await proctor.expect("examinee_connected", examineeId="E001", recovered=True, after=begin)
    for client in (again, moved, late["E005"]):
        assert client.websocket.close_code is None
    for name, expected in (("E001", "CONNECTED"), ("E002", "CONNECTED"), ("E003", "DISCONNECTED")):
        await system.status(name, expected)

    await eventually(lambda: agreeing(system), "Redis and the log agree", 30)
    assert sample("examwire_log_gaps_total") == gaps + 1
    assert sample("examwire_log_behind_messages") == 0
    assert await system._buses["state-manager"].last_message("DEADLETTER", "deadletter.>") is None


class Churn:
    """Examinees who come and go all the time, and what is true about them."""

    def __init__(self, system: System, names: Sequence[str]) -> None:
        self._system = system
        self._chance = random.Random(7)
        self._leaving = asyncio.Event()
        self.open: dict[str, RawClient] = {}
        self.closed_by_server: list[int] = []
        self._tasks = [asyncio.create_task(self._come_and_go(name, number)) for number, name in enumerate(names)]

    async def _come_and_go(self, name: str, number: int) -> None:
        connection_no = 0
        while True:
            connection_no += 1
            server_id = self._chance.choice(("SOCK001", "SOCK002"))
            try:
                client = await self._system.examinee(name, server_id, connection_no=connection_no)
            except InvalidStatus:  # a server that has lost the broker lets nobody in
                await asyncio.sleep(0.1)
                continue
            self.open[name] = client
            await asyncio.sleep(self._chance.uniform(0.05, 0.6))
            if self._leaving.is_set() and number % 2:
                return
            if client.websocket.close_code is not None:
                self.closed_by_server.append(client.websocket.close_code)
            client.abort()
            del self.open[name]
            if self._leaving.is_set():
                return
            await asyncio.sleep(self._chance.uniform(0.05, 0.3))

    async def rounds(self, count: int) -> None:
        """Wait until there have been so many connections more."""
        wanted = len(self._system.clients) + count

        async def reached() -> bool:
            return len(self._system.clients) >= wanted

        await eventually(reached, f"{count} connections", 60)

    async def end(self) -> dict[str, str]:
        """Let half of them stay and the others leave, and return the status of each."""
        self._leaving.set()
        await asyncio.gather(*self._tasks)
        return {name: "CONNECTED" if name in self.open else "DISCONNECTED" for name in NAMES}


def on_screen(proctor: RawClient) -> dict[str, str]:
    """What the proctor sees of the examinees."""
    view = PlanView()
    for frame in proctor.frames:
        view.apply(SERVER_FRAMES.from_element(frame))
    return {name: row.status for name, row in view.examinees.items()}


def untold(proctor: RawClient, clients: Sequence[RawClient]) -> list[str]:
    """The sockets of whose beginning or end the proctor was not told."""
    told: dict[str, set[str]] = {"examinee_connected": set(), "examinee_disconnected": set()}
    for frame in proctor.frames:
        if frame["type"] in told:
            told[frame["type"]].add(frame["data"]["socketId"])
            if frame["data"].get("replaced"):
                told["examinee_disconnected"].add(frame["data"]["replaced"]["socketId"])
    sockets = {client.frames[0]["data"]["socketId"]: client.websocket.state is State.OPEN for client in clients}
    never_begun = sockets.keys() - told["examinee_connected"]
    never_ended = {socket for socket, is_open in sockets.items() if not is_open} - told["examinee_disconnected"]
    return sorted(never_begun | never_ended)


async def test_while_examinees_come_and_go_everybody_is_told_and_all_agrees(
    system: System, own_engines: Engines, tmp_path: Path
) -> None:
    proctor = await system.proctor("SOCK002")
    churn = Churn(system, NAMES)
    await churn.rounds(60)
    backup = Backup(own_engines[0], tmp_path)
    await churn.rounds(60)
    await bring_back(system, backup)
    await churn.rounds(30)
    begin = len(system.clients)
    await churn.rounds(60)
    truth = await churn.end()

    async def told() -> bool:
        return on_screen(proctor) == truth and not untold(proctor, system.clients[begin:])

    await eventually(told, "the screen shows the truth, and each loss and recovery was told", 30)
    for name, status in truth.items():
        await system.status(name, status)
    report = await eventually(lambda: agreeing(system), "Redis and the log agree", 30)
    assert report.kept > len(NAMES)
    assert churn.closed_by_server == []
    assert await system._buses["state-manager"].last_message("DEADLETTER", "deadletter.>") is None


async def test_a_log_that_has_grown_past_its_old_end_is_noticed(
    system: System, own_engines: Engines, tmp_path: Path
) -> None:
    proctor = await system.proctor("SOCK002")
    await system.examinee("E001")
    backup = Backup(own_engines[0], tmp_path)
    lost = await system.examinee("E002")
    lost.abort()
    await proctor.expect("examinee_disconnected", examineeId="E002")
    known = (await system.store.log_mark.read()).reached
    await system.stop("state-manager")
    await bring_back(system, backup)
    bus = system._buses["SOCK002"]
    status = subjects.status_server("SOCK002")
    newcomers = NAMES[10:20]
    for name in newcomers:  # nobody works off the log, so they are not told their state
        client = await system.raw()
        await client.hello(system.token("examinee", name), f"browser-{name}")

    async def has_grown() -> bool:
        return await bus.last_sequence(status) > known

    await eventually(has_grown, "the log ends after what Redis knows")
    gaps = sample("examwire_log_gaps_total")

    await system.start("state-manager", lambda bus: StateManager(system.settings, bus, system.store, "sm2"))

    for name in newcomers:
        await proctor.expect("examinee_connected", examineeId=name)
    assert sample("examwire_log_gaps_total") == gaps + 1
    await system.status("E001", "CONNECTED")
    await system.status("E002", "DISCONNECTED")
    await eventually(lambda: agreeing(system), "Redis and the log agree", 30)


@pytest.mark.parametrize("step", ["_store_gap", "_keep_records"])
async def test_whoever_dies_while_mending_is_followed_by_another(
    system: System, own_engines: Engines, tmp_path: Path, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first attempt ends after a step; the place of the gap and what follows are as if it had not."""
    proctor = await system.proctor("SOCK002")
    await system.examinee("E001")
    backup = Backup(own_engines[0], tmp_path)
    await system.examinee("E002")
    original = getattr(LogMending, step)
    attempts = 0

    async def dying(self: LogMending, *arguments: object) -> object:
        nonlocal attempts
        result = await original(self, *arguments)
        attempts += 1
        if attempts == 1:
            raise BrokerUnavailable("the mender dies here")
        return result

    monkeypatch.setattr(LogMending, step, dying)
    await bring_back(system, backup)
    newcomer = await system.examinee("E003")
    newcomer.abort()
    await proctor.expect("examinee_disconnected", examineeId="E003")
    (gap,) = await StatusLog(system._buses["state-manager"]).gaps()
    assert gap.up_to > gap.after
    for name in ("E001", "E002"):
        await system.status(name, "CONNECTED")
    await eventually(lambda: agreeing(system), "Redis and the log agree", 30)
    assert attempts >= 1


async def test_the_redis_of_another_installation_is_left_alone(system: System) -> None:
    proctor = await system.proctor("SOCK002")
    gone = await system.examinee("E002")
    await system.stop("state-manager")
    # The wrong redis_url, or the Redis of a rehearsal brought back: another log was made there while ours was in use.
    async with Redis.from_url(system.settings.redis_url, decode_responses=True) as redis:
        ours: dict[Any, Any] = await redis.hgetall(keys.LOG)
        theirs: dict[Any, Any] = {"created": "1700000000.000", "installation": "1700000001.000"}
        await redis.hset(keys.LOG, mapping=theirs)
        before = {key: await redis.dump(key) for key in await redis.keys("plan:*")}

        await system.start("state-manager", lambda bus: StateManager(system.settings, bus, system.store, "sm2"))
        gone.abort()
        await eventually(
            lambda: asyncio.sleep(0, sample("examwire_redis_of_another_installation") == 1), "it is noticed"
        )
        assert {key: await redis.dump(key) for key in await redis.keys("plan:*")} == before

        await redis.hset(keys.LOG, mapping={name: ours[name] for name in theirs})  # the right one again
    await proctor.expect("examinee_disconnected", examineeId="E002")
    await eventually(lambda: agreeing(system), "Redis and the log agree")


async def test_a_redis_newer_than_the_log_that_starts_again_is_kept(
    system: System, own_engines: Engines, tmp_path: Path
) -> None:
    """A half restore: the broker's data is older, and Redis was restarted, too."""
    nats, redis = own_engines
    proctor = await system.proctor("SOCK002")
    backup = Backup(nats, tmp_path)
    await system.examinee("E001")
    gone = await system.examinee("E002")
    gone.abort()
    await proctor.expect("examinee_disconnected", examineeId="E002")
    await asyncio.to_thread(redis.stop)
    await bring_back(system, backup)
    await asyncio.to_thread(redis.start)
    late = await system.examinee("E003")
    late.abort()
    await proctor.expect("examinee_disconnected", examineeId="E003")
    await system.status("E001", "CONNECTED")
    await system.status("E002", "DISCONNECTED")
    report = await eventually(lambda: agreeing(system), "Redis and the log agree", 30)
    assert report.kept >= 2


async def test_what_only_redis_held_outlives_redis(
    own_settings: Settings, own_engines: Engines, tmp_path: Path
) -> None:
    """The checkpoints hold it: the log never will."""
    async with System(own_settings) as system:  # the next checkpoint is due in half a minute
        proctor = await system.proctor("SOCK002")
        await system.examinee("E001")
        bus = system._buses["state-manager"]

        async def begun() -> bool:
            return await RecordCheckpoints(bus).manifest(part_of("P001")) is not None

        await eventually(begun, "there are checkpoints")
        backup = Backup(own_engines[0], tmp_path)
        gone = await system.examinee("E002")
        gone.abort()
        await proctor.expect("examinee_disconnected", examineeId="E002")
        await bring_back(system, backup)
        newcomer = await system.examinee("E003")  # the log is mended
        async with Redis.from_url(system.settings.redis_url) as redis:
            await redis.flushall()
        await system.status("E002", "DISCONNECTED")
        await system.status("E001", "CONNECTED")
        assert newcomer.websocket.close_code is None
        report = await eventually(lambda: agreeing(system), "Redis and the log agree", 30)
        assert report.kept >= 1


async def test_the_attempts_of_an_outage_go_on_after_the_broker_was_restored(
    own_settings: Settings, own_engines: Engines, tmp_path: Path
) -> None:
    """Whom it was waiting for was lost with the broker's data."""
    ladder = {"reconnect.max_attempts": 3, "reconnect.backoff_seconds": [1.0, 1.0, 1.0]}
    async with System(changed(own_settings, ladder)) as system:
        proctor = await system.proctor("SOCK002")
        gone = await system.examinee("E001")
        backup = Backup(own_engines[0], tmp_path)
        gone.abort()
        await proctor.expect("examinee_reconnecting", examineeId="E001", attempt=1)
        await bring_back(system, backup)
        await proctor.expect("examinee_reconnecting", examineeId="E001", attempt=3)
        await proctor.expect("examinee_reconnect_exhausted", examineeId="E001")
