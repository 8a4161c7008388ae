"""A plan as a proctor's client sees it: whatever the order and the repetitions of events and snapshots."""

from __future__ import annotations

from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st

from protocol.client.plan_view import ApplyResult, PlanView
from protocol.messages.base import Message
from protocol.messages.frames import Accepted
from tests.unit.protocol.client.plan_events import (
    IDS,
    connected,
    enrolled,
    exhausted,
    lost,
    noticed,
    read,
    readmitted,
    removed,
    row,
    snapshot,
    synced,
    syncing,
    trying,
    view_of,
)

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
