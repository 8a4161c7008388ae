"""WebSocket text frames that only clients and socket servers exchange (`examwire.v1`)."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, Field

from protocol.errors import ErrorCode, ProtocolError
from protocol.ids import Id
from protocol.messages.base import ActionId, Labels, Message, Text, Traced, Version, Wire
from protocol.messages.codec import Codec, Malformed, encode, parse_json
from protocol.messages.plan_facts import MAX_LISTED, PlanNotice
from protocol.messages.proctor_events import EVENTS
from protocol.messages.progress import WaitingFor
from protocol.messages.session_messages import ProctorActivity, ProctorDoing, SessionState
from protocol.messages.views import (
    CaptureId,
    ConnectionCode,
    ConnectionView,
    MobileSyncView,
    NoticesView,
    ReconnectView,
    Verdict,
)
from protocol.texts import check_token, clean_line, has_lone_surrogate, required_lines
from protocol.times import Timestamp

SUBPROTOCOL = "examwire.v1"
TOKEN_SUBPROTOCOL = "examwire.token."
"""With the token behind it, a second subprotocol to offer: how a browser shows its token in the handshake."""
MAX_HANDSHAKE_TOKEN = 4096
"""A handshake's headers are limited; a longer token is shown in the hello only."""
CONNECT_PATH = "/v1/connect"
REQUEST_BYTES = 16 * 1024
"""The handshake's request, all of it."""
HELLO_SECONDS = 5.0
HELLO_BYTES = 16 * 1024
HELLO_FRAMES = 16
"""What a client may send up to its hello, that included."""
BURST_SECONDS = 5.0
"""A greeted client may send what it may send in so long at once."""
MAX_FRAME_BYTES = 64 * 1024

Role = Literal["examinee", "proctor", "mobile", "operator"]


# What people and their programs write is cleaned here, at the door: the log keeps it as it came in.
CleanLine = Annotated[Text, AfterValidator(clean_line)]
CleanNoticeText = Annotated[str, AfterValidator(required_lines), Field(max_length=1000)]
RequestId = Annotated[ActionId, AfterValidator(check_token)]


class HelloClientInfo(Wire):
    browser_info: CleanLine | None = None


class Hello(Traced):
    """First frame of a client, within 5 s.

    `clientId` names the client over reloads, `connectionNo` counts its connections: a lower number of the same
    client never replaces a live connection. `token` may come as `Authorization: Bearer` instead.
    """

    type: ClassVar[str] = "hello"
    token: Annotated[str, Field(max_length=8192)] | None = None
    client_id: Id
    connection_no: Annotated[int, Field(ge=0, lt=2**53, strict=True)]
    client_info: HelloClientInfo | None = None


class Heartbeat(Message):
    """Browsers cannot ping: any frame counts as life, this one says nothing else. It is echoed."""

    type: ClassVar[str] = "heartbeat"


class EnterMobileSync(Traced):
    """`mobile_sync_wait` of an examinee: the stage is entered; the fields are the server's to fill in."""

    type: ClassVar[str] = "mobile_sync_wait"
    plan_id: Id | None = None
    examinee_id: Id | None = None


class ReadmitFrame(Message):
    """`readmit` of a proctor: let the examinee in again after RECONNECT_LIMIT_EXCEEDED or a removal.

    The `requestId` of this and of what follows is the action's name: whoever does not know whether a frame arrived says
    it again with the same one, on whatever connection, and it has one effect. `accepted` (or an `error`) names it.
    """

    type: ClassVar[str] = "readmit"
    examinee_id: Id
    request_id: RequestId | None = None


class RemoveFrame(Message):
    """`remove` of a proctor: end the examinee's connection (4508) and let nobody in under this id until readmitted."""

    type: ClassVar[str] = "remove"
    examinee_id: Id
    request_id: RequestId
    reason: CleanLine | None = None


class ExtendMobileSyncFrame(Message):
    """`extend_mobile_sync` of a proctor: `seconds` more for the picture, also when the stage ended without one."""

    type: ClassVar[str] = "extend_mobile_sync"
    examinee_id: Id
    request_id: RequestId
    seconds: Annotated[int, Field(ge=10, le=3600, strict=True)]


class ReviewCaptureFrame(Message):
    """`capture_review` of a proctor: accept a picture, or ask for another one for a `reason`.

    `rejected` opens the stage again, for as long as it lasts in this plan.
    """

    type: ClassVar[str] = "capture_review"
    examinee_id: Id
    request_id: RequestId
    capture_id: CaptureId
    verdict: Verdict
    reason: CleanLine | None = None


