"""`examwire doctor` on Redis: eviction, persistence, memory, lost state."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from redis.asyncio import Redis

from actors.runtime.broker.connection import Bus
from actors.runtime.config.settings import Settings
from actors.runtime.store.state_store import StateStore
from actors.state_manager.recovery.part_repair import PartRepair
from cli.check.health_check import HealthCheck
from tests.integration.support.findings import FAILED, OK, WARNING, states, told
from tests.integration.support.system import System, eventually


@asynccontextmanager
async def redis_with(url: str, **options: str) -> AsyncIterator[None]:
    """Settings of Redis for a moment."""
    raw = Redis.from_url(url, decode_responses=True)
    before = {name: str((await raw.config_get(name))[name]) for name in options}
    for name, value in options.items():
        await raw.config_set(name, value)
    try:
        yield
    finally:
        for name, value in before.items():
            await raw.config_set(name, value)
        await raw.aclose()


async def test_eviction_persistence_and_memory_of_redis_are_checked(settings: Settings, store: StateStore) -> None:
    async with redis_with(settings.redis_url, **{"maxmemory": "100mb", "maxmemory-policy": "allkeys-lru"}):
        assert "allkeys-lru" in told(await HealthCheck(settings).run(), "redis.eviction", FAILED)
    async with redis_with(settings.redis_url, appendonly="no"):
        assert "no persistence" in told(await HealthCheck(settings).run(), "redis.persistence", WARNING)
    async with redis_with(settings.redis_url, appendonly="no", save="900 1"):
        assert "snapshots only" in told(await HealthCheck(settings).run(), "redis.persistence", WARNING)
    async with redis_with(settings.redis_url, maxmemory="1mb"):
        assert states(await HealthCheck(settings).run(), "redis.memory") <= {WARNING, FAILED}
    assert states(await HealthCheck(settings).run(), "redis.eviction") == {OK}


async def test_a_redis_without_its_state_is_reported(settings: Settings, bus: Bus, store: StateStore) -> None:
    async with System(settings, servers=("SOCK001",)) as system:
        await system.stop("state-manager")
        raw = Redis.from_url(settings.redis_url)
        await raw.flushall()
        await raw.aclose()
        assert told(await HealthCheck(settings).run(), "state", FAILED)


async def test_a_running_repair_is_reported_with_how_far_it_is(
    settings: Settings, bus: Bus, store: StateStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    reached, go_on, repair_plan = asyncio.Event(), asyncio.Event(), PartRepair.repair_plan

    async def until_told(part: PartRepair, plan_id: str) -> None:
        reached.set()
        await go_on.wait()
        await repair_plan(part, plan_id)

    async with System(settings, servers=("SOCK001",)) as system:
        await system.examinee()
        monkeypatch.setattr(PartRepair, "repair_plan", until_told)
        async with Redis.from_url(settings.redis_url) as raw:
            await raw.flushall()
        await asyncio.wait_for(reached.wait(), 20)
        assert "0 of 1 plans are whole" in told(await HealthCheck(settings).run(), "state", FAILED)
        go_on.set()
        await eventually(store.mark.is_whole, "Redis is whole")
        assert states(await HealthCheck(settings).run(), "state") == {OK}
