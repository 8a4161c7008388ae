"""A plan as a proctor's client sees it."""

from __future__ import annotations

from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st

from protocol.client.plan_view import ApplyResult, PlanView
from protocol.messages.base import Message
from protocol.messages.facts import MobileSyncCode, MobileSyncStatus, Notice, NoticeConfirmed
from protocol.messages.frames import Accepted, ExamineeRow, PlanSnapshot
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


KINDS: list[Callable[[str, int], Message]] = [
    *(connected, lost, trying, exhausted, readmitted, removed, enrolled),
    *(syncing, synced, noticed, read),
]
kinds = st.sampled_from(KINDS)


@st.composite
def histories(draw: st.DrawFn) -> list[Message]:
    """Events of three examinees, each with a version of its own, in the order of their versions."""
    made = draw(st.lists(st.tuples(kinds, st.sampled_from(IDS)), max_size=20))
    return [kind(examinee_id, version) for version, (kind, examinee_id) in enumerate(made, start=1)]


def end_of(view: PlanView) -> dict[str, tuple[object, ...]]:
    return {
        seen.examinee_id: (
            *(seen.version, seen.connected, seen.removed, seen.name),
            *(seen.mobile_sync_version, seen.mobile_sync),
            *(seen.notices_version, seen.notices),
        )
        for seen in view.examinees.values()
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


def test_the_ladder_of_an_examinee_who_does_not_come_back_and_is_readmitted() -> None:
    view = view_of(connected("E1", 1), lost("E1", 2), trying("E1", 3, attempt=4))
    seen = view.examinees["E1"]
    assert (seen.connected, seen.reason, seen.attempt, seen.max_attempts) == (False, "SOCKET_CLOSED", 4, 5)
    view.apply(exhausted("E1", 5))
    assert (seen.exhausted, seen.reason) == (True, "RECONNECT_LIMIT_EXCEEDED")
    view.apply(readmitted("E1", 6))
    assert (seen.exhausted, seen.connected) == (False, False)
    view.apply(connected("E1", 8))
    assert (seen.connected, seen.attempt, seen.reason) == (True, 0, None)


def test_mobile_sync_has_versions_of_its_own() -> None:
    view = view_of(connected("E1", 100), syncing("E1", 50), synced("E1", 60))
    seen = view.examinees["E1"]
    assert (seen.version, seen.mobile_sync_version) == (100, 60)
    assert (seen.mobile_sync, seen.image_url) == ("COMPLETED", "/captures/E1/sync_cap.jpg")


def test_notices_have_versions_of_their_own_and_the_newest_tells_all() -> None:
    view = view_of(connected("E1", 100), noticed("E1", 50, "a50"), read("E1", 70), noticed("E1", 60, "a50", "a60"))
    seen = view.examinees["E1"]
    assert (seen.version, seen.notices_version, seen.notices, seen.unconfirmed) == (100, 70, 70, [])
    assert view.late == 1


def test_who_is_removed_is_gone_until_readmitted_and_connected() -> None:
    view = view_of(enrolled("E1", 1), removed("E1", 2))
    seen = view.examinees["E1"]
    assert (seen.removed, seen.connected, seen.reason, seen.exhausted) == (True, False, "REMOVED", False)
    view.apply(readmitted("E1", 3))
    assert (seen.removed, seen.reason) == (False, "READMITTED")


def test_who_tries_again_is_not_shut_out_although_what_came_between_was_never_seen() -> None:
    view = view_of(exhausted("E1", 2), trying("E1", 9))
    assert not view.examinees["E1"].exhausted


def test_a_snapshot_is_complete_with_its_last_part() -> None:
    view = view_of(snapshot(row("E1", 1), part=1, parts=2))
    assert not view.complete
    view.apply(snapshot(row("E2", 2), part=2, parts=2))
    assert view.complete
    assert view.connected() == {"E1", "E2"}


def test_a_part_without_its_beginning_completes_nothing() -> None:
    assert not view_of(snapshot(row("E2", 2), part=2, parts=2)).complete


def test_a_resync_replaces_what_was_there() -> None:
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


def test_what_is_not_about_the_plan_is_left_alone() -> None:
    assert view_of().apply(Accepted(request_type="readmit")) is ApplyResult.OTHER
