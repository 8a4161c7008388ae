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
from collections.abc import Sequence

from prometheus_client import Counter

from actors.runtime.broker.connection import Bus
from actors.runtime.store.state_store import StateStore
from actors.runtime.telemetry.metrics import REGISTRY
from actors.state_manager.recovery.audit import Difference, changed_keys
from actors.state_manager.recovery.catch_up import CatchUp, dead_letters
from actors.state_manager.recovery.purge import PlanPurge, Purge
from actors.state_manager.recovery.restoration import Repair, Restoration
from actors.status_log.checkpoint_writes import CheckpointWrites
from actors.status_log.projection import Projection
from actors.status_log.status_log import StatusLog
from protocol.ids import RecordRef
from protocol.messages.facts import Restate
from protocol.messages.plan_facts import PlanRestate
from protocol.records import keys
from protocol.records.placement import record_kind, record_of
from protocol.records.writes import Index

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


class StateRepair:
    """Repairs Redis. Raises `StateUnavailable`, `BrokerUnavailable`, `ConsumerGone`; may be repeated at any time."""

    def __init__(self, bus: Bus, store: StateStore, status: StatusLog | None = None) -> None:
        self._bus = bus
        self._store = store
        self._status = status or StatusLog(bus)
        self._purge = PlanPurge(store)
        self._restoration = Restoration(bus, store)
        self._catch_up = CatchUp(store, self._status, self._restoration)

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
                last = await self._catch_up.run(mark.applied, repair)
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
        await self._restoration.restore_index(members, entries)
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
        await self._restoration.replace_sockets(
            [projection.sockets[key] for key in sorted(differing & projection.sockets.keys())]
        )
        unknown = {key: kind for key in differing if (kind := record_kind(keys.parse_key(key))) is not None}
        await self._restoration.restore(projection, unknown, repair, force=True)
        # No fact of the log has made this change, so nobody else copies it to the checkpoints.
        await CheckpointWrites(self._bus, self._store).rewrite(changed_keys(differences))
        repair.seconds = time.monotonic() - began
        return repair

    async def rewrite_records(self, asked: Sequence[Restate | PlanRestate]) -> Repair:
        """Write unreadable records anew from the log, and have their states published again."""
        repair = Repair("whole")
        for plan_id in sorted({fact.plan_id for fact in asked}):
            projection = Projection(plan_id)
            await projection.follow(self._status)
            kinds = dict(record_of(fact) for fact in asked if fact.plan_id == plan_id)
            await self._restoration.restore(projection, kinds, repair)
        return repair

    async def rewrite_index(self, record: RecordRef) -> None:
        """Write the index at a key anew from the log, if something else lies in its place."""
        projection = Projection(record.plan_id if record.kind == "plan_examinees" else None)
        await projection.follow(self._status)
        key = record.key
        await self._store.delete_wrong_types({key: "hash" if record.kind == "server_sockets" else "set"})
        members = {key: projection.members[key]} if key in projection.members else {}
        await self._restoration.restore_index(
            members, {key: projection.entries[key]} if key in projection.entries else {}
        )

    # -- nothing is known: everything by the log --------------------------------------------------------

    async def _rebuild(self, repair: Repair) -> int:
        projection = Projection(dead_lettered=await dead_letters(self._status))
        await projection.follow(self._status)
        # At the very first start the socket servers may have spoken before a state manager runs: nothing was lost then.
        lost = projection.messages > 0 and projection.extent.acknowledged >= projection.extent.first
        repair.found = "lost" if lost else "new"
        repair.messages += projection.messages
        if lost:
            log.error("Redis has lost its state: writing %d records from the log", len(projection.records))
        # As in the state manager the index goes before the records: what is in a record can be found.
        await self._restoration.restore_index(projection.members, projection.entries)
        await self._restoration.restore_sockets(projection)
        kinds = {key: replayed.kind for key, replayed in projection.records.items()}
        await self._restoration.restore(projection, kinds, repair, watch=True)
        for (plan_id, examinee_id), version in projection.purges.items():
            await self._purge.delete(Purge(plan_id, examinee_id, version))
        return projection.extent.last
