"""`examwire plans`: the examinees of a plan as Redis has them, and as the log of record tells it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from actors.runtime.config.settings import Settings
from actors.runtime.store.state_store import StateStore
from cli.shared.options import takes_settings
from cli.shared.output import (
    Format,
    NotFound,
    OutputOption,
    WatchOption,
    run_until_interrupted,
    show,
    table,
    watch,
)
from cli.shared.times import local_time, zone_name
from protocol.ids import check_id
from protocol.records import keys

if TYPE_CHECKING:
    from rich.console import RenderableType

T = TypeVar("T")
CHUNK = 500  # records a round trip: Redis serves others in between

PROGRESS_FIELDS = (
    *("connStatusCode", "since", "lastActiveTime", "reason", "serverId", "socketId"),
    *("reconnectAttempt", "exhausted", "name", "removed", "version"),
)
MOBILE_SYNC_FIELDS = ("status", "deviceId", "timestamp", "imageUrl", "reason", "version")


@takes_settings("redis_url", "data_dir", running=True)
def list_plans(settings: Settings, watching: WatchOption = False, output: OutputOption = Format.TABLE) -> None:
    """List the plans that have ever been seen, with their counts."""

    async def fetch(store: StateStore) -> list[dict[str, Any]]:
        return [await count_of(store, plan_id) for plan_id in await store.members(keys.PLANS)]

    def draw(found: list[dict[str, Any]]) -> RenderableType:
        columns = ["plan", "examinees", "connected", "disconnected", "migrating", "shut out", "mobile sync"]
        return table(
            columns,
            [
                (
                    one["planId"],
                    one["examinees"],
                    one["connected"],
                    one["disconnected"],
                    one["migrating"],
                    one["exhausted"],
                    _counts(one["mobileSync"]),
                )
                for one in found
            ],
        )

    _show_or_watch(settings, fetch, draw, watching, output)


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


@takes_settings("redis_url", "data_dir", running=True)
def watch_plan(
    settings: Settings,
    plan_id: Annotated[str, typer.Argument(metavar="PLAN_ID", help="The plan.", show_default=False)],
    output: OutputOption = Format.TABLE,
) -> None:
    """Show every examinee of a plan again whenever something changes, until Ctrl-C: `show --watch`."""
    check_id("planId", plan_id)
    _show_or_watch(settings, lambda store: plan_of(store, plan_id), _draw_plan, True, output)


async def plan_of(store: StateStore, plan_id: str) -> dict[str, Any]:
    """`{planId, counts…, examinees: [row…]}`. Raises `NotFound`, `StateUnavailable`, `StateDamaged`."""
    if plan_id not in await store.members(keys.PLANS):
        raise NotFound(f"plan {plan_id} has never been seen: no examinee or proctor has connected to it")
    ids = await store.members(keys.plan_examinees(plan_id))
    rows: list[dict[str, Any]] = []
    for start in range(0, len(ids), CHUNK):
        part = ids[start : start + CHUNK]
        progress = await store.fields([keys.progress(plan_id, one) for one in part], PROGRESS_FIELDS)
        mobile_sync = await store.fields([keys.mobile_sync(plan_id, one) for one in part], MOBILE_SYNC_FIELDS)
        rows += [
            row_of(one, _known(PROGRESS_FIELDS, connection), _known(MOBILE_SYNC_FIELDS, sync))
            for one, connection, sync in zip(part, progress, mobile_sync, strict=True)
        ]
    statuses = Counter(row["status"] for row in rows)
    return {
        "planId": plan_id,
        "counts": {
            "examinees": len(rows),
            "connected": statuses["CONNECTED"],
            "disconnected": statuses["DISCONNECTED"],
            "migrating": statuses["MIGRATING"],
            "exhausted": sum(row["exhausted"] for row in rows),
            "removed": sum(row["removed"] for row in rows),
            "never": statuses["NEVER"],
            "mobileSync": dict(Counter(row["mobileSync"]["status"] for row in rows)),
        },
        "examinees": rows,
    }


async def count_of(store: StateStore, plan_id: str) -> dict[str, Any]:
    """The counts of a plan."""
    return {"planId": plan_id, **(await plan_of(store, plan_id))["counts"]}


def _known(names: Sequence[str], values: Sequence[str | None]) -> dict[str, str]:
    return {name: value for name, value in zip(names, values, strict=True) if value}


def row_of(examinee_id: str, progress: dict[str, str], mobile_sync: dict[str, str]) -> dict[str, Any]:
    """An examinee from the two hashes of the documents without their empty fields; what is not recorded is `None`."""
    return {
        "examineeId": examinee_id,
        "name": progress.get("name"),
        "status": progress.get("connStatusCode", "NEVER"),
        "since": progress.get("since"),
        "lastActiveTime": progress.get("lastActiveTime"),
        "reason": progress.get("reason"),
        "serverId": progress.get("serverId"),
        "socketId": progress.get("socketId"),
        "reconnectAttempt": int(progress.get("reconnectAttempt", 0)),
        "exhausted": progress.get("exhausted") == "1",
        "removed": progress.get("removed") == "1",
        "version": int(progress.get("version", 0)),
        "mobileSync": {
            "status": mobile_sync.get("status", "NONE"),
            "deviceId": mobile_sync.get("deviceId"),
            "timestamp": mobile_sync.get("timestamp"),
            "imageUrl": mobile_sync.get("imageUrl"),
            "reason": mobile_sync.get("reason"),
            "version": int(mobile_sync.get("version", 0)),
        },
    }


def _draw_plan(plan: dict[str, Any]) -> RenderableType:
    counts = plan["counts"]
    title = (
        f"plan {plan['planId']}: {counts['examinees']} examinees, {counts['connected']} connected, "
        f"{counts['disconnected']} disconnected, {counts['migrating']} migrating, {counts['exhausted']} shut out, "
        f"{counts['removed']} removed, {counts['never']} never came; "
        f"mobile sync {_counts(counts['mobileSync']) or 'none'}; times in {zone_name()}"
    )
    columns = ["examinee", "name", "status", "since", "last active", "reason", "server", "attempt", "mobile sync"]
    return table(columns, [_cells(row) for row in plan["examinees"]], title=title)


def _cells(row: dict[str, Any]) -> tuple[object, ...]:
    sync = row["mobileSync"]
    attempt = row["reconnectAttempt"] if row["status"] == "DISCONNECTED" else 0
    return (
        row["examineeId"],
        row["name"],
        row["status"],
        local_time(row["since"]),
        local_time(row["lastActiveTime"]),
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
        store = StateStore(settings.redis_url, settings.redis)
        try:
            if watching:
                await watch(lambda: fetch(store), lambda found: found, draw, output)
            else:
                found = await fetch(store)
                show(found, lambda: draw(found), output)
        finally:
            await store.close()

    run_until_interrupted(work())
