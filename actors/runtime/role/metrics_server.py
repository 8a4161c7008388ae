"""`/metrics`, `/healthz` and `/readyz` of every role, on its metrics port.

Answered by the role's own event loop: a loop that hangs is not healthy, and actors are counted between two of their
steps. It knows GET and HEAD without a body, closes after each answer, and needs no web framework in every role.
"""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import time
from http import HTTPStatus

from prometheus_client import Histogram, generate_latest

from actors.runtime.actor.supervisor import Supervisor
from actors.runtime.broker.connection import Bus
from actors.runtime.config.local_addresses import in_url
from actors.runtime.store.state_store import StateStore
from actors.runtime.telemetry.metrics import CONTENT_TYPE, REGISTRY
from protocol.errors import RoleFailed, StateDamaged, StateUnavailable

log = logging.getLogger("examwire.metrics")

REQUEST_SECONDS = 5.0
REQUEST_BYTES = 16 * 1024
MOST_CONNECTIONS = 64
PING_SECONDS = 2.0

SCRAPES = Histogram(
    "examwire_scrape_seconds",
    "How long the event loop was busy with an answer to Prometheus",
    registry=REGISTRY,
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25),
)

Answer = tuple[HTTPStatus, str, bytes]


class MetricsServer:
    """Bound at once (`url` is its /metrics), serving from `start` to `stop`.

    `needs_redis`: whether the role's work stands still without Redis. Else its absence is told as `degraded`, and the
    role stays ready: a socket server holds and admits examinees without it, and a load balancer that sent them away
    would make an outage of Redis one of the exam. Raises `RoleFailed` when the port is taken.
    """

    def __init__(self, role: str, host: str, port: int, *, needs_redis: bool) -> None:
        self._role = role
        self._needs_redis = needs_redis
        self._supervisor: Supervisor | None = None
        self._bus: Bus | None = None
        self._store: StateStore | None = None
        self._server: asyncio.Server | None = None
        self._answering: dict[asyncio.Task[None], asyncio.WriteTransport] = {}  # the oldest first
        self.started = False
        """Set when all actors of the role have started."""
        try:
            family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[
                0
            ]
            self._listener = socket.create_server((str(address[0]), int(address[1])), family=family)
        except OSError as error:
            raise RoleFailed(f"{role}: metrics cannot be served on {host}:{port}: {error.strerror or error}") from None
        host, port = self._listener.getsockname()[:2]
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
        self.url = f"http://{in_url(host)}:{port}/metrics"

    async def start(self, supervisor: Supervisor) -> None:
        """Serve; until `watch` the role is alive and not ready."""
        self._supervisor = supervisor
        self._server = await asyncio.start_server(self._accept, sock=self._listener, limit=REQUEST_BYTES)

    def watch(self, bus: Bus, store: StateStore) -> None:
        """These are the role's engines."""
        self._bus, self._store = bus, store

    def stop(self) -> None:
        """Answer no more. Harmless when repeated, or when it never started."""
        if self._server is not None:
            self._server.close()
        for task in list(self._answering):
            task.cancel()
        self._listener.close()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._answering) >= MOST_CONNECTIONS:
            # An answer takes a moment: who is here longest is idle, and makes room.
            oldest = next(iter(self._answering))
            self._answering.pop(oldest).abort()
            oldest.cancel()
        # A task of our own: of one that asyncio's streams have made, a cancellation is logged as an error of theirs.
        task = asyncio.get_running_loop().create_task(self._serve(reader, writer), name=f"{self._role}:metrics")
        self._answering[task] = writer.transport
        task.add_done_callback(lambda done: self._answering.pop(done, None))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(REQUEST_SECONDS):
                request = await reader.readuntil(b"\r\n\r\n")
                method, target, *_ = [*request.split(b"\r\n", 1)[0].decode("latin-1").split(" "), ""]
                status, kind, body = await self._answer(method, target.partition("?")[0])
                head = (
                    f"HTTP/1.1 {status.value} {status.phrase}\r\nContent-Type: {kind}\r\n"
                    f"Content-Length: {len(body)}\r\nCache-Control: no-store\r\nConnection: close\r\n\r\n"
                )
                writer.write(head.encode() + (b"" if method == "HEAD" else body))
                await writer.drain()
        except (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError) as error:
            log.debug("%s: a request came to nothing: %r", self._role, error)
            writer.transport.abort()  # what was not taken in time is not waited for
        except Exception:
            log.exception("%s: a request could not be answered", self._role)
        finally:
            writer.close()

    async def _answer(self, method: str, path: str) -> Answer:
        if method not in ("GET", "HEAD"):
            return HTTPStatus.METHOD_NOT_ALLOWED, "text/plain; charset=utf-8", b"GET or HEAD\n"
        match path:
            case "/metrics":
                return HTTPStatus.OK, CONTENT_TYPE, exposition()
            case "/healthz":
                return HTTPStatus.OK, "application/json", _json({"status": "alive", "role": self._role})
            case "/readyz":
                return await self._readiness()
            case _:
                return HTTPStatus.NOT_FOUND, "text/plain; charset=utf-8", b"/metrics, /healthz or /readyz\n"

    async def _readiness(self) -> Answer:
        missing: list[str] = []
        degraded: list[str] = []
        children = self._supervisor.children if self._supervisor is not None else {}
        if not self.started:
            missing.append("start")
        missing += [name for name, actor in children.items() if self.started and not actor.running]
        if self._bus is None or not self._bus.connected:
            missing.append("nats")
        if not await self._redis_answers():
            (missing if self._needs_redis else degraded).append("redis")
        told: dict[str, object] = {"status": "not ready" if missing else "ready", "role": self._role}
        told |= {"missing": missing} if missing else {}
        told |= {"degraded": degraded} if degraded else {}
        return HTTPStatus.SERVICE_UNAVAILABLE if missing else HTTPStatus.OK, "application/json", _json(told)

    async def _redis_answers(self) -> bool:
        if self._store is None:
            return False
        try:
            async with asyncio.timeout(PING_SECONDS):
                await self._store.ping()
        except (StateUnavailable, StateDamaged, TimeoutError):
            return False
        return True


def exposition() -> bytes:
    """Everything this process measures, in Prometheus' text format."""
    began = time.perf_counter()
    text = generate_latest(REGISTRY)
    SCRAPES.observe(time.perf_counter() - began)
    return text


def _json(value: object) -> bytes:
    return json.dumps(value).encode() + b"\n"
