"""Proctors whose tokens are limited to rooms, on two servers: nobody sees or acts on anybody of another room."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import httpx
import pytest

from actors.runtime.broker.connection import Bus, Outgoing
from actors.runtime.config.settings import Settings
from actors.web_server.server import WebServer
from protocol.broker import subjects
from protocol.client.plan_view import PlanView
from protocol.messages.facts import Enrol
from protocol.messages.frames import SERVER_FRAMES
from protocol.messages.plan_facts import ExamWindow, PlanSchedule
from protocol.times import format_time
from tests.integration.support.command_line import Invoke
from tests.integration.support.system import RawClient, System, eventually

ROOM_A, ROOM_B = {"room": ["A"]}, {"room": ["B"]}
IN_A, IN_B, NOWHERE = ("EA1", "EA2"), ("EB1", "EB2"), "EN1"


async def enrol(bus: Bus, **rooms: str | None) -> None:
    """Enrol examinees of P001 in these rooms."""
    now = format_time(bus.clock.now())
    facts = [
        Enrol(plan_id="P001", examinee_id=examinee, labels={"room": room} if room else {}, timestamp=now)
        for examinee, room in rooms.items()
    ]
    address = subjects.status_plan("P001", subjects.OPERATOR)
    await bus.publish_until_stored([Outgoing.of(address, *facts)])


async def enrol_everybody(bus: Bus, system: System) -> None:
    await enrol(bus, EA1="A", EA2="A", EB1="B", EB2="B", EN1=None)
    await eventually(lambda: _known(system, "EN1"), "the roster in Redis")


async def _known(system: System, examinee_id: str) -> bool:
    return bool(await system.progress(examinee_id))


def view_of(client: RawClient) -> PlanView:
    view = PlanView()
    for frame in client.frames:
        view.apply(SERVER_FRAMES.from_element(frame))
    return view


def names_in(frames: list[dict[str, Any]], *names: str) -> set[str]:
    """Return which of these examinees any of the frames names, anywhere."""
    text = json.dumps(frames)
    return {name for name in names if name in text}


async def test_no_frame_names_an_examinee_of_another_room(bus: Bus, system: System) -> None:
    await enrol_everybody(bus, system)
    first = await system.proctor("SOCK001", name="anna", scope=ROOM_A)
    second = await system.proctor("SOCK002", name="ben", scope=ROOM_B)
    chief = await system.proctor("SOCK001", name="chief")
    assert set(view_of(chief).examinees) == {*IN_A, *IN_B, NOWHERE}
    now = format_time(bus.clock.now())
    address = subjects.status_plan("P001", subjects.OPERATOR)
    common: dict[str, Any] = {"plan_id": "P001", "by": "operator", "timestamp": now}
    ends_at = format_time(bus.clock.now() + 7200)
    windows = [ExamWindow(**common, examinee_id=name, extra_seconds=60) for name in (*IN_A, *IN_B, NOWHERE)]
    await bus.publish_until_stored([Outgoing.of(address, PlanSchedule(**common, ends_at=ends_at), *windows)])
    clients = {name: await system.examinee(name, f"SOCK00{1 + index % 2}") for index, name in enumerate(IN_A + IN_B)}
    clients[NOWHERE] = await system.examinee(NOWHERE, "SOCK001")
    for client in clients.values():
        await client.say("mobile_sync_wait")
    await clients["EB1"].say("help_request", requestId="h1", text="no paper")
    await chief.say("notify_plan", requestId="n1", text="To two rooms", examinees=["EA1", "EB1"])
    await chief.say("notify_plan", requestId="n2", text="To room B", examinees=list(IN_B))
    await chief.say("proctor_activity", examineeId="EB2", doing="looking")
    for name in IN_B:
        clients[name].abort()
    for name in IN_A:
        await clients[name].close()
    await first.expect("examinee_disconnected", examineeId="EA2")
    await second.expect("examinee_disconnected", examineeId="EB2")
    assert (await first.expect("plan_notice", actionId="n1"))["data"]["examinees"] == ["EA1"]
    assert (await second.expect("plan_notice", actionId="n2"))["data"]["examinees"] == list(IN_B)
    late_first = await system.proctor("SOCK002", name="anna", scope=ROOM_A)
    late_second = await system.proctor("SOCK001", name="ben", scope=ROOM_B)
    nobody = await system.proctor("SOCK001", name="noel", scope={"wing": ["N"]})
    for client, own, others in (
        (first, IN_A, (*IN_B, NOWHERE)),
        (late_first, IN_A, (*IN_B, NOWHERE)),
        (second, IN_B, (*IN_A, NOWHERE)),
        (late_second, IN_B, (*IN_A, NOWHERE)),
        (nobody, (), (*IN_A, *IN_B, NOWHERE)),
    ):
        assert set(view_of(client).examinees) == set(own)
        assert names_in(client.frames, *others) == set()
        for aspect in ("status", "mobile_sync", "notices"):
            assert [getattr(view_of(client).examinees[name], aspect) for name in own] == [
                getattr(view_of(chief).examinees[name], aspect) for name in own
            ]
    states = [frame["data"] for frame in late_first.frames if frame["type"] == "plan_state"]
    assert set(states[-1]["ownTimes"]) == set(IN_A)


async def test_a_proctor_of_a_room_acts_on_nobody_of_another(bus: Bus, system: System) -> None:
    await enrol_everybody(bus, system)
    proctor, chief = await system.proctor("SOCK001", scope=ROOM_A), await system.proctor("SOCK002", name="chief")
    inside, outside = await system.examinee("EA1", "SOCK001"), await system.examinee("EB1", "SOCK002")
    actions: tuple[tuple[str, dict[str, Any]], ...] = (
        ("remove", {}),
        ("readmit", {}),
        ("finish", {}),
        ("resume", {}),
        ("notify", {"text": "Hello"}),
        ("extend_mobile_sync", {"seconds": 60}),
        ("extend_exam", {"seconds": 60}),
        ("help_take", {"helpId": "h1"}),
        ("help_close", {"helpId": "h1"}),
        ("capture_review", {"captureId": "0" * 64, "verdict": "accepted"}),
    )
    for kind, fields in actions:
        said = []
        for examinee in ("EB1", "E404"):
            await proctor.say(kind, examineeId=examinee, requestId=f"{kind}-{examinee}", **fields)
            refused = (await proctor.expect("error", requestId=f"{kind}-{examinee}"))["data"]
            said.append((refused["code"], refused["message"].replace(examinee, ""), refused.get("field")))
        assert said[0] == said[1], "as for an examinee who is unknown"
        assert said[0][0] == "NOT_FOUND"
    await proctor.say("extend_exam", seconds=60, requestId="x")
    assert (await proctor.expect("error", requestId="x"))["data"]["code"] == "FORBIDDEN"
    await proctor.say("notify_plan", requestId="n1", text="Hello", examinees=["EA1", "EB1"])
    assert (await proctor.expect("error", requestId="n1"))["data"]["code"] == "NOT_FOUND"
    await proctor.say("notify_plan", requestId="n2", text="To all whom I see")
    assert (await chief.expect("plan_notice", actionId="n2"))["data"]["examinees"] == list(IN_A)
    await inside.expect("notice", actionId="n2")
    await proctor.say("finish", examineeId="EA1", requestId="f1")
    await chief.expect("examinee_finished", examineeId="EA1")
    assert not [frame for frame in outside.frames if frame["type"] == "notice"]
    assert (await system.progress("EB1"))["connStatusCode"] == "CONNECTED"


async def test_who_changes_rooms_leaves_one_wall_and_comes_to_the_other(bus: Bus, system: System) -> None:
    await enrol_everybody(bus, system)
    first, second = await system.proctor("SOCK001", scope=ROOM_A), await system.proctor("SOCK002", scope=ROOM_B)
    examinee = await system.examinee("EA1", "SOCK001")
    await examinee.say("mobile_sync_wait")
    await first.expect("mobile_sync_status", examineeId="EA1", status="WAITING")
    await enrol(bus, EA1="B")

    async def moved() -> bool:
        return set(view_of(first).examinees) == {"EA2"} and "EA1" in view_of(second).examinees

    await eventually(moved, "EA1 in room B")
    seen = view_of(second).examinees["EA1"]
    await eventually(lambda: _waiting(second), "the picture that EA1 owes")
    assert (seen.status, seen.labels) == ("CONNECTED", {"room": "B"})
    before = len(first.frames)
    await examinee.close()
    await second.expect("examinee_disconnected", examineeId="EA1")
    await enrol(bus, EA2="A")
    assert names_in(first.frames[before:], "EA1") == set()
    await second.say("finish", examineeId="EA1", requestId="f1")
    await second.expect("accepted", requestId="f1")


async def _waiting(client: RawClient) -> bool:
    return view_of(client).examinees["EA1"].mobile_sync == "WAITING"


async def test_after_a_resync_and_a_servers_end_a_room_is_still_a_room(bus: Bus, system: System) -> None:
    await enrol_everybody(bus, system)
    proctor = await system.proctor("SOCK001", scope=ROOM_A)
    for name in (*IN_A, *IN_B):
        await system.examinee(name, "SOCK002")
    system.server("SOCK001").sessions.resynchronise({"P001"})
    await proctor.expect("plan_snapshot", resync=True)
    await system.stop("SOCK002")
    again = await system.proctor("SOCK001", name="anna", scope=ROOM_A)
    for name in IN_A:
        await proctor.expect("examinee_disconnected", examineeId=name)
    for client in (proctor, again):
        assert set(view_of(client).examinees) == set(IN_A)
        assert names_in(client.frames, *IN_B, NOWHERE) == set()


@pytest.fixture
async def web(bus: Bus, settings: Settings, system: System) -> AsyncIterator[httpx.AsyncClient]:
    server = WebServer(settings, bus, system.store)
    await server.start(lambda _, error: system.failures.append(error))
    async with httpx.AsyncClient(base_url=server.url, timeout=20, trust_env=False, verify=False) as client:
        yield client
    await server.stop()


async def test_over_http_a_proctor_of_a_room_gets_nothing_of_another(
    bus: Bus, system: System, web: httpx.AsyncClient
) -> None:
    await enrol_everybody(bus, system)
    for name in (*IN_A, *IN_B):
        client = await system.examinee(name, "SOCK001")
        client.abort()
        await system.status(name, "DISCONNECTED")
    headers = {"Authorization": f"Bearer {system.token('proctor', 'anna', scope=ROOM_A)}"}
    chief = {"Authorization": f"Bearer {system.token('proctor', 'chief')}"}
    report = await web.get("/v1/plans/P001/report.csv", headers=headers)
    assert (report.status_code, {name for name in (*IN_A, *IN_B) if name in report.text}) == (200, set(IN_A))
    whole = (await web.get("/v1/plans/P001/report.csv", headers=chief)).text
    assert {name for name in (*IN_A, *IN_B) if name in whole} == {*IN_A, *IN_B}
    for path in ("examinees/{}/timeline", "captures/{}/sync_cap.jpg"):
        answers = []
        for name in ("EB1", "E404"):
            answer = await web.get(f"/v1/plans/P001/{path.format(name)}", headers=headers)
            answers.append((answer.status_code, answer.text.replace(name, "")))
        assert answers[0] == answers[1]
        assert answers[0][0] == 404
    assert (await web.get("/v1/plans/P001/examinees/EA1/timeline", headers=headers)).status_code == 200


async def test_the_token_command_limits_a_proctor_and_warns_of_unknown_labels(
    bus: Bus, system: System, invoke: Invoke
) -> None:
    await enrol_everybody(bus, system)
    token = partial(invoke, "token", "proctor", "P001", "T001")
    made = await token("--scope", "room=A,B")
    assert (made.exit_code, made.stderr) == (0, "")
    client = await system.raw("SOCK001")
    await client.hello(made.stdout.strip(), "T001")
    await client.expect("plan_snapshot")
    assert set(view_of(client).examinees) == {*IN_A, *IN_B}
    for option, said in (
        ("wing=N", "no examinee of plan P001 has the label wing (it has room): nobody is seen"),
        ("room=A,C", "nobody in plan P001 has room C"),
    ):
        warned = await token("--scope", option)
        assert (warned.exit_code, warned.stdout.count(".")) == (0, 2)
        assert said in warned.stderr
    for option in ("room", "room=", "=A", "1=A"):
        assert (await token("--scope", option)).exit_code == 2, option
    assert (await invoke("token", "examinee", "P001", "EA1", "--scope", "room=A")).exit_code == 2
