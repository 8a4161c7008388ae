"""Metrics of client sessions: how they end, and how long an event takes to reach a screen."""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client import Counter, Histogram

from actors.runtime.telemetry.metrics import REGISTRY
from protocol.broker.passed_on import PlanEvent
from protocol.close_codes import CLOSE_RULES

CLOSES = Counter(
    "examwire_socket_closes_total",
    "WebSockets that ended, by the first close code; 1006: ended without one",
    ["code"],
    registry=REGISTRY,
)


BREAKS = Counter(
    "examwire_socket_breaks_total",
    "WebSockets that the server aborted, by reason: PING_TIMEOUT, SLOW_CLIENT, ...",
    ["reason"],
    registry=REGISTRY,
)


LATENCY = Histogram(
    "examwire_proctor_latency_seconds",
    "Time from the begin or end of a socket to the frame for the proctors of its plan, by the broker's clock",
    ["event"],
    registry=REGISTRY,
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0),
)


_LATENCY_OF = {
    "examinee_disconnected": LATENCY.labels("loss"),
    "examinee_connected": LATENCY.labels("connection"),
}


# Our codes, and those of RFC 6455 that browsers may send. All others share one series: clients may choose any.
_KNOWN_CODES = {code: CLOSES.labels(str(code)) for code in (*CLOSE_RULES, 1002, 1005, 1006, 1007, 1008)}


_OTHER_CODE = CLOSES.labels("other")


def count_close(code: int) -> None:
    """Count a WebSocket that was open and has ended with `code`."""
    _KNOWN_CODES.get(code, _OTHER_CODE).inc()


def observe_told(events: Iterable[PlanEvent], now: float) -> None:
    """Measure the latency of events that are sent to proctors `now` (seconds since the epoch); not of restated ones."""
    for event in events:
        if event.happened is not None:
            _LATENCY_OF[event.kind].observe(max(0.0, now - event.happened))


LIMITS_HIT = Counter(
    "examwire_socket_limits_hit_total",
    "Connections that were dropped (connects, idle, request_late), answered 400 or 431 (bad_request), closed with 1008 "
    "before their hello (before_hello), or read more slowly after it (paused)",
    ["reason"],
    registry=REGISTRY,
)


# At 0 from the start: a counter whose first value is 1 has not increased.
for _limit in ("connects", "idle", "request_late", "bad_request", "before_hello", "paused"):
    LIMITS_HIT.labels(_limit)
