"""Spans of the state manager."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from actors.runtime.telemetry import tracing
from actors.runtime.telemetry.spans import fact_attributes
from protocol.messages.facts import ExamineeFact

if TYPE_CHECKING:
    from actors.state_manager.decisions import Decision
    from protocol.records.placement import VersionedMessage


def record_settled(items: Iterable[VersionedMessage], decision: Decision, since: float) -> None:
    """Record the span "state settled" of each traced fact, and put the events that follow into its trace.

    `since`: when the work on them began, by `spans.now`.
    """
    if not tracing.on():
        return
    spans: dict[int, str] = {}
    for item in items:
        fact = item.message
        if not isinstance(fact, ExamineeFact) or fact.traceparent is None:
            continue
        version = str(item.version)
        span = tracing.begin(
            "state settled", fact.traceparent, {**fact_attributes(fact), "version": version}, key=version, since=since
        )
        if span is not None:
            span.end()
            spans[item.version] = span.traceparent
    for event in decision.events if spans else ():
        if event.version is not None and event.version in spans:
            event.traceparent = spans[event.version]
