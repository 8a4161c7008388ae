"""Connection loss and recovery (document 10): the rules of one examinee's connection, with fencing."""

from __future__ import annotations

from dataclasses import dataclass, replace

from protocol.close_codes import CloseCode
from protocol.effects import CloseSocket, Effect, ReportLost, TellState, WatchReconnect
from protocol.history import Outcome
from protocol.messages import (
    ClientInfo,
    ConnectionFact,
    ConnectionStatus,
    ConnectionStatusCode,
    ConnectionView,
    Event,
    ExamineeConnected,
    ExamineeDisconnected,
    ExamineeMigrating,
    ExamineeReadmitted,
    ExamineeReconnectExhausted,
    ExamineeReconnecting,
    LossReason,
    Readmit,
    ReconnectAttempt,
    ReconnectExhausted,
    ReconnectView,
    ReplacedSocket,
    Restate,
)
from protocol.times import parse_time

_AWAY = (ConnectionStatusCode.DISCONNECTED, ConnectionStatusCode.MIGRATING)

READMITTED = "READMITTED"
"""`reason` of a disconnected examinee whom a proctor let in again; nobody counts attempts for them."""


@dataclass(frozen=True, slots=True)
class Connection:
    """What is known of an examinee's connection.

    `version` is the version that last changed it; `loss_version` names the current or latest outage
    (its loss or migration, or the readmission that gave it more time). `socket_id`
    is the current socket, or the last one while disconnected or migrating.
    """

    plan_id: str = ""
    examinee_id: str = ""
    status: ConnectionStatusCode | None = None
    socket_id: str | None = None
    server_id: str | None = None
    incarnation: str | None = None
    client_id: str | None = None
    connection_no: int = 0
    reason: str | None = None
    since: str | None = None
    ip_address: str | None = None
    browser_info: str | None = None
    loss_version: int = 0
    attempt: int = 0
    max_attempts: int | None = None
    next_attempt_at: str | None = None
    exhausted: bool = False
    recoveries: int = 0
    version: int = 0

    @property
    def live(self) -> bool:
        return self.status is ConnectionStatusCode.CONNECTED

    def view(self) -> ConnectionView:
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


def told(state: Connection) -> tuple[ConnectionStatusCode | None, str | None, bool]:
    """The part of a connection that proctors must have right."""
    return (state.status, state.socket_id if state.live else None, state.exhausted)


def apply(state: Connection, version: int, fact: ConnectionFact) -> Outcome[Connection]:
    """The transition of one fact; facts come in the order of their versions (`protocol.history`)."""
    match fact:
        case ConnectionStatus(status=ConnectionStatusCode.CONNECTED):
            return _connected(state, version, fact)
        case ConnectionStatus():
            return _disconnected(state, version, fact)
        case ReconnectAttempt():
            return _attempt(state, version, fact)
        case ReconnectExhausted():
            return _exhausted(state, version, fact)
        case Readmit():
            return _readmitted(state, version, fact)
        case Restate():
            return _restated(state, version, fact)


def server_of(fact: ConnectionStatus) -> str:
    """The server that holds the socket: said, or by the rule socketId = `{serverId}-{unique}`."""
    return fact.server_id or fact.socket_id.rpartition("-")[0] or fact.socket_id


def _connected(state: Connection, version: int, fact: ConnectionStatus) -> Outcome[Connection]:
    server_id = server_of(fact)
    if state.exhausted:
        refusal = CloseSocket(server_id, fact.socket_id, CloseCode.RECONNECT_LIMIT_EXCEEDED, version)
        return Outcome(state, effects=(refusal,))
    tell = TellState(fact.plan_id, fact.examinee_id, server_id, fact.socket_id, version)
    if state.live and fact.socket_id == state.socket_id:  # announced again by its server
        return Outcome(state, effects=(tell,))
    same_client = fact.client_id is not None and fact.client_id == state.client_id
    if state.live and (fact.again or (same_client and fact.connection_no < state.connection_no)):
        # A newer connection was opened since: this one is abandoned and reached us late, or its server had not heard.
        return Outcome(state, effects=(CloseSocket(server_id, fact.socket_id, CloseCode.REPLACED, version),))
    info = fact.client_info or ClientInfo()
    recovered = state.status is ConnectionStatusCode.DISCONNECTED
    migrated = state.status is ConnectionStatusCode.MIGRATING
    connected = Connection(
        plan_id=fact.plan_id,
        examinee_id=fact.examinee_id,
        status=ConnectionStatusCode.CONNECTED,
        socket_id=fact.socket_id,
        server_id=server_id,
        incarnation=fact.incarnation,
        client_id=fact.client_id,
        connection_no=fact.connection_no,
        since=fact.timestamp,
        ip_address=info.ip_address,
        browser_info=info.browser_info,
        loss_version=state.loss_version,
        recoveries=state.recoveries + recovered,
        version=version,
    )
    effects: tuple[Effect, ...] = (tell,)
    replaced = None
    if state.live and state.socket_id is not None and state.server_id is not None:
        replaced = ReplacedSocket(socket_id=state.socket_id, server_id=state.server_id)
        effects += (CloseSocket(state.server_id, state.socket_id, CloseCode.REPLACED, version),)
    event = ExamineeConnected(
        plan_id=fact.plan_id,
        examinee_id=fact.examinee_id,
        socket_id=fact.socket_id,
        server_id=server_id,
        timestamp=fact.timestamp,
        client_info=fact.client_info,
        recovered=recovered,
        recovered_from=state.reason if recovered else None,
        migrated=migrated or None,
        outage_seconds=_seconds_between(state.since, fact.timestamp) if recovered or migrated else None,
        replaced=replaced,
        version=version,
    )
    return Outcome(connected, (event,), effects)


