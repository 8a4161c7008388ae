"""A proctor with a scope is told of the examinees in it, and not even that there are others."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.access.claims import Claims
from protocol.access.scope import PlanLabels, Scope, scoped_events, scoped_notices, scoped_plan_state, scoped_rows
from protocol.errors import InvalidToken
from protocol.messages.frames import ExamineeRow
from protocol.messages.plan_facts import PlanNotice, PlanStatusCode
from protocol.messages.proctor_events import OwnExamTimes, PlanStateEvent
from protocol.messages.views import ConnectionView, MobileSyncView, ReconnectView

NOW = "2026-12-01T09:00:00.000Z"
EXAMINEES = ("E001", "E002", "E003", "E004")
A = Scope(frozenset({("room", frozenset({"A"}))}))


def event(kind: str, **data: Any) -> dict[str, Any]:
    return {"type": kind, "data": data}


@pytest.mark.parametrize(
    ("claim", "labels", "inside"),
    [
        ({"room": ["A", "B"]}, {"room": "B", "seat": "1"}, True),
        ({"room": ["A"]}, {"room": "B"}, False),
        ({"room": ["A"]}, {}, False),
        ({"room": ["A"], "row": ["1"]}, {"room": "A"}, False),
        ({"room": ["A"], "row": ["1", "2"]}, {"room": "A", "row": "2"}, True),
        ({"건물": ["\u1100\u1161"]}, {"건물": "가"}, True),  # the same letter, in another form of Unicode
    ],
)
def test_every_label_of_a_scope_must_match(claim: dict[str, list[str]], labels: dict[str, str], inside: bool) -> None:
    scope = Scope.of(claim)
    assert scope is not None
    assert scope.matches(labels) is inside


def test_a_scope_is_equal_however_its_values_are_ordered() -> None:
    assert Scope.of({"room": ["A", "B"], "row": ["1"]}) == Scope.of({"row": ["1"], "room": ["B", "A"]})
    assert Scope.of(None) is None


@pytest.mark.parametrize(
    "scope",
    [{}, {"room": []}, {"room": "A"}, {"1room": ["A"]}, {"room": [""]}, ["A"], {"room": ["A"] * 201}, {"room": [1]}],
)
def test_a_scope_that_says_nothing_sensible_is_no_valid_token(scope: Any) -> None:
    payload = {"sub": "T001", "role": "proctor", "plan": "P001", "exp": 1795338000, "scope": scope}
    with pytest.raises(InvalidToken, match="claim scope"):
        Claims.read(payload)


def test_a_scope_of_an_unknown_label_is_valid_and_matches_nobody() -> None:
    payload = {"sub": "T001", "role": "proctor", "plan": "P001", "exp": 1795338000, "scope": {"wing": ["N"]}}
    limits = Claims.read(payload).limits
    assert limits is not None
    assert not limits.matches({"room": "A"})


@st.composite
def logs(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Events of a plan in the order of the log, also about rooms that change."""
    events = []
    rooms: dict[str, str | None] = {}
    for version in range(1, draw(st.integers(1, 30))):
        examinee = draw(st.sampled_from(EXAMINEES))
        kind = draw(st.sampled_from(["examinee_enrolled", "examinee_connected", "mobile_sync_status", "plan_notice"]))
        data: dict[str, Any] = {"planId": "P001", "version": version}
        if kind == "plan_notice":
            data["examinees"] = draw(st.lists(st.sampled_from(EXAMINEES), min_size=1, unique=True))
        else:
            data["examineeId"] = examinee
        if kind == "examinee_enrolled":
            rooms[examinee] = draw(st.sampled_from(["A", "B", None]))
        if kind.startswith("examinee_") and rooms.get(examinee):
            data["labels"] = {"room": rooms[examinee]}
        events.append({"type": kind, "data": data})
    return events


@given(logs(), st.integers(1, 5))
def test_no_frame_names_anybody_who_is_not_in_the_scope_then(log: list[dict[str, Any]], size: int) -> None:
    labels, rooms = PlanLabels(), dict[str, str | None]()
    inside: set[str] = set()
    for start in range(0, len(log), size):
        batch = log[start : start + size]
        changes = [labels.update(each) for each in batch]
        told = scoped_events(batch, changes, A, labels)
        moves = False
        due = []
        for each in batch:
            data = each["data"]
            if each["type"].startswith("examinee_"):
                examinee = data["examineeId"]
                moves |= (rooms.get(examinee) == "A") != (data.get("labels", {}).get("room") == "A")
                rooms[examinee] = data.get("labels", {}).get("room")
            if "examineeId" in data and rooms.get(data["examineeId"]) == "A":
                due.append(each)
        inside = {examinee for examinee, room in rooms.items() if room == "A"}
        assert [each for each in told.events if "examineeId" in each["data"]] == due
        assert told.moved is moves
        listed = {name for each in told.events for name in each["data"].get("examinees", ())}
        assert listed <= inside
    assert {name for name in EXAMINEES if A.matches(labels.of(name))} == inside


