"""A plan as a proctor's client sees it: snapshots and events, applied by version.

Each aspect of an examinee (connection, mobile sync, notices) has versions of its own (`event_aspect`). A frame that is
not newer than the view changes nothing, so frames in any order, repeated or not, end in the same view. Each event holds
the whole visible state of its aspect, so an event that overtakes older ones makes them superfluous.

Example::

    view = PlanView()
    view.apply(snapshot)
    view.apply(event)  # ApplyResult.APPLIED
    view.examinees["E001"].status  # "CONNECTED"
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Literal

from protocol.messages.base import Message
from protocol.messages.facts import ConnectionStatusCode, LossReason, MobileSyncStatus, Notice, NoticeConfirmed
from protocol.messages.frames import ExamineeRow, PlanSnapshot, ViewStatus
from protocol.messages.plan_facts import PlanNotice
from protocol.messages.proctor_events import (
    ConnectionEvent,
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
    HelpEvent,
    HelpRequested,
    HelpTaken,
    MobileSyncCompleted,
    PlanStateEvent,
)
from protocol.messages.views import CaptureView, ConnectionView, HelpView, ReconnectView, ReviewView
from protocol.rules.connection_state import READMITTED, REMOVED

ViewAspect = Literal["connection", "mobile_sync", "notices", "plan", "plan_notices"]
"""The lines of versions of a view: three for each examinee, one for the plan, one for each message to several."""


def event_aspect(event_type: str) -> ViewAspect:
    """Return the aspect whose versions an event of this `type` counts in."""
    if event_type.startswith("plan"):
        return "plan_notices" if event_type == PlanNotice.type else "plan"
    if event_type.startswith("mobile_sync"):
        return "mobile_sync"
    return "notices" if event_type.startswith(("notice", "help_")) else "connection"


class ApplyResult(StrEnum):
    """Effect of a frame on the view.

    DOUBLED: the newest event of its aspect, once more. LATE: older than the newest event of its aspect.
    COVERED: not newer than a snapshot that was applied since; harmless. OTHER: a frame that is not about the plan.
    """

    APPLIED = "APPLIED"
    DOUBLED = "DOUBLED"
    LATE = "LATE"
    COVERED = "COVERED"
    OTHER = "OTHER"


@dataclass(slots=True)
class ExamineeView:
    """One examinee as the proctor sees them. `status`: CONNECTED, DISCONNECTED, MIGRATING, FINISHED or NEVER.

    `flags`: in what their newest connection that differs from the one before it differs (address, browser, device).
    `notices`: how many were sent; `unconfirmed`: the actionIds of those that the examinee has not confirmed.
    `confirmed_plan_notices`: the messages to several that they have confirmed. `help`: their open request for help. A
    version is 0 until a frame has told the aspect; `…_from_event`: its newest version came as an event, not in a
    snapshot.
    """

    examinee_id: str
    name: str | None = None
    labels: dict[str, str] = field(default_factory=dict)
    status: str = "NEVER"
    socket_id: str | None = None
    server_id: str | None = None
    reason: str | None = None
    finished_by: str | None = None
    finished_by_name: str | None = None
    attempt: int = 0
    max_attempts: int | None = None
    exhausted: bool = False
    removed: bool = False
    flags: list[str] = field(default_factory=list)
    unstable: bool = False
    version: int = 0
    mobile_sync: str = "NONE"
    mobile_sync_reason: str | None = None
    image_url: str | None = None
    deadline: str | None = None
    captures: list[CaptureView] = field(default_factory=list)
    review: ReviewView | None = None
    challenge: str | None = None
    mobile_sync_version: int = 0
    notices: int = 0
    unconfirmed: list[str] = field(default_factory=list)
    confirmed_plan_notices: list[str] = field(default_factory=list)
    help: HelpView | None = None
    notices_version: int = 0
    version_from_event: bool = False
    mobile_sync_from_event: bool = False
    notices_from_event: bool = False

    @property
    def connected(self) -> bool:
        return self.status == ConnectionStatusCode.CONNECTED


_STATUS_EVENTS = (ExamineeConnected, ExamineeMigrating, ExamineeReadmitted, ExamineeRemoved, ExamineeFinished)


class PlanView:
    """Every examinee of a plan by id (`examinees`), and counts of the frames that were applied.

    `plan`: whether the exam runs, and its times. `plan_notices`: messages to everybody or to several, by actionId.

    `complete`: a whole snapshot has been applied. `events`: how many events were applied, by type. `current`: the view
    shows the present; else it shows the plan as it was at `current_until`, and the server waits for `waiting_for`.
    """

    def __init__(self) -> None:
        self.examinees: dict[str, ExamineeView] = {}
        self.plan: PlanStateEvent | None = None
        self.plan_notices: dict[str, PlanNotice] = {}
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
        """Return the ids of the examinees that are connected."""
        return {examinee_id for examinee_id, examinee in self.examinees.items() if examinee.connected}

    def apply(self, message: Message) -> ApplyResult:
        """Apply a frame of the server, and return what it did to the view."""
        if isinstance(message, PlanSnapshot):
            return self._apply_snapshot(message)
        if isinstance(message, ViewStatus):
            return self._apply_view_status(message)
        change = _CHANGES.get(type(message))
        if change is None:
            return ApplyResult.OTHER
        result = change(self, message)
        if result is ApplyResult.APPLIED:
            self.events[message.type] = self.events.get(message.type, 0) + 1
        elif result is ApplyResult.DOUBLED:
            self.doubled += 1
        elif result is ApplyResult.LATE:
            self.late += 1
        else:
            self.covered += 1
        return result

    def _examinee(self, examinee_id: str) -> ExamineeView:
        examinee = self.examinees.get(examinee_id)
        if examinee is None:
            examinee = self.examinees[examinee_id] = ExamineeView(examinee_id)
        if self._since_first_part is not None:
            self._since_first_part.add(examinee_id)
        return examinee

    def _apply_snapshot(self, message: PlanSnapshot) -> ApplyResult:
        if message.part == 1:
            self._since_first_part = set()
        for notice in message.plan_notices or ():
            self._apply_plan_notice(notice)
        for row in message.examinees:
            _apply_row(self._examinee(row.examinee_id), row)
        if message.part == message.parts:
            # Events between the parts are newer than the snapshot, so the examinees they name stay, too.
            if self._since_first_part is not None:
                for examinee_id in self.examinees.keys() - self._since_first_part:
                    del self.examinees[examinee_id]
                self.complete = True
            self.snapshots += 1
            self.resyncs += bool(message.resync)
        return ApplyResult.APPLIED

    def _apply_view_status(self, message: ViewStatus) -> ApplyResult:
        self.current, self.waiting_for = message.current, message.waiting_for
        self.current_until = None if message.current else message.since
        return ApplyResult.APPLIED

    def _apply_connection_event(self, message: ConnectionEvent) -> ApplyResult:
        examinee = self._examinee(message.examinee_id)
        if message.version <= examinee.version:
            result = _result_of_old(message.version, examinee.version, examinee.version_from_event)
            # The next event with this version is doubled.
            examinee.version_from_event |= message.version == examinee.version
            return result
        examinee.version, examinee.version_from_event = message.version, True
        examinee.name, examinee.labels = message.name, message.labels or {}
        examinee.removed = isinstance(message, ExamineeRemoved)
        examinee.flags, examinee.unstable = list(message.flags or ()), message.unstable is True
        # An examinee who reconnects or has used up the attempts is disconnected, even if the loss was never seen.
        status = message.status if isinstance(message, _STATUS_EVENTS) else ConnectionStatusCode.DISCONNECTED
        examinee.status = str(status)
        examinee.finished_by, examinee.finished_by_name = None, None
        match message:
            case ExamineeConnected():
                examinee.socket_id, examinee.server_id = message.socket_id, message.server_id
                examinee.reason, examinee.attempt, examinee.max_attempts, examinee.exhausted = None, 0, None, False
            case ExamineeDisconnected():
                examinee.socket_id = message.socket_id or examinee.socket_id
                examinee.server_id = message.server_id or examinee.server_id
                examinee.reason = message.reason
                examinee.exhausted = message.reason == LossReason.RECONNECT_LIMIT_EXCEEDED  # restated while shut out
                if not message.restated:  # a restatement is the same outage: its attempts go on
                    examinee.attempt, examinee.max_attempts = message.attempt or 0, message.max_attempts
            case ExamineeMigrating():
                examinee.socket_id, examinee.server_id = message.socket_id, message.server_id
                examinee.reason, examinee.exhausted = LossReason.SERVER_DRAINING.value, False
                examinee.attempt, examinee.max_attempts = 0, None
            case ExamineeReconnecting():
                examinee.attempt, examinee.max_attempts = message.attempt, message.max_attempts
                examinee.exhausted = False
            case ExamineeReconnectExhausted():
                examinee.exhausted, examinee.reason = True, message.reason.value
            case ExamineeReadmitted():
                examinee.exhausted, examinee.attempt, examinee.max_attempts = False, 0, None
                examinee.reason = READMITTED if message.status == "DISCONNECTED" else None
            case ExamineeRemoved():
                examinee.exhausted, examinee.attempt, examinee.max_attempts = False, 0, None
                examinee.reason = REMOVED if message.status == "DISCONNECTED" else None
            case ExamineeEnrolled():
                _apply_connection_view(examinee, message.connection, message.reconnect, message.removed)
            case ExamineeFinished():
                examinee.exhausted, examinee.attempt, examinee.max_attempts = False, 0, None
                examinee.reason = message.reason.value
                examinee.finished_by, examinee.finished_by_name = message.by, message.by_name
                examinee.socket_id, examinee.server_id = None, None
            case ExamineeUnstable():
                _apply_connection_view(examinee, message.connection, message.reconnect, removed=False)
            case ExamineeResumed():
                _apply_connection_view(examinee, message.connection, ReconnectView(), removed=False)
        return ApplyResult.APPLIED

    def _apply_mobile_sync(self, message: MobileSyncStatus | MobileSyncCompleted) -> ApplyResult:
        examinee = self._examinee(message.examinee_id)
        version = message.version or 0
        if version <= examinee.mobile_sync_version:
            result = _result_of_old(version, examinee.mobile_sync_version, examinee.mobile_sync_from_event)
            examinee.mobile_sync_from_event |= version == examinee.mobile_sync_version
            return result
        examinee.mobile_sync_version, examinee.mobile_sync_from_event = version, True
        examinee.mobile_sync = message.status.value
        examinee.captures, examinee.review = list(message.captures or ()), message.review
        examinee.challenge = message.challenge
        match message:
            case MobileSyncCompleted():
                examinee.mobile_sync_reason, examinee.image_url, examinee.deadline = None, message.image_url, None
            case MobileSyncStatus():
                examinee.mobile_sync_reason, examinee.deadline = message.reason, message.deadline
                examinee.image_url = message.capture_info.image_url if message.capture_info else None
        return ApplyResult.APPLIED

    def _apply_notice(self, message: Notice | NoticeConfirmed | HelpEvent) -> ApplyResult:
        examinee = self._examinee(message.examinee_id)
        version = message.version or 0
        if version <= examinee.notices_version:
            result = _result_of_old(version, examinee.notices_version, examinee.notices_from_event)
            examinee.notices_from_event |= version == examinee.notices_version
            return result
        examinee.notices_version, examinee.notices_from_event = version, True
        examinee.notices, examinee.unconfirmed = message.sent or 0, list(message.unconfirmed or ())
        examinee.confirmed_plan_notices = list(message.confirmed_plan_notices or ())
        examinee.help = message.help
        return ApplyResult.APPLIED

    def _apply_plan_state(self, message: PlanStateEvent) -> ApplyResult:
        known = self.plan.version if self.plan is not None else 0
        if message.version <= known:
            # The same state may come after `welcome` and as an event: that is no fault.
            return ApplyResult.COVERED if message.version == known else ApplyResult.LATE
        self.plan = message
        return ApplyResult.APPLIED

    def _apply_plan_notice(self, message: PlanNotice) -> ApplyResult:
        # Each message has a line of versions of its own, for it never changes, and no event lists all of them.
        known = self.plan_notices.get(message.action_id)
        newest = (known.version or 0) if known is not None else 0
        if (message.version or 0) <= newest:
            return ApplyResult.COVERED if (message.version or 0) == newest else ApplyResult.LATE
        self.plan_notices[message.action_id] = message
        return ApplyResult.APPLIED


def _result_of_old(version: int, newest: int, from_event: bool) -> ApplyResult:
    """Return why an event changes nothing whose version is not above `newest`."""
    if not from_event:
        return ApplyResult.COVERED
    return ApplyResult.DOUBLED if version == newest else ApplyResult.LATE


def _apply_row(examinee: ExamineeView, row: ExamineeRow) -> None:
    if row.version > examinee.version:
        examinee.version, examinee.version_from_event = row.version, False
        examinee.name, examinee.labels = row.name, row.labels or {}
        _apply_connection_view(examinee, row.connection, row.reconnect, row.removed)
    if row.mobile_sync.version > examinee.mobile_sync_version:
        examinee.mobile_sync, examinee.mobile_sync_version = row.mobile_sync.status, row.mobile_sync.version
        examinee.mobile_sync_reason, examinee.image_url = row.mobile_sync.reason, row.mobile_sync.image_url
        examinee.deadline = row.mobile_sync.deadline if row.mobile_sync.status != "COMPLETED" else None
        examinee.captures, examinee.review = list(row.mobile_sync.captures or ()), row.mobile_sync.review
        examinee.challenge = row.mobile_sync.challenge
        examinee.mobile_sync_from_event = False
    if row.notices is not None and row.notices.version > examinee.notices_version:
        examinee.notices, examinee.unconfirmed = row.notices.sent, list(row.notices.unconfirmed)
        examinee.confirmed_plan_notices, examinee.help = list(row.notices.confirmed_plan_notices), row.notices.help
        examinee.notices_version, examinee.notices_from_event = row.notices.version, False


def _apply_connection_view(
    examinee: ExamineeView, connection: ConnectionView, reconnect: ReconnectView, removed: bool
) -> None:
    examinee.status = connection.status
    examinee.socket_id, examinee.server_id, examinee.reason = (
        connection.socket_id,
        connection.server_id,
        connection.reason,
    )
    examinee.finished_by, examinee.finished_by_name = connection.finished_by, connection.finished_by_name
    examinee.attempt, examinee.max_attempts = reconnect.attempt, reconnect.max_attempts
    examinee.exhausted, examinee.removed = reconnect.exhausted, removed
    examinee.flags, examinee.unstable = list(connection.flags or ()), reconnect.unstable is True


_CHANGES: dict[type[Message], Callable[[PlanView, Any], ApplyResult]] = {
    ExamineeConnected: PlanView._apply_connection_event,
    ExamineeDisconnected: PlanView._apply_connection_event,
    ExamineeMigrating: PlanView._apply_connection_event,
    ExamineeReconnecting: PlanView._apply_connection_event,
    ExamineeReconnectExhausted: PlanView._apply_connection_event,
    ExamineeUnstable: PlanView._apply_connection_event,
    ExamineeReadmitted: PlanView._apply_connection_event,
    ExamineeRemoved: PlanView._apply_connection_event,
    ExamineeEnrolled: PlanView._apply_connection_event,
    MobileSyncStatus: PlanView._apply_mobile_sync,
    MobileSyncCompleted: PlanView._apply_mobile_sync,
    ExamineeFinished: PlanView._apply_connection_event,
    ExamineeResumed: PlanView._apply_connection_event,
    PlanStateEvent: PlanView._apply_plan_state,
    PlanNotice: PlanView._apply_plan_notice,
    Notice: PlanView._apply_notice,
    NoticeConfirmed: PlanView._apply_notice,
    HelpRequested: PlanView._apply_notice,
    HelpTaken: PlanView._apply_notice,
    HelpClosed: PlanView._apply_notice,
}


Parsed = dict[str, Any]


_KNOWN_TYPES = frozenset(event.type for event in _CHANGES)

EventKey = tuple[str, str]
"""Whom or what an event is about, and the line of versions that it counts in."""


def event_key(event: Parsed) -> EventKey:
    """Return whom or what a parsed event is about, and the aspect whose versions it counts in.

    That is an examinee, a message to several (by its actionId), or the whole plan (empty). Which aspect a type of a
    newer release belongs to is not known: each counts on its own.
    """
    data, kind = event["data"], str(event["type"])
    aspect = event_aspect(kind) if kind in _KNOWN_TYPES else kind
    return data.get("actionId" if aspect == "plan_notices" else "examineeId", ""), aspect
