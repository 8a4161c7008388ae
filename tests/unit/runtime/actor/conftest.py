"""The bus of tests of actors that read consumers."""

from __future__ import annotations

import pytest

from tests.unit.runtime.actor.workers import MemoryBus


@pytest.fixture
def bus() -> MemoryBus:
    return MemoryBus()
