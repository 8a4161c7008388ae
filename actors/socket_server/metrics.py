"""What a socket server measures: its sockets, how they end, and how soon proctors know."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from prometheus_client import Counter, Histogram, Metric
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from actors.runtime.actor.registry import CENSUS
from actors.runtime.telemetry.metrics import REGISTRY
from protocol.close_codes import CLOSE_RULES
from protocol.messages.facts import LossReason
from protocol.times import parse_time

ACCEPTS = Counter("examwire_socket_accepts_total", "Clients let in after their hello", ["client"], registry=REGISTRY)
REFUSALS = Counter(
    "examwire_socket_refusals_total",
    "Handshakes answered with 503, or with close code 1013 when they are a browser's, by the reason",
    ["reason"],
    registry=REGISTRY,
)
LIMITS_HIT = Counter(
    "examwire_socket_limits_hit_total",
    "Connections that were dropped (connects, idle, request_late), answered 400 or 431 (bad_request), closed with 1008 "
    "before their hello (before_hello), or read more slowly after it (paused)",
    ["reason"],
    registry=REGISTRY,
)
CLOSES = Counter(
    "examwire_socket_closes_total",
    "WebSockets that ended, by the close code of whoever closed first; 1006: broke without one",
    ["code"],
    registry=REGISTRY,
)
BREAKS = Counter(
    "examwire_socket_breaks_total",
    "WebSockets that the server broke off: PING_TIMEOUT, SLOW_CLIENT, ...",
    ["reason"],
    registry=REGISTRY,
)
EXPIRED = Counter(
    "examwire_socket_expired_messages_total",
    "Messages of the server's queue that were older than its expireTime and were not delivered",
    registry=REGISTRY,
)
LATENCY = Histogram(
    "examwire_proctor_latency_seconds",
    "From the socket's begin or end to the frame for the proctors of its plan. By the broker's clock, as each of the "
    "two socket servers knows it",
    ["event"],
    registry=REGISTRY,
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0),
)

_LATENCY_OF = {
    "examinee_disconnected": LATENCY.labels("loss"),
    "examinee_connected": LATENCY.labels("connection"),
}
# Codes that RFC 6455 names and browsers may send; any other 4 digits of a client's choice are one series.
_KNOWN_CODES = {code: CLOSES.labels(str(code)) for code in (*CLOSE_RULES, 1002, 1005, 1006, 1007, 1008)}
_OTHER_CODE = CLOSES.labels("other")
# At 0 from the start: a counter that begins with 1 has not increased.
for _reason in ("closed", "full", "too_fast", "address_full", "address_too_fast"):
    REFUSALS.labels(_reason)
for _limit in ("connects", "idle", "request_late", "bad_request", "before_hello", "paused"):
    LIMITS_HIT.labels(_limit)
for _reason in (LossReason.PING_TIMEOUT, LossReason.SLOW_CLIENT, LossReason.PROTOCOL_ERROR):
    BREAKS.labels(_reason)


def count_close(code: int) -> None:
    """A WebSocket that was open has ended with `code`."""
    _KNOWN_CODES.get(code, _OTHER_CODE).inc()


def observe_told(events: Iterable[Mapping[str, Any]], now: float) -> None:
    """Proctors are sent these events `now` (seconds since the epoch). What is told anew took no time to speak of."""
    for event in events:
        latency = _LATENCY_OF.get(str(event.get("type")))
        data = event["data"]
        if latency is None or data.get("restated"):
            continue
        try:
            happened = parse_time(data["timestamp"])
        except (KeyError, TypeError, ValueError):
            continue  # the proctors judge it; there is nothing to measure
        latency.observe(max(0.0, now - happened))


class _SocketServers(Collector):
    """What the socket servers of this process hold, read from their inspections."""

    def collect(self) -> Iterator[Metric]:
        sockets = GaugeMetricFamily("examwire_socket_open", "TCP connections with a WebSocket, greeted or not")
        sessions = GaugeMetricFamily(
            "examwire_socket_connections", "Clients that are connected, by what they are", labels=["client"]
        )
        accepting = GaugeMetricFamily("examwire_socket_accepting", "Whether new clients are let in: READY")
        outbox = GaugeMetricFamily("examwire_socket_outbox_messages", "Statuses that are not known to be in the log")
        not_current = GaugeMetricFamily(
            "examwire_socket_plans_not_current", "Plans with clients here of which they see an older state"
        )
        details = [server.details() for server in CENSUS.living("socket-server")]
        sockets.add_metric([], sum(one["sockets"] for one in details))
        sessions.add_metric(["examinee"], sum(one["examinees"] for one in details))
        sessions.add_metric(["proctor"], sum(one["proctors"] for one in details))
        accepting.add_metric([], sum(one["accepting"] for one in details))
        outbox.add_metric([], sum(one["outbox"] for one in details))
        not_current.add_metric([], sum(len(one["plansNotCurrent"]) for one in details))
        yield from (sockets, sessions, accepting, outbox, not_current)


REGISTRY.register(_SocketServers())
