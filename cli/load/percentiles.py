"""Figures of samples: percentiles and rates."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Percentiles:
    """Nearest rank (the smallest value that `p` percent of the samples do not exceed), in ms."""

    p50: float
    p95: float
    p99: float
    samples: int

    @classmethod
    def of(cls, seconds: Iterable[float]) -> Percentiles | None:
        """`None` when there is no sample."""
        ordered = sorted(seconds)
        if not ordered:
            return None
        p50, p95, p99 = (round(nearest_rank(ordered, percent) * 1000, 3) for percent in (50, 95, 99))
        return cls(p50, p95, p99, len(ordered))


def nearest_rank(ordered: Sequence[float], percent: float) -> float:
    """The nearest-rank percentile of values in ascending order, at least one."""
    return ordered[max(0, math.ceil(percent / 100 * len(ordered)) - 1)]


def per_second(times: Sequence[float]) -> float | None:
    """How many a second: count / (last - first); `None` when they do not span a time."""
    span = max(times) - min(times) if len(times) > 1 else 0.0
    return round(len(times) / span, 1) if span > 0 else None
