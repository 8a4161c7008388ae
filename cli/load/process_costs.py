"""What processes cost: CPU seconds and memory, by role."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping, Sequence

import psutil

SETTLE_SECONDS = 5.0
SETTLE_STEP_SECONDS = 0.25
SETTLED_SHARE = 0.002

CpuTimes = Mapping[str, Mapping[int, float]]
"""By role and pid, the user and system seconds that a process has used since it was started."""


def cpu_times(processes: Mapping[str, Sequence[int]]) -> CpuTimes:
    """What each process has used until now; those that have ended are left out."""
    used: dict[str, dict[int, float]] = {}
    for role, pids in processes.items():
        used[role] = {}
        for pid in pids:
            with contextlib.suppress(psutil.NoSuchProcess):
                times = psutil.Process(pid).cpu_times()
                used[role][pid] = times.user + times.system
    return used


def spent(before: CpuTimes, after: CpuTimes) -> dict[str, float]:
    """CPU seconds by role between two readings, of the processes that are in both."""
    return {
        role: round(sum(seconds - before[role][pid] for pid, seconds in pids.items() if pid in before[role]), 2)
        for role, pids in after.items()
        if role in before
    }


def resident_bytes(pids: Sequence[int]) -> int:
    """The RSS of some processes together."""
    return sum(int(psutil.Process(pid).memory_info().rss) for pid in pids)


async def settled_bytes(pids: Sequence[int]) -> int:
    """`resident_bytes` once it stands still (or after some seconds)."""
    known = resident_bytes(pids)
    for _ in range(int(SETTLE_SECONDS / SETTLE_STEP_SECONDS)):
        await asyncio.sleep(SETTLE_STEP_SECONDS)
        now = resident_bytes(pids)
        if abs(now - known) <= SETTLED_SHARE * known:
            return now
        known = now
    return known
