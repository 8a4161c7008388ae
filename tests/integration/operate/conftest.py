"""A whole system for operators to look at."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from actors.runtime.broker.connection import Bus
from actors.runtime.config.settings import Settings
from tests.integration.support.system import System


@pytest.fixture
async def system(settings: Settings, bus: Bus) -> AsyncIterator[System]:
    async with System(settings) as system:
        yield system
