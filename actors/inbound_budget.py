"""What one connection may send: bytes and frames, control frames and fragments among them, at the lowest level."""

from __future__ import annotations

from protocol.frames import BURST_SECONDS, HELLO_BYTES, HELLO_FRAMES

READ_COST = 64
"""In bytes: what comes byte by byte costs no less than what comes together."""


class InboundBudget:
    """A token bucket in bytes. Each frame counts as `frame_cost` bytes more, and each arrival of data as `READ_COST`.

    Before hello nothing is filled in again: a stranger has `HELLO_BYTES` and `HELLO_FRAMES` in all.
    """

    __slots__ = ("_burst", "_filled", "_rate", "frame_cost", "left")

    def __init__(self) -> None:
        self.left = float(HELLO_BYTES)
        self.frame_cost = HELLO_BYTES / HELLO_FRAMES
        self._rate = 0.0
        self._burst = self.left
        self._filled = 0.0

    def open(self, bytes_per_second: float, frames_per_second: float, now: float) -> None:
        """The client has said a valid hello."""
        self._rate = bytes_per_second
        self._burst = self.left = bytes_per_second * BURST_SECONDS
        self.frame_cost = bytes_per_second / frames_per_second
        self._filled = now

    @property
    def refills(self) -> bool:
        return self._rate > 0

    def fill(self, now: float) -> float:
        """What is left at `now`; above 0, something may be read. It may be read to below 0, and is then owed."""
        if self._rate and self.left < self._burst:
            self.left = min(self._burst, self.left + (now - self._filled) * self._rate)
        self._filled = now
        return self.left

    def wait(self) -> float:
        """Seconds until a frame may be read again. Only of a budget that refills."""
        return max(0.0, (self.frame_cost - self.left) / self._rate)
