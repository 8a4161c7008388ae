"""Check whether Redis holds the state of the log, and how far its repair is."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

from actors.runtime.store.state_store import StateStore
from cli.shared.findings import Finding, failed, ok

ADVICE = "docs/runbook.md#redislostitsstate"


async def check_state(store: StateStore, actors: Sequence[Mapping[str, Any]]) -> AsyncIterator[Finding]:
    """Compare the marks of Redis with what the state managers say. `actors`: inspections."""
    whole = await store.mark.whole_so_far()
    if whole.everything:
        yield ok("state", "Redis holds the state of the log")
        return
    repairs = [repair for actor in actors if (repair := actor.get("details", {}).get("repair"))]
    if not repairs:
        problem = "Redis has lost its state, or was replaced, and nobody repairs it"
        yield failed("state", problem, "start a state manager: `examwire run state-manager`")
        return
    for repair in repairs:
        if repair["parts"]:
            yield failed("state", _progress_of(repair), f"the repair continues by itself; find the cause: {ADVICE}")
    if not any(repair["parts"] for repair in repairs):
        yield failed("state", "Redis is being updated from the log", f"this continues by itself; {ADVICE}")


def _progress_of(repair: Mapping[str, Any]) -> str:
    """Return how far one state manager is."""
    rest = repair["restSeconds"]
    return (
        f"Redis was {repair['found']} and is being repaired: {repair['plansWhole']} of {repair['plans']} plans are "
        f"whole ({repair['livePlansWhole']} of {repair['livePlans']} with live sessions) after "
        f"{repair['seconds']:.0f} s" + ("" if rest is None else f"; about {rest:.0f} s are left")
    )
