"""Facts in any order, any number of times, with crashes in between: one outcome, and everybody is told it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import event as note
from hypothesis import given
from hypothesis import strategies as st

from protocol.client.plan_view import ExamineeView, PlanView
from protocol.messages.base import Message
from protocol.messages.facts import Aspect, MobileSyncCode
from protocol.messages.proctor_events import Event, ExamineeConnected, ExamineeDisconnected
from protocol.rules.history import History, compact, fold, insert
from tests.unit.support import facts
from tests.unit.support.fact_logs import KINDS, AnyKind, Log, arrivals, in_order, logs


def stored(kind: AnyKind, history: History[Any, Any]) -> History[Any, Any]:
    """A history as the next state manager finds it: written to Redis and read again."""
    again = kind.read(kind.write(history, fold(history, kind.rule), 1)["history"])
    assert again == history
    return again


def replayed(kind: AnyKind, history: History[Any, Any]) -> Any:
    """The fold from the base on, whatever the history has kept of it."""
    return fold(replace(history, head=None), kind.rule)


def highest_floor(log: Log, arrived: set[int]) -> int:
    """The highest version that may be a floor: all facts up to there have arrived."""
    floor = 0
    for version, _ in log:
        if version not in arrived:
            break
        floor = version
    return floor + 9 if floor else 0


@pytest.mark.parametrize("kind_name", list(KINDS))
@given(data=st.data())
def test_any_order_repetition_and_compaction_give_the_state_of_the_facts_in_order(
    kind_name: str, data: st.DataObject
) -> None:
    kind, _ = KINDS[kind_name]
    log = data.draw(logs(kind_name))
    history: History[Any, Any] = kind.empty()
    arrived: set[int] = set()
    row: dict[str, str] = {}
    before = None
    for version, fact in data.draw(arrivals(log)):
        repeated = version in arrived
        insertion = insert(stored(kind, history), kind.rule, version, fact, kind.visible_part)
        arrived.add(version)
        expected, _ = in_order(kind, [one for one in log if one[0] in arrived])
        assert insertion.state == expected == fold(insertion.history, kind.rule) == replayed(kind, insertion.history)
        assert insertion.changed is not repeated
        history = insertion.history
        row |= kind.changes(history, kind.fields(expected), version, before)
        assert row == kind.write(history, expected, version), "what has changed, upon what was there"
        before = kind.fields(expected)
        if data.draw(st.booleans()):
            floor = data.draw(st.integers(0, highest_floor(log, arrived)))
            written = kind.write(history, expected, 1)["history"]
            history = compact(history, kind.rule, floor)
            assert kind.read(written, floor) == history
            assert fold(history, kind.rule) == expected == replayed(kind, history)
    assert fold(history, kind.rule) == in_order(kind, log)[0]


@pytest.mark.parametrize("kind_name", list(KINDS))
@given(data=st.data())
def test_facts_in_order_publish_each_event_once_and_restate_nothing(kind_name: str, data: st.DataObject) -> None:
    kind, _ = KINDS[kind_name]
    log = data.draw(logs(kind_name))
    history = kind.empty()
    told: list[Event] = []
    for version, fact in log:
        insertion = insert(history, kind.rule, version, fact, kind.visible_part)
        assert not insertion.late
        assert not insertion.restate
        history = insertion.history
        told.extend(insertion.events)
    assert told == in_order(kind, log)[1]


@pytest.mark.parametrize("kind_name", list(KINDS))
@given(data=st.data())
def test_a_changed_state_is_the_same_as_a_replaced_one(kind_name: str, data: st.DataObject) -> None:
    kind, _ = KINDS[kind_name]
    state, _ = in_order(kind, data.draw(logs(kind_name)))
    newer = replace(state, unknown_fields={"mood": "good"})
    changed = newer.changed(version=7)
    assert changed == replace(newer, version=7)
    assert changed.unknown_fields == {"mood": "good"}


NO_PICTURE: tuple[object, ...] = ("NONE", None, [], None)
NOBODY: tuple[object, ...] = ("NEVER", None, False, False, None, {}, (), False)
"""The connection of an examinee of whom nothing is known."""


class Exam:
    """One examinee's log, the managers that work it off and crash, and the proctor who is told."""

    def __init__(self, kind: AnyKind, log: Log) -> None:
        self.kind = kind
        self.log = dict(log)
        assert kind.aspect is not None
        self.aspect: Aspect = kind.aspect
        self.history: History[Any, Any] = kind.empty()
        self.unacknowledged = set(self.log)
        self.visible_part: list[Event] = []
        self.told_when_complete: list[Event] = []
        self.restatements = 0

    def deliver(self, version: int, *, crash: bool) -> None:
        """Work off a fact; with `crash`, die after the record is written and before anybody is told."""
        insertion = insert(self.history, self.kind.rule, version, self.log[version], self.kind.visible_part)
        self.history = stored(self.kind, insertion.history)
        if crash:
            self.unacknowledged.add(version)
            return
        self.visible_part.extend(insertion.events)
        if not self._incomplete_below(version):
            self.told_when_complete.extend(one for one in insertion.events if one.version == version)
        if insertion.restate:
            self.restatements += 1
            newest = max(self.log) + 10
            self.log[newest] = facts.restate(300, self.aspect)
            self.unacknowledged.add(newest)
        self.unacknowledged.discard(version)

    def _incomplete_below(self, version: int) -> bool:
        known = {one for one, _ in self.history.facts}
        return any(one not in known for one in self.log if self.history.floor < one < version)

    def raise_floor(self) -> None:
        """Compact as far as everything is acknowledged."""
        open_versions = sorted(self.unacknowledged)
        floor = open_versions[0] - 1 if open_versions else max(self.log)
        self.history = compact(self.history, self.kind.rule, floor)

    def come_to_rest(self) -> None:
        """Redeliver what is not acknowledged, without any more crashes, restatements included."""
        for _ in range(100):
            if not self.unacknowledged:
                return
            self.deliver(min(self.unacknowledged), crash=False)
        raise AssertionError("restatements without end")

    def truth(self) -> tuple[Any, list[Event]]:
        return in_order(self.kind, sorted(self.log.items()))


