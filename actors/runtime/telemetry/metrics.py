"""The metrics of a process: the registry, and the metrics that every role has.

Names and units follow Prometheus' conventions. No examinee, plan or socket is ever a label; `examwire examinees show`
and the log name them. Role and server are labels of the scraped target, not of the metric. The metrics of one kind of
actor stand beside it (`actors.socket_server.metrics`, `actors.state_manager.metrics`, ...), so that a role exports no
others.

Code that uses a labelled metric often keeps its child: `labels()` costs about 0.5 µs.
"""

from __future__ import annotations

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Info,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
)

from actors.runtime import VERSION

# Without this, each counter has a second series with the time of its creation.
disable_created_metrics()  # type: ignore[no-untyped-call]
REGISTRY = CollectorRegistry()
ProcessCollector(registry=REGISTRY)
PlatformCollector(registry=REGISTRY)
Info("examwire_build", "What is running here", registry=REGISTRY).info({"version": VERSION})

# -- the process ----------------------------------------------------------------------------------------

LOOP_LAG = Histogram(
    "examwire_event_loop_lag_seconds",
    "How late the event loop ran a timer",
    registry=REGISTRY,
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5),
)
LOOP_LAG_MAX = Gauge(
    "examwire_event_loop_lag_max_seconds", "The longest event loop lag within the last minute", registry=REGISTRY
)
FAILURES = Counter(
    "examwire_actor_failures_total", "Handlers and loops of actors that raised an error", ["kind"], registry=REGISTRY
)
RESTARTS = Counter(
    "examwire_actor_restarts_total", "Actors that failed and were restarted", ["kind"], registry=REGISTRY
)

# -- the engines, as seen from here ---------------------------------------------------------------------

ENGINE_UP = Gauge(
    "examwire_engine_up", "Whether the engine answered the latest probe of this process", ["engine"], registry=REGISTRY
)
ROUND_TRIPS = Histogram(
    "examwire_engine_round_trip_seconds",
    "Round trip to the engine, sampled every few seconds",
    ["engine"],
    registry=REGISTRY,
    buckets=(0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 2.5),
)
ROUND_TRIP_ERRORS = Counter(
    "examwire_engine_round_trip_errors_total", "Probes that got no answer", ["engine"], registry=REGISTRY
)
NATS_RECONNECTS = Counter(
    "examwire_nats_reconnects_total", "Times that the connection to NATS was lost and restored", registry=REGISTRY
)
CLOCK_OFFSET = Gauge(
    "examwire_clock_offset_seconds",
    "This machine's clock minus that of the Redis server's machine, exact to half a round trip",
    registry=REGISTRY,
)
BROKER_CLOCK_OFFSET = Gauge(
    "examwire_broker_clock_offset_seconds",
    "This machine's clock minus the broker's clock, which ages, deadlines and times in the log use",
    registry=REGISTRY,
)
PUBLISHES = Histogram(
    "examwire_publish_seconds",
    "Time from publishing messages to the broker's last ack, which it sends when they are on its disk",
    registry=REGISTRY,
    buckets=(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0),
)
PUBLISH_FAILURES = Counter(
    "examwire_publish_failures_total", "Messages that were not acknowledged and had to be sent again", registry=REGISTRY
)
PUBLISH_REFUSALS = Counter(
    "examwire_publish_refusals_total",
    "Messages that the broker refused to store; full: a limit of the stream, the account or the server is reached",
    ["stream", "reason"],
    registry=REGISTRY,
)

# -- what arrives ---------------------------------------------------------------------------------------

DELIVERY_AGE = Histogram(
    "examwire_delivery_age_seconds",
    "Age of the oldest message of a batch at its first delivery",
    ["consumer"],
    registry=REGISTRY,
    buckets=(0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0),
)
REDELIVERIES = Counter(
    "examwire_redeliveries_total",
    "Messages that were redelivered; for the reconnect watch each redelivery is an attempt, and normal",
    ["consumer"],
    registry=REGISTRY,
)
NEWER_MESSAGES = Counter(
    "examwire_newer_messages_skipped_total",
    "Messages that only a newer release understands and nobody waits for: this process did without them",
    ["stream"],
    registry=REGISTRY,
)
DEAD_LETTERS = Counter(
    "examwire_dead_letters_total",
    "Dead letters written by this process, by the stream of the message",
    ["stream"],
    registry=REGISTRY,
)