def test_an_old_event_does_not_bring_back_old_labels() -> None:
    labels = PlanLabels()
    labels.learn("E001", 5, {"room": "A"})
    labels.update(event("examinee_enrolled", examineeId="E001", labels={"room": "B"}, version=7))
    labels.update(event("examinee_connected", examineeId="E001", labels={"room": "A"}, version=6))
    labels.learn("E001", 9, {"room": "C"})  # the event of that record is still to come
    same = event("examinee_connected", examineeId="E001", labels={"room": "D"}, version=7)
    assert labels.update(same) == ({"room": "B"}, {"room": "B"})
    assert labels.newest("E001", 7, {"room": "D"}) == {"room": "D"}
    assert labels.newest("E009", 1, {"room": "D"}) == {"room": "D"}
    assert labels.of("E001") == {"room": "B"}
    assert labels.newest("E001", 9, {"room": "C"}) == {"room": "C"}
    assert labels.newest("E001", 6, {"room": "A"}) == {"room": "B"}
    labels.clear()
    assert labels.of("E001") == {}


def test_the_state_of_a_plan_and_messages_to_several_lose_the_others() -> None:
    labels = PlanLabels()
    labels.learn("E001", 1, {"room": "A"})
    labels.learn("E002", 1, {"room": "B"})
    own = {name: OwnExamTimes(ends_at=NOW) for name in ("E001", "E002", "E003")}
    state = PlanStateEvent(plan_id="P001", status=PlanStatusCode.OPEN, own_times=own, version=9)
    assert set(scoped_plan_state(state, A, {"E001": {"room": "A"}}).own_times or ()) == {"E001"}
    assert scoped_plan_state(state, A, {}).own_times is None
    assert scoped_plan_state(state.model_copy(update={"own_times": None}), A, {}).own_times is None
    others = event("plan_state", planId="P001", ownTimes={"E002": {}}, version=9)
    assert scoped_events([others], [labels.update(others)], A, labels).events[0]["data"] == {
        "planId": "P001",
        "version": 9,
    }
    encoded = event("plan_state", planId="P001", ownTimes={"E001": {}, "E002": {}}, version=9)
    changes = [labels.update(encoded)]
    ((told,), moved) = scoped_events([encoded], changes, A, labels)
    assert (told["data"], moved) == ({"planId": "P001", "version": 9, "ownTimes": {"E001": {}}}, False)
    assert set(encoded["data"]["ownTimes"]) == {"E001", "E002"}, "the others share the event"

    def notice(*examinees: str) -> PlanNotice:
        listed = list(examinees) or None
        return PlanNotice(plan_id="P001", timestamp=NOW, by="T1", action_id="a", text="Hello", examinees=listed)

    kept = scoped_notices([notice("E001", "E002"), notice("E002"), notice()], A, labels)
    assert [each.examinees for each in kept] == [["E001"], None]


def test_a_message_to_everybody_is_told_whole_and_one_to_others_is_not() -> None:
    labels = PlanLabels()
    labels.learn("E001", 1, {"room": "A"})
    to_all = event("plan_notice", planId="P001", actionId="a1", version=3)
    to_two = event("plan_notice", planId="P001", actionId="a2", version=4, examinees=["E002", "E001"])
    to_other = event("plan_notice", planId="P001", actionId="a3", version=5, examinees=["E002"])
    bare = event("plan_state", planId="P001", status="OPEN", version=6)
    log = [to_all, to_two, to_other, bare]
    told, moved = scoped_events(log, [labels.update(each) for each in log], A, labels)
    inside = event("plan_notice", planId="P001", actionId="a2", version=4, examinees=["E001"])
    assert (told, moved) == ([to_all, inside, bare], False)


def test_of_a_newer_release_only_events_of_known_types_are_told() -> None:
    labels = PlanLabels()
    labels.learn("E001", 1, {"room": "A"})
    finished = event("examinee_finished", examineeId="E001", labels={"room": "A"}, reason="WITHDRAWN", version=3)
    log = [event("examinee_checked", examineeId="E001", version=2, seenWith="E002"), finished | {"format": 1000}]
    told, _ = scoped_events(log, [labels.update(each) for each in log], A, labels)
    assert told == log[1:]


def test_rows_are_those_of_the_scope_by_the_newest_labels() -> None:
    def row(examinee_id: str, version: int, room: str | None) -> ExamineeRow:
        return ExamineeRow(
            examinee_id=examinee_id,
            labels={"room": room} if room else None,
            status="NEVER",
            connection=ConnectionView(),
            mobile_sync=MobileSyncView(),
            reconnect=ReconnectView(),
            version=version,
        )

    labels = PlanLabels()
    labels.update(event("examinee_enrolled", examineeId="E003", labels={"room": "B"}, version=7))
    labels.update(event("examinee_enrolled", examineeId="E004", labels={"room": "A"}, version=7))
    rows = [row("E001", 1, "A"), row("E002", 1, "B"), row("E003", 6, "A"), row("E004", 6, "B"), row("E005", 6, None)]
    assert [each.examinee_id for each in scoped_rows(rows, A, labels)] == ["E001", "E004"]
    assert not PlanLabels().complete


def test_labels_are_complete_when_all_were_read_and_none_forgotten_meanwhile() -> None:
    labels = PlanLabels()
    labels.clear()
    labels.all_read(0)
    assert not labels.complete
    labels.all_read(1)
    assert labels.complete
    labels.all_read(0)
    assert labels.complete
    labels.clear()
    assert not labels.complete


def test_an_event_about_the_plan_that_is_not_known_is_not_told() -> None:
    unknown = event("plan_sums", planId="P001", version=3, absent={"E002": 1})
    labels = PlanLabels()
    assert scoped_events([unknown], [labels.update(unknown)], A, labels) == ([], False)
