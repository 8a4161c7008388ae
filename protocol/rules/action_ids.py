"""Actions of proctors take effect once, however often and through whichever server they are sent.

Within its duplicate window the broker recognises a retry by the message id. For later retries each record keeps the
newest actionIds.
"""

from __future__ import annotations

import hashlib

from protocol.messages.facts import ActionFact, HelpRequest, Notice, NoticeConfirmed
from protocol.messages.plan_facts import PlanFact

ActingFact = ActionFact | Notice | HelpRequest | PlanFact
"""A fact whose `actionId` names an action."""

MAX_ACTIONS = 50
"""Number of actionIds that each record keeps."""


def already_applied(actions: tuple[str, ...], fact: ActingFact) -> bool:
    """Return whether this action was applied before. Actions of different types may have the same actionId."""
    return fact.action_id is not None and _action_key(fact) in actions


def with_action(actions: tuple[str, ...], fact: ActingFact) -> tuple[str, ...]:
    """Return the applied actions with this one added; the oldest go beyond `MAX_ACTIONS`."""
    return actions if fact.action_id is None else (*actions, _action_key(fact))[-MAX_ACTIONS:]


def _action_key(fact: ActingFact) -> str:
    return f"{fact.type} {fact.action_id}"


def message_id(fact: ActingFact | NoticeConfirmed) -> str | None:
    """Return the `Nats-Msg-Id` of an action, the same for every retry; `None`: it has no actionId."""
    if fact.action_id is None:
        return None
    parts = (fact.plan_id, getattr(fact, "examinee_id", None) or "", fact.type, fact.action_id)
    return "action-" + hashlib.sha256("\n".join(parts).encode()).hexdigest()
