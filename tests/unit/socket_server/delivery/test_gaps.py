"""Which consumers may have lost messages that the stream has dropped."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from actors.runtime.broker.stream_state import StreamState
from actors.socket_server.delivery.gaps import GapWatch
from protocol.errors import NotPermitted
from protocol.messages.progress import PartitionApplied


def look(
    gaps: GapWatch, first: int, last: int, up_to: int, pending: int, *, size: int = 990, max_age: float = 0.0
) -> list[str]:
    stream = StreamState(first, last, last - first + 1, size, limit=1000, max_age=max_age)
    return gaps.with_gaps(stream, {"SOCK001_Q": PartitionApplied(up_to=up_to, pending=pending)})


@pytest.fixture
def gaps() -> GapWatch:
    return GapWatch(cast(Any, None))


def test_what_was_read_before_it_was_dropped_is_no_gap(gaps: GapWatch) -> None:
    assert look(gaps, 1, 100, 0, 0) == []  # nothing for this server yet
    assert look(gaps, 101, 300, 0, 0) == []
    assert look(gaps, 101, 400, 250, 3) == []
    assert look(gaps, 251, 500, 499, 1) == []


def test_what_was_dropped_unread_is_a_gap_once(gaps: GapWatch) -> None:
    assert look(gaps, 1, 100, 50, 7) == []
    assert look(gaps, 80, 200, 200, 0) == ["SOCK001_Q"]
    assert look(gaps, 80, 200, 200, 0) == []


def test_a_consumer_that_is_still_overtaken_is_named_when_it_reads_again(gaps: GapWatch) -> None:
    assert look(gaps, 1, 100, 50, 7) == []
    for first in (80, 180, 280):
        assert look(gaps, first, first + 100, 50, 9) == []
    assert look(gaps, 280, 400, 300, 2) == ["SOCK001_Q"]


def test_what_a_purge_has_deleted_is_no_gap(gaps: GapWatch) -> None:
    assert look(gaps, 1, 100, 100, 0, size=200, max_age=60) == []
    assert look(gaps, 131, 130, 130, 0, size=0, max_age=60) == [], "read and deleted since the last look"


def test_what_was_too_old_unread_is_a_gap(gaps: GapWatch, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr("actors.socket_server.delivery.gaps.time", SimpleNamespace(monotonic=lambda: now))
    assert look(gaps, 1, 100, 50, 9, size=200, max_age=60) == []
    now += 30
    assert look(gaps, 1, 120, 50, 29, size=200, max_age=60) == []
    now += 31
    assert look(gaps, 101, 130, 130, 0, size=100, max_age=60) == ["SOCK001_Q"]


async def test_without_permission_nobody_is_asked_again() -> None:
    asked: list[str] = []

    class Refusing:
        async def stream_state(self, name: str) -> StreamState:
            asked.append(name)
            raise NotPermitted("no")

    gaps = GapWatch(cast(Any, Refusing()))
    assert await gaps.stream_state() is None
    assert await gaps.stream_state() is None
    assert asked == ["SOCKET"]
