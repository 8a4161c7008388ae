"""Metrics of the queue server: the streams and consumers of the broker."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator, Sequence

from prometheus_client import Counter, Gauge, Metric
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from actors.runtime.broker.connection import Bus
from actors.runtime.broker.stream_state import ConsumerState, StorageState, StreamState
from actors.runtime.telemetry.metrics import REGISTRY
from protocol.errors import BrokerUnavailable

log = logging.getLogger("examwire.queue_server")

ASK_SECONDS = 5.0

CONSUMER_UP = Gauge(
    "examwire_consumer_up",
    "Whether a consumer that the system needs exists",
    ["stream", "consumer"],
    registry=REGISTRY,
)
MADE_AGAIN = Counter(
    "examwire_topology_made_again_total",
    "Streams and consumers that were missing and have been created again",
    ["kind", "name"],
    registry=REGISTRY,
)
LOG_SHORTENED = Gauge(
    "examwire_log_shortened_seconds",
    "By how much the log is kept for a shorter time than declared, because it was nearly full",
    registry=REGISTRY,
)
WRITABLE = Gauge("examwire_jetstream_writable", "Whether the broker has stored the latest probe", registry=REGISTRY)


class BrokerMetrics(Collector):
    """The latest answers of the broker. A stream that did not answer counts as down and has no other metrics.

    queue_server.spawn(BROKER.follow(bus, ["STATUS", "SOCKET"]), "metrics")
    """

    def __init__(self) -> None:
        self._streams: dict[str, StreamState] = {}
        self._consumers: dict[str, Sequence[ConsumerState]] = {}
        self._down: set[str] = set()
        self._storage: StorageState | None = None

    async def follow(self, bus: Bus, streams: Sequence[str]) -> None:
        """Ask about these streams every few seconds until cancelled."""
        try:
            while True:
                await asyncio.gather(*(self._ask_stream(bus, name) for name in streams), self._ask_storage(bus))
                await asyncio.sleep(ASK_SECONDS)
        finally:  # old answers must not be shown as current
            self._streams, self._consumers, self._down, self._storage = {}, {}, set(), None

    async def _ask_storage(self, bus: Bus) -> None:
        try:
            self._storage = await bus.storage_state()
        except BrokerUnavailable as error:
            self._storage = None
            log.debug("storage: %s", error)

    async def _ask_stream(self, bus: Bus, stream: str) -> None:
        try:
            state, consumers = await bus.stream_state(stream), await bus.consumer_states(stream)
        except BrokerUnavailable as error:
            log.debug("%s: %s", stream, error)
            self._down.add(stream)
            self._streams.pop(stream, None)
            self._consumers.pop(stream, None)
        else:
            self._down.discard(stream)
            self._streams[stream], self._consumers[stream] = state, consumers

    def collect(self) -> Iterator[Metric]:
        up = GaugeMetricFamily(
            "examwire_stream_up", "Whether the stream answers: it exists and has a leader", labels=["stream"]
        )
        for stream in (*self._streams, *self._down):
            up.add_metric([stream], stream in self._streams)
        yield up
        yield from self._stream_metrics()
        yield from self._consumer_metrics()
        used = GaugeMetricFamily("examwire_jetstream_storage_bytes", "What all streams of the account hold on disk")
        limit = GaugeMetricFamily("examwire_jetstream_storage_limit_bytes", "What they may hold, if that is limited")
        if self._storage is not None:
            used.add_metric([], self._storage.used)
            if self._storage.limit is not None:
                limit.add_metric([], self._storage.limit)
        yield from (used, limit)

    def _stream_metrics(self) -> Iterator[Metric]:
        by_stream = ["stream"]
        messages = GaugeMetricFamily("examwire_stream_messages", "Messages that the stream holds", labels=by_stream)
        size = GaugeMetricFamily("examwire_stream_size_bytes", "What they take on disk", labels=by_stream)
        limit = GaugeMetricFamily("examwire_stream_limit_bytes", "What they may take, if limited", labels=by_stream)
        age = GaugeMetricFamily(
            "examwire_stream_age_limit_seconds", "How long it keeps them, if limited", labels=by_stream
        )
        last = GaugeMetricFamily("examwire_stream_last_sequence", "The place of its newest message", labels=by_stream)
        replicas = GaugeMetricFamily("examwire_stream_replicas", "Copies that it should have", labels=by_stream)
        current = GaugeMetricFamily("examwire_stream_replicas_current", "Copies up to date", labels=by_stream)
        for name, state in self._streams.items():
            messages.add_metric([name], state.messages)
            size.add_metric([name], state.size)
            if state.limit is not None:
                limit.add_metric([name], state.limit)
            if state.max_age:
                age.add_metric([name], state.max_age)
            last.add_metric([name], state.last)
            replicas.add_metric([name], state.replicas)
            current.add_metric([name], state.current)
        yield from (messages, size, limit, age, last, replicas, current)

    def _consumer_metrics(self) -> Iterator[Metric]:
        labels = ["stream", "consumer"]
        pending = GaugeMetricFamily(
            "examwire_consumer_pending_messages", "Messages that wait to be delivered", labels=labels
        )
        unacknowledged = GaugeMetricFamily(
            "examwire_consumer_unacknowledged_messages", "Messages that were delivered and not settled", labels=labels
        )
        pulls = GaugeMetricFamily(
            "examwire_consumer_waiting_pulls",
            "Requests for messages that are open: 0 means nobody reads",
            labels=labels,
        )
        for stream, consumers in self._consumers.items():
            for state in consumers:
                names = [stream, state.name]
                pending.add_metric(names, state.pending)
                unacknowledged.add_metric(names, state.unacknowledged)
                pulls.add_metric(names, state.pulls_waiting)
        yield from (pending, unacknowledged, pulls)


BROKER = BrokerMetrics()
REGISTRY.register(BROKER)
