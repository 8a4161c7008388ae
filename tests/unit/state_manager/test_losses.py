"""Redis loses everything, or goes back in time, between two steps of the state managers: by scenario."""

from __future__ import annotations

import pytest

from actors.runtime.broker.dead_letter import dead_letter
from protocol.close_codes import CloseCode
from protocol.errors import StateLost
from protocol.messages.facts import ConnectionStatus, MobileSyncCode
from protocol.messages.server_messages import ServerStatusCode
from protocol.messages.session_messages import SessionClose, SessionState
from protocol.records import keys
from protocol.rules.connection_state import ConnectionState
from tests.unit.support.fact_logs import in_order
from tests.unit.support.facts import EXAMINEE, PLAN, connected, disconnected, remove, server, wait
from tests.unit.support.memory_broker import facts_of
from tests.unit.support.state_manager_world import Hall, is_open, kind_of, log_of, loss_waited_for, stored_state

A, B = "SOCK001-a", "SOCK002-b"
PROGRESS = keys.progress(PLAN, EXAMINEE)


def exam(*facts: object) -> Hall:
    """A hall whose facts were delivered, to whomever."""
    hall = Hall(*facts)  # type: ignore[arg-type]
    hall.broker.undelivered.clear()
    return hall


def dead_letter_of(hall: Hall, sequence: int) -> None:
    """Nobody could process this message: it was put aside, and acknowledged."""
    about = f"status.plan.{PLAN}"
    hall.broker.publish_now(dead_letter("STATUS", about, sequence, hall.broker.payloads[sequence - 1], "no record"))
    hall.broker.acknowledge(sequence)


def records_are_the_fold_of_the_log(hall: Hall) -> bool:
    logs = log_of(hall.broker)
    return all(stored_state(hall.store, key) == in_order(kind_of(key), log)[0] for key, log in logs.items())


def test_a_loss_after_a_flush_is_published_and_timed() -> None:
    hall = exam(connected(A), disconnected(A, 5))
    hall.work_off(1)
    hall.store.lose_everything()
    hall.work_off(2)
    assert hall.connection_seen() == ("DISCONNECTED", A)
    assert loss_waited_for(hall.broker, EXAMINEE) == 512
    assert records_are_the_fold_of_the_log(hall)


def test_a_loss_after_an_older_redis_came_back_is_published_and_timed() -> None:
    hall = exam(connected(A), disconnected(A, 5))
    hall.store.save_snapshot()
    hall.work_off(1)
    hall.store.come_back_from_snapshot()
    hall.work_off(2)
    assert hall.connection_seen() == ("DISCONNECTED", A)
    assert loss_waited_for(hall.broker, EXAMINEE) == 512


def test_a_repair_publishes_no_event_again() -> None:
    hall = exam(connected(A), disconnected(A, 5), connected(B, 9))
    hall.work_off(1, 2, 3)
    events, published = dict(hall.broker.proctors.events), len(hall.broker.payloads)
    for lose in (hall.store.lose_everything, hall.store.come_back_from_snapshot):
        lose()
        hall.one.repair_at_once()
        assert (hall.broker.proctors.events, len(hall.broker.payloads)) == (events, published)
        assert records_are_the_fold_of_the_log(hall)


@pytest.mark.parametrize("loses", ["everything", "the last second"])
def test_a_repair_publishes_the_events_of_a_dead_letter_that_it_applied(loses: str) -> None:
    hall = exam(connected(A), disconnected(A, 5), wait(9))
    hall.store.save_snapshot()
    hall.work_off(1, 3)
    dead_letter_of(hall, 2)
    assert hall.connection_seen() == ("CONNECTED", A)
    if loses == "everything":
        hall.store.lose_everything()
    else:
        hall.store.come_back_from_snapshot()
    assert hall.one.repair_at_once().restated == 1
    hall.come_to_rest()
    assert hall.connection_seen() == ("DISCONNECTED", A)
    assert hall.broker.proctors.events["mobile_sync_status"] == 1, "the rest had been told"
    assert records_are_the_fold_of_the_log(hall)


def test_a_repair_closes_the_socket_that_a_dead_letter_removed() -> None:
    hall = exam(connected(A), remove(5))
    hall.work_off(1)
    dead_letter_of(hall, 2)
    hall.store.lose_everything()
    hall.one.repair_at_once()
    hall.come_to_rest()
    assert stored_state(hall.store, PROGRESS).removed
    assert SessionClose(socket_id=A, code=CloseCode.REMOVED) in hall.broker.to_servers


def test_a_repair_sends_the_state_to_a_socket_that_a_dead_letter_connected() -> None:
    hall = exam(connected(A), wait(5))
    dead_letter_of(hall, 1)
    hall.work_off(2)
    hall.store.lose_everything()
    hall.one.repair_at_once()
    hall.come_to_rest()
    (state,) = [message for message in hall.broker.to_servers if isinstance(message, SessionState)]
    assert (state.socket_id, state.connection.status, state.mobile_sync.status) == (A, "CONNECTED", "WAITING")


def test_a_restart_of_redis_without_a_loss_publishes_nothing() -> None:
    hall = exam(connected(A), wait(5), disconnected(A, 9))
    hall.work_off(1, 2)
    hall.store.save_snapshot()
    hall.store.come_back_from_snapshot()
    repair = hall.one.repair_at_once()
    assert (repair.found, repair.missing, repair.alarming) == ("restarted", 0, False)
    hall.work_off(3)  # it had not been acknowledged
    assert hall.connection_seen() == ("DISCONNECTED", A)


