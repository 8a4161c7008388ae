"""A plan as a proctor's client sees it: snapshots and events, applied by version.

Connection events of an examinee share one version, mobile sync events another. Whatever is not newer than what was
seen changes nothing, so any order and any repetition of frames ends in the same view.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from protocol.frames import ExamineeRow, PlanSnapshot
from protocol.messages import (
    ExamineeConnected,
    ExamineeDisconnected,
    ExamineeMigrating,
    ExamineeReadmitted,
    ExamineeReconnectExhausted,
    ExamineeReconnecting,
    LossReason,
    Message,
    MobileSyncCompleted,
    MobileSyncStatus,
)


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

    Versions are 0 until something was seen.
    """

    examinee_id: str
    status: str = "NEVER"
    socket_id: str | None = None
    server_id: str | None = None
    reason: str | None = None
    attempt: int = 0
    max_attempts: int | None = None
    exhausted: bool = False
    version: int = 0
    mobile_sync: str = "NONE"
    mobile_sync_reason: str | None = None
    image_url: str | None = None
    mobile_sync_version: int = 0
    version_from_event: bool = False
    mobile_sync_from_event: bool = False

    @property
    def connected(self) -> bool:
        return self.status == "CONNECTED"


ConnectionEvent = (
    ExamineeConnected
    | ExamineeDisconnected
    | ExamineeMigrating
    | ExamineeReconnecting
    | ExamineeReconnectExhausted
    | ExamineeReadmitted
)

_ARRIVING = (ExamineeConnected, ExamineeMigrating)


class PlanView:
    """Every examinee of a plan by id (`examinees`), and counts of what came in.

    `complete`: a whole snapshot has been applied. `events`: events applied, by type.
    """

    def __init__(self) -> None:
        self.examinees: dict[str, Seen] = {}
        self.complete = False
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

    def _connection(self, message: ConnectionEvent) -> Verdict:
        seen = self._seen(message.examinee_id)
        if message.version <= seen.version:
            verdict = _not_newer(message.version, seen.version, seen.version_from_event)
            seen.version_from_event |= message.version == seen.version  # from now on it would be doubled
            return verdict
        seen.version, seen.version_from_event = message.version, True
        # Whoever reconnects, has used up the attempts or is readmitted is gone, even if the loss was never seen.
        seen.status = message.status.value if isinstance(message, _ARRIVING) else "DISCONNECTED"
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
                seen.attempt, seen.max_attempts = message.attempt, message.max_attempts
            case ExamineeReconnectExhausted():
                seen.exhausted, seen.reason = True, message.reason.value
            case ExamineeReadmitted():
                seen.exhausted, seen.reason, seen.attempt, seen.max_attempts = False, "READMITTED", 0, None
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
                seen.mobile_sync_reason, seen.image_url = None, message.image_url
            case MobileSyncStatus():
                seen.mobile_sync_reason = message.reason
                seen.image_url = message.capture_info.image_url if message.capture_info else None
        return Verdict.APPLIED


def _not_newer(version: int, seen: int, from_event: bool) -> Verdict:
    if not from_event:
        return Verdict.COVERED
    return Verdict.DOUBLED if version == seen else Verdict.LATE


def _take_row(seen: Seen, row: ExamineeRow) -> None:
    if row.version > seen.version:
        seen.status, seen.version, seen.version_from_event = row.status, row.version, False
        seen.socket_id, seen.server_id = row.connection.socket_id, row.connection.server_id
        seen.reason = row.connection.reason
        seen.attempt, seen.max_attempts = row.reconnect.attempt, row.reconnect.max_attempts
        seen.exhausted = row.reconnect.exhausted
    if row.mobile_sync.version > seen.mobile_sync_version:
        seen.mobile_sync, seen.mobile_sync_version = row.mobile_sync.status, row.mobile_sync.version
        seen.mobile_sync_reason, seen.image_url = row.mobile_sync.reason, row.mobile_sync.image_url
        seen.mobile_sync_from_event = False


_CHANGES: dict[type[Message], Callable[[PlanView, Any], Verdict]] = {
    ExamineeConnected: PlanView._connection,
    ExamineeDisconnected: PlanView._connection,
    ExamineeMigrating: PlanView._connection,
    ExamineeReconnecting: PlanView._connection,
    ExamineeReconnectExhausted: PlanView._connection,
    ExamineeReadmitted: PlanView._connection,
    MobileSyncStatus: PlanView._mobile_sync,
    MobileSyncCompleted: PlanView._mobile_sync,
}
