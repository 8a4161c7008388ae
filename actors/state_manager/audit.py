"""Comparing Redis with the log, field by field, while the system runs.

A record says itself which facts it holds, so it is compared with the fold of just these: facts in flight are no
differences. What differs is looked at again with the log replayed further, until it agrees or stays different.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

from actors.runtime.store.state_store import StateStore
from actors.status_log.projection import Projection, ReplayedRecord
from actors.status_log.status_log import StatusLog
from protocol.errors import StateDamaged
from protocol.log.version import floor_version, sequence_of
from protocol.records import keys
from protocol.records import kinds as records
from protocol.records.placement import record_kind
from protocol.rules.history import History, fold

log = logging.getLogger("examwire.state_audit")

KEYS_A_TRIP = 200
LOOKS = 4
PAUSE_SECONDS = 0.4
# Leases change these beside the log (`actors.watches.lease_watch`); of a time it is checked that it is no older.
MEASURED = frozenset({"cpuUsage", "memoryUsage", "networkStatus"})
MOVING = frozenset({"lastActiveTime"})
_RECORDS = (keys.progress, keys.mobile_sync, keys.notices)  # those of an examinee

Hash = dict[str, str] | StateDamaged


@dataclass(frozen=True, slots=True)
class Difference:
    """One field of a key that is not as the log says; `field` "" speaks of the key as a whole.

    `history.x` is a part of the state that only state managers read.
    """

    key: str
    field: str
    redis: str | None
    log: str | None


@dataclass(slots=True)
class AuditReport:
    """What was compared, and what differs. `older`: records that began before the log does, so nobody can tell.

    `in_flight`: keys with facts that are not acknowledged yet, and that did not come to rest while we looked.
    `unprocessable`: facts of the log that no rule can process (they are among the dead letters).
    """

    whole: bool
    plan_id: str | None = None
    messages: int = 0
    facts: int = 0
    records: int = 0
    sockets: int = 0
    index_entries: int = 0
    older: int = 0
    in_flight: int = 0
    unprocessable: int = 0
    differences: list[Difference] = field(default_factory=list)
    seconds: float = 0.0


@dataclass(slots=True)
class _Look:
    """One pass over some keys."""

    differences: list[Difference] = field(default_factory=list)
    unsettled: set[str] = field(default_factory=set)
    older: set[str] = field(default_factory=set)

    @property
    def again(self) -> set[str]:
        return {difference.key for difference in self.differences} | self.unsettled


class Audit:
    """Compares; changes nothing. Raises `StateUnavailable`, `BrokerUnavailable`, `ConsumerGone`."""

    def __init__(self, status: StatusLog, store: StateStore, plan_id: str | None = None) -> None:
        self._status = status
        self._store = store
        self.projection = Projection(plan_id)

    async def run(self) -> AuditReport:
        """Replay the log, compare everything, and look again at what differs."""
        began = time.monotonic()
        projection = self.projection
        await projection.follow(self._status)
        wanted: Collection[str] | None = None
        known = await self._keys()
        older: set[str] = set()
        for number in range(LOOKS):
            if number:
                await asyncio.sleep(PAUSE_SECONDS)
                await projection.follow(self._status)
            look = await self._look(known if wanted is None else wanted)
            older |= look.older
            wanted = look.again
            if not wanted:
                break
        return AuditReport(
            whole=await self._store.mark.is_whole(),
            plan_id=projection.plan_id,
            messages=projection.messages,
            facts=projection.facts,
            records=len(projection.records),
            sockets=len(projection.sockets),
            index_entries=sum(map(len, projection.members.values())) + sum(map(len, projection.entries.values())),
            older=len(older),
            in_flight=len(look.unsettled),
            unprocessable=projection.unprocessable,
            differences=sorted(look.differences, key=lambda one: (one.key, one.field)),
            seconds=time.monotonic() - began,
        )

    async def _keys(self) -> set[str]:
        """Return the keys of all records in Redis and of all records that the log implies."""
        projection = self.projection
        known = {*projection.records, *projection.sockets, *projection.members, *projection.entries}
        if projection.plan_id is not None:
            plans = {projection.plan_id}
        else:
            plans, servers = await self._members(keys.PLANS), await self._members(keys.SERVERS)
            known |= {make(server_id) for server_id in servers for make in (keys.server_status, keys.server_sockets)}
        for plan_id in plans:
            for examinee_id in await self._members(keys.plan_examinees(plan_id)):
                known |= {make(plan_id, examinee_id) for make in _RECORDS}
        return known | await self._strays()

    async def _strays(self) -> set[str]:
        """Every record in Redis, also of those whom neither the log nor the index knows."""
        one_plan = self.projection.plan_id
        patterns = [f"plan:{one_plan or '*'}:examinee:*"] + (["SERVER_ID:*:status"] if one_plan is None else [])
        try:
            found = [await self._store.raw_keys(pattern) for pattern in patterns]
        except StateDamaged as error:
            log.warning("records that only a search would find are not compared: %s", error)
            return set()
        return {key for some in found for key in some if record_kind(keys.parse_key(key)) is not None}

    async def _members(self, key: str) -> set[str]:
        (found,) = await self._store.raw_members([key])
        return set() if isinstance(found, StateDamaged) else found

    async def _look(self, wanted: Collection[str]) -> _Look:
        look = _Look()
        projection = self.projection
        record_keys = [key for key in sorted(wanted) if record_kind(keys.parse_key(key)) is not None]
        for portion in _portions(record_keys):
            hashes = await self._store.raw_hashes(portion)
            extent = await self._status.extent()  # after reading: nobody can be ahead of that
            for key, found in zip(portion, hashes, strict=True):
                self._compare_record(key, found, floor_version(extent.acknowledged), floor_version(extent.last), look)
        for portion in _portions([key for key in sorted(wanted) if key in projection.sockets]):
            for key, found in zip(portion, await self._store.raw_hashes(portion), strict=True):
                self._compare_socket(key, found, look)
        for portion in _portions([key for key in sorted(wanted) if _of_sockets(key)]):
            acknowledged = projection.floor
            hashes = await self._store.raw_hashes(portion)
            await projection.follow(self._status)  # what took an entry out before it was read is in the log by now
            for key, found in zip(portion, hashes, strict=True):
                self._compare_entries(key, found, acknowledged, look)
        for portion in _portions([key for key in sorted(wanted) if key in projection.members]):
            for key, members in zip(portion, await self._store.raw_members(portion), strict=True):
                self._compare_members(key, members, look)
                if keys.parse_key(key).kind == "plan_examinees" and isinstance(members, set):
                    look.differences += await self._nobodies(key, members - self.projection.members[key].keys())
        return look

    async def _nobodies(self, key: str, examinees: Collection[str]) -> list[Difference]:
        """Examinees of a plan of whom neither the log nor a record that holds anything knows."""
        plan_id = keys.parse_key(key).plan_id
        found = []
        for portion in _portions(sorted(examinees)):
            found_there = [
                await self._store.raw_hashes([make(plan_id, examinee_id) for examinee_id in portion])
                for make in _RECORDS
            ]
            for one, *theirs in zip(portion, *found_there, strict=True):
                if any(make(plan_id, one) in self.projection.records for make in _RECORDS):
                    continue
                if not any(isinstance(record, StateDamaged) or _holds_something(record) for record in theirs):
                    found.append(Difference(key, one, "a member", None))
        return found

    def _compare_record(self, key: str, found: Hash, acknowledged: int, last: int, look: _Look) -> None:
        """`acknowledged` and `last` are the log's after the record was read."""
        kind = record_kind(keys.parse_key(key))
        replayed = self.projection.records.get(key)
        assert kind is not None
        if isinstance(found, StateDamaged):
            look.differences.append(Difference(key, "", _damage(key, found), "a record" if replayed else None))
            return
        if "history" not in found:
            if replayed is not None and replayed.first <= self.projection.floor:
                look.differences.append(Difference(key, "", None, "a record"))
            elif replayed is not None:
                look.unsettled.add(key)
            elif found:
                look.differences.append(Difference(key, "", "not a record", None))
            return
        try:
            history = kind.read(found["history"])
        except ValueError as error:
            look.differences.append(Difference(key, "history", str(error), "a history"))
            return
        newest = max([history.floor, *(version for version, _ in history.facts)])
        if newest > last or history.floor > acknowledged:
            look.differences.append(Difference(key, "history", f"version {newest}", f"ends at {last}"))
        elif newest > self.projection.end or history.floor > self.projection.floor:
            look.unsettled.add(key)  # ahead of what we have replayed
        elif 0 < history.first_version < self.projection.beginning:
            look.older.add(key)
        elif replayed is None and (found.get("version") != "0" or fold(history, kind.rule) != kind.state()):
            look.differences.append(Difference(key, "", "a record", None))
        else:
            look.differences += _record_differences(key, kind, replayed, found, history, self.projection)

    def _compare_socket(self, key: str, found: Hash, look: _Look) -> None:
        word = self.projection.sockets[key]
        if word.version > self.projection.floor:
            look.unsettled.add(key)
        elif isinstance(found, StateDamaged) or not found:
            there = _damage(key, found) if isinstance(found, StateDamaged) else None
            look.differences.append(Difference(key, "", there, word.fields["status"]))
        elif found.get("version") != str(word.version):
            version = found.get("version", "")
            ahead = version.isascii() and version.isdigit() and word.version < int(version)
            if ahead and sequence_of(int(version)) > self.projection.extent.last:
                look.unsettled.add(key)
            else:
                look.differences.append(Difference(key, "version", version, str(word.version)))
        else:
            for name, value in word.fields.items():
                there = found.get(name)
                if (there is None or there < value) if name == "lastHeartbeat" else there != value:
                    look.differences.append(Difference(key, name, there, value))

    def _compare_entries(self, key: str, found: Hash, acknowledged: int, look: _Look) -> None:
        """Report entries of a server's sockets that are missing, and entries whose socket has ended."""
        held = self.projection.entries.get(key, {})
        for name, entry in ({} if isinstance(found, StateDamaged) else found).items():
            number, _, about = entry.partition(" ")
            plan_id = about.partition(" ")[0]
            if name in held or self.projection.plan_id not in (None, plan_id):
                continue
            at = int(number) if number.isascii() and number.isdigit() else 0
            last_word = self.projection.sockets.get(keys.socket(plan_id, name))
            if at > self.projection.end or (last_word is not None and last_word.version > acknowledged):
                look.unsettled.add(key)
            elif 0 < at < self.projection.beginning:
                look.older.add(key)
            else:
                look.differences.append(Difference(key, name, entry, None))
        for name, (version, value) in held.items():
            if version > acknowledged:
                look.unsettled.add(key)
                continue
            there = None if isinstance(found, StateDamaged) else found.get(name)
            known, _, rest = (there or "").partition(" ")
            if (
                there is None
                or not known.isdigit()
                or int(known) < version
                or (int(known) == version and rest != value)
            ):
                look.differences.append(Difference(key, name, there, f"{version} {value}"))

    def _compare_members(self, key: str, found: set[str] | StateDamaged, look: _Look) -> None:
        for value, version in self.projection.members[key].items():
            if isinstance(found, StateDamaged):
                look.differences.append(Difference(key, "", _damage(key, found), "a set"))
                return
            if value in found:
                continue
            if version > self.projection.floor:
                look.unsettled.add(key)
            else:
                look.differences.append(Difference(key, value, None, "a member"))


