"""Redis keys. The first four and their fields are the documents', to the letter; the rest finds things without SCAN."""

from __future__ import annotations

from typing import NamedTuple

from protocol.ids import ExamineeRef, RecordRef

PLANS = "plans"
"""Set of the planIds that have ever been seen."""

SERVERS = "servers"
"""Set of the serverIds that have ever announced themselves."""

STATE = "examwire:state"
"""Hash: what Redis is known to hold. `run`: the Redis process that a state manager found whole; `applied`: everything
up to this sequence of STATUS is in; `wholeSince`: when that was found; `repair:{id}`: the process that is being
repaired. Without it, or with the `run` of another process, nothing here may be believed: Redis was emptied, replaced or
set back. In a cluster: `state_of_shard`."""


def state_of_shard(number: int) -> str:
    """Hash: what `STATE` is, for the shard of a cluster that holds it; the number decides which slot that is."""
    return f"{STATE}:{{{number}}}"


def server_status(server_id: str) -> str:
    """Hash: serverType statusCode startTime queueId cpuUsage memoryUsage networkStatus."""
    return f"SERVER_ID:{server_id}:status"


def socket(plan_id: str, socket_id: str) -> str:
    """Hash: examineeId status lastHeartbeat."""
    return f"plan:{plan_id}:socket:examinee:{socket_id}"


def progress(plan_id: str, examinee_id: str) -> str:
    """Hash: connStatusCode lastActiveTime."""
    return f"plan:{plan_id}:examinee:{examinee_id}:progress"


def mobile_sync(plan_id: str, examinee_id: str) -> str:
    """Hash: status deviceId timestamp imageUrl deviceInfo (JSON)."""
    return f"plan:{plan_id}:examinee:{examinee_id}:mobile_sync"


def notices(plan_id: str, examinee_id: str) -> str:
    """Hash: notices (JSON: the newest 20, each actionId text by sentAt confirmedAt) unconfirmed (JSON) sent."""
    return f"plan:{plan_id}:examinee:{examinee_id}:notices"


def plan_examinees(plan_id: str) -> str:
    """Set of the examineeIds of a plan."""
    return f"plan:{plan_id}:examinees"


def server_sockets(server_id: str) -> str:
    """Hash: socketId -> `version planId examineeId incarnation` of the sockets a server is known to hold."""
    return f"SERVER_ID:{server_id}:sockets"


class SocketEntry(NamedTuple):
    """A socket in the index of its server: whose it is, and which process of the server holds it."""

    examinee: ExamineeRef
    incarnation: str | None

    def encode(self) -> str:
        """The entry's text after its version: `planId examineeId incarnation`."""
        return f"{self.examinee.plan_id} {self.examinee.examinee_id} {self.incarnation or ''}"

    @classmethod
    def decode(cls, text: str) -> SocketEntry:
        """The inverse of `encode`. Raises `ValueError`."""
        plan_id, examinee_id, incarnation = text.split(" ")
        return cls(ExamineeRef(plan_id, examinee_id), incarnation or None)


def parse_key(key: str) -> RecordRef:
    """Say what a key holds: the inverse of the functions above."""
    match key.split(":"):
        case ["plan", plan_id, "examinee", examinee_id, "progress"]:
            return RecordRef(key, "connection", plan_id, examinee_id)
        case ["plan", plan_id, "examinee", examinee_id, "mobile_sync"]:
            return RecordRef(key, "mobile_sync", plan_id, examinee_id)
        case ["plan", plan_id, "examinee", examinee_id, "notices"]:
            return RecordRef(key, "notices", plan_id, examinee_id)
        case ["plan", plan_id, "socket", "examinee", _]:
            return RecordRef(key, "socket", plan_id)
        case ["plan", plan_id, "examinees"]:
            return RecordRef(key, "plan_examinees", plan_id)
        case ["SERVER_ID", server_id, "status"]:
            return RecordRef(key, "server", server_id=server_id)
        case ["SERVER_ID", server_id, "sockets"]:
            return RecordRef(key, "server_sockets", server_id=server_id)
        case ["plans"] | ["servers"]:
            return RecordRef(key, "index")
    return RecordRef(key, "other")
