"""What a dead letter says, when its payload is whole, and what may be replayed."""

from __future__ import annotations

import json

import pytest

from actors.runtime.broker.dead_letter import MAX_PAYLOAD_BYTES, dead_letter
from protocol.broker import subjects
from protocol.broker.dead_letters import (
    REPLAY_OF,
    REPLAYS,
    Letter,
    can_be_outdated,
    decode_payload,
    group_reason,
    outdated_reason,
)
from protocol.errors import ErrorCode, ProtocolError
from protocol.messages.codec import encode
from protocol.messages.session_messages import SessionClose
from tests.unit.support import facts

PLAN = "status.plan.P001"


def letter(payload: bytes, *, index: int | None = None, headers: dict[str, str] | None = None) -> Letter:
    return Letter.decode(dead_letter("STATUS", PLAN, 17, payload, "why", index=index, headers=headers).payload)


def test_the_same_letter_has_the_same_message_id_and_another_place_another_one() -> None:
    ids = {
        dead_letter("STATUS", PLAN, number, payload, "why", by=by, index=index).message_id
        for number, payload, by, index in (
            (17, b"a", "", 0),
            (17, b"a", "", 1),
            (17, b"a", "", None),
            (17, b"a", "SOCK001", None),
            (17, b"b", "", 0),
            (18, b"a", "", 0),
        )
    }
    assert len(ids) == 6
    assert dead_letter("STATUS", PLAN, 17, b"a", "why").message_id in ids


def test_a_valid_payload_of_status_is_in_the_log_and_a_malformed_one_is_not() -> None:
    fact = encode(facts.connected("SOCK001-a"))
    assert letter(fact).is_in_log
    assert letter(b"[" + fact + b',{"type":"nonsense","data":{}}]').is_in_log
    assert not letter(b'{"type":"nonsense","data":{}}').is_in_log
    assert not letter(b"x" * (MAX_PAYLOAD_BYTES + 1)).is_in_log
    elsewhere = dead_letter("SOCKET", "socket.SOCK001", 17, fact, "why").payload
    assert not Letter.decode(elsewhere).is_in_log


def test_a_short_payload_is_whole_by_itself() -> None:
    assert letter(b'{"type":7}').full_payload() == b'{"type":7}'


def test_a_truncated_payload_is_read_from_its_source_also_as_an_element_of_an_array() -> None:
    long = json.dumps({"type": "x" * MAX_PAYLOAD_BYTES}, separators=(",", ":")).encode()
    truncated = letter(long, index=1)
    assert truncated.size == len(long)
    with pytest.raises(ProtocolError, match="STATUS 17 no longer has the full message"):
        truncated.full_payload()
    assert truncated.full_payload(b"[7," + long + b"]") == long
    assert truncated.full_payload(long) == long
    for other in (b"[7,8]", b"[7]", b"{", long + b" x", b""):
        with pytest.raises(ProtocolError):
            truncated.full_payload(other)


def test_a_payload_that_is_not_text_is_read_from_its_source() -> None:
    broken = letter(b"\xff\xfe")
    with pytest.raises(ProtocolError):
        broken.full_payload()
    assert broken.full_payload(b"\xff\xfe") == b"\xff\xfe"


def test_a_letter_without_a_digest_is_complete_unless_it_was_truncated() -> None:
    old = {"source": {"stream": "STATUS", "subject": PLAN, "number": 3}, "reason": "r", "payload": "{", "size": 1}
    assert Letter.decode(json.dumps(old).encode()).full_payload() == b"{"
    with pytest.raises(ProtocolError):
        Letter.decode(json.dumps({**old, "size": 2}).encode()).full_payload()
    for none in (b"", b"7", b"{}"):
        with pytest.raises(ProtocolError, match="not a dead letter"):
            Letter.decode(none)


def test_the_replay_count_is_read_from_headers_and_invalid_headers_are_ignored() -> None:
    replayed = letter(b"{", headers={REPLAYS: "2", REPLAY_OF: "DEADLETTER:16"})
    assert (replayed.replays, replayed.replay_of) == (2, 16)
    for headers in ({REPLAYS: "many", REPLAY_OF: "DEADLETTER:1"}, {REPLAYS: "²", REPLAY_OF: "1"}, {REPLAYS: "2"}):
        assert letter(b"{", headers=headers).replays == 0


def test_a_letter_mentions_the_examinee_of_its_payload_reason_or_subject() -> None:
    lone, several = encode(facts.connected("SOCK001-a")), b"[7," + encode(facts.connected("SOCK001-a")) + b"]"
    for payload in (lone, several, lone[:-20]):  # the last one was cut
        assert letter(payload).mentions("P001", "E001")
        assert not letter(payload).mentions("P001", "E00")
        assert not letter(payload).mentions("P00", "E001")
    for payload in (b"", b"{", b"7", b"[7]", b'{"data":7}'):
        assert not letter(payload).mentions("P001", "E001")
    damaged = letter(b"{").model_copy(update={"reason": "plan:P001:examinee:E001:progress: WRONGTYPE"})
    assert damaged.mentions("P001", "E001")
    watched = dead_letter("RECONNECT", "reconnect.P001.E001", 3, b"{}", "why")
    assert Letter.decode(watched.payload).mentions("P001", "E001")


