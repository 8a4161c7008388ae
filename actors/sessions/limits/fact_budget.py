"""Budgets of what an identity may have stored: about one durable fact a second, over all its connections.

An identity is a role and a subject of a plan, on one server. A fact that changes something waits for its turn; a fact
that may be a repetition is refused when the budget is used up.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from prometheus_client import Counter

from actors.runtime.telemetry.metrics import REGISTRY
from actors.runtime.token_bucket import TokenBucket

HELD = Counter(
    "examwire_facts_held_total",
    "Facts over the budget of an identity: paced (stored later) or refused",
    ["kind", "outcome"],
    registry=REGISTRY,
)
MOST_IDENTITIES = 20_000

# At 0 from the start: a counter that begins with 1 has not increased.
for _kind in ("connection", "notice_confirm", "mobile_sync_wait", "help_request", "help_cancel", "action"):
    for _outcome in ("paced", "refused"):
        HELD.labels(_kind, _outcome)


@dataclass(frozen=True, slots=True)
class Share:
    """The size of a budget: `per_second`, `burst` at once; at most `most_waiting` wait for their turn."""

    per_second: float
    burst: int
    most_waiting: int


EXAMINEE = Share(1.0, 10, 32)
LOOKUPS = Share(10.0, 50, 0)
"""Lookups in Redis of messages that this server was not told of."""
PROCTOR = Share(30.0, 150, 1000)
"""A proctor may readmit 300 examinees at once: it takes some seconds."""
CONNECTIONS = Share(1.0, 10, 4)
"""Each connection is two facts: its begin and its end."""


class FactBudget(TokenBucket):
    """The budget of one identity.

    if budget.take_or_count("mobile_sync_wait"):
        outbox.add(fact)
    """

    __slots__ = ("_share",)

    def __init__(self, share: Share) -> None:
        super().__init__(share.per_second, share.burst)
        self._share = share

    @property
    def untouched(self) -> bool:
        """Whether the budget is full: nothing was taken lately."""
        return self.turns >= self._share.burst

    def take_or_count(self, kind: str) -> bool:
        """Take a turn if there is one now; otherwise count the fact as refused. Returns whether it was taken."""
        if self.take():
            return True
        HELD.labels(kind, "refused").inc()
        return False

    async def turn(self, kind: str) -> bool:
        """Wait for a turn. False: so many wait already that the fact is refused."""
        if self.take():
            return True
        if self.turns <= -self._share.most_waiting:
            HELD.labels(kind, "refused").inc()
            return False
        HELD.labels(kind, "paced").inc()
        await self.wait()
        return True


class FactBudgets:
    """The budgets of all identities that were seen lately.

    budgets = FactBudgets(EXAMINEE)
    budgets.of("P001", "E001").take_or_count("mobile_sync_wait")
    """

    def __init__(self, share: Share) -> None:
        self._share = share
        self._budgets: dict[tuple[str, str], FactBudget] = {}

    def of(self, plan_id: str, subject: str) -> FactBudget:
        """Return the budget of an identity; the same one for as long as it is used."""
        budget = self._budgets.get((plan_id, subject))
        if budget is None:
            if len(self._budgets) >= MOST_IDENTITIES:
                for identity in list(self._idle()):
                    del self._budgets[identity]
            budget = self._budgets[plan_id, subject] = FactBudget(self._share)
        return budget

    def _idle(self) -> Iterator[tuple[str, str]]:
        return (identity for identity, budget in self._budgets.items() if budget.untouched)


@dataclass(frozen=True, slots=True)
class ExamineeBudgets:
    """The budgets of all examinees of a server: what they have stored, and what they have looked up in Redis.

    budgets = ExamineeBudgets()
    budgets.facts.of("P001", "E001").take_or_count("mobile_sync_wait")
    """

    facts: FactBudgets = field(default_factory=lambda: FactBudgets(EXAMINEE))
    lookups: FactBudgets = field(default_factory=lambda: FactBudgets(LOOKUPS))
