"""Starts that fail: a bounded number of tries, FAILED with its reason, a plain word, an exit code."""

from __future__ import annotations

import asyncio
import json
import socket
import sys
from typing import Any

import nats.errors
import pytest
from nats.aio.msg import Msg

from actors.runtime.broker.connection import Bus
from actors.runtime.config.settings import Settings
from protocol.broker import subjects
from protocol.errors import ErrorCode, RoleFailed
from protocol.messages.codec import encode
from protocol.messages.frames import Error
from protocol.messages.server_messages import QueueCreate, QueueCreated
from tests.integration.start_up.support import quick, record_of
from tests.integration.support.system import RawClient, System, eventually


async def fails(system: System, reason: str) -> RoleFailed:
    """Start SOCK001, which fails; FAILED with the reason is in Redis, and nobody listens."""
    with pytest.raises(RoleFailed, match=f"SOCK001 cannot start: {reason}") as raised:
        await system.start_server("SOCK001")
    await eventually(lambda: system.server_is("SOCK001", "FAILED"), "FAILED in Redis")
    assert (await record_of(system))["reason"] == reason
    await system.stop("SOCK001")
    assert (await record_of(system))["statusCode"] == "FAILED"
    return raised.value


def attempts(caplog: pytest.LogCaptureFixture, reason: str) -> int:
    return sum(reason in record.getMessage() for record in caplog.records if record.levelname == "WARNING")


async def test_without_a_queue_server_the_start_fails_with_a_reason(
    bare: System, caplog: pytest.LogCaptureFixture
) -> None:
    await bare.stop("queue-server")
    error = await fails(bare, "QUEUE_CREATE_FAILED")
    assert "nobody listens on queue.create" in str(error)
    assert attempts(caplog, "QUEUE_CREATE_FAILED") == 2


async def test_a_queue_server_that_refuses_is_asked_a_bounded_number_of_times(bare: System, bus: Bus) -> None:
    await bare.stop("queue-server")
    requests: list[bytes] = []

    async def refuse(msg: Msg) -> None:
        requests.append(msg.data)
        await msg.respond(encode(Error(code=ErrorCode.UNAVAILABLE, message="no room for another queue")))

    await bus.subscribe(subjects.QUEUE_CREATE, refuse)
    await bus.round_trip()
    error = await fails(bare, "QUEUE_CREATE_FAILED")
    assert "no room for another queue" in str(error)
    assert len(requests) == 2


async def test_a_queue_deleted_before_it_is_read_fails_the_start(
    bare: System, bus: Bus, caplog: pytest.LogCaptureFixture
) -> None:
    await bare.stop("queue-server")

    async def promise(msg: Msg) -> None:
        request = json.loads(msg.data)["data"]
        answer = QueueCreated(
            server_id=request["serverId"], queue_id=request["queueId"], stream="SOCKET", consumers=["SOCK001_Q"]
        )
        await msg.respond(encode(answer))

    await bus.subscribe(subjects.QUEUE_CREATE, promise)
    await bus.round_trip()
    error = await fails(bare, "SUBSCRIBE_FAILED")
    assert "consumer SOCKET/SOCK001_Q does not exist" in str(error)
    assert attempts(caplog, "SUBSCRIBE_FAILED") == 2


async def test_handlers_that_cannot_be_registered_fail_the_start(
    bare: System, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    make = Bus.connect

    async def without_services(url: str, name: str) -> Bus:
        bus = await make(url, name)
        subscribe = bus._nc.subscribe

        async def refuse(subject: str, *args: Any, **kwargs: Any) -> Any:
            if subject.startswith("$SRV."):
                raise nats.errors.OutboundBufferLimitError
            return await subscribe(subject, *args, **kwargs)

        monkeypatch.setattr(bus._nc, "subscribe", refuse)
        return bus

    monkeypatch.setattr(Bus, "connect", without_services)
    await fails(bare, "HANDLER_REGISTER_FAILED")
    assert attempts(caplog, "HANDLER_REGISTER_FAILED") == 2


async def test_a_taken_port_fails_the_start_and_a_free_one_afterwards_does_not(bus: Bus, settings: Settings) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        async with System(quick(settings, **{"socket.port": port}), servers=()) as system:
            await fails(system, "PORT_OPEN_FAILED")
            listener.close()
            await system.start_server("SOCK001")
            await eventually(lambda: system.server_is("SOCK001", "READY"), "READY in Redis")
            assert not (await record_of(system))["reason"]
            client = await RawClient.open(f"ws://127.0.0.1:{port}/v1/connect")
            await client.hello(system.token("examinee", "E001"))
            await client.close()


async def test_a_failed_start_of_a_process_prints_a_reason_and_exits_with_a_code(bare: System) -> None:
    await bare.stop("queue-server")
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "cli.main", "run", "socket-server", "--server-id", "SOCK001"),
        *("--nats-url", bare.settings.nats_url, "--redis-url", bare.settings.redis_url),
        *("--data-dir", str(bare.settings.data_dir)),
        env={"EXAMWIRE_SERVER__START_ATTEMPTS": "2", "PATH": "/usr/bin:/bin"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await asyncio.wait_for(process.communicate(), 30)
    assert process.returncode == 1
    assert out == b""
    last = err.decode().strip().splitlines()[-1]
    assert "SOCK001 cannot start: QUEUE_CREATE_FAILED: nobody listens on queue.create" in last
    assert "Traceback" not in err.decode()
    await eventually(lambda: bare.server_is("SOCK001", "FAILED"), "FAILED in Redis")


async def test_an_invalid_queue_request_is_refused_naming_the_field(bare: System, bus: Bus) -> None:
    valid_request = QueueCreate(server_id="SOCK005", queue_id="SOCK005_Q")
    for change, field in (
        ({"queueId": "SOCK001_Q"}, "data.queueId"),
        ({"queueType": "work"}, "data.queueType"),
        ({"config": {"maxSize": 0}}, "data.config.maxSize"),
        ({"config": {"expireTime": -1}}, "data.config.expireTime"),
        ({"config": {"priority": "urgent"}}, "data.config.priority"),
    ):
        body = json.dumps({"type": "queue_create", "data": {**valid_request.data(), **change}}).encode()
        answer = json.loads(await bus.request(subjects.QUEUE_CREATE, body))
        assert (answer["type"], answer["data"]["code"], answer["data"]["field"]) == ("error", "INVALID_FIELD", field)
    assert await bus.consumer_config("SOCKET", "SOCK005_Q") is None
    answer = json.loads(await bus.request(subjects.QUEUE_CREATE, encode(valid_request)))
    assert answer["data"]["consumers"] == ["SOCK005_Q"]
