"""Real engines for the tests: one nats-server and one Redis-protocol server a test process, emptied between tests."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from functools import partialmethod
from pathlib import Path

import pytest
from redis.asyncio import Redis

from actors.runtime.broker.connection import Bus
from actors.runtime.config.settings import Settings, load_settings
from actors.runtime.store.state_store import StateStore
from cli.check import health_check
from cli.local.engines import NatsServer, RedisServer
from cli.operate import drain_and_stop, queues
from protocol.broker.streams import STREAMS
from tests.integration.support.command_line import Invoke, command_with
from tests.integration.support.system import System


@pytest.fixture(autouse=True)
def _quick_commands(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let commands in this process wait less: on this machine everybody answers at once."""
    monkeypatch.setattr(Bus, "services", partialmethod(Bus.services, wait=0.15))
    monkeypatch.setattr(health_check, "STUCK_SECONDS", 0.2)
    monkeypatch.setattr(drain_and_stop, "LOOK_SECONDS", 0.1)
    monkeypatch.setattr(queues, "UNREAD_SECONDS", 0.1)


@pytest.fixture(scope="session")
def engines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[NatsServer, RedisServer]]:
    """Engines that tests share; a test that stops one starts its own (`own_engines`)."""
    directory = tmp_path_factory.mktemp("engines")
    # No machine is switched off here: what is only in the page cache is as good as on a disk, which may be a slow one.
    nats, redis = NatsServer(directory / "nats", sync_always=False), RedisServer(directory / "redis")
    nats.start()
    redis.start()
    yield nats, redis
    nats.stop()
    redis.stop()


@pytest.fixture
def own_engines(tmp_path: Path) -> Iterator[tuple[NatsServer, RedisServer]]:
    """Engines of this test alone, to be stopped, killed and started again."""
    nats, redis = NatsServer(tmp_path / "nats"), RedisServer(tmp_path / "redis")
    nats.start()
    redis.start()
    yield nats, redis
    nats.stop()
    redis.stop()


@pytest.fixture
def settings(engines: tuple[NatsServer, RedisServer], tmp_path: Path) -> Settings:
    """Settings on the shared engines, with a data directory of the test's own."""
    return load_settings(nats_url=engines[0].url, redis_url=engines[1].url, data_dir=tmp_path / "data")


@pytest.fixture
def own_settings(own_engines: tuple[NatsServer, RedisServer], tmp_path: Path) -> Settings:
    """Settings on engines of this test alone."""
    nats, redis = own_engines
    return load_settings(nats_url=nats.url, redis_url=redis.url, data_dir=tmp_path / "data")


@pytest.fixture
async def own_system(own_settings: Settings) -> AsyncIterator[System]:
    """A whole system on engines of this test alone; no actor may fail."""
    async with System(own_settings) as system:
        yield system
        assert system.failures == []


@pytest.fixture
def variables(settings: Settings) -> dict[str, str]:
    """What points `examwire` at the test's engines and data directory."""
    return {
        "EXAMWIRE_NATS_URL": settings.nats_url,
        "EXAMWIRE_REDIS_URL": settings.redis_url,
        "EXAMWIRE_DATA_DIR": str(settings.data_dir),
    }


@pytest.fixture
def invoke(variables: dict[str, str]) -> Invoke:
    """Run `examwire ...` on the test's engines."""
    return command_with(variables)


@pytest.fixture
async def bus(settings: Settings, store: StateStore) -> AsyncIterator[Bus]:
    """A connection to a broker without streams. Redis has been emptied too (`store`)."""
    bus = await Bus.connect(settings.nats_url, "test")
    for spec in STREAMS:
        if await bus.stream_config(spec.name) is not None:
            await bus._js.delete_stream(spec.name)
    yield bus
    await bus.close()


@pytest.fixture
async def store(settings: Settings) -> AsyncIterator[StateStore]:
    """A connection to an empty Redis."""
    raw = Redis.from_url(settings.redis_url)
    await raw.flushall()
    await raw.aclose()
    store = StateStore(settings.redis_url, settings.redis)
    await store.mark.begin("test")  # as a state manager does that finds nothing to repair
    await store.mark.end("test", 0)
    yield store
    await store.close()
