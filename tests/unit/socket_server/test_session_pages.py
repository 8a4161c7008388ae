from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from actors.runtime.actor.actor import Actor
from actors.socket_server.sessions import MAX_PAGE, page_of
from protocol.errors import ProtocolError


class Examinee(Actor):
    kind = "examinee-session"

    def __init__(self, number: int, plan_id: str = "P001") -> None:
        super().__init__(f"session.{plan_id}.E{number:04}")
        self.plan_id = plan_id


class Proctor(Examinee):
    kind = "proctor-session"


async def page(sessions: list[Actor], **query: Any) -> dict[str, Any]:
    answer: dict[str, Any] = json.loads(await page_of(sessions, query))
    return answer


async def everybody(sessions: list[Actor], **query: Any) -> list[str]:
    addresses: list[str] = []
    after: int | None = 0
    while after is not None:
        answer = await page(sessions, after=after, **query)
        addresses += [session["address"] for session in answer["sessions"]]
        after = answer["next"]
    return addresses


async def test_pages_hold_everybody_once_in_the_order_of_arrival() -> None:
    sessions: list[Actor] = [Examinee(number) for number in range(107)]
    shuffled = sessions[50:] + sessions[:50]
    assert await everybody(shuffled, limit=10) == [session.address for session in sessions]


async def test_the_last_page_says_that_it_is_the_last() -> None:
    sessions: list[Actor] = [Examinee(number) for number in range(20)]
    first = await page(sessions, limit=10)
    last = await page(sessions, limit=10, after=first["next"])
    assert (first["total"], len(first["sessions"]), len(last["sessions"]), last["next"]) == (20, 10, 10, None)
    assert await page([], limit=10) == {"total": 0, "next": None, "sessions": []}


async def test_paging_neither_misses_nor_doubles_sessions_that_stay() -> None:
    sessions: list[Actor] = [Examinee(number) for number in range(60)]
    staying = {session.address for session in sessions[::2]}
    addresses: list[str] = []
    after: int | None = 0
    while after is not None:
        answer = await page(sessions, after=after, limit=7)
        addresses += [session["address"] for session in answer["sessions"]]
        after = answer["next"]
        leaving = [session for session in sessions if session.address not in staying][:3]
        sessions = [session for session in sessions if session not in leaving] + [Examinee(900 + len(addresses))]
        if len(addresses) > 200:
            break
    assert len(addresses) == len(set(addresses))
    assert staying <= set(addresses)


async def test_a_plan_and_a_kind_can_be_asked_for() -> None:
    sessions: list[Actor] = [Examinee(1), Examinee(2, "P002"), Proctor(3), Proctor(4, "P002")]
    assert await everybody(sessions, plan_id="P002") == ["session.P002.E0002", "session.P002.E0004"]
    assert await everybody(sessions, kind="proctor-session", planId="P001") == ["session.P001.E0003"]


async def test_a_page_may_skip_sessions_or_be_empty() -> None:
    sessions: list[Actor] = [Examinee(number) for number in range(30)]
    assert [session["address"] for session in (await page(sessions, offset=28, limit=10))["sessions"]] == [
        "session.P001.E0028",
        "session.P001.E0029",
    ]
    assert await page(sessions, limit=0) == {"total": 30, "next": None, "sessions": []}


async def test_no_page_is_longer_than_the_longest() -> None:
    sessions: list[Actor] = [Examinee(number) for number in range(MAX_PAGE + 10)]
    answer = await page(sessions, limit=10_000)
    assert len(answer["sessions"]) == MAX_PAGE
    assert answer["next"] == sessions[MAX_PAGE - 1].serial


async def test_others_get_their_turn_while_a_page_is_built() -> None:
    sessions: list[Actor] = [Examinee(number) for number in range(500)]
    turns = 0
    page_built = False

    async def other() -> None:
        nonlocal turns
        while not page_built:
            turns += 1
            await asyncio.sleep(0)

    beside = asyncio.create_task(other())
    await page(sessions, limit=500)
    page_built = True
    await beside
    assert turns >= 500 / 25


@pytest.mark.parametrize("asked", [{"limit": "many"}, {"offset": -1}, {"planId": "P 1"}, [], "all"])
async def test_an_invalid_query_is_named(asked: Any) -> None:
    with pytest.raises(ProtocolError, match="sessions"):
        await page_of([], asked)
