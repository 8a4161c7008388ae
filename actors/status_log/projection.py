"""Projection of the log: what Redis should hold after the facts that were replayed."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, field, replace
from typing import Any

from actors.runtime.broker.stream_state import StoredMessage
from actors.status_log.status_log import DeadLettered, LogExtent, StatusLog, facts_of
from protocol.ids import ExamineeRef
from protocol.log.version import floor_version, version_of
from protocol.messages.base import Message
from protocol.messages.codec import Malformed, parse_json
from protocol.messages.plan_facts import PlanPurged
from protocol.messages.progress import SERVERS_PART
from protocol.records import keys
from protocol.records.kinds import RecordKind
from protocol.records.placement import (
    ENDED_SOCKET_SECONDS,
    VersionedMessage,
    ends_socket,
    index_updates,
    records_of,
    socket_writes,
)
from protocol.records.writes import SocketWrite
from protocol.rules.history import History, Rule, foldable
from protocol.times import parse_time

log = logging.getLogger("examwire.log_of_record")

FACTS_PER_YIELD = 256  # then other tasks of the process get their turn


@dataclass(slots=True)
class ReplayedRecord:
    """A record as the log says it is.

    `base`: its state after the acknowledged facts; `facts`: the later ones, each with its version, and from the first
    one on that this release does not understand whole (`protocol.rules.history.foldable`); `head`: its state
    after all of them. `first`, `newest`, `newest_event`: the versions of its first fact, last fact and last event.
    `dead_lettered`: some of its facts are dead letters, so proctors were sent another state.
    """

    kind: RecordKind[Any, Any]
    about: Message | None = None
    base: Any = field(init=False)
    head: Any = field(init=False)
    facts: list[tuple[int, Message]] = field(default_factory=list)
    first: int = 0
    newest: int = 0
    newest_event: int = 0
    dead_lettered: bool = False

    def __post_init__(self) -> None:
        self.base = self.head = self.kind.state()

    def history(self, floor: int) -> History[Any, Any]:
        """Build the history of the record, with everything up to version `floor` folded into its base."""
        facts = tuple(self.facts)
        return History(
            self.base,
            min(floor, facts[0][0] - 1) if facts else floor,
            facts,
            newest_event=self.newest_event,
            first_version=self.first,
            head=self.head if facts else None,
            unknown=any(fact.has_unknown() for _, fact in facts),
        )

    def state_of(self, stored: History[Any, Any]) -> Any:
        """The state that `found` should have: after the acknowledged facts, and of the later ones those it holds."""
        held = {version for version, _ in stored.facts}
        state = self.base
        for version, fact in self.facts:
            if version <= stored.floor or version in held:
                state = self.kind.rule(state, version, fact).state
        return state


class Projection:
    """The records that Redis should hold according to the log, of one plan, of all, or of the servers.

    Example::

        projection = Projection("P001")
        await projection.follow(status_log)  # replays what was stored since the last call
        projection.records[keys.progress("P001", "E001")].head
    """

    def __init__(
        self, plan_id: str | None = None, dead_lettered: DeadLettered | None = None, *, servers_only: bool = False
    ) -> None:
        self.plan_id = plan_id
        self._servers_only = servers_only
        self._dead_lettered = dead_lettered or DeadLettered()
        self.records: dict[str, ReplayedRecord] = {}
        self.sockets: dict[str, SocketWrite] = {}
        self.members: dict[str, dict[str, int]] = {}
        self.entries: dict[str, dict[str, tuple[int, str]]] = {}
        self.extent = LogExtent(1, 0, 0, 0)
        self.messages = self.facts = self.malformed = self.newer = self.unprocessable = 0
        self.purges: dict[tuple[str, str | None], int] = {}
        """The versions of the newest purges: of a plan (with `None`), or of an examinee of it."""
        self._beyond: set[tuple[str, str]] = set()
        self._open: dict[str, ReplayedRecord] = {}
        self._facts_expired = False
        self._first_in_age = 0

    @property
    def floor(self) -> int:
        """The greatest acknowledged version: no older fact will be delivered."""
        return floor_version(self.extent.acknowledged)

    def floor_of(self, key: str) -> int:
        """Return the greatest acknowledged version of the part of the log that a key of Redis is about."""
        return floor_version(self.extent.acknowledged_of(keys.parse_key(key).plan_id))

    def goes_beyond(self, key: str) -> bool:
        """Return whether the log has facts about a record that only a newer release understands."""
        record = keys.parse_key(key)
        about = record.plan_id or record.server_id
        return bool(self._beyond) and not self._beyond.isdisjoint({(about, ""), (about, record.examinee_id)})

    @property
    def end(self) -> int:
        """The greatest version that was replayed."""
        return floor_version(self.extent.last)

    @property
    def beginning(self) -> int:
        """The smallest version from which on the log holds every fact.

        Some messages are kept for ever (the schedule of an exam in a month), and others after them have expired.
        """
        if not self._facts_expired:
            return version_of(self.extent.first)
        return version_of(self._first_in_age or self.extent.last + 1)

    async def follow(self, status: StatusLog) -> None:
        """Replay the log up to its end, from where this was before."""
        extent = await status.extent()
        first = max(self.extent.last + 1, extent.first)
        self.extent = replace(extent, last=max(extent.last, self.extent.last))
        self._settle()
        yielded_at = self.facts
        in_age_since = status.now() - extent.max_age if extent.max_age else 0.0
        # STATUS numbers its messages from the time of its creation in ms.
        self._facts_expired = extent.first / 1000 < in_age_since
        servers = status.read_part(SERVERS_PART, first, extent.last) if self._servers_only else None
        async for stored in servers or status.read(first, extent.last, self.plan_id):
            self._add(stored)
            if stored.time >= in_age_since:
                self._first_in_age = min(self._first_in_age or stored.sequence, stored.sequence)
            if self.facts - yielded_at >= FACTS_PER_YIELD:
                yielded_at = self.facts
                await asyncio.sleep(0)
        horizon = status.now() - ENDED_SOCKET_SECONDS + 3600
        for key in [
            key for key, socket in self.sockets.items() if socket.keep_seconds and _last_heartbeat(socket) < horizon
        ]:
            del self.sockets[key]  # expired in Redis, or about to

    def _settle(self) -> None:
        floor = self.floor
        for key, replayed in list(self._open.items()):
            settled = foldable(replayed.facts, sum(1 for version, _ in replayed.facts if version <= floor))
            for version, fact in replayed.facts[:settled]:
                replayed.base = replayed.kind.rule(replayed.base, version, fact).state
            del replayed.facts[:settled]
            if not replayed.facts:
                replayed.base = replayed.head
                del self._open[key]

    def _add(self, stored: StoredMessage) -> None:
        self.messages += 1
        items: list[VersionedMessage] = []
        for item in facts_of(stored):
            if isinstance(item, Malformed) and item.newer:
                self.newer += 1
                self._beyond.add((stored.subject.split(".")[2], named_examinee(item.raw)))
                continue
            if isinstance(item, Malformed):
                self.malformed += 1
                continue
            self.facts += 1
            effective = [self._fold(item.version, item.message, *record) for record in records_of(item.message)]
            if isinstance(item.message, PlanPurged):
                self._place(items)
                items = []
                self._purge(item.version, item.message)
            elif any(effective):
                items.append(item)
        self._place(items)

    def _place(self, items: list[VersionedMessage]) -> None:
        """Add the sockets and the entries of the indexes of these facts."""
        for socket in socket_writes(items):
            self.sockets[socket.key] = socket
        for item in items:
            self._index(item)

    def _purge(self, version: int, purged: PlanPurged) -> None:
        """Forget what facts up to a purge have made."""
        self.purges[purged.plan_id, purged.examinee_id] = version
        for places in (self.records, self._open, self.sockets):
            for key in [key for key in places if keys.parse_key(key).plan_id == purged.plan_id]:
                if purged.examinee_id is None or self._owner_of(key) == purged.examinee_id:
                    del places[key]
        members = [(keys.plan_examinees(purged.plan_id), purged.examinee_id)]
        if purged.examinee_id is None:
            members.append((keys.PLANS, purged.plan_id))
        for key, value in members:
            if value is None:
                self.members.pop(key, None)
            elif key in self.members:
                self.members[key].pop(value, None)
        for entries in self.entries.values():
            for name in [
                name
                for name, (_, text) in entries.items()
                if _is_of(keys.SocketEntry.decode(text).examinee, purged.plan_id, purged.examinee_id)
            ]:
                del entries[name]

    def _owner_of(self, key: str) -> str:
        socket = self.sockets.get(key)
        return socket.fields["examineeId"] if socket is not None else keys.parse_key(key).examinee_id

    def purged_up_to(self, key: str) -> int:
        """Return the version of the purge that a key of Redis was deleted by; 0: none."""
        record = keys.parse_key(key)
        if not record.plan_id:
            return 0
        of_examinee = self.purges.get((record.plan_id, record.examinee_id), 0) if record.examinee_id else 0
        return max(self.purges.get((record.plan_id, None), 0), of_examinee)

    def _fold(self, version: int, message: Message, key: str, kind: RecordKind[Any, Any]) -> bool:
        """Apply a fact to a record. Return whether it has made or found one: of others nothing is written."""
        replayed = self.records.get(key)
        if replayed is None:
            replayed = self.records[key] = ReplayedRecord(kind, message, first=version)
        replayed.dead_lettered = replayed.dead_lettered or version in self._dead_lettered
        try:
            rule: Rule[Any, Any] = kind.rule
            outcome = rule(replayed.head, version, message)
        except Exception:  # the state managers could not process it either; it went to the dead letters
            self.unprocessable += 1
            log.exception("version %d about %s cannot be processed", version, key)
            return True
        replayed.head, replayed.newest = outcome.state, version
        for event in outcome.events:
            replayed.newest_event = max(replayed.newest_event, event.version or 0)
        if version <= self.floor and not replayed.facts and not message.has_unknown():
            replayed.base = outcome.state
        else:
            replayed.facts.append((version, message))
            self._open[key] = replayed
        only_ends = replayed.first == version and ends_socket(message)
        if self.purged_up_to(key) and (replayed.head == kind.state() or only_ends):
            self.records.pop(key)
            self._open.pop(key, None)
            return False
        return True

    def _index(self, item: VersionedMessage) -> None:
        index = index_updates([item])
        for key, values in index.members.items():
            if key in (keys.PLANS, keys.SERVERS) and self.plan_id is not None and self.plan_id not in values:
                continue
            known = self.members.setdefault(key, {})
            for value in values:
                known.setdefault(value, item.version)
        for key, entries in index.entries.items():
            held = self.entries.setdefault(key, {})
            for name, (version, entry) in entries.items():
                held.pop(name, None)
                if entry is not None:
                    held[name] = version, entry


def named_examinee(raw: bytes) -> str:
    """Return the examinee that a message of a newer release names; "": none, it is about the whole plan or a server."""
    data = parse_json(raw).get("data")
    named = data.get("examineeId") if isinstance(data, dict) else None
    return named if isinstance(named, str) else ""


def _last_heartbeat(socket: SocketWrite) -> float:
    return parse_time(socket.fields["lastHeartbeat"])


def _is_of(examinee: ExamineeRef, plan_id: str, examinee_id: str | None) -> bool:
    return examinee.plan_id == plan_id and examinee_id in (None, examinee.examinee_id)
