"""Checkpoints: up to where each consumer of the core has acknowledged its stream.

When a consumer vanishes, the broker forgets this, and a new one is made that goes on from the checkpoint. The queue
server reads the positions every second, and stores them every five seconds in the stream CHECKPOINT for its successor.
When no queue server has run for a while, the mark in Redis is newer for STATUS: the state managers advance it
(`actors.runtime.store.state_mark`).
"""

from __future__ import annotations

import time
from collections.abc import Iterable

import pydantic

from actors.runtime.broker.connection import Bus, Outgoing, PubAck
from actors.runtime.broker.stream_state import ConsumerState
from actors.runtime.store.state_store import StateStore
from protocol.broker import subjects
from protocol.broker.streams import CHECKPOINT, STATUS, ConsumerSpec

FRESH_SECONDS = 30.0
"""Messages repeated from so long ago have no second effect: the broker still knows their ids."""


class Checkpoint(pydantic.BaseModel):
    """`acknowledged`: for each consumer (`STREAM/name`) the sequence up to which all messages are acknowledged."""

    acknowledged: dict[str, int] = {}


class Checkpoints:
    """Keeps the positions of consumers. Without a `store` the mark in Redis is not used.

    checkpoints = Checkpoints(bus, store)
    checkpoints.record(await bus.consumer_states("STATUS"))
    await checkpoints.save()
    sequence = await checkpoints.acknowledged(consumer)
    """

    def __init__(self, bus: Bus, store: StateStore | None = None) -> None:
        self._bus = bus
        self._store = store
        self._acknowledged: dict[str, int] = {}
        self._recorded_at: dict[str, float] = {}

    def record(self, states: Iterable[ConsumerState]) -> None:
        """Keep the positions of these consumers."""
        now = time.monotonic()
        for state in states:
            key = f"{state.stream}/{state.name}"
            self._acknowledged[key] = max(state.ack_floor, self._acknowledged.get(key, 0))
            self._recorded_at[key] = now

    async def save(self) -> PubAck:
        """Store the positions. Raises `BrokerUnavailable` or `NotPermitted`."""
        checkpoint = Checkpoint(acknowledged=self._acknowledged)
        return await self._bus.publish(Outgoing(subjects.CHECKPOINT, checkpoint.model_dump_json().encode()))

    async def acknowledged(self, consumer: ConsumerSpec) -> int | None:
        """Return the sequence up to which a consumer that has vanished acknowledged its stream; `None` if not known.

        It may be too small, never too large, so no message is skipped. Raises `BrokerUnavailable`, `NotPermitted`, and
        `StateUnavailable` when only Redis knows it and does not answer.
        """
        key = f"{consumer.stream}/{consumer.name}"
        candidates = [self._acknowledged[key]] if key in self._acknowledged else []
        fresh = key in self._recorded_at and time.monotonic() - self._recorded_at[key] < FRESH_SECONDS
        if not fresh:
            stored = await self._bus.last_message(CHECKPOINT.name, subjects.CHECKPOINT)
            if stored is not None and (sequence := _read(stored.payload).acknowledged.get(key)) is not None:
                candidates.append(sequence)
                fresh = await self._bus.broker_time(CHECKPOINT.name) - stored.time < FRESH_SECONDS
        if not fresh and consumer.stream == STATUS.name and self._store is not None:
            applied = await self._store.mark.applied()
            if applied is not None:
                candidates.append(applied)
        return max(candidates, default=None)


def _read(payload: bytes) -> Checkpoint:
    try:
        return Checkpoint.model_validate_json(payload)
    except pydantic.ValidationError:
        return Checkpoint()  # not written by a queue server
