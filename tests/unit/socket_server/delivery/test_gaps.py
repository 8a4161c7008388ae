"""Which consumers may have lost messages that the stream has dropped."""

from __future__ import annotations

from typing import Any, cast

import pytest

from actors.runtime.broker.stream_state import StreamState
from actors.socket_server.delivery.gaps import GapWatch
from protocol.errors import NotPermitted
from protocol.messages.progress import PartitionApplied


def look(gaps: GapWatch, first: int, last: int, up_to: int, pending: int) -> list[str]:
    stream = StreamState(first, last, last - first + 1, 0)
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
