"""Restore Redis from the log: all of it after it was emptied, replaced or set back, or single damaged records.

Several processes may do this at once, beside the state managers, and again after a crash: a record is replaced only if
nobody has written it meanwhile, and facts are ordered by version. No event is published: those of acknowledged facts
were published before, and the other facts are delivered again, which completes their effects. A fact that had become a
dead letter is in the record now and no event was published for it, so the examinee's state is published again.
"""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from prometheus_client import Counter

from actors.runtime.broker.connection import Bus, Outgoing
from actors.runtime.store.state_store import StateStore
from actors.runtime.telemetry.metrics import REGISTRY
from actors.state_manager.places import save_records
from actors.state_manager.recovery.audit import Difference
from actors.state_manager.recovery.purge import PlanPurge, Purge, unchanged
from actors.state_manager.recovery.restored_record import (
    holds,
    in_flight,
    lease_fields,
    read_history,
    restored_history,
    with_facts,
)
from actors.status_log.projection import Projection, ReplayedRecord
from actors.status_log.status_log import DeadLettered, LogExtent, StatusLog, facts_of
from protocol.broker import subjects
from protocol.errors import NotPermitted, StateDamaged
from protocol.ids import RecordRef
from protocol.log.version import floor_version
from protocol.messages.facts import ConnectionStatusCode, Restate
from protocol.messages.plan_facts import PlanPurged, PlanRestate
from protocol.records import keys
from protocol.records.kinds import RecordKind
from protocol.records.placement import VersionedMessage, record_kind, record_of, records_of, restate_fact
from protocol.records.writes import Guard, GuardedWrite, Index, SocketWrite
from protocol.rules.history import History, fold
from protocol.times import format_time

log = logging.getLogger("examwire.state_repair")

REPAIRS = Counter(
    "examwire_state_repairs_total",
    "Times that Redis was repaired from the log: it was new, restarted, emptied or replaced",
    ["found"],
    registry=REGISTRY,
)
# At 0 from the start: a counter that begins with 1 has not increased.
for _found in ("new", "restarted", "lost", "replaced"):
    REPAIRS.labels(_found)

RECORDS_A_TRIP = 200
FACTS_AT_ONCE = 2000


@dataclass(slots=True)
class Repair:
    """Result of a repair. `restated`: records of examinees and plans whose state is published again.

    `found`: `whole`; `new`, nothing was ever in Redis; `restarted`, a process that holds all it was given; `replaced`,
    one that does not: `missing` facts were not in, although they had been; `lost`, one that holds nothing.
    """

    found: str
    messages: int = 0
    records: int = 0
    restated: int = 0
    missing: int = 0
    seconds: float = 0.0

    @property
    def alarming(self) -> bool:
        """Whether Redis had lost something; an ordinary restart has not."""
        return self.found in ("lost", "replaced")


