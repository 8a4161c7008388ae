"""Rules of the messages to a whole plan, or to listed examinees of it: one fact, however many they are for.

The record keeps the newest 20. Who has confirmed one is in the record of the examinee (`protocol.rules.notices`).
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace

from protocol.messages.plan_facts import PlanNotice, PlanNoticeFact, PlanPurged
from protocol.messages.views import NoticeView
from protocol.rules.action_ids import already_applied, with_action
from protocol.rules.effects import SendPlanNotice
from protocol.rules.history import Outcome, StoredState

MAX_PLAN_NOTICES = 20


@dataclass(frozen=True, slots=True)
class RecordedPlanNotice(StoredState):
    """One message as it is recorded; `examinees`: whom it is for (`None`: everybody); `sent_at` is RFC 3339."""

    action_id: str
    text: str
    by: str
    sent_at: str
    examinees: list[str] | None = None
    by_name: str | None = None

    def is_for(self, examinee_id: str) -> bool:
        return self.examinees is None or examinee_id in self.examinees

    def view(self) -> NoticeView:
        return NoticeView(
            action_id=self.action_id, text=self.text, by=self.by, by_name=self.by_name, sent_at=self.sent_at
        )


@dataclass(frozen=True, slots=True)
class PlanNoticesState(StoredState):
    """The messages to a plan. `kept`: the newest, in order; `actions`: the applied ones."""

    plan_id: str = ""
    kept: tuple[RecordedPlanNotice, ...] = ()
    actions: tuple[str, ...] = ()
    version: int = 0

    def find(self, action_id: str) -> RecordedPlanNotice | None:
        """Return the message of an action; `None`: it is not kept any more, or was never sent."""
        return next((notice for notice in self.kept if notice.action_id == action_id), None)

    def open(self, examinee_id: str, confirmed: Collection[str]) -> list[NoticeView]:
        """Return the messages to an examinee that are not among the `confirmed` ones."""
        return [
            notice.view() for notice in self.kept if notice.is_for(examinee_id) and notice.action_id not in confirmed
        ]

    def event(self, notice: RecordedPlanNotice) -> PlanNotice:
        """Return the `plan_notice` event."""
        return PlanNotice(
            plan_id=self.plan_id,
            timestamp=notice.sent_at,
            by=notice.by,
            by_name=notice.by_name,
            action_id=notice.action_id,
            text=notice.text,
            examinees=notice.examinees,
            version=self.version,
        )


def visible_part(state: PlanNoticesState) -> tuple[str, ...]:
    """Return the part of the messages that events tell: when it changes, clients must be told."""
    return tuple(notice.action_id for notice in state.kept)


def apply(state: PlanNoticesState, version: int, fact: PlanNoticeFact) -> Outcome[PlanNoticesState]:
    """Apply one fact to the messages. Facts must come in the order of their versions (`protocol.rules.history`)."""
    if isinstance(fact, PlanNotice):
        if already_applied(state.actions, fact):
            return Outcome(state)
        notice = RecordedPlanNotice(fact.action_id, fact.text, fact.by, fact.timestamp, fact.examinees, fact.by_name)
        sent = PlanNoticesState(
            plan_id=fact.plan_id,
            kept=(*state.kept, notice)[-MAX_PLAN_NOTICES:],
            actions=with_action(state.actions, fact),
            version=version,
            unknown_fields=state.unknown_fields,
        )
        return Outcome(sent, (sent.event(notice),), (SendPlanNotice(fact.plan_id, fact.action_id, version),))
    if isinstance(fact, PlanPurged):
        return Outcome(_renamed(state, fact))
    if not state.kept:
        return Outcome(state)
    state = replace(state, version=version)
    # A message that became a dead letter was never shown; clients recognise the others by their actionId.
    show = tuple(SendPlanNotice(state.plan_id, notice.action_id, version) for notice in state.kept)
    return Outcome(state, tuple(state.event(notice) for notice in state.kept), show)


def _renamed(state: PlanNoticesState, fact: PlanPurged) -> PlanNoticesState:
    """Return the messages with another id for an examinee who is deleted: no list becomes one for everybody."""
    if fact.alias is None or not any(fact.examinee_id in (notice.examinees or ()) for notice in state.kept):
        return state
    kept: list[RecordedPlanNotice] = []
    for notice in state.kept:
        examinees = notice.examinees
        if examinees is not None:
            examinees = [fact.alias if name == fact.examinee_id else name for name in examinees]
        kept.append(replace(notice, examinees=examinees))
    return replace(state, kept=tuple(kept))
