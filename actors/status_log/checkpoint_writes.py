"""Write checkpoints of records as Redis has them now, and delete those of records that Redis has no more."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace

import pydantic_core

from actors.runtime.broker.connection import Bus, Outgoing
from actors.runtime.store.state_store import StateStore
from actors.status_log.record_checkpoints import (
    CheckpointedKey,
    Manifest,
    PartCheckpoint,
    RecordCheckpoints,
    SocketPlace,
)
from protocol.broker import subjects
from protocol.broker.streams import RECORDS
from protocol.errors import BrokerUnavailable, StateDamaged, StreamFull, WrongLastSequence
from protocol.log.partitions import part_of
from protocol.messages.facts import ConnectionStatusCode
from protocol.messages.progress import SERVERS_PART
from protocol.records import keys
from protocol.records.placement import ENDED_SOCKET_SECONDS, record_kind
from protocol.times import parse_time

log = logging.getLogger("examwire.checkpoints")

KEYS_A_BATCH = 250
BATCH_BYTES = 4 * 1024 * 1024
ATTEMPTS = 20
AGAIN_SECONDS = 0.1
LEAST_PAYLOAD = 64 * 1024
"""Room that the broker's limit must leave for the headers of a message."""

Keys = Mapping[str, str | None]
"""Keys of records and sockets; of a socket with its server, by default the one in its name."""


_NAMED = re.compile(r"[A-Za-z0-9_:-]+")
"""Keys of ours: anything may lie in Redis, and a subject must not become a pattern."""


async def _no_pause() -> None:
    pass


@dataclass(slots=True)
class Copies:
    """Checkpoints of some keys of Redis. `absent`: Redis does not have them. `too_large`: no message can hold them."""

    messages: list[Outgoing] = field(default_factory=list)
    absent: list[str] = field(default_factory=list)
    too_large: list[str] = field(default_factory=list)


