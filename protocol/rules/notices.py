"""Rules of notices: messages of proctors to an examinee, and their confirmations.

The record keeps the newest 20. Every event lists all unconfirmed notices, so an event that overtakes older ones makes
them superfluous.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from protocol.messages.facts import Notice, NoticeConfirmed, NoticeFact, Restate
from protocol.messages.views import NoticesView, NoticeView
from protocol.rules.action_ids import already_applied, with_action
from protocol.rules.effects import SendNotice
from protocol.rules.history import Outcome

MAX_NOTICES = 20


@dataclass(frozen=True, slots=True)
class RecordedNotice:
    """One notice as it is recorded; times are RFC 3339."""

    action_id: str
    text: str
    by: str
    sent_at: str
    confirmed_at: str | None = None

    def view(self) -> NoticeView:
        return NoticeView(
            action_id=self.action_id, text=self.text, by=self.by, sent_at=self.sent_at, confirmed_at=self.confirmed_at
        )


@dataclass(frozen=True, slots=True)
class NoticesState:
    """The notices of an examinee. `kept`: the newest, in order; `sent`: the count of all; `actions`: applied ones."""

    plan_id: str = ""
    examinee_id: str = ""
    kept: tuple[RecordedNotice, ...] = ()
    sent: int = 0
    actions: tuple[str, ...] = ()
    version: int = 0

    @property
    def unconfirmed(self) -> list[str]:
        """The actionIds of the notices that the examinee has not confirmed."""
        return [notice.action_id for notice in self.kept if notice.confirmed_at is None]

    def find(self, action_id: str) -> RecordedNotice | None:
        """Return the notice of an action; `None`: it is not kept any more, or was never sent."""
        return next((notice for notice in self.kept if notice.action_id == action_id), None)

    def open(self) -> list[NoticeView]:
        """Return the notices that the examinee has not confirmed."""
        return [notice.view() for notice in self.kept if notice.confirmed_at is None]

    def view(self) -> NoticesView:
        return NoticesView(unconfirmed=self.unconfirmed, sent=self.sent, version=self.version)

    def notice(self, notice: RecordedNotice, version: int, *, restated: bool | None = None) -> Notice:
        """Return the `notice` event."""
        return Notice(
            plan_id=self.plan_id,
            examinee_id=self.examinee_id,
            timestamp=notice.sent_at,
            action_id=notice.action_id,
            text=notice.text,
            by=notice.by,
            unconfirmed=self.unconfirmed,
            sent=self.sent,
            restated=restated,
            version=version,
        )

    def confirmation(self, notice: RecordedNotice, version: int, *, restated: bool | None = None) -> NoticeConfirmed:
        """Return the `notice_confirmed` event of a confirmed notice."""
        assert notice.confirmed_at is not None
        return NoticeConfirmed(
            plan_id=self.plan_id,
            examinee_id=self.examinee_id,
            timestamp=notice.confirmed_at,
            action_id=notice.action_id,
            by=notice.by,
            unconfirmed=self.unconfirmed,
            sent=self.sent,
            restated=restated,
            version=version,
        )


def visible_part(state: NoticesState) -> tuple[int, tuple[str, ...]]:
    """Return the part of the notices that events tell: when it changes, clients must be told."""
    return (state.sent, tuple(state.unconfirmed))


def apply(state: NoticesState, version: int, fact: NoticeFact) -> Outcome[NoticesState]:
    """Apply one fact to the notices. Facts must come in the order of their versions (`protocol.rules.history`)."""
    match fact:
        case Notice():
            return _apply_notice(state, version, fact)
        case NoticeConfirmed():
            return _apply_confirmed(state, version, fact)
        case Restate():
            return _apply_restate(state, version)


def _apply_notice(state: NoticesState, version: int, fact: Notice) -> Outcome[NoticesState]:
    if already_applied(state.actions, fact):
        return Outcome(state)
    notice = RecordedNotice(fact.action_id, fact.text, fact.by, fact.timestamp)
    sent = NoticesState(
        plan_id=fact.plan_id,
        examinee_id=fact.examinee_id,
        kept=(*state.kept, notice)[-MAX_NOTICES:],
        sent=state.sent + 1,
        actions=with_action(state.actions, fact),
        version=version,
    )
    tell = SendNotice(fact.plan_id, fact.examinee_id, fact.action_id, version)
    return Outcome(sent, (sent.notice(notice, version),), (tell,))


def _apply_confirmed(state: NoticesState, version: int, fact: NoticeConfirmed) -> Outcome[NoticesState]:
    notice = state.find(fact.action_id)
    if notice is None or notice.confirmed_at is not None:
        return Outcome(state)
    read = replace(notice, confirmed_at=fact.timestamp)
    kept = tuple(read if recorded is notice else recorded for recorded in state.kept)
    confirmed = replace(state, kept=kept, version=version)
    return Outcome(confirmed, (confirmed.confirmation(read, version),))


def _apply_restate(state: NoticesState, version: int) -> Outcome[NoticesState]:
    if not state.kept:
        return Outcome(state)
    state = replace(state, version=version)
    newest = state.kept[-1]
    # A notice that became a dead letter was never shown; clients recognise the others by their actionId.
    show = tuple(SendNotice(state.plan_id, state.examinee_id, action_id, version) for action_id in state.unconfirmed)
    if newest.confirmed_at is None:
        return Outcome(state, (state.notice(newest, version, restated=True),), show)
    return Outcome(state, (state.confirmation(newest, version, restated=True),), show)
