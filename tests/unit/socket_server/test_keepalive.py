"""The keepalive: silence counts only while the event loop was listening."""

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
    """The part of a `WebSocketConnection` that the keepalive uses; answers come through the loop, as a pong does."""

    def __init__(self, answers: Callable[[], bool] = lambda: True) -> None:
        self.loop = asyncio.get_running_loop()
        self.last_heard = self.loop.time()
        self.pinged_at: float | None = None
        self.answers = answers
        self.reading_paused = self.may_wait = False
        self.last_progress, self.checks_without_progress = self.last_heard, 0
        self.aborted: str | None = None
        self.pings = 0

    def ping_now(self, now: float) -> None:
        self.pings += 1
        self.pinged_at = now
        if self.answers():
            self.loop.call_later(0.01, self._heard)

    def _heard(self) -> None:
        self.last_heard, self.pinged_at = self.loop.time(), None

    def extend_ping(self, now: float) -> None:
        self.pinged_at = now

    def check_progress(self, now: float) -> None:
        """Nothing waits for this peer."""

    @property
    def is_over(self) -> bool:
        return self.aborted is not None

    def abort(self, reason: str) -> None:
        assert self.aborted is None, "once"
        self.aborted = reason


def keepalive_of(peers: list[Peer], settings: SocketSettings = QUICK) -> Keepalive:
    return Keepalive(settings, lambda: cast(list[WebSocketConnection], peers))


def block_loop(seconds: float) -> None:
    """Block the event loop, as SIGSTOP does."""
    time.sleep(seconds)


async def check_until(keepalive: Keepalive, condition: Callable[[], bool], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        await keepalive.check_all()


async def test_a_client_that_does_not_answer_a_ping_is_dropped_and_no_other() -> None:
    peers = [Peer() for _ in range(3 * SLICE)]
    silent = peers[100]
    silent.answers = lambda: False
    keepalive = keepalive_of(peers)
    await check_until(keepalive, lambda: silent.aborted is not None)
    assert silent.aborted == "PING_TIMEOUT"
    assert silent.pings == 1
    before = min(peer.pings for peer in peers if peer is not silent)
    await check_until(keepalive, lambda: min(peer.pings for peer in peers if peer is not silent) > before)
    assert [peer for peer in peers if peer.aborted is not None] == [silent]


async def test_a_blocked_loop_drops_no_client_that_would_have_answered() -> None:
    peers = [Peer() for _ in range(3 * SLICE)]
    keepalive = keepalive_of(peers)
    await check_until(keepalive, lambda: all(peer.pings for peer in peers))
    for _ in range(3):
        block_loop(3 * TIMEOUT)
        await keepalive.check_all()
    await check_until(keepalive, lambda: all(peer.pings > 1 for peer in peers))
    assert all(peer.aborted is None for peer in peers)


async def test_a_blocked_loop_between_a_ping_and_its_answer_counts_as_one_turn() -> None:
    peer = Peer(lambda: False)
    keepalive = keepalive_of([peer])
    await check_until(keepalive, lambda: peer.pings == 1)
    for _ in range(TURNS - 2):
        block_loop(2 * TIMEOUT)  # the loop is always late, and yet nobody is dropped before so many turns
        await keepalive.check_all()
        assert peer.aborted is None
    await check_until(keepalive, lambda: peer.aborted is not None)  # but it keeps no dead connection


async def test_a_client_whose_answers_wait_unread_gets_another_ping_timeout() -> None:
    peer = Peer(lambda: False)
    peer.reading_paused = True
    keepalive = keepalive_of([peer])
    await check_until(keepalive, lambda: peer.pings == 1)
    pinged_at = peer.pinged_at
    await check_until(keepalive, lambda: peer.pinged_at != pinged_at)
    assert peer.aborted is None
    peer.reading_paused = False
    await check_until(keepalive, lambda: peer.aborted is not None)


@pytest.mark.parametrize("many", [2_000, 15_000])
async def test_checking_many_connections_takes_one_period(many: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The delays of the timers between the slices do not add up."""
    peers = [Peer() for _ in range(many)]
    keepalive = keepalive_of(peers, SocketSettings())
    slept: list[float] = []
    sleep = asyncio.sleep

    async def late(seconds: float, *result: Any) -> None:
        slept.append(seconds)
        await sleep(seconds + 0.002, *result)

    monkeypatch.setattr(asyncio, "sleep", late)
    await keepalive.check_all()
    assert len(slept) == -(-many // SLICE)
    assert sum(slept) <= 0.5 + 1e-6
