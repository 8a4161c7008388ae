"""`examwire queues` and `streams` while a whole system runs."""

from __future__ import annotations

import json
import time
from datetime import datetime

from typer.testing import Result

from actors.runtime.broker.connection import Bus
from protocol.broker import subjects
from protocol.log.partitions import partition_of
from tests.integration.support.command_line import Invoke
from tests.integration.support.system import System, eventually


async def test_queues_are_listed_with_their_readers(invoke: Invoke, system: System) -> None:
    await system.examinee("E001")
    await system.proctor("SOCK001", plan_id="P002")
    result = await invoke("queues", "ls", "-o", "json")
    assert result.exit_code == 0
    queues = {queue["queue"]: queue for queue in json.loads(result.stdout)}
    assert queues["STATUS/state-manager"]["readBy"] == ["state-manager.sm1"]
    own = queues["SOCKET/SOCK001_Q"]
    assert (own["server"], own["readBy"], own["read"], own["pending"]) == ("SOCK001", ["socket.SOCK001"], True, 0)
    assert own["config"] == {
        "maxSize": system.settings.socket.queue_max_size,
        "expireTime": system.settings.socket.queue_expire_seconds,
        "priority": system.settings.socket.queue_priority,
    }
    assert "socket.plan.P001.examinee.*" in own["filters"]
    assert own["incarnation"] == system.server("SOCK001").incarnation
    assert "SOCKET/SOCK001_Q" in (await invoke("queues", "ls")).stdout
    server_queues = json.loads((await invoke("queues", "show", "SOCK001", "-o", "json")).stdout)
    assert {plan for queue in server_queues for plan in queue["plans"]} == {"P001", "P002"}
    assert (await invoke("queues", "show", "SOCK009")).exit_code == 3


async def test_a_queue_without_a_reader_is_marked_with_its_oldest_message(invoke: Invoke, system: System) -> None:
    await system.examinee("E001")
    await system.stop("state-manager")
    client = await system.raw("SOCK001")
    await client.hello(system.token("examinee", "E002"), "browser-2")
    result = await eventually(lambda: _with_backlog(invoke), "a backlog")
    assert result.exit_code == 5
    first = json.loads(result.stdout)[0]
    queue = f"state-manager-{partition_of('P001')}"
    assert (first["queue"], first["read"], first["readBy"]) == (f"STATUS/{queue}", False, [])
    assert "NOBODY" in (await invoke("queues", "ls")).stdout
    (row,) = json.loads((await invoke("queues", "show", queue, "-o", "json")).stdout)
    oldest = row["oldestWaiting"]
    assert oldest["subject"] == subjects.status_plan("P001", subjects.socket_origin("SOCK001"))
    assert abs(datetime.fromisoformat(oldest["time"]).timestamp() - time.time()) < 30


async def _with_backlog(invoke: Invoke) -> Result | None:
    result = await invoke("queues", "ls", "-o", "json")
    return result if any(queue["pending"] for queue in json.loads(result.stdout)) else None


async def test_streams_are_listed_and_a_missing_one_is_reported(invoke: Invoke, system: System, bus: Bus) -> None:
    await system.examinee("E001")
    streams = {stream["stream"]: stream for stream in json.loads((await invoke("streams", "ls", "-o", "json")).stdout)}
    status = streams["STATUS"]
    assert status["messages"] >= 5
    assert status["bytes"] > 0
    assert status["firstTime"] <= status["lastTime"]
    assert streams["DEADLETTER"]["messages"] == 0
    await bus._js.delete_stream("DEADLETTER")
    missing = await invoke("streams", "ls")
    assert missing.exit_code == 5
    assert "missing" in missing.stdout


async def test_without_streams_the_commands_end_with_exit_codes(invoke: Invoke, bus: Bus) -> None:
    assert (await invoke("queues", "ls")).exit_code == 4
    assert (await invoke("streams", "ls")).exit_code == 5
    assert json.loads((await invoke("sessions", "ls", "-o", "json")).stdout)["total"] == 0
