"""The examinee session: one connected examinee, from hello to the end of the socket."""

from __future__ import annotations

import asyncio
import logging
import sys
from typing import Any, NamedTuple

from actors.runtime.actor.actor import on
from actors.runtime.broker.wire import OnArrival
from actors.runtime.config.stage_terms import StageTerms
from actors.runtime.telemetry import spans, tracing
from actors.sessions.context import ServerContext
from actors.sessions.examinee_messages import ExamineeMessages
from actors.sessions.limits.fact_budget import ExamineeBudgets
from actors.sessions.websocket import WebSocketConnection
from protocol.access.claims import Claims
from protocol.broker.passed_on import UsualState
from protocol.errors import ErrorCode, ProtocolError
from protocol.messages.codec import encode_data
from protocol.messages.facts import (
    ConnectionStatus,
    ConnectionStatusCode,
    ExamineeFinish,
    FinishReason,
    LossReason,
    MobileSyncCode,
    MobileSyncStatus,
    MobileSyncWait,
    UnstableRule,
)
from protocol.messages.frames import (
    ActivityFrame,
    CloseHelp,
    EnterMobileSync,
    ExtendExamFrame,
    ExtendMobileSyncFrame,
    FinishFrame,
    Hello,
    NotifyFrame,
    NotifyPlanFrame,
    ReadmitFrame,
    RemoveFrame,
    ResumeFrame,
    ReviewCaptureFrame,
    TakeHelp,
    error_frame,
)
from protocol.messages.plan_facts import PlanPolicy
from protocol.messages.proctor_events import MobileSyncCompleted, PlanStateEvent
from protocol.messages.session_messages import SessionState
from protocol.texts import clean_line
from protocol.times import format_time

log = logging.getLogger("examwire.examinee_session")

ANSWER_SECONDS = 5.0
"""For so long after a `mobile_sync_wait` the answer to it is still expected, and no second one is stored."""

MAX_BROWSER_INFO = 256

_USUAL_RULE = UnstableRule()
_NO_POLICY = PlanPolicy()


