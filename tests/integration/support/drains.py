"""Drains, as tests ask for them."""

from __future__ import annotations

import asyncio

from actors.runtime.broker.connection import Bus
from cli.shared.live_actors import ask
from protocol.broker import subjects
from protocol.messages.operator_requests import Done, Drain
from tests.integration.support.system import System, eventually


async def know_each_other(system: System) -> None:
    async def known() -> bool:
        return all(system.server(server_id)._endpoints.others for server_id in ("SOCK001", "SOCK002"))

    await eventually(known, "the servers know each other")


def end_of(system: System, server_id: str) -> asyncio.Event:
    """Set when the server asks for the end of its process."""
    server_end = asyncio.Event()
    system.server(server_id).end_role = server_end.set
    return server_end


async def drain(bus: Bus, server_id: str, over_seconds: float = 0.0, *, force: bool = False) -> Done:
    return await ask(bus, subjects.socket_server(server_id), Drain(over_seconds=over_seconds, force=force))
