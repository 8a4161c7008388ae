"""Scenarios of the rules: facts in the order of the log, whose places are their versions, and what came of the last."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Generic, Self, TypeVar

from protocol.client.plan_view import PlanView
from protocol.messages.base import Message
from protocol.messages.proctor_events import Event
from protocol.records.kinds import RecordKind
from protocol.rules.effects import Effect
from protocol.rules.history import StoredState
from tests.unit.support.facts import EXAMINEE, PLAN

S = TypeVar("S", bound=StoredState)
F = TypeVar("F", bound=Message)


class Scenario(Generic[S, F]):
    """One record; `view` is what a proctor sees."""

    def __init__(self, kind: RecordKind[S, F], facts: Iterable[F]) -> None:
        self._rule = kind.rule
        self.state = kind.state()
        self.version = 0
        self.events: tuple[Event, ...] = ()
        self.effects: tuple[Effect, ...] = ()
        self.view = PlanView()
        for fact in facts:
            self.add(fact)

    def add(self, fact: F) -> Self:
        self.version += 1
        outcome = self._rule(self.state, self.version, fact)
        self.state, self.events, self.effects = outcome.state, outcome.events, outcome.effects
        for event in self.events:
            self.view.apply(event)
        return self

    def changes_nothing(self, fact: F) -> bool:
        """Whether the fact leaves the state as it is and tells nobody anything."""
        before = self.state
        self.add(fact)
        return self.state == before and self.events == () and self.effects == ()

    def event(self) -> Event:
        """The one event of the last fact."""
        (event,) = self.events
        assert event.version == self.version == getattr(self.state, "version", None)
        assert (event.plan_id, getattr(event, "examinee_id", EXAMINEE)) == (PLAN, EXAMINEE)
        return event
