"""One socket server alone: real clients connect and vanish; this process stands in for the state manager."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from collections import Counter
from collections.abc import Mapping
from typing import Any

from actors.runtime.broker.connection import Bus, Outgoing
from cli.load.clients import LoadClients
from cli.load.fleet import Fleet
from cli.load.process_costs import resident_bytes, settled_bytes
from protocol.broker import subjects
from protocol.broker.streams import SOCKET
from protocol.messages.base import Message
from protocol.messages.proctor_events import ExamineeConnected
from protocol.messages.session_messages import SessionState
from protocol.messages.views import ConnectionView
from protocol.times import format_time
from tests.speed.system import CpuMeter, Figures, Setup, fleet_of

POLL_SECONDS = 0.2
IDLE_SECONDS = 5
"""A ping of each connection, by default."""
DEADLINE_SECONDS = 120.0

Sockets = Mapping[str, tuple[str, str]]
"""socketId and serverId by examinee."""


class PublishedFacts:
    """Counts the `connection_status` facts that the socket server publishes, by status, and keeps the sockets."""

    def __init__(self) -> None:
        self.counts = Counter[str]()
        self.sockets: dict[str, dict[str, tuple[str, str]]] = {}
        """socketId and serverId by plan and examinee."""
        self._changed = asyncio.Event()

    async def take(self, msg: Any) -> None:
        payload = json.loads(msg.data)
        for message in payload if isinstance(payload, list) else [payload]:
            fact = message["data"]
            if message["type"] == "connection_status":
                self.counts[fact["status"]] += 1
                examinees = self.sockets.setdefault(fact["planId"], {})
                examinees[fact["examineeId"]] = (fact["socketId"], fact["serverId"])
        self._changed.set()

    async def until(self, status: str, count: int) -> None:
        async with asyncio.timeout(DEADLINE_SECONDS):
            while self.counts[status] < count:
                self._changed.clear()
                await self._changed.wait()


async def measure(setup: Setup) -> Figures:
    """Return the CPU µs of each role for a connect, a `session_state`, an event and a loss."""
    async with fleet_of(setup.tree, servers=1, managers=1) as (fleet, secret):
        environment = {**os.environ, "EXAMWIRE_SECRET": secret}
        clients = LoadClients(
            setup.plan_ids, setup.examinees, fleet.socket_urls, 2, environment, proctors=setup.proctors
        )
        bus = await Bus.connect(fleet.nats_url, "speed")
        try:
            facts = PublishedFacts()
            await bus.subscribe("status.plan.>", facts.take)
            await clients.open()
            for pid in fleet.processes()["state-manager"]:  # it has marked Redis as up to date, so proctors are let in
                os.kill(pid, signal.SIGKILL)
            numbers = range(1, setup.examinees + 1)
            servers = fleet.processes()["socket-server"]
            before = resident_bytes(servers)
            meter = CpuMeter(fleet)
            await clients.connect(numbers, wait_for_proctors=False)
            await facts.until("CONNECTED", setup.examinees)
            await meter.settled()
            meter.note("connect", setup.examinees)
            meter.figures["idle"] = {
                "KiB a connection": round((await settled_bytes(servers) - before) / setup.examinees / 1024, 2)
            }
            meter.restart()
            if not setup.quick:
                await _measure_open(bus, fleet, facts, setup, meter)
            clients.vanish()
            await facts.until("DISCONNECTED", setup.examinees)
            await meter.settled()
            meter.note("loss", setup.examinees)
            return meter.figures
        finally:
            await clients.close()
            await bus.close()


async def _measure_open(bus: Bus, fleet: Fleet, facts: PublishedFacts, setup: Setup, meter: CpuMeter) -> None:
    """Measure what the open connections cost: doing nothing, and being sent something."""
    await asyncio.sleep(IDLE_SECONDS)
    meter.note("idle second", setup.examinees * IDLE_SECONDS)
    server = subjects.socket_server(fleet.servers[0].name)
    for plan_id, sockets in facts.sockets.items():
        await _send(bus, server, _states(plan_id, sockets), setup.batch)
    await _delivered(bus)
    meter.note("state", setup.examinees)
    for plan_id, sockets in facts.sockets.items():
        await _send(bus, subjects.socket_proctors(plan_id), _events(plan_id, sockets), setup.batch)
    await _delivered(bus)
    meter.note("event", setup.examinees)


def _states(plan_id: str, sockets: Sockets) -> list[Message]:
    now = format_time(time.time())
    return [
        SessionState(
            plan_id=plan_id,
            examinee_id=examinee,
            socket_id=socket,
            connection=ConnectionView(
                status="CONNECTED", socket_id=socket, server_id=server, since=now, version=version
            ),
            version=version,
        )
        for version, (examinee, (socket, server)) in enumerate(sockets.items(), 1)
    ]


def _events(plan_id: str, sockets: Sockets) -> list[Message]:
    now = format_time(time.time())
    return [
        ExamineeConnected(
            plan_id=plan_id, examinee_id=examinee, socket_id=socket, server_id=server, timestamp=now, version=version
        )
        for version, (examinee, (socket, server)) in enumerate(sockets.items(), 1)
    ]


async def _send(bus: Bus, subject: str, messages: list[Message], batch: int) -> None:
    """Publish messages in batches, as state managers do."""
    for start in range(0, len(messages), batch):
        await bus.publish_until_stored(Outgoing.batches(subject, messages[start : start + batch]))


async def _delivered(bus: Bus) -> None:
    """Wait until the socket server has acknowledged everything."""
    async with asyncio.timeout(DEADLINE_SECONDS):
        while any(  # noqa: ASYNC110 - the broker is what is polled
            queue.pending or queue.unacknowledged for queue in await bus.consumer_states(SOCKET.name)
        ):
            await asyncio.sleep(POLL_SECONDS)
