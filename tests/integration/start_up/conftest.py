"""Everything but socket servers, which each test starts."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from actors.runtime.broker.connection import Bus
from actors.runtime.config.settings import Settings
from tests.integration.start_up.support import quick
from tests.integration.support.system import System


@pytest.fixture
async def bare(bus: Bus, settings: Settings) -> AsyncIterator[System]:
    """Everything but socket servers."""
    async with System(quick(settings), servers=()) as system:
        yield system
        assert system.failures == []
