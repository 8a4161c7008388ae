"""Limit how often something is done: a burst at once, then a steady rate."""

from __future__ import annotations

import asyncio


class TokenBucket:
    """A token bucket: `burst` turns at once, then `per_second`. Needs a running event loop.

    `wait` suits work whose cost hardly depends on the size of a batch: a single message goes at once, and under load
    the messages that arrive during the wait are handled together.

    Example::

        bucket = TokenBucket(per_second=50, burst=10)
        await bucket.wait()
    """

    __slots__ = ("_burst", "_filled", "_rate", "_turns")

    def __init__(self, per_second: float, burst: float) -> None:
        self._rate = per_second
        self._burst = burst
        self._turns = burst
        self._filled: float | None = None

    async def wait(self) -> None:
        """Take a turn; sleep until it is due."""
        self._fill()
        self._turns -= 1
        if self._turns < 0:
            await asyncio.sleep(-self._turns / self._rate)

    @property
    def turns(self) -> float:
        """The number of turns left; a negative number is the number of callers that wait."""
        self._fill()
        return self._turns

    def take(self) -> bool:
        """Take a turn and return True if one is left; else return False at once."""
        self._fill()
        if self._turns < 1:
            return False
        self._turns -= 1
        return True

    def _fill(self) -> None:
        now = asyncio.get_running_loop().time()
        if self._filled is not None:
            self._turns = min(self._burst, self._turns + (now - self._filled) * self._rate)
        self._filled = now
