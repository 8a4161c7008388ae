"""The payloads of STATUS, each message held to the subject it came on."""

from __future__ import annotations

import pytest

from protocol.errors import InvalidField
from protocol.log.entries import SCHEDULER, LogEntry, decode_status, may_mention, read_entries
from protocol.log.partitions import partition_of
from protocol.messages.base import Message
from protocol.messages.codec import Malformed, encode
from protocol.messages.facts import MobileSyncExtend, MobileSyncWait
from protocol.messages.server_messages import ServerStatusCode
from tests.unit.support import facts
from tests.unit.support.facts import DAWN, at

JOINED, READY = facts.connected("SOCK001-a"), facts.server(ServerStatusCode.READY)


def fields(subject: str, *messages: Message, scheduled: bool = False) -> list[str]:
    """The field that is wrong about each message; "" for a message that belongs there."""
    payload = b"[" + b",".join(encode(message) for message in messages) + b"]"
    decoded = decode_status(subject, payload, scheduled=scheduled)
    return [message.error.field or "?" if isinstance(message, Malformed) else "" for message in decoded]


def test_each_entry_of_a_payload_has_its_own_version_also_beside_malformed_ones() -> None:
    valid_facts = [facts.connected("SOCK001-a"), facts.disconnected("SOCK001-a", 1)]
    payload = b"[" + encode(valid_facts[0]) + b',{"type":"nonsense"},' + encode(valid_facts[1]) + b"]"
    entries = list(read_entries("status.plan.P001", 7, DAWN, payload))
    assert [(entry.version, entry.fact) for entry in entries] == [
        (7 * 256, valid_facts[0]),
        (7 * 256 + 2, valid_facts[1]),
    ]


def test_a_message_is_accepted_only_on_the_subject_of_its_examinee() -> None:
    assert fields("status.plan.P001", JOINED, READY) == ["", "type"]
    assert fields("status.plan.P002", JOINED) == ["data.planId"]
    assert fields("status.server.SOCK001", READY, JOINED) == ["", "type"]
    assert fields("status.server.SOCK002", READY) == ["data.serverId"]
    (lone,) = decode_status("status.plan.P002", encode(JOINED))
    assert isinstance(lone, Malformed)
    assert lone.raw == encode(JOINED)


def test_a_payload_without_the_examinees_id_is_skipped_without_decoding() -> None:
    payload = encode(facts.connected("SOCK001-a"))
    assert may_mention(payload, "E001")
    assert not may_mention(payload, "E002")
    assert may_mention(payload.replace(b'"E001"', b'"\\u0045002"'), "E002")


@pytest.mark.parametrize("origin", ["SOCK001", "web"])
def test_a_subject_may_name_the_sender_and_the_partition_of_the_plan(origin: str) -> None:
    right = partition_of("P001")
    assert fields(f"status.plan.P001.{origin}.{right}", JOINED) == [""]
    assert fields(f"status.plan.P001.{origin}.{(right + 1) % 8}", JOINED) == ["data.planId"]
    assert fields(f"status.plan.P002.{origin}.{right}", JOINED) == ["data.planId"], "a message of another plan"
    assert fields(f"status.plan.P001.{origin}.{(right + 1) % 8}", READY) == ["type"]


def test_a_misplaced_message_says_what_it_names_and_where_it_came() -> None:
    texts = {
        "status.plan.P002": "P001 has no place on status.plan.P002",
        "status.server.SOCK001": "connection_status has no place on status.server.SOCK001",
    }
    for subject, text in texts.items():
        (malformed,) = decode_status(subject, encode(JOINED))
        assert isinstance(malformed, Malformed)
        assert isinstance(malformed.error, InvalidField)
        assert text in str(malformed.error)
        assert (malformed.index, malformed.raw) == (0, encode(JOINED))
    (malformed,) = decode_status("status.server.SOCK002", encode(READY))
    assert isinstance(malformed, Malformed)
    assert "SOCK001 has no place on status.server.SOCK002" in str(malformed.error)
    (malformed,) = decode_status("status.plan.P001", encode(READY))
    assert isinstance(malformed, Malformed)
    assert "server_status has no place on status.plan.P001" in str(malformed.error)


def test_a_scheduled_server_status_is_malformed() -> None:
    assert SCHEDULER == "Nats-Scheduler"
    assert fields("status.server.SOCK001", READY, scheduled=True) == ["type"]
    assert fields("status.plan.P001", JOINED, scheduled=True) == [""]
    (malformed,) = decode_status("status.server.SOCK001", encode(READY), scheduled=True)
    assert isinstance(malformed, Malformed)
    assert " a schedule has no place on status.server.SOCK001" in str(malformed.error)


@pytest.mark.parametrize("subject", ["status.timer.P009.E009.mobile_sync", "status.plan", "plan.P009.a.b", "a.b.c"])
def test_on_other_subjects_a_message_is_not_checked_against_the_subject(subject: str) -> None:
    assert fields(subject, JOINED, READY) == ["", ""]


WAIT = facts.wait(-150).model_copy(update={"by_log_time": True})
EXTEND = facts.extend(60, -150).model_copy(update={"by_log_time": True})


def test_a_mobile_sync_stage_begins_at_the_log_time_and_keeps_its_length() -> None:
    payload = b"[" + encode(WAIT) + b"," + encode(EXTEND) + b"]"
    waiting, extended = decode_status("status.plan.P001", payload, DAWN + 5)
    assert isinstance(waiting, MobileSyncWait)
    assert (waiting.timestamp, waiting.deadline) == (at(5), at(125))
    assert isinstance(extended, MobileSyncExtend)
    assert (extended.timestamp, extended.seconds) == (at(5), 60)


def test_times_are_unchanged_without_by_log_time_or_without_a_log_time() -> None:
    assert decode_status("status.plan.P001", encode(WAIT)) == [WAIT]
    by_clock = WAIT.model_copy(update={"by_log_time": None})
    assert decode_status("status.plan.P001", encode(by_clock), DAWN) == [by_clock]
    assert decode_status("status.plan.P001", encode(JOINED), DAWN + 5) == [JOINED]


def test_an_entry_has_the_time_at_which_the_log_stored_it() -> None:
    payload = b"[" + encode(WAIT) + b"," + encode(JOINED) + b"]"
    entries = list(read_entries("status.plan.P001", 7, DAWN + 5, payload))
    assert entries[1] == LogEntry(7 * 256 + 1, DAWN + 5, JOINED)
    assert entries[0].fact.timestamp == at(5)
