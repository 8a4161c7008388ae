"""Dead letters: the record of a message that could not be processed, and the rules of its replay.

A replay stores two messages in one atomic batch: the payload on its source subject, and a marker on a subject that is
made from the letter and must be new (`Nats-Expected-Last-Subject-Sequence: 0`). So the broker itself lets a letter be
replayed once, whoever tries how often; the marker tells afterwards where the payload went.
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
    MobileSyncCode,
    MobileSyncStatus,
    Readmit,
    Remove,
)
from protocol.messages.session_messages import SOCKET_CODEC

REPLAY_OF = "Examwire-Replay-Of"
"""Header of a replayed message: `DEADLETTER:17`."""

REPLAYS = "Examwire-Replays"
"""Header of a replayed message: how often what it carries has been replayed, this time included."""

REPLAYABLE = (STATUS.name, SOCKET.name)
"""The streams whose messages are replayed. What the others hold (leases, attempts, advisories) was true once only."""

_ADMISSION = (Readmit, Remove)
_VARIABLE = re.compile(r"(plan:|SERVER_ID:)\S+?(?=:? |$)")


class Source(Wire):
    """Where it came from. `index`: its place in an array of messages, where it was one of several."""

    stream: str
    subject: str
    number: int
    index: int | None = None


class Letter(Wire):
    """What a message on `deadletter.{stream}` says.

    `payload` may be cut, or unreadable as text: then its SHA-256 differs from `digest`, and the whole of it (`size`
    bytes) is at its source. `consumer` gave up after `deliveries`. `replays`: how often it was replayed before it came
    here again, the last time as the letter `replayOf`.
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
        """Decode a dead letter. Raises `ProtocolError` when it is none."""
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
            ErrorCode.NOT_FOUND, f"only a part of the payload is here, and {where} does not hold the whole any more"
        )

    @property
    def is_in_log(self) -> bool:
        """Whether its payload is a fact in the log: a rebuild of Redis then applies it without a replay."""
        if self.source.stream != STATUS.name or not self.source.subject:
            return False
        try:
            decoded = decode_status(self.source.subject, self.full_payload())
        except ProtocolError:
            return False  # cut: longer than any fact
        return any(not isinstance(element, Malformed) for element in decoded)

    def mentions(self, plan_id: str, examinee_id: str) -> bool:
        """Whether its payload, reason or subject names this examinee."""
        if f"plan:{plan_id}:examinee:{examinee_id}:" in self.reason:
            return True
        if self.source.subject.split(".")[-2:] == [plan_id, examinee_id]:
            return True
        try:
            parsed = pydantic_core.from_json(self.payload, allow_partial=True)
        except ValueError:
            return False
        named = [one.get("data") for one in (parsed if isinstance(parsed, list) else [parsed]) if isinstance(one, dict)]
        by_subject = plan_id in self.source.subject.split(".")
        return any(
            isinstance(data, dict)
            and data.get("examineeId") == examinee_id
            and (by_subject or data.get("planId") == plan_id)
            for data in named
        )


def digest_of(payload: bytes) -> str:
    """Return the SHA-256 of a payload in hexadecimal."""
    return hashlib.sha256(payload).hexdigest()


def replay_count(headers: Mapping[str, str]) -> tuple[int, int | None]:
    """Return how often a message was replayed, and as which letter the last time, from its headers."""
    count, letter = headers.get(REPLAYS, ""), headers.get(REPLAY_OF, "").removeprefix("DEADLETTER:")
    if not (_is_number(count) and _is_number(letter)):
        return 0, None
    return int(count), int(letter)


def group_reason(reason: str) -> str:
    """Return a reason without the key that it names, so that one fault of many records is counted together."""
    return _VARIABLE.sub(r"\1…", reason)


def decode_payload(stream: str, subject: str, payload: bytes) -> list[Message]:
    """The messages of a payload that is to be sent to `subject`. Raises `ProtocolError` naming the field."""
    if stream not in REPLAYABLE:
        raise ProtocolError(ErrorCode.NOT_ALLOWED, f"nothing is replayed into {stream}")
    decoded = decode_status(subject, payload) if stream == STATUS.name else SOCKET_CODEC.decode_batch(payload)
    if not decoded:
        raise ProtocolError(ErrorCode.INVALID_MESSAGE, "holds no message")
    messages: list[Message] = []
    for one in decoded:
        if isinstance(one, Malformed):
            detail = f"message {one.index + 1} of {len(decoded)}: {one.error.detail}"
            raise ProtocolError(one.error.code, detail if len(decoded) > 1 else one.error.detail, one.error.field)
        messages.append(one)
    return messages


def can_be_outdated(message: Message) -> bool:
    """Whether it matters what has happened since: see `outdated_reason`."""
    connected = isinstance(message, ConnectionStatus) and message.status is ConnectionStatusCode.CONNECTED
    return connected or _is_picture(message) or isinstance(message, _ADMISSION)


def outdated_reason(messages: Iterable[Message], later: Iterable[ExamineeFact]) -> str | None:
    """Why these facts must not be said again after the `later` ones; `None`: they may.

    A replayed fact takes its place at the end of the log. Most that come late are fenced by the rules; a CONNECTED
    would replace, and so close, the connection that the examinee has by now, an older picture a newer one, and a
    removal or readmission what a proctor has decided since.
    """
    newer = list(later)
    for message in messages:
        if isinstance(message, ConnectionStatus) and message.status is ConnectionStatusCode.CONNECTED:
            if any(_same_examinee(one, message) and isinstance(one, ConnectionStatus) for one in newer):
                return f"{message.examinee_id} has connected or disconnected since"
        elif isinstance(message, _ADMISSION):
            if any(_same_examinee(one, message) and isinstance(one, _ADMISSION) for one in newer):
                return f"{message.examinee_id} has been removed or readmitted since"
        elif (
            isinstance(message, MobileSyncStatus)
            and _is_picture(message)
            and any(_same_examinee(one, message) and _is_picture(one) for one in newer)
        ):
            return f"{message.examinee_id} has sent another picture since"
    return None


def contains(stored: bytes, payload: bytes, index: int | None) -> bool:
    """Whether a stored message is a payload, or holds it: as its `index`th message, or as any of them (`None`)."""
    if payload == stored:
        return True
    try:
        said, parsed = pydantic_core.from_json(payload), pydantic_core.from_json(stored)
    except ValueError:
        return False
    messages = parsed if isinstance(parsed, list) else [parsed]
    return said in (messages if index is None else messages[index : index + 1])


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


def _same_examinee(one: ExamineeFact, other: ExamineeFact) -> bool:
    return (one.plan_id, one.examinee_id) == (other.plan_id, other.examinee_id)


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit()
