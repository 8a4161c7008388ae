"""`examwire config check`: what is wrong with the settings, before a role finds out."""

from __future__ import annotations

import difflib
import os
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pydantic

from actors.runtime.broker.login import login
from actors.runtime.config.redis_url import parse_redis_url
from actors.runtime.config.settings import (
    CONFIG_VARIABLE,
    Settings,
    is_loopback,
    read_settings,
    require_secret_beyond_loopback,
    setting_fields,
    settings_file,
    signs_elsewhere,
    unknown_variables,
    value_of,
    variable_of,
)
from actors.runtime.config.tokens import TokenVerifier
from actors.runtime.telemetry.tracing import traces_url
from cli.check.certificate_check import certificate_findings
from cli.shared.findings import Finding, State, failed, ok, warning
from protocol.broker.streams import RECONNECT, STATUS, attempt_seconds
from protocol.client.reconnect import SILENT_INTERVALS
from protocol.errors import ConfigurationError

HALF_OPEN_SECONDS = 10.0  # what a half-open socket may take to be noticed, unless somebody wants it so
WEAK_SECRET_CHARACTERS = 10
DECODED_PIXEL_BYTES = 10  # a progressive JPEG in CMYK, or a PNG and what it becomes, and some for the rest
UP_SOCKET_SERVERS, UP_ROLES = 2, 5
KEY_FILES = ("nats.key_file", "nats.credentials_file", "redis.key_file", "socket.key_file", "web.key_file")


def check_settings(given: Mapping[str, Any]) -> list[Finding]:
    """Everything that is wrong with flags, variables, file and what they come to; nothing is created or connected."""
    findings = list(_variables())
    document, trouble = _document()
    findings += trouble
    if trouble and trouble[0].state is State.FAILED:
        return findings
    try:
        settings = read_settings(given)
    except pydantic.ValidationError as error:
        told = {finding.check for finding in findings}
        refused = [(one, _name(one)) for one in error.errors(include_url=False)]
        return [
            *findings,
            *(_refused(one, name, given, document) for one, name in refused if variable_of(name) not in told),
        ]
    except (ConfigurationError, OSError, ValueError) as error:
        return [*findings, failed("settings", f"cannot be read: {error}", "mend what the text names")]
    findings += [*_file_mode(document), *find_contradictions(settings)]
    return findings or [ok("settings", "file, variables and flags fit together")]


def find_contradictions(settings: Settings) -> Iterator[Finding]:
    """What no single setting tells: values that do not go together, files that cannot be used, what is not safe."""
    yield from _secrets(settings)
    yield from _engines(settings)
    yield from _times(settings)
    yield from _ports(settings)
    yield from _addresses(settings)
    yield from _proxies(settings)
    yield from _pictures(settings)
    yield from _key_files(settings)
    yield from certificate_findings(settings)


# -- where settings come from ---------------------------------------------------------------------------


def _variables() -> Iterator[Finding]:
    for name, meant in unknown_variables(os.environ).items():
        advice = f"did you mean {meant}?" if meant else "remove it; `examwire config show` lists the settings"
        yield failed(name, "is no setting: nobody reads this variable", advice)


def _document() -> tuple[dict[str, Any], list[Finding]]:
    """The TOML file, flat by dotted names; or why it cannot be read."""
    path = settings_file()
    if not path.is_file():
        if os.environ.get(CONFIG_VARIABLE):
            return {}, [failed(CONFIG_VARIABLE, f"there is no file {path}", "create it, or unset the variable")]
        return {}, []
    try:
        return _flat(tomllib.loads(path.read_text())), []
    except OSError as error:
        return {}, [failed(str(path), f"cannot be read: {error.strerror}", "let the user of the roles read it")]
    except ValueError as error:  # TOML, or its encoding
        return {}, [failed(str(path), f"is not TOML: {error}", "mend the place that the text names")]


def _flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {prefix + name: value}
    return flat


def _name(error: Any) -> str:
    return ".".join(str(part) for part in error["loc"] if not isinstance(part, int)) or "settings"


def _refused(error: Any, name: str, given: Mapping[str, Any], document: Mapping[str, Any]) -> Finding:
    variable = variable_of(name)
    if name in given:
        origin = "the flag"
    elif variable in {one.upper() for one in os.environ}:
        origin = f"the variable {variable}"
    elif any(one == name or one.startswith(f"{name}.") for one in document):
        origin = str(settings_file())
    else:
        origin = "the settings"
    if error["type"] == "extra_forbidden":
        close = difflib.get_close_matches(name, [known for known, _ in setting_fields()], 1, 0.6)
        advice = f"did you mean {close[0]}?" if close else "remove it; `examwire config show` lists the settings"
        return failed(name, f"is no setting (from {origin})", advice)
    return failed(name, f"{error['msg']} (from {origin})", "set a value that fits")


