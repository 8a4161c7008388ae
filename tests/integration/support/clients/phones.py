"""Phones and proctors over real HTTP against a web server, raw ones too, and what they left in STATUS and on disk."""

from __future__ import annotations

import asyncio
import io
import json
import socket
import struct
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import quote, urlsplit

import httpx
from PIL import Image
from redis.asyncio import Redis

from actors.runtime.broker.connection import Bus
from actors.runtime.config.settings import Settings
from actors.runtime.config.tokens import issue_token
from actors.runtime.store.state_store import StateStore
from actors.web_server.server import WebServer
from protocol.broker.streams import STATUS
from protocol.messages.frames import Role
from protocol.records import keys
from protocol.times import format_time
from tests.integration.support.system import eventually


def picture(kind: str = "JPEG", size: tuple[int, int] = (320, 240)) -> bytes:
    """Another picture at every call: noise."""
    target = io.BytesIO()
    Image.effect_noise(size, 60).convert("RGB").save(target, kind)
    return target.getvalue()


async def record(settings: Settings, **fields: str) -> None:
    """The mobile_sync record of E001, as the state manager would have written it."""
    redis = Redis.from_url(settings.redis_url)
    await redis.hset(keys.mobile_sync("P001", "E001"), items=[part for pair in fields.items() for part in pair])
    await redis.aclose()


def seconds_from_now(seconds: float) -> str:
    return format_time(time.time() + seconds)


def upload_path(plan_id: str = "P001", examinee_id: str = "E001", **query: str) -> str:
    query = {"deviceId": "M001", "model": "iPhone 12", "osVersion": "iOS 15.0"} | query
    parameters = "&".join(f"{name}={quote(value, safe='')}" for name, value in query.items())
    return f"/v1/plans/{quote(plan_id, safe='')}/examinees/{quote(examinee_id, safe='')}/mobile-sync?{parameters}"


def capture_path(plan_id: str = "P001", examinee_id: str = "E001") -> str:
    return f"/v1/plans/{quote(plan_id, safe='')}/captures/{quote(examinee_id, safe='')}/sync_cap.jpg"


def problem(response: httpx.Response) -> dict[str, Any]:
    """The problem document of a response; every error must be one."""
    assert response.headers["content-type"] == "application/problem+json"
    document: dict[str, Any] = response.json()
    assert {"type", "title", "status", "detail", "code"} <= set(document)
    assert document["status"] == response.status_code
    return document


class Site:
    """A web server that runs, and the means to use it."""

    def __init__(self, server: WebServer, settings: Settings, bus: Bus) -> None:
        self.server = server
        self.settings = settings
        self.bus = bus
        # Plain http: without `verify`, no certificates are loaded, which would take longer than most tests.
        self.http = httpx.AsyncClient(base_url=server.url, timeout=20, trust_env=False, verify=False)

    async def close(self) -> None:
        await self.http.aclose()
        await self.server.stop()

    def bearer(
        self, role: Role = "mobile", subject: str = "E001", plan_id: str = "P001", **more: Any
    ) -> dict[str, str]:
        return {"Authorization": f"Bearer {issue_token(self.settings, role, plan_id, subject, **more)}"}

    async def put(
        self,
        content: Any,
        *,
        plan_id: str = "P001",
        examinee_id: str = "E001",
        headers: dict[str, str] | None = None,
        **query: str,
    ) -> httpx.Response:
        headers = self.bearer("mobile", examinee_id, plan_id) if headers is None else headers
        return await self.http.put(upload_path(plan_id, examinee_id, **query), content=content, headers=headers)

    async def get(self, plan_id: str = "P001", examinee_id: str = "E001") -> httpx.Response:
        headers = self.bearer("proctor", "proctor-1", plan_id)
        return await self.http.get(capture_path(plan_id, examinee_id), headers=headers)

    async def raw(self, declared: int, first: bytes = b"", *headers: str) -> RawUpload:
        """An upload that says it has `declared` bytes and has sent `first` of them."""
        parts = urlsplit(self.server.url)
        reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
        lines = [
            f"PUT {upload_path()} HTTP/1.1",
            "Host: examwire",
            f"Authorization: {self.bearer()['Authorization']}",
            f"Content-Length: {declared}",
            *headers,
        ]
        writer.write("\r\n".join(lines).encode() + b"\r\n\r\n" + first)
        await writer.drain()
        return RawUpload(reader, writer)

    # -- what it left behind -------------------------------------------------------------------------

    async def published(self) -> list[dict[str, Any]]:
        """Every message in STATUS, `data` with its `type` and `subject`, in order."""
        info = await self.bus._js.stream_info(STATUS.name)
        facts: list[dict[str, Any]] = []
        if not info.state.messages:
            return facts
        for sequence in range(info.state.first_seq, info.state.last_seq + 1):
            stored = await self.bus.message_at(STATUS.name, sequence)
            assert stored is not None
            message = json.loads(stored.payload)
            facts.append({"type": message["type"], "subject": stored.subject, **message["data"]})
        return facts

    def stored(self, plan_id: str = "P001", examinee_id: str = "E001") -> bytes | None:
        path = self.settings.data_dir / "captures" / plan_id / examinee_id / "sync_cap.jpg"
        return path.read_bytes() if path.exists() else None

    def leftovers(self) -> list[str]:
        """Files aside: there are some while an upload is on its way, none otherwise."""
        return [path.name for path in (self.settings.data_dir / "captures").rglob("*.part")]

    async def on_its_way(self) -> None:
        """Wait until an upload has been let in and its body is being read."""

        async def begun() -> bool:
            return bool(self.leftovers())

        await eventually(begun, "an upload on its way")

    async def connected(self) -> None:
        """Wait until the web server's bus is connected (again)."""

        async def there() -> bool:
            return self.bus.connected

        await eventually(there, "the bus connected")

    async def nothing_left(self) -> None:
        async def cleared() -> bool:
            return not self.leftovers()

        await eventually(cleared, "the files aside removed")

    async def outcome(self, name: str, count: int = 1) -> None:
        async def counted() -> bool:
            return self.server.outcomes[name] == count

        await eventually(counted, f"{count} upload(s) ended {name}")


@asynccontextmanager
async def open_site(settings: Settings, bus: Bus, store: StateStore) -> AsyncIterator[Site]:
    """A web server that runs, with the stream it publishes to."""
    await bus.apply_stream(STATUS)
    server = WebServer(settings, bus, store)
    await server.start()
    site = Site(server, settings, bus)
    try:
        yield site
    finally:
        await site.close()


class RawUpload:
    """One end of a TCP connection that says what the test wants said."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def send(self, content: bytes) -> None:
        self.writer.write(content)
        await self.writer.drain()

    async def status(self) -> int:
        """The status of the next response."""
        line = await asyncio.wait_for(self.reader.readline(), 15)
        return int(line.split()[1]) if line else 0

    async def response(self) -> tuple[int, dict[str, Any]]:
        """The next response: its status and its JSON."""
        status = await self.status()
        head = await asyncio.wait_for(self.reader.readuntil(b"\r\n\r\n"), 15)
        headers = dict(line.lower().split(": ", 1) for line in head.decode().strip().split("\r\n"))
        body = await asyncio.wait_for(self.reader.readexactly(int(headers["content-length"])), 15)
        return status, json.loads(body)

    async def vanish(self) -> None:
        """Reset the connection, as a phone that loses its network for good."""
        plain: socket.socket = self.writer.get_extra_info("socket")
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()
        await self.close()

    async def close(self) -> None:
        self.writer.close()
        try:
            await self.writer.wait_closed()
        except ConnectionError:
            return  # closed is closed
