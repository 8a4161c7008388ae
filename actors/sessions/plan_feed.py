"""The feed of one plan on one server: what its proctors are sent, each event once and in the order of its version."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from actors.runtime.actor.actor import Actor, on
from actors.runtime.telemetry import spans, tracing
from actors.sessions.context import ServerContext
from actors.sessions.frames.plain import text_frame
from actors.sessions.metrics import observe_told
from actors.sessions.plan_snapshot import OVERLAP_SECONDS, REUSE, SharedLabels, SharedSnapshot, text_of
from actors.sessions.proctor_session import ProctorSession
from protocol.access.scope import Scope, scoped_events
from protocol.broker import subjects
from protocol.broker.passed_on import PlanEvent
from protocol.client.plan_view import EventKey
from protocol.messages.codec import encode
from protocol.messages.session_messages import ProctorActivity

log = logging.getLogger("examwire.plan_feed")

MOVE_SECONDS = 0.5
"""So long after somebody came into a scope, or left it, its proctors get a new snapshot: many move at once."""


@dataclass(frozen=True, slots=True)
class PlanEvents:
    """Events of the plan, each checked to be one; at most as many as fit into a frame."""

    events: Sequence[PlanEvent]


@dataclass(frozen=True, slots=True)
class ActivityOfOther:
    """Tell every proctor but the one themselves what that one is doing."""

    activity: ProctorActivity


@dataclass(frozen=True, slots=True)
class Join:
    """Send this proctor a snapshot, and the events from then on."""

    proctor: ProctorSession


@dataclass(frozen=True, slots=True)
class Leave:
    """Send this proctor nothing more."""

    proctor: ProctorSession


@dataclass(frozen=True, slots=True)
class Resynchronise:
    """Send every proctor a new snapshot: events were dropped."""


class PlanFeed(Actor):
    """Sends the events of one plan to its proctors, encoded once for all of a scope. Its handlers never wait.

    feed = PlanFeed(context, "P001")
    await feed.start(on_failure)
    feed.tell(Join(proctor))
    feed.tell(PlanEvents(events))

    An event that a newer version has overtaken is dropped. A proctor who joins is sent a snapshot as fast as the client
    takes it, then the events since the reading of the snapshot began, and then the events as they come. Proctors who
    join while a snapshot is read, or soon after, share it.

    A proctor with a scope is told of the examinees in it only. Those of the same scope share snapshots and encoded
    events; when somebody comes into the scope or leaves it, they are sent a new snapshot.
    """

    kind = "plan-feed"
    handles_at_once = True

    def __init__(self, context: ServerContext, plan_id: str) -> None:
        super().__init__(subjects.socket_proctors(plan_id))
        self.plan_id = plan_id
        self.proctors: set[ProctorSession] = set()
        self._context = context
        self._max_unread_bytes = context.settings.socket.max_buffer_bytes
        self._versions: dict[EventKey, int] = {}
        self._snapshots: dict[SharedSnapshot, asyncio.Task[None]] = {}
        self._shared_labels = SharedLabels()
        self._labels = self._shared_labels.labels
        self._moves: dict[Scope, asyncio.TimerHandle] = {}
        self._sent = self._dropped = self._snapshots_read = 0

    def about(self) -> dict[str, str]:
        return {"plan": self.plan_id}

    def details(self) -> dict[str, Any]:
        return {
            "planId": self.plan_id,
            "proctors": len(self.proctors),
            "eventsSent": self._sent,
            "eventsDropped": self._dropped,
            "snapshotsRead": self._snapshots_read,
        }

    async def on_stop(self) -> None:
        for reading in self._snapshots.values():
            reading.cancel()
        for move in self._moves.values():
            move.cancel()
        self.proctors.clear()  # the timers of snapshots keep this feed for some seconds, but not its proctors

    # -- events --------------------------------------------------------------------------------------

    @on(PlanEvents)
    def broadcast(self, message: PlanEvents) -> None:
        newer: list[PlanEvent] = []
        versions = self._versions
        for event in message.events:
            if event.version > versions.get(event.key, 0):
                versions[event.key] = event.version
                newer.append(event)
        self._dropped += len(message.events) - len(newer)
        if newer:
            self._send(newer)

    def _send(self, events: list[PlanEvent]) -> None:
        self._sent += len(events)
        since = spans.now()
        told = self._by_scope(events)
        beyond: dict[SharedSnapshot | None, bytes] = {
            snapshot: snapshot.add(*told[snapshot.scope]) for snapshot in self._snapshots
        }
        texts = {*beyond.values(), *(text for _, text in told.values())} - {b""}
        frames = {text: text_frame(text) for text in texts}
        for proctor in list(self.proctors):
            if proctor.live and (text := beyond.get(proctor.snapshot, told[proctor.scope][1])):
                proctor.connection.send_frame(frames[text])
            if (waiting := proctor.unread_bytes) > self._max_unread_bytes:
                self._remove(proctor)
                proctor.abort_slow("%d bytes wait to be read", waiting)
        for snapshot in list(self._snapshots):
            if not snapshot.complete and snapshot.since_bytes > self._max_unread_bytes:
                self._read_again(snapshot)
        if any(proctor.live for proctor in self.proctors):
            observe_told(events, self._context.clock.now())
        if tracing.on():
            spans.record_delivered((event.parsed for event in events), len(self.proctors), since)

    def _by_scope(self, events: list[PlanEvent]) -> dict[Scope | None, tuple[list[PlanEvent], bytes]]:
        """Return the events for each scope with their text; `None`: for those who see the whole plan."""
        told: dict[Scope | None, tuple[list[PlanEvent], bytes]] = {None: (events, text_of(events))}
        scopes = {proctor.scope for proctor in self.proctors} | {snapshot.scope for snapshot in self._snapshots}
        if scopes <= {None}:
            for event in events:
                if (labels := event.labels) is not None:
                    self._labels.tell(event.key[0], event.version, labels)
            return told
        parsed = [event.parsed for event in events]
        as_it_is = {id(message): event for message, event in zip(parsed, events, strict=True)}
        changes = [self._labels.update(message) for message in parsed]
        for scope in scopes:
            if scope is not None:
                scoped = scoped_events(parsed, changes, scope, self._labels)
                in_scope = [as_it_is.get(id(message)) or PlanEvent.of(message) for message in scoped.events]
                told[scope] = in_scope, text_of(in_scope)
                if scoped.moved and scope not in self._moves:
                    loop = asyncio.get_running_loop()
                    self._moves[scope] = loop.call_later(MOVE_SECONDS, self._moved, scope)
        return told

    def _moved(self, scope: Scope) -> None:
        """Send the proctors of a scope a new snapshot, for others are in it now."""
        del self._moves[scope]
        self._resynchronise({scope})

    @on(ActivityOfOther)
    def tell_activity(self, message: ActivityOfOther) -> None:
        frame = text_frame(encode(message.activity))
        labels = self._labels.of(message.activity.examinee_id)
        for proctor in self.proctors:
            concerned = proctor.scope is None or proctor.scope.matches(labels)
            if proctor.live and concerned and proctor.socket_id != message.activity.socket_id:
                proctor.connection.send_frame(frame)

    # -- proctors ------------------------------------------------------------------------------------

    @on(Join)
    def join(self, message: Join) -> None:
        self.proctors.add(message.proctor)
        scope = message.proctor.scope
        joinable = (snapshot for snapshot in self._snapshots if snapshot.scope == scope and snapshot.joinable)
        self._send_snapshot(message.proctor, next(joinable, None) or self._begin_snapshot(scope))

    @on(Leave)
    def leave(self, message: Leave) -> None:
        self._remove(message.proctor)

    def _remove(self, proctor: ProctorSession) -> None:
        self.proctors.discard(proctor)
        proctor.stop_snapshot()

    @on(Resynchronise)
    def resynchronise(self, _message: Resynchronise) -> None:
        self._labels.clear()
        self._resynchronise({proctor.scope for proctor in self.proctors})

    def _resynchronise(self, scopes: set[Scope] | set[Scope | None]) -> None:
        for snapshot in self._snapshots:
            if snapshot.scope in scopes:
                snapshot.expire()
        for scope in scopes:
            if proctors := [proctor for proctor in self.proctors if proctor.scope == scope]:
                snapshot = self._begin_snapshot(scope, resync=True)
                for proctor in proctors:
                    self._send_snapshot(proctor, snapshot)

    # -- snapshots -----------------------------------------------------------------------------------

    def _read_again(self, snapshot: SharedSnapshot) -> None:
        """Begin a new snapshot instead of one during whose reading more events came than may wait for a client."""
        log.warning(
            "plan %s: reading the snapshot again: %d bytes of events are waiting", self.plan_id, snapshot.since_bytes
        )
        self._snapshots.pop(snapshot).cancel()
        new_snapshot = self._begin_snapshot(snapshot.scope, resync=snapshot.resync)
        for proctor in self.proctors:
            if proctor.snapshot is snapshot:
                self._send_snapshot(proctor, new_snapshot)

    def _begin_snapshot(self, scope: Scope | None, *, resync: bool = False) -> SharedSnapshot:
        snapshot = SharedSnapshot(self._context, self.plan_id, resync=resync, scope=scope, labels=self._shared_labels)
        began = time.monotonic()
        reading = asyncio.create_task(snapshot.read(), name=f"snapshot.{self.plan_id}")
        self._snapshots[snapshot] = reading
        reading.add_done_callback(lambda _: self._snapshot_read(snapshot, reading, time.monotonic() - began))
        return snapshot

    def _snapshot_read(self, snapshot: SharedSnapshot, reading: asyncio.Task[None], seconds: float) -> None:
        if reading.cancelled():
            self._snapshots.pop(snapshot, None)
            return
        if (error := reading.exception()) is not None:
            snapshot.fail(error)
            return
        self._snapshots_read += 1
        loop = asyncio.get_running_loop()
        loop.call_later(seconds * REUSE, self._snapshot_is_old, snapshot)
        # Events that the snapshot holds already arrive for some seconds only.
        loop.call_later(OVERLAP_SECONDS, self._overlap_is_over, snapshot)

    def _snapshot_is_old(self, snapshot: SharedSnapshot) -> None:
        snapshot.expire()
        self._free(snapshot)

    def _overlap_is_over(self, snapshot: SharedSnapshot) -> None:
        snapshot.forget_versions()
        self._free(snapshot)

    def _free(self, snapshot: SharedSnapshot) -> None:
        """Free the memory of a snapshot, or the parts of it, that nobody needs any more."""
        if snapshot.takers or snapshot not in self._snapshots:
            return
        if not snapshot.complete:
            self._snapshots.pop(snapshot).cancel()
        elif not snapshot.fresh:
            snapshot.forget_frames()
            if not snapshot.known:
                del self._snapshots[snapshot]

    def _send_snapshot(self, proctor: ProctorSession, snapshot: SharedSnapshot) -> None:
        snapshot.takers += 1
        proctor.send_snapshot(snapshot).add_done_callback(lambda _: self._snapshot_sent(snapshot))

    def _snapshot_sent(self, snapshot: SharedSnapshot) -> None:
        snapshot.takers -= 1
        self._free(snapshot)
