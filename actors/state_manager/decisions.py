"""Read records, decide by the pure rules, compare and set: the first half of `actors.state_manager.order_of_work`."""

from __future__ import annotations

import asyncio
import itertools
import logging
import secrets
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, TypeGuard

from actors.runtime.store.record_cache import RecordCache, RecordCopy, read_copy
from actors.runtime.store.state_store import StateStore
from actors.state_manager.places import save_records
from actors.status_log.status_log import LogExtent, StatusLog
from protocol.broker import subjects
from protocol.errors import NewerRecord, StateDamaged
from protocol.ids import ExamineeRef
from protocol.log.partitions import PARTS, part_of
from protocol.log.version import floor_version
from protocol.messages.base import Message
from protocol.messages.facts import (
    ConnectionStatus,
    ConnectionStatusCode,
    ExamineeFact,
    Restate,
)
from protocol.messages.plan_facts import PlanFact, PlanPurged, PlanRestate
from protocol.messages.proctor_events import Event
from protocol.records import keys, kinds
from protocol.records.histories import blank_state
from protocol.records.placement import VersionedMessage, ends_socket, records_of
from protocol.records.writes import RecordWrite, StoredRecord
from protocol.rules.connection_state import ConnectionState
from protocol.rules.effects import Effect
from protocol.rules.history import StoredState, compact, fold, insert
from protocol.rules.mobile_sync import MobileSyncState
from protocol.rules.notices import NoticesState
from protocol.rules.plan_notices import PlanNoticesState
from protocol.rules.plan_state import PlanState

log = logging.getLogger("examwire.state_manager")

TURN_SECONDS = 0.02


