"""The operator's four tasks, by the very commands of the runbook, on a whole `examwire up`."""

from __future__ import annotations

import asyncio
import json
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis
from typer.testing import Result

from actors.client.examinee import ExamineeClient
from actors.client.proctor import ProctorClient
from actors.runtime.broker.connection import Bus, Outgoing
from actors.runtime.config.settings import load_settings
from actors.runtime.config.tokens import issue_token
from actors.runtime.store.state_store import StateStore
from protocol.records import keys
from tests.integration.support.command_line import command_with
from tests.integration.support.system import eventually
from tests.integration.support.up import Up, left_of

ROOT = Path(__file__).parents[3]
PLAN = "P001"


def commands_of(task: str) -> list[str]:
    """The commands under a heading of the runbook, comments left out."""
    runbook = (ROOT / "docs" / "runbook.md").read_text()
    section = re.search(rf"^### {re.escape(task)}\n(.*?)^##", runbook, re.DOTALL | re.MULTILINE)
    assert section is not None, f"the runbook has no task {task!r}"
    blocks = re.findall(r"^```\n(.*?)^```", section[1], re.DOTALL | re.MULTILINE)
    lines = [line.partition("#")[0].strip() for block in blocks for line in block.splitlines()]
    return [line for line in lines if line]


class Operator:
    """Somebody at a terminal beside a running system."""

    def __init__(self, data_dir: Path) -> None:
        self._invoke = command_with({"EXAMWIRE_DATA_DIR": str(data_dir), "COLUMNS": "200"})

    async def run(self, command: str, *, code: int = 0) -> str:
        """What the operator reads; asked whether it may, the answer is yes."""
        done = await self._run(command, code)
        return done.stdout + done.stderr

    async def ask(self, command: str) -> Any:
        return json.loads((await self._run(f"{command} -o json", 0)).stdout)

    async def _run(self, command: str, code: int) -> Result:
        program, *arguments = shlex.split(command)
        assert program == "examwire"
        async with asyncio.timeout(90):
            result = await self._invoke(*arguments, answer="y\n")
        assert result.exit_code == code, f"{command}: exit {result.exit_code}\n{result.stdout}\n{result.stderr}"
        return result


