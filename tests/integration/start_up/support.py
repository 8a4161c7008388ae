"""A quick system, and what is recorded of a server."""

from __future__ import annotations

from typing import Any

from actors.runtime.broker.connection import Bus
from actors.runtime.config.settings import Settings
from protocol.records import keys
from tests.integration.support.settings import changed
from tests.integration.support.system import System


def quick(settings: Settings, **changes: Any) -> Settings:
    """Settings with a short lease and few attempts, and what the test wants otherwise."""
    return changed(settings, {"server.lease_seconds": 1, "server.start_attempts": 2, **changes})


async def record_of(system: System, server_id: str = "SOCK001") -> dict[str, str]:
    return await system.store.entries(keys.server_status(server_id))


async def filters_of(bus: Bus, consumer: str) -> set[str] | None:
    """What a consumer of SOCKET receives; `None`: there is no such consumer."""
    config = await bus.consumer_config("SOCKET", consumer)
    if config is None:
        return None
    return set(config.get("filter_subjects") or [config["filter_subject"]])
