"""The broker permissions of each role: the subjects that it may publish on and subscribe to.

Made from the same subjects, streams and consumers that the roles use; `examwire nats permissions` writes
nats/permissions.conf from it. Each socket server has its own user, named after its serverId. Each user has its own
inbox prefix, `_INBOX_{user}`, so no user can read the replies to another.

Two checks need more than the subject. The state manager accepts a fact only on the subject of the plan or server that
the fact names (`protocol.log.entries`). The queue server makes a queue only for the holder of the lease.
A user that may write to STATUS may also roll it up (`Nats-Rollup`): schedules need that header, and NATS has no
permissions for headers.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from protocol.broker import subjects
from protocol.broker.dead_letters import REPLAYABLE
from protocol.broker.streams import (
    ADVISORY_WATCH,
    CAPTURES_BUCKET,
    CHECKPOINT,
    DEADLETTER,
    LEASE,
    LEASE_WATCH,
    PHONE,
    RECONNECT,
    RECONNECT_WATCH,
    RECORDS,
    RESTORING,
    SOCKET,
    STATE_MANAGERS,
    STATUS,
    STREAMS,
    ConsumerSpec,
    StreamSpec,
    broadcast_consumer,
    bucket_stream,
    queue_ids,
)
from protocol.errors import ConfigurationError
from protocol.ids import check_server_id

API = "$JS.API"
SYSTEM_USER = "sys"
CAPTURES_STREAM = bucket_stream(CAPTURES_BUCKET)


class BrokerRole(StrEnum):
    """A role at the broker. Every socket server has its own user; each other role is one user of the same name."""

    SOCKET_SERVER = "socket-server"
    STATE_MANAGER = "state-manager"
    QUEUE_SERVER = "queue-server"
    WEB_SERVER = "web-server"
    OPERATOR = "operator"
    MONITOR = "monitor"


@dataclass(frozen=True, slots=True)
class Permissions:
    """Allow lists of one user. It may also reply once to each request that it receives (`allow_responses`)."""

    user: str
    publish: tuple[str, ...]
    subscribe: tuple[str, ...]


def user_of(role: BrokerRole, server_id: str | None = None) -> str:
    """Return the user's name: `state-manager`, or `socket-server-SOCK001`.

    Raises `InvalidField` for a bad serverId, and `ConfigurationError` for a socket server without one.
    """
    if role is not BrokerRole.SOCKET_SERVER:
        return role.value
    if server_id is None:
        raise ConfigurationError("a socket server's user needs its serverId")
    return f"{role.value}-{check_server_id(server_id)}"


def inbox_prefix(user: str | None) -> str:
    """Return the prefix of a user's reply subjects; `_INBOX` when the broker has no users."""
    return f"_INBOX_{user}" if user else "_INBOX"


def permissions(role: BrokerRole, server_id: str | None = None) -> Permissions:
    """Return the permissions of a role's user. Raises `InvalidField` for a bad serverId.

    >>> permissions(BrokerRole.SOCKET_SERVER, "SOCK001").user
    'socket-server-SOCK001'
    """
    user = user_of(role, server_id)
    match role:
        case BrokerRole.SOCKET_SERVER:
            assert server_id is not None
            publish, subscribe = _socket_server(server_id)
        case BrokerRole.STATE_MANAGER:
            publish, subscribe = _state_manager()
        case BrokerRole.QUEUE_SERVER:
            publish, subscribe = _queue_server()
        case BrokerRole.WEB_SERVER:
            publish, subscribe = _web_server()
        case BrokerRole.OPERATOR:
            publish, subscribe = _operator()
        case BrokerRole.MONITOR:
            publish, subscribe = _monitor(), []
    return Permissions(user, _unique(publish), _unique([f"{inbox_prefix(user)}.>", *subscribe]))


