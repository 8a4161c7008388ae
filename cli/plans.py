"""`examwire plans`: the examinees of a plan as Redis has them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from actors.runtime.settings import Settings
from actors.runtime.state_store import StateStore
from cli.config import takes_settings
from cli.output import (
    Format,
    NotFound,
    OutputOption,
    WatchOption,
    print_json,
    run_until_interrupted,
    show,
    table,
    watch,
)
from protocol import keys
from protocol.ids import check_id

if TYPE_CHECKING:
    from rich.console import RenderableType

T = TypeVar("T")
CHUNK = 500  # hashes a round trip: a hall of thousands must not be one answer of many megabytes

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None)


@app.callback()
def plans() -> None:
    """Exam plans and their examinees, read from Redis."""


@app.command("ls")
@takes_settings("redis_url", "data_dir", running=True)
def list_plans(settings: Settings, watching: WatchOption = False, output: OutputOption = Format.TABLE) -> None:
    """List the plans that have ever been seen, with their counts."""

    async def fetch(store: StateStore) -> list[dict[str, Any]]:
        return [await count_of(store, plan_id) for plan_id in await store.members(keys.PLANS)]

    def draw(found: list[dict[str, Any]]) -> RenderableType:
        columns = ["plan", "examinees", "connected", "disconnected", "shut out", "mobile sync"]
        return table(
            columns,
            [
                (
                    one["planId"],
                    one["examinees"],
                    one["connected"],
                    one["disconnected"],
                    one["exhausted"],
                    _counts(one["mobileSync"]),
                )
                for one in found
            ],
        )

    _show_or_watch(settings, fetch, draw, watching, output)


@app.command("show")
@takes_settings("redis_url", "data_dir", running=True)
def show_plan(
    settings: Settings,
    plan_id: Annotated[str, typer.Argument(metavar="PLAN_ID", help="The plan.", show_default=False)],
    watching: WatchOption = False,
    output: OutputOption = Format.TABLE,
) -> None:
    """Show every examinee of a plan. Exit code 3 when the plan has never been seen."""
    check_id("planId", plan_id)
    _show_or_watch(settings, lambda store: plan_of(store, plan_id), _draw_plan, watching, output)


async def plan_of(store: StateStore, plan_id: str) -> dict[str, Any]:
    """`{planId, counts…, examinees: [row…]}`. Raises `NotFound`, `StateUnavailable`, `StateDamaged`."""
    if plan_id not in await store.members(keys.PLANS):
        raise NotFound(f"plan {plan_id} has never been seen: no examinee or proctor has connected to it")
    ids = await store.members(keys.plan_examinees(plan_id))
    rows: list[dict[str, Any]] = []
    for start in range(0, len(ids), CHUNK):
        part = ids[start : start + CHUNK]
        found = await store.hashes(
            [key(plan_id, examinee_id) for examinee_id in part for key in (keys.progress, keys.mobile_sync)]
        )
        rows += [
            row_of(examinee_id, progress, mobile_sync)
            for examinee_id, progress, mobile_sync in zip(part, found[::2], found[1::2], strict=True)
        ]
    statuses = Counter(row["status"] for row in rows)
    return {
        "planId": plan_id,
        "counts": {
            "examinees": len(rows),
            "connected": statuses["CONNECTED"],
            "disconnected": statuses["DISCONNECTED"],
            "exhausted": sum(row["exhausted"] for row in rows),
            "mobileSync": dict(Counter(row["mobileSync"]["status"] for row in rows)),
        },
        "examinees": rows,
    }


async def count_of(store: StateStore, plan_id: str) -> dict[str, Any]:
    """The counts of a plan."""
    return {"planId": plan_id, **(await plan_of(store, plan_id))["counts"]}


def row_of(examinee_id: str, progress: dict[str, str], mobile_sync: dict[str, str]) -> dict[str, Any]:
    """An examinee from the two hashes of the documents (`protocol.records`); what is not recorded is `None`."""
    return {
        "examineeId": examinee_id,
        "status": progress.get("connStatusCode") or "NEVER",
        "lastActiveTime": progress.get("lastActiveTime") or None,
        "reason": progress.get("reason") or None,
        "serverId": progress.get("serverId") or None,
        "socketId": progress.get("socketId") or None,
        "reconnectAttempt": int(progress.get("reconnectAttempt") or 0),
        "exhausted": progress.get("exhausted") == "1",
        "version": int(progress.get("version") or 0),
        "mobileSync": {
            "status": mobile_sync.get("status") or "NONE",
            "deviceId": mobile_sync.get("deviceId") or None,
            "timestamp": mobile_sync.get("timestamp") or None,
            "imageUrl": mobile_sync.get("imageUrl") or None,
            "reason": mobile_sync.get("reason") or None,
            "version": int(mobile_sync.get("version") or 0),
        },
    }


def _draw_plan(plan: dict[str, Any]) -> RenderableType:
    counts = plan["counts"]
    title = (
        f"plan {plan['planId']}: {counts['examinees']} examinees, {counts['connected']} connected, "
        f"{counts['disconnected']} disconnected, {counts['exhausted']} shut out; "
        f"mobile sync {_counts(counts['mobileSync']) or 'none'}"
    )
    columns = ["examinee", "status", "last active", "reason", "server", "attempt", "mobile sync"]
    return table(columns, [_cells(row) for row in plan["examinees"]], title=title)


def _cells(row: dict[str, Any]) -> tuple[object, ...]:
    sync = row["mobileSync"]
    attempt = row["reconnectAttempt"] if row["status"] == "DISCONNECTED" else 0
    return (
        row["examineeId"],
        row["status"],
        row["lastActiveTime"],
        row["reason"],
        row["serverId"],
        "shut out" if row["exhausted"] else attempt or None,
        f"{sync['status']} {sync['reason']}" if sync["reason"] else sync["status"],
    )


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{number} {status}" for status, number in sorted(counts.items()) if status != "NONE")


def _show_or_watch(
    settings: Settings,
    fetch: Callable[[StateStore], Awaitable[T]],
    draw: Callable[[T], RenderableType],
    watching: bool,
    output: Format,
) -> None:
    async def work() -> None:
        store = StateStore(settings.redis_url)
        try:
            if watching:
                await watch(lambda: fetch(store), lambda found: found, draw, output)
            elif output is Format.JSON:
                print_json(await fetch(store))
            else:
                found = await fetch(store)
                show(found, lambda: draw(found), output)
        finally:
            await store.close()

    run_until_interrupted(work())
