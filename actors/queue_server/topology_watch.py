"""Whether the declared streams and consumers are there: the queue server looks every second and makes what is missing.

A consumer goes on from where its stream was acknowledged (`actors.queue_server.checkpoints`), so nothing is missed
and nothing from
long before comes again. A stream begins empty, above the old one's sequences; what it held is gone: see
docs/runbook.md#streammadeagain.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence

from actors.queue_server.checkpoints import Checkpoints
from actors.queue_server.metrics import CONSUMER_UP, MADE_AGAIN, WRITABLE
from actors.runtime.broker.connection import Bus
from protocol.broker.streams import LEASE, NATS_VERSION, ConsumerSpec, StreamSpec
from protocol.errors import BrokerUnavailable, ConfigurationError, StateUnavailable

log = logging.getLogger("examwire.queue_server")

LOOK_SECONDS = 1.0
SAVE_SECONDS = 5.0


class Topology:
    """The declared streams and consumers on a broker; `replicas`: copies of each stream."""

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

    async def apply(self) -> None:
        """Create or update everything. Harmless when repeated.

        Raises `BrokerUnavailable`, `NotPermitted`, `ConfigurationError` when there is no cluster for the copies or the
        broker is too old, and `StateUnavailable` when the rest is applied, but a consumer has vanished and only Redis
        knows how far it was.
        """
        version = str(self._bus.server_info.get("version", ""))
        if tuple(int(part) for part in version.split(".")[:2] if part.isdigit()) < NATS_VERSION:
            needed = ".".join(map(str, NATS_VERSION))
            raise ConfigurationError(f"nats-server {version} is too old: install {needed} or newer")
        # LEASE tells the broker's time to the others; what a safeguard reserves comes after what is needed.
        for stream in sorted(self.streams, key=lambda one: (one.name != LEASE.name, one.safeguard)):
            await self.apply_stream(stream)
        unknown: StateUnavailable | None = None
        for consumer in self.consumers:
            try:
                await self.apply_consumer(consumer)
            except StateUnavailable as error:
                unknown = error
        if unknown is not None:
            raise unknown

    async def apply_stream(self, stream: StreamSpec) -> None:
        """Create or update a stream. Raises as `apply`."""
        first = None
        if stream.first_seq_from_clock:
            # Versions of a stream that was lost and made anew never fall behind those in Redis, whichever machine makes
            # it: it begins by the broker's clock.
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
    """Keeps a topology there. Two queue servers may do it at once: every step can be repeated by either."""

    def __init__(self, bus: Bus, topology: Topology, checkpoints: Checkpoints) -> None:
        self._bus = bus
        self._topology = topology
        self._checkpoints = checkpoints
        self._troubles: dict[str, str] = {}

    async def follow(self) -> None:
        """Look, and store how far the consumers are, until cancelled. Raises `NotPermitted`."""
        for stream in self._topology.streams:
            MADE_AGAIN.labels("stream", stream.name)  # a counter that begins with 1 has not increased
        for consumer in self._topology.consumers:
            MADE_AGAIN.labels("consumer", _name(consumer))
        saved = 0.0
        while True:
            await asyncio.gather(*(self._look_at(stream) for stream in self._topology.streams))
            if time.monotonic() - saved >= SAVE_SECONDS:
                saved = time.monotonic()
                await self.save()
            await asyncio.sleep(LOOK_SECONDS)

    async def save(self) -> None:
        """Store how far the consumers are. It is a probe as well: does the broker take a write?"""
        try:
            await self._checkpoints.save()
        except BrokerUnavailable as error:
            if self._bus.connected:  # without a connection nobody knows
                WRITABLE.set(0)
            self._trouble("checkpoint", f"how far consumers are cannot be stored: {error}")
        else:
            WRITABLE.set(1)
            self._trouble("checkpoint", None)

    async def _look_at(self, stream: StreamSpec) -> None:
        try:
            if await self._bus.stream_config(stream.name) is None:
                log.error("the stream %s is gone, with all that it held: it is made again, empty", stream.name)
                await self._topology.apply_stream(stream)
                MADE_AGAIN.labels("stream", stream.name).inc()
            await self._look_at_consumers(stream)
        except (BrokerUnavailable, ConfigurationError, StateUnavailable) as error:
            if not self._bus.connected:  # which is said once, and not of each stream
                log.debug("%s: %s", stream.name, error)
                return
            self._trouble(stream.name, f"{stream.name} and its consumers cannot be looked after: {error}")
        else:
            self._trouble(stream.name, None)

    async def _look_at_consumers(self, stream: StreamSpec) -> None:
        wanted = [consumer for consumer in self._topology.consumers if consumer.stream == stream.name]
        if not wanted:
            return
        states = {state.name: state for state in await self._bus.consumer_states(stream.name)}
        self._checkpoints.saw(states[consumer.name] for consumer in wanted if consumer.name in states)
        for consumer in wanted:
            up = CONSUMER_UP.labels(stream.name, consumer.name)
            up.set(consumer.name in states)
            if consumer.name not in states:
                await self._topology.apply_consumer(consumer)
                up.set(1)
                MADE_AGAIN.labels("consumer", _name(consumer)).inc()
                log.error("the consumer %s was gone: it is made again, and goes on where it was", _name(consumer))

    def _trouble(self, what: str, text: str | None) -> None:
        """Log a trouble once, until it is another one or over."""
        if text is not None and self._troubles.get(what) != text:
            log.warning("%s", text)
        if text is None:
            self._troubles.pop(what, None)
        else:
            self._troubles[what] = text


def _name(consumer: ConsumerSpec) -> str:
    return f"{consumer.stream}/{consumer.name}"
