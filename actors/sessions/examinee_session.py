"""The examinee session: one connected examinee, from hello to the end of the socket."""

from __future__ import annotations

import asyncio
import logging
from typing import Any, Literal

import pydantic_core

from actors.runtime.actor.actor import on
from actors.runtime.store.state_store import StateStore
from actors.runtime.telemetry import spans, tracing
from actors.sessions.limits.fact_budget import FactBudget
from actors.sessions.outbox import Outbox
from actors.sessions.session import SocketSession
from actors.sessions.websocket import WebSocketConnection
from protocol.broker import subjects
from protocol.close_codes import CloseCode
from protocol.errors import ErrorCode, ProtocolError, StateDamaged, StateUnavailable
from protocol.messages.facts import (
    ClientInfo,
    ConnectionStatus,
    ConnectionStatusCode,
    LossReason,
    MobileSyncCode,
    MobileSyncStatus,
    MobileSyncWait,
    Notice,
    NoticeConfirmed,
)
from protocol.messages.frames import (
    Accepted,
    ConfirmNotice,
    EnterMobileSync,
    ExtendMobileSyncFrame,
    Hello,
    NotifyFrame,
    ReadmitFrame,
    RemoveFrame,
    error_frame,
)
from protocol.messages.proctor_events import MobileSyncCompleted
from protocol.messages.session_messages import SessionClose, SessionState
from protocol.records import keys
from protocol.times import format_time

log = logging.getLogger("examwire.examinee_session")

MOST_NOTICES = 64
ANSWER_SECONDS = 5.0
"""So long after a `mobile_sync_wait` its answer is still to come."""

Step = Literal["open", "asked", "confirmed", "unknown"]
"""What is known of a message of a proctor: shown, its confirmation on its way, in the log, or never heard of."""


