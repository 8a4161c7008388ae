"""Histories of records that a newer release has written, or will read."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any, cast

import pytest

from protocol.errors import NewerRecord
from protocol.messages.base import FORMAT
from protocol.messages.codec import encode
from protocol.messages.facts import STATUS_CODEC, ConnectionFact
from protocol.records import histories
from protocol.records.histories import dump_history, load_history
from protocol.records.kinds import CONNECTION, MOBILE_SYNC, NOTICES, PLAN, PLAN_NOTICES, SERVER, RecordKind
from protocol.rules.connection_state import ConnectionState
from protocol.rules.history import History, fold, insert
from tests.unit.support.facts import attempt, connected, disconnected

A = "SOCK001-a"
MOOD = {"level": [1, {"deep": True}]}

Stored = dict[str, Any]


def of_newer(fact: ConnectionFact, **fields: Any) -> ConnectionFact:
    """A fact with fields that only a newer release knows, as it comes from the log."""
    element = json.loads(encode(fact))
    element["data"].update(fields)
    return cast(ConnectionFact, STATUS_CODEC.from_element(element))


def story(*placed: tuple[int, ConnectionFact]) -> History[ConnectionState, ConnectionFact]:
    """A history whose facts came in this order."""
    history = CONNECTION.empty()
    for version, fact in placed:
        history = insert(history, CONNECTION.rule, version, fact, CONNECTION.visible_part).history
    return history


def read(history: History[ConnectionState, ConnectionFact], floor: int = 0) -> History[ConnectionState, ConnectionFact]:
    """A history as it is found when it was written."""
    return CONNECTION.read(dump_history(history), floor)


LOST = {
    "plan_id": "P001",
    "examinee_id": "E001",
    "status": "DISCONNECTED",
    "socket_id": A,
    "server_id": "SOCK001",
    "since": "2024-01-01T09:15:00.000Z",
    "version": 10,
}
NOTE = {"action_id": "a1", "text": "Look up.", "by": "S001", "sent_at": "2024-01-01T09:15:00.000Z", "mood": MOOD}
HELP = {"request_id": "h1", "since": "2024-01-01T09:15:00.000Z", "mood": MOOD}
PICTURE = {"capture_id": "a" * 64, "time": "2024-01-01T09:15:00.000Z", "when": "in", "mood": MOOD}


OUTAGE = {"ended": 9.0, "seconds": 2.0, "mood": MOOD}


@pytest.mark.parametrize(
    ("kind", "base"),
    [
        (CONNECTION, {**LOST, "outages": [OUTAGE, {"ended": 12.0, "seconds": 1.0}]}),
        (MOBILE_SYNC, {"plan_id": "P001", "status": "WAITING", "captures": [PICTURE]}),
        (NOTICES, {"plan_id": "P001", "kept": [NOTE]}),
        (NOTICES, {"plan_id": "P001", "help": HELP}),
        (PLAN_NOTICES, {"plan_id": "P001", "kept": [NOTE]}),
        (PLAN, {"policy": {"maxAttempts": 8, "mood": MOOD}}),
        (PLAN, {"own_times": [{"examinee_id": "E001", "extra_seconds": 60, "mood": MOOD}]}),
        (SERVER, {"server_id": "SOCK001", "status": "READY", "mood": MOOD}),
    ],
)
def test_what_only_a_newer_release_knows_of_a_state_and_its_parts_is_written_again(
    kind: RecordKind[Any, Any], base: Stored
) -> None:
    for stored_base in (base, {**base, "mood": MOOD, "wall": None}):
        stored = {"base": stored_base, "floor": 10, "facts": [], "first": 5}
        written = json.loads(dump_history(kind.read(json.dumps(stored))))
        assert written == {**stored, "unknown": True}


def test_what_else_a_history_says_is_read_as_it_was_written_also_when_everything_is_settled() -> None:
    facts = story((10, connected(A)), (20, disconnected(A, 5)))
    history = replace(facts, late=(10,), newest_event=30, restatement_due=True, kept=40)
    assert read(history) == history
    settled = read(history, 25)
    assert (settled.floor, settled.facts, settled.late, settled.base) == (25, (), (), facts.head)
    assert (settled.newest_event, settled.restatement_due, settled.first_version, settled.kept) == (30, True, 10, 40)


def test_a_rule_carries_on_what_only_a_newer_release_knows() -> None:
    stored = {"base": {**LOST, "mood": MOOD}, "floor": 10, "facts": []}
    history = CONNECTION.read(json.dumps(stored))
    again = insert(history, CONNECTION.rule, 20, connected("SOCK001-b", 5), CONNECTION.visible_part)
    written = json.loads(dump_history(again.history))
    assert (written["head"]["mood"], written["head"]["status"]) == (MOOD, "CONNECTED")
    assert read(again.history, 30).facts, "a newer release folds it, and knows what it makes of the mood"


def test_a_release_that_knows_the_fields_folds_the_facts_anew() -> None:
    """What an older release has folded into the head lacks what it did not know."""
    history = story((10, connected(A)), (20, of_newer(disconnected(A, 5), mood=MOOD)))
    stored = json.loads(dump_history(history))
    assert read(history).head == history.head, "by this release it cannot be folded better"
    del stored["facts"][1][2]["mood"]  # as a release reads it that knows the field
    stored["head"]["reason"] = "FOLDED_BY_AN_OLDER_RELEASE"
    newer = load_history(ConnectionState, json.dumps(stored))
    assert newer.head is None
    assert fold(newer, CONNECTION.rule).reason == "SOCKET_CLOSED"
    assert CONNECTION.read(json.dumps(stored), 30).base.reason == "SOCKET_CLOSED"


@pytest.mark.parametrize(
    "change",
    [{"format": FORMAT + 1}, {"base": {**LOST, "status": "ASLEEP"}}, {"head": {**LOST, "finished": "ABDUCTED"}}],
    ids=["format", "status", "head"],
)
def test_a_record_that_only_a_newer_release_understands_is_no_damaged_record(change: Stored) -> None:
    stored = {**json.loads(dump_history(story((10, connected(A)), (20, disconnected(A, 5))))), **change}
    with pytest.raises(NewerRecord, match="a newer release has written it") as raised:
        CONNECTION.read(json.dumps(stored))
    assert raised.value.first_version == 10


def checked(version: int) -> list[Any]:
    """A fact of a type that only a newer release knows, as that one stores it."""
    return [version, "browser_checked", {"planId": "P001", "mood": MOOD}, FORMAT + 1]


def test_a_fact_of_an_unknown_type_keeps_its_place_and_what_the_newer_release_made_of_it() -> None:
    """After a rollback the losses of an examinee are told, and the newer release finds all that it had written."""
    stored = json.loads(dump_history(story((10, connected(A)))))
    stored["facts"].append(checked(15))
    stored["head"] |= {"checks": 1, "version": 15}
    history = CONNECTION.read(json.dumps(stored), 12)
    lost = insert(history, CONNECTION.rule, 40, disconnected(A, 5), CONNECTION.visible_part)
    assert [event.type for event in lost.events] == ["examinee_disconnected"]
    written = json.loads(dump_history(lost.history))
    assert [fact[0] for fact in written["facts"]] == [10, 15, 40]
    assert (written["facts"][1], written["head"]["checks"]) == (checked(15), 1)
    assert written["head"]["status"] == "DISCONNECTED"
    late = insert(CONNECTION.read(json.dumps(written)), CONNECTION.rule, 30, attempt(10, 1), CONNECTION.visible_part)
    assert (late.late, late.state.status) == (True, "DISCONNECTED"), "what came late is folded without it"
    assert checked(15) in json.loads(dump_history(late.history))["facts"]


def test_a_history_says_which_format_its_reader_must_know(monkeypatch: pytest.MonkeyPatch) -> None:
    history = story((10, connected(A)), (20, disconnected(A, 5)))
    assert "format" not in json.loads(dump_history(history))
    monkeypatch.setattr(histories, "FORMAT", 3)
    monkeypatch.setattr(ConnectionState, "required_format", lambda _state: 3)
    assert json.loads(dump_history(history))["format"] == 3


def test_a_fact_says_which_format_its_reader_must_know(monkeypatch: pytest.MonkeyPatch) -> None:
    history = story((10, connected(A)), (20, disconnected(A, 5)))
    monkeypatch.setattr(type(history.facts[1][1]), "required_format", lambda fact: 2 if fact.reason else 1)
    written = json.loads(dump_history(history))
    assert ([len(fact) for fact in written["facts"]], written["facts"][1][3]) == ([3, 4], 2)
    assert "format" not in written, "a reader that does not know it goes on with the rest"
