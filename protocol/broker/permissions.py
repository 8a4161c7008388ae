"""What each role may do at the broker: subjects it may publish on and subscribe to, and nothing else.

Pure data, made from the same subjects, streams and consumers that the roles use; `examwire nats permissions` writes
nats/permissions.conf from it. A socket server has a user of its own for each serverId. Replies come to inboxes under
`_INBOX_{user}`, so nobody reads another's.

What subjects cannot tell apart is held elsewhere: the state manager takes a status only from the subject of whom it
is about (`protocol.log.entries`); the queue server gives a queue only to the holder of the lease. And whoever may
write STATUS may also roll it up (`Nats-Rollup`), for schedules need that and NATS has no permission for headers.
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
    RECONNECT_EXHAUSTED,
    SOCKET,
    STATE_MANAGERS,
    STATUS,
    STREAMS,
    ConsumerSpec,
    StreamSpec,
    broadcast_consumer,
    bucket_stream,
    queue_id,
    reconnect_watch,
)
from protocol.errors import ConfigurationError
from protocol.ids import check_server_id

API = "$JS.API"
SYSTEM_USER = "sys"
CAPTURES_STREAM = bucket_stream(CAPTURES_BUCKET)


class BrokerRole(StrEnum):
    """Whose permissions; all but the socket server's are one user each, of the same name."""

    SOCKET_SERVER = "socket-server"
    STATE_MANAGER = "state-manager"
    QUEUE_SERVER = "queue-server"
    WEB_SERVER = "web-server"
    OPERATOR = "operator"
    MONITOR = "monitor"


@dataclass(frozen=True, slots=True)
class Permissions:
    """Allow lists of one user; a reply to what was asked of it is always allowed (`allow_responses`)."""

    user: str
    publish: tuple[str, ...]
    subscribe: tuple[str, ...]


def user_of(role: BrokerRole, server_id: str | None = None) -> str:
    """The user's name: the role, and for a socket server its serverId behind it. Raises `InvalidField`."""
    if role is not BrokerRole.SOCKET_SERVER:
        return role.value
    if server_id is None:
        raise ConfigurationError("a socket server's user needs its serverId")
    return f"{role.value}-{check_server_id(server_id)}"


def inbox_prefix(user: str | None) -> str:
    """Where the replies to a user go; a broker without users has the usual `_INBOX`."""
    return f"_INBOX_{user}" if user else "_INBOX"


def permissions(role: BrokerRole, server_id: str | None = None) -> Permissions:
    """What the user of a role may do. Raises `InvalidField` for a bad serverId."""
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
    """The users of a whole system with these socket servers."""
    servers = [permissions(BrokerRole.SOCKET_SERVER, server_id) for server_id in server_ids]
    return servers + [permissions(role) for role in BrokerRole if role is not BrokerRole.SOCKET_SERVER]


def password_variable(user: str) -> str:
    """The variable that holds a user's password: `NATS_PASSWORD_SOCKET_SERVER_SOCK001`."""
    return "NATS_PASSWORD_" + user.upper().replace("-", "_")


# -- the roles ----------------------------------------------------------------------------------------------


def _socket_server(server_id: str) -> tuple[list[str], list[str]]:
    queue = queue_id(server_id)
    publish = [
        subjects.status_server(server_id),
        subjects.status_plans_from(subjects.socket_origin(server_id)),
        subjects.status_plans_from(subjects.people_origin(server_id)),
        subjects.lease(server_id),
        subjects.QUEUE_CREATE,
        subjects.deadletter(SOCKET.name),
        *_read_consumer(SOCKET.name, queue),
        *_read_consumer(SOCKET.name, broadcast_consumer(queue)),
        # What a broken connection has swallowed is delivered again before what is newer.
        *(f"{API}.CONSUMER.RESET.{SOCKET.name}.{consumer}" for consumer in (queue, broadcast_consumer(queue))),
        # Its own lease. NATS cannot narrow this down to a subject; the cheaper read that could be does not go to the
        # leader, and an old answer would break the fence.
        _read_leader(LEASE),
        _read_time(),
        *_publish_tail(),
    ]
    subscribe = [
        *_answer_operators(subjects.socket_server(server_id)),
        subjects.session("*", "*"),
        subjects.applied("*"),
    ]
    return publish, subscribe


