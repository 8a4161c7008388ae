"""The spans of what happens to an examinee, from where it is noticed to the proctors' frames.

    socket lost        the socket server notices (also: socket opened, mobile sync entered, picture uploaded)
    status published   until the broker has acknowledged the fact
    state settled      the state manager: read, decided by the rules, written to Redis
    proctor told       each socket server that has proctors of the plan

Each is the parent of the next one. With tracing off every call here returns at once.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import pydantic_core

from actors.runtime.telemetry import tracing
from actors.runtime.telemetry.tracing import Span
from protocol.messages.base import Message, Traced
from protocol.messages.facts import ExamineeFact
from protocol.messages.trace_context import parse_traceparent

if TYPE_CHECKING:
    pass

HEADER = "traceparent"
_upload: ContextVar[str | None] = ContextVar("upload", default=None)


def start_trace(name: str, given: str | None = None, **about: str | None) -> str | None:
    """Something has happened: the first span of a trace, or one under the `traceparent` that a client gave."""
    span = tracing.begin(name, tracing.from_client(given), about)
    if span is None:
        return None
    span.end()
    return span.traceparent


def start_publish(fact: ExamineeFact) -> Span | None:
    """A fact of a trace is on its way into the log; it is to be encoded after this. `end` the span at its ack."""
    if (
        fact.traceparent is None
        or (span := tracing.begin("status published", fact.traceparent, fact_attributes(fact))) is None
    ):
        return None
    fact.traceparent = span.traceparent
    return span


@contextmanager
def uploading(given: str | None, **about: str | None) -> Iterator[None]:
    """A phone uploads a picture: `current_upload` is the parent of what follows from it."""
    span = tracing.begin("picture uploaded", tracing.from_client(given), about)
    if span is None:
        yield
        return
    before = _upload.set(span.traceparent)
    try:
        yield
    finally:
        _upload.reset(before)
        span.end()


def current_upload() -> str | None:
    """The `traceparent` of the upload that this task is about."""
    return _upload.get()


def adopt(message: Message, headers: Mapping[str, str]) -> None:
    """A lone message may be of the trace that its NATS header names."""
    if isinstance(message, Traced) and message.traceparent is None and parse_traceparent(headers.get(HEADER)):
        message.traceparent = headers[HEADER]


def header(encoded: Sequence[bytes]) -> dict[str, str]:
    """The NATS header for a payload of these messages: only a lone one has it."""
    if not tracing.on() or len(encoded) != 1:
        return {}
    found = pydantic_core.from_json(encoded[0])["data"].get(HEADER)
    return {HEADER: found} if found is not None else {}


def header_of(message: Message) -> dict[str, str]:
    """Return the NATS header for a payload that is this message alone."""
    found = getattr(message, HEADER, None) if tracing.on() else None
    return {HEADER: found} if found is not None else {}


def record_delivered(events: Iterable[Mapping[str, Any]], proctors: int, since: float) -> None:
    """Events (as they were parsed) have been written to the sockets of so many proctors."""
    for event in events:
        data = event["data"]
        if (parent := data.get(HEADER)) is None:
            continue
        about = {
            "event": event["type"],
            "plan": data.get("planId"),
            "examinee": data.get("examineeId"),
            "socket": data.get("socketId"),
            "reason": data.get("reason"),
            "version": str(data.get("version")),
            "proctors": proctors,
        }
        span = tracing.begin("proctor told", parent, about, since=since)
        if span is not None:
            span.end()


def now() -> float:
    """When a span begins, if anything is traced."""
    return time.time() if tracing.on() else 0.0


def fact_attributes(fact: ExamineeFact) -> dict[str, str | None]:
    return {
        "plan": fact.plan_id,
        "examinee": fact.examinee_id,
        "fact": fact.type,
        "socket": getattr(fact, "socket_id", None),
        "status": getattr(fact, "status", None),
        "reason": getattr(fact, "reason", None),
    }
