"""The one small hierarchy of errors, and the codes that travel in `error` frames and problem documents."""

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
    UNAUTHORIZED = "UNAUTHORIZED"
    FORBIDDEN = "FORBIDDEN"
    NOT_AN_IMAGE = "NOT_AN_IMAGE"
    IMAGE_TOO_LARGE = "IMAGE_TOO_LARGE"
    DEADLINE_PASSED = "DEADLINE_PASSED"
    STORE_FAILED = "STORE_FAILED"
    UNAVAILABLE = "UNAVAILABLE"
    TOO_MANY_REQUESTS = "TOO_MANY_REQUESTS"


class ExamwireError(Exception):
    """Base of all errors raised by examwire. The text says what happened, to what, and what to do now."""


class ProtocolError(ExamwireError):
    """A message or frame that cannot be accepted.

    `code` is machine readable; `field` names the culprit in wire spelling (`data.planId`) where there is one.
    """

    def __init__(self, code: ErrorCode, detail: str, field: str | None = None) -> None:
        super().__init__(f"{field}: {detail}" if field else detail)
        self.code = code
        self.detail = detail
        self.field = field


class InvalidField(ProtocolError):
    """A field is missing, of the wrong type, or out of bounds."""

    def __init__(self, field: str, detail: str) -> None:
        super().__init__(ErrorCode.INVALID_FIELD, detail, field)


class InvalidToken(ExamwireError):
    """The token is missing, malformed, expired, of another audience, or signed by somebody else."""


class TokenNotYetValid(InvalidToken):
    """The token's `nbf` or `iat` lies in the future: it will be valid, or the clock of who issued it is ahead."""


class BrokerUnavailable(ExamwireError):
    """NATS did not take or answer in time. Nothing is known to be stored: try again with the same message id."""


class NotAnswered(BrokerUnavailable):
    """NATS has said nothing: it is away, nobody leads the stream, or there is none. It may be stored all the same."""


class StreamFull(BrokerUnavailable):
    """The stream, its account or the server holds as much as it may.

    Nothing more is stored until something goes, or the limit is raised.
    """


class NoResponders(ExamwireError):
    """Nobody listens on the subject of a request."""


class NotPermitted(ExamwireError):
    """The broker refused it to this user: trying again is of no use. The text names the user and the subject.

    `verb`: publish or subscription; `subject` in lower case, as nats-py reports it.
    """

    def __init__(self, text: str, verb: str = "", subject: str = "") -> None:
        super().__init__(text)
        self.verb = verb
        self.subject = subject.lower()


class ConsumerGone(ExamwireError):
    """The durable consumer that was being read no longer exists: have it created again."""


class WrongLastSequence(ExamwireError):
    """Somebody else has published on the subject since: the expected sequence no longer holds."""


class StateUnavailable(ExamwireError):
    """Redis did not answer. Reads and writes may be retried: every write compares versions."""


class StateLost(StateUnavailable):
    """Redis answers, but it is not known to hold what the log says: it was emptied, replaced or set back.

    A state manager brings it back from the log; until then nothing that it holds may be shown or decided on.
    """


class StateDamaged(ExamwireError):
    """A record in Redis cannot be read (wrong type, not ours): look at the key that the text names.

    `record`: which one it is; `None` when the error is about no single key.
    """

    def __init__(self, text: str, record: RecordRef | None = None) -> None:
        super().__init__(text)
        self.record = record


class RoleFailed(ExamwireError):
    """A role could not start or had to give up; the process ends with a non-zero code."""


class RoleSuperseded(RoleFailed):
    """Another process runs as the same server: this one ends and must not be started again while the other runs."""


class ConfigurationError(ExamwireError):
    """A setting is missing or does not fit; the text names it."""
