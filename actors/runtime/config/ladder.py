"""The reconnect ladder of a plan: its policy, else the settings."""

from __future__ import annotations

from dataclasses import dataclass

from actors.runtime.config.sections import ReconnectSettings
from protocol.broker.streams import attempt_seconds
from protocol.messages.plan_facts import PlanPolicy


@dataclass(frozen=True, slots=True)
class Ladder:
    """How many attempts an examinee has after a loss, how many seconds each lasts, and whether the last shuts out.

    Example::

        Ladder.of(settings.reconnect, plan.policy).backoff_seconds  # one entry for each attempt
    """

    max_attempts: int
    backoff_seconds: list[float]
    jitter: float
    shut_out: bool = True

    @classmethod
    def of(cls, settings: ReconnectSettings, policy: PlanPolicy | None = None) -> Ladder:
        """Return the ladder that is in force for a plan with this policy."""
        policy = policy or PlanPolicy()
        max_attempts = policy.max_attempts or settings.max_attempts
        return cls(
            max_attempts,
            attempt_seconds(max_attempts, policy.backoff_seconds or settings.backoff_seconds),
            settings.jitter if policy.jitter is None else policy.jitter,
            policy.shut_out is not False,
        )
