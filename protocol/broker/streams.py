"""Streams and consumers as declared objects; the queue server makes them, `examwire streams` compares them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from protocol.broker import subjects
from protocol.log.partitions import PARTITIONS
from protocol.messages.server_messages import QueueCreate

NATS_VERSION = (2, 14)
"""The oldest nats-server that does all that is asked of it here; consumers are reset since then."""
HOUR = 3600.0
DAY = 24 * HOUR
GIB = 2**30


@dataclass(frozen=True, slots=True)
class StreamSpec:
    """A JetStream stream; times in seconds.

    `first_seq_from_clock`: a stream that was lost and made anew goes on above the old one's numbers. Versions need
    it, and so do checkpoints, and acks that are still on their way.
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
    safeguard: bool = False
    """`max_bytes` only keeps a flood from the disk: the oldest goes then, and less will do where less can be had."""
    refuse_when_full: bool = False
    subject_transform: tuple[str, str] | None = None


@dataclass(frozen=True, slots=True)
class ConsumerSpec:
    """A durable pull consumer with explicit acks; times in seconds. `max_deliver` -1: no limit."""

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
    """One client at a time reads it; another one takes over when that one has not pulled for so long."""


STATUS = StreamSpec(
    "STATUS",
    ("status.>",),
    "The log of record: what happened to servers and examinees",
    max_age=7 * DAY,
    allow_atomic=True,  # a dead letter is replayed together with its marker, or not at all
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
    allow_atomic=True,
    first_seq_from_clock=True,
)
LEASE = StreamSpec(
    "LEASE",
    (subjects.lease("*"),),
    "Heartbeats of socket servers; an expired one leaves a marker",
    max_age=DAY,
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
    max_msgs_per_subject=1,
    allow_atomic=True,
    first_seq_from_clock=True,
)
ADVISORY_SUBJECTS: tuple[str, ...] = (
    f"{subjects.MAX_DELIVERIES}.>",
    # NATS says "terminated" of a replaced message as well, which is what RECONNECT and LEASE are made for.
    *(f"{subjects.TERMINATED}.{stream.name}.>" for stream in (STATUS, SOCKET)),
)
"""What NATS tells about messages that a consumer has given up."""

ADVISORY = StreamSpec(
    "ADVISORY",
    ADVISORY_SUBJECTS,
    "Deliveries that were given up, as NATS reports them",
    max_age=DAY,
    first_seq_from_clock=True,
)
PHONE = StreamSpec(
    "PHONE",
    (subjects.phone_code("*"),),
    "Codes that let a phone join an examinee; an expired one leaves a marker",
    max_age=HOUR,
    max_msgs_per_subject=1,
    allow_msg_ttl=True,
    delete_marker_ttl=HOUR,
)
DEADLETTER = StreamSpec(
    "DEADLETTER",
    ("deadletter.>",),
    "What could not be processed, and why",
    max_age=30 * DAY,
    duplicate_window=HOUR,  # a message that several read, or that comes again, is one letter
    max_bytes=GIB,
    safeguard=True,
)
CHECKPOINT = StreamSpec(
    "CHECKPOINT",
    (subjects.CHECKPOINT, subjects.PROBE),
    "How far the consumers of the core are, for when one has to be made again",
    max_age=0.0,
    max_msgs_per_subject=1,
)


def status_stream(max_bytes: int) -> StreamSpec:
    """STATUS, bounded: beyond that the oldest facts go before their age, never the newest."""
    return replace(STATUS, max_bytes=max_bytes, safeguard=True)


CAPTURES_BUCKET = "captures"
"""The object store bucket of the pictures, when `captures.store` is `nats`."""

STREAMS: tuple[StreamSpec, ...] = (STATUS, SOCKET, LEASE, RECONNECT, ADVISORY, DEADLETTER, PHONE, CHECKPOINT)

REDELIVERY_SECONDS = 5.0
"""What a node that died had on its way comes again after so long; a reader that is at work says so before."""

PIN_SECONDS = 2.5
"""A state manager that has not asked for messages for so long is replaced."""
PIN_GROUP = "managers"


