"""Read what this process measures."""

from __future__ import annotations

from actors.runtime.telemetry.metrics import REGISTRY


def sample(metric: str, /, **labels: str) -> float:
    """Return the value of a series now; 0 for one that does not exist yet."""
    return REGISTRY.get_sample_value(metric, labels) or 0.0
