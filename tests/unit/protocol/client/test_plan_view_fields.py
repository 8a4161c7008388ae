"""A plan as a proctor's client sees it: what each event and each row of a snapshot sets, and the counts."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from protocol.client.plan_view import ApplyResult, ExamineeView, PlanView, event_key
from protocol.messages.base import Message
from protocol.messages.facts import (
    CaptureInfo,
    DeviceInfo,
    FinishReason,
    MobileSyncCode,
    MobileSyncStatus,
    Notice,
    NoticeConfirmed,
)
from protocol.messages.frames import ExamineeRow, PlanSnapshot, ViewStatus
from protocol.messages.plan_facts import PlanNotice, PlanStatusCode
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
    MobileSyncCompleted,
    PlanStateEvent,
)
from protocol.messages.views import CaptureView, ConnectionView, MobileSyncView, NoticesView, ReconnectView, ReviewView
from tests.unit.protocol.client.plan_events import (
    NOW,
    connected,
    lost,
    noticed,
    read,
    row,
    snapshot,
    synced,
    syncing,
    view_of,
)

OLD = ExamineeView(
    "E1",
    name="Old name",
    status="MIGRATING",
    socket_id="S-old",
    server_id="SOCK-old",
    reason="OLD",
    attempt=3,
    max_attempts=9,
    exhausted=True,
    removed=True,
    flags=["browser"],
    unstable=True,
    version=10,
    mobile_sync="WAITING",
    mobile_sync_reason="OLD",
    image_url="/captures/old",
    deadline="old",
    mobile_sync_version=20,
    notices=4,
    unconfirmed=["a0"],
    notices_version=30,
)
"""A view whose every field differs from what the events below say."""

EVENT: dict[str, Any] = {"plan_id": "P1", "examinee_id": "E1", "timestamp": NOW, "version": 40}
LADDER_OVER: dict[str, Any] = {"attempt": 0, "max_attempts": None, "exhausted": False, "removed": False}
SERVER = {"socket_id": "S-1", "server_id": "SOCK1"}
IMAGE = "/captures/E1/sync_cap.jpg"
PICTURES: dict[str, Any] = {
    "captures": [CaptureView(capture_id="a" * 64, time=NOW, when="in", verdict="rejected")],
    "review": ReviewView(verdict="rejected", reason="BLURRED"),
    "challenge": "4711",
}
DEVICE = DeviceInfo(model="iPhone 12", os_version="iOS 15.0")


@pytest.mark.parametrize(
    ("event", "changes"),
    [
        (
            ExamineeConnected(**EVENT, **SERVER, name="Kim"),
            {"name": "Kim", "status": "CONNECTED", **SERVER, "reason": None, **LADDER_OVER},
        ),
        (
            ExamineeDisconnected(**EVENT, name="Kim", reason="PING_TIMEOUT", flags=["address"], unstable=True),
            {
                "name": "Kim",
                "status": "DISCONNECTED",
                "reason": "PING_TIMEOUT",
                "flags": ["address"],
                "unstable": True,
                **LADDER_OVER,
            },
        ),
        (
            ExamineeUnstable(
                **EVENT,
                share=0.2,
                window_seconds=600,
                connection=ConnectionView(status="CONNECTED", **SERVER, flags=["device"], version=40),
                reconnect=ReconnectView(),
            ),
            {"name": None, "status": "CONNECTED", **SERVER, "reason": None, "flags": ["device"], **LADDER_OVER},
        ),
        (
            ExamineeDisconnected(**EVENT, reason="RECONNECT_LIMIT_EXCEEDED", attempt=5, max_attempts=6),
            {
                "name": None,
                "status": "DISCONNECTED",
                "reason": "RECONNECT_LIMIT_EXCEEDED",
                "attempt": 5,
                "max_attempts": 6,
                "exhausted": True,
                "removed": False,
            },
        ),
        (
            ExamineeDisconnected(**EVENT, reason="PING_TIMEOUT", restated=True),
            {"name": None, "status": "DISCONNECTED", "reason": "PING_TIMEOUT", "exhausted": False, "removed": False},
        ),
        (
            ExamineeMigrating(**EVENT, **SERVER, name="Kim"),
            {"name": "Kim", "status": "MIGRATING", **SERVER, "reason": "SERVER_DRAINING", **LADDER_OVER},
        ),
        (
            ExamineeReconnecting(**EVENT, attempt=4, max_attempts=5),
            {
                "name": None,
                "status": "DISCONNECTED",
                "attempt": 4,
                "max_attempts": 5,
                "exhausted": False,
                "removed": False,
            },
        ),
        (
            ExamineeReconnectExhausted(**EVENT, attempt=5, max_attempts=5),
            {"name": None, "status": "DISCONNECTED", "reason": "RECONNECT_LIMIT_EXCEEDED", "removed": False},
        ),
        (
            ExamineeReadmitted(**EVENT, by="anna"),
            {"name": None, "status": "DISCONNECTED", "reason": "READMITTED", **LADDER_OVER},
        ),
        (
            ExamineeReadmitted(**EVENT, by="anna", status="NEVER"),
            {"name": None, "status": "NEVER", "reason": None, **LADDER_OVER},
        ),
        (
            ExamineeRemoved(**EVENT, by="anna"),
            {"name": None, "status": "DISCONNECTED", "reason": "REMOVED", **LADDER_OVER, "removed": True},
        ),
        (
            ExamineeRemoved(**EVENT, by="anna", status="NEVER"),
            {"name": None, "status": "NEVER", "reason": None, **LADDER_OVER, "removed": True},
        ),
        (
            ExamineeFinished(**EVENT, name="Kim", by="anna", reason=FinishReason.HANDED_IN),
            {
                "name": "Kim",
                "status": "FINISHED",
                "reason": "HANDED_IN",
                "finished_by": "anna",
                "socket_id": None,
                "server_id": None,
                **LADDER_OVER,
            },
        ),
        (
            ExamineeResumed(
                **EVENT, by="anna", connection=ConnectionView(status="DISCONNECTED", **SERVER, reason="R", version=40)
            ),
            {"name": None, "status": "DISCONNECTED", "reason": "R", **SERVER, **LADDER_OVER},
        ),
        (
            ExamineeEnrolled(
                **EVENT,
                name="Kim",
                connection=ConnectionView(status="CONNECTED", **SERVER, reason="R", version=40),
                reconnect=ReconnectView(attempt=1, max_attempts=2, exhausted=False),
                removed=False,
            ),
            {
                "name": "Kim",
                "status": "CONNECTED",
                **SERVER,
                "reason": "R",
                "attempt": 1,
                "max_attempts": 2,
                "exhausted": False,
                "removed": False,
            },
        ),
    ],
)
def test_a_connection_event_sets_what_it_says_and_nothing_else(event: Message, changes: dict[str, Any]) -> None:
    view = PlanView()
    view.examinees["E1"] = replace(OLD)
    assert view.apply(event) is ApplyResult.APPLIED
    expected = {"flags": [], "unstable": False, **changes}
    assert view.examinees == {"E1": replace(OLD, **expected, version=40, version_from_event=True)}
    assert view.events == {event.type: 1}


@pytest.mark.parametrize(
    ("event", "changes"),
    [
        (
            MobileSyncCompleted(**EVENT, device_id="M1", image_url=IMAGE, **PICTURES),
            {
                "mobile_sync": "COMPLETED",
                "mobile_sync_reason": None,
                "image_url": IMAGE,
                "deadline": None,
                **PICTURES,
            },
        ),
        (
            MobileSyncStatus(**EVENT, status=MobileSyncCode.FAILED, reason="IMAGE_STORE_FAILED", deadline=NOW),
            {"mobile_sync": "FAILED", "mobile_sync_reason": "IMAGE_STORE_FAILED", "image_url": None, "deadline": NOW},
        ),
        (
            MobileSyncStatus(
                **EVENT,
                status=MobileSyncCode.COMPLETED,
                capture_info=CaptureInfo(image_url=IMAGE, device_info=DEVICE),
                capture_id="a" * 64,
                device_id="M1",
            ),
            {"mobile_sync": "COMPLETED", "mobile_sync_reason": None, "image_url": IMAGE, "deadline": None},
        ),
    ],
)
def test_a_mobile_sync_event_sets_what_it_says_and_nothing_else(event: Message, changes: dict[str, Any]) -> None:
    view = PlanView()
    view.examinees["E1"] = replace(OLD)
    assert view.apply(event) is ApplyResult.APPLIED
    assert view.examinees == {
        "E1": replace(OLD, **changes, mobile_sync_version=40, mobile_sync_from_event=True),
    }


@pytest.mark.parametrize("event", [noticed("E1", 40, "a1", "a2"), read("E1", 40, "a1", "a2")])
def test_a_notice_event_sets_what_it_says_and_nothing_else(event: Message) -> None:
    view = PlanView()
    view.examinees["E1"] = replace(OLD)
    assert view.apply(event) is ApplyResult.APPLIED
    expected = replace(OLD, notices=40, unconfirmed=["a1", "a2"], notices_version=40, notices_from_event=True)
    assert view.examinees == {"E1": expected}


@pytest.mark.parametrize(
    "message",
    [
        Notice(**EVENT, action_id="a1", text="Look up.", by="anna"),
        NoticeConfirmed(**EVENT, action_id="a1"),
    ],
)
def test_a_notice_event_without_the_sum_counts_as_none(message: Message) -> None:
    examinee = view_of(message).examinees["E1"]
    assert (examinee.notices, examinee.unconfirmed) == (0, [])


@pytest.mark.parametrize(
    "event",
    [
        MobileSyncStatus(plan_id="P1", examinee_id="E1", status=MobileSyncCode.WAITING, timestamp=NOW),
        Notice(plan_id="P1", examinee_id="E1", action_id="a1", text="Look up.", by="anna", timestamp=NOW),
    ],
)
def test_an_event_without_a_version_is_older_than_any(event: Message) -> None:
    assert view_of().apply(event) is ApplyResult.COVERED


ROW = ExamineeRow(
    examinee_id="E1",
    name="Kim",
    status="CONNECTED",
    connection=ConnectionView(status="CONNECTED", **SERVER, reason="R", flags=["address"]),
    mobile_sync=MobileSyncView(
        status="FAILED", reason="SYNC_TIMEOUT", image_url=IMAGE, deadline=NOW, **PICTURES, version=41
    ),
    reconnect=ReconnectView(attempt=1, max_attempts=2),
    notices=NoticesView(unconfirmed=["a1"], sent=7, version=42),
    version=40,
)
ROW_CHANGES: dict[str, dict[str, Any]] = {
    "version": {
        "name": "Kim",
        "status": "CONNECTED",
        **SERVER,
        "reason": "R",
        "attempt": 1,
        "max_attempts": 2,
        "exhausted": False,
        "removed": False,
        "flags": ["address"],
        "unstable": False,
        "version": 40,
        "version_from_event": False,
    },
    "mobile_sync_version": {
        "mobile_sync": "FAILED",
        "mobile_sync_reason": "SYNC_TIMEOUT",
        "image_url": IMAGE,
        "deadline": NOW,
        **PICTURES,
        "mobile_sync_version": 41,
        "mobile_sync_from_event": False,
    },
    "notices_version": {"notices": 7, "unconfirmed": ["a1"], "notices_version": 42, "notices_from_event": False},
}
FROM_EVENTS = replace(OLD, version_from_event=True, mobile_sync_from_event=True, notices_from_event=True)


def test_a_row_of_a_snapshot_sets_all_aspects() -> None:
    view = PlanView()
    view.examinees["E1"] = replace(FROM_EVENTS)
    view.apply(snapshot(ROW))
    changes = {name: value for aspect in ROW_CHANGES.values() for name, value in aspect.items()}
    assert view.examinees == {"E1": replace(FROM_EVENTS, **changes)}


@pytest.mark.parametrize("newer", [0, 1])
@pytest.mark.parametrize("aspect", list(ROW_CHANGES))
def test_a_row_changes_no_aspect_that_is_not_older(aspect: str, newer: int) -> None:
    current = replace(FROM_EVENTS, **{aspect: ROW_CHANGES[aspect][aspect] + newer})
    view = PlanView()
    view.examinees["E1"] = replace(current)
    view.apply(snapshot(ROW))
    other_changes = [changes for name, changes in ROW_CHANGES.items() if name != aspect]
    assert view.examinees == {"E1": replace(current, **{k: v for changes in other_changes for k, v in changes.items()})}


def test_a_completed_mobile_sync_in_a_row_has_no_deadline() -> None:
    completed = MobileSyncView(status="COMPLETED", image_url=IMAGE, deadline=NOW, version=41)
    assert view_of(snapshot(row("E1", 1, mobile=completed))).examinees["E1"].deadline is None


def test_an_examinee_of_whom_only_one_aspect_is_known_has_none_of_the_others() -> None:
    examinee = view_of(syncing("E1", 5)).examinees["E1"]
    assert examinee == replace(
        ExamineeView("E1"), mobile_sync="WAITING", mobile_sync_version=5, mobile_sync_from_event=True
    )
    assert (examinee.status, examinee.attempt, examinee.exhausted, examinee.removed) == ("NEVER", 0, False, False)
    assert (examinee.name, examinee.socket_id, examinee.server_id, examinee.reason) == (None, None, None, None)
    assert (examinee.version, examinee.max_attempts, examinee.version_from_event) == (0, None, False)
    other = view_of(connected("E1", 5)).examinees["E1"]
    assert (other.mobile_sync, other.mobile_sync_version, other.mobile_sync_from_event) == ("NONE", 0, False)
    assert (other.mobile_sync_reason, other.image_url, other.deadline) == (None, None, None)
    assert (other.notices, other.unconfirmed, other.notices_version, other.notices_from_event) == (0, [], 0, False)


@pytest.mark.parametrize(
    ("newer", "older", "snapshot_row"),
    [
        (connected("E1", 7), lost("E1", 6), row("E1", 7)),
        (syncing("E1", 7), synced("E1", 6), row("E1", 1, mobile=MobileSyncView(version=7))),
        (noticed("E1", 7), read("E1", 6), row("E1", 1).model_copy(update={"notices": NoticesView(version=7)})),
    ],
    ids=["connection", "mobile_sync", "notices"],
)
def test_old_events_are_counted_by_why_they_change_nothing(
    newer: Message, older: Message, snapshot_row: ExamineeRow
) -> None:
    events = [newer, newer, older, older]
    results = [ApplyResult.APPLIED, ApplyResult.DOUBLED, ApplyResult.LATE, ApplyResult.LATE]
    view = PlanView()
    assert [view.apply(event) for event in events] == results
    assert (view.doubled, view.late, view.covered, view.events) == (1, 2, 0, {newer.type: 1})
    view = view_of(snapshot(snapshot_row))
    covered, doubled, late = ApplyResult.COVERED, ApplyResult.DOUBLED, ApplyResult.LATE
    assert [view.apply(event) for event in (older, newer, newer, older)] == [covered, covered, doubled, late]
    assert (view.doubled, view.late, view.covered, view.events) == (1, 1, 2, {})


def test_the_state_of_the_plan_is_the_newest() -> None:
    view = PlanView()
    states = [PlanStateEvent(plan_id="P1", status=PlanStatusCode.OPEN, version=version) for version in (1, 1, 3, 2)]
    applied, covered, late = ApplyResult.APPLIED, ApplyResult.COVERED, ApplyResult.LATE
    assert [view.apply(state) for state in states] == [applied, covered, applied, late]
    assert view.plan == states[2]


def test_messages_to_the_plan_are_kept_by_action() -> None:
    view = PlanView()
    notices = [
        PlanNotice(plan_id="P1", timestamp=NOW, by="anna", action_id=action_id, text="Look up.", version=version)
        for action_id, version in (("a3", 3), ("a3", 3), ("a1", 1), ("a3", 2), ("a3", None), ("a2", None))
    ]
    applied, covered, late = ApplyResult.APPLIED, ApplyResult.COVERED, ApplyResult.LATE
    assert [view.apply(notice) for notice in notices] == [applied, covered, applied, late, late, covered]
    assert view.plan_notices == {"a1": notices[2], "a3": notices[0]}, "one that comes late is not dropped"


def test_a_snapshot_brings_the_messages_to_the_plan() -> None:
    view = PlanView()
    told = PlanNotice(plan_id="P1", timestamp=NOW, by="anna", action_id="a1", text="Look up.", version=1)
    view.apply(PlanSnapshot(plan_id="P1", examinees=[], plan_notices=[told]))
    assert view.plan_notices == {"a1": told}
    assert view.apply(told) is ApplyResult.COVERED


def test_a_new_view_is_current_and_empty() -> None:
    view = PlanView()
    assert (view.plan, view.plan_notices) == (None, {})
    assert (view.examinees, view.complete, view.events, view.connected()) == ({}, False, {}, set())
    assert (view.current, view.current_until, view.waiting_for) == (True, None, None)
    assert (view.snapshots, view.resyncs, view.doubled, view.late, view.covered) == (0, 0, 0, 0, 0)


def test_a_view_that_is_not_current_knows_until_when_and_why() -> None:
    view = PlanView()
    assert view.apply(ViewStatus(current=False, since=NOW, waiting_for="nats")) is ApplyResult.APPLIED
    assert (view.current, view.current_until, view.waiting_for) == (False, NOW, "nats")
    view.apply(ViewStatus(current=True, since=NOW))
    assert (view.current, view.current_until, view.waiting_for) == (True, None, None)


def test_snapshots_and_resyncs_are_counted_when_they_are_complete() -> None:
    view = view_of(snapshot(part=1, parts=2, resync=True))
    assert (view.snapshots, view.resyncs) == (0, 0)
    assert view.apply(snapshot(part=2, parts=2, resync=True)) is ApplyResult.APPLIED
    assert (view.snapshots, view.resyncs) == (1, 1)
    view.apply(snapshot(resync=False))
    assert (view.snapshots, view.resyncs, view.complete) == (2, 1, True)


def test_a_second_snapshot_removes_examinees_that_only_the_first_had() -> None:
    view = view_of(snapshot(row("E1", 1)), connected("E2", 2))
    assert set(view.examinees) == {"E1", "E2"}
    view.apply(snapshot(row("E1", 1)))
    assert set(view.examinees) == {"E1"}
    view.apply(snapshot(row("E2", 2), part=2, parts=2))
    assert set(view.examinees) == {"E1", "E2"}, "a last part without a first one removes nobody"


@pytest.mark.parametrize(
    ("event_type", "aspect"),
    [
        ("mobile_sync_status", "mobile_sync"),
        ("mobile_sync_completed", "mobile_sync"),
        ("notice", "notices"),
        ("notice_confirmed", "notices"),
        ("examinee_connected", "connection"),
        ("examinee_enrolled", "connection"),
        ("plan_state", "plan"),
        ("help_taken", "notices"),
        ("examinee_checked", "examinee_checked"),  # of a newer release
    ],
)
def test_the_type_of_an_event_says_which_versions_it_counts_in(event_type: str, aspect: str) -> None:
    assert event_key({"type": event_type, "data": {"examineeId": "E1"}}) == ("E1", aspect)
    assert event_key({"type": event_type, "data": {}}) == ("", aspect), "about the whole plan"
    assert event_key({"type": "plan_notice", "data": {"actionId": "a1"}}) == ("a1", "plan_notices")


@pytest.mark.parametrize("result", ["APPLIED", "DOUBLED", "LATE", "COVERED", "OTHER"])
def test_results_are_printed_by_their_names(result: str) -> None:
    assert str(ApplyResult[result]) == result
