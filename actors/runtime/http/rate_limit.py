"""Limit how often an action is taken: so many times within so many seconds, for each key."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Hashable, Sequence

from starlette.requests import Request

from actors.runtime.http import client_addresses
from actors.runtime.http.client_addresses import Network, counted_as

MOST_KEYS = 50_000


class RateLimit:
    """A sliding window: `limit` times within any `seconds`, for each key, in this process only.

    `clock` returns seconds.

    Example::

        uploads = RateLimit(120, 60.0)
        if not uploads.wait("E001"):
            uploads.count("E001")
    """

    def __init__(self, limit: int, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._limit = limit
        self._seconds = seconds
        self._clock = clock
        self._times: dict[Hashable, deque[float]] = {}

    def wait(self, key: Hashable) -> int:
        """Return the whole seconds until the next action is allowed; 0: now."""
        times = self._recent(key)
        if times is None or len(times) < self._limit:
            return 0
        return max(1, math.ceil(times[0] + self._seconds - self._clock()))

    def count(self, key: Hashable) -> None:
        """Count one action. Actions beyond the limit do not prolong the wait."""
        times = self._recent(key)
        if times is None:
            if len(self._times) >= MOST_KEYS:
                self._evict()
            times = self._times[key] = deque(maxlen=self._limit)
        if len(times) < self._limit:
            times.append(self._clock())

    def _recent(self, key: Hashable) -> deque[float] | None:
        times = self._times.get(key)
        while times and times[0] <= self._clock() - self._seconds:
            times.popleft()
        return times

    def _evict(self) -> None:
        """Forget keys without recent actions, then the oldest keys down to half of `MOST_KEYS`."""
        for key in list(self._times):
            if not self._recent(key):
                del self._times[key]
        for key in list(self._times)[: max(0, len(self._times) - MOST_KEYS // 2)]:
            del self._times[key]


def client_address(request: Request, trusted_proxies: Sequence[Network]) -> str:
    """Return the client's address as the key of limits (`actors.runtime.http.client_addresses.counted_as`)."""
    peer = request.client.host if request.client is not None else ""
    return counted_as(
        client_addresses.client_address(peer, request.headers.getlist("x-forwarded-for"), trusted_proxies)
    )
