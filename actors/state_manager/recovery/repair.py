"""Restore Redis: all of it after it was emptied, replaced or set back, or single damaged records.

A Redis that has lost everything is repaired by parts of the log. A state manager claims parts, so that several share
the work and nobody does it twice; who dies leaves its parts to the others after some seconds. Plans with live sessions
come first, and each plan can be read as soon as it is whole. Where it comes from: `part_repair`.

All of it may be done again after a crash, or twice at once: a record is replaced only if nobody has written it
meanwhile, and facts are ordered by version. No event is published: those of acknowledged facts were published before,
and the other facts are delivered again, which completes their effects. A fact that had become a dead letter is in the
record now and no event was published for it, so the examinee's state is published again.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Callable, Sequence
from typing import Protocol

from actors.runtime.broker.connection import Bus
from actors.runtime.store.repair_marks import Whole, live_mark, part_mark, plan_mark
from actors.runtime.store.state_store import StateStore
from actors.state_manager.recovery.announcement import announce_sessions
from actors.state_manager.recovery.audit import Difference, changed_keys
from actors.state_manager.recovery.catch_up import CatchUp, dead_letters
from actors.state_manager.recovery.part_repair import PartRepair, Survey, Tools
from actors.state_manager.recovery.purge import PlanPurge
from actors.state_manager.recovery.repair_progress import REPAIRS, RepairProgress
from actors.state_manager.recovery.restoration import Repair, Restoration
from actors.status_log.checkpoint_writes import CheckpointWrites
from actors.status_log.projection import Projection
from actors.status_log.record_checkpoints import RecordCheckpoints
from actors.status_log.status_log import StatusLog
from protocol.errors import NotPermitted
from protocol.ids import RecordRef
from protocol.log.partitions import PARTS
from protocol.messages.facts import Restate
from protocol.messages.plan_facts import PlanRestate
from protocol.messages.progress import SERVERS_PART
from protocol.records import keys
from protocol.records.placement import record_kind, record_of
from protocol.records.writes import Index

log = logging.getLogger("examwire.state_repair")

EVERYTHING = "everything"
"""Claimed instead of parts by who brings a Redis up to the log that holds most of it."""
WAIT_SECONDS = 0.25
PATIENCE_SECONDS = 1.0
"""For so long a part is left to the state manager that reads it."""
RENEW_SECONDS = 1.0


class LostAgain(Exception):
    """Redis has lost its state while it was being repaired."""


class Turns(Protocol):
    """Which parts a state manager repairs: those that it reads, or its share of what nobody reads."""

    def holds(self, part: str) -> bool:
        """Return whether this one reads the part."""

    def managers(self) -> int:
        """Return how many state managers there are."""


class Alone:
    """The turns of somebody who is no state manager, or the only one."""

    def holds(self, _part: str) -> bool:
        return True

    def managers(self) -> int:
        return 1


class StateRepair:
    """Repairs Redis. Raises `StateUnavailable`, `BrokerUnavailable`, `ConsumerGone`; may be repeated at any time.

    `whole`: what can be read, as far as this process knows. `changed` is called with it.

    Example::

        repair = await StateRepair(bus, store, checkpoints=RecordCheckpoints(bus)).restore_state()
    """

    def __init__(
        self,
        bus: Bus,
        store: StateStore,
        status: StatusLog | None = None,
        *,
        checkpoints: RecordCheckpoints | None = None,
        turns: Turns | None = None,
    ) -> None:
        self._bus = bus
        self._store = store
        self._status = status or StatusLog(bus)
        self._turns: Turns = turns or Alone()
        self._restoration = Restoration(bus, store)
        self._catch_up = CatchUp(store, self._status, self._restoration)
        self._tools = Tools(store, self._status, checkpoints, self._restoration, self._catch_up, PlanPurge(store))
        self._renewed_at = time.monotonic()
        self._found = "whole"
        self._announcement_due = False
        self.whole = Whole(everything=True)
        self.progress: RepairProgress | None = None
        self.changed: Callable[[Whole], None] = lambda whole: None

    async def restore_state(self) -> Repair:
        """Restore Redis if it is not whole: repair what nobody else repairs, and wait for the rest."""
        began = time.monotonic()
        repair, name = Repair("whole"), secrets.token_hex(8)
        self.progress = RepairProgress(repair)
        try:
            while not (mark := await self._store.mark.begin(name)).whole:
                self._now_whole(await self._store.mark.whole_so_far())
                try:
                    if mark.applied is not None and await self._status.holds_all_since(mark.applied):
                        done = await self._catch_up_alone(name, mark.applied, repair)
                    else:
                        found = "replaced" if mark.applied is not None else None
                        done = await self._repair_parts(name, repair, time.monotonic() - began, found)
                except LostAgain:
                    continue
                if not done:  # somebody else is at it
                    await asyncio.sleep(WAIT_SECONDS)
        finally:
            self.progress.end()
            self.progress = None
        self._now_whole(Whole(everything=True))
        if self._announcement_due:
            # What the log has dropped, or lost with the last writes of Redis, the socket servers still know.
            try:
                await announce_sessions(self._bus, "STATE_REPAIRED")
            except NotPermitted as error:  # the permissions of an earlier release
                log.error("live sessions are not announced again: %s", error)
            self._announcement_due = False
        repair.seconds = time.monotonic() - began
        return repair

    def _now_whole(self, whole: Whole) -> None:
        self.whole = whole
        self.changed(whole)

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

    # -- all of it ----------------------------------------------------------------------------------------

    async def _catch_up_alone(self, name: str, applied: int, repair: Repair) -> bool:
        """Apply what Redis lacks; return False when somebody else does."""
        if not await self._store.mark.claim(name, [EVERYTHING]):
            return False
        repair.found = "restarted"  # unless it turns out that it lacks what it had
        assert self.progress is not None
        self.progress.begin((), live=0, plans=0)
        last = await self._catch_up.run(applied, repair, lambda: self._renew(name, [EVERYTHING]))
        if await self._store.mark.end(name, last):
            REPAIRS.labels(repair.found).inc()
            self._announcement_due |= repair.alarming
        return True

    async def _repair_parts(self, name: str, repair: Repair, waited: float, found: str | None) -> bool:
        """Repair the parts that this one can claim; return False when there is none.

        `found`: that Redis holds records which are older than the log, and not nothing.
        """
        missing = [part for part in PARTS if not self.whole.part(part)]
        claimed = await self._store.mark.claim(name, [part for part in missing if self._turns.holds(part)])
        if not claimed and waited > PATIENCE_SECONDS:
            share = -(-len(missing) // self._turns.managers())
            claimed = await self._store.mark.claim(name, missing, share)
        if not claimed:
            return False
        dead_lettered = await dead_letters(self._status)
        works = [PartRepair(part, self._tools, dead_lettered, repair) for part in claimed]
        surveys = [await work.survey() for work in works]
        found = "lost" if _was_lost(surveys) else "new"
        if repair.found != found:  # else this is about parts that somebody else has left
            repair.found = self._found = found
            REPAIRS.labels(found).inc()
        assert self.progress is not None
        live = sum(len(survey.live) for survey in surveys)
        self.progress.begin(claimed, live, live + sum(len(survey.others) for survey in surveys))
        for work, survey in zip(works, surveys, strict=True):
            if work.part == SERVERS_PART:
                await work.repair_servers()
                await self._end_part(name, work, survey)
        for work, survey in zip(works, surveys, strict=True):
            if survey.live:
                await self._repair_plans(name, work, survey.live, claimed, live=True)
                await self._mark(name, live_mark(work.part))
        for work, survey in zip(works, surveys, strict=True):
            if work.part != SERVERS_PART:
                await self._repair_plans(name, work, survey.others, claimed, live=False)
                await self._end_part(name, work, survey)
        return True

    async def _repair_plans(
        self, name: str, work: PartRepair, plans: Sequence[str], claimed: Sequence[str], *, live: bool
    ) -> None:
        assert self.progress is not None
        for plan_id in plans:
            if not self.whole.plan(plan_id):  # else somebody has done it who died
                await work.repair_plan(plan_id)
                await self._mark(name, plan_mark(plan_id))
            self.progress.plan_done(live=live)
            await self._renew(name, claimed)

    async def _mark(self, name: str, mark: str) -> None:
        if not await self._store.mark.add(name, [mark]):
            raise LostAgain
        self._now_whole(Whole(marks=self.whole.marks | {mark}))

    async def _end_part(self, name: str, work: PartRepair, survey: Survey) -> None:
        everything = await self._store.mark.end_part(name, work.part, survey.extent.last)
        if everything is None:
            raise LostAgain
        self._announcement_due |= everything and self._found in ("lost", "replaced")
        self._now_whole(Whole(marks=self.whole.marks | {part_mark(work.part)}))

    async def _renew(self, name: str, claimed: Sequence[str]) -> None:
        """Keep the claims, so that nobody takes this process for dead."""
        if time.monotonic() - self._renewed_at >= RENEW_SECONDS:
            self._renewed_at = time.monotonic()
            await self._store.mark.claim(name, claimed)


def _was_lost(surveys: Sequence[Survey]) -> bool:
    """Return whether Redis held something before: facts had been processed.

    At the very first start the socket servers may have spoken before a state manager runs: nothing was lost then.
    """
    if any(survey.manifest is not None for survey in surveys):
        return True
    extent = surveys[0].extent
    return extent.first <= extent.last and min(extent.acknowledged_by_part.values(), default=0) >= extent.first