class NotifyFrame(Message):
    """`notify` of a proctor: show the examinee a message; `notice_confirmed` follows when it was read."""

    type: ClassVar[str] = "notify"
    examinee_id: Id
    request_id: RequestId
    text: CleanNoticeText


class FinishFrame(Message):
    """`finish`: the exam is over. Of an examinee, for themselves; of a proctor, for `examineeId`.

    `accepted` follows once that is in the log.
    """

    type: ClassVar[str] = "finish"
    examinee_id: Id | None = None
    request_id: RequestId | None = None


class ResumeFrame(Message):
    """`resume` of a proctor: a finished examinee goes on with the exam."""

    type: ClassVar[str] = "resume"
    examinee_id: Id
    request_id: RequestId


class ExtendExamFrame(Message):
    """`extend_exam` of a proctor: `seconds` more for one examinee; for everybody when nobody is named."""

    type: ClassVar[str] = "extend_exam"
    examinee_id: Id | None = None
    request_id: RequestId
    seconds: Annotated[int, Field(ge=1, le=86400, strict=True)]


class NotifyPlanFrame(Message):
    """`notify_plan` of a proctor: show a message to the listed `examinees`; to everybody when none are listed."""

    type: ClassVar[str] = "notify_plan"
    request_id: RequestId
    text: CleanNoticeText
    examinees: Annotated[list[Id], Field(min_length=1, max_length=MAX_LISTED)] | None = None


class AskForHelp(Message):
    """`help_request` of an examinee: ask the proctors for help. `accepted` follows once that is in the log.

    While a request is open, another one has no effect and is `accepted`.
    """

    type: ClassVar[str] = "help_request"
    request_id: RequestId
    text: CleanNoticeText | None = None


class CancelHelp(Message):
    """`help_cancel` of an examinee: take back the request for help `requestId`."""

    type: ClassVar[str] = "help_cancel"
    request_id: RequestId


class TakeHelp(Message):
    """`help_take` of a proctor: "I am on it". `helpId`: the `requestId` of the examinee's request."""

    type: ClassVar[str] = "help_take"
    examinee_id: Id
    help_id: RequestId
    request_id: RequestId


class CloseHelp(Message):
    """`help_close` of a proctor: the request for help `helpId` is over."""

    type: ClassVar[str] = "help_close"
    examinee_id: Id
    help_id: RequestId
    request_id: RequestId


class ActivityFrame(Message):
    """`proctor_activity` of a proctor: what they are doing with an examinee; the other proctors are told.

    Said again each `ACTIVITY_SECONDS` for as long as it lasts. It is not stored and not answered.
    """

    type: ClassVar[str] = "proctor_activity"
    examinee_id: Id
    doing: ProctorDoing


class ConfirmNotice(Message):
    """`notice_confirm` of an examinee: the message `actionId` was read. `accepted` follows once that is in the log.

    A message that was never sent is an `error` (NOT_FOUND, `data.actionId`).
    """

    type: ClassVar[str] = "notice_confirm"
    action_id: RequestId


class ReconnectPolicy(Wire):
    """How a client comes back: attempt 1 almost at once, attempt k+1 after `backoffSeconds[k-1]` × (1 ± `jitter`).

    `shutOut` false: used-up attempts refuse nobody, and the client goes on with the last step.
    """

    max_attempts: int
    backoff_seconds: list[float]
    jitter: float
    shut_out: bool | None = None


class Welcome(Message):
    """First frame of a server. `endpoints`: the READY socket servers in the order to try them.

    `reconnect`: the ladder of the plan's policy, else that of the settings. `serverTime`: when this was sent.
    """

    type: ClassVar[str] = "welcome"
    role: Role
    plan_id: str
    examinee_id: str | None = None
    server_id: str
    socket_id: str
    heartbeat_seconds: float
    server_time: Timestamp | None = None
    reconnect: ReconnectPolicy
    endpoints: list[str]


class Migrate(Message):
    """The server is drained: connect to the first of `endpoints` at once, the others are next. 4006 follows.

    `endpoints`: the READY socket servers without this one, in the order for this client.
    """

    type: ClassVar[str] = "migrate"
    endpoints: list[str]


