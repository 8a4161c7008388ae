"""Connections that say nothing, little, or take nothing; and everybody else, who is served meanwhile."""

from __future__ import annotations

import asyncio
import json
import os
import resource
import socket
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from actors.runtime.actor.supervisor import Supervisor
from actors.runtime.broker.connection import Bus
from actors.runtime.config.sections import WebSettings
from actors.runtime.config.settings import Settings
from actors.runtime.http.connections import ConnectionLimits
from actors.runtime.role import metrics_server
from actors.runtime.role.metrics_server import MOST_CONNECTIONS, MetricsServer
from actors.runtime.store.state_store import StateStore
from actors.runtime.telemetry.metrics import REGISTRY
from actors.web_server.api.mobile_upload import MobileUploads
from actors.web_server.server import connection_limits
from tests.integration.support.clients.phones import Site, capture_path, open_site, picture, upload_path
from tests.integration.support.settings import changed
from tests.integration.support.system import eventually
from tests.support.certificates import issue

BEGUN = b"GET /healthz HTTP/1.1\r\nHost: examwire\r\n"


class Peer:
    """A connection that says what the test wants said."""

    def __init__(self, plain: socket.socket) -> None:
        self.socket = plain

    @classmethod
    async def open(
        cls, url: str, request: bytes = b"", *, source: str | None = None, buffer: int | None = None
    ) -> Peer:
        parts = urlsplit(url)
        plain = socket.socket()
        plain.setblocking(False)
        if source is not None:
            plain.bind((source, 0))
        if buffer is not None:
            plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
        await asyncio.get_running_loop().sock_connect(plain, (parts.hostname, parts.port))
        peer = cls(plain)
        if request:
            await peer.say(request)
        return peer

    async def say(self, content: bytes) -> bool:
        """Whether it could still be said."""
        try:
            await asyncio.get_running_loop().sock_sendall(self.socket, content)
        except OSError:
            return False
        return True

    async def end(self, seconds: float = 30.0) -> bytes:
        """Wait until the other side ends the connection; what it said before."""
        response = bytearray()
        async with asyncio.timeout(seconds):
            with suppress(ConnectionError):
                while chunk := await asyncio.get_running_loop().sock_recv(self.socket, 65536):
                    response += chunk
        self.socket.close()
        return bytes(response)

    async def trickle(self, content: bytes) -> None:
        """One byte after the other, until nobody listens any more."""
        for place in range(len(content)):
            if not await self.say(content[place : place + 1]):
                return
            await asyncio.sleep(0.02)


def ended(reason: str) -> float:
    return REGISTRY.get_sample_value("examwire_web_connections_ended_total", {"reason": reason}) or 0.0


def close(peers: Sequence[Peer]) -> None:
    for peer in peers:
        peer.socket.close()


@asynccontextmanager
async def site_with(settings: Settings, bus: Bus, store: StateStore, **web: Any) -> AsyncIterator[Site]:
    async with open_site(changed(settings, {f"web.{name}": value for name, value in web.items()}), bus, store) as site:
        yield site
    assert site.server.failed == 0


# -- silence ---------------------------------------------------------------------------------------------


async def test_silent_connections_do_not_block_others(settings: Settings, bus: Bus, store: StateStore) -> None:
    async with site_with(settings, bus, store, max_connections=50, header_seconds=600) as site:
        before = ended("crowded_out")
        peers = [await Peer.open(site.server.url, BEGUN if number % 2 else b"") for number in range(300)]
        for _ in range(20):
            async with httpx.AsyncClient(base_url=site.server.url, trust_env=False) as http:
                assert (await http.get("/healthz")).status_code == 200
        assert (await site.put(picture())).status_code == 201

        async def crowded_out() -> bool:
            return ended("crowded_out") >= before + 250

        await eventually(crowded_out, "those that came first have made room")
        assert len(site.server.connections) <= 50
        close(peers)


