"""What is so when the state managers have come to rest: Redis, proctors and socket servers agree with the log."""

from __future__ import annotations

from collections.abc import Collection

from protocol.messages.facts import ConnectionStatus, MobileSyncCode, Notice
from protocol.messages.proctor_events import HelpClosed, HelpRequested, HelpTaken
from protocol.messages.session_messages import SessionClose, SessionState
from protocol.records import keys
from protocol.rules.connection_state import ConnectionState, server_id_of
from protocol.rules.effects import CloseSocket, SendSessionState
from protocol.rules.mobile_sync import MobileSyncState
from protocol.rules.notices import NoticesState
from tests.unit.support.fact_logs import in_order
from tests.unit.support.facts import EXAMINEE, PLAN
from tests.unit.support.memory_broker import Broker, facts_of
from tests.unit.support.memory_store import MemoryStore
from tests.unit.support.state_manager_world import (
    is_open,
    kind_of,
    log_of,
    loss_waited_for,
    newest_words,
    server_state,
    stages_timed,
    stored_state,
    unstable_timers,
)

PROGRESS, SYNC = keys.progress(PLAN, EXAMINEE), keys.mobile_sync(PLAN, EXAMINEE)
NOTICES = keys.notices(PLAN, EXAMINEE)


def check_truth(broker: Broker, store: MemoryStore, happened: Collection[int]) -> None:
    """Compare everything with the log. `happened`: sequences of the facts that no state manager has published."""
    assert not broker.unacknowledged
    connection, mobile_sync, notices = states_by_the_log(broker)
    check_records(broker, store)
    check_proctor(broker, connection, mobile_sync, notices)
    check_socket_servers(broker, notices)
    check_timers(broker, connection, mobile_sync)
    check_sockets(broker, store)
    check_ended_sessions(broker, connection, happened)


def states_by_the_log(broker: Broker) -> tuple[ConnectionState, MobileSyncState, NoticesState]:
    """The states of the one examinee that the facts of the log amount to."""
    logs = log_of(broker)
    connection, _ = in_order(kind_of(PROGRESS), logs.get(PROGRESS, []))
    mobile_sync, _ = in_order(kind_of(SYNC), logs.get(SYNC, []))
    notices, _ = in_order(kind_of(NOTICES), logs.get(NOTICES, []))
    return connection, mobile_sync, notices


def check_records(broker: Broker, store: MemoryStore) -> None:
    """Each record is the fold of its facts."""
    for key, log in log_of(broker).items():
        kind = kind_of(key)
        state, _ = in_order(kind, log)
        assert stored_state(store, key) == state
        stored = store.rows[key]
        assert {name: stored[name] for name in kind.fields(state)} == kind.fields(state)


def check_proctor(
    broker: Broker, connection: ConnectionState, mobile_sync: MobileSyncState, notices: NoticesState
) -> None:
    """The proctor sees the examinee as the log says."""
    row = broker.proctors.examinees.get(EXAMINEE)
    if row is None:
        assert (connection.status, connection.enrolled, mobile_sync.status, notices.sent) == (None, False, None, 0)
        return
    assert row.status == connection.view().status
    assert (row.exhausted, row.removed) == (connection.exhausted, connection.removed)
    assert (row.name, row.labels) == (connection.name, connection.labels)
    assert row.mobile_sync == mobile_sync.view().status
    assert (row.notices, row.unconfirmed) == (notices.sent, notices.unconfirmed)
    assert (row.confirmed_plan_notices, row.help) == ([*notices.confirmed_plan_notices], notices.open_help)
    assert (row.flags, row.unstable) == (list(connection.flags), connection.unstable)
    if connection.live and connection.finished is None:
        assert row.socket_id == connection.socket_id


def check_socket_servers(broker: Broker, notices: NoticesState) -> None:
    """The socket servers were sent every state, every end of a socket and every message of a proctor."""
    messages = broker.to_servers
    state = ConnectionState()
    for version, fact in log_of(broker).get(PROGRESS, []):
        outcome = kind_of(PROGRESS).rule(state, version, fact)
        state = outcome.state
        for effect in outcome.effects:
            if isinstance(effect, SendSessionState):
                assert any(
                    isinstance(message, SessionState) and message.socket_id == effect.socket_id for message in messages
                )
            if isinstance(effect, CloseSocket):
                assert SessionClose(socket_id=effect.socket_id, code=effect.code) in messages
    action_ids = {message.action_id for message in messages if isinstance(message, Notice)}
    assert set(notices.unconfirmed) <= action_ids
    if notices.help is not None:
        told = [message for message in messages if isinstance(message, HelpRequested | HelpTaken | HelpClosed)]
        newest = max(told, key=lambda event: event.version)
        assert (newest.request_id, newest.help) == (notices.help.request_id, notices.open_help)


def check_timers(broker: Broker, connection: ConnectionState, mobile_sync: MobileSyncState) -> None:
    """A loss is watched, an open mobile sync stage has its deadline, and being unstable has its end."""
    is_lost = connection.status is not None and not connection.live and not connection.exhausted
    if is_lost and connection.finished is None and connection.reason not in ("READMITTED", "REMOVED", "RESUMED"):
        assert loss_waited_for(broker, EXAMINEE) == connection.loss_version
    if mobile_sync.status in (MobileSyncCode.WAITING, MobileSyncCode.FAILED) and mobile_sync.wait_version:
        assert mobile_sync.wait_version in stages_timed(broker, EXAMINEE)
    if connection.live and connection.unstable:
        assert connection.connected_version in unstable_timers(broker, EXAMINEE)


def check_sockets(broker: Broker, store: MemoryStore) -> None:
    """Each socket's record, and the index of its server, are as the newest fact about it says."""
    for socket_id, fact in newest_words(broker).items():
        row = store.rows.get(keys.socket(PLAN, socket_id))
        # One that ended long ago may have expired: the tests' day is long ago.
        assert row is not None or not is_open(fact)
        assert row is None or row["status"] == fact.status.value
        entries = store.rows.get(keys.server_sockets(server_id_of(fact)), {})
        assert (socket_id in entries) == is_open(fact)


def process_of(broker: Broker, socket_id: str | None) -> str | None:
    """The incarnation of the server process that opened a socket, by the log."""
    for sequence in range(1, len(broker.payloads) + 1):
        for _, fact in facts_of(broker, sequence):
            if isinstance(fact, ConnectionStatus) and fact.socket_id == socket_id and is_open(fact):
                return fact.incarnation
    return None


def check_ended_sessions(broker: Broker, connection: ConnectionState, happened: Collection[int]) -> None:
    """Sessions end with their process, and state managers end no session of a process that lives."""
    if connection.live and connection.server_id is not None:
        holder = server_state(broker, connection.server_id)
        process = process_of(broker, connection.socket_id)
        assert holder.holds_sessions_of(process), "a session of a process that is no more"
    for sequence in range(1, len(broker.payloads) + 1):
        if sequence in happened:
            continue
        for _, fact in facts_of(broker, sequence):
            if isinstance(fact, ConnectionStatus):
                holder = server_state(broker, server_id_of(fact), sequence)
                assert not holder.holds_sessions_of(fact.incarnation), "ended by mistake"
