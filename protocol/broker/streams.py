"""The declared streams and consumers of JetStream.

The queue server creates and updates them; `examwire streams` compares them with the broker's.
docs/architecture.md, "Streams and subjects".
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from protocol.broker import subjects
from protocol.log.partitions import PARTITIONS
from protocol.messages.server_messages import QueueCreate

NATS_VERSION = (2, 14)
"""The oldest nats-server that has every feature used here; resetting a consumer came last."""
HOUR = 3600.0
DAY = 24 * HOUR
MIB, GIB = 2**20, 2**30
LEAST_BYTES = 8 * MIB
"""A smaller bound than this is not tried where NATS cannot reserve what is declared."""


@dataclass(frozen=True, slots=True)
class StreamSpec:
    """A JetStream stream; times in seconds.

    `max_bytes` and `max_age` bound it (0: no age). NATS reserves `max_bytes` of its storage; where it has less, all
    streams get a smaller share (`actors.queue_server.topology_watch`). At the bound the oldest messages are dropped;
    with `refuse_when_full` new ones are refused. Of a `guarded` stream NATS drops nothing: it is kept for a shorter
    time before it is full (`actors.queue_server.log_bound`).

    `first_seq_from_clock`: the first sequence is taken from the clock, so a recreated stream continues above the
    sequences of the lost one. Versions, checkpoints and late acks rely on that.
    """

    name: str
    subjects: tuple[str, ...]
    description: str
    max_age: float
    duplicate_window: float = 120.0
    max_msgs_per_subject: int = -1
    allow_msg_ttl: bool = False
    allow_msg_schedules: bool = False
    allow_atomic: bool = False
    allow_rollup: bool = False
    delete_marker_ttl: float | None = None
    first_seq_from_clock: bool = False
    max_bytes: int = -1
    least_bytes: int = LEAST_BYTES
    refuse_when_full: bool = False
    guarded: bool = False
    subject_transform: tuple[str, str] | None = None

    @property
    def at_bound(self) -> str:
        """What happens when it is full."""
        if self.guarded:
            return "it is kept for a shorter time"
        return "new messages are refused" if self.refuse_when_full else "the oldest messages are dropped"


@dataclass(frozen=True, slots=True)
class ConsumerSpec:
    """A durable pull consumer with explicit acks; times in seconds. `max_deliver` -1 means no limit."""

    stream: str
    name: str
    filters: tuple[str, ...] = ()
    description: str = ""
    ack_wait: float = 30.0
    max_deliver: int = -1
    backoff: tuple[float, ...] = ()
    max_ack_pending: int = 10_000
    inactive_threshold: float | None = None
    deliver_new: bool = False
    metadata: dict[str, str] = field(default_factory=dict)
    pin_seconds: float | None = None
    """Only one client at a time reads it; another takes over when the client has not pulled for this long."""


STATUS = StreamSpec(
    "STATUS",
    ("status.>",),
    "The log of record: what happened to servers and examinees",
    max_age=7 * DAY,
    max_bytes=8 * GIB,
    least_bytes=64 * MIB,
    guarded=True,  # NATS would drop what is needed: the schedules of exams are among the oldest messages
    allow_atomic=True,  # a replay stores the payload and its marker, or neither
    allow_msg_schedules=True,
    allow_msg_ttl=True,
    first_seq_from_clock=True,
    subject_transform=subjects.STATUS_TRANSFORM,
)
SOCKET = StreamSpec(
    "SOCKET",
    ("socket.>",),
    "What socket servers are told",
    max_age=HOUR,
    max_bytes=512 * MIB,  # whose messages are dropped unread notices that (`actors.socket_server.delivery.gaps`)
    allow_atomic=True,
    first_seq_from_clock=True,
)
LEASE = StreamSpec(
    "LEASE",
    (subjects.lease("*"),),
    "Heartbeats of socket servers; an expired one leaves a marker",
    max_age=DAY,
    max_bytes=64 * MIB,  # 200 KiB a server at most; a server whose lease is dropped takes it again
    max_msgs_per_subject=1,
    allow_msg_ttl=True,
    delete_marker_ttl=HOUR,
    first_seq_from_clock=True,
)
RECONNECT = StreamSpec(
    "RECONNECT",
    (subjects.reconnect("*", "*"),),
    "Examinees that are being waited for; each delivery is one attempt",
    max_age=DAY,
    max_bytes=64 * MIB,  # some 200,000 examinees who are waited for
    max_msgs_per_subject=1,
    allow_atomic=True,
    first_seq_from_clock=True,
)
ADVISORY_SUBJECTS: tuple[str, ...] = (
    f"{subjects.MAX_DELIVERIES}.>",
    # NATS also reports a replaced message as terminated; in RECONNECT and LEASE messages are replaced on purpose.
    *(f"{subjects.TERMINATED}.{stream.name}.>" for stream in (STATUS, SOCKET)),
)
"""The advisories of NATS about messages that a consumer has given up."""

ADVISORY = StreamSpec(
    "ADVISORY",
    ADVISORY_SUBJECTS,
    "Deliveries that were given up, as NATS reports them",
    max_age=DAY,
    max_bytes=64 * MIB,
    first_seq_from_clock=True,
)
PHONE = StreamSpec(
    "PHONE",
    (subjects.phone_code("*"),),
    "Codes that let a phone join an examinee; an expired one leaves a marker",
    max_age=HOUR,
    max_bytes=64 * MIB,  # some 100,000 codes; beyond it the oldest are no longer valid
    max_msgs_per_subject=1,
    allow_msg_ttl=True,
    delete_marker_ttl=HOUR,
)
DEADLETTER = StreamSpec(
    "DEADLETTER",
    ("deadletter.>",),
    "What could not be processed, and why",
    max_age=30 * DAY,
    duplicate_window=HOUR,  # a message that fails at several readers, or again, is one letter
    max_bytes=GIB,
)
CHECKPOINT = StreamSpec(
    "CHECKPOINT",
    (subjects.CHECKPOINT, subjects.RETENTION, subjects.PROBE),
    "How far the consumers of the core are, for when one has to be made again",
    max_age=0.0,  # three messages
    max_bytes=LEAST_BYTES,
    max_msgs_per_subject=1,
)

RECORDS = StreamSpec(
    "RECORDS",
    ("record.>",),
    "Checkpoints: the records of Redis as they were up to a place of STATUS",
    max_age=0.0,  # what the log has dropped is only here, until its plan is purged
    max_bytes=2 * GIB,
    refuse_when_full=True,
    max_msgs_per_subject=1,
    allow_atomic=True,  # the checkpoints and how far they are complete are stored together, or not at all
    allow_msg_ttl=True,
)

RESTORING = StreamSpec(
    "RESTORING",
    ("restoring",),
    "A restore has begun and has not come to its end: the other streams may be incomplete",
    max_age=0.0,
)
"""Exists only while `examwire restore` works, or after one that was interrupted."""


def status_stream(max_bytes: int, retention_days: float = 0.0) -> StreamSpec:
    """Return STATUS with a size limit in bytes.

    A plan that is kept for `retention_days` after its end has its log until then, from before its beginning.
    """
    return replace(STATUS, max_bytes=max_bytes, max_age=STATUS.max_age + retention_days * DAY)


CAPTURES_BUCKET = "captures"
"""The object store bucket of the pictures, when `captures.store` is `nats`."""

STREAMS: tuple[StreamSpec, ...] = (STATUS, SOCKET, LEASE, RECONNECT, ADVISORY, DEADLETTER, PHONE, CHECKPOINT, RECORDS)

REDELIVERY_SECONDS = 5.0
"""Unacknowledged messages of a dead node are redelivered after this; a reader that needs longer says so."""

PIN_SECONDS = 2.5
"""A state manager that has not pulled for this long is replaced."""
PIN_GROUP = "managers"


def _state_manager(name: str, filters: tuple[str, ...], description: str) -> ConsumerSpec:
    return ConsumerSpec(
        STATUS.name,
        name,
        filters,
        description,
        # The messages of a killed manager are redelivered this soon. One that waits for Redis sends "in progress".
        ack_wait=4.0,
        # Some hundreds at most are in a state manager (`PinnedConsumer`); the others wait for a newer release.
        max_ack_pending=10_000,
        pin_seconds=PIN_SECONDS,
    )


STATE_MANAGERS: tuple[ConsumerSpec, ...] = (
    _state_manager(
        "state-manager",
        (subjects.status_server("*"), subjects.status_plan("*")),
        "The state managers, about servers, and what an earlier release has left",
    ),
    *(
        _state_manager(
            f"state-manager-{partition}",
            (subjects.status_partition(partition),),
            f"The state managers, about plans of partition {partition}",
        )
        for partition in range(PARTITIONS)
    ),
)
"""One state manager at a time reads each consumer, in the order of the log
(`actors.runtime.broker.consumers.pinned`)."""

LEASE_WATCH = ConsumerSpec(
    LEASE.name,
    "lease-watch",
    (subjects.lease("*"),),
    "The state managers, about servers that fell silent",
    ack_wait=REDELIVERY_SECONDS,
)
RECONNECT_WATCH = ConsumerSpec(
    RECONNECT.name,
    "reconnect-watch",
    (subjects.reconnect("*", "*"),),
    "The reconnect watch: each delivery is one attempt",
    # The watch says at each delivery when the next one is due: plans have ladders of their own.
    ack_wait=REDELIVERY_SECONDS,
    max_ack_pending=-1,
)

ADVISORY_WATCH = ConsumerSpec(
    ADVISORY.name,
    "advisory-watch",
    ADVISORY_SUBJECTS,
    "The advisory watch: what consumers gave up goes to the dead letters",
)
RETIRED_CONSUMERS = ((ADVISORY.name, "reconnect-exhausted"),)
"""Consumers of earlier releases (stream, name), which the queue server deletes."""


MAX_BYTES = "examwire.maxBytes"
"""The metadata of a guarded stream with its bound, which NATS does not know."""


def is_marker(headers: Mapping[str, str]) -> bool:
    """Return whether a message is a delete marker of NATS: the last one of its subject expired or was removed."""
    return "Nats-Marker-Reason" in headers


def bucket_stream(bucket: str) -> str:
    """Return the name of an object store bucket's stream (NATS ADR-20)."""
    return f"OBJ_{bucket}"


