"""Help, messages to several, and what proctors do at the same time: through real sockets, over reconnects."""

from __future__ import annotations

from typing import Any

from tests.integration.support.system import System


async def test_a_request_for_help_is_taken_by_one_proctor_and_seen_by_all(system: System) -> None:
    kim, lee = await system.proctor("SOCK001", name="kim"), await system.proctor("SOCK002", name="lee")
    examinee = await system.examinee("E001", "SOCK001")
    await examinee.say("help_request", requestId="h1", text="Page 3 does not load.")
    await examinee.expect("accepted", requestType="help_request", requestId="h1")
    for client in (kim, lee, examinee):
        asked = (await client.expect("help_requested", examineeId="E001"))["data"]
        assert (asked["help"]["requestId"], asked["help"]["text"]) == ("h1", "Page 3 does not load.")

    await examinee.say("help_request", requestId="h2")  # one is open: without effect, and no error
    await examinee.expect("accepted", requestType="help_request", requestId="h2")
    await kim.say("help_take", examineeId="E001", helpId="h1", requestId="t1")
    await kim.expect("accepted", requestType="help_take", requestId="t1")
    for client in (lee, examinee):
        taken = (await client.expect("help_taken", examineeId="E001", by="kim"))["data"]
        assert (taken["help"]["requestId"], taken["help"]["takenBy"]) == ("h1", "kim")

    # Over a reload of the examinee's page, and of the proctor's, on another server.
    await examinee.close()
    again = await system.examinee("E001", "SOCK002", connection_no=2)
    state = (await again.expect("session_state"))["data"]
    assert (state["help"]["requestId"], state["help"]["takenBy"]) == ("h1", "kim")
    assert state["noticesVersion"] == taken["version"]
    late = await system.proctor("SOCK002", name="park")
    (row,) = (await late.expect("plan_snapshot"))["data"]["examinees"]
    assert row["notices"]["help"] == state["help"]

    await lee.say("help_close", examineeId="E001", helpId="h1", requestId="c1")
    for client in (kim, again):
        assert "help" not in (await client.expect("help_closed", examineeId="E001", by="lee"))["data"]
    await again.say("help_request", requestId="h3")
    await again.expect("help_requested", requestId="h3")
    await again.say("help_cancel", requestId="h3")
    await kim.expect("help_closed", requestId="h3", by="E001")
    assert not [frame for frame in kim.frames if frame["data"].get("requestId") == "h2"]
    await again.say("help_take", examineeId="E001", helpId="h1", requestId="t2")
    await again.expect("error", code="NOT_ALLOWED", requestId="t2")


def notices_of(row: dict[str, Any]) -> dict[str, Any]:
    notices: dict[str, Any] = row["notices"]
    return notices


async def test_a_message_to_several_reaches_who_connects_later_and_is_confirmed_by_each(system: System) -> None:
    proctor = await system.proctor("SOCK001")
    first = await system.examinee("E001", "SOCK001")
    other = await system.examinee("E003", "SOCK001")
    await proctor.say("notify_plan", requestId="p1", text="Ten minutes are left.", examinees=["E001", "E002"])
    await proctor.expect("accepted", requestId="p1")
    await proctor.expect("plan_notice", actionId="p1", examinees=["E001", "E002"])
    await first.expect("notice", actionId="p1", text="Ten minutes are left.")
    await proctor.say("notify_plan", requestId="p2", text="Everybody may go.")
    for client in (first, other):
        await client.expect("notice", actionId="p2")
    assert not [frame for frame in other.frames if frame["data"].get("actionId") == "p1"]

    late = await system.examinee("E002", "SOCK002")
    state = (await late.expect("session_state"))["data"]
    assert [notice["actionId"] for notice in state["notices"]] == ["p1", "p2"]
    for client, examinee_id in ((first, "E001"), (late, "E002")):
        await client.say("notice_confirm", actionId="p1")
        await client.expect("accepted", requestType="notice_confirm", requestId="p1")
        told = (await proctor.expect("notice_confirmed", examineeId=examinee_id, actionId="p1"))["data"]
        assert told["confirmedPlanNotices"] == ["p1"]
    await other.say("notice_confirm", actionId="p1")
    await other.expect("error", code="NOT_FOUND", requestId="p1")

    # Over reloads, on a server that was told of nothing before.
    await first.close()
    again = await system.examinee("E001", "SOCK002", connection_no=2)
    state = (await again.expect("session_state"))["data"]
    assert [notice["actionId"] for notice in state["notices"]] == ["p2"]
    await again.say("notice_confirm", actionId="p1")  # said twice: accepted, and stored once
    await again.expect("accepted", requestType="notice_confirm", requestId="p1")
    watching = await system.proctor("SOCK002", name="lee")
    snapshot = (await watching.expect("plan_snapshot"))["data"]
    assert [(one["actionId"], one.get("examinees")) for one in snapshot["planNotices"]] == [
        ("p1", ["E001", "E002"]),
        ("p2", None),
    ]
    rows = {row["examineeId"]: row for row in snapshot["examinees"]}
    assert (
        notices_of(rows["E001"])["confirmedPlanNotices"] == notices_of(rows["E002"])["confirmedPlanNotices"] == ["p1"]
    )
    assert "notices" not in rows["E003"]


async def test_proctors_are_told_what_the_others_do_with_an_examinee(system: System) -> None:
    kim, lee = await system.proctor("SOCK001", name="kim"), await system.proctor("SOCK002", name="lee")
    stranger = await system.proctor("SOCK002", plan_id="P002", name="choi")
    await system.examinee("E001", "SOCK001")
    await kim.say("proctor_activity", examineeId="E001", doing="looking")
    told = (await lee.expect("proctor_activity", doing="looking"))["data"]
    assert (told["planId"], told["examineeId"], told["by"]) == ("P001", "E001", "kim")
    await kim.say("proctor_activity", examineeId="E002", doing="writing")
    await lee.expect("proctor_activity", examineeId="E001", doing="nothing")
    await lee.expect("proctor_activity", examineeId="E002", doing="writing")
    for number in range(60):  # more than anybody does: the others are not flooded
        await kim.say("proctor_activity", examineeId=f"E1{number:02}", doing="looking")
    await kim.say("help_take", examineeId="E001", helpId="h1", requestId="t1")
    await kim.expect("accepted", requestId="t1")
    kim.abort()
    await lee.expect("proctor_activity", examineeId="E117", doing="nothing", by="kim")
    assert len([frame for frame in lee.frames if frame["type"] == "proctor_activity"]) < 50
    assert not [frame for frame in [*kim.frames, *stranger.frames] if frame["type"] == "proctor_activity"]
