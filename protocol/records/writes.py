"""Conditional writes to Redis, as data: the condition, and the fields to set."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class StoredRecord:
    """A record as it was read; without one, `rev` is 0 and `history` is `None`."""

    rev: int
    history: str | None


@dataclass(frozen=True, slots=True)
class RecordWrite:
    """Write a record if its `rev` is still `expected_rev`."""

    key: str
    expected_rev: int
    fields: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class SocketWrite:
    """Write a socket's record unless the stored version is newer; it expires after `keep_seconds` (0: never)."""

    key: str
    version: int
    fields: Mapping[str, str]
    keep_seconds: int = 0


@dataclass(frozen=True, slots=True)
class GuardedWrite:
    """Write `fields` into a hash if its field `guard` still has the value `expected`.

    `expected` "0" means that the key has no such field, or is no hash. The key expires after `keep_seconds` (0: never).
    """

    key: str
    guard: str
    expected: str
    fields: Mapping[str, str]
    keep_seconds: int = 0


@dataclass(frozen=True, slots=True)
class StoredHash:
    """A hash to write where there is none. Its field `guard` tells versions of it apart; `keep_seconds` 0: for ever."""

    key: str
    fields: Mapping[str, str]
    guard: str
    keep_seconds: int = 0


@dataclass(frozen=True, slots=True)
class Guard:
    """The condition for deleting a key: its `field` still has this value; `None`: the key is no hash."""

    key: str
    field: str
    value: str | None


@dataclass(frozen=True, slots=True)
class Touch:
    """Set `fields` on a record if its field `guard` is `value` and its `time_field` is not later than `time`."""

    key: str
    guard: str
    value: str
    time_field: str
    time: str
    fields: Mapping[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class Index:
    """Updates of the indexes that find records without SCAN.

    `members`: key of a set to the ids to add. `entries`: key of a hash to its entries, each with a version.
    """

    members: dict[str, set[str]] = field(default_factory=dict)
    entries: dict[str, dict[str, tuple[int, str | None]]] = field(default_factory=dict)

    def add_member(self, key: str, value: str) -> None:
        self.members.setdefault(key, set()).add(value)

    def set_entry(self, key: str, name: str, version: int, value: str | None) -> None:
        """Set an entry, or remove it (`None`); an entry with a newer version stays unchanged."""
        entries = self.entries.setdefault(key, {})
        if name not in entries or entries[name][0] <= version:
            entries[name] = (version, value)
