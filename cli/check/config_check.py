"""The checks of `examwire config check`: find problems in the settings before a role starts."""

from __future__ import annotations

import difflib
import os
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pydantic

from actors.runtime.config.nats_login import login
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

HALF_OPEN_SECONDS = 10.0  # recommended limit for the detection of a half-open socket
WEAK_SECRET_CHARACTERS = 10
DECODED_PIXEL_BYTES = 10  # worst case: a progressive JPEG in CMYK, or a PNG and its converted copy
UP_SOCKET_SERVERS, UP_ROLES = 2, 5
KEY_FILES = ("nats.key_file", "nats.credentials_file", "redis.key_file", "socket.key_file", "web.key_file")


def check_settings(given: Mapping[str, Any]) -> list[Finding]:
    """Check flags, variables, file and their combination; create nothing and connect to nothing."""
    findings = list(_variables())
    document, file_findings = _document()
    findings += file_findings
    if file_findings and file_findings[0].state is State.FAILED:
        return findings
    try:
        settings = read_settings(given)
    except pydantic.ValidationError as error:
        reported = {finding.check for finding in findings}
        errors = [(error_details, _name(error_details)) for error_details in error.errors(include_url=False)]
        return [
            *findings,
            *(
                _refused(error_details, name, given, document)
                for error_details, name in errors
                if variable_of(name) not in reported
            ),
        ]
    except (ConfigurationError, OSError, ValueError) as error:
        return [*findings, failed("settings", f"cannot be read: {error}", "correct what the message names")]
    findings += [*_file_mode(document), *find_contradictions(settings)]
    return findings or [ok("settings", "file, variables and flags are valid")]


def find_contradictions(settings: Settings) -> Iterator[Finding]:
    """Yield contradictory values, unusable files and unsafe settings."""
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
        yield failed(name, "is not a setting; the variable has no effect", advice)


def _document() -> tuple[dict[str, Any], list[Finding]]:
    """Read the TOML file with dotted names; return the findings if it cannot be read."""
    path = settings_file()
    if not path.is_file():
        if os.environ.get(CONFIG_VARIABLE):
            return {}, [failed(CONFIG_VARIABLE, f"the file {path} does not exist", "create it, or unset the variable")]
        return {}, []
    try:
        return _flat(tomllib.loads(path.read_text("utf-8"))), []
    except OSError as error:
        return {}, [
            failed(str(path), f"cannot be read: {error.strerror}", "give the user of the roles read permission")
        ]
    except ValueError as error:  # invalid TOML or encoding
        return {}, [failed(str(path), f"is not TOML: {error}", "correct the line that the message names")]


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
    elif variable in {variable_name.upper() for variable_name in os.environ}:
        origin = f"the variable {variable}"
    elif any(key == name or key.startswith(f"{name}.") for key in document):
        origin = str(settings_file())
    else:
        origin = "the settings"
    if error["type"] == "extra_forbidden":
        matches = difflib.get_close_matches(name, [known for known, _ in setting_fields()], 1, 0.6)
        advice = f"did you mean {matches[0]}?" if matches else "remove it; `examwire config show` lists the settings"
        return failed(name, f"is not a setting (from {origin})", advice)
    return failed(name, f"{error['msg']} (from {origin})", "set a valid value")


def _file_mode(document: Mapping[str, Any]) -> Iterator[Finding]:
    secret = [
        name
        for name, field in setting_fields()
        if name in document
        and ("SecretStr" in str(field.annotation) or (name.endswith("_url") and "@" in str(document[name])))
    ]
    path = settings_file()
    if secret and path.stat().st_mode & 0o077:
        problem = f"holds {', '.join(secret)}, and other users may read the file"
        yield warning(str(path), problem, f"chmod 600 {path}, or use variables instead")


# -- contradictions -------------------------------------------------------------------------------------


