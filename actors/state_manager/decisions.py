"""The state manager's first half: read the records, decide by the pure rules, compare and set."""

from __future__ import annotations

import itertools
import logging
import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeGuard

from actors.runtime.store.state_store import StateStore
from actors.state_manager.places import save_places
from actors.status_log.status_log import StatusLog
from protocol.errors import StateDamaged
from protocol.log.version import floor_version
from protocol.messages.base import Message
from protocol.messages.facts import ConnectionStatus, ConnectionStatusCode, ExamineeFact, LossReason, Restate
from protocol.messages.proctor_events import Event
from protocol.records import keys
from protocol.records import kinds as records
from protocol.records.placement import VersionedMessage, record_of
from protocol.records.writes import RecordWrite, StoredRecord
from protocol.rules.connection_state import ConnectionState, server_id_of
from protocol.rules.effects import Effect
from protocol.rules.history import History, fold, insert
from protocol.rules.mobile_sync import MobileSyncState
from protocol.rules.notices import NoticesState
from protocol.rules.socket_server import ServerState

log = logging.getLogger("examwire.state_manager")

CHUNK = 512


@dataclass(slots=True)
class Decided:
    """What a batch comes to: what to tell, what to do, and what could not be processed.

    `unreadable`: restatements of records that cannot be read, which are to be written anew by the log instead.
    """

    events: list[Event] = field(default_factory=list)
    effects: list[Effect] = field(default_factory=list)
    follow_ups: list[tuple[str, Message]] = field(default_factory=list)
    damaged: list[tuple[VersionedMessage, str]] = field(default_factory=list)
    unreadable: list[Restate] = field(default_factory=list)
    connections: dict[str, ConnectionState] = field(default_factory=dict)
    mobile_syncs: dict[str, MobileSyncState] = field(default_factory=dict)
    notices: dict[str, NoticesState] = field(default_factory=dict)
    applied: int = 0
    repeated: int = 0
    late: int = 0

    def add_damage(self, key: str, items: Sequence[VersionedMessage], damage: StateDamaged | ValueError) -> None:
        """These facts about a record could not be processed."""
        for item in items:
            if isinstance(damage, ValueError):
                # Perhaps a newer process has written it: what that knows must not be lost.
                self.damaged.append((item, f"{key}: {damage}"))
            elif isinstance(item.message, Restate):
                self.unreadable.append(item.message)
            else:
                self.damaged.append((item, str(damage)))


@dataclass(slots=True)
class _Record:
    """A record at work."""

    key: str
    kind: records.RecordKind[Any, Any]
    items: list[VersionedMessage]
    rev: int = 0
    history: History[Any, Any] | None = None


