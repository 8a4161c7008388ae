"""Bring a Redis that holds the log up to a known sequence up to its end: it was restarted, or set back a little."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from actors.runtime.broker.stream_state import StoredMessage
from actors.runtime.store.state_store import StateStore
from actors.state_manager.places import save_records
from actors.state_manager.recovery.purge import PlanPurge, Purge
from actors.state_manager.recovery.restoration import RECORDS_A_TRIP, Repair, Restoration, is_empty
from actors.state_manager.recovery.restored_record import holds, in_flight, read_history, with_facts
from actors.status_log.status_log import DeadLettered, LogExtent, StatusLog, facts_of
from protocol.errors import NewerRecord, NotPermitted
from protocol.log.version import floor_version
from protocol.messages.base import Message
from protocol.messages.plan_facts import PlanPurged
from protocol.records import keys
from protocol.records.kinds import RecordKind
from protocol.records.placement import VersionedMessage, ends_socket, records_of
from protocol.rules.history import History

log = logging.getLogger("examwire.state_repair")

FACTS_AT_ONCE = 2000


class CatchUp:
    """Applies the facts that a Redis lacks. Raises `StateUnavailable`, `BrokerUnavailable`, `ConsumerGone`.

    Example::

        last = await CatchUp(store, status_log, restoration).run(applied, repair, renew)
    """

    def __init__(self, store: StateStore, status: StatusLog, restoration: Restoration) -> None:
        self._store = store
        self._status = status
        self._restoration = restoration
        self._purge = PlanPurge(store)

    async def run(self, applied: int, repair: Repair, go_on: Callable[[], Awaitable[None]]) -> int:
        """Apply what STATUS holds after `applied`; return the sequence of its last message.

        `go_on` is awaited after each portion.
        """
        extent = await self._status.extent()
        log.info("Redis was restarted or replaced: applying STATUS from %d to %d", applied + 1, extent.last)
        if applied + 1 < extent.first <= extent.last:
            log.error(
                "STATUS begins at %d, after the last message that Redis has: the messages between are lost",
                extent.first,
            )
        messages = self._status.read(max(applied + 1, extent.first), extent.last)
        await self.apply(messages, applied, extent, await dead_letters(self._status), repair, go_on)
        repair.found = "replaced" if repair.missing else "restarted"
        return extent.last

    async def apply(
        self,
        messages: AsyncIterator[StoredMessage],
        applied: int,
        extent: LogExtent,
        dead_lettered: DeadLettered,
        repair: Repair,
        go_on: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        """Apply messages of STATUS to records that hold everything up to `applied`."""
        # Facts above the ack floor must keep their places, also when they were in Redis before it was set back.
        settled = floor_version(min(applied, extent.acknowledged))
        items: list[VersionedMessage] = []
        async for stored in messages:
            repair.messages += 1
            items += [item for item in facts_of(stored) if isinstance(item, VersionedMessage)]
            purges = [item for item in items if isinstance(item.message, PlanPurged)]
            if purges or len(items) >= FACTS_AT_ONCE:
                await self._insert(items, settled, extent, dead_lettered, repair)
                items = []
                if go_on is not None:
                    await go_on()
            for item in purges:  # a message of its own
                assert isinstance(item.message, PlanPurged)
                await self._purge.delete(Purge.of(item.message, item.version))
        await self._insert(items, settled, extent, dead_lettered, repair)

    async def _insert(
        self,
        items: Sequence[VersionedMessage],
        settled: int,
        extent: LogExtent,
        dead_lettered: DeadLettered,
        repair: Repair,
    ) -> None:
        """Insert facts into their records. Everything up to `settled` is in Redis and acknowledged."""
        by_key: dict[str, list[tuple[int, Message]]] = {}
        kinds: dict[str, RecordKind[Any, Any]] = {}
        for item in items:
            for key, kind in records_of(item.message):
                kinds[key] = kind
                by_key.setdefault(key, []).append((item.version, item.message))
        for key in await self._without_effect(by_key, kinds):
            ineffective = {version for version, _ in by_key.pop(key)}
            items = [item for item in items if item.version not in ineffective]
        await save_records(self._store, items)
        remaining = list(by_key)
        while remaining:
            portion, remaining = remaining[:RECORDS_A_TRIP], remaining[RECORDS_A_TRIP:]
            stored = dict(zip(portion, await self._store.raw_hashes(portion), strict=True))
            histories: dict[str, History[Any, Any]] = {}
            for key in portion:
                try:
                    stored_history = read_history(kinds[key], key, stored[key])
                except NewerRecord as newer:
                    log.warning("%s stays as it is: %s", key, newer)
                    continue
                if stored_history is None and stored[key]:
                    continue  # damaged, which is no matter of what came last: `state rebuild`
                news = [version for version, _ in by_key[key] if not holds(stored_history, version)]
                acknowledged = floor_version(extent.acknowledged)
                repair.missing += sum(version <= acknowledged and version not in dead_lettered for version in news)
                history = with_facts(stored_history, kinds[key], by_key[key], settled)
                history = in_flight(history, extent)
                if any(version in dead_lettered for version in news):
                    history = replace(history, restatement_due=True)
                if history != stored_history:
                    histories[key] = history
            remaining += await self._restoration.write(histories, kinds, stored, repair)
            await self._restoration.restate(histories, repair)

    async def _without_effect(
        self, by_key: Mapping[str, Sequence[tuple[int, Message]]], kinds: Mapping[str, RecordKind[Any, Any]]
    ) -> list[str]:
        """Return the keys of records that do not exist and that these facts do not make: of plans that were purged."""
        unmade = [
            key
            for key, facts in by_key.items()
            if all(ends_socket(fact) for _, fact in facts)
            or is_empty(with_facts(None, kinds[key], facts, 0), kinds[key])
        ]
        stored = [
            stored_hash
            for start in range(0, len(unmade), RECORDS_A_TRIP)
            for stored_hash in await self._store.raw_hashes(unmade[start : start + RECORDS_A_TRIP])
        ]
        absent = [key for key, stored_hash in zip(unmade, stored, strict=True) if not stored_hash]
        plans = {keys.parse_key(key).plan_id for key in absent} - {""}
        purged = {plan_id for plan_id in plans if await self._status.purged_up_to(plan_id)}
        return [key for key in absent if keys.parse_key(key).plan_id in purged]


async def dead_letters(status: StatusLog) -> DeadLettered:
    """Return which facts are dead letters; none when they may not be read."""
    try:
        return await status.dead_lettered()
    except NotPermitted as error:
        # The permissions of an earlier release. That Redis comes back matters more than these few examinees.
        log.error("the facts of dead letters are not restated: %s", error)
        return DeadLettered()
