"""Where the marks of a Redis are (`actors.runtime.store.state_mark`): one on a server, several on a cluster's shards.

The marks of a cluster are spread evenly over its slots, whatever shards these belong to: so each shard with a part of
them in one piece holds some, and they move with their slots. A shard is watched by the first of those that it holds.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from itertools import count
from typing import Any

from redis.crc import REDIS_CLUSTER_HASH_SLOTS, key_slot

from protocol.records import keys

PARTS = 64
"""A shard that holds no 1/64 of all slots in one piece may go unwatched."""


class OneServer:
    """A server on its own, or the master that Sentinels name."""

    marks: tuple[str, ...] = (keys.STATE,)

    def marks_of(self, _touched: Iterable[str]) -> tuple[str, ...]:
        """The marks to look at with these keys."""
        return self.marks


class Shards:
    """The masters of a cluster, as its client knows them at the moment."""

    def __init__(self, cluster: Any) -> None:
        self._cluster = cluster
        self._slots = _marks()
        self.marks = tuple(self._slots)

    def marks_of(self, touched: Iterable[str]) -> tuple[str, ...]:
        """The marks to look at with these keys: one of each shard that is touched."""
        first: dict[str, str] = {}
        for mark, slot in self._slots.items():
            first.setdefault(self._holder(slot), mark)
        holders = {self._holder(key_slot(key.encode())) for key in touched}
        # Before anything was asked of a cluster nobody knows its shards; then they all say.
        return self.marks if "" in holders else tuple(first[one] for one in sorted(holders & first.keys()))

    def _holder(self, slot: int) -> str:
        nodes = self._cluster.nodes_manager.slots_cache.get(slot)
        return str(nodes[0].name) if nodes else ""


@cache
def _marks() -> dict[str, int]:
    """The marks, with their slots."""
    found: dict[int, tuple[str, int]] = {}
    numbers = count()
    while len(found) < PARTS:
        mark = keys.state_of_shard(next(numbers))
        slot = key_slot(mark.encode())
        found.setdefault(slot * PARTS // REDIS_CLUSTER_HASH_SLOTS, (mark, slot))
    return dict(found[part] for part in sorted(found))
