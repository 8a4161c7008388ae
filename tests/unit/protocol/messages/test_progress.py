"""When a view of a plan is current: by what the broker says of a consumer, and state managers of the log."""

from __future__ import annotations

from protocol.messages.progress import (
    LATE_SECONDS,
    SILENT_SECONDS,
    STALLED_SECONDS,
    Applied,
    AppliedRegistry,
    ConsumerProgress,
    Delay,
    HeldDeliveries,
    PartitionApplied,
    ProgressTracker,
    WaitingFor,
    is_current,
)

NOTHING = HeldDeliveries()


def consumer(
    at: float, pending: int = 0, unacknowledged: int = 0, floor: int = 0, delivered: int = 0
) -> ConsumerProgress:
    return ConsumerProgress(at, pending, unacknowledged, floor)


def report(
    name: str, *partitions: int, still: float | None = None, waits: WaitingFor | None = None, reads: bool = True
) -> Applied:
    return Applied(
        state_manager=name,
        partitions={
            str(partition): PartitionApplied(up_to=7, still_seconds=still, reads=reads) for partition in partitions
        },
        waiting_for=waits,
        waiting_seconds=None if waits is None else 4.0,
    )


# -- how late the reading of a consumer is -------------------------------------------------------------------


def still(tracker: ProgressTracker, *looks: tuple[ConsumerProgress, HeldDeliveries]) -> float:
    """How long nothing has gone on, at the last of these looks."""
    return [tracker.update(look, in_hand) for look, in_hand in looks][-1].still_seconds or 0.0


def test_without_waiting_messages_nothing_is_late_however_long_it_is_quiet() -> None:
    reports = [ProgressTracker().update(consumer(float(at), floor=9), NOTHING) for at in range(5)]
    assert {(progress.oldest_seconds, progress.still_seconds, progress.pending) for progress in reports} == {
        (None, None, 0)
    }


def test_a_delivered_message_waits_since_it_was_stored() -> None:
    assert (
        ProgressTracker().update(consumer(110.0, unacknowledged=3), HeldDeliveries(3, oldest=106.5)).oldest_seconds
        == 3.5
    )


def test_an_undelivered_message_waits_since_it_was_first_seen() -> None:
    tracker = ProgressTracker()
    assert still(tracker, *((consumer(float(at), pending=1 + at), NOTHING) for at in range(4))) == 3.0
    assert still(tracker, (consumer(4.0, pending=1, floor=3), NOTHING)) == 0.0  # somebody has begun


def test_a_backlog_that_shrinks_does_not_stand_still() -> None:
    tracker = ProgressTracker()
    for at in range(1, 20):
        progress = tracker.update(consumer(float(at), 500, 64, floor=at * 900), HeldDeliveries(64, oldest=at - 4.0))
        assert progress.still_seconds == 0.0
        assert progress.oldest_seconds == 4.0


def test_messages_of_a_dead_reader_wait_also_while_another_reader_works() -> None:
    looks = ((consumer(float(at), 0, 5, floor=100), HeldDeliveries(2, oldest=at - 0.1)) for at in range(5))
    assert still(ProgressTracker(), *looks) == 4.0


def test_messages_that_wait_for_a_newer_release_are_no_stall_and_a_stall_of_others_is_still_seen() -> None:
    """The floor stays below the oldest of them, so it says nothing about the others."""
    tracker = ProgressTracker()
    left = HeldDeliveries(left=2)
    for at in range(5):
        progress = tracker.update(ConsumerProgress(float(at), 0, 2, 100, deliveries=50), left)
        assert (progress.still_seconds, progress.pending, progress.newer) == (None, 0, 2)
    works = [ConsumerProgress(float(at), 9, 3, 100, deliveries=50 + at) for at in range(5, 9)]
    assert still(tracker, *((look, left) for look in works)) == 0.0
    stands = [ConsumerProgress(float(at), 9, 3, 100, deliveries=58) for at in range(9, 13)]
    assert still(tracker, *((look, left) for look in stands)) == 4.0
    gone = tracker.update(ConsumerProgress(13.0, 0, 0, 200, deliveries=70), left)
    assert (gone.pending, gone.newer) == (0, 0)


# -- what state managers have report --------------------------------------------------------------------------


def test_a_new_listener_waits_for_the_first_report() -> None:
    reports = AppliedRegistry(100.0)
    assert reports.delay_of("0", 100.0 + SILENT_SECONDS) is None
    silent = reports.delay_of("0", 100.1 + SILENT_SECONDS)
    assert silent is not None
    assert silent.waiting_for == "state-manager"