def users(server_ids: Sequence[str]) -> list[Permissions]:
    """Return the permissions of all users of a system with these socket servers."""
    servers = [permissions(BrokerRole.SOCKET_SERVER, server_id) for server_id in server_ids]
    return servers + [permissions(role) for role in BrokerRole if role is not BrokerRole.SOCKET_SERVER]


def password_variable(user: str) -> str:
    """Return the environment variable that holds a user's password: `NATS_PASSWORD_SOCKET_SERVER_SOCK001`."""
    return "NATS_PASSWORD_" + user.upper().replace("-", "_")


# -- roles ----------------------------------------------------------------------------------------------


def _socket_server(server_id: str) -> tuple[list[str], list[str]]:
    consumers = [name for lane in queue_ids(server_id) for name in (lane, broadcast_consumer(lane))]
    publish = [
        subjects.status_server(server_id),
        subjects.status_plans_from(subjects.socket_origin(server_id)),
        subjects.status_plans_from(subjects.people_origin(server_id)),
        subjects.lease(server_id),
        subjects.QUEUE_CREATE,
        subjects.proctor_activity("*"),
        subjects.deadletter(SOCKET.name),
        *(subject for consumer in consumers for subject in _read_consumer(SOCKET.name, consumer)),
        # After a broken connection, undelivered messages are delivered again before newer ones.
        *(f"{API}.CONSUMER.RESET.{SOCKET.name}.{consumer}" for consumer in consumers),
        # To read its own lease. NATS cannot restrict this to one subject. A direct get could be restricted, but any
        # replica may answer it, and an old answer would break the fence.
        _read_leader(LEASE),
        _read_time(),
        f"{API}.STREAM.INFO.{SOCKET.name}",  # where it begins: what it has dropped
        *_publish_tail(),
    ]
    subscribe = [
        *_answer_operators(subjects.socket_server(server_id)),
        subjects.session("*", "*"),
        subjects.applied("*"),
        subjects.proctor_activity("*"),
    ]
    return publish, subscribe


def _state_manager() -> tuple[list[str], list[str]]:
    publish = [
        subjects.socket_server("*"),
        subjects.socket_proctors("*"),
        subjects.socket_examinee("*", "*"),
        subjects.socket_examinees("*"),
        subjects.status_server("*"),
        # A log that is behind Redis is mended: facts of any origin are moved behind its gap.
        subjects.status_plans_from("*"),
        *(subjects.LOG_GAP, subjects.LOG_FILLER),
        f"{API}.STREAM.MSG.DELETE.{STATUS.name}",
        f"{API}.STREAM.INFO.{CHECKPOINT.name}",
        subjects.status_timer("*", "*", "*"),
        subjects.reconnect("*", "*"),
        subjects.applied("*"),
        subjects.deadletter(">"),
        *_read_consumers(*STATE_MANAGERS, LEASE_WATCH, RECONNECT_WATCH, ADVISORY_WATCH),
        # One manager at a time reads a partition. A manager that takes over has unacknowledged messages redelivered.
        *(
            f"{API}.CONSUMER.{verb}.{consumer.stream}.{consumer.name}"
            for verb in ("RESET", "UNPIN")
            for consumer in STATE_MANAGERS
        ),
        f"{API}.STREAM.MSG.GET.*",  # an advisory may name any stream, also one that is not ours
        _read_any_copy(STATUS),
        f"{API}.STREAM.INFO.{STATUS.name}",
        f"{API}.CONSUMER.LIST.{STATUS.name}",
        _read_time(),
        # The events of a dead letter were never published; a repair of Redis publishes them.
        _read_any_copy(DEADLETTER),
        f"{API}.STREAM.INFO.{DEADLETTER.name}",
        # Checkpoints of the records in Redis: written while they change, read to repair Redis.
        *(subjects.records_checkpoint("*"), subjects.records_of_part("*")),
        *(_read_leader(RECORDS), _read_any_copy(RECORDS)),
        *(f"{API}.STREAM.{verb}.{RECORDS.name}" for verb in ("INFO", "PURGE")),
        *_publish_tail(),
    ]
    kinds = ("state-manager", "reconnect-watch", "lease-watch", "advisory-watch")
    return publish, [*_answer_operators(*(f"{kind}.*" for kind in kinds)), subjects.applied("*")]


