"""The proctor session: one connected proctor of a plan."""

from __future__ import annotations

import time
from typing import Any

from actors.connection import Connection
from actors.outbox import Outbox
from actors.runtime.actor import on
from actors.runtime.state_store import StateStore
from actors.socket_session import SocketSession
from protocol import keys
from protocol.errors import ErrorCode, ProtocolError, StateDamaged, StateUnavailable
from protocol.frames import Accepted, EnterMobileSync, ReadmitFrame, error_frame
from protocol.messages import Readmit
from protocol.times import format_time

Parsed = dict[str, Any]


def aspect_of(event: Parsed) -> tuple[str, bool]:
    """What an event's version counts for: an examinee's mobile sync (True) or connection (False)."""
    return event["data"]["examineeId"], str(event["type"]).startswith("mobile_sync")


class ProctorSession(SocketSession):
    """Speaks for one proctor's socket.

    `held_back` collects events while the snapshot is being read; `known` are the versions that it told, until
    everything that is older has passed.
    """

    kind = "proctor-session"

    def __init__(
        self, connection: Connection, outbox: Outbox, store: StateStore, *, plan_id: str, name: str, socket_id: str
    ) -> None:
        address = f"proctor.{plan_id}.{socket_id}"
        super().__init__(address, connection, outbox, plan_id=plan_id, socket_id=socket_id)
        self.name = name
        self._store = store
        self.held_back: list[Parsed] | None = []
        self.known: dict[tuple[str, bool], int] | None = None

    def details(self) -> dict[str, Any]:
        return {"planId": self.plan_id, "proctor": self.name, "socketId": self.socket_id}

    def not_in_snapshot(self, events: list[Parsed]) -> list[Parsed]:
        """The events that tell more than the snapshot did."""
        known = self.known or {}
        return [event for event in events if event["data"]["version"] > known.get(aspect_of(event), 0)]

    def forget_snapshot(self) -> None:
        self.known = None

    async def _never_seen(self, examinee_id: str) -> bool:
        """Whether Redis is sure that there is no such examinee; with Redis away, the log takes the proctor's word."""
        try:
            ((status,),) = await self._store.fields([keys.progress(self.plan_id, examinee_id)], ("connStatusCode",))
        except (StateUnavailable, StateDamaged):
            return False
        return not status

    def ended(self, _reason: str) -> None:
        """The socket is gone; its server forgets this session."""
        self.over = True

    @on(EnterMobileSync)
    def not_for_proctors(self, frame: EnterMobileSync) -> None:
        self.not_allowed(frame.type, "only an examinee enters the mobile sync stage")

    @on(ReadmitFrame)
    async def readmit(self, frame: ReadmitFrame) -> None:
        if await self._never_seen(frame.examinee_id):
            detail = f"no examinee {frame.examinee_id} has ever connected to plan {self.plan_id}"
            self.connection.tell(error_frame(ProtocolError(ErrorCode.NOT_FOUND, detail, "data.examineeId"), frame.type))
            return
        await self._outbox.store(
            Readmit(
                plan_id=self.plan_id,
                examinee_id=frame.examinee_id,
                by=self.name,
                timestamp=format_time(time.time()),
            )
        )
        self.connection.tell(Accepted(request_type=frame.type, request_id=frame.request_id))
