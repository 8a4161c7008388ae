"""Rules of a socket server's record: start, drain, stop, failure and loss.

docs/architecture.md, "A server's start, step by step".
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from protocol.messages.facts import LossReason
from protocol.messages.server_messages import ServerStatus, ServerStatusCode
from protocol.rules.effects import EndSessions
from protocol.rules.history import Outcome, StoredState

_ENDED = (ServerStatusCode.STOPPED, ServerStatusCode.FAILED, ServerStatusCode.LOST)
ALIVE = (ServerStatusCode.STARTING, ServerStatusCode.READY, ServerStatusCode.DRAINING, ServerStatusCode.STOPPING)
"""A server with one of these statuses has a process, as far as the log knows."""


@dataclass(frozen=True, slots=True)
class ServerState(StoredState):
    """The state of a socket server; `incarnation` names its process."""

    server_id: str = ""
    server_type: str = "SOCKET"
    status: ServerStatusCode | None = None
    incarnation: str | None = None
    start_time: str | None = None
    queue_id: str | None = None
    cpu_usage: float | None = None
    memory_usage: float | None = None
    network_status: str | None = None
    url: str | None = None
    reason: str | None = None
    version: int = 0

    def holds_sessions_of(self, incarnation: str | None) -> bool:
        """Return whether sessions of the process `incarnation` can be open, by the log."""
        if self.status is None or incarnation is None:
            return True  # the log does not say otherwise
        return incarnation == self.incarnation and self.status not in _ENDED


def visible_part(state: ServerState) -> tuple[ServerStatusCode | None, str | None]:
    """Return the part of a server that endpoints depend on."""
    return (state.status, state.incarnation)


def apply(state: ServerState, version: int, fact: ServerStatus) -> Outcome[ServerState]:
    """Apply one fact to a server. Facts must come in the order of their versions (`protocol.rules.history`)."""
    same = fact.incarnation == state.incarnation
    if fact.status is ServerStatusCode.STARTING:
        started = ServerState(
            server_id=fact.server_id,
            status=fact.status,
            incarnation=fact.incarnation,
            start_time=fact.start_time,
            queue_id=fact.queue_id,
            cpu_usage=fact.cpu_usage,
            memory_usage=fact.memory_usage,
            network_status=fact.network_status,
            url=fact.url,
            version=version,
            unknown_fields=state.unknown_fields,
        )
        if same:
            return Outcome(started)
        return Outcome(started, effects=(_end_sessions(fact, LossReason.SERVER_RESTARTED, version),))
    if state.incarnation is not None and not same:
        return Outcome(state)  # it is about an older process of this serverId
    if fact.status is ServerStatusCode.LOST and state.status in (None, *_ENDED):
        return Outcome(state)
    changed = replace(
        state,
        server_id=fact.server_id,
        status=fact.status,
        incarnation=fact.incarnation,
        start_time=state.start_time or fact.start_time,
        queue_id=fact.queue_id or state.queue_id,
        cpu_usage=state.cpu_usage if fact.cpu_usage is None else fact.cpu_usage,
        memory_usage=state.memory_usage if fact.memory_usage is None else fact.memory_usage,
        network_status=fact.network_status or state.network_status,
        url=fact.url or state.url,
        reason=fact.reason,
        version=version,
    )
    if fact.status is ServerStatusCode.LOST:
        return Outcome(changed, effects=(_end_sessions(fact, LossReason.SERVER_LOST, version),))
    if fact.status in (ServerStatusCode.STOPPED, ServerStatusCode.FAILED):
        return Outcome(changed, effects=(_end_sessions(fact, LossReason.SERVER_STOPPED, version),))
    return Outcome(changed)


def _end_sessions(fact: ServerStatus, reason: LossReason, version: int) -> EndSessions:
    return EndSessions(fact.server_id, reason.value, fact.timestamp, version)


def lost(server_id: str, server: ServerState, now: str) -> ServerStatus:
    """Return the fact that this process of a server is lost; `now`: the time, by the broker's clock."""
    return ServerStatus(
        server_id=server_id,
        status=ServerStatusCode.LOST,
        incarnation=server.incarnation,
        start_time=server.start_time or now,
        timestamp=now,
        reason=LossReason.SERVER_LOST.value,
    )
