"""Limit wrong guesses of phone codes with a token bucket that all addresses share.

An attacker cannot be told from a hall of phones behind one address before the code was looked up. So each guess takes a
token, and gives it back when the code was right: right codes cost nothing. When the bucket is empty, guesses wait, and
addresses take turns: an attacker slows down only phones with the same address.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections import Counter, deque

log = logging.getLogger("examwire.web")

MANY = 300
"""Wrong guesses within a minute that are logged, with the address of most of them."""
MOST_WAITING = 5000


class TooManyGuesses(Exception):
    """The wait for a token would be too long. `seconds`: when to try again."""

    def __init__(self, seconds: int) -> None:
        super().__init__(f"no turn within {seconds} s")
        self.seconds = seconds


class GuessBudget:
    """A token bucket: `burst` wrong guesses at once, then `per_second`; in this process only.

    Example::

        await budget.turn(address)
        known = await look_up(code)
        budget.give_back() if known else budget.wrong(address)
    """

    def __init__(self, per_second: float, burst: int, longest_wait: float) -> None:
        """`longest_wait`: the seconds that a guess may wait for a token; a guess that would wait longer is refused."""
        self._rate = per_second
        self._burst = burst
        self._longest = longest_wait
        self._left = float(burst)
        self._filled: float | None = None
        self._waiting: dict[str, deque[asyncio.Future[None]]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._wrong: Counter[str] = Counter()
        self._minute = 0

    @property
    def waiting(self) -> int:
        """The number of guesses that wait for a token."""
        return sum(map(len, self._waiting.values()))

    async def turn(self, address: str) -> None:
        """Take a token, at once or after a wait. Raises `TooManyGuesses`."""
        self._fill()
        if self._left >= 1 and not self._waiting:
            self._left -= 1
            return
        own = self._waiting.get(address, ())
        seconds = (len(own) + 1) * max(1, len(self._waiting)) / self._rate
        if seconds > self._longest or self.waiting >= MOST_WAITING:
            raise TooManyGuesses(max(1, math.ceil(min(seconds, self._longest))))
        mine: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(address, deque()).append(mine)
        self._serve()
        try:
            await mine
        except asyncio.CancelledError:
            if mine.done() and not mine.cancelled():
                self.give_back()
            raise

    def give_back(self) -> None:
        """Return the token: the guess was right, or could not be looked up."""
        self._left = min(self._burst, self._left + 1)
        self._serve()

    def wrong(self, address: str) -> None:
        """Count a wrong guess: its token is used up."""
        minute = int(asyncio.get_running_loop().time() // 60)
        if minute != self._minute:
            self._minute = minute
            self._wrong.clear()
        self._wrong[address] += 1
        if self._wrong.total() == MANY:
            worst, count = self._wrong.most_common(1)[0]
            log.warning("%d wrong phone codes within a minute, %d of them from %s", MANY, count, worst)

    def _serve(self) -> None:
        """Give the tokens to waiting guesses, one address after the other."""
        self._fill()
        while self._waiting and self._left >= 1:
            address, queue = next(iter(self._waiting.items()))
            first = queue.popleft()
            del self._waiting[address]
            if queue:
                self._waiting[address] = queue  # behind all others
            if not first.done():
                self._left -= 1
                first.set_result(None)
        if self._waiting and self._timer is None:
            delay = max(0.0, (1 - self._left) / self._rate)
            self._timer = asyncio.get_running_loop().call_later(delay, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        self._serve()

    def _fill(self) -> None:
        now = asyncio.get_running_loop().time()
        if self._filled is not None:
            self._left = min(self._burst, self._left + (now - self._filled) * self._rate)
        self._filled = now
