"""Who gets a turn when there are more guesses than wrong ones may be."""

from __future__ import annotations

import asyncio

import pytest

from actors.web_server.api.guess_budget import GuessBudget, TooManyGuesses
from tests.unit.support.waiting import until


async def test_right_guesses_use_no_tokens() -> None:
    budget = GuessBudget(0.001, 1, 10.0)
    for _ in range(1000):
        async with asyncio.timeout(5):
            await budget.turn("10.0.0.1")
        budget.give_back()


async def test_guesses_wait_when_wrong_ones_have_used_all_tokens() -> None:
    budget = GuessBudget(0.2, 3, 60.0)
    for _ in range(3):
        await budget.turn("10.0.0.1")
        budget.wrong("10.0.0.1")
    waits = asyncio.create_task(budget.turn("10.0.0.2"))
    await until(lambda: budget.waiting == 1)
    budget.give_back()  # one that was under way turns out to be right
    await waits


async def test_addresses_take_turns_however_many_guesses_one_sends() -> None:
    budget = GuessBudget(0.001, 1, 1e9)
    await budget.turn("10.0.0.1")
    order: list[str] = []

    async def guess(address: str, name: str) -> None:
        await budget.turn(address)
        order.append(name)

    tasks = [asyncio.create_task(guess("10.0.0.1", f"guesser {number}")) for number in range(50)]
    await until(lambda: budget.waiting == 50)
    tasks.append(asyncio.create_task(guess("10.0.0.2", "honest")))
    await until(lambda: budget.waiting == 51)
    for number in range(2):
        budget.give_back()
        await until(lambda wanted=number + 1: len(order) == wanted)  # type: ignore[misc]
    assert order == ["guesser 0", "honest"]
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_a_guess_that_would_wait_too_long_is_refused_with_a_retry_time() -> None:
    budget = GuessBudget(1.0, 1, 3.0)
    await budget.turn("10.0.0.1")
    tasks = [asyncio.create_task(budget.turn("10.0.0.1")) for _ in range(3)]
    await until(lambda: budget.waiting == 3)
    with pytest.raises(TooManyGuesses) as raised:
        await budget.turn("10.0.0.1")
    assert raised.value.seconds == 3
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_a_cancelled_guess_leaves_its_token_to_others() -> None:
    budget = GuessBudget(0.001, 1, 1e9)
    await budget.turn("10.0.0.1")
    goes, stays = (asyncio.create_task(budget.turn(address)) for address in ("10.0.0.1", "10.0.0.2"))
    await until(lambda: budget.waiting == 2)
    goes.cancel()
    await asyncio.gather(goes, return_exceptions=True)
    budget.give_back()
    async with asyncio.timeout(5):
        await stays
