"""The NATS micro service of an actor: it lists the actor, answers inspections and takes requests of operators.

`nats service ls` shows it. The runtime announces one for each `Service` that has a bus.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import secrets
from typing import TYPE_CHECKING

from actors.runtime import VERSION
from actors.runtime.actor.process_facts import answer_process_facts
from actors.runtime.actor.tail import TailFeed
from actors.runtime.broker.connection import Bus, Respond
from protocol.broker import subjects
from protocol.errors import ErrorCode, ProtocolError
from protocol.messages.codec import encode
from protocol.messages.frames import error_frame
from protocol.messages.operator_requests import REQUESTS, Done, Request, Stop, Tail

if TYPE_CHECKING:
    from actors.runtime.actor.service import Service

log = logging.getLogger("examwire.micro_service")

STOP_AFTER_SECONDS = 0.1  # the answer goes out first


class MicroService:
    """Announces one actor, answers its inspections, and passes on what operators ask of it.

    micro_service = MicroService(bus, actor)
    await micro_service.announce()
    await micro_service.withdraw()
    """

    def __init__(self, bus: Bus, actor: Service) -> None:
        self._bus = bus
        self._actor = actor
        self._service: object | None = None
        self._tails: set[asyncio.Task[None]] = set()
        self.subject = subjects.inspect(f"{actor.kind}-{secrets.token_hex(6)}")

    async def announce(self) -> None:
        """List the actor and answer for it, until `withdraw`. Harmless when repeated."""
        if self._service is not None:
            return
        actor = self._actor
        endpoints: dict[str, tuple[str, Respond]] = {
            "inspect": (self.subject, actor.inspect),
            "control": (subjects.control(actor.address), self._control),
            "process": (f"{self.subject}.process", answer_process_facts),
            **actor.endpoints(),
        }
        self._service = await self._bus.add_service(
            actor.kind,
            version=VERSION,
            description=(inspect.getdoc(type(actor)) or actor.kind).splitlines()[0],
            metadata={"address": actor.address, "kind": actor.kind, "inspect": self.subject},
            endpoints={name: (subject, self._safe(respond)) for name, (subject, respond) in endpoints.items()},
            details=lambda: actor.inspection().model_dump(mode="json", by_alias=True),
        )

    async def withdraw(self) -> None:
        """Take the actor off the list. Harmless when repeated, or when NATS is away."""
        service, self._service = self._service, None
        feed = self._actor.tail
        for task in self._tails:
            task.cancel()
        if service is None:
            return
        try:
            async with asyncio.timeout(2):
                if feed is not None:
                    await feed.flush()  # show the failure that made it stop, if there was one
                await self._bus.remove_service(service)
        except TimeoutError:
            log.debug("%s: cannot be removed from the list of services: NATS does not answer", self._actor.address)

    def _safe(self, respond: Respond) -> Respond:
        """Wrap an endpoint: an error is answered as an error frame, and the actor goes on."""

        async def answer(payload: bytes) -> bytes:
            try:
                return await respond(payload)
            except Exception as error:
                self._actor.record_failure(error)
                log.exception("%s: a request failed: %r", self._actor.address, payload[:200])
                return encode(error_frame(ProtocolError(ErrorCode.UNAVAILABLE, f"failed: {type(error).__name__}")))

        return answer

    async def _control(self, payload: bytes) -> bytes:
        try:
            request = REQUESTS.decode_one(payload)
            assert isinstance(request, Request)
            if isinstance(request, Tail):
                return encode(self._tail(request))
            log.warning("%s: request of an operator: %s", self._actor.address, payload.decode(errors="replace")[:200])
            return encode(self._stop() if isinstance(request, Stop) else await self._actor.control(request))
        except ProtocolError as error:
            return encode(error_frame(error))

    def _stop(self) -> Done:
        if self._actor.end_role is None:
            raise ProtocolError(ErrorCode.NOT_ALLOWED, f"{self._actor.address} is not the actor of a process", "type")
        asyncio.get_running_loop().call_later(STOP_AFTER_SECONDS, self._actor.end_role)
        return Done(text=f"the process of {self._actor.address} ends")

    def _tail(self, request: Tail) -> Done:
        actor = self._actor if request.session is None else self._actor.child(request.session)
        if actor is None:
            detail = f"{self._actor.address} holds no {request.session}"
            raise ProtocolError(ErrorCode.NOT_FOUND, detail, "data.session")
        feed = actor.tail or TailFeed(actor.address, self._bus.publish_core)
        feed.watch(request)
        if actor.tail is None:
            log.info("%s: an operator tails %s", self._actor.address, actor.address)
            actor.tail = feed
            task = asyncio.get_running_loop().create_task(self._run(actor, feed), name=f"{actor.address}:tail")
            self._tails.add(task)
            task.add_done_callback(self._tails.discard)
        return Done(text=f"{actor.address} is tailed", details={"kind": actor.kind, "handled": actor.handled})

    async def _run(self, actor: Service, feed: TailFeed) -> None:
        try:
            await feed.run()
        finally:
            actor.tail = None
