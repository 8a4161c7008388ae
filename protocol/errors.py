"""The errors of examwire, and the codes that `error` frames and problem documents (RFC 9457) carry."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from protocol.ids import RecordRef


class ErrorCode(StrEnum):
    """`code` of an `error` frame and of a problem+json document."""

    INVALID_JSON = "INVALID_JSON"
    INVALID_MESSAGE = "INVALID_MESSAGE"
    UNKNOWN_TYPE = "UNKNOWN_TYPE"
    INVALID_FIELD = "INVALID_FIELD"
    TOO_LARGE = "TOO_LARGE"
    NOT_ALLOWED = "NOT_ALLOWED"
    ALREADY_GREETED = "ALREADY_GREETED"
    NOT_FOUND = "NOT_FOUND"
    CONFLICT = "CONFLICT"
    UNAUTHORIZED = "UNAUTHORIZED"
    FORBIDDEN = "FORBIDDEN"
    NOT_AN_IMAGE = "NOT_AN_IMAGE"
    IMAGE_NOT_SUPPORTED = "IMAGE_NOT_SUPPORTED"
    IMAGE_DAMAGED = "IMAGE_DAMAGED"
    IMAGE_TOO_LARGE = "IMAGE_TOO_LARGE"
    DEADLINE_PASSED = "DEADLINE_PASSED"
    STORE_FAILED = "STORE_FAILED"
    UNAVAILABLE = "UNAVAILABLE"
    TOO_MANY_REQUESTS = "TOO_MANY_REQUESTS"


class ExamwireError(Exception):
    """The base of all errors that examwire raises. The text says what happened, to what, and what to do now."""


class ProtocolError(ExamwireError):
    """A message or frame cannot be accepted: its sender must correct it.

    `code` is for programs, `detail` for people; `field` names the wrong field as on the wire (`data.planId`), if any.
    """

    def __init__(self, code: ErrorCode, detail: str, field: str | None = None) -> None:
        super().__init__(f"{field}: {detail}" if field else detail)
        self.code = code
        self.detail = detail
        self.field = field


class InvalidField(ProtocolError):
    """A field is missing, of the wrong type or out of bounds: its sender must correct it."""

    def __init__(self, field: str, detail: str) -> None:
        super().__init__(ErrorCode.INVALID_FIELD, detail, field)


class NewerFormat(ProtocolError):
    """A newer release has written it, and this one does not understand it: leave it as it is to a newer reader."""

    def __init__(self, detail: str, field: str | None = None) -> None:
        super().__init__(ErrorCode.UNKNOWN_TYPE, detail, field)


class NewerRecord(ExamwireError, ValueError):
    """A newer release has written a record, and this one does not understand it: leave it as it is.

    `first_version`: the version of its first fact.
    """

    def __init__(self, detail: str, first_version: int = 0) -> None:
        super().__init__(f"a newer release has written it: {detail}")
        self.first_version = first_version


class InvalidToken(ExamwireError):
    """The token is missing, malformed, expired, for another audience or not signed by a known key: get a new one."""


class TokenNotYetValid(InvalidToken):
    """The token's `nbf` or `iat` lies in the future: try again later, or set the clock of its issuer."""


class BrokerUnavailable(ExamwireError):
    """NATS did not accept or answer in time. The message may not be stored: publish again with the same message id."""


class BrokerAbsent(BrokerUnavailable):
    """Nobody listens where NATS should be: it was not started, or still reads its streams."""


class NotAnswered(BrokerUnavailable):
    """NATS did not answer: it is away, or the stream has no leader or does not exist. The message may be stored."""


class StreamFull(BrokerUnavailable):
    """The stream, its account or the server has reached its limit.

    Nothing more is stored until messages expire or are deleted, or an operator raises the limit.
    """


class NoResponders(ExamwireError):
    """Nobody subscribes to the subject of a request: what it asks for is not running or not connected."""


class NotPermitted(ExamwireError):
    """The broker refuses this user a subject: change its permissions; trying again does not help.

    The text names the user and the subject. `verb`: publish or subscription; `subject`: in lower case, as nats-py
    reports it.
    """

    def __init__(self, text: str, verb: str = "", subject: str = "") -> None:
        super().__init__(text)
        self.verb = verb
        self.subject = subject.lower()


class ConsumerGone(ExamwireError):
    """The durable consumer that was being read does not exist any more: the queue server must create it again."""


class WrongLastSequence(ExamwireError):
    """Another client has published on the subject, so the expected sequence is wrong: read it again, then decide."""


class StateUnavailable(ExamwireError):
    """Redis did not answer: try again. A repeated write is safe, because every write compares versions."""


class StateLost(StateUnavailable):
    """Redis answers, but may lack what the log holds: it was emptied, replaced or restored from an older copy.

    Wait until a state manager has repaired it from the log. Until then, do not show or use what it holds.
    """


class StateDamaged(ExamwireError):
    """A record in Redis cannot be read (wrong type, or not written by examwire): look at the key in the text.

    `record`: which one it is; `None` when the error is about no single key.
    """

    def __init__(self, text: str, record: RecordRef | None = None) -> None:
        super().__init__(text)
        self.record = record


class RoleFailed(ExamwireError):
    """A role could not start or had to give up: the process ends with a non-zero exit code."""


class RoleSuperseded(RoleFailed):
    """Another process runs with the same serverId: this one ends. Do not start it again while the other one runs."""


class ConfigurationError(ExamwireError):
    """A setting is missing or wrong: correct the setting that the text names."""
