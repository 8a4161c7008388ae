"""Messages of STATUS without the facts about a deleted examinee.

A payload may hold facts about several examinees, and NATS changes no stored message. So a copy without the facts of the
deleted one is stored on `status.replacement.{planId}.{sequence}`, and then the message is deleted. Readers of the log
get the copy in the place of the message: with its subject, its sequence and its time, and each remaining fact with its
version. State managers never read it: they have processed the message.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

from actors.runtime.broker.connection import Bus, Outgoing
from actors.runtime.broker.consumers.stream_reader import read_stream
from actors.runtime.broker.stream_state import StoredMessage
from protocol.broker import subjects
from protocol.broker.streams import STATUS
from protocol.log.entries import SCHEDULER

SUBJECT = "Examwire-Subject"
STORED_AT = "Examwire-Stored-At"


def replacement_of(original: StoredMessage, plan_id: str, payload: bytes, keep_seconds: float) -> Outgoing:
    """Return the copy of a message with another payload. It replaces an earlier copy, and expires when it would have.

    `keep_seconds`: how long STATUS keeps the message from now on; 0: for ever.
    """
    headers = {"Nats-Rollup": "sub", SUBJECT: original.subject, STORED_AT: repr(original.time)}
    if SCHEDULER in original.headers:
        headers["Examwire-Scheduler"] = original.headers[SCHEDULER]
    if keep_seconds > 0:
        headers["Nats-TTL"] = f"{max(1, round(keep_seconds))}s"
    return Outgoing(subjects.replacement(plan_id, str(original.sequence)), payload, headers=headers)


async def read_replacements(bus: Bus, plan_id: str = "*") -> list[StoredMessage]:
    """Return the copies, each as the message whose place it takes, in the order of the log."""
    found = [
        StoredMessage(
            stored.headers[SUBJECT],
            int(stored.subject.rpartition(".")[2]),
            stored.payload,
            {SCHEDULER: stored.headers["Examwire-Scheduler"]} if "Examwire-Scheduler" in stored.headers else {},
            float(stored.headers[STORED_AT]),
        )
        async for stored in read_stream(bus, STATUS.name, subject=subjects.replacement(plan_id, "*"))
    ]
    return sorted(found, key=lambda stored: stored.sequence)


async def read_with_replacements(
    bus: Bus, subject: str, first: int, last: int, replacements: Sequence[StoredMessage]
) -> AsyncIterator[StoredMessage]:
    """Yield the messages on a subject of STATUS from `first` to `last`, in order, with the copies in their places."""
    waiting = [
        copy for copy in replacements if first <= copy.sequence <= last and subjects.matches(subject, copy.subject)
    ]
    replaced = {copy.sequence for copy in waiting}
    async for stored in read_stream(bus, STATUS.name, subject=subject, first=first, last=last):
        while waiting and waiting[0].sequence < stored.sequence:
            yield waiting.pop(0)
        if stored.sequence not in replaced:  # else the message itself is about to be deleted
            yield stored
    for copy in waiting:
        yield copy
