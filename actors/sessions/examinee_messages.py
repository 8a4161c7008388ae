"""The part of an examinee's session that is about messages of proctors, their confirmations, and help."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterable
from typing import Any, Literal

import pydantic_core

from actors.runtime.actor.actor import on
from actors.runtime.store.state_store import StateStore
from actors.sessions.context import ServerContext
from actors.sessions.limits.fact_budget import ExamineeBudgets, FactBudget
from actors.sessions.session import SocketSession
from actors.sessions.websocket import WebSocketConnection
from protocol.access.claims import Claims
from protocol.broker import subjects
from protocol.errors import ErrorCode, ProtocolError, StateDamaged, StateUnavailable
from protocol.messages.facts import HelpClose, HelpRequest, Notice, NoticeConfirmed
from protocol.messages.frames import Accepted, AskForHelp, CancelHelp, ConfirmNotice, error_frame
from protocol.messages.plan_facts import PlanNotice
from protocol.messages.proctor_events import HelpClosed, HelpRequested, HelpTaken
from protocol.messages.views import NoticeView
from protocol.records import keys
from protocol.times import format_time

log = logging.getLogger("examwire.examinee_session")

MOST_NOTICES = 64
"""So many messages a session remembers."""

NoticeStep = Literal["shown", "confirming", "confirmed", "unknown"]
"""What is known of a proctor's message: shown, its confirmation on the way to the log or stored, or never heard of."""


class ExamineeMessages(SocketSession):
    """Shows the examinee the messages of proctors, and stores what the examinee confirms and asks."""

    _known_confirmations: Confirmations | None = None

    def __init__(
        self,
        context: ServerContext,
        connection: WebSocketConnection,
        claims: Claims,
        budgets: ExamineeBudgets,
    ) -> None:
        address = subjects.session(claims.plan, claims.sub)
        plan_id = sys.intern(claims.plan)  # one string for all examinees of the plan
        super().__init__(context, connection, address, plan_id=plan_id, socket_id=context.new_socket_id())
        self.examinee_id = claims.sub
        self._budgets = budgets

    @property
    def _facts(self) -> FactBudget:
        """The budget of what the examinee has stored."""
        return self._budgets.facts.of(self.plan_id, self.examinee_id)

    @property
    def _lookups(self) -> FactBudget:
        """The budget of what Redis is asked for the examinee."""
        return self._budgets.lookups.of(self.plan_id, self.examinee_id)

    @property
    def _confirmations(self) -> Confirmations:
        if self._known_confirmations is None:
            self._known_confirmations = Confirmations(self._context.store, self.plan_id, self.examinee_id)
        return self._known_confirmations

    # -- from the client -----------------------------------------------------------------------------

    @on(ConfirmNotice)
    def confirm_notice(self, frame: ConfirmNotice) -> None:
        step = self._confirmations.step(frame.action_id)
        if step == "confirmed":
            self.connection.send_message(Accepted(request_type=frame.type, request_id=frame.action_id))
        elif step != "confirming":
            self._confirmations.set_confirming(frame.action_id)
            # As a task: while the log is away, the session still handles other messages, such as its close.
            self.spawn(self._confirm(frame, known=step == "shown"), "confirm")

    async def _confirm(self, frame: ConfirmNotice, *, known: bool) -> None:
        """Store the confirmation of a message that was sent and is not confirmed yet; anything else is only answered.

        `known`: this session has shown the message.
        """
        action_id = frame.action_id
        recorded: NoticeStep = "shown" if known else "unknown"
        allowed = True
        if not known and (allowed := self._lookups.take_or_count(frame.type)):
            step = await self._confirmations.recorded_step(action_id)
            if step is None:  # Redis is away: believe the examinee
                recorded, allowed = "confirming", self._facts.take_or_count(frame.type)
            else:
                recorded = step
        if allowed and recorded == "shown":
            allowed = await self._facts.turn(frame.type)
        if not allowed:
            self._confirmations.forget(action_id, known=known)
            self.refuse_for_now(frame.type, action_id, "data.actionId")
        elif recorded == "unknown":
            self._confirmations.forget(action_id, known=known)
            error = ProtocolError(ErrorCode.NOT_FOUND, "there is no such message for you", "data.actionId")
            self.connection.send_message(error_frame(error, frame.type, action_id))
        else:
            if recorded == "confirmed":
                self.connection.send_message(Accepted(request_type=frame.type, request_id=action_id))
            else:
                confirmed = NoticeConfirmed(
                    plan_id=self.plan_id,
                    examinee_id=self.examinee_id,
                    action_id=action_id,
                    timestamp=format_time(self._outbox.clock.now()),
                )
                await self.act(confirmed, frame.type, action_id)
            self._confirmations.set_confirmed(action_id)

    @on(AskForHelp)
    def ask_for_help(self, frame: AskForHelp) -> None:
        """Store that the examinee asks for help, and answer `accepted` once it is in the log."""
        if not self._facts.take_or_count(frame.type):
            self.refuse_for_now(frame.type, frame.request_id)
            return
        asked = HelpRequest(**self._common(), action_id=frame.request_id, text=frame.text)
        self.spawn(self.act(asked, frame.type, frame.request_id), "help")

    @on(CancelHelp)
    def cancel_help(self, frame: CancelHelp) -> None:
        """Store that the examinee needs no help any more."""
        if not self._facts.take_or_count(frame.type):
            self.refuse_for_now(frame.type, frame.request_id)
            return
        # The help's own id names the action: however often it is said, it is stored once.
        closed = HelpClose(**self._common(), by=self.examinee_id, action_id=frame.request_id, help_id=frame.request_id)
        self.spawn(self.act(closed, frame.type, frame.request_id), "help")

    def _common(self) -> dict[str, Any]:
        return {
            "plan_id": self.plan_id,
            "examinee_id": self.examinee_id,
            "timestamp": format_time(self._outbox.clock.now()),
        }

    # -- from the state manager ----------------------------------------------------------------------

    def shown_again(self, notices: Iterable[NoticeView]) -> None:
        """Note that the examinee is shown these messages, which they have not confirmed."""
        for notice in notices:
            self._confirmations.set_shown(notice.action_id)

    @on(Notice)
    def notice(self, message: Notice) -> None:
        self._confirmations.set_shown(message.action_id)
        self.connection.send_message(message)

    @on(HelpRequested)
    def help_requested(self, event: HelpRequested) -> None:
        self.connection.send_message(event)

    @on(HelpTaken)
    def help_taken(self, event: HelpTaken) -> None:
        self.connection.send_message(event)

    @on(HelpClosed)
    def help_closed(self, event: HelpClosed) -> None:
        self.connection.send_message(event)

    @on(PlanNotice)
    def plan_notice(self, message: PlanNotice) -> None:
        """Show a message to several examinees as one of their own, if this examinee is among them."""
        if message.examinees is not None and self.examinee_id not in message.examinees:
            return
        self._confirmations.set_shown(message.action_id)
        self.connection.send_message(
            Notice(
                plan_id=self.plan_id,
                examinee_id=self.examinee_id,
                timestamp=message.timestamp,
                action_id=message.action_id,
                text=message.text,
                by=message.by,
                by_name=message.by_name,
            )
        )


