"""Metrics of a socket server: its sockets, who is let in and refused, and what waits."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import Counter, Metric
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from actors.runtime.actor.registry import ACTORS
from actors.runtime.telemetry.metrics import REGISTRY
from actors.sessions.metrics import BREAKS
from protocol.messages.facts import LossReason

ACCEPTS = Counter(
    "examwire_socket_accepts_total", "Clients that were accepted after their hello", ["client"], registry=REGISTRY
)
REFUSALS = Counter(
    "examwire_socket_refusals_total",
    "Refused handshakes, by reason: answered with 503, or closed with 1013 for a browser",
    ["reason"],
    registry=REGISTRY,
)
EXPIRED = Counter(
    "examwire_socket_expired_messages_total",
    "Messages of the queue that were not delivered because they were older than expireTime",
    registry=REGISTRY,
)

# At 0 from the start: a counter whose first value is 1 has not increased.
for _reason in ("closed", "full", "too_fast", "address_full", "address_too_fast"):
    REFUSALS.labels(_reason)
for _reason in (LossReason.PING_TIMEOUT, LossReason.SLOW_CLIENT, LossReason.PROTOCOL_ERROR):
    BREAKS.labels(_reason)


class _SocketServers(Collector):
    """Reads the inspections of the socket servers in this process when Prometheus asks."""

    def collect(self) -> Iterator[Metric]:
        sessions = GaugeMetricFamily(
            "examwire_socket_connections", "Clients that are connected, by what they are", labels=["client"]
        )
        accepting = GaugeMetricFamily("examwire_socket_accepting", "Whether new clients are let in: READY")
        outbox = GaugeMetricFamily("examwire_socket_outbox_messages", "Statuses that are not known to be in the log")
        not_current = GaugeMetricFamily(
            "examwire_socket_plans_not_current", "Plans with clients here of which they see an older state"
        )
        details = [server.details() for server in ACTORS.running("socket-server")]
        sessions.add_metric(["examinee"], sum(server["examinees"] for server in details))
        sessions.add_metric(["proctor"], sum(server["proctors"] for server in details))
        accepting.add_metric([], sum(server["accepting"] for server in details))
        outbox.add_metric([], sum(server["outbox"] for server in details))
        not_current.add_metric([], sum(len(server["plansNotCurrent"]) for server in details))
        yield from (sessions, accepting, outbox, not_current)


REGISTRY.register(_SocketServers())
