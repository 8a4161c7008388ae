"""An actor's presence on the bus: a NATS micro service that also answers an inspection."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Awaitable, Callable, Mapping

from actors.runtime import VERSION
from actors.runtime.actor import Actor
from actors.runtime.bus import Bus
from protocol import subjects

log = logging.getLogger("examwire.presence")

Respond = Callable[[bytes], Awaitable[bytes]]


class Presence:
    """Announces one actor. `inspect` overrides the plain answer; `endpoints`: name to (subject, handler)."""

    def __init__(
        self,
        bus: Bus,
        actor: Actor,
        *,
        inspect: Respond | None = None,
        endpoints: Mapping[str, tuple[str, Respond]] | None = None,
    ) -> None:
        self._bus = bus
        self._actor = actor
        self._inspect = inspect or self._plain
        self._endpoints = endpoints or {}
        self._service: object | None = None
        self.subject = subjects.inspect(f"{actor.kind}-{secrets.token_hex(6)}")

    async def announce(self) -> None:
        """Be listed and answer, until `withdraw`."""
        actor = self._actor
        self._service = await self._bus.add_service(
            actor.kind,
            version=VERSION,
            description=(type(actor).__doc__ or "").strip().splitlines()[0],
            metadata={"address": actor.address, "kind": actor.kind, "inspect": self.subject},
            endpoints={"inspect": (self.subject, self._inspect), **self._endpoints},
            details=lambda: actor.inspection().model_dump(mode="json", by_alias=True),
        )

    async def withdraw(self) -> None:
        """Be listed no more. Harmless when repeated or cut off."""
        service, self._service = self._service, None
        if service is None:
            return
        try:
            async with asyncio.timeout(2):
                await self._bus.remove_service(service)
        except TimeoutError:
            log.debug("%s: left without a word: NATS is away", self._actor.address)

    async def _plain(self, _request: bytes) -> bytes:
        return self._actor.inspection().model_dump_json(by_alias=True).encode()
