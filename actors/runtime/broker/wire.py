"""NATS's protocol for the plain messages: what is published, and what a connection receives, without a task.

nats-py writes each message by a task of its own, and reads each through two. Here a message is written at once, and
handed over while it is received. What is not plain is left to nats-py: so there is one way to do it right.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Mapping
from typing import NamedTuple, Protocol

from nats.protocol.parser import AWAITING_CONTROL_LINE, Parser

_PLAIN_SUBJECT = re.compile(r"[!-~]+")
_PLAIN_HEADER = re.compile(r"[-0-9A-Za-z]+: (?:[!-~](?:[ -~]*[!-~])?)?\r\n")

Publication = tuple[str, bytes, str, Mapping[str, str] | None]
"""A message to be published: subject, payload, reply, headers."""


def command(subject: str, payload: bytes, reply: str, headers: Mapping[str, str] | None, most: int) -> bytes | None:
    """Return the command that publishes a message, as nats-py writes it; `None` for what it would refuse or change."""
    if not _PLAIN_SUBJECT.fullmatch(subject) or (reply and not _PLAIN_SUBJECT.fullmatch(reply)) or len(payload) > most:
        return None
    if not headers:
        return b"%b%d\r\n%b\r\n" % (f"PUB {subject} {reply} ".encode(), len(payload), payload)
    lines = [f"{name}: {value}\r\n" for name, value in headers.items()]
    if not all(map(_PLAIN_HEADER.fullmatch, lines)):
        return None
    block = f"NATS/1.0\r\n{''.join(lines)}\r\n"
    size = len(block)
    return b"%b%b\r\n" % (f"HPUB {subject} {reply} {size} {size + len(payload)}\r\n{block}".encode(), payload)


class Arrival(NamedTuple):
    """A message as a direct subscription gets it."""

    subject: str
    reply: str
    data: bytes
    headers: dict[str, str] | None


OnArrival = Callable[[Arrival], None]


class Receiving(Protocol):
    """What `Intake` needs of a client."""

    handlers: dict[bytes, OnArrival]
    """The handlers of direct subscriptions, by the id in NATS's messages."""

    def hand_over(self, handler: OnArrival, subject: bytes, reply: bytes, data: bytes, block: bytes) -> None:
        """Call a handler. `block`: the headers as they came."""


class Intake:
    """Reads what a connection receives, without a task: messages of direct subscriptions are handed over at once.

    Everything else, and whatever comes before nats-py has read that, takes nats-py's way: through the stream reader,
    its read loop and its parser. So every message is read once, and in the order in which it came.
    """

    def __init__(self, client: Receiving, reader: asyncio.StreamReader) -> None:
        self._client = client
        self._pass_on = reader.feed_data
        reader.feed_data = self.feed  # type: ignore[method-assign,assignment]
        self._direct = False  # what has come with the handshake is nats-py's
        self._passed_on = 0
        self._parts: list[bytes] = []  # of a message that has not come whole
        self._have = self._wanted = 0

    def feed(self, data: bytes) -> None:
        """Take what has been received."""
        if not self._direct:
            self._pass(data)
            return
        if self._parts:
            self._parts.append(data)
            self._have += len(data)
            if self._have < self._wanted:
                return
            data = b"".join(self._parts)
            self._parts.clear()
        data = bytes(data)
        start, end = self._read(data), len(data)
        if start == end:
            return
        rest = data[start:]
        if self._direct:
            self._parts.append(rest)
            self._have = len(rest)
        else:
            self._pass(rest)

    def _read(self, data: bytes) -> int:
        """Hand over the messages at the beginning of `data`; return where the first one is that stays."""
        client, handlers = self._client, self._client.handlers
        start, end = 0, len(data)
        while start < end:
            line_end = data.find(b"\r\n", start)
            if line_end < 0:
                self._wanted = 0
                break
            words = data[start:line_end].split()
            count, kind = len(words), words[0] if words else b""
            if kind == b"HMSG" and 4 < count < 7:
                header = words[-2]
            elif kind == b"MSG" and 3 < count < 6:
                header = b"0"
            else:
                self._direct = False
                break
            subject, sid, size = words[1], words[2], words[-1]
            handler = handlers.get(sid)
            if handler is None or not (size.isdigit() and header.isdigit()):
                self._direct = False
                break
            body = line_end + 2
            body_end = body + int(size)
            if body_end + 2 > end:
                self._wanted = body_end + 2 - start
                break
            start, payload = body_end + 2, body + int(header)
            reply = words[3] if count == (6 if kind == b"HMSG" else 5) else b""
            client.hand_over(handler, subject, reply, data[payload:body_end], data[body:payload])
        return start

    def _pass(self, data: bytes) -> None:
        self._passed_on += len(data)
        self._pass_on(data)

    def passed(self, count: int, *, idle: bool) -> None:
        """Note that nats-py has read so many bytes; `idle`: it has read the last message to its end."""
        self._passed_on = max(0, self._passed_on - count)
        self._direct = idle and not self._passed_on


class FallbackParser(Parser):
    """The parser of nats-py, for what `Intake` leaves to it."""

    intake: Intake | None = None

    async def parse(self, data: bytes = b"") -> None:
        intake = self.intake
        await super().parse(data)
        if intake is not None and intake is self.intake:
            intake.passed(len(data), idle=not self.buf and self.state == AWAITING_CONTROL_LINE)
