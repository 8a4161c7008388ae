"""Have all live sessions announced again: after Redis, or the log, has lost what was recorded about them."""

from __future__ import annotations

import logging
import secrets
from typing import Literal

from actors.runtime.broker.connection import Bus, Outgoing
from protocol.broker import subjects
from protocol.broker.streams import LEASE, is_marker
from protocol.messages.session_messages import SessionAnnounce

log = logging.getLogger("examwire.state_repair")

Reason = Literal["STATE_REPAIRED", "LOG_BEHIND"]


async def announce_sessions(bus: Bus, reason: Reason) -> list[str]:
    """Tell each socket server that holds a lease to announce its sessions, and return their serverIds.

    Call it when Redis can be read again: a server also reads there which of its sockets are recorded as open. Harmless
    when repeated. The lease says who is alive, also when the log holds nothing of a server any more. Raises
    `BrokerUnavailable`.
    """
    messages = []
    server_ids = []
    for subject in sorted(await bus.stream_subjects(LEASE.name, subjects.lease("*"))):
        newest = await bus.last_message(LEASE.name, subject)
        if newest is None or is_marker(newest.headers):
            continue
        server_id = subject.partition(".")[2]
        server_ids.append(server_id)
        message = SessionAnnounce(server_id=server_id, reason=reason)
        message_id = f"announce:{server_id}:{secrets.token_hex(8)}"
        messages.append(Outgoing.of(subjects.socket_server(server_id), message, message_id=message_id))
    await bus.publish_until_stored(messages)
    log.warning("%s: the sessions of %s are announced again", reason, ", ".join(server_ids) or "no server")
    return server_ids
