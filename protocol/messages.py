"""Messages between actors: `{"type": …, "data": {…}}`, camelCase on the wire, snake_case here.

Types and fields of the documents are kept to the letter; each class names its document. Fields that the
documents do not have are additions of ours, and fields we do not know are ignored, so that versions can mix.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, WithJsonSchema
from pydantic.alias_generators import to_camel

from protocol.ids import Id, ServerId, SocketId
from protocol.times import Timestamp
from protocol.trace_context import Traceparent

Text = Annotated[str, Field(max_length=256)]
Reason = Annotated[str, Field(pattern=r"^[A-Z][A-Z0-9_]{0,63}$")]
# Shown to people on one line: no control characters, and no more of it than fits.
Name = Annotated[str, Field(pattern=r"^[^\x00-\x1f\x7f]{1,100}$")]
ActionId = Annotated[str, Field(min_length=1, max_length=64)]
"""Made by whoever acts, the same for a retry: an action has one effect, however often it is said."""


class Wire(BaseModel):
    """Anything that has a place in a payload."""

    model_config = ConfigDict(
        alias_generator=to_camel,
        validate_by_name=True,
        validate_by_alias=True,
        extra="ignore",
        allow_inf_nan=False,  # JSON has no such numbers: they would be written as null
    )


class Message(Wire):
    """One message; `type` is its name on the wire, the fields are its `data`."""

    type: ClassVar[str]

    def data(self) -> dict[str, Any]:
        """The `data` object as JSON-ready values, `null`s left out."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)


class Traced(Message):
    """What may be part of a trace (W3C `traceparent`, an addition); absent when nothing is traced."""

    traceparent: Traceparent = None


class ExamineeFact(Traced):
    """Something that happened to one examinee of a plan: what `status.plan.{planId}` carries."""

    plan_id: Id
    examinee_id: Id
    timestamp: Timestamp


class ActionFact(ExamineeFact):
    """What somebody has decided about an examinee: `by` whom, and the `actionId` of a proctor's frame."""

    by: Text
    action_id: ActionId | None = None


# -- connection (document 10) ---------------------------------------------------------------------------


class ConnectionStatusCode(StrEnum):
    """What an examinee is. MIGRATING: sent away by a server that is drained, and expected on another one."""

    CONNECTED = "CONNECTED"
    DISCONNECTED = "DISCONNECTED"
    MIGRATING = "MIGRATING"


def _of_a_socket(status: ConnectionStatusCode) -> ConnectionStatusCode:
    if status is ConnectionStatusCode.MIGRATING:
        raise ValueError("a socket is CONNECTED or DISCONNECTED; that it was sent away is said by its reason")
    return status


SocketStatusCode = Annotated[
    ConnectionStatusCode,
    AfterValidator(_of_a_socket),
    WithJsonSchema({"type": "string", "enum": ["CONNECTED", "DISCONNECTED"]}),
]


class LossReason(StrEnum):
    """`reason` of a loss. SERVER_DRAINING: sent away to another server, a loss only if it does not arrive there."""

    SOCKET_CLOSED = "SOCKET_CLOSED"
    PING_TIMEOUT = "PING_TIMEOUT"
    SLOW_CLIENT = "SLOW_CLIENT"
    PROTOCOL_ERROR = "PROTOCOL_ERROR"
    SERVER_ISOLATED = "SERVER_ISOLATED"
    SERVER_DRAINING = "SERVER_DRAINING"
    SERVER_STOPPED = "SERVER_STOPPED"
    SERVER_RESTARTED = "SERVER_RESTARTED"
    SERVER_LOST = "SERVER_LOST"
    KICKED = "KICKED"
    RECONNECT_LIMIT_EXCEEDED = "RECONNECT_LIMIT_EXCEEDED"


class ClientInfo(Wire):
    ip_address: Text | None = None
    browser_info: Text | None = None


class ConnectionStatus(ExamineeFact):
    """A socket opened or ended (document 10.4). `serverId` to `again` are additions.

    `again`: this socket was announced before; whoever is connected since by another one has replaced it.
    """

    type: ClassVar[str] = "connection_status"
    socket_id: SocketId
    status: SocketStatusCode
    reason: Reason | None = None
    client_info: ClientInfo | None = None
    server_id: ServerId | None = None
    incarnation: Id | None = None
    client_id: Id | None = None
    connection_no: Annotated[int, Field(ge=0, lt=2**53)] = 0
    again: bool | None = None


