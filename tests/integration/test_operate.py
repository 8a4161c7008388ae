"""Live actors on the command line: seen, followed, and asked to do things, while a whole system runs."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from datetime import datetime
from functools import partialmethod
from typing import Any

import pytest
from typer.testing import Result

from actors.queue_server import QueueServer
from actors.runtime.bus import Bus
from actors.runtime.settings import Settings
from actors.runtime.supervision import ChildSpec, Supervisor
from actors.socket_server import SocketServer
from cli import actors_act, actors_tail, queues
from cli.live import add_queue_lag
from protocol import subjects
from protocol.close_codes import CloseCode
from protocol.control import Stop
from protocol.streams import ConsumerSpec
from tests.integration.command_line import Invoke
from tests.integration.system import System, eventually


@pytest.fixture(autouse=True)
def _quick_listing(monkeypatch: pytest.MonkeyPatch) -> None:
    """On this machine everybody answers at once: nobody need be waited for half a second."""
    monkeypatch.setattr(Bus, "services", partialmethod(Bus.services, wait=0.15))
    monkeypatch.setattr(actors_act, "LOOK_SECONDS", 0.1)
    monkeypatch.setattr(queues, "UNREAD_SECONDS", 0.1)


@pytest.fixture
async def system(settings: Settings, bus: Bus) -> AsyncIterator[System]:
    async with System(settings) as system:
        yield system


def lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


# -- ls, show, top ----------------------------------------------------------------------------------------


async def test_all_actors_are_listed_with_what_waits_for_them(invoke: Invoke, system: System) -> None:
    await system.examinee("E001")
    found = {one["address"]: one for one in json.loads((await invoke("actors", "ls", "-o", "json")).stdout)}
    assert {"queue-server.queue-server", "state-manager.sm1", "lease-watch.lw1", "reconnect-watch.rw1"} <= set(found)
    assert {"socket.SOCK001", "socket.SOCK002"} <= set(found)
    assert {one["state"] for one in found.values()} == {"running"}
    manager, server = found["state-manager.sm1"], found["socket.SOCK001"]
    assert manager["details"]["consumers"] == ["STATUS/state-manager"]
    assert manager["handled"] >= 5, "four server statuses and the examinee's: messages count, not batches"
    assert server["details"]["consumers"] == ["SOCKET/SOCK001_Q"]
    assert found["lease-watch.lw1"]["handled"] >= 2
    assert (manager["queueLag"], server["queueLag"], server["queueUnacknowledged"]) == (0, 0, 0)
    assert "queueLag" not in found["queue-server.queue-server"]
    assert all(one["ratePerSecond"] >= 0 for one in found.values())
    people = (await invoke("actors", "ls", "--kind", "socket-server")).stdout
    assert "socket.SOCK001" in people
    assert "state-manager" not in people


async def test_what_waits_is_what_the_consumers_of_an_actor_have_not_delivered(system: System, bus: Bus) -> None:
    spec = ConsumerSpec("SOCKET", "somebody", ("socket.SOCK009",), inactive_threshold=60)
    await bus.apply_consumer(spec)
    for _ in range(3):
        await bus._js.publish("socket.SOCK009", b"[]")
    row: dict[str, Any] = {"details": {"consumers": ["SOCKET/somebody", "STATUS/state-manager"]}}
    unknown: dict[str, Any] = {"details": {"consumers": ["SOCKET/nobody"]}}
    without: dict[str, Any] = {"details": {}}
    await add_queue_lag(bus, [row, unknown, without])
    assert (row["queueLag"], row["queueUnacknowledged"]) == (3, 0)
    assert unknown["queueLag"] is None
    assert without == {"details": {}}


async def test_one_actor_is_shown_by_its_server_id_and_a_session_by_its_address(invoke: Invoke, system: System) -> None:
    await system.examinee("E001")
    proctor = await system.proctor("SOCK002")
    server = json.loads((await invoke("actors", "show", "SOCK001", "-o", "json")).stdout)
    assert (server["address"], server["details"]["examinees"]) == ("socket.SOCK001", 1)
    session = json.loads((await invoke("actors", "show", "session.P001.E001", "-o", "json")).stdout)
    assert (session["kind"], session["details"]["serverId"]) == ("examinee-session", "SOCK001")
    address = f"proctor.P001.{proctor.frames[0]['data']['socketId']}"
    shown = json.loads((await invoke("actors", "show", address, "-o", "json")).stdout)
    assert (shown["kind"], shown["details"]["proctor"]) == ("proctor-session", "proctor-1")
    assert (await invoke("actors", "show", "proctor.P001.SOCK002-gone")).exit_code == 3
    assert (await invoke("actors", "show", "SOCK003")).exit_code == 3


async def test_sessions_are_paged_over_the_servers(invoke: Invoke, system: System) -> None:
    for number in range(6):
        await system.examinee(f"E{number:03}", "SOCK001" if number < 4 else "SOCK002")
    await system.examinee("E000", "SOCK002", plan_id="P002")
    await system.proctor("SOCK002")

    async def ls(*arguments: str) -> dict[str, Any]:
        result = await invoke("sessions", "ls", "-o", "json", *arguments)
        assert result.exit_code == 0
        found: dict[str, Any] = json.loads(result.stdout)
        found["addresses"] = [one["address"] for one in found["sessions"]]
        return found

    everyone = await ls()
    assert (everyone["total"], len(set(everyone["addresses"]))) == (8, 8)
    paged = [
        address for offset in (0, 3, 6) for address in (await ls("--offset", str(offset), "--limit", "3"))["addresses"]
    ]
    assert paged == everyone["addresses"]
    assert (await ls("--plan", "P002"))["addresses"] == ["session.P002.E000"]
    assert (await ls("--server", "SOCK001"))["addresses"] == [f"session.P001.E{number:03}" for number in range(4)]
    assert [one["kind"] for one in (await ls("--proctors"))["sessions"]] == ["proctor-session"]
    people = await invoke("sessions", "ls", "--limit", "2")
    assert "E001" in people.stdout
    assert "2 of 8 sessions" in people.stderr
    listed = json.loads(
        (await invoke("actors", "ls", "--kind", "examinee-session", "--limit", "5", "-o", "json")).stdout
    )
    assert len(listed) == 5


async def test_a_server_that_does_not_answer_makes_the_list_of_sessions_incomplete(
    invoke: Invoke, system: System, bus: Bus
) -> None:
    await system.examinee("E001")
    metadata = {"address": "socket.SOCK009", "kind": "socket-server", "inspect": "inspect.nobody"}
    silent = await bus.add_service(
        "socket-server", version="1.0.0", description="dead", metadata=metadata, endpoints={}, details=dict
    )
    try:
        result = await invoke("sessions", "ls")
        top = json.loads((await invoke("actors", "top", "--once", "-o", "json")).stdout)
    finally:
        await bus.remove_service(silent)
    assert result.exit_code == 5
    assert "E001" in result.stdout
    assert "socket.SOCK009" in result.stderr
    assert top["actors"][0]["address"] == "socket.SOCK009", "trouble first"
    assert top["totals"]["silent"] == 1


async def test_top_tells_rates_between_two_looks_and_says_so_line_by_line(settings: Settings, system: System) -> None:
    examinee = await system.examinee("E001")
    command = [sys.executable, "-m", "cli.main", "actors", "top", "--every", "0.5", "-o", "json"]
    process = await asyncio.create_subprocess_exec(
        *command, "--nats-url", settings.nats_url, stdout=subprocess.PIPE, stderr=subprocess.PIPE, limit=1 << 20
    )
    assert process.stdout is not None
    async with asyncio.timeout(30):
        looks = [json.loads(await process.stdout.readline())]
        while not any(_server(look)["ratePerSecond"] > 0 and _server(look)["handled"] for look in looks[1:]):
            for _ in range(5):
                await examinee.say("mobile_sync_wait")
            looks.append(json.loads(await process.stdout.readline()))
        process.send_signal(signal.SIGINT)
        _, errors = await process.communicate()
    assert (process.returncode, errors) == (0, b"")
    assert looks[0]["totals"]["examinees"] == 1
    assert len({look["time"] for look in looks}) == len(looks)


def _server(look: dict[str, Any]) -> dict[str, Any]:
    return next(one for one in look["actors"] if one["address"] == "socket.SOCK001")


async def test_top_can_be_sorted_and_cut(invoke: Invoke, system: System) -> None:
    people = (await invoke("actors", "top", "--once", "--sort", "address", "--limit", "3", "--every", "0.5")).stdout
    assert "0 examinees and 0 proctors on 2 servers" in people
    addresses = sorted(actor.address for actor in system.actors.values())
    assert re.findall("|".join(addresses), people) == addresses[:3]


# -- tail -------------------------------------------------------------------------------------------------


async def test_a_state_manager_is_tailed_batch_by_batch(invoke: Invoke, system: System) -> None:
    tailing = asyncio.create_task(invoke("actors", "tail", "state-manager.sm1", "--for", "2s", "-o", "json"))
    await eventually(lambda: _tapped(system, "state-manager"), "a tap")
    await system.examinee("E001")
    result = await tailing
    assert result.exit_code == 0
    first = [one for batch in lines(result.stdout) for one in batch["about"]["first"]]
    (about,) = [one["about"] for one in first if one["about"].get("examineeId") == "E001"]
    progress = await system.progress("E001")
    assert (about["planId"], about["version"], about["status"]) == ("P001", int(progress["version"]), "CONNECTED")
    assert all(one["took"] > 0 and one["message"] == "StatusBatch" for one in lines(result.stdout))


async def _tapped(system: System, name: str) -> bool:
    return system.actors[name].tap is not None


async def test_sessions_are_tailed_through_their_server(invoke: Invoke, system: System) -> None:
    examinee = await system.examinee("E001")
    proctor = await system.proctor("SOCK002")
    address = f"proctor.P001.{proctor.frames[0]['data']['socketId']}"
    session = next(iter(system.server("SOCK001")._clients.examinees.values()))
    # One after the other: a CliRunner takes the whole process's stdout.
    tailing = asyncio.create_task(invoke("actors", "tail", "session.P001.E001", "--for", "2s"))
    await eventually(lambda: _is_tapped(session), "a tap")
    await examinee.say("mobile_sync_wait")
    await examinee.expect("mobile_sync_status")
    shown = await tailing
    assert shown.exit_code == 0
    assert re.search(r"mobile_sync_wait +\d+\.\d{3} ms", shown.stdout)
    assert re.search(r"mobile_sync_status .* P001/E001 WAITING", shown.stdout)

    proctors = system.server("SOCK002")._clients.feeds["P001"].proctors
    tailing = asyncio.create_task(invoke("actors", "tail", address, "--for", "2s", "-o", "json"))
    await eventually(lambda: _is_tapped(next(iter(proctors))), "a tap")
    await proctor.say("heartbeat")
    (shown_heartbeat,) = lines((await tailing).stdout)
    assert (shown_heartbeat["message"], shown_heartbeat["address"]) == ("heartbeat", address)


async def _is_tapped(actor: Any) -> bool:
    return actor.tap is not None


async def test_watches_that_have_no_mailbox_are_tailed_as_well(invoke: Invoke, system: System) -> None:
    shown = lines((await invoke("actors", "tail", "lease-watch.lw1", "--for", "2s", "-o", "json")).stdout)
    assert {one["message"] for one in shown} == {"lease"}
    assert {one["about"]["serverId"] for one in shown} == {"SOCK001", "SOCK002"}


async def test_a_tail_ends_by_itself_when_nobody_looks_any_more(
    invoke: Invoke, system: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(actors_tail, "TAIL_SECONDS", 1.0)
    await invoke("actors", "tail", "SOCK001", "--for", "1s")
    server = system.server("SOCK001")
    await eventually(lambda: _untapped(server), "no tap any more")
    assert not [task for task in asyncio.all_tasks() if task.get_name().endswith(":tap")]


async def _untapped(actor: Any) -> bool:
    return actor.tap is None


async def test_an_examinee_is_followed_to_another_server(
    invoke: Invoke, system: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(actors_tail, "RENEW_SECONDS", 0.2)
    first = await system.examinee("E001")
    tailing = asyncio.create_task(invoke("actors", "tail", "session.P001.E001", "--for", "3s", "-o", "json"))
    session = next(iter(system.server("SOCK001")._clients.examinees.values()))
    await eventually(lambda: _is_tapped(session), "a tap")
    await first.close()
    await system.status("E001", "DISCONNECTED")
    await eventually(lambda: _is_empty(system), "no session")
    second = await system.examinee("E001", "SOCK002", connection_no=2)
    session = next(iter(system.server("SOCK002")._clients.examinees.values()))
    await eventually(lambda: _is_tapped(session), "a tap on the other server")
    await second.say("heartbeat")
    result = await tailing
    assert "heartbeat" in [one["message"] for one in lines(result.stdout)]
    assert "session.P001.E001 is at socket.SOCK002 now" in result.stderr


async def _is_empty(system: System) -> bool:
    return not system.server("SOCK001")._clients.examinees


async def test_ctrl_c_ends_a_tail_and_an_unknown_address_is_exit_code_3(settings: Settings, system: System) -> None:
    command = [sys.executable, "-m", "cli.main", "actors", "tail", "SOCK001", "-o", "json"]
    process = await asyncio.create_subprocess_exec(
        *command, "--nats-url", settings.nats_url, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None
    await eventually(lambda: _tapped(system, "SOCK001"), "a tap")
    async with asyncio.timeout(20):
        await system.examinee("E001")
        line = json.loads(await process.stdout.readline())
        process.send_signal(signal.SIGINT)
        _, errors = await process.communicate()
    assert (line["message"], line["about"]["types"]) == ("QueueBatch", {"session_state": 1})
    assert (process.returncode, errors) == (0, b"")


async def test_who_is_not_there_cannot_be_tailed(invoke: Invoke, system: System) -> None:
    for address in ("SOCK009", "session.P001.E404", "proctor.P001.SOCK001-x"):
        result = await invoke("actors", "tail", address)
        assert (result.exit_code, result.stdout) == (3, ""), address


# -- stop ---------------------------------------------------------------------------------------------------


async def test_a_process_is_asked_to_end_and_its_end_is_waited_for(
    settings: Settings, bus: Bus, invoke: Invoke
) -> None:
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


async def test_a_stop_is_asked_about_first_and_says_what_it_costs(invoke: Invoke, system: System) -> None:
    await system.examinee("E001")
    declined = await invoke("actors", "stop", "SOCK001", answer="n\n")
    assert declined.exit_code == 1
    assert "1 clients are connected to SOCK001 and will be dropped" in declined.stderr
    assert "examwire actors drain SOCK001" in declined.stderr
    refused = await invoke("actors", "stop", "SOCK001", answer="y\n")
    assert refused.exit_code == 1
    assert "not the actor of a process" in refused.stderr
    assert system.server("SOCK001").running
    assert (await invoke("actors", "stop", "SOCK009", "--yes")).exit_code == 3


async def test_an_actor_refuses_what_it_does_not_do(invoke: Invoke, system: System, bus: Bus) -> None:
    drained = await invoke("actors", "drain", "state-manager.sm1")
    assert drained.exit_code == 2
    assert "only socket servers are drained" in drained.stderr
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


# -- queues and streams -------------------------------------------------------------------------------------


async def test_queues_are_listed_with_who_reads_them(invoke: Invoke, system: System) -> None:
    await system.examinee("E001")
    await system.proctor("SOCK001", plan_id="P002")
    result = await invoke("queues", "ls", "-o", "json")
    assert result.exit_code == 0
    found = {one["queue"]: one for one in json.loads(result.stdout)}
    assert found["STATUS/state-manager"]["readBy"] == ["state-manager.sm1"]
    own = found["SOCKET/SOCK001_Q"]
    assert (own["server"], own["readBy"], own["read"], own["pending"]) == ("SOCK001", ["socket.SOCK001"], True, 0)
    assert own["config"] == {
        "maxSize": system.settings.socket.queue_max_size,
        "expireTime": system.settings.socket.queue_expire_seconds,
        "priority": system.settings.socket.queue_priority,
    }
    assert "socket.plan.P001.examinee.*" in own["filters"]
    assert own["incarnation"] == system.server("SOCK001").incarnation
    assert "SOCKET/SOCK001_Q" in (await invoke("queues", "ls")).stdout
    whole = json.loads((await invoke("queues", "show", "SOCK001", "-o", "json")).stdout)
    assert {plan for one in whole for plan in one["plans"]} == {"P001", "P002"}
    assert (await invoke("queues", "show", "SOCK009")).exit_code == 3


async def test_a_queue_that_nobody_reads_is_marked_and_its_oldest_message_is_told(
    invoke: Invoke, system: System
) -> None:
    await system.examinee("E001")
    await system.stop("state-manager")
    client = await system.raw("SOCK001")
    await client.hello(system.token("examinee", "E002"), "browser-2")
    result = await eventually(lambda: _with_backlog(invoke), "a backlog")
    assert result.exit_code == 5
    first = json.loads(result.stdout)[0]
    assert (first["queue"], first["read"], first["readBy"]) == ("STATUS/state-manager", False, [])
    assert "NOBODY" in (await invoke("queues", "ls")).stdout
    (shown,) = json.loads((await invoke("queues", "show", "state-manager", "-o", "json")).stdout)
    oldest = shown["oldestWaiting"]
    assert oldest["subject"] == "status.plan.P001"
    assert abs(datetime.fromisoformat(oldest["time"]).timestamp() - time.time()) < 30


async def _with_backlog(invoke: Invoke) -> Result | None:
    result = await invoke("queues", "ls", "-o", "json")
    return result if any(one["pending"] for one in json.loads(result.stdout)) else None


async def test_streams_are_listed_and_a_missing_one_is_said(invoke: Invoke, system: System, bus: Bus) -> None:
    await system.examinee("E001")
    found = {one["stream"]: one for one in json.loads((await invoke("streams", "ls", "-o", "json")).stdout)}
    status = found["STATUS"]
    assert status["messages"] >= 5
    assert status["bytes"] > 0
    assert status["firstTime"] <= status["lastTime"]
    assert found["DEADLETTER"]["messages"] == 0
    await bus._js.delete_stream("DEADLETTER")
    missing = await invoke("streams", "ls")
    assert missing.exit_code == 5
    assert "missing" in missing.stdout


async def test_without_any_stream_there_is_nobody_to_ask(invoke: Invoke, bus: Bus) -> None:
    assert (await invoke("queues", "ls")).exit_code == 4
    assert (await invoke("streams", "ls")).exit_code == 5
    assert json.loads((await invoke("sessions", "ls", "-o", "json")).stdout)["total"] == 0


# -- the stock tools ----------------------------------------------------------------------------------------

NAME = re.compile(r"^[a-zA-Z0-9_-]+$")
SEMVER = re.compile(r"^(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)(-[0-9A-Za-z.-]+)?(\+[0-9A-Za-z.-]+)?$")
COUNTS = ("num_requests", "num_errors", "processing_time", "average_processing_time")


async def test_micro_services_answer_as_adr_32_says(system: System, bus: Bus) -> None:
    """What `nats service ls|info|stats` ask for, by the schemas `io.nats.micro.v1.*_response`."""
    await bus.request(subjects.control("state-manager.sm1"), b"{}")
    for verb in ("PING", "INFO", "STATS"):
        await _answers_by_the_schema(bus, verb)


async def _answers_by_the_schema(bus: Bus, verb: str) -> None:
    everyone = [json.loads(answer) for answer in await bus.request_many(f"$SRV.{verb}", wait=0.2)]
    assert {one["metadata"]["address"] for one in everyone} >= {"socket.SOCK001", "state-manager.sm1"}
    for answer in everyone:
        assert answer["type"] == f"io.nats.micro.v1.{verb.lower()}_response"
        assert NAME.match(answer["name"])
        assert SEMVER.match(answer["version"])
        assert answer["id"]
        assert all(isinstance(value, str) for value in answer["metadata"].values())
        if verb == "INFO":
            assert answer["description"]
            for endpoint in answer["endpoints"]:
                assert NAME.match(endpoint["name"])
                assert endpoint["subject"]
                assert isinstance(endpoint["metadata"], dict)
        if verb == "STATS":
            started = datetime.fromisoformat(answer["started"])
            assert abs(started.timestamp() - time.time()) < 120
            assert {one["name"] for one in answer["endpoints"]} >= {"inspect", "control"}
            for endpoint in answer["endpoints"]:
                assert all(isinstance(endpoint[count], int) and endpoint[count] >= 0 for count in COUNTS)
                assert isinstance(endpoint["last_error"], str)
                assert endpoint["data"]["address"] == answer["metadata"]["address"]
    one = next(answer for answer in everyone if answer["metadata"]["address"] == "state-manager.sm1")
    again = json.loads(await bus.request(f"$SRV.{verb}.state-manager.{one['id']}"))
    assert again["id"] == one["id"]
    if verb == "STATS":
        (control,) = [endpoint for endpoint in again["endpoints"] if endpoint["name"] == "control"]
        assert control["num_requests"] == 1
        assert control["processing_time"] > 0
    assert len(await bus.request_many(f"$SRV.{verb}.socket-server", wait=0.2)) == 2


# -- kick and drain -----------------------------------------------------------------------------------------


async def test_an_examinee_is_kicked_by_plan_and_a_proctor_by_socket(invoke: Invoke, system: System) -> None:
    examinee = await system.examinee("E001")
    proctor = await system.proctor("SOCK002")
    socket_id = proctor.frames[0]["data"]["socketId"]
    kicked = await invoke("sessions", "kick", "P001", "E001", "-o", "json")
    assert kicked.exit_code == 0
    assert json.loads(kicked.stdout)["server"] == "socket.SOCK001"
    assert await examinee.closed() == CloseCode.KICKED
    lost = await proctor.expect("examinee_disconnected", examineeId="E001")
    assert lost["data"]["reason"] == "KICKED"
    assert (await invoke("sessions", "kick", socket_id)).exit_code == 0
    assert await proctor.closed() == CloseCode.KICKED
    await eventually(lambda: _nobody_is_there(system), "no session")
    for arguments in (("P001", "E001"), (socket_id,), ("SOCK009-x",)):
        assert (await invoke("sessions", "kick", *arguments)).exit_code == 3, arguments
    assert (await invoke("sessions", "kick", "P001")).exit_code == 2


async def _nobody_is_there(system: System) -> bool:
    return not any(system.server(one)._clients.sessions() for one in ("SOCK001", "SOCK002"))


async def test_a_drain_is_followed_until_the_server_has_ended(invoke: Invoke, system: System) -> None:
    examinees = [await system.examinee(f"E{number:03}") for number in range(10)]
    proctor = await system.proctor("SOCK002")
    server = system.server("SOCK001")
    ended = asyncio.Event()
    server.end_role = ended.set
    draining = asyncio.create_task(invoke("actors", "drain", "SOCK001", "--over", "2s", "-o", "json"))
    for examinee in examinees:
        assert await examinee.closed() == CloseCode.MIGRATE
    await asyncio.wait_for(ended.wait(), 15)
    await system.stop("SOCK001")
    result = await draining
    assert result.exit_code == 0, result.stderr
    told = json.loads(result.stdout)
    assert (told["address"], told["state"], told["clients"]) == ("socket.SOCK001", "STOPPED", 10)
    assert re.search(r"^socket\.SOCK001: [0-9]+ clients left$", result.stderr, re.MULTILINE)
    assert [frame for frame in proctor.frames if frame["type"] == "examinee_disconnected"] == []
    refused = await invoke("actors", "drain", "SOCK002")
    assert refused.exit_code == 1
    assert "no other server is READY" in refused.stderr


async def test_a_server_that_is_gone_without_a_word_was_not_drained(
    invoke: Invoke, system: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(actors_act, "RECORD_SECONDS", 0.5)
    await system.examinee("E001")
    server = system.server("SOCK001")
    draining = asyncio.create_task(invoke("actors", "drain", "SOCK001", "--over", "60s"))
    await eventually(lambda: _is_draining(server), "the drain")
    await system._buses["SOCK001"]._nc.close()  # as if it had been killed
    result = await draining
    assert result.exit_code == 1
    assert "SOCK001 is gone, but the last that the log says of it is DRAINING" in result.stderr


async def test_ctrl_c_ends_the_waiting_for_a_drain_and_says_that_the_drain_goes_on(
    settings: Settings, system: System
) -> None:
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
    assert b"goes on" in errors
    assert system.server("SOCK001").details()["drain"] is not None


async def _is_draining(server: SocketServer) -> bool:
    return server.details()["drain"] is not None
