"""A tap: what an actor handles, shown to operators as it happens. An actor that nobody tails has none.

A tail is asked for (`protocol.messages.operator_requests.Tail`), renewed while somebody looks, and expires by itself.
What is shown are
the ids of a message, never what is in it: no token, no name, no picture.
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

log = logging.getLogger("examwire.tap")

FLUSH_SECONDS = 0.1
MAX_TAILS = 8
FIRST = 3  # of a batch, so many messages are named
READ_BYTES = 64 * 1024  # of a batch, so much is looked into

_ABOUT = (
    *("plan_id", "examinee_id", "socket_id", "server_id", "device_id", "proctor", "by", "version", "status", "reason"),
    *("attempt", "sessions", "method", "route"),
)
_ABOUT_ON_THE_WIRE = tuple((name, to_camel(name)) for name in _ABOUT)

Send = Callable[[str, bytes], Awaitable[None]]


@dataclass(slots=True)
class _Tail:
    inbox: str
    per_second: int
    until: float
    room: float
    left_out: int = 0
    pending: list[Handled] = field(default_factory=list)


class TailFeed:
    """Shows what one actor handles to everybody who tails it. `run` ends with the last tail."""

    def __init__(self, address: str, send: Send) -> None:
        self.address = address
        self._send = send
        self._tails: dict[str, _Tail] = {}
        self._since = time.perf_counter()

    def watch(self, tail: Tail) -> None:
        """Begin a tail, or let it go on. Raises `ProtocolError` when too many look already."""
        until = time.monotonic() + tail.seconds
        known = self._tails.get(tail.inbox)
        if known is not None:
            known.until, known.per_second = until, tail.per_second
            return
        if len(self._tails) >= MAX_TAILS:
            detail = f"{self.address} is tailed by {MAX_TAILS} already; try again later"
            raise ProtocolError(ErrorCode.UNAVAILABLE, detail)
        self._tails[tail.inbox] = _Tail(tail.inbox, tail.per_second, until, float(tail.per_second))

    def handled(self, message: object, began: float, error: BaseException | None = None) -> None:
        """A message has been handled. `began` by `time.perf_counter()`; 0: before this tap was there."""
        took = time.perf_counter() - max(began, self._since)
        shown: Handled | None = None
        for tail in self._tails.values():
            if tail.room < 1:
                tail.left_out += 1
                continue
            tail.room -= 1
            if shown is None:
                name, about = described(message)
                shown = Handled(
                    address=self.address,
                    time=format_time(time.time()),
                    message=name,
                    about=about,
                    took=round(took * 1000, 3),
                    error=f"{type(error).__name__}: {error}"[:500] if error is not None else None,
                )
            tail.pending.append(shown)

    async def run(self) -> None:
        """Send what was handled, a few times a second, until everybody has stopped looking."""
        while self._tails:
            await asyncio.sleep(FLUSH_SECONDS)
            await self.flush()
            now = time.monotonic()
            for tail in [one for one in self._tails.values() if one.until <= now]:
                del self._tails[tail.inbox]

    async def flush(self) -> None:
        """Send what has come together since the last time."""
        for tail in list(self._tails.values()):
            tail.room = min(float(tail.per_second), tail.room + tail.per_second * FLUSH_SECONDS)
            if not tail.pending:
                continue
            shown, tail.pending = tail.pending, []
            if tail.left_out:
                shown[-1] = shown[-1].model_copy(update={"left_out": tail.left_out})
                tail.left_out = 0
            try:
                for payload in encode_batches(shown):
                    await self._send(tail.inbox, payload)
            except BrokerUnavailable as error:
                tail.left_out += len(shown)
                log.debug("%s: a tail misses %d messages: %s", self.address, len(shown), error)


def described(message: object) -> tuple[str, dict[str, Any]]:
    """The name of what was handled, and whom or what it was about; of a batch the counts and the first few."""
    deliveries = getattr(message, "deliveries", None)
    if deliveries is not None:
        return _name(message), _batch(deliveries)
    if hasattr(message, "payload"):
        about = _batch([message])
        (kind, *others), first = about["types"] or ["?"], about["first"]
        return (kind, first[0]["about"]) if not others and len(first) == about["messages"] == 1 else ("batch", about)
    about = {}
    for name, wire in _ABOUT_ON_THE_WIRE:
        value = getattr(message, name, None)
        if value is not None:
            about[wire] = _short(value)
    return _name(message), about


def _name(message: object) -> str:
    return message.type if isinstance(message, Message) else type(message).__name__


def _short(value: object) -> str | int | float:
    return value if isinstance(value, int | float) else str(value)[:128]


def _batch(deliveries: list[Any]) -> dict[str, Any]:
    """What came from the broker: counts by type, the first few messages; into `notRead` deliveries it did not look."""
    types: Counter[str] = Counter()
    first: list[dict[str, Any]] = []
    read = looked = 0
    for delivery in deliveries:
        if read >= READ_BYTES:
            break
        looked += 1
        read += len(delivery.payload)
        in_log = delivery.subject.startswith("status.")
        try:
            parsed = pydantic_core.from_json(delivery.payload)
        except ValueError:
            parsed = None
        for index, element in enumerate(parsed if isinstance(parsed, list) else [parsed]):
            kind, data = _element(element)
            types[kind] += 1
            if len(first) < FIRST:
                about = {wire: _short(data[wire]) for _, wire in _ABOUT_ON_THE_WIRE if data.get(wire) is not None}
                if in_log:
                    about["version"] = version_of(delivery.sequence, index)
                first.append({"type": kind, "about": about})
    found: dict[str, Any] = {
        "deliveries": len(deliveries),
        "messages": sum(types.values()),
        "types": dict(types),
        "first": first,
    }
    if looked < len(deliveries):
        found["notRead"] = len(deliveries) - looked
    redelivered = sum(delivery.attempt > 1 for delivery in deliveries)
    if redelivered:
        found["redelivered"] = redelivered
    return found


def _element(element: object) -> tuple[str, dict[str, Any]]:
    """Type and data of a message that may be anything: it is shown as it came."""
    if not isinstance(element, dict):
        return "malformed", {}
    kind, data = element.get("type"), element.get("data")
    return (kind[:64] if isinstance(kind, str) else "malformed"), (data if isinstance(data, dict) else {})