def _record_differences(
    key: str,
    kind: records.RecordKind[Any, Any],
    replayed: ReplayedRecord | None,
    found: dict[str, str],
    history: History[Any, Any],
    projection: Projection,
) -> Iterable[Difference]:
    in_log = {version for version, _ in replayed.facts} if replayed is not None else set[int]()
    for version, fact in history.facts:
        if version > projection.floor and version not in in_log:
            yield Difference(key, "history", f"{fact.type} at {version}", None)
    state = replayed.state_of(history) if replayed is not None else kind.state()
    folded = fold(replace(history, head=None), kind.rule)
    for name in (state_field.name for state_field in fields(state)):
        there, right = getattr(folded, name), getattr(state, name)
        if there != right:
            yield Difference(key, f"history.{name}", _text(there), _text(right))
    for name, value in kind.fields(state).items():
        there = found.get(name)
        if name in MEASURED:
            continue
        if (there is None or there < value) if name in MOVING else there != value:
            yield Difference(key, name, there, value)


def _of_sockets(key: str) -> bool:
    """Return whether what a server holds lies there."""
    return keys.parse_key(key).kind == "server_sockets"


def _holds_something(record: dict[str, str]) -> bool:
    """Return whether a fact has ever had an effect on a record."""
    return record.get("version", "0") not in ("", "0")


def _portions(wanted: Sequence[str]) -> Iterable[Sequence[str]]:
    return (wanted[start : start + KEYS_A_TRIP] for start in range(0, len(wanted), KEYS_A_TRIP))


def _damage(key: str, damage: StateDamaged) -> str:
    """Return the text of a damage without its key: the report shows the key beside it."""
    return str(damage).removeprefix(f"{key}: ")


def _text(value: Any) -> str | None:
    return None if value is None else str(value)
