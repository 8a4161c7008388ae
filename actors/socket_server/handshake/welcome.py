"""The first frame of the server: `welcome`, made of parts that are the same for thousands of clients."""

from __future__ import annotations

from typing import Any

from actors.runtime.config.ladder import Ladder
from actors.runtime.store.ready_servers import ReadyServers
from actors.sessions.context import ServerContext
from protocol.messages.codec import encode_data
from protocol.messages.frames import ReconnectPolicy, Role, Welcome
from protocol.messages.plan_facts import PlanPolicy
from protocol.times import format_time

MOST_POLICIES = 1000


class Welcomes:
    """Encodes the `welcome` of each client of one server.

    welcomes = Welcomes(context, endpoints)
    connection.send_now(welcomes.encoded("examinee", "P001", socket_id, plan.policy, examinee_id="E001"))
    """

    def __init__(self, context: ServerContext, endpoints: ReadyServers) -> None:
        self._context = context
        self._endpoints = endpoints
        self._reconnect: dict[PlanPolicy | None, dict[str, Any]] = {}

    def encoded(
        self, role: Role, plan_id: str, socket_id: str, policy: PlanPolicy | None, *, examinee_id: str | None = None
    ) -> bytes:
        """Return the frame of a client. `policy`: that of its plan."""
        data: dict[str, Any] = {"role": role, "planId": plan_id}
        if examinee_id is not None:
            data["examineeId"] = examinee_id
        data["serverId"] = self._context.server_id
        data["socketId"] = socket_id
        data["heartbeatSeconds"] = self._context.settings.socket.ping_interval_seconds
        data["serverTime"] = format_time(self._context.clock.now())
        data["reconnect"] = self._reconnect.get(policy) or self._reconnect_of(policy)
        data["endpoints"] = self._endpoints.all
        return encode_data(Welcome.type, data)

    def _reconnect_of(self, policy: PlanPolicy | None) -> dict[str, Any]:
        ladder = Ladder.of(self._context.settings.reconnect, policy)
        reconnect = ReconnectPolicy(
            max_attempts=ladder.max_attempts,
            backoff_seconds=ladder.backoff_seconds,
            jitter=ladder.jitter,
            shut_out=None if ladder.shut_out else False,
        )
        if len(self._reconnect) >= MOST_POLICIES:
            self._reconnect.clear()
        data = reconnect.model_dump(mode="json", by_alias=True, exclude_none=True)
        self._reconnect[policy] = data
        return data
