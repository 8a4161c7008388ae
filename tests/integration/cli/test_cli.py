"""`examwire streams`, `plans` and `actors` on real engines."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any, cast

import pytest
from redis.asyncio import Redis

from actors.queue_server.server import QueueServer
from actors.runtime.broker.connection import Bus
from actors.runtime.config.settings import Settings
from actors.runtime.store.state_store import StateStore
from protocol.messages.facts import ConnectionStatusCode, MobileSyncCode
from protocol.records import keys
from protocol.records.kinds import CONNECTION, MOBILE_SYNC
from protocol.rules.connection_state import ConnectionState
from protocol.rules.mobile_sync import MobileSyncState
from tests.integration.support.command_line import Invoke

GONE = ConnectionState(
    plan_id="P001",
    examinee_id="E002",
    status=ConnectionStatusCode.DISCONNECTED,
    socket_id="SOCK002-b",
    server_id="SOCK002",
    reason="PING_TIMEOUT",
    since="2024-01-01T09:15:00.000Z",
    attempt=2,
    version=512,
)
THERE = replace(
    GONE, examinee_id="E001", status=ConnectionStatusCode.CONNECTED, server_id="SOCK001", reason=None, attempt=0
)
PICTURE = MobileSyncState(
    plan_id="P001",
    examinee_id="E001",
    status=MobileSyncCode.COMPLETED,
    device_id="M001",
    image_url="/captures/E001/sync_cap.jpg",
    version=513,
)


@pytest.fixture
async def redis(settings: Settings, store: StateStore) -> AsyncIterator[Redis]:
    """A connection of the test's own to the Redis that `store` has emptied."""
    async with Redis.from_url(settings.redis_url) as redis:
        yield redis


async def record(redis: Redis, *connections: ConnectionState) -> None:
    """Put examinees into Redis with the fields that the state manager writes."""
    pipe = redis.pipeline(transaction=False)
    for connection in connections:
        fields = CONNECTION.write(CONNECTION.empty(), connection, rev=1)
        pipe.hset(keys.progress(connection.plan_id, connection.examinee_id), mapping=cast(Any, fields))
        pipe.sadd(keys.PLANS, connection.plan_id)
        pipe.sadd(keys.plan_examinees(connection.plan_id), connection.examinee_id)
    await pipe.execute()


# -- streams --------------------------------------------------------------------------------------------


async def test_streams_are_missing_then_applied_then_the_same(invoke: Invoke, bus: Bus) -> None:
    before = await invoke("streams", "diff", "-o", "json")
    assert before.exit_code == 5
    rows = json.loads(before.stdout)
    assert {row["state"] for row in rows} == {"missing"}
    assert {"STATUS", "SOCKET", "STATUS/state-manager", "RECONNECT/reconnect-watch"} <= {row["name"] for row in rows}

    applied = await invoke("streams", "apply", "-o", "json")
    assert (applied.exit_code, json.loads(applied.stdout)) == (0, rows)

    after = await invoke("streams", "diff", "-o", "json")
    assert after.exit_code == 0
    assert {row["state"] for row in json.loads(after.stdout)} == {"same"}


async def test_status_begins_at_the_time_of_its_creation(invoke: Invoke, bus: Bus) -> None:
    earliest = int(time.time() * 1000)
    assert (await invoke("streams", "apply")).exit_code == 0
    info = await bus._js.stream_info("STATUS")
    assert earliest <= info.state.first_seq <= time.time() * 1000


async def test_a_stream_that_differs_is_shown_by_field_and_updated(invoke: Invoke, bus: Bus) -> None:
    await invoke("streams", "apply")
    longer = ("--nats-status-max-bytes", str(4 * 2**30))
    result = await invoke("streams", "diff", "-o", "json", *longer)
    assert result.exit_code == 5
    (different,) = [row for row in json.loads(result.stdout) if row["state"] != "same"]
    assert (different["name"], different["state"]) == ("STATUS", "differs")
    assert different["fields"]["max_bytes"] == {"found": 8 * 2**30, "wanted": 4 * 2**30}

    assert "max_bytes" in (await invoke("streams", "diff", *longer)).stdout
    assert (await invoke("streams", "apply", *longer)).exit_code == 0
    assert (await invoke("streams", "diff", *longer)).exit_code == 0


# -- plans ----------------------------------------------------------------------------------------------


