"""Facts and records of a newer release: they are left to a newer state manager, and everything else goes on."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any, ClassVar

import pytest

from actors.state_manager.order_of_work import decode
from actors.status_log.status_log import LogExtent
from protocol.messages.base import FORMAT
from protocol.messages.codec import encode
from protocol.messages.facts import STATUS_CODEC, ExamineeFact
from protocol.messages.server_messages import ServerStatusCode
from protocol.records import keys
from tests.unit.support.facts import (
    EXAMINEE,
    PLAN,
    at,
    connected,
    disconnected,
    notice,
    notice_confirmed,
    open_plan,
    restate,
    server,
)
from tests.unit.support.memory_broker import publish
from tests.unit.support.state_manager_world import Hall

A = "SOCK001-a"
KEY = keys.progress(PLAN, EXAMINEE)


class Asleep(ExamineeFact):
    """A fact of a newer release."""

    type: ClassVar[str] = "asleep"
    format: ClassVar[int] = FORMAT + 1


ASLEEP = Asleep(plan_id=PLAN, examinee_id=EXAMINEE, timestamp=at(3))


def rewrite(hall: Hall, key: str, **changes: Any) -> str:
    """Change a stored history, as a newer release would; return it."""
    history = {**json.loads(hall.store.rows[key]["history"]), **changes}
    hall.store.rows[key] |= {"history": json.dumps(history), "rev": str(int(hall.store.rows[key]["rev"]) + 2**52)}
    return hall.store.rows[key]["history"]


def test_a_message_with_something_newer_is_left_and_the_other_facts_of_it_are_applied_once() -> None:
    hall = Hall()
    publish(hall.broker, [connected(A), ASLEEP, disconnected(A, 5)], f"status.plan.{PLAN}")
    hall.happens(notice("a1", second=9))
    hall.work_off(1, 2)
    assert (hall.broker.left, hall.broker.unacknowledged, hall.broker.dead) == ({1}, {1}, [])
    assert hall.connection_seen()[0] == "DISCONNECTED"
    assert hall.broker.proctors.events == {"examinee_connected": 1, "examinee_disconnected": 1, "notice": 1}
    before = dict(hall.store.rows)
    hall.work_off(1)  # it comes again
    assert hall.store.rows == before
    assert hall.broker.unacknowledged == {1}


def test_what_else_a_left_message_holds_is_published_once_however_often_it_comes_again() -> None:
    hall = Hall()
    publish(hall.broker, [connected(A), ASLEEP], f"status.plan.{PLAN}")
    first = hall.broker.delivery(1)
    again = replace(first, left_before=True)
    assert [(len(decode([one]).items), list(decode([one]).newer)) for one in (first, again)] == [(1, [1]), (0, [1])]


def test_a_fact_about_a_record_of_a_newer_release_is_left_and_the_record_stays_as_it_is() -> None:
    hall = Hall(connected(A), disconnected(A, 5), restate(9), notice("a1", second=10))
    hall.work_off(1)
    history = rewrite(hall, KEY, format=FORMAT + 1)
    hall.work_off(2, 3, 4)
    assert (hall.broker.left, hall.broker.unacknowledged, hall.broker.dead) == ({2, 3}, {2, 3}, [])
    assert hall.store.rows[KEY]["history"] == history
    assert hall.broker.proctors.events == {"examinee_connected": 1, "notice": 1}


@pytest.mark.parametrize("key", [keys.plan(PLAN), keys.server_status("SOCK001")])
def test_who_connects_to_a_plan_or_server_of_a_newer_release_is_told_and_decided_about_by_that_one(key: str) -> None:
    hall = Hall(open_plan(), server(ServerStatusCode.READY), connected(A, 5))
    hall.work_off(1, 2)
    rewrite(hall, key, format=FORMAT + 1)
    hall.work_off(3)
    assert hall.broker.left == {3}
    assert hall.connection_seen() == ("CONNECTED", A)


def test_a_repair_leaves_what_only_a_newer_release_understands() -> None:
    hall = Hall(connected(A), notice("a1", second=3))
    hall.work_off(1, 2)
    hall.store.mark.advance_now(1)
    history = rewrite(hall, KEY, format=FORMAT + 1)
    hall.store.save_snapshot()
    hall.store.come_back_from_snapshot()  # it may lack what came after message 1
    hall.happens(notice_confirmed("a1", 4))
    hall.work_off(3)
    assert hall.store.mark.whole
    assert hall.store.rows[KEY]["history"] == history


def test_a_fact_with_unknown_fields_is_folded_by_nobody_but_a_newer_release() -> None:
    """A fact that is acknowledged, and a projection of the log, keep what only a newer release knows of it."""
    hall = Hall()
    element = json.loads(encode(disconnected(A, 5)))
    element["data"]["mood"] = "calm"
    newer = STATUS_CODEC.from_element(element)
    for fact in (connected(A), newer, notice("a1", second=9)):
        hall.happens(fact)
    hall.work_off(1, 2, 3)
    up_to = hall.broker.acknowledged_up_to
    assert up_to == 3
    hall.one.decider.raise_floors(LogExtent(1, up_to, up_to, up_to))
    hall.happens(connected("SOCK001-b", 20))
    hall.work_off(4)
    stored = json.loads(hall.store.rows[KEY]["history"])
    assert [(version, data.get("mood")) for version, _, data in stored["facts"]] == [(512, "calm"), (1024, None)]
    assert stored["unknown"] is True