def _state_manager(name: str, filters: tuple[str, ...], description: str) -> ConsumerSpec:
    return ConsumerSpec(
        STATUS.name,
        name,
        filters,
        description,
        # What a killed one had in hand goes to another so soon; one that only waits for Redis says that it is at work.
        ack_wait=4.0,
        # The backpressure: so many messages (of up to 256 facts) wait in one state manager.
        max_ack_pending=512,
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
"""Each is read by one state manager at a time, in the order of the log (`actors.runtime.broker.consumers.pinned`)."""

LEASE_WATCH = ConsumerSpec(
    LEASE.name,
    "lease-watch",
    (subjects.lease("*"),),
    "The state managers, about servers that fell silent",
    ack_wait=REDELIVERY_SECONDS,
)
RECONNECT_EXHAUSTED = ConsumerSpec(
    ADVISORY.name,
    "reconnect-exhausted",
    (f"{subjects.MAX_DELIVERIES}.RECONNECT.reconnect-watch",),
    "The reconnect watch, about examinees whose attempts are used up",
)

ADVISORY_WATCH = ConsumerSpec(
    ADVISORY.name,
    "advisory-watch",
    ADVISORY_SUBJECTS,
    "The advisory watch: what consumers gave up goes to the dead letters",
)


def is_marker(headers: Mapping[str, str]) -> bool:
    """Whether NATS itself has left this message: the last one of its subject has expired, or was removed."""
    return "Nats-Marker-Reason" in headers


def bucket_stream(bucket: str) -> str:
    """The stream of an object store bucket (NATS ADR-20)."""
    return f"OBJ_{bucket}"


def captures_stream(keep_seconds: float, max_bytes: int | None = None) -> StreamSpec:
    """The stream of the pictures' bucket: what is older goes (0: nothing does), and what does not fit in is refused."""
    return StreamSpec(
        bucket_stream(CAPTURES_BUCKET),
        (f"$O.{CAPTURES_BUCKET}.C.>", f"$O.{CAPTURES_BUCKET}.M.>"),
        "Camera pictures of phones",
        max_age=keep_seconds,
        allow_rollup=True,
        max_bytes=max_bytes if max_bytes is not None else -1,
        refuse_when_full=True,
    )


def reconnect_watch(max_attempts: int, backoff_seconds: Sequence[float]) -> ConsumerSpec:
    """The consumer whose `max_deliver` is the attempt limit and whose `backoff` the spacing of attempts.

    A ladder longer than the list repeats its last step; a shorter one is cut, for the engine wants no more
    steps than deliveries.
    """
    ladder = attempt_seconds(max_attempts, backoff_seconds)
    return ConsumerSpec(
        RECONNECT.name,
        "reconnect-watch",
        (subjects.reconnect("*", "*"),),
        "The reconnect watch: each delivery is one attempt",
        ack_wait=ladder[0],
        max_deliver=max_attempts,
        backoff=tuple(ladder),
        max_ack_pending=-1,
    )


def attempt_seconds(max_attempts: int, backoff_seconds: Sequence[float]) -> list[float]:
    """The seconds that each of `max_attempts` attempts lasts."""
    steps = list(backoff_seconds[:max_attempts])
    return steps + [steps[-1]] * (max_attempts - len(steps))


def queue_id(server_id: str) -> str:
    """The name of a socket server's queue, `SOCK001_Q`."""
    return f"{server_id}_Q"


def queue_consumers(request: QueueCreate) -> list[ConsumerSpec]:
    """The durable consumers that make up a queue (see `QueueConfig` for what its settings mean)."""
    own = [subjects.socket_server(request.server_id)]
    own += [subjects.socket_examinee(plan, "*") for plan in sorted(set(request.examinee_plans))]
    broadcasts = [subjects.socket_proctors(plan) for plan in sorted(set(request.proctor_plans))]
    name = queue_id(request.server_id)
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
        return [spec(name, own + broadcasts, f"What {request.server_id} is told")]
    specs = [spec(name, own, f"What {request.server_id} and its examinees are told")]
    if broadcasts:
        specs.append(spec(broadcast_consumer(name), broadcasts, f"What the proctors on {request.server_id} are told"))
    return specs


def broadcast_consumer(name: str) -> str:
    """The second consumer of a queue with priority `high`."""
    return f"{name}_BROADCAST"
