"""A server with another examinee and a proctor on it, who must notice nothing."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from actors.runtime.broker.connection import Bus
from actors.runtime.config.settings import Settings
from tests.integration.bad_input.support import Neighbours
from tests.integration.support.settings import changed
from tests.integration.support.system import System


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return changed(settings, {"socket.max_buffer_bytes": 128 * 1024})


@pytest.fixture
async def system(bus: Bus, settings: Settings) -> AsyncIterator[System]:
    async with System(settings, servers=("SOCK001",)) as system:
        yield system
        assert system.failures == []


@pytest.fixture
async def neighbours(system: System) -> AsyncIterator[Neighbours]:
    """Checked at the end of each test that asks for them."""
    neighbours = Neighbours(system, await system.examinee("N001"), await system.proctor())
    yield neighbours
    await neighbours.notice_nothing()
