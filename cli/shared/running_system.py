"""Find the `examwire up` that runs on a data directory, by the ready file that it writes there."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from protocol.errors import ConfigurationError

READY_FILE = "ready.json"
SECRET_FINGERPRINT = "secretMark"
"""Key of the ready file: a hash of the token secret (`cli.shared.signing.secret_fingerprint`)."""
ISSUER_KEYS = "issuerKeys"
"""Key of the ready file: true when tokens come from an issuer whose public key is configured."""
TOPOLOGY = "topology"
TOPOLOGY_SETTINGS = (
    "nats.replicas",
    "nats.status_max_bytes",
    "retention.days",
    "captures.store",
    "reconnect.max_attempts",
    "reconnect.backoff_seconds",
)
"""Settings that streams and consumers follow; the ready file keeps their values under `TOPOLOGY`."""


@dataclass(frozen=True, slots=True)
class RunningSystem:
    """Addresses and settings of a running `examwire up`.

    `certificate_file`: its trial certificate. `issuer_keys`: tokens come from an issuer, so `secret_fingerprint` is
    `None`. `topology`: the values of `TOPOLOGY_SETTINGS`.

    Example::

        running = RunningSystem.find(settings.data_dir)
        nats_url = running.nats_url if running is not None else settings.nats_url
    """

    nats_url: str
    redis_url: str
    web_url: str
    plan_id: str
    socket_urls: tuple[str, ...]
    certificate_file: str | None
    secret_fingerprint: str | None
    issuer_keys: bool
    topology: Mapping[str, Any]

    @classmethod
    def find(cls, data_dir: Path) -> RunningSystem | None:
        """Read the ready file; `None` when no system runs there. Raises `ConfigurationError` when it is invalid."""
        path = data_dir / READY_FILE
        try:
            ready = json.loads(path.read_text("utf-8"))
            certificate, fingerprint = ready.get("certificateFile"), ready.get(SECRET_FINGERPRINT)
            return cls(
                str(ready["natsUrl"]),
                str(ready["redisUrl"]),
                str(ready["webUrl"]),
                str(ready["planId"]),
                tuple(str(server["url"]) for server in ready["socketServers"]),
                str(certificate) if certificate is not None else None,
                str(fingerprint) if fingerprint is not None else None,
                ready.get(ISSUER_KEYS) is True,
                {name: value for name, value in ready.get(TOPOLOGY, {}).items() if name in TOPOLOGY_SETTINGS},
            )
        except FileNotFoundError:
            return None
        except OSError as error:
            raise ConfigurationError(f"data_dir: {path} cannot be read: {error.strerror}: choose another one") from None
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ConfigurationError(f"{path} is not a valid ready file ({error!r}): delete it") from None
