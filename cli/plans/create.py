"""`examwire plans create` and `plans roster`: enrol examinees in a plan, and show who has connected."""

from __future__ import annotations

import asyncio
import codecs
import os
import re
import stat
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from actors.runtime.config.settings import Settings
from actors.runtime.config.tokens import issue_token
from actors.runtime.store.state_store import StateStore
from cli.local.page_links import page_bases
from cli.plans.decisions import PlanArgument, new_action_id, operator_name, plan_sentence, plan_state
from cli.plans.enrol import EnrolmentCounts, changed_windows, enrol
from cli.plans.plan_text import plan_json
from cli.plans.schedule import (
    EndsAtOption,
    NameOption,
    StartsAtOption,
    after_schedule,
    decide_plan,
    news_of,
    schedule_fact,
)
from cli.shared.live_actors import connected
from cli.shared.options import takes_settings
from cli.shared.output import (
    Column,
    Columns,
    Format,
    OutputOption,
    paragraph,
    show,
    state_cell,
    table,
    without_empty,
)
from cli.shared.running_system import RunningSystem
from cli.shared.signing import require_tokens_accepted
from cli.shared.suggestions import not_found
from cli.shared.times import local_time, parse_duration, parse_time_option, zone_name
from protocol.access.roster import Roster, RosterEntry, read_roster
from protocol.access.roster_file import MAX_BYTES, InvalidRoster
from protocol.errors import ConfigurationError
from protocol.ids import check_id
from protocol.messages.frames import Role
from protocol.records import keys
from protocol.records.snapshot_rows import labels_of
from protocol.rules.plan_state import PlanState
from protocol.texts import csv_table

if TYPE_CHECKING:
    from rich.console import RenderableType

CHUNK = 500
PROCTOR = "T001"
TOKEN_COLUMNS = ("role", "examineeId", "name", "token", "url")
_DATE = re.compile("[0-9]{4}-[0-9]{2}-[0-9]{2}[T ]")
_FIELDS = ("name", "labels", "enrolled", "removed", "connStatusCode", "since")


@takes_settings("nats_url", "redis_url", "data_dir", running=True)
def create(
    settings: Settings,
    plan_id: PlanArgument,
    roster: Annotated[
        Path,
        typer.Option(
            "--roster",
            metavar="CSV",
            help="CSV file: a line such as `examineeId,name,room`, then the examinees.",
        ),
    ],
    encoding: Annotated[
        str | None,
        typer.Option(
            "--encoding", metavar="NAME", help="The encoding of the roster, such as cp949 or utf-16. [default: utf-8]"
        ),
    ] = None,
    name: NameOption = None,
    starts_at: StartsAtOption = None,
    ends_at: EndsAtOption = None,
    tokens: Annotated[
        Path | None,
        typer.Option("--tokens", metavar="CSV", help="Write a token and a link for each examinee and for a proctor."),
    ] = None,
    valid: Annotated[str, typer.Option("--valid", metavar="DURATION", help="How long the tokens are valid.")] = "12h",
    web_url: Annotated[
        str | None,
        typer.Option(
            "--web-url", metavar="URL", help="The address of the pages for browsers. [default: as `examwire up`]"
        ),
    ] = None,
    output: OutputOption = Format.TABLE,
) -> None:
    """Enrol the examinees of a roster in a plan.

    Example: examwire plans create P001 --roster roster.csv --tokens tokens.csv

    Proctors then see who has not connected yet. Columns are found by their names, English or Korean, in any case: the
    id (id, student number), the name (name, or first name and last name). startsAt, endsAt and extraMinutes are times
    of an examinee that differ from the plan's; every other column is a label, such as room or seat.

    The whole file is checked first: with a wrong line, nothing is written. The command can be repeated: new lines are
    added, changed names, labels and times are updated, nobody is removed. Tokens are written to a new file (mode 0600)
    or over those of an earlier run. Exit code 2: the file is not a valid roster; each error is printed with its line.
    4: everything is in the log and the tokens are written, but no state manager has applied it yet.
    """
    check_id("planId", plan_id)
    read = _read(roster, encoding)
    entries = read.entries
    seconds = parse_duration(valid)
    if tokens is not None:
        require_tokens_accepted(settings)
        _check_target(tokens, roster)
    base = _web_url(settings, web_url)
    fact = schedule_fact(plan_id, name, starts_at, ends_at, (), None, new_action_id(None))

    async def work() -> tuple[EnrolmentCounts, PlanState]:
        async with connected(settings, "plans create") as bus:
            store = StateStore(settings.redis_url, settings.redis)
            try:
                plan = await plan_state(store, plan_id)
                change = news_of(plan, fact)
                # Everything is checked before anything is published.
                windows = changed_windows(after_schedule(plan, change, bus.clock.now()), entries, bus.clock.now())
                if change is not None:
                    plan = await decide_plan(bus, store, plan, change)
                counts = await enrol(bus, store, plan_id, entries, operator_name("plans create"), windows)
                return counts, plan
            except InvalidRoster as bad:
                raise _not_valid(roster, bad) from None
            finally:
                await store.close()

    counts, plan = asyncio.run(work())
    if tokens is not None:
        content = _tokens(settings, plan_id, entries, seconds, base)
        _check_target(tokens, roster)
        _write_secret(tokens, content)
    if counts.late is not None:
        raise counts.late
    result = {
        "planId": plan_id,
        "examinees": len(entries),
        "columns": read.columns.described(),
        "new": counts.new,
        "renamed": counts.renamed,
        "relabelled": counts.relabelled,
        "timed": counts.timed,
        "known": counts.known,
        "tokens": str(tokens) if tokens is not None else None,
        "plan": plan_json(plan),
    }
    show(result, lambda: _summary(result, plan), output)


