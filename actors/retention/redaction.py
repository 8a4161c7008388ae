"""Delete the facts about a plan, or about one examinee of it, from the log of record."""

from __future__ import annotations

from typing import Any

from actors.runtime.broker.connection import Bus
from actors.runtime.broker.consumers.stream_reader import read_stream
from actors.runtime.broker.stream_state import StoredMessage
from actors.status_log.replacements import read_replacements, replacement_of
from protocol.broker import subjects
from protocol.broker.streams import STATUS
from protocol.errors import BrokerUnavailable
from protocol.log.entries import may_mention
from protocol.messages.codec import encode_element, parse_json
from protocol.messages.plan_facts import PLAN_FACTS, PlanPurged

REMOVED = {"type": "removed"}
"""Stands for a fact that was deleted, so that the facts behind it in the payload keep their versions."""

_PLAN_TYPES = frozenset(fact.type for fact in PLAN_FACTS)


class Redaction:
    """Deletes facts about the plan `plan_id`, up to a sequence. Every method may be repeated at any time.

    Example::

        await Redaction(bus, "P001").remove_examinee("E001", "deleted-1f", note=sequence)
    """

    def __init__(self, bus: Bus, plan_id: str) -> None:
        self._bus = bus
        self._plan_id = plan_id

    async def count(self, examinee_id: str | None, up_to: int) -> int:
        """Return how many messages are about the plan, or about an examinee of it."""
        return len(
            [
                stored
                for stored in await self._messages(up_to)
                if examinee_id is None or may_mention(stored.payload, examinee_id)
            ]
        )

    async def remove_plan(self, note: int) -> None:
        """Delete all messages about the plan before the message `note`."""
        for subject in (*subjects.status_of_plan(self._plan_id), subjects.replacement(self._plan_id, "*")):
            await self._bus.purge_stream(STATUS.name, subject, up_to=note - 1)

    async def remove_examinee(self, examinee_id: str, alias: str, note: int) -> None:
        """Delete the facts about an examinee before the message `note`. In facts about the plan `alias` takes the id.

        A message that holds other facts is replaced by a copy without those (`actors.status_log.replacements`).
        """
        config = await self._bus.stream_config(STATUS.name)
        if config is None:
            raise BrokerUnavailable("stream STATUS does not exist")
        copies = {stored.sequence for stored in await read_replacements(self._bus, self._plan_id)}
        # The facts of the purge itself last: one of them has the alias, for a purge that goes on.
        for stored in sorted(await self._messages(note - 1), key=lambda message: subjects.PURGE in message.subject):
            payload = redact(stored.payload, examinee_id, alias)
            if payload == stored.payload:
                continue
            if payload is not None:
                keep = float(config["max_age"] or 0) and config["max_age"] - (self._bus.clock.now() - stored.time)
                await self._bus.publish(replacement_of(stored, self._plan_id, payload, keep))
            if stored.sequence not in copies:
                await self._bus.delete_message(STATUS.name, stored.sequence)
            elif payload is None:
                await self._bus.purge_stream(STATUS.name, subjects.replacement(self._plan_id, str(stored.sequence)))

    async def _messages(self, up_to: int) -> list[StoredMessage]:
        """Return the messages about the plan, the copies in the places of theirs."""
        copies = await read_replacements(self._bus, self._plan_id)
        found = {
            stored.sequence: stored
            for subject in subjects.status_of_plan(self._plan_id)
            async for stored in read_stream(self._bus, STATUS.name, subject=subject, last=up_to)
        }
        return list({**found, **{copy.sequence: copy for copy in copies}}.values())


def redact(payload: bytes, examinee_id: str, alias: str) -> bytes | None:
    """Return a payload without the facts about an examinee; `None` when none is left, the same when it has none.

    Facts about the plan stay with `alias` instead of the id: they have moved its end, or were for others too. The fact
    that begins a purge of the examinee goes.
    """
    if not may_mention(payload, examinee_id):
        return payload
    try:
        parsed = parse_json(payload)
    except ValueError:
        return payload
    elements = parsed if isinstance(parsed, list) else [parsed]
    kept = [_redacted(element, examinee_id, alias) for element in elements]
    if kept == elements:
        return payload
    if all(element == REMOVED for element in kept):
        return None
    return encode_element(kept if isinstance(parsed, list) else kept[0])


def _redacted(element: Any, examinee_id: str, alias: str) -> Any:
    data = element.get("data") if isinstance(element, dict) else None
    if not isinstance(data, dict):
        return element
    named = data.get("examineeId") == examinee_id
    if element.get("type") not in _PLAN_TYPES or element.get("type") == PlanPurged.type:
        return REMOVED if named else element
    if named:
        return {**element, "data": {**data, "examineeId": alias}}
    if isinstance(listed := data.get("examinees"), list) and examinee_id in listed:
        renamed = [alias if name == examinee_id else name for name in listed]
        return {**element, "data": {**data, "examinees": renamed}}
    return element
