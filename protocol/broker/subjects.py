"""NATS subjects, each the address of an actor or of a stream's messages.

Callers check the ids first (`protocol.ids`). docs/architecture.md, "Streams and subjects".
"""

from __future__ import annotations

from protocol.log.partitions import PARTITIONS, part_of, partition_of

QUEUE_CREATE = "queue.create"
MAX_DELIVERIES = "$JS.EVENT.ADVISORY.CONSUMER.MAX_DELIVERIES"
TERMINATED = "$JS.EVENT.ADVISORY.CONSUMER.MSG_TERMINATED"
CHECKPOINT = "checkpoint.core"
RETENTION = "checkpoint.retention"
LOG_GAP = "status.gap"
"""The gaps of the log (`protocol.log.gap`)."""
LOG_FILLER = "status.filler"
"""Messages without a meaning, which nobody reads and which soon expire: they take up the sequences of a gap."""
PROBE = "checkpoint.probe"
"""`examwire doctor` publishes here to see whether the broker accepts writes."""


def status_server(server_id: str) -> str:
    """Return the subject of facts about a socket server; state managers read it."""
    return f"status.server.{server_id}"


def status_plan(plan_id: str, origin: str | None = None) -> str:
    """Return the subject of facts about a plan's examinees; the state manager of the plan's partition reads it.

    `origin` names the publisher. Without one the broker adds both tokens (`STATUS_TRANSFORM`), with the origin `any`.
    """
    if origin is None:
        return f"status.plan.{plan_id}"
    return f"status.plan.{plan_id}.{origin}.{partition_of(plan_id)}"


def status_plans_from(origin: str) -> str:
    """Return the pattern of the facts that one origin publishes about any plan."""
    return f"status.plan.*.{origin}.*"


def status_partition(partition: int) -> str:
    """Return the pattern of the facts about the plans of one partition."""
    return f"status.plan.*.*.{partition}"


def status_of_plan(plan_id: str) -> tuple[str, str]:
    """Return the patterns of all facts about a plan; the first is of releases without partitions."""
    return f"status.plan.{plan_id}", f"status.plan.{plan_id}.>"


STATUS_TRANSFORM = (
    "status.plan.*",
    f"status.plan.{{{{wildcard(1)}}}}.any.{{{{partition({PARTITIONS},1)}}}}",
)
"""Source and destination of the subject transform with which STATUS stores messages on `status.plan.{planId}`."""

WEB, WATCH, MANAGER, TIMER, OPERATOR, PURGE = "web", "watch", "manager", "timer", "operator", "purge"
"""Origins: web servers, the reconnect watch, state managers, schedules of the broker, operators, and who deletes."""


def socket_origin(server_id: str) -> str:
    """Return the origin of a socket server's facts about its sockets and their examinees."""
    return f"socket-{server_id}"


def people_origin(server_id: str) -> str:
    """Return the origin of the facts that proctors on a socket server cause."""
    return f"people-{server_id}"


def record(key: str) -> str:
    """Return the subject of the checkpoint of a record or a socket. `key`: its key in Redis.

    Raises `ValueError` for a key that has no checkpoint.
    """
    match key.split(":"):
        case ["SERVER_ID", server_id, "status"]:
            return f"record.{part_of(None)}.{server_id}"
        case ["plan", plan_id]:
            return f"record.{part_of(plan_id)}.{plan_id}.plan"
        case ["plan", plan_id, "notices" as rest]:
            return f"record.{part_of(plan_id)}.{plan_id}.{rest}"
        case ["plan", plan_id, "examinee" | "socket" as whose, named, what]:
            return f"record.{part_of(plan_id)}.{plan_id}.{whose}.{named}.{what}"
    raise ValueError(f"{key!r} has no checkpoint")


def record_key(subject: str) -> str | None:
    """Return the key in Redis of a checkpoint: the inverse of `record`; `None`: the subject is another one."""
    match subject.split("."):
        case ["record", _, server_id]:
            return f"SERVER_ID:{server_id}:status"
        case ["record", _, plan_id, "plan"]:
            return f"plan:{plan_id}"
        case ["record", _, plan_id, *rest] if rest:
            return ":".join(("plan", plan_id, *rest))
    return None