class ExamineeRow(Wire):
    """One examinee in a plan_snapshot; `version` is the connection's, `mobileSync` and `notices` have their own.

    `name`, `labels`: by the roster, which may name those who never came. `notices`: absent when none was ever sent.
    """

    examinee_id: str
    name: str | None = None
    labels: Labels | None = None
    status: ConnectionCode
    last_active_time: str | None = None
    connection: ConnectionView
    mobile_sync: MobileSyncView
    reconnect: ReconnectView
    removed: bool = False
    notices: NoticesView | None = None
    version: Version


class PlanSnapshot(Message):
    """Every examinee of the plan. A large plan comes in `parts` frames; `part` counts from 1.

    `resync`: a fresh snapshot because events were dropped; it replaces what the client has. `planNotices`: the newest
    messages to everybody or to several, in the first part; absent when there are none.
    """

    type: ClassVar[str] = "plan_snapshot"
    plan_id: str
    examinees: list[ExamineeRow]
    part: int = 1
    parts: int = 1
    resync: bool | None = None
    plan_notices: list[PlanNotice] | None = None


class ViewStatus(Message):
    """Whether what the server tells of the plan is so now: after the welcome, and whenever it changes.

    `current` false: what has happened since `since` may not have been told, or recorded, yet; `waitingFor` says what
    that takes. Nothing is lost: it follows. `current` true: it is so again, since then. Examinees are told of false,
    and of its end.
    """

    type: ClassVar[str] = "view_status"
    current: bool
    since: Timestamp
    waiting_for: WaitingFor | None = None


class Accepted(Message):
    """A client's frame is durably in the log; its effect follows as an event."""

    type: ClassVar[str] = "accepted"
    request_type: str
    request_id: str | None = None


class Error(Message):
    """A client's frame was not accepted; the connection goes on. `requestId`: that of the frame, if it had one."""

    type: ClassVar[str] = "error"
    code: ErrorCode
    message: str
    field: str | None = None
    request_type: str | None = None
    request_id: str | None = None


ProctorAction = (
    ReadmitFrame
    | RemoveFrame
    | ExtendMobileSyncFrame
    | ReviewCaptureFrame
    | NotifyFrame
    | FinishFrame
    | ResumeFrame
    | ExtendExamFrame
    | NotifyPlanFrame
    | TakeHelp
    | CloseHelp
)
"""What a proctor decides; each frame is answered by `accepted` or `error`."""

CLIENT_FRAMES = Codec.of(
    (
        Hello,
        Heartbeat,
        EnterMobileSync,
        ConfirmNotice,
        ReadmitFrame,
        RemoveFrame,
        ExtendMobileSyncFrame,
        ReviewCaptureFrame,
        NotifyFrame,
        FinishFrame,
        ResumeFrame,
        ExtendExamFrame,
        NotifyPlanFrame,
        AskForHelp,
        CancelHelp,
        TakeHelp,
        CloseHelp,
        ActivityFrame,
    )
)
SERVER_FRAMES = Codec.of(
    (
        Welcome,
        PlanSnapshot,
        ViewStatus,
        Accepted,
        Error,
        Heartbeat,
        Migrate,
        *EVENTS,
        SessionState,
        ProctorActivity,
    )
)


def encode_text(message: Message) -> str:
    """A frame as text."""
    return encode(message).decode()


def error_frame(error: ProtocolError, request_type: str | None = None, request_id: str | None = None) -> Error:
    """The `error` frame of a `ProtocolError`."""
    return Error(
        code=error.code, message=error.detail, field=error.field, request_type=request_type, request_id=request_id
    )


def refusal_of(bad: Malformed) -> Error:
    """The `error` frame for a frame that is none we know, naming what it was meant to be where that can be read."""
    try:
        parsed = parse_json(bad.raw)
    except ValueError:
        return error_frame(bad.error)
    data = parsed.get("data") if isinstance(parsed, dict) else None
    request_id = data.get("requestId") if isinstance(data, dict) else None
    known = isinstance(request_id, str) and 1 <= len(request_id) <= 64 and not has_lone_surrogate(request_id)
    return error_frame(bad.error, frame_type(parsed), request_id if known else None)


def frame_type(parsed: Any) -> str | None:
    """The `type` of a parsed frame, if it has one worth repeating in an error."""
    kind = parsed.get("type") if isinstance(parsed, dict) else None
    return kind[:64] if isinstance(kind, str) and not has_lone_surrogate(kind) else None
