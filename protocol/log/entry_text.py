"""What a timeline entry says, besides when and about whom."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from protocol.log.timeline_entry import EntryKind


@dataclass(frozen=True, slots=True)
class EntryText:
    """The kind and text of a timeline entry; `details`: its fields that only some kinds have."""

    what: EntryKind
    text: str
    details: dict[str, Any] = field(default_factory=dict)
