"""The end of the log, as far as a socket server knows it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from actors.socket_server.delivery import log_end
from actors.socket_server.delivery.log_end import NEAR, LogEnd
from protocol.log.version import version_of

KNOWN = 1_700_000_000_000


class Bus:
    """A broker whose log ends at `last`. `asked`: how often it was asked."""

    def __init__(self) -> None:
        self.last, self.asked = KNOWN, 0
        self.on_reconnected: list[Any] = []

    async def last_sequence(self, subject: str) -> int:
        self.asked += 1
        return self.last


@pytest.fixture(autouse=True)
def ages_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer of the broker is old when the next version comes."""
    monkeypatch.setattr(log_end, "ASK_SECONDS", 0.0)


async def test_a_version_a_little_ahead_is_passed_on_before_the_broker_is_asked() -> None:
    bus = Bus()
    context = SimpleNamespace(bus=bus, outbox=SimpleNamespace(last_sequence=0), server_id="SOCK001")
    end = LogEnd(cast(Any, context))
    assert await end.has_reached(version_of(KNOWN, 0))
    assert not await end.has_reached(version_of(KNOWN + NEAR + 1, 0))
    assert bus.asked == 2
    bus.last += NEAR
    assert await end.has_reached(version_of(KNOWN + 1, 0))
    await end.look_again()
    assert bus.asked == 2, "a lone event costs no request"
    assert await end.has_reached(version_of(KNOWN + NEAR, 0))
    assert bus.asked == 2, "the proctors need not wait for the answer"
    await end.look_again()
    await end.look_again()
    assert bus.asked == 3
    assert not await end.has_reached(version_of(KNOWN + NEAR + NEAR + 1, 0)), "what is ahead is counted from the answer"


async def test_after_a_new_connection_the_broker_is_asked_first() -> None:
    """It may have been restored from an older copy."""
    bus = Bus()
    context = SimpleNamespace(bus=bus, outbox=SimpleNamespace(last_sequence=KNOWN), server_id="SOCK001")
    end = LogEnd(cast(Any, context))
    for callback in bus.on_reconnected:
        await callback()
    bus.last += 1
    assert await end.has_reached(version_of(KNOWN + 1, 0))
    assert bus.asked == 1
