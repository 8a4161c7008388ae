"""Compare Redis with the log, field by field, while the system runs.

A record lists the facts that it holds, and is compared with the fold of these facts. So facts that are still being
processed are no differences. Keys that differ are compared again after the log is replayed further, up to `PASSES`
times.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

from actors.runtime.store.state_store import StateStore
from actors.runtime.telemetry.progress import Progress, no_progress
from actors.status_log.projection import Projection, ReplayedRecord
from actors.status_log.status_log import StatusLog
from protocol.errors import NewerRecord, StateDamaged
from protocol.log.gap import LogGap, covering
from protocol.log.version import floor_version, sequence_of
from protocol.records import keys, kinds
from protocol.records.placement import record_kind
from protocol.rules.history import History, fold

log = logging.getLogger("examwire.state_audit")

KEYS_A_TRIP = 200
PASSES = 4
PAUSE_SECONDS = 0.4
# The lease watch writes these fields, not the log: measured values are not compared, and times may only be newer.
MEASURED = frozenset({"cpuUsage", "memoryUsage", "networkStatus"})
MOVING = frozenset({"lastActiveTime"})
_RECORDS = (keys.progress, keys.mobile_sync, keys.notices)  # an examinee has one of each
_PLAN_RECORDS = (keys.plan, keys.plan_notices)  # a plan has one of each

Hash = dict[str, str] | StateDamaged


@dataclass(frozen=True, slots=True)
class Difference:
    """A field of a key in Redis that differs from the log. `field` is "" when the whole key differs.

    `history.x` is a field of the state inside a record's history, which only state managers read.
    """

    key: str
    field: str
    redis: str | None
    log: str | None


def changed_keys(differences: Iterable[Difference]) -> set[str]:
    """Return the keys of the records and sockets that are other ones when these differences are gone.

    The entries of an index are part of what is kept about their examinees and sockets.
    """
    changed: set[str] = set()
    for difference in differences:
        record = keys.parse_key(difference.key)
        if record.kind == "plan_examinees" and difference.field:
            changed |= {make(record.plan_id, difference.field) for make in _RECORDS}
        elif record.kind == "server_sockets" and difference.field:
            _, plan_id, *_ = (*(difference.log or difference.redis or "").split(" "), "", "")  # whatever lies there
            changed.add(keys.socket(plan_id, difference.field))
        else:
            changed.add(difference.key)
    return changed


@dataclass(slots=True)
class AuditReport:
    """Result of comparing Redis with the log.

    `older`: records that began before the first message of the log and cannot be compared. `kept`: keys that hold facts
    which the log has lost (`protocol.log.gap`), and cannot be compared either. `newer`: records that only a newer
    release can compare: it has written them, or facts about them. `in_flight`: keys with facts that were
    still not acknowledged in the last pass. `unprocessable`: facts that no rule can process (they are dead letters).
    """

    whole: bool
    plan_id: str | None = None
    messages: int = 0
    facts: int = 0
    records: int = 0
    sockets: int = 0
    index_entries: int = 0
    older: int = 0
    kept: int = 0
    newer: int = 0
    in_flight: int = 0
    unprocessable: int = 0
    differences: list[Difference] = field(default_factory=list)
    seconds: float = 0.0


@dataclass(slots=True)
class _Pass:
    """Result of comparing keys once."""

    differences: list[Difference] = field(default_factory=list)
    unsettled: set[str] = field(default_factory=set)
    older: set[str] = field(default_factory=set)
    kept: set[str] = field(default_factory=set)
    newer: set[str] = field(default_factory=set)

    @property
    def to_compare_again(self) -> set[str]:
        return {difference.key for difference in self.differences} | self.unsettled


class Audit:
    """Compares Redis with the log, and changes nothing.

    Raises `StateUnavailable`, `BrokerUnavailable`, `ConsumerGone`.

    Example::

        report = await Audit(status_log, store, "P001").run()
        for difference in report.differences:
            print(difference.key, difference.field, difference.redis, difference.log)
    """

    def __init__(
        self,
        status: StatusLog,
        store: StateStore,
        plan_id: str | None = None,
        *,
        progress: Progress = no_progress,
    ) -> None:
        self._status = status
        self._store = store
        self._progress = progress
        self.projection = Projection(plan_id)
        self._gaps: list[LogGap] = []

    async def run(self) -> AuditReport:
        """Replay the log, compare everything, and compare again what differs."""
        began = time.monotonic()
        projection = self.projection
        await projection.follow(self._status)
        compared: Collection[str] = await self._keys()
        older: set[str] = set()
        kept: set[str] = set()
        newer: set[str] = set()
        self._gaps = await self._status.gaps()
        for number in range(PASSES):
            if number:
                await asyncio.sleep(PAUSE_SECONDS)
                await projection.follow(self._status)
            result = await self._compare(compared)
            older |= result.older
            kept |= result.kept
            newer |= result.newer
            compared = result.to_compare_again
            if not compared:
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
            kept=len(kept),
            newer=len(newer),
            in_flight=len(result.unsettled),
            unprocessable=projection.unprocessable,
            differences=sorted(result.differences, key=lambda difference: (difference.key, difference.field)),
            seconds=time.monotonic() - began,
        )

    async def _keys(self) -> set[str]:
        """Return the keys of all records in Redis and of all records that the log implies."""
        projection = self.projection
        record_keys = {*projection.records, *projection.sockets, *projection.members, *projection.entries}
        if projection.plan_id is not None:
            plans = {projection.plan_id}
        else:
            plans, servers = await self._members(keys.PLANS), await self._members(keys.SERVERS)
            record_keys |= {
                make(server_id) for server_id in servers for make in (keys.server_status, keys.server_sockets)
            }
        for plan_id in plans:
            record_keys |= {make(plan_id) for make in _PLAN_RECORDS}
            for examinee_id in await self._members(keys.plan_examinees(plan_id)):
                record_keys |= {make(plan_id, examinee_id) for make in _RECORDS}
        return record_keys | await self._found_by_search()

    async def _found_by_search(self) -> set[str]:
        """Return the keys of all records in Redis, also of those that neither the log nor an index has."""
        one_plan = self.projection.plan_id
        patterns = ["plan:*", "SERVER_ID:*:status"] if one_plan is None else [f"plan:{one_plan}:*"]
        try:
            matches = [await self._store.raw_keys(pattern) for pattern in patterns]
        except StateDamaged as error:
            log.warning("records that are in no index are not compared, because searching for them failed: %s", error)
            return set()
        return {key for found_keys in matches for key in found_keys if record_kind(keys.parse_key(key)) is not None}

    async def _members(self, key: str) -> set[str]:
        (members,) = await self._store.raw_members([key])
        return set() if isinstance(members, StateDamaged) else members

    async def _compare(self, compared: Collection[str]) -> _Pass:
        """Compare these keys of Redis with the log."""
        result = _Pass()
        projection = self.projection
        record_keys = [key for key in sorted(compared) if record_kind(keys.parse_key(key)) is not None]
        for number, portion in enumerate(_portions(record_keys)):
            self._progress("comparing records", number * KEYS_A_TRIP, len(record_keys))
            hashes = await self._store.raw_hashes(portion)
            extent = await self._status.extent()  # read after the records: none of them can be ahead of it
            for key, stored_hash in zip(portion, hashes, strict=True):
                acknowledged = floor_version(extent.acknowledged_of(keys.parse_key(key).plan_id))
                self._compare_record(key, stored_hash, acknowledged, floor_version(extent.last), result)
        self._progress("comparing records", len(record_keys), len(record_keys))
        for portion in _portions([key for key in sorted(compared) if key in projection.sockets]):
            for key, stored_hash in zip(portion, await self._store.raw_hashes(portion), strict=True):
                self._compare_socket(key, stored_hash, result)
        for portion in _portions([key for key in sorted(compared) if keys.parse_key(key).kind == "server_sockets"]):
            acknowledged = projection.floor
            hashes = await self._store.raw_hashes(portion)
            await projection.follow(self._status)  # now it has every fact that had removed an entry before we read
            for key, stored_hash in zip(portion, hashes, strict=True):
                self._compare_entries(key, stored_hash, acknowledged, result)
        for portion in _portions([key for key in sorted(compared) if key in projection.members]):
            for key, members in zip(portion, await self._store.raw_members(portion), strict=True):
                self._compare_members(key, members, result)
                if keys.parse_key(key).kind == "plan_examinees" and isinstance(members, set):
                    result.differences += await self._unknown_examinees(
                        key, members - self.projection.members[key].keys()
                    )
        return result

    async def _unknown_examinees(self, key: str, examinees: Collection[str]) -> list[Difference]:
        """Return a difference for each examinee of a plan who has neither a fact in the log nor a record in Redis."""
        plan_id = keys.parse_key(key).plan_id
        differences = []
        for portion in _portions(sorted(examinees)):
            hashes_by_kind = [
                await self._store.raw_hashes([make(plan_id, examinee_id) for examinee_id in portion])
                for make in _RECORDS
            ]
            for examinee_id, *hashes in zip(portion, *hashes_by_kind, strict=True):
                if any(make(plan_id, examinee_id) in self.projection.records for make in _RECORDS):
                    continue
                if not any(isinstance(hash_, StateDamaged) or _has_had_effect(hash_) for hash_ in hashes):
                    differences.append(Difference(key, examinee_id, "a member", None))
        return differences

    def _compare_record(self, key: str, stored_hash: Hash, acknowledged: int, last: int, result: _Pass) -> None:
        """Compare a record. `acknowledged`, `last`: versions of the log, read after the record."""
        kind = record_kind(keys.parse_key(key))
        replayed = self.projection.records.get(key)
        assert kind is not None
        if isinstance(stored_hash, StateDamaged):
            result.differences.append(Difference(key, "", _damage(key, stored_hash), "a record" if replayed else None))
            return
        if "history" not in stored_hash:
            if replayed is not None and self._may_have_changed_in_a_gap(replayed.newest):
                result.kept.add(key)  # deleted by a purge that is in the gap
            elif replayed is not None and replayed.head == kind.state():
                pass  # no fact has had an effect: such a record need not exist
            elif replayed is not None and replayed.first <= self.projection.floor_of(key):
                result.differences.append(Difference(key, "", None, "a record"))
            elif replayed is not None:
                result.unsettled.add(key)
            elif stored_hash:
                result.differences.append(Difference(key, "", "not a record", None))
            return
        floor = self.projection.floor_of(key)
        try:
            history = kind.read(stored_hash["history"])
        except NewerRecord:
            result.newer.add(key)
            return
        except ValueError as error:
            result.differences.append(Difference(key, "history", str(error), "a history"))
            return
        newest = max([history.floor, *(version for version, _ in history.facts)])
        if newest > last or history.floor > acknowledged:
            result.differences.append(Difference(key, "history", f"version {newest}", f"ends at {last}"))
        elif newest > self.projection.end or history.floor > floor:
            result.unsettled.add(key)  # newer than what is replayed
        elif history.first_version <= (purged := self.projection.purged_up_to(key)) and purged > floor:
            result.unsettled.add(key)  # about to be deleted
        elif history.kept:
            result.kept.add(key)
        elif self.projection.goes_beyond(key):
            result.newer.add(key)
        elif 0 < history.first_version < self.projection.beginning:
            result.older.add(key)
        elif replayed is None and (stored_hash.get("version") != "0" or fold(history, kind.rule) != kind.state()):
            result.differences.append(Difference(key, "", "a record", None))
        else:
            result.differences += _record_differences(key, kind, replayed, stored_hash, history, self.projection)

    def _compare_socket(self, key: str, stored_hash: Hash, result: _Pass) -> None:
        socket = self.projection.sockets[key]
        if socket.version > self.projection.floor_of(key):
            result.unsettled.add(key)
        elif self._may_have_changed_in_a_gap(socket.version) and not _is_socket_at(stored_hash, socket.version):
            result.kept.add(key)
        elif isinstance(stored_hash, StateDamaged) or not stored_hash:
            damage = _damage(key, stored_hash) if isinstance(stored_hash, StateDamaged) else None
            result.differences.append(Difference(key, "", damage, socket.fields["status"]))
        elif stored_hash.get("version") != str(socket.version):
            version = stored_hash.get("version", "")
            ahead = version.isascii() and version.isdigit() and socket.version < int(version)
            if ahead and sequence_of(int(version)) > self.projection.extent.last:
                result.unsettled.add(key)
            else:
                result.differences.append(Difference(key, "version", version, str(socket.version)))
        else:
            for name, value in socket.fields.items():
                stored = stored_hash.get(name)
                if (stored is None or stored < value) if name == "lastHeartbeat" else stored != value:
                    result.differences.append(Difference(key, name, stored, value))

    def _compare_entries(self, key: str, stored_hash: Hash, acknowledged: int, result: _Pass) -> None:
        """Report entries of a server's sockets that are missing, and entries whose socket has ended."""
        logged = self.projection.entries.get(key, {})
        for name, entry in ({} if isinstance(stored_hash, StateDamaged) else stored_hash).items():
            number, _, ids = entry.partition(" ")
            plan_id, examinee_id, *_ = (*ids.split(" "), "", "")  # whatever lies there
            if name in logged or self.projection.plan_id not in (None, plan_id):
                continue
            version = int(number) if number.isascii() and number.isdigit() else 0
            last_write = self.projection.sockets.get(keys.socket(plan_id, name))
            purged = self.projection.purged_up_to(keys.progress(plan_id, examinee_id))
            if version > self.projection.end or (last_write is not None and last_write.version > acknowledged):
                result.unsettled.add(key)
            elif version <= purged and purged > acknowledged:
                result.unsettled.add(key)  # about to be deleted
            elif covering(self._gaps, version) is not None:
                result.kept.add(key)
            elif 0 < version < self.projection.beginning:
                result.older.add(key)
            else:
                result.differences.append(Difference(key, name, entry, None))
        for name, (version, value) in logged.items():
            if version > acknowledged:
                result.unsettled.add(key)
                continue
            stored = None if isinstance(stored_hash, StateDamaged) else stored_hash.get(name)
            number, _, ids = (stored or "").partition(" ")
            if stored is None and self._may_have_changed_in_a_gap(version):
                result.kept.add(key)
            elif (
                stored is None
                or not number.isdigit()
                or int(number) < version
                or (int(number) == version and ids != value)
            ):
                result.differences.append(Difference(key, name, stored, f"{version} {value}"))

    def _may_have_changed_in_a_gap(self, version: int) -> bool:
        """Return whether a gap comes after a version: what has changed what it made may be missing in the log."""
        return any(version <= floor_version(gap.after) for gap in self._gaps)

    def _compare_members(self, key: str, stored_members: set[str] | StateDamaged, result: _Pass) -> None:
        for value, version in self.projection.members[key].items():
            if isinstance(stored_members, StateDamaged):
                result.differences.append(Difference(key, "", _damage(key, stored_members), "a set"))
                return
            if value in stored_members:
                continue
            if version > self.projection.floor:
                result.unsettled.add(key)
            elif self._may_have_changed_in_a_gap(version):
                result.kept.add(key)  # deleted by a purge that is in the gap
            else:
                result.differences.append(Difference(key, value, None, "a member"))


