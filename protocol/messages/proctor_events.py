"""The events that proctors get. Each carries the `version` of the fact that caused it."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, get_args

from pydantic import Field

from protocol.ids import Id, SocketId
from protocol.messages.base import ActionId, Labels, Message, Name, Traced, Version, Wire
from protocol.messages.facts import (
    ClientInfo,
    ConnectionStatusCode,
    FinishReason,
    LossReason,
    MobileSyncCode,
    MobileSyncStatus,
    Notice,
    NoticeConfirmed,
)
from protocol.messages.plan_facts import PlanNotice, PlanPolicy, PlanStatusCode
from protocol.messages.views import (
    CaptureId,
    CaptureView,
    Challenge,
    ConnectionView,
    Difference,
    HelpView,
    ReconnectView,
    ReviewView,
    Share,
)
from protocol.times import Timestamp


class ReplacedSocket(Wire):
    """The connection that a newer one has replaced; `differs`: in what the newer one is not like it."""

    socket_id: SocketId
    server_id: str | None = None
    differs: list[Difference] | None = None


class ConnectionEvent(Traced):
    """An event about an examinee's connection; `name` and `labels` are those of the roster.

    `flags` and `unstable` are those of `ConnectionView` and `ReconnectView` after it; absent: none, and no.
    """

    plan_id: Id
    examinee_id: Id
    name: Name | None = None
    labels: Labels | None = None
    flags: list[Difference] | None = None
    unstable: bool | None = None
    version: Version


class ExamineeConnected(ConnectionEvent):
    """`examinee_connected`: the examinee has connected.

    `recovered`: it was lost for `outageSeconds`, for the reason `recoveredFrom`.
    `migrated`: it came from a draining server and was on its way for `outageSeconds`, which is no recovery.
    `replaced`: the connection that this one has replaced, without a loss. `differs`: in what this one is not like the
    examinee's connection before, replaced or lost.
    `restated`: published again because a late message changed the last published state.
    """

    type: ClassVar[str] = "examinee_connected"
    socket_id: SocketId
    server_id: str | None = None
    status: Literal[ConnectionStatusCode.CONNECTED] = ConnectionStatusCode.CONNECTED
    timestamp: Timestamp
    client_info: ClientInfo | None = None
    recovered: bool = False
    recovered_from: str | None = None
    migrated: bool | None = None
    outage_seconds: float | None = None
    replaced: ReplacedSocket | None = None
    differs: list[Difference] | None = None
    restated: bool | None = None


class ExamineeDisconnected(ConnectionEvent):
    """`examinee_disconnected`: the examinee is disconnected since `timestamp`, for `reason`.

    `closeCode`: that of the close frame; absent when the connection broke.
    `attempt` of `maxAttempts` has already begun when a migrating examinee did not reach another server.
    """

    type: ClassVar[str] = "examinee_disconnected"
    socket_id: SocketId | None = None
    server_id: str | None = None
    status: Literal[ConnectionStatusCode.DISCONNECTED] = ConnectionStatusCode.DISCONNECTED
    timestamp: Timestamp
    reason: str | None = None
    close_code: int | None = None
    attempt: int | None = None
    max_attempts: int | None = None
    restated: bool | None = None


class ExamineeMigrating(ConnectionEvent):
    """`examinee_migrating`: the examinee's server drains, and it is on its way to another one since `timestamp`.

    Next comes `examinee_connected` with `migrated`, or `examinee_disconnected` when it has not connected within the
    first step of the reconnect ladder.
    """

    type: ClassVar[str] = "examinee_migrating"
    socket_id: SocketId
    server_id: str | None = None
    status: Literal[ConnectionStatusCode.MIGRATING] = ConnectionStatusCode.MIGRATING
    timestamp: Timestamp
    restated: bool | None = None


class ExamineeReconnecting(ConnectionEvent):
    """`examinee_reconnecting`: attempt `attempt` of `maxAttempts` has begun; the next begins at `nextAttemptAt`."""

    type: ClassVar[str] = "examinee_reconnecting"
    attempt: int
    max_attempts: int
    next_attempt_at: Timestamp | None = None
    timestamp: Timestamp


class ExamineeReconnectExhausted(ConnectionEvent):
    """`examinee_reconnect_exhausted`: the last attempt failed; connections are refused until a proctor readmits."""

    type: ClassVar[str] = "examinee_reconnect_exhausted"
    reason: Literal[LossReason.RECONNECT_LIMIT_EXCEEDED] = LossReason.RECONNECT_LIMIT_EXCEEDED
    attempt: int
    max_attempts: int
    timestamp: Timestamp


class ExamineeUnstable(ConnectionEvent):
    """`examinee_unstable`: an examinee who was unstable is so no more: they have stayed connected for long enough.

    Away for `share` of the last `windowSeconds`. That somebody becomes unstable is told by `unstable` of the event
    about the loss, attempt or connection that makes them so.
    """

    type: ClassVar[str] = "examinee_unstable"
    unstable: bool = False
    share: Share
    window_seconds: int
    connection: ConnectionView
    reconnect: ReconnectView
    timestamp: Timestamp


class ExamineeReadmitted(ConnectionEvent):
    """`examinee_readmitted`: a proctor (`by`) allows the examinee to connect again.

    `status` NEVER: the examinee has never connected.
    """

    type: ClassVar[str] = "examinee_readmitted"
    status: Literal["DISCONNECTED", "NEVER"] = "DISCONNECTED"
    by: str
    by_name: Name | None = None
    action_id: ActionId | None = None
    timestamp: Timestamp


class ExamineeRemoved(ConnectionEvent):
    """`examinee_removed`: a proctor (`by`) has removed the examinee; a connection it had is closed.

    `status` NEVER: the examinee has never connected.
    """

    type: ClassVar[str] = "examinee_removed"
    status: Literal["DISCONNECTED", "NEVER"] = "DISCONNECTED"
    by: str
    by_name: Name | None = None
    action_id: ActionId | None = None
    reason: str | None = None
    timestamp: Timestamp
    restated: bool | None = None


class ExamineeEnrolled(ConnectionEvent):
    """`examinee_enrolled`: the roster names the examinee, or gives it another name or labels.

    `connection`, `reconnect` and `removed`: its present state, as an examinee may connect before the roster is read.
    """

    type: ClassVar[str] = "examinee_enrolled"
    by: str | None = None
    action_id: ActionId | None = None
    connection: ConnectionView
    reconnect: ReconnectView
    removed: bool = False
    timestamp: Timestamp
    restated: bool | None = None


class ExamineeFinished(ConnectionEvent):
    """`examinee_finished`: the exam is over for the examinee since `timestamp`; what its socket does is no loss.

    `by`: who said so; `plan` when the plan has ended.
    """

    type: ClassVar[str] = "examinee_finished"
    status: Literal[ConnectionStatusCode.FINISHED] = ConnectionStatusCode.FINISHED
    by: str
    by_name: Name | None = None
    reason: FinishReason
    action_id: ActionId | None = None
    timestamp: Timestamp
    restated: bool | None = None


class ExamineeResumed(ConnectionEvent):
    """`examinee_resumed`: a finished examinee goes on with the exam.

    `connection`: where they are now. DISCONNECTED: they may connect, and no attempts are counted.
    """

    type: ClassVar[str] = "examinee_resumed"
    by: str
    by_name: Name | None = None
    action_id: ActionId | None = None
    connection: ConnectionView
    timestamp: Timestamp


class OwnExamTimes(Wire):
    """When the exam begins and ends for one examinee, if not as for the others."""

    starts_at: Timestamp | None = None
    ends_at: Timestamp | None = None


class PlanStateEvent(Traced):
    """`plan_state`: whether the exam runs, and its times. Everybody gets it after `welcome` and at each change.

    `serverTime`: the time at which it is sent; a client counts from it, never by its own clock. An examinee gets their
    own times as `startsAt` and `endsAt`, and `graceSeconds`: so long after the end they may still hand in. Only
    proctors get `ownTimes` (by examineeId: of those whose times differ), `policy`, and who closed the plan.
    """

    type: ClassVar[str] = "plan_state"
    plan_id: Id
    status: PlanStatusCode
    name: Name | None = None
    starts_at: Timestamp | None = None
    ends_at: Timestamp | None = None
    server_time: Timestamp | None = None
    grace_seconds: Annotated[int, Field(ge=0, le=86400)] | None = None
    policy: PlanPolicy | None = None
    own_times: dict[Id, OwnExamTimes] | None = None
    closed_at: Timestamp | None = None
    closed_by: str | None = None
    closed_by_name: str | None = None
    reason: str | None = None
    restated: bool | None = None
    version: Version

    def for_examinee(self, examinee_id: str, server_time: str) -> PlanStateEvent:
        """Return the frame that one examinee is sent at `server_time`, with their own times."""
        own = (self.own_times or {}).get(examinee_id, OwnExamTimes(starts_at=self.starts_at, ends_at=self.ends_at))
        return PlanStateEvent(
            plan_id=self.plan_id,
            status=self.status,
            name=self.name,
            starts_at=own.starts_at,
            ends_at=own.ends_at,
            server_time=server_time,
            grace_seconds=self.policy.grace_seconds if self.policy else None,
            version=self.version,
        )


class HelpEvent(Traced):
    """An event about an examinee's request for help (`requestId`), as proctors and the examinee get it.

    `by`: who has asked, taken or closed it. The other fields are those of `notice`.
    """

    plan_id: Id
    examinee_id: Id
    request_id: ActionId
    by: str
    by_name: Name | None = None
    action_id: ActionId | None = None
    timestamp: Timestamp
    unconfirmed: list[ActionId]
    sent: int
    confirmed_plan_notices: list[ActionId] | None = None
    help: HelpView | None = None
    restated: bool | None = None
    version: Version


class HelpRequested(HelpEvent):
    """`help_requested`: the examinee asks for help."""

    type: ClassVar[str] = "help_requested"


class HelpTaken(HelpEvent):
    """`help_taken`: the proctor `by` is on it."""

    type: ClassVar[str] = "help_taken"


class HelpClosed(HelpEvent):
    """`help_closed`: the request is over; `by` is a proctor, or the examinee, who has taken it back."""

    type: ClassVar[str] = "help_closed"


class MobileSyncCompleted(Traced):
    """`mobile_sync_completed`: the examinee's picture is stored. The examinee and the proctors get it.

    Also when a proctor (`by`) has looked at the picture `captureId`, and when a further picture was stored, which does
    not replace it.
    """

    type: ClassVar[str] = "mobile_sync_completed"
    plan_id: Id
    examinee_id: Id
    device_id: Id
    status: Literal[MobileSyncCode.COMPLETED] = MobileSyncCode.COMPLETED
    timestamp: Timestamp
    image_url: str | None = None
    capture_id: CaptureId | None = None
    by: str | None = None
    action_id: ActionId | None = None
    captures: list[CaptureView] | None = None
    review: ReviewView | None = None
    challenge: Challenge | None = None
    version: Version


Event = (
    ExamineeConnected
    | ExamineeDisconnected
    | ExamineeMigrating
    | ExamineeReconnecting
    | ExamineeReconnectExhausted
    | ExamineeUnstable
    | ExamineeReadmitted
    | ExamineeRemoved
    | ExamineeEnrolled
    | ExamineeFinished
    | ExamineeResumed
    | MobileSyncStatus
    | MobileSyncCompleted
    | Notice
    | NoticeConfirmed
    | HelpRequested
    | HelpTaken
    | HelpClosed
    | PlanStateEvent
    | PlanNotice
)
"""The events that proctors get; each carries a `version`."""

EVENTS: tuple[type[Message], ...] = get_args(Event)


class NewerEvent(Message):
    """An event whose `format` only a newer release knows. It has what each event has; the rest is not understood here.

    It is never encoded: whoever passes it on sends what has arrived.
    """

    type: ClassVar[str] = "newer_event"
    plan_id: Id
    examinee_id: Id | None = None
    version: Version
