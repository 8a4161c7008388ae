"""The steps of a socket server's start: tried a bounded number of times, and not held against it while NATS is away."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from actors.runtime.broker.connection import Bus
from actors.socket_server.delivery.queue import QueueRefused
from actors.socket_server.status import OwnStatus
from protocol.broker import subjects
from protocol.errors import (
    BrokerUnavailable,
    ExamwireError,
    NoResponders,
    NotAnswered,
    NotPermitted,
    RoleFailed,
    RoleSuperseded,
)
from protocol.messages.server_messages import ServerStatusCode

log = logging.getLogger("examwire.socket_server")

WAIT_SECONDS = 0.5
SAY_SECONDS = 15.0


class ServerStart:
    """`step` runs one step. `attempts`: the tries of each."""

    def __init__(self, bus: Bus, own: OwnStatus, server_id: str, attempts: int) -> None:
        self._bus = bus
        self._own = own
        self._server_id = server_id
        self._attempts = attempts

    async def step(self, reason: str, step: Callable[[], Awaitable[None]]) -> None:
        """Run a step. When its tries are used up: FAILED for `reason` into the log, and `RoleFailed`.

        `RoleSuperseded` is raised at once.

        While NATS is away or has no leader the step waits, says so, and uses up no try.
        """
        address, about = subjects.socket_server(self._server_id), {"server": self._server_id, "reason": reason}
        attempt, waited, said = 1, 0.0, 0.0
        while True:
            try:
                await step()
            except RoleSuperseded:
                raise
            except (ExamwireError, OSError, TimeoutError) as error:
                held_up_by = await self._held_up_by(error)
                if held_up_by is not None:
                    if waited >= said:
                        log.warning("%s: the start waits for NATS: %s", address, held_up_by, extra=about)
                        said += SAY_SECONDS
                    await asyncio.sleep(WAIT_SECONDS)
                    waited += WAIT_SECONDS
                    continue
                what = f"{reason} (attempt {attempt} of {self._attempts}): {error}"
                log.warning("%s: %s", address, what, extra=about)
                if attempt < self._attempts:
                    await asyncio.sleep(min(0.1 * 2**attempt, 2.0))
                    attempt += 1
                    continue
                try:
                    await self._own.publish(ServerStatusCode.FAILED, reason)
                except (BrokerUnavailable, NotPermitted) as unheard:
                    log.error("%s: FAILED could not be recorded: %s", address, unheard)
                raise RoleFailed(f"socket server {self._server_id} cannot start: {reason}: {error}") from error
            else:
                if waited:
                    log.warning("%s: NATS is there, the start goes on", address, extra=about)
                return

    async def _held_up_by(self, error: Exception) -> str | None:
        """What keeps NATS from doing its part in a step that failed; `None`: the failure is the step's own."""
        if not isinstance(error, BrokerUnavailable | NoResponders | QueueRefused):
            return None
        if not self._bus.connected:
            return "the connection is lost"
        try:
            made = await self._bus.answers_about("LEASE", subjects.lease(self._server_id))
        except NotAnswered as silence:
            return str(silence)
        except NotPermitted:
            return None
        # Whoever made this stream made the others, too: what is not answered lacks a leader, or that one its majority.
        return str(error) if made and isinstance(error, NotAnswered) else None
