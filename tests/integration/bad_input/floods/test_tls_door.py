"""The door of a socket server that has a certificate of its own: addresses are looked at before TLS."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from actors.runtime.broker.connection import Bus
from actors.runtime.config.settings import Settings
from actors.socket_server.handshake import request_head
from tests.integration.bad_input.floods.test_limits import Bare
from tests.integration.support.server_process import ServerProcess
from tests.integration.support.settings import changed
from tests.integration.support.system import RawClient, System, eventually
from tests.support.certificates import Certificates, issue


@pytest.fixture
def certificates(tmp_path: Path) -> Certificates:
    return issue(tmp_path / "pki")


@pytest.fixture
def trust(certificates: Certificates) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(certificates.ca))


@pytest.fixture
async def secured(bus: Bus, settings: Settings, certificates: Certificates) -> AsyncIterator[System]:
    files = {"socket.certificate_file": certificates.certificate, "socket.key_file": certificates.key}
    async with System(
        changed(settings, {**files, "socket.max_strangers_per_address": 1}), servers=("SOCK001",)
    ) as system:
        yield system
        assert system.failures == []


async def test_connections_without_a_tls_handshake_are_dropped(
    secured: System, trust: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(request_head, "REQUEST_SECONDS", 0.5)
    plain, silent, closed_at_once = [await Bare.open(secured) for _ in range(3)]
    closed_at_once.writer.close()
    plain.writer.write(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n" * 10)
    assert b"HTTP" not in await plain.end()
    assert await silent.end() == b""
    monkeypatch.undo()
    client = await secured.raw(ssl=trust)
    await client.hello(secured.token("examinee", "E001"))
    await client.expect("session_state")
    assert [record.getMessage() for record in caplog.records if record.exc_info] == []


async def test_silent_connections_of_one_address_are_limited(secured: System, trust: ssl.SSLContext) -> None:
    silent = [await Bare.open(secured) for _ in range(10)]

    async def dropped() -> bool:
        return any(client.reader.at_eof() for client in silent)

    await eventually(dropped, "those beyond the limit are dropped")
    elsewhere = await secured.raw(ssl=trust, local_addr=("127.0.0.2", 0))
    await elsewhere.hello(secured.token("examinee", "E001"))
    for client in silent:
        client.writer.close()


async def test_a_server_process_serves_over_tls(
    bus: Bus,
    settings: Settings,
    certificates: Certificates,
    trust: ssl.SSLContext,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("EXAMWIRE_SOCKET__CERTIFICATE_FILE", str(certificates.certificate))
    monkeypatch.setenv("EXAMWIRE_SOCKET__KEY_FILE", str(certificates.key))
    async with System(settings, servers=()) as system:
        server = await ServerProcess.start(settings)  # by uvloop, whose TLS is another one
        try:
            assert server.url.startswith("wss://")

            async def join(number: int) -> RawClient:
                client = await RawClient.open(server.url, ssl=trust)
                await client.hello(system.token("examinee", f"E{number}"))
                await client.expect("session_state")
                return client

            for client in await asyncio.gather(*(join(number) for number in range(20))):
                await client.say("heartbeat")
                await client.expect("heartbeat")
                await client.websocket.send("not json" * 1000)
                await client.expect("error")
                await client.close()
                assert client.websocket.close_code == 1000
        finally:
            await server.kill()