def _file_mode(document: Mapping[str, Any]) -> Iterator[Finding]:
    secret = [
        name
        for name, field in setting_fields()
        if name in document
        and ("SecretStr" in str(field.annotation) or (name.endswith("_url") and "@" in str(document[name])))
    ]
    path = settings_file()
    if secret and path.stat().st_mode & 0o077:
        found = f"holds {', '.join(secret)}, and others than its owner may read it"
        yield warning(str(path), found, f"chmod 600 {path}, or give them by variables")


# -- what they come to ----------------------------------------------------------------------------------


def _secrets(settings: Settings) -> Iterator[Finding]:
    keys = signs_elsewhere(settings)
    if settings.token.public_key_file and settings.token.jwks_file:
        found = "token.public_key_file is not used: token.jwks_file takes its place"
        yield warning("token.jwks_file", found, "remove one of them")
    if keys or settings.secret is not None:  # else one would be made here, by the first who asks
        try:
            TokenVerifier(settings)
        except ConfigurationError as error:
            advice = "name a readable key" if keys else "make one: `openssl rand -base64 48`"
            yield failed("token" if keys else "secret", str(error), advice)
            return
    if settings.secret is not None:
        characters = len(set(settings.secret.get_secret_value()))
        if characters < WEAK_SECRET_CHARACTERS:
            found = f"has only {characters} different characters: it can be guessed"
            yield warning("secret", found, "make one: `openssl rand -base64 48`")
    path = settings.data_dir / "secret"
    if settings.secret is None and not keys and path.is_file() and path.stat().st_mode & 0o077:
        yield failed("secret", f"{path} may be read by others than its owner", f"remove {path} and restart the roles")
    for name, host in (
        ("socket.host", settings.socket.host),
        ("web.host", settings.web.host),
        ("metrics.host", settings.metrics.host),
    ):
        try:
            require_secret_beyond_loopback(settings, name, host)
        except ConfigurationError as error:
            yield failed(name, str(error), "set EXAMWIRE_SECRET, or listen on 127.0.0.1")


def _engines(settings: Settings) -> Iterator[Finding]:
    try:
        servers = login(settings.nats_url, settings.nats).urls
    except ConfigurationError as error:
        yield failed("nats_url", str(error), "write it as nats://HOST:PORT or tls://HOST:PORT, several with commas")
        servers = ()
    clear = [url for url in servers if url.startswith("nats://") and not is_loopback(urlsplit(url).hostname or "")]
    if clear:
        found = f"without TLS, and not on this machine: {', '.join(clear)}"
        yield warning("nats_url", found, "use tls:// (nats/tls.conf), or keep it in a network of your own")
    address = parse_redis_url(settings.redis_url)
    away = [f"{host}:{port}" for host, port in address.nodes if not is_loopback(host)]
    if away and not address.tls:
        found = f"without TLS, and not on this machine: {', '.join(away)}"
        yield warning("redis_url", found, "use rediss://, or keep it in a network of your own")
    if settings.tracing.endpoint is not None:
        try:
            traces_url(settings.tracing.endpoint)
            import opentelemetry.exporter.otlp.proto.http.trace_exporter  # noqa: F401
        except ConfigurationError as error:
            yield failed("tracing.endpoint", str(error), "write it as http://HOST:4318")
        except ImportError:
            yield failed("tracing.endpoint", "the extra is not installed", "pip install 'examwire[tracing]'")


def _times(settings: Settings) -> Iterator[Finding]:
    socket, reconnect = settings.socket, settings.reconnect
    ladder = attempt_seconds(reconnect.max_attempts, reconnect.backoff_seconds)
    detected = socket.ping_interval_seconds + socket.ping_timeout_seconds
    if detected > HALF_OPEN_SECONDS:
        found = f"together {detected:g} s until a half-open socket is noticed; it should be {HALF_OPEN_SECONDS:g}"
        yield warning("socket.ping_timeout_seconds", found, "lower it, or socket.ping_interval_seconds")
    unnoticed = SILENT_INTERVALS * socket.ping_interval_seconds - detected
    if unnoticed >= sum(ladder):
        found = (
            f"all attempts take {sum(ladder):g} s, but the client itself may notice its loss only {unnoticed:g} s "
            "after the server: it would be shut out before it tries"
        )
        yield failed("reconnect.backoff_seconds", found, "make the ladder longer, or socket.ping_interval_seconds less")
    if len(reconnect.backoff_seconds) > reconnect.max_attempts:
        found = f"has {len(reconnect.backoff_seconds)} steps for {reconnect.max_attempts} attempts; the rest is unused"
        yield warning("reconnect.backoff_seconds", found, "raise reconnect.max_attempts, or remove the steps")
    if sum(ladder) >= RECONNECT.max_age:
        found = f"all attempts take {sum(ladder):g} s, but the broker forgets them after {RECONNECT.max_age:g} s"
        yield failed("reconnect.backoff_seconds", found, "make the ladder shorter")
    if settings.mobile_sync.timeout_seconds >= STATUS.max_age:
        found = f"is longer than the log keeps its messages ({STATUS.max_age:g} s)"
        yield failed("mobile_sync.timeout_seconds", found, "make it shorter")
    if socket.isolation_seconds < settings.server.lease_seconds:
        found = "is less than server.lease_seconds: clients are sent away before the server counts as lost"
        yield warning("socket.isolation_seconds", found, "raise it")
    if socket.queue_expire_seconds < socket.isolation_seconds:
        found = "is less than socket.isolation_seconds: NATS removes the queue of a server that still has its clients"
        yield warning("socket.queue_expire_seconds", found, "raise it")


