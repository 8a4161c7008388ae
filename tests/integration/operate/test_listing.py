"""`examwire actors ls`, `show`, `top` and `sessions ls` while a whole system runs."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import subprocess
import sys
from typing import Any

from actors.runtime.broker.connection import Bus
from actors.runtime.config.settings import Settings
from cli.shared.live_actors import add_queue_lag
from protocol.broker.streams import ConsumerSpec
from tests.integration.support.command_line import Invoke
from tests.integration.support.system import System


async def test_all_actors_are_listed_with_their_lag(invoke: Invoke, system: System) -> None:
    await system.examinee("E001")
    actors = {actor["address"]: actor for actor in json.loads((await invoke("actors", "ls", "-o", "json")).stdout)}
    assert {"queue-server.queue-server", "state-manager.sm1", "lease-watch.lw1", "reconnect-watch.rw1"} <= set(actors)
    assert {"socket.SOCK001", "socket.SOCK002"} <= set(actors)
    assert {actor["state"] for actor in actors.values()} == {"running"}
    manager, server = actors["state-manager.sm1"], actors["socket.SOCK001"]
    assert {"STATUS/state-manager", "STATUS/state-manager-0"} <= set(manager["details"]["consumers"])
    assert manager["handled"] >= 5, "four server statuses and the examinee's: messages count, not batches"
    assert server["details"]["consumers"] == ["SOCKET/SOCK001_Q"]
    assert actors["lease-watch.lw1"]["handled"] >= 2
    assert (manager["queueLag"], server["queueLag"], server["queueUnacknowledged"]) == (0, 0, 0)
    assert "queueLag" not in actors["queue-server.queue-server"]
    assert all(actor["ratePerSecond"] >= 0 for actor in actors.values())
    people = (await invoke("actors", "ls", "--kind", "socket-server")).stdout
    assert "socket.SOCK001" in people
    assert "state-manager" not in people


async def test_the_lag_counts_undelivered_messages_of_an_actors_consumers(system: System, bus: Bus) -> None:
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
    actor = json.loads((await invoke("actors", "show", address, "-o", "json")).stdout)
    assert (actor["kind"], actor["details"]["proctor"]) == ("proctor-session", "proctor-1")
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
        page: dict[str, Any] = json.loads(result.stdout)
        page["addresses"] = [session["address"] for session in page["sessions"]]
        return page

    everyone = await ls()
    assert (everyone["total"], len(set(everyone["addresses"]))) == (8, 8)
    paged = [
        address for offset in (0, 3, 6) for address in (await ls("--offset", str(offset), "--limit", "3"))["addresses"]
    ]
    assert paged == everyone["addresses"]
    assert (await ls("--plan", "P002"))["addresses"] == ["session.P002.E000"]
    assert (await ls("--server", "SOCK001"))["addresses"] == [f"session.P001.E{number:03}" for number in range(4)]
    assert [session["kind"] for session in (await ls("--proctors"))["sessions"]] == ["proctor-session"]
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


async def test_top_prints_rates_between_two_refreshes(settings: Settings, system: System) -> None:
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
    return next(actor for actor in look["actors"] if actor["address"] == "socket.SOCK001")


async def test_top_can_be_sorted_and_limited(invoke: Invoke, system: System) -> None:
    people = (await invoke("actors", "top", "--once", "--sort", "address", "--limit", "3", "--every", "0.5")).stdout
    assert "0 examinees and 0 proctors on 2 servers" in people
    addresses = sorted(actor.address for actor in system.actors.values())
    assert re.findall("|".join(addresses), people) == addresses[:3]
