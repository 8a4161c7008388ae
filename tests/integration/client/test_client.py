"""The typed Python client against a scripted server: connecting, coming back by the rules, ending."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator

import pytest
from websockets.asyncio.server import ServerConnection

from actors.client import examinee
from actors.client.client import Change, ClientClosed, ConnectionLost, ConnectRefused, GaveUp
from actors.client.examinee import ExamineeClient
from actors.client.proctor import ProctorClient
from protocol.client.plan_view import ApplyResult
from protocol.client.reconnect import GiveUp, GiveUpReason, Lost, Refused, Unreachable, Wait
from protocol.errors import ErrorCode
from protocol.messages.base import Message
from protocol.messages.codec import encode, join_batch
from protocol.messages.frames import (
    CLIENT_FRAMES,
    Accepted,
    EnterMobileSync,
    Error,
    FinishFrame,
    Heartbeat,
    Hello,
    ReconnectPolicy,
    Welcome,
    encode_text,
)
from protocol.messages.proctor_events import ExamineeConnected, ExamineeDisconnected
from protocol.messages.session_messages import SessionState
from protocol.messages.views import ConnectionView
from tests.integration.support.clients.scripted_server import QUICK, ScriptedServer
from tests.integration.support.clients.typed_clients import SECONDS, next_of
from tests.integration.support.system import eventually


@pytest.fixture
async def server() -> AsyncIterator[ScriptedServer]:
    async with ScriptedServer() as server:
        yield server


@pytest.fixture
async def other() -> AsyncIterator[ScriptedServer]:
    async with ScriptedServer() as server:
        yield server


async def test_hello_names_the_client_and_welcome_is_returned(server: ScriptedServer) -> None:
    server.scripts = [server.stay]
    client = ExamineeClient(server.url, "a-token", client_id="browser-7", connection_no=4, browser_info="Firefox")
    welcome = await client.connect()
    assert (welcome.server_id, welcome.examinee_id, client.connected) == ("SOCK001", "E001", True)
    (hello,) = server.hellos
    assert (hello.token, hello.client_id, hello.connection_no) == ("a-token", "browser-7", 4)
    assert hello.client_info is not None
    assert hello.client_info.browser_info == "Firefox"
    await client.close()
    assert not client.connected


async def test_every_try_has_a_higher_connection_no_and_the_same_client_id(server: ScriptedServer) -> None:
    server.scripts = [(503, "0"), server.stay, server.stay]
    client = ExamineeClient(server.url, "t")
    with pytest.raises(ConnectRefused):
        await client.connect()
    await client.connect()
    await client.close()
    await client.connect()
    assert [hello.connection_no for hello in server.hellos] == [2, 3]
    assert len({hello.client_id for hello in server.hellos}) == 1
    await client.close()


async def test_after_a_broken_connection_the_next_welcome_comes_as_a_frame(server: ScriptedServer) -> None:
    server.scripts = [server.break_off, server.stay]
    changes: list[Change] = []
    client = ExamineeClient(server.url, "t", on_change=changes.append)
    await client.connect()
    second_welcome = await next_of(client, Welcome)
    assert second_welcome.socket_id == "SOCK001-2"
    first, loss, wait, second = changes
    assert isinstance(first, Welcome)
    assert isinstance(loss, Lost)
    assert loss.code is None
    assert isinstance(wait, Wait)
    assert (wait.url, wait.attempt, wait.max_attempts) == (server.url, 1, 3)
    assert second == second_welcome
    await client.close()


@pytest.mark.parametrize("code", [4503, 4504, 4599])
async def test_after_a_45xx_the_client_does_not_reconnect(server: ScriptedServer, code: int) -> None:
    server.scripts = [server.close_with(code), server.stay]
    client = ExamineeClient(server.url, "t")
    await client.connect()
    with pytest.raises(GaveUp) as raised:
        await next_of(client, Welcome)
    assert raised.value.step == GiveUp(GiveUpReason.CLOSE_CODE, code=code)
    with pytest.raises(ClientClosed):
        await client.receive()
    assert server.requests == 1


async def test_a_server_that_goes_away_sends_the_client_to_the_next_endpoint(
    server: ScriptedServer, other: ScriptedServer
) -> None:
    server.endpoints = other.endpoints = [server.url, other.url]
    server.scripts, other.scripts = [server.close_with(1012)], [other.stay]
    client = ExamineeClient(server.url, "t")
    await client.connect()
    await next_of(client, Welcome)
    assert (client.url, len(server.hellos), len(other.hellos)) == (other.url, 1, 1)
    await client.close()


async def test_while_one_server_is_down_the_endpoints_are_tried_in_turn(
    server: ScriptedServer, other: ScriptedServer
) -> None:
    server.endpoints = [server.url, other.url]
    server.scripts, other.scripts = [server.break_off, (500, None)], [other.stay]
    changes: list[Change] = []
    client = ExamineeClient(server.url, "t", on_change=changes.append)
    await client.connect()
    await next_of(client, Welcome)
    assert [change.url for change in changes if isinstance(change, Wait)] == [server.url, other.url]
    assert Refused(500) in changes
    await client.close()


async def test_retry_after_is_obeyed_and_uses_up_no_attempt(server: ScriptedServer) -> None:
    server.policy = ReconnectPolicy(max_attempts=1, backoff_seconds=[0.01], jitter=0)
    server.scripts = [server.break_off, (503, "1"), server.stay]
    changes: list[Change] = []
    client = ExamineeClient(server.url, "t", on_change=changes.append)
    await client.connect()
    loop = asyncio.get_running_loop()
    before = loop.time()
    await next_of(client, Welcome)
    assert loop.time() - before >= 1.0
    assert Refused(503, 1.0) in changes
    await client.close()


async def test_a_refused_handshake_tells_its_status_and_retry_after(server: ScriptedServer) -> None:
    server.scripts = [(503, "7")]
    with pytest.raises(ConnectRefused, match="503") as refused:
        await ExamineeClient(server.url, "t").connect()
    assert (refused.value.status, refused.value.retry_after, refused.value.code) == (503, 7.0, None)


async def test_a_close_before_the_welcome_tells_its_code_and_what_was_wrong(server: ScriptedServer) -> None:
    async def refuse(connection: ServerConnection, hello: Hello) -> None:
        await connection.send(encode_text(Error(code=ErrorCode.UNAUTHORIZED, message="the token has expired")))
        await connection.close(4502, "INVALID_TOKEN")

    server.scripts = [refuse]
    client = ExamineeClient(server.url, "t")
    with pytest.raises(ConnectRefused, match=r"4502 INVALID_TOKEN .*the token has expired") as refused:
        await client.connect()
    assert refused.value.code == 4502
    with pytest.raises(GaveUp):  # going on by the rules: not after this code
        await client.receive()


async def test_a_client_gives_up_after_its_last_attempt(server: ScriptedServer) -> None:
    server.scripts = [server.break_off]
    client = ExamineeClient(server.url, "t", rng=random.Random(1))
    await client.connect()
    with pytest.raises(GaveUp, match="ATTEMPTS_USED_UP") as raised:
        await next_of(client, Welcome)
    assert raised.value.last == Refused(500)
    assert server.requests == 1 + QUICK.max_attempts


async def test_an_unreachable_server_is_retried(server: ScriptedServer) -> None:
    async with ScriptedServer() as closed_server:
        url = closed_server.url
    changes: asyncio.Queue[Change] = asyncio.Queue()
    client = ExamineeClient(url, "t", on_change=changes.put_nowait)
    with pytest.raises(ConnectRefused, match="unreachable"):
        await client.connect()
    receiving = asyncio.create_task(client.receive())
    assert await changes.get() == Unreachable()
    assert isinstance(await changes.get(), Wait)
    await client.close()
    receiving.cancel()
    await asyncio.wait({receiving})


async def test_without_reconnect_a_loss_is_raised_with_its_code(server: ScriptedServer) -> None:
    server.scripts = [server.close_with(1012, "SERVICE_RESTART"), server.stay]
    client = ExamineeClient(server.url, "t", reconnect=False)
    await client.connect()
    with pytest.raises(ConnectionLost, match="1012 SERVICE_RESTART") as raised:
        await client.receive()
    assert (raised.value.code, server.requests) == (1012, 1)


async def test_a_client_without_reconnect_that_was_refused_does_not_try_again(server: ScriptedServer) -> None:
    server.scripts = [(503, "0"), server.stay]
    client = ExamineeClient(server.url, "t", reconnect=False)
    with pytest.raises(ConnectRefused):
        await client.connect()
    with pytest.raises(ClientClosed):
        await client.receive()
    assert server.requests == 1


async def test_abort_drops_the_connection_without_a_close_frame(server: ScriptedServer) -> None:
    close_code: asyncio.Future[int | None] = asyncio.get_running_loop().create_future()

    async def watch(connection: ServerConnection, hello: Hello) -> None:
        await connection.send(encode_text(server.welcome()))
        await connection.wait_closed()
        close_code.set_result(connection.close_code)

    server.scripts = [watch]
    client = ExamineeClient(server.url, "t", reconnect=False)
    await client.connect()
    client.abort()
    assert not client.connected
    assert await asyncio.wait_for(close_code, SECONDS) == 1006
    with pytest.raises(ConnectionLost) as raised:
        await client.receive()
    assert raised.value.code is None


async def test_close_sends_1000_ends_the_frames_and_can_be_repeated(server: ScriptedServer) -> None:
    server.scripts = [server.stay]
    client = ExamineeClient(server.url, "t")
    await client.connect()

    async def all_frames() -> list[Message]:
        return [frame async for frame in client.frames()]

    receiving = asyncio.create_task(all_frames())
    await asyncio.sleep(0)
    await client.close()
    await client.close()
    assert await asyncio.wait_for(receiving, SECONDS) == []
    with pytest.raises(ConnectionLost):
        await client.send(Heartbeat())


async def test_closing_cancels_the_next_attempt(server: ScriptedServer) -> None:
    server.policy = ReconnectPolicy(max_attempts=3, backoff_seconds=[3600], jitter=0)
    server.scripts = [server.break_off, server.stay]
    waiting = asyncio.Event()
    client = ExamineeClient(server.url, "t", on_change=lambda c: waiting.set() if isinstance(c, Wait) else None)
    await client.connect()
    receiving = asyncio.create_task(client.receive())
    await asyncio.wait_for(waiting.wait(), SECONDS)
    await client.close()
    with pytest.raises(ClientClosed):
        await asyncio.wait_for(receiving, SECONDS)
    assert server.requests == 1


async def test_heartbeats_are_sent_and_their_echo_is_not_returned(server: ScriptedServer) -> None:
    server.heartbeat_seconds = 0.02
    state = SessionState(
        plan_id="P001", examinee_id="E001", socket_id="S-1", connection=ConnectionView(status="CONNECTED"), version=9
    )

    async def echo_three(connection: ServerConnection, hello: Hello) -> None:
        await connection.send(encode_text(server.welcome()))
        for _ in range(3):
            server.heard.append(CLIENT_FRAMES.decode_one(await connection.recv()))
            await connection.send(encode_text(Heartbeat()))
        await connection.send(encode_text(state))
        await connection.wait_closed()

    server.scripts = [echo_three]
    client = ExamineeClient(server.url, "t")
    await client.connect()
    async with asyncio.timeout(SECONDS):
        assert await client.receive() == state
    assert server.heard == [Heartbeat()] * 3
    assert client.session_state == state
    await client.close()


async def test_a_client_leaves_a_server_that_no_longer_answers(server: ScriptedServer) -> None:
    async def hang(connection: ServerConnection, hello: Hello) -> None:
        await connection.send(encode_text(server.welcome()))
        await connection.wait_closed()

    server.heartbeat_seconds = 0.05
    server.scripts = [hang, server.stay]
    client = ExamineeClient(server.url, "t")
    await client.connect()
    second_welcome = await next_of(client, Welcome)
    assert second_welcome.socket_id == "SOCK001-2"
    await client.close()


async def test_a_paused_client_keeps_a_server_that_answers(server: ScriptedServer) -> None:
    async def answer(connection: ServerConnection, hello: Hello) -> None:
        await connection.send(encode_text(server.welcome()))
        async for _ in connection:
            server.heard.append(Heartbeat())
            await connection.send(encode_text(Heartbeat()))

    server.heartbeat_seconds = 0.1
    server.scripts = [answer]
    client = ExamineeClient(server.url, "t")
    await client.connect()
    receiving = asyncio.create_task(client.receive())
    for _ in range(3):
        before = len(server.heard)
        _stand_still(0.4)  # its timer is late, and the answers lie in its socket

        async def beats_again(before: int = before) -> bool:
            return len(server.heard) > before + 1

        await eventually(beats_again, "it sends heartbeats on the same connection")
    assert server.requests == 1
    receiving.cancel()
    await client.close()


def _stand_still(seconds: float) -> None:
    time.sleep(seconds)


async def test_a_silenced_client_answers_no_ping_until_it_wakes(server: ScriptedServer) -> None:
    unanswered = asyncio.Event()

    async def ping(connection: ServerConnection, hello: Hello) -> None:
        await connection.send(encode_text(server.welcome()))
        async for _ in connection:
            pong = await connection.ping()
            finished, _ = await asyncio.wait({asyncio.ensure_future(pong)}, timeout=0.1)
            assert not finished
            unanswered.set()
            await connection.close(4000, "PING_TIMEOUT")

    server.scripts = [ping, server.stay]
    changes: list[Change] = []
    client = ExamineeClient(server.url, "t", on_change=changes.append)
    await client.connect()
    await client.send(EnterMobileSync())
    client.fall_silent()
    await asyncio.wait_for(unanswered.wait(), SECONDS)
    client.wake()
    await next_of(client, Welcome)
    assert [change.code for change in changes if isinstance(change, Lost)] == [4000]
    await client.close()


async def test_messages_of_one_frame_are_returned_in_order_also_after_the_welcome(
    server: ScriptedServer,
) -> None:
    loss = ExamineeDisconnected(plan_id="P001", examinee_id="E1", timestamp="2024-01-01T09:00:00Z", version=2)
    event = ExamineeConnected(
        plan_id="P001", examinee_id="E1", socket_id="S-1", timestamp="2024-01-01T09:00:00Z", version=1
    )

    async def together(connection: ServerConnection, hello: Hello) -> None:
        news = b'{"type":"from_the_future","data":{}}'
        batch = join_batch([encode(server.welcome("proctor")), encode(event), news, encode(loss)])
        await connection.send(batch.decode())
        await connection.send(join_batch([encode(loss), encode(event)]).decode())
        await connection.wait_closed()

    server.scripts = [together]
    proctor = ProctorClient(server.url, "t")
    await proctor.connect()
    events = []
    for _ in range(4):
        message = await asyncio.wait_for(proctor.receive(), SECONDS)
        events.append((message, proctor.verdict))
    assert events == [
        (event, ApplyResult.APPLIED),
        (loss, ApplyResult.APPLIED),
        (loss, ApplyResult.DOUBLED),
        (event, ApplyResult.LATE),
    ]
    assert (proctor.view.doubled, proctor.view.late, proctor.view.connected()) == (1, 1, set())
    await proctor.close()


async def test_an_idle_connection_has_no_task(server: ScriptedServer) -> None:
    server.scripts = [server.stay] * 20
    clients = [ExamineeClient(server.url, "t") for _ in range(20)]
    for client in clients:
        await client.connect()
    await eventually(lambda: _is(len(server.hellos) == 20), "20 hellos")
    ours = [task for task in asyncio.all_tasks() if "client" in repr(task.get_coro()).lower()]
    assert ours == []
    for client in clients:
        await client.close()


async def _is(fact: bool) -> bool:
    return fact


async def test_handing_in_is_said_again_with_the_same_request_id_until_it_is_accepted(
    server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def break_off_when_asked(connection: ServerConnection, hello: Hello) -> None:
        await connection.send(encode_text(server.welcome()))
        server.heard.append(CLIENT_FRAMES.decode_one(await connection.recv()))
        connection.transport.abort()

    async def refuse_once(connection: ServerConnection, hello: Hello) -> None:
        await connection.send(encode_text(server.welcome()))
        for refusal in (ErrorCode.TOO_MANY_REQUESTS, None):
            frame = CLIENT_FRAMES.decode_one(await connection.recv())
            assert isinstance(frame, FinishFrame)
            server.heard.append(frame)
            answer: Message = Accepted(request_type="finish", request_id=frame.request_id)
            if refusal is not None:
                answer = Error(code=refusal, message="later", request_type="finish", request_id=frame.request_id)
            await connection.send(encode_text(answer))
        await connection.wait_closed()

    server.scripts = [break_off_when_asked, refuse_once]
    monkeypatch.setattr(examinee, "FINISH_AGAIN_SECONDS", 0.05)
    client = ExamineeClient(server.url, "t")
    request_id = await client.finish()  # there is no connection yet
    await client.connect()
    assert (await next_of(client, Accepted)).request_id == request_id
    assert [getattr(frame, "request_id", None) for frame in server.heard] == [request_id] * 3
    assert client.finishing is None
    await client.close()
