"""A small world for the state managers: a log, a Redis and a broker in memory, driven step by step and by hand.

The managers are the real thing (`Decisions` and `Telling`, in the order of work of the design's section 5); every
access to the store and to the broker is a step, and between two steps anything can happen, a crash included.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Generator, Mapping, Sequence
from contextlib import suppress
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any, TypeVar

import pydantic_core

from actors.log_of_record import Extent, SetAside, StatusLog, said_of_server
from actors.log_of_record import facts_of as facts_in
from actors.runtime.bus import Bus, Outgoing, Sent
from actors.runtime.state_store import Index, RecordWrite, Replacement, SocketWrite, StateStore, Stored
from actors.runtime.state_store_mark import Mark, StateMark
from actors.runtime.stream_admin import Stored as Logged
from actors.state_decisions import Decisions
from actors.state_places import Item
from actors.state_repair import StateRepair
from actors.state_telling import Telling
from protocol import keys, subjects
from protocol.codec import SOCKET_CODEC, STATUS_CODEC, encode_batches
from protocol.errors import StateDamaged, StateLost
from protocol.facts import (
    ConnectionStatus,
    ConnectionStatusCode,
    MobileSyncExtend,
    MobileSyncStatus,
    MobileSyncTimeout,
    MobileSyncWait,
    Notice,
    NoticeConfirmed,
    Restate,
)
from protocol.history import fold
from protocol.plan_view import PlanView
from protocol.records import CONNECTION, MOBILE_SYNC, NOTICES, SERVER
from protocol.server_messages import ServerStatus
from protocol.servers import Server
from protocol.versions import sequence_of, version_of
from protocol.wire import Message
from tests.unit.facts import PLAN
from tests.unit.logs import AnyKind, Log

T = TypeVar("T")


class _Pause:
    def __await__(self) -> Generator[Any, None, None]:
        yield


async def pause() -> None:
    """A point at which the process may lose the processor, or its life."""
    await _Pause()


@dataclass
class Marked:
    """The fields of the mark: as if by a state manager that found an empty log."""

    run: int | None = 0
    applied: int = 0
    repairs: dict[str, int] = field(default_factory=dict)


class MemoryMark(StateMark):
    """What the scripts of the mark do."""

    def __init__(self, store: MemoryStore) -> None:
        self._store = store

    @property
    def whole(self) -> bool:
        return self._store.marked.run == self._store.process

    def check(self) -> None:
        if not self.whole:
            raise StateLost("not whole")

    async def is_whole(self) -> bool:
        await pause()
        return self.whole

    def advance_now(self, sequence: int) -> None:
        if self.whole:
            self._store.marked.applied = max(self._store.marked.applied, sequence)

    async def begin(self, repair: str) -> Mark:
        await pause()
        if self.whole:
            return Mark(True)
        marked = self._store.marked
        marked.repairs[repair] = self._store.process
        return Mark(False, None if marked.run is None else marked.applied)

    async def end(self, repair: str, sequence: int) -> bool:
        await pause()
        marked = self._store.marked
        if marked.repairs.get(repair) != self._store.process:
            return False
        self._store.marked = Marked(self._store.process, max(marked.applied, sequence))
        return True


class MemoryStore(StateStore):
    """What the scripts of the state store do to Redis, without Redis. `process` numbers the Redis processes."""

    mark: MemoryMark

    def __init__(self) -> None:
        self.rows: dict[str, dict[str, str]] = {}
        self.sets: dict[str, set[str]] = {}
        self.marked = Marked()
        self.process = 0
        self.mark = MemoryMark(self)
        self.saved = self._snapshot()

    def lose_everything(self) -> None:
        """FLUSHALL, or a server that starts empty."""
        self.rows, self.sets, self.marked = {}, {}, Marked(run=None)

    def save_snapshot(self) -> None:
        self.saved = self._snapshot()

    def come_back_from_snapshot(self) -> None:
        """Another process with what was saved at some time."""
        self.rows, self.sets, self.marked = deepcopy(self.saved)
        self.process += 1

    def _snapshot(self) -> tuple[dict[str, dict[str, str]], dict[str, set[str]], Marked]:
        return deepcopy((self.rows, self.sets, self.marked))

    async def load(self, record_keys: Sequence[str], *, checked: bool = True) -> list[Stored | StateDamaged]:
        await pause()
        if checked:
            self.mark.check()
        found = [self.rows.get(key, {}) for key in record_keys]
        return [Stored(int(one.get("rev", 0)), one.get("history")) for one in found]

    async def save(
        self, records: Sequence[RecordWrite], sockets: Sequence[SocketWrite] = (), index: Index | None = None
    ) -> tuple[list[bool | StateDamaged], list[bool | StateDamaged]]:
        await pause()
        for key, members in (index.members if index else {}).items():
            self.sets.setdefault(key, set()).update(members)
        for key, entries in (index.entries if index else {}).items():
            held = self.rows.setdefault(key, {})
            for name, (version, value) in entries.items():
                if name in held and int(held[name].split(" ")[0]) > version:
                    continue
                if value is None:
                    held.pop(name, None)
                else:
                    held[name] = f"{version} {value}"
        verdicts: list[bool | StateDamaged] = []
        for record in records:
            await pause()  # a pipeline is no transaction
            known = self.rows.setdefault(record.key, {})
            quickest = int(known.get("rev", 0)) == record.expected_rev
            if quickest:
                known.update(record.fields)
            verdicts.append(quickest)
        for socket in sockets:
            known = self.rows.setdefault(socket.key, {})
            if int(known.get("version", 0)) <= socket.version:
                known.update({"version": str(socket.version), **socket.fields})
        await pause()
        return verdicts, [True] * len(sockets)

    async def entries(self, key: str) -> dict[str, str]:
        await pause()
        self.mark.check()
        return dict(self.rows.get(key, {}))

    async def raw_hashes(self, hash_keys: Sequence[str]) -> list[dict[str, str] | StateDamaged]:
        await pause()
        return [dict(self.rows.get(key, {})) for key in hash_keys]

    async def replace(self, replacements: Sequence[Replacement]) -> list[bool]:
        await pause()
        verdicts = []
        for one in replacements:
            await pause()
            known = self.rows.setdefault(one.key, {})
            verdicts.append(known.get(one.guard, "0") == one.seen)
            if verdicts[-1]:
                known.update(one.fields)
        await pause()
        return verdicts

    async def clear_unless(self, kinds: Mapping[str, str]) -> None:
        await pause()


class Broker(Bus):
    """STATUS with its one durable consumer, and what was published on the other streams."""

    def __init__(self) -> None:
        self.payloads: list[bytes] = []
        self.subjects: list[str] = []
        self.ids: set[str] = set()
        self.undelivered: list[int] = []
        self.expired: set[int] = set()
        self.unacknowledged: set[int] = set()
        self.proctors = PlanView()
        self.to_servers: list[Message] = []
        self.reconnects: dict[str, bytes] = {}
        self.timers: dict[str, bytes] = {}
        self.dead: list[bytes] = []

    async def send(self, messages: Sequence[Outgoing]) -> Sent:
        for message in messages:
            await pause()
            self.publish_now(message)
        return Sent(messages, 1, [])

    async def settle(self, sent: Sent) -> list[Outgoing]:
        await pause()
        return []

    async def publish_together(self, messages: Sequence[Outgoing]) -> None:
        await self.send(messages)

    def publish_now(self, message: Outgoing) -> None:
        """Store a message, unless its id is known."""
        if message.message_id is not None:
            if message.message_id in self.ids:
                return
            self.ids.add(message.message_id)
        match message.subject.split("."):
            case ["status", "timer", *_]:
                self.timers[message.subject] = message.payload
            case ["status", *_]:
                self.payloads.append(message.payload)
                self.subjects.append(message.subject)
                self.undelivered.append(len(self.payloads))
                self.unacknowledged.add(len(self.payloads))
            case ["reconnect", *_]:
                self.reconnects[message.subject] = message.payload
            case ["deadletter", *_]:
                self.dead.append(message.payload)
            case ["socket", "plan", _, "proctors"]:
                for event in _decoded(message.payload):
                    self.proctors.apply(event)
            case ["socket", *_]:
                self.to_servers.extend(_decoded(message.payload))
            case _:
                raise AssertionError(f"nobody listens on {message.subject}")

    def acknowledge(self, sequence: int) -> None:
        self.unacknowledged.discard(sequence)
        self.expired.discard(sequence)

    @property
    def acknowledged_up_to(self) -> int:
        """The sequence up to which everything is acknowledged."""
        return min(self.unacknowledged) - 1 if self.unacknowledged else len(self.payloads)


def _decoded(payload: bytes) -> list[Message]:
    decoded = SOCKET_CODEC.decode_batch(payload)
    assert all(isinstance(one, Message) for one in decoded), decoded
    return [one for one in decoded if isinstance(one, Message)]


class MemoryLog(StatusLog):
    """The log of a broker in memory."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker

    async def extent(self) -> Extent:
        await pause()
        acknowledged = self._broker.acknowledged_up_to
        await pause()
        last = len(self._broker.payloads)
        delivered = min(self._broker.undelivered) - 1 if self._broker.undelivered else last
        return Extent(1, last, acknowledged, delivered)

    async def read(self, first: int, last: int, plan_id: str | None = None) -> AsyncIterator[Logged]:
        for sequence in range(first, last + 1):
            if sequence % 4 == 1:
                await pause()
            yield Logged(self._broker.subjects[sequence - 1], sequence, self._broker.payloads[sequence - 1], {})

    async def set_aside(self) -> SetAside:
        await pause()
        return SetAside.by(self._broker.dead)

    async def server(self, server_id: str) -> Server:
        state = Server()
        async for stored in self.read(1, len(self._broker.payloads)):
            if stored.subject == subjects.status_server(server_id):
                state = said_of_server(state, facts_in(stored))
        return state


