"""The web server: serves the pages, receives camera pictures from phones, and gives them to proctors.

`actors.web_server.pages` serves the pages; their requests are answered in `actors.web_server.api`. An upload
(`actors.web_server.api.mobile_upload`) is checked to be a picture, stored, and then published to STATUS; the phone's
201 comes after the broker's ack. Every error is a problem document (`actors.web_server.problems`). Here `/healthz` says
only that the process is alive; metrics and readiness have a port of their own (`actors.runtime.role.metrics_server`).
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
import socket
import time
import uuid
from collections import Counter
from dataclasses import dataclass
from email.utils import formatdate
from typing import Any

from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import Message, Receive, Scope, Send

from actors.runtime.actor.process_facts import fd_limit
from actors.runtime.actor.service import Service
from actors.runtime.broker.connection import Bus
from actors.runtime.broker.consumers.stream_reader import read_stream
from actors.runtime.config.sections import WebSettings
from actors.runtime.config.settings import Settings, require_secret_beyond_loopback
from actors.runtime.config.tls import ServerTls
from actors.runtime.config.tokens import TokenVerifier
from actors.runtime.http.connections import ConnectionLimits, Connections
from actors.runtime.http.server import HttpServer, bind, url_of
from actors.runtime.http.single_headers import repeated
from actors.runtime.store.ready_servers import ReadyServers
from actors.runtime.store.state_store import StateStore
from actors.runtime.telemetry import spans
from actors.runtime.telemetry.logs import LogSummary
from actors.status_log.status_log import facts_of
from actors.web_server.api.admission import ExamineeApi
from actors.web_server.api.captures import CaptureApi
from actors.web_server.api.mobile_stage import MobileStages
from actors.web_server.api.mobile_upload import MobileUploads
from actors.web_server.api.phone_codes import PhoneCodes
from actors.web_server.api.plan import PlanApi
from actors.web_server.cross_site import is_cross_site
from actors.web_server.metrics import CONNECTIONS, CONNECTIONS_ENDED, CROSS_SITE, REQUESTS, UPLOADS
from actors.web_server.pages import Pages
from actors.web_server.pictures.directory_store import DirectoryPictureStore
from actors.web_server.pictures.incoming import StoreFailed
from actors.web_server.pictures.nats_store import NatsPictureStore
from actors.web_server.pictures.store import PictureStore, keep_seconds
from actors.web_server.problems import CROSS_SITE_REQUEST, PROBLEM_HANDLERS, RETRY_AFTER, Problem, problem_of
from actors.web_server.requests import claims_of
from protocol.broker import subjects
from protocol.broker.streams import STATUS
from protocol.errors import (
    BrokerUnavailable,
    ErrorCode,
    ExamwireError,
    NotPermitted,
    ProtocolError,
    RoleFailed,
    StateDamaged,
    StateUnavailable,
)
from protocol.messages.operator_requests import Done, PurgePictures
from protocol.messages.operator_requests import Request as Control
from protocol.messages.plan_facts import PlanPurged
from protocol.records.placement import VersionedMessage

log = logging.getLogger("examwire.web")

DRAIN_SECONDS = 5
PING_SECONDS = 2.0
TIDY_SECONDS = 3600.0
FD_RESERVE = 256
"""File descriptors for other things than connections: NATS, Redis, the process's own files, decoders."""
_METHODS = frozenset({"GET", "HEAD", "PUT", "POST", "DELETE", "OPTIONS", "PATCH"})


@dataclass(frozen=True, slots=True)
class HttpRequest:
    """An answered request, as `examwire actors tail` shows it."""

    method: str
    route: str
    status: int
    plan_id: str | None
    examinee_id: str | None


