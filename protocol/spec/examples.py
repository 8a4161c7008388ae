"""An example of each message and of each bare payload, for the AsyncAPI document."""

from __future__ import annotations

from typing import Any

from protocol.access.phone_codes import PhoneCode
from protocol.broker.dead_letters import Letter, Source
from protocol.close_codes import CloseCode
from protocol.errors import ErrorCode
from protocol.messages.base import Message, Wire
from protocol.messages.facts import (
    CaptureInfo,
    CaptureReview,
    ClientInfo,
    ConnectionStatus,
    ConnectionStatusCode,
    DeviceInfo,
    Enrol,
    ExamineeFinish,
    ExamineeResume,
    FinishReason,
    HelpClose,
    HelpRequest,
    HelpTake,
    LossReason,
    MobileSyncCode,
    MobileSyncExtend,
    MobileSyncStatus,
    MobileSyncTimeout,
    MobileSyncWait,
    Notice,
    NoticeConfirmed,
    Readmit,
    ReconnectAttempt,
    ReconnectExhausted,
    Remove,
    Restate,
    UnstableRule,
    UnstableTimeout,
)
from protocol.messages.frames import (
    Accepted,
    ActivityFrame,
    AskForHelp,
    CancelHelp,
    CloseHelp,
    ConfirmNotice,
    EnterMobileSync,
    Error,
    ExamineeRow,
    ExtendExamFrame,
    ExtendMobileSyncFrame,
    FinishFrame,
    Heartbeat,
    Hello,
    HelloClientInfo,
    Migrate,
    NotifyFrame,
    NotifyPlanFrame,
    PlanSnapshot,
    ReadmitFrame,
    ReconnectPolicy,
    RemoveFrame,
    ResumeFrame,
    ReviewCaptureFrame,
    TakeHelp,
    ViewStatus,
    Welcome,
)
from protocol.messages.inspection import Inspection, ProcessFacts, SessionsPage
from protocol.messages.operator_requests import Done, Drain, Handled, Kick, PurgePictures, Stop, Tail
from protocol.messages.plan_facts import (
    ExamExtend,
    ExamWindow,
    PlanClose,
    PlanNotice,
    PlanOpen,
    PlanPolicy,
    PlanPurged,
    PlanRestate,
    PlanSchedule,
    PlanStatusCode,
)
from protocol.messages.proctor_events import (
    ExamineeConnected,
    ExamineeDisconnected,
    ExamineeEnrolled,
    ExamineeFinished,
    ExamineeMigrating,
    ExamineeReadmitted,
    ExamineeReconnectExhausted,
    ExamineeReconnecting,
    ExamineeRemoved,
    ExamineeResumed,
    ExamineeUnstable,
    HelpClosed,
    HelpRequested,
    HelpTaken,
    MobileSyncCompleted,
    PlanStateEvent,
)
from protocol.messages.progress import Applied, PartitionApplied
from protocol.messages.server_messages import Lease, QueueCreate, QueueCreated, ServerStatus, ServerStatusCode
from protocol.messages.session_messages import ProctorActivity, SessionAnnounce, SessionClose, SessionLost, SessionState
from protocol.messages.views import (
    CaptureView,
    ConnectionView,
    HelpView,
    MobileSyncView,
    NoticesView,
    NoticeView,
    ReconnectView,
)

SOCKET_ID = "SOCK001-7c9e6679f3b1d04a5e8c2f"
INCARNATION = "7c9e6679f3b1"
VERSION = 451263979520000
CAPTURE_ID = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
IMAGE_URL = "/captures/E001/sync_cap.jpg"
ENDPOINTS = ["wss://sock1.exam.example/v1/connect", "wss://sock2.exam.example/v1/connect"]
BROWSER = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36"
ACTION_ID = "b6f1c2d49a7e"
HELP_ID = "3e8c70a1d2f4"


def _at(clock: str) -> str:
    return f"2026-11-22T{clock}Z"


