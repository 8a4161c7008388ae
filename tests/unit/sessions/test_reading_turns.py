"""Reading and handling in turns: so much in one turn of the event loop, and nobody's trouble is another's."""

from __future__ import annotations

import asyncio
import logging
import time

import pytest

from actors.sessions.limits.reading_turns import HANDLED_BYTES, TURN_SECONDS, ReadingTurns


async def test_so_much_is_read_in_one_turn_of_the_loop_and_nothing_is_forgotten() -> None:
    turns, read = ReadingTurns(), []

    def reader(number: int) -> None:
        until = time.perf_counter() + TURN_SECONDS * 1.1
        while time.perf_counter() < until:
            pass
        read.append(number)

    for number in range(5):
        turns.read(lambda number=number: reader(number))  # type: ignore[misc]
    for turn in range(5):
        assert read == list(range(turn))
        await asyncio.sleep(0)
    assert read == [0, 1, 2, 3, 4]


async def test_a_reader_that_comes_again_waits_behind_the_others() -> None:
    turns, read = ReadingTurns(), []

    def again() -> None:
        read.append("first of two")
        turns.read(lambda: read.append("second of two"))

    turns.read(again)
    turns.read(lambda: read.append("other"))
    for _ in range(3):
        await asyncio.sleep(0)
    assert read == ["first of two", "other", "second of two"]


async def test_a_failing_connection_does_not_stop_the_others(caplog: pytest.LogCaptureFixture) -> None:
    turns, read = ReadingTurns(), []
    turns.read(lambda: [].pop())
    turns.read(lambda: read.append(1))
    with caplog.at_level(logging.ERROR, "examwire.reading_turns"):
        for _ in range(3):
            await asyncio.sleep(0)
    assert read == [1]
    assert len(caplog.records) == 1


async def test_one_large_message_is_handled_in_a_turn_and_several_small_ones() -> None:
    turns, handled = ReadingTurns(), []

    async def handle(size: int) -> None:
        await turns.handle(size)
        handled.append(size)

    sizes = [HANDLED_BYTES] * 3 + [10] * 4
    tasks = [asyncio.create_task(handle(size)) for size in sizes]
    cancelled_task = tasks.pop(1)
    turn_sizes = []
    async with asyncio.timeout(10):
        await asyncio.sleep(0)
        cancelled_task.cancel()
        while len(handled) < len(tasks):
            await asyncio.sleep(0)
            turn_sizes.append(list(handled))
    assert [HANDLED_BYTES] in turn_sizes
    assert [HANDLED_BYTES] * 2 in turn_sizes
    assert handled == [HANDLED_BYTES] * 2 + [10] * 4
    assert turn_sizes[-2] != handled[:-1], "small ones come together"
