from __future__ import annotations

import asyncio

import pytest

from actors.runtime.actor.mailbox import Mailbox, MailboxFull, MailboxStatistics


def test_first_in_first_out() -> None:
    mailbox: Mailbox[int] = Mailbox(3)
    for item in (1, 2, 3):
        mailbox.put_nowait(item)
    assert [mailbox.get_nowait() for _ in range(3)] == [1, 2, 3]
    with pytest.raises(IndexError):
        mailbox.get_nowait()


def test_a_full_mailbox_refuses_and_loses_nothing() -> None:
    mailbox: Mailbox[int] = Mailbox(2)
    mailbox.put_nowait(1)
    mailbox.put_nowait(2)
    with pytest.raises(MailboxFull, match="2 messages"):
        mailbox.put_nowait(3)
    assert [mailbox.get_nowait(), mailbox.get_nowait()] == [1, 2]


def test_statistics_count_depth_peak_and_refusals() -> None:
    mailbox: Mailbox[int] = Mailbox(2)
    assert mailbox.statistics() == MailboxStatistics(capacity=2, depth=0, peak=0, received=0, refused=0)
    mailbox.put_nowait(1)
    mailbox.put_nowait(2)
    with pytest.raises(MailboxFull):
        mailbox.put_nowait(3)
    mailbox.get_nowait()
    assert mailbox.statistics() == MailboxStatistics(capacity=2, depth=1, peak=2, received=2, refused=1)
    assert mailbox.drain() == [2]
    assert mailbox.statistics() == MailboxStatistics(capacity=2, depth=0, peak=2, received=2, refused=1)


@pytest.mark.parametrize("capacity", [0, -1])
def test_a_mailbox_holds_at_least_one_message(capacity: int) -> None:
    with pytest.raises(ValueError, match="at least one"):
        Mailbox(capacity)


async def test_waiting_for_room_ends_when_an_item_is_taken() -> None:
    mailbox: Mailbox[int] = Mailbox(1)
    await mailbox.wait_for_room()
    mailbox.put_nowait(1)
    waiting = asyncio.create_task(mailbox.wait_for_room())
    await asyncio.sleep(0)
    assert not waiting.done()
    mailbox.get_nowait()
    async with asyncio.timeout(20):
        await waiting


async def test_many_waiting_senders_all_get_room_and_never_exceed_the_capacity() -> None:
    mailbox: Mailbox[int] = Mailbox(2)

    async def produce(item: int) -> None:
        await mailbox.wait_for_room()
        mailbox.put_nowait(item)

    producers = [asyncio.create_task(produce(item)) for item in range(20)]
    received: list[int] = []
    async with asyncio.timeout(20):
        while len(received) < 20:
            if len(mailbox):
                received.append(mailbox.get_nowait())
            await asyncio.sleep(0)
        await asyncio.gather(*producers)
    assert sorted(received) == list(range(20))
    assert mailbox.statistics().refused == 0
    assert mailbox.statistics().peak == 2


async def test_draining_makes_room_for_a_waiting_sender() -> None:
    mailbox: Mailbox[int] = Mailbox(1)
    mailbox.put_nowait(1)
    waiting = asyncio.create_task(mailbox.wait_for_room())
    await asyncio.sleep(0)
    assert mailbox.drain() == [1]
    async with asyncio.timeout(20):
        await waiting
