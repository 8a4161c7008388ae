"""Addresses: one NATS subject an actor. Ids are checked before they get here (`protocol.ids`)."""

from __future__ import annotations

from protocol.log.partitions import PARTITIONS, partition_of

QUEUE_CREATE = "queue.create"
MAX_DELIVERIES = "$JS.EVENT.ADVISORY.CONSUMER.MAX_DELIVERIES"
TERMINATED = "$JS.EVENT.ADVISORY.CONSUMER.MSG_TERMINATED"
CHECKPOINT = "checkpoint.core"
PROBE = "checkpoint.probe"
"""Where a write is tried, to see whether the broker takes any."""


def status_server(server_id: str) -> str:
    """The state manager, about a server."""
    return f"status.server.{server_id}"


def status_plan(plan_id: str, origin: str | None = None) -> str:
    """The state manager that works off the plan's partition, about the plan's examinees; `origin` says who speaks.

    Without an origin the broker adds both tokens (`STATUS_TRANSFORM`); the origin is `any` then.
    """
    if origin is None:
        return f"status.plan.{plan_id}"
    return f"status.plan.{plan_id}.{origin}.{partition_of(plan_id)}"


def status_plans_from(origin: str) -> str:
    """Whatever one origin says about any plan."""
    return f"status.plan.*.{origin}.*"


def status_partition(partition: int) -> str:
    """Whatever is said about the plans of one partition."""
    return f"status.plan.*.*.{partition}"


def status_of_plan(plan_id: str) -> tuple[str, str]:
    """All that is said about one plan, in the order of the log: the first form is from before there were partitions."""
    return f"status.plan.{plan_id}", f"status.plan.{plan_id}.>"


STATUS_TRANSFORM = (
    "status.plan.*",
    f"status.plan.{{{{wildcard(1)}}}}.any.{{{{partition({PARTITIONS},1)}}}}",
)
"""How the stream stores what is published on `status.plan.{planId}`: source and destination of a subject transform."""

WEB, WATCH, MANAGER, TIMER, OPERATOR = "web", "watch", "manager", "timer", "operator"
"""Origins: web servers, the reconnect watch, state managers, schedules of the broker, operators at the command."""


def socket_origin(server_id: str) -> str:
    """Origin: what a socket server says of its sockets and of the examinees on them."""
    return f"socket-{server_id}"


def people_origin(server_id: str) -> str:
    """Origin: what proctors on a socket server order."""
    return f"people-{server_id}"


def status_timer(plan_id: str, examinee_id: str, timer: str) -> str:
    """A schedule whose target is the plan's subject with the origin `timer`."""
    return f"status.timer.{plan_id}.{examinee_id}.{timer}"


def socket_server(server_id: str) -> str:
    """One socket server."""
    return f"socket.{server_id}"


def socket_proctors(plan_id: str) -> str:
    """Every socket server that holds a proctor of the plan."""
    return f"socket.plan.{plan_id}.proctors"


def socket_examinee(plan_id: str, examinee_id: str) -> str:
    """The socket server that holds this examinee; `*` for all examinees of the plan."""
    return f"socket.plan.{plan_id}.examinee.{examinee_id}"


def lease(server_id: str) -> str:
    """A server's heartbeat, with a TTL."""
    return f"lease.{server_id}"


def applied(state_manager: str) -> str:
    """Every socket server and state manager: up to where a state manager has applied the log."""
    return f"applied.{state_manager}"


def reconnect(plan_id: str, examinee_id: str) -> str:
    """The reconnect watch of one examinee."""
    return f"reconnect.{plan_id}.{examinee_id}"


def session(plan_id: str, examinee_id: str) -> str:
    """The live examinee session; "no responders" means: not connected."""
    return f"session.{plan_id}.{examinee_id}"


def deadletter(source: str) -> str:
    """What could not be processed; `source` is the stream it came from."""
    return f"deadletter.{source}"


def replay_marker(stream: str, letter: str) -> str:
    """Says, in the stream that a dead letter came from, that it has been replayed; `letter` is one token."""
    return f"{stream.lower()}.replay.{letter}"


def phone_code(digest: str) -> str:
    """Whom a phone code is for; `digest` is `protocol.access.phone_codes.code_digest` of it, never the code."""
    return f"phone.{digest}"


def inspect(actor_id: str) -> str:
    """An actor's inspection; request and reply."""
    return f"inspect.{actor_id}"


def control(address: str) -> str:
    """What an operator asks of the actor at `address`; request and reply."""
    return f"control.{address}"


def matches(pattern: str, subject: str) -> bool:
    """Whether a NATS filter (`*` one token, `>` the rest) takes a subject."""
    wanted, tokens = pattern.split("."), subject.split(".")
    for place, token in enumerate(wanted):
        if token == ">":
            return len(tokens) > place
        if place >= len(tokens) or token not in ("*", tokens[place]):
            return False
    return len(wanted) == len(tokens)
