"""The places of the marks of `actors.runtime.store.state_mark`: one on a server, several on the shards of a cluster.

The marks of a cluster are spread evenly over its slots. So a shard that has a range of slots holds some of them, and
they move with their slots. The first mark on a shard is the one that is checked.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from itertools import count
from typing import Any

from redis.crc import REDIS_CLUSTER_HASH_SLOTS, key_slot

from protocol.records import keys

PARTS = 64
"""A shard without a range of 1/64 of all slots may have no mark."""


class OneServer:
    """A single server, or the master that Sentinels name."""

    marks: tuple[str, ...] = (keys.STATE,)

    def marks_of(self, _touched: Iterable[str]) -> tuple[str, ...]:
        """Return the marks to check with these keys."""
        return self.marks


class Shards:
    """The masters of a cluster, as its client knows them now."""

    def __init__(self, cluster: Any) -> None:
        self._cluster = cluster
        self._slots = _marks()
        self.marks = tuple(self._slots)

    def marks_of(self, touched: Iterable[str]) -> tuple[str, ...]:
        """Return the marks to check with these keys: one of each shard that holds one of them."""
        first: dict[str, str] = {}
        for mark, slot in self._slots.items():
            first.setdefault(self._holder(slot), mark)
        holders = {self._holder(key_slot(key.encode())) for key in touched}
        # The shards are unknown before the first command; then all marks are checked.
        return self.marks if "" in holders else tuple(first[one] for one in sorted(holders & first.keys()))

    def _holder(self, slot: int) -> str:
        nodes = self._cluster.nodes_manager.slots_cache.get(slot)
        return str(nodes[0].name) if nodes else ""


@cache
def _marks() -> dict[str, int]:
    """Return the marks with their slots."""
    marks: dict[int, tuple[str, int]] = {}
    numbers = count()
    while len(marks) < PARTS:
        mark = keys.state_of_shard(next(numbers))
        slot = key_slot(mark.encode())
        marks.setdefault(slot * PARTS // REDIS_CLUSTER_HASH_SLOTS, (mark, slot))
    return dict(marks[part] for part in sorted(marks))