async def test_a_plan_shows_a_row_for_each_examinee_and_counts(invoke: Invoke, redis: Redis) -> None:
    await record(redis, THERE, GONE)
    key = keys.mobile_sync("P001", "E001")
    fields = MOBILE_SYNC.write(MOBILE_SYNC.empty(), PICTURE, rev=1)
    await redis.hset(key, mapping=cast(Any, fields))

    result = await invoke("plans", "show", "P001", "-o", "json")
    assert result.exit_code == 0
    plan = json.loads(result.stdout)
    assert plan["planId"] == "P001"
    assert plan["counts"] == {
        "examinees": 2,
        "connected": 1,
        "disconnected": 1,
        "migrating": 0,
        "finished": 0,
        "exhausted": 0,
        "removed": 0,
        "never": 0,
        "mobileSync": {"COMPLETED": 1, "NONE": 1},
    }
    connected, disconnected = plan["examinees"]
    assert (connected["examineeId"], connected["status"], connected["serverId"], connected["reason"]) == (
        *("E001", "CONNECTED", "SOCK001"),
        None,
    )
    assert connected["mobileSync"] == {
        "status": "COMPLETED",
        "deviceId": "M001",
        "timestamp": None,
        "imageUrl": "/captures/E001/sync_cap.jpg",
        "reason": None,
        "version": 513,
    }
    assert disconnected | {"mobileSync": None} == {
        "examineeId": "E002",
        "name": None,
        "labels": {},
        "finishedBy": None,
        "status": "DISCONNECTED",
        "since": "2024-01-01T09:15:00.000Z",
        "lastActiveTime": "2024-01-01T09:15:00.000Z",
        "reason": "PING_TIMEOUT",
        "serverId": "SOCK002",
        "socketId": "SOCK002-b",
        "reconnectAttempt": 2,
        "exhausted": False,
        "removed": False,
        "version": 512,
        "mobileSync": None,
    }

    people = (await invoke("plans", "show", "P001")).stdout
    assert "plan P001: 2 examinees: 1 connected, 1 disconnected; " in people
    assert "mobile sync 1 COMPLETED" in people
    assert "PING_TIMEOUT" in people


async def test_a_plan_of_more_examinees_than_one_round_trip_is_complete(invoke: Invoke, redis: Redis) -> None:
    await record(redis, *(replace(THERE, examinee_id=f"E{number:04}") for number in range(1203)))
    plan = json.loads((await invoke("plans", "show", "P001", "-o", "json")).stdout)
    assert [row["examineeId"] for row in plan["examinees"]] == [f"E{number:04}" for number in range(1203)]
    assert plan["counts"]["connected"] == 1203


async def test_plans_are_listed_with_their_counts(invoke: Invoke, redis: Redis) -> None:
    await record(redis, THERE, GONE, replace(GONE, plan_id="P002", exhausted=True))
    result = await invoke("plans", "ls", "-o", "json")
    assert [(row["planId"], row["connected"], row["exhausted"]) for row in json.loads(result.stdout)] == [
        ("P001", 1, 0),
        ("P002", 0, 1),
    ]
    _, _, first, second = (await invoke("plans", "ls")).stdout.splitlines()
    assert first.split() == ["P001", "OPEN", "2", "1", "1"]
    assert second.split() == ["P002", "OPEN", "1", "0", "1", "1"]  # shut out, and so disconnected


async def test_an_unknown_plan_is_exit_code_3(invoke: Invoke, redis: Redis) -> None:
    result = await invoke("plans", "show", "P404")
    assert (result.exit_code, result.stdout) == (3, "")
    assert "P404" in result.stderr


async def test_a_damaged_record_is_an_error_that_names_its_key(invoke: Invoke, redis: Redis) -> None:
    await record(redis, THERE)
    await redis.sadd(keys.mobile_sync("P001", "E001"), "not a hash")
    result = await invoke("plans", "show", "P001")
    assert result.exit_code == 1
    assert keys.mobile_sync("P001", "E001") in result.stderr


