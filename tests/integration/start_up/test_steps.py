"""Socket server start-up: each step in its order, and what is said and recorded of it."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from typing import Any

from nats.aio.msg import Msg

from actors.queue_server.server import QueueServer
from actors.runtime.actor.actor import on
from actors.runtime.broker.connection import Bus
from actors.runtime.config.settings import Settings
from cli.local.engines import free_port
from protocol.broker import subjects
from protocol.errors import ProtocolError
from protocol.messages.server_messages import QueueCreate, QueueCreated
from tests.integration.start_up.support import filters_of, quick, record_of
from tests.integration.support.system import System, eventually

FIELDS = {"serverType", "statusCode", "startTime", "queueId", "cpuUsage", "memoryUsage", "networkStatus"}


def is_open(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


class Watched(QueueServer):
    """A queue server that looks around before it answers."""

    def __init__(self, settings: Settings, bus: Bus, look: Callable[[], Any]) -> None:
        self._look = look
        super().__init__(settings, bus)

    @on(QueueCreate)
    async def look_and_create(self, request: QueueCreate) -> QueueCreated | ProtocolError:
        await self._look()
        return await self.create(request)


async def test_the_steps_of_a_start_come_in_their_order(bus: Bus, settings: Settings) -> None:
    port = free_port()
    trace: list[str] = []
    requests: list[dict[str, Any]] = []
    statuses: list[dict[str, str]] = []
    open_at: dict[str, bool] = {}

    async with System(quick(settings, **{"socket.port": port}), servers=()) as system:

        async def arrived(msg: Msg) -> None:
            step = msg.subject
            if step.startswith("status.server."):
                step = json.loads(msg.data)["data"]["status"]
            if step not in trace:
                trace.append(step)
                open_at[step] = is_open(port)

        async def look() -> None:
            """The request has come: what is there by now, and what is not yet?"""

            async def starting() -> dict[str, str]:
                return await record_of(system)

            statuses.append(await eventually(starting, "STARTING in Redis"))
            open_at["asked"] = is_open(port)

        async def asked(msg: Msg) -> None:
            requests.append(json.loads(msg.data))
            await arrived(msg)

        await bus.subscribe("lease.*", arrived)
        await bus.subscribe("status.server.>", arrived)
        await bus.subscribe(subjects.QUEUE_CREATE, asked)
        await bus.subscribe("$JS.API.CONSUMER.MSG.NEXT.SOCKET.SOCK001_Q", arrived)
        await bus.round_trip()
        await system.stop("queue-server")
        await system.start("queue-server", lambda its: Watched(system.settings, its, look))
        server = await system.start_server("SOCK001")
        await eventually(lambda: system.server_is("SOCK001", "READY"), "READY in Redis")

        pull = "$JS.API.CONSUMER.MSG.NEXT.SOCKET.SOCK001_Q"
        assert trace[:3] == ["lease.SOCK001", "STARTING", subjects.QUEUE_CREATE]
        assert set(trace[3:]) == {pull, "READY"}
        assert open_at["lease.SOCK001"] is open_at["STARTING"] is open_at["asked"] is False
        assert open_at["READY"] is True
        assert server.url == f"ws://127.0.0.1:{port}/v1/connect"

        assert requests[0]["type"] == "queue_create"
        request = requests[0]["data"]
        assert (request["serverId"], request["queueId"], request["queueType"]) == (
            "SOCK001",
            "SOCK001_Q",
            "socket_message",
        )
        assert request["config"] == {"maxSize": 10000, "expireTime": 3600, "priority": "high"}

        (starting,) = statuses
        assert (starting["serverType"], starting["statusCode"]) == ("SOCKET", "STARTING")
        ready = await record_of(system)
        assert ready.keys() >= FIELDS
        assert (ready["serverType"], ready["statusCode"], ready["queueId"]) == ("SOCKET", "READY", "SOCK001_Q")
        assert ready["startTime"] == starting["startTime"]
        assert ready["url"] == server.url


async def test_the_queue_exists_with_its_configuration(bare: System, bus: Bus) -> None:
    server = await bare.start_server("SOCK001")
    config = await bus.consumer_config("SOCKET", "SOCK001_Q")
    assert config is not None
    assert await filters_of(bus, "SOCK001_Q") == {"socket.SOCK001"}
    assert config["inactive_threshold"] == 3600
    assert {name: config["metadata"][f"examwire.{name}"] for name in ("maxSize", "expireTime", "priority")} == {
        "maxSize": "10000",
        "expireTime": "3600",
        "priority": "high",
    }
    assert config["metadata"]["examwire.incarnation"] == server.incarnation


async def test_ready_has_measured_values_that_heartbeats_update(bare: System) -> None:
    await bare.start_server("SOCK001")

    async def heard() -> dict[str, str] | None:
        record = await record_of(bare)
        return record if record.get("lastHeartbeat") else None

    first = await eventually(heard, "the first heartbeat in Redis")
    for _ in range(2):

        async def later(heartbeat: str = first["lastHeartbeat"]) -> dict[str, str] | None:
            record = await record_of(bare)
            return record if record["lastHeartbeat"] > heartbeat else None

        first = await eventually(later, "the next heartbeat in Redis")
    assert first["statusCode"] == "READY"
    assert 0 <= float(first["cpuUsage"]) <= 100
    assert 0 < float(first["memoryUsage"]) <= 100
    assert first["networkStatus"] in ("GOOD", "SLOW", "BAD")


async def test_a_stopped_server_publishes_stopped_and_migrates_its_clients(bare: System) -> None:
    await bare.start_server("SOCK001")
    examinee = await bare.examinee()
    await bare.stop("SOCK001")
    assert await examinee.closed() == 1012
    await eventually(lambda: bare.server_is("SOCK001", "STOPPED"), "STOPPED in Redis")
    await bare.status("E001", "DISCONNECTED")
    assert (await bare.progress())["reason"] == "SERVER_STOPPED"
