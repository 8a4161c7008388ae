"""The broker's clock, as this process knows it: what ages and deadlines go by, whatever this machine's clock says."""

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
"""A machine whose clock differs by more says so."""
ASK_SECONDS = 2.0

Ask = Callable[[str, float], Awaitable[bytes]]
"""Asks the broker: subject and timeout in seconds. Raises `BrokerUnavailable`, `NoResponders` or `NotPermitted`."""


class BrokerClock:
    """The time by the clock that stamps the log. `measure` compares; between two measurements a steady clock counts.

    >>> now = bus.clock.now()   # seconds since the epoch, by the broker
    >>> age = now - delivery.stored_at

    `name` is whose process this is, for the log. `wall` is this machine's clock, `steady` one that nobody sets.
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
        self._told: float | None = None
        self._refused = False

    @property
    def known(self) -> bool:
        """Whether the broker has said what time it is."""
        return self._ahead is not None

    def now(self) -> float:
        """Seconds since the epoch by the broker; by this machine until the broker has said what time it is."""
        return self._wall() if self._ahead is None else self._steady() + self._ahead

    @property
    def offset(self) -> float:
        """How far this machine's clock is ahead of the broker's, in seconds; 0 until that is known."""
        return 0.0 if self._ahead is None else self._wall() - self.now()

    async def measure(self) -> None:
        """Ask what time it is, the leader of LEASE, which every role may. Raises `BrokerUnavailable`.

        What was known stays then. A broker that does not let this user ask leaves the process on its own clock, with a
        word in the log.
        """
        subject = f"$JS.API.STREAM.INFO.{LEASE.name}"
        before = self._steady()
        try:
            answer = json.loads(await self._ask(subject, ASK_SECONDS))
        except NoResponders as error:
            raise BrokerUnavailable(f"nobody tells the broker's time: {error}") from error
        except NotPermitted as error:
            if not self._refused:
                self._refused = True
                log.error("%s goes by this machine's clock: %s; make nats/permissions.conf anew", self._name, error)
            return
        after = self._steady()
        if "ts" not in answer:
            raise BrokerUnavailable(f"stream {LEASE.name} does not tell the broker's time")
        theirs = parse_time(answer["ts"])
        # The broker looked at its clock at some moment of the round trip. What is known changes only as far as it must:
        # an answer that was slow tells little.
        least, most = theirs - after, theirs - before
        known = (least + most) / 2 if self._ahead is None else self._ahead
        self._ahead = min(max(known, least), most)
        BROKER_CLOCK_OFFSET.set(self.offset)
        self._tell()

    def _tell(self) -> None:
        """Into the log: that this clock is wrong, by how much when that changes, and that it is right again."""
        offset = self.offset
        if abs(offset) <= TOLERATED_SECONDS:
            if self._told is not None:
                log.warning("%s: this machine's clock agrees with the broker's again (%+.3f s)", self._name, offset)
            self._told = None
        elif self._told is None or abs(offset - self._told) > TOLERATED_SECONDS:
            self._told = offset
            side = "ahead of" if offset > 0 else "behind"
            log.error(
                "%s: this machine's clock is %.1f s %s the broker's: times go by the broker's; synchronise them (NTP)",
                self._name,
                abs(offset),
                side,
            )
