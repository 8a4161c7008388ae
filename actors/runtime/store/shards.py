"""The places of the marks of `actors.runtime.store.state_mark`: one on a server, several on the shards of a cluster.

The marks of a cluster are spread evenly over its slots. So a shard that has a range of slots holds some of them, and
they move with their slots. The first mark on a shard is the one that is checked.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache
from itertools import count
from typing import Any

from redis.crc import REDIS_CLUSTER_HASH_SLOTS, key_slot

from protocol.records import keys

PARTS = 64
"""A shard without a range of 1/64 of all slots may have no mark."""
READS_A_SCRIPT = 256
WRITES_A_SCRIPT = 8
"""With 64 each costs Redis 1.4 times as much: Lua holds the fields of all at once."""
TOUCHES_A_SCRIPT = 32
"""They have few fields; Redis is busy for 0.1 ms."""


class OneServer:
    """The mark of a single server, or of the master that Sentinels name.

    Example::

        OneServer().marks_of(["plan:P001"])  # (keys.STATE,)
    """

    marks: tuple[str, ...] = (keys.STATE,)

    def marks_of(self, _read_keys: Iterable[str]) -> tuple[str, ...]:
        """Return the marks to check with these keys."""
        return self.marks

    def groups(self, script_keys: Sequence[str], most: int = READS_A_SCRIPT) -> list[Sequence[str]]:
        """Return the keys in groups, of at most so many, that one script may read or write."""
        return [script_keys[start : start + most] for start in range(0, len(script_keys), most)]


class Shards:
    """The marks on the masters of a cluster, by the slots that its client knows now.

    Example::

        shards = Shards(RedisCluster.from_url("redis://127.0.0.1:7000"))
        shards.marks_of(["plan:P001"])  # one mark, on the master that holds this key
    """

    def __init__(self, cluster: Any) -> None:
        self._cluster = cluster
        self._slots = _marks()
        self.marks = tuple(self._slots)

    def marks_of(self, read_keys: Iterable[str]) -> tuple[str, ...]:
        """Return the marks to check with these keys: one mark of each shard that holds a key."""
        mark_of_shard: dict[str, str] = {}
        for mark, slot in self._slots.items():
            mark_of_shard.setdefault(self._shard_of(slot), mark)
        shards = {self._shard_of(key_slot(key.encode())) for key in read_keys}
        # The shards are unknown before the first command; then all marks are checked.
        return self.marks if "" in shards else tuple(mark_of_shard[name] for name in sorted(shards & {*mark_of_shard}))

    def groups(self, script_keys: Sequence[str], most: int = READS_A_SCRIPT) -> list[Sequence[str]]:
        """Return the keys in groups that one script may read or write: each key has a slot of its own."""
        return [(key,) for key in script_keys]

    def _shard_of(self, slot: int) -> str:
        """Return the name of the master that holds a slot; empty when it is unknown."""
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
