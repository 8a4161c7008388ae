"""What a load run comes to: the ledger of losses and recoveries, and the figures."""

from __future__ import annotations

import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st

from cli.load.ledger import MIGRATING, ConnectionChange, Ledger, LedgerVerdict, ObservedEvent, RunPhase
from cli.load.matrix import Counts, counts_of
from cli.load.percentiles import Percentiles, nearest_rank, per_second
from cli.load.report import Baseline, LoadReport

NAMES_OF_THE_DESIGN = {
    "scenario",
    "examinees",
    "connectsPerSecond",
    "lossesPerSecond",
    "recoveriesPerSecond",
    "latencyMs",
    "redisLatencyMs",
    "recoveryLatencyMs",
    "missing",
    "doubled",
    "outOfOrder",
    "redisDisagrees",
    "kibPerConnection",
    "cpuSeconds",
    "machine",
}


def lost(version: int, at: float = 0.0, *, examinee_id: str = "E001", restated: bool = False) -> ObservedEvent:
    return ObservedEvent(ConnectionChange.LOST, examinee_id, version, at, restated)


def back(version: int, at: float = 0.0, *, examinee_id: str = "E001") -> ObservedEvent:
    return ObservedEvent(ConnectionChange.RECOVERED, examinee_id, version, at)


def migrating(version: int, at: float = 0.0) -> ObservedEvent:
    return ObservedEvent(MIGRATING, "E001", version, at)


def moved(ledger: Ledger, at: float = 1.0) -> Ledger:
    """E001 was sent away and has arrived."""
    for turn in (ConnectionChange.LOST, ConnectionChange.RECOVERED):
        ledger.cause("E001", turn, at, RunPhase.MEASURED, migrated=True)
    return ledger


def ledger_of(*turns: ConnectionChange) -> Ledger:
    ledger = Ledger()
    for number, turn in enumerate(turns):
        ledger.cause("E001", turn, float(number), RunPhase.MEASURED)
    return ledger


def report(scenario: str = "one-by-one") -> LoadReport:
    return LoadReport(scenario, "P001", 30, 1, {"cores": 2, "python": "3.11.7"})


# -- figures -------------------------------------------------------------------------------------------


def test_percentiles_are_by_nearest_rank() -> None:
    # The classical example: 15, 20, 35, 40, 50.
    values = [15.0, 20.0, 35.0, 40.0, 50.0]
    assert [nearest_rank(values, percent) for percent in (5, 30, 40, 50, 100)] == [15.0, 20.0, 20.0, 35.0, 50.0]


def test_percentiles_are_in_milliseconds_and_say_how_many_samples() -> None:
    percentiles = Percentiles.of(number / 1000 for number in range(200, 0, -1))
    assert percentiles == Percentiles(100.0, 190.0, 198.0, 200)


def test_no_samples_have_no_percentiles() -> None:
    assert Percentiles.of([]) is None


@given(st.lists(st.floats(0, 10), min_size=1), st.sampled_from([50, 95, 99]))
def test_a_percentile_is_a_sample_that_enough_do_not_exceed(values: list[float], percent: int) -> None:
    ordered = sorted(values)
    percentile = nearest_rank(ordered, percent)
    assert percentile in ordered
    assert sum(value <= percentile for value in ordered) * 100 >= percent * len(ordered)
    assert sum(value < percentile for value in ordered) * 100 < percent * len(ordered)


def test_a_rate_is_count_over_the_time_from_first_to_last() -> None:
    assert per_second([10.0, 10.5, 12.0, 11.0]) == 2.0
    assert per_second([10.0]) is None
    assert per_second([]) is None
    assert per_second([10.0, 10.0]) is None


# -- the ledger ----------------------------------------------------------------------------------------


