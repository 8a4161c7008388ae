"""Partitions of plans: the facts of one plan are processed by one state manager at a time, in the log's order."""

from __future__ import annotations

from functools import lru_cache

from protocol.messages.progress import SERVERS_PART

PARTITIONS = 8
"""Fixed: another number would let two state managers work on one plan while both layouts are in the log."""

_FNV_OFFSET = 2166136261
_FNV_PRIME = 16777619


@lru_cache(maxsize=4096)  # asked for with each read of a plan's keys
def partition_of(plan_id: str) -> int:
    """Return the partition of a plan, from 0 to `PARTITIONS` - 1.

    It is what nats-server computes for `{{partition(8,1)}}` in a subject transform (FNV-1a, 32 bits), so a message
    that is published without a partition gets the same one from the broker.
    """
    digest = _FNV_OFFSET
    for byte in plan_id.encode():
        digest = (digest ^ byte) * _FNV_PRIME & 0xFFFFFFFF
    return digest % PARTITIONS


def part_of(plan_id: str | None) -> str:
    """Return the part of the log about a plan: its partition as text; `None` or "" is the part about servers."""
    return str(partition_of(plan_id)) if plan_id else SERVERS_PART


PARTS: tuple[str, ...] = (SERVERS_PART, *map(str, range(PARTITIONS)))
"""All parts of the log. Each has a consumer of its own, which one state manager at a time reads."""
