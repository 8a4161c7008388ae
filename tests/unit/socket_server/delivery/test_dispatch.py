"""Messages of the queue, dispatched to sessions and feeds."""

from __future__ import annotations

import asyncio
import re
from types import SimpleNamespace
from typing import Any, cast

import pytest

from actors.runtime.actor.receiver import Received
from actors.sessions.examinee_session import ExamineeSession
from actors.sessions.plan_feed import PlanFeed
from actors.sessions.session import MOST_OVERFLOW, SocketSession
from actors.socket_server.delivery.dispatch import Dispatcher
from actors.socket_server.delivery.queue_reader import QueueBatch
from actors.socket_server.sessions import Sessions
from protocol.broker import subjects
from protocol.broker.stream_codecs import decode_socket
from protocol.messages.base import Message
from protocol.messages.codec import MAX_BATCH_MESSAGES, Malformed, encode
from protocol.messages.facts import Notice
from protocol.messages.frames import EnterMobileSync
from protocol.messages.plan_facts import PlanStatusCode
from protocol.messages.proctor_events import PlanStateEvent
from protocol.messages.session_messages import SessionAnnounce, SessionClose, SessionState
from protocol.messages.views import ConnectionView
from tests.unit.protocol.client.plan_events import lost
from tests.unit.support.socket_sessions import FakeConnection, examinee_session, fake_context
from tests.unit.support.waiting import until

MORE_THAN_A_MAILBOX = SocketSession.mailbox_capacity + 20


class Brought:
    """A delivery of the queue."""

    def __init__(self, subject: str, message: Message) -> None:
        self.subject = subject
        self.payload = encode(message)


def batch_of(*messages: tuple[str, Message]) -> QueueBatch:
    received = []
    for subject, message in messages:
        delivery = Brought(subject, message)
        (element,) = decode_socket(subject, delivery.payload, {})
        assert not isinstance(element, Malformed), element
        received.append(Received(cast(Any, delivery), [cast(Any, element)], [0], 1))
    return QueueBatch(received)


def notice(examinee_id: str, number: int) -> tuple[str, Notice]:
    message = Notice(
        plan_id="P001",
        examinee_id=examinee_id,
        by="kim",
        text="Please wait.",
        action_id=f"n-{number}",
        timestamp="2026-01-05T09:00:00.000Z",
        version=number,
    )
    return subjects.socket_examinee("P001", examinee_id), message


def close(session: ExamineeSession) -> tuple[str, SessionClose]:
    return subjects.socket_server("SOCK001"), SessionClose(socket_id=session.socket_id, code=4503)


class Server:
    """The parts of a socket server that dispatch."""

    def __init__(self) -> None:
        self.context = fake_context()
        self.sessions = Sessions(self.context)
        self.dispatcher = Dispatcher(self.context, self.sessions, cast(Any, None))

    async def connect(self, examinee_id: str, connection: FakeConnection) -> ExamineeSession:
        session = await examinee_session(self.context, connection, examinee_id)
        self.sessions.add(session)
        return session