class After:
    """Awaitable: the end of earlier batches of the same process."""

    def __init__(self, manager: Manager, earlier: list[Batch]) -> None:
        self._manager, self._earlier = manager, earlier

    def __await__(self) -> Generator[Any, None, None]:
        while any(batch in self._manager.batches for batch in self._earlier):
            yield from pause().__await__()


class Manager:
    """A process that works on one batch at a time, completes earlier ones beside it, and may die at every step."""

    def __init__(self, broker: Broker, store: MemoryStore) -> None:
        self._broker, self._store = broker, store
        self.batches: list[Batch] = []
        self.crash()

    @property
    def idle(self) -> bool:
        """Whether the next batch may come: all that were taken are on their way."""
        return all(batch.told for batch in self.batches)

    @property
    def in_hand(self) -> set[int]:
        return {sequence for batch in self.batches for sequence in batch.sequences}

    def take(self, sequences: list[int]) -> Batch:
        """Begin with a batch, up to the first access to the world."""
        assert self.idle
        batch = Batch(sequences)
        batch.work = self._order_of_work(batch)
        self.batches.append(batch)
        self._send(batch)
        return batch

    async def _order_of_work(self, batch: Batch) -> None:
        items = [Item(version, fact) for one in batch.sequences for version, fact in facts_of(self._broker, one)]
        decided = await self._surely(lambda: self.decisions.settle(items))
        batch.settled = True
        told = await self._surely(lambda: self.telling.tell(decided))
        batch.told = True
        earlier = self.batches[: self.batches.index(batch)]
        await self.telling.complete(told, After(self, earlier))
        for sequence in batch.sequences:
            await pause()
            self._broker.acknowledge(sequence)

    async def _surely(self, step: Callable[[], Awaitable[T]]) -> T:
        while True:
            try:
                return await step()
            except StateLost:
                await self.repair.make_whole()

    def repair_at_once(self) -> None:
        """Have Redis looked at while nothing happens, and repaired."""
        work = self.repair.make_whole()
        with suppress(StopIteration):
            for _ in range(1000):
                work.send(None)
            raise AssertionError("a repair that never ends")

    def step(self, steps: int = 1, which: int = -1) -> None:
        """Go on with a batch up to the next access to the world, `steps` times."""
        for _ in range(steps):
            if not self.batches:
                return
            self._send(self.batches[which % len(self.batches)])

    def _send(self, batch: Batch) -> None:
        assert batch.work is not None
        try:
            batch.work.send(None)
        except StopIteration:
            self.batches.remove(batch)

    def finish(self) -> None:
        """Go on until everything in hand is acknowledged."""
        for _ in range(1000):
            if not self.batches:
                return
            self.step(which=0)  # the later ones wait for it
        raise AssertionError("a manager that never finishes")

    def crash(self) -> None:
        """Die and start anew, with an empty memory; what was not acknowledged comes again some time."""
        self._broker.expired.update(self._broker.unacknowledged & self.in_hand)
        for batch in self.batches:
            if batch.work is not None:
                batch.work.close()
        self.batches = []
        self.decisions = Decisions(self._store, MemoryLog(self._broker))
        self.telling = Telling(self._broker, self._store)
        self.repair = StateRepair(self._broker, self._store, MemoryLog(self._broker))
        self.learned = 0


