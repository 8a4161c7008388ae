"""What one connection may send, and how many one address may make: others do not notice who goes beyond."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
from websockets.exceptions import InvalidStatus
from websockets.typing import Subprotocol

from actors.runtime.broker.connection import Bus
from actors.runtime.config.settings import Settings
from actors.runtime.telemetry.metrics import REGISTRY
from actors.sessions.limits import address_limits
from protocol.messages.frames import BURST_SECONDS, CONNECT_PATH, HELLO_BYTES, HELLO_FRAMES, TOKEN_SUBPROTOCOL
from tests.integration.bad_input.support import Neighbours
from tests.integration.bad_input.test_headers import answer_to, head_of
from tests.integration.support.clients.attacker import ATTACKS, HANDSHAKE
from tests.integration.support.settings import changed
from tests.integration.support.system import RawClient, System, eventually

OTHER = "127.0.0.2"
"""Another address of this machine."""


def hits(reason: str) -> float:
    return REGISTRY.get_sample_value("examwire_socket_limits_hit_total", {"reason": reason}) or 0.0


class Bare:
    """A client on a bare TCP connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    @classmethod
    async def open(cls, system: System, source: str | None = None) -> Bare:
        url = system.server("SOCK001").url
        host, _, port = url.split("/")[2].rpartition(":")
        return cls(*await asyncio.open_connection(host, int(port), local_addr=(source, 0) if source else None))

    async def end(self) -> bytes:
        """Everything that the server sends until it closes."""
        received = b""
        try:
            async with asyncio.timeout(30):
                while more := await self.reader.read(65536):
                    received += more
        except ConnectionError:
            pass
        self.writer.close()
        return received


