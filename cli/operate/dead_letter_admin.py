"""Read, replay and discard dead letters: messages that could not be processed (stream DEADLETTER)."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

import pydantic_core

from actors.runtime.broker.connection import Bus, Outgoing
from actors.runtime.broker.consumers.stream_reader import read_stream
from actors.runtime.broker.stream_state import StoredMessage
from actors.runtime.store.state_store import StateStore
from actors.status_log.plan_log import read_plan
from protocol.broker import subjects
from protocol.broker.dead_letters import (
    REPLAY_OF,
    REPLAYABLE,
    REPLAYS,
    Letter,
    Source,
    can_be_outdated,
    contains,
    decode_payload,
    outdated_reason,
)
from protocol.broker.streams import DEADLETTER, STATE_MANAGERS, STATUS, STREAMS
from protocol.errors import (
    BrokerUnavailable,
    ExamwireError,
    ProtocolError,
    StateUnavailable,
    WrongLastSequence,
)
from protocol.log.entries import NewerFact, may_hold_plan_facts, may_mention, read_entries
from protocol.log.version import version_of
from protocol.messages.base import Message
from protocol.messages.facts import ExamineeFact
from protocol.messages.plan_facts import PlanFact
from protocol.records.placement import record_of
from protocol.times import format_time, parse_time

PUBLISH_ATTEMPTS = 3
OUTCOME_SECONDS = 5.0
POLL_SECONDS = 0.05
MAX_AGES = {stream.name: stream.max_age for stream in STREAMS}


class NoSuchLetter(ExamwireError):
    """There is no dead letter with that number: it never existed, or it was removed."""


class NotReplayed(ExamwireError):
    """The letter was not replayed and stays in DEADLETTER; the text says why."""


@dataclass(frozen=True, slots=True)
class StoredLetter:
    """A letter as it is stored: `number` is its sequence in DEADLETTER, `time` (RFC 3339) when it was written.

    `stream` comes from the letter's subject, which the broker protects by permissions. What the letter itself says
    about its source is only the claim of its writer.
    """

    number: int
    time: str
    stream: str
    letter: Letter


@dataclass(frozen=True, slots=True)
class Replay:
    """The message that a replay has published. `already`: an earlier replay published it, this one sent nothing."""

    letter: int
    stream: str
    subject: str
    sequence: int
    already: bool = False


@dataclass(slots=True)
class ReplayOutcome:
    """Outcome of a replayed message.

    `handled`: all `readers` of the subject have acknowledged it. `returned`: the new letter, if it failed again.
    `applied`: one line for each record, saying whether the message changed it.
    """

    handled: bool = False
    readers: int = 0
    returned: StoredLetter | None = None
    applied: list[str] = field(default_factory=list)


class DeadLetterAdmin:
    """Operations on dead letters. Each raises `BrokerUnavailable` without NATS and can then be repeated.

    Example::

        admin = DeadLetterAdmin(bus)
        replay = await admin.replay(7)
        outcome = await admin.wait_for_outcome(replay, store)
    """

    def __init__(self, bus: Bus) -> None:
        self._bus = bus

    async def letters(
        self, *, source: str | None = None, wanted: Callable[[StoredLetter], bool] = lambda _: True
    ) -> AsyncIterator[StoredLetter]:
        """Yield the letters for which `wanted` is true, oldest first; with `source`, only those of this stream."""
        subject = subjects.deadletter(source) if source is not None else "deadletter.>"
        async for message in read_stream(self._bus, DEADLETTER.name, subject=subject):
            stored_letter = _filed(message)
            if wanted(stored_letter):
                yield stored_letter

    async def letter(self, number: int) -> StoredLetter:
        """Return one letter. Raises `NoSuchLetter`."""
        message = await self._bus.message_at(DEADLETTER.name, number) if number > 0 else None
        if message is None:
            raise NoSuchLetter(
                f"there is no dead letter {number}: it was replayed, discarded, has expired, or never existed"
            )
        return _filed(message)

    async def payload(self, stored_letter: StoredLetter) -> bytes:
        """Return the full payload. Raises `ProtocolError` when only a part of it is still stored."""
        try:
            return stored_letter.letter.full_payload()
        except ProtocolError:
            source = stored_letter.letter.source
            message = await self._bus.message_at(source.stream, source.number)
            return stored_letter.letter.full_payload(message.payload if message is not None else None)

    async def discard(self, number: int) -> bool:
        """Delete a letter; return False when it does not exist."""
        return await self._bus.delete_message(DEADLETTER.name, number)

    async def replay(self, number: int, payload: bytes | None = None, *, force: bool = False) -> Replay:
        """Publish a letter's payload (or a corrected one) on its source subject again, and delete the letter.

        Repeated or concurrent replays have one effect (see `protocol.broker.dead_letters`). The source message must be
        stored in the broker as the letter describes it, because a letter is only the claim of its writer. `force`:
        replay even if newer facts about the examinee outdate it. Raises `NoSuchLetter`, `NotReplayed`, and
        `ProtocolError` naming the field of the payload.
        """
        stored_letter = await self.letter(number)
        source = stored_letter.letter.source
        if source.stream not in REPLAYABLE:
            raise NotReplayed(
                f"dead letter {number} came from {source.stream}, whose messages cannot be replayed: discard it"
            )
        if not source.subject:
            raise NotReplayed(
                f"dead letter {number} has no subject, because its message was already deleted: discard it"
            )
        if source.stream != stored_letter.stream:
            raise NotReplayed(
                f"dead letter {number} claims to come from {source.stream}, but was written for "
                f"{stored_letter.stream}: its writer has no permission for {source.stream}; discard it"
            )
        marker = subjects.replay_marker(source.stream, f"{number}-{round(parse_time(stored_letter.time) * 1000)}")
        replay = await self._marked(stored_letter, marker)
        if replay is None:
            source_message = await self._source_of(stored_letter)
            if payload is not None:
                decode_payload(source.stream, source.subject, payload)
            elif not contains(
                source_message.payload,
                payload := stored_letter.letter.full_payload(source_message.payload),
                source.index,
            ):
                raise NotReplayed(
                    f"dead letter {number} differs from message {source.number} of {source.stream}: compare both "
                    "(`examwire dead-letters show`, `nats stream get`); --payload sends a payload of your own"
                )
            await self._may_be_replayed(stored_letter, payload, force)
            replay = await self._publish(stored_letter, marker, payload)
        await self.discard(number)
        return replay

    async def _source_of(self, stored_letter: StoredLetter) -> StoredMessage:
        """Return the message that a letter is about, as the broker has stored it. Raises `NotReplayed`."""
        source = stored_letter.letter.source
        message = await self._bus.message_at(source.stream, source.number) if source.number > 0 else None
        if message is None:
            raise NotReplayed(
                f"dead letter {stored_letter.number}: {source.stream} no longer holds message {source.number}, so the "
                "letter cannot be checked against it; discard it"
            )
        if message.subject != source.subject:
            raise NotReplayed(
                f"dead letter {stored_letter.number} claims that message {source.number} of {source.stream} has the "
                f"subject {source.subject}, but it has {message.subject}: discard it"
            )
        return message

    async def _marked(self, stored_letter: StoredLetter, marker: str) -> Replay | None:
        source = stored_letter.letter.source
        marker_message = await self._bus.last_message(source.stream, marker)
        if marker_message is None:
            return None
        # The batch is stored as it was sent: the marker, then the message.
        return Replay(stored_letter.number, source.stream, source.subject, marker_message.sequence + 1, already=True)

    async def _may_be_replayed(self, stored_letter: StoredLetter, payload: bytes, force: bool) -> None:
        source = stored_letter.letter.source
        age, max_age = self._bus.clock.now() - parse_time(stored_letter.time), MAX_AGES[source.stream]
        if age > max_age:
            raise NotReplayed(
                f"dead letter {stored_letter.number} is older than the messages of {source.stream} "
                f"({max_age / 3600:g} h), so an earlier replay could not be detected; discard it"
            )
        if source.stream != STATUS.name or force:
            return
        try:
            messages = decode_payload(source.stream, source.subject, payload)
        except ProtocolError:
            return  # it fails again and returns as a new letter
        if not any(can_be_outdated(message) for message in messages):
            return
        reason = outdated_reason(messages, await self._later_facts(source, messages))
        if reason is not None:
            raise NotReplayed(
                f"dead letter {stored_letter.number}: {reason}, and a replay would report it as new; `examwire state "
                "rebuild` applies the log's facts to Redis in order, --force replays anyway"
            )

    async def _later_facts(self, source: Source, messages: list[Message]) -> list[ExamineeFact | PlanFact]:
        """Read the later facts about these examinees and their plan, without those that are dead letters."""
        examinee_ids = {message.examinee_id for message in messages if isinstance(message, ExamineeFact)}
        dead_messages = {
            (stored_letter.letter.source.number, stored_letter.letter.source.index)
            async for stored_letter in self.letters(source=source.stream)
        }
        later: list[ExamineeFact | PlanFact] = []
        plan_id = next(message.plan_id for message in messages if isinstance(message, ExamineeFact | PlanFact))
        async for message in read_plan(self._bus, plan_id, max(1, source.number + 1)):
            names_one = any(may_mention(message.payload, examinee_id) for examinee_id in examinee_ids)
            if not names_one and not may_hold_plan_facts(message.payload):
                continue
            for entry in read_entries(message.subject, message.sequence, message.time, message.payload):
                if isinstance(entry.fact, NewerFact):
                    continue  # what it forbids is not known here
                index = entry.version - version_of(message.sequence)
                if not {(message.sequence, index), (message.sequence, None)} & dead_messages:
                    later.append(entry.fact)
        return later

    async def _publish(self, stored_letter: StoredLetter, marker: str, payload: bytes) -> Replay:
        source = stored_letter.letter.source
        batch = [
            Outgoing(
                marker,
                pydantic_core.to_json({"letter": stored_letter.number, "time": format_time(self._bus.clock.now())}),
                headers={"Nats-Expected-Last-Subject-Sequence": "0"},
            ),
            Outgoing(
                source.subject,
                payload,
                headers={
                    REPLAY_OF: f"{DEADLETTER.name}:{stored_letter.number}",
                    REPLAYS: str(stored_letter.letter.replays + 1),
                },
            ),
        ]
        for attempt in range(1, PUBLISH_ATTEMPTS + 1):
            try:
                ack = await self._bus.publish_atomic(batch)
            except (WrongLastSequence, BrokerUnavailable):
                # Another replay came first, or the ack of this one was lost.
                if (replay := await self._marked(stored_letter, marker)) is not None:
                    return replay
                if attempt == PUBLISH_ATTEMPTS:
                    raise
            else:
                return Replay(stored_letter.number, source.stream, source.subject, ack.sequence)
        raise AssertionError("unreachable")

    # -- the outcome of a replay ---------------------------------------------------------------------

    async def wait_for_outcome(self, replay: Replay, store: StateStore) -> ReplayOutcome:
        """Wait until the readers have handled a replayed message, for `OUTCOME_SECONDS` at most."""
        outcome = ReplayOutcome()
        deadline = time.monotonic() + OUTCOME_SECONDS
        while not outcome.handled and time.monotonic() < deadline:
            outcome.handled, outcome.readers = await self._handled(replay)
            if not outcome.handled:
                await asyncio.sleep(POLL_SECONDS)
        outcome.returned = await self._returned(replay)
        if outcome.returned is None and replay.stream == STATUS.name and outcome.handled:
            message = await self._bus.message_at(replay.stream, replay.sequence)
            outcome.applied = await _applied(store, replay, message.payload) if message is not None else []
        return outcome

    async def _handled(self, replay: Replay) -> tuple[bool, int]:
        managers = {spec.name for spec in STATE_MANAGERS}
        readers = [
            consumer
            for consumer in await self._bus.consumer_states(replay.stream)
            if (consumer.name in managers or consumer.pulls_waiting)
            and any(subjects.matches(pattern, replay.subject) for pattern in consumer.filters)
            and (replay.stream != STATUS.name or consumer.name in managers)
        ]
        passed = [
            consumer.ack_floor >= replay.sequence
            or (consumer.delivered >= replay.sequence and not consumer.unacknowledged)
            for consumer in readers
        ]
        return bool(passed) and all(passed), len(readers)

    async def _returned(self, replay: Replay) -> StoredLetter | None:
        subject = subjects.deadletter(replay.stream)
        async for message in read_stream(self._bus, DEADLETTER.name, subject=subject, first=replay.letter + 1):
            stored_letter = _filed(message)
            if (
                stored_letter.letter.replay_of == replay.letter
                and stored_letter.letter.source.number == replay.sequence
            ):
                return stored_letter
        return None


def _filed(message: StoredMessage) -> StoredLetter:
    try:
        letter = Letter.decode(message.payload)
    except ProtocolError as error:
        letter = Letter(
            source=Source(stream=message.subject.partition(".")[2], subject="", number=0),
            reason=error.detail,
            payload=message.payload.decode(errors="replace"),
            size=len(message.payload),
        )
    return StoredLetter(message.sequence, format_time(message.time), message.subject.partition(".")[2], letter)


async def _applied(store: StateStore, replay: Replay, payload: bytes) -> list[str]:
    """Return one line for each message: whether the record now has its version."""
    lines = []
    messages = decode_payload(replay.stream, replay.subject, payload)
    record_keys = [record_of(message)[0] for message in messages]
    try:
        versions = await store.fields(record_keys, ("version",))
    except StateUnavailable as error:
        return [f"handled; the changed records cannot be read: {error}"]
    for index, (key, (record_version,)) in enumerate(zip(record_keys, versions, strict=True)):
        version = version_of(replay.sequence, index)
        if record_version is not None and int(record_version) >= version:
            later = "" if int(record_version) == version else f" (or a newer one: the record is at {record_version})"
            lines.append(f"{key}: applied: version {version}{later}")
        else:
            lines.append(
                f"{key}: version {version} had no effect by the rules; the record is at {record_version or 'none'}"
            )
    return lines
