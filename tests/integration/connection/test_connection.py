"""Connection loss and recovery through real sockets and real engines."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator

import pytest

from actors.runtime.broker.connection import Bus, Outgoing
from actors.runtime.config.settings import Settings
from actors.sessions.limits.fact_budget import CONNECTIONS
from actors.state_manager.manager import StateManager
from protocol.broker import subjects
from protocol.close_codes import CloseCode
from protocol.messages.codec import encode, join_batch
from protocol.messages.facts import ConnectionStatus, ConnectionStatusCode
from protocol.records import keys
from protocol.times import format_time
from tests.integration.support.settings import changed
from tests.integration.support.system import RawClient, System, eventually
from tests.support.metrics import sample

SHORT = pytest.mark.parametrize("ladder", [[0.4, 0.4, 0.4]], ids=["short"])


@pytest.fixture
def ladder() -> list[float]:
    """Seconds of the attempts: time enough to come back on a busy machine. Who is to be shut out has `SHORT`."""
    return [1.5, 5.0, 5.0]


@pytest.fixture
def settings(settings: Settings, ladder: list[float]) -> Settings:
    """Quick to notice silence."""
    return changed(
        settings,
        {
            "socket.ping_interval_seconds": 0.4,
            "socket.ping_timeout_seconds": 0.4,
            "reconnect.max_attempts": 3,
            "reconnect.backoff_seconds": ladder,
        },
    )


@pytest.fixture
async def system(bus: Bus, settings: Settings) -> AsyncIterator[System]:
    async with System(settings) as system:
        yield system
        assert system.failures == []


def _status(examinee_id: str, socket_id: str, status: ConnectionStatusCode, connection_no: int = 1) -> ConnectionStatus:
    is_loss = status is ConnectionStatusCode.DISCONNECTED
    return ConnectionStatus(
        plan_id="P001",
        examinee_id=examinee_id,
        socket_id=socket_id,
        status=status,
        timestamp=format_time(time.time()),
        reason="SOCKET_CLOSED" if is_loss else None,
        client_id=f"browser-{examinee_id}",
        connection_no=connection_no,
    )


def _kinds(client: RawClient, examinee_id: str) -> list[str]:
    return [frame["type"] for frame in client.about(examinee_id) if frame["type"] != "examinee_reconnecting"]


async def test_a_loss_and_a_recovery_reach_redis_and_the_proctors_on_both_servers(system: System) -> None:
    first_proctor, second_proctor = await system.proctor("SOCK001"), await system.proctor("SOCK002", name="proctor-2")
    examinee = await system.examinee("E001")
    for proctor in (first_proctor, second_proctor):
        await proctor.expect("examinee_connected", examineeId="E001", recovered=False)
    examinee.abort()
    for proctor in (first_proctor, second_proctor):
        loss = await proctor.expect("examinee_disconnected", examineeId="E001")
        assert loss["data"]["reason"] == "SOCKET_CLOSED"
        assert "closeCode" not in loss["data"]
    record = await system.progress("E001")
    assert record["connStatusCode"] == "DISCONNECTED"
    socket = await system.store.entries(keys.socket("P001", record["socketId"]))
    assert (socket["examineeId"], socket["status"]) == ("E001", "DISCONNECTED")

    returning = await system.examinee("E001", "SOCK002", connection_no=2)
    for proctor in (first_proctor, second_proctor):
        recovered = await proctor.expect("examinee_connected", examineeId="E001", recovered=True)
        assert recovered["data"]["serverId"] == "SOCK002"
        events = [event["type"] for event in proctor.about("E001") if "reconnecting" not in event["type"]]
        assert events == ["examinee_connected", "examinee_disconnected", "examinee_connected"]
    await system.status("E001", "CONNECTED")
    assert (await returning.expect("session_state"))["data"]["reconnect"]["count"] == 1


@pytest.mark.parametrize(("code", "reason"), [(1000, "CLIENT_CLOSED"), (1001, "CLIENT_CLOSED"), (4000, "PING_TIMEOUT")])
async def test_a_clean_close_is_a_loss_too_by_the_client_unless_it_heard_nothing(
    system: System, code: int, reason: str
) -> None:
    proctor = await system.proctor()
    examinee = await system.examinee()
    await examinee.websocket.close(code)
    loss = (await proctor.expect("examinee_disconnected", examineeId="E001"))["data"]
    assert (loss["reason"], loss["closeCode"]) == (reason, code)
    assert (await system.progress("E001"))["closeCode"] == str(code)


async def test_a_peer_that_stops_answering_pings_is_lost_by_ping_timeout(system: System) -> None:
    proctor = await system.proctor()
    examinee = await system.examinee()
    examinee.websocket.transport.pause_reading()  # the connection stays open, but nobody is there
    loss = await proctor.expect("examinee_disconnected", examineeId="E001")
    assert loss["data"]["reason"] == "PING_TIMEOUT"
    await system.status("E001", "DISCONNECTED")


async def test_any_inbound_frame_prevents_a_ping_timeout(system: System) -> None:
    examinee = await system.examinee()
    proctor = await system.proctor()
    deadline = time.monotonic() + 1.6
    count = 0
    while time.monotonic() < deadline:  # twice the limit of silence
        before = len(examinee.frames)
        await examinee.say("heartbeat")
        await examinee.expect("heartbeat", after=before)
        count += 1
        await asyncio.sleep(0.1)
    assert count > 5
    assert "examinee_disconnected" not in _kinds(proctor, "E001")


async def test_the_snapshot_shows_everyone_and_events_follow_without_repetition(system: System) -> None:
    first, second = await system.examinee("E001"), await system.examinee("E002", "SOCK002")
    first.abort()
    await system.status("E001", "DISCONNECTED")
    proctor = await system.proctor("SOCK002")
    snapshot = (await proctor.expect("plan_snapshot"))["data"]
    rows = {row["examineeId"]: row for row in snapshot["examinees"]}
    assert {name: row["status"] for name, row in rows.items()} == {"E001": "DISCONNECTED", "E002": "CONNECTED"}
    assert rows["E001"]["connection"]["reason"] == "SOCKET_CLOSED"
    assert rows["E002"]["mobileSync"]["status"] == "NONE"
    await second.close()
    await proctor.expect("examinee_disconnected", examineeId="E002")
    assert _kinds(proctor, "E001") == []
    assert _kinds(proctor, "E002") == ["examinee_disconnected"]


async def test_welcome_names_the_ready_servers_as_fallback(system: System) -> None:
    async def both_known() -> bool:
        return len(system.server("SOCK001")._endpoints.ready) == 2

    await eventually(both_known, "both servers are known as endpoints")
    client = await system.raw("SOCK001")
    welcome = await client.hello(system.token("examinee", "E001"))
    data = welcome["data"]
    assert data["endpoints"] == [system.server("SOCK001").url, system.server("SOCK002").url]
    assert (data["role"], data["planId"], data["examineeId"], data["serverId"]) == (
        "examinee",
        "P001",
        "E001",
        "SOCK001",
    )
    assert data["socketId"].startswith("SOCK001-")
    assert data["reconnect"] == {"maxAttempts": 3, "backoffSeconds": [1.5, 5.0, 5.0], "jitter": 0.3}
    assert data["heartbeatSeconds"] == 0.4


@SHORT
async def test_attempts_are_published_until_the_limit_then_refused_until_readmitted(system: System) -> None:
    first_proctor, second_proctor = await system.proctor("SOCK001"), await system.proctor("SOCK002")
    examinee = await system.examinee()
    counters = ("examwire_reconnect_attempts_total", "examwire_reconnect_exhausted_total")
    attempts, limits = (sample(counter) for counter in counters)
    examinee.abort()
    for proctor in (first_proctor, second_proctor):
        exhausted = await proctor.expect("examinee_reconnect_exhausted", examineeId="E001")
        assert exhausted["data"]["reason"] == "RECONNECT_LIMIT_EXCEEDED"
        ladder = [f["data"] for f in proctor.about("E001") if f["type"] == "examinee_reconnecting"]
        assert [(step["attempt"], step["maxAttempts"]) for step in ladder] == [(1, 3), (2, 3), (3, 3)]
        assert [step.get("nextAttemptAt") is not None for step in ladder] == [True, True, False]
    assert [sample(counter) for counter in counters] == [attempts + 3, limits + 1]
    record = await system.progress()
    assert (record["connStatusCode"], record["reason"]) == ("DISCONNECTED", "RECONNECT_LIMIT_EXCEEDED")

    late = await system.raw("SOCK002")
    await late.hello(system.token("examinee", "E001"), "browser-E001", 2)
    assert await late.closed() == 4504
    assert "examinee_connected" not in _kinds(second_proctor, "E001")[2:]

    await second_proctor.say("readmit", examineeId="E001", requestId="r1")
    await second_proctor.expect("accepted", requestType="readmit", requestId="r1")
    readmitted = await first_proctor.expect("examinee_readmitted", examineeId="E001")
    assert readmitted["data"]["by"] == "proctor-1"
    await system.examinee("E001", "SOCK002", connection_no=3)
    await first_proctor.expect("examinee_connected", examineeId="E001", recovered=True)
    await system.status("E001", "CONNECTED")


async def test_attempts_stop_when_the_examinee_is_back(system: System) -> None:
    proctor = await system.proctor()
    examinee = await system.examinee()
    examinee.abort()
    await proctor.expect("examinee_reconnecting", examineeId="E001", attempt=1)
    await system.examinee("E001", connection_no=2)
    watch = system.actors["reconnect-watch"]

    async def ladder_is_over() -> bool:
        info = await system._buses["reconnect-watch"]._js.consumer_info("RECONNECT", "reconnect-watch")
        return not info.num_ack_pending and not info.num_pending

    await eventually(ladder_is_over, "the message on the reconnect watch is acknowledged")
    attempts = [f["data"]["attempt"] for f in proctor.about("E001") if f["type"] == "examinee_reconnecting"]
    assert attempts == [1]
    assert watch.details()["exhausted"] == 0


async def test_a_newer_connection_replaces_the_older_and_proctors_see_it(system: System) -> None:
    proctor = await system.proctor("SOCK002")
    old = await system.examinee("E001", "SOCK001")
    new = await system.examinee("E001", "SOCK002", connection_no=2)
    assert await old.closed() == 4503
    connected = await proctor.expect("examinee_connected", examineeId="E001", serverId="SOCK002")
    assert connected["data"]["replaced"]["socketId"].startswith("SOCK001-")
    current = (await new.expect("session_state"))["data"]["socketId"]

    async def old_socket_ended() -> bool:
        entry = await system.store.entries(keys.socket("P001", connected["data"]["replaced"]["socketId"]))
        return entry.get("status") == "DISCONNECTED"

    await eventually(old_socket_ended, "the replaced socket's own record says so")
    record = await system.progress()
    assert (record["connStatusCode"], record["socketId"]) == ("CONNECTED", current)
    assert _kinds(proctor, "E001") == ["examinee_connected", "examinee_connected"]


async def test_a_late_disconnect_of_a_replaced_socket_changes_nothing(system: System, bus: Bus) -> None:
    proctor = await system.proctor()
    await system.examinee("E001")
    current = (await system.progress())["socketId"]
    late = _status("E001", "SOCK009-gone", ConnectionStatusCode.DISCONNECTED)
    await bus.publish(Outgoing(subjects.status_plan("P001"), encode(late)))
    await system.examinee("E002")
    await proctor.expect("examinee_connected", examineeId="E002")  # whatever was before this is processed
    record = await system.progress()
    assert (record["connStatusCode"], record["socketId"]) == ("CONNECTED", current)
    assert _kinds(proctor, "E001") == ["examinee_connected"]


async def test_a_delayed_connect_of_an_abandoned_socket_never_replaces_a_live_one(system: System, bus: Bus) -> None:
    proctor = await system.proctor()
    live = await system.examinee("E001", connection_no=5)
    current = (await system.progress())["socketId"]
    abandoned = _status("E001", "SOCK002-abandoned", ConnectionStatusCode.CONNECTED, connection_no=4)
    await bus.publish(Outgoing(subjects.status_plan("P001"), encode(abandoned)))
    await system.examinee("E002")
    await proctor.expect("examinee_connected", examineeId="E002")
    assert (await system.progress())["socketId"] == current
    assert live.websocket.close_code is None
    assert _kinds(proctor, "E001") == ["examinee_connected"]


async def test_a_loss_and_a_recovery_in_one_batch_end_connected(system: System, bus: Bus) -> None:
    proctor = await system.proctor()
    await system.examinee("E001", client_id="browser-E001")
    socket_id = (await system.progress())["socketId"]
    batch = [
        encode(_status("E001", socket_id, ConnectionStatusCode.DISCONNECTED)),
        encode(_status("E001", "SOCK002-next", ConnectionStatusCode.CONNECTED, connection_no=2)),
    ]
    await bus.publish(Outgoing(subjects.status_plan("P001"), join_batch(batch)))
    await proctor.expect("examinee_connected", examineeId="E001", socketId="SOCK002-next")
    record = await system.progress()
    assert (record["connStatusCode"], record["socketId"]) == ("CONNECTED", "SOCK002-next")
    assert _kinds(proctor, "E001") == ["examinee_connected", "examinee_disconnected", "examinee_connected"]


async def test_two_plans_do_not_see_each_other(system: System) -> None:
    ours, theirs = await system.proctor(plan_id="P001"), await system.proctor(plan_id="P002", name="proctor-2")
    await system.examinee("E001", plan_id="P001")
    await system.examinee("E001", "SOCK002", plan_id="P002")
    await ours.expect("examinee_connected", planId="P001")
    await theirs.expect("examinee_connected", planId="P002")
    assert {frame["data"]["planId"] for frame in ours.about("E001")} == {"P001"}
    assert {frame["data"]["planId"] for frame in theirs.about("E001")} == {"P002"}


async def test_several_state_managers_share_the_work_and_agree(system: System) -> None:
    await system.start("sm2", lambda bus: StateManager(system.settings, bus, system.store, "sm2"))
    await system.start("sm3", lambda bus: StateManager(system.settings, bus, system.store, "sm3"))
    proctor = await system.proctor()
    names = [f"E{number:03}" for number in range(30)]
    clients = {name: await system.examinee(name) for name in names}
    for round_no in (2, 3):
        for name in names:
            clients[name].abort()
        for name in names:
            clients[name] = await system.examinee(name, connection_no=round_no)
    for name in names[:10]:
        clients[name].abort()
    for name in names:
        await system.status(name, "DISCONNECTED" if name in names[:10] else "CONNECTED")

    async def the_proctor_agrees() -> bool:
        last = {}
        for frame in proctor.frames:
            if frame["type"] in ("examinee_connected", "examinee_disconnected"):
                last[frame["data"]["examineeId"]] = frame["type"]
        wrong = [name for name in names if (last[name] == "examinee_connected") == (name in names[:10])]
        return not wrong

    await eventually(the_proctor_agrees, "the proctor's screen shows the truth")


async def test_nothing_is_left_of_a_client_however_it_leaves(system: System) -> None:
    sessions = system.server("SOCK001").sessions
    early, wrong, quick = await system.raw(), await system.raw(), await system.raw()
    assert sessions.sockets == 3
    early.abort()
    await wrong.say("heartbeat")
    assert await wrong.closed() == CloseCode.INVALID_HELLO
    # The first examinee of a plan waits for its messages; what is said meanwhile is answered afterwards.
    await quick.say("hello", token=system.token("examinee", "E001"), clientId="c", connectionNo=1)
    await quick.say("heartbeat")
    await quick.expect("heartbeat")
    assert quick.frames[0]["type"] == "welcome"
    others = [await system.raw() for _ in range(CONNECTIONS.burst + 1)]
    for number, other in enumerate(others, 2):  # the last ones wait for their turn
        await other.say("hello", token=system.token("examinee", "E001"), clientId="c", connectionNo=number)
    clients = [quick, *others, await system.examinee("E002"), await system.proctor()]
    for client in clients[::2]:
        client.abort()
    for client in clients[1::2]:
        await client.close()

    async def nothing_is_left() -> bool:
        return sessions.sockets == 0 and not sessions.all() and not sessions.feeds

    await eventually(nothing_is_left, "all clients are gone")
    assert sessions.at(subjects.session("P001", "E002")) is None
    for examinee_id in ("E001", "E002"):
        await system.status(examinee_id, "DISCONNECTED")


async def test_a_live_session_answers_and_an_ended_one_has_no_responders(system: System, bus: Bus) -> None:
    examinee = await system.examinee("E001")
    session = json.loads(await bus.request(subjects.session("P001", "E001")))
    assert session["kind"] == "examinee-session"
    assert session["details"]["serverId"] == "SOCK001"
    examinee.abort()
    await system.status("E001", "DISCONNECTED")

    async def nobody_listens() -> bool:
        try:
            await bus.request(subjects.session("P001", "E001"), timeout=1)
        except Exception as error:
            return type(error).__name__ == "NoResponders"
        return False

    await eventually(nobody_listens, "no responders for an examinee who is not connected")


@SHORT
async def test_a_loss_is_counted_after_an_older_one_replaced_it_on_the_watch(system: System, bus: Bus) -> None:
    """As when two state managers tell of two losses, the older one last."""
    proctor = await system.proctor()
    (await system.examinee()).abort()
    await system.status("E001", "DISCONNECTED")
    await bus.publish(Outgoing(subjects.reconnect("P001", "E001"), b'{"lossVersion":1}'))
    exhausted = await proctor.expect("examinee_reconnect_exhausted", examineeId="E001")
    assert exhausted["data"]["attempt"] == 3
