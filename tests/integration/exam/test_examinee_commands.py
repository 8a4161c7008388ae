"""`examwire examinees readmit`, `remove`, `notify`, `finish` and `resume` on a whole system."""

from __future__ import annotations

import getpass
from functools import partial

import pytest

from actors.runtime.config.settings import Settings
from cli.plans import decisions
from protocol.close_codes import CloseCode
from tests.integration.support.command_line import Invoke, done, refused
from tests.integration.support.settings import changed
from tests.integration.support.system import System


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return changed(settings, {"reconnect.max_attempts": 1, "reconnect.backoff_seconds": [1.0]})


@pytest.fixture
def examinees(invoke: Invoke) -> Invoke:
    return partial(invoke, "examinees")


async def test_an_operator_removes_and_readmits_as_a_proctor_does(
    system: System, examinees: Invoke, invoke: Invoke
) -> None:
    proctor = await system.proctor("SOCK001")
    first, second = await system.examinee("E001", "SOCK002"), await system.examinee("E002", "SOCK001")
    assert "E001 is not shut out" in await refused(examinees, "readmit", "P001", "E001")
    removal = ("remove", "P001", "E001", "--reason", "wrong person", "--by", "김하나", "--action-id", "r1")
    assert (await done(examinees, *removal))["removed"] == ["E001"]
    assert await first.closed() == CloseCode.REMOVED
    told = (await proctor.expect("examinee_removed", examineeId="E001"))["data"]
    assert (told["byName"], told["reason"], told["actionId"]) == ("김하나", "wrong person", "r1")
    assert told["by"] == f"{getpass.getuser()}, examinees remove"
    assert (await done(examinees, *removal))["removed"] == ["E001"]  # repeated: one effect
    assert "E001 is removed already" in await refused(examinees, "remove", "P001", "E001")

    second.abort()
    await proctor.expect("examinee_reconnect_exhausted", examineeId="E002")
    # Whoever was removed on purpose is not readmitted with all those who were shut out.
    everybody = await done(examinees, "readmit", "P001", "--all")
    assert everybody["readmitted"] == ["E002"]
    assert everybody["skipped"] == {"E001": "removed from the exam: give the id to readmit"}
    assert (await proctor.expect("examinee_readmitted", examineeId="E002"))["data"].get("byName") is None
    people = await examinees("readmit", "P001", "E001", "E002", "--by", "lee")
    assert people.stdout.splitlines() == [
        "plan P001: E001 is readmitted",
        "E002 is not shut out",
        "To come back, they reload the exam page.",
    ]
    await proctor.expect("examinee_readmitted", examineeId="E001", byName="lee")
    await system.examinee("E001", "SOCK002", connection_no=2)
    timeline = (await invoke("plans", "timeline", "P001", "E001")).stdout
    assert f"removed by 김하나 ({getpass.getuser()}, examinees remove): wrong person" in timeline


async def test_an_operator_sends_messages_and_ends_the_exam_of_examinees(system: System, examinees: Invoke) -> None:
    proctor = await system.proctor("SOCK001")
    first = await system.examinee("E001", "SOCK002")
    (await system.examinee("E002", "SOCK001")).abort()
    await system.status("E002", "DISCONNECTED")
    alone = ("notify", "P001", "E001", "--text", "자리를 지켜\n주십시오.", "--by", "kim", "--action-id", "n1")
    for _ in range(2):  # repeated: one effect
        assert (await done(examinees, *alone))["notified"] == ["E001"]
    await first.expect("notice", actionId="n1", text="자리를 지켜\n주십시오.", byName="kim")
    sent = (await proctor.expect("notice", examineeId="E001", actionId="n1"))["data"]
    assert (sent["sent"], sent["unconfirmed"]) == (1, ["n1"])
    for whom, expected in ((["--all"], None), (["E001", "E002"], ["E001", "E002"])):
        told = await done(examinees, "notify", "P001", *whom, "--text", "Ten minutes are left.")
        assert (told["notified"], told["connected"]) == (["E001", "E002"], 1)
        await first.expect("notice", actionId=told["actionId"])
        notice = (await proctor.expect("plan_notice", actionId=told["actionId"]))["data"]
        assert notice.get("examinees") == expected
    people = await examinees("notify", "P001", "--all", "--text", "Look here.")
    assert people.stdout.splitlines() == [
        "plan P001: E001, E002 are notified",
        "1 of them not connected now: they read it after connecting",
    ]
    assert (await done(examinees, "finish", "P001", "E001", "--by", "kim"))["finished"] == ["E001"]
    await proctor.expect("examinee_finished", examineeId="E001", byName="kim")
    assert (await done(examinees, "resume", "P001", "E001"))["resumed"] == ["E001"]


async def test_mistakes_of_operators_change_nothing(
    system: System, examinees: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    proctor = await system.proctor("SOCK001")
    await system.examinee("E001", "SOCK001")
    say = ("--text", "hello")
    unknown = "E009 is unknown in plan P001; nothing has changed"
    assert unknown in await refused(examinees, "remove", "P001", "E001", "E009", code=3)
    assert unknown in await refused(examinees, "notify", "P001", "E001", "E009", *say, code=3)
    assert "plan P009 is unknown" in await refused(examinees, "readmit", "P009", "E001", code=3)
    assert "plan P009 is unknown" in await refused(examinees, "notify", "P009", "--all", *say, code=3)
    for arguments, said in (
        (("remove", "P001"), "give the examinees"),
        (("readmit", "P001"), "give either the examinees, or --all"),
        (("readmit", "P001", "E001", "--all"), "give either the examinees, or --all"),
        (("notify", "P001", *say), "give either the examinees, or --all"),
        (("notify", "P001", "E001", "--text", " \u200b "), "must have at least one visible character"),
        (("notify", "P001", "E001", "--text", "x" * 1001), "has 1001 characters; at most 1000"),
        (("remove", "P001", "E001", "--reason", "x" * 257), "must be 1 to 256 characters"),
        (("remove", "P001", "E001", "--by", "\u200b"), "must be 1 to 100 characters"),
        (("remove", "P001", "E 1"), "examineeId"),
    ):
        assert said in await refused(examinees, *arguments), arguments
    # What the log has and no state manager has applied yet is said, with its own exit code.
    monkeypatch.setattr(decisions, "APPLIED_SECONDS", 0.2)
    await system.stop("state-manager")
    for command in (("remove", "P001", "E001"), ("notify", "P001", "E001", *say)):
        assert "is in the log, but not applied" in await refused(examinees, *command, code=4)
    assert proctor.about("E001")[1:] == []  # nothing but the connection was told