class ReconnectAttempt(ExamineeFact):
    """The reconnect watch: attempt `attempt` of `maxAttempts` after the loss `lossVersion` has begun."""

    type: ClassVar[str] = "reconnect_attempt"
    loss_version: int
    attempt: Annotated[int, Field(ge=1)]
    max_attempts: Annotated[int, Field(ge=1)]
    next_attempt_at: Timestamp | None = None
    timestamp: Timestamp


class ReconnectExhausted(ExamineeFact):
    """The reconnect watch: the last attempt after the loss `lossVersion` went by without a recovery."""

    type: ClassVar[str] = "reconnect_exhausted"
    loss_version: int
    timestamp: Timestamp


class Enrol(ExamineeFact):
    """The plan's roster names an examinee, who may come later or never; `by`: who has said so."""

    type: ClassVar[str] = "enrol"
    name: Name | None = None
    by: Text | None = None
    action_id: ActionId | None = None


class Readmit(ActionFact):
    """A proctor lets an examinee in again after the attempts were used up, or after a removal."""

    type: ClassVar[str] = "readmit"


class Remove(ActionFact):
    """A proctor takes an examinee out of the exam: nobody is let in under this id until a proctor readmits."""

    type: ClassVar[str] = "remove"
    reason: Text | None = None


Aspect = Literal["connection", "mobile_sync", "notices"]
"""What an examinee is told about in three lines of versions, each with a record of its own."""


class Restate(ExamineeFact):
    """The state manager tells an examinee's state anew, after a late message has changed what was told before."""

    type: ClassVar[str] = "restate"
    aspect: Aspect = "connection"


# -- mobile sync (document 18) --------------------------------------------------------------------------


class MobileSyncCode(StrEnum):
    WAITING = "WAITING"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    TIMED_OUT = "TIMED_OUT"


class DeviceInfo(Wire):
    model: Text | None = None
    os_version: Text | None = None


class CaptureInfo(Wire):
    image_url: Annotated[str, Field(max_length=512)]
    device_info: DeviceInfo = DeviceInfo()


class MobileSyncWait(ExamineeFact):
    """An examinee entered the mobile sync stage (document 18.3), until `deadline`."""

    type: ClassVar[str] = "mobile_sync_wait"
    deadline: Timestamp


class MobileSyncStatus(ExamineeFact):
    """The outcome of an upload (document 18.4); also what proctors are told of every other change.

    `captureId` is the SHA-256 of the stored picture (an addition): a repeated upload is recognised by it. `by` and
    `actionId`: the proctor who gave more time.
    """

    type: ClassVar[str] = "mobile_sync_status"
    device_id: Id | None = None
    status: MobileSyncCode
    capture_info: CaptureInfo | None = None
    reason: Reason | None = None
    capture_id: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = None
    deadline: Timestamp | None = None
    by: Text | None = None
    action_id: ActionId | None = None
    version: int | None = None


class MobileSyncExtend(ActionFact):
    """A proctor gives an examinee `seconds` more for the picture, also when the stage has ended without one."""

    type: ClassVar[str] = "mobile_sync_extend"
    seconds: Annotated[int, Field(ge=10, le=3600, strict=True)]


class MobileSyncTimeout(ExamineeFact):
    """The schedule of a stage has fired: the wait of `waitVersion` is over."""

    type: ClassVar[str] = "mobile_sync_timeout"
    wait_version: int
    timestamp: Timestamp


class MobileSyncCompleted(Traced):
    """Told to the examinee and the proctors (document 18.4)."""

    type: ClassVar[str] = "mobile_sync_completed"
    plan_id: Id
    examinee_id: Id
    device_id: Id
    status: Literal[MobileSyncCode.COMPLETED] = MobileSyncCode.COMPLETED
    timestamp: Timestamp
    image_url: str | None = None
    version: int


# -- messages of proctors -------------------------------------------------------------------------------

NoticeText = Annotated[str, Field(min_length=1, max_length=1000)]