def captures_stream(keep_seconds: float, max_bytes: int) -> StreamSpec:
    """Return the stream of the pictures' bucket.

    Pictures older than `keep_seconds` are deleted (0: never). A picture beyond `max_bytes` is refused.
    """
    return StreamSpec(
        bucket_stream(CAPTURES_BUCKET),
        (f"$O.{CAPTURES_BUCKET}.C.>", f"$O.{CAPTURES_BUCKET}.M.>"),
        "Camera pictures of phones",
        max_age=keep_seconds,
        allow_rollup=True,
        max_bytes=max_bytes,
        refuse_when_full=True,
    )


def attempt_seconds(max_attempts: int, backoff_seconds: Sequence[float]) -> list[float]:
    """Return how many seconds each of `max_attempts` attempts lasts; missing steps repeat the last one."""
    steps = list(backoff_seconds[:max_attempts])
    return steps + [steps[-1]] * (max_attempts - len(steps))


QUEUE_LANES = 32
PLANS_A_LANE = 64
"""A queue has this many lanes at most; a further one is used when those in use have so many plans each.

NATS compares all filters of a consumer with one another when it is updated, so one with twice as many plans costs four
times as much: 2 ms at 50 plans, 300 ms at 1,000. NATS permissions name each consumer, so the lanes are limited.
"""


