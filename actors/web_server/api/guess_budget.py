"""How many wrong guesses there may be in all, without shutting out whoever guesses right.

Nobody can tell a guesser from a hall of phones behind one address before the guess was looked up. So there is one
budget for all wrong guesses. Each guess takes a turn and gives it back when it was right: right ones cost nothing,
however many there are. When the budget is used up, guesses wait for their turn, and addresses take turns: a guesser
slows down whoever has the same address, and hardly anybody else.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections import Counter, deque

log = logging.getLogger("examwire.web")

MANY = 300
"""Wrong guesses within a minute that are worth a line in the log, with where most of them came from."""
MOST_WAITING = 5000


class TooManyGuesses(Exception):
    """The turn would not come soon. `seconds`: when to try again."""

    def __init__(self, seconds: int) -> None:
        super().__init__(f"no turn within {seconds} s")
        self.seconds = seconds


class GuessBudget:
    """`burst` wrong guesses at once and `per_second` in the long run; in this process only.

    await budget.turn(address)
    if right: budget.give_back()
    else:     budget.wrong(address)
    """

    def __init__(self, per_second: float, burst: int, longest_wait: float) -> None:
        """`longest_wait`: seconds that a guess may wait for its turn; it is refused when it would take longer."""
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
        """Guesses that wait for their turn."""
        return sum(map(len, self._waiting.values()))

    async def turn(self, address: str) -> None:
        """Take a turn, at once or after a wait. Raises `TooManyGuesses`."""
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
        """The guess was right, or could not be looked up."""
        self._left = min(self._burst, self._left + 1)
        self._serve()

    def wrong(self, address: str) -> None:
        """The guess was wrong: its turn is used up."""
        minute = int(asyncio.get_running_loop().time() // 60)
        if minute != self._minute:
            self._minute = minute
            self._wrong.clear()
        self._wrong[address] += 1
        if self._wrong.total() == MANY:
            worst, count = self._wrong.most_common(1)[0]
            log.warning("%d wrong phone codes within a minute, %d of them from %s", MANY, count, worst)

    def _serve(self) -> None:
        """Give turns to those who wait, one address after the other, as far as there are any."""
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
