"""`examwire plans ls`, `show` and `watch`: plans and their examinees, from Redis."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from actors.runtime.config.settings import Settings
from actors.runtime.store.state_store import StateStore
from cli.plans.plan_text import plan_json, plan_text, read_plans
from cli.shared.options import takes_settings
from cli.shared.output import (
    Column,
    Columns,
    Format,
    OutputOption,
    WatchOption,
    run_until_interrupted,
    show,
    state_cell,
    table,
    watch,
    with_heading,
    without_empty,
)
from cli.shared.suggestions import not_found
from cli.shared.times import local_time, zone_name
from protocol.broker.streams import DAY
from protocol.ids import check_id
from protocol.messages.facts import ConnectionStatusCode, MobileSyncCode
from protocol.messages.plan_facts import PlanStatusCode
from protocol.records import keys
from protocol.records.snapshot_rows import labels_of
from protocol.rules.plan import deleted_at
from protocol.times import format_time

if TYPE_CHECKING:
    from rich.console import RenderableType

T = TypeVar("T")
CHUNK = 500  # records in one round trip, so that Redis serves other clients in between

PROGRESS_FIELDS = (
    *("connStatusCode", "since", "lastActiveTime", "reason", "serverId", "socketId"),
    *("reconnectAttempt", "exhausted", "name", "removed", "version", "finished", "finishedAt", "finishedBy", "labels"),
)
COUNTED = ("connected", "disconnected", "migrating", "finished", "removed")
MOBILE_SYNC_FIELDS = ("status", "deviceId", "timestamp", "imageUrl", "reason", "version")


@takes_settings("redis_url", "data_dir", "retention.days", running=True)
def list_plans(settings: Settings, watching: WatchOption = False, output: OutputOption = Format.TABLE) -> None:
    """List all plans with their status, times and examinees.

    Example: examwire plans ls --watch

    Each examinee is connected, disconnected, migrating, finished, or not here yet.
    Examinees who are shut out count as disconnected, too.
    """

    async def fetch(store: StateStore) -> list[dict[str, Any]]:
        plans = [await count_of(store, plan_id) for plan_id in await store.members(keys.PLANS)]
        for plan in plans:
            at = deleted_at(plan["plan"]["closedAt"], settings.retention.days * DAY)
            plan["deletedAt"] = format_time(at) if at is not None else None
        return plans

    def draw(plans: list[dict[str, Any]]) -> RenderableType:
        columns: Columns = [
            *("plan", Column("name", crop=True), Column("status", keep=True), "examinees", "connected", "disconnected"),
            *("migrating", "finished", "not come", "shut out", "begins", "ends"),
            *(Column("mobile sync", wide=True), Column("deleted at", wide=True)),
        ]
        cells = [
            (
                plan["planId"],
                plan["plan"]["name"],
                state_cell(plan["plan"]["status"]),
                plan["examinees"],
                plan["connected"],
                plan["disconnected"],
                plan["migrating"] or None,
                plan["finished"] or None,
                plan["never"] or None,
                plan["exhausted"] or None,
                local_time(plan["plan"]["startsAt"]) or None,
                local_time(plan["plan"]["endsAt"]) or None,
                _counts(plan["mobileSync"]) or None,
                local_time(plan["deletedAt"]) or None,
            )
            for plan in plans
        ]
        return table(*without_empty(columns, cells))

    def draw_urgent_first(plans: list[dict[str, Any]]) -> RenderableType:
        return draw(sorted(plans, key=lambda plan: (plan["plan"]["closedAt"] is not None, -plan["disconnected"])))

    _show_or_watch(settings, fetch, draw_urgent_first if watching else draw, watching, output)


@takes_settings("redis_url", "data_dir", running=True)
def show_plan(
    settings: Settings,
    plan_id: Annotated[str, typer.Argument(metavar="PLAN_ID", help="The plan.", show_default=False)],
    watching: WatchOption = False,
    output: OutputOption = Format.TABLE,
) -> None:
    """Show a plan's times and policy, and the status of each examinee.

    Example: examwire plans show P001 --watch

    Exit code 3: the plan is unknown.
    """
    check_id("planId", plan_id)
    draw = partial(draw_plan, urgent_first=watching)
    _show_or_watch(settings, lambda store: plan_of(store, plan_id), draw, watching, output)


@takes_settings("redis_url", "data_dir", running=True)
def watch_plan(
    settings: Settings,
    plan_id: Annotated[str, typer.Argument(metavar="PLAN_ID", help="The plan.", show_default=False)],
    output: OutputOption = Format.TABLE,
) -> None:
    """Show a plan's examinees, refreshed at each change. Those who need attention are on top.

    The same as `plans show --watch`. Ctrl-C ends it.
    """
    check_id("planId", plan_id)
    draw = partial(draw_plan, urgent_first=True)
    _show_or_watch(settings, lambda store: plan_of(store, plan_id), draw, True, output)


async def plan_of(store: StateStore, plan_id: str) -> dict[str, Any]:
    """Return `{planId, counts, examinees: [row...]}`. Raises `NotFound`, `StateUnavailable`, `StateDamaged`."""
    if plan_id not in (plans := await store.members(keys.PLANS)):
        raise not_found("plan", plan_id, plans, "it has no roster, and no examinee or proctor has connected")
    (plan,) = await read_plans(store, [plan_id])
    ids = await store.members(keys.plan_examinees(plan_id))
    rows: list[dict[str, Any]] = []
    for start in range(0, len(ids), CHUNK):
        batch = ids[start : start + CHUNK]
        progress = await store.fields([keys.progress(plan_id, examinee_id) for examinee_id in batch], PROGRESS_FIELDS)
        mobile_sync = await store.fields(
            [keys.mobile_sync(plan_id, examinee_id) for examinee_id in batch], MOBILE_SYNC_FIELDS
        )
        rows += [
            row_of(examinee_id, _known(PROGRESS_FIELDS, connection), _known(MOBILE_SYNC_FIELDS, sync))
            for examinee_id, connection, sync in zip(batch, progress, mobile_sync, strict=True)
        ]
    statuses = Counter(row["status"] for row in rows)
    return {
        "planId": plan_id,
        "plan": plan_json(plan),
        "counts": {
            "examinees": len(rows),
            "connected": statuses[ConnectionStatusCode.CONNECTED],
            "disconnected": statuses[ConnectionStatusCode.DISCONNECTED],
            "migrating": statuses[ConnectionStatusCode.MIGRATING],
            "finished": statuses[ConnectionStatusCode.FINISHED],
            "exhausted": sum(row["exhausted"] for row in rows),
            "removed": sum(row["removed"] for row in rows),
            "never": statuses["NEVER"],
            "mobileSync": dict(Counter(row["mobileSync"]["status"] for row in rows)),
        },
        "examinees": rows,
    }


async def count_of(store: StateStore, plan_id: str) -> dict[str, Any]:
    """Return the counts of a plan, and its status and times."""
    plan = await plan_of(store, plan_id)
    return {"planId": plan_id, "plan": plan["plan"], **plan["counts"]}


def _known(names: Sequence[str], values: Sequence[str | None]) -> dict[str, str]:
    return {name: value for name, value in zip(names, values, strict=True) if value}


def row_of(examinee_id: str, progress: dict[str, str], mobile_sync: dict[str, str]) -> dict[str, Any]:
    """Build an examinee's row from the progress hash and the mobile sync hash; fields without a value are `None`."""
    return {
        "examineeId": examinee_id,
        "name": progress.get("name"),
        "labels": labels_of(progress.get("labels")),
        "status": progress.get("connStatusCode", "NEVER"),
        "since": progress.get("finishedAt") or progress.get("since"),
        "lastActiveTime": progress.get("lastActiveTime"),
        "reason": progress.get("finished") or progress.get("reason"),
        "finishedBy": progress.get("finishedBy"),
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


def draw_plan(plan: dict[str, Any], *, urgent_first: bool = False) -> RenderableType:
    counts = plan["counts"]
    never = "never came" if plan["plan"]["status"] == PlanStatusCode.CLOSED else "not here yet"
    names = {**{name: name for name in COUNTED}, "exhausted": "shut out", "never": never}
    numbers = [f"{counts[count]} {name}" for count, name in names.items() if counts[count]]
    title = (
        f"plan {plan['planId']}: {counts['examinees']} examinees: {', '.join(numbers)}; "
        f"mobile sync {_counts(counts['mobileSync']) or 'none'}; times in {zone_name()}"
    )
    rows = plan["examinees"]
    if urgent_first:
        rows = sorted(rows, key=_urgency)
    labels = list(dict.fromkeys(label for row in rows for label in row["labels"]))
    columns: Columns = [
        *("examinee", Column("name", crop=True), Column("status", keep=True), "since", "attempt", "reason"),
        *("mobile sync", "own begin", "own end"),
        *(Column(label, crop=True) for label in labels),
        *(Column("server", wide=True), Column("socket", wide=True), Column("last active", wide=True)),
        Column("why no picture", wide=True),
    ]
    own_times = plan["plan"]["ownTimes"]
    cells = [_cells(row, labels, own_times.get(row["examineeId"], {})) for row in rows]
    heading = plan_text(plan["plan"]) if plan["plan"]["version"] else None
    return with_heading(heading, table(*without_empty(columns, cells), title=title))


def _cells(row: dict[str, Any], labels: Sequence[str], own: dict[str, str]) -> tuple[object, ...]:
    sync = row["mobileSync"]
    attempt = row["reconnectAttempt"] if row["status"] == ConnectionStatusCode.DISCONNECTED else 0
    return (
        row["examineeId"],
        row["name"],
        state_cell("REMOVED" if row["removed"] else row["status"]),
        local_time(row["since"]) or None,
        state_cell("shut out") if row["exhausted"] else attempt or None,
        row["reason"],
        state_cell(sync["status"]) if sync["status"] != "NONE" else None,
        local_time(own.get("startsAt")) or None,
        local_time(own.get("endsAt")) or None,
        *(row["labels"].get(label) for label in labels),
        row["serverId"],
        row["socketId"],
        local_time(row["lastActiveTime"]) or None,
        sync["reason"],
    )


def _urgency(row: dict[str, Any]) -> int:
    """Return the place of an examinee on a live screen: shut out, away, moving, without a picture, then all others."""
    if row["removed"] or row["status"] == ConnectionStatusCode.FINISHED:
        return 4
    urgent = (
        row["exhausted"],
        row["status"] == ConnectionStatusCode.DISCONNECTED,
        row["status"] == ConnectionStatusCode.MIGRATING,
        row["mobileSync"]["status"] in (MobileSyncCode.FAILED, MobileSyncCode.TIMED_OUT),
    )
    return urgent.index(True) if True in urgent else 4


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
                await watch(lambda: fetch(store), lambda value: value, draw, output)
            else:
                value = await fetch(store)
                show(value, lambda: draw(value), output)
        finally:
            await store.close()

    run_until_interrupted(work())