def queue_id(server_id: str, lane: int = 0) -> str:
    """Return the name of a lane of a socket server's queue: `SOCK001_Q`, which every queue has, or `SOCK001_Q_1`."""
    return f"{server_id}_Q_{lane}" if lane else f"{server_id}_Q"


def queue_ids(server_id: str) -> list[str]:
    """Return the names of all lanes that a queue may have."""
    return [queue_id(server_id, lane) for lane in range(QUEUE_LANES)]


def queue_consumers(request: QueueCreate) -> list[ConsumerSpec]:
    """Return the durable consumers that make up a lane of a queue (`QueueConfig` explains the settings).

    None when it is a further lane without plans.
    """
    own = [subjects.socket_server(request.server_id)] if request.queue_id == queue_id(request.server_id) else []
    for plan in sorted(set(request.examinee_plans)):
        own += [subjects.socket_examinee(plan, "*"), subjects.socket_examinees(plan)]
    broadcasts = [subjects.socket_proctors(plan) for plan in sorted(set(request.proctor_plans))]
    name = request.queue_id
    metadata = {
        "examwire.incarnation": request.incarnation or "",
        "examwire.maxSize": str(request.config.max_size),
        "examwire.expireTime": str(request.config.expire_time),
        "examwire.priority": request.config.priority,
    }

    def spec(consumer: str, filters: list[str], description: str) -> ConsumerSpec:
        return ConsumerSpec(
            SOCKET.name,
            consumer,
            tuple(filters),
            description,
            max_deliver=-1,
            ack_wait=REDELIVERY_SECONDS,
            max_ack_pending=-1,
            inactive_threshold=float(request.config.expire_time),
            deliver_new=True,
            metadata=metadata,
        )

    if request.config.priority != "high":
        specs = [spec(name, own + broadcasts, f"What {request.server_id} is told")]
    else:
        specs = [
            spec(name, own, f"What {request.server_id} and its examinees are told"),
            spec(broadcast_consumer(name), broadcasts, f"What the proctors on {request.server_id} are told"),
        ]
    return [spec for spec in specs if spec.filters]  # without filters a consumer would receive everything


def broadcast_consumer(name: str) -> str:
    """Return the name of the second consumer of a lane with priority `high`: `SOCK001_Q_BROADCAST`."""
    return f"{name}_BROADCAST"


def queue_server_id(consumer: str) -> str | None:
    """Return the serverId of a queue's consumer: `SOCK001_Q`, `SOCK001_Q_BROADCAST`, `SOCK001_Q_1_BROADCAST`.

    >>> queue_server_id("SOCK001_Q_1_BROADCAST")
    'SOCK001'
    """
    match = re.fullmatch(r"(.+?)_Q(_[1-9][0-9]*)?(_BROADCAST)?", consumer)
    return match[1] if match is not None else None
