from __future__ import annotations

import tracemalloc
from types import SimpleNamespace
from typing import Any, cast

from hypothesis import given
from hypothesis import strategies as st

from actors.sessions.examinee_session import ExamineeSession
from actors.sessions.limits.fact_budget import ExamineeBudgets
from protocol.access.claims import Claims
from protocol.messages.codec import encode
from protocol.messages.facts import STATUS_CODEC, ConnectionStatus
from protocol.messages.frames import Heartbeat, Hello
from protocol.messages.plan_facts import PlanPolicy, PlanStatusCode
from protocol.messages.proctor_events import PlanStateEvent
from tests.unit.support.socket_sessions import FakeConnection, FakeOutbox, fake_context

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=300)
TIMES = st.none() | st.just("2026-12-01T09:00:00.000Z")
POLICIES = st.none() | st.builds(
    PlanPolicy,
    unstable_share=st.none() | st.floats(0.01, 1),
    unstable_window_seconds=st.none() | st.integers(60, 86400),
)


class EncodedOutbox(FakeOutbox):
    """Keeps the statuses as they are published."""

    def __init__(self) -> None:
        super().__init__()
        self.encoded: list[bytes] = []

    def add_encoded(self, plan_id: str, status: bytes) -> None:
        assert plan_id == "P001"
        self.encoded.append(status)


@given(
    browser=st.none() | TEXT.map(lambda text: text[:256]),
    header=st.none() | st.binary(max_size=300).map(lambda raw: raw.decode("latin-1")),
    ip=st.sampled_from(["192.0.2.1", "2001:db8::1", ""]),
    connection_no=st.integers(0, 2**53 - 1),
    plan=st.none() | st.tuples(POLICIES, TIMES, st.none() | st.dictionaries(st.sampled_from(["E001", "E002"]), TIMES)),
    close_code=st.none() | st.integers(1000, 4999),
    reason=st.sampled_from(["CLIENT_CLOSED", "SOCKET_CLOSED"]),
)
def test_the_statuses_of_a_socket_are_encoded_as_their_models_are(
    browser: str | None,
    header: str | None,
    ip: str,
    connection_no: int,
    plan: tuple[PlanPolicy | None, str | None, dict[str, str | None] | None] | None,
    close_code: int | None,
    reason: str,
) -> None:
    outbox, connection = EncodedOutbox(), FakeConnection()
    connection.slot.ip = ip
    connection.request = cast(Any, SimpleNamespace(headers={} if header is None else {"User-Agent": header}))
    cast(Any, connection).frame_code = lambda: close_code
    context = fake_context(outbox)
    if plan is not None:
        policy, starts_at, own = plan
        own_times = {name: {"startsAt": time} for name, time in (own or {}).items()}
        event = {"policy": policy, "startsAt": starts_at, "ownTimes": own_times, "version": 1}
        context.plans.update(PlanStateEvent.model_validate({"planId": "P001", "status": PlanStatusCode.OPEN, **event}))
    hello = Hello.model_validate(
        {"clientId": "browser-1", "connectionNo": connection_no, "clientInfo": {"browserInfo": browser}}
    )
    claims = Claims(sub="E001", role="examinee", plan="P001", exp=2**40)
    session = ExamineeSession(context, cast(Any, connection), claims, hello, ExamineeBudgets())
    session.announce()
    session.announce()
    session.ended(reason)
    session.ended("SOCKET_CLOSED")
    connected, again, ended = map(STATUS_CODEC.decode_one, outbox.encoded)
    assert isinstance(connected, ConnectionStatus)
    assert isinstance(again, ConnectionStatus)
    assert isinstance(ended, ConnectionStatus)
    assert (connected.status, connected.again) == ("CONNECTED", None)
    assert (ended.status, ended.reason) == ("DISCONNECTED", reason)
    assert (again.again, again.client_info, ended.close_code) == (True, connected.client_info, close_code)
    for status, encoded in zip((connected, again, ended), outbox.encoded, strict=True):
        assert encode(status) == encoded
        assert not status.has_unknown()
        assert (status.socket_id, status.connection_no) == (session.socket_id, connection_no)


def test_an_idle_session_takes_little_memory() -> None:
    context = fake_context()
    claims = [Claims(sub=f"E{number}", role="examinee", plan="P001", exp=2**40) for number in range(500)]
    connections = [cast(Any, FakeConnection()) for _ in claims]
    budgets = ExamineeBudgets()
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        sessions = []
        for connection, of_one in zip(connections, claims, strict=True):
            hello = Hello(client_id=f"client-{of_one.sub}", connection_no=1)
            session = ExamineeSession(context, connection, of_one, hello, budgets)
            session.start_at_once()
            session.tell(Heartbeat())
            session.announce()
            sessions.append(session)
        cast(FakeOutbox, context.outbox).facts.clear()
        for connection in connections:
            connection.sent.clear()
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert all(session.handled == 1 for session in sessions)
    assert (after - before) / len(sessions) < 1200
