"""The order of work of a state manager that dies, or whose engine fails, at any of its steps.

"Any step" means every await that a task of the manager can stand at; for a death, every combination of two of them.
Another step at which the same awaits are pending, for another portion, is not tried again: it has found nothing.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

from actors.state_manager.order_of_work import Limits
from protocol.errors import NotPermitted
from protocol.messages.base import Message
from protocol.messages.facts import ExamineeFinish, FinishReason, Restate
from protocol.messages.proctor_events import Event
from protocol.messages.server_messages import ServerStatusCode
from protocol.records import keys
from protocol.records.kinds import CONNECTION, MOBILE_SYNC, NOTICES
from tests.unit.support.facts import (
    EXAMINEE,
    PLAN,
    close_plan,
    connected,
    disconnected,
    notice,
    open_plan,
    restate,
    server,
    wait,
)
from tests.unit.support.memory_broker import publish
from tests.unit.support.state_manager_truth import check_truth
from tests.unit.support.state_manager_world import Hall, loss_waited_for
from tests.unit.support.stepped_loop import Position
from tests.unit.support.stepped_manager import MOST_STEPS

A, B = "SOCK001-a", "SOCK002-b"
FEWEST_STEPS = 12
ONE_BY_ONE = Limits(portion_bytes=1)
"""Each message is a portion of its own, so that several are worked on at once."""
OF_ANOTHER_PLAN = connected(A, 5).model_copy(update={"plan_id": "P002"})
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

FACTS: tuple[Message, ...] = (
    server(ServerStatusCode.STARTING, "i1"),
    connected(A, 1, incarnation="i1"),
    wait(2),
    notice("a1", "five minutes left", 3),
    server(ServerStatusCode.STARTING, "i2", 9),
    connected(B, 11),
    disconnected(B, 12),
)


@dataclass(frozen=True)
class Way:
    """How a manager receives the facts: in which batches and portions, and whose access to the engines comes first.

    `every_step`: try every step, also those at the same awaits; so that every number of messages is sent before.
    """

    batch: int
    limits: Limits
    which: int
    access: int
    every_step: bool = False

    def hall(self) -> Hall:
        hall = exam(*FACTS, limits=self.limits)
        hall.broker.on_event = RecordedFirst(hall)
        return hall

    def steps(self, hall: Hall) -> Iterator[int]:
        """Work off everything; yields the number of each step before it is made."""
        waiting = list(range(1, len(FACTS) + 1))
        for number in range(MOST_STEPS):
            if waiting and hall.one.idle:
                hall.one.take(waiting[: self.batch])
                del waiting[: self.batch]
            if not hall.one.batches:
                return
            yield number
            if hall.one.batches:
                hall.one.step_any(self.which, self.access)
        raise AssertionError("a manager that never finishes")

    def steps_to_try(self, together: int) -> list[int]:
        """Choose the steps at which awaits (so many) are pending together that were not at any earlier step."""
        hall = self.hall()
        seen: set[frozenset[Position]] = set()
        chosen = []
        for number in self.steps(hall):
            awaits = hall.one.loop.awaits()
            combinations = {frozenset(positions) for positions in itertools.product(awaits, repeat=together)}
            if self.every_step or not combinations <= seen:
                chosen.append(number)
            seen |= combinations
        return chosen


WAYS = [
    pytest.param(Way(len(FACTS), Limits(), -1, 0, every_step=True), id="one batch"),
    pytest.param(Way(len(FACTS), ONE_BY_ONE, -1, -1), id="portions, the newest access first"),
    pytest.param(Way(3, Limits(), -1, 0), id="batches, the newest first"),
    pytest.param(Way(3, Limits(), 0, 0), id="batches, the oldest first"),
]
PORTIONS = pytest.mark.parametrize("way", WAYS[1:2])


class RecordedFirst:
    """Fails the test when proctors are told something that Redis does not hold."""

    def __init__(self, hall: Hall) -> None:
        self._hall = hall
        self.versions: list[int] = []

    def __call__(self, event: Event) -> None:
        assert event.version is not None
        self.versions.append(event.version)
        examinee_id = str(getattr(event, "examinee_id", None))
        for kind, key in ((CONNECTION, keys.progress), (MOBILE_SYNC, keys.mobile_sync), (NOTICES, keys.notices)):
            history = kind.read(self._hall.store.rows.get(key(PLAN, examinee_id), {}).get("history"))
            if event.version <= history.floor or event.version in {version for version, _ in history.facts}:
                return
        raise AssertionError(f"{event.type} is published before it is recorded")


def exam(*facts: Message, limits: Limits | None = None) -> Hall:
    """A hall whose facts are to be handed out by hand."""
    hall = Hall(*facts, limits=limits)
    hall.broker.undelivered.clear()
    return hall


def of_examinee(examinee_id: str, fact: Message) -> Message:
    return fact.model_copy(update={"examinee_id": examinee_id})


def crowd(size: int) -> list[Message]:
    return [of_examinee(f"E{number:03}", connected(f"SOCK001-{number}")) for number in range(1, size + 1)]


def check(hall: Hall) -> None:
    """Redis, the proctor and the socket servers have come to what the log says."""
    hall.come_to_rest()
    check_truth(hall.broker, hall.store, range(1, len(FACTS) + 1))
    assert hall.broker.dead == []


def at_each_step(way: Way, happens: Callable[[Hall], None], together: int = 1) -> int:
    """Let something happen at each step worth trying, each time in a new hall; return the number of these steps."""
    steps = way.steps_to_try(together)
    for chosen in steps:
        hall = way.hall()
        for number in way.steps(hall):
            if number == chosen:
                happens(hall)
        check(hall)
    return len(steps)


@pytest.mark.parametrize("way", WAYS)
def test_a_manager_may_die_at_any_step(way: Way) -> None:
    assert at_each_step(way, lambda hall: hall.one.crash(arrives=False), together=2) >= FEWEST_STEPS


@PORTIONS
def test_a_manager_may_die_at_any_step_and_the_broker_still_gets_what_it_sent(way: Way) -> None:
    assert at_each_step(way, lambda hall: hall.one.crash(arrives=True)) >= FEWEST_STEPS


@PORTIONS
def test_redis_may_be_away_at_any_step(way: Way) -> None:
    def away(hall: Hall) -> None:
        hall.store.fail_next = 3

    assert at_each_step(way, away) >= FEWEST_STEPS


@PORTIONS
def test_the_connection_to_the_broker_may_break_at_any_step(way: Way) -> None:
    assert at_each_step(way, lambda hall: hall.one.bus.break_off()) >= FEWEST_STEPS


@PORTIONS
def test_redis_may_lose_everything_at_any_step(way: Way) -> None:
    def lost(hall: Hall) -> None:
        hall.broker.on_event = None  # what is published meanwhile was in the Redis before
        hall.store.lose_everything()

    assert at_each_step(way, lost) >= FEWEST_STEPS


@PORTIONS
def test_another_manager_may_take_over_at_any_step(way: Way) -> None:
    def taken_over(hall: Hall) -> None:
        hall.other.take(sorted(hall.broker.unacknowledged & hall.one.in_hand))
        hall.other.finish()

    assert at_each_step(way, taken_over) >= FEWEST_STEPS


def test_messages_that_went_to_another_manager_are_published_and_acknowledged_by_that_one() -> None:
    hall = exam(connected(A), of_examinee("E002", connected(B)), of_examinee("E003", connected("SOCK001-c")))
    hall.one.take([1, 2, 3])
    hall.one.step()
    batch = hall.other.take([2])
    hall.one.finish()
    assert hall.broker.proctors.examinees.keys() == {"E001", "E003"}
    assert hall.broker.unacknowledged == {2}
    assert not batch.over
    hall.other.finish()
    assert hall.broker.proctors.examinees.keys() == {"E001", "E002", "E003"}
    assert not hall.broker.unacknowledged


def test_a_batch_of_which_nothing_is_left_publishes_nothing() -> None:
    hall = exam(connected(A))
    hall.one.take([1])
    hall.other.take([1])
    hall.one.finish()
    assert hall.broker.proctors.examinees == {}
    assert hall.broker.unacknowledged == {1}


def test_nothing_follows_before_redis_knows_how_far_the_log_is() -> None:
    hall = exam(connected(A))
    noted = hall.one.loop.create_future()
    hall.one.reach = lambda: wait_for(noted)
    batch = hall.one.take([1])
    while hall.one.loop.step(batch):
        pass
    assert hall.store.rows, "a write notes it first, by itself"
    assert not hall.broker.proctors.examinees
    noted.set_result(None)
    hall.one.loop.run_ready()
    hall.one.finish()
    assert hall.broker.proctors.examinees.keys() == {EXAMINEE}


def test_a_message_is_not_blamed_when_redis_cannot_be_told_how_far_the_log_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hall = exam(connected(A))

    async def fail(*_arguments: object) -> None:
        raise RuntimeError("a fault")

    monkeypatch.setattr(hall.store, "save", fail)
    hall.one.reach = fail
    hall.one.take([1])
    with pytest.raises(RuntimeError, match="a fault"):
        hall.one.finish()
    assert not hall.store.rows
    assert hall.broker.dead == []


async def wait_for(noted: asyncio.Future[None]) -> None:
    await noted


def test_portions_are_published_in_the_order_of_the_log_whichever_is_written_first() -> None:
    hall = exam(*crowd(5), limits=ONE_BY_ONE)
    recorded = hall.broker.on_event = RecordedFirst(hall)
    batch = hall.one.take([3, 1, 2, 5, 4])
    hall.one.finish(access=-1)
    assert recorded.versions == [256 * number for number in range(1, 6)]
    assert batch.tasks[0].result() == 5, "the number of its facts"


def test_portions_about_one_examinee_are_not_worked_on_together() -> None:
    other = of_examinee("E002", connected("SOCK001-c"))
    hall = exam(connected(A), other, disconnected(A, 5), connected(B, 9), limits=ONE_BY_ONE)
    batch = hall.one.take([1, 2, 3, 4])
    assert hall.one.loop.accesses(batch) == 2
    hall.one.finish(access=-1)
    assert hall.broker.proctors.events == {"examinee_connected": 3, "examinee_disconnected": 1}
    assert hall.follow_ups(since=4) == [], "nothing came late, so nothing is restated"


def test_portions_about_one_server_are_not_worked_on_together() -> None:
    hall = exam(*(server(ServerStatusCode.STARTING, f"i{number}") for number in (1, 2)), limits=ONE_BY_ONE)
    batch = hall.one.take([1, 2])
    assert hall.one.loop.accesses(batch) == 1


def test_no_more_portions_are_worked_on_at_once_than_allowed() -> None:
    hall = exam(*crowd(5), limits=Limits(portion_bytes=1, portions_at_once=2))
    batch = hall.one.take([1, 2, 3, 4, 5])
    assert hall.one.loop.accesses(batch) == 2


def test_no_more_portions_wait_for_their_acks_than_allowed() -> None:
    hall = exam(connected(A), disconnected(A, 5), limits=Limits(unconfirmed_portions=1))
    first = hall.one.take([1])
    hall.one.step_until(lambda: first.published)
    second = hall.one.take([2])
    for _ in range(200):
        hall.one.step(which=1)
    assert not second.published
    hall.one.finish()
    assert not hall.broker.unacknowledged
    assert loss_waited_for(hall.broker, EXAMINEE) == 512


@pytest.mark.parametrize("limits", [None, ONE_BY_ONE], ids=["one portion", "portions"])
@pytest.mark.parametrize("steps", range(0, 60, 8))
def test_a_message_that_always_fails_becomes_one_dead_letter_and_holds_nobody_up(
    limits: Limits | None, steps: int
) -> None:
    hall = exam(*crowd(3), limits=limits)
    hall.store.refused = {keys.progress(PLAN, "E002")}
    hall.one.take([1, 2, 3])
    hall.one.step(steps)
    hall.one.crash(arrives=False)
    hall.come_to_rest()
    assert len(hall.broker.dead) == 1
    assert b'"number":2' in hall.broker.dead[0]
    assert b"failed 3 times" in hall.broker.dead[0]
    assert hall.broker.proctors.examinees.keys() == {"E001", "E003"}
    assert not hall.broker.unacknowledged


def test_a_message_that_fails_twice_is_processed_at_the_third_try() -> None:
    hall = exam(connected(A))
    hall.store.refused = {keys.progress(PLAN, EXAMINEE)}
    began = hall.one.loop.time()
    hall.one.take([1])
    hall.one.step_until(lambda: hall.one.loop.time() > began + 0.15)  # two tries, 0.1 s apart
    hall.store.refused = set()
    hall.one.finish()
    assert hall.one.loop.time() - began == pytest.approx(0.2)
    assert hall.broker.dead == []
    assert hall.connection_seen() == ("CONNECTED", A)


def test_a_batch_fails_with_what_our_nats_user_may_not_do_and_no_portion_goes_on() -> None:
    hall = exam(*crowd(3), limits=ONE_BY_ONE)
    hall.store.refused = {keys.progress(PLAN, "E001")}
    hall.store.refusal = NotPermitted("no permission to read STATUS")
    batch = hall.one.take([1, 2, 3])
    with pytest.raises(NotPermitted):
        hall.one.finish()
    assert hall.one.loop.accesses(batch) == 0
    assert (hall.broker.dead, hall.broker.unacknowledged) == ([], {1, 2, 3})


def test_an_element_that_is_no_fact_becomes_a_dead_letter_and_the_rest_of_its_message_is_processed() -> None:
    hall = exam()
    publish(hall.broker, [connected(A), OF_ANOTHER_PLAN], f"status.plan.{PLAN}")
    hall.work_off(1)
    (letter,) = hall.broker.dead
    assert b'"number":1,"index":1' in letter
    assert hall.connection_seen() == ("CONNECTED", A)
    assert not hall.broker.unacknowledged


def test_a_record_that_cannot_be_read_is_written_anew_when_a_restatement_is_asked_for(
    caplog: pytest.LogCaptureFixture,
) -> None:
    hall = exam(connected(A), restate(5))
    hall.work_off(1)
    assert caplog.messages == []
    hall.store.damaged = {keys.progress(PLAN, EXAMINEE)}
    hall.work_off(2)
    hall.come_to_rest()
    assert hall.store.damaged == set()
    assert hall.store.rows[keys.progress(PLAN, EXAMINEE)]["connStatusCode"] == "CONNECTED"
    assert any(isinstance(fact, Restate) for fact in hall.follow_ups(since=2)), "the record is told anew"
    assert hall.broker.dead == []


def test_a_fact_about_a_record_that_cannot_be_read_becomes_a_dead_letter() -> None:
    hall = exam(connected(A), disconnected(A, 5))
    hall.work_off(1)
    hall.store.damaged = {keys.progress(PLAN, EXAMINEE)}
    hall.work_off(2)
    (letter,) = hall.broker.dead
    assert b'"number":2' in letter
    assert not hall.broker.unacknowledged


@pytest.mark.parametrize("key", [keys.plan_examinees(PLAN), keys.PLANS, keys.server_sockets("SOCK001")])
def test_a_damaged_index_is_written_anew_and_the_fact_is_processed(key: str) -> None:
    hall = exam(connected(A))
    hall.store.damaged = {key}
    hall.work_off(1)
    assert hall.store.damaged == set()
    assert hall.connection_seen() == ("CONNECTED", A)
    assert hall.broker.dead == []


def test_what_follows_from_a_batch_is_acknowledged_only_when_that_of_the_earlier_batch_is_stored() -> None:
    hall = exam(connected(A), of_examinee("E002", connected(B)))
    first = hall.one.take([1])
    hall.one.step_until(lambda: first.published)
    hall.one.take([2])
    for _ in range(200):
        hall.one.step(which=1)
    assert hall.broker.unacknowledged == {1, 2}
    hall.one.finish()
    assert not hall.broker.unacknowledged


def test_an_examinee_who_connects_after_the_end_of_the_plan_is_finished() -> None:
    hall = exam(open_plan(), close_plan(1), connected(A, 5))
    hall.work_off(1, 2)
    hall.work_off(3)
    (finish,) = hall.follow_ups(since=3)
    assert isinstance(finish, ExamineeFinish)
    assert (finish.examinee_id, finish.reason) == (EXAMINEE, FinishReason.PLAN_ENDED)
