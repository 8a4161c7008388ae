"""Effects: what a rule requests besides events. They are values, which the state manager carries out."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class SendSessionState:
    """Send `session_state` to the examinee behind a socket, through its server."""

    plan_id: str
    examinee_id: str
    server_id: str
    socket_id: str
    version: int


@dataclass(frozen=True, slots=True)
class CloseSocket:
    """Have a server close a socket with a `CloseCode`."""

    server_id: str
    socket_id: str
    code: int
    version: int


@dataclass(frozen=True, slots=True)
class WatchReconnect:
    """Have the reconnect watch count the attempts after the loss `version`."""

    plan_id: str
    examinee_id: str
    version: int


@dataclass(frozen=True, slots=True)
class ScheduleTimeout:
    """Schedule the end of the mobile sync stage at `deadline` (RFC 3339)."""

    plan_id: str
    examinee_id: str
    deadline: str
    version: int


@dataclass(frozen=True, slots=True)
class ScheduleStable:
    """Schedule that an unstable examinee who stays connected is stable again at `at` (RFC 3339).

    `version`: of the fact that has connected them.
    """

    plan_id: str
    examinee_id: str
    at: str
    version: int


@dataclass(frozen=True, slots=True)
class SendMobileSync:
    """Send the state of the mobile sync to the examinee."""

    plan_id: str
    examinee_id: str
    version: int


@dataclass(frozen=True, slots=True)
class SendNotice:
    """Send the proctor's message `action_id` to the examinee."""

    plan_id: str
    examinee_id: str
    action_id: str
    version: int


@dataclass(frozen=True, slots=True)
class SendHelp:
    """Send the state of the request for help to the examinee."""

    plan_id: str
    examinee_id: str
    version: int


@dataclass(frozen=True, slots=True)
class EndSessions:
    """Disconnect the sessions that a server had before `version`, for `reason`."""

    server_id: str
    reason: str
    timestamp: str
    version: int


@dataclass(frozen=True, slots=True)
class SendSessionLost:
    """Send `session_lost` to a server about one of its sockets: a server announces an open socket again."""

    server_id: str
    socket_id: str
    version: int


@dataclass(frozen=True, slots=True)
class SendPlanState:
    """Send `plan_state` to all examinees of a plan; proctors get it as an event."""

    plan_id: str
    version: int


@dataclass(frozen=True, slots=True)
class SendPlanNotice:
    """Send the message `action_id` to the examinees that it is for."""

    plan_id: str
    action_id: str
    version: int


@dataclass(frozen=True, slots=True)
class SchedulePlan:
    """Schedule the beginning (`opens`) or an end of a plan at `at` (RFC 3339)."""

    plan_id: str
    at: str
    opens: bool
    version: int


@dataclass(frozen=True, slots=True)
class FinishExaminees:
    """Finish the examinees of a plan who are still there, except those whose own time is not up at `timestamp`.

    Who was finished before and is still connected has their socket closed.
    """

    plan_id: str
    timestamp: str
    version: int


@dataclass(frozen=True, slots=True)
class ResumeExaminees:
    """Resume those examinees of a plan whom its end has finished; `examinee_id`: only this one, if so."""

    plan_id: str
    timestamp: str
    version: int
    examinee_id: str | None = None


Effect = (
    SendSessionState
    | CloseSocket
    | WatchReconnect
    | ScheduleTimeout
    | ScheduleStable
    | SendMobileSync
    | SendNotice
    | SendHelp
    | EndSessions
    | SendSessionLost
    | SendPlanState
    | SendPlanNotice
    | SchedulePlan
    | FinishExaminees
    | ResumeExaminees
)
