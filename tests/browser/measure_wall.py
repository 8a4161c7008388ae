"""How smooth the wall is: frame times in Chromium while the examinees of a large plan change all the time.

    python -m tests.browser.measure_wall --examinees 2000 --changes 200 --seconds 20

Counts the time between frames (`requestAnimationFrame`) and the long tasks (50 ms and more of the page's work): while
the whole plan arrives, while nothing happens, and for each size of the tiles (the overview in both its orders) while
examinees are lost, try again and come back; then (`hall`) while a hall of a fifth of the plan drops at once.

Frame times depend on what else the machine does: `load` is how many processes wanted a processor when a phase was over.
`cpuMsPerSecond`, of the page's process with all its threads, depends on it much less.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
from collections.abc import Iterable
from typing import Any

from playwright.async_api import CDPSession, Page, async_playwright

from tests.browser.conftest import chromium
from tests.browser.support.scripted_plan import Event, ScriptedPlan
from tests.browser.support.site import CHROMIUM_FLAGS

TICKS_PER_SECOND = 20

WATCH = """() => {
  const seen = { frames: [], tasks: [] };
  new PerformanceObserver((list) => list.getEntries().forEach((one) => seen.tasks.push(one.duration)))
    .observe({ type: "longtask" });
  let last = performance.now();
  const frame = (now) => { seen.frames.push(now - last); last = now; window.seen && requestAnimationFrame(frame); };
  window.seen = seen;
  requestAnimationFrame(frame);
}"""
TAKE = "() => { const seen = window.seen; window.seen = null; return seen; }"
COMPLETE = "(all) => document.querySelector('#filters [data-state=all]')?.textContent.replace(/\\D/g, '') === all"

# A size of the tiles, an order of them
VIEWS = (("large", "attention"), ("small", "attention"), ("dots", "id"), ("dots", "attention"))


async def changes(plan: ScriptedPlan, per_second: int, seconds: float) -> int:
    """Say `per_second` events a second; returns how many were said."""
    ids = list(plan.rows)
    sent, absent = 0, {examinee_id for examinee_id, row in plan.rows.items() if row["status"] != "CONNECTED"}
    loop = asyncio.get_running_loop()
    began = loop.time()
    for tick in range(int(seconds * TICKS_PER_SECOND)):
        events: list[Event] = []
        while len(events) < per_second / TICKS_PER_SECOND:
            examinee_id = plan.random.choice(ids)
            if examinee_id not in absent:
                events.append(plan.lost(examinee_id))
                absent.add(examinee_id)
            elif plan.random.random() < 0.3:
                events.append(plan.trying(examinee_id, 1))
            else:
                events.append(plan.back(examinee_id))
                absent.discard(examinee_id)
        await plan.say(*events)
        sent += len(events)
        await asyncio.sleep(max(0.0, began + (tick + 1) / TICKS_PER_SECOND - loop.time()))
    return sent


async def hall_drops(plan: ScriptedPlan, seconds: float) -> int:
    """A fifth of the plan is lost in one moment, and tries again a second later."""
    hall = [name for name, row in plan.rows.items() if row["status"] == "CONNECTED"][: len(plan.rows) // 5]
    await plan.say(*(plan.lost(examinee_id) for examinee_id in hall))
    await asyncio.sleep(1)
    await plan.say(*(plan.trying(examinee_id, 1) for examinee_id in hall))
    await asyncio.sleep(max(0.0, seconds - 1))
    return 2 * len(hall)


async def everybody_is_back(plan: ScriptedPlan) -> None:
    await plan.say(*(plan.back(examinee_id) for examinee_id, row in plan.rows.items() if row["status"] != "CONNECTED"))
    await asyncio.sleep(3)


def percentiles(values: Iterable[float]) -> dict[str, float]:
    """p50, p95, p99 and the largest, in ms."""
    ordered = sorted(values)
    if not ordered:
        return {}
    at = {name: ordered[min(len(ordered) - 1, int(len(ordered) * share))] for name, share in _SHARES.items()}
    return {**{name: round(value, 1) for name, value in at.items()}, "max": round(ordered[-1], 1)}


_SHARES = {"p50": 0.5, "p95": 0.95, "p99": 0.99}


async def watch(page: Page, work: Any) -> dict[str, Any]:
    """Frame times (ms between frames) and long tasks (ms) of a page during `work`."""
    devtools = await page.context.new_cdp_session(page)
    await devtools.send("Performance.enable")
    await page.evaluate(WATCH)
    loop = asyncio.get_running_loop()
    began, before = loop.time(), await _cpu_seconds(devtools)
    sent = await work
    took, used = loop.time() - began, await _cpu_seconds(devtools) - before
    frames = await _seen(page)
    await devtools.detach()
    tiles = await page.locator(".tile").count()
    cpu = {
        "cpuMsPerFrame": round(1000 * used / max(1, frames["frames"]), 1),
        "cpuMsPerSecond": round(1000 * used / took),
    }
    return {"load": _load(), "events": sent, "tilesDrawn": tiles, **cpu, **frames}


async def arrive(page: Page, plan: ScriptedPlan) -> dict[str, Any]:
    """From the click on the link until everybody is on the wall: loading, the snapshot, the first tiles."""
    await page.add_init_script(f"({WATCH})()")
    loop = asyncio.get_running_loop()
    began = loop.time()
    await page.goto(plan.link)
    await page.wait_for_function(COMPLETE, arg=str(len(plan.rows)), polling="raf")
    complete = round(1000 * (loop.time() - began))
    await asyncio.sleep(1)  # what was put off comes, too
    return {"load": _load(), "completeMs": complete, **await _seen(page)}


async def _seen(page: Page) -> dict[str, Any]:
    measured = await page.evaluate(TAKE)
    return {
        "frames": len(measured["frames"]),
        "frameMs": percentiles(measured["frames"][1:]),
        "longTasks": len(measured["tasks"]),
        "longTaskMs": percentiles(measured["tasks"]),
    }


def _load() -> float:
    return round(os.getloadavg()[0], 1)


async def _cpu_seconds(devtools: CDPSession) -> float:
    """CPU time of the page's process with all its threads, drawing included: there is no graphics card here."""
    metrics = (await devtools.send("Performance.getMetrics"))["metrics"]
    return float(next(metric["value"] for metric in metrics if metric["name"] == "ProcessTime"))