def test_a_corrected_payload_must_be_valid_on_its_subject() -> None:
    joined = encode(facts.connected("SOCK001-a"))
    assert decode_payload("STATUS", PLAN, joined) == [facts.connected("SOCK001-a")]
    close = SessionClose(socket_id="SOCK001-a", code=4503)
    assert decode_payload("SOCKET", "socket.SOCK001", encode(close)) == [close]
    for stream, subject, payload, code, field in (
        ("STATUS", "status.plan.P002", joined, ErrorCode.INVALID_FIELD, "data.planId"),
        ("STATUS", PLAN, encode(close), ErrorCode.UNKNOWN_TYPE, "type"),
        ("SOCKET", "socket.SOCK001", joined, ErrorCode.UNKNOWN_TYPE, "type"),
        ("STATUS", PLAN, b"{", ErrorCode.INVALID_JSON, None),
        ("STATUS", PLAN, b"[]", ErrorCode.INVALID_MESSAGE, None),
        ("STATUS", PLAN, b"[" + joined + b",7]", ErrorCode.INVALID_MESSAGE, None),
        ("RECONNECT", "reconnect.P001.E001", b"{}", ErrorCode.NOT_ALLOWED, None),
    ):
        with pytest.raises(ProtocolError) as refused:
            decode_payload(stream, subject, payload)
        assert (refused.value.code, refused.value.field) == (code, field)


def test_a_fact_that_would_undo_a_newer_one_is_outdated() -> None:
    joined, loss = facts.connected("SOCK001-a"), facts.disconnected("SOCK001-a")
    newer = facts.connected("SOCK001-b", 9)
    other = newer.model_copy(update={"examinee_id": "E002"})
    assert outdated_reason([joined], [newer]) is not None
    assert outdated_reason([joined], [loss]) is not None
    assert outdated_reason([joined], [other, facts.wait(1)]) is None
    assert outdated_reason([joined], []) is None
    assert outdated_reason([loss, facts.attempt(10, 1), facts.exhausted(10), facts.readmit()], [newer]) is None
    assert outdated_reason([facts.uploaded("a")], [facts.uploaded("b")]) is not None
    assert outdated_reason([facts.uploaded("a")], [facts.upload_failed(), newer]) is None
    assert outdated_reason([facts.upload_failed()], [facts.uploaded("b")]) is None
    assert outdated_reason([facts.finish()], [facts.resume(1)]) is not None
    assert outdated_reason([facts.finish()], [other, facts.open_plan(1)]) is None
    assert outdated_reason([facts.remove(1)], [facts.readmit(2)]) is not None
    assert outdated_reason([facts.readmit(1)], [facts.remove(2)]) is not None
    assert outdated_reason([facts.remove(1)], [newer, facts.notice()]) is None
    assert outdated_reason([facts.notice(), facts.enrol("Kim"), facts.extend()], [facts.remove(2)]) is None


def test_a_fact_about_a_plan_that_would_undo_a_newer_one_is_outdated() -> None:
    opened = facts.open_plan(1)
    for fact in (facts.schedule(end=100), facts.close_plan(), facts.close_plan(scheduled=10)):
        assert can_be_outdated(fact)
        assert outdated_reason([fact], [opened]) is not None
        assert (
            outdated_reason([fact], [facts.extend_exam(60), facts.plan_notice(), facts.connected("SOCK001-a")]) is None
        )
    assert outdated_reason([facts.window("E001", extra=60)], [facts.window("E001")]) is not None
    assert outdated_reason([facts.window("E001", extra=60)], [facts.window("E002"), opened]) is None
    assert not can_be_outdated(facts.extend_exam(60))  # each is added once, by its actionId


def test_reasons_that_differ_only_in_the_record_are_grouped() -> None:
    groups = {
        group_reason(reason)
        for reason in (
            "plan:P001:examinee:E001:progress: WRONGTYPE of it",
            "plan:P001:examinee:E002:progress: WRONGTYPE of it",
        )
    }
    assert groups == {"plan:…: WRONGTYPE of it"}
    assert group_reason("data.planId: must be an id") == "data.planId: must be an id"


@pytest.mark.parametrize(
    ("pattern", "subject", "matches"),
    [
        ("status.plan.*", "status.plan.P001", True),
        ("status.plan.*", "status.plan", False),
        ("status.plan.*", "status.plan.P001.x", False),
        ("status.>", "status.plan.P001", True),
        ("status.>", "status", False),
        ("socket.SOCK001", "socket.SOCK001", True),
        ("socket.SOCK001", "socket.SOCK002", False),
    ],
)
def test_a_pattern_matches_the_subjects_that_it_matches_in_nats(pattern: str, subject: str, matches: bool) -> None:
    assert subjects.matches(pattern, subject) is matches
