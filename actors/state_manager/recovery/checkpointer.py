"""Write the checkpoints of the parts of the log that a state manager reads, in the background.

Each `checkpoints.seconds`, and after `checkpoints.messages` of the log, it copies what the facts since the last
checkpoint have changed from Redis to RECORDS (`actors.status_log.record_checkpoints`). A part without a checkpoint is
copied as a whole. It works in small portions, and pauses for twice as long as each of them took: events go first.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pydantic_core
from prometheus_client import Gauge

from actors.runtime.broker.connection import Bus
from actors.runtime.config.sections import CheckpointSettings
from actors.runtime.store.state_store import StateStore
from actors.runtime.telemetry.metrics import REGISTRY
from actors.status_log.checkpoint_writes import KEYS_A_BATCH, CheckpointWrites
from actors.status_log.record_checkpoints import Manifest, PartCheckpoint, RecordCheckpoints
from actors.status_log.status_log import LogExtent, StatusLog, facts_of
from protocol.errors import (
    BrokerUnavailable,
    ConsumerGone,
    NotPermitted,
    StateDamaged,
    StateLost,
    StateUnavailable,
    WrongLastSequence,
)
from protocol.log.partitions import PARTS, part_of
from protocol.messages.codec import Malformed
from protocol.messages.facts import ConnectionStatus
from protocol.messages.plan_facts import PlanPurged
from protocol.messages.progress import SERVERS_PART
from protocol.records import keys
from protocol.records.placement import VersionedMessage, records_of
from protocol.rules.connection_state import server_id_of
from protocol.times import format_time, parse_time

log = logging.getLogger("examwire.checkpoints")

LOOK_SECONDS = 1.0
FIRST_SECONDS = 5.0
"""A state manager that has just started has more urgent work."""
LASTING_SECONDS = 60.0
MESSAGES_PER_YIELD, KEYS_PER_YIELD = 100, 1000
REST = 2.0
"""Pause after a portion, in times of what it took."""
LONGEST_REST_SECONDS = 1.0

AGE = Gauge(
    "examwire_checkpoint_age_seconds",
    "Age of the newest checkpoint of each part of the log that this state manager reads",
    ["part"],
    registry=REGISTRY,
)
BEHIND = Gauge(
    "examwire_checkpoint_behind_messages",
    "Messages of the log, of all parts, since the newest checkpoint of each part that this state manager reads",
    ["part"],
    registry=REGISTRY,
)


@dataclass(slots=True)
class _Part:
    """What is known about a part that this manager reads. `newest`: when its newest checkpoint was written (epoch).

    `checkpoint` is `None` until it is read, and after a failure. `plans`: those that have checkpoints.
    """

    newest: float
    checkpoint: PartCheckpoint | None = None
    plans: set[str] = field(default_factory=set)
    tried: float = 0.0
    sequence: int = 0


class Checkpointer:
    """Writes the checkpoints of the parts that `held` returns.

    Example::

        checkpointer = Checkpointer(bus, store, settings.checkpoints, lambda: partitions.held_parts)
        await checkpointer.run()  # until cancelled
    """

    def __init__(
        self, bus: Bus, store: StateStore, settings: CheckpointSettings, held: Callable[[], Collection[str]]
    ) -> None:
        self._bus = bus
        self._store = store
        self._settings = settings
        self._held = held
        self._status = StatusLog(bus)
        self._checkpoints = RecordCheckpoints(bus)
        self._writes = CheckpointWrites(bus, store)
        self._parts: dict[str, _Part] = {}
        self._extent: LogExtent | None = None
        self._portion_began = 0.0
        self._sockets: dict[str, dict[str, str | None]] | None = None  # of all parts, while first ones are written
        self._failing_since: float | None = None
        self._said = False

    def note(self, extent: LogExtent) -> None:
        """Take the extent of the log that the state manager has just read."""
        self._extent = extent

    async def run(self) -> None:
        """Write checkpoints when they are due, until cancelled."""
        await asyncio.sleep(min(FIRST_SECONDS, self._settings.seconds))
        while True:
            try:
                await self.write_due()
            except (BrokerUnavailable, ConsumerGone, NotPermitted, StateUnavailable, StateDamaged) as error:
                # While an engine is away nothing changes; while Redis is repaired nothing may be copied from it.
                self._say(error)
            except Exception:
                # A fault here, or what somebody has put into Redis, must not stop the work on the log. The age grows.
                log.exception("no checkpoint is written; trying again")
                await asyncio.sleep(self._settings.seconds)
            else:
                self._failing_since, self._said = None, False
            self._measure()
            await asyncio.sleep(min(LOOK_SECONDS, self._settings.seconds))

    def _say(self, error: Exception) -> None:
        """Log once that checkpoints are not written, when it has lasted."""
        self._failing_since = self._failing_since or time.monotonic()
        lasting = time.monotonic() - self._failing_since >= LASTING_SECONDS or isinstance(error, NotPermitted)
        log.log(logging.WARNING if lasting and not self._said else logging.DEBUG, "no checkpoint is written: %s", error)
        self._said = self._said or lasting

    async def write_due(self) -> None:
        """Write the checkpoints that are due. Raises what an engine that is away raises."""
        held = set(self._held())
        for part in self._parts.keys() - held:
            del self._parts[part]
            AGE.remove(part)
            BEHIND.remove(part)
        for part in held - self._parts.keys():
            self._parts[part] = _Part(self._bus.clock.now())
        due = [part for part in sorted(held) if self._is_due(part)]
        if not due:
            return
        extent = self._extent = await self._status.extent()
        self._sockets = None
        try:
            failures: list[Exception] = []
            for part in due:
                try:
                    await self._write_part(part, self._parts[part], extent.acknowledged_by_part[part])
                except (StateLost, StateDamaged) as error:
                    failures.append(error)  # a part that is damaged, or not repaired yet, holds up no other one
            if failures:
                raise failures[0]
        finally:
            self._sockets = None

    def _is_due(self, part: str) -> bool:
        known = self._parts[part]
        if not known.tried or time.monotonic() - known.tried >= self._settings.seconds:
            return True
        return known.sequence > 0 and self._behind(part, known) >= self._settings.messages

    def _behind(self, part: str, known: _Part) -> int:
        extent = self._extent
        if extent is None or not known.sequence:
            return 0
        return max(0, extent.acknowledged_by_part[part] - max(known.sequence, extent.first - 1))

    def _measure(self) -> None:
        now = self._bus.clock.now()
        for part, known in self._parts.items():
            AGE.labels(part).set(max(0.0, now - known.newest))
            BEHIND.labels(part).set(self._behind(part, known))

    # -- one part -------------------------------------------------------------------------------------

    async def _write_part(self, part: str, known: _Part, acknowledged: int) -> None:
        """Bring the checkpoints of a part up to what is acknowledged."""
        known.tried = time.monotonic()
        self._portion_began = known.tried
        checkpoint, known.checkpoint = known.checkpoint, None  # until it has been written
        if checkpoint is None:
            checkpoint = await self._checkpoints.checkpoint(part)
            known.plans = set(await self._checkpoints.plans(part))
            if checkpoint.manifest is not None and checkpoint.manifest.time:
                known.newest = parse_time(checkpoint.manifest.time)
        if checkpoint.newer:
            return  # a newer release writes them; it also reads this part as soon as it notices this manager
        try:
            if checkpoint.manifest is None or checkpoint.manifest.sequence == 0:
                checkpoint = await self._write_all(part, known, checkpoint, acknowledged)
            else:
                checkpoint = await self._write_changed(part, known, checkpoint, checkpoint.manifest, acknowledged)
        except WrongLastSequence:
            log.info("the checkpoints of part %s were written by somebody else", part)
            known.tried = 0.0
            return
        known.checkpoint = checkpoint
        if checkpoint.manifest is not None and checkpoint.manifest.sequence > 0:
            known.sequence = checkpoint.manifest.sequence
            known.newest = parse_time(checkpoint.manifest.time)

    async def _write_changed(
        self, part: str, known: _Part, checkpoint: PartCheckpoint, manifest: Manifest, acknowledged: int
    ) -> PartCheckpoint:
        """Copy what the facts since the last checkpoint have changed."""
        changed: dict[str, str | None] = {}
        count = 0
        async for stored in self._status.read_part(part, manifest.sequence + 1, acknowledged):
            for fact in facts_of(stored):
                if isinstance(fact, Malformed):
                    changed.update(dict.fromkeys(_keys_mentioned(fact.raw)))
                    continue
                changed.update(_keys_of(fact))
                if isinstance(fact.message, PlanPurged):
                    checkpoint = await self._forget(known, checkpoint, fact.message)
            count += 1
            if count % MESSAGES_PER_YIELD == 0:
                await asyncio.sleep(0)
            if len(changed) >= KEYS_A_BATCH:
                checkpoint = await self._copy(known, checkpoint, changed, stored.sequence)
                changed = {}
                await self._rest()
        return await self._copy(known, checkpoint, changed, max(acknowledged, manifest.sequence))

    async def _write_all(
        self, part: str, known: _Part, checkpoint: PartCheckpoint, acknowledged: int
    ) -> PartCheckpoint:
        """Copy everything: the first checkpoint of a part. It is complete up to nowhere before its end."""
        log.info("the first checkpoint of part %s is written", part)
        if part == SERVERS_PART:
            servers = map(keys.server_status, await self._store.members(keys.SERVERS))
            return await self._copy(known, checkpoint, dict.fromkeys(servers), acknowledged)
        plans = [plan_id for plan_id in await self._store.members(keys.PLANS) if part_of(plan_id) == part]
        for plan_id in plans:
            copied = [keys.plan(plan_id), keys.plan_notices(plan_id)]
            for examinee_id in await self._store.members(keys.plan_examinees(plan_id)):
                copied += [make(plan_id, examinee_id) for make in (keys.progress, keys.mobile_sync, keys.notices)]
            checkpoint = await self._copy(known, checkpoint, dict.fromkeys(copied), 0)
            await self._rest()
        if plans and self._sockets is None:
            self._sockets = await self._find_sockets()
        sockets = (self._sockets or {}).get(part, {})
        return await self._copy(known, checkpoint, sockets, acknowledged)

    async def _find_sockets(self) -> dict[str, dict[str, str | None]]:
        """Return the keys of all sockets by part, those of live sockets with their servers."""
        found: dict[str, dict[str, str | None]] = {part: {} for part in PARTS}
        try:
            for count, key in enumerate(await self._store.raw_keys(keys.socket("*", "*"))):
                found[part_of(keys.parse_key(key).plan_id)][key] = None
                if count % KEYS_PER_YIELD == 0:
                    await asyncio.sleep(0)
        except StateDamaged as error:
            log.warning("sockets that have ended are in no checkpoint, because searching for them failed: %s", error)
        async for server_id, socket_id, plan_id in self._entries():
            found[part_of(plan_id)][keys.socket(plan_id, socket_id)] = server_id
        return found

    async def _entries(self) -> AsyncIterator[tuple[str, str, str]]:
        """Yield the server, socket and plan of each live session. An entry that cannot be read is left out."""
        for server_id in await self._store.members(keys.SERVERS):
            key = keys.server_sockets(server_id)
            for socket_id, value in (await self._store.entries(key)).items():
                try:
                    yield server_id, socket_id, keys.SocketEntry.decode(value.partition(" ")[2]).examinee.plan_id
                except ValueError:
                    log.warning("%s: the entry of %s cannot be read: run `examwire state rebuild`", key, socket_id)

    async def _copy(
        self, known: _Part, checkpoint: PartCheckpoint, copied: Mapping[str, str | None], sequence: int
    ) -> PartCheckpoint:
        """Copy these keys and write the manifest up to `sequence`."""
        unlisted = {keys.parse_key(key).plan_id for key in copied} - {""} - known.plans
        if unlisted:
            unlisted &= set(await self._store.members(keys.PLANS))  # the others have been purged
        manifest = Manifest(
            sequence=sequence,
            time=format_time(self._bus.clock.now()),
            live=await self._live() if checkpoint.part == SERVERS_PART else None,
        )
        copied = {**dict.fromkeys(map(keys.plan, unlisted)), **copied}
        checkpoint, _ = await self._writes.write(checkpoint, copied, manifest, listed=unlisted, pause=self._rest)
        known.plans |= unlisted
        return checkpoint

    async def _live(self) -> dict[str, int]:
        """Count the live sessions of each plan."""
        live: dict[str, int] = {}
        async for _, _, plan_id in self._entries():
            live[plan_id] = live.get(plan_id, 0) + 1
        return live

    async def _forget(self, known: _Part, checkpoint: PartCheckpoint, purged: PlanPurged) -> PartCheckpoint:
        """Delete what a purge has deleted in Redis: usually that was done already, by who has purged."""
        if purged.examinee_id is not None:
            await self._writes.forget_examinee(purged.plan_id, purged.examinee_id)
        else:
            known.plans.discard(purged.plan_id)
            await self._writes.forget_plan(purged.plan_id)
        read_again = await self._checkpoints.checkpoint(checkpoint.part)
        if read_again.payload != checkpoint.payload:
            raise WrongLastSequence(f"part {checkpoint.part}")
        return read_again

    async def _rest(self) -> None:
        """Leave the process to the events for a while."""
        took = time.monotonic() - self._portion_began
        await asyncio.sleep(min(REST * took, LONGEST_REST_SECONDS))
        self._portion_began = time.monotonic()


def _plan_of_entry(value: str) -> str | None:
    """Return the plan of an entry of a server's sockets; `None`: it is none of ours."""
    try:
        return keys.SocketEntry.decode(value.partition(" ")[2]).examinee.plan_id
    except ValueError:
        return None


def _keys_of(fact: VersionedMessage) -> dict[str, str | None]:
    """Return the keys that a fact changes."""
    changed: dict[str, str | None] = dict.fromkeys(key for key, _ in records_of(fact.message))
    if isinstance(fact.message, ConnectionStatus):
        changed[keys.socket(fact.message.plan_id, fact.message.socket_id)] = server_id_of(fact.message)
    return changed


def _keys_mentioned(raw: bytes) -> Iterable[str]:
    """Return the keys that a fact may have changed which this release does not understand: a newer one may have."""
    try:
        data: Any = pydantic_core.from_json(raw)["data"]
        plan_id, examinee_id, socket_id = (data.get(name) for name in ("planId", "examineeId", "socketId"))
    except (AttributeError, KeyError, TypeError, ValueError):
        return
    if isinstance(plan_id, str):
        yield from (keys.plan(plan_id), keys.plan_notices(plan_id))
        if isinstance(examinee_id, str):
            yield from (make(plan_id, examinee_id) for make in (keys.progress, keys.mobile_sync, keys.notices))
        if isinstance(socket_id, str):
            yield keys.socket(plan_id, socket_id)
