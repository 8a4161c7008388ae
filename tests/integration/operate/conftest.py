"""A whole system for operators to look at; on this machine everybody answers at once."""

from __future__ import annotations

from collections.abc import AsyncIterator
from functools import partialmethod

import pytest

from actors.runtime.broker.connection import Bus
from actors.runtime.config.settings import Settings
from cli.operate import drain_and_stop, queues
from tests.integration.support.system import System


@pytest.fixture(autouse=True)
def _quick_listing(monkeypatch: pytest.MonkeyPatch) -> None:
    """On this machine everybody answers at once: nobody need be waited for half a second."""
    monkeypatch.setattr(Bus, "services", partialmethod(Bus.services, wait=0.15))
    monkeypatch.setattr(drain_and_stop, "LOOK_SECONDS", 0.1)
    monkeypatch.setattr(queues, "UNREAD_SECONDS", 0.1)


@pytest.fixture
async def system(settings: Settings, bus: Bus) -> AsyncIterator[System]:
    async with System(settings) as system:
        yield system