class Confirmations:
    """The newest messages that a session was told of, each with its step.

    confirmations = Confirmations(store, "P001", "E001")
    confirmations.set_shown("a1")
    confirmations.step("a1")  # "shown"
    await confirmations.recorded_step("a0")  # of a message that an earlier session has shown
    """

    def __init__(self, store: StateStore, plan_id: str, examinee_id: str) -> None:
        self._store = store
        self._plan_id = plan_id
        self._examinee_id = examinee_id
        self._steps: dict[str, NoticeStep] = {}

    def step(self, action_id: str) -> NoticeStep | None:
        """Return the step of a message; `None`: this session was not told of it."""
        return self._steps.get(action_id)

    def set_shown(self, action_id: str) -> None:
        """Note that the message was shown; a confirmation that has begun stays."""
        if self._steps.get(action_id) not in ("confirming", "confirmed"):
            self._set(action_id, "shown")

    def set_confirming(self, action_id: str) -> None:
        """Note that the confirmation is on its way to the log."""
        self._steps[action_id] = "confirming"

    def set_confirmed(self, action_id: str) -> None:
        """Note that the confirmation is in the log."""
        self._set(action_id, "confirmed")

    def forget(self, action_id: str, *, known: bool) -> None:
        """Forget a confirmation that was not stored, so that the client may send it again."""
        if known:
            self._steps[action_id] = "shown"
        else:
            self._steps.pop(action_id, None)

    def _set(self, action_id: str, step: NoticeStep) -> None:
        self._steps.pop(action_id, None)
        self._steps[action_id] = step
        while len(self._steps) > MOST_NOTICES:
            del self._steps[next(iter(self._steps))]

    async def recorded_step(self, action_id: str) -> NoticeStep | None:
        """Read from Redis what is known of a message that this session was not told of; `None`: Redis is away."""
        try:
            ((own, confirmed),) = await self._store.fields(
                [keys.notices(self._plan_id, self._examinee_id)], ("notices", "confirmedPlanNotices")
            )
            for notice in _parsed(own):
                if notice["actionId"] == action_id:
                    return "confirmed" if notice.get("confirmedAt") else "shown"
            if action_id in _parsed(confirmed):
                return "confirmed"
            ((to_several,),) = await self._store.fields([keys.plan_notices(self._plan_id)], ("notices",))
            for notice in _parsed(to_several):
                if notice["actionId"] == action_id:
                    listed = notice.get("examinees")
                    return "shown" if listed is None or self._examinee_id in listed else "unknown"
        except (StateUnavailable, StateDamaged, ValueError, TypeError, KeyError, AttributeError) as error:
            log.debug("%s %s: %s: cannot check: %s", self._plan_id, self._examinee_id, action_id, error)
            return None
        return "unknown"


def _parsed(encoded: str | None) -> Any:
    return pydantic_core.from_json(encoded or "[]")