class CheckpointWrites:
    """Copies keys from Redis to RECORDS. Raises `BrokerUnavailable`, `NotPermitted`, `StateUnavailable`, `StateLost`.

    Example::

        writes = CheckpointWrites(bus, store)
        await writes.forget_plan("P001")  # after its records were deleted from Redis
    """

    def __init__(self, bus: Bus, store: StateStore) -> None:
        self._bus = bus
        self._store = store
        self._checkpoints = RecordCheckpoints(bus)

    async def write(
        self,
        checkpoint: PartCheckpoint,
        copied: Keys,
        manifest: Manifest | None = None,
        *,
        listed: Collection[str] = (),
        pause: Callable[[], Awaitable[None]] = _no_pause,
    ) -> tuple[PartCheckpoint, Copies]:
        """Write the checkpoints of these keys of a part, and the manifest after the last of them.

        `checkpoint` was read before anything that decided about the keys. Without a `manifest` the part keeps the one
        it has. The plans in `listed` get a checkpoint of their record also if they have none: it lists them. `pause` is
        awaited between two batches. Raises `WrongLastSequence`: somebody else writes this part.
        """
        total = Copies()
        last: list[Outgoing] = []
        items = list(copied.items())
        for start in range(0, len(items), KEYS_A_BATCH):
            if start:
                await pause()
            portion = await self._copies(dict(items[start : start + KEYS_A_BATCH]), listed)
            total.absent += portion.absent
            total.too_large += portion.too_large
            for batch in _batches(portion.messages):
                if last:
                    # Whoever reads RECORDS meanwhile sees the manifest from before: it is true until the last batch.
                    checkpoint = await self._checkpoints.write(checkpoint, None, last)
                last = batch
        if manifest is not None and total.too_large:
            log.error(
                "part %s: no newer checkpoint, because a record is too large for a message: %s",
                checkpoint.part,
                total.too_large,
            )
            manifest = None
        return await self._checkpoints.write(checkpoint, manifest, last), total

    async def rewrite(self, changed: Iterable[str]) -> None:
        """Bring the checkpoints of these keys up to what Redis has now: they were changed by no fact of the log."""
        by_part: dict[str, dict[str, str | None]] = {}
        for key in changed:
            record = keys.parse_key(key)
            if (record.kind == "socket" or record_kind(record) is not None) and _NAMED.fullmatch(key):
                by_part.setdefault(part_of(record.plan_id), {})[key] = None
        for part, copied in by_part.items():
            if await self._has_checkpoints():
                await self._bring_up(part, lambda copied=copied: _given(copied))  # type: ignore[misc]

    async def forget_plan(self, plan_id: str) -> None:
        """Delete the checkpoints of a plan whose records were deleted. Where the plan is in use again, the new stay."""
        part = part_of(plan_id)
        if not await self._has_checkpoints():
            return
        try:
            fenced = await self._bring_up(part, lambda: _given({}))
        except StreamFull:
            await self._make_room(plan_id)
            fenced = await self._bring_up(part, lambda: _given({}))
        await self._forget_live(plan_id)
        if plan_id in await self._store.members(keys.PLANS):
            await self._bring_up(part, lambda: self._known(plan_id))
        else:
            await self._bus.purge_stream(RECORDS.name, subjects.records_of_plan(plan_id), up_to=fenced.place)

    async def forget_examinee(self, plan_id: str, examinee_id: str) -> None:
        """Delete the checkpoints of an examinee whose records were deleted, and write those of the plan anew."""
        part = part_of(plan_id)
        if not await self._has_checkpoints():
            return
        try:
            await self._bring_up(part, lambda: self._known(plan_id, examinee_id))
        except StreamFull:
            await self._make_room(plan_id, examinee_id)
            await self._bring_up(part, lambda: self._known(plan_id, examinee_id))

    async def _make_room(self, plan_id: str, examinee_id: str | None = None) -> None:
        """Delete the checkpoints of what Redis does not have. The stream is full: nobody can write any now."""
        known = list((await self._known(plan_id, examinee_id)).items())
        for start in range(0, len(known), KEYS_A_BATCH):
            copies = await self._copies(dict(known[start : start + KEYS_A_BATCH]), ())
            for key in copies.absent:
                await self._bus.purge_stream(RECORDS.name, subjects.record(key))

    async def _forget_live(self, plan_id: str) -> None:
        """Remove a plan from the counts of live sessions."""
        for _ in range(ATTEMPTS):
            checkpoint = await self._checkpoints.checkpoint(SERVERS_PART)
            manifest = checkpoint.manifest
            if manifest is None or manifest.live is None or plan_id not in manifest.live:
                return
            live = {other: count for other, count in manifest.live.items() if other != plan_id}
            with suppress(WrongLastSequence):
                await self._checkpoints.write(checkpoint, manifest.model_copy(update={"live": live}))
                return

    async def _known(self, plan_id: str, examinee_id: str | None = None) -> dict[str, str | None]:
        """Return the keys that checkpoints exist of: about a plan, or about an examinee and the records of the plan."""
        known: dict[str, str | None] = {}
        async for checkpointed in self._checkpoints.read(part_of(plan_id), plan_id):
            record = keys.parse_key(checkpointed.key)
            owner = checkpointed.fields.get("examineeId") if record.kind == "socket" else record.examinee_id
            if examinee_id is None or owner == examinee_id or record.kind in ("plan", "plan_notices"):
                known[checkpointed.key] = checkpointed.entry.server if checkpointed.entry is not None else None
        return known

    async def _has_checkpoints(self) -> bool:
        """Return whether there may be any: in the stream of a system that a release with checkpoints has set up."""
        return await self._bus.stream_config(RECORDS.name) is not None

    async def _bring_up(self, part: str, keys_of: Callable[[], Awaitable[Keys]]) -> PartCheckpoint:
        """Write the keys that Redis has, then delete the checkpoints of the others.

        The manifest is written anew in any case: what another writer has read from Redis before is refused.
        """
        for _ in range(ATTEMPTS):
            checkpoint = await self._checkpoints.checkpoint(part)
            try:
                in_use = await self._store.members(keys.PLANS)
                checkpoint, copies = await self.write(checkpoint, await keys_of(), listed=in_use)
                if copies.too_large:
                    checkpoint = await self._checkpoints.write(checkpoint, Manifest(sequence=0))  # made anew
            except WrongLastSequence:
                await asyncio.sleep(AGAIN_SECONDS)
                continue
            for key in (*copies.absent, *copies.too_large):
                await self._bus.purge_stream(RECORDS.name, subjects.record(key), up_to=checkpoint.place)
            return checkpoint
        raise BrokerUnavailable(f"part {part}: somebody else writes its checkpoints all the time")

    async def _copies(self, copied: Keys, listed: Collection[str]) -> Copies:
        """Read these keys in one round trip."""
        parsed = {key: keys.parse_key(key) for key in copied}
        owners = {
            (keys.plan_examinees(record.plan_id), record.examinee_id)
            for record in parsed.values()
            if record.examinee_id
        }
        places = {
            key: (server or key.rpartition(":")[2].rpartition("-")[0], key.rpartition(":")[2])
            for key, server in copied.items()
            if parsed[key].kind == "socket"
        }
        hashes, members, entries = await self._store.copies(
            list(copied),
            sorted(owners),
            [(keys.server_sockets(server), socket_id) for server, socket_id in places.values()],
        )
        limit = int(self._bus.server_info.get("max_payload", 0)) - LEAST_PAYLOAD
        members_of_plans = {owner for owner, member in zip(sorted(owners), members, strict=True) if member}
        entry_of = dict(zip(places, entries, strict=True))
        copies, unreadable = Copies(), list[str]()
        for key, stored in zip(copied, hashes, strict=True):
            record = parsed[key]
            if isinstance(stored, StateDamaged) or not _is_readable(key, stored):
                unreadable.append(key)  # an older checkpoint is worth more than this
                continue
            if not stored and not (record.kind == "plan" and record.plan_id in listed):
                copies.absent.append(key)
                continue
            value = entry_of.get(key)
            checkpointed = CheckpointedKey(
                key,
                stored,
                (keys.plan_examinees(record.plan_id), record.examinee_id) in members_of_plans,
                SocketPlace(places[key][0], value) if value is not None else None,
            )
            message = checkpointed.encode()
            if record.kind == "socket" and stored.get("status") == ConnectionStatusCode.DISCONNECTED:
                headers = {**message.headers, "Nats-TTL": f"{self._seconds_left(stored)}s"}
                message = replace(message, headers=headers)
            if len(message.payload) > limit:
                copies.too_large.append(key)
            else:
                copies.messages.append(message)
        if unreadable:
            text = "%d records cannot be read: their checkpoints stay as they are. The first is %s"
            log.warning(text, len(unreadable), unreadable[0])
        return copies

    def _seconds_left(self, socket: Mapping[str, str]) -> int:
        """Return for how long Redis keeps the record of a socket that has ended."""
        try:
            ended_at = parse_time(socket.get("lastHeartbeat", ""))
        except ValueError:
            return ENDED_SOCKET_SECONDS
        return max(1, round(ENDED_SOCKET_SECONDS - (self._bus.clock.now() - ended_at)))


def _is_readable(key: str, stored: Mapping[str, str]) -> bool:
    """Return whether a record has a history. One of a newer format is copied as it is."""
    if not stored or record_kind(keys.parse_key(key)) is None:
        return True
    try:
        return "base" in pydantic_core.from_json(stored["history"])
    except (KeyError, TypeError, ValueError):
        return False


async def _given(copied: Keys) -> Keys:
    return copied


def _batches(messages: Sequence[Outgoing]) -> Iterable[list[Outgoing]]:
    """Cut messages into batches of at most `BATCH_BYTES`."""
    batch: list[Outgoing] = []
    size = 0
    for message in messages:
        if batch and size + len(message.payload) > BATCH_BYTES:
            yield batch
            batch, size = [], 0
        batch.append(message)
        size += len(message.payload)
    if batch:
        yield batch
