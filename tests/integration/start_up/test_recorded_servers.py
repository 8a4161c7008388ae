"""`examwire up` on a Redis that is being repaired: it says so, and begins before the repair is over."""

from __future__ import annotations

import time

import pytest
from redis.asyncio import Redis

from actors.runtime.config.settings import Settings
from actors.runtime.store.state_store import StateStore
from cli.local import recorded_servers
from cli.local.recorded_servers import RecordedServers
from protocol.errors import RoleFailed

EXPECTED = {("SOCK001", "ws://127.0.0.1:1/v1/connect")}


@pytest.fixture(autouse=True)
async def _lost(settings: Settings, store: StateStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """A Redis that has lost everything, and an `up` without patience."""
    async with Redis.from_url(settings.redis_url) as redis:
        await redis.flushall()
    for name, seconds in (("RECORDED_SECONDS", 0.4), ("REPAIR_SECONDS", 0.8), ("SAY_SECONDS", 0.1)):
        monkeypatch.setattr(recorded_servers, name, seconds)


async def test_up_goes_on_while_redis_is_still_repaired(
    settings: Settings, store: StateStore, caplog: pytest.LogCaptureFixture
) -> None:
    await store.mark.begin("by a state manager")
    await store.mark.add("by a state manager", ["plan:P001", "plan:P002"])
    recorded = RecordedServers(settings.redis_url, settings.redis, time.time())
    await recorded.wait(EXPECTED)
    assert recorded.plans_whole == 2
    assert "2 plans are whole" in caplog.text


async def test_up_gives_up_when_nobody_repairs_redis(settings: Settings) -> None:
    with pytest.raises(RoleFailed, match="SOCK001 announced READY"):
        await RecordedServers(settings.redis_url, settings.redis, time.time()).wait(EXPECTED)
