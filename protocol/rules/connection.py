"""Rules of one examinee's connection: loss, attempts, recovery, migration and fencing.

docs/architecture.md, "A loss, step by step".
"""

from __future__ import annotations

from collections.abc import Iterator

from protocol.close_codes import CloseCode
from protocol.messages.facts import (
    ClientInfo,
    ConnectionFact,
    ConnectionStatus,
    ConnectionStatusCode,
    Enrol,
    ExamineeFinish,
    ExamineeResume,
    LossReason,
    Readmit,
    ReconnectAttempt,
    ReconnectExhausted,
    Remove,
    Restate,
    UnstableRule,
    UnstableTimeout,
)
from protocol.messages.proctor_events import (
    Event,
    ExamineeConnected,
    ExamineeDisconnected,
    ExamineeMigrating,
    ExamineeReconnectExhausted,
    ExamineeReconnecting,
    ExamineeUnstable,
    ReplacedSocket,
)
from protocol.rules.admission import enrol, enrolled_event, readmit, remove, removed_event
from protocol.rules.connection_state import (
    READMITTED,
    RESUMED,
    ConnectionState,
    differences,
    server_id_of,
)
from protocol.rules.effects import (
    CloseSocket,
    Effect,
    ScheduleStable,
    SendSessionLost,
    SendSessionState,
    WatchReconnect,
)
from protocol.rules.finishing import finish, finished_event, resume
from protocol.rules.history import Outcome
from protocol.times import parse_time

_NO_INFO, _USUAL_RULE = ClientInfo(), UnstableRule()
_UNCOUNTED = (READMITTED, RESUMED)
_ABSENT = (ConnectionStatusCode.DISCONNECTED, ConnectionStatusCode.MIGRATING)


def apply(state: ConnectionState, version: int, fact: ConnectionFact) -> Outcome[ConnectionState]:
    """Apply one fact to a connection. Facts must come in the order of their versions (`protocol.rules.history`)."""
    match fact:
        case ConnectionStatus(status=ConnectionStatusCode.CONNECTED):
            return _apply_connected(state, version, fact)
        case ConnectionStatus():
            return _apply_disconnected(state, version, fact)
        case ReconnectAttempt():
            return _apply_attempt(state, version, fact)
        case ReconnectExhausted():
            return _apply_exhausted(state, version, fact)
        case UnstableTimeout():
            return _apply_unstable_timeout(state, version, fact)
        case Enrol():
            return enrol(state, version, fact)
        case Readmit():
            return readmit(state, version, fact)
        case Remove():
            return remove(state, version, fact)
        case ExamineeFinish():
            return finish(state, version, fact)
        case ExamineeResume():
            return resume(state, version, fact)
        case Restate():
            return _apply_restate(state, version, fact)


def _apply_connected(state: ConnectionState, version: int, fact: ConnectionStatus) -> Outcome[ConnectionState]:
    server_id = server_id_of(fact)
    # Announced again: others took its server for lost, but the socket was open all along. The counted attempts were
    # nobody's, so it is let in even when they are used up.
    was_there = bool(fact.again) and fact.socket_id == state.socket_id
    if state.removed or (state.exhausted and not was_there):
        why = CloseCode.REMOVED if state.removed else CloseCode.RECONNECT_LIMIT_EXCEEDED
        return Outcome(state, effects=(CloseSocket(server_id, fact.socket_id, why, version),))
    tell = SendSessionState(fact.plan_id, fact.examinee_id, server_id, fact.socket_id, version)
    if state.live and fact.socket_id == state.socket_id:  # announced again by its server
        return Outcome(state, effects=(tell,))
    same_client = fact.client_id is not None and fact.client_id == state.client_id
    overtaken = same_client and fact.connection_no < state.connection_no
    if state.live and (overtaken or (fact.again and not _opened_after(fact, state))):
        # A newer connection exists: this one arrived late, or its server did not know yet.
        return Outcome(state, effects=(CloseSocket(server_id, fact.socket_id, CloseCode.REPLACED, version),))
    info = fact.client_info or _NO_INFO
    # A finished examinee was not lost while away, so coming back is no recovery.
    recovered = state.status is ConnectionStatusCode.DISCONNECTED and state.finished is None
    migrated = state.status is ConnectionStatusCode.MIGRATING and state.finished is None
    differs = differences(state, fact)
    rule = fact.unstable_rule or _USUAL_RULE
    now = parse_time(fact.timestamp)
    connected = ConnectionState(
        plan_id=fact.plan_id,
        examinee_id=fact.examinee_id,
        status=ConnectionStatusCode.CONNECTED,
        socket_id=fact.socket_id,
        server_id=server_id,
        client_id=fact.client_id,
        connection_no=fact.connection_no,
        since=fact.timestamp,
        opened_at=fact.opened_at,
        ip_address=info.ip_address,
        user_agent=info.user_agent or state.user_agent,
        connected_version=version,
        flags=differs or state.flags,
        outages=(state if was_there else state.with_outage_until(now)).outages,
        unstable_share=rule.share,
        unstable_window=rule.window_seconds,
        exam_starts_at=rule.starts_at,
        loss_version=state.loss_version,
        recoveries=state.recoveries + recovered,
        name=state.name,
        labels=state.labels,
        enrolled=state.enrolled,
        finished=state.finished,
        finished_at=state.finished_at,
        finished_by=state.finished_by,
        finished_by_name=state.finished_by_name,
        actions=state.actions,
        version=version,
        unknown_fields=state.unknown_fields,
    ).assessed(now)
    effects: tuple[Effect, ...] = (tell, *_stable_later(connected))
    replaced = None
    if state.live:
        assert state.socket_id is not None
        assert state.server_id is not None
        replaced = ReplacedSocket(socket_id=state.socket_id, server_id=state.server_id, differs=list(differs) or None)
        effects += (CloseSocket(state.server_id, state.socket_id, CloseCode.REPLACED, version),)
    if connected.finished is not None:
        return Outcome(connected, effects=effects)
    event = ExamineeConnected(
        **connected.about(),
        socket_id=fact.socket_id,
        server_id=server_id,
        timestamp=fact.timestamp,
        client_info=fact.client_info,
        recovered=recovered,
        recovered_from=state.reason if recovered else None,
        migrated=migrated or None,
        outage_seconds=_outage_seconds(state, fact.timestamp) if recovered or migrated else None,
        replaced=replaced,
        differs=list(differs) or None,
        version=version,
    )
    return Outcome(connected, (event,), effects)


