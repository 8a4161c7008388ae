"""Whether what a socket server tells of a plan is so now: judged here, told to the plan's clients (`view_status`).

A connection that stands says nothing of what comes over it. What is told is current while the link to NATS works, the
server's own queue is worked off, and state managers say that the plan's partition of the log is applied.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import time
from collections.abc import Callable, Iterator, Sequence

from actors.runtime.broker.connection import Bus
from actors.runtime.broker.consumers.listener import listening
from actors.runtime.broker.consumers.progress import ConsumerWatch
from actors.sessions.outbox import Outbox
from actors.sessions.session import SocketSession
from actors.socket_server.delivery.queue import ServerQueue
from protocol.broker import subjects
from protocol.broker.streams import SOCKET
from protocol.errors import ProtocolError
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
    delays_of,
    is_current,
)
from protocol.times import format_time

log = logging.getLogger("examwire.view_watch")

JUDGE_SECONDS = 0.5
SLICE = 256
"""So many clients are told without a pause: a hall is told as well, and heartbeats go on meanwhile."""

_CODEC = Codec.of((Applied,))


class ViewWatch:
    """`status(planId)` is what a newcomer is told; `run` tells those who are here at each change.

    `not_current`: the plans with clients here whose view is not.
    """

    def __init__(self, bus: Bus, queue: ServerQueue, outbox: Outbox) -> None:
        self._bus = bus
        self._queue = queue
        self._outbox = outbox
        self._reports = AppliedRegistry(time.monotonic())
        self._watches: dict[str, ConsumerWatch] = {}
        self._states: dict[int, ViewStatus] = {}
        self._nats_away_at = -SILENT_SECONDS  # when it was last seen not to answer
        self._wake = asyncio.Event()
        self.not_current: list[str] = []

    def status(self, plan_id: str) -> ViewStatus:
        """Whether the view of a plan is current."""
        partition = partition_of(plan_id)
        if partition not in self._states:
            self._states[partition] = self._judge(partition)
        return self._states[partition]

    async def run(self, sessions: Callable[[], Sequence[SocketSession]]) -> None:
        """Listen, judge and tell until cancelled."""
        self._reports = AppliedRegistry(time.monotonic())
        async with listening(self._bus, subjects.applied("*"), self._heard), asyncio.TaskGroup() as group:
            group.create_task(self._look_at_queue())
            group.create_task(self._tell_changes(sessions))

    def _heard(self, payload: bytes) -> None:
        try:
            report = _CODEC.decode_one(payload)
        except ProtocolError as error:
            log.warning("%s: not understood: %s", subjects.applied("*"), error)
            return
        assert isinstance(report, Applied)
        self._reports.record(report, time.monotonic())
        self._wake.set()

    async def _look_at_queue(self) -> None:
        while True:
            for consumer in self._watches.keys() - set(self._queue.consumers):
                del self._watches[consumer]
            for consumer in self._queue.consumers:
                if consumer not in self._watches:
                    in_hand = functools.partial(self._queue.in_hand, consumer)
                    self._watches[consumer] = ConsumerWatch(self._bus, SOCKET.name, consumer, in_hand)
            await asyncio.gather(*(watch.look() for watch in self._watches.values()))
            self._wake.set()
            waits = any(delay.seconds > REPORT_SECONDS for delay in self._own_trouble(time.monotonic()))
            await asyncio.sleep(REPORT_SOON_SECONDS if waits else REPORT_SECONDS)

    async def _tell_changes(self, sessions: Callable[[], Sequence[SocketSession]]) -> None:
        while True:
            began = time.monotonic()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(JUDGE_SECONDS):
                    await self._wake.wait()
            self._wake.clear()
            late = time.monotonic() - began - JUDGE_SECONDS
            if late > JUDGE_SECONDS:
                # It was this process that stood still: what has come meanwhile is read before it is missed.
                self._reports.shift(late)
                for watch in self._watches.values():
                    watch.stood_still(late)
                continue
            if changed := self._changed():
                await self._tell(changed, sessions())

    def _changed(self) -> dict[int, ViewStatus]:
        """Judge the plans that have clients here; what is told otherwise than before, by partition."""
        plans = {plan for side in self._queue.plans.values() for plan in side}
        states = {partition: self._judge(partition) for partition in {partition_of(plan) for plan in plans}}
        # Of a partition that is new here nobody has been told.
        changed = {
            number: state
            for number, state in states.items()
            if number in self._states and state is not self._states[number]
        }
        self._states = states
        self.not_current = sorted(plan for plan in plans if not states[partition_of(plan)].current)
        self._reports.forget(time.monotonic())
        for number, state in changed.items():
            if state.current:
                log.warning("partition %d of the log is applied again", number)
            else:
                log.warning("partition %d of the log is behind since %s: %s", number, state.since, state.waiting_for)
        return changed

    def _judge(self, partition: int) -> ViewStatus:
        """How it is now: the same object as before where nothing has changed."""
        now = time.monotonic()
        before = self._states.get(partition)
        was_current = before is None or before.current
        own_trouble = [*self._own_trouble(now)]
        if any(one.waiting_for == "nats" and one.seconds > REPORT_SECONDS / 2 for one in own_trouble):
            self._nats_away_at = now
        for delay in (*own_trouble, *(self._reports.delay_of(part, now) for part in (str(partition), SERVERS_PART))):
            if delay is None or is_current(delay, was_current=was_current):
                continue
            waiting_for = delay.waiting_for
            if waiting_for == "state-manager" and now - self._nats_away_at < SILENT_SECONDS:
                waiting_for = "nats"  # whoever is not heard over a NATS that does not answer may well work
            if before is not None and not before.current:
                same = before.waiting_for == waiting_for
                return before if same else before.model_copy(update={"waiting_for": waiting_for})
            since = format_time(self._bus.clock.now() - delay.seconds)
            return ViewStatus(current=False, since=since, waiting_for=waiting_for)
        if before is not None and before.current:
            return before
        return ViewStatus(current=True, since=format_time(self._bus.clock.now()))

    def _own_trouble(self, now: float) -> Iterator[Delay]:
        """What keeps this server from telling, or its clients' facts from the log, since how many seconds."""
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

    async def _tell(self, changed: dict[int, ViewStatus], sessions: Sequence[SocketSession]) -> None:
        frames = {number: encode(state) for number, state in changed.items()}
        for number, session in enumerate(sessions):
            frame = frames.get(partition_of(session.plan_id))
            if frame is not None:
                session.connection.send_now(frame)
            if number % SLICE == SLICE - 1:
                await asyncio.sleep(0)