def _ports(settings: Settings) -> Iterator[Finding]:
    of_up = {
        "socket": (settings.socket.host, settings.socket.port, UP_SOCKET_SERVERS),
        "web": (settings.web.host, settings.web.port, 1),
        "metrics": (settings.metrics.host, settings.metrics.port, UP_ROLES),
    }
    for one, other in (("socket", "metrics"), ("web", "metrics"), ("socket", "web")):
        (host, port, count), (other_host, other_port, other_count) = of_up[one], of_up[other]
        if not port or not other_port or not _same_host(host, other_host):
            continue
        name = f"{one}.port"
        if port == other_port and other == "metrics":
            found = f"is metrics.port as well ({port}), in one process"
            yield failed(name, found, "choose another port for one of them; 0 picks a free one")
        elif port < other_port + other_count and other_port < port + count:
            found = f"{port} and {other}.port {other_port} meet on one machine; `examwire up` counts up from both"
            yield warning(name, found, "keep them apart")


def _same_host(host: str, other: str) -> bool:
    return host == other or any(one in ("0.0.0.0", "::") for one in (host, other))


def _addresses(settings: Settings) -> Iterator[Finding]:
    url = settings.socket.public_url
    if url is not None:
        try:
            parts = urlsplit(url)
            valid = parts.scheme in ("ws", "wss") and bool(parts.hostname) and (parts.port is None or parts.port > 0)
        except ValueError:
            valid = False
        if not valid:
            yield failed(
                "socket.public_url", f"{url!r} is no ws(s)://HOST address", "write it as clients connect to it"
            )
        elif parts.query or parts.fragment:
            yield failed("socket.public_url", f"{url!r} has a query", "remove it: a token never goes into the URL")
        elif parts.scheme == "ws" and not is_loopback(parts.hostname or ""):
            yield warning("socket.public_url", "clients send their tokens in clear", "use wss://, behind a TLS proxy")
    for origin in settings.socket.origins:
        if origin == "*":
            yield warning("socket.origins", "any page may connect", "name the pages' origins")
            continue
        parts = urlsplit(origin)
        if parts.scheme not in ("http", "https") or not parts.netloc or parts.path or parts.query:
            yield failed("socket.origins", f"{origin!r} is no origin", "write it as https://HOST, without a path")


def _proxies(settings: Settings) -> Iterator[Finding]:
    for name, door, other in (
        ("socket.trusted_proxies", settings.socket, settings.web),
        ("web.trusted_proxies", settings.web, settings.socket),
    ):
        if door.public_url is not None and other.trusted_proxies and not door.trusted_proxies:
            found = "is empty, but the other door believes a proxy: here everybody has the address of that proxy"
            yield warning(name, found, "name the proxy here as well, for limits and incidents by network")


def _pictures(settings: Settings) -> Iterator[Finding]:
    sync = settings.mobile_sync
    needed = sync.max_pixels * DECODED_PIXEL_BYTES
    if sync.decode_memory_bytes < needed:
        found = f"is too little for a picture of {sync.max_pixels} pixels, which may take {needed} bytes"
        yield failed("mobile_sync.decode_memory_bytes", found, "raise it, or lower mobile_sync.max_pixels")


def _key_files(settings: Settings) -> Iterator[Finding]:
    for name in KEY_FILES:
        path: Path | None = value_of(settings, name)
        if path is None:
            continue
        if not os.access(path, os.R_OK):
            yield failed(name, f"{path} cannot be read", "let the user of the roles read it")
        elif path.stat().st_mode & 0o077:
            yield warning(name, f"{path} may be read by others than its owner", f"chmod 600 {path}")
