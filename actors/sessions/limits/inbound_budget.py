"""The budget of what one connection may send: bytes and frames, control frames and fragments included."""

from __future__ import annotations

import asyncio
from functools import cache
from typing import NamedTuple

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


class Rates(NamedTuple):
    """What a client may send: `burst` bytes at once, then `per_second`, each frame for `frame_cost` bytes more.

    `at_once`: so many bytes are read between two checks.
    """

    per_second: float
    burst: float
    frame_cost: float
    at_once: int


_STRANGER = Rates(0.0, float(HELLO_BYTES), HELLO_BYTES / HELLO_FRAMES, STRANGERS_SLICE)


@cache
def _rates(bytes_per_second: float, frames_per_second: float) -> Rates:
    return Rates(bytes_per_second, bytes_per_second * BURST_SECONDS, bytes_per_second / frames_per_second, SLICE)


class InboundBudget:
    """A token bucket in bytes. Each frame costs `frame_cost` bytes more, and each arrival of data `READ_COST`.

    budget = InboundBudget(loop.time())
    budget.open(bytes_per_second, frames_per_second, loop.time())  # after a valid hello
    if budget.fill(loop.time()) > 0: ...  # read up to `budget.rates.at_once` bytes

    Before hello it is not refilled: a stranger has `HELLO_BYTES` and `HELLO_FRAMES` in all. `now` is the time of the
    last refill, when the data arrived that is being read. The connection keeps its state of reading in the same small
    object: the number of `frames` in that data, the data that is `held` while reading is paused, and what ends the
    pause: a `timer`, or its turn (`queued`).
    """

    __slots__ = ("frames", "held", "left", "now", "queued", "rates", "timer")

    def __init__(self, now: float) -> None:
        self.rates = _STRANGER
        self.left = _STRANGER.burst
        self.now = now
        self.frames = 0
        self.held: bytes | None = None
        self.timer: asyncio.TimerHandle | None = None
        self.queued = False

    def open(self, bytes_per_second: float, frames_per_second: float, now: float) -> None:
        """Set the rates of a client whose hello was valid, and fill the bucket."""
        self.rates = _rates(bytes_per_second, frames_per_second)
        self.left = self.rates.burst
        self.now = now

    @property
    def refills(self) -> bool:
        return self.rates.per_second > 0

    @property
    def quick(self) -> bool:
        """Whether the client has sent little lately."""
        return self.rates.burst - self.left < QUICK_BYTES

    def fill(self, now: float) -> float:
        """Refill, and return the bytes that are left. Above 0, some may be read; what is read beyond 0 is owed."""
        rates = self.rates
        if self.left < rates.burst and rates.per_second:
            self.left = min(rates.burst, self.left + (now - self.now) * rates.per_second)
        self.now = now
        return self.left

    def take(self, size: int) -> None:
        """Take the cost of `size` bytes that have arrived together, with `frames` in them."""
        self.left -= size + READ_COST + self.rates.frame_cost * self.frames

    def wait(self) -> float:
        """Return the seconds until reading goes on. Only for a budget that refills."""
        return max(0.0, PAUSE_SECONDS - self.left / self.rates.per_second)