class ExamineeSession(SocketSession):
    """Speaks for one examinee's socket. `announce` tells the log that it is there, `ended` that it is no more."""

    kind = "examinee-session"

    def __init__(
        self,
        connection: WebSocketConnection,
        outbox: Outbox,
        *,
        plan_id: str,
        examinee_id: str,
        socket_id: str,
        server_id: str,
        incarnation: str,
        hello: Hello,
        client_info: ClientInfo,
        mobile_sync_seconds: float,
        store: StateStore,
        budget: FactBudget,
        lookups: FactBudget,
    ) -> None:
        address = subjects.session(plan_id, examinee_id)
        super().__init__(address, connection, outbox, plan_id=plan_id, socket_id=socket_id)
        self.examinee_id = examinee_id
        self._server_id = server_id
        self._incarnation = incarnation
        self._client_id = hello.client_id
        self._connection_no = hello.connection_no
        self._client_info = client_info
        self._mobile_sync_seconds = mobile_sync_seconds
        self._announced = False
        self._given_trace = hello.traceparent
        self.answering: int | None = None
        self._store = store
        self._budget = budget
        self._lookups = lookups
        self._notices: dict[str, Step] = {}
        self._stage: MobileSyncStatus | MobileSyncCompleted | None = None
        self._stage_asked = -ANSWER_SECONDS

    def about(self) -> dict[str, str]:
        return {"plan": self.plan_id, "examinee": self.examinee_id, "socket": self.socket_id}

    def details(self) -> dict[str, Any]:
        return {
            "planId": self.plan_id,
            "examineeId": self.examinee_id,
            "socketId": self.socket_id,
            "serverId": self._server_id,
            "clientId": self._client_id,
            "connectionNo": self._connection_no,
        }

    def announce(self) -> None:
        """CONNECTED into the log; also again, when this socket was declared lost and is not."""
        if not self.over:
            self._outbox.add(self._status(ConnectionStatusCode.CONNECTED, None, again=self._announced or None))
            self._announced = True

    def ended(self, reason: str) -> None:
        """DISCONNECTED into the log, once."""
        if not self.over:
            self.over = True
            self._outbox.add(self._status(ConnectionStatusCode.DISCONNECTED, reason))

    async def leave(self) -> None:
        """DISCONNECTED into the log, once, and wait until it is there: the client's next connection comes after it."""
        if not self.over:
            self.over = True
            leaving = LossReason.SERVER_DRAINING.value
            await self._outbox.store(self._status(ConnectionStatusCode.DISCONNECTED, leaving))

    def _status(
        self, status: ConnectionStatusCode, reason: str | None, *, again: bool | None = None
    ) -> ConnectionStatus:
        # Built from checked values, thousands at once when a hall loses its network: no second validation.
        return ConnectionStatus.model_construct(
            plan_id=self.plan_id,
            examinee_id=self.examinee_id,
            socket_id=self.socket_id,
            status=status,
            timestamp=format_time(self._outbox.clock.now()),
            reason=reason,
            client_info=self._client_info if status is ConnectionStatusCode.CONNECTED else None,
            server_id=self._server_id,
            incarnation=self._incarnation,
            client_id=self._client_id,
            connection_no=self._connection_no,
            again=again,
            traceparent=self._noticed(status, reason) if tracing.on() else None,
        )

    def _noticed(self, status: ConnectionStatusCode, reason: str | None) -> str | None:
        opened = status is ConnectionStatusCode.CONNECTED
        given, self._given_trace = self._given_trace if opened else None, None
        about = {"plan": self.plan_id, "examinee": self.examinee_id, "socket": self.socket_id}
        name = "socket opened" if opened else "socket lost"
        return spans.start_trace(name, given, reason=reason, server=self._server_id, **about)

    # -- from the client -----------------------------------------------------------------------------

    @on(ReadmitFrame)
    def not_for_examinees(self, frame: ReadmitFrame) -> None:
        self.not_allowed(frame.type, "only a proctor readmits", frame.request_id)

    @on(RemoveFrame)
    def does_not_remove(self, frame: RemoveFrame) -> None:
        self.not_allowed(frame.type, "only a proctor removes", frame.request_id)

    @on(ExtendMobileSyncFrame)
    def does_not_extend(self, frame: ExtendMobileSyncFrame) -> None:
        self.not_allowed(frame.type, "only a proctor gives more time", frame.request_id)

    @on(NotifyFrame)
    def does_not_notify(self, frame: NotifyFrame) -> None:
        self.not_allowed(frame.type, "only a proctor sends messages", frame.request_id)

    @on(ConfirmNotice)
    def confirm_notice(self, frame: ConfirmNotice) -> None:
        step = self._notices.get(frame.action_id)
        if step == "confirmed":
            self.connection.tell(Accepted(request_type=frame.type, request_id=frame.action_id))
        elif step != "asked":
            self._notices[frame.action_id] = "asked"
            # Beside: while the log is away, this session still hears that it is to close, say.
            self.spawn(self._confirm(frame, known=step == "open"), "confirm")

    async def _confirm(self, frame: ConfirmNotice, *, known: bool) -> None:
        """Into the log what changes something: the confirmation of a message that was sent and not confirmed yet."""
        action_id = frame.action_id
        recorded: Step = "open" if known else "unknown"
        may = True
        if not known and (may := self._lookups.take(frame.type)):
            recorded = await self._recorded(action_id)
            if recorded == "asked":  # nobody knows
                may = self._budget.take(frame.type)
        if may and recorded == "open":
            may = await self._budget.turn(frame.type)
        if not may:
            self._forget(action_id, known=known)
            self.refuse_for_now(frame.type, action_id, "data.actionId")
        elif recorded == "unknown":
            self._forget(action_id, known=known)
            error = ProtocolError(ErrorCode.NOT_FOUND, "there is no such message for you", "data.actionId")
            self.connection.tell(error_frame(error, frame.type, action_id))
        else:
            if recorded == "confirmed":
                self.connection.tell(Accepted(request_type=frame.type, request_id=action_id))
            else:
                confirmed = NoticeConfirmed(
                    plan_id=self.plan_id,
                    examinee_id=self.examinee_id,
                    action_id=action_id,
                    timestamp=format_time(self._outbox.clock.now()),
                )
                await self.act(confirmed, frame.type, action_id)
            self._note(action_id, "confirmed")

    async def _recorded(self, action_id: str) -> Step:
        """Of a message that this session was not told of. `asked`: Redis is away, so the examinee is believed."""
        try:
            ((kept,),) = await self._store.fields([keys.notices(self.plan_id, self.examinee_id)], ("notices",))
            for one in pydantic_core.from_json(kept or "[]"):
                if one["actionId"] == action_id:
                    return "confirmed" if one.get("confirmedAt") else "open"
        except (StateUnavailable, StateDamaged, ValueError, TypeError, KeyError, AttributeError) as error:
            log.debug("%s: %s: not known whether it was sent: %s", self.address, action_id, error)
            return "asked"
        return "unknown"

    def _forget(self, action_id: str, *, known: bool) -> None:
        """A confirmation came to nothing: it may be said again."""
        if known:
            self._notices[action_id] = "open"
        else:
            self._notices.pop(action_id, None)

    def _note(self, action_id: str, step: Step) -> None:
        self._notices.pop(action_id, None)
        self._notices[action_id] = step
        while len(self._notices) > MOST_NOTICES:
            del self._notices[next(iter(self._notices))]

    def _shown(self, action_id: str) -> None:
        if self._notices.get(action_id) not in ("asked", "confirmed"):
            self._note(action_id, "open")

    @on(EnterMobileSync)
    def enter_mobile_sync(self, frame: EnterMobileSync) -> None:
        for field, said, own in (
            ("data.planId", frame.plan_id, self.plan_id),
            ("data.examineeId", frame.examinee_id, self.examinee_id),
        ):
            if said is not None and said != own:
                self.connection.tell(error_frame(ProtocolError(ErrorCode.FORBIDDEN, "is not yours", field), frame.type))
                return
        if self._stage is not None and self._stage.status in (MobileSyncCode.WAITING, MobileSyncCode.COMPLETED):
            self.connection.tell(self._stage)  # a reload of the page: the stage goes on, a picture stays
            return
        asked = asyncio.get_running_loop().time()
        if asked - self._stage_asked < ANSWER_SECONDS:
            return  # it is in the log, or on its way there; the answer to it comes
        if not self._budget.take(frame.type):
            self.refuse_for_now(frame.type)
            return
        self._stage_asked = asked
        now = self._outbox.clock.now()
        self._outbox.add(
            MobileSyncWait(
                plan_id=self.plan_id,
                examinee_id=self.examinee_id,
                timestamp=format_time(now),
                deadline=format_time(now + self._mobile_sync_seconds),
                by_log_time=True,
                traceparent=spans.start_trace(
                    "mobile sync entered", frame.traceparent, plan=self.plan_id, examinee=self.examinee_id
                ),
            )
        )

    # -- from the state manager ----------------------------------------------------------------------

    @on(SessionState)
    def state(self, message: SessionState) -> None:
        for notice in message.notices:
            self._shown(notice.action_id)
        if (stage := stage_of(message)) is not None:
            self._remember(stage)
        self.connection.tell(message)

    @on(MobileSyncCompleted)
    def mobile_sync_completed(self, message: MobileSyncCompleted) -> None:
        self._remember(message)
        self.connection.tell(message)

    @on(MobileSyncStatus)
    def mobile_sync_status(self, message: MobileSyncStatus) -> None:
        self._remember(message)
        self.connection.tell(message)

    def _remember(self, stage: MobileSyncStatus | MobileSyncCompleted) -> None:
        if self._stage is None or (stage.version or 0) >= (self._stage.version or 0):
            self._stage, self._stage_asked = stage, -ANSWER_SECONDS

    @on(Notice)
    def notice(self, message: Notice) -> None:
        self._shown(message.action_id)
        self.connection.tell(message)

    @on(SessionClose)
    async def close(self, message: SessionClose) -> None:
        await self.connection.end(CloseCode(message.code))


def stage_of(state: SessionState) -> MobileSyncStatus | MobileSyncCompleted | None:
    """The mobile sync stage as it is told, from what is recorded; `None`: it was never entered."""
    view = state.mobile_sync
    if view.status == "NONE" or view.timestamp is None:
        return None
    about: dict[str, Any] = {
        "plan_id": state.plan_id,
        "examinee_id": state.examinee_id,
        "timestamp": view.timestamp,
        "device_id": view.device_id,
        "version": view.version,
    }
    try:
        if view.status == "COMPLETED" and view.device_id is not None:
            return MobileSyncCompleted(**about, image_url=view.image_url)
        return MobileSyncStatus(**about, status=MobileSyncCode(view.status), reason=view.reason, deadline=view.deadline)
    except ValueError:
        return None  # nothing that could be told again
