"""The `examwire up` that runs on a data directory, by the ready line that it leaves there."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from protocol.errors import ConfigurationError

READY_FILE = "ready.json"
SECRET_FINGERPRINT = "secretMark"
"""Beside what the ready line says: what tells its token secret apart (`cli.shared.signing`)."""
ISSUER_KEYS = "issuerKeys"
"""Or, true: its tokens are those of an issuer of which it has the public key only."""
TOPOLOGY = "topology"
TOPOLOGY_SETTINGS = (
    "nats.replicas",
    "nats.status_max_bytes",
    "captures.store",
    "reconnect.max_attempts",
    "reconnect.backoff_seconds",
)
"""And the settings that its streams and consumers were made by, name to value: flags that only its own terminal has."""


@dataclass(frozen=True, slots=True)
class RunningSystem:
    """Where it is. `certificate_file`: of its trial certificate. `issuer_keys`: its tokens are an issuer's; else there
    is a `secret_fingerprint`.

    `topology`: the settings (`reconnect.max_attempts`) that its streams and consumers follow.
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
    def on(cls, data_dir: Path) -> RunningSystem | None:
        """`None`: none runs there. Raises `ConfigurationError` when the file is not what `up` writes."""
        path = data_dir / READY_FILE
        try:
            ready = json.loads(path.read_text())
            certificate, mark = ready.get("certificateFile"), ready.get(SECRET_FINGERPRINT)
            return cls(
                str(ready["natsUrl"]),
                str(ready["redisUrl"]),
                str(ready["webUrl"]),
                str(ready["planId"]),
                tuple(str(one["url"]) for one in ready["socketServers"]),
                str(certificate) if certificate is not None else None,
                str(mark) if mark is not None else None,
                ready.get(ISSUER_KEYS) is True,
                {name: value for name, value in ready.get(TOPOLOGY, {}).items() if name in TOPOLOGY_SETTINGS},
            )
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise ConfigurationError(f"{path} is not what `examwire up` writes ({error!r}): remove it") from None
