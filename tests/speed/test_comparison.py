"""What `python -m tests.speed` prints of its runs."""

from __future__ import annotations

from tests.speed.comparison import rows
from tests.speed.system import Figures


def run(manager: float, redis: float) -> Figures:
    return {"loss": {"state-manager": manager, "redis-server": redis, "queue-server": 0.0}}


def test_medians_are_compared_and_all_is_the_sum_within_each_run() -> None:
    before = [run(100.0, 50.0), run(120.0, 40.0), run(900.0, 45.0)]
    after = [run(60.0, 20.0), run(54.0, 30.0), run(66.0, 25.0)]
    assert rows(before, after) == [
        ("loss", "state-manager", "120.0", "60.0", "0.50", "54.0 - 66.0"),
        ("loss", "redis-server", "45.0", "25.0", "0.56", "20.0 - 30.0"),
        ("loss", "all", "160.0", "84.0", "0.53", "80.0 - 91.0"),
    ]


def test_figures_that_are_no_costs_have_no_sum_and_zero_is_shown() -> None:
    after: list[Figures] = [{"wrong": {"missing": 0.0, "doubled": 0.0}}]
    assert rows([], after) == [
        ("wrong", "missing", "0.0", "0.0 - 0.0"),
        ("wrong", "doubled", "0.0", "0.0 - 0.0"),
    ]


def test_what_the_other_system_does_not_have_has_no_ratio() -> None:
    (row,) = rows([{}], [{"idle": {"KiB a connection": 4.0}}])
    assert row == ("idle", "KiB a connection", "0.0", "4.0", "", "4.0 - 4.0")
