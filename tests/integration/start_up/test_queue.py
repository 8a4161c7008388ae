"""What a socket server's queue receives: it grows, shrinks, is dropped, removed and made again."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace

import pytest

from actors.runtime.actor.receiver import Receiver
from actors.runtime.broker.connection import Bus, Outgoing
from actors.runtime.broker.consumers.consumer import Delivery
from actors.runtime.config.settings import Settings
from actors.socket_server.delivery import queue
from actors.socket_server.server import SocketServer
from protocol.broker import subjects
from protocol.broker.stream_codecs import ToSocketServer
from protocol.broker.streams import SOCKET
from protocol.messages.codec import encode
from protocol.messages.plan_facts import PlanSchedule
from protocol.messages.proctor_events import ExamineeConnected
from protocol.messages.session_messages import SessionClose
from protocol.records import keys
from tests.integration.start_up.support import filters_of, quick
from tests.integration.support.system import RawClient, System, eventually


async def filters_become(bus: Bus, consumer: str, expected: set[str] | None) -> None:
    async def same() -> bool:
        return await filters_of(bus, consumer) == expected

    await eventually(same, f"{consumer} receives {expected}")


async def test_the_queue_grows_and_shrinks_with_the_plans_of_the_clients(
    bus: Bus, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queue, "IDLE_PLAN_SECONDS", 0.2)
    often = {"socket.ping_interval_seconds": 0.1, "socket.ping_timeout_seconds": 5}  # how often the server looks
    async with System(quick(settings, **often), servers=("SOCK001",)) as system:
        assert await filters_of(bus, "SOCK001_Q") == {"socket.SOCK001"}
        assert await filters_of(bus, "SOCK001_Q_BROADCAST") is None
        first = await system.examinee("E001", plan_id="P001")
        second = await system.examinee("E002", plan_id="P002")
        proctor = await system.proctor(plan_id="P001")
        assert await filters_of(bus, "SOCK001_Q") == {
            "socket.SOCK001",
            "socket.plan.P001.examinee.*",
            "socket.plan.P001.examinees",
            "socket.plan.P002.examinee.*",
            "socket.plan.P002.examinees",
        }
        assert await filters_of(bus, "SOCK001_Q_BROADCAST") == {"socket.plan.P001.proctors"}
        await second.close()
        await filters_become(
            bus, "SOCK001_Q", {"socket.SOCK001", "socket.plan.P001.examinee.*", "socket.plan.P001.examinees"}
        )
        await proctor.close()
        await filters_become(bus, "SOCK001_Q_BROADCAST", None)
        await first.close()
        await filters_become(bus, "SOCK001_Q", {"socket.SOCK001"})

        # Whoever comes now finds everything as if the plan had never been given up.
        proctor = await system.proctor(plan_id="P001")
        await system.examinee("E001", plan_id="P001", connection_no=2)
        await proctor.expect("examinee_connected", examineeId="E001", recovered=True)
        assert system.failures == []


async def test_a_server_with_many_plans_has_several_lanes_and_each_brings_its_plans(
    bus: Bus, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queue, "PLANS_A_LANE", 1)
    monkeypatch.setattr(queue, "IDLE_PLAN_SECONDS", 0.2)
    often = {"socket.ping_interval_seconds": 0.1, "socket.ping_timeout_seconds": 5}
    async with System(quick(settings, **often), servers=("SOCK001",)) as system:
        proctors = [await system.proctor(plan_id=f"P00{number}") for number in range(3)]
        for number, proctor in enumerate(proctors):
            await system.examinee("E001", plan_id=f"P00{number}")
            await proctor.expect("examinee_connected", examineeId="E001")
        assert await filters_of(bus, "SOCK001_Q_2") == {"socket.plan.P002.examinee.*", "socket.plan.P002.examinees"}
        assert await filters_of(bus, "SOCK001_Q_2_BROADCAST") == {"socket.plan.P002.proctors"}
        schedule = PlanSchedule(plan_id="P002", by="operator", timestamp="2024-01-01T09:00:00Z", name="Mathematics")
        await bus.publish(Outgoing.of(subjects.status_plan("P002"), schedule))
        for client in system.clients[2], system.clients[5]:
            await client.expect("plan_state", name="Mathematics")
        for client in system.clients[1], system.clients[4]:
            await client.close()
        await filters_become(bus, "SOCK001_Q_1", None)
        await filters_become(bus, "SOCK001_Q_1_BROADCAST", None)
        await bus.delete_consumer("SOCKET", "SOCK001_Q_2_BROADCAST")
        await proctors[2].expect("plan_snapshot", resync=True)
        await system.stop("SOCK001")
        assert await filters_of(bus, "SOCK001_Q_2") is not None
        await system.start_server("SOCK001")
        assert await filters_of(bus, "SOCK001_Q_2") is None  # what the last process has left is gone
        assert system.failures == []


async def test_with_normal_priority_all_messages_share_one_consumer(bus: Bus, settings: Settings) -> None:
    async with System(quick(settings), servers=("SOCK001",)) as system:
        await system.proctor()
        await system.stop("SOCK001")
        assert await filters_of(bus, "SOCK001_Q_BROADCAST") is not None
    async with System(quick(settings, **{"socket.queue_priority": "normal"}), servers=("SOCK001",)) as system:
        assert await filters_of(bus, "SOCK001_Q_BROADCAST") is None  # what was left over is gone
        proctor = await system.proctor()
        await system.examinee("E001")
        await proctor.expect("examinee_connected", examineeId="E001")
        assert await filters_of(bus, "SOCK001_Q") == {
            "socket.SOCK001",
            "socket.plan.P001.examinee.*",
            "socket.plan.P001.examinees",
            "socket.plan.P001.proctors",
        }
        assert await filters_of(bus, "SOCK001_Q_BROADCAST") is None


class Gate:
    """Delays what a server reads from its queue, so that messages pile up."""

    def __init__(self, server: SocketServer, monkeypatch: pytest.MonkeyPatch) -> None:
        self._take = server._queue_reader._take
        self._open, self._broadcasts = asyncio.Event(), asyncio.Event()
        self.reached = asyncio.Event()
        monkeypatch.setattr(server._queue_reader, "_take", self._wait)

    async def _wait(self, consumer: str, receiver: Receiver[ToSocketServer], deliveries: list[Delivery]) -> None:
        self.reached.set()
        await (self._broadcasts if deliveries[0].subject.endswith(".proctors") else self._open).wait()
        await self._take(consumer, receiver, deliveries)

    def open_for_broadcasts(self) -> None:
        self._broadcasts.set()

    def open(self) -> None:
        self._open.set()
        self._broadcasts.set()


def event(examinee_id: str, version: int, plan_id: str = "P001") -> Outgoing:
    connected = ExamineeConnected(
        plan_id=plan_id,
        examinee_id=examinee_id,
        socket_id="SOCK009-1",
        timestamp="2024-01-01T09:00:00Z",
        version=version,
    )
    return Outgoing(subjects.socket_proctors(plan_id), encode(connected))


async def test_a_backlog_over_max_size_is_dropped_and_proctors_get_a_fresh_snapshot(
    bus: Bus, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with System(quick(settings, **{"socket.queue_max_size": 10}), servers=("SOCK001",)) as system:
        await system.examinee("E001")
        proctor = await system.proctor()
        gate = Gate(system.server("SOCK001"), monkeypatch)
        await bus.publish(event("X000", 1))
        await gate.reached.wait()
        await bus.publish_until_stored([event(f"X{number}", number) for number in range(2, 1200)])
        schedule = PlanSchedule(plan_id="P001", by="operator", timestamp="2024-01-01T09:00:00Z", name="Mathematics")
        await bus.publish(Outgoing.of(subjects.status_plan("P001"), schedule))
        await eventually(lambda: system.store.entries(keys.plan("P001")), "the plan in Redis")
        gate.open()
        resync = await proctor.expect("plan_snapshot", resync=True)
        await proctor.expect("plan_state", name="Mathematics")
        assert [row["examineeId"] for row in resync["data"]["examinees"]] == ["E001"]

        async def drained() -> bool:
            info = await bus._js.consumer_info("SOCKET", "SOCK001_Q_BROADCAST")
            return bool(info.num_pending == 0)

        await eventually(drained, "the backlog is gone")
        assert "X1199" not in {frame["data"].get("examineeId") for frame in proctor.frames}
        await system.examinee("E002")
        await proctor.expect("examinee_connected", examineeId="E002")
        assert system.failures == []


async def test_a_server_notices_what_the_stream_has_dropped_unread(
    bus: Bus, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with System(quick(settings), servers=("SOCK001",)) as system:
        await system.examinee("E001")
        proctor = await system.proctor()
        gaps = system.server("SOCK001")._view._gaps

        async def looked_at() -> bool:
            return "SOCK001_Q_BROADCAST" in gaps._read_up_to

        await eventually(looked_at, "the server knows how far its queue is")
        gate = Gate(system.server("SOCK001"), monkeypatch)
        await bus.publish(event("X000", 1))
        await gate.reached.wait()
        # More than one pull takes, so that the last ones wait in the stream.
        await bus.publish_until_stored([event(f"X{number}", number) for number in range(2, 700)])
        await bus.apply_stream(replace(SOCKET, max_bytes=64 * 1024))
        await bus.publish_until_stored([event("OTHER", number, "P009") for number in range(700, 1400)])
        gate.open()
        resync = await proctor.expect("plan_snapshot", resync=True)
        assert [row["examineeId"] for row in resync["data"]["examinees"]] == ["E001"]
        assert system.failures == []


def nobodys_close() -> Outgoing:
    close = SessionClose(socket_id="SOCK001-nobody", code=4503)
    return Outgoing(subjects.socket_server("SOCK001"), encode(close))


async def replaced_unheard(system: System) -> tuple[RawClient, RawClient, str]:
    """An examinee who has moved to another browser; the word to close the old one waits. The current socket."""
    old = system.clients[0]
    new = await system.raw("SOCK001")
    welcome = await new.hello(system.token("examinee", "E001"), "another-browser")

    async def recorded() -> bool:
        return bool((await system.progress()).get("socketId") == welcome["data"]["socketId"])

    await eventually(recorded, "the new socket is the current one")
    assert old.websocket.close_code is None
    return old, new, str(welcome["data"]["socketId"])


async def test_dropping_broadcasts_drops_no_other_message(
    bus: Bus, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with System(quick(settings, **{"socket.queue_max_size": 700}), servers=("SOCK001",)) as system:
        await system.examinee("E001")
        proctor = await system.proctor()
        gate = Gate(system.server("SOCK001"), monkeypatch)
        # More than one pull takes, so that what comes next waits in the queue itself.
        await bus.publish_until_stored([nobodys_close() for _ in range(600)])
        await gate.reached.wait()
        old, new, _ = await replaced_unheard(system)
        await bus.publish_until_stored([event(f"X{number}", number) for number in range(1, 2000)])
        gate.open_for_broadcasts()
        await proctor.expect("plan_snapshot", resync=True)
        gate.open()
        assert await old.closed() == 4503
        await new.expect("session_state")
        assert new.websocket.close_code is None
        assert system.failures == []


async def test_a_dropped_session_close_is_sent_again(
    bus: Bus, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with System(quick(settings, **{"socket.queue_max_size": 10}), servers=("SOCK001",)) as system:
        await system.examinee("E001")
        gate = Gate(system.server("SOCK001"), monkeypatch)
        await bus.publish(nobodys_close())
        await gate.reached.wait()
        await bus.publish_until_stored([nobodys_close() for _ in range(1200)])
        old, new, current = await replaced_unheard(system)
        gate.open()
        assert await old.closed() == 4503
        assert (await new.expect("session_state"))["data"]["socketId"] == current
        assert (await system.progress())["socketId"] == current, "the old one has not taken over again"
        assert system.failures == []


async def test_a_message_older_than_expire_time_is_not_delivered_and_an_unused_queue_is_removed(
    bus: Bus, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with System(quick(settings, **{"socket.queue_expire_seconds": 1}), servers=("SOCK001",)) as system:
        proctor = await system.proctor()
        gate = Gate(system.server("SOCK001"), monkeypatch)
        await bus.publish(event("STALE", 1))
        await gate.reached.wait()
        stored = time.time()

        async def too_old() -> bool:
            return time.time() - stored > 1.1

        await eventually(too_old, "the message is older than expireTime")
        gate.open()
        await bus.publish(event("FRESH", 2))
        await proctor.expect("examinee_connected", examineeId="FRESH")
        assert proctor.about("STALE") == []
        await proctor.expect("plan_snapshot", resync=True)  # with what the old message would have told
        assert await filters_of(bus, "SOCK001_Q") is not None
        await system.stop("SOCK001")
        await filters_become(bus, "SOCK001_Q", None)


async def test_a_deleted_queue_is_created_again_without_a_loss(bare: System, bus: Bus) -> None:
    await bare.start_server("SOCK001")
    proctor = await bare.proctor()
    for consumer in ("SOCK001_Q", "SOCK001_Q_BROADCAST"):
        await bus.delete_consumer("SOCKET", consumer)
    await proctor.expect("plan_snapshot", resync=True)
    await bare.examinee("E001")
    await proctor.expect("examinee_connected", examineeId="E001")
    assert await filters_of(bus, "SOCK001_Q") == {
        "socket.SOCK001",
        "socket.plan.P001.examinee.*",
        "socket.plan.P001.examinees",
    }


async def test_a_consumer_recreated_between_two_looks_is_detected(
    bare: System, bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = await bare.start_server("SOCK001")
    proctor = await bare.proctor()
    gate = Gate(server, monkeypatch)
    await bus.publish(event("X000", 1))
    await gate.reached.wait()  # the reader of the broadcasts is busy
    for consumer in ("SOCK001_Q_BROADCAST", "SOCK001_Q"):
        await bus.delete_consumer("SOCKET", consumer)
    await filters_become(bus, "SOCK001_Q_BROADCAST", {"socket.plan.P001.proctors"})
    gate.open()
    await proctor.expect("plan_snapshot", resync=True)
