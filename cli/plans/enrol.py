"""Enrol the examinees of a roster: publish a fact for each new or renamed examinee."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from actors.runtime.broker.connection import Bus, Outgoing
from actors.runtime.store.state_store import StateStore
from protocol.access.roster import RosterEntry
from protocol.broker import subjects
from protocol.messages.facts import Enrol
from protocol.records import keys
from protocol.times import format_time

CHUNK = 500


@dataclass(frozen=True, slots=True)
class EnrolmentCounts:
    """How many entries of a roster were `new`, got another name (`renamed`), or were `known` unchanged."""

    new: int
    renamed: int
    known: int


async def enrol(
    bus: Bus, store: StateStore, plan_id: str, entries: Sequence[RosterEntry], by: str | None
) -> EnrolmentCounts:
    """Publish the entries and return when the log has them. Raises `BrokerUnavailable`, `StateUnavailable`.

    Can be repeated. Entries that Redis already has are skipped to keep the log short; publishing them again would have
    no effect.
    """
    missing: list[RosterEntry] = []
    new = 0
    for start in range(0, len(entries), CHUNK):
        batch = entries[start : start + CHUNK]
        records = await store.fields(
            [keys.progress(plan_id, entry.examinee_id) for entry in batch], ("enrolled", "name")
        )
        for entry, (enrolled, name) in zip(batch, records, strict=True):
            if enrolled != "1":
                new += 1
                missing.append(entry)
            elif entry.name is not None and entry.name != name:
                missing.append(entry)
    now = format_time(bus.clock.now())
    facts = [
        Enrol(plan_id=plan_id, examinee_id=entry.examinee_id, name=entry.name, by=by, timestamp=now)
        for entry in missing
    ]
    subject = subjects.status_plan(plan_id, subjects.OPERATOR)
    await bus.confirm(await bus.send(Outgoing.batches(subject, facts, _message_id)))
    return EnrolmentCounts(new, len(missing) - new, len(entries) - len(missing))


def _message_id(payload: bytes) -> str:
    """The same facts, enrolled again, are stored once."""
    return "enrol-" + hashlib.sha256(payload).hexdigest()
