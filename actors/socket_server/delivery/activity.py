"""Tells the proctors of a plan what the others are doing with an examinee, also those on other socket servers.

Over core NATS: nothing is stored, and what is lost is said again soon (`ACTIVITY_SECONDS`).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque

from actors.runtime.actor.actor import ActorStopped
from actors.runtime.actor.mailbox import MailboxFull
from actors.runtime.broker.connection import Bus
from actors.runtime.broker.consumers.listener import listen
from actors.sessions.plan_feed import ActivityOfOther
from actors.socket_server.sessions import Sessions
from protocol.broker import subjects
from protocol.errors import BrokerUnavailable, ProtocolError
from protocol.messages.codec import encode
from protocol.messages.session_messages import ACTIVITY_CODEC, ProctorActivity

log = logging.getLogger("examwire.activity")

MOST_WAITING = 1000
"""So many activities wait at most to be published; the oldest are dropped."""


class ActivityRelay:
    """Publishes what the proctors of this server are doing, and hands on what it hears from all servers.

    relay = ActivityRelay(bus)
    await relay.run(sessions)  # until cancelled
    relay.tell(activity)  # waits for nothing
    """

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._waiting: deque[ProctorActivity] = deque(maxlen=MOST_WAITING)
        self._added = asyncio.Event()

    def tell(self, activity: ProctorActivity) -> None:
        """Publish an activity soon; while NATS is away it is dropped."""
        self._waiting.append(activity)
        self._added.set()

    async def run(self, sessions: Sessions) -> None:
        """Publish what is waiting, and hand what is heard to the feeds of `sessions`, until cancelled."""

        def receive(payload: bytes) -> None:
            try:
                activity = ACTIVITY_CODEC.decode_one(payload)
            except ProtocolError as error:
                log.warning("%s: invalid message: %s", subjects.proctor_activity("*"), error)
                return
            assert isinstance(activity, ProctorActivity)
            if (feed := sessions.feeds.get(activity.plan_id)) is not None:
                with contextlib.suppress(MailboxFull, ActorStopped):  # it is said again soon
                    feed.tell(ActivityOfOther(activity))

        async with listen(self._bus, subjects.proctor_activity("*"), receive):
            while True:
                await self._added.wait()
                self._added.clear()
                while self._waiting:
                    await self._publish(self._waiting.popleft())

    async def _publish(self, activity: ProctorActivity) -> None:
        if not self._bus.connected:
            return
        try:
            await self._bus.publish_core(subjects.proctor_activity(activity.plan_id), encode(activity))
        except BrokerUnavailable as error:
            log.debug("%s: %s", activity.by, error)