class ExamineeSession(ExamineeMessages):
    """Speaks for the socket of one examinee, and puts its begin and its end into the log.

    session = ExamineeSession(context, connection, claims, hello, ExamineeBudgets())
    session.announce()  # CONNECTED
    session.ended("CLIENT_CLOSED")  # DISCONNECTED

    `budgets` limits what it stores and what it asks Redis.
    """

    kind = "examinee-session"
    _client_trace: str | None = None
    _stage_asked_at = -ANSWER_SECONDS

    def __init__(
        self,
        context: ServerContext,
        connection: WebSocketConnection,
        claims: Claims,
        hello: Hello,
        budgets: ExamineeBudgets,
    ) -> None:
        super().__init__(context, connection, claims, budgets)
        self._client_id = hello.client_id
        self._connection_no = hello.connection_no
        self._client_info = client_info_of(connection, hello)
        if tracing.on():
            self._client_trace = hello.traceparent
        self._announced = False
        self._opened_at = context.clock.now()
        self._inspections: int | None = None
        self._stage: MobileSyncStatus | MobileSyncCompleted | None = None

    def about(self) -> dict[str, str]:
        return {"plan": self.plan_id, "examinee": self.examinee_id, "socket": self.socket_id}

    def details(self) -> dict[str, Any]:
        return {
            "planId": self.plan_id,
            "examineeId": self.examinee_id,
            "socketId": self.socket_id,
            "serverId": self._context.server_id,
            "clientId": self._client_id,
            "connectionNo": self._connection_no,
        }

    def answer_inspections(self, inspect: OnArrival) -> None:
        """Have requests to `session.{planId}.{examineeId}` answered by `inspect`, until the session stops."""
        self._inspections = self._context.bus.subscribe_direct(self.address, inspect)

    def _stopped(self, current: asyncio.Task[Any] | None) -> None:
        super()._stopped(current)
        if self._inspections is not None:
            self._context.bus.unsubscribe_direct(self._inspections)

    # -- its begin and its end -----------------------------------------------------------------------

    def announce(self) -> None:
        """Put CONNECTED into the log. Called again when this session was declared lost although it is alive."""
        if not self.over:
            self._add(self._status(ConnectionStatusCode.CONNECTED, None, again=self._announced or None))
            self._announced = True

    def ended(self, reason: str) -> None:
        """Put DISCONNECTED into the log, once."""
        if not self.over:
            self.over = True
            self._add(self._status(ConnectionStatusCode.DISCONNECTED, reason))

    async def drain(self) -> None:
        """Put DISCONNECTED into the log and wait until it is stored: the client's next CONNECTED comes after it."""
        if not self.over:
            self.over = True
            draining = LossReason.SERVER_DRAINING.value
            status = self._status(ConnectionStatusCode.DISCONNECTED, draining)
            await self._outbox.store(ConnectionStatus.model_validate(status))

    def _add(self, status: dict[str, Any]) -> None:
        if tracing.on():
            self._outbox.add(ConnectionStatus.model_validate(status))
        else:
            self._outbox.add_encoded(self.plan_id, encode_data(ConnectionStatus.type, status))

    def _status(self, status: ConnectionStatusCode, reason: str | None, *, again: bool | None = None) -> dict[str, Any]:
        """Return the data of a `ConnectionStatus`, without a model: thousands at once when a hall loses its network."""
        connected = status is ConnectionStatusCode.CONNECTED
        data = {
            "traceparent": self._trace(status, reason) if tracing.on() else None,
            "planId": self.plan_id,
            "examineeId": self.examinee_id,
            "timestamp": format_time(self._context.clock.now()),
            "socketId": self.socket_id,
            "status": status.value,
            "reason": reason,
            "clientInfo": self._client_info.data() if connected else None,
            "serverId": self._context.server_id,
            "incarnation": self._context.incarnation,
            "clientId": self._client_id,
            "connectionNo": self._connection_no,
            "again": again,
            "openedAt": format_time(self._opened_at) if again else None,
            "closeCode": self.connection.frame_code() if self.over else None,
            "unstableRule": self._unstable_rule() if connected else None,
        }
        return {name: value for name, value in data.items() if value is not None}

    def _unstable_rule(self) -> dict[str, Any]:
        """Return when the plan calls this examinee unstable, as far as this server knows."""
        plan = self._context.plans.known(self.plan_id)
        policy = (plan.policy if plan is not None else None) or _NO_POLICY
        own = (plan.own_times or {}).get(self.examinee_id) if plan is not None else None
        starts_at = own.starts_at if own is not None else plan.starts_at if plan is not None else None
        rule = {
            "share": policy.unstable_share or _USUAL_RULE.share,
            "windowSeconds": policy.unstable_window_seconds or _USUAL_RULE.window_seconds,
        }
        return rule if starts_at is None else {**rule, "startsAt": starts_at}

    def _trace(self, status: ConnectionStatusCode, reason: str | None) -> str | None:
        """Begin the trace of a status; that of the first CONNECTED goes on from the client's hello."""
        opened = status is ConnectionStatusCode.CONNECTED
        parent, self._client_trace = self._client_trace if opened else None, None
        name = "socket opened" if opened else "socket lost"
        return spans.start_trace(name, parent, reason=reason, server=self._context.server_id, **self.about())

    # -- from the client -----------------------------------------------------------------------------

    @on(ReadmitFrame)
    def refuse_readmit(self, frame: ReadmitFrame) -> None:
        self.not_allowed(frame.type, "only a proctor readmits", frame.request_id)

    @on(RemoveFrame)
    def refuse_remove(self, frame: RemoveFrame) -> None:
        self.not_allowed(frame.type, "only a proctor removes", frame.request_id)

    @on(ExtendMobileSyncFrame)
    def refuse_extend(self, frame: ExtendMobileSyncFrame) -> None:
        self.not_allowed(frame.type, "only a proctor gives more time", frame.request_id)

    @on(ReviewCaptureFrame)
    def refuse_review(self, frame: ReviewCaptureFrame) -> None:
        self.not_allowed(frame.type, "only a proctor reviews pictures", frame.request_id)

    @on(NotifyFrame)
    def refuse_notify(self, frame: NotifyFrame) -> None:
        self.not_allowed(frame.type, "only a proctor sends messages", frame.request_id)

    @on(ResumeFrame)
    def refuse_resume(self, frame: ResumeFrame) -> None:
        self.not_allowed(frame.type, "only a proctor lets an examinee go on", frame.request_id)

    @on(ExtendExamFrame)
    def refuse_extend_exam(self, frame: ExtendExamFrame) -> None:
        self.not_allowed(frame.type, "only a proctor gives more time", frame.request_id)

    @on(NotifyPlanFrame)
    def refuse_notify_plan(self, frame: NotifyPlanFrame) -> None:
        self.not_allowed(frame.type, "only a proctor sends messages", frame.request_id)

    @on(TakeHelp)
    def refuse_take_help(self, frame: TakeHelp) -> None:
        self.not_allowed(frame.type, "only a proctor takes a request for help", frame.request_id)

    @on(CloseHelp)
    def refuse_close_help(self, frame: CloseHelp) -> None:
        self.not_allowed(frame.type, "only a proctor closes it; help_cancel takes it back", frame.request_id)

    @on(ActivityFrame)
    def refuse_activity(self, frame: ActivityFrame) -> None:
        self.not_allowed(frame.type, "only a proctor says what they are doing")

    @on(FinishFrame)
    def finish(self, frame: FinishFrame) -> None:
        """Store that the examinee has handed in, and answer `accepted` once it is in the log."""
        if frame.examinee_id not in (None, self.examinee_id):
            error = ProtocolError(ErrorCode.FORBIDDEN, "is not yours", "data.examineeId")
            self.connection.send_message(error_frame(error, frame.type, frame.request_id))
        elif not self._facts.take_or_count(frame.type):
            self.refuse_for_now(frame.type, frame.request_id)
        else:
            fact = ExamineeFinish(
                plan_id=self.plan_id,
                examinee_id=self.examinee_id,
                by=self.examinee_id,
                reason=FinishReason.HANDED_IN,
                action_id=frame.request_id,
                timestamp=format_time(self._outbox.clock.now()),
            )
            # As a task: while the log is away, the session still handles other messages, such as its close.
            self.spawn(self.act(fact, frame.type, frame.request_id), "finish")

    @on(EnterMobileSync)
    async def enter_mobile_sync(self, frame: EnterMobileSync) -> None:
        for field, named, own in (
            ("data.planId", frame.plan_id, self.plan_id),
            ("data.examineeId", frame.examinee_id, self.examinee_id),
        ):
            if named is not None and named != own:
                error = ProtocolError(ErrorCode.FORBIDDEN, "is not yours", field)
                self.connection.send_message(error_frame(error, frame.type))
                return
        if self._stage is not None and self._stage.status in (MobileSyncCode.WAITING, MobileSyncCode.COMPLETED):
            self.connection.send_message(self._stage)  # the page was loaded again: the stage goes on, a picture stays
            return
        asked_at = asyncio.get_running_loop().time()
        if asked_at - self._stage_asked_at < ANSWER_SECONDS:
            return  # the first one is in the log, or on its way there, and will be answered
        if not self._facts.take_or_count(frame.type):
            self.refuse_for_now(frame.type)
            return
        self._stage_asked_at = asked_at
        plan = await self._context.plans.of(self.plan_id)
        terms = StageTerms.of(self._context.settings.mobile_sync, plan.policy)
        now = self._outbox.clock.now()
        self._outbox.add(
            MobileSyncWait(
                plan_id=self.plan_id,
                examinee_id=self.examinee_id,
                timestamp=format_time(now),
                deadline=format_time(now + terms.seconds),
                by_log_time=True,
                challenge=terms.new_challenge(),
                traceparent=spans.start_trace(
                    "mobile sync entered", frame.traceparent, plan=self.plan_id, examinee=self.examinee_id
                ),
            )
        )

    # -- from the state manager ----------------------------------------------------------------------

    @on(UsualState)
    def usual_state(self, state: UsualState) -> None:
        self.connection.send_now(state.encoded)

    @on(SessionState)
    def session_state(self, message: SessionState) -> None:
        self.shown_again(message.notices)
        if (stage := stage_of(message)) is not None:
            self._set_stage(stage)
        self.connection.send_message(message)

    @on(MobileSyncCompleted)
    def mobile_sync_completed(self, message: MobileSyncCompleted) -> None:
        self._tell_stage(message)

    @on(MobileSyncStatus)
    def mobile_sync_status(self, message: MobileSyncStatus) -> None:
        self._tell_stage(message)

    def _tell_stage(self, stage: MobileSyncStatus | MobileSyncCompleted) -> None:
        """Tell the client the stage, unless it is known to have changed since.

        When the first examinee of a plan connects here, the queue may still bring what the last server was told.
        """
        if self._set_stage(stage):
            self.connection.send_message(stage)

    def _set_stage(self, stage: MobileSyncStatus | MobileSyncCompleted) -> bool:
        """Take note of the stage, and return whether it is not older than what is known."""
        if self._stage is not None and (stage.version or 0) < (self._stage.version or 0):
            return False
        self._stage, self._stage_asked_at = stage, -ANSWER_SECONDS
        return True

    @on(PlanStateEvent)
    def send_plan_state(self, event: PlanStateEvent) -> None:
        """Tell the client whether the exam runs, and its own times."""
        now = format_time(self._outbox.clock.now())
        self.connection.send_message(event.for_examinee(self.examinee_id, now))


