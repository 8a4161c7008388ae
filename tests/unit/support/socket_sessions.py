"""A server's context and a client's connection, without a network."""

from __future__ import annotations

import asyncio
import time
from types import SimpleNamespace
from typing import Any, cast

from actors.runtime.config.settings import Settings
from actors.sessions.context import ServerContext
from actors.sessions.examinee_session import ExamineeSession
from actors.sessions.limits.fact_budget import ExamineeBudgets
from actors.sessions.plan_states import PlanStates
from protocol.access.claims import Claims
from protocol.close_codes import CloseCode
from protocol.messages.base import Message
from protocol.messages.facts import STATUS_CODEC
from protocol.messages.frames import Hello


class FakeOutbox:
    """Keeps the facts that were added."""

    def __init__(self) -> None:
        self.facts: list[Message] = []
        self.clock = SimpleNamespace(now=time.time)
        self.last_sequence = 2**53

    def add(self, fact: Message) -> None:
        self.facts.append(fact)

    def add_encoded(self, plan_id: str, status: bytes) -> None:
        self.facts.append(STATUS_CODEC.decode_one(status))


class FakeConnection:
    """Keeps what was sent. With `never_closes`, `end` does not return: the client does not answer the close."""

    def __init__(self, *, never_closes: bool = False) -> None:
        self.slot = SimpleNamespace(ip="192.0.2.1")
        self.request = None
        self.sent: list[Message] = []
        self.texts: list[bytes] = []
        self.is_open = True
        self.aborted: str | None = None
        self.closed: CloseCode | None = None
        self._never_closes = never_closes

    def send_message(self, message: Message) -> None:
        self.sent.append(message)

    def send_now(self, text: bytes) -> None:
        self.texts.append(text)

    def abort(self, reason: str) -> None:
        self.is_open, self.aborted = False, reason

    def frame_code(self) -> int | None:
        return None

    async def end(self, code: CloseCode, _reason: str | None = None) -> None:
        if self._never_closes:
            await asyncio.Event().wait()
        self.is_open, self.closed = False, code


def fake_context(outbox: FakeOutbox | None = None, bus: Any = None) -> ServerContext:
    bus = bus or SimpleNamespace(clock=SimpleNamespace(now=time.time), on_reconnected=[])
    return ServerContext(
        Settings(),
        bus,
        cast(Any, None),
        cast(Any, outbox or FakeOutbox()),
        "SOCK001",
        "1f",
        PlanStates(cast(Any, None)),
        lambda _activity: None,
    )


async def examinee_session(context: ServerContext, connection: FakeConnection, examinee_id: str) -> ExamineeSession:
    """A running session of an examinee of P001."""
    claims = Claims(sub=examinee_id, role="examinee", plan="P001", exp=2**40)
    hello = Hello(client_id="browser-1", connection_no=1)
    session = ExamineeSession(context, cast(Any, connection), claims, hello, ExamineeBudgets())
    await session.start()
    return session
