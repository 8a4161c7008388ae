"""A bounded mailbox with statistics."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass
from typing import Generic, TypeVar

from protocol.errors import ExamwireError

T = TypeVar("T")


class MailboxFull(ExamwireError):
    """The mailbox holds as many messages as it may; the sender decides whether to wait, drop or give up."""


@dataclass(frozen=True, slots=True)
class MailboxStatistics:
    """`depth`: waiting now. `peak`: the most that ever waited. `refused`: puts that found it full."""

    capacity: int
    depth: int
    peak: int
    received: int
    refused: int


class Mailbox(Generic[T]):
    """First in, first out, never more than `capacity`."""

    __slots__ = ("_items", "_room", "capacity", "peak", "received", "refused")

    def __init__(self, capacity: int) -> None:
        if capacity < 1:
            raise ValueError("a mailbox holds at least one message")
        self.capacity = capacity
        self._items: deque[T] = deque()
        self._room: asyncio.Event | None = None
        self.peak = self.received = self.refused = 0

    def __len__(self) -> int:
        return len(self._items)

    def put_nowait(self, item: T) -> None:
        """Add `item`, or raise `MailboxFull`."""
        if len(self._items) >= self.capacity:
            self.refused += 1
            raise MailboxFull(f"the mailbox holds {self.capacity} messages already")
        self._items.append(item)
        self.received += 1
        self.peak = max(self.peak, len(self._items))

    async def wait_for_room(self) -> None:
        """Return when `put_nowait` would succeed."""
        while len(self._items) >= self.capacity:
            if self._room is None:
                self._room = asyncio.Event()
            self._room.clear()
            await self._room.wait()

    def get_nowait(self) -> T:
        """Take the oldest item; raises `IndexError` when there is none."""
        item = self._items.popleft()
        if self._room is not None:
            self._room.set()
        return item

    def drain(self) -> list[T]:
        """Take everything."""
        items = list(self._items)
        self._items.clear()
        if self._room is not None:
            self._room.set()
        return items

    def statistics(self) -> MailboxStatistics:
        return MailboxStatistics(self.capacity, len(self._items), self.peak, self.received, self.refused)
