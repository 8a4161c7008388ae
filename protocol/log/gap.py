"""Gaps of the log: facts that happened and that STATUS does not hold any more.

The broker was restored from an older copy of its data, or has lost the end of it. The state manager that notices has
the log go on above everything that was known of it, and stores a `LogGap` in the log, for ever.
"""

from __future__ import annotations

from collections.abc import Iterable

import pydantic

from protocol.log.version import sequence_of
from protocol.messages.base import Wire
from protocol.times import Timestamp


class LogGap(Wire):
    """The log holds no fact of the sequences after `after` up to `upTo`.

    They happened from `missingFrom` to `missingTo`, by the broker's clock. The gap was noticed at `timestamp`.

    Example::

        gap = LogGap.decode(stored.payload)
        gap.covers(version)  # whether a fact of this version is missing
    """

    after: int
    up_to: int
    missing_from: Timestamp
    missing_to: Timestamp
    timestamp: Timestamp

    def encode(self) -> bytes:
        """Return the payload of the message on `subjects.LOG_GAP`."""
        return self.model_dump_json(by_alias=True).encode()

    @classmethod
    def decode(cls, payload: str | bytes) -> LogGap | None:
        """Return the gap of a payload; `None`: it is none."""
        try:
            return cls.model_validate_json(payload)
        except pydantic.ValidationError:
            return None

    def __str__(self) -> str:
        return f"the facts from {self.missing_from} to {self.missing_to} are missing"

    def covers(self, version: int) -> bool:
        """Return whether the fact of a version is one of those that are missing."""
        return self.after < sequence_of(version) <= self.up_to


def gap_texts(gaps: Iterable[LogGap]) -> list[str]:
    """Return for each gap what a reader of a timeline or a report must know."""
    return [f"{gap}: the log was restored from an older copy, or has lost its end" for gap in gaps]


def covering(gaps: Iterable[LogGap], version: int) -> LogGap | None:
    """Return the gap in which a version lies."""
    return next((gap for gap in gaps if gap.covers(version)), None)
