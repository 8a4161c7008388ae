"""Tails: the messages that an actor handles, sent to operators as they are handled.

`examwire actors tail` asks for one (`protocol.messages.operator_requests.Tail`), renews it while it runs, and lets it
expire. A tail shows the type and the ids of a message, never its content: no token, no name, no picture.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import pydantic_core
from pydantic.alias_generators import to_camel

from protocol.errors import BrokerUnavailable, ErrorCode, ProtocolError
from protocol.log.version import version_of
from protocol.messages.base import Message
from protocol.messages.codec import encode_batches
from protocol.messages.operator_requests import Handled, Tail
from protocol.times import format_time

log = logging.getLogger("examwire.tail")

FLUSH_SECONDS = 0.1
MAX_TAILS = 8
FIRST = 3
"""The number of messages of a batch that are shown with their ids."""
READ_BYTES = 64 * 1024
"""The bytes of a batch that are parsed to count its types."""

_ID_FIELDS = (
    *("plan_id", "examinee_id", "socket_id", "server_id", "device_id", "proctor", "by", "version", "status", "reason"),
    *("attempt", "sessions", "method", "route"),
)
_WIRE_NAMES = tuple((name, to_camel(name)) for name in _ID_FIELDS)

Send = Callable[[str, bytes], Awaitable[None]]


@dataclass(slots=True)
class _Tail:
    """One operator's tail. `tokens`: how many messages may be shown now; `left_out`: how many were not."""

    inbox: str
    per_second: int
    until: float
    tokens: float
    left_out: int = 0
    pending: list[Handled] = field(default_factory=list)


class TailFeed:
    """Shows the messages of one actor to everybody who tails it. `run` ends with the last tail.

    actor.tail = TailFeed(actor.address, bus.publish_core)
    actor.tail.watch(request)
    await actor.tail.run()
    """

    def __init__(self, address: str, send: Send) -> None:
        self.address = address
        self._send = send
        self._tails: dict[str, _Tail] = {}
        self._since = time.perf_counter()

    def watch(self, tail: Tail) -> None:
        """Begin a tail, or extend it. Raises `ProtocolError` when the actor has `MAX_TAILS` already."""
        until = time.monotonic() + tail.seconds
        existing = self._tails.get(tail.inbox)
        if existing is not None:
            existing.until, existing.per_second = until, tail.per_second
            return
        if len(self._tails) >= MAX_TAILS:
            detail = f"{self.address} is tailed by {MAX_TAILS} already; try again later"
            raise ProtocolError(ErrorCode.UNAVAILABLE, detail)
        self._tails[tail.inbox] = _Tail(tail.inbox, tail.per_second, until, tokens=float(tail.per_second))

    def handled(self, message: object, began: float, error: BaseException | None = None) -> None:
        """Show a message that has been handled. `began`: `time.perf_counter()`, or 0 if that was before this feed."""
        took = time.perf_counter() - max(began, self._since)
        line: Handled | None = None
        for tail in self._tails.values():
            if tail.tokens < 1:
                tail.left_out += 1
                continue
            tail.tokens -= 1
            if line is None:
                name, about = describe(message)
                line = Handled(
                    address=self.address,
                    time=format_time(time.time()),
                    message=name,
                    about=about,
                    took=round(took * 1000, 3),
                    error=f"{type(error).__name__}: {error}"[:500] if error is not None else None,
                )
            tail.pending.append(line)

    async def run(self) -> None:
        """Send the messages that were handled, ten times a second, until all tails have expired."""
        while self._tails:
            await asyncio.sleep(FLUSH_SECONDS)
            await self.flush()
            now = time.monotonic()
            for tail in [tail for tail in self._tails.values() if tail.until <= now]:
                del self._tails[tail.inbox]

    async def flush(self) -> None:
        """Send the messages that were handled since the last flush."""
        for tail in list(self._tails.values()):
            tail.tokens = min(float(tail.per_second), tail.tokens + tail.per_second * FLUSH_SECONDS)
            if not tail.pending:
                continue
            lines, tail.pending = tail.pending, []
            left_out, tail.left_out = tail.left_out, 0
            if left_out:
                lines[-1] = lines[-1].model_copy(update={"left_out": left_out})
            try:
                for payload in encode_batches(lines):
                    await self._send(tail.inbox, payload)
            except BrokerUnavailable as error:
                tail.left_out += left_out + len(lines)
                log.debug("%s: a tail has missed %d messages: %s", self.address, len(lines), error)


def describe(message: object) -> tuple[str, dict[str, Any]]:
    """Return the name of a message and its ids; of a batch, the counts by type and the first few messages."""
    deliveries = getattr(message, "deliveries", None)
    if deliveries is not None:
        return _name(message), _batch(deliveries)
    if hasattr(message, "payload"):
        about = _batch([message])
        (kind, *others), first = about["types"] or ["?"], about["first"]
        return (kind, first[0]["about"]) if not others and len(first) == about["messages"] == 1 else ("batch", about)
    about = {}
    for name, wire in _WIRE_NAMES:
        value = getattr(message, name, None)
        if value is not None:
            about[wire] = _short(value)
    return _name(message), about


def _name(message: object) -> str:
    return message.type if isinstance(message, Message) else type(message).__name__


def _short(value: object) -> str | int | float:
    return value if isinstance(value, int | float) else str(value)[:128]


def _batch(deliveries: list[Any]) -> dict[str, Any]:
    """Describe deliveries: counts by type, the first few messages. `notRead`: how many deliveries were not parsed."""
    types: Counter[str] = Counter()
    first: list[dict[str, Any]] = []
    parsed_bytes = parsed_count = 0
    for delivery in deliveries:
        if parsed_bytes >= READ_BYTES:
            break
        parsed_count += 1
        parsed_bytes += len(delivery.payload)
        has_versions = delivery.subject.startswith("status.")
        try:
            parsed = pydantic_core.from_json(delivery.payload)
        except ValueError:
            parsed = None
        for index, element in enumerate(parsed if isinstance(parsed, list) else [parsed]):
            kind, data = _element(element)
            types[kind] += 1
            if len(first) < FIRST:
                about = {wire: _short(data[wire]) for _, wire in _WIRE_NAMES if data.get(wire) is not None}
                if has_versions:
                    about["version"] = version_of(delivery.sequence, index)
                first.append({"type": kind, "about": about})
    summary: dict[str, Any] = {
        "deliveries": len(deliveries),
        "messages": sum(types.values()),
        "types": dict(types),
        "first": first,
    }
    if parsed_count < len(deliveries):
        summary["notRead"] = len(deliveries) - parsed_count
    redelivered = sum(delivery.attempt > 1 for delivery in deliveries)
    if redelivered:
        summary["redelivered"] = redelivered
    return summary


def _element(element: object) -> tuple[str, dict[str, Any]]:
    """Return type and data of a parsed message, which need not be valid."""
    if not isinstance(element, dict):
        return "malformed", {}
    kind, data = element.get("type"), element.get("data")
    return (kind[:64] if isinstance(kind, str) else "malformed"), (data if isinstance(data, dict) else {})
