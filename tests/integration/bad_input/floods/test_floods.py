"""A process that sends a socket server what the machine can: bystanders are served, and the server stays alive."""

from __future__ import annotations

import asyncio
import json
import time
from contextlib import suppress

import pytest
from websockets.exceptions import InvalidStatus

from actors.runtime.broker.connection import Bus
from actors.runtime.config.settings import Settings
from tests.integration.support.clients.attacker import start_attack
from tests.integration.support.server_process import ServerProcess, join, story
from tests.integration.support.system import RawClient, System, eventually

SECONDS = 3.0
GENEROUS = 2.0
"""What a heartbeat may take here; it takes some milliseconds more than without a flood where the machine has room."""


async def slowest_heartbeat(client: RawClient, seconds: float) -> float:
    """The longest time that an answer took, one after another for so long."""
    slowest, until = 0.0, time.monotonic() + seconds
    while time.monotonic() < until:
        before, start = len(client.frames), time.monotonic()
        await client.say("heartbeat")
        await client.expect("heartbeat", after=before)
        slowest = max(slowest, time.monotonic() - start)
        await asyncio.sleep(0.01)
    return slowest


async def _let_in(system: System, url: str) -> RawClient | None:
    """A newcomer; `None` while strangers of this address are asked to come again (503)."""
    with suppress(InvalidStatus):
        return await join(system, url, "E002")
    return None


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "connections"), [("pings", 20), ("fragments", 20), ("headers", 20), ("handshakes", 50)]
)
async def test_a_bystander_notices_no_flood(settings: Settings, bus: Bus, kind: str, connections: int) -> None:
    async with System(settings, servers=()) as system:
        # The server is a process of its own: what is measured is its loop, not the attacker's or the test's.
        server = await ServerProcess.start(settings)
        try:
            proctor = await RawClient.open(server.url)
            await proctor.hello(system.token("proctor", "proctor-1"), "proctor-1")
            await proctor.expect("plan_snapshot")
            bystander = await join(system, server.url, "E001")
            attack = await start_attack(server.url, kind, connections=connections, seconds=SECONDS)
            slowest = await slowest_heartbeat(bystander, SECONDS)
            report = json.loads((await attack.communicate())[0])
            late = await eventually(lambda: _let_in(system, server.url), "a newcomer without a token in its request")
            assert report["connected"] >= connections
            assert slowest < GENEROUS, report
            await late.say("heartbeat")
            await late.expect("heartbeat")
            assert story(proctor, "E001") in ([], [("connected", None)]), "never lost: the lease was kept"
            assert system.failures == []
            await proctor.close()
        finally:
            await server.kill()