class WebServer(Service):
    """Serves HTTP on `web.host`:`web.port`; `.url` is its address once started.

    Raises `RoleFailed` from its start when the port is taken, `ConfigurationError` when it would listen beyond
    loopback without a configured secret.
    """

    kind = "web-server"

    def __init__(self, settings: Settings, bus: Bus, store: StateStore) -> None:
        super().__init__(f"web-server.{uuid.uuid4().hex[:8]}", bus)
        self.settings = settings
        self.bus = bus
        self.store = store
        self.url = ""
        self.pictures = picture_store(settings, bus)
        self.outcomes: Counter[str] = Counter()
        self._verifier = TokenVerifier(settings, self._time)
        self._stages = MobileStages(store, self._verifier, self._time)
        self.uploads = MobileUploads(settings.mobile_sync, bus, store, self.pictures, self._stages)
        self._tls = ServerTls.of("web", settings.web.certificate_file, settings.web.key_file)
        self._proxies = [ipaddress.ip_network(proxy, strict=False) for proxy in settings.web.trusted_proxies]
        self._endpoints = ReadyServers(store)
        pages = Pages(lambda: self._endpoints.known, settings.web.connect_sources)
        api = PlanApi(settings.mobile_sync, bus, store, self._verifier, self._endpoints)
        self.codes = PhoneCodes(settings, bus, self._stages, self._verifier)
        self._log_summary = LogSummary(log, self.address)
        self._http: HttpServer | None = None
        self._serving: asyncio.Task[None] | None = None
        self._app = Starlette(
            routes=[
                # `:path`, so that an id with a slash in it is told what is wrong with it instead of "not found".
                Route(
                    "/v1/plans/{plan_id:path}/examinees/{examinee_id:path}/mobile-sync", self.upload, methods=["PUT"]
                ),
                *CaptureApi(self.pictures, store, self._stages, self._verifier).routes(),
                *api.routes(),
                *self.codes.routes(),
                *self._stages.routes(),
                *ExamineeApi(store, self._verifier).routes(),
                *pages.routes(),
                Route("/healthz", self.healthz),
            ],
            exception_handlers=PROBLEM_HANDLERS,
        )
        self._app.router.redirect_slashes = False

    def _time(self) -> float:
        """Seconds since the epoch, by the broker's clock."""
        return self.bus.clock.now()

    # -- life ----------------------------------------------------------------------------------------

    async def on_start(self) -> None:
        host, port = self.settings.web.host, self.settings.web.port
        require_secret_beyond_loopback(self.settings, "web.host", host)
        with contextlib.suppress(TimeoutError):  # with Redis away it serves all the same
            async with asyncio.timeout(PING_SECONDS):
                await self._endpoints.read()
        with contextlib.suppress(BrokerUnavailable):  # and with the broker away
            await self.bus.clock.measure()
        listener = await _listen(host, port)
        tls = self._tls
        self.connections = Connections(
            connection_limits(self.settings.web), self._proxies, lambda reason: CONNECTIONS_ENDED.labels(reason).inc()
        )
        CONNECTIONS.set_function(lambda: len(self.connections))
        self._http = HttpServer(
            self._serve,
            self.connections,
            drain_seconds=DRAIN_SECONDS,
            tls=tls.context if tls is not None else None,
        )
        # Not by `spawn`: the actor's stop cancels those at once, and requests in hand are to be finished.
        self._serving = asyncio.create_task(self._http.serve([listener]), name=f"{self.address}:http")
        self.spawn(self._watch(self._serving), "watch")
        started = asyncio.create_task(self._http.serves.wait())
        await asyncio.wait({started, self._serving}, return_when=asyncio.FIRST_COMPLETED)
        started.cancel()
        if self._serving.done():
            listener.close()
            raise RoleFailed(f"the web server on {host}:{port} did not start: {self._serving.exception()!r}")
        self.url = url_of(listener, "https" if tls is not None else "http")
        self.spawn(self._tidy(), "tidy")
        self.spawn(self._endpoints.follow(), "endpoints")
        if tls is not None:
            self.spawn(tls.follow(), "certificate")
        log.info("%s serves on %s", self.address, self.url)

    async def on_stop(self) -> None:
        if self._http is not None and self._serving is not None:
            self._http.should_exit = True
            await asyncio.wait({self._serving}, timeout=DRAIN_SECONDS + 2)
            if not self._serving.done():
                log.error("%s: the HTTP server did not end in time", self.address)
                self._serving.cancel()
            # Those that were cancelled at the drain's deadline are still telling their clients.
            if self._http.server_state.tasks:
                await asyncio.wait(set(self._http.server_state.tasks), timeout=1)
        await self.uploads.close()
        self.pictures.close()

    async def _tidy(self) -> None:
        """Remove leftovers of uploads, and pictures that are too old, once an hour."""
        while True:
            try:
                removed = await self.pictures.sweep(keep_seconds(self.settings)) + await self._remove_purged()
                if removed:
                    log.info("%s: %d pictures and leftovers of uploads removed", self.address, removed)
            except (StoreFailed, BrokerUnavailable, NotPermitted, StateUnavailable, StateDamaged) as error:
                log.warning("%s: old pictures and leftovers of uploads cannot be removed: %s", self.address, error)
            await asyncio.sleep(TIDY_SECONDS)

    async def _remove_purged(self) -> int:
        """Remove the pictures of purged plans and examinees: this server did not run then, or did not answer."""
        removed = 0
        pattern = subjects.status_plans_from(subjects.PURGE)
        async for stored in read_stream(self.bus, STATUS.name, subject=pattern):
            for item in facts_of(stored):
                if isinstance(item, VersionedMessage) and isinstance(item.message, PlanPurged):
                    purged = item.message
                    removed += await self.pictures.purge(purged.plan_id, purged.examinee_id, stored.time)
        return removed

    async def control(self, request: Control) -> Done:
        if not isinstance(request, PurgePictures):
            return await super().control(request)
        try:
            removed = await self.pictures.delete(request.plan_id, request.examinee_id)
        except (StoreFailed, BrokerUnavailable, NotPermitted) as error:
            raise ProtocolError(ErrorCode.UNAVAILABLE, f"the pictures are not deleted: {error}") from error
        return Done(text=f"{removed} pictures deleted", details={"pictures": removed})

    async def _watch(self, serving: asyncio.Task[None]) -> None:
        await asyncio.wait({serving})
        if not self._stopping:
            raise ExamwireError(f"the HTTP server on {self.url} ended by itself: {serving.exception()!r}")

    def details(self) -> dict[str, Any]:
        return {"url": self.url, "uploads": dict(self.outcomes)}

    # -- requests ------------------------------------------------------------------------------------

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request: refuse bad ones, pass the others to Starlette, and measure them."""
        began = time.perf_counter()
        status = 0

        async def sent(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                date = formatdate(self._time(), usegmt=True).encode()
                message = {**message, "headers": [*message["headers"], (b"date", date)]}
            await send(message)

        try:
            if (name := repeated(name.decode("latin-1") for name, _ in scope["headers"])) is not None:
                self._log_summary.count("refused", f"400 more than one {name}")
                refused = Problem(400, ErrorCode.INVALID_MESSAGE, "is given more than once", field=name)
                await refused.response()(scope, receive, sent)
            elif self._is_cross_site(scope):
                CROSS_SITE.inc()
                detail = "a page of another site may not do this; open the page of this server"
                await Problem(403, CROSS_SITE_REQUEST, detail).response()(scope, receive, sent)
            else:
                await self._app(scope, receive, sent)
        except asyncio.CancelledError:
            # The drain's deadline. Nobody awaits this task any more, so it ends here, with a word to the client.
            if not status:
                stopping = Problem(503, ErrorCode.UNAVAILABLE, "the web server is stopping", headers=RETRY_AFTER)
                await stopping.response()(scope, receive, sent)
        except Exception as error:  # Starlette has answered it with our 500, and raised it again for us to see
            self.record_failure(error)
            log.exception("%s: a request failed", self.address)
        finally:
            route = getattr(scope.get("endpoint"), "__name__", "other")
            method = scope["method"] if scope["method"] in _METHODS else "other"
            REQUESTS.labels(route, method, str(status)).observe(time.perf_counter() - began)
            ids = scope.get("path_params", {})
            self.count_handled(HttpRequest(method, route, status, ids.get("plan_id"), ids.get("examinee_id")), began)

    def _is_cross_site(self, scope: Scope) -> bool:
        peer = scope["client"][0] if scope.get("client") else ""
        return is_cross_site(scope["method"], Headers(scope=scope), peer, self.settings.web.public_url, self._proxies)

    async def upload(self, request: Request) -> Response:
        """`PUT /v1/plans/{planId}/examinees/{examineeId}/mobile-sync?deviceId&model&osVersion`, body JPEG or PNG."""
        outcome = "STOPPING"
        try:
            claims = claims_of(self._verifier, request)
            with spans.uploading(request.headers.get(spans.HEADER), plan=claims.plan, examinee=claims.sub):
                response = await self.uploads.take(claims, request)
            outcome = "STORED"
        except ClientDisconnect:
            # Whether to try again is the phone's decision, so nothing is announced, and nobody reads this answer.
            outcome = "CLIENT_GONE"
            response = Response(status_code=400)
        except Exception as error:
            outcome = problem_of(error).code
            raise
        finally:
            self.outcomes[outcome] += 1
            UPLOADS.labels(outcome).inc()
        return response

    async def healthz(self, _request: Request) -> Response:
        """The process is alive."""
        return JSONResponse({"status": "alive"}, headers={"Cache-Control": "no-store"})


def connection_limits(settings: WebSettings) -> ConnectionLimits:
    """The limits that the settings ask for, within the file descriptors that this process may have.

    An upload takes two: its connection, and the file that it is written to.
    """
    descriptors = fd_limit()
    possible = (descriptors - min(FD_RESERVE, descriptors // 4)) // 2
    return ConnectionLimits(
        most=max(1, min(settings.max_connections, possible)),
        most_of_address=settings.max_connections_per_address,
        header_seconds=settings.header_seconds,
    )


async def _listen(host: str, port: int) -> socket.socket:
    try:
        return await asyncio.to_thread(bind, host, port)
    except OSError as error:
        raise RoleFailed(
            f"the web server cannot listen on {host}:{port} ({error.strerror or error}): "
            "stop what uses the port, or set web.port (0 picks a free one)"
        ) from error


def picture_store(settings: Settings, bus: Bus) -> PictureStore:
    """Create the picture store that `captures.store` names."""
    if settings.captures.store == "nats":
        return NatsPictureStore(bus, settings.data_dir / "uploads")
    return DirectoryPictureStore(settings.data_dir / "captures", lambda: bus.clock.now())
