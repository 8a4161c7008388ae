"""Read records, decide by the pure rules, compare and set: the first half of `actors.state_manager.order_of_work`."""

from __future__ import annotations

import asyncio
import itertools
import logging
import secrets
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, TypeGuard

from actors.runtime.store.state_store import StateStore
from actors.state_manager.places import save_records
from actors.status_log.status_log import LogExtent, StatusLog
from protocol.broker import subjects
from protocol.close_codes import CloseCode
from protocol.errors import NewerRecord, StateDamaged
from protocol.ids import ExamineeRef
from protocol.log.partitions import PARTS, part_of
from protocol.log.version import floor_version
from protocol.messages.base import Message
from protocol.messages.facts import (
    ConnectionStatus,
    ConnectionStatusCode,
    ExamineeFact,
    ExamineeFinish,
    FinishReason,
    LossReason,
    Restate,
)
from protocol.messages.plan_facts import BY_PLAN, PlanFact, PlanPurged, PlanRestate
from protocol.messages.proctor_events import Event
from protocol.records import keys, kinds
from protocol.records.placement import VersionedMessage, ends_socket, record_kind, records_of
from protocol.records.writes import RecordWrite, StoredRecord
from protocol.rules.connection_state import ConnectionState, server_id_of
from protocol.rules.effects import CloseSocket, Effect
from protocol.rules.history import fold, insert
from protocol.rules.mobile_sync import MobileSyncState
from protocol.rules.notices import NoticesState
from protocol.rules.plan_notices import PlanNoticesState
from protocol.rules.plan_state import Phase, PlanState
from protocol.rules.socket_server import ServerState
from protocol.times import parse_time

log = logging.getLogger("examwire.state_manager")

TURN_SECONDS = 0.02


@dataclass(slots=True)
class Decision:
    """Result of deciding a batch: events for proctors, effects, facts for the log, and facts that cannot be processed.

    `unreadable`: requests to restate a record that cannot be read; the record is written anew from the log instead.
    `newer`: facts, by version, that are left to a newer state manager, and why.
    """

    events: list[Event] = field(default_factory=list)
    effects: list[Effect] = field(default_factory=list)
    follow_ups: list[tuple[str, Message]] = field(default_factory=list)
    damaged: list[tuple[VersionedMessage, str]] = field(default_factory=list)
    unreadable: list[Restate | PlanRestate] = field(default_factory=list)
    newer: dict[int, str] = field(default_factory=dict)
    connections: dict[ExamineeRef, ConnectionState] = field(default_factory=dict)
    mobile_syncs: dict[ExamineeRef, MobileSyncState] = field(default_factory=dict)
    notices: dict[ExamineeRef, NoticesState] = field(default_factory=dict)
    plans: dict[str, PlanState] = field(default_factory=dict)
    plan_notices: dict[str, PlanNoticesState] = field(default_factory=dict)
    purges: list[tuple[int, PlanPurged]] = field(default_factory=list)
    applied: int = 0
    repeated: int = 0
    late: int = 0

    def add_damage(self, key: str, items: Sequence[VersionedMessage], damage: StateDamaged | ValueError) -> None:
        """Note that these facts about the record at `key` cannot be processed."""
        for item in items:
            if isinstance(damage, NewerRecord):
                self.newer[item.version] = f"{key}: {damage}"
            elif isinstance(damage, ValueError):
                self.damaged.append((item, f"{key}: {damage}"))
            elif isinstance(item.message, Restate | PlanRestate):
                self.unreadable.append(item.message)
            else:
                self.damaged.append((item, str(damage)))


@dataclass(slots=True)
class RecordUpdate:
    """A record and the facts that it is to be brought up to. `plan_id`: "" for the record of a server."""

    key: str
    kind: kinds.RecordKind[Any, Any]
    items: list[VersionedMessage]
    plan_id: str


class RelatedRecord(NamedTuple):
    """A record that is only read: of an examinee, or of the examinee's plan."""

    key: str
    kind: kinds.RecordKind[Any, Any]
    examinee: ExamineeRef


@dataclass(frozen=True, slots=True)
class Updates:
    """Records to read, decide and write in one round. What another state manager has written is left for the next one.

    `items`: the facts whose sockets and index entries are written in this round (none after the first one). `related`:
    what a `session_state` includes besides the connection.
    """

    records: Sequence[RecordUpdate]
    items: Sequence[VersionedMessage] = ()
    related: Sequence[RelatedRecord] = ()

    @classmethod
    def of(cls, items: Sequence[VersionedMessage]) -> Updates:
        """The first round: all records that these facts change."""
        updates: dict[str, RecordUpdate] = {}
        for item in items:
            for key, kind in records_of(item.message):
                update = updates.get(key)
                if update is None:
                    plan_id = item.message.plan_id if isinstance(item.message, ExamineeFact | PlanFact) else ""
                    update = updates[key] = RecordUpdate(key, kind, [], plan_id)
                update.items.append(item)
        return cls(list(updates.values()), items, _related_records(items))


