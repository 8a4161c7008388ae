"""`examwire plans create` and `plans roster` on real engines: who may come, and who never came."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import stat
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from actors.runtime.broker.connection import Bus
from actors.runtime.config.settings import Settings
from actors.runtime.config.tokens import TokenVerifier
from actors.state_manager.manager import StateManager
from actors.state_manager.recovery.audit import Audit
from actors.status_log.status_log import StatusLog
from cli.plans import decisions
from cli.shared import live_actors
from tests.integration.support.command_line import Invoke
from tests.integration.support.system import System, eventually

ROSTER = "\ufeffexamineeId,name,seat\r\nE001,김하나,A1\r\nE002,=Lee,A2\r\nE003,,A3\r\n"


@pytest.fixture
async def system(bus: Bus, settings: Settings) -> AsyncIterator[System]:
    async with System(settings) as system:
        yield system
        report = await Audit(StatusLog(system._buses["state-manager"]), system.store).run()
        assert (report.differences, report.whole) == ([], True)
        assert system.failures == []


@pytest.fixture
def invoke(invoke: Invoke) -> Invoke:
    return partial(invoke, "plans")


@pytest.fixture
def roster(tmp_path: Path) -> Path:
    path = tmp_path / "roster.csv"
    path.write_text(ROSTER, encoding="utf-8", newline="")
    return path


def write(path: Path, *lines: str) -> None:
    """A roster by hand."""
    path.write_text("".join(f"{line}\n" for line in ("examineeId,name", *lines)), encoding="utf-8")


async def create(invoke: Invoke, roster: Path, *more: str) -> dict[str, Any]:
    result = await invoke("create", "P001", "--roster", str(roster), *more, "-o", "json")
    assert result.exit_code == 0, result.stderr
    created: dict[str, Any] = json.loads(result.stdout)
    return created


async def roster_of(invoke: Invoke, *more: str) -> dict[str, Any]:
    result = await invoke("roster", "P001", *more, "-o", "json")
    assert result.exit_code == 0, result.stderr
    plan: dict[str, Any] = json.loads(result.stdout)
    return plan


async def test_examinees_of_a_roster_are_in_the_snapshot_with_their_names(
    system: System, invoke: Invoke, roster: Path
) -> None:
    watching = await system.proctor("SOCK001")
    created = await create(invoke, roster)
    assert (created["examinees"], created["new"], created["renamed"], created["known"]) == (3, 3, 0, 0)
    enrolled_event = await watching.expect("examinee_enrolled", examineeId="E001")
    assert (enrolled_event["data"]["name"], enrolled_event["data"]["connection"]["status"]) == ("김하나", "NEVER")
    await watching.expect("examinee_enrolled", examineeId="E003")
    examinee = await system.examinee("E002", "SOCK002")
    assert (await watching.expect("examinee_connected", examineeId="E002"))["data"]["name"] == "=Lee"
    late = await system.proctor("SOCK002", name="proctor-2")
    rows = (await late.expect("plan_snapshot"))["data"]["examinees"]
    assert [(row["examineeId"], row.get("name"), row["status"]) for row in rows] == [
        ("E001", "김하나", "NEVER"),
        ("E002", "=Lee", "CONNECTED"),
        ("E003", None, "NEVER"),
    ]
    await examinee.close()
    await watching.expect("examinee_disconnected", examineeId="E002")
    plan = await roster_of(invoke)
    assert plan["counts"] == {"enrolled": 3, "came": 1, "neverCame": 2, "notOnRoster": 0}
    never = await roster_of(invoke, "--never")
    assert [(row["examineeId"], row["name"]) for row in never["examinees"]] == [("E001", "김하나"), ("E003", None)]


async def test_a_proctor_can_act_on_enrolled_examinees_who_never_connected(
    system: System, invoke: Invoke, roster: Path
) -> None:
    proctor = await system.proctor()
    await create(invoke, roster)
    await proctor.expect("examinee_enrolled", examineeId="E001")
    await proctor.say("notify", examineeId="E001", requestId="n-1", text="Welcome.")
    await proctor.expect("notice", actionId="n-1")
    await proctor.say("remove", examineeId="E003", requestId="r-1")
    await proctor.expect("examinee_removed", examineeId="E003", status="NEVER")
    examinee = await system.examinee("E001")
    state = (await examinee.expect("session_state"))["data"]
    assert [notice["actionId"] for notice in state["notices"]] == ["n-1"]
    client = await system.raw("SOCK002")
    await client.say("hello", token=system.token("examinee", "E003"), clientId="c", connectionNo=1)
    assert await client.closed() == 4508


async def test_a_roster_sent_again_adds_only_new_lines_and_names(system: System, invoke: Invoke, roster: Path) -> None:
    proctor = await system.proctor()
    await create(invoke, roster)
    bus = system._buses["state-manager"]
    before = (await bus.stream_state("STATUS")).last
    result = await create(invoke, roster)
    assert (result["new"], result["renamed"], result["known"]) == (0, 0, 3)
    assert (await bus.stream_state("STATUS")).last == before, "what is known already is not said again"
    write(roster, "E001,김하나", "E002,Lee", "E003,", "E004,Park")
    more = await create(invoke, roster)
    assert (more["new"], more["renamed"], more["known"]) == (1, 1, 2)
    await proctor.expect("examinee_enrolled", examineeId="E004", name="Park")
    await proctor.expect("examinee_enrolled", examineeId="E002", name="Lee")
    enrolled_ids = [frame["data"]["examineeId"] for frame in proctor.frames if frame["type"] == "examinee_enrolled"]
    assert sorted(enrolled_ids) == ["E001", "E002", "E002", "E003", "E004"]


async def test_a_large_roster_is_enrolled_in_batches(system: System, invoke: Invoke, tmp_path: Path) -> None:
    path = tmp_path / "hall.csv"
    write(path, *(f"E{number:04},Name {number}" for number in range(2000)))
    created = await create(invoke, path)
    assert created["new"] == 2000
    plan = await roster_of(invoke)
    assert plan["counts"]["enrolled"] == 2000
    assert plan["counts"]["neverCame"] == 2000


async def test_a_roster_is_there_for_the_next_command_or_said_to_be_late(
    system: System, invoke: Invoke, roster: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody works off the log at first: `create` waits, and after a while says that the roster is not applied yet."""
    await system.stop("state-manager")
    bus = await Bus.connect(system.settings, "state-manager")
    try:
        status = StatusLog(bus)
        before = (await status.extent()).last

        async def in_the_log() -> bool:
            return (await status.extent()).last > before

        creating = asyncio.create_task(create(invoke, roster))
        await eventually(in_the_log, "the roster is in the log")
        assert not creating.done()
        await system.start("state-manager", lambda bus: StateManager(system.settings, bus, system.store, "sm2"))
        assert (await creating)["new"] == 3
        assert (await roster_of(invoke))["counts"]["enrolled"] == 3

        await system.stop("state-manager")
        monkeypatch.setattr(decisions, "APPLIED_SECONDS", 0.2)
        write(roster, "E004,Lee")
        tokens = tmp_path / "tokens.csv"
        late = await invoke("create", "P001", "--roster", str(roster), "--tokens", str(tokens))
        assert (late.exit_code, "not applied" in late.stderr, tokens.exists()) == (4, True, True)
    finally:
        await bus.close()
        await system.start("state-manager", lambda bus: StateManager(system.settings, bus, system.store, "sm3"))
    assert (await create(invoke, roster))["renamed"] == 0


