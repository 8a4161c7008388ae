"""Enrolling a roster: durably into the log, what is there already left out."""

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
    """How many entries were `new`, named otherwise than before (`renamed`), and `known` just so."""

    new: int
    renamed: int
    known: int


async def enrol(
    bus: Bus, store: StateStore, plan_id: str, entries: Sequence[RosterEntry], by: str | None
) -> EnrolmentCounts:
    """Return when all of it is in the log. Raises `BrokerUnavailable`, `StateUnavailable`; may be repeated.

    What Redis knows is left out of the log for brevity only: an entry that is said again has no effect by the rules.
    """
    missing: list[RosterEntry] = []
    new = 0
    for start in range(0, len(entries), CHUNK):
        some = entries[start : start + CHUNK]
        known = await store.fields([keys.progress(plan_id, one.examinee_id) for one in some], ("enrolled", "name"))
        for entry, (enrolled, name) in zip(some, known, strict=True):
            if enrolled != "1":
                new += 1
                missing.append(entry)
            elif entry.name is not None and entry.name != name:
                missing.append(entry)
    now = format_time(bus.clock.now())
    facts = [
        Enrol(plan_id=plan_id, examinee_id=one.examinee_id, name=one.name, by=by, timestamp=now) for one in missing
    ]
    subject = subjects.status_plan(plan_id, subjects.OPERATOR)
    await bus.confirm(await bus.send(Outgoing.batches(subject, facts, _message_id)))
    return EnrolmentCounts(new, len(missing) - new, len(entries) - len(missing))


def _message_id(payload: bytes) -> str:
    """The same facts, enrolled again, are stored once."""
    return "enrol-" + hashlib.sha256(payload).hexdigest()
