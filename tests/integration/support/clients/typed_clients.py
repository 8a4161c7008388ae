"""What tests wait for with the typed clients."""

from __future__ import annotations

import asyncio
from typing import TypeVar

from actors.client.examinee import ExamineeClient
from actors.client.proctor import ProctorClient
from protocol.messages.base import Message

SECONDS = 20.0
M = TypeVar("M", bound=Message)


async def next_of(client: ExamineeClient | ProctorClient, kind: type[M]) -> M:
    """The next message of a kind."""
    async with asyncio.timeout(SECONDS):
        while True:
            message = await client.receive()
            if isinstance(message, kind):
                return message
