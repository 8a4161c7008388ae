"""What arrives from each stream, decoded: a codec for each, which holds every message to the subject it came on.

STATUS has its own (`protocol.log.entries`). A decoder takes subject, payload and headers of one message and answers
with what it holds, in order; what is none is `Malformed` and does not affect its neighbours.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, TypeVar

import pydantic
import pydantic_core
from pydantic import Field

from protocol.broker import subjects
from protocol.broker.streams import is_marker
from protocol.errors import ErrorCode, InvalidField, ProtocolError
from protocol.ids import check_id, check_server_id
from protocol.messages.base import Message, Version, Wire
from protocol.messages.codec import Element, Malformed, field_error
from protocol.messages.facts import MobileSyncStatus, Notice
from protocol.messages.proctor_events import EVENTS, MobileSyncCompleted
from protocol.messages.server_messages import LEASE_CODEC, Lease
from protocol.messages.session_messages import SOCKET_CODEC, SessionClose, SessionLost, SessionState

T = TypeVar("T")
M = TypeVar("M", bound=Wire)

Decode = Callable[[str, bytes, Mapping[str, str]], Sequence[T | Malformed]]
"""Subject, payload and headers of a message, as what it holds."""


# -- LEASE ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class LeaseExpired:
    """The marker that NATS leaves when the last heartbeat of a server has expired."""

    server_id: str


def decode_lease(
    subject: str, payload: bytes, headers: Mapping[str, str]
) -> Sequence[Lease | LeaseExpired | Malformed]:
    """A heartbeat or the end of one. Nothing: the end of what was no server's."""
    named = subject.removeprefix("lease.")
    try:
        check_server_id(named)
    except ProtocolError as error:
        return [] if is_marker(headers) else [Malformed(0, error, payload)]
    if is_marker(headers):
        return [LeaseExpired(named)]
    return decode_single(payload, lambda: parse_lease(named, payload))


def parse_lease(server_id: str, payload: bytes) -> Lease:
    """The heartbeat of a server. Raises `ProtocolError`: no server wrote that, or another one."""
    lease = LEASE_CODEC.decode_one(payload)
    assert isinstance(lease, Lease)
    if lease.server_id != server_id:
        raise InvalidField("data.serverId", f"{lease.server_id} has no place on {subjects.lease(server_id)}")
    return lease


# -- RECONNECT --------------------------------------------------------------------------------------------


class _Wait(Wire):
    loss_version: Annotated[int, Field(ge=1, lt=2**53, strict=True)]


@dataclass(frozen=True, slots=True)
class ReconnectWait:
    """Of `reconnect.{planId}.{examineeId}`: the examinee is waited for since the loss of this version."""

    plan_id: str
    examinee_id: str
    loss_version: int


def decode_wait(subject: str, payload: bytes, _headers: Mapping[str, str]) -> Sequence[ReconnectWait | Malformed]:
    """What a loss has put there."""
    return decode_single(payload, lambda: parse_wait(subject, payload))


def parse_wait(subject: str, payload: bytes) -> ReconnectWait:
    """Raises `ProtocolError`: whatever lies there is none of the state manager's."""
    _, plan_id, examinee_id = subject.split(".")
    return ReconnectWait(
        check_id("planId", plan_id),
        check_id("examineeId", examinee_id),
        _validate(_Wait, payload).loss_version,
    )


# -- ADVISORY ---------------------------------------------------------------------------------------------

_EntityName = Annotated[str, Field(pattern=r"^[^\x00-\x20\x7f.*>/\\]{1,255}$")]


class Advisory(Wire):
    """The fields of an advisory that matter here (`io.nats.jetstream.advisory.v1.max_deliver` and `.terminated`)."""

    model_config = pydantic.ConfigDict(alias_generator=None)

    stream: _EntityName
    consumer: _EntityName
    stream_seq: Annotated[int, Field(ge=1, lt=2**63)]
    deliveries: Annotated[int, Field(ge=0, lt=2**63)]
    reason: str | None = None


def decode_advisory(subject: str, payload: bytes, _headers: Mapping[str, str]) -> Sequence[Advisory | Malformed]:
    """What NATS says of a message that a consumer has given up."""
    return decode_single(payload, lambda: _parse_advisory(subject, payload))


def _parse_advisory(subject: str, payload: bytes) -> Advisory:
    advisory = _validate(Advisory, payload)
    if not subject.endswith(f".{advisory.stream}.{advisory.consumer}"):
        raise InvalidField("consumer", f"{advisory.stream} {advisory.consumer} has no place on {subject}")
    return advisory


# -- SOCKET -----------------------------------------------------------------------------------------------

_TO_SERVER = (SessionState, SessionClose, SessionLost)
_TO_EXAMINEE = (MobileSyncCompleted, MobileSyncStatus, Notice)


def decode_socket(subject: str, payload: bytes, _headers: Mapping[str, str]) -> Sequence[Element | Malformed]:
    """What a socket server is told: of its sockets, for the proctors of a plan, or for an examinee."""
    decoded = SOCKET_CODEC.decode_elements(payload)
    tokens = subject.split(".")
    for index, one in enumerate(decoded):
        if isinstance(one, Element) and (field := _misplaced_field(one.message, tokens)) is not None:
            error = InvalidField(field, f"has no place on {subject}")
            decoded[index] = Malformed(index, error, pydantic_core.to_json(one.parsed))
    return decoded


def _misplaced_field(message: Message, tokens: Sequence[str]) -> str | None:
    """The field of a message that does not fit the subject."""
    match tokens:
        case ["socket", "plan", plan_id, "proctors"]:
            return _wrong_field_of(message, EVENTS, plan_id)
        case ["socket", "plan", plan_id, "examinee", examinee_id]:
            wrong = _wrong_field_of(message, _TO_EXAMINEE, plan_id)
            return wrong or (None if getattr(message, "examinee_id", None) == examinee_id else "data.examineeId")
        case ["socket", server_id]:
            if not isinstance(message, _TO_SERVER):
                return "type"
            other = isinstance(message, SessionLost) and message.server_id != server_id
            return "data.serverId" if other else None
    return "type"


def _wrong_field_of(message: Message, allowed: tuple[type[Message], ...], plan_id: str) -> str | None:
    if not isinstance(message, allowed):
        return "type"
    if getattr(message, "plan_id", None) != plan_id:
        return "data.planId"
    # Some facts are told as they are; one without its version would be dropped by whoever compares.
    return None if version_in(message) else "data.version"


def version_in(message: Message) -> Version | None:
    """The version of what is told to clients; `None` or 0: it has none."""
    version: Version | None = getattr(message, "version", None)
    return version


# -- in common --------------------------------------------------------------------------------------------


def decode_single(payload: bytes, read: Callable[[], T]) -> Sequence[T | Malformed]:
    """The one thing that a payload holds, or why it does not."""
    try:
        return [read()]
    except ProtocolError as error:
        return [Malformed(0, error, payload)]


def _validate(model: type[M], payload: bytes) -> M:
    try:
        parsed = pydantic_core.from_json(payload, allow_inf_nan=False)
    except ValueError as error:
        raise ProtocolError(ErrorCode.INVALID_JSON, f"not JSON: {error}") from None
    if not isinstance(parsed, dict):
        raise ProtocolError(ErrorCode.INVALID_MESSAGE, "must be an object")
    try:
        return model.model_validate(parsed)
    except pydantic.ValidationError as error:
        raise field_error(error, "") from None
