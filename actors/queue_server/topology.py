"""The streams and consumers that the settings declare, and how they are made."""

from __future__ import annotations

from actors.queue_server.checkpoints import Checkpoints
from actors.queue_server.topology_watch import Topology
from actors.runtime.broker.connection import Bus
from actors.runtime.config.settings import Settings
from protocol.broker.streams import (
    ADVISORY_WATCH,
    DAY,
    LEASE_WATCH,
    RECONNECT_WATCH,
    STATE_MANAGERS,
    STREAMS,
    ConsumerSpec,
    StreamSpec,
    captures_stream,
    status_stream,
)


def topology_streams(settings: Settings) -> list[StreamSpec]:
    """Return all streams, with the bucket of the pictures if they are stored in NATS."""
    captures = settings.captures
    log_of_record = status_stream(settings.nats.status_max_bytes, settings.retention.days)
    streams = [log_of_record if stream.name == log_of_record.name else stream for stream in STREAMS]
    if captures.store == "nats":
        streams.append(captures_stream(captures.keep_days * DAY, captures.max_total_bytes))
    return streams


def topology_consumers() -> list[ConsumerSpec]:
    """Return the durable consumers that do not belong to a socket server."""
    return [*STATE_MANAGERS, LEASE_WATCH, RECONNECT_WATCH, ADVISORY_WATCH]


async def apply_topology(bus: Bus, settings: Settings) -> None:
    """Create or update all streams and their consumers. Harmless when repeated.

    Raises `BrokerUnavailable`, `NotPermitted`, or `ConfigurationError` when there is no cluster for the copies, or when
    the broker is too old.
    """
    await topology(bus, settings, Checkpoints(bus)).apply()


def topology(bus: Bus, settings: Settings, checkpoints: Checkpoints) -> Topology:
    """Return the topology that the settings declare."""
    streams, consumers = topology_streams(settings), topology_consumers()
    return Topology(bus, streams, consumers, settings.nats.replicas, checkpoints)
