"""A plan as a proctor's client sees it: snapshots and events, applied by version.

Connection events of an examinee share one line of versions, mobile sync events and notices have others (`aspect`).
Whatever is not newer than what was seen changes nothing, so any order and any repetition of frames ends in the same
view. Each event tells all that must be right of its aspect, so that one that overtakes others makes them superfluous.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from protocol.messages.base import Message
from protocol.messages.facts import Aspect, LossReason, MobileSyncStatus, Notice, NoticeConfirmed
from protocol.messages.frames import ExamineeRow, PlanSnapshot, ViewStatus
from protocol.messages.proctor_events import (
    ConnectionEvent,
    ExamineeConnected,
    ExamineeDisconnected,
    ExamineeEnrolled,
    ExamineeMigrating,
    ExamineeReadmitted,
    ExamineeReconnectExhausted,
    ExamineeReconnecting,
    ExamineeRemoved,
    MobileSyncCompleted,
)
from protocol.messages.views import ConnectionView, ReconnectView


def aspect(event_type: str) -> Aspect:
    """What an event's version counts for, by its `type`."""
    if event_type.startswith("mobile_sync"):
        return "mobile_sync"
    return "notices" if event_type.startswith("notice") else "connection"


class Verdict(StrEnum):
    """What a frame did to the view.

    DOUBLED: the event that was applied last, once more. LATE: older than the event that was applied last.
    COVERED: not newer than a snapshot that was applied since; harmless. OTHER: not about the plan.
    """

    APPLIED = "APPLIED"
    DOUBLED = "DOUBLED"
    LATE = "LATE"
    COVERED = "COVERED"
    OTHER = "OTHER"


@dataclass(slots=True)
class Seen:
    """One examinee as the proctor sees them: CONNECTED, DISCONNECTED, MIGRATING or NEVER.

    `notices`: how many were sent; `unconfirmed`: the actionIds of those that the examinee has not confirmed. Versions
    are 0 until something was seen.
    """

    examinee_id: str
    name: str | None = None
    status: str = "NEVER"
    socket_id: str | None = None
    server_id: str | None = None
    reason: str | None = None
    attempt: int = 0
    max_attempts: int | None = None
    exhausted: bool = False
    removed: bool = False
    version: int = 0
    mobile_sync: str = "NONE"
    mobile_sync_reason: str | None = None
    image_url: str | None = None
    deadline: str | None = None
    mobile_sync_version: int = 0
    notices: int = 0
    unconfirmed: list[str] = field(default_factory=list)
    notices_version: int = 0
    version_from_event: bool = False
    mobile_sync_from_event: bool = False
    notices_from_event: bool = False

    @property
    def connected(self) -> bool:
        return self.status == "CONNECTED"


_SAYS_STATUS = (ExamineeConnected, ExamineeMigrating, ExamineeReadmitted, ExamineeRemoved)