def _queue_server() -> tuple[list[str], list[str]]:
    publish = [
        subjects.CHECKPOINT,
        subjects.RETENTION,
        _read_leader(CHECKPOINT),
        _read_leader(LEASE),
        *_monitor(),
        *_publish_tail(),
    ]
    publish += [f"{API}.STREAM.{verb}.{CAPTURES_STREAM}" for verb in ("CREATE", "UPDATE")]
    # It deletes plans whose retention is over.
    publish += _purge()
    publish += [read(stream) for stream in STREAMS for read in (_read_leader, _read_any_copy)]
    for stream in STREAMS:
        publish += [f"{API}.STREAM.{verb}.{stream.name}" for verb in ("CREATE", "UPDATE")]
        # Three forms of CREATE: by name, by name with a filter at the end, and DURABLE.
        publish += [f"{API}.CONSUMER.CREATE.{stream.name}.>", f"{API}.CONSUMER.DURABLE.CREATE.{stream.name}.*"]
        publish += [f"{API}.CONSUMER.DELETE.{stream.name}.*"]
    return publish, [subjects.QUEUE_CREATE, *_answer_operators("queue-server.*", "retention.*")]


def _web_server() -> tuple[list[str], list[str]]:
    publish = [
        subjects.status_plans_from(subjects.WEB),
        _read_leader(STATUS),  # a repeated upload looks for the fact that the first try stored
        # For the timeline in the proctor's panel and for the report.
        _read_any_copy(STATUS),
        f"{API}.STREAM.INFO.{STATUS.name}",
        _read_time(),
        subjects.phone_code("*"),
        _read_leader(PHONE),
        # The pictures, when `captures.store` is `nats`.
        f"$O.{CAPTURES_BUCKET}.>",
        *(
            f"{API}.{verb}.{CAPTURES_STREAM}"
            for verb in ("STREAM.INFO", "STREAM.PURGE", "STREAM.MSG.GET", "DIRECT.GET")
        ),
        *_publish_tail(),
    ]
    return publish, _answer_operators("web-server.*")


def _operator() -> tuple[list[str], list[str]]:
    publish = [
        subjects.control(">"),
        subjects.inspect(">"),
        subjects.session("*", "*"),
        subjects.PROBE,
        *_monitor(),
        *(_read_leader(stream) for stream in STREAMS),
        *(_read_any_copy(stream) for stream in STREAMS),
        # A replay publishes the letter's payload on its source subject, with a marker, and deletes the letter.
        *(subjects.replay_marker(stream, "*") for stream in sorted(REPLAYABLE)),
        subjects.status_server("*"),
        subjects.status_plan("*"),
        subjects.status_plans_from("*"),  # a replayed letter keeps its origin
        subjects.socket_server("*"),
        subjects.socket_proctors("*"),
        subjects.socket_examinee("*", "*"),
        subjects.socket_examinees("*"),
        *_purge(),
        *_backup_and_restore(),
        # An archive holds the pictures.
        *(f"{API}.{verb}.{CAPTURES_STREAM}" for verb in ("STREAM.MSG.GET", "DIRECT.GET")),
    ]
    return publish, []


# -- shared by several roles -------------------------------------------------------------------------------


def _read_consumer(stream: str, consumer: str) -> list[str]:
    """Return the subjects to pull from one durable consumer, acknowledge its messages and read its info."""
    return [
        f"{API}.CONSUMER.MSG.NEXT.{stream}.{consumer}",
        f"{API}.CONSUMER.INFO.{stream}.{consumer}",
        f"$JS.ACK.{stream}.{consumer}.>",
    ]


