"""The NATS channels, as data: the messages, headers and stream of each kind of subject.

Messages come from the codecs, addresses from `protocol.broker.subjects`, publishers and readers from
`protocol.broker.permissions` and `protocol.broker.streams`.
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
    GIB,
    LEASE,
    PHONE,
    RECONNECT,
    RECORDS,
    SOCKET,
    STATUS,
    StreamSpec,
    captures_stream,
)
from protocol.log.entries import SCHEDULER
from protocol.messages.base import Message
from protocol.messages.facts import (
    STATUS_MESSAGES,
    ExamineeFact,
    MobileSyncStatus,
    MobileSyncTimeout,
    Notice,
    UnstableTimeout,
)
from protocol.messages.frames import Error
from protocol.messages.inspection import ProcessFacts, SessionsPage, SessionsRequest
from protocol.messages.operator_requests import ANSWERS, REQUESTS, Handled
from protocol.messages.plan_facts import PlanClose, PlanFact, PlanNotice, PlanOpen, PlanPurged
from protocol.messages.proctor_events import (
    EVENTS,
    HelpClosed,
    HelpRequested,
    HelpTaken,
    MobileSyncCompleted,
    PlanStateEvent,
)
from protocol.messages.progress import Applied
from protocol.messages.server_messages import Lease, QueueCreate, QueueCreated
from protocol.messages.session_messages import TO_SERVERS, ProctorActivity
from protocol.spec.bare_payloads import CHUNK, INSPECTION, META, NOTHING, REPLAY_MARKER, BarePayload, advisory
from protocol.spec.schemas import INTEGER, TEXT, Direction

TO_EXAMINEES = (
    *("mobile_sync_status", "mobile_sync_completed", "notice", "plan_state"),
    *("help_requested", "help_taken", "help_closed"),
)
"""The types of the events that the examinee gets too."""


@dataclass(frozen=True, slots=True)
class ChannelContent:
    """The content of a channel: messages of a `group`, bare payloads, and with `arrays` also arrays of the messages.

    A message of the same group and type is the same in every channel.
    """

    group: str
    messages: tuple[type[Message], ...] = ()
    direction: Direction = "written"
    bare: tuple[BarePayload, ...] = ()
    arrays: bool = False


@dataclass(frozen=True, slots=True)
class NatsChannel:
    """A kind of subject. `headers`: name to whether it is always present. `reply`: the content of the replies."""

    key: str
    address: str
    summary: str
    content: ChannelContent
    stream: StreamSpec | None = None
    headers: dict[str, bool] = field(default_factory=dict)
    reply: ChannelContent | None = None


_EXPIRING = {"Nats-TTL": True, "Nats-Marker-Reason": False, "Nats-Rollup": False}
"""The last two are on the marker that NATS stores when a message expires."""
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
_MARKER_HEADERS = {
    "Nats-Expected-Last-Subject-Sequence": True,
    "Nats-Batch-Id": True,
    "Nats-Batch-Sequence": True,
}
_CHECKPOINT_HEADERS = {
    "Nats-Expected-Last-Subject-Sequence": False,
    "Nats-Expected-Last-Subject-Sequence-Subject": False,
    "Nats-TTL": False,
    "Nats-Batch-Id": False,
    "Nats-Batch-Sequence": False,
    "Nats-Batch-Commit": False,
}


def nats_channels() -> tuple[NatsChannel, ...]:
    """Return the channels of all subjects."""
    facts = tuple(message for message in STATUS_MESSAGES if issubclass(message, ExamineeFact | PlanFact))
    to_proctors: tuple[type[Message], ...] = (*EVENTS, PlanPurged)
    to_examinee = (MobileSyncStatus, MobileSyncCompleted, Notice, HelpRequested, HelpTaken, HelpClosed)
    return (
        NatsChannel(
            "statusServer",
            subjects.status_server("{serverId}"),
            "Facts about a socket server, to the state managers.",
            ChannelContent(
                "status", tuple(message for message in STATUS_MESSAGES if message not in facts), arrays=True
            ),
            STATUS,
            _STATUS_HEADERS,
        ),
        NatsChannel(
            "statusPlan",
            f"{subjects.status_plan('{planId}')}.{{origin}}.{{partition}}",
            "Facts about the examinees of a plan: the log of record. A fact's place in it (stream sequence × 256 + "
            "index in its array) is its version. Read by the one state manager of the partition. Messages published on "
            "`status.plan.{planId}` are stored here, with the origin `any`.",
            ChannelContent("status", facts, arrays=True),
            STATUS,
            _STATUS_HEADERS,
        ),
        NatsChannel(
            "statusTimer",
            subjects.status_timer("{planId}", "{examineeId}", "{timer}"),
            "A schedule: NATS publishes the message with the origin `timer` at its time. One about the plan as a whole "
            f"has `{subjects.WHOLE_PLAN}` in the place of the examinee.",
            ChannelContent("status", (MobileSyncTimeout, UnstableTimeout, PlanOpen, PlanClose)),
            STATUS,
            {
                "Nats-Schedule": True,
                "Nats-Schedule-Target": True,
                "Nats-Msg-Id": True,
                "Nats-TTL": False,
                "Nats-Rollup": False,
            },
        ),
        *(
            NatsChannel(
                f"{stream.name.lower()}Replay",
                subjects.replay_marker(stream.name, "{letter}"),
                "Marks a dead letter as replayed, in one atomic batch with the replayed message.",
                ChannelContent("status", bare=(REPLAY_MARKER,)),
                stream,
                _MARKER_HEADERS,
            )
            for stream in (STATUS, SOCKET)
        ),
        NatsChannel(
            "socketServer",
            subjects.socket_server("{serverId}"),
            "To one socket server, about its sockets.",
            ChannelContent("socket", TO_SERVERS, arrays=True),
            SOCKET,
            _SOCKET_HEADERS,
        ),
        NatsChannel(
            "socketProctors",
            subjects.socket_proctors("{planId}"),
            "To every socket server with a proctor of the plan: the events, as proctors get them, and its deletion.",
            ChannelContent("socket", to_proctors, arrays=True),
            SOCKET,
            _SOCKET_HEADERS,
        ),
        NatsChannel(
            "socketExaminee",
            subjects.socket_examinee("{planId}", "{examineeId}"),
            "To the socket server of this examinee; the others drop it.",
            ChannelContent("socket", to_examinee, arrays=True),
            SOCKET,
            _SOCKET_HEADERS,
        ),
        NatsChannel(
            "socketExaminees",
            subjects.socket_examinees("{planId}"),
            "To every socket server with an examinee of the plan: its state, messages to several, and its deletion.",
            ChannelContent("socket", (PlanStateEvent, PlanNotice, PlanPurged), arrays=True),
            SOCKET,
            _SOCKET_HEADERS,
        ),
        NatsChannel(
            "lease",
            subjects.lease("{serverId}"),
            "A socket server's heartbeat. When it expires (`Nats-TTL`), NATS stores a marker without a payload.",
            ChannelContent("lease", (Lease,), bare=(NOTHING,)),
            LEASE,
            {"Nats-Expected-Last-Subject-Sequence": False, **_EXPIRING},
        ),
        NatsChannel(
            "reconnect",
            subjects.reconnect("{planId}", "{examineeId}"),
            "An examinee that is awaited after a loss. Each delivery is one attempt (`max_deliver` and `backoff` of "
            "the consumer).",
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
            "From a state manager each second, to every socket server and state manager: how far it has applied the "
            "log, and what it waits for. One that is silent for 3 s counts as not working.",
            ChannelContent("applied", (Applied,)),
        ),
        NatsChannel(
            "activity",
            subjects.proctor_activity("{planId}"),
            "What a proctor of the plan is doing with an examinee, to every socket server. It is not stored.",
            ChannelContent("activity", (ProctorActivity,)),
        ),
        NatsChannel(
            "checkpoint",
            subjects.CHECKPOINT,
            "How far the consumers of the core have acknowledged. A lost consumer is created again from there.",
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
            "recordsCheckpoint",
            subjects.records_checkpoint("{part}"),
            "Up to where the checkpoints of a part are complete. A repair of Redis reads the log from there.",
            ChannelContent(
                "checkpoint",
                bare=(
                    BarePayload(
                        "recordsCheckpoint",
                        "All facts of the part up to `sequence` are in its checkpoints. `live`: sessions by plan.",
                        schema={
                            "type": "object",
                            "properties": {
                                "sequence": INTEGER,
                                "format": INTEGER,
                                "time": TEXT,
                                "live": {"type": "object", "additionalProperties": INTEGER},
                            },
                            "required": ["sequence", "format"],
                        },
                        example={"sequence": 1700000000123, "format": 1, "time": "2025-04-24T09:00:00.000Z"},
                    ),
                ),
            ),
            RECORDS,
            _CHECKPOINT_HEADERS,
        ),
        *(
            NatsChannel(
                key,
                address,
                description,
                ChannelContent(
                    "checkpoint",
                    bare=(
                        BarePayload(
                            key,
                            "The hash in Redis, and the member of a set or the entry of an index that goes with it.",
                            schema={
                                "type": "object",
                                "properties": {
                                    "fields": {"type": "object", "additionalProperties": TEXT},
                                    "member": {"type": "boolean"},
                                    "entry": {"type": "object", "additionalProperties": TEXT},
                                },
                                "required": ["fields"],
                            },
                            example={"fields": {"version": "459605762276352"}},
                        ),
                    ),
                ),
                RECORDS,
                _CHECKPOINT_HEADERS,
            )
            for key, address, description in (
                ("serverCheckpoint", "record.{part}.{serverId}", "The checkpoint of a socket server's record."),
                ("planCheckpoint", "record.{part}.{planId}.{record}", "The checkpoint of a plan's record."),
                (
                    "examineeCheckpoint",
                    "record.{part}.{planId}.{whose}.{named}.{record}",
                    "The checkpoint of an examinee's record, or of a socket's.",
                ),
            )
        ),
        NatsChannel(
            "probe",
            subjects.PROBE,
            "`examwire doctor` publishes here to see whether the broker accepts writes.",
            ChannelContent("probe", bare=(NOTHING,)),
            CHECKPOINT,
        ),
        NatsChannel(
            "queueCreate",
            subjects.QUEUE_CREATE,
            "Ask the queue server to create or change a socket server's queue.",
            ChannelContent("queue", (QueueCreate,), "read"),
            reply=ChannelContent("queue", (QueueCreated, Error)),
        ),
        NatsChannel(
            "session",
            subjects.session("{planId}", "{examineeId}"),
            "Inspect the live session of an examinee. No responders: it is not connected.",
            ChannelContent("session", bare=(NOTHING,)),
            reply=ChannelContent("session", bare=(INSPECTION,)),
        ),
        NatsChannel(
            "inspect",
            subjects.inspect("{actor}"),
            "Inspect an actor, or list a page of a socket server's sessions. The subject is in the metadata of the "
            "actor's NATS micro service (`nats service ls`).",
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
                bare=(INSPECTION, BarePayload("sessions_page", "A page of sessions.", model=SessionsPage)),
            ),
        ),
        NatsChannel(
            "process",
            subjects.inspect("{actor}.process"),
            "Inspect the process of an actor.",
            ChannelContent("inspect", bare=(NOTHING,)),
            reply=ChannelContent("inspect", bare=(BarePayload("process_facts", "The process.", model=ProcessFacts),)),
        ),
        NatsChannel(
            "control",
            subjects.control("{address}"),
            "An operator's requests to the actor at an address (`socket.SOCK001`, `state-manager.SM1`, …).",
            ChannelContent("control", tuple(REQUESTS.models.values()), "read"),
            reply=ChannelContent("control", tuple(ANSWERS.models.values())),
        ),
        NatsChannel(
            "tail",
            "{inbox}",
            "The messages that a tailed actor handles, on the inbox of the `tail` request.",
            ChannelContent("control", (Handled,), arrays=True),
        ),
        NatsChannel(
            "deadletter",
            subjects.deadletter("{source}"),
            "Dead letters: messages that could not be processed.",
            ChannelContent(
                "deadletter",
                bare=(BarePayload("letter", "The payload, the reason, and the source.", model=Letter),),
            ),
            DEADLETTER,
            {"Nats-Msg-Id": True},
        ),
        NatsChannel(
            "phone",
            subjects.phone_code("{digest}"),
            "The examinee of a phone code. When it expires, NATS stores a marker without a payload.",
            ChannelContent(
                "phone", bare=(BarePayload("phone_code", "The examinee of the code.", model=PhoneCode), NOTHING)
            ),
            PHONE,
            {"Nats-Expected-Last-Subject-Sequence": False, **_EXPIRING},
        ),
        *(
            NatsChannel(
                key,
                f"{subject}.{{stream}}.{{consumer}}",
                summary,
                ChannelContent("advisory", bare=(advisory(key, summary),)),
                ADVISORY,
            )
            for key, subject, summary in (
                ("maxDeliveries", subjects.MAX_DELIVERIES, "NATS reports a message that reached its delivery limit."),
                ("terminated", subjects.TERMINATED, "NATS reports a message that its reader has given up."),
            )
        ),
        *(
            NatsChannel(
                key,
                f"$O.{CAPTURES_BUCKET}.{letter}.{{{name}}}",
                f"A picture of a phone, when `captures.store` is `nats` (object store, ADR-20): {part}.",
                ChannelContent("captures", bare=(bare,)),
                captures_stream(0, GIB),
                headers,
            )
            for key, letter, name, part, headers, bare in (
                ("capturesChunk", "C", "nuid", "a chunk of it", dict[str, bool](), CHUNK),
                ("capturesMeta", "M", "object", "its name, size and digest", {"Nats-Rollup": False}, META),
            )
        ),
    )