def records_checkpoint(part: str) -> str:
    """Return the subject that says up to where the checkpoints of a part of the log are complete."""
    return f"record.{part}"


def records_of_part(part: str) -> str:
    """Return the pattern of all checkpoints of a part, without `records_checkpoint`."""
    return f"record.{part}.>"


def record_of_any_plan(part: str) -> str:
    """Return the pattern of the checkpoints of the plans of a part, one for each; none for the part of the servers."""
    return f"record.{part}.*.plan"


def records_of_plan(plan_id: str) -> str:
    """Return the pattern of all checkpoints of a plan."""
    return f"record.{part_of(plan_id)}.{plan_id}.>"


def records_of_examinee(plan_id: str, examinee_id: str) -> str:
    """Return the pattern of the checkpoints of an examinee's records."""
    return f"record.{part_of(plan_id)}.{plan_id}.examinee.{examinee_id}.>"


def replacement(plan_id: str, sequence: str) -> str:
    """Return the subject of what has replaced a message of STATUS: the same without a deleted examinee."""
    return f"status.replacement.{plan_id}.{sequence}"


def status_timer(plan_id: str, examinee_id: str, timer: str) -> str:
    """Return the subject of a schedule whose target is the plan's subject with the origin `timer`.

    `examinee_id`: `WHOLE_PLAN` for a schedule about the plan.
    """
    return f"status.timer.{plan_id}.{examinee_id}.{timer}"


WHOLE_PLAN = "~plan"
"""Stands for the examinee in the subject of a schedule about a plan; no id has this form."""


def socket_server(server_id: str) -> str:
    """Return the subject of messages to one socket server."""
    return f"socket.{server_id}"


def socket_proctors(plan_id: str) -> str:
    """Return the subject of messages to every socket server with a proctor of the plan."""
    return f"socket.plan.{plan_id}.proctors"


def socket_examinees(plan_id: str) -> str:
    """Return the subject of messages to every socket server with an examinee of the plan."""
    return f"socket.plan.{plan_id}.examinees"


def socket_examinee(plan_id: str, examinee_id: str) -> str:
    """Return the subject of messages to the socket server of an examinee; `*`: of any examinee of the plan."""
    return f"socket.plan.{plan_id}.examinee.{examinee_id}"


def lease(server_id: str) -> str:
    """Return the subject of a socket server's heartbeat, which has a TTL."""
    return f"lease.{server_id}"


def proctor_activity(plan_id: str) -> str:
    """Return the subject on which socket servers tell one another what the proctors of a plan are doing."""
    return f"activity.{plan_id}"


def applied(state_manager: str) -> str:
    """Return the subject on which a state manager publishes how far it has applied the log."""
    return f"applied.{state_manager}"


def reconnect(plan_id: str, examinee_id: str) -> str:
    """Return the subject of the reconnect watch's attempts for one examinee."""
    return f"reconnect.{plan_id}.{examinee_id}"


def session(plan_id: str, examinee_id: str) -> str:
    """Return the subject of an examinee's live session; "no responders" means that it is not connected."""
    return f"session.{plan_id}.{examinee_id}"


def deadletter(source: str) -> str:
    """Return the subject of the dead letters of a stream (`source`)."""
    return f"deadletter.{source}"


def replay_marker(stream: str, letter: str) -> str:
    """Return the subject, in the letter's source stream, of the marker of a replay; `letter` is one token."""
    return f"{stream.lower()}.replay.{letter}"


def phone_code(digest: str) -> str:
    """Return the subject of a phone code's record; `digest` is its `code_digest`, never the code itself."""
    return f"phone.{digest}"


def inspect(actor_id: str) -> str:
    """Return the subject of requests to inspect an actor."""
    return f"inspect.{actor_id}"


def control(address: str) -> str:
    """Return the subject of an operator's requests to the actor at `address`."""
    return f"control.{address}"


def matches(pattern: str, subject: str) -> bool:
    """Return whether a subject matches a NATS pattern (`*` is one token, `>` the rest)."""
    pattern_tokens, tokens = pattern.split("."), subject.split(".")
    for index, token in enumerate(pattern_tokens):
        if token == ">":
            return len(tokens) > index
        if index >= len(tokens) or token not in ("*", tokens[index]):
            return False
    return len(pattern_tokens) == len(tokens)
