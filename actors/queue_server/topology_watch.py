"""The topology watch: checks every second that the declared streams and consumers exist, and makes those that do not.

A consumer goes on from where its stream was acknowledged (`actors.queue_server.checkpoints`): no message is skipped,
and old ones are not repeated. A stream starts empty, above the sequences of the old one; its messages are lost, see
docs/runbook.md#streammadeagain.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from dataclasses import replace

from actors.queue_server.checkpoints import Checkpoints
from actors.queue_server.log_bound import LogBound
from actors.queue_server.metrics import CONSUMER_UP, MADE_AGAIN, WRITABLE
from actors.runtime.broker.connection import Bus
from actors.runtime.broker.stream_admin import NoStorage
from protocol.broker.streams import LEASE, NATS_VERSION, RESTORING, RETIRED_CONSUMERS, ConsumerSpec, StreamSpec
from protocol.errors import BrokerUnavailable, ConfigurationError, StateUnavailable

log = logging.getLogger("examwire.queue_server")

CHECK_SECONDS = 1.0
SAVE_SECONDS = 5.0


class Topology:
    """The declared streams and consumers of a broker. `replicas`: copies of each stream.

    topology = Topology(bus, streams, consumers, replicas=3, checkpoints=checkpoints)
    await topology.apply()
    """

    def __init__(
        self,
        bus: Bus,
        streams: Sequence[StreamSpec],
        consumers: Sequence[ConsumerSpec],
        replicas: int,
        checkpoints: Checkpoints,
    ) -> None:
        self._bus = bus
        self.streams = streams
        self.consumers = consumers
        self._replicas = replicas
        self._checkpoints = checkpoints
        self._share = 1.0
        self.log_bound = LogBound(bus, replicas)

    async def apply(self) -> None:
        """Create or update everything, and delete what an earlier release needed. Harmless when repeated.

        Raises `BrokerUnavailable`, `NotPermitted`, `ConfigurationError` when there is no cluster for the copies, the
        broker is too old or a restore was interrupted, and `StateUnavailable` when all others are applied, but for a
        consumer that has vanished only Redis knows how far it was.
        """
        version = str(self._bus.server_info.get("version", ""))
        if tuple(int(part) for part in version.split(".")[:2] if part.isdigit()) < NATS_VERSION:
            needed = ".".join(map(str, NATS_VERSION))
            raise ConfigurationError(f"nats-server {version} is too old: install {needed} or newer")
        if await self._bus.stream_config(RESTORING.name) is not None:
            raise ConfigurationError(
                "a restore of this broker has begun and has not come to its end: repeat `examwire restore` first"
            )
        await self._apply_streams()
        unknown: StateUnavailable | None = None
        for consumer in self.consumers:
            try:
                await self.apply_consumer(consumer)
            except StateUnavailable as error:
                unknown = error
        for stream_name, name in RETIRED_CONSUMERS:
            await self._bus.delete_consumer(stream_name, name)
        if unknown is not None:
            raise unknown

    async def _apply_streams(self) -> None:
        # LEASE first: the clock of the broker is read from it. STATUS last: room for it is asked for beside the others.
        in_order = sorted(self.streams, key=lambda stream: (stream.name != LEASE.name, stream.guarded))
        while True:
            try:
                for stream in in_order:
                    await self.apply_stream(stream)
            except NoStorage as error:
                if all(self.granted(stream).max_bytes == stream.least_bytes for stream in self.streams):
                    raise
                self._share /= 2
                log.warning("%s: all streams get 1/%.0f of their bounds", error, 1 / self._share)
            else:
                return

    def granted(self, stream: StreamSpec) -> StreamSpec:
        """Return a stream with the share of its bound for which NATS has storage."""
        return replace(stream, max_bytes=max(stream.least_bytes, int(stream.max_bytes * self._share)))

    async def apply_stream(self, stream: StreamSpec) -> None:
        """Create or update a stream. Raises as `apply`."""
        stream = self.granted(stream)
        first = None
        if stream.first_seq_from_clock:
            # A stream that was lost starts above the versions in Redis: its first sequence is the time of the broker,
            # the same on every machine.
            if stream.name != LEASE.name:
                await self._bus.clock.measure()
            first = int(self._bus.clock.now() * 1000)
        await self._bus.apply_stream(stream, first_seq=first, replicas=self._replicas)

    async def apply_consumer(self, consumer: ConsumerSpec) -> None:
        """Update a consumer, or create it from where its stream was acknowledged. Raises as `apply`."""
        first = None
        if await self._bus.consumer_config(consumer.stream, consumer.name) is None:
            first = await self._first(consumer)
        await self._bus.apply_consumer(consumer, first=first)

    async def _first(self, consumer: ConsumerSpec) -> int | None:
        if not (await self._bus.stream_state(consumer.stream)).messages:
            return None
        acknowledged = await self._checkpoints.acknowledged(consumer)
        return acknowledged + 1 if acknowledged is not None else None


class TopologyWatch:
    """Keeps a topology complete. Two queue servers may do it at once: each can repeat the steps of the other.

    watch = TopologyWatch(bus, topology, checkpoints)
    await watch.follow()
    """

    def __init__(self, bus: Bus, topology: Topology, checkpoints: Checkpoints) -> None:
        self._bus = bus
        self._topology = topology
        self._checkpoints = checkpoints
        self._warnings: dict[str, str] = {}

    async def follow(self) -> None:
        """Check the topology and store checkpoints, until cancelled. Raises `NotPermitted`."""
        for stream in self._topology.streams:
            MADE_AGAIN.labels(
                "stream", stream.name
            )  # start at 0: for Prometheus a counter that appears as 1 has not increased
        for consumer in self._topology.consumers:
            MADE_AGAIN.labels("consumer", _name(consumer))
        saved = 0.0
        while True:
            checks = [self._check_stream(stream) for stream in self._topology.streams]
            await asyncio.gather(*checks, self._keep_log_bounded())
            if time.monotonic() - saved >= SAVE_SECONDS:
                saved = time.monotonic()
                await self.save()
            await asyncio.sleep(CHECK_SECONDS)

    async def save(self) -> None:
        """Store the checkpoint. It also probes whether the broker accepts a write."""
        try:
            await self._checkpoints.save()
        except BrokerUnavailable as error:
            if self._bus.connected:  # without a connection it is not known
                WRITABLE.set(0)
            self._warn("checkpoint", f"how far consumers are cannot be stored: {error}")
        else:
            WRITABLE.set(1)
            self._warn("checkpoint", None)

    async def _check_stream(self, stream: StreamSpec) -> None:
        try:
            if await self._bus.stream_config(stream.name) is None:
                log.error("the stream %s and its messages are gone; it is created again, empty", stream.name)
                await self._topology.apply_stream(stream)
                MADE_AGAIN.labels("stream", stream.name).inc()
            await self._check_consumers(stream)
        except (BrokerUnavailable, ConfigurationError, StateUnavailable) as error:
            if not self._bus.connected:  # logged once by the connection, not for each stream
                log.debug("%s: %s", stream.name, error)
                return
            self._warn(stream.name, f"{stream.name} and its consumers cannot be looked after: {error}")
        else:
            self._warn(stream.name, None)

    async def _keep_log_bounded(self) -> None:
        for stream in self._topology.streams:
            if not stream.guarded:
                continue
            try:
                await self._topology.log_bound.look(self._topology.granted(stream))
            except BrokerUnavailable as error:
                if self._bus.connected:
                    self._warn("log", f"{stream.name} cannot be kept from being full: {error}")
            else:
                self._warn("log", None)

    async def _check_consumers(self, stream: StreamSpec) -> None:
        consumers = [consumer for consumer in self._topology.consumers if consumer.stream == stream.name]
        if not consumers:
            return
        states = {state.name: state for state in await self._bus.consumer_states(stream.name)}
        self._checkpoints.record(states[consumer.name] for consumer in consumers if consumer.name in states)
        for consumer in consumers:  # all of them before the first is made: that may fail
            CONSUMER_UP.labels(stream.name, consumer.name).set(consumer.name in states)
        for consumer in consumers:
            if consumer.name not in states:
                await self._topology.apply_consumer(consumer)
                CONSUMER_UP.labels(stream.name, consumer.name).set(1)
                MADE_AGAIN.labels("consumer", _name(consumer)).inc()
                log.error(
                    "the consumer %s was gone; it is created again and continues after its last acknowledged message",
                    _name(consumer),
                )

    def _warn(self, subject: str, text: str | None) -> None:
        """Log a warning about `subject` once, until the text changes; `None` clears it."""
        if text is not None and self._warnings.get(subject) != text:
            log.warning("%s", text)
        if text is None:
            self._warnings.pop(subject, None)
        else:
            self._warnings[subject] = text


def _name(consumer: ConsumerSpec) -> str:
    return f"{consumer.stream}/{consumer.name}"
