"""Actions of proctors: one that is said again, by a page that reconnected or through another server, has no second
effect.

The broker recognises a retry within its window by the message id; the records remember the newest actionIds for later
ones.
"""

from __future__ import annotations

import hashlib

from protocol.messages.facts import ActionFact, Notice, NoticeConfirmed

MAX_ACTIONS = 50
"""The newest actions that each record of an examinee remembers."""


def already_applied(actions: tuple[str, ...], fact: ActionFact | Notice) -> bool:
    """Whether this action was applied before. Actions of different kinds may have the same actionId."""
    return fact.action_id is not None and _action_key(fact) in actions


def with_action(actions: tuple[str, ...], fact: ActionFact | Notice) -> tuple[str, ...]:
    """The actions that have had their effect, with this one."""
    return actions if fact.action_id is None else (*actions, _action_key(fact))[-MAX_ACTIONS:]


def _action_key(fact: ActionFact | Notice) -> str:
    return f"{fact.type} {fact.action_id}"


def message_id(fact: ActionFact | Notice | NoticeConfirmed) -> str | None:
    """The same whenever the action is said; `None`: nothing says which action it is."""
    if fact.action_id is None:
        return None
    parts = (fact.plan_id, fact.examinee_id, fact.type, fact.action_id)
    return "action-" + hashlib.sha256("\n".join(parts).encode(errors="surrogatepass")).hexdigest()