class _Turns:
    """Lets other tasks of the process run while one computes for long."""

    def __init__(self) -> None:
        self._given_at = time.perf_counter()

    async def give_way(self) -> None:
        """Let the others run, if they have not for `TURN_SECONDS`."""
        if time.perf_counter() - self._given_at > TURN_SECONDS:
            await asyncio.sleep(0)
            self._given_at = time.perf_counter()


class Decider:
    """Reads records, decides by the pure rules, writes if nobody else has written meanwhile.

    Raises `StateUnavailable`, rarely `BrokerUnavailable`. Every method may be repeated at any time.

    Example::

        updates = Updates.of(items)
        while updates.records:
            stored = await decider.read(updates)
            outcomes = await decider.decide(updates, stored, decision)
            updates = await decider.write(updates, outcomes, decision)
    """

    def __init__(self, store: StateStore, log: StatusLog) -> None:
        self._store = store
        self._log = log
        # Never a value that the record had before, not even before a Redis that lost its last writes came back.
        self._revs = itertools.count(secrets.randbits(52))
        self._floors: dict[str, int] = {}
        self._turns = _Turns()

    def raise_floors(self, extent: LogExtent) -> None:
        """Note up to where everything is acknowledged, in each part of the log: no fact that old can come late."""
        for part in PARTS:
            floor = floor_version(extent.acknowledged_by_part.get(part, extent.acknowledged))
            self._floors[part] = max(self.floor_of(part), floor)

    def floor_of(self, part: str) -> int:
        """Return the version up to which all facts of a part of the log are acknowledged."""
        return self._floors.get(part, 0)

    async def read(self, updates: Updates) -> list[StoredRecord | StateDamaged]:
        """Load the records, and after them the related ones, in one round trip."""
        return await self._store.load(
            [*(update.key for update in updates.records), *(record.key for record in updates.related)]
        )

    async def decide(
        self, updates: Updates, stored: Sequence[StoredRecord | StateDamaged], decision: Decision
    ) -> list[tuple[RecordUpdate, Outcome]]:
        """Apply the rules to what was read; facts about damaged records go into `decision` as such.

        A late fact of a long history costs milliseconds, and a backlog has many: the other tasks of the process get
        their turns, or its partitions would be given to another state manager.
        """
        _keep_related(updates.related, stored[len(updates.records) :], decision)
        outcomes = []
        for update, record in zip(updates.records, stored, strict=False):
            try:
                if isinstance(record, StateDamaged):
                    raise record
                outcomes.append((update, await self._apply(update, record)))
            except (StateDamaged, ValueError) as damage:
                decision.add_damage(update.key, update.items, damage)
        return outcomes

    async def write(
        self, updates: Updates, outcomes: Sequence[tuple[RecordUpdate, Outcome]], decision: Decision
    ) -> Updates:
        """Write what has changed and add what follows to `decision`; return the records to decide again."""
        dropped = await self._after_a_purge(outcomes)
        writes = [outcome.write for _, outcome in outcomes if outcome.write is not None]
        items = [item for item in updates.items if item.version not in dropped]
        # The index goes before the records: what is in a record can be found, whatever happens in between.
        verdicts = iter((await save_records(self._store, items, writes)).records)
        conflicts: list[RecordUpdate] = []
        for update, outcome in outcomes:
            verdict = next(verdicts) if outcome.write is not None else True
            if isinstance(verdict, StateDamaged):
                decision.damaged.extend((item, str(verdict)) for item in update.items)
            elif verdict:
                outcome.add_to(decision)
            else:
                conflicts.append(update)  # another state manager was quicker: decide again
        return Updates(conflicts)

    async def _after_a_purge(self, outcomes: Sequence[tuple[RecordUpdate, Outcome]]) -> set[int]:
        """Return the facts for which nothing is written, because they are about what a purge has deleted."""
        dropped: set[int] = set()
        for update, outcome in outcomes:
            if outcome.ineffective and update.plan_id and await self._log.purged_up_to(update.plan_id):
                dropped.update(outcome.ineffective)
                outcome.drop(outcome.ineffective)
                if len(outcome.ineffective) == len(update.items):
                    outcome.write = None
        return dropped

    async def _apply(self, update: RecordUpdate, stored: StoredRecord) -> Outcome:
        kind = update.kind
        history = kind.read(stored.history, self.floor_of(part_of(update.plan_id)))
        outcome = Outcome(kind)
        changed = False
        for item in update.items:
            await self._turns.give_way()
            insertion = insert(history, kind.rule, item.version, item.message, kind.visible_part)
            history, outcome.state = insertion.history, insertion.state
            if stored.history is None and (outcome.state == kind.state() or _only_ends(outcome, update, item)):
                outcome.ineffective.append(item.version)
            outcome.events.extend(insertion.events)
            outcome.effects.extend(insertion.effects)
            changed |= insertion.changed
            outcome.applied += insertion.changed
            outcome.repeated += not insertion.changed
            outcome.late += insertion.late
            if insertion.restate:
                outcome.restates.append((item.version, item.message))
        if changed:
            fields = kind.write(history, outcome.state, next(self._revs))
            outcome.write = RecordWrite(update.key, stored.rev, fields)
        return outcome

    async def follow_connects(self, items: Sequence[VersionedMessage], decision: Decision) -> None:
        """Decide about the examinees who have connected where or when they cannot stay.

        Nobody else would end them: their server was declared gone before, or their exam was over.
        """
        connected = {
            item.version: item.message
            for item in items
            if isinstance(item.message, ConnectionStatus) and item.message.status is ConnectionStatusCode.CONNECTED
        }
        if not connected:
            return
        holders = {keys.server_status(server_id_of(message)) for message in connected.values()}
        record_keys = sorted(holders | {keys.plan(message.plan_id) for message in connected.values()})
        states = _states(record_keys, await self._store.load(record_keys))
        for version, message in connected.items():
            for key in (keys.server_status(server_id_of(message)), keys.plan(message.plan_id)):
                if isinstance(newer := states[key], NewerRecord):
                    decision.newer[version] = f"{key}: {newer}"
        connected = {version: message for version, message in connected.items() if version not in decision.newer}
        await self._end_orphans(connected, states, decision)
        _finish_late_comers(connected, states, decision)

    async def _end_orphans(
        self, connected: Mapping[int, ConnectionStatus], states: Mapping[str, Any], decision: Decision
    ) -> None:
        """Disconnect examinees whose CONNECTED came after their server was declared gone."""
        asked: dict[str, ServerState] = {}
        for version, message in connected.items():
            holder = server_id_of(message)
            server: ServerState | None = states[keys.server_status(holder)]
            if server is None or server.holds_sessions_of(message.incarnation):
                continue
            # The record may lack a STARTING that another batch is at work with. Nobody is called lost on that: the log
            # has everything that was said before this.
            if holder not in asked:
                asked[holder] = await self._log.server(holder)
            server = asked[holder]
            if not server.holds_sessions_of(message.incarnation):
                restarted = server.incarnation != message.incarnation
                reason = LossReason.SERVER_RESTARTED if restarted else LossReason.SERVER_LOST
                ended = message.model_copy(
                    update={"status": ConnectionStatusCode.DISCONNECTED, "reason": reason.value, "client_info": None}
                )
                decision.follow_ups.append((f"orphan:{version}", ended))