async def test_the_columns_of_a_roster_in_another_encoding_are_told(
    system: System, invoke: Invoke, tmp_path: Path
) -> None:
    path = tmp_path / "roster.csv"
    path.write_bytes("성명;좌석 번호;수험번호\r\n김하나;12;E001\r\n".encode("cp949"))
    refused = await invoke("create", "P001", "--roster", str(path))
    assert (refused.exit_code, "give --encoding cp949" in refused.stderr) == (2, True)
    result = await invoke("create", "P001", "--roster", str(path), "--encoding", "cp949")
    assert "columns: 성명 is name, 좌석 번호 is label 좌석_번호, 수험번호 is examineeId" in result.stdout
    (row,) = (await roster_of(invoke))["examinees"]
    assert (row["examineeId"], row["name"], row["labels"]) == ("E001", "김하나", {"좌석_번호": "12"})


async def test_tokens_and_links_go_to_a_file_that_only_its_owner_may_read(
    system: System, invoke: Invoke, roster: Path, tmp_path: Path
) -> None:
    path = tmp_path / "tokens.csv"
    path.write_text("role,examineeId,name,token,url\r\nof an earlier run")
    path.chmod(0o644)
    result = await invoke(
        "create", "P001", "--roster", str(roster), "--tokens", str(path), "--valid", "2h",
        "--web-url", "https://exam.example/",
    )  # fmt: skip
    assert result.exit_code == 0, result.stderr
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    rows = list(csv.DictReader(io.StringIO(path.read_text(encoding="utf-8-sig"), newline="")))
    assert [(row["role"], row["examineeId"], row["name"]) for row in rows] == [
        ("examinee", "E001", "김하나"),
        ("examinee", "E002", "'=Lee"),
        ("examinee", "E003", ""),
        ("proctor", "", "T001"),
    ]
    verifier = TokenVerifier(system.settings)
    for row in rows:
        claims = verifier.verify(row["token"])
        assert (claims.role, claims.plan) == (row["role"], "P001")
        assert row["url"] == f"https://exam.example/{row['role']}#token={row['token']}"
        assert row["token"] not in result.stdout + result.stderr
    assert verifier.verify(rows[1]["token"]).sub == "E002"


