"""A connect and a loss cost about what they did: a small form of the measurements, on CPU time, with wide limits.

The unit is what it costs this machine, as busy as it is, to decode and encode one fact with the standard library. The
limits are about three times what was measured. Whoever exceeds one looks at `python -m tests.speed`.
"""

from __future__ import annotations

import json
import time
from pathlib import Path

from tests.speed import socket_server, state_manager
from tests.speed.system import Figures, Setup

TREE = Path(__file__).parents[2]
EXAMINEES = 500
REPEATS = 20_000


def unit() -> float:
    """Return the CPU µs of decoding and encoding a fact."""
    fact = json.loads(state_manager.loss_of(1))
    started = time.process_time()
    for _ in range(REPEATS):
        fact = json.loads(json.dumps(fact))
    return (time.process_time() - started) / REPEATS * 1e6


def in_units(figures: Figures, role: str, before: float, after: float) -> dict[str, float]:
    """Return what the role used for each event, measured by the more expensive unit of before and after."""
    return {event: costs[role] / max(before, after) for event, costs in figures.items() if role in costs}


async def test_the_state_manager_keeps_its_cost_of_a_connect_and_a_loss() -> None:
    before = unit()
    figures = await state_manager.measure(Setup(TREE, EXAMINEES, quick=True))
    costs = in_units(figures, "state-manager", before, unit())
    assert 0 < costs["connect"] < 110, costs
    assert 0 < costs["loss"] < 90, costs


async def test_a_socket_server_keeps_its_cost_of_a_connect_and_a_loss() -> None:
    before = unit()
    figures = await socket_server.measure(Setup(TREE, EXAMINEES, quick=True))
    costs = in_units(figures, "socket-server", before, unit())
    assert 0 < costs["connect"] < 165, costs
    assert 0 < costs["loss"] < 30, costs
    assert figures["idle"]["KiB a connection"] < 12
