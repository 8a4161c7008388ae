"""Times on the wire: RFC 3339, UTC, milliseconds (`2024-01-01T09:15:00.000Z`); they sort as text."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

from pydantic import AfterValidator, StringConstraints

# `Z` or an offset; the documents write whole seconds. Not \d: that means the digits of every script.
_DATE, _CLOCK = "[0-9]{4}-[0-9]{2}-[0-9]{2}", "[0-9]{2}:[0-9]{2}:[0-9]{2}"
YEAR_3000 = 32503680000.0
TIMESTAMP_PATTERN = rf"^{_DATE}T{_CLOCK}([.][0-9]{{1,9}})?(Z|[+-][0-9]{{2}}:[0-9]{{2}})$"


def format_time(seconds: float) -> str:
    """Seconds since the epoch as RFC 3339 with milliseconds."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")[:23] + "Z"


def parse_time(text: str) -> float:
    """RFC 3339 as seconds since the epoch. Raises `ValueError` when it is not a time."""
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError(f"{text!r} has no offset from UTC")
    return moment.timestamp()


def _check_range(text: str) -> str:
    # The rules compute with times of a record: one that is none, or whose sum with a minute is none, would spoil every
    # later fact about the examinee.
    if not 0 <= parse_time(text) < YEAR_3000:
        raise ValueError("must be between the years 1970 and 3000")
    return text


Timestamp = Annotated[str, StringConstraints(pattern=TIMESTAMP_PATTERN), AfterValidator(_check_range)]
