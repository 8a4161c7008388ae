"""The recorded state of one examinee's connection. Its rules are in `connection` and `admission`."""

from __future__ import annotations

from dataclasses import dataclass

from protocol.close_codes import CloseCode
from protocol.messages.facts import ConnectionStatus, ConnectionStatusCode, FinishReason
from protocol.messages.views import ConnectionView, ReconnectView

READMITTED = "READMITTED"
"""`reason` of a disconnected examinee whom a proctor has readmitted; no attempts are counted."""

REMOVED = CloseCode.REMOVED.name
"""`reason` of an examinee whom a proctor has removed; no attempts are counted."""


RESUMED = "RESUMED"
"""`reason` of a finished examinee who goes on with the exam and is not connected; no attempts are counted."""


@dataclass(frozen=True, slots=True)
class ConnectionState:
    """The state of an examinee's connection.

    `version` is the version that last changed it; `loss_version` names the current or latest outage
    (its loss or migration, or what a proctor has decided since). `socket_id` is the current socket, or the last one
    while disconnected or migrating; a state with a `status` has a socket, its server and `since`. `enrolled`: the
    roster lists the examinee, as `name`. `removed_by` and `removed_why`: the proctor of the last removal, and the
    reason given. `finished`: why the exam is over for the examinee, since `finished_at`, as `finished_by` said;
    `status` goes on to say where their socket is. `actions`: the applied actions of proctors.
    """

    plan_id: str = ""
    examinee_id: str = ""
    status: ConnectionStatusCode | None = None
    socket_id: str | None = None
    server_id: str | None = None
    client_id: str | None = None
    connection_no: int = 0
    reason: str | None = None
    since: str | None = None
    ip_address: str | None = None
    loss_version: int = 0
    attempt: int = 0
    max_attempts: int | None = None
    next_attempt_at: str | None = None
    exhausted: bool = False
    recoveries: int = 0
    name: str | None = None
    enrolled: bool = False
    removed: bool = False
    removed_by: str | None = None
    removed_why: str | None = None
    finished: FinishReason | None = None
    finished_at: str | None = None
    finished_by: str | None = None
    actions: tuple[str, ...] = ()
    version: int = 0

    @property
    def live(self) -> bool:
        """Whether the examinee has an open socket, finished or not."""
        return self.status is ConnectionStatusCode.CONNECTED

    @property
    def shown_status(self) -> ConnectionStatusCode | None:
        """The status as clients see it: FINISHED, wherever the socket is."""
        return ConnectionStatusCode.FINISHED if self.finished is not None else self.status

    def view(self) -> ConnectionView:
        if self.finished is not None:
            return ConnectionView(
                status="FINISHED",
                reason=self.finished.value,
                since=self.finished_at,
                finished_by=self.finished_by,
                version=self.version,
            )
        return ConnectionView(
            status=self.status.value if self.status else "NEVER",
            socket_id=self.socket_id,
            server_id=self.server_id,
            reason=self.reason,
            since=self.since,
            version=self.version,
        )

    def reconnect_view(self) -> ReconnectView:
        return ReconnectView(
            count=self.recoveries,
            attempt=self.attempt,
            max_attempts=self.max_attempts,
            next_attempt_at=self.next_attempt_at,
            exhausted=self.exhausted,
        )


def visible_part(state: ConnectionState) -> tuple[ConnectionStatusCode | None, str | None, bool, bool, str | None]:
    """Return the part of a connection that events tell: when it changes, clients must be told."""
    live_socket = state.socket_id if state.live and state.finished is None else None
    return (state.shown_status, live_socket, state.exhausted, state.removed, state.name)


def server_id_of(fact: ConnectionStatus) -> str:
    """Return the serverId of a fact, or else the one in its socketId (`{serverId}-{unique}`)."""
    return fact.server_id or fact.socket_id.rpartition("-")[0] or fact.socket_id
