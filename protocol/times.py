"""Times on the wire: RFC 3339, UTC, milliseconds (`2024-01-01T09:15:00.000Z`); they sort as text."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

from pydantic import StringConstraints

# Microseconds at most, `Z` or an offset; the documents write whole seconds.
TIMESTAMP_PATTERN = r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?(Z|[+-]\d\d:\d\d)$"
Timestamp = Annotated[str, StringConstraints(pattern=TIMESTAMP_PATTERN)]


def format_time(seconds: float) -> str:
    """Seconds since the epoch as RFC 3339 with milliseconds."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"


def parse_time(text: str) -> float:
    """RFC 3339 as seconds since the epoch. Raises `ValueError` when it is not a time."""
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError(f"{text!r} has no offset from UTC")
    return moment.timestamp()
