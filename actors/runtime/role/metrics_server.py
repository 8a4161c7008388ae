"""`/metrics`, `/healthz` and `/readyz` of every role, on its metrics port.

The role's own event loop answers: a loop that hangs is not healthy, and no other thread reads what the actors change.
prometheus_client's ASGI app writes the metrics; uvicorn serves it within the limits of `actors.runtime.http`.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import time

from prometheus_client import Histogram, make_asgi_app
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import Message, Receive, Scope, Send

from actors.runtime.actor.supervisor import Supervisor
from actors.runtime.broker.connection import Bus
from actors.runtime.http.connections import ConnectionLimits, Connections
from actors.runtime.http.server import HttpServer, bind, url_of
from actors.runtime.store.state_store import StateStore
from actors.runtime.telemetry.metrics import REGISTRY
from protocol.errors import RoleFailed, StateDamaged, StateUnavailable

log = logging.getLogger("examwire.metrics")

REQUEST_SECONDS = 5.0
"""Seconds that a client may take to send its request, and again to read the answer."""
MOST_CONNECTIONS = 64
PING_SECONDS = 2.0
STOP_SECONDS = 2.0

SCRAPES = Histogram(
    "examwire_scrape_seconds",
    "How long the event loop was blocked by an answer to Prometheus",
    registry=REGISTRY,
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25),
)


class MetricsServer:
    """Listens from its construction on (`url` is its /metrics) and serves from `start` to `stop`.

    `needs_redis`: whether the role cannot work without Redis. If it can, a missing Redis is reported as `degraded` and
    the role stays ready: a socket server keeps and admits examinees without Redis, and a load balancer that took it out
    would turn an outage of Redis into one of the exam. Raises `RoleFailed` when the port is taken.

    Example::

        metrics = MetricsServer("web-server", "127.0.0.1", 9464, needs_redis=True)
        await metrics.start(supervisor)
        metrics.watch(bus, store)
    """

    def __init__(self, role: str, host: str, port: int, *, needs_redis: bool) -> None:
        self._role = role
        self._needs_redis = needs_redis
        self._supervisor: Supervisor | None = None
        self._bus: Bus | None = None
        self._store: StateStore | None = None
        self._connections: Connections | None = None
        self._http: HttpServer | None = None
        self._serving: asyncio.Task[None] | None = None
        self.started = False
        """Set when all actors of the role have started."""
        self._app = Starlette(
            routes=[
                Route("/metrics", _Metrics(), methods=["GET"]),
                Route("/healthz", self._healthz),
                Route("/readyz", self._readyz),
            ],
            exception_handlers={404: _not_found, 405: _not_allowed},
        )
        self._app.router.redirect_slashes = False
        try:
            self._listener = bind(host, port)
        except OSError as error:
            raise RoleFailed(f"{role}: metrics cannot be served on {host}:{port}: {error.strerror or error}") from None
        self.url = f"{url_of(self._listener, 'http')}/metrics"

    async def start(self, supervisor: Supervisor) -> None:
        """Serve; until `watch` the role is alive and not ready."""
        self._supervisor = supervisor
        limits = ConnectionLimits(
            most=MOST_CONNECTIONS,
            most_of_address=MOST_CONNECTIONS,
            header_seconds=REQUEST_SECONDS,
            answer_seconds=REQUEST_SECONDS,
            answer_bytes=sys.maxsize,  # all of it
            end_busy=True,
        )
        self._connections = Connections(
            limits, (), lambda reason: log.debug("%s: a connection: %s", self._role, reason)
        )
        self._http = HttpServer(self._serve, self._connections, drain_seconds=1)
        self._serving = asyncio.create_task(self._http.serve([self._listener]), name=f"{self._role}:metrics")
        self._serving.add_done_callback(self._ended)
        await self._http.serves.wait()

    def watch(self, bus: Bus, store: StateStore) -> None:
        """Report on these connections of the role to NATS and Redis."""
        self._bus, self._store = bus, store

    async def stop(self) -> None:
        """Close all connections and stop serving. Harmless when repeated, or without `start`."""
        if self._http is not None and self._connections is not None and self._serving is not None:
            self._connections.abort_all()
            self._http.should_exit = self._http.force_exit = True
            await asyncio.wait({self._serving}, timeout=STOP_SECONDS)
            if requests := set(self._http.server_state.tasks):
                for request in requests:
                    request.cancel()
                await asyncio.wait(requests, timeout=STOP_SECONDS)
        self._listener.close()

    def _ended(self, serving: asyncio.Task[None]) -> None:
        if not serving.cancelled() and (error := serving.exception()) is not None:
            log.error("%s: the metrics server has ended", self._role, exc_info=error)

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request without reading its body, and have uvicorn close the connection then."""

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (b"cache-control", b"no-store"), (b"connection", b"close")]
            await send(message)

        try:
            await self._app(scope, _empty_body, answer)
        except asyncio.CancelledError:
            log.debug("%s: stopped during a request for %s", self._role, scope["path"])  # uvicorn would log an error

    async def _healthz(self, _request: Request) -> Response:
        return JSONResponse({"status": "alive", "role": self._role})

    async def _readyz(self, _request: Request) -> Response:
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
        readiness: dict[str, object] = {"status": "not ready" if missing else "ready", "role": self._role}
        readiness |= {"missing": missing} if missing else {}
        readiness |= {"degraded": degraded} if degraded else {}
        return JSONResponse(readiness, 503 if missing else 200)

    async def _redis_answers(self) -> bool:
        if self._store is None:
            return False
        try:
            async with asyncio.timeout(PING_SECONDS):
                await self._store.ping()
        except (StateUnavailable, StateDamaged, TimeoutError):
            return False
        return True


class _Metrics:
    """prometheus_client's ASGI app for our registry, timed."""

    def __init__(self) -> None:
        self._app = make_asgi_app(REGISTRY)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        began = time.perf_counter()

        async def timed(message: Message) -> None:
            if message["type"] == "http.response.start":
                SCRAPES.observe(time.perf_counter() - began)
            await send(message)

        # Without Accept and Accept-Encoding it writes the plain text format: OpenMetrics takes twice the time, and gzip
        # takes more, in which no loss is handled.
        await self._app({**scope, "headers": []}, receive, timed)


async def _empty_body() -> Message:
    return {"type": "http.request", "body": b"", "more_body": False}


async def _not_found(_request: Request, _error: Exception) -> Response:
    return PlainTextResponse("/metrics, /healthz or /readyz\n", 404)


async def _not_allowed(_request: Request, _error: Exception) -> Response:
    return PlainTextResponse("GET or HEAD\n", 405)