def _secrets(settings: Settings) -> Iterator[Finding]:
    keys = signs_elsewhere(settings)
    if settings.token.public_key_file and settings.token.jwks_file:
        problem = "token.public_key_file has no effect: token.jwks_file is used instead"
        yield warning("token.jwks_file", problem, "remove one of them")
    if keys or settings.secret is not None:  # otherwise the check would create a secret
        try:
            TokenVerifier(settings)
        except ConfigurationError as error:
            advice = "give a readable key file" if keys else "create one: `openssl rand -base64 48`"
            yield failed("token" if keys else "secret", str(error), advice)
            return
    if settings.secret is not None:
        characters = len(set(settings.secret.get_secret_value()))
        if characters < WEAK_SECRET_CHARACTERS:
            problem = f"has only {characters} different characters and can be guessed"
            yield warning("secret", problem, "create a better one: `openssl rand -base64 48`")
    path = settings.data_dir / "secret"
    if settings.secret is None and not keys and path.is_file() and path.stat().st_mode & 0o077:
        yield failed("secret", f"other users may read {path}", f"delete {path} and restart the roles")
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
        yield failed("nats_url", str(error), "use nats://HOST:PORT or tls://HOST:PORT, separated by commas")
        servers = ()
    unencrypted = [
        url for url in servers if url.startswith("nats://") and not is_loopback(urlsplit(url).hostname or "")
    ]
    if unencrypted:
        problem = f"no TLS to another machine: {', '.join(unencrypted)}"
        yield warning("nats_url", problem, "use tls:// (nats/tls.conf), or a private network")
    address = parse_redis_url(settings.redis_url)
    remote_nodes = [f"{host}:{port}" for host, port in address.nodes if not is_loopback(host)]
    if remote_nodes and not address.tls:
        problem = f"no TLS to another machine: {', '.join(remote_nodes)}"
        yield warning("redis_url", problem, "use rediss://, or a private network")
    if settings.tracing.endpoint is not None:
        try:
            traces_url(settings.tracing.endpoint)
            import opentelemetry.exporter.otlp.proto.http.trace_exporter  # noqa: F401
        except ConfigurationError as error:
            yield failed("tracing.endpoint", str(error), "use http://HOST:4318")
        except ImportError:
            yield failed("tracing.endpoint", "the extra is not installed", "pip install 'examwire[tracing]'")


def _times(settings: Settings) -> Iterator[Finding]:
    socket, reconnect = settings.socket, settings.reconnect
    ladder = attempt_seconds(reconnect.max_attempts, reconnect.backoff_seconds)
    detected = socket.ping_interval_seconds + socket.ping_timeout_seconds
    if detected > HALF_OPEN_SECONDS:
        problem = f"a half-open socket is detected after {detected:g} s; it should be at most {HALF_OPEN_SECONDS:g} s"
        yield warning("socket.ping_timeout_seconds", problem, "lower it, or lower socket.ping_interval_seconds")
    unnoticed = SILENT_INTERVALS * socket.ping_interval_seconds - detected
    if unnoticed >= sum(ladder):
        problem = (
            f"all attempts take {sum(ladder):g} s, but a client may notice its loss {unnoticed:g} s after the server: "
            "it would be shut out before its first attempt"
        )
        yield failed(
            "reconnect.backoff_seconds", problem, "lengthen the backoff, or lower socket.ping_interval_seconds"
        )
    if len(reconnect.backoff_seconds) > reconnect.max_attempts:
        problem = (
            f"has {len(reconnect.backoff_seconds)} steps for {reconnect.max_attempts} attempts; the rest is unused"
        )
        yield warning("reconnect.backoff_seconds", problem, "raise reconnect.max_attempts, or remove the steps")
    if sum(ladder) >= RECONNECT.max_age:
        problem = f"all attempts take {sum(ladder):g} s, but the broker keeps them for {RECONNECT.max_age:g} s only"
        yield failed("reconnect.backoff_seconds", problem, "shorten the backoff")
    if settings.mobile_sync.timeout_seconds >= STATUS.max_age:
        problem = f"is longer than the log keeps its messages ({STATUS.max_age:g} s)"
        yield failed("mobile_sync.timeout_seconds", problem, "lower it")
    if socket.isolation_seconds < settings.server.lease_seconds:
        problem = "is less than server.lease_seconds: clients are moved before the server counts as lost"
        yield warning("socket.isolation_seconds", problem, "raise it")
    if socket.queue_expire_seconds < socket.isolation_seconds:
        problem = "is less than socket.isolation_seconds: NATS removes the queue of a server that still has its clients"
        yield warning("socket.queue_expire_seconds", problem, "raise it")


