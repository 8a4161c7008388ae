"""Metrics of the state manager's process: losses and recoveries of examinees, and the progress of its work."""

from __future__ import annotations

import collections
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from prometheus_client import Counter, Gauge, Histogram, Metric
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from actors.runtime.actor.registry import ACTORS
from actors.runtime.telemetry.metrics import REGISTRY
from protocol.close_codes import CLOSE_RULES
from protocol.messages.base import Message
from protocol.messages.facts import LossReason
from protocol.messages.proctor_events import Event, ExamineeConnected, ExamineeDisconnected, ExamineeMigrating
from protocol.messages.server_messages import SUPERSEDED, ServerStatus
from protocol.rules.connection_state import READMITTED

if TYPE_CHECKING:
    from actors.state_manager.decisions import Decision
    from protocol.records.placement import VersionedMessage

BATCHES = Histogram(
    "examwire_state_batch_messages",
    "Messages processed in one batch",
    registry=REGISTRY,
    buckets=(1, 4, 16, 64, 256, 1024),
)
STAGES = Histogram(
    "examwire_state_stage_seconds",
    "Duration of each step of the order of work",
    ["stage"],
    registry=REGISTRY,
    buckets=(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 2.5),
)
FACTS = Counter("examwire_state_facts_total", "Facts by outcome", ["outcome"], registry=REGISTRY)
RECORDS = Counter(
    "examwire_state_records_total",
    "Records that facts were applied to or that were looked at: read from Redis, copies, copies that were outdated",
    ["source"],
    registry=REGISTRY,
)
LOSSES = Counter(
    "examwire_losses_total",
    "Losses that proctors were told of, by reason. A loss that is published again after a crash counts again",
    ["reason"],
    registry=REGISTRY,
)
RECOVERIES = Counter(
    "examwire_recoveries_total",
    "Examinees who came back, by reason of the loss",
    ["reason"],
    registry=REGISTRY,
)
OUTAGES = Histogram(
    "examwire_outage_seconds",
    "Length of the outages of examinees who came back",
    registry=REGISTRY,
    buckets=(1.0, 2.5, 5.0, 10.0, 20.0, 40.0, 80.0, 160.0, 320.0, 640.0),
)
MIGRATIONS = Counter(
    "examwire_migrations_total",
    "Examinees whom a drained server sent to another one, by step: sent, arrived, lost on the way",
    ["step"],
    registry=REGISTRY,
)
BEHIND = Gauge(
    "examwire_state_behind_seconds",
    "How long the oldest unapplied fact, or an engine that is needed to apply it, has been waited for",
    registry=REGISTRY,
)
SUPERSEDED_SERVERS = Counter(
    "examwire_servers_superseded_total",
    "Socket servers that ended because another process had started with their serverId",
    registry=REGISTRY,
)

_REASONS = {*LossReason, *(rule.name for rule in CLOSE_RULES.values()), READMITTED}
_SENT, _ARRIVED, _LOST = (MIGRATIONS.labels(step) for step in ("sent", "arrived", "lost"))
for _reason in LossReason:  # at 0 from the start: a counter that begins with 1 has not increased
    LOSSES.labels(_reason.value)
    RECOVERIES.labels(_reason.value)


def count_batch(items: Sequence[VersionedMessage]) -> None:
    """Observe the size of a portion before it is processed."""
    BATCHES.observe(len(items))


def count_published(
    items: Sequence[VersionedMessage], decision: Decision, settle_seconds: float, tell_seconds: float
) -> None:
    """Count the facts of a portion and the events published about them."""
    STAGES.labels("settle").observe(settle_seconds)
    STAGES.labels("tell").observe(tell_seconds)
    FACTS.labels("applied").inc(decision.applied)
    FACTS.labels("repeated").inc(decision.repeated)
    FACTS.labels("late").inc(decision.late)
    RECORDS.labels("redis").inc(decision.read)
    RECORDS.labels("copy").inc(decision.cached)
    RECORDS.labels("outdated").inc(decision.outdated)
    if decision.damaged:
        FACTS.labels("dead").inc(len(decision.damaged))
    count_told(decision.events)
    count_superseded(item.message for item in items)


def count_superseded(messages: Iterable[Message]) -> None:
    """Count the servers that were superseded by another process."""
    for message in messages:
        if isinstance(message, ServerStatus) and message.reason == SUPERSEDED:
            SUPERSEDED_SERVERS.inc()


def count_told(events: Iterable[Event]) -> None:
    """Count the events of a batch by kind and reason. Restated events were counted before."""
    lost: collections.Counter[str | None] = collections.Counter()
    back: collections.Counter[str | None] = collections.Counter()
    sent = arrived = 0
    for event in events:
        if isinstance(event, ExamineeDisconnected):
            if event.restated is None:
                lost[event.reason] += 1
        elif isinstance(event, ExamineeConnected):
            arrived += event.migrated is True
            if event.recovered:
                back[event.recovered_from] += 1
                if event.outage_seconds is not None:
                    OUTAGES.observe(event.outage_seconds)
        elif isinstance(event, ExamineeMigrating):
            sent += event.restated is None
    for reason, count in lost.items():
        LOSSES.labels(_known(reason)).inc(count)
    for reason, count in back.items():
        RECOVERIES.labels(_known(reason)).inc(count)
    _SENT.inc(sent)
    _ARRIVED.inc(arrived)
    _LOST.inc(lost[LossReason.SERVER_DRAINING])


def _known(reason: str | None) -> str:
    """Return a reason as a label: "other" when it is none of ours, so that senders of facts cannot add series."""
    return reason if reason is not None and reason in _REASONS else "other"


class _StateManagers(Collector):
    """Metrics that are read from the inspections of the state managers in this process."""

    def collect(self) -> Iterator[Metric]:
        waiting = GaugeMetricFamily(
            "examwire_state_waiting",
            "Whether the state manager is stopped until Redis answers (redis) or is brought up to the log (state)",
            labels=["reason"],
        )
        details = [manager.details() for manager in ACTORS.running("state-manager")]
        for reason in ("redis", "state"):
            waiting.add_metric([reason], max((detail["waitingFor"] == reason for detail in details), default=0))
        yield waiting
        yield GaugeMetricFamily(
            "examwire_newer_messages_waiting",
            "Messages of the log that this state manager leaves to a newer release, which it does not understand",
            value=sum(detail["newer"] for detail in details),
        )


REGISTRY.register(_StateManagers())
