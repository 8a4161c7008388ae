"""The marks of shards that are checked with the keys of a read."""

from __future__ import annotations

from types import SimpleNamespace

from redis.crc import REDIS_CLUSTER_HASH_SLOTS, key_slot

from actors.runtime.store.shards import PARTS, OneServer, Shards
from protocol.records import keys


def cluster(*ends: int) -> SimpleNamespace:
    """What the client of a cluster knows: masters a, b, ..., each with the slots up to an end."""
    slots: dict[int, list[SimpleNamespace]] = {}
    first = 0
    for name, end in zip("abcdefgh", ends, strict=False):
        slots |= {slot: [SimpleNamespace(name=name)] for slot in range(first, end)}
        first = end
    return SimpleNamespace(nodes_manager=SimpleNamespace(slots_cache=slots))


def holder(nodes: SimpleNamespace, key: str) -> str:
    return str(nodes.nodes_manager.slots_cache[key_slot(key.encode())][0].name)


EXAMINEES = [keys.progress("P001", f"E{number:03}") for number in range(200)]


def test_a_server_has_one_mark() -> None:
    assert OneServer().marks_of(EXAMINEES) == OneServer.marks == (keys.STATE,)


def test_the_marks_of_a_cluster_are_spread_over_all_slots() -> None:
    parts = sorted(key_slot(mark.encode()) * PARTS // REDIS_CLUSTER_HASH_SLOTS for mark in Shards(cluster()).marks)
    assert parts == list(range(PARTS))


def test_each_shard_with_a_read_key_is_checked_by_one_of_its_marks() -> None:
    nodes = cluster(5461, 10923, REDIS_CLUSTER_HASH_SLOTS)
    shards = Shards(nodes)
    assert [holder(nodes, mark) for mark in shards.marks_of(EXAMINEES)] == ["a", "b", "c"]
    for key in EXAMINEES:
        (mark,) = shards.marks_of([key])
        assert holder(nodes, mark) == holder(nodes, key)


def test_marks_are_checked_on_the_shard_that_they_have_moved_to() -> None:
    nodes = cluster(5461, 10923, REDIS_CLUSTER_HASH_SLOTS)
    shards = Shards(nodes)
    before = set(shards.marks_of(EXAMINEES))
    nodes.nodes_manager.slots_cache = cluster(256, 10923, REDIS_CLUSTER_HASH_SLOTS).nodes_manager.slots_cache
    marks = shards.marks_of(EXAMINEES)
    assert {holder(nodes, mark) for mark in marks} == {"a", "b", "c"}
    assert set(marks) != before


def test_all_marks_are_checked_while_the_shards_are_unknown() -> None:
    shards = Shards(cluster())
    assert shards.marks_of(EXAMINEES[:1]) == shards.marks
