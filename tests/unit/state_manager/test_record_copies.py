"""Copies of records that a state manager keeps: however outdated one is, everything is as if it had been read."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.runtime.store.record_cache import RecordCache, RecordCopy, read_copy
from actors.state_manager.order_of_work import Limits
from actors.status_log.status_log import LogExtent
from protocol.broker import subjects
from protocol.messages.base import Message
from protocol.messages.facts import ConnectionStatus, ExamineeFinish
from protocol.messages.plan_facts import PlanPurged
from protocol.messages.server_messages import ServerStatusCode
from protocol.messages.session_messages import SessionState
from protocol.records import keys
from protocol.records.kinds import CONNECTION
from protocol.records.writes import StoredRecord
from protocol.rules.connection_state import ConnectionState
from protocol.rules.history import History, fold
from tests.unit.support.fact_logs import connection_fact, mobile_sync_fact, notice_fact
from tests.unit.support.facts import (
    EXAMINEE,
    PLAN,
    at,
    close_plan,
    connected,
    disconnected,
    notice,
    open_plan,
    plan_notice,
    restate,
    server,
    wait,
)
from tests.unit.support.memory_broker import publish
from tests.unit.support.state_manager_world import Hall, stored_state

A, B = "SOCK001-a", "SOCK002-b"
KEY = keys.progress(PLAN, EXAMINEE)


def work_off(hall: Hall, *sequences: int) -> None:
    """The other manager, which has copies of its own, gets these messages."""
    hall.other.take(list(sequences))
    hall.other.finish()


def reads_of(hall: Hall, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The keys that are loaded from now on."""
    loaded: list[str] = []
    load = hall.store.load

    async def noting(record_keys: Any) -> Any:
        loaded.extend(record_keys)
        return await load(record_keys)

    monkeypatch.setattr(hall.store, "load", noting)
    return loaded


def states_sent(hall: Hall, socket_id: str) -> list[SessionState]:
    sent = [message for message in hall.broker.to_servers if isinstance(message, SessionState)]
    return [state for state in sent if state.socket_id == socket_id]


def copy_of(hall: Hall, key: str) -> RecordCopy:
    copy = hall.one.cache.get(key)
    assert copy is not None
    return copy


# -- records that are written --------------------------------------------------------------------------


def test_a_record_is_read_once_while_nobody_else_writes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    hall = Hall(connected(A), disconnected(A, 5), connected(B, 9), disconnected(B, 12))
    hall.work_off(1)
    reads = reads_of(hall, monkeypatch)
    for sequence in (2, 3, 4):
        hall.work_off(sequence)
    assert [key for key in reads if PLAN in key and key != keys.plan(PLAN)] == []
    assert hall.connection_seen() == ("DISCONNECTED", B)
    assert stored_state(hall.store, KEY).recoveries == 1


def test_a_record_that_another_manager_has_written_is_decided_again() -> None:
    hall = Hall(connected(A), disconnected(A, 5), connected(B, 9))
    hall.work_off(1)
    work_off(hall, 2)
    hall.work_off(3)
    assert stored_state(hall.store, KEY).recoveries == 1
    assert hall.broker.proctors.events == {"examinee_connected": 2, "examinee_disconnected": 1}


def test_a_fact_counts_as_known_only_if_redis_knows_it() -> None:
    hall = Hall(connected(A))
    hall.work_off(1)
    del hall.store.rows[KEY]  # the write is lost, and nothing says so
    hall.work_off(1)  # delivered again, to the manager that has a copy
    assert stored_state(hall.store, KEY).socket_id == A


def test_a_write_whose_answer_was_lost_has_one_effect() -> None:
    hall = Hall(connected(A), disconnected(A, 5), connected(B, 9))
    hall.work_off(1)
    for sequence in (2, 3):
        hall.store.lost_answers = 1
        hall.work_off(sequence)
    assert (hall.broker.proctors.events, hall.broker.proctors.doubled) == (
        {"examinee_connected": 2, "examinee_disconnected": 1},
        0,
    )
    assert stored_state(hall.store, KEY).recoveries == 1


def test_nothing_is_published_before_a_redis_that_came_back_is_repaired() -> None:
    hall = Hall(connected(A), notice("a1", second=3), disconnected(A, 5))
    hall.store.save_snapshot()
    hall.work_off(1)
    hall.store.rows, hall.store.saved = dict(hall.store.rows), (dict(hall.store.rows), {}, hall.store.saved[2])
    hall.work_off(2)
    hall.store.come_back_from_snapshot()  # it has the copied record as it was, and not the message
    whole: list[bool] = []
    hall.broker.on_event = lambda event: whole.append(hall.store.mark.whole)
    hall.work_off(3)
    assert whole == [True]
    assert stored_state(hall.store, keys.notices(PLAN, EXAMINEE)).kept


