"""`examwire plans schedule`, `open`, `close`, `finish`, `resume` and `extend` on a whole system."""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from cli.plans import decisions
from protocol.close_codes import CloseCode
from protocol.times import format_time, parse_time
from tests.integration.support.command_line import Invoke, done, refused
from tests.integration.support.system import RawClient, System, eventually

ROSTER = "examineeId,name,room,extraMinutes\nE001,김하나,A,\nE002,Lee,B,30\nE003,Park,B,\n"


@pytest.fixture
def plans(invoke: Invoke) -> Invoke:
    return partial(invoke, "plans")


def soon(seconds: float) -> str:
    return format_time(time.time() + seconds)


@pytest.fixture
def roster(tmp_path: Path) -> Path:
    path = tmp_path / "roster.csv"
    path.write_text(ROSTER, encoding="utf-8")
    return path


async def test_an_exam_is_run_from_its_roster_to_its_end_by_commands(
    system: System, plans: Invoke, roster: Path
) -> None:
    proctor = await system.proctor("SOCK001")
    starts_at, ends_at = soon(600), soon(7200)
    times = ("--name", "Algebra", "--starts-at", starts_at, "--ends-at", ends_at)
    created = await done(plans, "create", "P001", "--roster", str(roster), *times)
    assert (created["new"], created["timed"]) == (3, 1)
    assert (created["plan"]["status"], created["plan"]["startsAt"]) == ("SCHEDULED", starts_at)
    told = (await proctor.expect("examinee_enrolled", examineeId="E002"))["data"]
    assert (told["name"], told["labels"]) == ("Lee", {"room": "B"})
    own_end = format_time(parse_time(ends_at) + 1800)
    await proctor.expect("plan_state", ownTimes={"E002": {"startsAt": starts_at, "endsAt": own_end}})
    again = await done(plans, "create", "P001", "--roster", str(roster), *times)
    assert (again["known"], again["timed"]) == (3, 0)
    assert again["plan"]["ownTimes"] == {"E002": {"startsAt": starts_at, "endsAt": own_end}}

    first, second = await system.examinee("E001", "SOCK001"), await system.examinee("E002", "SOCK002")
    opened = await done(plans, "open", "P001")
    assert (opened["status"], opened["endsAt"]) == ("OPEN", ends_at)
    assert "is open already" in await refused(plans, "open", "P001")

    extended = await done(plans, "extend", "P001", "15m", "--action-id", "x1")
    assert extended["endsAt"] == format_time(parse_time(ends_at) + 900)
    repeated = await done(plans, "extend", "P001", "15m", "--action-id", "x1")
    assert (repeated["endsAt"], repeated["version"]) == (extended["endsAt"], extended["version"])
    alone = await done(plans, "extend", "P001", "10m", "--examinee", "E001")
    assert alone["ownTimes"]["E001"]["endsAt"] == format_time(parse_time(extended["endsAt"]) + 600)

    finished = await done(plans, "finish", "P001", "E001", "--action-id", "f1")
    assert finished["finished"] == ["E001"]
    assert (await proctor.expect("examinee_finished", examineeId="E001"))["data"]["reason"] == "DECIDED"
    assert "E001 is finished already" in await refused(plans, "finish", "P001", "E001")
    assert (await done(plans, "finish", "P001", "E001", "--action-id", "f1"))["finished"] == ["E001"]
    everybody = await done(plans, "finish", "P001", "--all")
    assert everybody["finished"] == ["E002"]
    assert everybody["skipped"] == {"E001": "finished already", "E003": "absent: never came"}
    assert (await done(plans, "resume", "P001", "--all"))["resumed"] == ["E001", "E002"]

    closed = await done(plans, "close", "P001", "--reason", "fire alarm")
    assert (closed["status"], closed["closedReason"]) == ("CLOSED", "fire alarm")
    for client in (first, second):
        assert await client.closed() == CloseCode.EXAM_OVER
    await system.status("E001", "FINISHED")
    assert "is closed already, since" in await refused(plans, "close", "P001")
    for command in (("resume", "P001", "E001"), ("extend", "P001", "5m")):
        assert "open it again first: `examwire plans open P001`" in await refused(plans, *command)
    assert (await done(plans, "open", "P001"))["status"] == "OPEN"


