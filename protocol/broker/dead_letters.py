"""Dead letters: the record of a message that could not be processed, and the rules of its replay.

A replay stores two messages in one atomic batch: the payload on its source subject, and a marker on a subject made
from the letter. The marker's subject must be new (`Nats-Expected-Last-Subject-Sequence: 0`), so the broker accepts
only one replay of a letter. The marker records where the payload was stored.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping

import pydantic
import pydantic_core

from protocol.broker.streams import SOCKET, STATUS
from protocol.errors import ErrorCode, ProtocolError
from protocol.log.entries import decode_status
from protocol.messages.base import Message, Wire
from protocol.messages.codec import Malformed
from protocol.messages.facts import (
    ConnectionStatus,
    ConnectionStatusCode,
    ExamineeFact,
    ExamineeFinish,
    ExamineeResume,
    MobileSyncCode,
    MobileSyncStatus,
    Readmit,
    Remove,
)
from protocol.messages.plan_facts import ExamWindow, PlanClose, PlanFact, PlanOpen, PlanSchedule
from protocol.messages.session_messages import SOCKET_CODEC

REPLAY_OF = "Examwire-Replay-Of"
"""Header of a replayed message: `DEADLETTER:17`."""

REPLAYS = "Examwire-Replays"
"""Header of a replayed message: how often its payload has been replayed, this time included."""

REPLAYABLE = (STATUS.name, SOCKET.name)
"""The streams whose messages can be replayed. Leases, attempts and advisories are only true at their time."""

_ADMISSION = (Readmit, Remove)
_FINISHING = (ExamineeFinish, ExamineeResume)
_PLAN_TIMES = (PlanSchedule, PlanOpen, PlanClose)
_VARIABLE = re.compile(r"(plan:|SERVER_ID:)\S+?(?=:? |$)")


class Source(Wire):
    """Stream, subject and sequence of the failed message; `index` is its place in an array of messages."""

    stream: str
    subject: str
    number: int
    index: int | None = None


class Letter(Wire):
    """A dead letter, as it is stored on `deadletter.{stream}`.

    `payload` is truncated when it was too long, and altered when it was no text. Its SHA-256 then differs from
    `digest`, and the full payload (`size` bytes) is in the source message. `consumer` gave up after `deliveries`.
    `replays`: how often the payload was replayed before it failed again, the last time as the letter `replayOf`.
    """

    source: Source
    reason: str
    payload: str
    size: int
    digest: str | None = None
    consumer: str | None = None
    deliveries: int | None = None
    replays: int = 0
    replay_of: int | None = None

    @classmethod
    def decode(cls, stored: bytes) -> Letter:
        """Decode a dead letter. Raises `ProtocolError` for other payloads."""
        try:
            return cls.model_validate_json(stored)
        except pydantic.ValidationError as error:
            raise ProtocolError(ErrorCode.INVALID_MESSAGE, f"not a dead letter: {error.errors()[0]['msg']}") from None

    def full_payload(self, source: bytes | None = None) -> bytes:
        """Return the full payload; `source` is the payload of the source message, needed when the letter holds a part.

        Raises `ProtocolError` when the source message is gone or is another one.
        """
        kept = self.payload.encode()
        if self.digest is None and len(kept) == self.size:
            return kept
        for candidate in (kept, *_elements_of(source, self.source.index)):
            if digest_of(candidate) == self.digest:
                return candidate
        where = f"{self.source.stream} {self.source.number}"
        raise ProtocolError(
            ErrorCode.NOT_FOUND, f"the payload is truncated, and {where} no longer has the full message"
        )

    @property
    def is_in_log(self) -> bool:
        """Whether its payload is a fact in the log: a rebuild of Redis then applies it without a replay."""
        if self.source.stream != STATUS.name or not self.source.subject:
            return False
        try:
            decoded = decode_status(self.source.subject, self.full_payload())
        except ProtocolError:
            return False  # truncated, so longer than any fact
        return any(not isinstance(element, Malformed) for element in decoded)

    def mentions(self, plan_id: str, examinee_id: str) -> bool:
        """Return whether its payload, reason or subject names this examinee."""
        if f"plan:{plan_id}:examinee:{examinee_id}:" in self.reason:
            return True
        if self.source.subject.split(".")[-2:] == [plan_id, examinee_id]:
            return True
        try:
            parsed = pydantic_core.from_json(self.payload, allow_partial=True)
        except ValueError:
            return False
        elements = parsed if isinstance(parsed, list) else [parsed]
        subject_names_plan = plan_id in self.source.subject.split(".")
        return any(
            isinstance(data, dict)
            and data.get("examineeId") == examinee_id
            and (subject_names_plan or data.get("planId") == plan_id)
            for data in (element.get("data") for element in elements if isinstance(element, dict))
        )

    def mentions_plan(self, plan_id: str) -> bool:
        """Return whether its payload, reason or subject names this plan."""
        if f"plan:{plan_id}:" in f"{self.reason}:" or plan_id in self.source.subject.split("."):
            return True
        return re.search(rf'"planId"\s*:\s*"{re.escape(plan_id)}"', self.payload) is not None


def digest_of(payload: bytes) -> str:
    """Return the SHA-256 of a payload in hexadecimal."""
    return hashlib.sha256(payload).hexdigest()


def replay_count(headers: Mapping[str, str]) -> tuple[int, int | None]:
    """Return how often a message was replayed, and the number of the last replay's letter, from its headers."""
    count, letter = headers.get(REPLAYS, ""), headers.get(REPLAY_OF, "").removeprefix("DEADLETTER:")
    if not (_is_number(count) and _is_number(letter)):
        return 0, None
    return int(count), int(letter)


