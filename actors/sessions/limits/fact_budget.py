"""How much an identity may have stored: about one durable fact a second, whatever it sends and however it reconnects.

An identity is a role and a subject of a plan, over all its connections to one server. What changes something waits for
its turn; what may be a repetition is refused when there is none left.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from prometheus_client import Counter

from actors.runtime.telemetry.metrics import REGISTRY
from actors.runtime.token_bucket import TokenBucket

HELD = Counter(
    "examwire_facts_held_total",
    "Facts of an identity that has had its share: paced (stored later) or refused",
    ["kind", "outcome"],
    registry=REGISTRY,
)
MOST_IDENTITIES = 20_000

# At 0 from the start: a counter that begins with 1 has not increased.
for _what in ("connection", "notice_confirm", "mobile_sync_wait", "action"):
    for _how in ("paced", "refused"):
        HELD.labels(_what, _how)


@dataclass(frozen=True, slots=True)
class Share:
    """So many a second, `burst` at once; `most_waiting` may wait for their turn."""

    per_second: float
    burst: int
    most_waiting: int


EXAMINEE = Share(1.0, 10, 32)
LOOKUPS = Share(10.0, 50, 0)
"""Questions to Redis about what this server was not told of."""
PROCTOR = Share(30.0, 150, 1000)
"""Readmitting 300 at once is a proctor's right: it takes some seconds."""
CONNECTIONS = Share(1.0, 10, 4)
"""Each is two facts, for its end must not be missed."""


class FactBudget:
    """The share of one identity."""

    __slots__ = ("_pace", "_share")

    def __init__(self, share: Share) -> None:
        self._share = share
        self._pace = TokenBucket(share.per_second, share.burst)

    @property
    def untouched(self) -> bool:
        """Whether nothing was taken lately."""
        return self._pace.turns >= self._share.burst

    def take_now(self) -> bool:
        """Take a turn if there is one now."""
        return self._pace.take()

    def take(self, what: str) -> bool:
        """Take a turn if there is one now; else the fact is refused."""
        if self._pace.take():
            return True
        HELD.labels(what, "refused").inc()
        return False

    async def turn(self, what: str) -> bool:
        """Wait for a turn; False: so many wait already that the fact is refused."""
        if self._pace.take():
            return True
        if self._pace.turns <= -self._share.most_waiting:
            HELD.labels(what, "refused").inc()
            return False
        HELD.labels(what, "paced").inc()
        await self._pace.wait()
        return True


class FactBudgets:
    """The shares of all identities that were seen lately."""

    def __init__(self, share: Share) -> None:
        self._share = share
        self._budgets: dict[tuple[str, str], FactBudget] = {}

    def of(self, plan_id: str, subject: str) -> FactBudget:
        """The share of somebody; the same one for as long as it is used."""
        found = self._budgets.get((plan_id, subject))
        if found is None:
            if len(self._budgets) >= MOST_IDENTITIES:
                for whom in list(self._idle()):
                    del self._budgets[whom]
            found = self._budgets[plan_id, subject] = FactBudget(self._share)
        return found

    def _idle(self) -> Iterator[tuple[str, str]]:
        return (whom for whom, budget in self._budgets.items() if budget.untouched)
