"""What a transition asks for besides events. Values, so that they can be compared; the state manager acts on them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class SendSessionState:
    """Send `session_state` to the examinee behind the socket, by way of its server."""

    plan_id: str
    examinee_id: str
    server_id: str
    socket_id: str
    version: int


@dataclass(frozen=True, slots=True)
class CloseSocket:
    """Have the server close the socket with a close code."""

    server_id: str
    socket_id: str
    code: int
    version: int


@dataclass(frozen=True, slots=True)
class WatchReconnect:
    """Put the examinee on the reconnect watch for the loss `version`."""

    plan_id: str
    examinee_id: str
    version: int


@dataclass(frozen=True, slots=True)
class ScheduleTimeout:
    """Have the mobile sync stage end at `deadline` (RFC 3339) unless it is completed."""

    plan_id: str
    examinee_id: str
    deadline: str
    version: int


@dataclass(frozen=True, slots=True)
class SendMobileSync:
    """Tell the examinee the state of the mobile sync (again)."""

    plan_id: str
    examinee_id: str
    version: int


@dataclass(frozen=True, slots=True)
class SendNotice:
    """Show the examinee the message `action_id` of a proctor."""

    plan_id: str
    examinee_id: str
    action_id: str
    version: int


@dataclass(frozen=True, slots=True)
class EndSessions:
    """Disconnect the sessions that the server had before `version`, with `reason`."""

    server_id: str
    reason: str
    timestamp: str
    version: int


@dataclass(frozen=True, slots=True)
class SendSessionLost:
    """Tell a server that this socket of its was declared disconnected: if it is alive, it will object."""

    server_id: str
    socket_id: str
    version: int


Effect = (
    SendSessionState
    | CloseSocket
    | WatchReconnect
    | ScheduleTimeout
    | SendMobileSync
    | SendNotice
    | EndSessions
    | SendSessionLost
)