def _disconnected(state: Connection, version: int, fact: ConnectionStatus) -> Outcome[Connection]:
    if not state.live or fact.socket_id != state.socket_id:
        return Outcome(state)  # fenced: the examinee has moved on, only that socket has ended
    reason = fact.reason or LossReason.SOCKET_CLOSED.value
    # Its own server has sent it elsewhere: no loss, unless it has not arrived when the watch looks for it again.
    migrating = reason == LossReason.SERVER_DRAINING
    gone = replace(
        state,
        status=ConnectionStatusCode.MIGRATING if migrating else ConnectionStatusCode.DISCONNECTED,
        reason=reason,
        since=fact.timestamp,
        loss_version=version,
        attempt=0,
        max_attempts=None,
        next_attempt_at=None,
        version=version,
    )
    event = _away(gone, version)
    effects: tuple[Effect, ...] = (WatchReconnect(fact.plan_id, fact.examinee_id, version),)
    if reason in (LossReason.SERVER_LOST, LossReason.SERVER_RESTARTED) and state.server_id is not None:
        # Said about the server by others: if it is alive after all, it announces the socket anew.
        effects += (ReportLost(state.server_id, fact.socket_id, version),)
    return Outcome(gone, (event,), effects)


def _away(state: Connection, version: int, *, restated: bool | None = None) -> Event:
    """The event that tells that an examinee is not connected, since when, and why."""
    assert state.socket_id is not None
    assert state.since is not None
    if state.status is ConnectionStatusCode.MIGRATING:
        return ExamineeMigrating(
            plan_id=state.plan_id,
            examinee_id=state.examinee_id,
            socket_id=state.socket_id,
            server_id=state.server_id,
            timestamp=state.since,
            restated=restated,
            version=version,
        )
    return ExamineeDisconnected(
        plan_id=state.plan_id,
        examinee_id=state.examinee_id,
        socket_id=state.socket_id,
        server_id=state.server_id,
        timestamp=state.since,
        reason=state.reason,
        attempt=state.attempt or None,
        max_attempts=state.max_attempts,
        restated=restated,
        version=version,
    )


def _attempt(state: Connection, version: int, fact: ReconnectAttempt) -> Outcome[Connection]:
    if not _same_outage(state, fact.loss_version) or fact.attempt <= state.attempt:
        return Outcome(state)
    trying = replace(
        state,
        attempt=fact.attempt,
        max_attempts=fact.max_attempts,
        next_attempt_at=fact.next_attempt_at,
        version=version,
    )
    if state.status is ConnectionStatusCode.MIGRATING:
        if fact.attempt == 1:
            return Outcome(trying)  # on the way: nothing that proctors need to know
        late = replace(trying, status=ConnectionStatusCode.DISCONNECTED)
        return Outcome(late, (_away(late, version),))
    event = ExamineeReconnecting(
        plan_id=fact.plan_id,
        examinee_id=fact.examinee_id,
        attempt=fact.attempt,
        max_attempts=fact.max_attempts,
        next_attempt_at=fact.next_attempt_at,
        timestamp=fact.timestamp,
        version=version,
    )
    return Outcome(trying, (event,))


def _exhausted(state: Connection, version: int, fact: ReconnectExhausted) -> Outcome[Connection]:
    if not _same_outage(state, fact.loss_version):
        return Outcome(state)
    refused = replace(
        state,
        status=ConnectionStatusCode.DISCONNECTED,
        exhausted=True,
        reason=LossReason.RECONNECT_LIMIT_EXCEEDED.value,
        next_attempt_at=None,
        version=version,
    )
    event = ExamineeReconnectExhausted(
        plan_id=fact.plan_id,
        examinee_id=fact.examinee_id,
        attempt=state.attempt,
        max_attempts=state.max_attempts or state.attempt,
        timestamp=fact.timestamp,
        version=version,
    )
    return Outcome(refused, (event,))


def _readmitted(state: Connection, version: int, fact: Readmit) -> Outcome[Connection]:
    if not state.exhausted:
        return Outcome(state)
    # No new ladder: whoever was let in by a person may take the time it takes. What is still said about the old
    # ladder, which can be long after the message ids of its messages are forgotten, finds its outage gone.
    readmitted = replace(
        state,
        exhausted=False,
        reason=READMITTED,
        loss_version=version,
        attempt=0,
        max_attempts=None,
        version=version,
    )
    event = ExamineeReadmitted(
        plan_id=fact.plan_id,
        examinee_id=fact.examinee_id,
        by=fact.by,
        timestamp=fact.timestamp,
        version=version,
    )
    return Outcome(readmitted, (event,))


def _restated(state: Connection, version: int, fact: Restate) -> Outcome[Connection]:
    if state.status is None or state.socket_id is None:
        return Outcome(state)
    event: Event
    if state.live:
        event = ExamineeConnected(
            plan_id=fact.plan_id,
            examinee_id=fact.examinee_id,
            socket_id=state.socket_id,
            server_id=state.server_id,
            timestamp=state.since or fact.timestamp,
            restated=True,
            version=version,
        )
    else:
        event = _away(state, version, restated=True)
    return Outcome(replace(state, version=version), (event,))


def _same_outage(state: Connection, loss_version: int) -> bool:
    return state.status in _AWAY and state.loss_version == loss_version and not state.exhausted


def _seconds_between(start: str | None, end: str) -> float | None:
    return round(max(0.0, parse_time(end) - parse_time(start)), 3) if start else None
