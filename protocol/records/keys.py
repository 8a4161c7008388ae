"""The keys of Redis. docs/architecture.md, "State in Redis".

The sets and the hashes of a server's sockets are indexes: they find records without SCAN.
"""

from __future__ import annotations

from typing import NamedTuple

from protocol.ids import ExamineeRef, RecordRef

PLANS = "plans"
"""Set: all planIds ever seen."""

SERVERS = "servers"
"""Set: the serverIds of all socket servers that ever announced themselves."""

STATE = "examwire:state"
"""Hash: whether the records are complete. `run`: the Redis process that a state manager found complete; `applied`: all
facts up to this sequence of STATUS are applied; `wholeSince`: the time of that check; `repair:{id}`: the process under
repair; `part:{part}`, `plan:{planId}`, `live:{part}`: the process in which these are whole already; `claim:{part}`: who
repairs a part of the log. Without this hash, or with another process's `run`, no record may be trusted: Redis was
emptied, replaced or restored from an older state. In a cluster: `state_of_shard`."""

EVERY_KEY = ("examwire:*", PLANS, SERVERS, "plan:*", "SERVER_ID:*")
"""Patterns that match every key of ours; the marks first: who deletes a part leaves nothing that is trusted."""


LOG = "examwire:log"
"""Hash: which log the records follow, and the newest message of it that they may hold (`protocol.log.gap`)."""


def state_of_shard(number: int) -> str:
    """Return the key of one shard's `STATE` in a cluster; `number` determines the slot, and so the shard."""
    return f"{STATE}:{{{number}}}"


def server_status(server_id: str) -> str:
    """Return the key of a server's record, a hash: serverType statusCode startTime queueId cpuUsage memoryUsage
    networkStatus."""
    return f"SERVER_ID:{server_id}:status"


def socket(plan_id: str, socket_id: str) -> str:
    """Return the key of a socket's record, a hash: examineeId status lastHeartbeat."""
    return f"plan:{plan_id}:socket:examinee:{socket_id}"


def progress(plan_id: str, examinee_id: str) -> str:
    """Return the key of a connection record, a hash: connStatusCode lastActiveTime and more."""
    return f"plan:{plan_id}:examinee:{examinee_id}:progress"


def mobile_sync(plan_id: str, examinee_id: str) -> str:
    """Return the key of a mobile sync record, a hash: status deviceId timestamp imageUrl deviceInfo (JSON) and more."""
    return f"plan:{plan_id}:examinee:{examinee_id}:mobile_sync"


def notices(plan_id: str, examinee_id: str) -> str:
    """Return the key of a notices record, a hash: notices (JSON) unconfirmed (JSON) sent and more.

    `notices` are the newest 20, each with actionId text by sentAt confirmedAt. `help` (JSON): the open request for
    help. `confirmedPlanNotices` (JSON): the actionIds of confirmed messages to several.
    """
    return f"plan:{plan_id}:examinee:{examinee_id}:notices"


def plan(plan_id: str) -> str:
    """Return the key of a plan's record, a hash: status name startsAt endsAt policy (JSON) and more."""
    return f"plan:{plan_id}"


def plan_notices(plan_id: str) -> str:
    """Return the key of the messages to a whole plan, a hash: notices (JSON, the newest 20)."""
    return f"plan:{plan_id}:notices"


def plan_examinees(plan_id: str) -> str:
    """Return the key of the set of a plan's examineeIds."""
    return f"plan:{plan_id}:examinees"


def server_sockets(server_id: str) -> str:
    """Return the key of the index of a server's sockets.

    A hash: socketId to `version planId examineeId incarnation`.
    """
    return f"SERVER_ID:{server_id}:sockets"


class SocketEntry(NamedTuple):
    """An entry of the index of a server's sockets: the examinee, and the process (incarnation) of the server."""

    examinee: ExamineeRef
    incarnation: str | None

    def encode(self) -> str:
        """Return the entry's text, which follows its version: `planId examineeId incarnation`."""
        return f"{self.examinee.plan_id} {self.examinee.examinee_id} {self.incarnation or ''}"

    @classmethod
    def decode(cls, text: str) -> SocketEntry:
        """Return the entry of a text that `encode` made. Raises `ValueError`."""
        plan_id, examinee_id, incarnation = text.split(" ")
        return cls(ExamineeRef(plan_id, examinee_id), incarnation or None)


def parse_key(key: str) -> RecordRef:
    """Return what a key holds: the inverse of the functions above."""
    match key.split(":"):
        case ["plan", plan_id, "examinee", examinee_id, "progress"]:
            return RecordRef(key, "connection", plan_id, examinee_id)
        case ["plan", plan_id, "examinee", examinee_id, "mobile_sync"]:
            return RecordRef(key, "mobile_sync", plan_id, examinee_id)
        case ["plan", plan_id, "examinee", examinee_id, "notices"]:
            return RecordRef(key, "notices", plan_id, examinee_id)
        case ["plan", plan_id, "socket", "examinee", _]:
            return RecordRef(key, "socket", plan_id)
        case ["plan", plan_id]:
            return RecordRef(key, "plan", plan_id)
        case ["plan", plan_id, "notices"]:
            return RecordRef(key, "plan_notices", plan_id)
        case ["plan", plan_id, "examinees"]:
            return RecordRef(key, "plan_examinees", plan_id)
        case ["SERVER_ID", server_id, "status"]:
            return RecordRef(key, "server", server_id=server_id)
        case ["SERVER_ID", server_id, "sockets"]:
            return RecordRef(key, "server_sockets", server_id=server_id)
        case ["plans"] | ["servers"]:
            return RecordRef(key, "index")
    return RecordRef(key, "other")
