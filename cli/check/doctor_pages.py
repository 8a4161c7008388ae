"""Whether the pages of our own web server may connect to the socket servers: a handshake with their Origin, each."""

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
LETS_IN = (101, 503)
"""The second is only a matter of time."""


async def check_page_origins(
    actors: Sequence[Mapping[str, Any]], servers: Sequence[Mapping[str, str]], settings: Settings
) -> AsyncIterator[Finding]:
    """`actors`: inspections, of which the web servers' name their address; `servers`: records of socket servers."""
    origins = page_origins(actors, settings)
    urls = [(server["serverId"], server["url"]) for server in servers if _is_ready(server)]
    if not origins or not urls:
        return
    tried = [(name, url, origin) for name, url in urls for origin in origins]
    answers = await asyncio.gather(*(_answer(url, origin) for _, url, origin in tried))
    good: list[str] = []
    for (name, url, origin), answer in zip(tried, answers, strict=True):
        if answer == FORBIDDEN:
            advice = f"set web.public_url to it for the socket servers as well, or add it to socket.origins of {name}"
            yield failed("pages", f"{name} refuses our own pages at {origin}", advice)
        elif answer not in LETS_IN:
            yield unknown("pages", f"{name} at {url} cannot be tried from here: {answer}")
        elif name not in good:
            good.append(name)
    if good:
        yield ok("pages", f"{', '.join(good)}: let in pages of {', '.join(origins)}")


def page_origins(actors: Sequence[Mapping[str, Any]], settings: Settings) -> list[str]:
    """Where browsers may open the pages of the web servers that run, as the `Origin` that they will say."""
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
    """The status that a page's handshake is answered with, or why there was no answer. Nobody says hello."""
    tls: ssl.SSLContext | None = None
    if urlsplit(url).scheme == "wss":
        tls = ssl.create_default_context()
        tls.check_hostname, tls.verify_mode = False, ssl.CERT_NONE  # whether it is trusted is another check's question
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
