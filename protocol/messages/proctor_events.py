"""What proctors are told (document 10.3, 18.4). Every event carries the `version` of the fact that it tells of."""

from __future__ import annotations

from typing import ClassVar, Literal, get_args

from protocol.ids import Id, SocketId
from protocol.messages.base import ActionId, Message, Name, Traced, Version, Wire
from protocol.messages.facts import (
    ClientInfo,
    ConnectionStatusCode,
    LossReason,
    MobileSyncCode,
    MobileSyncStatus,
    Notice,
    NoticeConfirmed,
)
from protocol.messages.views import ConnectionView, ReconnectView
from protocol.times import Timestamp


class ReplacedSocket(Wire):
    socket_id: SocketId
    server_id: str | None = None


class ConnectionEvent(Traced):
    """What proctors are told of a connection; `name` as the roster has it."""

    plan_id: Id
    examinee_id: Id
    name: Name | None = None
    version: Version


class ExamineeConnected(ConnectionEvent):
    """`examinee_connected`: the examinee is there. `recovered`: after a loss, `outageSeconds` long, `recoveredFrom` its
    reason.

    `migrated`: sent here by a server that is drained, `outageSeconds` on the way; that is no recovery.
    `replaced`: a newer connection took over from this one, without a loss.
    `restated`: told anew because a late message changed what was told before.
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
    restated: bool | None = None


class ExamineeDisconnected(ConnectionEvent):
    """`examinee_disconnected`: the examinee is gone since `timestamp`, and why.

    `attempt` of `maxAttempts` is under way already when somebody who was migrating has not arrived.
    """

    type: ClassVar[str] = "examinee_disconnected"
    socket_id: SocketId | None = None
    server_id: str | None = None
    status: Literal[ConnectionStatusCode.DISCONNECTED] = ConnectionStatusCode.DISCONNECTED
    timestamp: Timestamp
    reason: str | None = None
    attempt: int | None = None
    max_attempts: int | None = None
    restated: bool | None = None


class ExamineeMigrating(ConnectionEvent):
    """`examinee_migrating`: sent away by a server that is drained, since `timestamp`, and expected on another one.

    `examinee_connected` with `migrated` follows, or `examinee_disconnected` when the first step of the reconnect
    ladder has passed without it. An addition to the document, where every closed socket is a loss.
    """

    type: ClassVar[str] = "examinee_migrating"
    socket_id: SocketId
    server_id: str | None = None
    status: Literal[ConnectionStatusCode.MIGRATING] = ConnectionStatusCode.MIGRATING
    timestamp: Timestamp
    restated: bool | None = None


class ExamineeReconnecting(ConnectionEvent):
    """`examinee_reconnecting`: attempt `attempt` of `maxAttempts` has begun; the next one begins at `nextAttemptAt`."""

    type: ClassVar[str] = "examinee_reconnecting"
    attempt: int
    max_attempts: int
    next_attempt_at: Timestamp | None = None
    timestamp: Timestamp


class ExamineeReconnectExhausted(ConnectionEvent):
    """`examinee_reconnect_exhausted`: all attempts are used up; a recovery is refused until a proctor readmits."""

    type: ClassVar[str] = "examinee_reconnect_exhausted"
    reason: Literal[LossReason.RECONNECT_LIMIT_EXCEEDED] = LossReason.RECONNECT_LIMIT_EXCEEDED
    attempt: int
    max_attempts: int
    timestamp: Timestamp


class ExamineeReadmitted(ConnectionEvent):
    """`examinee_readmitted`: a proctor (`by`) allowed the examinee to connect again.

    `status` NEVER: was removed without ever having been connected.
    """

    type: ClassVar[str] = "examinee_readmitted"
    status: Literal["DISCONNECTED", "NEVER"] = "DISCONNECTED"
    by: str
    action_id: ActionId | None = None
    timestamp: Timestamp


class ExamineeRemoved(ConnectionEvent):
    """`examinee_removed`: a proctor (`by`) has shut the examinee out; who was connected is not any more.

    `status` NEVER: has never been connected.
    """

    type: ClassVar[str] = "examinee_removed"
    status: Literal["DISCONNECTED", "NEVER"] = "DISCONNECTED"
    by: str
    action_id: ActionId | None = None
    reason: str | None = None
    timestamp: Timestamp
    restated: bool | None = None


class ExamineeEnrolled(ConnectionEvent):
    """`examinee_enrolled`: the roster names the examinee, or names them otherwise than before.

    `connection`, `reconnect` and `removed`: what is so beside, for an examinee may be there before the roster is.
    """

    type: ClassVar[str] = "examinee_enrolled"
    by: str | None = None
    action_id: ActionId | None = None
    connection: ConnectionView
    reconnect: ReconnectView
    removed: bool = False
    timestamp: Timestamp
    restated: bool | None = None


class MobileSyncCompleted(Traced):
    """Told to the examinee and the proctors (document 18.4)."""

    type: ClassVar[str] = "mobile_sync_completed"
    plan_id: Id
    examinee_id: Id
    device_id: Id
    status: Literal[MobileSyncCode.COMPLETED] = MobileSyncCode.COMPLETED
    timestamp: Timestamp
    image_url: str | None = None
    version: Version


Event = (
    ExamineeConnected
    | ExamineeDisconnected
    | ExamineeMigrating
    | ExamineeReconnecting
    | ExamineeReconnectExhausted
    | ExamineeReadmitted
    | ExamineeRemoved
    | ExamineeEnrolled
    | MobileSyncStatus
    | MobileSyncCompleted
    | Notice
    | NoticeConfirmed
)
"""What proctors are told; each carries a `version`."""

EVENTS: tuple[type[Message], ...] = get_args(Event)
