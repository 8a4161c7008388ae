"""A plan in words and as JSON: its name, status, times and policy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from actors.runtime.store.state_store import StateStore
from cli.shared.times import local_time
from protocol.errors import StateDamaged
from protocol.messages.plan_facts import PlanStatusCode
from protocol.records import keys
from protocol.records.kinds import PLAN
from protocol.rules.history import fold
from protocol.rules.plan_state import PlanState

_STATUS: dict[str, str] = {
    PlanStatusCode.SCHEDULED: "not begun yet",
    PlanStatusCode.OPEN: "open",
    PlanStatusCode.CLOSED: "closed",
}


async def read_plans(store: StateStore, plan_ids: Sequence[str]) -> list[PlanState]:
    """Return plans by their records in Redis, in order. Raises `StateUnavailable`, `StateDamaged`."""
    plans = []
    for plan_id, stored in zip(plan_ids, await store.load([keys.plan(plan_id) for plan_id in plan_ids]), strict=True):
        if isinstance(stored, StateDamaged):
            raise stored
        try:
            plans.append(fold(PLAN.read(stored.history), PLAN.rule))
        except ValueError as error:
            key = keys.plan(plan_id)
            raise StateDamaged(f"{key}: {error}", keys.parse_key(key)) from None
    return plans


def plan_json(plan: PlanState) -> dict[str, Any]:
    """Return a plan ready for JSON; one that nobody has set up is OPEN and has the version 0."""
    return {
        "status": plan.status.value,
        "name": plan.name,
        "startsAt": plan.starts_at,
        "endsAt": plan.ends_at,
        "ownTimes": {
            own.examinee_id: {"startsAt": plan.start_of(own.examinee_id), "endsAt": plan.end_of(own.examinee_id)}
            for own in plan.own_times
        },
        "closedAt": plan.closed_at,
        "closedBy": plan.closed_by,
        "closedReason": plan.closed_reason,
        "version": plan.version,
        "policy": plan.policy.model_dump(mode="json", by_alias=True, exclude_none=True),
    }


def plan_text(plan: dict[str, Any]) -> str:
    """Return a plan, as `plan_json` has it, as a line: `Mathematics: open, from 09:00:00, to 11:00:00`."""
    parts = [_STATUS[plan["status"]]]
    if plan["startsAt"] is not None:
        parts.append(f"from {local_time(plan['startsAt'])}")
    if plan["endsAt"] is not None:
        parts.append(f"to {local_time(plan['endsAt'])}")
    if plan["closedAt"] is not None:
        why = f" ({plan['closedReason']})" if plan["closedReason"] else ""
        parts.append(f"ended {local_time(plan['closedAt'])} by {plan['closedBy']}{why}")
    if plan["ownTimes"]:
        parts.append(f"{len(plan['ownTimes'])} with own times")
    if plan["policy"]:
        parts.append("policy: " + ", ".join(f"{name} {_value(value)}" for name, value in plan["policy"].items()))
    return (f"{plan['name']}: " if plan["name"] else "") + ", ".join(parts)


def _value(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return " ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
