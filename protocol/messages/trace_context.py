"""W3C Trace Context (https://www.w3.org/TR/trace-context/): the `traceparent` of facts, events, frames and headers."""

from __future__ import annotations

import re
from typing import Annotated, Any, NamedTuple

from pydantic import BeforeValidator

_TRACEPARENT = re.compile(r"00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})")


class TraceContext(NamedTuple):
    """The ids of a span and of its trace; `sampled`: the caller records the trace."""

    trace_id: int
    span_id: int
    sampled: bool

    def __str__(self) -> str:
        return f"00-{self.trace_id:032x}-{self.span_id:016x}-{int(self.sampled):02x}"


def parse_traceparent(text: object) -> TraceContext | None:
    """Return the context of a `traceparent`; `None` when it is not valid and so ignored (W3C, section 3.2)."""
    match = _TRACEPARENT.fullmatch(text) if isinstance(text, str) else None
    if match is None:
        return None
    context = TraceContext(int(match[1], 16), int(match[2], 16), bool(int(match[3], 16) & 1))
    return context if context.trace_id and context.span_id else None


def _drop_invalid(value: Any) -> str | None:
    return value if parse_traceparent(value) is not None else None


Traceparent = Annotated[str | None, BeforeValidator(_drop_invalid)]
"""A `traceparent` field; an invalid value counts as absent and does not make the message invalid."""
