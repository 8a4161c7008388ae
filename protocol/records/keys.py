"""Redis keys. The first four and their fields are the documents', to the letter; the rest finds things without SCAN."""

from __future__ import annotations

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
