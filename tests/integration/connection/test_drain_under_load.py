"""A server is drained while examinees drop and come back all the time."""

from __future__ import annotations

import asyncio
import time

from actors.client.client import ClientClosed
from actors.client.examinee import ExamineeClient
from actors.client.proctor import ProctorClient
from actors.runtime.broker.connection import Bus, Outgoing
from actors.runtime.config.settings import Settings
from protocol.broker import subjects
from protocol.messages.base import Message
from protocol.messages.codec import encode
from protocol.messages.facts import CaptureInfo, MobileSyncCode, MobileSyncStatus
from protocol.messages.frames import Welcome
from protocol.messages.proctor_events import ExamineeConnected, ExamineeDisconnected, ExamineeMigrating
from protocol.records import keys
from protocol.times import format_time
from tests.integration.support.drains import drain, end_of, know_each_other
from tests.integration.support.system import System, eventually


class Hall:
    """Examinees with the client of the product, and a proctor on each server that notes everything it is told."""

    def __init__(self, system: System, here: int, there: int) -> None:
        url = system.server("SOCK001").url, system.server("SOCK002").url
        self.moving = [f"E{number:03}" for number in range(here)]
        self.staying = [f"E{number:03}" for number in range(here, here + there)]
        self.examinees = {
            name: ExamineeClient(url[name in self.staying], system.token("examinee", name), heartbeats=False)
            for name in (*self.moving, *self.staying)
        }
        self.proctors = [
            ProctorClient(url[number], system.token("proctor", f"T{number}"), client_id=f"T{number}")
            for number in (0, 1)
        ]
        self.told: list[list[Message]] = [[], []]
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Hall:
        for number, proctor in enumerate(self.proctors):
            await proctor.connect()
            self._tasks.append(asyncio.create_task(self._receive(proctor, self.told[number])))
        await asyncio.gather(*(client.connect() for client in self.examinees.values()))
        self._tasks += [asyncio.create_task(self._receive(client, [])) for client in self.examinees.values()]
        await eventually(self.all_agree, "everybody is here", 30)
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.gather(*(client.close() for client in (*self.examinees.values(), *self.proctors)))
        await asyncio.gather(*self._tasks)

    async def _receive(self, client: ExamineeClient | ProctorClient, into: list[Message]) -> None:
        try:
            async for message in client.frames():
                into.append(message)
        except ClientClosed:
            return

    def here(self, server_id: str) -> set[str]:
        return {
            name
            for name, client in self.examinees.items()
            if client.connected and client.welcome is not None and client.welcome.server_id == server_id
        }

    async def all_agree(self) -> bool:
        """Both proctors see every examinee connected on the socket that it has."""
        for proctor in self.proctors:
            for name, client in self.examinees.items():
                row = proctor.view.examinees.get(name)
                if not client.connected or client.welcome is None or row is None:
                    return False
                if (row.status, row.socket_id) != ("CONNECTED", client.welcome.socket_id):
                    return False
        return True

    def heard(self, proctor: int, examinee_id: str) -> list[Message]:
        """What this proctor was told of an examinee's connection since the snapshot."""
        kinds = (ExamineeConnected, ExamineeDisconnected, ExamineeMigrating)
        return [event for event in self.told[proctor] if isinstance(event, kinds) and event.examinee_id == examinee_id]


def picture_of(examinee_id: str) -> Outgoing:
    message = MobileSyncStatus(
        plan_id="P001",
        examinee_id=examinee_id,
        device_id="M001",
        status=MobileSyncCode.COMPLETED,
        timestamp=format_time(time.time()),
        capture_info=CaptureInfo(image_url=f"/captures/{examinee_id}/sync_cap.jpg"),
        capture_id="a" * 64,
    )
    return Outgoing(subjects.status_plan("P001"), encode(message))


async def test_a_drain_during_losses_loses_no_event_and_reports_no_false_loss(bus: Bus, settings: Settings) -> None:
    async with System(settings) as system:
        await know_each_other(system)
        async with Hall(system, here=200, there=120) as hall:
            server_end = end_of(system, "SOCK001")
            for events in hall.told:
                events.clear()
            answer = await drain(bus, "SOCK001", 2.0)
            assert answer.details["clients"] == 201
            uploaded: set[str] = set()
            dropped = hall.staying[:20]
            for number in range(20):
                # Pictures reach people before, on and after their way; others lose their connection meanwhile.
                chosen = {hall.moving[number], hall.moving[-1 - number], hall.moving[100 + number]}
                await bus.publish_until_stored([picture_of(name) for name in chosen])
                uploaded |= chosen
                hall.examinees[dropped[number]].abort()
                await asyncio.sleep(0.1)
            await asyncio.wait_for(server_end.wait(), 20)
            assert hall.here("SOCK001") == set()
            await system.stop("SOCK001")
            await eventually(hall.all_agree, "both proctors see everybody where they are")
            assert hall.here("SOCK002") == set(hall.examinees)

            for name in hall.moving:
                left, arrived = hall.heard(1, name)  # the proctor on SOCK002 was there all the time
                assert isinstance(left, ExamineeMigrating)
                assert isinstance(arrived, ExamineeConnected)
                assert (left.server_id, arrived.server_id) == ("SOCK001", "SOCK002")
                assert (arrived.migrated, arrived.recovered, arrived.replaced) == (True, False, None)
            for name in dropped:
                lost, back = hall.heard(1, name)
                assert isinstance(lost, ExamineeDisconnected)
                assert isinstance(back, ExamineeConnected)
                assert (lost.reason, back.recovered) == ("SOCKET_CLOSED", True)
            lost_at_the_other = {event.examinee_id for event in hall.told[0] if isinstance(event, ExamineeDisconnected)}
            assert lost_at_the_other <= set(dropped)
            assert any(isinstance(event, Welcome) for event in hall.told[0]), "the proctor on SOCK001 has moved, too"
            for proctor in hall.proctors:
                assert (proctor.view.doubled, proctor.view.late) == (0, 0)

            for name in uploaded:

                async def synced(name: str = name) -> bool:
                    stages = [proctor.view.examinees[name].mobile_sync for proctor in hall.proctors]
                    return {*stages, hall.examinees[name].mobile_sync.status} == {"COMPLETED"}

                await eventually(synced, f"{name} and the proctors know of the picture")
            records = await system.store.hashes([keys.progress("P001", name) for name in hall.examinees])
            for (name, client), record in zip(hall.examinees.items(), records, strict=True):
                assert client.welcome is not None
                assert (record["connStatusCode"], record["socketId"]) == ("CONNECTED", client.welcome.socket_id)
                assert record["recoveries"] == str(int(name in dropped))
            assert await system.server_is("SOCK001", "STOPPED")
            assert await system.store.entries(keys.server_sockets("SOCK001")) == {}
        assert system.failures == []
