"""The whole outcome of each fact: all fields of the state, the event and the effects, from a state that has them."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, replace
from typing import Any

import pytest

from protocol.close_codes import CloseCode
from protocol.messages.facts import (
    ClientInfo,
    ConnectionFact,
    ConnectionStatusCode,
)
from protocol.messages.proctor_events import (
    Event,
    ExamineeConnected,
    ExamineeDisconnected,
    ExamineeEnrolled,
    ExamineeMigrating,
    ExamineeReadmitted,
    ExamineeReconnectExhausted,
    ExamineeReconnecting,
    ExamineeRemoved,
    ReplacedSocket,
)
from protocol.messages.views import (
    ConnectionView,
    ReconnectView,
)
from protocol.rules import action_ids, connection, connection_state
from protocol.rules.connection_state import ConnectionState, Outage
from protocol.rules.effects import (
    CloseSocket,
    Effect,
    SendSessionLost,
    SendSessionState,
    WatchReconnect,
)
from protocol.rules.mobile_sync import MobileSyncState
from protocol.rules.notices import NoticesState
from protocol.rules.socket_server import ServerState
from tests.unit.support import facts
from tests.unit.support.facts import DAWN, EXAMINEE, PLAN, at

A, B = "SOCK001-a", "SOCK002-b"
ID: dict[str, Any] = {"plan_id": PLAN, "examinee_id": EXAMINEE}
CONNECTED, DISCONNECTED = ConnectionStatusCode.CONNECTED, ConnectionStatusCode.DISCONNECTED
MIGRATING = ConnectionStatusCode.MIGRATING
V = 50
"""The version of every fact below."""

# -- the connection ----------------------------------------------------------------------------------------

LIVE = ConnectionState(
    **ID,
    status=CONNECTED,
    socket_id=A,
    server_id="SOCK001",
    client_id="c1",
    connection_no=3,
    since=at(1),
    ip_address="10.0.0.1",
    loss_version=10,
    recoveries=4,
    name="Kim",
    enrolled=True,
    removed_by="old",
    removed_why="old",
    actions=("readmit a0",),
    version=20,
)
LOST = replace(
    LIVE,
    status=DISCONNECTED,
    reason="PING_TIMEOUT",
    since=at(5),
    loss_version=30,
    attempt=2,
    max_attempts=3,
    next_attempt_at=at(9),
    version=40,
)
SHUT_OUT = replace(LOST, exhausted=True, reason="RECONNECT_LIMIT_EXCEEDED")
MOVING = replace(LOST, status=MIGRATING, reason="SERVER_DRAINING", attempt=0, max_attempts=None, next_attempt_at=None)
REMOVED = replace(LOST, removed=True, reason="REMOVED", removed_by="S009", removed_why="cheating")
ON_ROSTER = ConnectionState(**ID, name="Kim", enrolled=True, version=20)
ROSTER_REMOVED = replace(ON_ROSTER, removed=True, removed_by="S009")
NO_LADDER: dict[str, Any] = {"attempt": 0, "max_attempts": None, "next_attempt_at": None}

INFO = ClientInfo(ip_address="10.0.0.2", browser_info="Firefox")
ON_B = facts.connected(B, 10, client="c2", number=7, incarnation="i2", info=INFO)
STATE_OF_B = ConnectionState(
    **ID,
    status=CONNECTED,
    socket_id=B,
    server_id="SOCK002",
    client_id="c2",
    connection_no=7,
    since=at(10),
    ip_address="10.0.0.2",
    connected_version=V,
    flags=("address", "device"),
    recoveries=4,
    name="Kim",
    enrolled=True,
    actions=("readmit a0",),
    version=V,
)
CONNECTED_B: dict[str, Any] = {
    **ID,
    "socket_id": B,
    "server_id": "SOCK002",
    "timestamp": at(10),
    "client_info": INFO,
    "name": "Kim",
    "differs": ["address", "device"],
    "flags": ["address", "device"],
    "version": V,
}
TAKEN_OVER = ReplacedSocket(socket_id=A, server_id="SOCK001", differs=["address", "device"])
SEND_TO_B = SendSessionState(PLAN, EXAMINEE, "SOCK002", B, V)
AWAY: dict[str, Any] = {**ID, "socket_id": A, "server_id": "SOCK001", "name": "Kim", "version": V}

ConnectionCase = tuple[ConnectionState, ConnectionFact, ConnectionState, tuple[Event, ...], tuple[Effect, ...]]
CONNECTION_CASES: dict[str, ConnectionCase] = {
    "a newer connection": (
        LIVE,
        ON_B,
        replace(STATE_OF_B, loss_version=10),
        (ExamineeConnected(**CONNECTED_B, recovered=False, replaced=TAKEN_OVER),),
        (SEND_TO_B, CloseSocket("SOCK001", A, CloseCode.REPLACED, V)),
    ),
    "a recovery": (
        LOST,
        ON_B,
        replace(STATE_OF_B, loss_version=30, recoveries=5, outages=(Outage(DAWN + 10, 5.0),)),
        (ExamineeConnected(**CONNECTED_B, recovered=True, recovered_from="PING_TIMEOUT", outage_seconds=5.0),),
        (SEND_TO_B,),
    ),
    "an arrival": (
        MOVING,
        ON_B,
        replace(STATE_OF_B, loss_version=30),
        (ExamineeConnected(**CONNECTED_B, recovered=False, migrated=True, outage_seconds=5.0),),
        (SEND_TO_B,),
    ),
    "a refused recovery": (
        SHUT_OUT,
        ON_B,
        SHUT_OUT,
        (),
        (CloseSocket("SOCK002", B, CloseCode.RECONNECT_LIMIT_EXCEEDED, V),),
    ),
    "a refused removed examinee": (REMOVED, ON_B, REMOVED, (), (CloseSocket("SOCK002", B, CloseCode.REMOVED, V),)),
    "a connection with the socket of a shut-out examinee": (
        SHUT_OUT,
        facts.connected(A, 10),
        SHUT_OUT,
        (),
        (CloseSocket("SOCK001", A, CloseCode.RECONNECT_LIMIT_EXCEEDED, V),),
    ),
    "a loss": (
        LIVE,
        facts.disconnected(A, 10, "PING_TIMEOUT"),
        replace(LIVE, status=DISCONNECTED, reason="PING_TIMEOUT", since=at(10), loss_version=V, version=V),
        (ExamineeDisconnected(**AWAY, timestamp=at(10), reason="PING_TIMEOUT"),),
        (WatchReconnect(PLAN, EXAMINEE, V),),
    ),
    "a loss of its server": (
        LIVE,
        facts.disconnected(A, 10, "SERVER_LOST"),
        replace(LIVE, status=DISCONNECTED, reason="SERVER_LOST", since=at(10), loss_version=V, version=V),
        (ExamineeDisconnected(**AWAY, timestamp=at(10), reason="SERVER_LOST"),),
        (WatchReconnect(PLAN, EXAMINEE, V), SendSessionLost("SOCK001", A, V)),
    ),
    "a loss after an older ladder": (
        replace(LIVE, attempt=2, max_attempts=3, next_attempt_at=at(9)),
        facts.disconnected(A, 10, None),
        replace(LIVE, status=DISCONNECTED, reason="SOCKET_CLOSED", since=at(10), loss_version=V, version=V),
        (ExamineeDisconnected(**AWAY, timestamp=at(10), reason="SOCKET_CLOSED"),),
        (WatchReconnect(PLAN, EXAMINEE, V),),
    ),
    "a migration": (
        LIVE,
        facts.sent_away(A, 10),
        replace(LIVE, status=MIGRATING, reason="SERVER_DRAINING", since=at(10), loss_version=V, version=V),
        (ExamineeMigrating(**AWAY, timestamp=at(10)),),
        (WatchReconnect(PLAN, EXAMINEE, V),),
    ),
    "an attempt": (
        LOST,
        facts.attempt(30, 3, 12, of=4),
        replace(LOST, attempt=3, max_attempts=4, next_attempt_at=at(17), version=V),
        (
            ExamineeReconnecting(
                **ID,
                attempt=3,
                max_attempts=4,
                next_attempt_at=at(17),
                timestamp=at(12),
                name="Kim",
                version=V,
            ),
        ),
        (),
    ),
    "a repeated attempt": (LOST, facts.attempt(30, 2, 12), LOST, (), ()),
    "the first attempt of a migration": (
        MOVING,
        facts.attempt(30, 1, 12),
        replace(MOVING, attempt=1, max_attempts=3, next_attempt_at=at(17), version=V),
        (),
        (),
    ),
    "the second attempt of a migration": (
        MOVING,
        facts.attempt(30, 2, 12),
        replace(MOVING, status=DISCONNECTED, attempt=2, max_attempts=3, next_attempt_at=at(17), version=V),
        (ExamineeDisconnected(**AWAY, timestamp=at(5), reason="SERVER_DRAINING", attempt=2, max_attempts=3),),
        (),
    ),
    "used-up attempts": (
        LOST,
        facts.exhausted(30, 12),
        replace(LOST, exhausted=True, reason="RECONNECT_LIMIT_EXCEEDED", next_attempt_at=None, version=V),
        (ExamineeReconnectExhausted(**ID, attempt=2, max_attempts=3, timestamp=at(12), name="Kim", version=V),),
        (),
    ),
    "used-up attempts of a migration": (
        replace(MOVING, attempt=1),
        facts.exhausted(30, 12),
        replace(MOVING, attempt=1, status=DISCONNECTED, exhausted=True, reason="RECONNECT_LIMIT_EXCEEDED", version=V),
        (ExamineeReconnectExhausted(**ID, attempt=1, max_attempts=1, timestamp=at(12), name="Kim", version=V),),
        (),
    ),
    "used-up attempts of another outage": (LOST, facts.exhausted(29, 12), LOST, (), ()),
    "a readmission": (
        SHUT_OUT,
        facts.readmit(12, by="S002", action="a1"),
        replace(
            SHUT_OUT,
            exhausted=False,
            reason="READMITTED",
            loss_version=V,
            attempt=0,
            max_attempts=None,
            actions=("readmit a0", "readmit a1"),
            version=V,
        ),
        (
            ExamineeReadmitted(
                **ID, status="DISCONNECTED", by="S002", action_id="a1", timestamp=at(12), name="Kim", version=V
            ),
        ),
        (),
    ),
    "a readmission of a removed examinee": (
        REMOVED,
        facts.readmit(12),
        replace(
            REMOVED,
            removed=False,
            reason="READMITTED",
            since=at(12),
            loss_version=V,
            attempt=0,
            max_attempts=None,
            version=V,
        ),
        (ExamineeReadmitted(**ID, status="DISCONNECTED", by="S001", timestamp=at(12), name="Kim", version=V),),
        (),
    ),
    "a readmission of who never came": (
        ROSTER_REMOVED,
        facts.readmit(12),
        replace(ROSTER_REMOVED, removed=False, loss_version=V, version=V),
        (ExamineeReadmitted(**ID, status="NEVER", by="S001", timestamp=at(12), name="Kim", version=V),),
        (),
    ),
    "a repeated readmission": (SHUT_OUT, facts.readmit(12, action="a0"), SHUT_OUT, (), ()),
    "a removal": (
        replace(LIVE, attempt=2, max_attempts=3, next_attempt_at=at(9)),
        facts.remove(12, by="S002", action="a1", reason="cheating"),
        replace(
            LIVE,
            status=DISCONNECTED,
            reason="REMOVED",
            since=at(12),
            loss_version=V,
            removed=True,
            removed_by="S002",
            removed_why="cheating",
            actions=("readmit a0", "remove a1"),
            version=V,
        ),
        (
            ExamineeRemoved(
                **ID,
                status="DISCONNECTED",
                by="S002",
                action_id="a1",
                reason="cheating",
                timestamp=at(12),
                name="Kim",
                version=V,
            ),
        ),
        (CloseSocket("SOCK001", A, CloseCode.REMOVED, V),),
    ),
    "a removal of who is shut out": (
        SHUT_OUT,
        facts.remove(12),
        replace(
            SHUT_OUT,
            **NO_LADDER,
            exhausted=False,
            reason="REMOVED",
            since=at(12),
            loss_version=V,
            removed=True,
            removed_by="S001",
            removed_why=None,
            version=V,
        ),
        (ExamineeRemoved(**ID, status="DISCONNECTED", by="S001", timestamp=at(12), name="Kim", version=V),),
        (),
    ),
    "a removal of a stranger": (
        ConnectionState(),
        facts.remove(12),
        ConnectionState(**ID, loss_version=V, removed=True, removed_by="S001", version=V),
        (ExamineeRemoved(**ID, status="NEVER", by="S001", timestamp=at(12), version=V),),
        (),
    ),
    "a repeated removal": (
        replace(LIVE, actions=("remove a0",)),
        facts.remove(12, action="a0"),
        replace(LIVE, actions=("remove a0",)),
        (),
        (),
    ),
    "an enrolment": (
        LIVE,
        facts.enrol("Lee", 12, by="S002").model_copy(update={"action_id": "a1"}),
        replace(LIVE, name="Lee", version=V),
        (
            ExamineeEnrolled(
                **ID,
                name="Lee",
                by="S002",
                action_id="a1",
                connection=ConnectionView(status="CONNECTED", socket_id=A, server_id="SOCK001", since=at(1), version=V),
                reconnect=ReconnectView(count=4),
                removed=False,
                timestamp=at(12),
                version=V,
            ),
        ),
        (),
    ),
    "an enrolment of a stranger": (
        ConnectionState(),
        facts.enrol(None, 12),
        ConnectionState(**ID, enrolled=True, version=V),
        (
            ExamineeEnrolled(
                **ID,
                connection=ConnectionView(version=V),
                reconnect=ReconnectView(),
                removed=False,
                timestamp=at(12),
                version=V,
            ),
        ),
        (),
    ),
    "an enrolment of a removed stranger": (
        replace(ROSTER_REMOVED, enrolled=False),
        facts.enrol("Kim", 12),
        replace(ROSTER_REMOVED, version=V),
        (
            ExamineeEnrolled(
                **ID,
                name="Kim",
                connection=ConnectionView(version=V),
                reconnect=ReconnectView(),
                removed=True,
                timestamp=at(12),
                version=V,
            ),
        ),
        (),
    ),
    "an enrolment without a name": (LIVE, facts.enrol(None, 12), LIVE, (), ()),
    "a restatement of a live connection": (
        LIVE,
        facts.restate(12),
        replace(LIVE, version=V),
        (ExamineeConnected(**AWAY, timestamp=at(1), restated=True),),
        (SendSessionState(PLAN, EXAMINEE, "SOCK001", A, V),),
    ),
    "a restatement of a loss": (
        LOST,
        facts.restate(12),
        replace(LOST, version=V),
        (
            ExamineeDisconnected(
                **AWAY, timestamp=at(5), reason="PING_TIMEOUT", attempt=2, max_attempts=3, restated=True
            ),
        ),
        (),
    ),
    "a restatement of a loss without an attempt": (
        replace(LOST, **NO_LADDER),
        facts.restate(12),
        replace(LOST, **NO_LADDER, version=V),
        (ExamineeDisconnected(**AWAY, timestamp=at(5), reason="PING_TIMEOUT", restated=True),),
        (WatchReconnect(PLAN, EXAMINEE, 30),),
    ),
    "a restatement of used-up attempts": (
        replace(SHUT_OUT, **NO_LADDER),
        facts.restate(12),
        replace(SHUT_OUT, **NO_LADDER, version=V),
        (ExamineeDisconnected(**AWAY, timestamp=at(5), reason="RECONNECT_LIMIT_EXCEEDED", restated=True),),
        (),
    ),
    "a restatement of a readmission": (
        replace(LOST, **NO_LADDER, reason="READMITTED"),
        facts.restate(12),
        replace(LOST, **NO_LADDER, reason="READMITTED", version=V),
        (ExamineeDisconnected(**AWAY, timestamp=at(5), reason="READMITTED", restated=True),),
        (),
    ),
    "a restatement of a migration": (
        MOVING,
        facts.restate(12),
        replace(MOVING, version=V),
        (ExamineeMigrating(**AWAY, timestamp=at(5), restated=True),),
        (WatchReconnect(PLAN, EXAMINEE, 30),),
    ),
    "a restatement of a removal": (
        REMOVED,
        facts.restate(12),
        replace(REMOVED, version=V),
        (
            ExamineeRemoved(
                **ID,
                status="DISCONNECTED",
                by="S009",
                reason="cheating",
                timestamp=at(5),
                restated=True,
                name="Kim",
                version=V,
            ),
        ),
        (CloseSocket("SOCK001", A, CloseCode.REMOVED, V),),
    ),
    "a restatement of a removal of who never came": (
        ROSTER_REMOVED,
        facts.restate(12),
        replace(ROSTER_REMOVED, version=V),
        (ExamineeRemoved(**ID, status="NEVER", by="S009", timestamp=at(12), restated=True, name="Kim", version=V),),
        (),
    ),
    "a restatement of the roster": (
        ON_ROSTER,
        facts.restate(12),
        replace(ON_ROSTER, version=V),
        (
            ExamineeEnrolled(
                **ID,
                name="Kim",
                connection=ConnectionView(version=20),
                reconnect=ReconnectView(),
                removed=False,
                timestamp=at(12),
                restated=True,
                version=V,
            ),
        ),
        (),
    ),
    "a restatement of nobody": (ConnectionState(), facts.restate(12), ConnectionState(), (), ()),
}


@pytest.mark.parametrize("name", list(CONNECTION_CASES))
def test_the_outcome_of_a_fact_about_the_connection(name: str) -> None:
    before, fact, state, events, effects = CONNECTION_CASES[name]
    outcome = connection.apply(before, V, fact)
    assert outcome.state == state
    assert outcome.events == events
    assert outcome.effects == effects


def test_the_views_of_a_connection_have_all_fields() -> None:
    assert LOST.view() == ConnectionView(
        status="DISCONNECTED", socket_id=A, server_id="SOCK001", reason="PING_TIMEOUT", since=at(5), version=40
    )
    assert replace(LOST, exhausted=True).reconnect_view() == ReconnectView(
        count=4, attempt=2, max_attempts=3, next_attempt_at=at(9), exhausted=True
    )


def test_outages_are_measured_in_milliseconds() -> None:
    since = LOST.since
    assert since is not None
    lost = replace(LOST, since=since.replace(".000Z", ".000400Z"))
    (event,) = connection.apply(lost, V, ON_B).events
    assert isinstance(event, ExamineeConnected)
    assert event.outage_seconds == 5.0


def test_only_a_live_socket_is_visible() -> None:
    assert connection_state.visible_part(LIVE) == (CONNECTED, A, False, False, "Kim", {}, (), False)
    assert connection_state.visible_part(SHUT_OUT) == (DISCONNECTED, None, True, False, "Kim", {}, (), False)
    assert connection_state.visible_part(REMOVED) == (DISCONNECTED, None, False, True, "Kim", {}, (), False)


@pytest.mark.parametrize("record", [ConnectionState, MobileSyncState, NoticesState, ServerState])
def test_a_new_record_has_nothing(
    record: type[ConnectionState | MobileSyncState | NoticesState | ServerState],
) -> None:
    values = {name: value for name, value in asdict(record()).items() if value}
    defaults: dict[type, dict[str, object]] = {
        ServerState: {"server_type": "SOCKET"},
        ConnectionState: {"unstable_share": 0.2, "unstable_window": 600},
    }
    assert values == defaults.get(record, {})


# -- the actions of proctors -------------------------------------------------------------------------------


def test_an_action_without_an_id_is_never_a_repetition() -> None:
    assert not action_ids.already_applied(("readmit None",), facts.readmit())
    assert action_ids.with_action(("readmit a0",), facts.readmit()) == ("readmit a0",)
    assert action_ids.message_id(facts.readmit()) is None


def test_the_newest_fifty_actions_are_remembered() -> None:
    actions: tuple[str, ...] = ()
    for number in range(60):
        actions = action_ids.with_action(actions, facts.readmit(action=f"a{number}"))
    assert actions == tuple(f"readmit a{number}" for number in range(10, 60))


def test_the_message_id_of_an_action_names_the_plan_the_examinee_the_type_and_the_action() -> None:
    """Servers of different releases must give the same action the same id."""
    digest = hashlib.sha256(b"P001\nE001\nreadmit\na1").hexdigest()
    assert action_ids.message_id(facts.readmit(action="a1")) == f"action-{digest}"