@pytest.fixture(scope="module")
def exam(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    """A whole system, as `examwire up` runs it."""
    up = Up(tmp_path_factory.mktemp("exam") / "data", "--json", "--reconnect-backoff-seconds", "4,60,60,60,60")
    try:
        up.wait_ready()
        yield up
    finally:
        if up.process.poll() is None:
            up.process.terminate()
        up.ended()
        assert left_of(up.data_dir) == []


@contextmanager
def started(arguments: str) -> Iterator[subprocess.Popen[str]]:
    """`examwire` with these arguments, beside everything else."""
    command = [sys.executable, "-m", "cli.main", *shlex.split(arguments)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.fixture
def operator(exam: Up) -> Operator:
    return Operator(exam.data_dir)


def url_of(exam: Up, server_id: str) -> str:
    (url,) = [server["url"] for server in exam.ready["socketServers"] if server["serverId"] == server_id]
    return str(url)


def token(exam: Up, role: Any, subject: str) -> str:
    return issue_token(load_settings(data_dir=exam.data_dir), role, PLAN, subject)


async def connected_in(exam: Up, plan_id: str) -> int:
    """How many examinees of a plan Redis says are connected."""
    store = StateStore(exam.ready["redisUrl"], load_settings().redis)
    try:
        examinee_ids = await store.members(keys.plan_examinees(plan_id))
        statuses = await store.fields(
            [keys.progress(plan_id, examinee_id) for examinee_id in examinee_ids], ["connStatusCode"]
        )
    finally:
        await store.close()
    return sum(status == "CONNECTED" for (status,) in statuses)


def examinee(exam: Up, examinee_id: str, server_id: str = "SOCK001") -> ExamineeClient:
    return ExamineeClient(url_of(exam, server_id), token(exam, "examinee", examinee_id), reconnect=False)


async def test_streams_diff_uses_the_flags_of_a_running_up(exam: Up, operator: Operator) -> None:
    assert "differs" not in await operator.run("examwire streams diff")
    assert "max_bytes" in await operator.run("examwire streams diff --nats-status-max-bytes 4294967296", code=5)


async def test_why_e0042_is_red(exam: Up, operator: Operator) -> None:
    show, timeline = commands_of("Find out why E0042 is red")
    client = examinee(exam, "E0042")
    await client.connect()
    await client.receive()  # its session_state: it is recorded
    client.abort()

    async def red() -> str | None:
        output = await operator.run(show)
        return (
            output if "DISCONNECTED" in output and "attempt" in output else None
        )  # the first one begins a moment later

    diagnosis = await eventually(red, "E0042 is red and its attempts are counted", 20)
    assert "SOCKET_CLOSED" in diagnosis
    assert "SOCK001" in diagnosis
    history = await operator.run(timeline)
    assert "SOCKET_CLOSED" in history
    assert len([line for line in history.splitlines() if "E0042" in line]) >= 2
    await client.close()


async def test_a_server_is_drained_during_a_load(exam: Up, operator: Operator) -> None:
    look, drain = commands_of("Drain a server")
    assert (await operator.run(look)).count("running") == 2
    proctor = ProctorClient(url_of(exam, "SOCK002"), token(exam, "proctor", "watching"))
    await proctor.connect()
    command = (
        f"load steady --examinees 150 --rate 10 --duration 10 --plan P900 -o json --workers 1"
        f" --nats-url {exam.ready['natsUrl']} --redis-url {exam.ready['redisUrl']} --data-dir {exam.data_dir}"
        f" --socket-url {url_of(exam, 'SOCK001')} --socket-url {url_of(exam, 'SOCK002')}"
    )

    async def busy() -> bool:
        return await connected_in(exam, "P900") > 140

    with started(command) as load:
        await eventually(busy, "the load is connected", 60)
        await operator.run(drain.replace("30s", "2s"))
        out, err = await asyncio.to_thread(load.communicate, timeout=90)
        assert load.returncode == 0, f"{out}\n{err}"
    report = json.loads(out)
    assert report["missing"] == report["doubled"] == 0
    assert report["falseAlarms"] == 0
    assert report["migrated"] > 20

    async def back() -> bool:
        return (await operator.run(look)).count("running") == 2

    await eventually(back, "SOCK001 runs again", 30)
    await proctor.close()


async def test_a_flushed_redis_is_rebuilt(exam: Up, operator: Operator) -> None:
    look, rebuild, look_again = commands_of("Rebuild a flushed Redis")
    clients = [examinee(exam, f"F{number:03}") for number in range(20)]
    for client in clients:
        await client.connect()
        await client.receive()
    redis = Redis.from_url(exam.ready["redisUrl"])
    await redis.flushall()
    # A record that somebody has damaged is what no state manager can see by itself.
    await operator.run(look, code=0)
    await redis.set(keys.progress(PLAN, "F007"), "not a hash")
    await redis.aclose()
    assert "F007" in await operator.run(look, code=1)
    await operator.run(rebuild)
    await operator.run(look_again)
    rows = {row["examineeId"]: row for row in (await operator.ask(f"examwire plans show {PLAN}"))["examinees"]}
    assert all(rows[f"F{number:03}"]["status"] == "CONNECTED" for number in range(20))
    for client in clients:
        assert client.connected
        await client.close()


async def test_a_dead_letter_is_replayed(exam: Up, operator: Operator, tmp_path: Path) -> None:
    ls, show, replay, mended, _ = commands_of("Replay a dead letter")
    client = examinee(exam, "D001")
    await client.connect()
    await client.receive()
    wait = {"planId": PLAN, "examineeId": "D001", "timestamp": "2026-01-01T09:00:00Z", "deadline": "half past nine"}
    bus = await Bus.connect(exam.ready["natsUrl"], "test")
    await bus.publish(Outgoing(f"status.plan.{PLAN}", json.dumps({"type": "mobile_sync_wait", "data": wait}).encode()))
    await bus.close()

    async def arrived() -> Any:
        return await operator.ask(ls)

    (letter,) = await eventually(arrived, "the dead letter", 20)
    assert "deadline" in await operator.run(show.replace("7", str(letter["number"])))
    assert "now dead letter" in await operator.run(
        replay.replace("7", str(letter["number"])), code=1
    )  # as bad as it was
    (replayed,) = await operator.ask(ls)
    file = tmp_path / "mended.json"
    wait["deadline"] = "2099-01-01T09:30:00Z"
    file.write_text(json.dumps({"type": "mobile_sync_wait", "data": wait}))
    assert "applied" in await operator.run(
        mended.replace("7", str(replayed["number"])).replace("mended.json", str(file))
    )
    assert await operator.ask(ls) == []
    diagnosis = await operator.ask(f"examwire examinees show {PLAN} D001")
    assert diagnosis["mobileSync"]["status"] == "WAITING"
    await client.close()


async def test_a_letter_of_a_damaged_record_that_was_rebuilt_has_no_second_effect(exam: Up, operator: Operator) -> None:
    ls, _, replay, *_ = commands_of("Replay a dead letter")
    _, rebuild, _ = commands_of("Rebuild a flushed Redis")
    client = examinee(exam, "D002")
    await client.connect()
    await client.receive()
    redis = Redis.from_url(exam.ready["redisUrl"])
    await redis.set(keys.mobile_sync(PLAN, "D002"), "not a hash")
    await redis.aclose()
    await client.enter_mobile_sync()

    async def arrived() -> Any:
        return [letter for letter in await operator.ask(ls) if "D002" in letter["reason"]]

    (letter,) = await eventually(arrived, "the dead letter", 20)
    await operator.run(rebuild)  # the log holds the message that the letter is about: it is in force from now on
    before = await operator.ask(f"examwire examinees show {PLAN} D002")
    assert before["mobileSync"]["status"] == "WAITING"
    assert "had no effect" in await operator.run(replay.replace("7", str(letter["number"])))
    after = await operator.ask(f"examwire examinees show {PLAN} D002")
    assert after["mobileSync"] == before["mobileSync"]
    await client.close()
