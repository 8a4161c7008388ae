"""The pages, the files that they load, and the headers that restrict what a page may do.

The files are in `actors/pages/`. They are read once, at the start: a running server never serves files of two versions,
and the path of a request never reaches the file system.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from actors.runtime import VERSION
from actors.web_server.bodies import Body
from actors.web_server.problems import Problem
from protocol.errors import ErrorCode

DIRECTORY = Path(__file__).parents[1] / "pages"
PAGES = {"/": "index.html", "/proctor": "proctor.html", "/examinee": "examinee.html", "/phone": "phone.html"}
CAMERA_PAGE = "/phone"
ICON = "common/icon.svg"
EMBEDDABLE = frozenset(
    {
        "examwire.js",
        "examwire-badge.js",
        "examwire-badge-help.js",
        "examwire-badge-texts.js",
        "client/browser.js",
        "client/client.js",
        "client/next-server.js",
        "client/frames.js",
        "client/connection-keeper.js",
        "client/connection.js",
        "client/exam-clock.js",
        "client/examinee-client.js",
        "client/plan-view.js",
        "client/connect-attempt.js",
        "client/proctor-client.js",
        "client/reconnect-rules.js",
        "client/server-list.js",
    }
)
"""Files that pages of other sites may load; the others in `static/` are for our own pages."""

_TEXT = {
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".svg": "image/svg+xml",
    ".webmanifest": "application/manifest+json",
}
_BINARY = {
    ".png": "image/png",
    ".ico": "image/x-icon",
    ".woff2": "font/woff2",
    ".mp3": "audio/mpeg",
    ".ogg": "audio/ogg",
}
MEDIA_TYPES = _TEXT | _BINARY

# A host as CSP knows it; it has no notation for an IPv6 address.
_CSP_ORIGIN = re.compile(r"wss?://[A-Za-z0-9.-]+(:\d+)?")
_SCHEMES = ("ws", "wss")


@dataclass(frozen=True, slots=True)
class _File:
    body: Body
    media_type: str


class Pages:
    """Serves the pages and `/static/…`.

    `connects_to` returns the addresses of the socket servers that a page may connect to; `further` are additional
    origins (`web.connect_sources`).

    Example::

        Starlette(routes=Pages(lambda: ["wss://exam.example/v1/connect"]).routes())
    """

    def __init__(self, connects_to: Callable[[], Iterable[str]], further: Sequence[str] = ()) -> None:
        self._connects_to = connects_to
        self._further = tuple(further)
        self._pages = {path: _page(DIRECTORY / name) for path, name in PAGES.items()}
        self._static = dict(_static_files(DIRECTORY / "static"))

    def routes(self) -> list[Route]:
        return [
            *(Route(path, self.page) for path in self._pages),
            *(Route(f"{path}/", self.without_slash) for path in self._pages if path != "/"),
            Route("/static/{path:path}", self.static),
            Route("/favicon.ico", self.icon),
        ]

    async def page(self, request: Request) -> Response:
        """`GET /`, `/proctor`, `/examinee`, `/phone`."""
        path = request.scope["path"]
        headers = {
            "Cache-Control": "no-cache",
            "Content-Security-Policy": content_security_policy(self._connects_to(), self._further),
            "Cross-Origin-Opener-Policy": "same-origin",
            "Cross-Origin-Resource-Policy": "same-origin",
            "Permissions-Policy": permissions_policy(camera=path == CAMERA_PAGE),
            "Referrer-Policy": "no-referrer",
            "X-Content-Type-Options": "nosniff",
        }
        return self._pages[path].answer(request, "text/html; charset=utf-8", headers)

    async def without_slash(self, request: Request) -> Response:
        """`GET /proctor/` and its siblings: the same address without the slash. A browser keeps the fragment."""
        query = f"?{request.url.query}" if request.url.query else ""
        return RedirectResponse(request.scope["path"].rstrip("/") + query, 308, {"Cache-Control": "no-cache"})

    async def static(self, request: Request) -> Response:
        """`GET /static/{path}`: one of the files that were there at the start."""
        return self._file(request, request.path_params["path"])

    async def icon(self, request: Request) -> Response:
        """`GET /favicon.ico`, for pages that name no icon."""
        return self._file(request, ICON)

    def _file(self, request: Request, path: str) -> Response:
        file = self._static.get(path)
        if file is None:
            raise Problem(404, ErrorCode.NOT_FOUND, "there is nothing at this address")
        headers = {"Cache-Control": "no-cache", "X-Content-Type-Options": "nosniff"}
        if path in EMBEDDABLE:
            headers |= {"Access-Control-Allow-Origin": "*", "Cross-Origin-Resource-Policy": "cross-origin"}
        else:
            headers["Cross-Origin-Resource-Policy"] = "same-origin"
        return file.body.answer(request, file.media_type, headers)


def content_security_policy(urls: Iterable[str], further: Iterable[str] = ()) -> str:
    """Return the Content-Security-Policy of a page; `urls` are the addresses of socket servers."""
    connect = {"'self'", *further, *(source for url in urls if (source := connect_source(url)))}
    rules = {
        "default-src": "'none'",
        "script-src": "'self'",
        "style-src": "'self'",
        "img-src": "'self' blob: data:",
        "connect-src": " ".join(sorted(connect)),
        "media-src": "'self' blob:",
        "font-src": "'self'",
        "manifest-src": "'self'",
        "base-uri": "'none'",
        "form-action": "'self'",
        "frame-ancestors": "'none'",
    }
    return "; ".join(f"{name} {value}" for name, value in rules.items())


def connect_source(url: str) -> str | None:
    """The CSP source of a socket server's address; `None` for what is none.

    CSP has no notation for IPv6 addresses: there only the scheme can be said.
    """
    try:
        parts = urlsplit(url)
        scheme, host, port = parts.scheme, parts.hostname or "", parts.port
    except ValueError:
        return None
    if scheme not in _SCHEMES or not host:
        return None
    if ":" in host:
        return f"{scheme}:"
    source = f"{scheme}://{host}" + (f":{port}" if port is not None else "")
    return source if _CSP_ORIGIN.fullmatch(source) else None


def permissions_policy(*, camera: bool) -> str:
    """Return the permissions policy of a page: the features of the browser that it may use."""
    return f"camera=({'self' if camera else ''}), microphone=(), geolocation=(), display-capture=(), payment=()"


def _page(path: Path) -> Body:
    return Body.of(path.read_text("utf-8").replace("{{version}}", VERSION).encode(), text=True)


def _static_files(directory: Path) -> Iterable[tuple[str, _File]]:
    for path in sorted(directory.rglob("*")):
        if path.is_file() and path.suffix in MEDIA_TYPES:
            body = Body.of(path.read_bytes(), text=path.suffix in _TEXT)
            yield path.relative_to(directory).as_posix(), _File(body, MEDIA_TYPES[path.suffix])
