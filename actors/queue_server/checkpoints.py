"""How far the consumers of the core are: what a consumer that has vanished is made again from.

With a consumer the broker forgets what was acknowledged. The queue server looks every second and remembers; every few
seconds it also stores what it has seen in the stream CHECKPOINT, for the next queue server. When nobody has looked for
a while, the mark in Redis knows more of STATUS: state managers keep it up themselves
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
"""What is repeated from so long ago has no second effect: the broker still knows its message ids."""


class Checkpoint(pydantic.BaseModel):
    """By consumer (`STREAM/name`), the sequence up to which everything is acknowledged."""

    acknowledged: dict[str, int] = {}


class Checkpoints:
    """Remembers and stores how far consumers are. Without a `store` the mark in Redis is not asked."""

    def __init__(self, bus: Bus, store: StateStore | None = None) -> None:
        self._bus = bus
        self._store = store
        self._acknowledged: dict[str, int] = {}
        self._seen_at: dict[str, float] = {}

    def saw(self, states: Iterable[ConsumerState]) -> None:
        """Remember how far these consumers are."""
        now = time.monotonic()
        for state in states:
            key = f"{state.stream}/{state.name}"
            self._acknowledged[key] = max(state.ack_floor, self._acknowledged.get(key, 0))
            self._seen_at[key] = now

    async def save(self) -> PubAck:
        """Store what is remembered. Raises `BrokerUnavailable` or `NotPermitted`."""
        checkpoint = Checkpoint(acknowledged=self._acknowledged)
        return await self._bus.publish(Outgoing(subjects.CHECKPOINT, checkpoint.model_dump_json().encode()))

    async def acknowledged(self, consumer: ConsumerSpec) -> int | None:
        """The sequence up to which a consumer that is missing has acknowledged its stream; `None`: nobody knows.

        Never too great, so that nothing is missed. Raises `BrokerUnavailable`, `NotPermitted`, and
        `StateUnavailable` when only Redis can tell and does not answer.
        """
        key = f"{consumer.stream}/{consumer.name}"
        known = [self._acknowledged[key]] if key in self._acknowledged else []
        fresh = key in self._seen_at and time.monotonic() - self._seen_at[key] < FRESH_SECONDS
        if not fresh:
            stored = await self._bus.last_message(CHECKPOINT.name, subjects.CHECKPOINT)
            if stored is not None and (sequence := _read(stored.payload).acknowledged.get(key)) is not None:
                known.append(sequence)
                fresh = await self._bus.broker_time(CHECKPOINT.name) - stored.time < FRESH_SECONDS
        if not fresh and consumer.stream == STATUS.name and self._store is not None:
            applied = await self._store.mark.applied()
            if applied is not None:
                known.append(applied)
        return max(known, default=None)


def _read(payload: bytes) -> Checkpoint:
    try:
        return Checkpoint.model_validate_json(payload)
    except pydantic.ValidationError:
        return Checkpoint()  # none of ours: nobody knows
