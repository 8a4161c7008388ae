"""The proctor session: one connected proctor of a plan."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Literal

from actors.runtime.actor.actor import on
from actors.runtime.config.stage_terms import StageTerms
from actors.runtime.token_bucket import TokenBucket
from actors.sessions.context import ServerContext
from actors.sessions.frames.endpoint import ConnectionOver
from actors.sessions.limits.fact_budget import FactBudget
from actors.sessions.plan_snapshot import LABELS_A_READ, SharedSnapshot, read_labels
from actors.sessions.session import SocketSession
from actors.sessions.websocket import WebSocketConnection
from protocol.access.claims import Claims
from protocol.access.scope import scoped_plan_state
from protocol.errors import ErrorCode, InvalidField, ProtocolError, StateDamaged, StateUnavailable
from protocol.messages.facts import (
    CaptureReview,
    ExamineeFinish,
    ExamineeResume,
    HelpClose,
    HelpTake,
    MobileSyncExtend,
    Notice,
    Readmit,
    Remove,
)
from protocol.messages.frames import (
    Accepted,
    ActivityFrame,
    AskForHelp,
    CancelHelp,
    CloseHelp,
    ConfirmNotice,
    EnterMobileSync,
    ExtendExamFrame,
    ExtendMobileSyncFrame,
    FinishFrame,
    NotifyFrame,
    NotifyPlanFrame,
    ProctorAction,
    ReadmitFrame,
    RemoveFrame,
    ResumeFrame,
    ReviewCaptureFrame,
    TakeHelp,
    error_frame,
)
from protocol.messages.plan_facts import MAX_LISTED, ExamExtend, PlanNotice
from protocol.messages.proctor_events import PlanStateEvent
from protocol.messages.session_messages import ProctorActivity
from protocol.records import keys
from protocol.records.snapshot_rows import labels_of
from protocol.rules.action_ids import ActingFact
from protocol.times import format_time

_UNKNOWN_SCOPE = "whom the token is limited to cannot be read now; say it again in some seconds"

ACTIVITIES_PER_SECOND, ACTIVITIES_AT_ONCE = 2.0, 20
"""Each `proctor_activity` goes to all servers and proctors of the plan: more than these are dropped."""

MOST_ACTIONS = 1000
"""So many stored actions are remembered, to recognise those that a page repeats."""


class ProctorSession(SocketSession):
    """Speaks for the socket of one proctor: sends it snapshots and events, and stores what the proctor decides.

    session = ProctorSession(context, connection, claims, actions=budget)
    session.send_snapshot(snapshot)  # as fast as the client takes it
    session.live  # it is sent the events of the plan by its feed from now on

    `actions` limits what it stores. A token with a `scope` limits whom the proctor sees and acts on.
    """

    kind = "proctor-session"

    def __init__(
        self, context: ServerContext, connection: WebSocketConnection, claims: Claims, *, actions: FactBudget
    ) -> None:
        socket_id = context.new_socket_id()
        address = f"proctor.{claims.plan}.{socket_id}"
        super().__init__(context, connection, address, plan_id=claims.plan, socket_id=socket_id)
        self.name = claims.sub
        self.scope = claims.limits
        """The examinees that the proctor is limited to; `None`: the whole plan."""
        self._display_name = claims.name
        self.snapshot: SharedSnapshot | None = None
        """The snapshot that was sent last, or is being sent."""
        self._sending: asyncio.Task[None] | None = None
        self._sent_since_bytes = 0
        self._actions = actions
        self._action_steps: dict[tuple[str, str, str], Literal["waiting", "stored"]] = {}
        self._storing: set[asyncio.Task[None]] = set()
        self._activity: ProctorActivity | None = None
        self._activities = TokenBucket(ACTIVITIES_PER_SECOND, ACTIVITIES_AT_ONCE)

    def details(self) -> dict[str, Any]:
        return {"planId": self.plan_id, "proctor": self.name, "socketId": self.socket_id}

    def ended(self, _reason: str) -> None:
        """Note that the socket has ended. The log is not told of proctors; the other proctors of the plan are."""
        self.over = True
        self._end_activity()

    # -- snapshots and events ------------------------------------------------------------------------

    @property
    def live(self) -> bool:
        """Whether it has its snapshot, and is sent events as they come."""
        return self.snapshot is not None and self._sending is None

    @property
    def unread_bytes(self) -> int:
        """Bytes that wait for the client to read, without the frame and the snapshot that are being sent."""
        waiting = self.connection.unread_bytes
        if self._sending is not None and self.snapshot is not None and self.snapshot.complete:
            waiting += self.snapshot.since_bytes - self._sent_since_bytes
        return waiting

    async def send_plan_state(self, event: PlanStateEvent) -> None:
        """Tell the client whether the exam runs, its times and its policy.

        With a scope, only own times of examinees in it; none while Redis is away.
        """
        if self.scope is not None and event.own_times:
            try:
                known = await self._labels_of(list(event.own_times))
            except (StateUnavailable, StateDamaged):
                known = {}
            event = scoped_plan_state(event, self.scope, known)
        now = format_time(self._outbox.clock.now())
        self.connection.send_message(event.model_copy(update={"server_time": now}))

    def send_snapshot(self, snapshot: SharedSnapshot) -> asyncio.Task[None]:
        """Send a snapshot and the events since, as fast as the client takes them, instead of one that is being sent.

        Returns the task that does so. When it has ended, the session is live.
        """
        self.stop_snapshot()
        self.snapshot, self._sent_since_bytes = snapshot, 0
        self._sending = self.spawn(self._send_snapshot(snapshot), "snapshot")
        return self._sending

    def stop_snapshot(self) -> None:
        """Stop sending a snapshot, if one is being sent."""
        if self._sending is not None:
            self._sending.cancel()
            self._sending = None

    async def _send_snapshot(self, snapshot: SharedSnapshot) -> None:
        task = asyncio.current_task()
        try:
            with suppress(ConnectionOver):
                async for frame in snapshot.frames():
                    await self.connection.send(frame)
                waited = len(snapshot.since)
                for events in snapshot.since[:waited]:
                    self._sent_since_bytes += len(events)
                    await self.connection.send(events)
                for events in snapshot.since[waited:]:
                    self.connection.send_now(events)
        finally:
            if self._sending is task:
                self._sending = None

    # -- what a proctor is doing ---------------------------------------------------------------------

    @on(ActivityFrame)
    async def set_activity(self, frame: ActivityFrame) -> None:
        """Tell the other proctors of the plan what this one is doing with an examinee."""
        if not self._activities.take() or (self.scope is not None and not await self._exists(frame.examinee_id)):
            return  # too many, or about nobody whom this proctor sees
        if self._activity is not None and self._activity.examinee_id != frame.examinee_id:
            self._end_activity()
        self._activity = ProctorActivity(
            plan_id=self.plan_id,
            examinee_id=frame.examinee_id,
            by=self.name,
            by_name=self._display_name,
            socket_id=self.socket_id,
            doing=frame.doing,
        )
        self._context.tell_activity(self._activity)
        if frame.doing == "nothing":
            self._activity = None

    def _end_activity(self) -> None:
        activity, self._activity = self._activity, None
        if activity is not None:
            self._context.tell_activity(activity.model_copy(update={"doing": "nothing"}))

    # -- what a proctor decides ------------------------------------------------------------------------

    @on(ReadmitFrame)
    async def readmit(self, frame: ReadmitFrame) -> None:
        await self._decide(frame, lambda common: Readmit(**common))

    @on(RemoveFrame)
    async def remove(self, frame: RemoveFrame) -> None:
        await self._decide(frame, lambda common: Remove(**common, reason=frame.reason))

    @on(ExtendMobileSyncFrame)
    async def extend_mobile_sync(self, frame: ExtendMobileSyncFrame) -> None:
        await self._decide(frame, lambda common: MobileSyncExtend(**common, seconds=frame.seconds, by_log_time=True))

    @on(ReviewCaptureFrame)
    async def review_capture(self, frame: ReviewCaptureFrame) -> None:
        if not await self._has_capture(frame.examinee_id, frame.capture_id):
            detail = f"the record of examinee {frame.examinee_id} names no such picture"
            self._refuse(frame, ProtocolError(ErrorCode.NOT_FOUND, detail, "data.captureId"))
            return
        plan = await self._context.plans.of(self.plan_id)
        terms = StageTerms.of(self._context.settings.mobile_sync, plan.policy)
        await self._decide(
            frame,
            lambda common: CaptureReview(
                **common,
                capture_id=frame.capture_id,
                verdict=frame.verdict,
                reason=frame.reason,
                seconds=terms.whole_seconds,
                challenge=terms.new_challenge() if frame.verdict == "rejected" else None,
                by_log_time=True,
            ),
        )

    @on(NotifyFrame)
    async def notify(self, frame: NotifyFrame) -> None:
        await self._decide(frame, lambda common: Notice(**common, text=frame.text))

    @on(FinishFrame)
    async def finish(self, frame: FinishFrame) -> None:
        for field, value in (("examineeId", frame.examinee_id), ("requestId", frame.request_id)):
            if value is None:
                self._refuse(frame, InvalidField(f"data.{field}", "a proctor says whom to finish, by which request"))
                return
        await self._decide(frame, lambda common: ExamineeFinish(**common))

    @on(ResumeFrame)
    async def resume(self, frame: ResumeFrame) -> None:
        if await self._refused_as_closed(frame):
            return
        await self._decide(frame, lambda common: ExamineeResume(**common))

    @on(ExtendExamFrame)
    async def extend_exam(self, frame: ExtendExamFrame) -> None:
        if frame.examinee_id is None and self.scope is not None:
            detail = "the token is limited to some examinees: name one; only who sees the whole plan extends it"
            self._refuse(frame, ProtocolError(ErrorCode.FORBIDDEN, detail))
            return
        if await self._refused_as_unknown(frame, frame.examinee_id) or await self._refused_as_closed(frame):
            return
        plan = await self._context.plans.of(self.plan_id)
        own = (plan.own_times or {}).get(frame.examinee_id or "")
        if plan.ends_at is None and (own is None or own.ends_at is None):
            self._refuse(frame, ProtocolError(ErrorCode.CONFLICT, f"plan {self.plan_id} has no end to move"))
            return
        await self._decide(frame, lambda common: ExamExtend(**common, seconds=frame.seconds))

    @on(NotifyPlanFrame)
    async def notify_plan(self, frame: NotifyPlanFrame) -> None:
        examinees = frame.examinees
        if self.scope is not None:
            try:
                examinees = await self._recipients(frame.examinees)
            except ProtocolError as error:
                self._refuse(frame, error)
                return
        await self._decide(frame, lambda common: PlanNotice(**common, text=frame.text, examinees=examinees))

    async def _recipients(self, listed: list[str] | None) -> list[str]:
        """Return the examinees in the scope: the listed ones, or all. Raises `ProtocolError` when one is not in it."""
        assert self.scope is not None
        try:
            names = await self._context.store.members(keys.plan_examinees(self.plan_id)) if listed is None else listed
            known = await self._labels_of(names)
        except (StateUnavailable, StateDamaged):
            raise ProtocolError(ErrorCode.UNAVAILABLE, _UNKNOWN_SCOPE) from None
        inside = [name for name in names if self.scope.matches(known[name])]
        if not inside:
            raise ProtocolError(ErrorCode.NOT_FOUND, "nobody whom the token is limited to is in the plan")
        if listed is not None and len(inside) < len(listed):
            unknown = next(name for name in listed if name not in inside)
            raise ProtocolError(ErrorCode.NOT_FOUND, self._not_there(unknown), "data.examinees")
        if len(inside) > MAX_LISTED:
            raise ProtocolError(ErrorCode.TOO_LARGE, f"{len(inside)} examinees; at most {MAX_LISTED} at once")
        return sorted(inside)

    async def _labels_of(self, examinees: Sequence[str]) -> dict[str, dict[str, str]]:
        """Read the labels of examinees. Raises `StateUnavailable`, `StateDamaged`."""
        labels: dict[str, dict[str, str]] = {}
        for start in range(0, len(examinees), LABELS_A_READ):
            names = examinees[start : start + LABELS_A_READ]
            known = await read_labels(self._context.store, self.plan_id, names)
            labels |= {name: of_examinee for name, (_, of_examinee) in known.items()}
        return labels

    @on(TakeHelp)
    async def take_help(self, frame: TakeHelp) -> None:
        await self._decide(frame, lambda common: HelpTake(**common, help_id=frame.help_id))

    @on(CloseHelp)
    async def close_help(self, frame: CloseHelp) -> None:
        await self._decide(frame, lambda common: HelpClose(**common, help_id=frame.help_id))

    async def _refused_as_closed(self, frame: ProctorAction) -> bool:
        """Refuse an action that only makes sense while the exam is not over. True: it was refused."""
        if not await self._context.plans.is_closed(self.plan_id):
            return False
        self._refuse(frame, ProtocolError(ErrorCode.CONFLICT, f"plan {self.plan_id} is closed; open it again first"))
        return True

    def _refuse(self, frame: ProctorAction, error: ProtocolError) -> None:
        self.connection.send_message(error_frame(error, frame.type, frame.request_id))

    async def _decide(
        self,
        frame: ProctorAction,
        fact: Callable[[dict[str, Any]], ActingFact],
    ) -> None:
        """Store the fact of an action, if there is such an examinee. Its effect follows as events."""
        examinee_id = None if isinstance(frame, NotifyPlanFrame) else frame.examinee_id
        if await self._refused_as_unknown(frame, examinee_id):
            return
        # A page repeats an action when it does not know whether it arrived: it is stored once.
        action = (frame.type, examinee_id or "", frame.request_id or "")
        step = self._action_steps.get(action) if frame.request_id is not None else None
        if step is not None:
            if step == "stored":
                self.connection.send_message(Accepted(request_type=frame.type, request_id=frame.request_id))
            return
        self._action_steps[action] = "waiting"
        common = {
            "plan_id": self.plan_id,
            "examinee_id": examinee_id,
            "by": self.name,
            "by_name": self._display_name,
            "action_id": frame.request_id,
            "timestamp": format_time(self._outbox.clock.now()),
        }
        # As a task of its own: while the log is away, heartbeats are answered; and the action is stored although the
        # proctor has gone. The outbox keeps the order.
        storing = asyncio.create_task(self._act_in_turn(fact(common), frame, action))
        self._storing.add(storing)
        storing.add_done_callback(self._storing.discard)

    async def _act_in_turn(self, fact: ActingFact, frame: ProctorAction, action: tuple[str, str, str]) -> None:
        if not await self._actions.turn("action"):
            self._action_steps.pop(action, None)
            self.refuse_for_now(frame.type, frame.request_id)
            return
        await self.act(fact, frame.type, frame.request_id)
        self._action_steps.pop(action, None)
        self._action_steps[action] = "stored"
        while len(self._action_steps) > MOST_ACTIONS:
            del self._action_steps[next(iter(self._action_steps))]

    async def _refused_as_unknown(self, frame: ProctorAction, examinee_id: str | None) -> bool:
        """Refuse an action on nobody whom this proctor sees. True: it was refused."""
        # Whose picture was found exists, also before they were ever connected.
        found = isinstance(frame, ReviewCaptureFrame) and self.scope is None
        exists = found or examinee_id is None or await self._exists(examinee_id)
        if exists is None:
            self._refuse(frame, ProtocolError(ErrorCode.UNAVAILABLE, _UNKNOWN_SCOPE))
        elif not exists:
            assert examinee_id is not None
            self._refuse(frame, ProtocolError(ErrorCode.NOT_FOUND, self._not_there(examinee_id), "data.examineeId"))
        return not exists

    def _not_there(self, examinee_id: str) -> str:
        # The same for an examinee outside the scope: not even that there is one may be told.
        return f"no examinee {examinee_id} was ever connected to plan {self.plan_id}, or is on its roster"

    async def _exists(self, examinee_id: str) -> bool | None:
        """Return whether the plan has such an examinee, in the scope of the proctor if there is one.

        While Redis is away, a proctor without a scope is believed; for one with a scope it is not known (`None`).
        """
        key = keys.progress(self.plan_id, examinee_id)
        try:
            ((known, labels),) = await self._context.store.fields([key], ("examineeId", "labels"))
            inside = self.scope is None or self.scope.matches(labels_of(labels))
        except (StateUnavailable, StateDamaged, ValueError):
            return True if self.scope is None else None
        return bool(known) and inside

    async def _has_capture(self, examinee_id: str, capture_id: str) -> bool:
        """Return whether the record names such a picture. While Redis is away, the proctor is believed."""
        try:
            ((captures,),) = await self._context.store.fields(
                [keys.mobile_sync(self.plan_id, examinee_id)], ("captures",)
            )
        except (StateUnavailable, StateDamaged):
            return True
        return capture_id in (captures or "")

    @on(EnterMobileSync)
    def refuse_mobile_sync(self, frame: EnterMobileSync) -> None:
        self.not_allowed(frame.type, "only an examinee enters the mobile sync stage")

    @on(AskForHelp)
    def refuse_ask_for_help(self, frame: AskForHelp) -> None:
        self.not_allowed(frame.type, "only an examinee asks for help", frame.request_id)

    @on(CancelHelp)
    def refuse_cancel_help(self, frame: CancelHelp) -> None:
        self.not_allowed(frame.type, "only an examinee takes a request for help back", frame.request_id)

    @on(ConfirmNotice)
    def refuse_confirm(self, frame: ConfirmNotice) -> None:
        self.not_allowed(frame.type, "only an examinee confirms a message")