def test_a_record_that_is_copied_is_whole_after_each_write() -> None:
    hall = Hall(connected(A), disconnected(A, 5), connected(B, 9), restate(12))
    for sequence in (1, 2, 3):
        hall.work_off(sequence)
        row = hall.store.rows[KEY]
        assert row == CONNECTION.write(CONNECTION.read(row["history"]), stored_state(hall.store, KEY), int(row["rev"]))
    row["maxAttempts"] = "many"  # by whoever; a reader who cannot read that asks for all of it
    hall.work_off(4)
    assert hall.store.rows[KEY]["maxAttempts"] == ""


def test_a_record_of_an_earlier_release_gets_all_fields_with_the_first_write() -> None:
    key = keys.notices(PLAN, EXAMINEE)
    hall = Hall(notice("a1", second=3), connected(A), notice("a2", second=5))
    hall.work_off(1)
    del hall.store.rows[key]["help"]
    hall.one.cache.drop_plan(PLAN)
    hall.work_off(2)  # it is read for the session_state, and copied
    assert hall.one.cache.get(key) is not None
    hall.work_off(3)
    assert hall.store.rows[key]["help"] == ""


def test_a_copy_that_makes_a_rule_fail_is_read_again() -> None:
    hall = Hall(connected(A), disconnected(A, 5), connected(B, 9))
    hall.work_off(1, 2)
    copy = copy_of(hall, KEY)
    lost: ConnectionState = fold(copy.history, CONNECTION.rule)
    wrong: History[ConnectionState, Any] = History(replace(lost, since="never"))
    hall.one.cache.keep(KEY, replace(copy, history=wrong))
    hall.work_off(3)
    assert stored_state(hall.store, KEY).recoveries == 1
    assert hall.broker.dead == []


def test_a_record_that_was_damaged_since_is_written_again_from_the_log_when_that_is_asked_for() -> None:
    hall = Hall(connected(A), restate(5))
    hall.work_off(1)
    hall.store.damaged.add(KEY)
    hall.work_off(2)
    assert hall.store.damaged == set()
    assert stored_state(hall.store, KEY).socket_id == A


# -- records that are only read ------------------------------------------------------------------------


@pytest.mark.parametrize("change", [notice("a1", second=5), wait(5), plan_notice("a1")], ids=lambda fact: fact.type)
def test_a_session_state_has_what_another_manager_has_written_since(change: Message) -> None:
    hall = Hall(connected(A), change, connected(B, 9))
    hall.work_off(1)
    work_off(hall, 2)
    hall.work_off(3)
    (state,) = states_sent(hall, B)
    assert (state.mobile_sync.status == "WAITING") == (change.type == "mobile_sync_wait")
    assert [one.action_id for one in state.notices] == ([] if change.type == "mobile_sync_wait" else ["a1"])


def test_a_session_state_is_sent_although_a_record_that_it_includes_was_damaged_since() -> None:
    hall = Hall(connected(A), connected(B, 9))
    hall.work_off(1)
    hall.store.damaged.add(keys.notices(PLAN, EXAMINEE))
    hall.work_off(2)
    (state,) = states_sent(hall, B)
    assert (state.connection.status, state.notices, hall.broker.dead) == ("CONNECTED", [], [])


def test_who_connects_to_a_server_that_another_manager_saw_end_is_disconnected() -> None:
    hall = Hall(
        server(ServerStatusCode.STARTING, "i1"),
        connected(A, 5, incarnation="i1"),
        server(ServerStatusCode.STARTING, "i2", 60),
        connected("SOCK001-c", 61, incarnation="i1"),
    )
    hall.work_off(1, 2)
    work_off(hall, 3)
    hall.work_off(4)
    late = [fact for fact in hall.follow_ups(4) if isinstance(fact, ConnectionStatus)]
    assert "SOCK001-c" in {fact.socket_id for fact in late}


def test_who_connects_to_a_plan_that_another_manager_saw_end_is_finished() -> None:
    hall = Hall(open_plan(), connected(A, 5), disconnected(A, 6), close_plan(60), connected(B, 61))
    hall.work_off(1, 2, 3)
    work_off(hall, 4)
    hall.work_off(5)
    assert [type(fact) for fact in hall.follow_ups(5)] == [ExamineeFinish]


# -- what is purged ------------------------------------------------------------------------------------


