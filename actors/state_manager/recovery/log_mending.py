"""Mend a log that is behind Redis: go on above it, keep what only Redis holds, and have everybody told.

One state manager does it. Each step may be repeated after a crash, and by another manager at the same time:

1. Find where the log that is known ends: everything stored later is newer than what Redis knows of.
2. Publish fillers until the log has passed the newest message that Redis knows. The broker cannot skip sequences
   without dropping the messages before them.
3. Store the gap in the log, for ever.
4. Move the facts that came meanwhile behind the gap: below it their versions would be too low to have any effect.
5. Mark the records that hold facts of the gap, and have their states published again, with timers and attempts.
6. Have all live sessions announced again.
"""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from actors.runtime.broker.connection import Bus, Outgoing
from actors.runtime.broker.consumers.stream_reader import read_stream
from actors.runtime.broker.stream_state import StoredMessage
from actors.runtime.store.log_mark import KnownLog
from actors.runtime.store.state_store import StateStore
from actors.state_manager.recovery.announcement import announce_sessions
from actors.state_manager.recovery.restored_record import read_history
from actors.status_log.checkpoint_writes import CheckpointWrites
from actors.status_log.status_log import StatusLog
from protocol.broker import subjects
from protocol.broker.stream_codecs import encode_wait
from protocol.broker.streams import STATUS
from protocol.errors import BrokerUnavailable, NewerRecord, NotPermitted, StateDamaged, StreamFull
from protocol.log import entries
from protocol.log.gap import LogGap
from protocol.log.version import floor_version
from protocol.records import keys
from protocol.records.kinds import RecordKind
from protocol.records.placement import record_kind, restate_fact
from protocol.records.writes import GuardedWrite
from protocol.rules.connection import awaits_reconnect
from protocol.rules.connection_state import ConnectionState
from protocol.rules.history import History, fold
from protocol.times import format_time

log = logging.getLogger("examwire.log_guard")

FILLER_SECONDS = 10
"""Fillers expire after so long."""
FILLERS_AT_ONCE = 1000
"""The most messages that nats-server takes in one atomic batch."""
RECORDS_A_TRIP = 200
CLOCK_SECONDS = 0.001
_PATTERNS = ("plan:*", "SERVER_ID:*:status")


