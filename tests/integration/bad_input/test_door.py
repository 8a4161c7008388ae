"""Who is refused before there is a WebSocket: origin, path, and how fast they come."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from websockets.exceptions import InvalidStatus

from actors.runtime.broker.connection import Bus
from actors.runtime.config.settings import Settings, load_settings
from protocol.errors import ConfigurationError
from tests.integration.bad_input.support import Neighbours
from tests.integration.support.system import RawClient, System, eventually


async def status_of(url: str, **options: Any) -> tuple[int, str | None]:
    """The HTTP status and Retry-After that a handshake is answered with."""
    with pytest.raises(InvalidStatus) as refusal:
        await RawClient.open(url, **options)
    response = refusal.value.response
    return response.status_code, response.headers.get("Retry-After")


async def test_a_wrong_origin_or_path_is_refused_before_there_is_a_websocket(
    system: System, neighbours: Neighbours
) -> None:
    url = system.server("SOCK001").url
    for origin in ("https://evil.example", "null", "http://127.0.0.1.evil.example", "http://[", "nonsense", "http://"):
        assert await status_of(url, origin=origin) == (403, None), origin
    base = url.removesuffix("/v1/connect")
    for path in ("/", "/v1/connect/", "/v1/connected", "/v2/connect", "//[", "/%2e%2e/v1/connect"):
        assert await status_of(base + path) == (404, None), path
    own = await RawClient.open(url, origin=url.replace("ws://", "http://").removesuffix("/v1/connect"))
    await own.close()


async def test_a_client_over_the_handshake_rate_gets_retry_after(bus: Bus, settings: Settings) -> None:
    slow = settings.model_copy(
        update={"socket": settings.socket.model_copy(update={"accept_per_second": 5.0, "max_connections": 5})}
    )
    async with System(slow, servers=("SOCK001",)) as system:
        proctor = await system.proctor()
        url = system.server("SOCK001").url
        answers = await asyncio.gather(*(RawClient.open(url) for _ in range(12)), return_exceptions=True)
        inside = [answer for answer in answers if isinstance(answer, RawClient)]
        outside = [answer for answer in answers if isinstance(answer, InvalidStatus)]
        assert len(inside) + len(outside) == 12
        assert 1 <= len(inside) <= 5
        for refusal in outside:
            assert refusal.response.status_code == 503
            assert int(refusal.response.headers["Retry-After"]) >= 1
        for client in inside:
            await client.close()

        async def let_in() -> RawClient | None:
            try:
                return await RawClient.open(url)
            except InvalidStatus:
                return None

        second_client = await eventually(let_in, "there is room a moment later")
        await second_client.close()
        before = len(proctor.frames)
        await proctor.say("heartbeat")
        await proctor.expect("heartbeat", after=before)
        assert system.failures == []


async def test_a_rate_below_one_per_second_still_accepts_a_client(bus: Bus, settings: Settings) -> None:
    rare = settings.model_copy(update={"socket": settings.socket.model_copy(update={"accept_per_second": 0.01})})
    async with System(rare, servers=("SOCK001",)) as system:
        await system.examinee("E001")
        assert (await status_of(system.server("SOCK001").url))[0] == 503


def test_a_rate_of_zero_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"socket\.accept_per_second"):
        load_settings(**{"socket.accept_per_second": 0})