class Decisions:
    """Reads, decides and writes. Raises `StateUnavailable`, rarely `BrokerUnavailable`; may be repeated at any time."""

    def __init__(self, store: StateStore, log: StatusLog) -> None:
        self._store = store
        self._log = log
        # Never a value that the record had before, not even before a Redis that lost its last writes came back.
        self._revs = itertools.count(secrets.randbits(52))
        self.floor = 0

    def raise_floor(self, sequence: int) -> None:
        """Everything up to this stream sequence is acknowledged: no fact that old can come late."""
        self.floor = max(self.floor, floor_version(sequence))

    async def settle(self, items: Sequence[VersionedMessage]) -> Decided:
        """Bring the records up to these facts; returns when they are written."""
        decided = Decided()
        for start in range(0, len(items), CHUNK):
            await self._settle(items[start : start + CHUNK], decided)
        return decided

    async def _settle(self, items: Sequence[VersionedMessage], decided: Decided) -> None:
        work = _by_record(items)
        beside = _read_beside(items)
        # Damage of a record that is only read beside the others says nothing about these facts.
        first = True
        while work:
            wanted = [record.key for record in work]
            extra = beside if first else []
            loaded = await self._store.load([*wanted, *(key for key, _ in extra)])
            self._keep_beside(extra, loaded[len(wanted) :], decided)
            writable: list[_Record] = []
            writes: list[RecordWrite] = []
            outcomes: list[_Outcome] = []
            for record, stored in zip(work, loaded, strict=False):
                try:
                    if isinstance(stored, StateDamaged):
                        raise stored
                    outcome = self._decide(record, stored)
                except (StateDamaged, ValueError) as damage:
                    decided.add_damage(record.key, record.items, damage)
                    continue
                writable.append(record)
                outcomes.append(outcome)
                if outcome.write is not None:
                    writes.append(outcome.write)
            # The index goes before the records: what is in a record can be found, whatever happens in between.
            written = await save_places(self._store, items if first else [], writes)
            verdicts = iter(written)
            conflicts: list[_Record] = []
            for record, outcome in zip(writable, outcomes, strict=True):
                verdict = next(verdicts) if outcome.write is not None else True
                if isinstance(verdict, StateDamaged):
                    decided.damaged.extend((item, str(verdict)) for item in record.items)
                elif verdict:
                    outcome.add_to(decided, record)
                else:
                    conflicts.append(record)  # another state manager was quicker: decide again
            work, first = conflicts, False
        await self._check_servers(items, decided)

    def _decide(self, record: _Record, stored: StoredRecord) -> _Outcome:
        kind = record.kind
        history = kind.read(stored.history, self.floor)
        outcome = _Outcome(key=record.key, kind=kind)
        changed = False
        for item in record.items:
            insertion = insert(history, kind.rule, item.version, item.message, kind.visible_part)
            history, outcome.state = insertion.history, insertion.state
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
            outcome.write = RecordWrite(record.key, stored.rev, fields)
        return outcome

    def _keep_beside(
        self, wanted: Sequence[tuple[str, str]], loaded: Sequence[StoredRecord | StateDamaged], decided: Decided
    ) -> None:
        for (key, examinee), stored in zip(wanted, loaded, strict=True):
            if isinstance(stored, StoredRecord):
                try:
                    if key.endswith(":notices"):
                        notices = fold(records.NOTICES.read(stored.history), records.NOTICES.rule)
                        decided.notices.setdefault(examinee, notices)
                    else:
                        picture = fold(records.MOBILE_SYNC.read(stored.history), records.MOBILE_SYNC.rule)
                        decided.mobile_syncs.setdefault(examinee, picture)
                except ValueError:
                    log.warning("%s cannot be read", key)

    async def _check_servers(self, items: Sequence[VersionedMessage], decided: Decided) -> None:
        """A CONNECTED may reach us after its server was declared gone: then nobody else would end it."""
        connected = {
            item.version: item.message
            for item in items
            if isinstance(item.message, ConnectionStatus) and item.message.status is ConnectionStatusCode.CONNECTED
        }
        holders = sorted({server_id_of(message) for message in connected.values()})
        known: dict[str, ServerState] = {}
        stored_servers = await self._store.load([keys.server_status(holder) for holder in holders])
        for holder, stored in zip(holders, stored_servers, strict=True):
            if isinstance(stored, StoredRecord):
                try:
                    known[holder] = fold(records.SERVER.read(stored.history), records.SERVER.rule)
                except ValueError as damage:  # says nothing about those who connect there
                    log.error("%s: %s", keys.server_status(holder), damage)
        asked: dict[str, ServerState] = {}
        for version, message in connected.items():
            holder = server_id_of(message)
            server = known.get(holder)
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
                decided.follow_ups.append((f"orphan:{version}", ended))


@dataclass(slots=True)
class _Outcome:
    """The decision about one record."""

    key: str
    kind: records.RecordKind[Any, Any]
    state: Any = None
    write: RecordWrite | None = None
    events: list[Event] = field(default_factory=list)
    effects: list[Effect] = field(default_factory=list)
    applied: int = 0
    repeated: int = 0
    late: int = 0
    restates: list[tuple[int, Message]] = field(default_factory=list)

    def add_to(self, decided: Decided, record: _Record) -> None:
        decided.events.extend(self.events)
        decided.effects.extend(self.effects)
        decided.applied += self.applied
        decided.repeated += self.repeated
        decided.late += self.late
        for version, late in self.restates:
            if isinstance(late, ExamineeFact) and self.kind.aspect is not None:
                restate = Restate(
                    plan_id=late.plan_id,
                    examinee_id=late.examinee_id,
                    timestamp=late.timestamp,
                    aspect=self.kind.aspect,
                )
                decided.follow_ups.append((f"restate:{version}", restate))
        if isinstance(self.state, ConnectionState):
            decided.connections[f"{self.state.plan_id} {self.state.examinee_id}"] = self.state
        elif isinstance(self.state, MobileSyncState):
            decided.mobile_syncs[f"{self.state.plan_id} {self.state.examinee_id}"] = self.state
        elif isinstance(self.state, NoticesState):
            decided.notices[f"{self.state.plan_id} {self.state.examinee_id}"] = self.state


def _by_record(items: Iterable[VersionedMessage]) -> list[_Record]:
    found: dict[str, _Record] = {}
    for item in items:
        key, kind = record_of(item.message)
        found.setdefault(key, _Record(key, kind, [])).items.append(item)
    return list(found.values())


def _asks_for_session_state(message: Message) -> TypeGuard[ConnectionStatus | Restate]:
    if isinstance(message, Restate):
        return message.aspect == "connection"
    return isinstance(message, ConnectionStatus) and message.status is ConnectionStatusCode.CONNECTED


def _read_beside(items: Iterable[VersionedMessage]) -> list[tuple[str, str]]:
    """Keys and examinees of the mobile syncs and notices that a `session_state` will speak of."""
    return [
        (key, f"{m.plan_id} {m.examinee_id}")
        for item in items
        if _asks_for_session_state(m := item.message)
        for key in (keys.mobile_sync(m.plan_id, m.examinee_id), keys.notices(m.plan_id, m.examinee_id))
    ]