# -- one connection ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["pings", "pongs", "fragments"])
async def test_a_stranger_who_sends_many_frames_is_closed_with_1008(
    system: System, neighbours: Neighbours, kind: str
) -> None:
    before = hits("before_hello")
    frame, next_frame = ATTACKS[kind]
    bare = await Bare.open(system)
    bare.writer.write(HANDSHAKE)
    assert (await bare.reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101")
    bare.writer.write(frame.removeprefix(HANDSHAKE) + next_frame * 100)
    received = await bare.end()
    assert b"\x88" + bytes([2 + len("POLICY_VIOLATION")]) + (1008).to_bytes(2) + b"POLICY_VIOLATION" in received
    assert received.count(b"\x8a\x00") < 3 * HELLO_FRAMES, "pings beyond the limit are not answered"
    assert hits("before_hello") == before + 1


async def test_a_stranger_who_sends_many_bytes_is_closed_with_1008(system: System, neighbours: Neighbours) -> None:
    client = await system.raw()
    await client.websocket.send("x" * 2 * HELLO_BYTES)
    assert await client.closed() == 1008


async def test_a_hello_with_the_longest_token_fits_also_frame_by_frame(system: System, neighbours: Neighbours) -> None:
    hello = json.dumps({"type": "hello", "data": {"token": "x" * 8192, "clientId": "c", "connectionNo": 1}})
    for size in (len(hello), 2048):
        client = await system.raw()
        await client.websocket.send(hello[at : at + size] for at in range(0, len(hello), size))
        assert await client.closed() == 4502, "it was read, and the token is none"


@pytest.fixture
def slow(settings: Settings) -> Settings:
    return changed(settings, {"socket.frames_per_second": 10, "socket.bytes_per_second": 16384})


@pytest.fixture
async def slow_system(bus: Bus, slow: Settings) -> AsyncIterator[System]:
    async with System(slow, servers=("SOCK001",)) as system:
        yield system
        assert system.failures == []


async def test_a_greeted_client_who_sends_too_much_is_read_more_slowly_and_loses_nothing(slow_system: System) -> None:
    flooding, other = await slow_system.examinee("E001"), await slow_system.examinee("E002")
    before, many = hits("paused"), int(10 * BURST_SECONDS) + 40
    start = time.monotonic()
    for _ in range(many):
        await flooding.say("heartbeat")
    await other.say("heartbeat")
    await other.expect("heartbeat")
    assert len([frame for frame in flooding.frames if frame["type"] == "heartbeat"]) < many

    async def all_answered() -> bool:
        return len([frame for frame in flooding.frames if frame["type"] == "heartbeat"]) == many

    await eventually(all_answered, "an answer to each")
    assert time.monotonic() - start > 1.0, "forty more than it may send at once; ten a second, and some owed"
    assert hits("paused") > before
    await slow_system.status("E001", "CONNECTED")


async def test_a_greeted_client_may_close_while_it_is_read_more_slowly(slow_system: System) -> None:
    proctor, flooding = await slow_system.proctor(), await slow_system.examinee("E001")
    for _ in range(100):
        await flooding.websocket.ping()
    await flooding.close()
    await proctor.expect("examinee_disconnected", examineeId="E001", reason="CLIENT_CLOSED")


async def test_a_request_that_does_not_come_ends_the_connection(
    system: System, neighbours: Neighbours, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(address_limits, "REQUEST_SECONDS", 0.5)
    silent, slow = await Bare.open(system), await Bare.open(system)

    async def trickle() -> None:
        for byte in HANDSHAKE[:-1] * 100:
            slow.writer.write(bytes([byte]))
            await asyncio.sleep(0.05)

    trickling = asyncio.create_task(trickle())
    assert await silent.end() == b""
    assert await slow.end() == b""
    trickling.cancel()


# -- one address -------------------------------------------------------------------------------------------


@pytest.fixture
def narrow(settings: Settings) -> Settings:
    """One handshake of a stranger for each address, and then hardly another one."""
    return changed(settings, {"socket.accept_per_address": 0.01, "socket.trusted_proxies": ["127.0.0.3"]})


@pytest.fixture
async def narrow_system(bus: Bus, narrow: Settings) -> AsyncIterator[System]:
    async with System(narrow, servers=("SOCK001",)) as system:
        yield system
        assert system.failures == []


async def status_of(system: System, source: str, *lines: str) -> int:
    """The status of a handshake from an address. The connection is closed at once."""
    bare = await Bare.open(system, source)
    headers = [tuple(line.split(": ", 1)) for line in HANDSHAKE.decode().strip().split("\r\n")[1:]]
    more = [line.encode() for line in lines]
    bare.writer.write(head_of(CONNECT_PATH, [(name, value) for name, value in headers], *more))
    status = int((await bare.reader.readuntil(b"\r\n\r\n")).split(b" ")[1])
    bare.writer.close()
    return status


async def test_a_flood_from_one_address_does_not_use_up_handshakes_of_other_addresses(narrow_system: System) -> None:
    flood = [await status_of(narrow_system, OTHER) for _ in range(10)]
    assert flood == [101, *[503] * 9]
    await narrow_system.examinee("E001")


async def test_a_valid_token_is_preferred_to_strangers_of_the_same_address(narrow_system: System) -> None:
    assert [await status_of(narrow_system, "127.0.0.1") for _ in range(3)] == [101, 503, 503]
    url, token = narrow_system.server("SOCK001").url, narrow_system.token("examinee", "E001")
    program = await RawClient.open(url, additional_headers={"Authorization": f"Bearer {token}"})
    await program.say("hello", clientId="program", connectionNo=1)  # as the handshake has shown it
    await program.expect("welcome")
    subprotocols = [Subprotocol("examwire.v1"), Subprotocol(TOKEN_SUBPROTOCOL + token)]
    page = await RawClient.open(url, subprotocols=subprotocols, origin="http://127.0.0.1:1")
    assert page.websocket.subprotocol == "examwire.v1"
    await page.hello(token, "page")
    for client in (program, page):
        await client.close()
    for worthless in (token[:-2], narrow_system.token("examinee", "E001") + "x", "x", ""):
        assert await status_of(narrow_system, "127.0.0.1", f"Authorization: Bearer {worthless}") == 503


async def test_one_token_is_not_always_preferred_to_strangers(narrow_system: System) -> None:
    await status_of(narrow_system, "127.0.0.1")
    authorization = f"Authorization: Bearer {narrow_system.token('examinee', 'E001')}"
    answers = [await status_of(narrow_system, "127.0.0.1", authorization) for _ in range(11)]
    assert answers == [*[101] * 10, 503]


async def test_a_browser_over_the_handshake_rate_gets_a_close_code(narrow_system: System) -> None:
    await status_of(narrow_system, "127.0.0.1")
    page = await RawClient.open(narrow_system.server("SOCK001").url, origin="http://127.0.0.1:1")
    assert await page.closed() == 1013
    evil = "Origin: https://evil.example"
    assert await status_of(narrow_system, "127.0.0.1", evil) == 403


async def test_limits_use_the_address_that_a_trusted_proxy_forwards(narrow_system: System) -> None:
    proxy = "127.0.0.3"
    for address in ("192.0.2.1", "192.0.2.2", "2001:db8::1"):
        forwarded = f"X-Forwarded-For: 10.0.0.1, {address}"
        assert [await status_of(narrow_system, proxy, forwarded) for _ in range(2)] == [101, 503]
    assert await status_of(narrow_system, proxy, "X-Forwarded-For: 2001:db8::2") == 503, "the same customer"
    # Whom nobody trusts may say what they like.
    assert [await status_of(narrow_system, OTHER, f"X-Forwarded-For: 198.51.100.{host}") for host in (1, 2)] == [
        101,
        503,
    ]


async def test_proctors_are_shown_the_forwarded_address(narrow_system: System) -> None:
    proctor = await narrow_system.proctor()
    client = await RawClient.open(
        narrow_system.server("SOCK001").url,
        local_addr=("127.0.0.3", 0),
        additional_headers={"X-Forwarded-For": "192.0.2.9"},
    )
    await client.hello(narrow_system.token("examinee", "E001"))
    connected = await proctor.expect("examinee_connected", examineeId="E001")
    assert connected["data"]["clientInfo"]["ipAddress"] == "192.0.2.9"
    await client.close()


async def test_connections_without_hello_are_limited_and_the_oldest_is_dropped(
    bus: Bus, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = changed(settings, {"socket.max_strangers_per_address": 3})
    async with System(few, servers=("SOCK001",)) as system:
        proctor = await system.proctor()
        silent = [await system.raw() for _ in range(3)]
        with pytest.raises(InvalidStatus) as refused:
            await RawClient.open(system.server("SOCK001").url)
        assert refused.value.response.status_code == 503
        assert int(refused.value.response.headers["Retry-After"]) >= 1
        elsewhere = await RawClient.open(system.server("SOCK001").url, local_addr=(OTHER, 0))
        await elsewhere.close()
        monkeypatch.setattr(address_limits, "YOUNG_SECONDS", 0.0)  # they have had their time
        await system.examinee("E001")
        assert await silent[0].closed() is None
        greeted = [await system.examinee(f"E{number}") for number in range(10, 20)]
        for client in [proctor, *greeted]:
            before = len(client.frames)
            await client.say("heartbeat")
            await client.expect("heartbeat", after=before)
        assert system.failures == []


async def test_connections_of_an_address_are_limited(bus: Bus, settings: Settings) -> None:
    few = changed(settings, {"socket.max_connections_per_address": 2})
    async with System(few, servers=("SOCK001",)) as system:
        first, _ = await system.examinee("E001"), await system.examinee("E002")
        assert await status_of(system, "127.0.0.1") == 503
        assert await status_of(system, OTHER) == 101
        await first.close()
        await eventually(lambda: _is(system, 101), "a place that has become free")


async def _is(system: System, status: int) -> bool:
    return await status_of(system, "127.0.0.1") == status


async def test_health_is_answered_during_a_flood(narrow_system: System) -> None:
    url: Any = narrow_system.server("SOCK001").url
    for _ in range(5):
        assert (await answer_to(url, head_of("/healthz", [("Host", "x")])))[0] == 200
