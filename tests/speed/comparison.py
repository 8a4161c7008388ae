"""Compare measurements of two trees: medians, their spread, and ratios."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from tests.speed.system import ROLES, Figures


def rows(before: Sequence[Figures], after: Sequence[Figures]) -> list[tuple[str, ...]]:
    """Return a row for each event and figure: event, figure, median before, median after, ratio, spread after.

    Without `before`: event, figure, median, spread. The spread is lowest - highest.

    Example::

        rows([], [{"loss": {"state-manager": 140.0}}])  # [("loss", "state-manager", "140.0", "140.0 - 140.0")]
    """
    table: list[tuple[str, ...]] = []
    for event, figures in after[0].items():
        for name in [*figures, *(["all"] if figures.keys() & set(ROLES) else [])]:
            new = [_value(run, event, name) for run in after]
            if name in ROLES and not any(new):
                continue  # this role has no part in it
            spread = f"{min(new):,.1f} - {max(new):,.1f}"
            if not before:
                table.append((event, name, f"{statistics.median(new):,.1f}", spread))
                continue
            old = [_value(run, event, name) for run in before]
            middle = statistics.median(old)
            ratio = f"{statistics.median(new) / middle:.2f}" if middle > 0 else ""
            table.append((event, name, f"{middle:,.1f}", f"{statistics.median(new):,.1f}", ratio, spread))
    return table


def _value(run: Figures, event: str, name: str) -> float:
    return sum(run[event].values()) if name == "all" else run.get(event, {}).get(name, 0.0)
