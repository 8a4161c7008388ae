"""The desk of the dead letters: read them, send one on its way again, or throw it away."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

import pydantic_core

from actors.runtime.broker.connection import Bus, Outgoing
from actors.runtime.broker.consumers.stream_reader import read_stream
from actors.runtime.broker.stream_admin import StoredMessage
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
from protocol.log.entries import may_mention, read_entries
from protocol.log.version import version_of
from protocol.messages.base import Message
from protocol.messages.facts import ExamineeFact
from protocol.records.placement import record_of
from protocol.times import format_time, parse_time

PUBLISH_ATTEMPTS = 3
OUTCOME_SECONDS = 5.0
POLL_SECONDS = 0.05
MAX_AGES = {stream.name: stream.max_age for stream in STREAMS}


class NoSuchLetter(ExamwireError):
    """There is no dead letter of that number: never, or not any more."""


class NotReplayed(ExamwireError):
    """The letter stays where it is; the text says why it was not replayed."""


@dataclass(frozen=True, slots=True)
class StoredLetter:
    """A letter in its place: `number` is its sequence in DEADLETTER, `time` (RFC 3339) when it was written.

    `stream` is the one whose letters it lies among. Who may write there, the broker knows; what else a letter says of
    its source is its writer's word.
    """

    number: int
    time: str
    stream: str
    letter: Letter


@dataclass(frozen=True, slots=True)
class Replay:
    """Where the payload of a letter is now. `already`: somebody had replayed it before, nothing was sent now."""

    letter: int
    stream: str
    subject: str
    sequence: int
    already: bool = False


@dataclass(slots=True)
class ReplayOutcome:
    """What a replay has led to, as far as it can be seen.

    `handled`: every reader of the subject is past it (`readers` of them). `returned`: the new letter, if it failed
    again. `applied`: a line for each record that it changed, or did not.
    """

    handled: bool = False
    readers: int = 0
    returned: StoredLetter | None = None
    applied: list[str] = field(default_factory=list)


class DeadLetterAdmin:
    """Everything here raises `BrokerUnavailable` when NATS is away, and may be repeated then."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus

    async def letters(
        self, *, source: str | None = None, wanted: Callable[[StoredLetter], bool] = lambda _: True
    ) -> AsyncIterator[StoredLetter]:
        """The letters, oldest first; `source`: of this stream only."""
        subject = subjects.deadletter(source) if source is not None else "deadletter.>"
        async for stored in read_stream(self._bus, DEADLETTER.name, subject=subject):
            filed = _filed(stored)
            if wanted(filed):
                yield filed

    async def letter(self, number: int) -> StoredLetter:
        """One letter. Raises `NoSuchLetter`."""
        stored = await self._bus.message_at(DEADLETTER.name, number) if number > 0 else None
        if stored is None:
            raise NoSuchLetter(
                f"there is no dead letter {number}: it was replayed or discarded, has expired, or never was"
            )
        return _filed(stored)

    async def payload(self, filed: StoredLetter) -> bytes:
        """The payload in full. Raises `ProtocolError` when no longer all of it is to be had."""
        try:
            return filed.letter.full_payload()
        except ProtocolError:
            source = filed.letter.source
            stored = await self._bus.message_at(source.stream, source.number)
            return filed.letter.full_payload(stored.payload if stored is not None else None)

    async def discard(self, number: int) -> bool:
        """Take a letter out; False when it was not there (any more)."""
        return await self._bus.delete_message(DEADLETTER.name, number)

    async def replay(self, number: int, payload: bytes | None = None, *, force: bool = False) -> Replay:
        """Publish a letter's payload (or a mended one) on its source subject again, and take the letter out.

        One effect, whoever does it how often: see `protocol.broker.dead_letters`. Its source must be as the broker
        has stored
        it: a letter is the word of whoever wrote it. `force`: also when the examinee has moved on since. Raises
        `NoSuchLetter`, `NotReplayed`, and `ProtocolError` about the payload, naming the field.
        """
        filed = await self.letter(number)
        source = filed.letter.source
        if source.stream not in REPLAYABLE:
            raise NotReplayed(
                f"dead letter {number} came from {source.stream}, and what that holds was true once only: discard it"
            )
        if not source.subject:
            raise NotReplayed(
                f"dead letter {number}: its message was gone already, so nobody knows its subject: discard it"
            )
        if source.stream != filed.stream:
            raise NotReplayed(
                f"dead letter {number} says that it came from {source.stream}, but lies among the letters of "
                f"{filed.stream}: whoever wrote it may not speak for {source.stream}; discard it"
            )
        marker = subjects.replay_marker(source.stream, f"{number}-{round(parse_time(filed.time) * 1000)}")
        done = await self._marked(filed, marker)
        if done is None:
            stored = await self._source_of(filed)
            if payload is not None:
                decode_payload(source.stream, source.subject, payload)
            elif not contains(stored.payload, payload := filed.letter.full_payload(stored.payload), source.index):
                raise NotReplayed(
                    f"dead letter {number} does not say what {source.stream} {source.number} holds: look at both "
                    "(`examwire dead-letters show`, `nats stream get`); --payload sends what you want said"
                )
            await self._may_be_replayed(filed, payload, force)
            done = await self._publish(filed, marker, payload)
        await self.discard(number)
        return done

    async def _source_of(self, filed: StoredLetter) -> StoredMessage:
        """The message that a letter is about, as the broker has stored it. Raises `NotReplayed`."""
        source = filed.letter.source
        stored = await self._bus.message_at(source.stream, source.number) if source.number > 0 else None
        if stored is None:
            raise NotReplayed(
                f"dead letter {filed.number}: {source.stream} does not hold message {source.number} any more, so "
                "nobody can tell whether it was what the letter says; discard it"
            )
        if stored.subject != source.subject:
            raise NotReplayed(
                f"dead letter {filed.number} says that message {source.number} of {source.stream} was sent to "
                f"{source.subject}, but it was sent to {stored.subject}: discard it"
            )
        return stored

    async def _marked(self, filed: StoredLetter, marker: str) -> Replay | None:
        source = filed.letter.source
        found = await self._bus.last_message(source.stream, marker)
        if found is None:
            return None
        # The batch lies in the stream as it was sent: the marker, then the message.
        return Replay(filed.number, source.stream, source.subject, found.sequence + 1, already=True)

    async def _may_be_replayed(self, filed: StoredLetter, payload: bytes, force: bool) -> None:
        source = filed.letter.source
        age, kept = self._bus.clock.now() - parse_time(filed.time), MAX_AGES[source.stream]
        if age > kept:
            raise NotReplayed(
                f"dead letter {filed.number} is older than what {source.stream} keeps ({kept / 3600:g} h): nobody can "
                "know any more whether it was replayed before, and whom it was meant for has moved on; discard it"
            )
        if source.stream != STATUS.name or force:
            return
        try:
            messages = decode_payload(source.stream, source.subject, payload)
        except ProtocolError:
            return  # comes back as a new letter
        if not any(can_be_outdated(message) for message in messages):
            return
        why = outdated_reason(messages, await self._later_facts(source, messages))
        if why is not None:
            raise NotReplayed(
                f"dead letter {filed.number}: {why}, and it would be told after that as if it had just happened; "
                "`examwire state rebuild` puts the log's facts into Redis in their places, --force replays all the same"
            )

    async def _later_facts(self, source: Source, messages: list[Message]) -> list[ExamineeFact]:
        """What the log holds about these examinees after the letter's message, without what went to letters itself."""
        about = {message.examinee_id for message in messages if isinstance(message, ExamineeFact)}
        dead = {(one.letter.source.number, one.letter.source.index) async for one in self.letters(source=source.stream)}
        later: list[ExamineeFact] = []
        plan_id = next(message.plan_id for message in messages if isinstance(message, ExamineeFact))
        async for stored in read_plan(self._bus, plan_id, max(1, source.number + 1)):
            if not any(may_mention(stored.payload, examinee_id) for examinee_id in about):
                continue
            for entry in read_entries(stored.subject, stored.sequence, stored.time, stored.payload):
                index = entry.version - version_of(stored.sequence)
                if not {(stored.sequence, index), (stored.sequence, None)} & dead:
                    later.append(entry.fact)
        return later

    async def _publish(self, filed: StoredLetter, marker: str, payload: bytes) -> Replay:
        source = filed.letter.source
        batch = [
            Outgoing(
                marker,
                pydantic_core.to_json({"letter": filed.number, "time": format_time(self._bus.clock.now())}),
                headers={"Nats-Expected-Last-Subject-Sequence": "0"},
            ),
            Outgoing(
                source.subject,
                payload,
                headers={
                    REPLAY_OF: f"{DEADLETTER.name}:{filed.number}",
                    REPLAYS: str(filed.letter.replays + 1),
                },
            ),
        ]
        for attempt in range(1, PUBLISH_ATTEMPTS + 1):
            try:
                ack = await self._bus.publish_atomic(batch)
            except (WrongLastSequence, BrokerUnavailable):
                # Somebody was quicker, or our own ack was lost.
                if (done := await self._marked(filed, marker)) is not None:
                    return done
                if attempt == PUBLISH_ATTEMPTS:
                    raise
            else:
                return Replay(filed.number, source.stream, source.subject, ack.sequence)
        raise AssertionError("unreachable")

    # -- what became of it ---------------------------------------------------------------------------

    async def became(self, replayed: Replay, store: StateStore) -> ReplayOutcome:
        """Watch for a while what a replay leads to."""
        found = ReplayOutcome()
        deadline = time.monotonic() + OUTCOME_SECONDS
        while not found.handled and time.monotonic() < deadline:
            found.handled, found.readers = await self._handled(replayed)
            if not found.handled:
                await asyncio.sleep(POLL_SECONDS)
        found.returned = await self._returned(replayed)
        if found.returned is None and replayed.stream == STATUS.name and found.handled:
            stored = await self._bus.message_at(replayed.stream, replayed.sequence)
            found.applied = await _applied(store, replayed, stored.payload) if stored is not None else []
        return found

    async def _handled(self, replayed: Replay) -> tuple[bool, int]:
        managers = {spec.name for spec in STATE_MANAGERS}
        readers = [
            one
            for one in await self._bus.consumer_states(replayed.stream)
            if (one.name in managers or one.pulls_waiting)
            and any(subjects.matches(pattern, replayed.subject) for pattern in one.filters)
            and (replayed.stream != STATUS.name or one.name in managers)
        ]
        past = [
            one.ack_floor >= replayed.sequence or (one.delivered >= replayed.sequence and not one.unacknowledged)
            for one in readers
        ]
        return bool(past) and all(past), len(readers)

    async def _returned(self, replayed: Replay) -> StoredLetter | None:
        subject = subjects.deadletter(replayed.stream)
        async for stored in read_stream(self._bus, DEADLETTER.name, subject=subject, first=replayed.letter + 1):
            filed = _filed(stored)
            if filed.letter.replay_of == replayed.letter and filed.letter.source.number == replayed.sequence:
                return filed
        return None


