"""The newest state of each plan that a socket server has clients of: read from Redis once, then by its messages."""

from __future__ import annotations

import asyncio
import logging
import time

from actors.runtime.store.state_store import StateStore
from protocol.errors import StateDamaged, StateUnavailable
from protocol.messages.plan_facts import PlanStatusCode
from protocol.messages.proctor_events import PlanStateEvent
from protocol.records import keys
from protocol.records.kinds import PLAN
from protocol.rules.history import fold

log = logging.getLogger("examwire.plan_states")

READ_SECONDS = 0.5
"""A client that connects waits no longer for Redis; then it is told the state of its plan later."""
RETRY_SECONDS = 1.0
"""While Redis does not answer, it is asked again after this time."""


class PlanStates:
    """Knows whether the exam of a plan runs, and its times and policy.

    plans = PlanStates(store)
    await plans.of("P001")  # the messages of the plan come to this server already
    plans.update(event)  # one of them

    `unread`: the plans that Redis did not tell in time; their clients have to be told when it does.
    """

    def __init__(self, store: StateStore) -> None:
        self._store = store
        self._states: dict[str, PlanStateEvent] = {}
        self.unread: set[str] = set()
        self._retry_at = 0.0

    async def of(self, plan_id: str) -> PlanStateEvent:
        """Return the state of a plan. A plan that nobody has set up is open; so is one while Redis is away."""
        known = self._states.get(plan_id)
        return known if known is not None else await self._read(plan_id)

    async def is_closed(self, plan_id: str) -> bool:
        """Return whether a plan is closed. One that was is looked up: it may have been opened again just now."""
        state = await self.of(plan_id)
        if state.status is PlanStatusCode.CLOSED:
            state = await self._read(plan_id)
        return state.status is PlanStatusCode.CLOSED

    async def _read(self, plan_id: str) -> PlanStateEvent:
        unknown = PlanStateEvent(plan_id=plan_id, status=PlanStatusCode.OPEN, version=0)
        if time.monotonic() < self._retry_at:
            self.unread.add(plan_id)
            return self._states.get(plan_id, unknown)
        try:
            async with asyncio.timeout(READ_SECONDS):
                (stored,) = await self._store.load([keys.plan(plan_id)])
            if isinstance(stored, StateDamaged):
                raise stored
            state = fold(PLAN.read(stored.history), PLAN.rule)
        except (StateUnavailable, TimeoutError) as error:
            log.debug("plan %s: its state is not known yet: %s", plan_id, error)
            self._retry_at = time.monotonic() + RETRY_SECONDS
            self.unread.add(plan_id)
            return self._states.get(plan_id, unknown)
        except (StateDamaged, ValueError) as error:
            log.warning("plan %s: its state cannot be read: %s", plan_id, error, extra={"plan": plan_id})
            return self._states.get(plan_id, unknown)
        self.unread.discard(plan_id)
        return self.update(state.event() if state.version else unknown)

    def known(self, plan_id: str) -> PlanStateEvent | None:
        """Return the state of a plan as far as it was read or told; `None`: it was not."""
        return self._states.get(plan_id)

    def update(self, event: PlanStateEvent) -> PlanStateEvent:
        """Take note of a state, unless a newer one is known. Return the newest."""
        known = self._states.get(event.plan_id)
        if known is None or event.version > known.version:
            self._states[event.plan_id] = known = event
        return known

    def keep(self, plan_ids: set[str]) -> None:
        """Forget all other plans: nobody tells this server about them any more."""
        self._states = {plan_id: state for plan_id, state in self._states.items() if plan_id in plan_ids}

    def forget(self, plan_id: str) -> None:
        """Forget a plan that was deleted."""
        self._states.pop(plan_id, None)
