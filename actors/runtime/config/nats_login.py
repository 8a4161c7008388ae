"""How a role logs in to NATS: its user or credentials file, its certificates, and the prefix of its inboxes."""

from __future__ import annotations

import base64
import binascii
import re
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit, urlunsplit

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from actors.runtime.config.local_addresses import in_url
from actors.runtime.config.sections import NatsSettings
from protocol.broker.permissions import inbox_prefix
from protocol.errors import ConfigurationError

_SEED_BYTES = slice(2, 34)  # two of prefix, the seed, two of checksum
_BLOCK = re.compile(r"-----BEGIN ([A-Z ]+?)-----\s*(\S+)\s*-+END ")


@dataclass(frozen=True, slots=True)
class Login:
    """A login: `urls` without user and password; `options` are keyword arguments of nats-py's `connect`."""

    urls: tuple[str, ...]
    user: str | None
    inbox_prefix: str
    options: dict[str, Any]


def login(url: str, settings: NatsSettings) -> Login:
    """Build a login from `nats_url` (servers separated by commas) and the section `nats`.

    Raises `ConfigurationError`.
    """
    urls, url_user, password = _without_user(url)
    user = settings.user or url_user
    options: dict[str, Any] = {}
    if settings.password is not None:
        options |= {"user": user, "password": settings.password.get_secret_value()}
    elif settings.credentials_file is not None:
        options |= _credentials(settings.credentials_file)
    elif user is not None and password is not None:
        # As options, not in the URL: nats-py uses them for servers that the cluster announces later, too.
        options |= {"user": user, "password": password}
    elif user is not None:
        options["token"] = user
        user = None
    context = _tls(urls, settings)
    if context is not None:
        options["tls"] = context
    return Login(urls, user, settings.inbox_prefix or inbox_prefix(user), options)


def _without_user(url: str) -> tuple[tuple[str, ...], str | None, str | None]:
    urls: list[str] = []
    users: set[tuple[str | None, str | None]] = set()
    for part in url.split(","):
        try:
            parts = urlsplit(part.strip())
            host, port = parts.hostname, parts.port
        except ValueError as error:
            raise ConfigurationError(f"nats_url: {error}") from None
        if parts.scheme not in ("nats", "tls") or not host:
            raise ConfigurationError(
                f"nats_url: {parts.scheme}://{host or ''} is not nats://HOST:PORT or tls://HOST:PORT"
            )
        if parts.username is not None:
            users.add((unquote(parts.username), unquote(parts.password) if parts.password is not None else None))
        urls.append(urlunsplit((parts.scheme, f"{in_url(host)}:{port or 4222}", "", "", "")))
    if len(users) > 1:
        raise ConfigurationError("nats_url: all servers of a cluster must have the same user")
    user, password = users.pop() if users else (None, None)
    return tuple(urls), user, password


def _tls(urls: tuple[str, ...], settings: NatsSettings) -> ssl.SSLContext | None:
    wants_tls = any(url.startswith("tls://") for url in urls)
    if not wants_tls:
        if settings.ca_file or settings.cert_file:
            raise ConfigurationError("nats_url: has no TLS, so the files of nats.* would not be used: write tls://")
        return None
    try:
        context = ssl.create_default_context(cafile=settings.ca_file)
        if settings.cert_file is not None and settings.key_file is not None:
            context.load_cert_chain(settings.cert_file, settings.key_file)
    except (OSError, ssl.SSLError) as error:
        raise ConfigurationError(f"nats.ca_file, nats.cert_file, nats.key_file: {error}") from error
    return context


def _credentials(path: Path) -> dict[str, Callable[..., bytes]]:
    """Read a credentials file of `nsc`: callbacks for the JWT and for the signature of the server's nonce (ADR-14).

    Read here and not by nats-py, which looks for a missing JWT without end, and only when it connects.
    """
    try:
        blocks = dict(_BLOCK.findall(path.read_text("utf-8")))
        token = blocks["NATS USER JWT"].encode()
        seed = base64.b32decode(blocks["USER NKEY SEED"] + "=" * (-len(blocks["USER NKEY SEED"]) % 8))
        key = Ed25519PrivateKey.from_private_bytes(seed[_SEED_BYTES])
    except (OSError, KeyError, ValueError, binascii.Error) as error:
        raise ConfigurationError(f"nats.credentials_file: {path} is not a credentials file: {error!r}") from None
    return {
        "user_jwt_cb": lambda: token,
        "signature_cb": lambda nonce: base64.b64encode(key.sign(nonce.encode())),
    }