def group_reason(reason: str) -> str:
    """Return a reason without the record key in it, so that the same fault of many records is counted together."""
    return _VARIABLE.sub(r"\1…", reason)


def decode_payload(stream: str, subject: str, payload: bytes) -> list[Message]:
    """Return the messages of a payload that is to be replayed to `subject`. Raises `ProtocolError` with the field."""
    if stream not in REPLAYABLE:
        raise ProtocolError(ErrorCode.NOT_ALLOWED, f"letters of {stream} cannot be replayed")
    decoded = decode_status(subject, payload) if stream == STATUS.name else SOCKET_CODEC.decode_batch(payload)
    if not decoded:
        raise ProtocolError(ErrorCode.INVALID_MESSAGE, "has no message")
    messages: list[Message] = []
    for element in decoded:
        if isinstance(element, Malformed):
            error = element.error
            detail = f"message {element.index + 1} of {len(decoded)}: {error.detail}"
            raise ProtocolError(error.code, detail if len(decoded) > 1 else error.detail, error.field)
        messages.append(element)
    return messages


def can_be_outdated(message: Message) -> bool:
    """Return whether a newer fact can forbid the replay of a message (`outdated_reason`)."""
    connected = isinstance(message, ConnectionStatus) and message.status is ConnectionStatusCode.CONNECTED
    decided = isinstance(message, (*_ADMISSION, *_FINISHING, *_PLAN_TIMES, ExamWindow))
    return connected or decided or _is_picture(message)


def outdated_reason(messages: Iterable[Message], later: Iterable[ExamineeFact | PlanFact]) -> str | None:
    """Return why these facts must not be replayed after the `later` facts; `None`: they may be.

    A replayed fact is appended at the end of the log. The rules ignore most outdated facts, but not these: CONNECTED
    would replace and close the examinee's present connection, an older picture would replace a newer one, and a
    decision about an examinee or the plan would replace a later one.
    """
    later_facts = list(later)
    for message in messages:
        if isinstance(message, _PLAN_TIMES):
            if any(isinstance(fact, _PLAN_TIMES) for fact in later_facts):
                return f"plan {message.plan_id} has been scheduled, opened or closed since"
        elif isinstance(message, ExamWindow):
            if any(isinstance(fact, ExamWindow) and fact.examinee_id == message.examinee_id for fact in later_facts):
                return f"{message.examinee_id} has been given other times since"
        elif isinstance(message, _FINISHING):
            if any(_same_examinee(fact, message) and isinstance(fact, _FINISHING) for fact in later_facts):
                return f"{message.examinee_id} has been finished or resumed since"
        elif isinstance(message, ConnectionStatus) and message.status is ConnectionStatusCode.CONNECTED:
            if any(_same_examinee(fact, message) and isinstance(fact, ConnectionStatus) for fact in later_facts):
                return f"{message.examinee_id} has connected or disconnected since"
        elif isinstance(message, _ADMISSION):
            if any(_same_examinee(fact, message) and isinstance(fact, _ADMISSION) for fact in later_facts):
                return f"{message.examinee_id} has been removed or readmitted since"
        elif (
            isinstance(message, MobileSyncStatus)
            and _is_picture(message)
            and any(_same_examinee(fact, message) and _is_picture(fact) for fact in later_facts)
        ):
            return f"{message.examinee_id} has sent another picture since"
    return None


def contains(stored: bytes, payload: bytes, index: int | None) -> bool:
    """Return whether a message is `payload` or has it as an element: at `index`, anywhere when that is `None`."""
    if payload == stored:
        return True
    try:
        element, parsed = pydantic_core.from_json(payload), pydantic_core.from_json(stored)
    except ValueError:
        return False
    elements = parsed if isinstance(parsed, list) else [parsed]
    return element in (elements if index is None else elements[index : index + 1])


def _elements_of(source: bytes | None, index: int | None) -> list[bytes]:
    if source is None:
        return []
    parts = [source]
    try:
        parsed = pydantic_core.from_json(source)
    except ValueError:
        return parts
    if index is not None and isinstance(parsed, list) and index < len(parsed):
        parts.append(pydantic_core.to_json(parsed[index]))
    elif not isinstance(parsed, list):
        parts.append(pydantic_core.to_json(parsed))
    return parts


def _is_picture(message: Message) -> bool:
    return isinstance(message, MobileSyncStatus) and message.status is MobileSyncCode.COMPLETED


def _same_examinee(fact: ExamineeFact | PlanFact, message: ExamineeFact) -> bool:
    return isinstance(fact, ExamineeFact) and fact.examinee == message.examinee


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit()
