"""`examwire plans timeline`: the history of a plan's examinees from the log of record, or the status at one time."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated, Any

import typer

from actors.runtime.broker.connection import Bus
from actors.runtime.config.settings import Settings
from actors.status_log.plan_log import Beginning, PlanLog
from actors.status_log.status_log import StatusLog
from cli.shared.live_actors import connected
from cli.shared.options import takes_settings
from cli.shared.output import (
    Column,
    Columns,
    Format,
    NotFound,
    OutputOption,
    console,
    print_json,
    run_until_interrupted,
    say,
    state_cell,
    table,
    text,
)
from cli.shared.suggestions import not_found
from cli.shared.times import TIME_HELP, duration_text, local_time, parse_time_option, with_local_times, zone_name
from protocol.ids import check_id
from protocol.log.gap import gap_texts
from protocol.log.timeline import Timeline
from protocol.log.timeline_entry import EntryKind, StatusAtTime, TimelineEntry, status_at_time
from protocol.messages.facts import ConnectionStatusCode
from protocol.times import format_time, parse_time

if TYPE_CHECKING:
    from rich.console import RenderableType

FOLLOW_SECONDS = 0.5
_QUOTES = (
    *(EntryKind.NOTICE, EntryKind.NOTICE_CONFIRMED, EntryKind.REMOVED, EntryKind.PLAN_NOTICE, EntryKind.PLAN_CLOSED),
)
COLUMNS: Columns = (
    *("log time", "examinee", Column("what", wrap=True, keep=True), "status"),
    *(Column("socket", wide=True), Column("address", wide=True), Column("version", wide=True)),
)


@takes_settings("nats_url", "data_dir", running=True)
def timeline(
    settings: Settings,
    plan_id: Annotated[str, typer.Argument(metavar="PLAN_ID", help="The plan.", show_default=False)],
    examinee_id: Annotated[
        str | None, typer.Argument(metavar="EXAMINEE_ID", help="Show only this examinee.", show_default=False)
    ] = None,
    at: Annotated[
        str | None, typer.Option("--at", metavar="TIME", help=f"Show the status at this time. {TIME_HELP}")
    ] = None,
    since: Annotated[
        str | None, typer.Option("--since", metavar="TIME", help="Show entries from this time on.")
    ] = None,
    until: Annotated[str | None, typer.Option("--until", metavar="TIME", help="Show entries up to this time.")] = None,
    newest: Annotated[
        int | None, typer.Option("--newest", metavar="N", min=1, help="Show only the newest N entries.")
    ] = None,
    before: Annotated[
        int | None, typer.Option("--before", metavar="VERSION", help="Show entries before this version.")
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="Show entries without effect, too, and why.")] = False,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Show new entries as they come, until Ctrl-C.")
    ] = False,
    output: OutputOption = Format.TABLE,
) -> None:
    """Show the history of a plan or an examinee.

    \b
    Examples:
      examwire plans timeline P001 E0042
      examwire plans timeline P001 E0042 --newest 50
      examwire plans timeline P001 --at 09:15

    Entries are connections, losses with their reasons, attempts, recoveries, messages and pictures. With --at: the
    status at that time, its cause, and the next entry. Exit code 3: the plan or examinee is unknown.
    """
    check_id("planId", plan_id)
    if examinee_id is not None:
        check_id("examineeId", examinee_id)
    moment = parse_time_option(at, "--at") if at is not None else None
    earliest = format_time(parse_time_option(since, "--since")) if since is not None else ""
    latest = format_time(parse_time_option(until, "--until")) if until is not None else "~"

    def wanted(entry: TimelineEntry) -> bool:
        return (
            (everything or entry.effect)
            and earliest <= entry.logged <= latest
            and (before is None or entry.version < before)
        )

    async def work() -> None:
        async with connected(settings, "plans timeline") as bus:
            plan_log = PlanLog(bus, plan_id)
            beginning = await plan_log.beginning()
            timeline_state = Timeline(truncated=beginning.truncated)
            entries = await read_entries(plan_log, timeline_state, examinee_id)
            if not follow and (not entries if examinee_id is None else examinee_id not in timeline_state.examinees):
                raise await never_seen(bus, plan_id, examinee_id, beginning)
            _say_what_is_missing(timeline_state, examinee_id, beginning)
            if moment is not None:
                _show_moment(entries, plan_id, examinee_id, moment, beginning, output)
                return
            shown = list(filter(wanted, entries))
            if newest is not None and (older := len(shown) - newest) > 0:
                shown = shown[-newest:]
                say(f"{older} older entries are not shown: see --before {shown[0].version}", err=True)
            _show(shown, plan_id, output, lines=follow)
            while follow:
                await asyncio.sleep(FOLLOW_SECONDS)
                _show_more(list(filter(wanted, await read_entries(plan_log, timeline_state, examinee_id))), output)

    run_until_interrupted(work())


async def read_entries(plan_log: PlanLog, timeline_state: Timeline, examinee_id: str | None) -> list[TimelineEntry]:
    """Return the entries that are new since the last call."""
    entries: list[TimelineEntry] = []
    async for log_entry in plan_log.new_entries(examinee_id):
        entry = timeline_state.add(log_entry)
        if entry is not None and (examinee_id is None or log_entry.concerns(examinee_id)):
            entries.append(entry)
    return entries


async def never_seen(bus: Bus, plan_id: str, examinee_id: str | None, beginning: Beginning) -> NotFound:
    """Return the error for a plan or examinee without any entry in the log."""
    reach_text = f"the log, which goes back to {local_time(beginning.since)} {zone_name()}, does not have it"
    advice = reach_text if beginning.since is not None else "the log is empty"
    plans = await StatusLog(bus).plan_ids()
    if examinee_id is None or plan_id not in plans:
        return not_found("plan", plan_id, plans, advice)
    return not_found(f"in plan {plan_id}, examinee", examinee_id, (), advice)


def _say_what_is_missing(timeline_state: Timeline, examinee_id: str | None, beginning: Beginning) -> None:
    first_logged = min((person.first_logged for person in timeline_state.examinees.values()), default=None)
    for text_of_gap in gap_texts(beginning.gaps_of(first_logged)):
        say(with_local_times(text_of_gap), err=True)
    missing = [person for person in timeline_state.examinees.values() if not person.complete]
    if not missing:
        return
    first = local_time(min(person.first_logged for person in missing))
    subject = examinee_id or f"{len(missing)} examinees"
    say(
        f"the first facts about {subject} have expired: the log begins at {local_time(beginning.since)}, "
        f"its first facts about them are from {first} ({zone_name()})",
        err=True,
    )


# -- what happened ----------------------------------------------------------------------------------------


def as_json(entry: TimelineEntry) -> dict[str, Any]:
    """Return an entry ready for JSON, without empty fields."""
    return entry.model_dump(mode="json", by_alias=True, exclude_none=True)


def cells(entry: TimelineEntry) -> tuple[object, ...]:
    """Return a table row for `COLUMNS`."""
    return (
        local_time(entry.logged),
        entry.examinee_id,
        _words(entry.what, entry.text),
        state_cell(entry.mobile_sync if entry.what.name.startswith("SYNC_") else entry.status),
        entry.socket_id,
        entry.ip_address,
        entry.version,
    )


def _show(entries: list[TimelineEntry], plan_id: str, output: Format, *, lines: bool) -> None:
    if output is not Format.JSON:
        what = "1 entry" if len(entries) == 1 else f"{len(entries)} entries"
        title = f"plan {plan_id}: {what}; times in {zone_name()}"
        console(output).print(table(COLUMNS, map(cells, entries), title=title))
    elif lines:
        _show_more(entries, output)
    else:
        print_json([as_json(entry) for entry in entries])


def _show_more(entries: list[TimelineEntry], output: Format) -> None:
    for entry in entries:
        if output is Format.JSON:
            print_json(as_json(entry), lines=True)
        else:
            say("  ".join(str(cell) for cell in cells(entry) if cell))


# -- at a moment ------------------------------------------------------------------------------------------


def status_at(examinee_id: str, entries: list[TimelineEntry], moment: float) -> dict[str, Any]:
    """Return the status at a time and its cause, ready for JSON; `entries` holds all entries of one examinee."""
    status_then = status_at_time(entries, moment)

    def entry_json(entry: TimelineEntry | None) -> dict[str, Any] | None:
        return as_json(entry) if entry is not None else None

    return {
        "examineeId": examinee_id,
        "at": format_time(moment),
        "status": status_then.status,
        "since": status_then.status_entry.logged if status_then.status_entry is not None else None,
        "reason": status_then.status_entry.reason
        if status_then.status_entry is not None and status_then.status != ConnectionStatusCode.CONNECTED
        else None,
        "mobileSync": status_then.mobile_sync,
        "made": entry_json(status_then.status_entry),
        "latest": entry_json(status_then.latest_entry),
        "picture": entry_json(status_then.mobile_sync_entry),
        "next": entry_json(status_then.next_entry),
    }


def _show_moment(
    entries: list[TimelineEntry],
    plan_id: str,
    examinee_id: str | None,
    moment: float,
    beginning: Beginning,
    output: Format,
) -> None:
    by_examinee: dict[str, list[TimelineEntry]] = {}
    for entry in entries:
        if entry.examinee_id is not None:
            by_examinee.setdefault(entry.examinee_id, []).append(entry)
    statuses = {
        examinee: status_at(examinee, examinee_entries, moment)
        for examinee, examinee_entries in sorted(by_examinee.items())
    }
    if output is Format.JSON:
        common = {"planId": plan_id, "logSince": beginning.since}
        if examinee_id is not None:
            print_json({**common, **statuses[examinee_id]})
        else:
            print_json([{**common, **entry} for entry in statuses.values()])
    elif examinee_id is not None:
        for line in _in_words(examinee_id, status_at_time(by_examinee[examinee_id], moment), moment, beginning):
            console().print(text(line))
    else:
        console(output).print(_draw_moments(plan_id, list(statuses.values()), moment))


def _in_words(examinee_id: str, status_then: StatusAtTime, moment: float, beginning: Beginning) -> list[str]:
    lines = [
        f"{examinee_id} at {local_time(moment)} {zone_name(moment)}: {status_then.status}, "
        f"mobile sync {status_then.mobile_sync}"
    ]
    if status_then.status_entry is not None:
        ago = duration_text(moment - parse_time(status_then.status_entry.logged))
        lines.append(
            f"  because  {_line(status_then.status_entry)} (version {status_then.status_entry.version}), {ago} before"
        )
    elif beginning.since is not None:
        lines.append(
            f"  because  the log, which goes back to {local_time(beginning.since)}, holds no connection until then"
        )
    if status_then.latest_entry is not None and status_then.latest_entry is not status_then.status_entry:
        lines.append(f"  last     {_line(status_then.latest_entry)} (version {status_then.latest_entry.version})")
    if status_then.mobile_sync_entry is not None:
        lines.append(
            f"  picture  {_line(status_then.mobile_sync_entry)} (version {status_then.mobile_sync_entry.version})"
        )
    if status_then.next_entry is not None:
        later = duration_text(parse_time(status_then.next_entry.logged) - moment)
        lines.append(
            f"  next     {_line(status_then.next_entry)} (version {status_then.next_entry.version}), {later} after"
        )
    else:
        lines.append("  next     nothing, up to the end of the log")
    return lines


def _line(entry: TimelineEntry) -> str:
    return f"{local_time(entry.logged)}  {_words(entry.what, entry.text)}"


def _words(what: str, text: str) -> str:
    """Return the text with local times; texts that a person has written stay unchanged."""
    return text if what in _QUOTES else with_local_times(text)


def _draw_moments(plan_id: str, statuses: list[dict[str, Any]], moment: float) -> RenderableType:
    def entry_text(entry: dict[str, Any] | None) -> str | None:
        return _words(entry["what"], entry["text"]) if entry is not None else None

    rows = [
        (
            status["examineeId"],
            state_cell(status["status"]),
            local_time(status["since"]),
            entry_text(status["made"]),
            entry_text(status["latest"]) if status["latest"] != status["made"] else None,
            status["mobileSync"],
        )
        for status in statuses
    ]
    title = f"plan {plan_id} at {local_time(moment)} {zone_name(moment)}"
    columns = ("examinee", "status", "since", Column("because", wrap=True), Column("last", crop=True), "mobile sync")
    return table(columns, rows, title=title)