_SESSION = {"planId": "P001", "examineeId": "E001", "socketId": SOCKET_ID, "serverId": "SOCK001"}
_E001 = {"plan_id": "P001", "examinee_id": "E001"}
_SOCKET = {"socket_id": SOCKET_ID, "server_id": "SOCK001"}
_DECIDED = {"by": "proctor-1", "action_id": ACTION_ID}
_PLAN = {"plan_id": "P001", "by": "operator", "timestamp": _at("08:30:00.000")}
_CLIENT = ClientInfo(ip_address="203.0.113.7", browser_info=BROWSER, user_agent=BROWSER)
_HELP = HelpView(request_id=HELP_ID, text="Page 3 does not load.", since=_at("09:30:00.000"))
_HELP_TOLD: dict[str, Any] = {"request_id": HELP_ID, "unconfirmed": [], "sent": 1}
_CONNECTED = ConnectionView(
    status="CONNECTED", socket_id=SOCKET_ID, server_id="SOCK001", since=_at("09:00:03.120"), version=VERSION
)

_CLIENT_FRAMES: tuple[Message, ...] = (
    Hello(
        token="eyJhbGciOiJIUzI1NiJ9.e30.c2lnbmF0dXJl",
        client_id="tab-5f0c9a",
        connection_no=1,
        client_info=HelloClientInfo(browser_info=BROWSER),
    ),
    Heartbeat(),
    EnterMobileSync(**_E001),
    ConfirmNotice(action_id=ACTION_ID),
    ReadmitFrame(examinee_id="E001", request_id=ACTION_ID),
    RemoveFrame(examinee_id="E001", request_id=ACTION_ID, reason="another person sat down"),
    ExtendMobileSyncFrame(examinee_id="E001", request_id=ACTION_ID, seconds=120),
    ReviewCaptureFrame(
        examinee_id="E001", request_id=ACTION_ID, capture_id=CAPTURE_ID, verdict="rejected", reason="BLURRED"
    ),
    NotifyFrame(examinee_id="E001", request_id=ACTION_ID, text="Please turn the camera towards your desk."),
    FinishFrame(examinee_id="E001", request_id=ACTION_ID),
    ResumeFrame(examinee_id="E001", request_id=ACTION_ID),
    ExtendExamFrame(examinee_id="E001", request_id=ACTION_ID, seconds=900),
    NotifyPlanFrame(request_id=ACTION_ID, text="Ten minutes are left."),
    AskForHelp(request_id=HELP_ID, text="Page 3 does not load."),
    CancelHelp(request_id=HELP_ID),
    TakeHelp(examinee_id="E001", help_id=HELP_ID, request_id=ACTION_ID),
    CloseHelp(examinee_id="E001", help_id=HELP_ID, request_id=ACTION_ID),
    ActivityFrame(examinee_id="E001", doing="looking"),
)
_SERVER_FRAMES: tuple[Message, ...] = (
    Welcome(
        role="examinee",
        **_E001,
        **_SOCKET,
        heartbeat_seconds=5,
        reconnect=ReconnectPolicy(max_attempts=5, backoff_seconds=[5, 10, 20, 40, 60], jitter=0.3),
        endpoints=ENDPOINTS,
    ),
    SessionState(
        **_E001,
        socket_id=SOCKET_ID,
        connection=_CONNECTED,
        mobile_sync=MobileSyncView(),
        reconnect=ReconnectView(count=1),
        notices=[
            NoticeView(action_id=ACTION_ID, text="Please sit closer.", by="proctor-1", sent_at=_at("09:05:00.000"))
        ],
        version=VERSION,
    ),
    PlanSnapshot(
        plan_id="P001",
        examinees=[
            ExamineeRow(
                examinee_id="E001",
                name="김하늘",
                status="CONNECTED",
                last_active_time=_at("09:04:58.000"),
                connection=_CONNECTED,
                mobile_sync=MobileSyncView(),
                reconnect=ReconnectView(count=1),
                notices=NoticesView(unconfirmed=[ACTION_ID], sent=1, version=VERSION + 1024),
                version=VERSION,
            ),
            ExamineeRow(
                examinee_id="E002",
                name="이바다",
                status="NEVER",
                connection=ConnectionView(version=VERSION - 256),
                mobile_sync=MobileSyncView(),
                reconnect=ReconnectView(),
                version=VERSION - 256,
            ),
        ],
    ),
    ViewStatus(current=False, since=_at("09:15:00.000"), waiting_for="redis"),
    Accepted(request_type="notify", request_id=ACTION_ID),
    Error(code=ErrorCode.INVALID_FIELD, message="Field required", field="data.examineeId", request_type="remove"),
    Migrate(endpoints=ENDPOINTS[1:]),
    ProctorActivity(plan_id="P001", examinee_id="E001", by="proctor-2", socket_id=SOCKET_ID, doing="looking"),
)
_EVENTS: tuple[Message, ...] = (
    ExamineeConnected(
        **_E001,
        **_SOCKET,
        name="김하늘",
        version=VERSION,
        timestamp=_at("09:00:03.120"),
        client_info=_CLIENT,
        recovered=True,
        recovered_from=LossReason.SOCKET_CLOSED,
        outage_seconds=3.4,
    ),
    ExamineeDisconnected(
        **_E001, **_SOCKET, version=VERSION + 256, timestamp=_at("09:10:00.000"), reason=LossReason.PING_TIMEOUT
    ),
    ExamineeMigrating(**_E001, **_SOCKET, version=VERSION + 256, timestamp=_at("09:10:00.000")),
    ExamineeReconnecting(
        **_E001,
        version=VERSION + 512,
        attempt=1,
        max_attempts=5,
        next_attempt_at=_at("09:10:06.000"),
        timestamp=_at("09:10:01.000"),
    ),
    ExamineeReconnectExhausted(
        **_E001, version=VERSION + 768, attempt=5, max_attempts=5, timestamp=_at("09:12:15.000")
    ),
    ExamineeUnstable(
        **_E001,
        name="김하늘",
        version=VERSION + 896,
        share=0.2,
        window_seconds=600,
        connection=_CONNECTED,
        reconnect=ReconnectView(count=3),
        timestamp=_at("09:18:20.000"),
    ),
    ExamineeReadmitted(**_E001, **_DECIDED, version=VERSION + 1024, timestamp=_at("09:13:00.000")),
    ExamineeRemoved(
        **_E001, **_DECIDED, version=VERSION + 1280, reason="another person sat down", timestamp=_at("09:20:00.000")
    ),
    ExamineeEnrolled(
        **_E001,
        name="김하늘",
        version=VERSION - 512,
        by="operator",
        connection=ConnectionView(version=VERSION - 512),
        reconnect=ReconnectView(),
        timestamp=_at("08:30:00.000"),
    ),
    ExamineeFinished(
        **_E001,
        name="김하늘",
        version=VERSION + 1536,
        by="E001",
        reason=FinishReason.HANDED_IN,
        timestamp=_at("10:40:00.000"),
    ),
    ExamineeResumed(**_E001, **_DECIDED, version=VERSION + 1792, connection=_CONNECTED, timestamp=_at("10:41:00.000")),
    PlanStateEvent(
        plan_id="P001",
        status=PlanStatusCode.OPEN,
        name="Mathematics",
        starts_at=_at("09:00:00.000"),
        ends_at=_at("11:00:00.000"),
        server_time=_at("09:00:03.130"),
        version=VERSION - 768,
    ),
    PlanNotice(**_PLAN, action_id=ACTION_ID, text="Ten minutes are left.", version=VERSION + 2048),
    MobileSyncStatus(
        **_E001,
        device_id="M001",
        status=MobileSyncCode.COMPLETED,
        capture_info=CaptureInfo(image_url=IMAGE_URL, device_info=DeviceInfo(model="iPhone 12", os_version="iOS 15.0")),
        capture_id=CAPTURE_ID,
        timestamp=_at("09:02:11.000"),
    ),
    MobileSyncCompleted(
        **_E001,
        device_id="M001",
        timestamp=_at("09:02:11.000"),
        image_url=IMAGE_URL,
        captures=[CaptureView(capture_id=CAPTURE_ID, time=_at("09:02:11.000"), device_id="M001", when="in")],
        version=VERSION + 512,
    ),
    Notice(
        **_E001,
        **_DECIDED,
        text="Please turn the camera towards your desk.",
        timestamp=_at("09:05:00.000"),
        unconfirmed=[ACTION_ID],
        sent=1,
        version=VERSION + 1024,
    ),
    NoticeConfirmed(**_E001, **_DECIDED, timestamp=_at("09:05:09.000"), unconfirmed=[], sent=1, version=VERSION + 1280),
    HelpRequested(
        **_E001,
        **_HELP_TOLD,
        by="E001",
        timestamp=_at("09:30:00.000"),
        help=_HELP,
        version=VERSION + 2304,
    ),
    HelpTaken(
        **_E001,
        **_HELP_TOLD,
        **_DECIDED,
        timestamp=_at("09:30:20.000"),
        help=_HELP.model_copy(update={"taken_by": "proctor-1"}),
        version=VERSION + 2560,
    ),
    HelpClosed(**_E001, **_HELP_TOLD, **_DECIDED, timestamp=_at("09:33:00.000"), version=VERSION + 2816),
)
_FACTS: tuple[Message, ...] = (
    ConnectionStatus(
        **_E001,
        **_SOCKET,
        status=ConnectionStatusCode.CONNECTED,
        timestamp=_at("09:00:03.120"),
        client_info=_CLIENT,
        incarnation=INCARNATION,
        client_id="tab-5f0c9a",
        connection_no=1,
        unstable_rule=UnstableRule(starts_at=_at("09:00:00.000")),
    ),
    UnstableTimeout(**_E001, connected_version=VERSION, timestamp=_at("09:18:20.000")),
    ReconnectAttempt(
        **_E001,
        loss_version=VERSION + 256,
        attempt=1,
        max_attempts=5,
        next_attempt_at=_at("09:10:06.000"),
        timestamp=_at("09:10:01.000"),
    ),
    ReconnectExhausted(**_E001, loss_version=VERSION + 256, timestamp=_at("09:12:15.000")),
    Enrol(**_E001, name="김하늘", labels={"room": "A", "seat": "12"}, by="operator", timestamp=_at("08:30:00.000")),
    Readmit(**_E001, **_DECIDED, timestamp=_at("09:13:00.000")),
    Remove(**_E001, **_DECIDED, reason="another person sat down", timestamp=_at("09:20:00.000")),
    ExamineeFinish(**_E001, by="E001", reason=FinishReason.HANDED_IN, timestamp=_at("10:40:00.000")),
    ExamineeResume(**_E001, **_DECIDED, timestamp=_at("10:41:00.000")),
    PlanSchedule(
        **_PLAN,
        name="Mathematics",
        starts_at=_at("09:00:00.000"),
        ends_at=_at("11:00:00.000"),
        policy=PlanPolicy(max_attempts=8, grace_seconds=60),
    ),
    PlanOpen(**_PLAN),
    PlanClose(**_PLAN, reason="fire alarm"),
    ExamExtend(**_PLAN, examinee_id="E001", seconds=900),
    ExamWindow(**_PLAN, examinee_id="E001", extra_seconds=1800),
    PlanPurged(**_PLAN, records=12, messages=4711, pictures=3, archive_sha256=CAPTURE_ID),
    PlanRestate(**_PLAN),
    HelpRequest(**_E001, action_id=HELP_ID, text="Page 3 does not load.", timestamp=_at("09:30:00.000")),
    HelpTake(**_E001, **_DECIDED, help_id=HELP_ID, timestamp=_at("09:30:20.000")),
    HelpClose(**_E001, **_DECIDED, help_id=HELP_ID, timestamp=_at("09:33:00.000")),
    Restate(**_E001, timestamp=_at("09:10:02.000")),
    MobileSyncWait(**_E001, timestamp=_at("09:01:00.000"), deadline=_at("09:03:00.000")),
    MobileSyncExtend(**_E001, **_DECIDED, seconds=120, timestamp=_at("09:02:00.000")),
    CaptureReview(
        **_E001,
        **_DECIDED,
        capture_id=CAPTURE_ID,
        verdict="rejected",
        reason="BLURRED",
        challenge="482193",
        timestamp=_at("09:02:40.000"),
    ),
    MobileSyncTimeout(**_E001, wait_version=VERSION + 256, timestamp=_at("09:03:00.000")),
    ServerStatus(
        server_id="SOCK001",
        status=ServerStatusCode.READY,
        incarnation=INCARNATION,
        start_time=_at("08:00:00.000"),
        timestamp=_at("08:00:00.350"),
        queue_id="SOCK001_Q",
        cpu_usage=12.5,
        memory_usage=41.2,
        network_status="GOOD",
        url=ENDPOINTS[0],
    ),
)
_TO_SERVERS: tuple[Message, ...] = (
    SessionClose(socket_id=SOCKET_ID, code=CloseCode.REPLACED),
    SessionLost(server_id="SOCK001", socket_ids=[SOCKET_ID]),
    SessionAnnounce(server_id="SOCK001", reason="STATE_REPAIRED"),
    QueueCreate(
        server_id="SOCK001",
        queue_id="SOCK001_Q",
        incarnation=INCARNATION,
        proctor_plans=["P001"],
        examinee_plans=["P001"],
    ),
    QueueCreated(
        server_id="SOCK001", queue_id="SOCK001_Q", stream="SOCKET", consumers=["SOCK001_Q", "SOCK001_Q_BROADCAST"]
    ),
    Lease(
        server_id="SOCK001",
        incarnation=INCARNATION,
        timestamp=_at("09:00:15.000"),
        cpu_usage=12.5,
        memory_usage=41.2,
        network_status="GOOD",
        sessions=1,
        active=[("P001", "E001", SOCKET_ID, _at("09:00:14.800"))],
    ),
    Applied(
        state_manager="SM1",
        partitions={"0": PartitionApplied(up_to=1762735400078, pending=12, oldest_seconds=3.2, still_seconds=3.1)},
        waiting_for="redis",
        waiting_seconds=3.4,
    ),
)
_OPERATORS: tuple[Message, ...] = (
    Drain(over_seconds=30),
    Stop(),
    Kick(socket_id=SOCKET_ID),
    PurgePictures(plan_id="P001"),
    Tail(inbox="_INBOX.4qUCOFxPcR9b", seconds=10),
    Done(text="SOCK001: 1 clients are sent to other servers within 30 s; then it ends"),
    Handled(
        address="socket.SOCK001",
        time=_at("09:00:03.130"),
        message="session_state",
        about={"planId": "P001", "examineeId": "E001"},
        took=0.412,
    ),
)

