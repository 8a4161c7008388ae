"""The pure parts of reaching live actors: rates, whose session it is, which queue is meant, what comes first."""

from __future__ import annotations

import time
from typing import Any

import pytest

from actors.runtime.broker.stream_state import ConsumerState
from cli.operate.queues import _is_called, _row
from cli.operate.top import _KEYS, SortOrder
from cli.shared.live_actors import RateMeter, server_of_socket, session_ids, shown_state
from protocol.errors import ExamwireError
from protocol.times import format_time


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def row(**changed: Any) -> dict[str, Any]:
    since = format_time(time.time() - 50)
    return {"id": "1", "address": "a", "state": "running", "since": since, "handled": 100, "failed": 0, **changed}


def test_the_first_look_gives_the_average_since_the_start_and_the_next_the_rate_between_the_two() -> None:
    clock = Clock()
    looks = RateMeter(clock)
    first = row()
    looks.compare([first])
    assert first["ratePerSecond"] == pytest.approx(2.0, abs=0.1)
    assert first["newFailures"] == 0
    clock.now += 2
    second = row(since=first["since"], handled=150, failed=3)
    looks.compare([second])
    assert (second["ratePerSecond"], second["newFailures"]) == (25.0, 3)


def test_a_restart_between_two_looks_gives_no_negative_rate() -> None:
    clock = Clock()
    looks = RateMeter(clock)
    looks.compare([row(handled=5000)])
    clock.now += 2
    restarted = row(since=format_time(time.time()), handled=3, failed=1)
    looks.compare([restarted])
    assert restarted["ratePerSecond"] == pytest.approx(3.0, abs=0.1)
    assert restarted["newFailures"] == 1, "what it failed with before its restart is new as well"


def test_an_actor_that_does_not_answer_has_no_rate() -> None:
    silent = {"id": "2", "address": "b", "state": "silent"}
    RateMeter().compare([silent])
    assert "ratePerSecond" not in silent


def test_trouble_comes_before_work() -> None:
    def one(address: str, **changed: Any) -> dict[str, Any]:
        return {"address": address, "state": "running", "mailboxDepth": 0, "mailboxCapacity": 4, **changed}

    rows = [
        one("idle", ratePerSecond=0.0),
        one("working", ratePerSecond=900.0),
        one("full", mailboxDepth=4),
        one("behind", queueLag=7),
        one("failing", newFailures=1),
        {"address": "silent", "state": "silent"},
        one("unknown lag", queueLag=None, ratePerSecond=1.0),
    ]
    ordered = [actor_row["address"] for actor_row in sorted(rows, key=_KEYS[SortOrder.BUSY])]
    assert ordered == ["silent", "failing", "behind", "full", "working", "unknown lag", "idle"]
    for order in SortOrder:
        assert len(sorted(rows, key=_KEYS[order])) == len(rows)


@pytest.mark.parametrize(
    ("socket_id", "server"), [("SOCK001-5f2c9a", "socket.SOCK001"), ("SOCK-EU-1-5f2c9a", "socket.SOCK-EU-1")]
)
def test_a_socket_names_its_server(socket_id: str, server: str) -> None:
    assert server_of_socket(socket_id) == server


@pytest.mark.parametrize("socket_id", ["SOCK001", "", "-5f", "plan-5f", "S>1-5f"])
def test_an_invalid_socket_id_is_refused(socket_id: str) -> None:
    with pytest.raises(ExamwireError):
        server_of_socket(socket_id)


def test_the_address_of_a_session_names_plan_and_examinee_or_a_proctors_socket() -> None:
    assert session_ids("session.P001.E001") == ("P001", "E001")
    assert session_ids("proctor.P001.SOCK001-5f") == ("P001", "SOCK001-5f")
    for address in ("session.P001", "session.P001.E.1", "session.P 1.E1", "proctor.P001.SOCK001"):
        with pytest.raises(ExamwireError):
            session_ids(address)


def state(name: str, *, stream: str = "SOCKET", **metadata: str) -> ConsumerState:
    filters = ("socket.SOCK001", "socket.plan.P001.examinee.*", "socket.plan.P001.proctors", "socket.plan.P2.proctors")
    return ConsumerState(stream, name, "", filters, metadata, 3, 2, 1, 1, 10, 12, time.time() - 30)


@pytest.mark.parametrize("name", ["SOCK001", "SOCK001_Q", "SOCK001_Q_BROADCAST", "SOCKET/SOCK001_Q_BROADCAST"])
def test_a_queue_is_found_by_its_server_its_name_or_its_place(name: str) -> None:
    queue = _row(state("SOCK001_Q_BROADCAST"), [], read=True)
    assert queue["server"] == "SOCK001"
    assert _is_called(queue, name)
    assert not _is_called(queue, "SOCK002")


def test_a_queue_shows_its_settings_and_its_plans() -> None:
    metadata = {
        "examwire.maxSize": "1000",
        "examwire.priority": "high",
        "examwire.incarnation": "i1",
        "_nats.level": "1",
    }
    queue = _row(state("SOCK001_Q", **metadata), ["socket.SOCK001"], read=False)
    assert queue["config"] == {"maxSize": 1000, "priority": "high"}
    assert (queue["plans"], queue["incarnation"], queue["read"]) == (["P001", "P2"], "i1", False)
    assert queue["ageSeconds"] == pytest.approx(30, abs=2)
    assert _row(state("state-manager", stream="STATUS"), [], read=True)["server"] is None
    assert _row(state("A_Q_1_Q_12_BROADCAST"), [], read=True)["server"] == "A_Q_1"


@pytest.mark.parametrize(
    ("details", "shown"),
    [
        ({}, "running"),
        ({"accepting": True, "drain": None}, "running"),
        ({"accepting": False, "drain": {"clients": 7, "left": 3}}, "draining"),
        ({"accepting": False, "drain": None}, "refuses clients"),
        ({"waitingFor": "Redis"}, "waits for Redis"),
    ],
)
def test_the_shown_state_names_draining_waiting_and_refusing_actors(details: dict[str, Any], shown: str) -> None:
    assert shown_state(row(details=details)) == shown
    assert shown_state({"state": "silent"}) == "silent"
