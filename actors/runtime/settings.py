"""One tree of settings: flag over variable (`EXAMWIRE_…`, `__` for the dot) over TOML file over default."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import secrets as token_source
from pathlib import Path
from typing import Annotated, Any

import pydantic
from pydantic import BaseModel, ConfigDict, Field
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, TomlConfigSettingsSource

from protocol.errors import ConfigurationError

Positive = Annotated[float, Field(gt=0)]
Port = Annotated[int, Field(ge=0, le=65535)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class SocketSettings(_Section):
    host: str = "127.0.0.1"
    port: Port = 0
    public_url: str | None = Field(None, description="ws(s):// address given to clients; default: from host and port")
    ping_interval_seconds: Positive = 5.0
    ping_timeout_seconds: Positive = 5.0
    origins: list[str] = Field([], description="allowed Origin values; empty: the server's own host only; '*': any")
    accept_per_second: Positive = Field(2000.0, description="handshakes a second before 503 with Retry-After")
    max_buffer_bytes: Annotated[int, Field(ge=65536)] = Field(4 * 1024 * 1024, description="unsent bytes per client")
    max_connections: Annotated[int, Field(ge=1)] = 15_000
    isolation_seconds: Positive = Field(30.0, description="cut off from NATS so long, clients are sent elsewhere")
    activity_seconds: Positive = Field(15.0, description="how often lastHeartbeat is refreshed while nothing happens")
    queue_max_size: Annotated[int, Field(ge=1)] = 10000
    queue_expire_seconds: Annotated[int, Field(ge=1, le=7 * 86400)] = 3600
    queue_priority: Annotated[str, Field(pattern="^(high|normal|low)$")] = "high"


class ReconnectSettings(_Section):
    max_attempts: Annotated[int, Field(ge=1, le=100)] = 5
    backoff_seconds: Annotated[list[Positive], Field(min_length=1)] = [5.0, 10.0, 20.0, 40.0, 60.0]
    jitter: Annotated[float, Field(ge=0, le=1)] = 0.3


class MobileSyncSettings(_Section):
    timeout_seconds: Positive = 120.0
    max_bytes: Annotated[int, Field(ge=1024)] = 8 * 1024 * 1024
    max_pixels: Annotated[int, Field(ge=1)] = 50_000_000


class ServerSettings(_Section):
    lease_seconds: Annotated[int, Field(ge=1)] = 3
    start_attempts: Annotated[int, Field(ge=1)] = Field(5, description="tries of each start-up step before FAILED")


class WebSettings(_Section):
    host: str = "127.0.0.1"
    port: Port = 0


class MetricsSettings(_Section):
    host: str = "127.0.0.1"
    port: Port = 0


class TokenSettings(_Section):
    public_key_file: Path | None = Field(None, description="PEM of an RS256 or EdDSA issuer")
    jwks_file: Path | None = Field(None, description="JWKS file of the issuer's public keys")


class Settings(BaseSettings):
    """See docs/design: the names of section 7 are fixed, the others are ours."""

    model_config = SettingsConfigDict(
        env_prefix="EXAMWIRE_", env_nested_delimiter="__", extra="forbid", nested_model_default_partial_update=True
    )

    nats_url: str = "nats://127.0.0.1:4222"
    redis_url: str = "redis://127.0.0.1:6379/0"
    secret: pydantic.SecretStr | None = Field(None, description="token secret; default: made once in data_dir/secret")
    data_dir: Path = Path(".examwire")
    socket: SocketSettings = SocketSettings()
    reconnect: ReconnectSettings = ReconnectSettings()
    mobile_sync: MobileSyncSettings = MobileSyncSettings()
    server: ServerSettings = ServerSettings()
    web: WebSettings = WebSettings()
    metrics: MetricsSettings = MetricsSettings()
    token: TokenSettings = TokenSettings()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        path = os.environ.get("EXAMWIRE_CONFIG") or "examwire.toml"
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls, Path(path))


def load_settings(**flags: Any) -> Settings:
    """Settings with `flags` (dotted names, `None` left out) on top. Raises `ConfigurationError` naming the setting."""
    given: dict[str, Any] = {}
    for name, value in flags.items():
        if value is None:
            continue
        place = given
        *sections, last = name.split(".")
        for section in sections:
            place = place.setdefault(section, {})
        place[last] = value
    config = os.environ.get("EXAMWIRE_CONFIG")
    if config and not Path(config).is_file():
        raise ConfigurationError(f"EXAMWIRE_CONFIG: there is no file {config}")
    try:
        return Settings(**given)
    except pydantic.ValidationError as error:
        lines = [f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors(include_url=False)]
        raise ConfigurationError("; ".join(lines)) from None
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"settings cannot be read: {error}") from None


def token_secret(settings: Settings) -> str:
    """The configured secret, or the one of the data directory, made at its first use (mode 0600)."""
    if settings.secret is not None:
        secret = settings.secret.get_secret_value()
        if len(secret) < 32:
            raise ConfigurationError("secret: must have at least 32 characters (RFC 7518, section 3.2)")
        return secret
    path = settings.data_dir / "secret"
    try:
        settings.data_dir.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            # Written aside and linked, so that nobody ever reads half a secret and the first writer wins.
            aside = path.with_name(f".secret.{os.getpid()}")
            with os.fdopen(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
                file.write(token_source.token_urlsafe(48))
            with contextlib.suppress(FileExistsError):
                os.link(aside, path)
            aside.unlink()
        return path.read_text().strip()
    except OSError as error:
        raise ConfigurationError(f"secret: {path} cannot be used: {error}") from error


def require_secret_beyond_loopback(settings: Settings, name: str, host: str) -> None:
    """Refuse to listen on more than loopback with a secret that nobody configured."""
    try:
        loopback = ipaddress.ip_address(host).is_loopback
    except ValueError:
        loopback = host == "localhost"
    keys = settings.token.public_key_file or settings.token.jwks_file
    if not loopback and settings.secret is None and not keys:
        raise ConfigurationError(
            f"{name}: {host!r} listens beyond loopback, so a secret must be configured "
            "(EXAMWIRE_SECRET, or token.public_key_file / token.jwks_file)"
        )