class _AboutNotices(ExamineeFact):
    """A fact, and with `version` what proctors are told of it.

    An event tells all that they must have right: `unconfirmed` are the actionIds that the examinee has not confirmed,
    of the newest 20; `sent` counts all. `restated`: told anew because a late message changed what was told before.
    """

    action_id: ActionId
    unconfirmed: list[ActionId] | None = None
    sent: int | None = None
    restated: bool | None = None
    version: int | None = None


class Notice(_AboutNotices):
    """A message of the proctor `by` to an examinee; also what the examinee is sent."""

    type: ClassVar[str] = "notice"
    text: NoticeText
    by: Text


class NoticeConfirmed(_AboutNotices):
    """The examinee has read the message `actionId`; proctors are told `by` whom that was."""

    type: ClassVar[str] = "notice_confirmed"
    by: Text | None = None


# -- socket server start-up (document 9) ----------------------------------------------------------------


class ServerStatusCode(StrEnum):
    """DRAINING: alive and serving those it has, letting in nobody, sending its clients to other servers."""

    STARTING = "STARTING"
    READY = "READY"
    DRAINING = "DRAINING"
    STOPPING = "STOPPING"
    STOPPED = "STOPPED"
    FAILED = "FAILED"
    LOST = "LOST"


class ServerStatus(Message):
    """A socket server about itself (document 9.3, 9.5); `incarnation` names the process.

    `cpuUsage` and `memoryUsage` are percent of the machine, `networkStatus` is GOOD, SLOW or BAD by the
    round trip to NATS. `reason` says why a start FAILED. `url` is the address for clients.
    """

    type: ClassVar[str] = "server_status"
    server_id: ServerId
    server_type: Literal["SOCKET"] = "SOCKET"
    status: ServerStatusCode
    incarnation: Id
    start_time: Timestamp
    timestamp: Timestamp
    queue_id: Text | None = None
    cpu_usage: float | None = None
    memory_usage: float | None = None
    network_status: Literal["GOOD", "SLOW", "BAD"] | None = None
    url: Annotated[str, Field(max_length=512)] | None = None
    reason: Reason | None = None


class QueueConfig(Wire):
    """What the fields of `queue_create.config` (document 9.4) mean here.

    `maxSize`: when more than this many messages wait, the server drops its backlog and resynchronises its
    clients from Redis, and says so. `expireTime` (seconds): the queue is removed when unused for so long, and a
    message older than that is not delivered. `priority`: `high` gives messages for the server itself and for
    single examinees a consumer of their own, so that no storm of broadcasts delays them; `normal` and `low`
    share one.
    """

    max_size: Annotated[int, Field(ge=1)] = 10000
    expire_time: Annotated[int, Field(ge=1, le=7 * 86400)] = 3600
    priority: Literal["high", "normal", "low"] = "high"


class QueueCreate(Message):
    """Ask the queue server for `{serverId}_Q` (document 9.4), or change what it receives.

    `proctorPlans` and `examineePlans` are the plans of the clients that the server holds (additions). A request of a
    new `incarnation` begins with an empty backlog; `reset` names the consumers of the queue whose backlog is dropped.
    """

    type: ClassVar[str] = "queue_create"
    server_id: ServerId
    queue_id: Text
    queue_type: Literal["socket_message"] = "socket_message"
    config: QueueConfig = QueueConfig()
    incarnation: Id | None = None
    proctor_plans: list[Id] = []
    examinee_plans: list[Id] = []
    reset: list[Text] = []


class QueueCreated(Message):
    """The queue server's answer: the consumers that make up the queue (one, or two with priority `high`)."""

    type: ClassVar[str] = "queue_created"
    server_id: ServerId
    queue_id: str
    stream: str
    consumers: list[str]


class Lease(Message):
    """A server's heartbeat: what it measures, and the sessions that were heard from since they were last told.

    `active` holds `[planId, examineeId, socketId, lastHeartbeat]`.
    """

    type: ClassVar[str] = "lease"
    server_id: ServerId
    incarnation: Id
    timestamp: Timestamp
    cpu_usage: float
    memory_usage: float
    network_status: Literal["GOOD", "SLOW", "BAD"]
    sessions: int = 0
    active: list[tuple[Id, Id, SocketId, Timestamp]] = []


