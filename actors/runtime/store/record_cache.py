"""Copies of records as they were read from Redis or written there last, so that most facts need no read.

Redis remains the truth: a copy may be older than the record, so nothing follows from one before Redis has confirmed its
`rev`. Who writes a record compares it, and `StateStore.save` and `StateStore.changed` compare those that are only read.
No two contents of a record ever have the same `rev`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from prometheus_client import Gauge

from actors.runtime.telemetry.metrics import REGISTRY
from protocol.records import keys
from protocol.records.kinds import RecordKind
from protocol.records.writes import StoredRecord
from protocol.rules.history import History

CACHE_BYTES = Gauge(
    "examwire_state_cache_bytes", "Estimated memory of the records that are kept to save reads", registry=REGISTRY
)

MOST_BYTES = 96 * 2**20
_BYTES_A_COPY, _BYTES_A_CHARACTER = 400, 4
"""An estimate of memory: of a copy with its key, and of each character of its `history` when it is decoded."""


@dataclass(frozen=True, slots=True)
class RecordCopy:
    """A record as Redis had it at a `rev`. `part`: that of the log with its facts. `characters`: of its `history`.

    `shown`: the fields of the state, all of which this process has written; `None`: the record was read. `exists`:
    False when there was no record.
    """

    rev: int
    history: History[Any, Any]
    part: str
    characters: int
    shown: Mapping[str, str] | None = None

    @property
    def exists(self) -> bool:
        return self.characters > 0


class RecordCache:
    """Copies of records by key. Those that were used least recently are dropped when they take `most_bytes` together.

    Example::

        cache.trust({"3": epoch})
        copy = cache.take(key)  # and when Redis has confirmed what follows:
        cache.keep(key, RecordCopy(rev, history, "3", len(text)))
    """

    def __init__(self, most_bytes: int = MOST_BYTES) -> None:
        self._copies: dict[str, RecordCopy] = {}
        self._terms: dict[str, int | None] = {}
        self._most_bytes = most_bytes
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._copies)

    def trust(self, terms: Mapping[str, int | None]) -> None:
        """Drop the copies of each part of the log that was perhaps processed by somebody else since they were made.

        `terms`: the term of each part, which changes whenever this process is given the part; `None`: perhaps somebody
        else has it.
        """
        stale = {part for part, term in terms.items() if term is None or self._terms.get(part) != term}
        self._terms |= terms
        CACHE_BYTES.set(self._bytes)
        if stale:
            self._drop([key for key, copy in self._copies.items() if copy.part in stale])

    def get(self, key: str) -> RecordCopy | None:
        """Return the copy of a record that is only read."""
        copy = self._copies.pop(key, None)
        if copy is not None:
            self._copies[key] = copy  # the last one, so the last to be dropped
        return copy

    def take(self, key: str) -> RecordCopy | None:
        """Return the copy of a record that is to be written, and drop it: it is kept again when Redis has written."""
        copy = self._copies.get(key)
        if copy is None or not copy.exists:
            return None  # what begins a record is decided from what Redis says: perhaps it was purged
        del self._copies[key]
        self._bytes -= _size(copy)
        return copy

    def keep(self, key: str, copy: RecordCopy) -> None:
        """Keep a copy of what Redis has said, or has written. What only newer releases understand is read each time."""
        if (earlier := self._copies.pop(key, None)) is not None:
            self._bytes -= _size(earlier)
        if copy.history.unknown:
            return
        self._copies[key] = copy
        self._bytes += _size(copy)
        while self._bytes > self._most_bytes:
            self._drop([next(iter(self._copies))])

    def drop_plan(self, plan_id: str) -> None:
        """Drop all copies of the records of a plan."""
        prefix = f"{keys.plan(plan_id)}:"
        self._drop([key for key in self._copies if f"{key}:".startswith(prefix)])

    def _drop(self, dropped: Iterable[str]) -> None:
        for key in dropped:
            if (copy := self._copies.pop(key, None)) is not None:
                self._bytes -= _size(copy)


def read_copy(kind: RecordKind[Any, Any], stored: StoredRecord, part: str, floor: int = 0) -> RecordCopy:
    """Return a copy of a record that was read, compacted up to `floor`. Raises `NewerRecord`, `ValueError`."""
    return RecordCopy(stored.rev, kind.read(stored.history, floor), part, len(stored.history or ""))


def _size(copy: RecordCopy) -> int:
    return _BYTES_A_COPY + _BYTES_A_CHARACTER * copy.characters
