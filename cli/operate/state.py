"""`examwire state`: compare Redis with the log of record, and rebuild Redis from the log."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from actors.runtime.broker.connection import Bus
from actors.runtime.config.settings import Settings
from actors.runtime.store.state_store import StateStore
from actors.state_manager.recovery.audit import Audit, AuditReport
from actors.state_manager.recovery.repair import StateRepair
from actors.state_manager.recovery.restoration import Repair
from actors.status_log.record_checkpoints import RecordCheckpoints
from actors.status_log.status_log import StatusLog
from cli.shared.live_actors import connected
from cli.shared.options import takes_settings
from cli.shared.output import Column, ExitCode, Format, OutputOption, paragraph, show, table, text
from cli.shared.suggestions import not_found
from protocol.ids import check_id

if TYPE_CHECKING:
    from rich.console import RenderableType

SHOWN = 100
PASSES = 3

T = TypeVar("T")
app = typer.Typer(no_args_is_help=True, rich_markup_mode=None)

PlanOption = Annotated[
    str | None, typer.Option("--plan", metavar="PLAN_ID", help="Only the examinees and sockets of this plan.")
]


@app.callback()
def state_cell() -> None:
    """Compare Redis with the log of record, and rebuild it."""


@app.command("verify")
@takes_settings("nats_url", "redis_url", "data_dir", running=True)
def verify(settings: Settings, plan_id: PlanOption = None, output: OutputOption = Format.TABLE) -> None:
    """Replay the log and compare the result with Redis, field by field. Changes nothing.

    Example: examwire state verify --plan P001

    Exit code 0: equal, 1: different, or Redis has lost its state, 3: the plan is unknown, 4: the log or Redis cannot
    be read.
    """

    async def work(bus: Bus, store: StateStore) -> AuditReport:
        report = await Audit(StatusLog(bus), store, _checked(plan_id), progress=bus.progress).run()
        await _check_known(bus, report)
        return report

    report = _connected(settings, work)
    show(_report(report), lambda: _draw(report), output)
    if not _agree(report):
        raise typer.Exit(ExitCode.FAILED)


@app.command("rebuild")
@takes_settings("nats_url", "redis_url", "data_dir", running=True)
def rebuild(
    settings: Settings,
    plan_id: PlanOption = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask for confirmation.")] = False,
    output: OutputOption = Format.TABLE,
) -> None:
    """Rebuild lost and wrong records in Redis from the log.

    Proctors get corrections for what was wrong.

    Example: examwire state rebuild --plan P001 --yes

    Safe during an exam, to interrupt, to repeat, and to run twice at once. Exit code 0: equal now, 1: still different,
    3: the plan is unknown.
    """

    async def work(bus: Bus, store: StateStore) -> tuple[AuditReport, list[Repair], AuditReport]:
        repairs = []
        repair = StateRepair(bus, store, checkpoints=RecordCheckpoints(bus))
        if not await store.mark.is_whole():
            # A running state manager does the same.
            await _ask(yes, "Redis has lost its state or was replaced. Rebuild it from the log?")
            repairs.append(await repair.restore_state())
        audit = Audit(StatusLog(bus), store, _checked(plan_id), progress=bus.progress)
        before = after = await audit.run()
        await _check_known(bus, before)
        if before.differences:
            keys = len({difference.key for difference in before.differences})
            await _ask(yes, f"{len(before.differences)} differences in {keys} keys. Write these records from the log?")
        for _ in range(PASSES):  # a record that changes meanwhile needs another pass
            if not after.differences:
                break
            repairs.append(await repair.correct(audit.projection, after.differences))
            after = await audit.run()
        return before, repairs, after

    before, repairs, after = _connected(settings, work)
    summary = {
        "found": _report(before),
        "repairs": [_repair(difference) for difference in repairs],
        "left": _report(after),
    }
    show(summary, lambda: _draw_rebuild(before, repairs, after), output)
    if not _agree(after):
        raise typer.Exit(ExitCode.FAILED)


async def _check_known(bus: Bus, report: AuditReport) -> None:
    """Raise `NotFound` when the plan of a report is neither in the log nor in Redis."""
    if report.plan_id is not None and report.whole and not report.records and not report.differences:
        plans = await StatusLog(bus).plan_ids()
        raise not_found("plan", report.plan_id, plans, "it is neither in the log nor in Redis")


def _agree(report: AuditReport) -> bool:
    return report.whole and not report.differences


def _checked(plan_id: str | None) -> str | None:
    return None if plan_id is None else check_id("planId", plan_id)


async def _ask(yes: bool, question: str) -> None:
    if not yes:
        await asyncio.to_thread(typer.confirm, question, abort=True, err=True)


def _repair(repair: Repair) -> dict[str, Any]:
    return {
        "found": repair.found,
        "messages": repair.messages,
        "records": repair.records,
        "restated": repair.restated,
        "seconds": round(repair.seconds, 3),
    }


def _report(report: AuditReport) -> dict[str, Any]:
    return {
        "agree": _agree(report),
        "whole": report.whole,
        "planId": report.plan_id,
        "messages": report.messages,
        "facts": report.facts,
        "records": report.records,
        "sockets": report.sockets,
        "indexEntries": report.index_entries,
        "older": report.older,
        "kept": report.kept,
        "newer": report.newer,
        "inFlight": report.in_flight,
        "unprocessable": report.unprocessable,
        "differences": [
            {"key": difference.key, "field": difference.field, "redis": difference.redis, "log": difference.log}
            for difference in report.differences
        ],
        "seconds": round(report.seconds, 3),
    }


def _draw(report: AuditReport) -> RenderableType:
    from rich.console import Group

    lines = [
        f"{report.messages} messages of the log, {report.facts} facts: {report.records} records, "
        f"{report.sockets} sockets, {report.index_entries} entries of the index compared in {report.seconds:.1f} s"
    ]
    if not report.whole:
        lines.append("Redis has lost its state or was replaced, and no state manager has repaired it yet")
    if report.older:
        lines.append(f"{report.older} records are older than the log: they cannot be compared")
    if report.kept:
        lines.append(f"{report.kept} keys hold facts that the log has lost: they are kept, and cannot be compared")
    if report.newer:
        lines.append(f"{report.newer} records are those of a newer release: only that one can compare them")
    if report.in_flight:
        lines.append(f"{report.in_flight} keys have facts that the state managers have not acknowledged yet")
    if report.unprocessable:
        lines.append(f"{report.unprocessable} facts cannot be processed: see `examwire dead-letters ls`")
    differences = report.differences
    if not differences:
        lines.append("no differences")
        return paragraph(lines)
    left_out = f", {SHOWN} of them shown (all: -o json)" if len(differences) > SHOWN else ""
    lines.append(
        f"{len(differences)} differences in {len({difference.key for difference in differences})} keys{left_out}"
    )
    rows = [
        (difference.key, difference.field, _or_none(difference.redis), _or_none(difference.log))
        for difference in differences[:SHOWN]
    ]
    return Group(
        paragraph(lines), table(["key", "field", Column("in Redis", wrap=True), Column("by the log", wrap=True)], rows)
    )


def _draw_rebuild(before: AuditReport, repairs: list[Repair], after: AuditReport) -> RenderableType:
    from rich.console import Group

    written = sum(repair.records for repair in repairs)
    restated = sum(repair.restated for repair in repairs)
    seconds = sum(repair.seconds for repair in repairs)
    summary = f"{written} records written from the log, corrections sent for {restated} examinees, {seconds:.1f} s"
    return Group(_draw(before), text(summary), text("afterwards:"), _draw(after)) if repairs else _draw(before)


def _or_none(value: str | None) -> str:
    return "(nothing)" if value is None else value


def _connected(settings: Settings, work: Callable[[Bus, StateStore], Awaitable[T]]) -> T:
    async def main() -> T:
        async with connected(settings, "state") as bus:
            store = StateStore(settings.redis_url, settings.redis)
            try:
                return await work(bus, store)
            finally:
                await store.close()

    return asyncio.run(main())