class PlanView:
    """Every examinee of a plan by id (`examinees`), and counts of what came in.

    `complete`: a whole snapshot has been applied. `events`: events applied, by type. `current`: what is told is so now;
    else it is how it was at `current_until`, and the server waits for `waiting_for`.
    """

    def __init__(self) -> None:
        self.examinees: dict[str, Seen] = {}
        self.complete = False
        self.current = True
        self.current_until: str | None = None
        self.waiting_for: str | None = None
        self.snapshots = 0
        self.resyncs = 0
        self.doubled = 0
        self.late = 0
        self.covered = 0
        self.events: dict[str, int] = {}
        self._since_first_part: set[str] | None = None

    def connected(self) -> set[str]:
        """The ids of the examinees that are connected."""
        return {examinee_id for examinee_id, seen in self.examinees.items() if seen.connected}

    def apply(self, message: Message) -> Verdict:
        """Take in a frame."""
        if isinstance(message, PlanSnapshot):
            return self._snapshot(message)
        if isinstance(message, ViewStatus):
            return self._status(message)
        change = _CHANGES.get(type(message))
        if change is None:
            return Verdict.OTHER
        verdict = change(self, message)
        if verdict is Verdict.APPLIED:
            self.events[message.type] = self.events.get(message.type, 0) + 1
        elif verdict is Verdict.DOUBLED:
            self.doubled += 1
        elif verdict is Verdict.LATE:
            self.late += 1
        else:
            self.covered += 1
        return verdict

    def _seen(self, examinee_id: str) -> Seen:
        seen = self.examinees.get(examinee_id)
        if seen is None:
            seen = self.examinees[examinee_id] = Seen(examinee_id)
        if self._since_first_part is not None:
            self._since_first_part.add(examinee_id)
        return seen

    def _snapshot(self, message: PlanSnapshot) -> Verdict:
        if message.part == 1:
            self._since_first_part = set()
        for row in message.examinees:
            _take_row(self._seen(row.examinee_id), row)
        if message.part == message.parts:
            # Events between the parts are newer than the snapshot, so whoever they name stays, too.
            if self._since_first_part is not None:
                for gone in self.examinees.keys() - self._since_first_part:
                    del self.examinees[gone]
                self.complete = True
            self._since_first_part = None
            self.snapshots += 1
            self.resyncs += bool(message.resync)
        return Verdict.APPLIED

    def _status(self, message: ViewStatus) -> Verdict:
        self.current, self.waiting_for = message.current, message.waiting_for
        self.current_until = None if message.current else message.since
        return Verdict.APPLIED

    def _connection(self, message: ConnectionEvent) -> Verdict:
        seen = self._seen(message.examinee_id)
        if message.version <= seen.version:
            verdict = _not_newer(message.version, seen.version, seen.version_from_event)
            seen.version_from_event |= message.version == seen.version  # from now on it would be doubled
            return verdict
        seen.version, seen.version_from_event = message.version, True
        seen.name, seen.removed = message.name, isinstance(message, ExamineeRemoved)
        # Whoever reconnects or has used up the attempts is gone, even if the loss was never seen.
        seen.status = str(message.status) if isinstance(message, _SAYS_STATUS) else "DISCONNECTED"
        match message:
            case ExamineeConnected():
                seen.socket_id, seen.server_id = message.socket_id, message.server_id
                seen.reason, seen.attempt, seen.max_attempts, seen.exhausted = None, 0, None, False
            case ExamineeDisconnected():
                seen.reason = message.reason
                seen.exhausted = message.reason == LossReason.RECONNECT_LIMIT_EXCEEDED  # told anew while shut out
                if not message.restated:  # the same outage, told again: its ladder goes on
                    seen.attempt, seen.max_attempts = message.attempt or 0, message.max_attempts
            case ExamineeMigrating():
                seen.socket_id, seen.server_id = message.socket_id, message.server_id
                seen.reason, seen.exhausted = LossReason.SERVER_DRAINING.value, False
                seen.attempt, seen.max_attempts = 0, None
            case ExamineeReconnecting():
                seen.attempt, seen.max_attempts, seen.exhausted = message.attempt, message.max_attempts, False
            case ExamineeReconnectExhausted():
                seen.exhausted, seen.reason = True, message.reason.value
            case ExamineeReadmitted():
                seen.exhausted, seen.attempt, seen.max_attempts = False, 0, None
                seen.reason = "READMITTED" if message.status == "DISCONNECTED" else None
            case ExamineeRemoved():
                seen.exhausted, seen.attempt, seen.max_attempts = False, 0, None
                seen.reason = "REMOVED" if message.status == "DISCONNECTED" else None
            case ExamineeEnrolled():
                _take_connection(seen, message.connection, message.reconnect, message.removed)
        return Verdict.APPLIED

    def _mobile_sync(self, message: MobileSyncStatus | MobileSyncCompleted) -> Verdict:
        seen = self._seen(message.examinee_id)
        version = message.version or 0
        if version <= seen.mobile_sync_version:
            verdict = _not_newer(version, seen.mobile_sync_version, seen.mobile_sync_from_event)
            seen.mobile_sync_from_event |= version == seen.mobile_sync_version
            return verdict
        seen.mobile_sync_version, seen.mobile_sync_from_event = version, True
        seen.mobile_sync = message.status.value
        match message:
            case MobileSyncCompleted():
                seen.mobile_sync_reason, seen.image_url, seen.deadline = None, message.image_url, None
            case MobileSyncStatus():
                seen.mobile_sync_reason, seen.deadline = message.reason, message.deadline
                seen.image_url = message.capture_info.image_url if message.capture_info else None
        return Verdict.APPLIED

    def _notices(self, message: Notice | NoticeConfirmed) -> Verdict:
        seen = self._seen(message.examinee_id)
        version = message.version or 0
        if version <= seen.notices_version:
            verdict = _not_newer(version, seen.notices_version, seen.notices_from_event)
            seen.notices_from_event |= version == seen.notices_version
            return verdict
        seen.notices_version, seen.notices_from_event = version, True
        seen.notices, seen.unconfirmed = message.sent or 0, list(message.unconfirmed or ())
        return Verdict.APPLIED


def _not_newer(version: int, seen: int, from_event: bool) -> Verdict:
    if not from_event:
        return Verdict.COVERED
    return Verdict.DOUBLED if version == seen else Verdict.LATE


def _take_row(seen: Seen, row: ExamineeRow) -> None:
    if row.version > seen.version:
        seen.version, seen.version_from_event, seen.name = row.version, False, row.name
        _take_connection(seen, row.connection, row.reconnect, row.removed)
    if row.mobile_sync.version > seen.mobile_sync_version:
        seen.mobile_sync, seen.mobile_sync_version = row.mobile_sync.status, row.mobile_sync.version
        seen.mobile_sync_reason, seen.image_url = row.mobile_sync.reason, row.mobile_sync.image_url
        seen.deadline = row.mobile_sync.deadline if row.mobile_sync.status != "COMPLETED" else None
        seen.mobile_sync_from_event = False
    if row.notices is not None and row.notices.version > seen.notices_version:
        seen.notices, seen.unconfirmed = row.notices.sent, list(row.notices.unconfirmed)
        seen.notices_version, seen.notices_from_event = row.notices.version, False


def _take_connection(seen: Seen, connection: ConnectionView, reconnect: ReconnectView, removed: bool) -> None:
    seen.status = connection.status
    seen.socket_id, seen.server_id, seen.reason = connection.socket_id, connection.server_id, connection.reason
    seen.attempt, seen.max_attempts = reconnect.attempt, reconnect.max_attempts
    seen.exhausted, seen.removed = reconnect.exhausted, removed


_CHANGES: dict[type[Message], Callable[[PlanView, Any], Verdict]] = {
    ExamineeConnected: PlanView._connection,
    ExamineeDisconnected: PlanView._connection,
    ExamineeMigrating: PlanView._connection,
    ExamineeReconnecting: PlanView._connection,
    ExamineeReconnectExhausted: PlanView._connection,
    ExamineeReadmitted: PlanView._connection,
    ExamineeRemoved: PlanView._connection,
    ExamineeEnrolled: PlanView._connection,
    MobileSyncStatus: PlanView._mobile_sync,
    MobileSyncCompleted: PlanView._mobile_sync,
    Notice: PlanView._notices,
    NoticeConfirmed: PlanView._notices,
}


Parsed = dict[str, Any]


def aspect_of(event: Parsed) -> tuple[str, Aspect]:
    """What an event's version counts for, of which examinee."""
    return event["data"]["examineeId"], aspect(str(event["type"]))
