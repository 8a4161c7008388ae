"""Measure CPU time and memory of processes, by role."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping, Sequence

import psutil

SETTLE_SECONDS = 5.0
SETTLE_STEP_SECONDS = 0.25
SETTLED_SHARE = 0.002

CpuTimes = Mapping[str, Mapping[int, float]]
"""User and system seconds since the start of each process, by role and pid."""


def cpu_times(processes: Mapping[str, Sequence[int]]) -> CpuTimes:
    """Return the CPU time of each running process."""
    used: dict[str, dict[int, float]] = {}
    for role, pids in processes.items():
        used[role] = {}
        for pid in pids:
            with contextlib.suppress(psutil.NoSuchProcess):
                times = psutil.Process(pid).cpu_times()
                used[role][pid] = times.user + times.system
    return used


def spent(before: CpuTimes, after: CpuTimes) -> dict[str, float]:
    """Return the CPU seconds by role between two readings, for processes that are in both."""
    return {role: round(seconds, 2) for role, seconds in _seconds(before, after).items()}


def _seconds(before: CpuTimes, after: CpuTimes) -> dict[str, float]:
    return {
        role: sum(seconds - before[role][pid] for pid, seconds in pids.items() if pid in before[role])
        for role, pids in after.items()
        if role in before
    }


def microseconds_each(before: CpuTimes, after: CpuTimes, count: int) -> dict[str, float]:
    """Return the CPU microseconds by role for each of `count` events between two readings."""
    return {role: round(seconds / count * 1e6, 1) for role, seconds in _seconds(before, after).items() if count}


def resident_bytes(pids: Sequence[int]) -> int:
    """Return the sum of the processes' RSS."""
    return sum(int(psutil.Process(pid).memory_info().rss) for pid in pids)


async def settled_bytes(pids: Sequence[int]) -> int:
    """Return `resident_bytes` when it no longer changes, or after `SETTLE_SECONDS`."""
    previous = resident_bytes(pids)
    for _ in range(int(SETTLE_SECONDS / SETTLE_STEP_SECONDS)):
        await asyncio.sleep(SETTLE_STEP_SECONDS)
        current = resident_bytes(pids)
        if abs(current - previous) <= SETTLED_SHARE * previous:
            return current
        previous = current
    return previous
