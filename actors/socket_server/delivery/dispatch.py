"""Dispatches what the queue of a socket server brings to the sessions and feeds on this server."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator, Sequence
from contextlib import suppress

from actors.runtime.actor.actor import Actor, ActorStopped
from actors.sessions.context import ServerContext
from actors.sessions.plan_feed import PlanEvents, PlanFeed, Resynchronise
from actors.sessions.session import SocketSession
from actors.socket_server.delivery.log_end import LogEnd
from actors.socket_server.delivery.queue_reader import QueueBatch
from actors.socket_server.lease import LeaseKeeper
from actors.socket_server.sessions import Sessions
from protocol.broker.passed_on import PlanEvent, UsualState
from protocol.broker.stream_codecs import ToSocketServer, version_in
from protocol.close_codes import CloseCode
from protocol.errors import InvalidField
from protocol.messages.base import Message
from protocol.messages.codec import Element, split_batches
from protocol.messages.facts import MobileSyncStatus, Notice
from protocol.messages.plan_facts import PlanPurged
from protocol.messages.proctor_events import HelpEvent, MobileSyncCompleted, PlanStateEvent
from protocol.messages.session_messages import SessionAnnounce, SessionClose, SessionLost, SessionState
from protocol.times import format_time

log = logging.getLogger("examwire.deliveries")


class Dispatcher:
    """Knows which session or feed a message is for. A message for nobody on this server is dropped.

    dispatcher = Dispatcher(context, sessions, lease)
    await dispatcher.dispatch(batch)

    Nobody waits for a session: a session that does not take its messages in time is closed (`SocketSession.deliver`).
    """

    def __init__(self, context: ServerContext, sessions: Sessions, lease: LeaseKeeper) -> None:
        self._address = context.address
        self._sessions = sessions
        self._lease = lease
        self._log_end = LogEnd(context)
        self._plans = context.plans
        self._clock = context.clock

    async def dispatch(self, batch: QueueBatch) -> None:
        """Hand the messages over in order. Returns when the feeds have sent their events.

        Raises `InvalidField`, before anything is handed over, when a message has a version that the log does not have.
        """
        await self._check_versions(batch)
        events: dict[PlanFeed, list[PlanEvent]] = {}
        lost: set[str] = set()
        announce: SessionAnnounce | None = None
        for received in batch.received:
            match received.delivery.subject.split("."):
                case [_, "plan", _, "proctors"]:
                    feed = self._sessions.at(received.delivery.subject)
                    purges = [each for each in _messages_in(received.messages) if isinstance(each, PlanPurged)]
                    for purged in purges:
                        self._end_proctors(purged, feed)
                    if isinstance(feed, PlanFeed) and not purges:
                        events.setdefault(feed, []).extend(self._events_in(received.messages))
                case [_, "plan", plan_id, "examinees"]:
                    for message in _messages_in(received.messages):
                        self._deliver_to_examinees(plan_id, message)
                case _:
                    for state in received.messages:
                        if isinstance(state, UsualState) and (session := self._sessions.examinees.get(state.socket_id)):
                            session.deliver(state)
                    for message in _messages_in(received.messages):
                        self._deliver(message, lost)
                        if isinstance(message, SessionAnnounce):
                            announce = message
        for number, (feed, feed_events) in enumerate(events.items()):
            if number:
                await asyncio.sleep(0)  # let other work run
            await _tell_all(feed, feed_events)
        await self._log_end.look_again()
        if lost:
            await self._announce_again(lost)
        if announce is not None:
            await self._lease.announce_anew(announce.reason)

    def _deliver(self, message: Message, lost: set[str]) -> None:
        session: SocketSession | None = None
        match message:
            case SessionState() | SessionClose():
                session = self._sessions.examinees.get(message.socket_id)
            case MobileSyncCompleted() | MobileSyncStatus() | Notice() | HelpEvent():
                session = self._sessions.examinee(message.plan_id, message.examinee_id)
            case SessionLost():
                lost.update(message.socket_ids)
        if session is not None:
            session.deliver(message)

    def _deliver_to_examinees(self, plan_id: str, message: Message) -> None:
        """Deliver what is for every examinee of a plan."""
        if isinstance(message, PlanPurged):
            self._end_examinees(message)
            return
        if isinstance(message, PlanStateEvent) and self._plans.update(message).version > message.version:
            return  # a newer state was told before
        for session in list(self._sessions.examinees.values()):
            if session.plan_id == plan_id:
                session.deliver(message)

    def _end_examinees(self, purged: PlanPurged) -> None:
        """Close the examinees of a plan that was deleted, or the one who was: nobody speaks for them any more."""
        self._plans.forget(purged.plan_id)
        for session in list(self._sessions.examinees.values()):
            if session.plan_id == purged.plan_id and purged.examinee_id in (None, session.examinee_id):
                session.deliver(SessionClose(socket_id=session.socket_id, code=CloseCode.EXAM_OVER))

    def _end_proctors(self, purged: PlanPurged, feed: Actor | None) -> None:
        """Close the proctors of a plan that was deleted; show them the others when one examinee was."""
        self._plans.forget(purged.plan_id)
        if purged.examinee_id is not None:
            if isinstance(feed, PlanFeed):
                feed.tell(Resynchronise())
            return
        for session in list(self._sessions.proctors.values()):
            if session.plan_id == purged.plan_id:
                session.deliver(SessionClose(socket_id=session.socket_id, code=CloseCode.EXAM_OVER))

    def _events_in(self, messages: Sequence[ToSocketServer]) -> Iterator[PlanEvent]:
        """Yield the events for the feed of a plan; a `plan_state` gets the time at which it is sent on."""
        for event in messages:
            if not isinstance(event, PlanEvent):
                continue
            if isinstance(event.message, PlanStateEvent):
                self._plans.update(event.message)
                parsed = event.parsed
                parsed["data"]["serverTime"] = format_time(self._clock.now())
                yield PlanEvent.of(parsed, event.message)
            else:
                yield event

    async def _announce_again(self, lost: set[str]) -> None:
        """Announce the sessions that were declared lost and are alive."""
        alive = [session for socket_id in lost if (session := self._sessions.examinees.get(socket_id)) is not None]
        if not alive:
            return
        log.warning("%s: %d sessions were declared lost, but are connected here", self._address, len(alive))
        # The status first: while this server counts as lost, each announcement is answered by another loss.
        if await self._lease.confirm_alive():
            for session in alive:
                session.announce()

    async def _check_versions(self, batch: QueueBatch) -> None:
        """Raise `InvalidField` for a version beyond the end of the log: no later event could overtake it."""
        version = max(
            (_version_of(message) for received in batch.received for message in received.messages),
            default=0,
        )
        if not await self._log_end.has_reached(version):
            raise InvalidField("data.version", f"{version} lies beyond the end of the log")


def _messages_in(messages: Sequence[ToSocketServer]) -> Iterator[Message]:
    """Yield the messages that a model has read."""
    return (message.message for message in messages if isinstance(message, Element))


def _version_of(message: ToSocketServer) -> int:
    return (version_in(message.message) or 0) if isinstance(message, Element) else message.version


async def _tell_all(feed: PlanFeed, events: Sequence[PlanEvent]) -> None:
    """Have a feed handle these, in order, as many together as fit into a frame. Raises what its handler raises."""
    with suppress(ActorStopped):  # its last proctor has gone meanwhile; the rest of the batch is for others
        for cut in split_batches([len(event.encoded) for event in events]):
            if cut.start:
                await asyncio.sleep(0)
            await feed.process(PlanEvents(events[cut]))
