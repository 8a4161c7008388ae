"""Several socket servers behind one public address: it is their serverIds that tell them apart."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest

from actors.client.examinee import ExamineeClient
from actors.runtime.broker.connection import Bus
from actors.runtime.config.settings import Settings
from protocol.messages.frames import Welcome
from tests.integration.support.clients.typed_clients import next_of
from tests.integration.support.drains import drain, end_of, know_each_other
from tests.integration.support.settings import changed
from tests.integration.support.system import System


class Proxy:
    """A TCP proxy; `target` says to which port a new connection goes."""

    def __init__(self) -> None:
        self.target: Callable[[], int] = lambda: 0
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> int:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    async def stop(self) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self.target())
        for source, sink in ((reader, far_writer), (far_reader, writer)):
            task = asyncio.create_task(_copy(source, sink))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)


async def _copy(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    try:
        while data := await source.read(65536):
            sink.write(data)
            await sink.drain()
    except OSError:
        pass  # one of the two sides has broken off
    finally:
        sink.close()


@pytest.fixture
async def proxy() -> AsyncIterator[Proxy]:
    proxy = Proxy()
    yield proxy
    await proxy.stop()


@pytest.mark.parametrize(("trusted", "address"), [(["127.0.0.0/8"], "198.51.100.7"), ([], "127.0.0.1")])
async def test_the_address_that_a_trusted_proxy_forwards_is_recorded(
    bus: Bus, settings: Settings, proxy: Proxy, trusted: list[str], address: str
) -> None:
    """Incidents by network go by it: behind a proxy all would have one address."""
    public_url = f"ws://127.0.0.1:{await proxy.start()}/v1/connect"
    behind_proxy = changed(settings, {"socket.public_url": public_url, "socket.trusted_proxies": trusted})
    async with System(behind_proxy, servers=("SOCK001",)) as system:
        proxy.target = lambda: system.server("SOCK001").port
        client = await system.raw(additional_headers={"X-Forwarded-For": "203.0.113.1, 198.51.100.7"})
        await client.hello(system.token("examinee", "E001"))
        await client.expect("session_state")
        assert (await system.progress("E001"))["ipAddress"] == address
        proctor = await system.proctor()
        (row,) = (await proctor.expect("plan_snapshot"))["data"]["examinees"]
        assert row["connection"]["ipAddress"] == address


async def test_clients_of_a_drained_server_find_the_other_one_behind_the_same_address(
    bus: Bus, settings: Settings, proxy: Proxy
) -> None:
    public_url = f"ws://127.0.0.1:{await proxy.start()}/v1/connect"
    async with System(changed(settings, {"socket.public_url": public_url})) as system:
        await know_each_other(system)
        first, second = system.server("SOCK001"), system.server("SOCK002")
        assert (first.url, second.url) == (public_url, public_url)
        proxy.target = lambda: second.port
        proctor = await system.proctor()
        proxy.target = lambda: first.port
        examinee = ExamineeClient(public_url, system.token("examinee", "E001"))
        try:
            welcome = await examinee.connect()
            assert (welcome.server_id, welcome.endpoints) == ("SOCK001", [public_url])
            await proctor.expect("examinee_connected", examineeId="E001")
            server_end = end_of(system, "SOCK001")
            proxy.target = lambda: second.port
            await drain(bus, "SOCK001")
            assert (await next_of(examinee, Welcome)).server_id == "SOCK002"
            await proctor.expect("examinee_connected", examineeId="E001", migrated=True)
            assert not [frame for frame in proctor.about("E001") if frame["type"] == "examinee_disconnected"]
            await asyncio.wait_for(server_end.wait(), 30)
        finally:
            await examinee.close()
