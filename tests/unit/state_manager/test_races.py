"""State managers between two steps of their work, by scenario."""

from __future__ import annotations

from protocol.messages.facts import ConnectionStatus, MobileSyncCode
from protocol.messages.server_messages import ServerStatusCode
from protocol.records import keys
from protocol.rules.mobile_sync import MobileSyncState
from tests.unit.support.facts import EXAMINEE, PLAN, connected, disconnected, server, upload_failed, wait
from tests.unit.support.state_manager_world import Hall, loss_waited_for, stages_timed, stored_state

A, B = "SOCK001-a", "SOCK002-b"


def test_a_batch_of_a_manager_that_dies_before_publishing_is_completed_by_the_next() -> None:
    hall = Hall(connected(A), disconnected(A, 5))
    hall.die_before_publishing(1, 2)
    assert hall.broker.proctors.examinees == {}
    hall.work_off(1, 2)
    assert hall.connection_seen() == ("DISCONNECTED", A)
    assert loss_waited_for(hall.broker, EXAMINEE) == 512
    assert not hall.broker.unacknowledged


def test_a_manager_that_dies_before_acknowledging_has_published_each_event_once() -> None:
    hall = Hall(connected(A), disconnected(A, 5))
    hall.die_before_acknowledging(1, 2)
    hall.work_off(1, 2)
    proctors = hall.broker.proctors
    assert (proctors.events, proctors.doubled) == ({"examinee_connected": 1, "examinee_disconnected": 1}, 0)


def test_of_two_managers_with_the_same_record_the_slower_decides_again() -> None:
    hall = Hall(connected(A), disconnected(A, 5))
    hall.one.take([1])
    hall.one.step()  # it has read the record, and is about to write
    hall.other.take([2])
    hall.other.finish()
    hall.one.finish()
    assert hall.connection_seen() == ("DISCONNECTED", A)
    assert stored_state(hall.store, keys.progress(PLAN, EXAMINEE)).reason == "SOCKET_CLOSED"


def test_a_restatement_that_was_never_published_is_published_by_the_next() -> None:
    hall = Hall(connected(A), connected(B, 5), disconnected(A, 9), disconnected(A, 10))
    hall.work_off(1)
    hall.work_off(4)
    hall.die_before_publishing(2)
    hall.come_to_rest()
    assert hall.connection_seen() == ("CONNECTED", B)


def test_each_late_fact_gets_its_own_restatement() -> None:
    """2 and 3 were held by managers that died; 4 is redelivered beside each, for its acknowledgement was lost."""
    hall = Hall(connected(A), connected(B, 5), disconnected(B, 7), disconnected(A, 9))
    hall.work_off(1)
    hall.die_before_acknowledging(4)
    hall.die_before_acknowledging(2, 4)
    hall.broker.acknowledge(2)
    hall.work_off(5)  # the restatement
    assert hall.connection_seen() == ("CONNECTED", B)
    hall.work_off(3, 4)
    hall.come_to_rest()
    assert hall.connection_seen() == ("DISCONNECTED", B)


def test_the_newest_fact_about_a_socket_counts_in_any_order_of_the_batch() -> None:
    hall = Hall(disconnected(A, 1), connected(A, 5))
    hall.work_off(2, 1)
    assert hall.store.rows[keys.socket(PLAN, A)]["status"] == "CONNECTED"


def gone_and_back() -> Hall:
    """A server that was declared lost by mistake and has announced its connection again."""
    return Hall(connected(A, incarnation="i1"), disconnected(A, 5, "SERVER_LOST"), connected(A, 6, incarnation="i1"))


def test_a_connection_is_found_by_its_server() -> None:
    hall = gone_and_back()
    hall.work_off(1, 2, 3)
    assert A in hall.store.rows[keys.server_sockets("SOCK001")]


def test_a_redelivered_end_does_not_hide_a_live_connection_from_the_end_of_its_server() -> None:
    hall = gone_and_back()
    hall.work_off(1)
    hall.die_before_acknowledging(2)
    hall.work_off(3)
    hall.work_off(2)
    hall.happens(server(ServerStatusCode.STARTING, "i1"))
    hall.happens(server(ServerStatusCode.STARTING, "i2", 60))
    hall.come_to_rest()
    assert hall.connection_seen() == ("DISCONNECTED", A)