class ClientDetails(NamedTuple):
    """What a session keeps of its client for CONNECTED: the fields of `ClientInfo`."""

    ip_address: str | None
    browser_info: str | None
    user_agent: str | None

    def data(self) -> dict[str, str]:
        """Return the data of a `ClientInfo`."""
        fields = {"ipAddress": self.ip_address, "browserInfo": self.browser_info, "userAgent": self.user_agent}
        return {name: value for name, value in fields.items() if value is not None}


def client_info_of(connection: WebSocketConnection, hello: Hello) -> ClientDetails:
    """Return the client's address and browser.

    `browserInfo` is what the hello says, or else the `User-Agent` of its handshake, which is kept beside it.
    """
    header = connection.request.headers.get("User-Agent") if connection.request else None
    agent = clean_line(_utf8(header))[:MAX_BROWSER_INFO] if header else None
    browser_info = (hello.client_info.browser_info if hello.client_info else None) or agent
    # The clients of a hall have few browsers: each text is kept once.
    return ClientDetails(connection.slot.ip or None, _shared(browser_info), _shared(agent or None))


def _shared(text: str | None) -> str | None:
    return sys.intern(text) if text is not None else None


def _utf8(header: str) -> str:
    """Decode a header as UTF-8: websockets has read it as Latin-1, one character for each byte (RFC 9110, 5.5)."""
    return header.encode("latin-1", "replace").decode(errors="replace")


def stage_of(state: SessionState) -> MobileSyncStatus | MobileSyncCompleted | None:
    """Return the mobile sync stage as the event that reports it; `None`: it was never entered, or is not valid."""
    view = state.mobile_sync
    if view.status == "NONE" or view.timestamp is None:
        return None
    fields: dict[str, Any] = {
        "plan_id": state.plan_id,
        "examinee_id": state.examinee_id,
        "timestamp": view.timestamp,
        "device_id": view.device_id,
        "captures": view.captures,
        "review": view.review,
        "challenge": view.challenge,
        "version": view.version,
    }
    try:
        if view.status == "COMPLETED" and view.device_id is not None:
            return MobileSyncCompleted(**fields, image_url=view.image_url)
        return MobileSyncStatus(
            **fields, status=MobileSyncCode(view.status), reason=view.reason, deadline=view.deadline
        )
    except ValueError:
        return None
