"""A pace: the first ones at once, then so many a second, so that what comes thick and fast comes together."""

from __future__ import annotations

import asyncio


class TokenBucket:
    """Up to `burst` turns at once, and `per_second` in the long run.

    `wait` is used where handling a batch costs about as much as handling one message: a lone message never waits, and
    under load a few of them share the cost.
    """

    __slots__ = ("_burst", "_filled", "_rate", "_turns")

    def __init__(self, per_second: float, burst: float) -> None:
        self._rate = per_second
        self._burst = burst
        self._turns = burst
        self._filled: float | None = None

    async def wait(self) -> None:
        """Take a turn as soon as it is due."""
        self._fill()
        self._turns -= 1
        if self._turns < 0:
            await asyncio.sleep(-self._turns / self._rate)

    @property
    def turns(self) -> float:
        """How many turns are left; below 0: how many wait for theirs."""
        self._fill()
        return self._turns

    def take(self) -> bool:
        """Take a turn if it is due now."""
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