async def test_the_headers_of_a_request_have_a_time_limit(settings: Settings, bus: Bus, store: StateStore) -> None:
    async with site_with(settings, bus, store, header_seconds=0.5) as site:
        silent, partial = await Peer.open(site.server.url), await Peer.open(site.server.url, BEGUN)
        slow = await Peer.open(site.server.url)
        trickling = asyncio.create_task(slow.trickle(BEGUN + b"X: " + b"x" * 5000))
        assert await silent.end() == b""
        for peer in (partial, slow):
            answer = await peer.end()
            assert answer == b"" or answer.startswith(b"HTTP/1.1 408 ")
        await trickling
        # A second request on a connection has no longer than the first one.
        second = await Peer.open(site.server.url, BEGUN + b"\r\n" + BEGUN)
        answer = await second.end()
        assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
        assert answer.count(b"HTTP/1.1 408 ") == 1

        async def gone() -> bool:
            return len(site.server.connections) == 0

        await eventually(gone, "no connection left")


async def test_an_unread_body_does_not_block_a_connection(settings: Settings, bus: Bus, store: StateStore) -> None:
    async with site_with(settings, bus, store, header_seconds=0.5) as site:
        head = f"PUT {upload_path()} HTTP/1.1\r\nHost: examwire\r\nContent-Length: 1000000\r\n\r\n".encode()
        peer = await Peer.open(site.server.url, head)  # without a token: answered at once
        trickling = asyncio.create_task(peer.trickle(bytes(5000)))
        assert (await peer.end()).startswith(b"HTTP/1.1 401 ")
        await trickling


