"""Spans of an event about an examinee, from the socket server that notices it to the frames for proctors.

    socket lost        the socket server notices (also: socket opened, mobile sync entered, picture uploaded)
    status published   until the broker has acknowledged the fact
    state settled      the state manager: read, decided by the rules, written to Redis
    proctor told       each socket server that has proctors of the plan

Each span is the parent of the next one. With tracing off, every function here returns at once.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import pydantic_core

from actors.runtime.telemetry import tracing
from actors.runtime.telemetry.tracing import Span
from protocol.messages.base import Message, Traced
from protocol.messages.facts import ExamineeFact
from protocol.messages.plan_facts import PlanFact
from protocol.messages.trace_context import parse_traceparent

HEADER = "traceparent"
_upload: ContextVar[str | None] = ContextVar("upload", default=None)


def start_trace(name: str, given: str | None = None, **about: str | None) -> str | None:
    """Record the first span of a trace, or a child of the `traceparent` of a client; return its traceparent."""
    span = tracing.begin(name, tracing.from_client(given), about)
    if span is None:
        return None
    span.end()
    return span.traceparent


def start_publish(fact: ExamineeFact | PlanFact) -> Span | None:
    """Begin the span "status published" of a fact. Call it before encoding the fact; `end` the span at the ack."""
    if (
        fact.traceparent is None
        or (span := tracing.begin("status published", fact.traceparent, fact_attributes(fact))) is None
    ):
        return None
    fact.traceparent = span.traceparent
    return span


@contextmanager
def uploading(given: str | None, **about: str | None) -> Iterator[None]:
    """Record the span of an upload; within the context, `current_upload` is the parent of further spans."""
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
    """The `traceparent` of the upload that this task handles."""
    return _upload.get()


def adopt(message: Message, headers: Mapping[str, str]) -> None:
    """Give a message the `traceparent` of its NATS headers, unless it has one."""
    if isinstance(message, Traced) and message.traceparent is None and parse_traceparent(headers.get(HEADER)):
        message.traceparent = headers[HEADER]


def header(encoded: Sequence[bytes]) -> dict[str, str]:
    """Return the NATS header for a payload of these messages; only a single message has one."""
    if not tracing.on() or len(encoded) != 1:
        return {}
    traceparent = pydantic_core.from_json(encoded[0])["data"].get(HEADER)
    return {HEADER: traceparent} if traceparent is not None else {}


def header_of(message: Message) -> dict[str, str]:
    """Return the NATS header for a payload that is this message alone."""
    traceparent = getattr(message, HEADER, None) if tracing.on() else None
    return {HEADER: traceparent} if traceparent is not None else {}


def record_delivered(events: Iterable[Mapping[str, Any]], proctors: int, since: float) -> None:
    """Record the span "proctor told" of each event (parsed JSON) that was written to this number of proctors."""
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
    """Return the time at which a span begins (epoch seconds); 0 when nothing is traced."""
    return time.time() if tracing.on() else 0.0


def fact_attributes(fact: ExamineeFact | PlanFact) -> dict[str, str | None]:
    return {
        "plan": fact.plan_id,
        "examinee": getattr(fact, "examinee_id", None),
        "fact": fact.type,
        "socket": getattr(fact, "socket_id", None),
        "status": getattr(fact, "status", None),
        "reason": getattr(fact, "reason", None),
    }