@dataclass(slots=True)
class Decision:
    """Result of deciding a batch: events for proctors, effects, facts for the log, and facts that cannot be processed.

    `unreadable`: requests to restate a record that cannot be read; the record is written anew from the log instead.
    `newer`: facts, by version, that are left to a newer state manager, and why. `cached`, `read`: how many records were
    copies, and how many were read; `outdated`: how many copies Redis did not confirm.
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
    cached: int = 0
    read: int = 0
    outdated: int = 0

    def keep_related(self, examinee: ExamineeRef, state: StoredState) -> None:
        """Keep the state of a record that is only read, unless the facts at hand have changed it."""
        if isinstance(state, NoticesState):
            self.notices.setdefault(examinee, state)
        elif isinstance(state, PlanNoticesState):
            self.plan_notices.setdefault(examinee.plan_id, state)
        elif isinstance(state, MobileSyncState):
            self.mobile_syncs.setdefault(examinee, state)

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

    @property
    def over(self) -> bool:
        """Whether the others have not run for `TURN_SECONDS`."""
        return time.perf_counter() - self._given_at > TURN_SECONDS

    async def give_way(self) -> None:
        """Let the others run."""
        await asyncio.sleep(0)
        self._given_at = time.perf_counter()


class Decider:
    """Reads records, decides by the pure rules, writes if nobody else has written meanwhile.

    A record that this process knows is not read (`actors.runtime.store.record_cache`). Such a copy may be outdated, so
    only what Redis confirms counts: a write that compares the `rev`. Where nothing is to be written, or the copy makes
    a rule fail, the record is read and decided again.

    Raises `StateUnavailable`, rarely `BrokerUnavailable`. Every method may be repeated at any time.

    Example::

        updates = Updates.of(items)
        while updates.records:
            stored = await decider.read(updates)
            outcomes = await decider.decide(updates, stored, decision)
            updates = await decider.write(updates, stored, outcomes, decision)
    """

    def __init__(self, store: StateStore, log: StatusLog, cache: RecordCache) -> None:
        self._store = store
        self._log = log
        self._cache = cache
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

    async def read(self, updates: Updates) -> list[RecordCopy | StoredRecord | StateDamaged]:
        """Return the records, and after them the related ones; those without a copy are loaded in one round trip."""
        wanted = [*(update.key for update in updates.records), *(record.key for record in updates.related)]
        known = [self._cache.take(update.key) for update in updates.records]
        known += [self._cache.get(record.key) for record in updates.related]
        loaded = iter(await self._store.load([key for key, copy in zip(wanted, known, strict=True) if copy is None]))
        return [next(loaded) if copy is None else copy for copy in known]

    async def decide(
        self, updates: Updates, stored: Sequence[RecordCopy | StoredRecord | StateDamaged], decision: Decision
    ) -> list[tuple[RecordUpdate, Outcome]]:
        """Apply the rules to the records; facts about damaged records go into `decision` as such.

        A late fact of a long history costs milliseconds, and a backlog has many: the other tasks of the process get
        their turns, or its partitions would be given to another state manager.
        """
        outcomes = []
        for update, record in zip(updates.records, stored, strict=False):
            try:
                if isinstance(record, StateDamaged):
                    raise record
                outcomes.append((update, await self._apply(update, record)))
            except (StateDamaged, ValueError) as damage:
                if isinstance(record, RecordCopy):
                    outcomes.append((update, Outcome(update.kind, from_copy=True)))
                else:
                    decision.add_damage(update.key, update.items, damage)
        copies = sum(isinstance(record, RecordCopy) for record in stored)
        decision.cached += copies
        decision.read += len(stored) - copies
        return outcomes

    async def write(
        self,
        updates: Updates,
        stored: Sequence[RecordCopy | StoredRecord | StateDamaged],
        outcomes: Sequence[tuple[RecordUpdate, Outcome]],
        decision: Decision,
    ) -> Updates:
        """Write what has changed and add what follows to `decision`; return the records to decide again."""
        dropped = await self._after_a_purge(outcomes)
        writes = [outcome.write for _, outcome in outcomes if outcome.write is not None]
        items = [item for item in updates.items if item.version not in dropped]
        related = stored[len(updates.records) :]
        unread = {
            wanted.key: copy.rev
            for wanted, copy in zip(updates.related, related, strict=True)
            if isinstance(copy, RecordCopy)
        }
        copies = bool(unread) or any(outcome.from_copy for _, outcome in outcomes)
        # The index goes before the records: what is in a record can be found, whatever happens in between.
        saved = await save_records(self._store, items, writes, unread if copies else None)
        await self._keep_related(updates.related, related, saved.changed, decision)
        verdicts = iter(saved.records)
        again: list[RecordUpdate] = []
        for update, outcome in outcomes:
            verdict = next(verdicts) if outcome.write is not None else not outcome.from_copy
            if isinstance(verdict, StateDamaged) and not outcome.from_copy:
                decision.damaged.extend((item, str(verdict)) for item in update.items)
            elif verdict is True:
                if outcome.written is not None:
                    self._cache.keep(update.key, outcome.written)
                outcome.add_to(decision)
            else:
                again.append(update)  # another state manager was quicker, or the copy was outdated
                decision.outdated += outcome.from_copy
        return Updates(again)

    async def _keep_related(
        self,
        related: Sequence[RelatedRecord],
        stored: Sequence[RecordCopy | StoredRecord | StateDamaged],
        changed: Collection[str],
        decision: Decision,
    ) -> None:
        """Keep the related records that can be read; damage of one of them is not damage of the facts at hand."""
        outdated = [wanted.key for wanted in related if wanted.key in changed]
        decision.outdated += len(outdated)
        current = dict(zip(outdated, await self._store.load(outdated), strict=True))
        for wanted, record in zip(related, stored, strict=True):
            record = current.get(wanted.key, record)
            if isinstance(record, StoredRecord):
                try:
                    record = read_copy(wanted.kind, record, part_of(wanted.examinee.plan_id))
                except ValueError:
                    log.warning("%s cannot be read", wanted.key)
                    continue
                self._cache.keep(wanted.key, record)
            if isinstance(record, RecordCopy):
                decision.keep_related(wanted.examinee, fold(record.history, wanted.kind.rule))

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

    async def _apply(self, update: RecordUpdate, record: RecordCopy | StoredRecord) -> Outcome:
        kind, part = update.kind, part_of(update.plan_id)
        from_copy = isinstance(record, RecordCopy)
        before: Mapping[str, str] | None = None
        if isinstance(record, RecordCopy):
            history = compact(record.history, kind.rule, self.floor_of(part))
            absent = False
            if not any(isinstance(item.message, Restate | PlanRestate) for item in update.items):
                before = record.shown  # else somebody could not read the record, and all of it is written
        else:
            history = kind.read(record.history, self.floor_of(part))
            absent = record.history is None
        outcome = Outcome(kind, from_copy=from_copy)
        changed = False
        for item in update.items:
            if self._turns.over:
                await self._turns.give_way()
            insertion = insert(history, kind.rule, item.version, item.message, kind.visible_part)
            history, outcome.state = insertion.history, insertion.state
            if absent and (outcome.state == blank_state(kind.state) or _only_ends(outcome, update, item)):
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
            rev = next(self._revs)
            shown = kind.fields(outcome.state)
            fields = kind.changes(history, shown, rev, before)
            outcome.write = RecordWrite(update.key, record.rev, fields)
            outcome.written = RecordCopy(rev, history, part, len(fields["history"]), shown)
        return outcome


def _only_ends(outcome: Outcome, update: RecordUpdate, item: VersionedMessage) -> bool:
    """Return whether a fact is the end of a socket, and so were all that came before it."""
    return ends_socket(item.message) and len(outcome.ineffective) == update.items.index(item)


@dataclass(slots=True)
class Outcome:
    """The decision about one record: its new state, the write if it has changed, and what follows.

    `written`: the record as it is after the write. `from_copy`: it was not read, so only the write confirms all this.
    `ineffective`: facts about a record that does not exist, and that do not make one in a plan that was deleted
    meanwhile: they do nothing, or are the ends of its sockets.
    """

    kind: kinds.RecordKind[Any, Any]
    state: Any = None
    write: RecordWrite | None = None
    written: RecordCopy | None = None
    from_copy: bool = False
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