async def test_a_file_with_a_mistake_writes_nothing(
    system: System, invoke: Invoke, roster: Path, tmp_path: Path
) -> None:
    write(roster, "E001,Kim", "E 2,Lee", "E001,Park")
    tokens = tmp_path / "tokens.csv"
    result = await invoke("create", "P001", "--roster", str(roster), "--tokens", str(tokens))
    assert result.exit_code == 2
    assert "line 3, column examineeId: 'E 2'" in result.stderr
    assert "line 4, column examineeId: E001 again, as on line 2" in result.stderr
    assert not tokens.exists()
    assert (await invoke("roster", "P001")).exit_code == 3


async def test_an_impossible_plans_create_is_refused_before_writing(
    system: System, invoke: Invoke, roster: Path, tmp_path: Path
) -> None:
    names = {name: str(tmp_path / name) for name in ("other.csv", "hard-link.csv", "symlink.csv")}
    other = tmp_path / "other.csv"
    other.write_text("somebody's work")
    (tmp_path / "hard-link.csv").hardlink_to(roster)
    (tmp_path / "symlink.csv").symlink_to(roster)
    plan = ("create", "P001", "--roster", str(roster))
    before = (await system._buses["state-manager"].stream_state("STATUS")).last
    for arguments, code, said in (
        (("create", "P 1", "--roster", str(roster)), 2, "planId"),
        (("create", "P001", "--roster", "/nowhere/roster.csv"), 2, "cannot be read"),
        ((*plan, "--tokens", "/nowhere/tokens.csv"), 2, "does not exist"),
        ((*plan, "--tokens", str(roster)), 2, "is the roster: give"),
        ((*plan, "--tokens", names["hard-link.csv"]), 2, "is the roster: give"),
        ((*plan, "--tokens", names["symlink.csv"]), 2, "is not a regular file"),
        ((*plan, "--tokens", "/dev/stdout"), 2, "is not a regular file"),
        ((*plan, "--tokens", names["other.csv"]), 2, "exists and holds no tokens"),
        ((*plan, "--encoding", "klingon"), 2, "the encoding 'klingon' is unknown"),
        ((*plan, "--valid", "soon"), 2, "is not a duration"),
        ((*plan, "--web-url", "exam.example"), 2, "http://"),
        (("roster", "P404"), 3, "is unknown"),
    ):
        result = await invoke(*arguments)
        assert (result.exit_code, said in result.stderr) == (code, True), (arguments, result.stderr)
    assert (await system._buses["state-manager"].stream_state("STATUS")).last == before
    texts = [path.read_text(encoding="utf-8") for path in (roster, other)]
    assert texts == [ROSTER.replace("\r\n", "\n"), "somebody's work"]


async def test_without_a_broker_plans_create_fails(
    settings: Settings, invoke: Invoke, roster: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live_actors, "CONNECT_SECONDS", 0.1)
    result = await invoke("create", "P001", "--roster", str(roster), EXAMWIRE_NATS_URL="nats://127.0.0.1:1")
    assert result.exit_code == 4
    assert "no NATS server" in result.stderr
