"""What one connection may send: bytes and frames, control frames and fragments among them, at the lowest level."""

from __future__ import annotations

import asyncio

from protocol.messages.frames import BURST_SECONDS, HELLO_BYTES, HELLO_FRAMES

SLICE, STRANGERS_SLICE = 1024, 128
"""Bytes that are read before it is looked whether more may be: some 170 frames at most, about a millisecond; or 21."""

READ_COST = 64
"""In bytes: what comes byte by byte costs no less than what comes together."""

QUICK_BYTES = 4096
"""So much is read at once of a client that has sent little lately. What is beyond waits for its turn."""

TURN_BYTES = 4096
"""So much is read in one turn."""

PAUSE_SECONDS = 0.1
"""Reading is paused for so long at least."""


class InboundBudget:
    """A token bucket in bytes. Each frame counts as `frame_cost` bytes more, and each arrival of data as `READ_COST`.

    Before hello nothing is filled in again: a stranger has `HELLO_BYTES` and `HELLO_FRAMES` in all. `now`: when it was
    filled last, which is when the data came that is being read. `at_once`: so many bytes are read before it is looked
    again. The connection keeps here as well, in one small object: the `frames` of that data, what is `held` while
    nothing more is read, and the `timer` that ends that, or `queued`: its turn does.
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
        """The client has said a valid hello."""
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
        """Whether it has sent little lately."""
        return self._burst - self.left < QUICK_BYTES

    def fill(self, now: float) -> float:
        """What is left at `now`; above 0, something may be read. It may be read to below 0, and is then owed."""
        if self.left < self._burst and self._rate:
            self.left = min(self._burst, self.left + (now - self.now) * self._rate)
        self.now = now
        return self.left

    def wait(self) -> float:
        """Seconds until it is worth reading again. Only of a budget that refills."""
        return max(0.0, PAUSE_SECONDS - self.left / self._rate)
