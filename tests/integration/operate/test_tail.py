"""`examwire actors tail`: what an actor handles, as it happens, and an end by itself."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import subprocess
import sys
from typing import Any

import pytest

from actors.runtime.config.settings import Settings
from cli.operate import tail
from tests.integration.support.command_line import Invoke
from tests.integration.support.system import System, eventually


def lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


async def test_a_state_manager_is_tailed_batch_by_batch(invoke: Invoke, system: System) -> None:
    tailing = asyncio.create_task(invoke("actors", "tail", "state-manager.sm1", "--for", "2s", "-o", "json"))
    await eventually(lambda: _tailed(system, "state-manager"), "a tail")
    await system.examinee("E001")
    result = await tailing
    assert result.exit_code == 0
    first = [element for batch in lines(result.stdout) for element in batch["about"]["first"]]
    (about,) = [element["about"] for element in first if element["about"].get("examineeId") == "E001"]
    progress = await system.progress("E001")
    assert (about["planId"], about["version"], about["status"]) == ("P001", int(progress["version"]), "CONNECTED")
    assert all(line["took"] > 0 and line["message"] == "StatusBatch" for line in lines(result.stdout))


async def _tailed(system: System, name: str) -> bool:
    return system.actors[name].tail is not None


async def test_sessions_are_tailed_through_their_server(invoke: Invoke, system: System) -> None:
    examinee = await system.examinee("E001")
    proctor = await system.proctor("SOCK002")
    address = f"proctor.P001.{proctor.frames[0]['data']['socketId']}"
    session = next(iter(system.server("SOCK001").sessions.examinees.values()))
    # One after the other: a CliRunner takes the whole process's stdout.
    tailing = asyncio.create_task(invoke("actors", "tail", "session.P001.E001", "--for", "2s"))
    await eventually(lambda: _is_tailed(session), "a tail")
    await examinee.say("mobile_sync_wait")
    await examinee.expect("mobile_sync_status")
    tailed = await tailing
    assert tailed.exit_code == 0
    assert re.search(r"mobile_sync_wait +\d+\.\d{3} ms", tailed.stdout)
    assert re.search(r"mobile_sync_status .* P001/E001 WAITING", tailed.stdout)

    proctors = system.server("SOCK002").sessions.feeds["P001"].proctors
    tailing = asyncio.create_task(invoke("actors", "tail", address, "--for", "2s", "-o", "json"))
    await eventually(lambda: _is_tailed(next(iter(proctors))), "a tail")
    await proctor.say("heartbeat")
    (shown_heartbeat,) = lines((await tailing).stdout)
    assert (shown_heartbeat["message"], shown_heartbeat["address"]) == ("heartbeat", address)


async def _is_tailed(actor: Any) -> bool:
    return actor.tail is not None


async def test_a_watch_is_tailed(invoke: Invoke, system: System) -> None:
    tailed = lines((await invoke("actors", "tail", "lease-watch.lw1", "--for", "2s", "-o", "json")).stdout)
    assert {line["message"] for line in tailed} == {"lease"}
    assert {line["about"]["serverId"] for line in tailed} == {"SOCK001", "SOCK002"}


async def test_a_tail_ends_when_it_is_not_renewed(
    invoke: Invoke, system: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tail, "TAIL_SECONDS", 1.0)
    await invoke("actors", "tail", "SOCK001", "--for", "1s")
    server = system.server("SOCK001")
    await eventually(lambda: _not_tailed(server), "no tail any more")
    assert not [task for task in asyncio.all_tasks() if task.get_name().endswith(":tail")]


async def _not_tailed(actor: Any) -> bool:
    return actor.tail is None


async def test_an_examinee_is_followed_to_another_server(
    invoke: Invoke, system: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tail, "RENEW_SECONDS", 0.2)
    first = await system.examinee("E001")
    tailing = asyncio.create_task(invoke("actors", "tail", "session.P001.E001", "--for", "3s", "-o", "json"))
    session = next(iter(system.server("SOCK001").sessions.examinees.values()))
    await eventually(lambda: _is_tailed(session), "a tail")
    await first.close()
    await system.status("E001", "DISCONNECTED")
    await eventually(lambda: _is_empty(system), "no session")
    second = await system.examinee("E001", "SOCK002", connection_no=2)
    session = next(iter(system.server("SOCK002").sessions.examinees.values()))
    await eventually(lambda: _is_tailed(session), "a tail on the other server")
    await second.say("heartbeat")
    result = await tailing
    assert "heartbeat" in [line["message"] for line in lines(result.stdout)]
    assert "session.P001.E001 is at socket.SOCK002 now" in result.stderr


async def _is_empty(system: System) -> bool:
    return not system.server("SOCK001").sessions.examinees


async def test_ctrl_c_ends_a_tail_and_an_unknown_address_is_exit_code_3(settings: Settings, system: System) -> None:
    command = [sys.executable, "-m", "cli.main", "actors", "tail", "SOCK001", "-o", "json"]
    process = await asyncio.create_subprocess_exec(
        *command, "--nats-url", settings.nats_url, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None
    await eventually(lambda: _tailed(system, "SOCK001"), "a tail")
    async with asyncio.timeout(20):
        await system.examinee("E001")
        line = json.loads(await process.stdout.readline())
        process.send_signal(signal.SIGINT)
        _, errors = await process.communicate()
    assert (line["message"], line["about"]["types"]) == ("QueueBatch", {"session_state": 1})
    assert (process.returncode, errors) == (0, b"")


async def test_an_unknown_address_cannot_be_tailed(invoke: Invoke, system: System) -> None:
    for address in ("SOCK009", "session.P001.E404", "proctor.P001.SOCK001-x"):
        result = await invoke("actors", "tail", address)
        assert (result.exit_code, result.stdout) == (3, ""), address