async def measure(examinees: int, per_second: int, seconds: float, width: int, height: int) -> dict[str, Any]:
    result: dict[str, Any] = {"examinees": examinees, "changesPerSecond": per_second, "viewport": [width, height]}
    async with async_playwright() as playwright, ScriptedPlan(examinees) as plan:
        browser = await playwright.chromium.launch(executable_path=chromium(), args=list(CHROMIUM_FLAGS))
        page = await browser.new_page(viewport={"width": width, "height": height})
        result["browser"] = browser.version
        result["arrival"] = await arrive(page, plan)
        result["idle"] = await watch(page, asyncio.sleep(min(5.0, seconds), 0))
        for size, order in VIEWS:
            await page.select_option("#size", size)
            await page.select_option("#sort", order)
            await asyncio.sleep(2)
            steady = await watch(page, changes(plan, per_second, seconds))
            result[f"{size} by {order}"] = steady | {"hall": await watch(page, hall_drops(plan, 3.0))}
            await everybody_is_back(plan)
        await browser.close()
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--examinees", type=int, default=2000)
    parser.add_argument("--changes", type=int, default=200, help="events a second")
    parser.add_argument("--seconds", type=float, default=15.0, help="for each size of the tiles")
    parser.add_argument("--width", type=int, default=1920)
    parser.add_argument("--height", type=int, default=1080)
    given = parser.parse_args()
    result = asyncio.run(measure(given.examinees, given.changes, given.seconds, given.width, given.height))
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