# -- what proctors are told (document 10.3) -------------------------------------------------------------


class ReplacedSocket(Wire):
    socket_id: SocketId
    server_id: str | None = None


class ConnectionEvent(Traced):
    """What proctors are told of a connection; `name` as the roster has it."""

    plan_id: Id
    examinee_id: Id
    name: Name | None = None
    version: int


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


# -- what a socket server is told -----------------------------------------------------------------------


class ConnectionView(Wire):
    """`connection` of a session_state or of a row of a plan_snapshot; `ipAddress` in the latter only."""

    status: Literal["CONNECTED", "DISCONNECTED", "MIGRATING", "NEVER"] = "NEVER"
    socket_id: str | None = None
    server_id: str | None = None
    ip_address: str | None = None
    reason: str | None = None
    since: str | None = None
    version: int = 0


class MobileSyncView(Wire):
    status: Literal["NONE", "WAITING", "COMPLETED", "FAILED", "TIMED_OUT"] = "NONE"
    device_id: str | None = None
    timestamp: str | None = None
    image_url: str | None = None
    reason: str | None = None
    deadline: str | None = None
    version: int = 0


class ReconnectView(Wire):
    """`count`: how often the examinee came back; `attempt` of `maxAttempts` is under way while disconnected."""

    count: int = 0
    attempt: int = 0
    max_attempts: int | None = None
    next_attempt_at: str | None = None
    exhausted: bool = False


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


class NoticeView(Wire):
    """A message of a proctor that is recorded."""

    action_id: str
    text: str
    by: str
    sent_at: str
    confirmed_at: str | None = None


class NoticesView(Wire):
    """`notices` of a row of a plan_snapshot: see `notice`."""

    unconfirmed: list[str] = []
    sent: int = 0
    version: int = 0


class SessionState(Message):
    """To the examinee behind `socketId`, after each CONNECTED: what is recorded about them.

    `notices`: the messages of proctors that were not confirmed, the oldest first.
    """

    type: ClassVar[str] = "session_state"
    plan_id: Id
    examinee_id: Id
    socket_id: SocketId
    connection: ConnectionView
    mobile_sync: MobileSyncView = MobileSyncView()
    reconnect: ReconnectView = ReconnectView()
    notices: list[NoticeView] = []
    version: int


class SessionClose(Message):
    """To the server that holds `socketId`: close it with `code` (a `CloseCode`)."""

    type: ClassVar[str] = "session_close"
    socket_id: SocketId
    code: Annotated[int, Field(ge=1000, le=4999)]


class SessionLost(Message):
    """To a server: these sockets of its were declared lost. If one of them is alive, the server announces it anew."""

    type: ClassVar[str] = "session_lost"
    server_id: ServerId
    incarnation: Id | None = None
    socket_ids: list[SocketId] = []


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

ConnectionFact = ConnectionStatus | ReconnectAttempt | ReconnectExhausted | Enrol | Readmit | Remove | Restate
MobileSyncFact = MobileSyncWait | MobileSyncStatus | MobileSyncExtend | MobileSyncTimeout | Restate
NoticeFact = Notice | NoticeConfirmed | Restate
StatusMessage = ConnectionFact | MobileSyncFact | NoticeFact | ServerStatus

STATUS_MESSAGES: tuple[type[Message], ...] = (
    ConnectionStatus,
    ReconnectAttempt,
    ReconnectExhausted,
    Enrol,
    Readmit,
    Remove,
    Restate,
    MobileSyncWait,
    MobileSyncStatus,
    MobileSyncExtend,
    MobileSyncTimeout,
    Notice,
    NoticeConfirmed,
    ServerStatus,
)
"""What the state manager receives."""

SOCKET_MESSAGES: tuple[type[Message], ...] = (
    ExamineeConnected,
    ExamineeDisconnected,
    ExamineeMigrating,
    ExamineeReconnecting,
    ExamineeReconnectExhausted,
    ExamineeReadmitted,
    ExamineeRemoved,
    ExamineeEnrolled,
    MobileSyncStatus,
    MobileSyncCompleted,
    Notice,
    NoticeConfirmed,
    SessionState,
    SessionClose,
    SessionLost,
)
"""What a socket server receives (`socket_message` of the document)."""
