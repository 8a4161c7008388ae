"""Read the settings, by precedence: flags, variables (`EXAMWIRE_…`, `__` for the dot), the TOML file, defaults."""

from __future__ import annotations

import contextlib
import difflib
import ipaddress
import os
import secrets
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

import pydantic
from pydantic import BaseModel, Field
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, TomlConfigSettingsSource

from actors.runtime.config.masking import hide
from actors.runtime.config.redis_url import parse_redis_url
from actors.runtime.config.sections import (
    CaptureSettings,
    CheckpointSettings,
    LogSettings,
    MetricsSettings,
    MobileSyncSettings,
    NatsSettings,
    ReconnectSettings,
    RedisSettings,
    RetentionSettings,
    ServerSettings,
    SocketSettings,
    TokenSettings,
    TracingSettings,
    WebSettings,
)
from protocol.errors import ConfigurationError

PREFIX = "EXAMWIRE_"
CONFIG_VARIABLE = "EXAMWIRE_CONFIG"
"""The path of the TOML file; by default `examwire.toml` in the working directory."""

SECRET_CHARACTERS = 32


class Settings(BaseSettings):
    """All settings; `examwire config show` lists their values and sources.

    Example::

        settings = load_settings(**{"web.port": 8080})
        settings.web.port  # 8080
    """

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, env_nested_delimiter="__", extra="forbid", nested_model_default_partial_update=True
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
    nats: NatsSettings = NatsSettings()
    redis: RedisSettings = RedisSettings()
    captures: CaptureSettings = CaptureSettings()
    retention: RetentionSettings = RetentionSettings()
    checkpoints: CheckpointSettings = CheckpointSettings()
    log: LogSettings = LogSettings()
    tracing: TracingSettings = TracingSettings()

    @pydantic.field_validator("redis_url")
    @classmethod
    def _is_a_redis_url(cls, url: str) -> str:
        parse_redis_url(url)
        return url

    @pydantic.model_validator(mode="after")
    def _certificates_are_used(self) -> Self:
        if (self.redis.ca_file or self.redis.cert_file) and not parse_redis_url(self.redis_url).tls:
            raise ValueError("redis_url: has no TLS, so the files of redis.* would not be used: write rediss://")
        return self

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls, settings_file())


def settings_file() -> Path:
    """Return the path of the TOML file, which need not exist."""
    return Path(os.environ.get(CONFIG_VARIABLE) or "examwire.toml")


def setting_fields(model: type[BaseModel] = Settings, prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """Iterate over all settings as (dotted name, field)."""
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from setting_fields(field.annotation, f"{prefix}{name}.")
        else:
            yield prefix + name, field


def variable_of(setting: str) -> str:
    """Return the variable of a setting: `socket.public_url` -> `EXAMWIRE_SOCKET__PUBLIC_URL`."""
    return PREFIX + setting.replace(".", "__").upper()


def unknown_variables(environment: Mapping[str, str]) -> dict[str, str | None]:
    """Return the variables that begin with `EXAMWIRE_` and name no setting: name -> the most similar variable."""
    known = {variable_of(name) for name, _ in setting_fields()} | {CONFIG_VARIABLE}
    sections = {PREFIX + name.upper() for name in Settings.model_fields}
    unknown: dict[str, str | None] = {}
    for name in sorted(environment):
        upper = name.upper()
        if upper.startswith(PREFIX) and upper not in known and upper not in sections:
            close = difflib.get_close_matches(upper, sorted(known), 1, 0.75)
            unknown[name] = close[0] if close else None
    return unknown


def load_settings(**flags: Any) -> Settings:
    """Read the settings; `flags` (by dotted name) override them, `None` does not. Raises `ConfigurationError`."""
    try:
        settings = read_settings(flags)
    except pydantic.ValidationError as error:
        lines = [
            f"{'.'.join(map(str, e['loc']))}: {'is no setting' if e['type'] == 'extra_forbidden' else e['msg']}"
            for e in error.errors(include_url=False)
        ]
        raise ConfigurationError("; ".join(lines)) from None
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"settings cannot be read: {error}") from None
    hide_secrets(settings)
    return settings