def _apply_disconnected(state: ConnectionState, version: int, fact: ConnectionStatus) -> Outcome[ConnectionState]:
    if state.status is None and not state.removed and state.finished is None:
        # The first that is known of any socket: that it was open is not in the log any more, and was nobody's loss yet.
        state = state.changed(
            plan_id=fact.plan_id,
            examinee_id=fact.examinee_id,
            socket_id=fact.socket_id,
            server_id=server_id_of(fact),
            client_id=fact.client_id,
            connection_no=fact.connection_no,
        )
    elif not state.live or fact.socket_id != state.socket_id:
        return Outcome(state)  # fenced: the examinee has another socket, only this one has ended
    assert state.server_id is not None
    reason = fact.reason or LossReason.SOCKET_CLOSED.value
    # Its own server has sent it to another one: no loss, unless it has not arrived at the second attempt.
    migrating = reason == LossReason.SERVER_DRAINING
    gone = state.changed(
        status=ConnectionStatusCode.MIGRATING if migrating else ConnectionStatusCode.DISCONNECTED,
        reason=reason,
        close_code=fact.close_code,
        since=fact.timestamp,
        loss_version=version,
        attempt=0,
        max_attempts=None,
        next_attempt_at=None,
        version=version,
    )
    if gone.finished is None:
        gone = gone.assessed(parse_time(fact.timestamp))
    effects: tuple[Effect, ...] = ()
    if state.finished is None:
        effects = (WatchReconnect(fact.plan_id, fact.examinee_id, version),)
    if reason in (LossReason.SERVER_LOST, LossReason.SERVER_RESTARTED):
        # Others say that the server is gone: if it is alive after all, it announces the socket again.
        effects += (SendSessionLost(state.server_id, fact.socket_id, version),)
    events = (_absence_event(gone, version),) if state.finished is None else ()
    return Outcome(gone, events, effects)


def _opened_after(fact: ConnectionStatus, state: ConnectionState) -> bool:
    """Return whether a socket that is announced again was opened after the live one, whose CONNECTED came first.

    So it is when the CONNECTED of the newer socket was lost with the log: both are announced again, in any order.
    """
    known = state.opened_at or state.since
    return fact.opened_at is not None and known is not None and parse_time(fact.opened_at) > parse_time(known)


def _absence_event(state: ConnectionState, version: int, *, restated: bool | None = None) -> Event:
    """Return the event for an examinee who is not connected: `examinee_migrating` or `examinee_disconnected`."""
    assert state.socket_id is not None
    assert state.since is not None
    if state.status is ConnectionStatusCode.MIGRATING:
        return ExamineeMigrating(
            **state.about(),
            socket_id=state.socket_id,
            server_id=state.server_id,
            timestamp=state.since,
            restated=restated,
            version=version,
        )
    return ExamineeDisconnected(
        **state.about(),
        socket_id=state.socket_id,
        server_id=state.server_id,
        timestamp=state.since,
        reason=state.reason,
        close_code=state.close_code,
        attempt=state.attempt or None,
        max_attempts=state.max_attempts,
        restated=restated,
        version=version,
    )


