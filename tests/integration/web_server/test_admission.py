"""What an examinee's page asks the web server: its own picture, and whether it may come back."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from redis.asyncio import Redis

from actors.runtime.broker.connection import Bus
from actors.runtime.config.settings import Settings
from actors.runtime.store.state_store import StateStore
from protocol.messages.frames import Role
from protocol.records import keys
from tests.integration.support.clients.phones import Site, capture_path, open_site, picture, problem

ADMISSION = "/v1/plans/P001/examinees/E001/admission"


@pytest.fixture
async def site(settings: Settings, bus: Bus, store: StateStore) -> AsyncIterator[Site]:
    async with open_site(settings, bus, store) as site:
        yield site


async def recorded(settings: Settings, **fields: str) -> None:
    """The progress record of E001, as the state manager would have written it."""
    redis = Redis.from_url(settings.redis_url)
    await redis.hset(keys.progress("P001", "E001"), items=[part for pair in fields.items() for part in pair])
    await redis.aclose()


async def admitted(site: Site) -> bool:
    response = await site.http.get(ADMISSION, headers=site.bearer("examinee"))
    assert response.status_code == 200
    assert response.headers["cache-control"] == "no-store"
    answer = response.json()
    assert set(answer) == {"admitted"}
    return bool(answer["admitted"])


async def test_an_examinee_sees_the_own_picture(site: Site) -> None:
    content = picture()
    await site.put(content)
    response = await site.http.get(capture_path(), headers=site.bearer("examinee"))
    assert (response.status_code, response.content) == (200, content)


async def test_admission_shows_a_readmission_by_a_proctor(site: Site, settings: Settings) -> None:
    assert await admitted(site)  # never seen: nothing stands against it
    await recorded(settings, exhausted="1", removed="0")
    assert not await admitted(site)
    await recorded(settings, exhausted="0", removed="1")
    assert not await admitted(site)
    await recorded(settings, exhausted="0", removed="0")
    assert await admitted(site)


@pytest.mark.parametrize(
    ("role", "subject", "plan_id"),
    [("examinee", "E002", "P001"), ("examinee", "E001", "P002"), ("mobile", "E001", "P001"), ("proctor", "T1", "P001")],
)
async def test_nobody_asks_for_another(site: Site, role: Role, subject: str, plan_id: str) -> None:
    response = await site.http.get(ADMISSION, headers=site.bearer(role, subject, plan_id))
    assert (response.status_code, problem(response)["code"]) == (403, "FORBIDDEN")
    bare = await site.http.get(ADMISSION)
    assert (bare.status_code, problem(bare)["code"]) == (401, "UNAUTHORIZED")


async def test_an_id_that_can_be_none_is_named(site: Site) -> None:
    response = await site.http.get("/v1/plans/P.1/examinees/E001/admission", headers=site.bearer("examinee"))
    assert (response.status_code, problem(response)["field"]) == (400, "planId")


async def test_without_redis_it_is_not_known(site: Site, settings: Settings) -> None:
    redis = Redis.from_url(settings.redis_url)
    await redis.flushall()  # emptied: what it says may not be believed
    await redis.aclose()
    response = await site.http.get(ADMISSION, headers=site.bearer("examinee"))
    assert (response.status_code, problem(response)["code"]) == (503, "UNAVAILABLE")
    assert int(response.headers["retry-after"]) > 0
