"""Check that socket servers accept the pages of our web servers: try a handshake with the pages' Origin."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus, WebSocketException
from websockets.typing import Origin, Subprotocol

from actors.runtime.config.settings import Settings
from cli.local.page_links import page_bases
from cli.shared.findings import Finding, failed, ok, unknown
from protocol.messages.frames import SUBPROTOCOL

ANSWER_SECONDS = 3.0
FORBIDDEN = 403
ACCEPTED = (101, 503)
"""Answers to an accepted Origin; 503 is a temporary overload."""


async def check_page_origins(
    actors: Sequence[Mapping[str, Any]], servers: Sequence[Mapping[str, str]], settings: Settings
) -> AsyncIterator[Finding]:
    """Try each pair of page origin and READY socket server. `actors`: inspections; `servers`: records in Redis."""
    origins = page_origins(actors, settings)
    urls = [(server["serverId"], server["url"]) for server in servers if _is_ready(server)]
    if not origins or not urls:
        return
    attempts = [(name, url, origin) for name, url in urls for origin in origins]
    answers = await asyncio.gather(*(_answer(url, origin) for _, url, origin in attempts))
    accepted: list[str] = []
    for (name, url, origin), answer in zip(attempts, answers, strict=True):
        if answer == FORBIDDEN:
            advice = f"set web.public_url to {origin} for {name}, too, or add it to its socket.origins"
            yield failed("pages", f"{name} refuses our own pages at {origin}", advice)
        elif answer not in ACCEPTED:
            yield unknown("pages", f"{name} at {url} cannot be tried from here: {answer}")
        elif name not in accepted:
            accepted.append(name)
    if accepted:
        yield ok("pages", f"{', '.join(accepted)}: accept pages of {', '.join(origins)}")


def page_origins(actors: Sequence[Mapping[str, Any]], settings: Settings) -> list[str]:
    """Return the origins of the running web servers' pages, as browsers send them."""
    addresses = [str(actor.get("details", {}).get("url") or "") for actor in actors if actor["kind"] == "web-server"]
    bases = [base for address in addresses if address for base in page_bases(address, settings)]
    return list(dict.fromkeys(_origin(base) for base in bases))


def _origin(url: str) -> str:
    parts = urlsplit(url)
    usual = {"http": 80, "https": 443}.get(parts.scheme)
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    return f"{parts.scheme}://{host}" + (f":{parts.port}" if parts.port not in (None, usual) else "")


def _is_ready(server: Mapping[str, str]) -> bool:
    return server.get("statusCode") == "READY" and bool(server.get("url"))


async def _answer(url: str, origin: str) -> int | str:
    """Try a handshake without a hello; return its HTTP status, or the error text."""
    tls: ssl.SSLContext | None = None
    if urlsplit(url).scheme == "wss":
        tls = ssl.create_default_context()
        tls.check_hostname, tls.verify_mode = False, ssl.CERT_NONE  # trust in the certificate is checked elsewhere
    try:
        async with connect(
            url,
            origin=Origin(origin),
            subprotocols=[Subprotocol(SUBPROTOCOL)],
            ssl=tls,
            proxy=None,
            open_timeout=ANSWER_SECONDS,
            close_timeout=1,
        ):
            return 101
    except InvalidStatus as refused:
        return refused.response.status_code
    except (OSError, WebSocketException) as error:
        return str(error) or type(error).__name__
