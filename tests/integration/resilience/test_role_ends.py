"""A role ends: when it cannot start, when a signal comes at whatever moment, and when something does not stop."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import Awaitable, Callable

import pytest

from actors.runtime.actor.actor import Actor
from actors.runtime.actor.cancellation import cancel_tasks
from actors.runtime.actor.supervisor import ChildSpec, Supervisor
from actors.runtime.broker.connection import Bus
from actors.runtime.config.settings import Settings, load_settings
from actors.runtime.role import role
from actors.runtime.role.metrics_server import MetricsServer
from actors.runtime.role.probes import Probes
from actors.runtime.role.role import run_role
from actors.runtime.store.state_store import StateStore
from cli.local import processes
from cli.local.engines import free_port
from cli.local.processes import RoleProcess
from cli.shared.options import to_environment
from protocol.errors import BrokerAbsent, ConfigurationError

PATIENCE = 60.0
"""For what takes a second on a machine that has nothing else to do."""


def run(settings: Settings, make: Callable[[], Actor], then: Callable[[Supervisor], Awaitable[None]]) -> int:
    metrics = MetricsServer("test", "127.0.0.1", 0, needs_redis=False)
    return run_role("test", settings, lambda _bus, _store: [ChildSpec("child", make)], then, metrics)


def test_an_actor_that_cannot_be_created_ends_the_role(settings: Settings) -> None:
    def make() -> Actor:
        raise ConfigurationError("a setting that does not fit")

    async def never(_: Supervisor) -> None:
        raise AssertionError("it cannot be ready")

    began = time.monotonic()
    for _ in range(5):
        with pytest.raises(ConfigurationError, match="does not fit"):
            run(settings, make, never)
    assert time.monotonic() - began < PATIENCE


async def end_at_once(supervisor: Supervisor) -> None:
    supervisor.end()


def test_a_role_waits_for_a_broker_that_still_reads_its_log(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(role, "CONNECT_SECONDS", 0.3)
    nowhere = load_settings(nats_url="nats://127.0.0.1:1", redis_url=settings.redis_url, data_dir=settings.data_dir)
    connect = Bus.connect

    async def connecting(at: Settings, name: str, *, wait: float) -> Bus:
        tries.append(wait)
        return await connect(at if len(tries) < 3 else settings, name, wait=wait)

    tries: list[float] = []
    monkeypatch.setattr(Bus, "connect", connecting)
    assert run(nowhere, lambda: Actor("test.actor"), end_at_once) == 0
    assert sum("still waiting for NATS: no NATS server at" in record.getMessage() for record in caplog.records) == 2
    tries.clear()
    monkeypatch.setattr(role, "ABSENT_SECONDS", 0.0)
    with pytest.raises(BrokerAbsent, match="no NATS server at"):
        run(nowhere, lambda: Actor("test.actor"), end_at_once)


async def test_up_waits_for_a_role_that_lives(
    settings: Settings, bus: Bus, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(processes, "READY_SECONDS", 0.1)  # no role is so quick
    addresses = {"nats_url": settings.nats_url, "redis_url": settings.redis_url, "data_dir": str(settings.data_dir)}
    child = RoleProcess("queue-server", ["queue-server"], to_environment(addresses))
    try:
        await child.start()
        assert child.ready["role"] == "queue-server"
    finally:
        await child.stop()
    assert any("queue-server is not ready after 0 s" in record.getMessage() for record in caplog.records)


class Stubborn(Actor):
    """Cares neither for a stop nor for being cancelled."""

    async def on_stop(self) -> None:
        while True:
            try:
                await asyncio.sleep(3600)
            except asyncio.CancelledError:
                if not role_over.is_set():
                    continue
                raise


role_over = asyncio.Event()


def test_an_actor_that_does_not_stop_does_not_block_the_role(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(role, "DRAIN_SECONDS", 0.3)
    closed: list[str] = []
    close = Bus.close

    async def closing(bus: Bus) -> None:
        await close(bus)
        closed.append(bus.name)
        role_over.set()  # else asyncio itself would wait for it

    monkeypatch.setattr(Bus, "close", closing)

    async def end(supervisor: Supervisor) -> None:
        supervisor.end()

    role_over.clear()
    assert run(settings, lambda: Stubborn("test.stubborn"), end) == 1
    assert closed == ["test"], "the rest is stopped all the same"


async def test_vitals_stop_at_any_moment_of_a_probe(bus: Bus, store: StateStore) -> None:
    for moment in range(60):
        probes = Probes(bus, store)
        probes.start()
        # In whatever step the probes are: before their first one, on their way, in the very turn of the answer.
        for _ in range(moment):
            await asyncio.sleep(0)
        async with asyncio.timeout(PATIENCE):
            await probes.stop()
        assert not [task for task in asyncio.all_tasks() if task.get_name().startswith("probes:")], moment


async def test_a_swallowed_cancellation_is_repeated() -> None:
    swallowed = 0

    async def swallowing() -> None:
        nonlocal swallowed
        while True:
            try:
                await asyncio.sleep(3600)
            except asyncio.CancelledError:
                swallowed += 1
                if swallowed == 3:
                    raise

    task = asyncio.create_task(swallowing())
    await asyncio.sleep(0)
    assert await cancel_tasks([task], PATIENCE, repeat=0.01)
    assert (task.cancelled(), swallowed) == (True, 3)


async def test_a_task_that_never_ends_is_abandoned() -> None:
    over = False

    async def never() -> None:
        while not over:
            try:
                await asyncio.sleep(3600)
            except asyncio.CancelledError:
                continue

    task = asyncio.create_task(never())
    await asyncio.sleep(0)
    assert not await cancel_tasks([task], 0.1, repeat=0.01)
    over = True
    assert await cancel_tasks([task], PATIENCE)


@pytest.mark.parametrize("command", [("state-manager",), ("socket-server", "--server-id", "SOCK001")])
async def test_sigterm_is_obeyed_while_waiting_for_nats(settings: Settings, command: tuple[str, ...]) -> None:
    metrics = free_port()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "cli.main", "run", *command, "--data-dir", str(settings.data_dir)),
        *(
            "--nats-url",
            f"nats://127.0.0.1:{free_port()}",
            "--redis-url",
            settings.redis_url,
            "--metrics-port",
            str(metrics),
        ),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "EXAMWIRE_LOG__LEVEL": "info"},
    )
    try:
        async with asyncio.timeout(PATIENCE):
            while True:  # until it is at it: its metrics are served before
                try:
                    reader, writer = await asyncio.open_connection("127.0.0.1", metrics)
                    writer.write(b"GET /healthz HTTP/1.1\r\n\r\n")
                    answer = await reader.readline()
                    writer.close()
                except OSError:
                    answer = b""
                if answer:
                    break
                await asyncio.sleep(0.02)
        process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(PATIENCE):
            _, err = await process.communicate()
        assert process.returncode == 0, f"it has waited for NATS: {err.decode()}"
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
