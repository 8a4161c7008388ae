"""Start the roles of a tree, and take the CPU time of their processes."""

from __future__ import annotations

import asyncio
import os
import secrets
import shutil
import signal
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from cli.load.fleet import Fleet
from cli.load.process_costs import CpuTimes, cpu_times, microseconds_each
from protocol.errors import ConfigurationError

Figures = dict[str, dict[str, float]]
"""Figures by event, then by role or name of the figure; CPU in µs an event."""

PROFILE_SECONDS = 30.0
SETTLE_SECONDS = 0.5
SETTLE_STEPS = 20
IDLE_SHARE = 0.16
"""Share of a core that all roles together use while nothing happens, at most."""
POLL_SECONDS = 0.05

ROLES = ("nats-server", "redis-server", "queue-server", "state-manager", "socket-server")

NO_TIMERS = {"EXAMWIRE_RECONNECT__BACKOFF_SECONDS": "[3600]"}
"""No attempt of the reconnect ladder begins during a measurement."""


@dataclass(frozen=True, slots=True)
class Setup:
    """What is measured: the code in `tree`, with so many examinees, plans, proctors of a plan and state managers.

    Without `tree` it is Socket.IO on Node. `batch`: facts or events in a payload. `quick`: of one role, measure only a
    connect and a loss.
    """

    tree: Path | None
    examinees: int = 4000
    batch: int = 64
    proctors: int = 1
    plans: int = 1
    managers: int = 1
    quick: bool = False

    @property
    def plan_ids(self) -> list[str]:
        return [f"P{number:03d}" for number in range(1, self.plans + 1)]


@dataclass(slots=True)
class CpuMeter:
    """Measures the CPU of a fleet's roles for each event.

    Example::

        meter = CpuMeter(fleet)
        ...  # 4,000 losses
        meter.note("loss", 4000)
        print(meter.figures)
    """

    fleet: Fleet
    figures: Figures = field(default_factory=dict)
    _before: CpuTimes = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        """Begin the next measurement now."""
        self._before = cpu_times(self.fleet.processes())

    async def settled(self) -> None:
        """Wait until no role works any more: what a round leaves behind, as timers to be set, is in its cost."""
        previous = self._used()
        for _ in range(SETTLE_STEPS):
            await asyncio.sleep(SETTLE_SECONDS)
            used = self._used()
            if used - previous < IDLE_SHARE * SETTLE_SECONDS:
                return
            previous = used

    def _used(self) -> float:
        return sum(sum(seconds.values()) for seconds in cpu_times(self.fleet.processes()).values())

    def note(self, event: str, count: int) -> None:
        """Note the cost of `count` events since the last call, and begin the next measurement."""
        now = cpu_times(self.fleet.processes())
        self.figures[event] = {
            role: cost for role, cost in microseconds_each(self._before, now, count).items() if self._before.get(role)
        }
        self._before = now


def environment_of(tree: Path) -> dict[str, str]:
    """Return the variables with which a role runs the code in `tree`."""
    return {"PYTHONPATH": os.pathsep.join([*_profiler(), str(tree)]), **NO_TIMERS}


def _profiler() -> list[str]:
    return [str(Path(__file__).with_name("profiler"))] if "PROFILE" in os.environ else []


@asynccontextmanager
async def fleet_of(
    tree: Path | None, *, servers: int, managers: int, environment: Mapping[str, str] | None = None
) -> AsyncIterator[tuple[Fleet, str]]:
    """Start engines and roles of the code in `tree`; yield the fleet and the token secret."""
    if tree is None:
        raise ConfigurationError("Socket.IO has no such role: compare hall-outage or one-by-one with it")
    directory = Path(tempfile.mkdtemp(prefix="examwire-speed-"))
    secret = secrets.token_urlsafe(48)
    variables = {"EXAMWIRE_SECRET": secret, **environment_of(tree), **(environment or {})}
    fleet = Fleet(directory, variables, servers=servers, managers=managers)
    try:
        await fleet.start()
        yield fleet, secret
        await _write_profiles(fleet)
    finally:
        await fleet.stop()
        shutil.rmtree(directory, ignore_errors=True)


async def _write_profiles(fleet: Fleet) -> None:
    role = os.environ.get("PROFILE", "")
    for pid in fleet.processes().get(role, []):
        os.kill(pid, signal.SIGUSR1)
        async with asyncio.timeout(PROFILE_SECONDS):
            while not os.path.exists(f"speed-{role}-{pid}.prof"):  # noqa: ASYNC110, ASYNC240 - the role writes it
                await asyncio.sleep(POLL_SECONDS)