def read_settings(flags: Mapping[str, Any]) -> Settings:
    """Read the settings without translating errors. Raises `ValidationError`, `OSError` or `ValueError`."""
    given: dict[str, Any] = {}
    for name, value in flags.items():
        if value is None:
            continue
        section_values = given
        *sections, field_name = name.split(".")
        for section in sections:
            section_values = section_values.setdefault(section, {})
        section_values[field_name] = value
    config = os.environ.get(CONFIG_VARIABLE)
    if config and not Path(config).is_file():
        raise ConfigurationError(f"{CONFIG_VARIABLE}: there is no file {config}")
    return Settings(**given)


def hide_secrets(settings: Settings) -> None:
    """Keep the secrets of the settings out of the log lines of this process."""
    for name, _ in setting_fields():
        value = value_of(settings, name)
        if isinstance(value, pydantic.SecretStr):
            hide(value.get_secret_value())
        elif isinstance(value, str) and "@" in value:
            for url in value.split(","):
                with contextlib.suppress(ValueError):  # not a URL; its user reports that
                    hide(urlsplit(url.strip()).password or "")


def value_of(settings: Settings, setting: str) -> Any:
    """Return the value of a setting by its dotted name."""
    value: Any = settings
    for part in setting.split("."):
        value = getattr(value, part)
    return value


def token_secret(settings: Settings) -> str:
    """Return the configured secret, or that of the data directory, created at first use (mode 0600).

    Raises `ConfigurationError` for a secret that is too short, or a file that cannot be used.
    """
    if settings.secret is not None:
        secret = settings.secret.get_secret_value()
        if len(secret) < SECRET_CHARACTERS:
            raise ConfigurationError(
                f"secret: must have at least {SECRET_CHARACTERS} characters (RFC 7518, section 3.2)"
            )
        return secret
    path = settings.data_dir / "secret"
    make_data_dir(settings.data_dir)
    try:
        if not path.exists():
            # Written to a temporary file and linked: nobody reads half a secret, and the first writer wins.
            temporary = path.with_name(f".secret.{os.getpid()}")
            try:
                with os.fdopen(
                    os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8"
                ) as file:
                    file.write(secrets.token_urlsafe(48))
                with contextlib.suppress(FileExistsError):
                    os.link(temporary, path)
            finally:
                temporary.unlink(missing_ok=True)
        secret = path.read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"secret: {path} cannot be used: {error}") from error
    if len(secret) < SECRET_CHARACTERS:
        raise ConfigurationError(f"secret: {path} holds less than {SECRET_CHARACTERS} characters: remove it")
    hide(secret)
    return secret


def make_data_dir(directory: Path) -> None:
    """Create the data directory if it is missing. Raises `ConfigurationError`."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        # With a file in its place: "File exists".
        reason = "it is not a directory" if directory.is_file() else error.strerror
        raise ConfigurationError(f"data_dir: {directory} cannot be made: {reason}: choose another one") from None


def signs_elsewhere(settings: Settings) -> bool:
    """Return whether the exam platform signs the tokens: only its public keys are configured."""
    return bool(settings.token.public_key_file or settings.token.jwks_file)


listen_hosts: dict[str, str] = {}
"""The hosts on which this process listens, by setting (`web.host`); `require_secret_beyond_loopback` adds them."""


def require_secret_beyond_loopback(settings: Settings, name: str, host: str) -> None:
    """Check that a secret is configured before listening beyond loopback. Raises `ConfigurationError`.

    `name`: the setting that `host` comes from.
    """
    if not is_loopback(host) and settings.secret is None and not signs_elsewhere(settings):
        raise ConfigurationError(
            f"{name}: {host!r} listens beyond loopback, so a secret must be configured "
            "(EXAMWIRE_SECRET, or token.public_key_file / token.jwks_file)"
        )
    listen_hosts[name] = host


def is_loopback(host: str) -> bool:
    """Return whether only this machine can reach a socket bound to `host`."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
