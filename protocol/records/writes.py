"""Writes to the records of Redis: what is compared, and what is set or deleted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class StoredRecord:
    """A record as it was read: `rev` 0 and `history` None when there is none."""

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
    """Write a socket's record unless a newer version is there; ended ones expire after `keep_seconds`."""

    key: str
    version: int
    fields: Mapping[str, str]
    keep_seconds: int = 0


@dataclass(frozen=True, slots=True)
class GuardedWrite:
    """Write `fields` into a hash if its field `guard` still has the value `expected`.

    `expected` "0": the key has no such field, or is no hash. `keep_seconds`: when the key expires (0: never).
    """

    key: str
    guard: str
    expected: str
    fields: Mapping[str, str]
    keep_seconds: int = 0


@dataclass(frozen=True, slots=True)
class Touch:
    """Set `fields` on a record whose `guard` field equals `value`, if `time` is not older than what is there."""

    key: str
    guard: str
    value: str
    time_field: str
    time: str
    fields: Mapping[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class Index:
    """What finds records without SCAN: sets of ids, and hashes of what a server holds, each entry with its version."""

    members: dict[str, set[str]] = field(default_factory=dict)
    entries: dict[str, dict[str, tuple[int, str | None]]] = field(default_factory=dict)

    def add_member(self, key: str, value: str) -> None:
        self.members.setdefault(key, set()).add(value)

    def set_entry(self, key: str, name: str, version: int, value: str | None) -> None:
        """`None` takes the entry out; what is newer than `version` stays as it is."""
        entries = self.entries.setdefault(key, {})
        if name not in entries or entries[name][0] <= version:
            entries[name] = (version, value)
