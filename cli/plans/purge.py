"""`examwire plans purge` and `examwire examinees purge`: delete what is kept about a plan, or about one examinee."""

from __future__ import annotations

import asyncio
import hashlib
import json
import zipfile
from pathlib import Path
from typing import Annotated, Any

import typer

from actors.retention.purger import Purger, PurgeReport
from actors.runtime.config.settings import Settings
from actors.runtime.store.state_store import StateStore
from cli.shared.live_actors import connected
from cli.shared.options import takes_settings
from cli.shared.output import Format, OutputOption, say, show
from cli.shared.suggestions import not_found
from protocol.broker import subjects
from protocol.errors import ConfigurationError, ExamwireError
from protocol.ids import check_id
from protocol.messages.plan_facts import PlanStatusCode
from protocol.records import keys

READ_BYTES = 1024 * 1024

YesOption = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask for confirmation.")]
ByOption = Annotated[
    str | None, typer.Option("--by", metavar="NAME", help="The name of the person who deletes. [default: operator]")
]


class PlanIsOpen(ExamwireError):
    """A plan that is not closed is purged with `--force` only."""


@takes_settings("nats_url", "redis_url", "data_dir", running=True)
def purge_plan(
    settings: Settings,
    plan_id: Annotated[str, typer.Argument(metavar="PLAN_ID", help="The plan.", show_default=False)],
    archive: Annotated[
        Path | None,
        typer.Option("--archive", metavar="FILE", help="The archive of this plan; its hash stays in the log."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Purge even if the plan is not closed.")] = False,
    by: ByOption = None,
    yes: YesOption = False,
    output: OutputOption = Format.TABLE,
) -> None:
    """Delete everything about a plan. This cannot be undone.

    Example: examwire plans purge P001 --archive P001.zip

    Records, facts, messages and pictures are deleted. One note stays in the log: who, when, how much, and the hash of
    the archive. Examinees who are still connected are disconnected. To finish a purge that was interrupted, repeat the
    command. Exit code 1: the plan is not closed, or the purge was not completed, 3: the plan is unknown.
    """
    check_id("planId", plan_id)
    digest = _digest_of(archive, plan_id) if archive is not None else None

    async def work(purger: Purger, store: StateStore) -> PurgeReport:
        await _check_closed(store, plan_id, force)
        await _confirm(yes, f"Delete everything about plan {plan_id}?")
        return await purger.purge(plan_id, archive_sha256=digest)

    _run(settings, by, work, {"planId": plan_id}, output)


@takes_settings("nats_url", "redis_url", "data_dir", running=True)
def purge_examinee(
    settings: Settings,
    plan_id: Annotated[str, typer.Argument(metavar="PLAN_ID", help="The plan.", show_default=False)],
    examinee_id: Annotated[str, typer.Argument(metavar="EXAMINEE_ID", help="The examinee.", show_default=False)],
    force: Annotated[bool, typer.Option("--force", help="Purge even if the plan is not closed.")] = False,
    by: ByOption = None,
    yes: YesOption = False,
    output: OutputOption = Format.TABLE,
) -> None:
    """Delete everything about one examinee of a plan. This cannot be undone.

    Example: examwire examinees purge P001 E0042

    Facts about other examinees stay in the log unchanged. Exit codes: those of `plans purge`.
    """
    check_id("planId", plan_id)
    check_id("examineeId", examinee_id)

    async def work(purger: Purger, store: StateStore) -> PurgeReport:
        await _check_closed(store, plan_id, force, examinee_id)
        await _confirm(yes, f"Delete everything about examinee {examinee_id} of plan {plan_id}?")
        return await purger.purge(plan_id, examinee_id)

    _run(settings, by, work, {"planId": plan_id, "examineeId": examinee_id}, output)


def _run(settings: Settings, by: str | None, work: Any, about: dict[str, str], output: Format) -> None:
    async def main() -> PurgeReport:
        async with connected(settings, "plans purge") as bus:
            store = StateStore(settings.redis_url, settings.redis)
            try:
                purger = Purger(bus, store, by or subjects.OPERATOR, lambda line: say(line, err=True))
                report: PurgeReport = await work(purger, store)
                return report
            finally:
                await store.close()

    report = asyncio.run(main())
    counts = {"records": report.records, "messages": report.messages, "pictures": report.pictures}
    show({**about, **counts, "remarks": report.remarks}, lambda: _text(report), output)


def _text(report: PurgeReport) -> str:
    lines = [f"deleted: {report.records} records, {report.messages} messages, {report.pictures} pictures"]
    return "\n".join([*lines, *report.remarks])


async def _check_closed(store: StateStore, plan_id: str, force: bool, examinee_id: str | None = None) -> None:
    """Raise `NotFound`, or `PlanIsOpen` without `force`."""
    advice = "if a purge was interrupted, --force finishes it"
    if plan_id not in (plans := await store.members(keys.PLANS)) and not force:
        raise not_found("plan", plan_id, plans, advice)
    if examinee_id is not None and not force:
        examinees = await store.members(keys.plan_examinees(plan_id))
        if examinee_id not in examinees:
            raise not_found(f"in plan {plan_id}, examinee", examinee_id, examinees, advice)
    status = (await store.entries(keys.plan(plan_id))).get("status")
    if status != PlanStatusCode.CLOSED and not force:
        raise PlanIsOpen(
            f"plan {plan_id} is not closed: close it (`examwire plans close {plan_id}`), or use --force, which "
            "disconnects everybody"
        )


async def _confirm(yes: bool, question: str) -> None:
    if not yes:
        await asyncio.to_thread(typer.confirm, question, abort=True, err=True)


def _digest_of(path: Path, plan_id: str) -> str:
    """Return the SHA-256 of an archive. Raises `ConfigurationError` when it is not one of this plan."""
    try:
        with zipfile.ZipFile(path) as archive:
            of_plan = json.loads(archive.read("manifest.json")).get("planId")
        digest = hashlib.sha256()
        with path.open("rb") as file:
            while part := file.read(READ_BYTES):
                digest.update(part)
    except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
        raise ConfigurationError(f"--archive {path}: is not an archive of `examwire plans archive`: {error}") from None
    if of_plan != plan_id:
        raise ConfigurationError(f"--archive {path}: is an archive of plan {of_plan}, not of {plan_id}")
    return digest.hexdigest()
