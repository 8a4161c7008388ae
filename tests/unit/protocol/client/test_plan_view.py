"""A plan as a proctor's client sees it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.client.plan_view import ApplyResult, ExamineeView, PlanView, event_key
from protocol.messages.base import Message
from protocol.messages.facts import CaptureInfo, DeviceInfo, MobileSyncCode, MobileSyncStatus, Notice, NoticeConfirmed
from protocol.messages.frames import Accepted, ExamineeRow, PlanSnapshot, ViewStatus
from protocol.messages.proctor_events import (
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
from protocol.messages.views import ConnectionView, MobileSyncView, NoticesView, ReconnectView

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


KINDS: list[Callable[[str, int], Message]] = [
    *(connected, lost, trying, exhausted, readmitted, removed, enrolled),
    *(syncing, synced, noticed, read),
]
kinds = st.sampled_from(KINDS)


@st.composite
def histories(draw: st.DrawFn) -> list[Message]:
    """Events of three examinees, each with a version of its own, in the order of their versions."""
    changes = draw(st.lists(st.tuples(kinds, st.sampled_from(IDS)), max_size=20))
    return [kind(examinee_id, version) for version, (kind, examinee_id) in enumerate(changes, start=1)]


def end_of(view: PlanView) -> dict[str, tuple[object, ...]]:
    return {
        examinee.examinee_id: (
            *(examinee.version, examinee.connected, examinee.removed, examinee.name),
            *(examinee.mobile_sync_version, examinee.mobile_sync),
            *(examinee.notices_version, examinee.notices),
        )
        for examinee in view.examinees.values()
    }


@given(histories(), st.data())
def test_any_order_and_any_repetition_ends_at_the_newest_of_each(history: list[Message], data: st.DataObject) -> None:
    shuffled = data.draw(st.permutations(history + history))
    assert end_of(view_of(*shuffled)) == end_of(view_of(*history))


@given(histories())
def test_in_order_and_once_nothing_is_doubled_or_late(history: list[Message]) -> None:
    view = view_of(*history)
    assert (view.doubled, view.late, view.covered, sum(view.events.values())) == (0, 0, 0, len(history))


@given(histories().filter(bool))
def test_the_same_event_again_is_doubled(history: list[Message]) -> None:
    view = view_of(*history)
    assert view.apply(history[-1]) is ApplyResult.DOUBLED
    assert view.doubled == 1


def test_an_older_event_is_late_and_changes_nothing() -> None:
    view = view_of(connected("E1", 7))
    assert view.apply(lost("E1", 5)) is ApplyResult.LATE
    assert view.connected() == {"E1"}


def test_an_event_that_the_snapshot_holds_already_is_covered_once_and_doubled_afterwards() -> None:
    view = view_of(snapshot(row("E1", 7)))
    assert view.apply(lost("E1", 5)) is ApplyResult.COVERED
    assert [view.apply(connected("E1", 7)) for _ in range(2)] == [ApplyResult.COVERED, ApplyResult.DOUBLED]
    assert (view.doubled, view.late, view.covered) == (1, 0, 2)


def test_notices_have_versions_of_their_own_and_the_newest_tells_all() -> None:
    view = view_of(connected("E1", 100), noticed("E1", 50, "a50"), read("E1", 70), noticed("E1", 60, "a50", "a60"))
    examinee = view.examinees["E1"]
    assert (examinee.version, examinee.notices_version, examinee.notices, examinee.unconfirmed) == (100, 70, 70, [])
    assert view.late == 1


def test_a_snapshot_is_complete_with_its_last_part() -> None:
    view = view_of(snapshot(row("E1", 1), part=1, parts=2))
    assert not view.complete
    view.apply(snapshot(row("E2", 2), part=2, parts=2))
    assert view.complete
    assert view.connected() == {"E1", "E2"}


def test_a_part_without_its_beginning_completes_nothing() -> None:
    assert not view_of(snapshot(row("E2", 2), part=2, parts=2)).complete


def test_a_resync_replaces_the_rows() -> None:
    view = view_of(connected("E1", 1), connected("E2", 2))
    view.apply(snapshot(row("E1", 9, "DISCONNECTED"), resync=True))
    assert set(view.examinees) == {"E1"}
    assert (view.connected(), view.resyncs) == (set(), 1)


def test_an_event_between_the_parts_of_a_snapshot_survives_it() -> None:
    view = PlanView()
    view.apply(snapshot(row("E1", 1), part=1, parts=2))
    view.apply(connected("E9", 50))
    view.apply(lost("E2", 60))
    view.apply(snapshot(row("E2", 2), part=2, parts=2))
    assert view.connected() == {"E1", "E9"}


def test_messages_about_other_plans_are_ignored() -> None:
    assert view_of().apply(Accepted(request_type="readmit")) is ApplyResult.OTHER


# -- what each event and each row says ---------------------------------------------------------------------

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
DEVICE = DeviceInfo(model="iPhone 12", os_version="iOS 15.0")


@pytest.mark.parametrize(
    ("event", "changes"),
    [
        (
            ExamineeConnected(**EVENT, **SERVER, name="Kim"),
            {"name": "Kim", "status": "CONNECTED", **SERVER, "reason": None, **LADDER_OVER},
        ),
        (
            ExamineeDisconnected(**EVENT, name="Kim", reason="PING_TIMEOUT"),
            {"name": "Kim", "status": "DISCONNECTED", "reason": "PING_TIMEOUT", **LADDER_OVER},
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
    assert view.examinees == {"E1": replace(OLD, **changes, version=40, version_from_event=True)}
    assert view.events == {event.type: 1}


@pytest.mark.parametrize(
    ("event", "changes"),
    [
        (
            MobileSyncCompleted(**EVENT, device_id="M1", image_url=IMAGE),
            {"mobile_sync": "COMPLETED", "mobile_sync_reason": None, "image_url": IMAGE, "deadline": None},
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
    connection=ConnectionView(status="CONNECTED", **SERVER, reason="R"),
    mobile_sync=MobileSyncView(status="FAILED", reason="SYNC_TIMEOUT", image_url=IMAGE, deadline=NOW, version=41),
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
        "version": 40,
        "version_from_event": False,
    },
    "mobile_sync_version": {
        "mobile_sync": "FAILED",
        "mobile_sync_reason": "SYNC_TIMEOUT",
        "image_url": IMAGE,
        "deadline": NOW,
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


def test_a_new_view_is_current_and_empty() -> None:
    view = PlanView()
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
    ],
)
def test_the_type_of_an_event_says_which_versions_it_counts_in(event_type: str, aspect: str) -> None:
    assert event_key({"type": event_type, "data": {"examineeId": "E1"}}) == ("E1", aspect)


@pytest.mark.parametrize("result", ["APPLIED", "DOUBLED", "LATE", "COVERED", "OTHER"])
def test_results_are_printed_by_their_names(result: str) -> None:
    assert str(ApplyResult[result]) == result
