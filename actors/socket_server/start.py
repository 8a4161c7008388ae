"""The start of a socket server: each step is tried a bounded number of times, not counting tries while NATS is away."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from actors.sessions.context import ServerContext
from actors.socket_server.delivery.queue import QueueRefused
from actors.socket_server.status import StatusPublisher
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
LOG_SECONDS = 15.0


class ServerStart:
    """Runs the steps of a start. Each has as many attempts as `server.start_attempts` says.

    start = ServerStart(context, status)
    await start.step("QUEUE_CREATE_FAILED", queue.create)
    """

    def __init__(self, context: ServerContext, status: StatusPublisher) -> None:
        self._bus = context.bus
        self._status = status
        self._server_id = context.server_id
        self._attempts = context.settings.server.start_attempts

    async def step(self, reason: str, step: Callable[[], Awaitable[None]]) -> None:
        """Run a step. After its last attempt, publish FAILED with `reason` and raise `RoleFailed`.

        While NATS is away or has no leader, the step waits and uses up no attempt. `RoleSuperseded` is raised at once.
        """
        address, about = subjects.socket_server(self._server_id), {"server": self._server_id, "reason": reason}
        attempt, waited, log_at = 1, 0.0, 0.0
        while True:
            try:
                await step()
            except RoleSuperseded:
                raise
            except (ExamwireError, OSError, TimeoutError) as error:
                obstacle = await self._obstacle(error)
                if obstacle is not None:
                    if waited >= log_at:
                        log.warning("%s: the start waits for NATS: %s", address, obstacle, extra=about)
                        log_at += LOG_SECONDS
                    await asyncio.sleep(WAIT_SECONDS)
                    waited += WAIT_SECONDS
                    continue
                failure = f"{reason} (attempt {attempt} of {self._attempts}): {error}"
                log.warning("%s: %s", address, failure, extra=about)
                if attempt < self._attempts:
                    await asyncio.sleep(min(0.1 * 2**attempt, 2.0))
                    attempt += 1
                    continue
                try:
                    await self._status.publish(ServerStatusCode.FAILED, reason)
                except (BrokerUnavailable, NotPermitted) as not_stored:
                    log.error("%s: FAILED could not be recorded: %s", address, not_stored)
                raise RoleFailed(f"socket server {self._server_id} cannot start: {reason}: {error}") from error
            else:
                if waited:
                    log.warning("%s: NATS answers, the start continues", address, extra=about)
                return

    async def _obstacle(self, error: Exception) -> str | None:
        """Return what keeps NATS from doing its part in a step that failed; `None`: the step itself has failed."""
        if not isinstance(error, BrokerUnavailable | NoResponders | QueueRefused):
            return None
        if not self._bus.connected:
            return "the connection is lost"
        try:
            answered = await self._bus.answers_about("LEASE", subjects.lease(self._server_id))
        except NotAnswered as silence:
            return str(silence)
        except NotPermitted:
            return None
        # This stream exists, so the others do, too: one that does not answer has no leader, or no majority.
        return str(error) if answered and isinstance(error, NotAnswered) else None