@takes_settings("redis_url", "data_dir", running=True)
def show_roster(
    settings: Settings,
    plan_id: PlanArgument,
    never: Annotated[bool, typer.Option("--never", help="Show only examinees who have never connected.")] = False,
    output: OutputOption = Format.TABLE,
) -> None:
    """Show the roster of a plan: who has connected, and who has not.

    Example: examwire plans roster P001 --never

    Exit code 3: the plan is unknown.
    """
    check_id("planId", plan_id)

    async def work() -> dict[str, Any]:
        store = StateStore(settings.redis_url, settings.redis)
        try:
            return await roster_of(store, plan_id)
        finally:
            await store.close()

    roster = asyncio.run(work())
    if never:
        roster["examinees"] = [row for row in roster["examinees"] if row["enrolled"] and not row["came"]]
    show(roster, lambda: _draw(roster), output)


async def roster_of(store: StateStore, plan_id: str) -> dict[str, Any]:
    """Return `{planId, counts, examinees: [...]}`; examinees who have never connected come first.

    Raises `NotFound`, `StateUnavailable`, `StateDamaged`.
    """
    if plan_id not in (plans := await store.members(keys.PLANS)):
        raise not_found("plan", plan_id, plans, f"create it with `examwire plans create {plan_id} --roster FILE`")
    ids = await store.members(keys.plan_examinees(plan_id))
    rows = []
    for start in range(0, len(ids), CHUNK):
        batch = ids[start : start + CHUNK]
        records = await store.fields([keys.progress(plan_id, examinee_id) for examinee_id in batch], _FIELDS)
        rows += [
            _row(examinee_id, dict(zip(_FIELDS, values, strict=True)))
            for examinee_id, values in zip(batch, records, strict=True)
        ]
    rows.sort(key=lambda row: (row["came"], row["examineeId"]))
    return {
        "planId": plan_id,
        "counts": {
            "enrolled": sum(row["enrolled"] for row in rows),
            "came": sum(row["enrolled"] and row["came"] for row in rows),
            "neverCame": sum(row["enrolled"] and not row["came"] for row in rows),
            "notOnRoster": sum(not row["enrolled"] for row in rows),
        },
        "examinees": rows,
    }


def _row(examinee_id: str, record: dict[str, str | None]) -> dict[str, Any]:
    return {
        "examineeId": examinee_id,
        "name": record["name"] or None,
        "labels": labels_of(record["labels"]),
        "enrolled": record["enrolled"] == "1",
        "came": bool(record["connStatusCode"]),
        "status": record["connStatusCode"] or "NEVER",
        "since": record["since"] or None,
        "removed": record["removed"] == "1",
    }


def _draw(roster: dict[str, Any]) -> RenderableType:
    counts = roster["counts"]
    title = (
        f"plan {roster['planId']}: {counts['enrolled']} on the roster: {counts['came']} have connected, "
        f"{counts['neverCame']} have not; {counts['notOnRoster']} others have connected; times in {zone_name()}"
    )
    labels = list(dict.fromkeys(label for row in roster["examinees"] for label in row["labels"]))
    rows = [
        (
            row["examineeId"],
            row["name"],
            state_cell("REMOVED" if row["removed"] else row["status"]) if row["came"] else "never connected",
            local_time(row["since"]) or None,
            None if row["enrolled"] else "not on it",
            *(row["labels"].get(label) for label in labels),
        )
        for row in roster["examinees"]
    ]
    columns: Columns = [
        *("examinee", Column("name", crop=True), Column("status", keep=True), "since", "roster"),
        *(Column(label, crop=True) for label in labels),
    ]
    return table(*without_empty(columns, rows), title=title)


