"""The proctor session: one connected proctor of a plan."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Literal

from actors.runtime.actor.actor import on
from actors.runtime.store.state_store import StateStore
from actors.sessions.limits.fact_budget import FactBudget
from actors.sessions.outbox import Outbox
from actors.sessions.plan_snapshot import SharedSnapshot
from actors.sessions.session import SocketSession
from actors.sessions.websocket import WebSocketConnection
from protocol.errors import ErrorCode, ProtocolError, StateDamaged, StateUnavailable
from protocol.messages.facts import ActionFact, MobileSyncExtend, Notice, Readmit, Remove
from protocol.messages.frames import (
    Accepted,
    ConfirmNotice,
    EnterMobileSync,
    ExtendMobileSyncFrame,
    NotifyFrame,
    ReadmitFrame,
    RemoveFrame,
    error_frame,
)
from protocol.records import keys
from protocol.times import format_time

ActionFrame = ReadmitFrame | RemoveFrame | ExtendMobileSyncFrame | NotifyFrame

MOST_ACTIONS = 1000


class ProctorSession(SocketSession):
    """Speaks for one proctor's socket.

    `snapshot` is the one that it was sent last, `taking` sends it; `caught_up` are the bytes of the events since the
    snapshot that were sent while it was taken.
    """

    kind = "proctor-session"

    def __init__(
        self,
        connection: WebSocketConnection,
        outbox: Outbox,
        store: StateStore,
        *,
        plan_id: str,
        name: str,
        socket_id: str,
        budget: FactBudget,
        beside: Callable[[Coroutine[Any, Any, None]], None],
    ) -> None:
        address = f"proctor.{plan_id}.{socket_id}"
        super().__init__(address, connection, outbox, plan_id=plan_id, socket_id=socket_id)
        self.name = name
        self._store = store
        self.snapshot: SharedSnapshot | None = None
        self.taking: asyncio.Task[None] | None = None
        self.caught_up = 0
        self._budget = budget
        self._beside = beside
        self._acted: dict[tuple[str, str, str], Literal["asked", "stored"]] = {}

    def details(self) -> dict[str, Any]:
        return {"planId": self.plan_id, "proctor": self.name, "socketId": self.socket_id}

    @property
    def live(self) -> bool:
        """Whether it is sent events as they come: it has its snapshot."""
        return self.snapshot is not None and self.taking is None

    @property
    def piled_up(self) -> int:
        """Bytes that wait for the client to read, beside the frame and the snapshot that it is being sent."""
        waits = self.connection.piled_up
        if self.taking is not None and self.snapshot is not None and self.snapshot.complete:
            waits += self.snapshot.since_bytes - self.caught_up
        return waits

    def ended(self, _reason: str) -> None:
        """The socket is gone; its server forgets this session."""
        self.over = True

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

    @on(NotifyFrame)
    async def notify(self, frame: NotifyFrame) -> None:
        await self._decide(frame, lambda common: Notice(**common, text=frame.text))

    async def _decide(
        self,
        frame: ActionFrame,
        fact: Callable[[dict[str, Any]], ActionFact | Notice],
    ) -> None:
        """The fact into the log, if there is such an examinee. What it changes is the rules', and told as events."""
        if await self._unknown(frame.examinee_id):
            detail = f"no examinee {frame.examinee_id} was ever connected to plan {self.plan_id}, or is on its roster"
            error = ProtocolError(ErrorCode.NOT_FOUND, detail, "data.examineeId")
            self.connection.tell(error_frame(error, frame.type, frame.request_id))
            return
        # A page says it again when it does not know whether it arrived: what is in hand or in the log is not repeated.
        action = (frame.type, frame.examinee_id, frame.request_id or "")
        step = self._acted.get(action) if frame.request_id is not None else None
        if step is not None:
            if step == "stored":
                self.connection.tell(Accepted(request_type=frame.type, request_id=frame.request_id))
            return
        self._acted[action] = "asked"
        common = {
            "plan_id": self.plan_id,
            "examinee_id": frame.examinee_id,
            "by": self.name,
            "action_id": frame.request_id,
            "timestamp": format_time(self._outbox.clock.now()),
        }
        # Beside: however long the log is away, heartbeats are answered; and what was ordered is done, also when the
        # proctor has gone. The outbox keeps the order.
        self._beside(self._act_in_turn(fact(common), frame, action))

    async def _act_in_turn(self, fact: ActionFact | Notice, frame: ActionFrame, action: tuple[str, str, str]) -> None:
        if not await self._budget.turn("action"):
            self._acted.pop(action, None)
            self.refuse_for_now(frame.type, frame.request_id)
            return
        await self.act(fact, frame.type, frame.request_id)
        self._acted.pop(action, None)
        self._acted[action] = "stored"
        while len(self._acted) > MOST_ACTIONS:
            del self._acted[next(iter(self._acted))]

    async def _unknown(self, examinee_id: str) -> bool:
        """Whether Redis is sure that there is no such examinee; with Redis away, the log takes the proctor's word."""
        try:
            ((known,),) = await self._store.fields([keys.progress(self.plan_id, examinee_id)], ("examineeId",))
        except (StateUnavailable, StateDamaged):
            return False
        return not known

    @on(EnterMobileSync)
    def not_for_proctors(self, frame: EnterMobileSync) -> None:
        self.not_allowed(frame.type, "only an examinee enters the mobile sync stage")

    @on(ConfirmNotice)
    def does_not_confirm(self, frame: ConfirmNotice) -> None:
        self.not_allowed(frame.type, "only an examinee confirms a message")
