"""Rules of notices: messages of proctors to an examinee, their confirmations, and the examinee's requests for help.

The record keeps the newest 20 messages. Every event holds the whole visible state (unconfirmed messages, confirmed
messages to several, the open request), so an event that overtakes older ones makes them superfluous.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from protocol.messages.facts import HelpClose, HelpRequest, HelpTake, Notice, NoticeConfirmed, NoticeFact, Restate
from protocol.messages.proctor_events import Event, HelpClosed, HelpRequested, HelpTaken
from protocol.messages.views import HelpView, NoticesView, NoticeView
from protocol.rules.action_ids import already_applied, with_action
from protocol.rules.effects import Effect, SendHelp, SendNotice
from protocol.rules.history import Outcome, StoredState

MAX_NOTICES = 20
MAX_CONFIRMED_PLAN_NOTICES = 40
"""Twice as many as a plan keeps (`plan_notices`), for they may be confirmed in any order."""


@dataclass(frozen=True, slots=True)
class RecordedNotice(StoredState):
    """One notice as it is recorded; times are RFC 3339."""

    action_id: str
    text: str
    by: str
    sent_at: str
    confirmed_at: str | None = None
    by_name: str | None = None

    def view(self) -> NoticeView:
        return NoticeView(
            action_id=self.action_id,
            text=self.text,
            by=self.by,
            by_name=self.by_name,
            sent_at=self.sent_at,
            confirmed_at=self.confirmed_at,
        )


@dataclass(frozen=True, slots=True)
class RecordedHelp(StoredState):
    """The newest request for help; times are RFC 3339. It is open until `closed_by` is set."""

    request_id: str
    since: str
    text: str | None = None
    taken_by: str | None = None
    taken_at: str | None = None
    closed_by: str | None = None
    closed_at: str | None = None
    taken_by_name: str | None = None
    closed_by_name: str | None = None

    def view(self) -> HelpView:
        return HelpView(
            request_id=self.request_id,
            text=self.text,
            since=self.since,
            taken_by=self.taken_by,
            taken_by_name=self.taken_by_name,
        )


@dataclass(frozen=True, slots=True)
class NoticesState(StoredState):
    """The notices of an examinee. `kept`: the newest, in order; `sent`: the count of all; `actions`: applied ones.

    `confirmed_plan_notices`: the actionIds of the newest confirmed messages to several. `help`: the newest request for
    help, open or closed.
    """

    plan_id: str = ""
    examinee_id: str = ""
    kept: tuple[RecordedNotice, ...] = ()
    sent: int = 0
    actions: tuple[str, ...] = ()
    confirmed_plan_notices: tuple[str, ...] = ()
    help: RecordedHelp | None = None
    version: int = 0

    @property
    def unconfirmed(self) -> list[str]:
        """The actionIds of the notices that the examinee has not confirmed."""
        return [notice.action_id for notice in self.kept if notice.confirmed_at is None]

    @property
    def open_help(self) -> HelpView | None:
        """The request for help that is open; `None`: there is none."""
        return self.help.view() if self.help is not None and self.help.closed_by is None else None

    def find(self, action_id: str) -> RecordedNotice | None:
        """Return the notice of an action; `None`: it is not kept any more, or was never sent."""
        return next((notice for notice in self.kept if notice.action_id == action_id), None)

    def open(self) -> list[NoticeView]:
        """Return the notices that the examinee has not confirmed."""
        return [notice.view() for notice in self.kept if notice.confirmed_at is None]

    def view(self) -> NoticesView:
        return NoticesView(
            unconfirmed=self.unconfirmed,
            sent=self.sent,
            confirmed_plan_notices=list(self.confirmed_plan_notices),
            help=self.open_help,
            version=self.version,
        )

    def notice(self, notice: RecordedNotice, version: int, *, restated: bool | None = None) -> Notice:
        """Return the `notice` event."""
        return Notice(
            **self._event_fields(version, restated),
            timestamp=notice.sent_at,
            action_id=notice.action_id,
            text=notice.text,
            by=notice.by,
            by_name=notice.by_name,
        )

    def confirmation(self, notice: RecordedNotice, version: int, *, restated: bool | None = None) -> NoticeConfirmed:
        """Return the `notice_confirmed` event of a confirmed notice."""
        assert notice.confirmed_at is not None
        return NoticeConfirmed(
            **self._event_fields(version, restated),
            timestamp=notice.confirmed_at,
            action_id=notice.action_id,
            by=notice.by,
            by_name=notice.by_name,
        )

    def plan_notice_confirmation(
        self, action_id: str, timestamp: str, version: int, *, restated: bool | None = None
    ) -> NoticeConfirmed:
        """Return the `notice_confirmed` event of a message to several."""
        return NoticeConfirmed(**self._event_fields(version, restated), timestamp=timestamp, action_id=action_id)

    def help_event(
        self, version: int, *, action_id: str | None = None, restated: bool | None = None
    ) -> HelpRequested | HelpTaken | HelpClosed:
        """Return the event of the newest request for help, as it is now."""
        assert self.help is not None
        common = {**self._event_fields(version, restated), "request_id": self.help.request_id, "action_id": action_id}
        if self.help.closed_by is not None:
            return HelpClosed(
                **common, by=self.help.closed_by, by_name=self.help.closed_by_name, timestamp=self.help.closed_at
            )
        if self.help.taken_by is not None:
            return HelpTaken(
                **common, by=self.help.taken_by, by_name=self.help.taken_by_name, timestamp=self.help.taken_at
            )
        return HelpRequested(**common, by=self.examinee_id, timestamp=self.help.since)

    def _event_fields(self, version: int, restated: bool | None) -> dict[str, Any]:
        """Return the fields that all events have: the whole visible state."""
        return {
            "plan_id": self.plan_id,
            "examinee_id": self.examinee_id,
            "unconfirmed": self.unconfirmed,
            "sent": self.sent,
            "confirmed_plan_notices": list(self.confirmed_plan_notices) or None,
            "help": self.open_help,
            "restated": restated,
            "version": version,
        }


def visible_part(state: NoticesState) -> tuple[object, ...]:
    """Return the part of the notices that events tell: when it changes, clients must be told."""
    return (state.sent, tuple(state.unconfirmed), state.confirmed_plan_notices, state.open_help)


def apply(state: NoticesState, version: int, fact: NoticeFact) -> Outcome[NoticesState]:
    """Apply one fact to the notices. Facts must come in the order of their versions (`protocol.rules.history`)."""
    if isinstance(fact, Restate):
        return _apply_restate(state, version, fact)
    known = replace(state, plan_id=fact.plan_id, examinee_id=fact.examinee_id, version=version)
    match fact:
        case Notice():
            outcome = _apply_notice(known, fact)
        case NoticeConfirmed():
            outcome = _apply_confirmed(known, fact)
        case HelpRequest():
            outcome = _apply_help_request(known, fact)
        case HelpTake():
            outcome = _apply_help_take(known, fact)
        case HelpClose():
            outcome = _apply_help_close(known, fact)
    return outcome or Outcome(state)


def _apply_notice(state: NoticesState, fact: Notice) -> Outcome[NoticesState] | None:
    if already_applied(state.actions, fact):
        return None
    notice = RecordedNotice(fact.action_id, fact.text, fact.by, fact.timestamp, by_name=fact.by_name)
    sent = replace(
        state,
        kept=(*state.kept, notice)[-MAX_NOTICES:],
        sent=state.sent + 1,
        actions=with_action(state.actions, fact),
    )
    tell = SendNotice(fact.plan_id, fact.examinee_id, fact.action_id, state.version)
    return Outcome(sent, (sent.notice(notice, state.version),), (tell,))


def _apply_confirmed(state: NoticesState, fact: NoticeConfirmed) -> Outcome[NoticesState] | None:
    notice = state.find(fact.action_id)
    if notice is None:
        return _apply_confirmed_plan_notice(state, fact)
    if notice.confirmed_at is not None:
        return None
    read = replace(notice, confirmed_at=fact.timestamp)
    kept = tuple(read if recorded is notice else recorded for recorded in state.kept)
    confirmed = replace(state, kept=kept)
    return Outcome(confirmed, (confirmed.confirmation(read, state.version),))


def _apply_confirmed_plan_notice(state: NoticesState, fact: NoticeConfirmed) -> Outcome[NoticesState] | None:
    # Whether there is such a message is in the plan's record; the session has looked (`actors.sessions`).
    if fact.action_id in state.confirmed_plan_notices:
        return None
    ids = (*state.confirmed_plan_notices, fact.action_id)[-MAX_CONFIRMED_PLAN_NOTICES:]
    confirmed = replace(state, confirmed_plan_notices=ids)
    return Outcome(confirmed, (confirmed.plan_notice_confirmation(fact.action_id, fact.timestamp, state.version),))


def _apply_help_request(state: NoticesState, fact: HelpRequest) -> Outcome[NoticesState] | None:
    if state.open_help is not None or already_applied(state.actions, fact):
        return None
    return _help(
        replace(
            state,
            help=RecordedHelp(fact.action_id, fact.timestamp, fact.text),
            actions=with_action(state.actions, fact),
        ),
    )


def _apply_help_take(state: NoticesState, fact: HelpTake) -> Outcome[NoticesState] | None:
    if not _is_open(state, fact) or already_applied(state.actions, fact):
        return None
    assert state.help is not None
    if state.help.taken_by == fact.by:
        return None
    return _help(
        replace(
            state,
            help=replace(state.help, taken_by=fact.by, taken_by_name=fact.by_name, taken_at=fact.timestamp),
            actions=with_action(state.actions, fact),
        ),
        fact.action_id,
    )


def _apply_help_close(state: NoticesState, fact: HelpClose) -> Outcome[NoticesState] | None:
    if not _is_open(state, fact):
        return None
    assert state.help is not None
    closed = replace(state.help, closed_by=fact.by, closed_by_name=fact.by_name, closed_at=fact.timestamp)
    return _help(replace(state, help=closed), fact.action_id)


def _is_open(state: NoticesState, fact: HelpTake | HelpClose) -> bool:
    return state.open_help is not None and state.open_help.request_id == fact.help_id


def _help(state: NoticesState, action_id: str | None = None) -> Outcome[NoticesState]:
    """Return the outcome of a change of the request for help: the proctors and the examinee are told."""
    event = state.help_event(state.version, action_id=action_id)
    return Outcome(state, (event,), (SendHelp(state.plan_id, state.examinee_id, state.version),))


def _apply_restate(state: NoticesState, version: int, fact: Restate) -> Outcome[NoticesState]:
    if not state.version:
        return Outcome(state)
    state = replace(state, version=version)
    # A notice that became a dead letter was never shown; clients recognise the others by their actionId.
    show: list[Effect] = [
        SendNotice(state.plan_id, state.examinee_id, action_id, version) for action_id in state.unconfirmed
    ]
    if state.help is not None:
        show.append(SendHelp(state.plan_id, state.examinee_id, version))
    return Outcome(state, (_newest_event(state, version, fact.timestamp),), tuple(show))


def _newest_event(state: NoticesState, version: int, timestamp: str) -> Event:
    """Return an event of the newest message or request; each event holds the whole visible state."""
    if state.kept:
        newest = state.kept[-1]
        if newest.confirmed_at is None:
            return state.notice(newest, version, restated=True)
        return state.confirmation(newest, version, restated=True)
    if state.help is not None:
        return state.help_event(version, restated=True)
    return state.plan_notice_confirmation(state.confirmed_plan_notices[-1], timestamp, version, restated=True)
