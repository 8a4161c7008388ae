"""Faults of nats-py's client, brought about on purpose.

The tests use private attributes of nats-py here and nowhere else; `PRIVATE` lists them.
"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from actors.runtime.broker.connection import Bus

PRIVATE = ("_reading_task", "_flusher_task", "_process_err", "_process_pong", "_send_ping")
"""Private attributes of `nats.aio.client.Client` that this module needs."""


def reading_task(bus: Bus) -> asyncio.Task[Any]:
    """The task of nats-py that reads from the connection."""
    task = bus._nc._reading_task
    assert task is not None
    return task


def flusher_task(bus: Bus) -> asyncio.Task[Any]:
    """The task of nats-py that writes to the connection."""
    task = bus._nc._flusher_task
    assert task is not None
    return task


def fail_pongs(monkeypatch: pytest.MonkeyPatch, bus: Bus, error: Exception) -> None:
    """Have nats-py's reading task raise `error` at the next PONG."""

    async def fail() -> None:
        raise error

    monkeypatch.setattr(bus._nc, "_process_pong", fail)


def fail_pings(monkeypatch: pytest.MonkeyPatch, bus: Bus, error: Exception) -> None:
    """Have nats-py raise `error` when it is to send a PING."""

    async def fail(_: object) -> None:
        raise error

    monkeypatch.setattr(bus._nc, "_send_ping", fail)


async def receive_error(bus: Bus, error: str) -> None:
    """Have nats-py act as if the server had sent `-ERR` with this text."""
    await bus._nc._process_err(error)