class LogMending:
    """Mends the log. Raises `BrokerUnavailable`, `StateUnavailable`; may be repeated at any time.

    Example::

        gap = await LogMending(bus, store, StatusLog(bus)).mend(await store.log_mark.read())
    """

    def __init__(self, bus: Bus, store: StateStore, status: StatusLog) -> None:
        self._bus = bus
        self._status = status
        self._store = store

    async def mend(self, known: KnownLog) -> None:
        """Mend the log, which does not hold the message that is `known`."""
        began = time.monotonic()
        await self._store.log_mark.begin_mending(known)
        after = await self._known_end(known)
        await fill_log(self._bus, known.reached)
        gap, place = await self._store_gap(after, known)
        moved = await self._move(after, place)
        kept = await self._keep_records(gap)
        stored = await self._bus.message_at(STATUS.name, place)
        assert stored is not None
        servers = await announce_sessions(self._bus, "LOG_BEHIND")
        await self._store.log_mark.end_mending(gap, place, stored.time)
        text = (
            "the log is mended: it continues after message %d; %s, %d records hold what the log lacks and are kept, "
            "%d newer facts were moved, the sessions of %d servers are announced again, %.2f s"
        )
        log.error(text, place, gap, kept, moved, len(servers), time.monotonic() - began)

    # -- 1: where the known log ends ---------------------------------------------------------------------

    async def _known_end(self, known: KnownLog) -> int:
        """Return the sequence of the last message that was stored before the newest one that is known."""
        state = await self._bus.stream_state(STATUS.name)
        first, end = state.first, state.last + 1
        while first < end:
            middle = (first + end) // 2
            stored = await self._bus.next_message(STATUS.name, ">", middle)
            if stored is None or stored.time > known.time + CLOCK_SECONDS:
                end = middle
            else:
                first = stored.sequence + 1
        return first - 1

    # -- 2 and 3: above everything that is known ---------------------------------------------------------

    async def _store_gap(self, after: int, known: KnownLog) -> tuple[LogGap, int]:
        """Store the gap, unless it was stored before; return it with its sequence."""
        newest = await self._status.newest_gap()
        if newest is not None and newest[0].up_to == known.reached:
            return newest
        last = await self._bus.message_at(STATUS.name, after)
        gap = LogGap(
            after=after,
            up_to=known.reached,
            missing_from=format_time(last.time if last is not None else known.time),
            missing_to=format_time(known.time),
            timestamp=format_time(self._bus.clock.now()),
        )
        message = Outgoing(subjects.LOG_GAP, gap.encode(), f"gap:{known.reached}", {"Nats-TTL": "never"})
        (ack,) = await self._bus.publish_until_stored([message])
        return gap, ack.sequence

    # -- 4: facts that came too early ---------------------------------------------------------------------

    async def _move(self, after: int, place: int) -> int:
        """Publish the facts between the known end and the place of the gap again, and delete them there."""
        early = [
            stored
            for subject in (subjects.status_server("*"), "status.plan.>")  # not through all the fillers
            async for stored in read_stream(self._bus, STATUS.name, subject=subject, first=after + 1, last=place)
        ]
        early.sort(key=lambda stored: stored.sequence)
        messages = [self._copy(stored) for stored in early]
        await self._bus.publish_in_batches(messages)
        for stored in early:
            await self._bus.delete_message(STATUS.name, stored.sequence)
        return len(early)

    def _copy(self, stored: StoredMessage) -> Outgoing:
        message_id = f"moved:{stored.sequence}"
        schedule = stored.headers.get(entries.SCHEDULER)
        if schedule is not None:
            # Only the broker publishes what a schedule brings: it is scheduled for now.
            moment = format_time(self._bus.clock.now() + 1)
            due = {"Nats-Schedule": f"@at {moment[:19]}Z", "Nats-Schedule-Target": stored.subject}
            return Outgoing(schedule, stored.payload, message_id, due)
        headers = {name: value for name, value in stored.headers.items() if not name.startswith("Nats-")}
        return Outgoing(stored.subject, stored.payload, message_id, headers)

    # -- 5: what only Redis holds ------------------------------------------------------------------------

    async def _keep_records(self, gap: LogGap) -> int:
        """Mark the records that hold facts of the gap, and have what follows from them published again."""
        found = {key for pattern in _PATTERNS for key in await self._store.raw_keys(pattern)}
        remaining = [key for key in sorted(found) if record_kind(keys.parse_key(key)) is not None]
        kept: set[str] = set()
        while remaining:
            portion, remaining = remaining[:RECORDS_A_TRIP], remaining[RECORDS_A_TRIP:]
            histories: dict[str, History[Any, Any]] = {}
            writes = []
            for key, stored in zip(portion, await self._store.raw_hashes(portion), strict=True):
                kind = record_kind(keys.parse_key(key))
                assert kind is not None
                try:
                    history = read_history(kind, key, stored)
                except NewerRecord as newer:
                    log.warning("%s stays as it is: %s", key, newer)
                    continue
                if history is None or isinstance(stored, StateDamaged) or not _is_in(history, gap):
                    continue
                histories[key] = history = replace(history, kept=floor_version(gap.up_to))
                fields = kind.write(history, fold(history, kind.rule), secrets.randbits(52) + 1)
                written = {name: fields[name] for name in ("rev", "history")}
                writes.append(GuardedWrite(key, "rev", stored.get("rev", "0"), written))
            verdicts = await self._store.replace(writes)
            remaining += [write.key for write, done in zip(writes, verdicts, strict=True) if not done]
            kept.update(write.key for write, done in zip(writes, verdicts, strict=True) if done)
            await self._publish_again(histories, gap)
        try:
            # At once: until a checkpoint holds them, nothing but this Redis does.
            await CheckpointWrites(self._bus, self._store).rewrite(kept)
        except (StreamFull, NotPermitted) as error:
            log.error("what only Redis holds is not in the checkpoints yet: %s", error)
        return len(kept)

    async def _publish_again(self, histories: dict[str, History[Any, Any]], gap: LogGap) -> None:
        """Request that states are published again, with their timers; and restart the attempts of who is away."""
        messages = []
        now = format_time(self._bus.clock.now())
        for key, history in histories.items():
            record = keys.parse_key(key)
            message = restate_fact(record, now)
            if message is None:
                continue  # a server's record: nobody is told of it
            subject = subjects.status_plan(message.plan_id, subjects.MANAGER)
            messages.append(Outgoing.of(subject, message, message_id=f"kept:{key}:{gap.up_to}"))
            kind: RecordKind[Any, Any] | None = record_kind(record)
            assert kind is not None
            state = fold(history, kind.rule)
            # A restated loss without an attempt begins them anyway.
            if isinstance(state, ConnectionState) and state.attempt and awaits_reconnect(state):
                wait = encode_wait(state.loss_version)
                address = subjects.reconnect(state.plan_id, state.examinee_id)
                await self._bus.publish_until_stored(
                    [Outgoing(address, wait, f"kept:{state.loss_version}:{gap.up_to}")]
                )
        await self._bus.publish_until_stored(messages)


async def fill_log(bus: Bus, up_to: int) -> None:
    """Publish fillers until the log has reached a sequence. Raises `BrokerUnavailable` when its end is not known."""
    while (missing := up_to - (await bus.stream_state(STATUS.name)).last) > 0:
        log.warning("%d messages are missing in the log: filling their places", missing)
        for start in range(0, missing, FILLERS_AT_ONCE):
            try:
                count = min(FILLERS_AT_ONCE, missing - start)
                await bus.publish_fillers(subjects.LOG_FILLER, count, FILLER_SECONDS)
            except BrokerUnavailable as error:
                log.warning("fillers were not stored: %s", error)
                break


def _is_in(history: History[Any, Any], gap: LogGap) -> bool:
    """Return whether a record holds facts of a gap."""
    versions: Sequence[int] = [history.base.version, *(version for version, _ in history.facts)]
    return any(gap.covers(version) for version in versions)