def test_a_redis_without_acknowledged_facts_is_reported_as_replaced() -> None:
    hall = exam(connected(A), disconnected(A, 9))
    hall.work_off(1)
    hall.store.save_snapshot()
    hall.work_off(2)
    hall.store.come_back_from_snapshot()
    repair = hall.one.repair_at_once()
    assert (repair.found, repair.missing, repair.alarming) == ("replaced", 1, True)


def test_a_redis_that_lost_its_state_is_not_read_until_repaired() -> None:
    hall = exam(connected(A))
    hall.work_off(1)
    hall.store.lose_everything()
    with pytest.raises(StateLost):
        hall.one.run(hall.store.entries(PROGRESS))
    hall.one.repair_at_once()
    assert hall.store.mark.whole


def test_facts_acknowledged_out_of_order_are_in_a_repaired_record() -> None:
    hall = exam(wait(0), connected(A, 5))
    hall.die_before_publishing(1)
    hall.work_off(2)
    hall.store.lose_everything()
    hall.one.repair_at_once()
    assert stored_state(hall.store, PROGRESS).socket_id == A
    hall.work_off(1)
    sync = stored_state(hall.store, keys.mobile_sync(PLAN, EXAMINEE))
    assert sync.status is MobileSyncCode.WAITING
    assert hall.broker.timers


def test_events_written_but_not_published_are_published_after_a_repair() -> None:
    hall = exam(connected(A))
    hall.die_before_publishing(1)
    hall.store.lose_everything()
    hall.other.repair_at_once()
    hall.store.save_snapshot()
    hall.happens(disconnected(A, 5))
    hall.store.come_back_from_snapshot()
    hall.other.repair_at_once()
    hall.work_off(1, 2)
    assert hall.broker.proctors.events == {"examinee_connected": 1, "examinee_disconnected": 1}
    assert any(isinstance(message, SessionState) for message in hall.broker.to_servers)


def test_a_restatement_that_only_a_lost_record_owed_is_published() -> None:
    """The loss of A was told before the connection of B arrived; then its manager and Redis died together."""
    hall = exam(connected(A), connected(B, 5), disconnected(A, 9))
    hall.work_off(1)
    hall.work_off(3)
    assert hall.connection_seen() == ("DISCONNECTED", A)
    hall.die_before_publishing(2)
    hall.store.lose_everything()
    hall.other.repair_at_once()
    hall.come_to_rest()
    assert hall.connection_seen() == ("CONNECTED", B)


def test_effects_of_a_late_fact_of_a_lost_record_are_published() -> None:
    hall = exam(connected(A), connected(B, 5), disconnected(B, 9))
    hall.work_off(1)
    hall.work_off(3)  # of a socket that nobody knows yet: nothing
    hall.die_before_publishing(2)
    hall.store.lose_everything()
    hall.other.repair_at_once()
    hall.come_to_rest()
    assert hall.connection_seen() == ("DISCONNECTED", B)
    assert loss_waited_for(hall.broker, EXAMINEE) == 768


def test_a_decision_from_before_a_flush_does_not_overwrite_the_repair() -> None:
    hall = exam(connected(A), disconnected(A, 5), connected(B, 9))
    hall.work_off(1)
    hall.one.take([3])
    hall.one.step()  # it has read the record, and is about to write
    hall.other.take([2])
    hall.other.finish()
    hall.store.lose_everything()
    hall.other.repair_at_once()
    hall.one.finish()
    state = stored_state(hall.store, PROGRESS)
    assert isinstance(state, ConnectionState)
    assert (state.socket_id, state.recoveries) == (B, 1)


@pytest.mark.parametrize("steps", range(1, 16))
def test_a_repair_starts_again_when_redis_is_lost_meanwhile(steps: int) -> None:
    hall = exam(server(ServerStatusCode.STARTING, "i1"), connected(A, 5, incarnation="i1"), wait(9))
    hall.work_off(1, 2, 3)
    hall.store.lose_everything()
    repair = hall.one.begin(hall.one.repair.restore_state())
    repair.step(steps)
    hall.store.lose_everything()
    repair.finish()
    if not hall.store.mark.whole:  # it had been done before the second flush
        hall.other.repair_at_once()
    assert records_are_the_fold_of_the_log(hall)
    assert A in hall.store.rows[keys.server_sockets("SOCK001")]


@pytest.mark.parametrize("steps", range(1, 16))
def test_two_concurrent_repairs_have_the_same_result(steps: int) -> None:
    hall = exam(connected(A), wait(5), disconnected(A, 9), connected(B, 12))
    hall.work_off(1, 2)
    hall.store.lose_everything()
    slow = hall.one.begin(hall.one.repair.restore_state())
    slow.step(steps)
    hall.other.repair_at_once()
    hall.other.take([3, 4])
    hall.other.finish()
    slow.finish()
    assert records_are_the_fold_of_the_log(hall)
    assert hall.connection_seen() == ("CONNECTED", B)


def test_sessions_of_a_lost_process_end_although_redis_loses_them_first() -> None:
    hall = exam(
        server(ServerStatusCode.STARTING, "i1"),
        connected(A, 5, incarnation="i1"),
        server(ServerStatusCode.STARTING, "i2", 60),
    )
    hall.work_off(1, 2)
    batch = hall.one.take([3])
    hall.one.step_until(lambda: batch.settled)
    hall.store.lose_everything()
    hall.one.finish()
    closes = [
        message for message in hall.follow_ups(3) if isinstance(message, ConnectionStatus) and not is_open(message)
    ]
    assert [message.socket_id for message in closes] == [A]
    assert [fact for _, fact in facts_of(hall.broker, 4)] == closes