def test_a_partition_without_reports_is_behind_after_three_seconds() -> None:
    reports = AppliedRegistry(0.0)
    reports.record(report("sm1", 0, 1), 10.0)
    reports.record(report("sm2", 2), 10.0)
    for second in (11.0, 12.0, 13.0, 13.5):
        reports.record(report("sm2", 2), second)
    silent = reports.delay_of("1", 13.5)
    assert silent is not None
    assert silent.waiting_for == "state-manager"
    assert reports.delay_of("2", 13.5) is None


def test_a_restart_with_another_one_standing_by_is_not_noticed() -> None:
    reports = AppliedRegistry(0.0)
    reports.record(report("sm1", 0), 10.0)
    reports.record(report("sm2"), 10.5)
    reports.record(report("sm1"), 11.0)  # it has let go
    assert reports.delay_of("0", 12.9) is None
    reports.record(report("sm2", 0), 13.0)
    assert reports.delay_of("0", 15.0) is None


def test_of_two_managers_of_a_partition_the_one_behind_counts() -> None:
    reports = AppliedRegistry(0.0)
    reports.record(report("sm1", 0, still=4.5, waits="redis"), 10.0)
    reports.record(report("sm2", 0), 10.5)
    assert reports.delay_of("0", 11.0) == Delay("redis", 4.5)
    assert reports.delay_of("0", 10.1 + SILENT_SECONDS) is None  # what it report is old; the other one goes on


def test_who_stands_by_takes_nothing_for_a_stall_that_the_reader_knows_better() -> None:
    reports = AppliedRegistry(0.0)
    reports.record(report("sm1", 0), 10.0)
    reports.record(report("sm2", 0, still=60.0, reads=False), 10.0)
    assert reports.delay_of("0", 11.0) is None
    reports.record(report("sm1", 0, reads=False), 11.0)
    assert reports.delay_of("0", 11.0) == Delay("log", 60.0)


def test_a_missing_consumer_affects_only_those_that_depend_on_it() -> None:
    reports = AppliedRegistry(0.0)
    missing = PartitionApplied(up_to=0, still_seconds=3.0, waiting_for="consumer")
    applied = Applied(state_manager="sm1", partitions={"0": missing, "1": PartitionApplied(up_to=7)})
    reports.record(applied, 10.0)
    assert reports.delay_of("0", 10.5) == Delay("consumer", 3.0)
    assert reports.delay_of("1", 10.5) is None


def test_a_standby_that_waits_for_something_delays_nothing() -> None:
    reports = AppliedRegistry(0.0)
    reports.record(report("sm1", 0), 10.0)
    reports.record(report("sm2", 0, waits="redis", reads=False), 10.0)
    assert reports.delay_of("0", 10.5) is None
    reports.record(report("sm1", 0, reads=False), 11.0)  # nothing has happened since it began: nobody works it off
    assert reports.delay_of("0", 11.5) == Delay("redis", 4.0)


def test_a_standby_sees_messages_that_wait_for_a_silent_reader() -> None:
    reports = AppliedRegistry(0.0)
    reports.record(report("sm1", 0), 10.0)
    reports.record(report("sm2", 0, still=2.9, reads=False), 12.9)
    assert reports.delay_of("0", 13.2) == Delay("log", 2.9)


def test_waiting_for_a_dependency_counts_also_without_messages() -> None:
    reports = AppliedRegistry(0.0)
    reports.record(report("sm1", 0, waits="redis"), 10.0)
    assert reports.delay_of("0", 10.2) == Delay("redis", 4.0)


def test_a_pause_of_the_listener_is_not_counted_as_silence() -> None:
    reports = AppliedRegistry(0.0)
    reports.record(report("sm1", 0), 10.0)
    reports.shift(20.0)
    assert reports.delay_of("0", 31.0) is None


def test_a_view_does_not_flicker_around_the_limit() -> None:
    for moves, scale in ((False, 1.0), (True, LATE_SECONDS / STALLED_SECONDS)):
        current, turns = True, 0
        for seconds in (0.2, 2.4, 2.6, 2.4, 2.6, 1.8, 2.4, 1.0, 1.8, 2.4):
            before, current = current, is_current(Delay("log", seconds * scale, moves), was_current=current)
            turns += before is not current
        assert turns == 2
    assert is_current(None, was_current=False)


def test_a_backlog_that_moves_may_be_late_for_longer_than_one_that_stands_still() -> None:
    assert not is_current(Delay("log", 3.0), was_current=True)
    assert is_current(Delay("log", 5.5, progressing=True), was_current=True)
    assert not is_current(Delay("log", 6.5, progressing=True), was_current=True)
