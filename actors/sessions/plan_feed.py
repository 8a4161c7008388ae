"""What the proctors of one plan on one server are sent: each event once, in the order of its version."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from contextlib import suppress

from websockets.exceptions import ConnectionClosed

from actors.runtime.store.state_store import StateStore
from actors.runtime.telemetry import spans, tracing
from actors.sessions.metrics import observe_told
from actors.sessions.plan_snapshot import OVERLAP_SECONDS, REUSE, SharedSnapshot, text_of
from actors.sessions.proctor_session import ProctorSession
from protocol.client.plan_view import Parsed, event_key
from protocol.messages.facts import Aspect, LossReason

log = logging.getLogger("examwire.plan_feed")


class PlanFeed:
    """Drops what a newer version has overtaken and sends the rest to every proctor, encoded once.

    A proctor who comes is sent a snapshot, as fast as the socket takes it, then the events since its reading began, and
    is live from then on. Those who come while one is read, or soon after, share it. `heal` has the record at a key
    written anew.
    """

    def __init__(
        self,
        plan_id: str,
        store: StateStore,
        max_buffer_bytes: int,
        heal: Callable[[str], None] = lambda _key: None,
        now: Callable[[], float] = time.time,
    ) -> None:
        self.plan_id = plan_id
        self.proctors: set[ProctorSession] = set()
        self._store = store
        self._max_buffer = max_buffer_bytes
        self._heal = heal
        self._now = now
        self._versions: dict[tuple[str, Aspect], int] = {}
        self._snapshots: dict[SharedSnapshot, asyncio.Task[None]] = {}
        self.sent = self.dropped = self.read = 0

    # -- events --------------------------------------------------------------------------------------

    def broadcast(self, events: list[Parsed], payload: bytes | None = None) -> None:
        """Send events of the plan on, each checked to be one; `payload` holds these and no others."""
        news = [event for event in events if self._is_news(event)]
        self.dropped += len(events) - len(news)
        if news:
            self._send(news, payload if payload is not None and len(news) == len(events) else text_of(news))

    def _send(self, news: list[Parsed], payload: bytes) -> None:
        self.sent += len(news)
        since = spans.now()
        told: dict[SharedSnapshot | None, bytes] = {one: one.add(news, payload) for one in self._snapshots}
        for proctor in list(self.proctors):
            if proctor.live and (text := told.get(proctor.snapshot, payload)):
                proctor.connection.send_now(text)
            if (wait := proctor.piled_up) > self._max_buffer:
                log.warning("%s reads too slowly: %d bytes wait", proctor.address, wait, extra=proctor.about())
                self.leave(proctor)
                proctor.connection.break_off(LossReason.SLOW_CLIENT.value)
        for snapshot in list(self._snapshots):
            if not snapshot.complete and snapshot.since_bytes > self._max_buffer:
                self._read_anew(snapshot)
        if any(proctor.live for proctor in self.proctors):
            observe_told(news, self._now())
        if tracing.on():
            spans.record_delivered(news, len(self.proctors), since)

    def _is_news(self, event: Parsed) -> bool:
        version = event["data"]["version"]
        aspect = event_key(event)
        if version <= self._versions.get(aspect, 0):
            return False
        self._versions[aspect] = version
        return True

    # -- snapshots -----------------------------------------------------------------------------------

    def join(self, proctor: ProctorSession) -> None:
        """Send a proctor every examinee of the plan, then what is told since, as the socket takes it."""
        self.proctors.add(proctor)
        self._give(proctor, next((one for one in self._snapshots if one.joinable), None) or self._open())

    def leave(self, proctor: ProctorSession) -> None:
        """Send this proctor nothing more."""
        self.proctors.discard(proctor)
        if proctor.taking is not None:
            proctor.taking.cancel()

    def resynchronise(self) -> None:
        """Send everybody a new snapshot: events were dropped."""
        for snapshot in self._snapshots:
            snapshot.fresh = False
        fresh = self._open(resync=True)
        for proctor in self.proctors:
            self._give(proctor, fresh)

    def _read_anew(self, snapshot: SharedSnapshot) -> None:
        """Begin again: more was told while this snapshot was read than may wait for a client."""
        log.warning("plan %s: the snapshot is read anew: %d bytes of events wait", self.plan_id, snapshot.since_bytes)
        self._snapshots.pop(snapshot).cancel()
        fresh = self._open(resync=snapshot.resync)
        for proctor in self.proctors:
            if proctor.snapshot is snapshot:
                self._give(proctor, fresh)

    def _open(self, *, resync: bool = False) -> SharedSnapshot:
        snapshot = SharedSnapshot(self.plan_id, self._store, self._heal, resync=resync)
        begun = time.monotonic()
        reading = asyncio.create_task(snapshot.read(), name=f"snapshot.{self.plan_id}")
        self._snapshots[snapshot] = reading
        reading.add_done_callback(lambda _: self._was_read(snapshot, reading, time.monotonic() - begun))
        return snapshot

    def _was_read(self, snapshot: SharedSnapshot, reading: asyncio.Task[None], seconds: float) -> None:
        if reading.cancelled():
            self._snapshots.pop(snapshot, None)
            return
        if (error := reading.exception()) is not None:
            snapshot.fail(error)
            return
        self.read += 1
        loop = asyncio.get_running_loop()
        loop.call_later(seconds * REUSE, self._no_longer_fresh, snapshot)
        # Events that the snapshot contains are on their way for a moment only.
        loop.call_later(OVERLAP_SECONDS, self._no_longer_overlaps, snapshot)

    def _no_longer_fresh(self, snapshot: SharedSnapshot) -> None:
        snapshot.fresh = False
        self._tidy(snapshot)

    def _no_longer_overlaps(self, snapshot: SharedSnapshot) -> None:
        snapshot.known = {}
        self._tidy(snapshot)

    def _tidy(self, snapshot: SharedSnapshot) -> None:
        """Give back what nobody needs any more."""
        if snapshot.takers or snapshot not in self._snapshots:
            return
        if not snapshot.complete:
            self._snapshots.pop(snapshot).cancel()
        elif not snapshot.fresh:
            snapshot.forget_frames()
            if not snapshot.known:
                del self._snapshots[snapshot]

    def _give(self, proctor: ProctorSession, snapshot: SharedSnapshot) -> None:
        if proctor.taking is not None:
            proctor.taking.cancel()
        proctor.snapshot, proctor.caught_up = snapshot, 0
        snapshot.takers += 1
        proctor.taking = taking = proctor.spawn(self._send_snapshot(proctor, snapshot), "snapshot")
        taking.add_done_callback(lambda _: self._taken(proctor, snapshot, taking))

    def _taken(self, proctor: ProctorSession, snapshot: SharedSnapshot, taking: asyncio.Task[None]) -> None:
        if proctor.taking is taking:
            proctor.taking = None
        snapshot.takers -= 1
        self._tidy(snapshot)

    async def _send_snapshot(self, proctor: ProctorSession, snapshot: SharedSnapshot) -> None:
        connection = proctor.connection
        with suppress(ConnectionClosed):
            async for frame in snapshot.frames():
                await connection.send(frame, text=True)
            waited = len(snapshot.since)
            for events in snapshot.since[:waited]:
                proctor.caught_up += len(events)
                await connection.send(events, text=True)
            for events in snapshot.since[waited:]:
                connection.send_now(events)
            proctor.taking = None