def _only_ends(outcome: Outcome, update: RecordUpdate, item: VersionedMessage) -> bool:
    """Return whether a fact is the end of a socket, and so were all that came before it."""
    return ends_socket(item.message) and len(outcome.ineffective) == update.items.index(item)


def _states(record_keys: Sequence[str], stored: Sequence[StoredRecord | StateDamaged]) -> dict[str, Any]:
    """Return the states of these records, by key.

    `None` stands for one that does not exist or cannot be read, a `NewerRecord` for one of a newer release.
    """
    states: dict[str, Any] = {}
    for key, record in zip(record_keys, stored, strict=True):
        kind = record_kind(keys.parse_key(key))
        assert kind is not None
        states[key] = None
        if isinstance(record, StoredRecord) and record.history is not None:
            try:
                states[key] = fold(kind.read(record.history), kind.rule)
            except NewerRecord as newer:
                states[key] = newer
            except ValueError as damage:  # says nothing about those who connect
                log.error("%s: %s", key, damage)
    return states


def _finish_late_comers(
    connected: Mapping[int, ConnectionStatus], states: Mapping[str, Any], decision: Decision
) -> None:
    """Finish examinees who connected when their exam was over; close the socket of who was finished before."""
    for version, message in connected.items():
        plan: PlanState | None = states[keys.plan(message.plan_id)]
        if plan is None or plan.phase_of(message.examinee_id, parse_time(message.timestamp)) is not Phase.OVER:
            continue
        connection = decision.connections.get(message.examinee)
        if connection is not None and connection.finished is not None:
            over = CloseSocket(server_id_of(message), message.socket_id, CloseCode.EXAM_OVER, version)
            decision.effects.append(over)
        else:
            finish = ExamineeFinish(
                plan_id=message.plan_id,
                examinee_id=message.examinee_id,
                by=BY_PLAN,
                reason=FinishReason.PLAN_ENDED,
                timestamp=message.timestamp,
            )
            decision.follow_ups.append((f"late:{version}", finish))