@pytest.mark.parametrize("who", ["this manager", "another one"])
def test_a_late_end_of_a_socket_leaves_nothing_of_a_plan_that_was_purged(who: str) -> None:
    hall = Hall(connected(A))
    publish(
        hall.broker,
        [PlanPurged(plan_id=PLAN, by="operator", timestamp=at(9))],
        subjects.status_plan(PLAN, subjects.PURGE),
    )
    hall.happens(disconnected(A, 10))
    hall.work_off(1)
    if who == "this manager":
        hall.work_off(2)
    else:
        work_off(hall, 2)
        hall.one.ownership.term = 1  # it has the partition again
    hall.work_off(3)
    assert [key for key in hall.store.rows if PLAN in key and hall.store.rows[key]] == []
    assert [key for key, members in hall.store.sets.items() if members] == []


def test_a_copy_is_not_trusted_while_another_manager_may_have_the_partition(monkeypatch: pytest.MonkeyPatch) -> None:
    hall = Hall(connected(A), disconnected(A, 5), connected(B, 9), disconnected(B, 12))
    hall.work_off(1)
    reads = reads_of(hall, monkeypatch)
    for sequence, term in ((2, None), (3, None), (4, 0)):
        hall.one.ownership.term = term
        reads.clear()
        hall.work_off(sequence)
        assert KEY in reads


# -- all of it -----------------------------------------------------------------------------------------


@given(data=st.data())
def test_everything_is_as_if_no_copy_was_kept(data: st.DataObject) -> None:
    facts: list[Message] = []
    kinds = st.sampled_from([connection_fact, mobile_sync_fact, notice_fact])
    for draw_fact in data.draw(st.lists(kinds, max_size=12)):
        past = [(number * 256, fact) for number, fact in enumerate(facts, 1)]
        facts.append(draw_fact(data.draw, past))
    order = data.draw(st.permutations(range(1, len(facts) + 1)))
    floors = data.draw(st.lists(st.booleans(), min_size=len(facts), max_size=len(facts)))
    halls = [Hall(*facts, limits=Limits(portion_bytes=1)) for _ in range(2)]
    halls[1].one.cache._most_bytes = 0
    for hall in halls:
        hall.broker.undelivered.clear()
        for sequence, raise_floor in zip(order, floors, strict=True):
            hall.work_off(sequence)
            if raise_floor:
                up_to = hall.broker.acknowledged_up_to
                hall.one.decider.raise_floors(LogExtent(1, up_to, up_to, up_to))
        hall.come_to_rest()
    with_copies, without = halls
    assert len(without.one.cache) == 0
    stored = [
        {key: {name: value for name, value in row.items() if name != "rev"} for key, row in hall.store.rows.items()}
        for hall in halls
    ]
    assert stored[0] == stored[1]
    assert with_copies.broker.to_servers == without.broker.to_servers
    assert with_copies.broker.proctors.events == without.broker.proctors.events
    assert with_copies.broker.payloads == without.broker.payloads


# -- the cache -----------------------------------------------------------------------------------------


def copy(characters: int = 100, part: str = "1", rev: int = 1) -> RecordCopy:
    return RecordCopy(rev, CONNECTION.empty(), part, characters)


def test_the_copies_that_were_used_least_recently_are_dropped() -> None:
    cache = RecordCache(most_bytes=2500)
    for name in "abc":
        cache.keep(name, copy())
    assert cache.get("a") is not None
    cache.keep("d", copy())
    assert [name for name in "abcd" if cache.get(name)] == ["a", "c", "d"]
    cache.keep("e", copy(characters=500))
    assert [name for name in "abcde" if cache.get(name)] == ["e"]
    cache.keep("f", copy(characters=600))
    assert len(cache) == 0


def test_a_part_that_was_given_anew_loses_its_copies_and_no_other_one() -> None:
    cache = RecordCache()
    cache.trust({"1": 7, "2": 7})
    cache.keep("a", copy(part="1"))
    cache.keep("b", copy(part="2"))
    cache.trust({"1": 7})
    assert len(cache) == 2
    cache.trust({"1": 8})
    assert [name for name in "ab" if cache.get(name)] == ["b"]


def test_a_record_that_does_not_exist_is_never_written_without_a_read() -> None:
    cache = RecordCache()
    cache.keep(KEY, read_copy(CONNECTION, StoredRecord(0, None), "1"))
    assert cache.take(KEY) is None
    assert cache.get(KEY) is not None


def test_a_record_with_something_that_only_a_newer_release_knows_is_not_kept() -> None:
    cache = RecordCache()
    cache.keep(KEY, copy())
    cache.keep(KEY, replace(copy(rev=2), history=History(CONNECTION.state(), unknown=True)))
    assert cache.get(KEY) is None
