"""Check by `Origin` whether a page of a browser may connect to a socket server."""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import urlsplit

from actors.runtime.config.local_addresses import is_wildcard, own_names
from actors.runtime.config.settings import Settings, is_loopback


class AllowedOrigins:
    """Allows the `origins` of the settings, and our own pages.

    origins = AllowedOrigins.of(settings)
    origins.allow("https://exam.example", host="sock1.exam.example:9001")

    Our own pages are those of the host that the request names, with any port or scheme, and those of `page_hosts`.
    `names` are the spellings of this machine's own address.
    """

    def __init__(
        self, origins: Sequence[str], names: frozenset[str] = frozenset(), page_hosts: frozenset[str] = frozenset()
    ) -> None:
        self._origins = frozenset(origins)
        self._names = names
        self._page_hosts = page_hosts

    @classmethod
    def of(cls, settings: Settings) -> AllowedOrigins:
        """Take the origins from the settings."""
        return cls(settings.socket.origins, own_names(settings.socket.host), page_hosts(settings))

    def allow(self, origin: str, host: str) -> bool:
        """Return whether a page of `origin` may connect; `host` is the `Host` of the request."""
        if "*" in self._origins or origin in self._origins:
            return True
        try:
            own, page = urlsplit(f"//{host}").hostname, urlsplit(origin).hostname
        except ValueError:  # brackets that hold no address
            return False
        if page is None:
            return False
        return page in self._page_hosts or page == own or {own, page} <= self._names


def page_hosts(settings: Settings) -> frozenset[str]:
    """Return the hosts of the web server's pages and of the address for clients, as the settings have them.

    A proxy in front may have put another `Host` into the request.
    """
    urls = (settings.web.public_url, settings.socket.public_url)
    hosts = {urlsplit(url).hostname for url in urls if url is not None}
    if not is_wildcard(settings.web.host) and not is_loopback(settings.web.host):
        hosts.add(settings.web.host.lower())
    return frozenset(host for host in hosts if host)