@dataclass(eq=False)
class Batch:
    """Messages of the log that a manager has in hand, and how far it is with them."""

    sequences: list[int]
    settled: bool = False
    told: bool = False
    work: Coroutine[Any, Any, None] | None = None


def facts_of(broker: Broker, sequence: int) -> Log:
    """The facts of a message of the log with their versions."""
    decoded = STATUS_CODEC.decode_batch(broker.payloads[sequence - 1])
    return [(version_of(sequence, index), one) for index, one in enumerate(decoded) if isinstance(one, Message)]


def log_of(broker: Broker) -> dict[str, Log]:
    """The facts of the whole log by the key of the record that they are about."""
    logs: dict[str, Log] = {}
    for sequence in range(1, len(broker.payloads) + 1):
        for version, fact in facts_of(broker, sequence):
            logs.setdefault(record_key(fact), []).append((version, fact))
    return logs


def record_key(fact: Message) -> str:
    """The record that a fact is about (design, section 5)."""
    match fact:
        case ServerStatus():
            return keys.server_status(fact.server_id)
        case MobileSyncWait() | MobileSyncStatus() | MobileSyncTimeout() | Restate(aspect="mobile_sync"):
            return keys.mobile_sync(fact.plan_id, fact.examinee_id)
        case MobileSyncExtend():
            return keys.mobile_sync(fact.plan_id, fact.examinee_id)
        case Notice() | NoticeConfirmed() | Restate(aspect="notices"):
            return keys.notices(fact.plan_id, fact.examinee_id)
        case _:
            return keys.progress(PLAN, str(getattr(fact, "examinee_id")))  # noqa: B009


