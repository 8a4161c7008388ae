"""Decoders for the messages of the streams LEASE, RECONNECT, ADVISORY and SOCKET (STATUS: `protocol.log.entries`).

A decoder takes the subject, payload and headers of a message and returns its elements in order. It checks that each
element belongs on the subject. An element that is not valid becomes `Malformed` and does not affect its neighbours.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, TypeVar

import pydantic
import pydantic_core
from pydantic import Field

from protocol.broker import subjects
from protocol.broker.passed_on import PlanEvent, UsualState, usual_events, usual_states
from protocol.broker.streams import is_marker
from protocol.errors import ErrorCode, InvalidField, ProtocolError
from protocol.ids import check_id, check_server_id
from protocol.messages.base import Message, Version, Wire
from protocol.messages.codec import Element, Malformed, field_error, parse_json
from protocol.messages.facts import MobileSyncStatus, Notice
from protocol.messages.plan_facts import PlanNotice, PlanPurged
from protocol.messages.proctor_events import (
    EVENTS,
    HelpClosed,
    HelpRequested,
    HelpTaken,
    MobileSyncCompleted,
    NewerEvent,
    PlanStateEvent,
)
from protocol.messages.server_messages import LEASE_CODEC, Lease
from protocol.messages.session_messages import SOCKET_CODEC, TO_SERVERS, SessionAnnounce, SessionLost

T = TypeVar("T")
M = TypeVar("M", bound=Wire)

Decode = Callable[[str, bytes, Mapping[str, str]], Sequence[T | Malformed]]
"""Decodes the subject, payload and headers of a message to its elements."""


# -- LEASE ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class LeaseExpired:
    """The marker that NATS stores when the last heartbeat of a server has expired."""

    server_id: str


def decode_lease(
    subject: str, payload: bytes, headers: Mapping[str, str]
) -> Sequence[Lease | LeaseExpired | Malformed]:
    """Decode a heartbeat, or the marker of an expired one; a marker without a valid serverId is nothing."""
    server_id = subject.removeprefix("lease.")
    try:
        check_server_id(server_id)
    except ProtocolError as error:
        return [] if is_marker(headers) else [Malformed(0, error, payload)]
    if is_marker(headers):
        return [LeaseExpired(server_id)]
    return decode_single(payload, lambda: parse_lease(server_id, payload))


def parse_lease(server_id: str, payload: bytes) -> Lease:
    """Return the heartbeat of a server. Raises `ProtocolError` when it is malformed or names another server."""
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
    """A message on `reconnect.{planId}.{examineeId}`: the examinee is awaited since the loss `loss_version`."""

    plan_id: str
    examinee_id: str
    loss_version: int


def encode_wait(loss_version: int) -> bytes:
    """Encode a message of RECONNECT: its subject names the examinee."""
    return b'{"lossVersion":%d}' % loss_version


def decode_wait(subject: str, payload: bytes, _headers: Mapping[str, str]) -> Sequence[ReconnectWait | Malformed]:
    """Decode a message of RECONNECT, stored when an examinee was lost."""
    return decode_single(payload, lambda: parse_wait(subject, payload))


def parse_wait(subject: str, payload: bytes) -> ReconnectWait:
    """Return the wait that a message of RECONNECT stands for. Raises `ProtocolError` when it is malformed."""
    _, plan_id, examinee_id = subject.split(".")
    return ReconnectWait(
        check_id("planId", plan_id),
        check_id("examineeId", examinee_id),
        _validate(_Wait, payload).loss_version,
    )


# -- ADVISORY ---------------------------------------------------------------------------------------------

_EntityName = Annotated[str, Field(pattern=r"^[^\x00-\x20\x7f.*>/\\]{1,255}$")]


class Advisory(Wire):
    """The fields in use of an advisory (`io.nats.jetstream.advisory.v1.max_deliver` or `.terminated`)."""

    model_config = pydantic.ConfigDict(alias_generator=None)

    stream: _EntityName
    consumer: _EntityName
    stream_seq: Annotated[int, Field(ge=1, lt=2**63)]
    deliveries: Annotated[int, Field(ge=0, lt=2**63)]
    reason: str | None = None


def decode_advisory(subject: str, payload: bytes, _headers: Mapping[str, str]) -> Sequence[Advisory | Malformed]:
    """Decode an advisory of NATS about a message that a consumer has given up."""
    return decode_single(payload, lambda: _parse_advisory(subject, payload))


def _parse_advisory(subject: str, payload: bytes) -> Advisory:
    advisory = _validate(Advisory, payload)
    if not subject.endswith(f".{advisory.stream}.{advisory.consumer}"):
        raise InvalidField("consumer", f"{advisory.stream} {advisory.consumer} has no place on {subject}")
    return advisory


# -- SOCKET -----------------------------------------------------------------------------------------------

_TO_EXAMINEE = (MobileSyncCompleted, MobileSyncStatus, Notice, HelpRequested, HelpTaken, HelpClosed)
_TO_EXAMINEES = (PlanStateEvent, PlanNotice, PlanPurged)
_TO_PROCTORS: tuple[type[Message], ...] = (*EVENTS, NewerEvent, PlanPurged)

ToSocketServer = Element | PlanEvent | UsualState
"""A message to a socket server: what proctors are told, what nearly all examinees are, or anything else."""


def decode_socket(subject: str, payload: bytes, _headers: Mapping[str, str]) -> Sequence[ToSocketServer | Malformed]:
    """Decode messages to a socket server: about its sockets, to the proctors of a plan, or to an examinee.

    What proctors are told is a `PlanEvent`. One that only a newer release understands is passed on, too.
    """
    tokens = subject.split(".")
    to_proctors = tokens[-1] == "proctors"
    usual: Sequence[ToSocketServer] | None = None
    match tokens:
        case ["socket", "plan", plan_id, "proctors"]:
            usual = usual_events(payload, plan_id)
        case ["socket", _]:
            usual = usual_states(payload)
    if usual is not None:
        return usual
    decoded: list[ToSocketServer | Malformed] = []
    for index, element in enumerate(SOCKET_CODEC.decode_elements(payload)):
        if to_proctors and isinstance(element, Malformed) and element.newer:
            element = _newer_event(element)
        if isinstance(element, Malformed):
            decoded.append(element)
        elif (field := _misplaced_field(element.message, tokens)) is not None:
            error = InvalidField(field, f"has no place on {subject}")
            decoded.append(Malformed(index, error, pydantic_core.to_json(element.parsed)))
        elif to_proctors and not isinstance(element.message, PlanPurged):
            decoded.append(PlanEvent.of(element.parsed, element.message))
        else:
            decoded.append(element)
    return decoded


def _newer_event(malformed: Malformed) -> Element | Malformed:
    """Return an event of a newer release, if it has what each event has; else the element as it was."""
    parsed = parse_json(malformed.raw)
    try:
        return Element(NewerEvent.model_validate(parsed.get("data")), parsed)
    except pydantic.ValidationError:
        return malformed


def _misplaced_field(message: Message, tokens: Sequence[str]) -> str | None:
    """Return the field of a message that does not fit the tokens of its subject; `None`: all fit."""
    match tokens:
        case ["socket", "plan", plan_id, "proctors"]:
            return _wrong_field_of(message, _TO_PROCTORS, plan_id)
        case ["socket", "plan", plan_id, "examinees"]:
            return _wrong_field_of(message, _TO_EXAMINEES, plan_id)
        case ["socket", "plan", plan_id, "examinee", examinee_id]:
            wrong = _wrong_field_of(message, _TO_EXAMINEE, plan_id)
            return wrong or (None if getattr(message, "examinee_id", None) == examinee_id else "data.examineeId")
        case ["socket", server_id]:
            if not isinstance(message, TO_SERVERS):
                return "type"
            names_another_server = isinstance(message, SessionLost | SessionAnnounce) and message.server_id != server_id
            return "data.serverId" if names_another_server else None
    return "type"


def _wrong_field_of(message: Message, allowed: tuple[type[Message], ...], plan_id: str) -> str | None:
    if not isinstance(message, allowed):
        return "type"
    if getattr(message, "plan_id", None) != plan_id:
        return "data.planId"
    # A fact that is also an event has an optional version. Clients compare versions and would drop an event without.
    return None if version_in(message) else "data.version"


def version_in(message: Message) -> Version | None:
    """Return the version of an event; `None` or 0: it has none."""
    version: Version | None = getattr(message, "version", None)
    return version


# -- shared --------------------------------------------------------------------------------------------


def decode_single(payload: bytes, read: Callable[[], T]) -> Sequence[T | Malformed]:
    """Return the element that `read` makes of a payload, or a `Malformed` with the `ProtocolError` that it raises."""
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