def test_events_received_once_and_in_order_are_no_fault() -> None:
    ledger = ledger_of(ConnectionChange.RECOVERED, ConnectionChange.LOST, ConnectionChange.RECOVERED)
    for event in (back(1), lost(2), back(3)):
        ledger.observe(event)
    assert ledger.verdict() == LedgerVerdict(0, 0, 0, 0)
    assert ledger.outstanding == 0


def test_a_loss_without_an_event_is_missing() -> None:
    ledger = ledger_of(ConnectionChange.RECOVERED, ConnectionChange.LOST)
    ledger.observe(back(1))
    assert ledger.verdict() == LedgerVerdict(missing=1, doubled=0, out_of_order=0, restated=0)
    assert ledger.outstanding == 1


def test_the_same_version_twice_is_doubled() -> None:
    ledger = ledger_of(ConnectionChange.LOST)
    ledger.observe(lost(2))
    ledger.observe(lost(2))
    assert ledger.verdict() == LedgerVerdict(missing=0, doubled=1, out_of_order=0, restated=0)


def test_two_events_for_one_loss_are_doubled_with_any_version() -> None:
    ledger = ledger_of(ConnectionChange.LOST)
    ledger.observe(lost(2))
    ledger.observe(lost(3))
    assert ledger.verdict() == LedgerVerdict(missing=0, doubled=1, out_of_order=0, restated=0)


def test_a_double_of_one_examinee_does_not_hide_a_miss_of_another() -> None:
    ledger = ledger_of(ConnectionChange.LOST)
    ledger.cause("E002", ConnectionChange.LOST, 0.0, RunPhase.MEASURED)
    ledger.observe(lost(2))
    ledger.observe(lost(3))
    assert ledger.verdict() == LedgerVerdict(missing=1, doubled=1, out_of_order=0, restated=0)


def test_an_event_of_any_type_that_is_older_than_one_seen_is_out_of_order() -> None:
    ledger = ledger_of(ConnectionChange.LOST)
    ledger.observe(lost(5))
    ledger.observe(ObservedEvent("examinee_reconnecting", "E001", 4, 0.0))
    ledger.observe(
        ObservedEvent("examinee_reconnecting", "E002", 3, 0.0)
    )  # somebody else's versions say nothing about this
    assert ledger.verdict() == LedgerVerdict(missing=0, doubled=0, out_of_order=1, restated=0)


def test_a_restated_event_is_not_doubled() -> None:
    ledger = ledger_of(ConnectionChange.LOST)
    ledger.observe(lost(2))
    ledger.observe(lost(3, restated=True))
    assert ledger.verdict() == LedgerVerdict(missing=0, doubled=0, out_of_order=0, restated=1)


def test_a_later_snapshot_stands_for_an_event_that_was_dropped_and_for_no_other() -> None:
    ledger = ledger_of(ConnectionChange.RECOVERED, ConnectionChange.LOST)
    ledger.observe(back(1))
    ledger.observe_snapshot(ObservedEvent(ConnectionChange.RECOVERED, "E001", 1, 0.0, True))
    assert ledger.outstanding == 1
    ledger.observe_snapshot(ObservedEvent(ConnectionChange.LOST, "E001", 2, 0.0, True))
    ledger.observe_snapshot(
        ObservedEvent(ConnectionChange.LOST, "E001", 3, 0.0, True)
    )  # an attempt to come back has changed the version since
    assert ledger.outstanding == 0
    assert ledger.verdict() == LedgerVerdict(missing=0, doubled=0, out_of_order=0, restated=1)


def test_latencies_are_of_the_phase_and_matched_by_version() -> None:
    ledger = Ledger()
    ledger.cause("E001", ConnectionChange.LOST, 1.0, RunPhase.SET_UP)
    ledger.cause("E001", ConnectionChange.LOST, 10.0, RunPhase.MEASURED)
    ledger.observe(lost(4, 12.5))  # came before the older one
    ledger.observe(lost(2, 13.0))
    assert ledger.latencies(ConnectionChange.LOST) == [2.5]
    assert ledger.times(ConnectionChange.LOST) == [12.5]
    assert ledger.latencies(ConnectionChange.LOST, RunPhase.SET_UP) == [12.0]


