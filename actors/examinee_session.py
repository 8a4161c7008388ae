"""The examinee session: one connected examinee, from hello to the end of the socket."""

from __future__ import annotations

import time
from typing import Any

from actors import traces
from actors.connection import Connection
from actors.outbox import Outbox
from actors.runtime import tracing
from actors.runtime.actor import on
from actors.socket_session import SocketSession
from protocol import subjects
from protocol.close_codes import CloseCode
from protocol.errors import ErrorCode, ProtocolError
from protocol.events import MobileSyncCompleted
from protocol.facts import (
    ClientInfo,
    ConnectionStatus,
    ConnectionStatusCode,
    LossReason,
    MobileSyncStatus,
    MobileSyncWait,
    Notice,
    NoticeConfirmed,
)
from protocol.frames import (
    ConfirmNotice,
    EnterMobileSync,
    ExtendMobileSyncFrame,
    Hello,
    NotifyFrame,
    ReadmitFrame,
    RemoveFrame,
    error_frame,
)
from protocol.session_messages import SessionClose, SessionState
from protocol.times import format_time


class ExamineeSession(SocketSession):
    """Speaks for one examinee's socket. `announce` tells the log that it is there, `ended` that it is no more."""

    kind = "examinee-session"

    def __init__(
        self,
        connection: Connection,
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
            timestamp=format_time(time.time()),
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
        return traces.noticed(name, given, reason=reason, server=self._server_id, **about)

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
        confirmed = NoticeConfirmed(
            plan_id=self.plan_id,
            examinee_id=self.examinee_id,
            action_id=frame.action_id,
            timestamp=format_time(time.time()),
        )
        # Beside: while the log is away, this session still hears that it is to close, say.
        self.spawn(self.act(confirmed, frame.type, frame.action_id), "confirm")

    @on(EnterMobileSync)
    def enter_mobile_sync(self, frame: EnterMobileSync) -> None:
        for field, said, own in (
            ("data.planId", frame.plan_id, self.plan_id),
            ("data.examineeId", frame.examinee_id, self.examinee_id),
        ):
            if said is not None and said != own:
                self.connection.tell(error_frame(ProtocolError(ErrorCode.FORBIDDEN, "is not yours", field), frame.type))
                return
        now = time.time()
        self._outbox.add(
            MobileSyncWait(
                plan_id=self.plan_id,
                examinee_id=self.examinee_id,
                timestamp=format_time(now),
                deadline=format_time(now + self._mobile_sync_seconds),
                traceparent=traces.noticed(
                    "mobile sync entered", frame.traceparent, plan=self.plan_id, examinee=self.examinee_id
                ),
            )
        )

    # -- from the state manager ----------------------------------------------------------------------

    @on(SessionState)
    def state(self, message: SessionState) -> None:
        self.connection.tell(message)

    @on(MobileSyncCompleted)
    def mobile_sync_completed(self, message: MobileSyncCompleted) -> None:
        self.connection.tell(message)

    @on(MobileSyncStatus)
    def mobile_sync_status(self, message: MobileSyncStatus) -> None:
        self.connection.tell(message)

    @on(Notice)
    def notice(self, message: Notice) -> None:
        self.connection.tell(message)

    @on(SessionClose)
    async def close(self, message: SessionClose) -> None:
        await self.connection.end(CloseCode(message.code))
