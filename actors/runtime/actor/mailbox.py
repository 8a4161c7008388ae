"""The mailbox of an actor: bounded, first in, first out, with statistics."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass
from typing import Generic, TypeVar

from protocol.errors import ExamwireError

T = TypeVar("T")


class MailboxFull(ExamwireError):
    """The mailbox is full. The sender decides whether to wait, to drop the message or to close the receiver."""


@dataclass(frozen=True, slots=True)
class MailboxStatistics:
    """`depth`: messages that wait now. `peak`: the largest depth so far. `refused`: messages that found it full."""

    capacity: int
    depth: int
    peak: int
    received: int
    refused: int


class Mailbox(Generic[T]):
    """Holds at most `capacity` items, first in, first out.

    mailbox = Mailbox[str](capacity=4)
    mailbox.put_nowait("hello")
    mailbox.get_nowait()
    """

    __slots__ = ("_items", "_room", "capacity", "peak", "received", "refused")

    # Only while something waits: thousands of actors have a mailbox each, and an empty deque takes 624 bytes.
    _items: deque[T] | None

    def __init__(self, capacity: int) -> None:
        if capacity < 1:
            raise ValueError("the capacity of a mailbox is at least one")
        self.capacity = capacity
        self._items = None
        self._room: asyncio.Event | None = None
        self.peak = self.received = self.refused = 0

    def __len__(self) -> int:
        return len(self._items) if self._items is not None else 0

    def put_nowait(self, item: T) -> None:
        """Add `item`. Raises `MailboxFull`."""
        if self._items is None:
            self._items = deque()
        elif len(self._items) >= self.capacity:
            self.refused += 1
            raise MailboxFull(f"the mailbox holds {self.capacity} messages already")
        self._items.append(item)
        self.received += 1
        self.peak = max(self.peak, len(self._items))

    @property
    def has_room(self) -> bool:
        """Whether `put_nowait` would succeed."""
        return len(self) < self.capacity

    async def wait_for_room(self) -> None:
        """Wait until `put_nowait` would succeed."""
        while len(self) >= self.capacity:
            if self._room is None:
                self._room = asyncio.Event()
            self._room.clear()
            await self._room.wait()

    def get_nowait(self) -> T:
        """Take the oldest item; raises `IndexError` when there is none."""
        if self._items is None:
            raise IndexError("the mailbox is empty")
        item = self._items.popleft()
        if not self._items:
            self._items = None
        if self._room is not None:
            self._room.set()
        return item

    def drain(self) -> list[T]:
        """Take all items."""
        items = list(self._items or ())
        self._items = None
        if self._room is not None:
            self._room.set()
        return items

    def statistics(self) -> MailboxStatistics:
        return MailboxStatistics(self.capacity, len(self), self.peak, self.received, self.refused)
