"""Tells the clients of a plan whether what they see is current (`view_status`).

What clients see is current while the connection to NATS works, the server's queue is processed, and state managers
say that the plan's partition of the log is applied. An open socket alone says nothing about that.

While a lost Redis is repaired, the view of a plan that is whole already is current: its events flow.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from actors.runtime.broker.consumers.listener import listen
from actors.runtime.broker.consumers.progress import ConsumerWatch
from actors.runtime.store.repair_marks import Whole
from actors.sessions.context import ServerContext
from actors.sessions.frames.plain import text_frame
from actors.sessions.session import SocketSession
from actors.socket_server.delivery.gaps import GapWatch
from actors.socket_server.delivery.queue import ServerQueue
from actors.socket_server.sessions import Sessions
from protocol.broker import subjects
from protocol.broker.streams import SOCKET
from protocol.errors import ProtocolError, StateDamaged, StateUnavailable
from protocol.log.partitions import partition_of
from protocol.messages.codec import Codec, encode
from protocol.messages.frames import ViewStatus
from protocol.messages.progress import (
    REPORT_SECONDS,
    REPORT_SOON_SECONDS,
    SERVERS_PART,
    SILENT_SECONDS,
    Applied,
    AppliedRegistry,
    Delay,
    WaitingFor,
    delays_of,
    is_current,
)
from protocol.times import format_time

log = logging.getLogger("examwire.view_watch")

JUDGE_SECONDS = 0.5
"""The view is judged at least this often."""

SLICE = 256
"""So many clients are told without a pause, so that heartbeats go on while a whole hall is told."""

REPAIRED_SECONDS = 3.0
"""For so long after a repair, messages that waited for it are processed."""

_APPLIED = Codec.of((Applied,))


class _Group(NamedTuple):
    """Plans whose views have the same status: those of a partition; `whole`: while Redis is repaired, those done."""

    partition: int
    whole: bool

    def __str__(self) -> str:
        return f"partition {self.partition}" + (", in plans that are whole," if self.whole else "")


class ViewWatch:
    """Judges whether the view of each plan is current, and tells clients when that changes.

    view = ViewWatch(context, queue, sessions, on_gap)
    view.status("P001")  # what a client is told when it connects
    await view.run()  # tell all others at each change, until cancelled

    `on_gap` is called with consumers of the queue that may have lost messages.
    `not_current`: the plans of the clients on this server whose view is not current.
    """

    def __init__(
        self,
        context: ServerContext,
        queue: ServerQueue,
        sessions: Sessions,
        on_gap: Callable[[list[str]], None],
    ) -> None:
        self._bus = context.bus
        self._outbox = context.outbox
        self._queue = queue
        self._sessions = sessions
        self._gaps = GapWatch(context.bus)
        self._on_gap = on_gap
        self._reports = AppliedRegistry(time.monotonic())
        self._watches: dict[str, ConsumerWatch] = {}
        self._store = context.store
        self._whole: Whole | None = None
        """What can be read of a Redis that is being repaired, or was until just now; `None`: it is not."""
        self._states: dict[_Group, ViewStatus] = {}
        self._told: dict[str, ViewStatus] = {}
        self._nats_away_at = -SILENT_SECONDS  # when NATS was last seen not to answer
        self._wake = asyncio.Event()
        self.not_current: list[str] = []

    def status(self, plan_id: str) -> ViewStatus:
        """Return whether the view of a plan is current."""
        group = self._group_of(plan_id)
        if group not in self._states:
            self._states[group] = self._judge(group)
        return self._told.setdefault(plan_id, self._states[group])

    async def run(self) -> None:
        """Listen to state managers, judge, and tell clients, until cancelled."""
        self._reports = AppliedRegistry(time.monotonic())
        async with listen(self._bus, subjects.applied("*"), self._record_applied), asyncio.TaskGroup() as group:
            group.create_task(self._watch_queue())
            group.create_task(self._tell_changes())
            group.create_task(self._watch_repair())

    def _record_applied(self, payload: bytes) -> None:
        """Record that a state manager announced its progress."""
        try:
            report = _APPLIED.decode_one(payload)
        except ProtocolError as error:
            log.warning("%s: invalid message: %s", subjects.applied("*"), error)
            return
        assert isinstance(report, Applied)
        self._reports.record(report, time.monotonic())
        self._wake.set()

    async def _watch_queue(self) -> None:
        stream, answered_at = None, 0.0
        while True:
            for consumer in self._watches.keys() - set(self._queue.consumers):
                del self._watches[consumer]
            for consumer in self._queue.consumers:
                if consumer not in self._watches:
                    unsettled = functools.partial(self._queue.unsettled, consumer)
                    self._watches[consumer] = ConsumerWatch(self._bus, SOCKET.name, consumer, unsettled)
            # Together: that NATS does not answer about one is known as soon as about the others.
            looks = asyncio.gather(*(watch.look() for watch in self._watches.values()))
            (before, answered_before), stream = (stream, answered_at), await self._gaps.stream_state()
            answered_at = time.monotonic()
            await looks
            self._wake.set()
            if before is not None:
                answered = {
                    name: watch.progress
                    for name, watch in self._watches.items()
                    if watch.answered_since(answered_before)
                }
                if lost := self._gaps.with_gaps(before, answered):
                    self._on_gap(lost)
            late = any(delay.seconds > REPORT_SECONDS for delay in self._own_delays(time.monotonic()))
            await asyncio.sleep(REPORT_SOON_SECONDS if late else REPORT_SECONDS)

    async def _watch_repair(self) -> None:
        """Ask what is whole already while a state manager reports that Redis is being repaired."""
        ended_at: float | None = None
        while True:
            now = time.monotonic()
            if self._reports.is_waiting_for("state", now):
                ended_at = None
            elif self._whole is not None:
                ended_at = ended_at or now
                if now - ended_at > REPAIRED_SECONDS:
                    self._whole = None
            if self._whole is not None or self._reports.is_waiting_for("state", now):
                try:
                    self._whole = await self._store.mark.whole_so_far()
                except (StateUnavailable, StateDamaged) as error:
                    log.debug("what is whole of Redis is not known: %s", error)
                    self._whole = Whole()
                self._wake.set()
            await asyncio.sleep(JUDGE_SECONDS)

    def _group_of(self, plan_id: str) -> _Group:
        whole = self._whole is not None and self._whole.part(SERVERS_PART) and self._whole.plan(plan_id)
        return _Group(partition_of(plan_id), whole)

    async def _tell_changes(self) -> None:
        while True:
            began = time.monotonic()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(JUDGE_SECONDS):
                    await self._wake.wait()
            self._wake.clear()
            late = time.monotonic() - began - JUDGE_SECONDS
            if late > JUDGE_SECONDS:
                # This process was blocked: what has arrived meanwhile is read before it counts as missing.
                self._reports.shift(late)
                for watch in self._watches.values():
                    watch.stood_still(late)
                continue
            if changed := self._changed():
                await self._tell(changed, self._sessions.all())

    def _changed(self) -> dict[str, ViewStatus]:
        """Judge the plans of the clients on this server, and return the statuses that have changed, by plan."""
        plans = {plan for plans_of_role in self._queue.plans.values() for plan in plans_of_role}
        groups = {plan: self._group_of(plan) for plan in plans}
        states = {group: self._judge(group) for group in set(groups.values())}
        for group, state in states.items():
            if group in self._states and state is not self._states[group]:
                if state.current:
                    log.warning("%s of the log is up to date again", group)
                else:
                    log.warning("%s of the log is behind since %s: %s", group, state.since, state.waiting_for)
        self._states = states
        # Nobody has been told the status of a plan that is new on this server.
        told, self._told = self._told, {plan: states[group] for plan, group in groups.items()}
        self.not_current = sorted(plan for plan, state in self._told.items() if not state.current)
        self._reports.forget(time.monotonic())
        return {
            plan: state
            for plan, state in self._told.items()
            if plan in told and state is not told[plan] and not (state.current and told[plan].current)
        }

    def _judge(self, group: _Group) -> ViewStatus:
        """Return the status of some plans: the same object as before when nothing has changed."""
        now = time.monotonic()
        # A plan that has just become whole, or is no longer asked about, goes on from what it was told.
        before = self._states.get(group) or self._states.get(group._replace(whole=not group.whole))
        was_current = before is None or before.current
        own_delays = [*self._own_delays(now)]
        if any(delay.waiting_for == "nats" and delay.seconds > REPORT_SECONDS / 2 for delay in own_delays):
            self._nats_away_at = now
        # Messages about plans that are not whole yet hold up the acknowledgements of their part.
        ignored: tuple[WaitingFor, ...] = ("state", "log") if group.whole else ()
        parts = (str(group.partition), SERVERS_PART)
        for delay in (*own_delays, *(self._reports.delay_of(part, now, ignored) for part in parts)):
            if delay is None or is_current(delay, was_current=was_current):
                continue
            waiting_for = delay.waiting_for
            if waiting_for == "state-manager" and now - self._nats_away_at < SILENT_SECONDS:
                waiting_for = "nats"  # over a NATS that does not answer, a state manager that works is not heard
            if before is not None and not before.current:
                same = before.waiting_for == waiting_for
                return before if same else before.model_copy(update={"waiting_for": waiting_for})
            since = format_time(self._bus.clock.now() - delay.seconds)
            return ViewStatus(current=False, since=since, waiting_for=waiting_for)
        if before is not None and before.current:
            return before
        return ViewStatus(current=True, since=format_time(self._bus.clock.now()))

    def _own_delays(self, now: float) -> Iterator[Delay]:
        """Yield what delays the events to our clients, or their facts to the log, each with its seconds."""
        if not self._bus.connected:
            yield Delay("nats", now - (self._bus.disconnected_at or now))
        if self._outbox.publishing_since is not None:
            yield Delay("nats", now - self._outbox.publishing_since)
        for watch in self._watches.values():
            if (seconds := watch.unanswered_for()) is not None:
                yield Delay("nats", seconds)
            elif (seconds := watch.missing_for()) is not None:
                yield Delay("queue", seconds)
            else:
                yield from delays_of(watch.progress, "queue", "queue")

    async def _tell(self, changed: dict[str, ViewStatus], sessions: Sequence[SocketSession]) -> None:
        frames = {plan_id: text_frame(encode(state)) for plan_id, state in changed.items()}
        for number, session in enumerate(sessions):
            frame = frames.get(session.plan_id)
            if frame is not None:
                session.connection.send_frame(frame)
            if number % SLICE == SLICE - 1:
                await asyncio.sleep(0)
