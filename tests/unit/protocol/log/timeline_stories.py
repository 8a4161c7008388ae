"""Stories of an examinee as facts of the log, and what the timeline says of each of them."""

from __future__ import annotations

from protocol.log.entries import LogEntry
from protocol.log.timeline import Timeline
from protocol.log.timeline_entry import TimelineEntry
from protocol.messages.facts import ExamineeFact
from tests.unit.support import facts
from tests.unit.support.facts import DAWN

Expected = tuple[str, str, str, dict[str, object]]
"""The kind and the text of an entry, the status after it (of the mobile sync where that is told), its other fields."""


COMMON = {"version", "logged", "time", "plan_id", "examinee_id", "what", "text", "effect", "status", "mobile_sync"}


def read(*story: ExamineeFact, truncated: bool = False) -> list[TimelineEntry]:
    """The entries of facts that the log took one a second, with the versions 10, 20, 30, ..."""
    timeline = Timeline(truncated=truncated)
    entries = [timeline.add(LogEntry(10 * (n + 1), DAWN + n, fact)) for n, fact in enumerate(story)]
    return [entry for entry in entries if entry is not None]


def summary(entry: TimelineEntry) -> Expected:
    fields = entry.model_dump(exclude_none=True, exclude=COMMON)
    assert entry.effect is (entry.what not in ("NO_EFFECT", "RESTATED"))
    assert (entry.plan_id, entry.examinee_id) == (facts.PLAN, facts.EXAMINEE)
    return entry.what.value, entry.text, entry.mobile_sync if entry.mobile_sync != "NONE" else entry.status, fields