def view_of(told: list[Event]) -> tuple[object, ...]:
    """What a proctor's client makes of the events."""
    view = PlanView()
    for event in told:
        view.apply(event)
    seen = view.examinees.get(facts.EXAMINEE)
    if seen is None:
        return (NOBODY, NO_PICTURE, (0, (), (), None))
    connection: tuple[object, ...] = (
        seen.status,
        seen.socket_id if seen.connected else None,
        seen.exhausted,
        seen.removed,
        seen.name,
        seen.labels,
    )
    connection += (tuple(seen.flags), seen.unstable)
    return (connection, (seen.mobile_sync, seen.deadline, seen.captures, seen.review), _told_notices(seen))


def _told_notices(seen: ExamineeView) -> tuple[object, ...]:
    return (seen.notices, tuple(seen.unconfirmed), tuple(seen.confirmed_plan_notices), seen.help)


def view_in(kind_name: str, state: Any) -> tuple[object, ...]:
    """What the proctor's client should make of it."""
    connection: tuple[object, ...] = NOBODY
    picture = NO_PICTURE
    notices: tuple[object, ...] = (0, (), (), None)
    if kind_name == "connection":
        status, *rest = KINDS[kind_name][0].visible_part(state)
        connection = (status.value if status else "NEVER", *rest)
    elif kind_name == "mobile_sync" and state.status is not None:
        deadline = None if state.status is MobileSyncCode.COMPLETED else state.deadline
        picture = (state.status.value, deadline, state.capture_views() or [], state.review())
    elif kind_name == "notices":
        notices = KINDS[kind_name][0].visible_part(state)
    return (connection, picture, notices)


@given(data=st.data())
def test_the_proctor_ends_with_the_true_state_after_late_repeated_and_lost_facts(data: st.DataObject) -> None:
    kind_name = data.draw(st.sampled_from(["connection", "mobile_sync", "notices"]))
    kind, _ = KINDS[kind_name]
    exam = Exam(kind, data.draw(logs(kind_name)))
    for version, _ in data.draw(arrivals(sorted(exam.log.items()))):
        exam.deliver(version, crash=data.draw(st.booleans(), "crash"))
        if data.draw(st.booleans(), "raise the floor"):
            exam.raise_floor()
    exam.come_to_rest()
    note(f"{kind_name}, restated {min(exam.restatements, 2)}")

    state, events = exam.truth()
    assert fold(exam.history, kind.rule) == state
    assert view_of(exam.visible_part) == view_in(kind_name, state)

    for event in events:
        assert event in exam.visible_part, "an event that nobody was ever told"
    for told_event in exam.told_when_complete:
        assert told_event in events, "told after everything older had arrived, and yet not so"


def losses_and_recoveries(events: list[Event]) -> list[Message]:
    return [one for one in events if isinstance(one, ExamineeConnected | ExamineeDisconnected) and not one.restated]


@given(data=st.data())
def test_a_redelivery_in_order_repeats_the_same_events(data: st.DataObject) -> None:
    """Slow acknowledgements, the everyday case: no new words, so message ids and versions make them nothing."""
    kind, _ = KINDS["connection"]
    log = data.draw(logs("connection"))
    exam = Exam(kind, log)
    for version, _ in log:
        for _ in range(data.draw(st.integers(1, 2))):
            exam.deliver(version, crash=False)
        again = data.draw(st.sampled_from([one for one, _ in log if one <= version]))
        exam.deliver(again, crash=False)
    assert exam.restatements == 0
    truth = losses_and_recoveries(exam.truth()[1])
    assert all(one in truth for one in losses_and_recoveries(exam.visible_part))
