"""What is wrong with the certificates that are served: files, dates, names, and what browsers make of them."""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

from cryptography import x509

from actors.runtime.config.settings import Settings, is_loopback
from actors.runtime.config.tls import ServerTls
from cli.local.trial_certificate import is_for, names_of
from cli.shared.findings import Finding, failed, warning
from protocol.errors import ConfigurationError

EXPIRES_SOON_DAYS = 14


def certificate_findings(settings: Settings, now: datetime.datetime | None = None) -> Iterator[Finding]:
    """Of `web` and `socket`; nothing to say means that they are well. `now`: by default the clock's."""
    now = now or datetime.datetime.now(datetime.UTC)
    for section, tls, url, secure in (
        ("web", settings.web, settings.web.public_url, "https"),
        ("socket", settings.socket, settings.socket.public_url, "wss"),
    ):
        name = f"{section}.certificate_file"
        if section == "web" and url is not None:
            yield from _page_address(url)
        if tls.certificate_file is None or tls.key_file is None:
            continue
        try:
            ServerTls(section, tls.certificate_file, tls.key_file)
        except ConfigurationError as error:
            yield failed(name, str(error).partition(": ")[2], "name a certificate chain and its own key, both PEM")
            continue
        yield from _dates_and_name(name, tls.certificate_file, url, now)
        if url is not None and urlsplit(url).scheme not in (secure, ""):
            found = f"is served over TLS, but clients are told {url}"
            yield failed(f"{section}.public_url", found, f"write it as {secure}://…")
    yield from _mixed(settings)


def _dates_and_name(name: str, path: Path, url: str | None, now: datetime.datetime) -> Iterator[Finding]:
    certificate = x509.load_pem_x509_certificates(path.read_bytes())[0]
    expires, begins = certificate.not_valid_after_utc, certificate.not_valid_before_utc
    if expires <= now:
        yield failed(name, f"expired on {expires:%Y-%m-%d %H:%M} UTC", "renew it; roles take new files within a minute")
    elif expires - now < datetime.timedelta(days=EXPIRES_SOON_DAYS):
        yield warning(name, f"expires on {expires:%Y-%m-%d %H:%M} UTC", "renew it before the exam")
    if begins > now:
        yield failed(name, f"is not valid before {begins:%Y-%m-%d %H:%M} UTC", "look at this machine's clock")
    host = urlsplit(url).hostname if url is not None else None
    if host and not is_for(certificate, host):
        found = f"is for {', '.join(names_of(certificate)) or 'no name'}, not for {host}, where clients connect to"
        yield failed(name, found, "get one with that name, or mend the public_url")


def _page_address(url: str) -> Iterator[Finding]:
    try:
        parts = urlsplit(url)
        valid = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        valid = False
    if not valid or parts.query or parts.fragment or parts.path not in ("", "/"):
        yield failed("web.public_url", f"{url!r} is no http(s)://HOST address", "write it as browsers open it")
    elif parts.scheme == "http" and not is_loopback(parts.hostname or ""):
        found = "tokens go in clear, and no browser gives such a page its camera"
        yield warning("web.public_url", found, "use https://, by web.certificate_file or a TLS proxy")


def _mixed(settings: Settings) -> Iterator[Finding]:
    """A page over https may not connect to ws://: browsers refuse mixed content."""
    url = settings.web.public_url
    secure_pages = url.startswith("https:") if url is not None else settings.web.certificate_file is not None
    socket = settings.socket
    clear = socket.public_url.startswith("ws:") if socket.public_url is not None else socket.certificate_file is None
    # A web server by itself knows nothing of the socket servers' settings; what they announce is what counts.
    if secure_pages and clear and socket.certificate_file is None:
        found = "the pages are served over https, the socket servers are ws://: browsers refuse to connect"
        yield warning("socket.public_url", found, "use wss://, by socket.certificate_file or a TLS proxy")
