"""`examwire actors stop` and `drain`, `sessions kick`: asked about first, waited for, refused where it does not fit."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import subprocess
import sys

import pytest

from actors.queue_server.server import QueueServer
from actors.runtime.actor.supervisor import ChildSpec, Supervisor
from actors.runtime.broker.connection import Bus
from actors.runtime.config.settings import Settings
from actors.socket_server.server import SocketServer
from cli.operate import drain_and_stop
from protocol.broker import subjects
from protocol.close_codes import CloseCode
from protocol.messages.operator_requests import Stop
from tests.integration.support.command_line import Invoke
from tests.integration.support.system import System, eventually


async def test_stop_ends_a_process_and_waits_for_its_end(settings: Settings, bus: Bus, invoke: Invoke) -> None:
    own = await Bus.connect(settings.nats_url, "role")
    supervisor = Supervisor("role")
    await supervisor.start_child(ChildSpec("queue-server", lambda: QueueServer(settings, own, "q1")))
    asking = asyncio.create_task(invoke("actors", "stop", "queue-server.q1", "--yes", "-o", "json"))
    await asyncio.wait_for(supervisor.wait(), 10)
    await supervisor.stop()
    result = await asking
    await own.close()
    assert result.exit_code == 0
    assert json.loads(result.stdout) == {"address": "queue-server.q1", "state": "ended"}


async def test_stop_asks_for_confirmation_and_names_the_connected_clients(invoke: Invoke, system: System) -> None:
    await system.examinee("E001")
    declined = await invoke("actors", "stop", "SOCK001", answer="n\n")
    assert declined.exit_code == 1
    assert "1 clients of SOCK001 will be disconnected" in declined.stderr
    assert "examwire actors drain SOCK001" in declined.stderr
    refused = await invoke("actors", "stop", "SOCK001", answer="y\n")
    assert refused.exit_code == 1
    assert "not the actor of a process" in refused.stderr
    assert system.server("SOCK001").running
    assert (await invoke("actors", "stop", "SOCK009", "--yes")).exit_code == 3


async def test_an_actor_refuses_unknown_requests(invoke: Invoke, system: System, bus: Bus) -> None:
    drained = await invoke("actors", "drain", "state-manager.sm1")
    assert drained.exit_code == 2
    assert "only socket servers can be drained" in drained.stderr
    assert (await invoke("actors", "drain", "SOCK009")).exit_code == 3
    assert (await invoke("actors", "drain", "SOCK001", "--over", "soon")).exit_code == 2
    for payload in (
        b"",
        b"{}",
        b'{"type":"explode","data":{}}',
        b'{"type":"tail","data":{"inbox":"status.plan.P001"}}',
    ):
        answer = json.loads(await bus.request(subjects.control("state-manager.sm1"), payload))
        assert answer["type"] == "error", payload
    assert Stop.type == "stop"
    assert system.failures == []


async def test_an_examinee_is_kicked_by_plan_and_a_proctor_by_socket(invoke: Invoke, system: System) -> None:
    examinee = await system.examinee("E001")
    proctor = await system.proctor("SOCK002")
    socket_id = proctor.frames[0]["data"]["socketId"]
    kicked = await invoke("sessions", "kick", "P001", "E001", "-o", "json")
    assert kicked.exit_code == 0
    assert json.loads(kicked.stdout)["server"] == "socket.SOCK001"
    assert await examinee.closed() == CloseCode.KICKED
    loss = await proctor.expect("examinee_disconnected", examineeId="E001")
    assert loss["data"]["reason"] == "KICKED"
    assert (await invoke("sessions", "kick", socket_id)).exit_code == 0
    assert await proctor.closed() == CloseCode.KICKED
    await eventually(lambda: _nobody_is_there(system), "no session")
    for arguments in (("P001", "E001"), (socket_id,), ("SOCK009-x",)):
        assert (await invoke("sessions", "kick", *arguments)).exit_code == 3, arguments
    plan = await invoke("sessions", "kick", "p001")
    assert plan.exit_code == 2
    assert "`examwire sessions kick P001 EXAMINEE_ID`" in plan.stderr
    unknown = await invoke("sessions", "ls", "p001")
    assert (unknown.exit_code, unknown.stderr) == (3, "examwire: plan p001 is unknown: did you mean P001?\n")
    assert (await invoke("sessions", "ls", "P001")).exit_code == 0


async def _nobody_is_there(system: System) -> bool:
    return not any(system.server(server_id).sessions.all() for server_id in ("SOCK001", "SOCK002"))


async def test_drain_waits_until_the_server_has_ended(invoke: Invoke, system: System) -> None:
    examinees = [await system.examinee(f"E{number:03}") for number in range(10)]
    proctor = await system.proctor("SOCK002")
    server = system.server("SOCK001")
    server_end = asyncio.Event()
    server.end_role = server_end.set
    draining = asyncio.create_task(invoke("actors", "drain", "SOCK001", "--over", "2s", "-o", "json"))
    for examinee in examinees:
        assert await examinee.closed() == CloseCode.MIGRATE
    await asyncio.wait_for(server_end.wait(), 30)
    await system.stop("SOCK001")
    result = await draining
    assert result.exit_code == 0, result.stderr
    result_json = json.loads(result.stdout)
    assert (result_json["address"], result_json["state"], result_json["clients"]) == ("socket.SOCK001", "STOPPED", 10)
    assert re.search(r"^socket\.SOCK001: [0-9]+ clients left$", result.stderr, re.MULTILINE)
    assert [frame for frame in proctor.frames if frame["type"] == "examinee_disconnected"] == []
    refused = await invoke("actors", "drain", "SOCK002")
    assert refused.exit_code == 1
    assert "no other server is READY" in refused.stderr


async def test_drain_fails_when_the_server_ends_without_status_stopped(
    invoke: Invoke, system: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drain_and_stop, "RECORD_SECONDS", 0.5)
    await system.examinee("E001")
    server = system.server("SOCK001")
    draining = asyncio.create_task(invoke("actors", "drain", "SOCK001", "--over", "60s"))
    await eventually(lambda: _is_draining(server), "the drain")
    await eventually(lambda: system.server_is("SOCK001", "DRAINING"), "the log says so")
    await system._buses["SOCK001"]._nc.close()  # as if it had been killed
    result = await draining
    assert result.exit_code == 1
    assert "SOCK001 has ended, but its last status in the log is DRAINING" in result.stderr


async def test_ctrl_c_ends_the_waiting_but_not_the_drain(settings: Settings, system: System) -> None:
    await system.examinee("E001")
    command = [sys.executable, "-m", "cli.main", "actors", "drain", "SOCK001", "--over", "60s"]
    process = await asyncio.create_subprocess_exec(
        *command, "--nats-url", settings.nats_url, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stderr is not None
    async with asyncio.timeout(30):
        while b"clients left" not in await process.stderr.readline():
            assert process.returncode is None
        process.send_signal(signal.SIGINT)
        output, errors = await process.communicate()
    assert (process.returncode, output) == (1, b"")
    assert b"continues" in errors
    assert system.server("SOCK001").details()["drain"] is not None


async def _is_draining(server: SocketServer) -> bool:
    return server.details()["drain"] is not None
