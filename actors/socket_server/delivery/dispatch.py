"""What a socket server's queue brings: handed to the sessions that it is for, in the order in which it came."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Awaitable, Callable

from actors.runtime.actor.actor import Actor, ActorStopped
from actors.runtime.actor.receiver import Received
from actors.runtime.actor.subscriber import Subscriber
from actors.runtime.broker.connection import Bus
from actors.runtime.broker.consumers.consumer import Delivery
from actors.sessions.examinee_session import ExamineeSession
from actors.socket_server.clients import Clients
from actors.socket_server.delivery.log_end import LogEnd
from protocol.broker.stream_codecs import decode_socket, version_in
from protocol.broker.streams import SOCKET
from protocol.errors import InvalidField
from protocol.messages.base import Message
from protocol.messages.codec import Element
from protocol.messages.facts import MobileSyncStatus, Notice
from protocol.messages.proctor_events import MobileSyncCompleted
from protocol.messages.session_messages import SessionClose, SessionLost, SessionState

log = logging.getLogger("examwire.deliveries")


class Dispatcher:
    """Knows what is for whom. `say_ready` is said before sessions that were declared lost are announced anew.

    It returns False when they are lost indeed: another process has taken this server's place.
    """

    def __init__(
        self, server: Actor, clients: Clients, bus: Bus, log_end: LogEnd, say_ready: Callable[[], Awaitable[bool]]
    ) -> None:
        self._address = server.address
        self._clients = clients
        self._log_end = log_end
        self._say_ready = say_ready
        self._subscriber = Subscriber(server, bus, SOCKET.name, decode_socket, self._dispatch)

    async def hand_over(self, delivery: Delivery) -> None:
        """Hand over and settle. What is for nobody here is dropped; what is none goes to the dead letters."""
        await self._subscriber.take([delivery])

    async def _dispatch(self, received: Received[Element]) -> None:
        delivery = received.delivery
        messages = [element.message for element in received.messages]
        await self._check_versions(messages)
        match delivery.subject.split("."):
            case [_, "plan", plan_id, "proctors"]:
                feed = self._clients.feeds.get(plan_id)
                if feed is not None:
                    parsed = [element.parsed for element in received.messages]
                    feed.broadcast(parsed, delivery.payload if received.whole else None)
            case _:
                await self._to_sessions(messages)

    async def _check_versions(self, messages: list[Message]) -> None:
        """Raises `InvalidField`: one that the log has not reached would outlive whatever is told later."""
        version = max((version_in(message) or 0 for message in messages), default=0)
        if not await self._log_end.has_reached(version):
            raise InvalidField("data.version", f"{version} lies beyond the end of the log")

    async def _to_sessions(self, messages: list[Message]) -> None:
        here = self._clients.examinees
        lost: set[str] = set()
        for message in messages:
            match message:
                case SessionState() | SessionClose():
                    await _put(here.get(message.socket_id), message)
                case MobileSyncCompleted() | MobileSyncStatus() | Notice():
                    await _put(self._clients.examinee(message.plan_id, message.examinee_id), message)
                case SessionLost():
                    lost.update(message.socket_ids)
        if alive := [session for socket_id in lost if (session := here.get(socket_id)) is not None]:
            log.warning("%s: %d sessions were declared lost, but are here", self._address, len(alive))
            # READY first: while this server counts as lost, each announcement is answered by another loss.
            if await self._say_ready():
                for session in alive:
                    session.announce()


async def _put(session: ExamineeSession | None, message: Message) -> None:
    if session is not None and session.running:
        with contextlib.suppress(ActorStopped):  # it ended while its mailbox was full
            await session.put(message)
