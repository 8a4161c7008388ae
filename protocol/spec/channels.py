"""The NATS side as data: what is said on which subject, with which headers, in which stream, and by whom.

Messages come from the codecs, addresses from `protocol.broker.subjects`, who may speak and who reads from
`protocol.broker.permissions` and `protocol.broker.streams`: nothing of that is listed again here.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from protocol.access.phone_codes import PhoneCode
from protocol.broker import subjects
from protocol.broker.dead_letters import REPLAY_OF, REPLAYS, Letter
from protocol.broker.streams import (
    ADVISORY,
    CAPTURES_BUCKET,
    CHECKPOINT,
    DEADLETTER,
    LEASE,
    PHONE,
    RECONNECT,
    SOCKET,
    STATUS,
    StreamSpec,
    captures_stream,
)
from protocol.log.entries import SCHEDULER
from protocol.messages.base import Message, Wire
from protocol.messages.facts import STATUS_MESSAGES, ExamineeFact, MobileSyncTimeout
from protocol.messages.frames import Error
from protocol.messages.inspection import Inspection, ProcessFacts, SessionsPage, SessionsRequest
from protocol.messages.operator_requests import ANSWERS, REQUESTS, Handled
from protocol.messages.proctor_events import EVENTS
from protocol.messages.progress import Applied
from protocol.messages.server_messages import Lease, QueueCreate, QueueCreated
from protocol.messages.session_messages import SOCKET_MESSAGES
from protocol.spec.schemas import Direction, Schema

TO_EXAMINEES = ("mobile_sync_status", "mobile_sync_completed", "notice")
"""Of the events, those that the examinee is told of as well."""

INTEGER: Schema = {"type": "integer"}
TEXT: Schema = {"type": "string"}


@dataclass(frozen=True, slots=True)
class BarePayload:
    """A payload that is no `{"type", "data"}`. `model` or `schema` says what it is."""

    name: str
    summary: str
    model: type[Wire] | None = None
    direction: Direction = "written"
    schema: Schema | None = None
    example: object = None
    content_type: str = "application/json"


@dataclass(frozen=True, slots=True)
class ChannelContent:
    """What goes over a channel: messages of a `group` (each read or written), bare payloads, and arrays of messages.

    The same group and type is the same message wherever it is said.
    """

    group: str
    messages: tuple[type[Message], ...] = ()
    direction: Direction = "written"
    bare: tuple[BarePayload, ...] = ()
    arrays: bool = False


@dataclass(frozen=True, slots=True)
class NatsChannel:
    """One kind of subject. `headers`: name to whether it is always there. `reply`: what a request is answered with."""

    key: str
    address: str
    summary: str
    said: ChannelContent
    stream: StreamSpec | None = None
    headers: dict[str, bool] = field(default_factory=dict)
    reply: ChannelContent | None = None


HEADERS: dict[str, Schema] = {
    "Nats-Msg-Id": {
        **TEXT,
        "description": "Names what is said: published again within the stream's duplicate window, it has no effect.",
    },
    "Nats-TTL": {**TEXT, "pattern": "^([0-9]+h)?([0-9]+m)?[0-9]+s$", "description": "It is gone after so long."},
    "Nats-Marker-Reason": {
        "enum": ["MaxAge", "Purge", "Remove"],
        "description": "NATS itself: the last message of the subject has expired (or was removed).",
    },
    "Nats-Expected-Last-Subject-Sequence": {
        **TEXT,
        "pattern": "^[0-9]+$",
        "description": "A fence: refused unless the newest message of the subject is that one (0: there is none).",
    },
    "Nats-Schedule": {**TEXT, "pattern": "^@at ", "description": "When NATS is to publish it, as `@at <RFC 3339>`."},
    "Nats-Schedule-Target": {**TEXT, "description": "Where NATS is to publish it."},
    SCHEDULER: {**TEXT, "description": "NATS has published this by the schedule on that subject."},
    "Nats-Pin-Id": {**TEXT, "description": "NATS: the client that reads the consumer now, and no other."},
    "Nats-Schedule-Next": {**TEXT, "description": "NATS: when the schedule fires next; `purge`: it was the last time."},
    "Nats-Batch-Id": {**TEXT, "description": "Stored together with the others of this batch, or not at all (ADR-50)."},
    "Nats-Batch-Sequence": {**TEXT, "pattern": "^[0-9]+$"},
    "Nats-Batch-Commit": {**TEXT, "description": "The last one of a batch."},
    "Nats-Rollup": {"enum": ["sub"], "description": "Takes the place of what was on the subject."},
    REPLAY_OF: {**TEXT, "pattern": "^DEADLETTER:[0-9]+$", "description": "An operator has replayed this dead letter."},
    REPLAYS: {**TEXT, "pattern": "^[0-9]+$", "description": "How often that was done, this time included."},
    "traceparent": {**TEXT, "description": "W3C Trace Context, of what is traced."},
}

NOTHING = BarePayload(
    "nothing",
    "No payload; what there may be is ignored.",
    schema={**TEXT, "maxLength": 0},
    example="",
    content_type="text/plain",
)
_EXPIRING = {"Nats-TTL": True, "Nats-Marker-Reason": False, "Nats-Rollup": False}
"""The last two are of the marker that NATS leaves."""
_STATUS_HEADERS = {
    "Nats-Msg-Id": False,
    "traceparent": False,
    SCHEDULER: False,
    "Nats-Schedule-Next": False,
    REPLAY_OF: False,
    REPLAYS: False,
    "Nats-Batch-Id": False,
    "Nats-Batch-Sequence": False,
    "Nats-Batch-Commit": False,
    "Nats-Pin-Id": False,
}
_SOCKET_HEADERS = {
    name: False for name in _STATUS_HEADERS if name not in (SCHEDULER, "Nats-Schedule-Next", "Nats-Pin-Id")
}
_REPLAY_MARKER = BarePayload(
    "replay_marker",
    "The dead letter has been replayed: a second replay finds this, and is refused by the broker.",
    schema={
        "type": "object",
        "properties": {"letter": INTEGER, "time": TEXT},
        "required": ["letter", "time"],
    },
    example={"letter": 17, "time": "2026-11-22T09:30:00.000Z"},
)
_MARKER_HEADERS = {
    "Nats-Expected-Last-Subject-Sequence": True,
    "Nats-Batch-Id": True,
    "Nats-Batch-Sequence": True,
}
_INSPECTION = BarePayload("inspection", "How the actor is.", model=Inspection)


def nats_channels() -> tuple[NatsChannel, ...]:
    """All subjects."""
    facts = tuple(one for one in STATUS_MESSAGES if issubclass(one, ExamineeFact))
    return (
        NatsChannel(
            "statusServer",
            subjects.status_server("{serverId}"),
            "What happens to a socket server. To the state managers.",
            ChannelContent("status", tuple(one for one in STATUS_MESSAGES if one not in facts), arrays=True),
            STATUS,
            _STATUS_HEADERS,
        ),
        NatsChannel(
            "statusPlan",
            f"{subjects.status_plan('{planId}')}.{{origin}}.{{partition}}",
            "What happens to the examinees of a plan: the log of record. A message's place in it (stream sequence × "
            "256 + index in its array) is its version. To the one state manager that works off the partition. What is "
            "published on `status.plan.{planId}` is stored here, with the origin `any`.",
            ChannelContent("status", facts, arrays=True),
            STATUS,
            _STATUS_HEADERS,
        ),
        NatsChannel(
            "statusTimer",
            subjects.status_timer("{planId}", "{examineeId}", "{timer}"),
            "A schedule: NATS publishes the message with the origin `timer` when its time has come.",
            ChannelContent("status", (MobileSyncTimeout,)),
            STATUS,
            {"Nats-Schedule": True, "Nats-Schedule-Target": True, "Nats-Msg-Id": True, "Nats-Rollup": False},
        ),
        *(
            NatsChannel(
                f"{stream.name.lower()}Replay",
                subjects.replay_marker(stream.name, "{letter}"),
                "Marks a dead letter that has been replayed, in one atomic batch with what was replayed.",
                ChannelContent("status", bare=(_REPLAY_MARKER,)),
                stream,
                _MARKER_HEADERS,
            )
            for stream in (STATUS, SOCKET)
        ),
        NatsChannel(
            "socketServer",
            subjects.socket_server("{serverId}"),
            "To one socket server, about sockets that it holds.",
            ChannelContent("socket", tuple(one for one in SOCKET_MESSAGES if one not in EVENTS), arrays=True),
            SOCKET,
            _SOCKET_HEADERS,
        ),
        NatsChannel(
            "socketProctors",
            subjects.socket_proctors("{planId}"),
            "To every socket server that holds a proctor of the plan: the events, as proctors get them.",
            ChannelContent("socket", tuple(one for one in SOCKET_MESSAGES if one in EVENTS), arrays=True),
            SOCKET,
            _SOCKET_HEADERS,
        ),
        NatsChannel(
            "socketExaminee",
            subjects.socket_examinee("{planId}", "{examineeId}"),
            "To the socket server that holds this examinee; the others drop it.",
            ChannelContent("socket", tuple(one for one in SOCKET_MESSAGES if one.type in TO_EXAMINEES), arrays=True),
            SOCKET,
            _SOCKET_HEADERS,
        ),
        NatsChannel(
            "lease",
            subjects.lease("{serverId}"),
            "A socket server's heartbeat. It expires (`Nats-TTL`); then NATS leaves a marker without a payload.",
            ChannelContent("lease", (Lease,), bare=(NOTHING,)),
            LEASE,
            {"Nats-Expected-Last-Subject-Sequence": False, **_EXPIRING},
        ),
        NatsChannel(
            "reconnect",
            subjects.reconnect("{planId}", "{examineeId}"),
            "An examinee that is waited for. Each delivery is one attempt (`max_deliver`, `backoff` of the consumer).",
            ChannelContent(
                "reconnect",
                bare=(
                    BarePayload(
                        "reconnect_watch",
                        "The version of the loss.",
                        schema={
                            "type": "object",
                            "properties": {"lossVersion": INTEGER},
                            "required": ["lossVersion"],
                        },
                        example={"lossVersion": 451263979520256},
                    ),
                ),
            ),
            RECONNECT,
            {"Nats-Msg-Id": True, "Nats-Batch-Id": False, "Nats-Batch-Sequence": False, "Nats-Batch-Commit": False},
        ),
        NatsChannel(
            "applied",
            subjects.applied("{stateManager}"),
            "A state manager, each second, to every socket server and state manager: up to where it has applied the "
            "log, and what it waits for. One that is not heard for 3 s does not work.",
            ChannelContent("applied", (Applied,)),
        ),
        NatsChannel(
            "checkpoint",
            subjects.CHECKPOINT,
            "How far the consumers of the core are. One that has vanished is made again from there.",
            ChannelContent(
                "checkpoint",
                bare=(
                    BarePayload(
                        "checkpoint",
                        "By consumer, the sequence up to which everything is acknowledged.",
                        schema={
                            "type": "object",
                            "properties": {"acknowledged": {"type": "object", "additionalProperties": INTEGER}},
                            "required": ["acknowledged"],
                        },
                        example={"acknowledged": {"STATUS/state-manager": 1700000000123}},
                    ),
                ),
            ),
            CHECKPOINT,
        ),
        NatsChannel(
            "probe",
            subjects.PROBE,
            "`examwire doctor` tries whether the broker takes a write.",
            ChannelContent("probe", bare=(NOTHING,)),
            CHECKPOINT,
        ),
        NatsChannel(
            "queueCreate",
            subjects.QUEUE_CREATE,
            "Have the queue server make or change a socket server's queue.",
            ChannelContent("queue", (QueueCreate,), "read"),
            reply=ChannelContent("queue", (QueueCreated, Error)),
        ),
        NatsChannel(
            "session",
            subjects.session("{planId}", "{examineeId}"),
            "Ask the live session of an examinee. No responders: not connected.",
            ChannelContent("session", bare=(NOTHING,)),
            reply=ChannelContent("session", bare=(_INSPECTION,)),
        ),
        NatsChannel(
            "inspect",
            subjects.inspect("{actor}"),
            "Ask an actor how it is; a socket server also for a page of its sessions. The subject is in the metadata "
            "of the actor's NATS micro service (`nats service ls`).",
            ChannelContent(
                "inspect",
                bare=(
                    NOTHING,
                    BarePayload(
                        "sessions_request",
                        "A page of the sessions of a socket server.",
                        model=SessionsRequest,
                        direction="read",
                        example={"sessions": {"after": 0, "limit": 100, "planId": "P001"}},
                    ),
                ),
            ),
            reply=ChannelContent(
                "inspect",
                (Error,),
                bare=(_INSPECTION, BarePayload("sessions_page", "The page.", model=SessionsPage)),
            ),
        ),
        NatsChannel(
            "process",
            subjects.inspect("{actor}.process"),
            "Ask an actor about the process that it lives in.",
            ChannelContent("inspect", bare=(NOTHING,)),
            reply=ChannelContent("inspect", bare=(BarePayload("process_facts", "The process.", model=ProcessFacts),)),
        ),
        NatsChannel(
            "control",
            subjects.control("{address}"),
            "An operator asks the actor at an address (`socket.SOCK001`, `state-manager.SM1`, …).",
            ChannelContent("control", tuple(REQUESTS.models.values()), "read"),
            reply=ChannelContent("control", tuple(ANSWERS.models.values())),
        ),
        NatsChannel(
            "tail",
            "{inbox}",
            "What a tailed actor handles, to the inbox that `tail` named.",
            ChannelContent("control", (Handled,), arrays=True),
        ),
        NatsChannel(
            "deadletter",
            subjects.deadletter("{source}"),
            "What could not be processed.",
            ChannelContent(
                "deadletter", bare=(BarePayload("letter", "The payload, why, and where it came from.", model=Letter),)
            ),
            DEADLETTER,
            {"Nats-Msg-Id": True},
        ),
        NatsChannel(
            "phone",
            subjects.phone_code("{digest}"),
            "Whom a phone code is for. It expires; then NATS leaves a marker without a payload.",
            ChannelContent(
                "phone", bare=(BarePayload("phone_code", "Whom the code is for.", model=PhoneCode), NOTHING)
            ),
            PHONE,
            _EXPIRING,
        ),
        *(
            NatsChannel(
                key,
                f"{subject}.{{stream}}.{{consumer}}",
                summary,
                ChannelContent("advisory", bare=(_advisory(key, summary),)),
                ADVISORY,
            )
            for key, subject, summary in (
                ("maxDeliveries", subjects.MAX_DELIVERIES, "NATS: a message was delivered as often as it may be."),
                ("terminated", subjects.TERMINATED, "NATS: a reader has given up a message."),
            )
        ),
        *(
            NatsChannel(
                key,
                f"$O.{CAPTURES_BUCKET}.{letter}.{{{name}}}",
                f"A picture of a phone, where they are kept in NATS (object store, ADR-20): {what}.",
                ChannelContent("captures", bare=(bare,)),
                captures_stream(0),
                headers,
            )
            for key, letter, name, what, headers, bare in (
                ("capturesChunk", "C", "nuid", "a piece of it", dict[str, bool](), _CHUNK),
                ("capturesMeta", "M", "object", "its name, size and digest", {"Nats-Rollup": False}, _META),
            )
        ),
    )


def _advisory(key: str, summary: str) -> BarePayload:
    required = ("type", "stream", "consumer", "stream_seq", "deliveries")
    known: Schema = {name: INTEGER if name in ("stream_seq", "deliveries") else TEXT for name in required}
    return BarePayload(
        key,
        f"{summary} What examwire reads of it.",
        schema={"type": "object", "properties": known, "required": list(required), "additionalProperties": True},
        example={
            "type": "io.nats.jetstream.advisory.v1.max_deliver",
            "stream": "RECONNECT",
            "consumer": "reconnect-watch",
            "stream_seq": 12,
            "deliveries": 5,
        },
    )


_CHUNK = BarePayload(
    "chunk",
    "At most 128 KiB of a JPEG.",
    schema={**TEXT, "description": "Bytes, not text."},
    content_type="application/octet-stream",
)
_META = BarePayload(
    "object_info",
    "The object's entry.",
    schema={
        "type": "object",
        "properties": dict.fromkeys(("name", "bucket", "nuid", "digest"), TEXT) | {"size": INTEGER},
        "required": ["name", "bucket", "nuid"],
        "additionalProperties": True,
    },
    example={"name": "P001/E001/sync_cap.jpg", "bucket": CAPTURES_BUCKET, "nuid": "4qUCOFxPcR9b", "size": 0},
)

PARAMETERS: dict[str, str] = {
    "planId": "The plan: 1 to 64 of A-Z a-z 0-9 _ -",
    "examineeId": "The examinee: 1 to 64 of A-Z a-z 0-9 _ -",
    "serverId": "The socket server, such as SOCK001; not `plan`",
    "origin": "Who speaks: `socket-{serverId}` of its sockets, `people-{serverId}` what proctors there order, `web`, "
    "`watch`, `manager`, `timer`, `operator`, `any`",
    "partition": "Of the plan: FNV-1a (32 bits) of its id, modulo 8",
    "stateManager": "A state manager's name",
    "timer": "`mobile_sync-{version of the wait}`",
    "letter": "`{number of the dead letter}-{its time in ms}`",
    "actor": "`{kind}-{unique}`",
    "address": "An actor's address; it has dots in it",
    "inbox": "An inbox under _INBOX",
    "source": "The stream that it came from: STATUS, SOCKET, LEASE or RECONNECT",
    "digest": "Keyed digest of the code (HMAC-SHA-256 with the token secret, hexadecimal)",
    "stream": "A stream",
    "consumer": "A consumer",
    "nuid": "Names the pieces of one object",
    "object": "The object's name `{planId}/{examineeId}/{captureId}.jpg` in base64url",
}
