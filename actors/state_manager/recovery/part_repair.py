"""Write one part of the log into a Redis that holds nothing of it: from its checkpoints and the log after them.

Without checkpoints, from the log alone, plan by plan. So no more than one plan is in memory, and each plan is whole
before the next one is begun.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from actors.runtime.actor.cancellation import cancel_tasks
from actors.runtime.store.state_store import StateStore
from actors.state_manager.recovery.catch_up import CatchUp
from actors.state_manager.recovery.purge import PlanPurge, Purge
from actors.state_manager.recovery.restoration import Repair, Restoration
from actors.state_manager.recovery.restored_record import merged_history, read_history
from actors.status_log.projection import Projection
from actors.status_log.record_checkpoints import CheckpointedKey, Manifest, RecordCheckpoints
from actors.status_log.status_log import DeadLettered, LogExtent, StatusLog
from protocol.errors import NewerRecord, NotPermitted
from protocol.log.partitions import part_of
from protocol.messages.facts import ConnectionStatusCode
from protocol.messages.progress import SERVERS_PART
from protocol.records import keys
from protocol.records.kinds import RecordKind
from protocol.records.placement import ENDED_SOCKET_SECONDS, record_kind
from protocol.records.writes import Index, SocketWrite, StoredHash
from protocol.rules.history import History
from protocol.times import parse_time

log = logging.getLogger("examwire.state_repair")

KEYS_A_TRIP = 500
CANCEL_SECONDS = 5.0
_OWED = '"owed":true'  # in a stored history: its state must be published again


class Tools(NamedTuple):
    """What repairs of parts work with. Without `checkpoints` everything comes from the log."""

    store: StateStore
    status: StatusLog
    checkpoints: RecordCheckpoints | None
    restoration: Restoration
    catch_up: CatchUp
    purge: PlanPurge


@dataclass(slots=True)
class Survey:
    """What has to be repaired of a part: its plans, those with live sessions first (`live`).

    `extent`: of the log, with what is acknowledged of this part. Without a `manifest` nobody knows who is live. `tail`:
    the plans that the log has messages of since then.
    """

    extent: LogExtent
    manifest: Manifest | None
    live: list[str]
    others: list[str]
    tail: frozenset[str] = frozenset()


class PartRepair:
    """Repairs one part. Raises `StateUnavailable`, `BrokerUnavailable`, `ConsumerGone`; may be repeated at any time.

    Example::

        part = PartRepair("3", tools, dead_lettered, repair)
        survey = await part.survey()
        for plan_id in (*survey.live, *survey.others):
            await part.repair_plan(plan_id)
    """

    def __init__(self, part: str, tools: Tools, dead_lettered: DeadLettered, repair: Repair) -> None:
        self.part = part
        self._tools = tools
        self._dead_lettered = dead_lettered
        self._repair = repair
        self._survey: Survey | None = None
        self._indexes: set[str] = set()

    async def survey(self) -> Survey:
        """Find out what there is to do."""
        status = self._tools.status
        extent = await status.extent()
        extent = replace(extent, acknowledged=extent.acknowledged_by_part.get(self.part, extent.acknowledged))
        manifest = await self._manifest(self.part)
        self._survey = Survey(extent, manifest, [], [])
        if self.part == SERVERS_PART:
            return self._survey
        if manifest is None:
            self._survey.others = await status.plans(self.part)
            return self._survey
        if manifest.sequence + 1 < extent.first <= extent.last:
            text = "STATUS begins at %d, after the checkpoints of part %s: the messages between are lost"
            log.error(text, extent.first, self.part)
        of_servers = await self._manifest(SERVERS_PART)
        counted = of_servers.live if of_servers is not None and of_servers.live is not None else None
        since = min(manifest.sequence, of_servers.sequence) if of_servers is not None else manifest.sequence
        tail = await status.plans(self.part, since + 1, extent.last)
        self._survey.tail = frozenset(tail)
        live = sorted(
            (plan_id for plan_id in counted or () if part_of(plan_id) == self.part),
            key=lambda plan_id: -(counted or {})[plan_id],
        )
        assert self._tools.checkpoints is not None
        known = await self._tools.checkpoints.plans(self.part)
        first = list(dict.fromkeys((*tail, *live)))
        others = sorted({*known} - {*first})
        # Without the counts anybody may be live.
        self._survey.live, self._survey.others = (first, others) if counted is not None else ([], [*first, *others])
        return self._survey

    async def repair_servers(self) -> None:
        """Write the records of the socket servers."""
        survey = self._surveyed()
        if survey.manifest is None:
            projection = Projection(dead_lettered=self._dead_lettered, servers_only=True)
            await projection.follow(self._tools.status)
            await self._write_projection(projection)
            return
        await self._write_checkpoints(None)
        first = max(survey.manifest.sequence + 1, survey.extent.first)
        messages = self._tools.status.read_part(SERVERS_PART, first, survey.extent.last)
        await self._tools.catch_up.apply(
            messages, survey.manifest.sequence, survey.extent, self._dead_lettered, self._repair
        )

    async def repair_plan(self, plan_id: str) -> None:
        """Write all keys of a plan."""
        survey = self._surveyed()
        if survey.manifest is None:
            projection = Projection(plan_id, self._dead_lettered)
            await projection.follow(self._tools.status)
            await self._write_projection(projection)
            return
        entries = await self._write_checkpoints(plan_id)
        if plan_id in survey.tail:
            first = max(survey.manifest.sequence + 1, survey.extent.first)
            messages = self._tools.status.read(first, survey.extent.last, plan_id)
            await self._tools.catch_up.apply(
                messages, survey.manifest.sequence, survey.extent, self._dead_lettered, self._repair
            )
        for key, held in entries.items():
            await self._tools.restoration.take_back(key, held)

    def _surveyed(self) -> Survey:
        assert self._survey is not None, "survey() first"
        return self._survey

    async def _manifest(self, part: str) -> Manifest | None:
        if self._tools.checkpoints is None:
            return None
        try:
            return await self._tools.checkpoints.manifest(part)
        except NotPermitted as error:
            # The permissions of an earlier release: the log has everything as well.
            log.error("the checkpoints of the records are not used: %s", error)
            return None

    # -- from the log alone -------------------------------------------------------------------------------

    async def _write_projection(self, projection: Projection) -> None:
        tools = self._tools
        self._repair.messages += projection.messages
        # As in the state manager the index goes before the records: what is in a record can be found.
        await tools.restoration.restore_index(projection.members, projection.entries)
        await tools.restoration.restore_sockets(projection)
        kinds = {key: replayed.kind for key, replayed in projection.records.items()}
        await tools.restoration.restore(projection, kinds, self._repair)
        for (plan_id, examinee_id), version in projection.purges.items():
            await tools.purge.delete(Purge(plan_id, examinee_id, version))

    # -- from checkpoints ---------------------------------------------------------------------------------

    async def _write_checkpoints(self, plan_id: str | None) -> dict[str, dict[str, tuple[int, str]]]:
        """Write the checkpointed keys of a plan, or of the servers. Return the entries of live sockets, by index."""
        assert self._tools.checkpoints is not None
        entries: dict[str, dict[str, tuple[int, str]]] = {}
        if plan_id is not None:
            await self._right_types({keys.PLANS: "set", keys.plan_examinees(plan_id): "set"})
        portion: list[CheckpointedKey] = []
        writing: asyncio.Task[None] | None = None  # Redis writes one portion while NATS sends the next
        try:
            async for checkpointed in self._tools.checkpoints.read(self.part, plan_id):
                portion.append(checkpointed)
                if len(portion) == KEYS_A_TRIP:
                    if writing is not None:
                        await writing
                    writing = asyncio.create_task(self._write_portion(portion, entries))
                    portion = []
            if writing is not None:
                await writing
        finally:
            if writing is not None:
                await cancel_tasks([writing], CANCEL_SECONDS)
        await self._write_portion(portion, entries)
        return entries

    async def _write_portion(
        self, portion: Sequence[CheckpointedKey], entries: dict[str, dict[str, tuple[int, str]]]
    ) -> None:
        index = Index()
        hashes: list[StoredHash] = []
        now = self._tools.status.now()
        for checkpointed in portion:
            record = keys.parse_key(checkpointed.key)
            if record.kind == "server":
                index.add_member(keys.SERVERS, record.server_id)
            else:
                index.add_member(keys.PLANS, record.plan_id)
            if checkpointed.member:
                index.add_member(keys.plan_examinees(record.plan_id), record.examinee_id)
            if checkpointed.entry is not None:
                key, name = keys.server_sockets(checkpointed.entry.server), checkpointed.key.rpartition(":")[2]
                version, _, text = checkpointed.entry.value.partition(" ")
                index.set_entry(key, name, int(version), text)
                entries.setdefault(key, {})[name] = int(version), text
            if checkpointed.fields:
                is_socket = record.kind == "socket"
                keep = _keep_seconds(checkpointed, now) if is_socket else 0
                if keep is not None:
                    guard = "version" if is_socket else "rev"
                    hashes.append(StoredHash(checkpointed.key, checkpointed.fields, guard, keep))
        await self._right_types(dict.fromkeys(index.entries, "hash"))
        # As in the state manager the index goes before the records: what is in a record can be found.
        await self._tools.store.save([], [], index)
        verdicts = await self._tools.store.restore(hashes)
        self._repair.records += sum(verdicts)
        differing = [stored for stored, written in zip(hashes, verdicts, strict=True) if not written]
        await self._merge(differing)
        owed = {stored.key: stored for stored in hashes if _OWED in stored.fields.get("history", "")}
        await self._restate(owed)

    async def _right_types(self, types: dict[str, str]) -> None:
        """Delete what is not of its type in the place of an index, once for each."""
        unknown = {key: kind for key, kind in types.items() if key not in self._indexes}
        self._indexes |= unknown.keys()
        await self._tools.store.delete_wrong_types(unknown)

    async def _merge(self, differing: Sequence[StoredHash]) -> None:
        """Merge checkpointed keys with what is found in their places."""
        sockets = [stored for stored in differing if stored.guard == "version"]
        await self._tools.store.delete_wrong_types({stored.key: "hash" for stored in sockets})
        await self._tools.store.save(
            [],
            [
                SocketWrite(stored.key, int(stored.fields["version"]), stored.fields, stored.keep_seconds)
                for stored in sockets
            ],
        )
        remaining = [stored for stored in differing if stored.guard != "version"]
        while remaining:
            found = await self._tools.store.raw_hashes([stored.key for stored in remaining])
            histories: dict[str, History[Any, Any]] = {}
            kinds: dict[str, RecordKind[Any, Any]] = {}
            for stored, existing in zip(remaining, found, strict=True):
                kind = record_kind(keys.parse_key(stored.key))
                assert kind is not None
                try:
                    known = read_history(kind, stored.key, existing)
                    merged = merged_history(kind.read(stored.fields["history"]), known, kind)
                except NewerRecord as newer:
                    log.warning("%s stays as it is: %s", stored.key, newer)
                    continue
                if known is None and existing:
                    # Facts that came while it could not be read are dead letters: no event was published for them.
                    merged = replace(merged, restatement_due=True)
                if merged != known:
                    histories[stored.key], kinds[stored.key] = merged, kind
            hashes_by_key = dict(zip((stored.key for stored in remaining), found, strict=True))
            again = {*await self._tools.restoration.write(histories, kinds, hashes_by_key, self._repair)}
            await self._tools.restoration.restate(
                {key: history for key, history in histories.items() if key not in again}, self._repair
            )
            remaining = [stored for stored in remaining if stored.key in again]

    async def _restate(self, owed: dict[str, StoredHash]) -> None:
        histories = {}
        for key, stored in owed.items():
            kind = record_kind(keys.parse_key(key))
            with contextlib.suppress(NewerRecord):
                if kind is not None and (history := read_history(kind, key, dict(stored.fields))) is not None:
                    histories[key] = history
        await self._tools.restoration.restate(histories, self._repair)


def _keep_seconds(checkpointed: CheckpointedKey, now: float) -> int | None:
    """Return how long a socket's record is kept (0: for ever); `None`: it has expired."""
    if checkpointed.fields.get("status") != ConnectionStatusCode.DISCONNECTED:
        return 0
    left = parse_time(checkpointed.fields["lastHeartbeat"]) + ENDED_SOCKET_SECONDS - now
    return round(left) if left >= 1 else None