async def test_bad_times_rules_and_names_are_refused_and_change_nothing(
    system: System, plans: Invoke, roster: Path, tmp_path: Path
) -> None:
    await done(plans, "create", "P001", "--roster", str(roster))
    before = await done(plans, "schedule", "P001", "--starts-at", soon(3600), "--ends-at", soon(7200))
    policy = tmp_path / "policy.toml"
    policy.write_text('graceSeconds = 60\ncolour = "red"\n')
    for arguments, said in (
        (("--starts-at", "tomorrow"), "--starts-at: 'tomorrow' is not a valid time"),
        (("--starts-at", "2026-13-01 09:00"), "--starts-at: '2026-13-01 09:00' is not a valid time"),
        (("--ends-at", "9999-01-01T00:00:00Z"), "--ends-at: '9999-01-01T00:00:00Z' is not between"),
        (("--starts-at", soon(500), "--ends-at", soon(400)), "is not later than"),
        (("--ends-at", soon(1800)), "is not later than the beginning of plan P001"),
        (("--starts-at", soon(9000)), "is not earlier than the end of plan P001"),
        (("--starts-at", soon(-60)), "is in the past; `examwire plans open` begins plan P001 now"),
        (("--ends-at", "2020-01-01 09:00"), "is in the past; `examwire plans close` ends plan P001 now"),
        (("--policy", "colour=red"), "policy: colour is unknown; known are backoffSeconds"),
        (("--policy", "graceSeconds"), "--policy: 'graceSeconds' is not KEY=VALUE"),
        (("--policy", "graceSeconds=-1"), "policy: graceSeconds: Input should be greater than or equal to 0"),
        (("--policy-file", str(policy)), "policy: colour is unknown"),
        (("--policy-file", str(tmp_path / "none.json")), "none.json cannot be read"),
        (("--name", "\u200b"), "--name: must be 1 to 100 characters"),
        ((), "nothing is given"),
    ):
        assert said in await refused(plans, "schedule", "P001", *arguments), arguments
    unknown: tuple[tuple[str, ...], ...] = (
        ("open", "P404"),
        ("close", "P404"),
        ("schedule", "P404", "--ends-at", soon(60)),
        ("extend", "P404", "5m"),
        ("finish", "P001", "E001", "E404"),
        ("extend", "P001", "5m", "--examinee", "E404"),
    )
    for command in unknown:
        assert "unknown" in await refused(plans, *command, code=3)
    assert "give either the examinees, or --all" in await refused(plans, "finish", "P001")
    late = tmp_path / "late.csv"
    late.write_text(f"examineeId,startsAt\nE001,{soon(8000)}\n")
    assert "line 2: the exam of E001 would end before it begins" in await refused(
        plans, "create", "P001", "--roster", str(late)
    )
    after = await done(plans, "schedule", "P001", "--policy", "graceSeconds=60", "--policy", "backoffSeconds=1,2")
    assert after["policy"] == {"graceSeconds": 60, "backoffSeconds": [1.0, 2.0]}
    assert {**after, "policy": {}, "version": 0, "actionId": ""} == {**before, "version": 0, "actionId": ""}


async def test_without_a_state_manager_a_decision_is_in_the_log_and_said_to_be_open(
    system: System, plans: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decisions, "APPLIED_SECONDS", 0.5)
    await system.stop("state-manager")
    said = await refused(plans, "schedule", "P009", "--new", "--ends-at", soon(600), code=4)
    assert "is in the log, but not applied after 0.5 s" in said


async def test_a_roster_with_many_own_times_is_told_in_a_few_states(
    system: System, plans: Invoke, tmp_path: Path
) -> None:
    proctor, examinee = await system.proctor("SOCK001"), await system.examinee("E0007", "SOCK002")
    roster = tmp_path / "roster.csv"
    lines = [f"E{number:04},30\n" for number in range(500)]
    roster.write_text("examineeId,extraMinutes\n" + "".join(lines), encoding="utf-8")
    ends_at = soon(3600)
    created = await done(plans, "create", "P001", "--roster", str(roster), "--ends-at", ends_at)
    assert (created["new"], created["timed"]) == (500, 500)
    await examinee.expect("plan_state", endsAt=format_time(parse_time(ends_at) + 1800))

    async def all_told() -> bool:
        return len(states_of(proctor)[-1].get("ownTimes") or ()) == 500

    await eventually(all_told, "500 own times")
    for client in (proctor, examinee):
        assert len(states_of(client)) < 20


def states_of(client: RawClient) -> list[dict[str, Any]]:
    return [frame["data"] for frame in client.frames if frame["type"] == "plan_state"]
