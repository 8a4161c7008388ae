"""What a socket server's queue brings: handed to the sessions that it is for, in the order in which it came."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Awaitable, Callable

from actors.clients import Clients
from actors.dead_letter import dead_letter
from actors.examinee_session import ExamineeSession
from actors.runtime.actor import ActorStopped
from actors.runtime.bus import Bus
from actors.runtime.pull import Delivery
from protocol.codec import SOCKET_CODEC, Malformed, encode
from protocol.events import MobileSyncCompleted
from protocol.facts import MobileSyncStatus, Notice
from protocol.session_messages import SessionClose, SessionLost, SessionState
from protocol.wire import Message

log = logging.getLogger("examwire.deliveries")


class Deliveries:
    """Knows what is for whom. `say_ready` is said before sessions that were declared lost are announced anew."""

    def __init__(self, clients: Clients, bus: Bus, server_id: str, say_ready: Callable[[], Awaitable[None]]) -> None:
        self._clients = clients
        self._bus = bus
        self._server_id = server_id
        self._say_ready = say_ready

    async def hand_over(self, delivery: Delivery) -> None:
        """What is for nobody here is dropped; what can never be understood goes to the dead letters."""
        tokens = delivery.subject.split(".")
        try:
            if tokens[1] == "plan" and tokens[3] == "proctors":
                feed = self._clients.feeds.get(tokens[2])
                if feed is not None:
                    feed.broadcast(delivery.payload)
            else:
                await self._to_sessions(delivery)
        except ValueError as error:
            await self._dead_letter(delivery, delivery.payload, str(error))

    async def _to_sessions(self, delivery: Delivery) -> None:
        here = self._clients.examinees
        lost: set[str] = set()
        for message in SOCKET_CODEC.decode_batch(delivery.payload):
            if isinstance(message, Malformed):
                await self._dead_letter(delivery, message.raw, str(message.error))
                continue
            match message:
                case SessionState() | SessionClose():
                    await _put(here.get(message.socket_id), message)
                case MobileSyncCompleted() | MobileSyncStatus() | Notice():
                    await _put(self._clients.examinee(message.plan_id, message.examinee_id), message)
                case SessionLost():
                    lost.update(message.socket_ids)
                case _:
                    await self._dead_letter(delivery, encode(message), f"{message.type} is not for a server")
        if alive := [session for socket_id in lost if (session := here.get(socket_id)) is not None]:
            log.warning("socket.%s: %d sessions were declared lost, but are here", self._server_id, len(alive))
            # READY first: while this server counts as lost, each announcement is answered by another loss.
            await self._say_ready()
            for session in alive:
                session.announce()

    async def _dead_letter(self, delivery: Delivery, payload: bytes, reason: str) -> None:
        about = {"server": self._server_id, "stream": "SOCKET", "sequence": delivery.sequence}
        text = "socket.%s: message %d goes to the dead letters: %s"
        log.error(text, self._server_id, delivery.sequence, reason, extra=about)
        letter = dead_letter(
            "SOCKET",
            delivery.subject,
            delivery.sequence,
            payload,
            reason,
            by=self._server_id,
            headers=delivery.headers,
            deliveries=delivery.attempt,
        )
        await self._bus.publish_surely([letter])


async def _put(session: ExamineeSession | None, message: Message) -> None:
    if session is not None and session.running:
        with contextlib.suppress(ActorStopped):  # it ended while its mailbox was full
            await session.put(message)