# -- migrations, and more than one proctor ---------------------------------------------------------------


def test_a_migration_published_as_such_is_no_fault() -> None:
    ledger = moved(ledger_of(ConnectionChange.RECOVERED))
    for event in (back(1), migrating(2), back(3)):
        ledger.observe(event)
    assert ledger.verdict() == LedgerVerdict(0, 0, 0, 0)
    assert (ledger.outstanding, ledger.migrated) == (0, 1)
    assert ledger.latencies(ConnectionChange.LOST) == [], "its figures are its own"


def test_a_migration_published_as_a_loss_is_a_false_alarm() -> None:
    ledger = moved(ledger_of(ConnectionChange.RECOVERED))
    for event in (back(1), lost(2), back(3)):
        ledger.observe(event)
    assert ledger.verdict() == LedgerVerdict(0, 0, 0, 0, false_alarms=1)


def test_a_slow_migration_published_as_a_loss_is_a_false_alarm() -> None:
    ledger = moved(ledger_of(ConnectionChange.RECOVERED))
    for event in (back(1), migrating(2), lost(3), back(4)):
        ledger.observe(event)
    assert ledger.verdict().false_alarms == 1


def test_a_migration_without_an_event_is_missing() -> None:
    ledger = moved(ledger_of(ConnectionChange.RECOVERED))
    for event in (back(1), back(3)):
        ledger.observe(event)
    assert ledger.verdict().missing == 1


def test_a_loss_that_became_a_migration_counts_as_published() -> None:
    ledger = ledger_of(ConnectionChange.RECOVERED, ConnectionChange.LOST)
    for event in (back(1), migrating(2)):
        ledger.observe(event)
    assert ledger.verdict() == LedgerVerdict(0, 0, 0, 0)


def test_an_event_that_one_of_two_proctors_received_is_not_missing() -> None:
    ledger = ledger_of(ConnectionChange.RECOVERED, ConnectionChange.LOST, ConnectionChange.RECOVERED)
    for event, by in ((back(1), "one"), (back(1), "two"), (lost(2), "two"), (back(3), "two"), (back(3), "one")):
        ledger.observe(event, by)
    assert ledger.verdict() == LedgerVerdict(0, 0, 0, 0)
    assert ledger.outstanding == 0


def test_each_proctor_is_checked_on_its_own() -> None:
    ledger = ledger_of(ConnectionChange.RECOVERED, ConnectionChange.LOST)
    for event, by in ((back(1), "one"), (lost(2), "one"), (lost(2), "two"), (back(1), "two"), (lost(2), "two")):
        ledger.observe(event, by)
    assert ledger.verdict() == LedgerVerdict(missing=0, doubled=1, out_of_order=1, restated=0)


def test_a_snapshot_that_is_ahead_of_the_other_proctors_frame_counts_once() -> None:
    ledger = ledger_of(ConnectionChange.RECOVERED, ConnectionChange.LOST)
    ledger.observe(back(1), "one")
    ledger.observe_snapshot(ObservedEvent(ConnectionChange.LOST, "E001", 2, 0.0, True), "two")
    ledger.observe(lost(2), "one")
    assert ledger.verdict().doubled == ledger.verdict().missing == 0


@given(st.permutations([("cause", 0), ("cause", 1), ("cause", 2), ("see", 0), ("see", 1), ("see", 2)]))
def test_causes_and_frames_may_arrive_in_any_order(order: list[tuple[str, int]]) -> None:
    ledger = Ledger()
    for kind, number in order:
        if kind == "cause":
            ledger.cause("E001", ConnectionChange.LOST, float(number), RunPhase.MEASURED)
        else:
            ledger.observe(lost(10 + number, 5.0 + number))
    assert ledger.outstanding == 0
    assert ledger.verdict().missing == 0
    assert ledger.verdict().doubled == 0


