"""Times on the wire: RFC 3339 in UTC with milliseconds (`2024-01-01T09:15:00.000Z`). They sort as text.

Example::

    format_time(1704100500.0)  # "2024-01-01T09:15:00.000Z"
    parse_time("2024-01-01T09:15:00.000Z")  # 1704100500.0
"""

from __future__ import annotations

import math
from datetime import UTC, datetime
from functools import lru_cache
from typing import Annotated

from pydantic import AfterValidator, StringConstraints

# `Z` or an offset, with or without a fraction. Not \d, which matches the digits of every script.
_DATE, _CLOCK = "[0-9]{4}-[0-9]{2}-[0-9]{2}", "[0-9]{2}:[0-9]{2}:[0-9]{2}"
YEAR_3000 = 32503680000.0
TIMESTAMP_PATTERN = rf"^{_DATE}T{_CLOCK}([.][0-9]{{1,9}})?(Z|[+-][0-9]{{2}}:[0-9]{{2}})$"


def format_time(seconds: float) -> str:
    """Return seconds since the epoch as RFC 3339 with milliseconds (further digits are cut off)."""
    fraction, whole = math.modf(seconds)
    microseconds = round(fraction * 1_000_000)  # as `datetime.fromtimestamp` does
    if not 0 <= microseconds < 1_000_000:
        return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")[:23] + "Z"
    return f"{_format_second(int(whole))}.{microseconds // 1000:03}Z"


@lru_cache(maxsize=256)  # most times are of now: one of the last seconds
def _format_second(second: int) -> str:
    return datetime.fromtimestamp(second, UTC).isoformat()[:19]


@lru_cache(maxsize=1024)  # a rule asks for the times of a fact several times
def parse_time(text: str) -> float:
    """Return an RFC 3339 time as seconds since the epoch. Raises `ValueError` when it is no time or has no offset."""
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError(f"{text!r} has no offset from UTC")
    return moment.timestamp()


def _check_range(text: str) -> str:
    # The rules add to times of a record: a time out of the range of `datetime` would break every later fact about the
    # examinee.
    if not 0 <= parse_time(text) < YEAR_3000:
        raise ValueError("must be between the years 1970 and 3000")
    return text


Timestamp = Annotated[str, StringConstraints(pattern=TIMESTAMP_PATTERN), AfterValidator(_check_range)]
