"""How far a repair of a lost Redis is: for log lines, metrics, and `examwire doctor`."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from typing import Any

from prometheus_client import Counter, Gauge

from actors.runtime.telemetry.metrics import REGISTRY
from actors.state_manager.recovery.restoration import Repair

log = logging.getLogger("examwire.state_repair")

LOG_SECONDS = 5.0

REPAIRS = Counter(
    "examwire_state_repairs_total",
    "Times that Redis was repaired: it was new, restarted, emptied or replaced; lost ones count when the repair begins",
    ["found"],
    registry=REGISTRY,
)
RUNNING = Gauge(
    "examwire_state_repair_running",
    "Whether this state manager repairs Redis now, by what it was found to be",
    ["found"],
    registry=REGISTRY,
)
# At 0 from the start: a counter that begins with 1 has not increased.
for _found in ("new", "restarted", "lost", "replaced"):
    REPAIRS.labels(_found)
    RUNNING.labels(_found)
PLANS = Gauge(
    "examwire_state_repair_plans",
    "Plans that the present repair of this state manager is about: all, and those that are whole already",
    ["plans"],
    registry=REGISTRY,
)
SECONDS = Gauge(
    "examwire_state_repair_seconds", "Seconds that the present or the last repair has taken", registry=REGISTRY
)


class RepairProgress:
    """Counts the plans of one repair.

    Example::

        progress = RepairProgress(repair)
        progress.begin(["0", "3"], live=12, plans=350)
        progress.plan_done(live=True)
        progress.end()
    """

    def __init__(self, repair: Repair) -> None:
        self._repair = repair
        self._began = self._logged_at = time.monotonic()
        self.parts: Sequence[str] = ()
        self.plans = self.whole = self.live = self.live_whole = 0

    def begin(self, parts: Sequence[str], live: int, plans: int) -> None:
        """Note what this state manager repairs: parts of the log, and their plans, `live` of them with sessions."""
        self.parts = parts
        self.live, self.live_whole = live, 0
        self.plans, self.whole = plans, 0
        RUNNING.labels(self._repair.found).set(1)
        self._set_metrics()
        if plans and self._repair.found == "lost":
            self._say("Redis has lost its state, and is being repaired")

    def plan_done(self, *, live: bool) -> None:
        """Count a plan that is whole now."""
        self.whole += 1
        self.live_whole += live
        self._set_metrics()
        if time.monotonic() - self._logged_at >= LOG_SECONDS:
            self._say("Redis is being repaired")

    def end(self) -> None:
        """The repair is over, or this state manager has no part in it any more."""
        for found in ("new", "restarted", "lost", "replaced"):
            RUNNING.labels(found).set(0)
        SECONDS.set(time.monotonic() - self._began)

    @property
    def rest_seconds(self) -> float | None:
        """The expected rest, seconds; `None`: not known yet."""
        if not self.whole:
            return None
        return (time.monotonic() - self._began) / self.whole * (self.plans - self.whole)

    def details(self) -> dict[str, Any]:
        """Return it for people and programs that inspect the actor."""
        rest = self.rest_seconds
        return {
            "found": self._repair.found,
            "parts": list(self.parts),
            "plans": self.plans,
            "plansWhole": self.whole,
            "livePlans": self.live,
            "livePlansWhole": self.live_whole,
            "records": self._repair.records,
            "messages": self._repair.messages,
            "seconds": round(time.monotonic() - self._began, 1),
            "restSeconds": None if rest is None else round(rest, 1),
        }

    def _set_metrics(self) -> None:
        PLANS.labels("all").set(self.plans)
        PLANS.labels("whole").set(self.whole)
        SECONDS.set(time.monotonic() - self._began)

    def _say(self, what: str) -> None:
        self._logged_at = time.monotonic()
        rest = self.rest_seconds
        log.warning(
            "%s: parts %s of the log, %d of %d plans are whole (%d of %d with live sessions), %d records, "
            "%d messages of the log, %.0f s%s",
            what,
            ", ".join(self.parts),
            self.whole,
            self.plans,
            self.live_whole,
            self.live,
            self._repair.records,
            self._repair.messages,
            time.monotonic() - self._began,
            "" if rest is None else f", about {rest:.0f} s left",
        )