class StateRepair:
    """Repairs Redis. Raises `StateUnavailable`, `BrokerUnavailable`, `ConsumerGone`; may be repeated at any time."""

    def __init__(self, bus: Bus, store: StateStore, status: StatusLog | None = None) -> None:
        self._bus = bus
        self._store = store
        self._status = status or StatusLog(bus)
        self._purge = PlanPurge(store)

    async def restore_state(self) -> Repair:
        """Restore Redis if it is not whole. Until this is done nobody reads from it."""
        began = time.monotonic()
        repair = Repair("whole")
        while True:
            name = secrets.token_hex(8)
            mark = await self._store.mark.begin(name)
            if mark.whole:
                break
            if mark.applied is None:
                last = await self._rebuild(repair)
            else:
                last = await self._catch_up(mark.applied, repair)
            if await self._store.mark.end(name, last):
                REPAIRS.labels(repair.found).inc()
                break
            # Emptied or replaced in the middle of it; or somebody else was quicker, then the next look says so.
        repair.seconds = time.monotonic() - began
        return repair

    async def correct(self, projection: Projection, differences: Sequence[Difference]) -> Repair:
        """Write the keys that an audit found to differ from the log, each as a whole."""
        began = time.monotonic()
        repair = Repair("whole")
        differing = {difference.key for difference in differences}
        members = {key: values for key, values in projection.members.items() if key in differing}
        entries = {key: values for key, values in projection.entries.items() if key in differing}
        await self._restore_index(members, entries)
        stale = Index()
        for difference in differences:
            if (
                keys.parse_key(difference.key).kind == "server_sockets"
                and difference.log is None
                and difference.redis is not None
            ):
                version = difference.redis.partition(" ")[0]
                stale.set_entry(difference.key, difference.field, int(version) if version.isdecimal() else 0, None)
        await self._store.save([], [], stale)
        nobodies: dict[str, list[str]] = {}
        for difference in differences:
            if difference.key in members and difference.log is None and difference.field:
                nobodies.setdefault(difference.key, []).append(difference.field)
        await self._store.remove_members(nobodies)
        await self._replace_sockets([projection.sockets[key] for key in sorted(differing & projection.sockets.keys())])
        unknown = {key: kind for key in differing if (kind := record_kind(keys.parse_key(key))) is not None}
        await self._restore(projection, unknown, repair, force=True)
        repair.seconds = time.monotonic() - began
        return repair

    async def rewrite_records(self, asked: Sequence[Restate | PlanRestate]) -> Repair:
        """Write unreadable records anew from the log, and have their states published again."""
        repair = Repair("whole")
        for plan_id in sorted({fact.plan_id for fact in asked}):
            projection = Projection(plan_id)
            await projection.follow(self._status)
            kinds = dict(record_of(fact) for fact in asked if fact.plan_id == plan_id)
            await self._restore(projection, kinds, repair)
        return repair

    async def rewrite_index(self, record: RecordRef) -> None:
        """Write the index at a key anew from the log, if something else lies in its place."""
        projection = Projection(record.plan_id if record.kind == "plan_examinees" else None)
        await projection.follow(self._status)
        key = record.key
        await self._store.delete_wrong_types({key: "hash" if record.kind == "server_sockets" else "set"})
        members = {key: projection.members[key]} if key in projection.members else {}
        await self._restore_index(members, {key: projection.entries[key]} if key in projection.entries else {})

    # -- nothing is known: everything by the log --------------------------------------------------------

    async def _rebuild(self, repair: Repair) -> int:
        projection = Projection(dead_lettered=await self._dead_lettered())
        await projection.follow(self._status)
        # At the very first start the socket servers may have spoken before a state manager runs: nothing was lost then.
        lost = projection.messages > 0 and projection.extent.acknowledged >= projection.extent.first
        repair.found = "lost" if lost else "new"
        repair.messages += projection.messages
        if lost:
            log.error("Redis has lost its state: writing %d records from the log", len(projection.records))
        # As in the state manager the index goes before the records: what is in a record can be found.
        await self._restore_index(projection.members, projection.entries)
        await self._restore_sockets(projection)
        kinds = {key: replayed.kind for key, replayed in projection.records.items()}
        await self._restore(projection, kinds, repair, watch=True)
        for (plan_id, examinee_id), version in projection.purges.items():
            await self._purge.delete(Purge(plan_id, examinee_id, version))
        return projection.extent.last

    async def _restore_index(
        self, members: Mapping[str, Mapping[str, int]], entries: Mapping[str, Mapping[str, tuple[int, str]]]
    ) -> None:
        """Write what is missing; what is newer there stays."""
        await self._store.delete_wrong_types(dict.fromkeys(members, "set"))
        await self._store.delete_wrong_types(dict.fromkeys(entries, "hash"))
        for key, values in members.items():
            await self._store.save([], [], Index(members={key: set(values)}))
        for key, held in entries.items():
            await self._store.save([], [], Index(entries={key: {name: (*entry,) for name, entry in held.items()}}))
            await self._take_back(key, held)

    async def _take_back(self, key: str, held: Mapping[str, tuple[int, str]]) -> None:
        """Take out entries of sockets that have ended while the log was being replayed."""
        names = sorted(held)
        for start in range(0, len(names), RECORDS_A_TRIP):
            portion = names[start : start + RECORDS_A_TRIP]
            socket_keys = [
                keys.socket(keys.SocketEntry.decode(held[name][1]).examinee.plan_id, name) for name in portion
            ]
            ended = Index()
            for name, socket in zip(portion, await self._store.raw_hashes(socket_keys), strict=True):
                if isinstance(socket, StateDamaged) or socket.get("status") != ConnectionStatusCode.DISCONNECTED:
                    continue
                if int(socket.get("version", "0")) > held[name][0]:
                    ended.set_entry(key, name, held[name][0], None)
            if ended.entries:
                await self._store.save([], [], ended)

    async def _replace_sockets(self, sockets: Sequence[SocketWrite]) -> None:
        for start in range(0, len(sockets), RECORDS_A_TRIP):
            portion = sockets[start : start + RECORDS_A_TRIP]
            replacements = []
            for socket, stored in zip(
                portion, await self._store.raw_hashes([socket.key for socket in portion]), strict=True
            ):
                known = {} if isinstance(stored, StateDamaged) else stored
                last_heartbeat = max(socket.fields["lastHeartbeat"], known.get("lastHeartbeat", ""))
                written = {**socket.fields, "lastHeartbeat": last_heartbeat, "version": str(socket.version)}
                version = known.get("version", "0")
                replacements.append(GuardedWrite(socket.key, "version", version, written, socket.keep_seconds))
            await self._store.replace(replacements)  # whoever was quicker has newer words

    async def _restore_sockets(self, projection: Projection) -> None:
        sockets = list(projection.sockets.values())
        for start in range(0, len(sockets), RECORDS_A_TRIP):
            portion = sockets[start : start + RECORDS_A_TRIP]
            _, written = await self._store.save([], portion)
            damaged = [
                socket.key
                for socket, verdict in zip(portion, written, strict=True)
                if isinstance(verdict, StateDamaged)
            ]
            if damaged:
                await self._store.delete_wrong_types(dict.fromkeys(damaged, "hash"))
                await self._store.save([], [socket for socket in portion if socket.key in damaged])

    async def _restore(
        self,
        projection: Projection,
        kinds: Mapping[str, RecordKind[Any, Any]],
        repair: Repair,
        *,
        force: bool = False,
        watch: bool = False,
    ) -> None:
        """Write these records where they differ; with `force` also those that differ only in what others read."""
        remaining = sorted(kinds)
        while remaining:
            portion, remaining = remaining[:RECORDS_A_TRIP], remaining[RECORDS_A_TRIP:]
            if watch and await self._store.mark.is_whole():
                return  # somebody else was quicker
            stored = dict(zip(portion, await self._store.raw_hashes(portion), strict=True))
            histories: dict[str, History[Any, Any]] = {}
            deleted: list[Guard] = []
            for key in portion:
                by_log = projection.records.get(key) or ReplayedRecord(kinds[key])
                stored_history = read_history(kinds[key], key, stored[key])
                wanted_history = restored_history(by_log, stored_history, projection)
                if (
                    key not in projection.records
                    and wanted_history is not None
                    and not wanted_history.facts
                    and _is_empty(wanted_history, kinds[key])
                ):
                    if stored[key]:
                        deleted.append(unchanged(key, stored[key]))
                    continue
                if wanted_history is not None and stored_history is None and (stored[key] or by_log.dead_lettered):
                    # Facts that came while it could not be read are dead letters: no event was published for them.
                    wanted_history = replace(wanted_history, restatement_due=True)
                if wanted_history is not None and (force or wanted_history != stored_history):
                    histories[key] = wanted_history
                elif stored_history is not None and stored_history.restatement_due:
                    histories[key] = stored_history  # written before, by one who died before it was restated
            remaining += await self._write(histories, kinds, stored, repair)
            verdicts = await self._store.delete_unchanged(deleted)
            remaining += [guard.key for guard, done in zip(deleted, verdicts, strict=True) if not done]
            repair.records += sum(verdicts)
            await self._restate({key: histories[key] for key in histories if key in projection.records}, repair)

    # -- something is known: what came after it ---------------------------------------------------------

    async def _catch_up(self, applied: int, repair: Repair) -> int:
        extent = await self._status.extent()
        log.info("Redis was restarted or replaced: applying STATUS from %d to %d", applied + 1, extent.last)
        dead_lettered = await self._dead_lettered()
        if applied + 1 < extent.first <= extent.last:
            log.error(
                "STATUS begins at %d, after the last message that Redis has: the messages between are lost",
                extent.first,
            )
        # Facts above the ack floor must keep their places, also when they were in Redis before it was set back.
        settled = floor_version(min(applied, extent.acknowledged))
        items: list[VersionedMessage] = []
        async for stored in self._status.read(max(applied + 1, extent.first), extent.last):
            repair.messages += 1
            items += [item for item in facts_of(stored) if isinstance(item, VersionedMessage)]
            purges = [item for item in items if isinstance(item.message, PlanPurged)]
            if purges or len(items) >= FACTS_AT_ONCE:
                await self._insert(items, settled, extent, dead_lettered, repair)
                items = []
            for item in purges:  # a message of its own
                assert isinstance(item.message, PlanPurged)
                await self._purge.delete(Purge.of(item.message, item.version))
        await self._insert(items, settled, extent, dead_lettered, repair)
        repair.found = "replaced" if repair.missing else "restarted"
        return extent.last

    async def _insert(
        self,
        items: Sequence[VersionedMessage],
        settled: int,
        extent: LogExtent,
        dead_lettered: DeadLettered,
        repair: Repair,
    ) -> None:
        """Insert facts into their records. Everything up to `settled` is in Redis and acknowledged."""
        by_key: dict[str, list[VersionedMessage]] = {}
        kinds: dict[str, RecordKind[Any, Any]] = {}
        for item in items:
            for key, kind in records_of(item.message):
                kinds[key] = kind
                by_key.setdefault(key, []).append(item)
        for key in await self._without_effect(by_key, kinds):
            ineffective = {item.version for item in by_key.pop(key)}
            items = [item for item in items if item.version not in ineffective]
        await save_records(self._store, items)
        remaining = list(by_key)
        while remaining:
            portion, remaining = remaining[:RECORDS_A_TRIP], remaining[RECORDS_A_TRIP:]
            stored = dict(zip(portion, await self._store.raw_hashes(portion), strict=True))
            histories: dict[str, History[Any, Any]] = {}
            for key in portion:
                stored_history = read_history(kinds[key], key, stored[key])
                if stored_history is None and stored[key]:
                    continue  # damaged, which is no matter of what came last: `state rebuild`
                news = [item.version for item in by_key[key] if not holds(stored_history, item.version)]
                acknowledged = floor_version(extent.acknowledged)
                repair.missing += sum(version <= acknowledged and version not in dead_lettered for version in news)
                history = with_facts(stored_history, kinds[key], by_key[key], settled)
                history = in_flight(history, extent)
                if any(version in dead_lettered for version in news):
                    history = replace(history, restatement_due=True)
                if history != stored_history:
                    histories[key] = history
            remaining += await self._write(histories, kinds, stored, repair)
            await self._restate(histories, repair)

    async def _without_effect(
        self, by_key: Mapping[str, Sequence[VersionedMessage]], kinds: Mapping[str, RecordKind[Any, Any]]
    ) -> list[str]:
        """Return the keys of records that do not exist and that these facts do not make: of plans that were purged."""
        unmade = [key for key, facts in by_key.items() if _is_empty(with_facts(None, kinds[key], facts, 0), kinds[key])]
        stored = [
            stored_hash
            for start in range(0, len(unmade), RECORDS_A_TRIP)
            for stored_hash in await self._store.raw_hashes(unmade[start : start + RECORDS_A_TRIP])
        ]
        absent = [key for key, stored_hash in zip(unmade, stored, strict=True) if not stored_hash]
        plans = {keys.parse_key(key).plan_id for key in absent} - {""}
        purged = {plan_id for plan_id in plans if await self._status.purged_up_to(plan_id)}
        return [key for key in absent if keys.parse_key(key).plan_id in purged]

    async def _dead_lettered(self) -> DeadLettered:
        try:
            return await self._status.dead_lettered()
        except NotPermitted as error:
            # The permissions of an earlier release. That Redis comes back matters more than these few examinees.
            log.error("the facts of dead letters are not restated: %s", error)
            return DeadLettered()

    # -- writing ------------------------------------------------------------------------------------------

    async def _write(
        self,
        histories: Mapping[str, History[Any, Any]],
        kinds: Mapping[str, RecordKind[Any, Any]],
        stored: Mapping[str, dict[str, str] | StateDamaged],
        repair: Repair,
    ) -> list[str]:
        """Replace records; return the keys of those that another process has written meanwhile."""
        replacements = []
        for key, history in histories.items():
            stored_hash = stored[key]
            known = {} if isinstance(stored_hash, StateDamaged) else stored_hash
            kind = kinds[key]
            fields = kind.write(history, fold(history, kind.rule), secrets.randbits(52) + 1)
            replacements.append(
                GuardedWrite(key, "rev", known.get("rev", "0"), {**fields, **lease_fields(fields, known)})
            )
        verdicts = await self._store.replace(replacements)
        repair.records += sum(verdicts)
        return [replacement.key for replacement, written in zip(replacements, verdicts, strict=True) if not written]

    async def _restate(self, histories: Mapping[str, History[Any, Any]], repair: Repair) -> None:
        """Request that the states of examinees and plans are published again where the last event may be wrong."""
        requests = []
        for key, history in histories.items():
            if not history.restatement_due:
                continue
            newest = history.facts[-1][0] if history.facts else history.floor
            message = restate_fact(keys.parse_key(key), format_time(self._bus.clock.now()))
            if message is None:
                continue  # a server's record: nobody is told of it
            subject = subjects.status_plan(message.plan_id, subjects.MANAGER)
            requests.append(Outgoing.of(subject, message, message_id=f"repaired:{key}:{newest}"))
        await self._bus.confirm(await self._bus.send(requests))
        repair.restated += len(requests)


def _is_empty(history: History[Any, Any], kind: RecordKind[Any, Any]) -> bool:
    """Return whether no fact has had an effect: such a record is not written."""
    return bool(fold(history, kind.rule) == kind.state())
