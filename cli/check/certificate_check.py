"""Check the TLS certificates in the settings: files, dates, names, and mixed content in browsers."""

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
from protocol.times import format_time

EXPIRES_SOON_DAYS = 14


def certificate_findings(settings: Settings, now: datetime.datetime | None = None) -> Iterator[Finding]:
    """Yield the problems with the certificates of `web` and `socket`. `now`: the current time by default."""
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
            yield failed(name, str(error).partition(": ")[2], "give a certificate chain and its private key, both PEM")
            continue
        yield from _dates_and_name(name, tls.certificate_file, url, now)
        if url is not None and urlsplit(url).scheme not in (secure, ""):
            problem = f"the server uses TLS, but clients get the address {url}"
            yield failed(f"{section}.public_url", problem, f"write it as {secure}://…")
    yield from _mixed(settings)


def _dates_and_name(name: str, path: Path, url: str | None, now: datetime.datetime) -> Iterator[Finding]:
    certificate = x509.load_pem_x509_certificates(path.read_bytes())[0]
    expires, begins = certificate.not_valid_after_utc, certificate.not_valid_before_utc
    until = format_time(expires.timestamp())
    if expires <= now:
        yield failed(name, f"expired on {until}", "renew it; roles load new files within a minute")
    elif expires - now < datetime.timedelta(days=EXPIRES_SOON_DAYS):
        yield warning(name, f"expires on {until}", "renew it before the exam")
    if begins > now:
        yield failed(name, f"is not valid before {format_time(begins.timestamp())}", "check this machine's clock")
    host = urlsplit(url).hostname if url is not None else None
    if host and not is_for(certificate, host):
        problem = f"is for {', '.join(names_of(certificate)) or 'no name'}, not for {host}, the address of clients"
        yield failed(name, problem, "get a certificate for that name, or correct the public_url")


def _page_address(url: str) -> Iterator[Finding]:
    try:
        parts = urlsplit(url)
        valid = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        valid = False
    if not valid or parts.query or parts.fragment or parts.path not in ("", "/"):
        yield failed(
            "web.public_url", f"{url!r} is not an http(s)://HOST address", "give the address that browsers open"
        )
    elif parts.scheme == "http" and not is_loopback(parts.hostname or ""):
        problem = "tokens are sent unencrypted, and browsers do not give the camera to such a page"
        yield warning("web.public_url", problem, "use https://: set web.certificate_file, or use a TLS proxy")


def _mixed(settings: Settings) -> Iterator[Finding]:
    """Check for mixed content: a page over https cannot connect to ws://."""
    url = settings.web.public_url
    secure_pages = url.startswith("https:") if url is not None else settings.web.certificate_file is not None
    socket = settings.socket
    clear_sockets = (
        socket.public_url.startswith("ws:") if socket.public_url is not None else socket.certificate_file is None
    )
    # A web server does not know the settings of the socket servers; the addresses that they announce decide.
    if secure_pages and clear_sockets and socket.certificate_file is None:
        problem = "the pages use https, but the socket servers use ws://: browsers refuse to connect"
        yield warning("socket.public_url", problem, "use wss://: set socket.certificate_file, or use a TLS proxy")