def _record_differences(
    key: str,
    kind: kinds.RecordKind[Any, Any],
    replayed: ReplayedRecord | None,
    stored_hash: dict[str, str],
    history: History[Any, Any],
    projection: Projection,
) -> Iterable[Difference]:
    in_log = {version for version, _ in replayed.facts} if replayed is not None else set[int]()
    for version, fact in history.facts:
        if version > projection.floor and version not in in_log:
            yield Difference(key, "history", f"{fact.type} at {version}", None)
    state = replayed.state_of(history) if replayed is not None else kind.state()
    folded = fold(replace(history, head=None), kind.rule)
    for name in (state_field.name for state_field in fields(state) if state_field.compare):
        stored_value, logged_value = getattr(folded, name), getattr(state, name)
        if stored_value != logged_value:
            yield Difference(key, f"history.{name}", _text(stored_value), _text(logged_value))
    if history.facts and history.head is None:
        return  # an older release wrote it last, and not what only this one knows: the next fact does
    without_facts = kind.fields(kind.state())
    for name, value in kind.fields(state).items():
        stored = stored_hash.get(name)
        if name in MEASURED or (stored is None and value == without_facts[name]):
            continue  # the latter: an older release does not know the field
        if (stored is None or stored < value) if name in MOVING else stored != value:
            yield Difference(key, name, stored, value)


def _is_socket_at(stored_hash: Hash, version: int) -> bool:
    return isinstance(stored_hash, dict) and stored_hash.get("version") == str(version)


def _has_had_effect(record: dict[str, str]) -> bool:
    """Return whether any fact has had an effect on a record."""
    return record.get("version", "0") not in ("", "0")


def _portions(items: Sequence[str]) -> Iterable[Sequence[str]]:
    return (items[start : start + KEYS_A_TRIP] for start in range(0, len(items), KEYS_A_TRIP))


def _damage(key: str, damage: StateDamaged) -> str:
    """Return the text of a damage without its key, which the report shows in its own column."""
    return str(damage).removeprefix(f"{key}: ")


def _text(value: Any) -> str | None:
    return None if value is None else str(value)
