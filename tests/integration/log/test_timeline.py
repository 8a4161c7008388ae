"""The log of record on the command line: what happened, what was so at a moment, what is to be compensated, and why."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import math
import os
import signal
import sys
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest

from actors.runtime.broker.connection import Bus, Outgoing
from actors.runtime.config.settings import Settings
from actors.status_log.plan_log import read_plan
from cli.shared import live_actors
from protocol.broker import subjects
from protocol.broker.streams import STATUS
from protocol.messages.codec import encode
from protocol.messages.facts import ConnectionStatus, ConnectionStatusCode, Enrol
from protocol.times import format_time
from tests.integration.support.command_line import Invoke
from tests.integration.support.settings import changed
from tests.integration.support.system import System, eventually

NOWHERE = {"EXAMWIRE_NATS_URL": "nats://127.0.0.1:1", "EXAMWIRE_REDIS_URL": "redis://127.0.0.1:1/0"}


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return changed(settings, {"reconnect.max_attempts": 2, "reconnect.backoff_seconds": [0.3, 2.0]})


@pytest.fixture
async def system(bus: Bus, settings: Settings) -> AsyncIterator[System]:
    async with System(settings) as system:
        yield system
        assert system.failures == []


@pytest.fixture
def variables(variables: dict[str, str]) -> dict[str, str]:
    return {**variables, "TZ": "UTC"}


async def out(invoke: Invoke, *arguments: str) -> Any:
    """The JSON that a command prints."""
    result = await invoke(*arguments, "-o", "json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


async def lost_and_back(system: System) -> tuple[float, float]:
    """E001 is lost for some tenths of a second; returns moments in the middle of the outage and after it."""
    client = await system.examinee("E001", "SOCK001")
    client.abort()
    await system.status("E001", "DISCONNECTED")
    lost_at = time.time()

    async def attempted() -> bool:
        return (await system.progress())["reconnectAttempt"] != "0"

    await eventually(attempted, "an attempt")
    await system.examinee("E001", "SOCK002", connection_no=2)
    await system.status("E001", "CONNECTED")
    return lost_at, time.time()


async def shut_out(system: System, examinee_id: str) -> None:
    client = await system.examinee(examinee_id, "SOCK001")
    client.abort()

    async def refused() -> bool:
        return (await system.progress(examinee_id)).get("exhausted") == "1"

    await eventually(refused, f"{examinee_id} shut out")


async def test_a_plan_has_a_timeline_a_state_at_a_time_and_a_report_of_outages(
    system: System, bus: Bus, invoke: Invoke
) -> None:
    before = time.time()
    proctor = await system.proctor()
    lost_at, back_at = await lost_and_back(system)
    first_socket = (await out(invoke, "plans", "timeline", "P001", "E001"))[0]["socketId"]
    late = ConnectionStatus(
        plan_id="P001",
        examinee_id="E001",
        socket_id=first_socket,
        status=ConnectionStatusCode.DISCONNECTED,
        timestamp=format_time(time.time()),
    )
    await bus.publish(Outgoing("status.plan.P001", encode(late)))
    await shut_out(system, "E002")
    await proctor.say("readmit", examineeId="E002")
    await proctor.expect("examinee_readmitted")

    entries = await out(invoke, "plans", "timeline", "P001", "E001")
    assert [entry["what"] for entry in entries] == ["JOINED", "LOST", "RECONNECTING", "RECOVERED"]
    assert entries[1]["reason"] == "SOCKET_CLOSED"
    assert 0 < entries[3]["seconds"] <= back_at - before
    assert int((await system.progress())["version"]) == entries[3]["version"]
    fenced = (await out(invoke, "plans", "timeline", "P001", "E001", "--all"))[-1]
    assert fenced["text"] == "late disconnect of a replaced socket: no effect"
    newest = await invoke("plans", "timeline", "P001", "E001", "--newest", "1", "-o", "json")
    assert json.loads(newest.stdout) == entries[3:]
    assert newest.stderr == f"3 older entries are not shown: see --before {entries[3]['version']}\n"
    before_that = ("--newest", "2", "--before", str(entries[3]["version"]))
    assert await out(invoke, "plans", "timeline", "P001", "E001", *before_that) == entries[1:3]
    plan_entries = await out(invoke, "plans", "timeline", "P001")
    assert [entry["what"] for entry in plan_entries if entry["examineeId"] == "E002"] == [
        *("JOINED", "LOST", "RECONNECTING", "RECONNECTING", "SHUT_OUT", "READMITTED")
    ]
    assert next(entry for entry in plan_entries if entry["what"] == "READMITTED")["by"] == "proctor-1"
    later_entries = await out(invoke, "plans", "timeline", "P001", "--since", format_time(back_at))
    assert {entry["examineeId"] for entry in later_entries} == {"E002"}
    assert await out(invoke, "plans", "timeline", "P001", "--until", format_time(before)) == []

    then = await out(invoke, "plans", "timeline", "P001", "E001", "--at", format_time(lost_at))
    assert (then["status"], then["reason"], then["made"]["what"]) == ("DISCONNECTED", "SOCKET_CLOSED", "LOST")
    assert then["next"]["what"] == "RECONNECTING"
    never = await out(invoke, "plans", "timeline", "P001", "E001", "--at", format_time(before))
    assert (never["status"], never["made"], never["next"]["what"]) == ("NEVER", None, "JOINED")
    now = await out(invoke, "plans", "timeline", "P001", "--at", "now")
    assert [(row["examineeId"], row["status"]) for row in now] == [("E001", "CONNECTED"), ("E002", "DISCONNECTED")]
    words = (await invoke("plans", "timeline", "P001", "E001", "--at", format_time(lost_at))).stdout
    assert "DISCONNECTED" in words
    assert "because" in words
    assert "lost: SOCKET_CLOSED on SOCK001" in words
    assert "UTC" in words
    table = (await invoke("plans", "timeline", "P001")).stdout
    assert "shut out: all attempts are used up" in table

    report = await out(invoke, "plans", "report", "P001")
    first, second = report["examinees"]
    assert (first["examineeId"], first["outages"], first["stillDisconnected"]) == ("E001", 1, False)
    assert first["outageSeconds"] == entries[3]["seconds"]
    assert first["compensateSeconds"] == math.ceil(entries[3]["seconds"])
    assert (second["attempts"], second["shutOut"], second["readmissions"]) == (2, 1, 1)
    assert second["stillDisconnected"]
    assert report["totals"]["outages"] == 2
    early = await out(invoke, "plans", "report", "P001", "--from", format_time(before - 9), "--to", format_time(before))
    assert early["totals"]["outageSeconds"] == 0
    result = await invoke("plans", "report", "P001", "--csv", "--ignore-below", "100", "--to", format_time(back_at))
    assert "\r\n" in result.stdout_bytes.decode()
    (row,) = csv.DictReader(io.StringIO(result.stdout_bytes.decode("utf-8-sig"), newline=""))
    assert (row["examineeId"], row["outages"], row["compensateSeconds"]) == ("E001", "0", "0")
    assert "total" in (await invoke("plans", "report", "P001")).stdout


async def test_a_report_has_the_roster_after_it_has_left_the_log(system: System, bus: Bus, invoke: Invoke) -> None:
    now = format_time(bus.clock.now())
    people = [
        Enrol(plan_id="P001", examinee_id=examinee_id, name=name, labels={"room": "A"}, timestamp=now)
        for examinee_id, name in (("E001", "Kim"), ("E002", "Lee"))
    ]
    await bus.publish(Outgoing.of(subjects.status_plan("P001", subjects.OPERATOR), *people))
    await system.examinee("E001")
    stored = [message async for message in read_plan(bus, "P001")]
    await bus.delete_message(STATUS.name, stored[0].sequence)

    def rows(report: dict[str, Any]) -> list[tuple[Any, ...]]:
        return [(row["name"], row["labels"], row["endStatus"]) for row in report["examinees"]]

    never_came = ("Lee", {"room": "A"}, "NEVER_CAME")
    report = await out(invoke, "plans", "report", "P001")
    assert rows(report) == [("Kim", {"room": "A"}, "CONNECTED"), never_came]
    for message in stored[1:]:
        await bus.delete_message(STATUS.name, message.sequence)
    # Of whom nothing is left but a record, nobody can say how the exam was.
    assert rows(await out(invoke, "plans", "report", "P001")) == [never_came]
    early = await out(invoke, "plans", "report", "P001", "--to", "-1h")
    assert early["from"] == early["to"]


async def test_an_unknown_examinee_is_exit_code_3_and_an_invalid_time_2(system: System, invoke: Invoke) -> None:
    await system.examinee("E001")
    for arguments in (
        ("plans", "timeline", "P001", "E009"),
        ("plans", "timeline", "P009"),
        ("plans", "timeline", "P001", "E009", "--at", "now"),
        ("plans", "report", "P009"),
        ("examinees", "show", "P001", "E009"),
        ("examinees", "show", "p001", "E001"),
        ("state", "verify", "--plan", "P009"),
        ("state", "rebuild", "--plan", "P009", "--yes"),
    ):
        result = await invoke(*arguments)
        assert (result.exit_code, result.stdout) == (3, ""), arguments
        assert "is unknown" in result.stderr, arguments
    usage: list[tuple[str, ...]] = [
        ("plans", "timeline", "P001", "--at", "teatime"),
        ("plans", "timeline", "P001", "E.1"),
        ("plans", "report", "P001", "--csv", "-o", "json"),
        ("plans", "report", "P001", "--from", "now", "--to", "-1h"),
    ]
    for flags in usage:
        assert (await invoke(*flags)).exit_code == 2, flags


async def test_a_timeline_can_be_followed(system: System, variables: dict[str, str]) -> None:
    await system.examinee("E001")
    command = [sys.executable, "-m", "cli.main", "plans", "timeline", "P001", "--follow", "-o", "json"]
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*command, env={**os.environ, **variables}, stdout=pipe)
    try:
        assert process.stdout is not None
        joined = json.loads(await asyncio.wait_for(process.stdout.readline(), 60))
        assert (joined["examineeId"], joined["what"]) == ("E001", "JOINED")
        await system.examinee("E002")
        following = json.loads(await asyncio.wait_for(process.stdout.readline(), 60))
        assert (following["examineeId"], following["what"]) == ("E002", "JOINED")
        process.send_signal(signal.SIGINT)
        assert await asyncio.wait_for(process.wait(), 20) == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


# -- why is E0042 red -------------------------------------------------------------------------------------


async def test_a_diagnosis_explains_why_an_examinee_is_red(system: System, bus: Bus, invoke: Invoke) -> None:
    client = await system.examinee("E0042")
    green = await invoke("examinees", "show", "P001", "E0042")
    assert green.exit_code == 0, green.stderr
    assert green.stdout.startswith("E0042 is CONNECTED since")
    assert "live session" in green.stdout
    diagnosis = await out(invoke, "examinees", "show", "P001", "E0042")
    assert diagnosis["session"]["details"]["socketId"] == diagnosis["record"]["socketId"]
    assert (diagnosis["disagreements"], diagnosis["deadLetters"]) == ([], [])

    bad_message = {"type": "connection_status", "data": {"planId": "P001", "examineeId": "E0042", "status": "GONE"}}
    await bus.publish(Outgoing("status.plan.P001", json.dumps(bad_message).encode()))
    client.abort()
    await system.status("E0042", "DISCONNECTED")

    async def named() -> bool:
        return bool((await out(invoke, "examinees", "show", "P001", "E0042"))["deadLetters"])

    await eventually(named, "the dead letter")
    red = await out(invoke, "examinees", "show", "P001", "E0042")
    assert red["status"] == "DISCONNECTED"
    assert "SOCKET_CLOSED - the connection broke: the network failed" in red["headline"]
    assert "SOCK001, which is READY" in red["headline"]
    assert red["session"] == {}
    assert [entry["what"] for entry in red["timeline"]][:2] == ["JOINED", "LOST"]

    async def exhausted() -> bool:
        return (await system.progress("E0042"))["exhausted"] == "1"

    await eventually(exhausted, "shut out")
    text = (await invoke("examinees", "show", "P001", "E0042")).stdout
    assert "shut out: all reconnect attempts are used up. The loss: SOCKET_CLOSED" in text
    assert "Readmit them, on the wall or by" in text.replace("\n", " ")


async def test_a_diagnosis_works_without_redis_or_nats(
    system: System, invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live_actors, "CONNECT_SECONDS", 0.5)
    client = await system.examinee("E0042")
    client.abort()
    await system.status("E0042", "DISCONNECTED")
    without_redis = await invoke("examinees", "show", "P001", "E0042", EXAMWIRE_REDIS_URL=NOWHERE["EXAMWIRE_REDIS_URL"])
    assert without_redis.exit_code == 5
    assert "E0042 is DISCONNECTED" in without_redis.stdout
    assert "SOCKET_CLOSED" in without_redis.stdout
    assert "uses the log only" in without_redis.stderr
    without_nats = await invoke("examinees", "show", "P001", "E0042", EXAMWIRE_NATS_URL=NOWHERE["EXAMWIRE_NATS_URL"])
    assert without_nats.exit_code == 5
    assert "E0042 is DISCONNECTED" in without_nats.stdout
    assert "lacks the log" in without_nats.stderr
    await system.store._redis.set("plan:P001:examinee:E0042:progress", "not a hash")
    damaged = await invoke("examinees", "show", "P001", "E0042")
    assert damaged.exit_code == 5
    assert "E0042 is DISCONNECTED" in damaged.stdout
    assert "state rebuild" in damaged.stderr
    neither = await invoke("examinees", "show", "P001", "E0042", **NOWHERE)
    assert (neither.exit_code, neither.stdout) == (4, "")


async def test_a_plan_shows_since_when_each_state_lasts(system: System, invoke: Invoke) -> None:
    await system.examinee("E001")
    (row,) = (await out(invoke, "plans", "show", "P001"))["examinees"]
    assert row["since"] == (await system.progress())["since"]
    assert "since" in (await invoke("plans", "show", "P001")).stdout
