"""Compute percentiles and rates of samples."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Percentiles:
    """Percentiles in milliseconds, by nearest rank: the smallest value that `p` percent of the samples do not exceed.

    Example::

        Percentiles.of([0.010, 0.020]).p50  # 10.0
    """

    p50: float
    p95: float
    p99: float
    samples: int

    @classmethod
    def of(cls, seconds: Iterable[float]) -> Percentiles | None:
        """Compute the percentiles of samples in seconds; `None` without samples."""
        ordered = sorted(seconds)
        if not ordered:
            return None
        p50, p95, p99 = (round(nearest_rank(ordered, percent) * 1000, 3) for percent in (50, 95, 99))
        return cls(p50, p95, p99, len(ordered))


def nearest_rank(ordered: Sequence[float], percent: float) -> float:
    """Return the nearest-rank percentile of a non-empty sequence in ascending order."""
    return ordered[max(0, math.ceil(percent / 100 * len(ordered)) - 1)]


def per_second(times: Sequence[float]) -> float | None:
    """Return the rate of events: count / (last - first); `None` if they do not span a time."""
    span = max(times) - min(times) if len(times) > 1 else 0.0
    return round(len(times) / span, 1) if span > 0 else None
