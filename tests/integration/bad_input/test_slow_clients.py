"""Clients that do not read, or talk too much: nobody else waits for them."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
import time

import pytest

from actors import clients
from actors.runtime.bus import Bus, Outgoing
from protocol import subjects
from tests.integration.bad_input.doors import Neighbours
from tests.integration.system import System, eventually


class Deaf:
    """A client on a bare TCP socket with a tiny receive buffer, which reads only what the test reads."""

    def __init__(self, port: int) -> None:
        self._socket = socket.socket()
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1024)
        self._socket.setblocking(False)
        self._port = port

    async def hello(self, token: str) -> None:
        loop = asyncio.get_running_loop()
        await loop.sock_connect(self._socket, ("127.0.0.1", self._port))
        await loop.sock_sendall(
            self._socket,
            b"GET /v1/connect HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n",
        )
        answer = b""
        while b"\r\n\r\n" not in answer:
            answer += await loop.sock_recv(self._socket, 1)
        assert answer.startswith(b"HTTP/1.1 101")
        hello = {"type": "hello", "data": {"token": token, "clientId": "deaf", "connectionNo": 1}}
        await self.send(json.dumps(hello))

    async def send(self, text: str) -> None:
        body = text.encode()
        length = struct.pack("!BH", 0x80 | 126, len(body)) if len(body) > 125 else bytes([0x80 | len(body)])
        frame = b"\x81" + length + b"\x00\x00\x00\x00" + body  # masked with zeros
        await asyncio.get_running_loop().sock_sendall(self._socket, frame)

    def close(self) -> None:
        self._socket.close()


def port_of(system: System) -> int:
    return int(system.server("SOCK001").url.split(":")[2].split("/")[0])


async def test_a_proctor_who_does_not_read_is_ended_and_the_others_get_everything_at_once(
    system: System, bus: Bus, neighbours: Neighbours
) -> None:
    deaf = Deaf(port_of(system))
    await deaf.hello(system.token("proctor", "deaf"))

    def proctors() -> int:
        count: int = system.server("SOCK001").details()["proctors"]
        return count

    async def both_there() -> bool:
        return proctors() == 2

    await eventually(both_there, "the deaf proctor is in")
    slowest = 0.0
    number = 0
    deadline = time.monotonic() + 20
    while proctors() == 2:
        assert time.monotonic() < deadline, "the deaf proctor was never ended"
        number += 1
        padding = "x" * 40_000
        data = {"planId": "P001", "examineeId": f"E{number}", "version": number, "padding": padding}
        data |= {"socketId": "SOCK001-1", "timestamp": "2026-01-01T09:00:00.000Z"}
        started = time.monotonic()
        await bus.publish(
            Outgoing("socket.plan.P001.proctors", json.dumps({"type": "examinee_connected", "data": data}).encode())
        )
        await neighbours.proctor.expect("examinee_connected", examineeId=f"E{number}")
        slowest = max(slowest, time.monotonic() - started)
    assert slowest < 10.0, "nobody waits for the deaf one"
    assert [event["data"]["examineeId"] for event in neighbours.proctor.frames if "padding" in event["data"]] == [
        f"E{one}" for one in range(1, number + 1)
    ]
    deaf.close()


async def test_an_examinee_who_talks_and_never_reads_is_ended(
    system: System, neighbours: Neighbours, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clients, "FRAMES_PER_SECOND", 1_000_000)  # else it takes an hour to fill the buffer
    deaf = Deaf(port_of(system))
    await deaf.hello(system.token("examinee", "E001"))
    await neighbours.proctor.expect("examinee_connected", examineeId="E001")
    many = "[" + ",".join(['{"type":"heartbeat"}'] * 256) + "]"

    async def talk() -> None:
        while True:
            await deaf.send(many)

    talking = asyncio.create_task(talk())
    lost = await neighbours.proctor.expect("examinee_disconnected", seconds=20, examineeId="E001")
    assert lost["data"]["reason"] == "SLOW_CLIENT"
    await asyncio.wait([talking])
    assert isinstance(talking.exception(), OSError)
    deaf.close()


async def test_an_examinee_who_floods_is_read_at_a_pace_and_the_log_does_not_notice(
    system: System, neighbours: Neighbours, bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clients, "FRAMES_PER_SECOND", 20)
    monkeypatch.setattr(clients, "FRAMES_AT_ONCE", 10)
    flooding = await system.examinee("E001")
    before = await bus.last_message("STATUS", subjects.status_plan("P001", subjects.of_sockets("SOCK001")))
    assert before is not None
    started = time.monotonic()
    await flooding.websocket.send("[" + ",".join(['{"type":"mobile_sync_wait"}'] * 40) + "]")
    await flooding.say("heartbeat")
    await neighbours.examinee.say("heartbeat")
    await neighbours.examinee.expect("heartbeat")
    assert not [one for one in flooding.frames if one["type"] == "heartbeat"], "others do not wait for its turn"
    await flooding.expect("heartbeat")
    assert time.monotonic() - started > 1.0, "forty frames at twenty a second, ten of them at once"