def _read_consumers(*consumers: ConsumerSpec) -> list[str]:
    return [subject for consumer in consumers for subject in _read_consumer(consumer.stream, consumer.name)]


def _read_leader(stream: StreamSpec) -> str:
    """Return the subject to read single messages of a stream from its leader."""
    return f"{API}.STREAM.MSG.GET.{stream.name}"


def _read_any_copy(stream: StreamSpec) -> str:
    """Return the subject to read a stream from any replica (`actors.runtime.broker.consumers.stream_reader`)."""
    return f"{API}.DIRECT.GET.{stream.name}"


def _read_time() -> str:
    """Return the subject to read the broker's clock (`actors.runtime.broker.clock`) and the age of LEASE's leader."""
    return f"{API}.STREAM.INFO.{LEASE.name}"


def _purge() -> list[str]:
    """Return the subjects to delete what is kept about a plan (`actors.retention.purger`)."""
    return [
        subjects.status_plans_from(subjects.PURGE),
        subjects.replacement("*", "*"),
        *(f"{API}.STREAM.PURGE.{stream.name}" for stream in (STATUS, SOCKET, RECONNECT, RECORDS)),
        # Before it deletes checkpoints it writes what says how far they are complete: so no older ones come back.
        *(subjects.records_checkpoint("*"), subjects.records_of_part("*")),
        *(f"{API}.STREAM.MSG.DELETE.{stream.name}" for stream in (STATUS, DEADLETTER, PHONE)),
        subjects.control("web-server.*"),
    ]


def _backup_and_restore() -> list[str]:
    """Return the subjects to save all streams, and to delete them and put them back (`cli.backup`)."""
    saved = (*(stream.name for stream in STREAMS), CAPTURES_STREAM)
    readers = (*STATE_MANAGERS, LEASE_WATCH, RECONNECT_WATCH, ADVISORY_WATCH)
    return [
        *(f"{API}.STREAM.{verb}.{name}" for verb in ("SNAPSHOT", "RESTORE", "DELETE") for name in saved),
        # What happened after the backup has no versions again.
        *(subjects.LOG_GAP, subjects.LOG_FILLER),
        "$JS.SNAPSHOT.ACK.*.>",
        "$JS.SNAPSHOT.RESTORE.*.*",
        *(f"{API}.STREAM.{verb}.{RESTORING.name}" for verb in ("CREATE", "UPDATE", "DELETE")),
        # The readers of the log are set back, and watches that are ahead of their streams.
        *(f"{API}.CONSUMER.CREATE.{consumer.stream}.{consumer.name}.>" for consumer in readers),
        *(
            f"{API}.CONSUMER.{verb}.{consumer.stream}.{consumer.name}"
            for verb in ("CREATE", "DURABLE.CREATE", "DELETE")
            for consumer in readers
        ),
    ]


def _monitor() -> list[str]:
    """Return the subjects to list micro services, streams and consumers, by our commands or `nats`; read only."""
    return [
        "$SRV.>",
        f"{API}.INFO",
        f"{API}.STREAM.NAMES",
        f"{API}.STREAM.LIST",
        f"{API}.STREAM.INFO.*",
        f"{API}.CONSUMER.NAMES.*",
        f"{API}.CONSUMER.LIST.*",
        f"{API}.CONSUMER.INFO.*.*",
    ]


def _answer_operators(*addresses: str) -> list[str]:
    """Return the subjects on which an actor answers: as a NATS micro service, to inspections and to operators."""
    return ["$SRV.>", subjects.inspect(">"), *(subjects.control(address) for address in addresses)]


def _publish_tail() -> list[str]:
    """Return the subject for the stream of messages that a tailed actor publishes.

    A tail (`protocol.messages.operator_requests.Tail`) needs more than the one reply of `allow_responses`.
    """
    return [f"{inbox_prefix(user_of(BrokerRole.OPERATOR))}.>"]


def _unique(patterns: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted(set(patterns)))