async def test_watching_a_plan_prints_each_change_until_ctrl_c(settings: Settings, redis: Redis) -> None:
    await record(redis, THERE)
    command = [sys.executable, "-m", "cli.main", "plans", "show", "P001", "--watch", "-o", "json"]
    process = await asyncio.create_subprocess_exec(
        *command, "--redis-url", settings.redis_url, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None
    async with asyncio.timeout(30):
        first = json.loads(await process.stdout.readline())
        await record(redis, replace(THERE, status=ConnectionStatusCode.DISCONNECTED, reason="SOCKET_CLOSED"))
        second = json.loads(await process.stdout.readline())
        process.send_signal(signal.SIGINT)
        rest, errors = await process.communicate()
    assert (first["counts"]["connected"], second["counts"]["connected"]) == (1, 0)
    assert second["examinees"][0]["reason"] == "SOCKET_CLOSED"
    assert (process.returncode, rest, errors) == (0, b"", b"")


# -- actors ---------------------------------------------------------------------------------------------


@pytest.fixture
async def queue_server(settings: Settings, bus: Bus) -> AsyncIterator[QueueServer]:
    """A real actor that is on the bus."""
    server = QueueServer(settings, bus, "queue-server-1")
    await server.start()
    yield server
    await server.stop()


async def test_actors_are_listed_with_their_inspection(invoke: Invoke, queue_server: QueueServer) -> None:
    result = await invoke("actors", "ls", "-o", "json")
    assert result.exit_code == 0
    (actor,) = json.loads(result.stdout)
    assert (actor["address"], actor["kind"], actor["state"]) == (queue_server.address, "queue-server", "running")
    assert actor["mailboxCapacity"] == queue_server.mailbox_capacity
    assert queue_server.address in (await invoke("actors", "ls")).stdout
    assert json.loads((await invoke("actors", "ls", "--kind", "web-server", "-o", "json")).stdout) == []


async def test_one_actor_is_shown_by_its_address(invoke: Invoke, queue_server: QueueServer) -> None:
    result = await invoke("actors", "show", queue_server.address, "-o", "json")
    assert json.loads(result.stdout)["details"] == {"queues": {}}
    missing = await invoke("actors", "show", "queue-server.other")
    assert missing.exit_code == 3
    assert "queue-server.other" in missing.stderr


async def test_an_examinee_who_is_not_connected_has_no_session(invoke: Invoke, bus: Bus) -> None:
    result = await invoke("actors", "show", "session.P001.E001")
    assert result.exit_code == 3
    assert "not connected" in result.stderr


def inspection(address: str, kind: str) -> dict[str, Any]:
    return {"address": address, "kind": kind, "state": "running"}


async def test_all_sessions_of_a_server_are_listed_over_several_pages(invoke: Invoke, bus: Bus) -> None:
    sessions = [inspection(f"session.P001.E{number:04}", "examinee-session") for number in range(1201)]
    sessions.append(inspection("proctor.P001.SOCK001-x", "proctor-session"))

    async def answer(payload: bytes) -> bytes:
        if not payload:
            return json.dumps(inspection("socket.SOCK001", "socket-server")).encode()
        page = json.loads(payload)["sessions"]
        matching = [numbered for numbered in enumerate(sessions, 1) if page["kind"] in (None, numbered[1]["kind"])]
        page_rows = [numbered for numbered in matching if numbered[0] > page["after"]][: page["limit"]]
        following = page_rows[-1][0] if page_rows and page_rows[-1] is not matching[-1] else None
        answer_page = {"total": len(matching), "next": following, "sessions": [session for _, session in page_rows]}
        return json.dumps(answer_page).encode()

    service = await bus.add_service(
        "socket-server",
        version="1.0.0",
        description="a socket server",
        metadata={"address": "socket.SOCK001", "kind": "socket-server", "inspect": "inspect.test"},
        endpoints={"inspect": ("inspect.test", answer)},
        details=dict,
    )
    try:
        everyone = json.loads((await invoke("actors", "ls", "--sessions", "-o", "json")).stdout)
        proctors = json.loads((await invoke("actors", "ls", "--kind", "proctor-session", "-o", "json")).stdout)
        plain = json.loads((await invoke("actors", "ls", "-o", "json")).stdout)
    finally:
        await bus.remove_service(service)
    assert [actor["address"] for actor in everyone] == ["socket.SOCK001", *(session["address"] for session in sessions)]
    assert [proctor["address"] for proctor in proctors] == ["proctor.P001.SOCK001-x"]
    assert [actor["address"] for actor in plain] == ["socket.SOCK001"]


async def test_an_actor_that_does_not_answer_is_listed_as_silent(invoke: Invoke, bus: Bus) -> None:
    service = await bus.add_service(
        "web-server",
        version="1.0.0",
        description="a web server whose inspection nobody answers",
        metadata={"address": "web-server-1", "kind": "web-server", "inspect": "inspect.nobody"},
        endpoints={},
        details=dict,
    )
    try:
        (actor,) = json.loads((await invoke("actors", "ls", "-o", "json")).stdout)
    finally:
        await bus.remove_service(service)
    assert (actor["address"], actor["state"]) == ("web-server-1", "silent")
    assert "inspect.nobody" in actor["lastError"]
