from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.broker.streams import (
    LEASE,
    LEASE_WATCH,
    RECONNECT,
    RECONNECT_WATCH,
    SOCKET,
    STATE_MANAGERS,
    STATUS,
    STREAMS,
    attempt_seconds,
    queue_consumers,
    queue_id,
)
from protocol.messages.server_messages import QueueConfig, QueueCreate

plans = st.lists(st.sampled_from(["P001", "P002", "P003", "P004"]), max_size=8)
priorities = st.sampled_from(["high", "normal", "low"])


def request(
    priority: Any = "high", proctors: list[str] | None = None, examinees: list[str] | None = None, lane: int = 0
) -> QueueCreate:
    return QueueCreate(
        server_id="SOCK001",
        queue_id=queue_id("SOCK001", lane),
        config=QueueConfig(priority=priority, max_size=10, expire_time=60),
        proctor_plans=proctors or [],
        examinee_plans=examinees or [],
        incarnation="i1",
    )


def filters(request_message: QueueCreate) -> dict[str, set[str]]:
    return {spec.name: set(spec.filters) for spec in queue_consumers(request_message)}


def test_a_new_queue_receives_only_messages_to_its_server() -> None:
    for priority in ("high", "normal", "low"):
        assert filters(request(priority)) == {"SOCK001_Q": {"socket.SOCK001"}}


def test_with_high_priority_broadcasts_have_a_consumer_of_their_own() -> None:
    assert filters(request("high", ["P001"], ["P002"])) == {
        "SOCK001_Q": {"socket.SOCK001", "socket.plan.P002.examinee.*", "socket.plan.P002.examinees"},
        "SOCK001_Q_BROADCAST": {"socket.plan.P001.proctors"},
    }


@pytest.mark.parametrize("priority", ["normal", "low"])
def test_with_other_priorities_there_is_one_consumer(priority: str) -> None:
    assert filters(request(priority, ["P001"], ["P002"])) == {
        "SOCK001_Q": {
            "socket.SOCK001",
            "socket.plan.P002.examinee.*",
            "socket.plan.P002.examinees",
            "socket.plan.P001.proctors",
        }
    }


@given(priorities, plans, plans, st.sampled_from([0, 1]))
def test_the_filters_cover_the_plans_of_the_lane_and_never_overlap(
    priority: str, proctors: list[str], examinees: list[str], lane: int
) -> None:
    specs = queue_consumers(request(priority, proctors, examinees, lane))
    every = [subject for spec in specs for subject in spec.filters]
    assert len(set(every)) == len(every)
    assert set(every) == (
        ({"socket.SOCK001"} if lane == 0 else set())
        | {f"socket.plan.{plan}.proctors" for plan in proctors}
        | {f"socket.plan.{plan}.examinee.*" for plan in examinees}
        | {f"socket.plan.{plan}.examinees" for plan in examinees}
    )
    assert all(spec.filters for spec in specs), "a consumer without filters would receive everything"
    assert len({spec.name for spec in specs}) == len(specs)


@given(priorities, plans, plans)
def test_the_order_of_the_plans_does_not_change_the_queue(
    priority: str, proctors: list[str], examinees: list[str]
) -> None:
    turned = request(priority, proctors[::-1] * 2, examinees[::-1] * 2)
    assert queue_consumers(request(priority, proctors, examinees)) == queue_consumers(turned)


def test_filters_grow_and_shrink_with_the_plans() -> None:
    one_plan = filters(request("high", ["P001"], ["P001"]))
    two = filters(request("high", ["P001", "P002"], ["P001", "P003"]))
    assert all(one_plan[name] < two[name] for name in one_plan)
    assert filters(request("high", ["P001"], ["P001"])) == one_plan


def test_the_consumer_carries_the_settings_of_the_queue() -> None:
    (spec,) = queue_consumers(request())
    assert (spec.stream, spec.name) == (SOCKET.name, queue_id("SOCK001"))
    assert spec.inactive_threshold == 60
    assert spec.deliver_new
    assert spec.max_deliver == -1
    assert spec.metadata == {
        "examwire.incarnation": "i1",
        "examwire.maxSize": "10",
        "examwire.expireTime": "60",
        "examwire.priority": "high",
    }


# -- the reconnect ladder ---------------------------------------------------------------------------------


@given(st.integers(1, 20), st.lists(st.floats(0.1, 100), min_size=1, max_size=8))
def test_a_ladder_has_a_step_for_each_attempt(attempts: int, backoff: list[float]) -> None:
    ladder = attempt_seconds(attempts, backoff)
    assert len(ladder) == attempts
    assert ladder[: len(backoff)] == backoff[:attempts]
    assert set(ladder[len(backoff) :]) <= {backoff[-1]}


def test_a_ladder_has_one_step_for_each_attempt() -> None:
    assert attempt_seconds(3, [5, 10, 20, 40]) == [5, 10, 20]
    assert attempt_seconds(4, [1, 2]) == [1, 2, 2, 2]


# -- the streams ------------------------------------------------------------------------------------------


def test_the_streams_and_their_limits() -> None:
    assert [stream.name for stream in STREAMS] == [
        *("STATUS", "SOCKET", "LEASE", "RECONNECT", "ADVISORY", "DEADLETTER", "PHONE", "CHECKPOINT", "RECORDS")
    ]
    assert STATUS.max_age >= 86400, "it is the log of record"
    assert STATUS.first_seq_from_clock
    assert STATUS.allow_msg_schedules
    assert LEASE.allow_msg_ttl
    assert LEASE.delete_marker_ttl
    assert LEASE.max_msgs_per_subject == RECONNECT.max_msgs_per_subject == 1


def test_every_consumers_filters_match_subjects_of_its_stream() -> None:
    by_name = {stream.name: stream for stream in STREAMS}
    for spec in (
        *STATE_MANAGERS,
        LEASE_WATCH,
        RECONNECT_WATCH,
        *queue_consumers(request()),
    ):
        heads = {subject.rstrip(">*").rstrip(".").split(".*")[0] for subject in by_name[spec.stream].subjects}
        assert all(any(subject.startswith(head) for head in heads) for subject in spec.filters)


def test_the_state_managers_do_not_read_the_subjects_of_schedules() -> None:
    filters = [subject for spec in STATE_MANAGERS for subject in spec.filters]
    assert not any(subject.startswith("status.timer") or subject == "status.>" for subject in filters)
