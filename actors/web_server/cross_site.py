"""Requests that a page of another site makes in somebody's browser: they may read what is for everybody, and no more.

Browsers say who asks: by `Sec-Fetch-Site` where the address is https or of this machine, else by `Origin`. Programs say
neither.
"""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import urlsplit

from starlette.datastructures import Headers

from actors.runtime.http.client_addresses import Network, is_trusted

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
_OWN_SITE = ("same-origin", "none")
_DEFAULT_PORTS = {"http": 80, "https": 443}


def is_cross_site(
    method: str, headers: Headers, peer: str, public_url: str | None, trusted_proxies: Sequence[Network]
) -> bool:
    """Return whether a page of somebody else's makes this request, and it would do something.

    `public_url`: the address of our pages, where it is set (`web.public_url`). `peer`: who is connected; what a trusted
    proxy forwards of the address that the browser asked is believed.
    """
    if method in SAFE_METHODS:
        return False
    origins = headers.getlist("origin")
    if len(origins) > 1:
        return True
    if public_url is not None and origins and _same(origins[0], public_url):
        return False
    if fetched := headers.getlist("sec-fetch-site"):
        return any(site not in _OWN_SITE for site in fetched)
    if not origins:
        return False
    hosts = headers.getlist("host")
    if is_trusted(peer, trusted_proxies):
        hosts += [host.strip() for host in headers.get("x-forwarded-host", "").split(",") if host.strip()]
    scheme = origins[0].partition("://")[0]
    return not any(_same(origins[0], f"{scheme}://{host}") for host in hosts)


def _same(origin: str, other: str) -> bool:
    mine = _parts(origin)
    return mine is not None and mine == _parts(other)


def _parts(url: str) -> tuple[str, str, int | None] | None:
    """Scheme, host and port; `None` for what is no http(s) address (`Origin: null`, a browser extension)."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return None
    if parts.scheme not in _DEFAULT_PORTS or not parts.hostname:
        return None
    return parts.scheme, parts.hostname, port or _DEFAULT_PORTS[parts.scheme]
