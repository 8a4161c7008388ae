"""The broker's clock as this process knows it. Ages and deadlines go by it, not by this machine's clock."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Awaitable, Callable

from actors.runtime.telemetry.metrics import BROKER_CLOCK_OFFSET
from protocol.broker.streams import LEASE
from protocol.errors import BrokerUnavailable, NoResponders, NotPermitted
from protocol.times import parse_time

log = logging.getLogger("examwire.clock")

TOLERATED_SECONDS = 2.0
"""A larger difference between this machine's clock and the broker's is logged."""
ASK_SECONDS = 2.0

Ask = Callable[[str, float], Awaitable[bytes]]
"""Asks the broker: subject and timeout in seconds. Raises `BrokerUnavailable`, `NoResponders` or `NotPermitted`."""


class BrokerClock:
    """The time by the clock that stamps messages. `measure` asks for it; in between, a steady clock counts on.

    >>> now = bus.clock.now()   # seconds since the epoch, by the broker
    >>> age = now - delivery.stored_at

    `name` is this process's name in the log. `wall` is this machine's clock, `steady` one that nobody can set.
    """

    def __init__(
        self,
        name: str,
        ask: Ask,
        *,
        wall: Callable[[], float] = time.time,
        steady: Callable[[], float] = lambda: time.clock_gettime(time.CLOCK_BOOTTIME),
    ) -> None:
        self._name = name
        self._ask = ask
        self._wall = wall
        self._steady = steady
        self._ahead: float | None = None  # of the steady clock
        self._logged_offset: float | None = None
        self._refused = False

    @property
    def known(self) -> bool:
        """Whether the broker has been asked successfully."""
        return self._ahead is not None

    def now(self) -> float:
        """Seconds since the epoch by the broker; by this machine until `known`."""
        return self._wall() if self._ahead is None else self._steady() + self._ahead

    @property
    def offset(self) -> float:
        """How far this machine's clock is ahead of the broker's, in seconds; 0 until that is known."""
        return 0.0 if self._ahead is None else self._wall() - self.now()

    async def measure(self) -> None:
        """Ask the leader of LEASE, which every role may do, for its time.

        Raises `BrokerUnavailable`; the time known before stays in use. When the permission is missing, the process
        goes by its own clock and logs that.
        """
        subject = f"$JS.API.STREAM.INFO.{LEASE.name}"
        before = self._steady()
        try:
            answer = json.loads(await self._ask(subject, ASK_SECONDS))
        except NoResponders as error:
            raise BrokerUnavailable(f"the broker's time is not known: {error}") from error
        except NotPermitted as error:
            if not self._refused:
                self._refused = True
                log.error("%s uses this machine's clock: %s; write nats/permissions.conf again", self._name, error)
            return
        after = self._steady()
        if "ts" not in answer:
            raise BrokerUnavailable(f"stream {LEASE.name} does not return the broker's time")
        theirs = parse_time(answer["ts"])
        # The broker read its clock at some moment of the round trip. The offset changes only as far as it must: a slow
        # answer is an inexact one.
        least, most = theirs - after, theirs - before
        known = (least + most) / 2 if self._ahead is None else self._ahead
        self._ahead = min(max(known, least), most)
        BROKER_CLOCK_OFFSET.set(self.offset)
        self._log_offset()

    def _log_offset(self) -> None:
        """Log when this clock differs too much, when the difference changes, and when it is gone."""
        offset = self.offset
        if abs(offset) <= TOLERATED_SECONDS:
            if self._logged_offset is not None:
                log.warning("%s: this machine's clock agrees with the broker's again (%+.3f s)", self._name, offset)
            self._logged_offset = None
        elif self._logged_offset is None or abs(offset - self._logged_offset) > TOLERATED_SECONDS:
            self._logged_offset = offset
            side = "ahead of" if offset > 0 else "behind"
            log.error(
                "%s: this machine's clock is %.1f s %s the broker's: that one is used; synchronise the clocks (NTP)",
                self._name,
                abs(offset),
                side,
            )
