"""The terms of a mobile sync stage in a plan: its policy, else the settings."""

from __future__ import annotations

import math
import secrets
from dataclasses import dataclass
from typing import Self

from actors.runtime.config.sections import MobileSyncSettings
from protocol.messages.plan_facts import PlanPolicy

CHALLENGE_DIGITS = 6
"""Short enough to write on paper; a guess is right once in a million times."""
LEAST_SECONDS, MOST_SECONDS = 10, 3600


@dataclass(frozen=True, slots=True)
class StageTerms:
    """How many seconds a stage lasts, and whether its picture must show a challenge.

    Example::

        terms = StageTerms.of(settings.mobile_sync, plan.policy)
        terms.seconds, terms.new_challenge()
    """

    seconds: float
    challenged: bool = False

    @classmethod
    def of(cls, settings: MobileSyncSettings, policy: PlanPolicy | None = None) -> Self:
        """Return the terms that are in force for a plan with this policy."""
        policy = policy or PlanPolicy()
        return cls(policy.mobile_sync_seconds or settings.timeout_seconds, policy.picture_challenge is True)

    @property
    def whole_seconds(self) -> int:
        """The duration as it is told in a `capture_review`."""
        return min(max(math.ceil(self.seconds), LEAST_SECONDS), MOST_SECONDS)

    def new_challenge(self) -> str | None:
        """Return a number for the next stage; `None`: the policy asks for none."""
        if not self.challenged:
            return None
        return f"{secrets.randbelow(10**CHALLENGE_DIGITS):0{CHALLENGE_DIGITS}d}"