async def test_a_trickling_upload_is_closed(
    settings: Settings, bus: Bus, store: StateStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(MobileUploads, "stall_seconds", 0.5)
    async with site_with(settings, bus, store) as site:
        upload = await site.raw(100_000)
        sending = asyncio.create_task(_trickled(upload))
        status, document = await upload.response()
        assert (status, document["code"]) == (408, "UPLOAD_STALLED")
        sending.cancel()
        await upload.close()


async def _trickled(upload: Any) -> None:
    with suppress(OSError):
        while True:
            await upload.send(b"x")
            await asyncio.sleep(0.02)


# -- answers that nobody takes ---------------------------------------------------------------------------


async def test_a_client_that_does_not_read_its_answer_is_closed(
    settings: Settings, bus: Bus, store: StateStore, monkeypatch: pytest.MonkeyPatch
) -> None:

    def hasty(web: WebSettings) -> ConnectionLimits:
        return replace(connection_limits(web), answer_seconds=0.5)

    monkeypatch.setattr("actors.web_server.server.connection_limits", hasty)
    async with site_with(settings, bus, store, header_seconds=0.5) as site:
        content = picture(size=(3600, 2700))  # some megabytes: more than the kernel keeps for a reader
        assert (await site.put(content)).status_code == 201
        token = site.bearer("proctor", "proctor-1")["Authorization"]
        asks = f"GET {capture_path()} HTTP/1.1\r\nHost: examwire\r\nAuthorization: {token}\r\n\r\n".encode()
        before = ended("reads_too_slowly")
        peers = [await Peer.open(site.server.url, asks, buffer=4096) for _ in range(5)]
        assert (await site.get()).content == content  # whoever takes it gets it

        async def given_up() -> bool:
            return ended("reads_too_slowly") == before + 5

        await eventually(given_up, "five who took nothing")
        close(peers)


# -- busy ------------------------------------------------------------------------------------------------


async def test_concurrent_requests_of_an_address_are_limited(settings: Settings, bus: Bus, store: StateStore) -> None:
    async with site_with(settings, bus, store, max_connections_per_address=20) as site:

        def half_an_upload(number: int) -> bytes:
            examinee_id = f"E{number}"
            token = site.bearer("mobile", examinee_id)["Authorization"]
            path = upload_path(examinee_id=examinee_id)
            head = f"PUT {path} HTTP/1.1\r\nHost: x\r\nAuthorization: {token}\r\nContent-Length: 1000\r\n\r\n"
            return head.encode() + b"\xff\xd8\xff"

        peers = [await Peer.open(site.server.url, half_an_upload(number)) for number in range(20)]

        async def under_way() -> bool:
            return len(site.leftovers()) == 20

        await eventually(under_way, "twenty uploads")
        refused = await (await Peer.open(site.server.url, BEGUN + b"\r\n")).end()
        assert refused == b"" or refused.startswith(b"HTTP/1.1 503 ")
        other = await Peer.open(site.server.url, BEGUN + b"Connection: close\r\n\r\n", source="127.0.0.2")
        assert (await other.end()).startswith(b"HTTP/1.1 200 OK\r\n")
        close(peers)
        await site.nothing_left()
        assert (await site.http.get("/healthz")).status_code == 200


async def test_a_trusted_proxy_has_no_limit_of_its_own(settings: Settings, bus: Bus, store: StateStore) -> None:
    proxies = ["127.0.0.1"]
    async with site_with(settings, bus, store, max_connections_per_address=2, trusted_proxies=proxies) as site:
        peers = [await Peer.open(site.server.url) for _ in range(10)]

        async def all_there() -> bool:
            return len(site.server.connections) == 10

        await eventually(all_there, "ten connections of one proxy")
        close(peers)


# -- TLS -------------------------------------------------------------------------------------------------


async def test_the_time_limit_includes_the_tls_handshake(
    settings: Settings, bus: Bus, store: StateStore, tmp_path: Path
) -> None:
    issued = issue(tmp_path / "certificates")
    tls = {"certificate_file": issued.certificate, "key_file": issued.key}
    async with site_with(settings, bus, store, max_connections=30, header_seconds=600, **tls) as site:
        peers = [await Peer.open(site.server.url) for _ in range(100)]
        assert (await site.http.get("/healthz")).status_code == 200
        assert len(site.server.connections) <= 30
        close(peers)
    async with site_with(settings, bus, store, header_seconds=0.5, **tls) as site:
        assert await (await Peer.open(site.server.url)).end() == b""
        assert (await site.http.get("/healthz")).status_code == 200


# -- the process -----------------------------------------------------------------------------------------


async def test_a_role_raises_its_limit_of_files_and_serves_beside_hundreds_who_are_silent(
    settings: Settings, variables: dict[str, str], tmp_path: Path, bus: Bus
) -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", "-m", "cli.main", "run", "web-server", "--json"),
        cwd=tmp_path,
        env=os.environ | variables,
        stdout=asyncio.subprocess.PIPE,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (256, 4096)),
    )
    try:
        assert process.stdout is not None
        ready = json.loads(await asyncio.wait_for(process.stdout.readline(), 30))
        peers = [await Peer.open(ready["url"], BEGUN if number % 2 else b"") for number in range(600)]
        async with httpx.AsyncClient(trust_env=False, timeout=20) as http:
            for _ in range(5):
                assert (await http.get(f"{ready['url']}/healthz")).status_code == 200
            text = (await http.get(ready["metricsUrl"])).text
        assert "process_max_fds 4096.0" in text
        close(peers)
    finally:
        process.terminate()
        await process.wait()


async def test_silent_connections_to_the_metrics_are_dropped_for_new_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics_server, "REQUEST_SECONDS", 60.0)
    server = MetricsServer("role", "127.0.0.1", 0, needs_redis=False)
    await server.start(Supervisor("role"))
    peers = [await Peer.open(server.url) for _ in range(MOST_CONNECTIONS + 20)]
    for peer in peers[:20]:
        assert await peer.end() == b"", "the oldest made room"
    for _ in range(5):
        one = await Peer.open(server.url, BEGUN + b"\r\n")
        assert (await one.end()).startswith(b"HTTP/1.1 200"), "Prometheus and a load balancer are answered meanwhile"
    close(peers)
    await server.stop()
