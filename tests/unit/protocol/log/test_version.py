"""Versions and partitions: a message's place in STATUS as a number, and who works it off."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.log.partitions import PARTITIONS, partition_of
from protocol.log.version import floor_version, index_of, sequence_of, version_of


@given(st.integers(0, 2**45), st.integers(0, 255))
def test_a_version_contains_its_sequence_and_increases_with_it(sequence: int, index: int) -> None:
    version = version_of(sequence, index)
    assert (sequence_of(version), index_of(version)) == (sequence, index)
    assert version_of(sequence) <= version <= floor_version(sequence) < version_of(sequence + 1)


@pytest.mark.parametrize("index", [-1, 256])
def test_an_index_outside_a_batch_has_no_version(index: int) -> None:
    with pytest.raises(ValueError, match="outside a batch"):
        version_of(1, index)


def test_versions_are_exact_in_javascript_and_redis_until_the_year_3000() -> None:
    ms_of_year_3000 = 32_503_680_000_000
    assert floor_version(ms_of_year_3000) < 2**53


def test_the_floor_of_a_message_is_the_version_of_its_last_place() -> None:
    assert floor_version(7) == version_of(7, 255) == version_of(8) - 1


@pytest.mark.parametrize(("plan_id", "partition"), [("P001", 2), ("P002", 7), ("exam-2026", 3), ("", 5)])
def test_the_partition_of_a_plan_is_what_nats_computes(plan_id: str, partition: int) -> None:
    """FNV-1a, 32 bits, modulo the number of partitions; the empty string gives the offset basis."""
    assert PARTITIONS == 8
    assert partition_of(plan_id) == partition