def _apply_attempt(state: ConnectionState, version: int, fact: ReconnectAttempt) -> Outcome[ConnectionState]:
    if not _is_current_outage(state, fact.loss_version) or fact.attempt <= state.attempt:
        return Outcome(state)
    trying = state.changed(
        attempt=fact.attempt,
        max_attempts=fact.max_attempts,
        next_attempt_at=fact.next_attempt_at,
        version=version,
    )
    if state.status is ConnectionStatusCode.MIGRATING:
        if fact.attempt == 1:
            return Outcome(trying)  # still on the way to the other server: no event
        late = trying.changed(status=ConnectionStatusCode.DISCONNECTED).assessed(parse_time(fact.timestamp))
        return Outcome(late, (_absence_event(late, version),))
    trying = trying.assessed(parse_time(fact.timestamp))
    event = ExamineeReconnecting(
        **trying.about(),
        attempt=fact.attempt,
        max_attempts=fact.max_attempts,
        next_attempt_at=fact.next_attempt_at,
        timestamp=fact.timestamp,
        version=version,
    )
    return Outcome(trying, (event,))


def _apply_exhausted(state: ConnectionState, version: int, fact: ReconnectExhausted) -> Outcome[ConnectionState]:
    if not _is_current_outage(state, fact.loss_version):
        return Outcome(state)
    refused = state.changed(
        status=ConnectionStatusCode.DISCONNECTED,
        exhausted=True,
        reason=LossReason.RECONNECT_LIMIT_EXCEEDED.value,
        next_attempt_at=None,
        version=version,
    ).assessed(parse_time(fact.timestamp))
    event = ExamineeReconnectExhausted(
        **refused.about(),
        attempt=state.attempt,
        max_attempts=state.max_attempts or state.attempt,
        timestamp=fact.timestamp,
        version=version,
    )
    return Outcome(refused, (event,))


def _apply_unstable_timeout(state: ConnectionState, version: int, fact: UnstableTimeout) -> Outcome[ConnectionState]:
    """Apply that an unstable examinee has stayed connected for long enough."""
    if not (state.live and state.unstable and state.connected_version == fact.connected_version):
        return Outcome(state)
    stable = state.assessed(parse_time(fact.timestamp)).changed(version=version)
    if stable.unstable:
        return Outcome(state)  # scheduled before a late fact was known; another one is on its way
    event = ExamineeUnstable(
        **(stable.about() | {"unstable": False}),
        share=stable.share_away(parse_time(fact.timestamp)),
        window_seconds=stable.unstable_window,
        connection=stable.view(),
        reconnect=stable.reconnect_view(),
        timestamp=fact.timestamp,
        version=version,
    )
    return Outcome(stable, (event,))


def _apply_restate(state: ConnectionState, version: int, fact: Restate) -> Outcome[ConnectionState]:
    """Publish the state again, and request its effects again.

    The fact that caused the state may have become a dead letter without any effect. Repeated effects do nothing.
    """
    if not state.examinee_id:
        return Outcome(state)
    event: Event
    if state.removed:
        event = removed_event(state, version, state.since or fact.timestamp, restated=True)
    elif state.finished is not None:
        event = finished_event(state, version, restated=True)
    elif state.status is None:
        event = enrolled_event(state, version, fact.timestamp, restated=True)
    elif state.live:
        assert state.socket_id is not None
        assert state.since is not None
        event = ExamineeConnected(
            **state.about(),
            socket_id=state.socket_id,
            server_id=state.server_id,
            timestamp=state.since,
            restated=True,
            version=version,
        )
    else:
        event = _absence_event(state, version, restated=True)
    return Outcome(state.changed(version=version), (event,), tuple(_effects_of(state, version)))


def _effects_of(state: ConnectionState, version: int) -> Iterator[Effect]:
    """Yield the effects that a state needs, whichever fact caused it."""
    if state.status is None:
        return
    assert state.socket_id is not None
    assert state.server_id is not None
    if state.live:
        yield SendSessionState(state.plan_id, state.examinee_id, state.server_id, state.socket_id, version)
        yield from _stable_later(state)
    elif state.removed:
        yield CloseSocket(state.server_id, state.socket_id, CloseCode.REMOVED, version)
    elif awaits_reconnect(state) and state.attempt == 0:
        yield WatchReconnect(state.plan_id, state.examinee_id, state.loss_version)


def awaits_reconnect(state: ConnectionState) -> bool:
    """Return whether the attempts of an examinee's present outage are counted."""
    counted = not state.exhausted and not state.removed and state.finished is None and state.reason not in _UNCOUNTED
    return state.status in _ABSENT and counted


def _stable_later(state: ConnectionState) -> Iterator[Effect]:
    """Yield what makes a connected examinee stable again who is unstable now."""
    if state.live and state.unstable and state.finished is None:
        yield ScheduleStable(state.plan_id, state.examinee_id, state.stable_at(), state.connected_version)


def _is_current_outage(state: ConnectionState, loss_version: int) -> bool:
    uncounted = state.exhausted or state.removed or state.finished is not None
    return state.status in _ABSENT and state.loss_version == loss_version and not uncounted


def _outage_seconds(state: ConnectionState, end: str) -> float:
    assert state.since is not None
    return round(max(0.0, parse_time(end) - parse_time(state.since)), 3)
