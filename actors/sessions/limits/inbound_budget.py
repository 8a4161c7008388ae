"""The budget of what one connection may send: bytes and frames, control frames and fragments included."""

from __future__ import annotations

import asyncio

from protocol.messages.frames import BURST_SECONDS, HELLO_BYTES, HELLO_FRAMES

SLICE, STRANGERS_SLICE = 1024, 128
"""So many bytes are read between two checks of the budget: at most 170 frames, about a millisecond; before hello 21."""

READ_COST = 64
"""Each arrival of data costs so many bytes more: data that arrives byte by byte is not cheaper to read."""

QUICK_BYTES = 4096
"""So many bytes of a client that has sent little lately are read at once. The rest waits for its turn."""

TURN_BYTES = 4096
"""So many bytes are read in one turn."""

PAUSE_SECONDS = 0.1
"""Reading is paused for at least so long."""


class InboundBudget:
    """A token bucket in bytes. Each frame costs `frame_cost` bytes more, and each arrival of data `READ_COST`.

    budget = InboundBudget(loop.time())
    budget.open(bytes_per_second, frames_per_second, loop.time())  # after a valid hello
    if budget.fill(loop.time()) > 0: ...  # read up to `budget.at_once` bytes

    Before hello it is not refilled: a stranger has `HELLO_BYTES` and `HELLO_FRAMES` in all. `now` is the time of the
    last refill, when the data arrived that is being read. The connection keeps its state of reading in the same small
    object: the number of `frames` in that data, the data that is `held` while reading is paused, and what ends the
    pause: a `timer`, or its turn (`queued`).
    """

    __slots__ = ("_burst", "_rate", "at_once", "frame_cost", "frames", "held", "left", "now", "queued", "timer")

    def __init__(self, now: float) -> None:
        self.left = float(HELLO_BYTES)
        self.frame_cost = HELLO_BYTES / HELLO_FRAMES
        self.at_once = STRANGERS_SLICE
        self.now = now
        self.frames = 0
        self.held: bytes | None = None
        self.timer: asyncio.TimerHandle | None = None
        self.queued = False
        self._rate = 0.0
        self._burst = self.left

    def open(self, bytes_per_second: float, frames_per_second: float, now: float) -> None:
        """Set the rates of a client whose hello was valid, and fill the bucket."""
        self.frame_cost = bytes_per_second / frames_per_second
        self.at_once = SLICE
        self.now = now
        self._rate = bytes_per_second
        self._burst = self.left = bytes_per_second * BURST_SECONDS

    @property
    def refills(self) -> bool:
        return self._rate > 0

    @property
    def quick(self) -> bool:
        """Whether the client has sent little lately."""
        return self._burst - self.left < QUICK_BYTES

    def fill(self, now: float) -> float:
        """Refill, and return the bytes that are left. Above 0, some may be read; what is read beyond 0 is owed."""
        if self.left < self._burst and self._rate:
            self.left = min(self._burst, self.left + (now - self.now) * self._rate)
        self.now = now
        return self.left

    def wait(self) -> float:
        """Return the seconds until reading goes on. Only for a budget that refills."""
        return max(0.0, PAUSE_SECONDS - self.left / self._rate)
