"""Clients that do not read, or talk too much: nobody else waits for them."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from contextlib import suppress

import pytest
from redis.asyncio import Redis

from actors.runtime.broker.connection import Bus, Outgoing
from actors.runtime.config.settings import Settings
from actors.sessions.examinee_session import ExamineeSession
from actors.sessions.frames import reader
from actors.sessions.session import SocketSession
from protocol.broker import subjects
from protocol.messages.frames import Role
from protocol.records import keys
from tests.integration.bad_input.support import Neighbours
from tests.integration.support.clients.slow_reader import SlowReader
from tests.integration.support.settings import changed
from tests.integration.support.system import System, eventually
from tests.support.metrics import sample


def port_of(system: System) -> int:
    return int(system.server("SOCK001").url.split(":")[2].split("/")[0])


def kernel_takes_little(system: System, examinee_id: str) -> ExamineeSession:
    """Let the kernel hold some KB for an examinee: what it takes is not seen by the server. Return the session."""
    session = system.server("SOCK001").sessions.examinee("P001", examinee_id)
    assert session is not None
    session.connection.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    return session


async def test_a_proctor_who_does_not_read_is_closed_without_delay_for_others(
    system: System, bus: Bus, neighbours: Neighbours
) -> None:
    deaf = SlowReader(port_of(system))
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
        start = time.monotonic()
        await bus.publish(
            Outgoing("socket.plan.P001.proctors", json.dumps({"type": "examinee_connected", "data": data}).encode())
        )
        await neighbours.proctor.expect("examinee_connected", examineeId=f"E{number}")
        slowest = max(slowest, time.monotonic() - start)
    assert slowest < 10.0, "nobody waits for the deaf one"
    assert [event["data"]["examineeId"] for event in neighbours.proctor.frames if "padding" in event["data"]] == [
        f"E{index}" for index in range(1, number + 1)
    ]
    deaf.close()


async def test_an_examinee_who_sends_and_never_reads_is_closed(
    system: System, neighbours: Neighbours, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reader, "FRAMES_PER_SECOND", 1_000_000)  # else it takes long to fill the buffer
    deaf = SlowReader(port_of(system))
    await deaf.hello(system.token("examinee", "E001"))
    await neighbours.proctor.expect("examinee_connected", examineeId="E001")
    kernel_takes_little(system, "E001")
    many = "[" + ",".join(['{"type":"heartbeat"}'] * 256) + "]"
    breaks = sample("examwire_socket_breaks_total", reason="SLOW_CLIENT")

    async def talk() -> None:
        while True:
            await deaf.send(many)

    talking = asyncio.create_task(talk())
    loss = await neighbours.proctor.expect("examinee_disconnected", seconds=20, examineeId="E001")
    assert loss["data"]["reason"] == "SLOW_CLIENT"
    assert sample("examwire_socket_breaks_total", reason="SLOW_CLIENT") == breaks + 1
    await asyncio.wait([talking])
    assert isinstance(talking.exception(), OSError)
    deaf.close()


async def test_a_flooding_examinee_is_throttled_and_adds_nothing_to_the_log(
    system: System, neighbours: Neighbours, bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reader, "FRAMES_PER_SECOND", 20)
    monkeypatch.setattr(reader, "FRAMES_AT_ONCE", 10)
    flooding = await system.examinee("E001")
    before = await bus.last_message("STATUS", subjects.status_plan("P001", subjects.socket_origin("SOCK001")))
    assert before is not None
    start = time.monotonic()
    await flooding.websocket.send("[" + ",".join(['{"type":"mobile_sync_wait"}'] * 40) + "]")
    await flooding.say("heartbeat")
    await neighbours.examinee.say("heartbeat")
    await neighbours.examinee.expect("heartbeat")
    assert not [frame for frame in flooding.frames if frame["type"] == "heartbeat"], "others do not wait for its turn"
    await flooding.expect("heartbeat")
    assert time.monotonic() - start > 1.0, "forty frames at twenty a second, ten of them at once"


async def test_a_snapshot_larger_than_the_buffer_reaches_a_proctor_on_a_slow_line(
    system: System, neighbours: Neighbours, settings: Settings
) -> None:
    redis = Redis.from_url(settings.redis_url)
    names = [f"X{number:04d}" for number in range(1600)]
    pipe = redis.pipeline(transaction=False)
    for name in names:
        pipe.sadd(keys.plan_examinees("P001"), name)
        pipe.hset(keys.progress("P001", name), items=["examineeId", name, "reason", "r" * 250, "version", "1"])
    await pipe.execute()
    await redis.aclose()
    slow = SlowReader(port_of(system))
    await slow.hello(system.token("proctor", "slow"))
    took = 0
    while not any(frame["data"].get("part") == 4 for frame in slow.frames):
        before = took
        took += await slow.read()
        assert not slow.ended, f"ended after {took} bytes and {len(slow.frames)} frames"
        if took // 100_000 > before // 100_000:
            # Something happens meanwhile, to the plan and on this line: that is when one looks at what waits.
            await system.examinee("X0002", connection_no=took)
            await slow.say("heartbeat")
    assert took > 4 * 128 * 1024
    rows = [row for frame in slow.frames if frame["type"] == "plan_snapshot" for row in frame["data"]["examinees"]]
    assert [row["examineeId"] for row in rows] == ["N001", *names]
    await system.examinee("X0001")
    while not any(frame["data"].get("examineeId") == "X0001" for frame in slow.frames):
        await slow.read()
        assert not slow.ended
    slow.close()


@pytest.mark.parametrize("role", ["proctor", "examinee"])
async def test_a_client_that_sends_but_reads_nothing_for_long_is_closed(
    bus: Bus, settings: Settings, role: Role
) -> None:
    quick = changed(settings, {"socket.ping_interval_seconds": 0.5, "socket.ping_timeout_seconds": 0.5})
    async with System(quick, servers=("SOCK001",)) as system:
        server = system.server("SOCK001")
        deaf = SlowReader(port_of(system))
        await deaf.hello(system.token(role, "E001"))

        async def there() -> SocketSession | None:
            return next(iter(server.sessions.all()), None)

        session = await eventually(there, "the deaf one is in")
        session.connection.send_now(b'{"type":"note","data":"%s"}' % (b"x" * 8_000_000))  # more than the kernel takes
        with suppress(OSError):
            deadline = time.monotonic() + 60
            while time.monotonic() < deadline and session.connection.is_open:
                await deaf.say("heartbeat")
                await asyncio.sleep(0.02)
        assert session.connection.reason() == "SLOW_CLIENT"
        deaf.close()


async def test_a_client_that_still_reads_its_backlog_is_not_timed_out(bus: Bus, settings: Settings) -> None:
    quick = changed(settings, {"socket.ping_interval_seconds": 0.4, "socket.ping_timeout_seconds": 0.4})
    async with System(quick, servers=("SOCK001",)) as system:
        server = system.server("SOCK001")
        slow = SlowReader(port_of(system))
        await slow.hello(system.token("proctor", "slow"))

        async def there() -> SocketSession | None:
            return next(iter(server.sessions.all()), None)

        session = await eventually(there, "the slow one is in")
        session.connection.send_now(b'{"type":"note","data":"%s"}' % (b"x" * 6_000_000))
        start = time.monotonic()
        while time.monotonic() - start < 3.0:
            await slow.read()
            assert not slow.ended, f"ended after {time.monotonic() - start:.1f} s: {session.connection.reason()}"
            await asyncio.sleep(0.005)  # the line: a piece each 5 ms
        assert session.connection.unsent > 0
        slow.close()


async def test_a_large_session_state_does_not_close_a_slow_examinee(bus: Bus, settings: Settings) -> None:
    small = changed(settings, {"socket.max_buffer_bytes": 64 * 1024})
    async with System(small, servers=("SOCK001",)) as system:
        proctor = await system.proctor()
        await (await system.examinee("E001")).close()
        for number in range(20):
            await proctor.say(
                "notify", examineeId="E001", requestId=f"n{number}", text=f"{number} " + "\U0001f442" * 990
            )
            await proctor.expect("notice", actionId=f"n{number}")
        slow = SlowReader(port_of(system))
        await slow.hello(system.token("examinee", "E001"))
        await proctor.expect("examinee_connected", recovered=True)

        def states() -> int:
            return sum(frame["type"] == "session_state" for frame in slow.frames)

        while states() < 1:  # else that one waits before the next, and both together are more than may wait
            await slow.read()
        session = kernel_takes_little(system, "E001")
        session.announce()

        async def waits() -> bool:
            return session.connection.unsent > 64 * 1024

        await eventually(waits, "the state waits for the examinee")
        while states() < 2:
            await slow.say("heartbeat")
            assert await slow.read(), "ended in the middle of its state"
        slow.close()