def _state_manager() -> tuple[list[str], list[str]]:
    publish = [
        subjects.socket_server("*"),
        subjects.socket_proctors("*"),
        subjects.socket_examinee("*", "*"),
        subjects.status_server("*"),
        subjects.status_plans_from(subjects.MANAGER),
        subjects.status_plans_from(subjects.WATCH),
        subjects.status_timer("*", "*", "*"),
        subjects.reconnect("*", "*"),
        subjects.applied("*"),
        subjects.deadletter(">"),
        *_read_consumers(*STATE_MANAGERS, LEASE_WATCH, reconnect_watch(1, [1.0]), RECONNECT_EXHAUSTED, ADVISORY_WATCH),
        # One manager reads a partition of plans at a time; who takes over has it delivered again in order.
        *(f"{API}.CONSUMER.{verb}.{one.stream}.{one.name}" for verb in ("RESET", "UNPIN") for one in STATE_MANAGERS),
        f"{API}.STREAM.MSG.GET.*",  # what an advisory is about may be in any, also in none of ours
        _read_any_copy(STATUS),
        f"{API}.STREAM.INFO.{STATUS.name}",
        f"{API}.CONSUMER.LIST.{STATUS.name}",
        _read_time(),
        # What became a dead letter was told to nobody: a repair of Redis tells it.
        _read_any_copy(DEADLETTER),
        f"{API}.STREAM.INFO.{DEADLETTER.name}",
        *_publish_tail(),
    ]
    kinds = ("state-manager", "reconnect-watch", "lease-watch", "advisory-watch")
    return publish, [*_answer_operators(*(f"{kind}.*" for kind in kinds)), subjects.applied("*")]


def _queue_server() -> tuple[list[str], list[str]]:
    publish = [subjects.CHECKPOINT, _read_leader(CHECKPOINT), _read_leader(LEASE), *_monitor(), *_publish_tail()]
    publish += [f"{API}.STREAM.{verb}.{CAPTURES_STREAM}" for verb in ("CREATE", "UPDATE")]
    for stream in STREAMS:
        publish += [f"{API}.STREAM.{verb}.{stream.name}" for verb in ("CREATE", "UPDATE")]
        # The third form has a consumer's only filter behind its name.
        publish += [f"{API}.CONSUMER.CREATE.{stream.name}.>", f"{API}.CONSUMER.DURABLE.CREATE.{stream.name}.*"]
        publish += [f"{API}.CONSUMER.DELETE.{stream.name}.*"]
    return publish, [subjects.QUEUE_CREATE, *_answer_operators("queue-server.*")]


def _web_server() -> tuple[list[str], list[str]]:
    publish = [
        subjects.status_plans_from(subjects.WEB),
        _read_leader(STATUS),  # what the first try of a repeated upload has stored
        # What happened to an examinee, for the proctor's panel and the report.
        _read_any_copy(STATUS),
        f"{API}.STREAM.INFO.{STATUS.name}",
        _read_time(),
        subjects.phone_code("*"),
        _read_leader(PHONE),
        # The pictures, where they are kept in NATS.
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
        # A dead letter is replayed to where it came from, with a marker beside it, and then taken out.
        *(subjects.replay_marker(stream, "*") for stream in sorted(REPLAYABLE)),
        subjects.status_server("*"),
        subjects.status_plan("*"),
        subjects.status_plans_from("*"),  # a letter is replayed in its origin's name
        subjects.socket_server("*"),
        subjects.socket_proctors("*"),
        subjects.socket_examinee("*", "*"),
        f"{API}.STREAM.MSG.DELETE.{DEADLETTER.name}",
    ]
    return publish, []


# -- what they have in common -------------------------------------------------------------------------------


def _read_consumer(stream: str, consumer: str) -> list[str]:
    """Read one durable consumer: ask for messages, settle them, look at it."""
    return [
        f"{API}.CONSUMER.MSG.NEXT.{stream}.{consumer}",
        f"{API}.CONSUMER.INFO.{stream}.{consumer}",
        f"$JS.ACK.{stream}.{consumer}.>",
    ]


def _read_consumers(*consumers: ConsumerSpec) -> list[str]:
    return [subject for one in consumers for subject in _read_consumer(one.stream, one.name)]


def _read_leader(stream: StreamSpec) -> str:
    """Read single messages of a stream from its leader."""
    return f"{API}.STREAM.MSG.GET.{stream.name}"


def _read_any_copy(stream: StreamSpec) -> str:
    """Read a stream from any of its copies (`actors.runtime.broker.consumers.stream_reader`)."""
    return f"{API}.DIRECT.GET.{stream.name}"


def _read_time() -> str:
    """Hear from the broker what time it is (`actors.runtime.broker.clock`), and how long LEASE has had its leader."""
    return f"{API}.STREAM.INFO.{LEASE.name}"


def _monitor() -> list[str]:
    """See who is there and how streams and consumers do, by our commands or by those of NATS; change nothing."""
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
    """Be listed as a NATS micro service, be inspected, and be asked by operators at these addresses."""
    return ["$SRV.>", subjects.inspect(">"), *(subjects.control(address) for address in addresses)]


def _publish_tail() -> list[str]:
    """A tailed actor (`protocol.messages.operator_requests.Tail`) tells more than the one reply that is allowed
    anyway."""
    return [f"{inbox_prefix(user_of(BrokerRole.OPERATOR))}.>"]


def _unique(allowed: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted(set(allowed)))
