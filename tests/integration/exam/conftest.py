"""The system of these tests: at the end Redis agrees with the log, and no actor has failed."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from actors.runtime.broker.connection import Bus
from actors.runtime.config.settings import Settings
from actors.state_manager.recovery.audit import Audit
from actors.status_log.status_log import StatusLog
from tests.integration.support.system import System


@pytest.fixture
async def system(bus: Bus, settings: Settings) -> AsyncIterator[System]:
    async with System(settings) as system:
        yield system
        report = await Audit(StatusLog(bus), system.store).run()
        assert (report.differences, report.whole) == ([], True)
        assert system.failures == []
