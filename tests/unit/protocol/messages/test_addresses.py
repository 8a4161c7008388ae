"""Subjects and keys, which are fixed: other programs use them."""

from __future__ import annotations

from protocol.broker import subjects
from protocol.broker.streams import LEASE, RECONNECT, SOCKET, STATUS, STREAMS, StreamSpec
from protocol.records import keys


def test_subjects_are_unchanged() -> None:
    assert subjects.status_server("SOCK001") == "status.server.SOCK001"
    assert subjects.status_plan("P001") == "status.plan.P001"
    assert subjects.status_timer("P001", "E001", "mobile_sync") == "status.timer.P001.E001.mobile_sync"
    assert subjects.socket_server("SOCK001") == "socket.SOCK001"
    assert subjects.socket_proctors("P001") == "socket.plan.P001.proctors"
    assert subjects.socket_examinee("P001", "E001") == "socket.plan.P001.examinee.E001"
    assert subjects.lease("SOCK001") == "lease.SOCK001"
    assert subjects.reconnect("P001", "E001") == "reconnect.P001.E001"
    assert subjects.QUEUE_CREATE == "queue.create"
    assert subjects.session("P001", "E001") == "session.P001.E001"
    assert subjects.deadletter("STATUS").startswith("deadletter.")


def test_keys_are_unchanged() -> None:
    assert keys.server_status("SOCK001") == "SERVER_ID:SOCK001:status"
    assert keys.socket("P001", "SOCK001") == "plan:P001:socket:examinee:SOCK001"
    assert keys.progress("P001", "E001") == "plan:P001:examinee:E001:progress"
    assert keys.mobile_sync("P001", "E001") == "plan:P001:examinee:E001:mobile_sync"


def test_no_two_kinds_of_record_share_a_key() -> None:
    part = "X"
    built_keys = [
        keys.PLANS,
        keys.SERVERS,
        keys.server_status(part),
        keys.server_sockets(part),
        keys.socket(part, part),
        keys.progress(part, part),
        keys.mobile_sync(part, part),
        keys.plan_examinees(part),
    ]
    assert len(set(built_keys)) == len(built_keys)


def _takes(stream: StreamSpec, subject: str) -> bool:
    return any(_matches(pattern.split("."), subject.split(".")) for pattern in stream.subjects)


def _matches(pattern: list[str], subject: list[str]) -> bool:
    if pattern and pattern[-1] == ">":
        head = pattern[:-1]
        return len(subject) > len(head) and _matches(head, subject[: len(head)])
    return len(pattern) == len(subject) and all(p in ("*", s) for p, s in zip(pattern, subject, strict=True))


def test_each_subject_belongs_to_exactly_one_stream() -> None:
    examples = {
        subjects.status_server("S"): STATUS.name,
        subjects.status_plan("P"): STATUS.name,
        subjects.status_timer("P", "E", "mobile_sync"): STATUS.name,
        subjects.socket_server("S"): SOCKET.name,
        subjects.socket_proctors("P"): SOCKET.name,
        subjects.socket_examinee("P", "E"): SOCKET.name,
        subjects.lease("S"): LEASE.name,
        subjects.reconnect("P", "E"): RECONNECT.name,
        subjects.deadletter("STATUS"): "DEADLETTER",
        subjects.phone_code("0a1b"): "PHONE",
    }
    for subject, stream in examples.items():
        assert [spec.name for spec in STREAMS if _takes(spec, subject)] == [stream], subject
    for unkept in (subjects.QUEUE_CREATE, subjects.session("P", "E"), subjects.inspect("A")):
        assert not [spec.name for spec in STREAMS if _takes(spec, unkept)], unkept