def kind_of(key: str) -> AnyKind:
    """The kind of the record at a key."""
    if key.startswith("SERVER"):
        return SERVER
    if key.endswith("notices"):
        return NOTICES
    return MOBILE_SYNC if key.endswith("mobile_sync") else CONNECTION


def stored_state(store: MemoryStore, key: str) -> Any:
    """The state in a record, as whoever reads its history sees it."""
    kind = kind_of(key)
    return fold(kind.read(store.rows.get(key, {}).get("history")), kind.rule)


def server_state(broker: Broker, server_id: str, up_to: int | None = None) -> Server:
    """What the log says about a server, as a whole or up to a sequence."""
    state = Server()
    for version, fact in log_of(broker).get(keys.server_status(server_id), []):
        if up_to is not None and sequence_of(version) > up_to:
            break
        state = SERVER.rule(state, version, fact).state  # type: ignore[arg-type]
    return state


def newest_words(broker: Broker) -> dict[str, ConnectionStatus]:
    """The newest word of the log about each socket."""
    newest: dict[str, ConnectionStatus] = {}
    for sequence in range(1, len(broker.payloads) + 1):
        for _, fact in facts_of(broker, sequence):
            if isinstance(fact, ConnectionStatus):
                newest[fact.socket_id] = fact
    return newest


def is_open(word: ConnectionStatus) -> bool:
    return word.status is ConnectionStatusCode.CONNECTED


def publish(broker: Broker, facts: Sequence[Message], subject: str) -> None:
    """What a socket server or a web server does: facts into the log, those that are ready together together."""
    for payload in encode_batches(facts):
        broker.publish_now(Outgoing(subject, payload))


def loss_waited_for(broker: Broker, examinee_id: str) -> int | None:
    """The loss that the reconnect watch has in hand."""
    payload = broker.reconnects.get(f"reconnect.{PLAN}.{examinee_id}")
    return None if payload is None else int(pydantic_core.from_json(payload)["lossVersion"])


def stages_timed(broker: Broker, examinee_id: str) -> set[int]:
    """The stages whose deadline is scheduled; that of a stage that came to nothing fires and changes nothing."""
    prefix = f"status.timer.{PLAN}.{examinee_id}.mobile_sync-"
    return {int(subject.removeprefix(prefix)) for subject in broker.timers if subject.startswith(prefix)}
