"""State of streams, consumers and stored messages, as NATS returns it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class StoredMessage:
    """A message read from a stream; `time`: when the broker took it, in seconds since the epoch."""

    subject: str
    sequence: int
    payload: bytes
    headers: Mapping[str, str]
    time: float = 0.0


@dataclass(frozen=True, slots=True)
class StreamState:
    """What a stream holds: sequences of its first and last message, how many, how many bytes.

    Of `replicas` copies that it should have, `current` are up to date. `limit`: bytes that it may hold (`None`: any).
    """

    first: int
    last: int
    messages: int
    size: int
    replicas: int = 1
    leader: str | None = None
    current: int = 1
    limit: int | None = None
    max_age: float = 0.0
    """How long it keeps a message, in seconds; 0: for ever."""
    created: float = 0.0
    """When it was created, in seconds since the epoch: a stream that was made again is another one."""


@dataclass(frozen=True, slots=True)
class StorageState:
    """Bytes on disk that the account's streams use, and may use (`None`: no limit but the disk)."""

    used: int
    limit: int | None


@dataclass(frozen=True, slots=True)
class ConsumerState:
    """How far a durable consumer is: `pending` wait to be delivered, `unacknowledged` are out, `redelivered` again.

    `created` and `last_delivered` in seconds since the epoch.
    """

    stream: str
    name: str
    description: str
    filters: tuple[str, ...]
    metadata: Mapping[str, str]
    pending: int
    unacknowledged: int
    redelivered: int
    pulls_waiting: int
    ack_floor: int
    delivered: int
    created: float = 0.0
    last_delivered: float | None = None


@dataclass(frozen=True, slots=True)
class PinnedState:
    """Which client a pinned consumer is read by, and how far it is; `pending` messages wait to be delivered."""

    pin: str | None
    ack_floor: int
    pending: int
    unacknowledged: int