@dataclass(slots=True)
class Outcome:
    """The decision about one record: its new state, the write if it has changed, and what follows.

    `ineffective`: facts about a record that does not exist, and that do not make one in a plan that was deleted
    meanwhile: they do nothing, or are the ends of its sockets.
    """

    kind: kinds.RecordKind[Any, Any]
    state: Any = None
    write: RecordWrite | None = None
    events: list[Event] = field(default_factory=list)
    effects: list[Effect] = field(default_factory=list)
    applied: int = 0
    repeated: int = 0
    late: int = 0
    ineffective: list[int] = field(default_factory=list)
    restates: list[tuple[int, Message]] = field(default_factory=list)

    def drop(self, versions: Sequence[int]) -> None:
        """Leave out what follows from these facts."""
        self.events = [event for event in self.events if event.version not in versions]
        self.effects = [effect for effect in self.effects if getattr(effect, "version", None) not in versions]

    def add_to(self, decision: Decision) -> None:
        """Add what follows, once the record is written."""
        decision.events.extend(self.events)
        decision.effects.extend(self.effects)
        decision.applied += self.applied
        decision.repeated += self.repeated
        decision.late += self.late
        for version, late in self.restates:
            if isinstance(late, PlanFact):
                aspect: Literal["plan", "plan_notices"] = "plan" if self.kind is kinds.PLAN else "plan_notices"
                restatement = PlanRestate(
                    plan_id=late.plan_id, timestamp=late.timestamp, by=subjects.MANAGER, aspect=aspect
                )
                decision.follow_ups.append((f"restate:{version}", restatement))
            elif isinstance(late, ExamineeFact) and self.kind.aspect is not None:
                restate = Restate(
                    plan_id=late.plan_id,
                    examinee_id=late.examinee_id,
                    timestamp=late.timestamp,
                    aspect=self.kind.aspect,
                )
                decision.follow_ups.append((f"restate:{version}", restate))
        if isinstance(self.state, ConnectionState):
            decision.connections[ExamineeRef(self.state.plan_id, self.state.examinee_id)] = self.state
        elif isinstance(self.state, MobileSyncState):
            decision.mobile_syncs[ExamineeRef(self.state.plan_id, self.state.examinee_id)] = self.state
        elif isinstance(self.state, NoticesState):
            decision.notices[ExamineeRef(self.state.plan_id, self.state.examinee_id)] = self.state
        elif isinstance(self.state, PlanState):
            decision.plans[self.state.plan_id] = self.state
        elif isinstance(self.state, PlanNoticesState):
            decision.plan_notices[self.state.plan_id] = self.state


def _asks_for_session_state(message: Message) -> TypeGuard[ConnectionStatus | Restate]:
    if isinstance(message, Restate):
        return message.aspect == "connection"
    return isinstance(message, ConnectionStatus) and message.status is ConnectionStatusCode.CONNECTED


def _related_records(items: Iterable[VersionedMessage]) -> list[RelatedRecord]:
    """The mobile syncs and messages that a `session_state` includes; the messages to several once for each plan."""
    related: dict[str, RelatedRecord] = {}
    for item in items:
        if _asks_for_session_state(message := item.message):
            examinee = message.examinee
            for key, kind in (
                (keys.mobile_sync(*examinee), kinds.MOBILE_SYNC),
                (keys.notices(*examinee), kinds.NOTICES),
                (keys.plan_notices(examinee.plan_id), kinds.PLAN_NOTICES),
            ):
                related.setdefault(key, RelatedRecord(key, kind, examinee))
    return list(related.values())


def _keep_related(
    related: Sequence[RelatedRecord], stored: Sequence[StoredRecord | StateDamaged], decision: Decision
) -> None:
    """Keep the related records that can be read; damage of one of them is not damage of the facts at hand."""
    for wanted, record in zip(related, stored, strict=True):
        if isinstance(record, StoredRecord):
            try:
                state = fold(wanted.kind.read(record.history), wanted.kind.rule)
            except ValueError:
                log.warning("%s cannot be read", wanted.key)
                continue
            if isinstance(state, NoticesState):
                decision.notices.setdefault(wanted.examinee, state)
            elif isinstance(state, PlanNoticesState):
                decision.plan_notices.setdefault(wanted.examinee.plan_id, state)
            else:
                decision.mobile_syncs.setdefault(wanted.examinee, state)
