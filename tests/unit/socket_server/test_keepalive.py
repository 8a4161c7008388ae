"""The sweep over a server's sockets: silence is that of the peer, never that of a loop which did not listen."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any, cast

import pytest

from actors.runtime.config.sections import SocketSettings
from actors.sessions.websocket import WebSocketConnection
from actors.socket_server.keepalive import SLICE, TURNS, Keepalive

TIMEOUT = 0.16
QUICK = SocketSettings(ping_interval_seconds=TIMEOUT, ping_timeout_seconds=TIMEOUT)


class Peer:
    """The part of a `WebSocketConnection` that the sweep deals with; answers come through the loop, as a pong does."""

    def __init__(self, answers: Callable[[], bool] = lambda: True) -> None:
        self.loop = asyncio.get_running_loop()
        self.last_heard = self.loop.time()
        self.pinged_at: float | None = None
        self.answers = answers
        self.held = False
        self.last_taken, self.looks_without_taking = self.last_heard, 0
        self.broken: str | None = None
        self.pings = 0

    def ping_now(self, now: float) -> None:
        self.pings += 1
        self.pinged_at = now
        if self.answers():
            self.loop.call_later(0.01, self._heard)

    def _heard(self) -> None:
        self.last_heard, self.pinged_at = self.loop.time(), None

    def look(self, now: float) -> None:
        """Nothing waits for it."""

    @property
    def is_over(self) -> bool:
        return self.broken is not None

    def break_off(self, reason: str) -> None:
        assert self.broken is None, "once"
        self.broken = reason


def sweep_of(peers: list[Peer], settings: SocketSettings = QUICK) -> Keepalive:
    return Keepalive(settings, lambda: cast(list[WebSocketConnection], peers))


def stand_still(seconds: float) -> None:
    """Hold the event loop, as a snapshot of ten thousand does, or SIGSTOP."""
    time.sleep(seconds)


async def swept_until(sweep: Keepalive, condition: Callable[[], bool], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        await sweep.once()


async def test_who_does_not_answer_a_ping_is_broken_off_and_nobody_else_is() -> None:
    peers = [Peer() for _ in range(3 * SLICE)]
    silent = peers[100]
    silent.answers = lambda: False
    sweep = sweep_of(peers)
    await swept_until(sweep, lambda: silent.broken is not None)
    assert silent.broken == "PING_TIMEOUT"
    assert silent.pings == 1
    before = min(peer.pings for peer in peers if peer is not silent)
    await swept_until(sweep, lambda: min(peer.pings for peer in peers if peer is not silent) > before)
    assert [peer for peer in peers if peer.broken is not None] == [silent]


async def test_a_loop_that_stood_still_cuts_nobody_who_would_have_answered() -> None:
    peers = [Peer() for _ in range(3 * SLICE)]
    sweep = sweep_of(peers)
    await swept_until(sweep, lambda: all(peer.pings for peer in peers))
    for _ in range(3):
        stand_still(3 * TIMEOUT)
        await sweep.once()
    await swept_until(sweep, lambda: all(peer.pings > 1 for peer in peers))
    assert all(peer.broken is None for peer in peers)


async def test_a_stand_still_between_a_ping_and_its_answer_counts_as_one_look() -> None:
    peer = Peer(lambda: False)
    sweep = sweep_of([peer])
    await swept_until(sweep, lambda: peer.pings == 1)
    for _ in range(TURNS - 2):
        stand_still(2 * TIMEOUT)  # the loop is always late, and yet nobody is broken off before so many looks
        await sweep.once()
        assert peer.broken is None
    await swept_until(sweep, lambda: peer.broken is not None)  # nor does a busy loop make the dead immortal


async def test_whose_answers_are_not_read_gets_another_round() -> None:
    peer = Peer(lambda: False)
    peer.held = True
    sweep = sweep_of([peer])
    await swept_until(sweep, lambda: peer.pings == 1)
    asked = peer.pinged_at
    await swept_until(sweep, lambda: peer.pinged_at != asked)
    assert peer.broken is None
    peer.held = False
    await swept_until(sweep, lambda: peer.broken is not None)


@pytest.mark.parametrize("many", [2_000, 15_000])
async def test_the_sweep_of_many_keeps_its_period(many: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the number of slices, a round ends by its own clock: what each timer is late does not add up."""
    peers = [Peer() for _ in range(many)]
    sweep = sweep_of(peers, SocketSettings())
    slept: list[float] = []
    sleep = asyncio.sleep

    async def late(seconds: float, *result: Any) -> None:
        slept.append(seconds)
        await sleep(seconds + 0.002, *result)

    monkeypatch.setattr(asyncio, "sleep", late)
    await sweep.once()
    assert len(slept) == -(-many // SLICE)
    assert sum(slept) <= 0.5 + 1e-6
