"""Wait until the socket servers of `examwire up` are recorded in Redis, also while a lost Redis is repaired."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Collection

from actors.runtime.config.sections import RedisSettings
from actors.runtime.store.repair_marks import Whole
from actors.runtime.store.state_store import StateStore
from protocol.errors import RoleFailed, StateUnavailable
from protocol.log.gap import LogGap
from protocol.times import parse_time

log = logging.getLogger("examwire.up")

RECORDED_SECONDS = 15.0
REPAIR_SECONDS = 30.0
"""For so long the plans with live sessions are waited for; the roles answer already."""
SAY_SECONDS = 5.0
LOOK_SECONDS = 0.05


class RecordedServers:
    """Waits for socket servers to be READY. `began`: when the system was started, seconds since the epoch.

    `gap`: the log was behind Redis, and was mended since. `plans_whole`: Redis is still being repaired, and so many
    plans can be read already; `None`: it is not.

    Example::

        recorded = RecordedServers(redis_url, settings.redis, began)
        await recorded.wait({("SOCK001", "ws://127.0.0.1:8081/v1/connect")})
    """

    def __init__(self, redis_url: str, options: RedisSettings, began: float) -> None:
        self._store = StateStore(redis_url, options)
        self._began = began
        self._said_at = time.monotonic()
        self.gap: LogGap | None = None
        self.plans_whole: int | None = None

    async def wait(self, expected: Collection[tuple[str, str]]) -> None:
        """Wait for servers, each an id with its address. Raises `RoleFailed`."""
        missing = {*expected}
        began = time.monotonic()
        deadline = began + RECORDED_SECONDS
        try:
            while missing and self.plans_whole is None:
                with contextlib.suppress(StateUnavailable):  # an external Redis may start later
                    whole = await self._store.mark.whole_so_far()
                    if whole.being_repaired:
                        deadline = time.monotonic() + RECORDED_SECONDS
                        self._wait_for_repair(whole, time.monotonic() - began)
                    if (await self._store.log_mark.read()).mending:  # a million missing messages take a minute
                        deadline = time.monotonic() + RECORDED_SECONDS
                        self._say(
                            "the log is behind Redis and is being mended: %.0f s so far", time.monotonic() - began
                        )
                    records = await self._store.servers()
                    ready = {
                        (record["serverId"], record.get("url"))
                        for record in records
                        if record.get("statusCode") == "READY"
                    }
                    missing = {*expected} - ready
                if time.monotonic() > deadline:
                    names = ", ".join(sorted(server_id for server_id, _ in missing))
                    raise RoleFailed(
                        f"{names} announced READY, but it did not reach Redis within {RECORDED_SECONDS:g} s: "
                        "see the state manager's log on stderr"
                    )
                await asyncio.sleep(LOOK_SECONDS)
            gap = await self._store.log_mark.gap()
            if gap is not None and parse_time(gap.timestamp) > self._began:
                self.gap = gap
            # Each of them reads the addresses of the others this soon (`ready_servers.EARLY_SECONDS`).
            await asyncio.sleep(0.25)
        finally:
            await self._store.close()

    def _wait_for_repair(self, whole: Whole, waited: float) -> None:
        """Say now and then how far the repair is; after `REPAIR_SECONDS` go on without its end."""
        text = "Redis has lost its state and is being repaired: %d plans are whole after %.0f s"
        self._say(text, whole.plans, waited)
        if waited > REPAIR_SECONDS:
            self.plans_whole = whole.plans

    def _say(self, text: str, *values: float) -> None:
        """Log something that lasts, every `SAY_SECONDS`."""
        now = time.monotonic()
        if now - self._said_at >= SAY_SECONDS:
            self._said_at = now
            log.warning(text, *values)