def test_a_redelivered_server_loss_does_not_end_sessions_of_the_next_process() -> None:
    hall = Hall(
        server(ServerStatusCode.STARTING, "i1"),
        server(ServerStatusCode.LOST, "i1", 30),
        server(ServerStatusCode.STARTING, "i2", 40),
        connected(A, 50, incarnation="i2"),
    )
    hall.work_off(1)
    hall.die_before_publishing(2)
    hall.work_off(3, 4)
    hall.work_off(2)
    assert [fact for fact in hall.follow_ups(4) if isinstance(fact, ConnectionStatus)] == []


def test_a_stage_keeps_its_deadline_when_an_earlier_one_is_redelivered() -> None:
    hall = Hall(wait(0), upload_failed(10), wait(20))
    hall.die_before_publishing(1)
    hall.work_off(2, 3)
    hall.work_off(1)
    state = stored_state(hall.store, keys.mobile_sync(PLAN, EXAMINEE))
    assert isinstance(state, MobileSyncState)
    # Failed uploads keep the stage open; it ends when its deadline fires.
    assert state.status in (MobileSyncCode.WAITING, MobileSyncCode.FAILED)
    assert state.wait_version in stages_timed(hall.broker, EXAMINEE)


def test_a_loss_is_timed_even_if_an_earlier_one_is_completed_last() -> None:
    """No crash and no second manager are needed: the acks of the first batch take longer than those of the second."""
    hall = Hall(connected(A), disconnected(A, 1), connected(B, 2), disconnected(B, 3))
    hall.work_off(1)
    first = hall.one.take([2])
    hall.one.step_until(lambda: first.published)
    second = hall.one.take([3, 4])
    hall.one.step(50, which=1)
    assert second in hall.one.batches, "the second waits for the first"
    while hall.one.batches:
        hall.one.step(which=0)
    assert loss_waited_for(hall.broker, EXAMINEE) == 1024


def test_a_stage_keeps_its_deadline_if_another_manager_publishes_an_earlier_one_last() -> None:
    hall = Hall(wait(0), upload_failed(10), wait(20))
    slow = hall.one.take([1])
    hall.one.step_until(lambda: slow.settled)
    hall.other.take([2, 3])
    hall.other.finish()
    hall.one.finish()
    assert 768 in stages_timed(hall.broker, EXAMINEE)


def test_a_connection_to_a_server_whose_start_is_in_process_is_not_lost() -> None:
    old, new = "inc-1", "inc-2"
    hall = Hall(
        server(ServerStatusCode.READY, old),
        server(ServerStatusCode.STARTING, new, 5),
        connected(A, 6, incarnation=new),
    )
    hall.work_off(1)
    starting = hall.other.take([2])  # begun with, and not written yet
    hall.work_off(3)
    assert hall.follow_ups(since=3) == []
    hall.other.finish()
    assert hall.other.idle
    assert starting.published
    hall.come_to_rest()
    assert hall.follow_ups(since=3) == []


def test_a_connection_to_a_process_that_has_ended_is_closed() -> None:
    old, new = "inc-1", "inc-2"
    hall = Hall(
        server(ServerStatusCode.READY, old),
        server(ServerStatusCode.STARTING, new, 5),
        connected(A, 6, incarnation=old),
    )
    hall.work_off(1, 2, 3)
    (follow_up,) = hall.follow_ups(since=3)
    assert isinstance(follow_up, ConnectionStatus)
    assert (follow_up.socket_id, follow_up.reason) == (A, "SERVER_RESTARTED")


def test_a_redelivered_connected_restores_no_entry_of_an_ended_socket() -> None:
    hall = Hall(connected(A), disconnected(A, 5))
    hall.die_before_acknowledging(1)
    hall.work_off(2)
    hall.work_off(1)  # redelivered: its acknowledgement was lost
    assert A not in hall.store.rows[keys.server_sockets("SOCK001")]


def test_an_ended_socket_has_no_entry_whichever_manager_writes_last() -> None:
    for steps in range(1, 8):
        hall = Hall(connected(A), disconnected(A, 5))
        hall.one.take([1])
        for _ in range(steps):
            hall.one.step()
        hall.other.take([2])
        hall.other.finish()
        hall.one.finish()
        assert A not in hall.store.rows[keys.server_sockets("SOCK001")], f"after {steps} steps"
