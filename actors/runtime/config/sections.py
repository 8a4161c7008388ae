"""The sections of the settings (`socket`, `web`, `nats`, ...): their fields, defaults and checks.

A field's `description` is what `examwire config show` and `--help` print.
"""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Annotated, Literal, Self

import pydantic
from pydantic import BaseModel, ConfigDict, Field, FilePath

Positive = Annotated[float, Field(gt=0)]
Port = Annotated[int, Field(ge=0, le=65535)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


def _require_together(section: BaseModel, *names: str) -> None:
    if len({getattr(section, name) is None for name in names}) > 1:
        raise ValueError(f"{' and '.join(names)} go together")


def _checked_networks(networks: list[str]) -> list[str]:
    for network in networks:
        ipaddress.ip_network(network, strict=False)
    return networks


class _TlsSection(_Section):
    certificate_file: FilePath | None = Field(None, description="serve TLS with this certificate chain (PEM)")
    key_file: FilePath | None = Field(None, description="its private key (PEM)")

    @pydantic.model_validator(mode="after")
    def _key_with_certificate(self) -> Self:
        _require_together(self, "certificate_file", "key_file")
        return self


class SocketSettings(_TlsSection):
    host: str = "127.0.0.1"
    port: Port = 0
    public_url: str | None = Field(None, description="ws(s):// address given to clients; default: from host and port")
    ping_interval_seconds: Positive = 5.0
    ping_timeout_seconds: Positive = 5.0
    origins: list[str] = Field([], description="Origin values of pages besides our own that may connect; '*': any")
    accept_per_second: Positive = Field(2000.0, description="handshakes a second before 503 with Retry-After")
    accept_per_address: Positive = Field(
        1000.0,
        description="those of one address that show no valid token; whoever shows one goes before them",
    )
    trusted_proxies: list[str] = Field(
        [], description="addresses or networks whose X-Forwarded-For is believed: the address of a client"
    )
    max_buffer_bytes: Annotated[int, Field(ge=65536)] = Field(
        4 * 1024 * 1024, description="what may wait for a client besides the frame or snapshot that it is being sent"
    )
    max_connections: Annotated[int, Field(ge=1)] = 15_000
    max_connections_per_address: Annotated[int, Field(ge=1)] = Field(
        15_000, description="clients of one address; a hall of thousands may share one"
    )
    max_strangers_per_address: Annotated[int, Field(ge=1)] = Field(
        1000, description="connections of one address that have not said a valid hello"
    )
    bytes_per_second: Annotated[float, Field(ge=16384)] = Field(
        65536.0,
        description="what a client may send, 5 s worth of it at once; beyond, it is read more slowly",
    )
    frames_per_second: Annotated[float, Field(ge=10)] = Field(
        100.0, description="the same in frames, pings and fragments among them"
    )
    isolation_seconds: Positive = Field(30.0, description="cut off from NATS so long, clients are sent elsewhere")
    activity_seconds: Positive = Field(15.0, description="how often lastHeartbeat is refreshed while nothing happens")
    queue_max_size: Annotated[int, Field(ge=1)] = 10000
    queue_expire_seconds: Annotated[int, Field(ge=1, le=7 * 86400)] = 3600
    queue_priority: Literal["high", "normal", "low"] = "high"

    @pydantic.field_validator("trusted_proxies")
    @classmethod
    def _check_networks(cls, networks: list[str]) -> list[str]:
        return _checked_networks(networks)


class ReconnectSettings(_Section):
    max_attempts: Annotated[int, Field(ge=1, le=100)] = 5
    backoff_seconds: Annotated[list[Positive], Field(min_length=1)] = [5.0, 10.0, 20.0, 40.0, 60.0]
    jitter: Annotated[float, Field(ge=0, le=1)] = 0.3


class MobileSyncSettings(_Section):
    timeout_seconds: Positive = 120.0
    max_bytes: Annotated[int, Field(ge=1024)] = 20 * 1024 * 1024
    max_pixels: Annotated[int, Field(ge=1)] = Field(
        52_000_000, description="of a picture; phones of 50 megapixels send up to 8192 x 6144"
    )
    max_scans: Annotated[int, Field(ge=1)] = Field(100, description="of a progressive JPEG; encoders make about ten")
    decoders: Annotated[int, Field(ge=1, le=64)] = Field(2, description="processes that decode pictures")
    decode_seconds: Annotated[int, Field(ge=1)] = Field(
        10, description="processor time that one picture may take; by the clock six times that"
    )
    decode_memory_bytes: Annotated[int, Field(ge=64 * 1024 * 1024)] = Field(
        512 * 1024 * 1024, description="memory that one picture may take, in each of the processes"
    )
    pictures_per_minute: Annotated[int, Field(ge=1)] = Field(
        10, description="new pictures of one examinee on one web server; sending one again is not counted"
    )


class ServerSettings(_Section):
    lease_seconds: Annotated[int, Field(ge=1)] = 3
    takeover: bool = Field(
        True, description="a new process takes the serverId from one that is alive; false: it ends with exit code 6"
    )
    start_attempts: Annotated[int, Field(ge=1)] = Field(5, description="tries of each start-up step before FAILED")


class WebSettings(_TlsSection):
    host: str = "127.0.0.1"
    port: Port = 0
    public_url: str | None = Field(
        None, description="http(s):// address of the pages for browsers and phones; default: where a request came to"
    )
    trusted_proxies: list[str] = Field(
        [], description="addresses or networks whose X-Forwarded-For and X-Forwarded-Proto are believed"
    )
    connect_sources: list[Annotated[str, Field(pattern=r"^wss?://[A-Za-z0-9*.-]+(:([0-9]+|\*))?$")]] = Field(
        [], description="further origins that pages may connect to, such as wss://*.exam.example"
    )

    max_connections: Annotated[int, Field(ge=16)] = Field(
        10_000, description="in all; beyond it the one that has been idle longest makes room"
    )
    max_connections_per_address: Annotated[int, Field(ge=1)] = Field(
        3000, description="of one address, a school behind one included; trusted proxies have no such limit"
    )
    header_seconds: Positive = Field(10.0, description="for the TLS handshake, and then for a request's headers")

    @pydantic.field_validator("trusted_proxies")
    @classmethod
    def _check_networks(cls, networks: list[str]) -> list[str]:
        return _checked_networks(networks)


class MetricsSettings(_Section):
    host: str = "127.0.0.1"
    port: Port = 0


class TokenSettings(_Section):
    public_key_file: Path | None = Field(None, description="PEM of an RS256 or EdDSA issuer")
    jwks_file: Path | None = Field(None, description="JWKS file of the issuer's public keys")
    leeway_seconds: float = Field(
        10.0, ge=0, le=600, description="by how much the issuer's clock may differ: for exp, nbf and iat of a token"
    )


class RedisSettings(_Section):
    ca_file: FilePath | None = Field(None, description="CA of a rediss:// server; default: those the machine trusts")
    cert_file: FilePath | None = Field(None, description="client certificate, with redis.key_file")
    key_file: FilePath | None = None
    sentinel_username: str | None = Field(None, description="the Sentinels' own; the servers' are in redis_url")
    sentinel_password: pydantic.SecretStr | None = None

    @pydantic.model_validator(mode="after")
    def _key_with_certificate(self) -> Self:
        _require_together(self, "cert_file", "key_file")
        return self


class NatsSettings(_Section):
    user: str | None = Field(None, description="this role's user (nats/permissions.conf); one in nats_url does as well")
    password: pydantic.SecretStr | None = None
    credentials_file: FilePath | None = Field(None, description="a .creds file (JWT and seed) instead of a user")
    inbox_prefix: str | None = Field(None, description="where replies go; default: _INBOX_ and the user")
    ca_file: FilePath | None = Field(None, description="CA of a tls:// server; default: those the machine trusts")
    cert_file: FilePath | None = Field(None, description="client certificate, with nats.key_file")
    key_file: FilePath | None = None
    replicas: Annotated[int, Field(ge=1, le=5)] = Field(
        1, description="copies of each stream; 3 or 5 need a cluster of as many nodes"
    )
    status_max_bytes: Annotated[int, Field(ge=64 * 1024 * 1024)] = Field(
        8 * 1024**3, description="the most that the log holds; it is kept for a shorter time before it is full"
    )

    @pydantic.model_validator(mode="after")
    def _check_combinations(self) -> Self:
        _require_together(self, "cert_file", "key_file")
        _require_together(self, "user", "password")
        if self.replicas % 2 == 0:
            raise ValueError("replicas: 1, 3 or 5; an even number survives no more than the one below it")
        if self.user is not None and self.credentials_file is not None:
            raise ValueError("set a user or a credentials_file, not both")
        return self


class CaptureSettings(_Section):
    store: Literal["directory", "nats"] = Field("directory", description="data_dir/captures, or a bucket in NATS")
    keep_days: Annotated[float, Field(ge=0)] = Field(0.0, description="older pictures are removed; 0: none is")
    max_total_bytes: Annotated[int, Field(ge=1024 * 1024)] = Field(
        32 * 1024**3, description="the most that a bucket in NATS holds; beyond it uploads are refused (507)"
    )


class RetentionSettings(_Section):
    days: Annotated[float, Field(ge=0, le=3650)] = Field(
        30.0, description="so long after its end a closed plan is deleted, and so long the log is kept; 0: never"
    )


class CheckpointSettings(_Section):
    seconds: Positive = Field(
        30.0, description="how often a copy of the changed records is kept for the repair of a lost Redis"
    )
    messages: Annotated[int, Field(ge=100)] = Field(
        10_000, description="after so many messages of the log it is kept earlier"
    )


class LogSettings(_Section):
    level: Literal["debug", "info", "warning", "error"] | None = Field(
        None, description="what is logged; default: info, and warning in `examwire up`"
    )
    format: Literal["text", "json"] = Field("text", description="lines for people, or one JSON object a line")


class TracingSettings(_Section):
    endpoint: str | None = Field(None, description="an OTLP/HTTP collector, such as http://127.0.0.1:4318; none: off")
    sample: Annotated[float, Field(ge=0, le=1)] = Field(0.1, description="the share of what happens that is traced")
