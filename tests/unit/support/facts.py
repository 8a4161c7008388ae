"""Facts about one examinee or one server, briefly written: what each test varies is what it names."""

from __future__ import annotations

from protocol.messages.facts import (
    Aspect,
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
from protocol.messages.plan_facts import (
    ExamExtend,
    ExamWindow,
    PlanClose,
    PlanNotice,
    PlanOpen,
    PlanPolicy,
    PlanRestate,
    PlanSchedule,
)
from protocol.messages.server_messages import ServerStatus, ServerStatusCode
from protocol.messages.views import Verdict
from protocol.times import format_time

PLAN, EXAMINEE = "P001", "E001"
DAWN = 1_704_100_500.0  # 2024-01-01T09:15:00Z, the documents' morning


def at(second: float) -> str:
    """A time `second` seconds after the documents' morning began."""
    return format_time(DAWN + second)


def connected(
    socket: str,
    second: float = 0,
    *,
    client: str | None = None,
    number: int = 0,
    incarnation: str | None = None,
    info: ClientInfo | None = None,
    again: bool | None = None,
    opened: float | None = None,
    unstable_rule: UnstableRule | None = None,
) -> ConnectionStatus:
    return ConnectionStatus(
        plan_id=PLAN,
        examinee_id=EXAMINEE,
        socket_id=socket,
        status=ConnectionStatusCode.CONNECTED,
        timestamp=at(second),
        client_id=client,
        connection_no=number,
        incarnation=incarnation,
        client_info=info,
        again=again,
        opened_at=at(opened) if opened is not None else None,
        unstable_rule=unstable_rule,
    )


def disconnected(
    socket: str, second: float = 0, reason: str | None = "SOCKET_CLOSED", *, code: int | None = None
) -> ConnectionStatus:
    return ConnectionStatus(
        plan_id=PLAN,
        examinee_id=EXAMINEE,
        socket_id=socket,
        status=ConnectionStatusCode.DISCONNECTED,
        timestamp=at(second),
        reason=reason,
        close_code=code,
    )


def sent_away(socket: str, second: float = 0) -> ConnectionStatus:
    """A server that is drained has told the client to go elsewhere."""
    return disconnected(socket, second, "SERVER_DRAINING")


def attempt(loss: int, number: int, second: float = 0, of: int = 3) -> ReconnectAttempt:
    following = at(second + 5) if number < of else None
    return ReconnectAttempt(
        plan_id=PLAN,
        examinee_id=EXAMINEE,
        loss_version=loss,
        attempt=number,
        max_attempts=of,
        next_attempt_at=following,
        timestamp=at(second),
    )


def exhausted(loss: int, second: float = 0) -> ReconnectExhausted:
    return ReconnectExhausted(plan_id=PLAN, examinee_id=EXAMINEE, loss_version=loss, timestamp=at(second))


def unstable_timeout(connected_version: int, second: float = 0) -> UnstableTimeout:
    return UnstableTimeout(
        plan_id=PLAN, examinee_id=EXAMINEE, connected_version=connected_version, timestamp=at(second)
    )


def enrol(
    name: str | None = None,
    second: float = 0,
    by: str | None = None,
    action: str | None = None,
    labels: dict[str, str] | None = None,
) -> Enrol:
    timestamp = at(second)
    return Enrol(
        plan_id=PLAN, examinee_id=EXAMINEE, name=name, labels=labels, by=by, action_id=action, timestamp=timestamp
    )


def readmit(second: float = 0, by: str = "S001", action: str | None = None) -> Readmit:
    return Readmit(plan_id=PLAN, examinee_id=EXAMINEE, by=by, action_id=action, timestamp=at(second))


def remove(second: float = 0, by: str = "S001", action: str | None = None, reason: str | None = None) -> Remove:
    return Remove(plan_id=PLAN, examinee_id=EXAMINEE, by=by, action_id=action, reason=reason, timestamp=at(second))


def finish(
    second: float = 0,
    by: str = "S001",
    *,
    reason: FinishReason = FinishReason.DECIDED,
    action: str | None = None,
) -> ExamineeFinish:
    return ExamineeFinish(
        plan_id=PLAN, examinee_id=EXAMINEE, by=by, reason=reason, action_id=action, timestamp=at(second)
    )


def resume(second: float = 0, by: str = "S001", action: str | None = None) -> ExamineeResume:
    return ExamineeResume(plan_id=PLAN, examinee_id=EXAMINEE, by=by, action_id=action, timestamp=at(second))


def extend(seconds: int = 60, second: float = 0, by: str = "S001", action: str | None = None) -> MobileSyncExtend:
    return MobileSyncExtend(
        plan_id=PLAN, examinee_id=EXAMINEE, by=by, action_id=action, seconds=seconds, timestamp=at(second)
    )


def notice(action: str = "a1", text: str = "Please look up.", second: float = 0, by: str = "S001") -> Notice:
    return Notice(plan_id=PLAN, examinee_id=EXAMINEE, by=by, action_id=action, text=text, timestamp=at(second))


def notice_confirmed(action: str = "a1", second: float = 0) -> NoticeConfirmed:
    return NoticeConfirmed(plan_id=PLAN, examinee_id=EXAMINEE, action_id=action, timestamp=at(second))


def help_request(action: str = "h1", second: float = 0, text: str | None = None) -> HelpRequest:
    return HelpRequest(plan_id=PLAN, examinee_id=EXAMINEE, action_id=action, text=text, timestamp=at(second))


def help_take(help_id: str = "h1", second: float = 0, by: str = "S001", action: str | None = None) -> HelpTake:
    return HelpTake(plan_id=PLAN, examinee_id=EXAMINEE, help_id=help_id, by=by, action_id=action, timestamp=at(second))


def help_close(help_id: str = "h1", second: float = 0, by: str = "S001", action: str | None = None) -> HelpClose:
    return HelpClose(plan_id=PLAN, examinee_id=EXAMINEE, help_id=help_id, by=by, action_id=action, timestamp=at(second))


def restate(second: float = 0, aspect: Aspect = "connection") -> Restate:
    return Restate(plan_id=PLAN, examinee_id=EXAMINEE, timestamp=at(second), aspect=aspect)


def wait(second: float = 0, lasting: float = 120, challenge: str | None = None) -> MobileSyncWait:
    return MobileSyncWait(
        plan_id=PLAN,
        examinee_id=EXAMINEE,
        timestamp=at(second),
        deadline=at(second + lasting),
        challenge=challenge,
    )


def review(
    capture: str = "a",
    verdict: Verdict = "rejected",
    second: float = 0,
    *,
    by: str = "S001",
    action: str | None = None,
    challenge: str | None = None,
) -> CaptureReview:
    """A proctor's verdict; a rejection opens the stage for 90 s."""
    return CaptureReview(
        plan_id=PLAN,
        examinee_id=EXAMINEE,
        capture_id=capture * 64,
        verdict=verdict,
        reason="BLURRED" if verdict == "rejected" else None,
        by=by,
        action_id=action,
        seconds=90,
        challenge=challenge,
        timestamp=at(second),
    )


def uploaded(
    capture: str = "a", second: float = 0, device: str | None = "M001", *, received: float | None = None
) -> MobileSyncStatus:
    """A stored picture; `capture` is one hexadecimal digit that tells pictures apart."""
    return MobileSyncStatus(
        plan_id=PLAN,
        examinee_id=EXAMINEE,
        device_id=device,
        status=MobileSyncCode.COMPLETED,
        timestamp=at(second),
        capture_info=CaptureInfo(
            image_url=f"/captures/{EXAMINEE}/sync_cap.jpg",
            device_info=DeviceInfo(model="iPhone 12", os_version="iOS 15.0"),
            received_at=None if received is None else at(received),
        ),
        capture_id=capture * 64,
    )


def upload_failed(second: float = 0, reason: str | None = "IMAGE_STORE_FAILED") -> MobileSyncStatus:
    return MobileSyncStatus(
        plan_id=PLAN,
        examinee_id=EXAMINEE,
        device_id="M001",
        status=MobileSyncCode.FAILED,
        timestamp=at(second),
        reason=reason,
    )


def timed_out(waited: int, second: float = 120) -> MobileSyncTimeout:
    return MobileSyncTimeout(plan_id=PLAN, examinee_id=EXAMINEE, wait_version=waited, timestamp=at(second))


def server(
    status: ServerStatusCode, incarnation: str = "i1", second: float = 0, *, reason: str | None = None
) -> ServerStatus:
    return ServerStatus(
        server_id="SOCK001",
        status=status,
        incarnation=incarnation,
        start_time=at(0),
        timestamp=at(second),
        reason=reason,
    )


def schedule(
    start: float | None = None,
    end: float | None = None,
    *,
    second: float = 0,
    name: str | None = None,
    policy: PlanPolicy | None = None,
    action: str | None = None,
) -> PlanSchedule:
    return PlanSchedule(
        plan_id=PLAN,
        by="operator",
        timestamp=at(second),
        name=name,
        starts_at=None if start is None else at(start),
        ends_at=None if end is None else at(end),
        policy=policy,
        action_id=action,
    )


def open_plan(second: float = 0, *, scheduled: int | None = None) -> PlanOpen:
    by = "schedule" if scheduled else "operator"
    return PlanOpen(plan_id=PLAN, by=by, timestamp=at(second), schedule_version=scheduled)


def close_plan(second: float = 0, *, scheduled: int | None = None, reason: str | None = None) -> PlanClose:
    by = "schedule" if scheduled else "operator"
    return PlanClose(plan_id=PLAN, by=by, timestamp=at(second), schedule_version=scheduled, reason=reason)


def extend_exam(
    seconds: int, examinee: str | None = None, *, second: float = 0, action: str | None = None
) -> ExamExtend:
    return ExamExtend(
        plan_id=PLAN, by="T1", timestamp=at(second), seconds=seconds, examinee_id=examinee, action_id=action
    )


def window(examinee: str, start: float | None = None, end: float | None = None, extra: int = 0) -> ExamWindow:
    return ExamWindow(
        plan_id=PLAN,
        by="operator",
        timestamp=at(0),
        examinee_id=examinee,
        starts_at=None if start is None else at(start),
        ends_at=None if end is None else at(end),
        extra_seconds=extra,
    )


def plan_notice(
    action: str = "n1", text: str = "Ten minutes are left.", examinees: list[str] | None = None
) -> PlanNotice:
    return PlanNotice(plan_id=PLAN, by="T1", timestamp=at(0), action_id=action, text=text, examinees=examinees)


def restate_plan(second: float = 0) -> PlanRestate:
    return PlanRestate(plan_id=PLAN, by="manager", timestamp=at(second))