def _filed(stored: StoredMessage) -> StoredLetter:
    try:
        letter = Letter.decode(stored.payload)
    except ProtocolError as error:
        letter = Letter(
            source=Source(stream=stored.subject.partition(".")[2], subject="", number=0),
            reason=error.detail,
            payload=stored.payload.decode(errors="replace"),
            size=len(stored.payload),
        )
    return StoredLetter(stored.sequence, format_time(stored.time), stored.subject.partition(".")[2], letter)


async def _applied(store: StateStore, replayed: Replay, payload: bytes) -> list[str]:
    """What the records say now; a line a message."""
    lines = []
    messages = decode_payload(replayed.stream, replayed.subject, payload)
    wanted = [record_of(message)[0] for message in messages]
    try:
        versions = await store.fields(wanted, ("version",))
    except StateUnavailable as error:
        return [f"handled; what it changed is not to be seen: {error}"]
    for index, (key, (known,)) in enumerate(zip(wanted, versions, strict=True)):
        version = version_of(replayed.sequence, index)
        if known is not None and int(known) >= version:
            later = "" if int(known) == version else f" (or a newer one: the record is at {known})"
            lines.append(f"{key}: applied: version {version}{later}")
        else:
            lines.append(f"{key}: version {version} had no effect by the rules; the record is at {known or 'none'}")
    return lines