def _ports(settings: Settings) -> Iterator[Finding]:
    ports = {
        "socket": (settings.socket.host, settings.socket.port, UP_SOCKET_SERVERS),
        "web": (settings.web.host, settings.web.port, 1),
        "metrics": (settings.metrics.host, settings.metrics.port, UP_ROLES),
    }
    for first, second in (("socket", "metrics"), ("web", "metrics"), ("socket", "web")):
        (host, port, count), (other_host, other_port, other_count) = ports[first], ports[second]
        if not port or not other_port or not _same_host(host, other_host):
            continue
        name = f"{first}.port"
        if port == other_port and second == "metrics":
            problem = f"is the same as metrics.port ({port}) in one process"
            yield failed(name, problem, "use different ports; 0 picks a free one")
        elif port < other_port + other_count and other_port < port + count:
            problem = f"{port} overlaps with {second}.port {other_port}, as `examwire up` counts up from both"
            yield warning(name, problem, "choose ports that are further apart")


def _same_host(host: str, other_host: str) -> bool:
    return host == other_host or any(address in ("0.0.0.0", "::") for address in (host, other_host))


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
                "socket.public_url",
                f"{url!r} is not a ws(s)://HOST address",
                "give the address that clients connect to",
            )
        elif parts.query or parts.fragment:
            yield failed("socket.public_url", f"{url!r} has a query", "remove it: a token is never part of the URL")
        elif parts.scheme == "ws" and not is_loopback(parts.hostname or ""):
            yield warning("socket.public_url", "clients send tokens unencrypted", "use wss://: TLS here or in a proxy")
    for origin in settings.socket.origins:
        if origin == "*":
            yield warning("socket.origins", "pages of any origin may connect", "list the origins of the pages")
            continue
        parts = urlsplit(origin)
        if parts.scheme not in ("http", "https") or not parts.netloc or parts.path or parts.query:
            yield failed("socket.origins", f"{origin!r} is not an origin", "use https://HOST without a path")


def _proxies(settings: Settings) -> Iterator[Finding]:
    for name, listener, other_listener in (
        ("socket.trusted_proxies", settings.socket, settings.web),
        ("web.trusted_proxies", settings.web, settings.socket),
    ):
        if listener.public_url is not None and other_listener.trusted_proxies and not listener.trusted_proxies:
            problem = "is empty, but the other server trusts a proxy: all clients appear with the proxy's address here"
            yield warning(name, problem, "add the proxy here, too, as limits and incidents use client addresses")


def _pictures(settings: Settings) -> Iterator[Finding]:
    sync = settings.mobile_sync
    needed = sync.max_pixels * DECODED_PIXEL_BYTES
    if sync.decode_memory_bytes < needed:
        problem = f"is too small for a picture of {sync.max_pixels} pixels, which may need {needed} bytes"
        yield failed("mobile_sync.decode_memory_bytes", problem, "raise it, or lower mobile_sync.max_pixels")


def _key_files(settings: Settings) -> Iterator[Finding]:
    for name in KEY_FILES:
        path: Path | None = value_of(settings, name)
        if path is None:
            continue
        if not os.access(path, os.R_OK):
            yield failed(name, f"{path} cannot be read", "give the user of the roles read permission")
        elif path.stat().st_mode & 0o077:
            yield warning(name, f"other users may read {path}", f"chmod 600 {path}")
