"""Several state managers: each plan is worked off by one of them at a time, in the log's order, whatever happens."""

from __future__ import annotations

import asyncio
import signal
import sys
from asyncio.subprocess import DEVNULL, Process
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress

import pytest
from nats.aio.msg import Msg

from actors.runtime.actor.actor import on
from actors.runtime.broker.connection import Bus, Outgoing
from actors.runtime.broker.consumers.consumer import Delivery
from actors.runtime.config.settings import Settings
from actors.state_manager.manager import StateManager, StatusBatch
from protocol.broker import subjects
from protocol.broker.streams import PIN_GROUP, STATE_MANAGERS, STATUS
from protocol.log.partitions import PARTITIONS, partition_of
from protocol.messages.base import FORMAT
from protocol.messages.codec import encode
from protocol.messages.facts import ConnectionStatus, ConnectionStatusCode
from protocol.messages.progress import Applied
from tests.integration.support.system import System, eventually
from tests.integration.support.unsteady_exam import EXAMINEES, Exam

PLANS = ("P001", "P002", "P003")


class Managers:
    """State managers as processes, to be frozen and killed."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.processes: list[Process] = []

    async def start(self) -> Process:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "cli.main", "run", "state-manager"),
            *("--nats-url", self._settings.nats_url, "--redis-url", self._settings.redis_url),
            *("--data-dir", str(self._settings.data_dir), "--metrics-port", "0"),
            stdout=DEVNULL,
            stderr=DEVNULL,
        )
        self.processes.append(process)
        return process

    async def end(self) -> None:
        for process in self.processes:
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()


@pytest.fixture
async def managers(own_settings: Settings) -> AsyncIterator[Managers]:
    managers = Managers(own_settings)
    yield managers
    await managers.end()


async def test_a_paused_and_a_killed_manager_change_no_result(own_system: System, managers: Managers) -> None:
    assert len({partition_of(plan_id) for plan_id in PLANS}) == len(PLANS)
    frozen, killed, _ = [await managers.start() for _ in range(3)]
    bus = own_system._buses["SOCK001"]

    async def three_stand_by() -> bool:
        states = {state.name: state for state in await bus.consumer_states(STATUS.name)}
        return all(states[spec.name].pulls_waiting >= 4 for spec in STATE_MANAGERS)

    await eventually(three_stand_by, "three more managers are there", 60)
    await own_system.stop("state-manager")
    exams = [Exam(own_system, seed, plan_id) for seed, plan_id in enumerate(PLANS)]
    proctors = {
        plan: [await own_system.proctor(server_id, plan_id=plan) for server_id in ("SOCK001", "SOCK002")]
        for plan in PLANS
    }

    async def churn(steps: int) -> None:
        for _ in range(steps):
            for exam in exams:
                await exam.step()

    for exam in exams:
        await asyncio.gather(*(exam.join(examinee_id) for examinee_id in EXAMINEES))
    await churn(15)
    frozen.send_signal(signal.SIGSTOP)
    await churn(15)
    killed.kill()
    await churn(15)
    for exam in exams:
        await exam.everybody_agrees(proctors[exam.plan_id])
    frozen.send_signal(signal.SIGCONT)
    await churn(15)
    for exam in exams:
        await exam.everybody_agrees(proctors[exam.plan_id])
        for client in exam.clients.values():
            assert client.websocket.close_code is None, "nobody who is connected was sent away"


async def test_sockets_announced_again_from_a_backlog_are_not_replaced(own_system: System) -> None:
    """Two managers begin with a backlog of several facts of each examinee, one is slow: nobody is closed with 4503."""
    crowd = [f"E{number:03}" for number in range(50)]
    before = {examinee_id: await own_system.examinee(examinee_id, "SOCK001") for examinee_id in crowd}
    await own_system.stop("state-manager")
    clients = {}
    for examinee_id in crowd:
        before[examinee_id].abort()
        client = clients[examinee_id] = await own_system.raw("SOCK002")
        await client.hello(own_system.token("examinee", examinee_id), f"browser-{examinee_id}", 2)

    class Slow(StateManager):
        """A state manager that takes its time."""

        @on(StatusBatch)
        async def handle(self, batch: StatusBatch) -> None:
            await asyncio.sleep(0.5)
            await super().handle(batch)

    await own_system.start("sm2", lambda bus: Slow(own_system.settings, bus, own_system.store, "sm2"))
    await own_system.start("sm3", lambda bus: StateManager(own_system.settings, bus, own_system.store, "sm3"))
    for _ in range(60):  # more than one manager takes at once
        await own_system.server("SOCK002")._lease.announce_all()
        await asyncio.sleep(0.01)
    for one, client in clients.items():
        await client.expect("session_state")
        await own_system.status(one, "CONNECTED")
    closed = {one: client.websocket.close_code for one, client in clients.items() if client.websocket.close_code}
    assert closed == {}


async def test_the_broker_adds_the_partition_of_the_plan_to_a_subject_without_one(
    own_settings: Settings, own_system: System
) -> None:
    bus = await Bus.connect(own_settings.nats_url, "test")
    for number in range(PARTITIONS * 4):
        plan_id = f"plan_{number}-X"
        loss = ConnectionStatus(
            plan_id=plan_id,
            examinee_id="E001",
            socket_id="SOCK001-1",
            status=ConnectionStatusCode.DISCONNECTED,
            timestamp="2026-11-22T09:00:00Z",
        )
        ack = await bus.publish(Outgoing(subjects.status_plan(plan_id), encode(loss)))
        stored = await bus.message_at(STATUS.name, ack.sequence)
        assert stored is not None
        assert stored.subject == subjects.status_plan(plan_id, "any")
    await bus.close()


async def test_a_fact_in_a_wrong_partition_becomes_a_dead_letter(own_settings: Settings, own_system: System) -> None:
    bus = await Bus.connect(own_settings.nats_url, "test")
    loss = ConnectionStatus(
        plan_id="P001",
        examinee_id="E001",
        socket_id="SOCK001-1",
        status=ConnectionStatusCode.DISCONNECTED,
        timestamp="2026-11-22T09:00:00Z",
    )
    wrong_partition = (partition_of("P001") + 1) % PARTITIONS
    await bus.publish(Outgoing(f"status.plan.P001.any.{wrong_partition}", encode(loss)))

    async def letter() -> bool:
        return await bus.last_message("DEADLETTER", subjects.deadletter(STATUS.name)) is not None

    await eventually(letter, "it is among the dead letters")
    await bus.close()


async def test_a_manager_that_stops_leaves_its_partitions_to_others_at_once(own_system: System) -> None:
    await own_system.examinee("E001")
    name = f"state-manager-{partition_of('P001')}"
    bus = own_system._buses["SOCK001"]
    assert (await bus.pinned_state(STATUS.name, name)).pin is not None
    await own_system.stop("state-manager")
    assert (await bus.pinned_state(STATUS.name, name)).pin is None


async def test_a_term_lasts_as_long_as_a_partition_is_held_without_a_break(own_system: System) -> None:
    await own_system.examinee("E001")
    manager = own_system.actors["state-manager"]
    assert isinstance(manager, StateManager)
    partitions, part = manager._partitions, str(partition_of("P001"))
    (reader,) = [reader for reader in partitions.readers if reader.spec.name.endswith(f"-{part}")]

    async def settle(_replies: Sequence[str], _verdict: bytes) -> None:
        """Nobody waits for it."""

    def delivery(epoch: int) -> Delivery:
        return Delivery(subjects.status_plan("P001", "web"), b"", {}, 1, 1, 0, 0.0, "", settle, set(), epoch=epoch)

    await reader.confirm_owned(reader.epoch)
    held = delivery(reader.epoch)
    assert partitions.terms([held]) == {part: reader.epoch}
    assert partitions.terms([held, delivery(reader.epoch - 1)]) == {part: None}
    assert partitions.terms([delivery(reader.epoch - 1), held]) == {part: None}
    await reader.release()
    assert partitions.terms([held]) == {part: None}
    assert partitions.terms([delivery(reader.epoch)]) == {part: None}


async def test_several_managers_share_the_partitions(own_system: System, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("actors.state_manager.partitions.BALANCE_SECONDS", 0.3)
    await own_system.start("sm2", lambda bus: StateManager(own_system.settings, bus, own_system.store, "sm2"))
    two_managers = [own_system.actors["state-manager"], own_system.actors["sm2"]]
    plans: dict[int, str] = {}
    for number in range(100):
        plans.setdefault(partition_of(f"P{number}"), f"P{number}")
    numbers = iter(range(2, 10_000))

    async def shared() -> bool:
        for plan_id in plans.values():  # a partition belongs to whoever gets its next message
            await own_system.examinee("E001", plan_id=plan_id, connection_no=next(numbers))
        partitions = [set(manager.details()["held"]) for manager in two_managers]
        assert not partitions[0] & partitions[1]
        return min(len(names) for names in partitions) >= 3

    await eventually(shared, "both work", 60)


async def test_a_manager_leaves_the_log_to_a_newer_one_until_that_one_is_silent(own_system: System) -> None:
    await own_system.examinee("E001")
    manager = own_system.actors["state-manager"]
    bus = own_system._buses["SOCK001"]
    name = f"state-manager-{partition_of('P001')}"
    newer = encode(Applied(state_manager="newer", partitions={}, understood_format=FORMAT + 1))

    async def pulls() -> int:
        await bus.publish_core(subjects.applied("newer"), newer)
        states = {state.name: state for state in await bus.consumer_states(STATUS.name)}
        return sum(states[spec.name].pulls_waiting for spec in STATE_MANAGERS)

    async def nobody_reads() -> bool:
        return not await pulls() and not manager.details()["held"]

    await eventually(nobody_reads, "it has given way")
    assert manager.details()["givesWay"]
    assert (await bus.pinned_state(STATUS.name, name)).pin is None
    client = await own_system.raw("SOCK002")
    await client.hello(own_system.token("examinee", "E002"), "browser", 1)

    async def waits() -> bool:
        states = {state.name: state for state in await bus.consumer_states(STATUS.name)}
        return bool(states[name].pending) and not await pulls()

    await eventually(waits, "a fact waits for the newer one")
    await client.expect("session_state")
    assert not manager.details()["givesWay"]


async def test_pulls_left_by_a_stall_do_not_count_as_managers(
    own_system: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a NATS that stood still each consumer has several pulls of one manager; a release stops its partition."""
    manager = own_system.actors["state-manager"]
    assert isinstance(manager, StateManager)
    plans: dict[int, str] = {}
    for number in range(100):
        plans.setdefault(partition_of(f"P{number}"), f"P{number}")
    for plan_id in plans.values():
        await own_system.examinee("E001", plan_id=plan_id)

    async def holds_all() -> bool:
        return len(manager.details()["held"]) == len(STATE_MANAGERS)

    await eventually(holds_all, "all partitions are its own")
    released: list[str] = []
    for reader in manager._partitions.readers:

        async def release(name: str = reader.spec.name) -> None:
            released.append(name)

        monkeypatch.setattr(reader, "release", release)
    bus = own_system._buses["SOCK001"]
    pull = b'{"batch": 1, "expires": 60000000000, "group": "%s"}' % PIN_GROUP.encode()
    inbox = bus.new_inbox()

    async def ignore(_msg: Msg) -> None:
        """Nothing comes: somebody else reads."""

    await bus.subscribe(f"{inbox}.*", ignore)
    for spec in STATE_MANAGERS:
        for number in range(12):
            address = f"$JS.API.CONSUMER.MSG.NEXT.{spec.stream}.{spec.name}"
            await bus.publish_core(address, pull, reply=f"{inbox}.{number}")

    async def many_pulls() -> bool:
        states = {state.name: state for state in await bus.consumer_states(STATUS.name)}
        return all(states[spec.name].pulls_waiting >= 12 for spec in STATE_MANAGERS)

    await eventually(many_pulls, "pulls wait")
    looks = 0

    def managers(count: Callable[[], int] = manager._partitions.managers) -> int:
        nonlocal looks
        looks += 1
        return count()

    monkeypatch.setattr(manager._partitions, "managers", managers)
    monkeypatch.setattr("actors.state_manager.partitions.BALANCE_SECONDS", 0.05)

    async def has_looked() -> bool:
        return looks >= 5

    await eventually(has_looked, "it has looked whether to leave some to others", 30)
    assert released == []
