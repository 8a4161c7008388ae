"""Events and snapshots of the plan P1, and a view that has applied them."""

from __future__ import annotations

from protocol.client.plan_view import PlanView
from protocol.messages.base import Message
from protocol.messages.facts import MobileSyncCode, MobileSyncStatus, Notice, NoticeConfirmed
from protocol.messages.frames import ExamineeRow, PlanSnapshot
from protocol.messages.proctor_events import (
    ExamineeConnected,
    ExamineeDisconnected,
    ExamineeEnrolled,
    ExamineeReadmitted,
    ExamineeReconnectExhausted,
    ExamineeReconnecting,
    ExamineeRemoved,
    MobileSyncCompleted,
)
from protocol.messages.views import ConnectionView, MobileSyncView, ReconnectView

NOW = "2024-01-01T09:00:00Z"
IDS = ("E1", "E2", "E3")


def connected(examinee_id: str, version: int) -> ExamineeConnected:
    return ExamineeConnected(
        plan_id="P1", examinee_id=examinee_id, socket_id=f"S-{version}", timestamp=NOW, version=version
    )


def lost(examinee_id: str, version: int) -> ExamineeDisconnected:
    return ExamineeDisconnected(
        plan_id="P1", examinee_id=examinee_id, timestamp=NOW, reason="SOCKET_CLOSED", version=version
    )


def trying(examinee_id: str, version: int, attempt: int = 1) -> ExamineeReconnecting:
    return ExamineeReconnecting(
        plan_id="P1", examinee_id=examinee_id, attempt=attempt, max_attempts=5, timestamp=NOW, version=version
    )


def exhausted(examinee_id: str, version: int) -> ExamineeReconnectExhausted:
    return ExamineeReconnectExhausted(
        plan_id="P1", examinee_id=examinee_id, attempt=5, max_attempts=5, timestamp=NOW, version=version
    )


def readmitted(examinee_id: str, version: int) -> ExamineeReadmitted:
    return ExamineeReadmitted(plan_id="P1", examinee_id=examinee_id, by="anna", timestamp=NOW, version=version)


def removed(examinee_id: str, version: int) -> ExamineeRemoved:
    return ExamineeRemoved(plan_id="P1", examinee_id=examinee_id, by="anna", timestamp=NOW, version=version)


def enrolled(examinee_id: str, version: int) -> ExamineeEnrolled:
    return ExamineeEnrolled(
        plan_id="P1",
        examinee_id=examinee_id,
        name=f"Name {version}",
        connection=ConnectionView(status="CONNECTED", socket_id="S-1", version=version),
        reconnect=ReconnectView(),
        timestamp=NOW,
        version=version,
    )


def noticed(examinee_id: str, version: int, *unconfirmed: str) -> Notice:
    return Notice(
        plan_id="P1", examinee_id=examinee_id, action_id=f"a{version}", text="Look up.", by="anna", timestamp=NOW,
        unconfirmed=list(unconfirmed), sent=version, version=version,
    )  # fmt: skip


def read(examinee_id: str, version: int, *unconfirmed: str) -> NoticeConfirmed:
    return NoticeConfirmed(
        plan_id="P1", examinee_id=examinee_id, action_id=f"a{version}", timestamp=NOW, unconfirmed=list(unconfirmed),
        sent=version, version=version,
    )  # fmt: skip


def syncing(examinee_id: str, version: int, status: MobileSyncCode = MobileSyncCode.WAITING) -> MobileSyncStatus:
    return MobileSyncStatus(plan_id="P1", examinee_id=examinee_id, status=status, timestamp=NOW, version=version)


def synced(examinee_id: str, version: int) -> MobileSyncCompleted:
    return MobileSyncCompleted(
        plan_id="P1",
        examinee_id=examinee_id,
        device_id="M1",
        timestamp=NOW,
        image_url="/captures/E1/sync_cap.jpg",
        version=version,
    )


def row(examinee_id: str, version: int, status: str = "CONNECTED", mobile: MobileSyncView | None = None) -> ExamineeRow:
    return ExamineeRow.model_validate(
        {
            "examineeId": examinee_id,
            "status": status,
            "connection": ConnectionView.model_validate({"status": status, "version": version}).model_dump(),
            "mobileSync": (mobile or MobileSyncView()).model_dump(),
            "reconnect": ReconnectView().model_dump(),
            "version": version,
        }
    )


def snapshot(*rows: ExamineeRow, part: int = 1, parts: int = 1, resync: bool | None = None) -> PlanSnapshot:
    return PlanSnapshot(plan_id="P1", examinees=list(rows), part=part, parts=parts, resync=resync)


def view_of(*messages: Message) -> PlanView:
    view = PlanView()
    for message in messages:
        view.apply(message)
    return view