# -- the report ----------------------------------------------------------------------------------------


def test_the_names_in_json_are_those_of_the_design_and_always_there() -> None:
    fields = report().as_json()
    assert fields.keys() >= NAMES_OF_THE_DESIGN
    assert "ratio" not in fields
    assert "baseline" not in fields


def test_percentiles_in_json_have_the_names_of_the_design() -> None:
    run = report()
    run.latency = Percentiles(1.0, 2.0, 3.0, 200)
    assert run.as_json()["latencyMs"] == {"p50": 1.0, "p95": 2.0, "p99": 3.0, "samples": 200}


def test_the_ratio_is_of_the_medians_one_by_one() -> None:
    run = report()
    run.latency = Percentiles(6.0, 8.0, 9.0, 200)
    run.compare(Baseline(Percentiles(4.0, 5.0, 6.0, 200)))
    fields = run.as_json()
    assert fields["ratio"] == fields["baseline"]["ratio"] == 1.5


def test_the_ratio_is_of_the_throughputs_in_a_hall_outage() -> None:
    run = report("hall-outage")
    run.losses_per_second, run.latency = 5000.0, Percentiles(1.0, 1.0, 1.0, 1)
    run.compare(Baseline(Percentiles(9.0, 9.0, 9.0, 1), losses_per_second=10000.0))
    assert run.as_json()["ratio"] == 2.0


@pytest.mark.parametrize(
    "fault",
    [
        {"verdict": LedgerVerdict(1, 0, 0, 0)},
        {"verdict": LedgerVerdict(0, 1, 0, 0)},
        {"verdict": LedgerVerdict(0, 0, 1, 0)},
        {"verdict": LedgerVerdict(0, 0, 0, 0, 1)},
        {"views_disagree": 1},
        {"redis_disagrees": 1},
        {"unexpected_losses": 1},
        {"not_admitted": 1},
    ],
)
def test_any_fault_makes_a_run_incorrect(fault: dict[str, object]) -> None:
    run = report()
    assert run.correct
    for name, value in fault.items():
        setattr(run, name, value)
    assert not run.correct
    assert run.as_json()["correct"] is False


def test_the_table_has_faults_and_figures_but_no_empty_rows() -> None:
    run = report()
    run.losses_per_second, run.unexpected_losses = 5123.4, 2
    rows = dict(run.rows())
    assert rows["losses/s"] == "5,123.4"
    assert rows["unexpected losses"] == "2"
    assert "recoveries/s" not in rows
    assert "baseline: latency" not in rows


def test_what_the_load_itself_uses_is_no_cost_of_an_event() -> None:
    figures = report("hall-outage")
    figures.cpu_each["loss"] = {"state-manager": 60.0, "redis-server": 20.0, "load: proctors": 13.0}
    assert figures.cpu_of_system("loss") == 80.0
    assert figures.as_json()["cpuMicrosecondsEach"] == {"loss": figures.cpu_each["loss"]}
    assert dict(figures.rows())["CPU µs a loss"] == "80: state-manager 60, redis-server 20, (load: proctors 13)"


# -- the matrix ----------------------------------------------------------------------------------------


def test_a_matrix_begins_with_the_first_numbers_and_changes_one_of_them_at_a_time() -> None:
    runs = list(Counts((1, 2, 4), (1, 2), (1, 50), (None, 10)).runs())
    assert runs == [
        (1, 1, 1, None),
        (2, 1, 1, None),
        (4, 1, 1, None),
        (1, 2, 1, None),
        (1, 1, 50, None),
        (1, 1, 1, 10),
    ]


@pytest.mark.parametrize("text", ["", "0", "2,9", "two", "1,,2"])
def test_what_is_no_list_of_numbers_in_bounds_is_refused(text: str) -> None:
    with pytest.raises(typer.BadParameter, match="--servers takes numbers from 1 to 8"):
        counts_of("--servers", text, 8, (1,))