EXAMPLES: dict[type[Message], Message] = {
    type(message): message
    for message in (*_CLIENT_FRAMES, *_SERVER_FRAMES, *_EVENTS, *_FACTS, *_TO_SERVERS, *_OPERATORS)
}
"""Model to example, for messages."""

_INSPECTION = Inspection(
    address="session.P001.E001",
    kind="examinee-session",
    since=_at("09:00:03.120"),
    state="running",
    mailbox_depth=0,
    mailbox_capacity=64,
    mailbox_peak=1,
    mailbox_refused=0,
    handled=3,
    failed=0,
    restarts=0,
    last_error=None,
    last_error_at=None,
    details={**_SESSION, "clientId": "tab-5f0c9a", "connectionNo": 1},
)

BARE_EXAMPLES: dict[type[Wire], Wire] = {
    Letter: Letter(
        source=Source(stream="STATUS", subject="status.plan.P001", number=1762763201, index=0),
        reason="data.timestamp: String should match pattern",
        payload='{"type":"readmit","data":{"planId":"P001","examineeId":"E001","timestamp":"now","by":"x"}}',
        size=90,
        replays=0,
    ),
    PhoneCode: PhoneCode(plan_id="P001", examinee_id="E001", deadline=_at("09:03:00.000")),
    Inspection: _INSPECTION,
    SessionsPage: SessionsPage(total=1, next=None, sessions=[_INSPECTION]),
    ProcessFacts: ProcessFacts(
        host="exam-1",
        pid=4711,
        version="0.1.0",
        time=_at("09:05:00.000"),
        fds_open=61,
        fd_limit=65536,
        memory_bytes=88_000_000,
        listens={"socket.host": "127.0.0.1"},
    ),
}
"""Model to example, for payloads without a `type`."""