# -- the roster -------------------------------------------------------------------------------------------


def _read(path: Path, encoding: str | None) -> Roster:
    try:
        with path.open("rb") as file:
            return read_roster(file.read(MAX_BYTES + 1), _moment, encoding=encoding)
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read: {error.strerror}") from None
    except InvalidRoster as bad:
        raise _not_valid(path, bad) from None


def _not_valid(path: Path, bad: InvalidRoster) -> ConfigurationError:
    lines = "\n".join(f"  {line}" for line in str(bad).splitlines())
    return ConfigurationError(f"{path} is not a valid roster; nothing was written:\n{lines}")


def _moment(cell: str) -> float:
    """Return the time in a cell: RFC 3339, or a date and a time in this machine's zone. Raises `ConfigurationError`."""
    if _DATE.match(cell) is None:
        raise ConfigurationError("a time without a date")
    return parse_time_option(cell, "time")


def _web_url(settings: Settings, url: str | None) -> str:
    if url is not None:
        if not url.startswith(("http://", "https://")):
            raise typer.BadParameter(f"--web-url: {url!r} is no http:// or https:// address")
        return url.rstrip("/")
    running = RunningSystem.find(settings.data_dir)
    if running is not None:
        return page_bases(running.web_url, settings)[0].rstrip("/")
    scheme = "https" if settings.web.certificate_file is not None else "http"
    return page_bases(f"{scheme}://{settings.web.host}:{settings.web.port}", settings)[0]


def _summary(result: dict[str, Any], plan: PlanState) -> RenderableType:
    counts = {
        "enrolled now": result["new"],
        "renamed": result["renamed"],
        "with other labels": result["relabelled"],
        "unchanged": result["known"],
    }
    news = ", ".join(f"{count} {what}" for what, count in counts.items() if count)
    lines = [f"plan {result['planId']}: {result['examinees']} examinees on the roster: {news}"]
    columns = [
        f"{title} is {meaning}"
        for title, meaning in result["columns"].items()
        if meaning not in (title, f"label {title}")
    ]
    if columns:
        lines.append(f"columns: {', '.join(columns)}")
    if result["timed"]:
        lines.append(f"{result['timed']} have got times of their own")
    if plan.version:
        lines.append(plan_sentence(plan))
    if result["tokens"] is not None:
        lines.append(
            f"tokens and links are in {result['tokens']}, readable by you only: whoever has a token can connect"
        )
    return paragraph(lines)


# -- tokens -----------------------------------------------------------------------------------------------


def _tokens(settings: Settings, plan_id: str, entries: Sequence[RosterEntry], seconds: float, base: str) -> bytes:
    """Return the CSV table of tokens: the examinees in the roster's order, and a proctor."""

    def row(role: Role, subject: str, *columns: str | None) -> tuple[str | None, ...]:
        issued = issue_token(settings, role, plan_id, subject, seconds=seconds)
        return (role, *columns, issued, f"{base}/{role}#token={issued}")

    rows = [row("examinee", entry.examinee_id, entry.examinee_id, entry.name) for entry in entries]
    rows.append(row("proctor", PROCTOR, None, PROCTOR))
    return csv_table(TOKEN_COLUMNS, rows)


def _check_target(path: Path, roster: Path) -> None:
    """Raise `ConfigurationError` unless there is no file yet, or one with tokens of an earlier run."""
    if not (path.parent.is_dir() and os.access(path.parent, os.W_OK)):
        raise ConfigurationError(f"--tokens: the directory {path.parent} does not exist or is not writable")
    try:
        mode = path.lstat().st_mode
        if not stat.S_ISREG(mode):
            raise ConfigurationError(f"--tokens: {path} is not a regular file: give the name of a new one")
        if path.samefile(roster):
            raise ConfigurationError(f"--tokens: {path} is the roster: give the name of a new file")
        with path.open("rb") as file:
            first_line = file.readline(1000)
    except FileNotFoundError:
        return
    except OSError as error:
        raise ConfigurationError(f"--tokens: {path} cannot be read: {error.strerror}") from None
    if first_line and first_line.removeprefix(codecs.BOM_UTF8).strip() != ",".join(TOKEN_COLUMNS).encode():
        raise ConfigurationError(f"--tokens: {path} exists and holds no tokens: give the name of a new file")


def _write_secret(path: Path, content: bytes) -> None:
    """Write a file atomically with mode 0600, also when it replaces a file with another mode."""
    try:
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content)
            os.replace(temporary, path)
        except BaseException:
            os.unlink(temporary)
            raise
    except OSError as error:
        raise ConfigurationError(f"--tokens: {path} cannot be written: {error.strerror}") from None