async def test_a_slow_session_holds_up_nobody_and_is_closed_as_a_slow_client(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("actors.sessions.session.SLOW_SECONDS", 0.2)
    server = Server()
    slow, quick = FakeConnection(never_closes=True), FakeConnection()
    slow_session = await server.connect("E001", slow)
    await server.connect("E002", quick)
    many = [notice("E001", number) for number in range(1, MORE_THAN_A_MAILBOX)]
    async with asyncio.timeout(5):
        await server.dispatcher.dispatch(batch_of(close(slow_session)))
        await asyncio.sleep(0)  # the session begins to wait for its close
        await server.dispatcher.dispatch(batch_of(*many, notice("E002", 900)))
    await until(lambda: quick.sent)
    assert slow.aborted is None, "it has some time to take its messages"
    await until(lambda: slow.aborted)
    assert slow.aborted == "SLOW_CLIENT"
    assert quick.aborted is None


async def test_a_session_gets_more_messages_at_once_than_its_mailbox_holds_in_their_order() -> None:
    server = Server()
    connection = FakeConnection()
    session = await server.connect("E001", connection)
    many = [notice("E001", number) for number in range(1, MOST_OVERFLOW)]
    server.context.plans.update(PlanStateEvent(plan_id="P001", status=PlanStatusCode.OPEN, version=1))
    session.tell(EnterMobileSync())  # its handler is at work while the messages come
    await server.dispatcher.dispatch(batch_of(*many))
    await until(lambda: len(connection.sent) == len(many))
    await server.dispatcher.dispatch(batch_of(notice("E001", 5000)))
    await until(lambda: len(connection.sent) == len(many) + 1)
    assert connection.sent == [message for _, message in [*many, notice("E001", 5000)]]
    assert connection.aborted is None


async def test_a_session_for_which_too_many_messages_wait_is_closed_at_once() -> None:
    server = Server()
    connection = FakeConnection(never_closes=True)
    session = await server.connect("E001", connection)
    await server.dispatcher.dispatch(batch_of(close(session)))
    most = SocketSession.mailbox_capacity + MOST_OVERFLOW
    await server.dispatcher.dispatch(batch_of(*(notice("E001", number) for number in range(1, most + 2))))
    assert connection.aborted == "SLOW_CLIENT"


async def test_a_session_that_is_being_closed_takes_no_more_messages() -> None:
    server = Server()
    connection = FakeConnection()
    session = await server.connect("E001", connection)
    connection.is_open = False
    await server.dispatcher.dispatch(batch_of(notice("E001", 1)))
    assert session.handled == 0
    assert connection.aborted is None


class Watching:
    """A proctor who has their snapshot: keeps the frames that the feed sends."""

    scope = snapshot = None
    live, unread_bytes = True, 0

    def __init__(self) -> None:
        self.connection = self
        self.frames: list[bytes] = []

    def send_frame(self, frame: bytes) -> None:
        self.frames.append(frame)


async def test_what_a_batch_brings_for_a_plan_goes_to_all_its_proctors_in_few_frames_and_nothing_stale(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    server, proctors = Server(), [Watching(), Watching()]
    feed = PlanFeed(server.context, "P001")
    await feed.start()
    monkeypatch.setattr(server.sessions, "at", {feed.address: feed}.get)
    feed.proctors |= cast(Any, set(proctors))

    def event(version: int) -> tuple[str, Message]:
        about = {"plan_id": "P001", "timestamp": "2026-01-05T09:00:00.000Z"}  # as state managers write it
        return feed.address, lost(f"E{version % 300}", version).model_copy(update=about)

    versions = [*range(1, 291), 7, *range(301, 311)]  # 7 comes again; 301 is newer than 1
    await server.dispatcher.dispatch(batch_of(*(event(version) for version in versions)))
    await server.dispatcher.dispatch(batch_of(event(10), event(311), event(310)))
    first, second = proctors
    assert all(one is other for one, other in zip(first.frames, second.frames, strict=True)), "made once"
    told = [[int(version) for version in re.findall(rb'"version":([0-9]+)', frame)] for frame in first.frames]
    assert list(map(len, told)) == [MAX_BATCH_MESSAGES, 300 - MAX_BATCH_MESSAGES, 1]
    assert [version for versions in told for version in versions] == [*range(1, 291), *range(301, 312)]


async def test_a_state_of_an_examinee_is_passed_on_as_it_has_arrived() -> None:
    server, connection = Server(), FakeConnection()
    session = await server.connect("E001", connection)
    about = {"plan_id": "P001", "examinee_id": "E001", "socket_id": session.socket_id}
    usual = SessionState(**about, connection=ConnectionView(status="CONNECTED", version=1), version=1)
    to_server = subjects.socket_server("SOCK001")
    await server.dispatcher.dispatch(
        batch_of((to_server, usual), (to_server, usual.model_copy(update={"socket_id": "SOCK001-0"})))
    )
    assert connection.texts == [encode(usual)]


async def test_a_message_for_nobody_on_this_server_is_dropped() -> None:
    server = Server()
    await server.dispatcher.dispatch(batch_of(notice("E009", 1)))


async def test_a_feed_that_stops_meanwhile_holds_up_nothing_of_the_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    lease = SimpleNamespace(anew=[])

    async def announce_anew(reason: str) -> None:
        lease.anew.append(reason)

    lease.announce_anew = announce_anew
    context = fake_context()
    sessions = Sessions(context)
    feed = PlanFeed(context, "P001")
    await feed.start()
    await feed.stop()  # its last proctor has gone
    monkeypatch.setattr(sessions, "at", {feed.address: feed}.get)
    announce = SessionAnnounce(server_id="SOCK001", reason="REDIS_LOST")
    batch = batch_of(
        (feed.address, lost("E002", 1).model_copy(update={"plan_id": "P001"})),
        (subjects.socket_server("SOCK001"), announce),
    )
    await Dispatcher(context, sessions, cast(Any, lease)).dispatch(batch)
    assert lease.anew == ["REDIS_LOST"]
