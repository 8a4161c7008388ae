"""Metrics of the watches: reconnect attempts and expired leases."""

from __future__ import annotations

from prometheus_client import Counter

from actors.runtime.telemetry.metrics import REGISTRY

ATTEMPTS = Counter("examwire_reconnect_attempts_total", "Reconnect attempts that were counted", registry=REGISTRY)


EXHAUSTED = Counter(
    "examwire_reconnect_exhausted_total", "Examinees who used up all attempts and wait for a proctor", registry=REGISTRY
)


LEASE_EXPIRIES = Counter(
    "examwire_lease_expiries_total", "Socket servers declared lost because their heartbeat stopped", registry=REGISTRY
)
