"""The door of a socket server: what is decided before a WebSocket exists."""

from __future__ import annotations

from http import HTTPStatus
from urllib.parse import urlsplit

from websockets.asyncio.server import ServerConnection
from websockets.http11 import Request, Response

from actors.runtime.pace import Pace
from actors.socket_metrics import REFUSALS
from protocol.frames import CONNECT_PATH


class Doorkeeper:
    """Looks at the path, the origin, whether there is room, and how fast they come.

    Without `origins`, pages of the server's own host may connect, whatever port or scheme they have; `own_names` are
    different spellings of that host.
    """

    def __init__(
        self,
        origins: list[str],
        accept_per_second: float,
        max_connections: int,
        own_names: frozenset[str] = frozenset(),
    ) -> None:
        self._origins = origins
        self._own_names = own_names
        self._pace = Pace(accept_per_second, max(1.0, accept_per_second))  # less than one a second still lets one in
        self._max = max_connections
        self.refused = 0

    def refuse(
        self, connection: ServerConnection, request: Request, *, open_now: int, closed: str | None
    ) -> Response | None:
        """A response when the client is not let in. `closed`: why nobody is let in now."""
        path = request.path.partition("?")[0]
        if path == "/healthz":
            return connection.respond(HTTPStatus.OK, "ok\n")
        if path != CONNECT_PATH:
            return connection.respond(HTTPStatus.NOT_FOUND, f"connect to {CONNECT_PATH}\n")
        origin = request.headers.get("Origin")
        if origin is not None and not self._allowed(origin, request.headers.get("Host", "")):
            return connection.respond(HTTPStatus.FORBIDDEN, "this Origin may not connect; see socket.origins\n")
        if closed is not None:
            return self._later(connection, closed, 2, "closed")
        if open_now >= self._max:
            return self._later(connection, "this server is full", 5, "full")
        if not self._pace.take():
            return self._later(connection, "too many connect at once", 1, "too_fast")
        return None

    def _later(self, connection: ServerConnection, why: str, seconds: int, reason: str) -> Response:
        self.refused += 1
        REFUSALS.labels(reason).inc()
        response = connection.respond(HTTPStatus.SERVICE_UNAVAILABLE, why + "\n")
        response.headers["Retry-After"] = str(seconds)
        return response

    def _allowed(self, origin: str, host: str) -> bool:
        if self._origins:
            return "*" in self._origins or origin in self._origins
        try:
            own, page = urlsplit(f"//{host}").hostname, urlsplit(origin).hostname
        except ValueError:  # brackets that hold no address
            return False
        return own is not None and (page == own or {own, page} <= self._own_names)
