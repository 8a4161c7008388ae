"""`examwire plans timeline`: what happened to a plan's examinees, by the log of record; and what was so at a moment."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated, Any

import typer

from actors.runtime.config.settings import Settings
from actors.status_log.plan_log import Beginning, PlanLog
from cli.shared.live_actors import connected
from cli.shared.options import takes_settings
from cli.shared.output import (
    Format,
    NotFound,
    OutputOption,
    console,
    print_json,
    run_until_interrupted,
    say,
    table,
    text,
)
from cli.shared.times import TIME_HELP, duration_text, local_time, parse_time_option, with_local_times, zone_name
from protocol.ids import check_id
from protocol.log.timeline import Timeline
from protocol.log.timeline_entry import EntryKind, StatusAtTime, TimelineEntry, status_at_time
from protocol.times import format_time, parse_time

if TYPE_CHECKING:
    from rich.console import RenderableType

FOLLOW_SECONDS = 0.5
_QUOTES = (EntryKind.NOTICE, EntryKind.NOTICE_CONFIRMED, EntryKind.REMOVED)
COLUMNS = ["log time", "examinee", "what", "status", "socket", "address", "version"]


@takes_settings("nats_url", "data_dir", running=True)
def timeline(
    settings: Settings,
    plan_id: Annotated[str, typer.Argument(metavar="PLAN_ID", help="The plan.", show_default=False)],
    examinee_id: Annotated[
        str | None, typer.Argument(metavar="[EXAMINEE_ID]", help="Only this examinee.", show_default=False)
    ] = None,
    at: Annotated[str | None, typer.Option("--at", metavar="TIME", help=f"What was so then: {TIME_HELP}")] = None,
    since: Annotated[str | None, typer.Option("--since", metavar="TIME", help="Only from then on.")] = None,
    until: Annotated[str | None, typer.Option("--until", metavar="TIME", help="Only up to then.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="Also what had no effect, and why.")] = False,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with what happens, until Ctrl-C.")] = False,
    output: OutputOption = Format.TABLE,
) -> None:
    """Tell what happened, as it was decided: joined, lost and why, attempts, recovered, shut out, readmitted, pictures.

    With --at: the status at that moment by the log's time, what made it so, since when, and what was next. Exit code
    3: the plan or the examinee has never been seen.
    """
    check_id("planId", plan_id)
    if examinee_id is not None:
        check_id("examineeId", examinee_id)
    moment = parse_time_option(at, "--at") if at is not None else None
    first = format_time(parse_time_option(since, "--since")) if since is not None else ""
    last = format_time(parse_time_option(until, "--until")) if until is not None else "~"

    def wanted(one: TimelineEntry) -> bool:
        return (everything or one.effect) and first <= one.logged <= last

    async def work() -> None:
        async with connected(settings, "plans timeline") as bus:
            plan_log = PlanLog(bus, plan_id)
            beginning = await plan_log.beginning()
            reading = Timeline(truncated=beginning.cut)
            happened = await read_entries(plan_log, reading, examinee_id)
            if not happened and not follow:
                raise NotFound(never_seen(plan_id, examinee_id, beginning))
            _say_what_is_missing(reading, examinee_id, beginning)
            if moment is not None:
                _show_moment(happened, plan_id, examinee_id, moment, beginning, output)
                return
            _show(list(filter(wanted, happened)), plan_id, output, lines=follow)
            while follow:
                await asyncio.sleep(FOLLOW_SECONDS)
                _show_more(list(filter(wanted, await read_entries(plan_log, reading, examinee_id))), output)

    run_until_interrupted(work())


async def read_entries(plan_log: PlanLog, reading: Timeline, examinee_id: str | None) -> list[TimelineEntry]:
    """What has happened since this was called before."""
    happened: list[TimelineEntry] = []
    async for entry in plan_log.new_entries(examinee_id):
        if (one := reading.add(entry)) is not None:
            happened.append(one)
    return happened


def never_seen(plan_id: str, examinee_id: str | None, beginning: Beginning) -> str:
    """What is said of somebody about whom the log holds nothing."""
    who = f"examinee {examinee_id} of plan {plan_id}" if examinee_id is not None else f"plan {plan_id}"
    back = f"which goes back to {local_time(beginning.since)} {zone_name()}"
    reach = back if beginning.since is not None else "which is empty"
    return f"{who} has never been seen by the log, {reach}"


def _say_what_is_missing(reading: Timeline, examinee_id: str | None, beginning: Beginning) -> None:
    missing = [one for one in reading.examinees.values() if not one.complete]
    if not missing:
        return
    first = local_time(min(one.first_logged for one in missing))
    who = examinee_id or f"{len(missing)} examinees"
    say(
        f"the first facts about {who} have expired: the log begins at {local_time(beginning.since)}, "
        f"its first facts about them are from {first} ({zone_name()})",
        err=True,
    )


# -- what happened ----------------------------------------------------------------------------------------


def as_json(one: TimelineEntry) -> dict[str, Any]:
    """JSON-ready, without what is not known."""
    return one.model_dump(mode="json", by_alias=True, exclude_none=True)


def cells(one: TimelineEntry) -> tuple[object, ...]:
    """A row below `COLUMNS`."""
    return (
        local_time(one.logged),
        one.examinee_id,
        _words(one.what, one.text),
        one.mobile_sync if one.what.name.startswith("SYNC_") else one.status,
        one.socket_id,
        one.ip_address,
        one.version,
    )


def _show(happened: list[TimelineEntry], plan_id: str, output: Format, *, lines: bool) -> None:
    if output is not Format.JSON:
        title = f"plan {plan_id}: {len(happened)} happenings; times in {zone_name()}"
        console().print(table(COLUMNS, map(cells, happened), title=title))
    elif lines:
        _show_more(happened, output)
    else:
        print_json([as_json(one) for one in happened])


def _show_more(happened: list[TimelineEntry], output: Format) -> None:
    for one in happened:
        if output is Format.JSON:
            print_json(as_json(one), lines=True)
        else:
            say("  ".join(str(cell) for cell in cells(one) if cell))


# -- at a moment ------------------------------------------------------------------------------------------


def status_at(examinee_id: str, happened: list[TimelineEntry], moment: float) -> dict[str, Any]:
    """The status at a moment and why, JSON-ready; `happened` is all of one examinee's."""
    found = status_at_time(happened, moment)

    def fact(one: TimelineEntry | None) -> dict[str, Any] | None:
        return as_json(one) if one is not None else None

    return {
        "examineeId": examinee_id,
        "at": format_time(moment),
        "status": found.status,
        "since": found.status_entry.logged if found.status_entry is not None else None,
        "reason": found.status_entry.reason if found.status_entry is not None and found.status != "CONNECTED" else None,
        "mobileSync": found.mobile_sync,
        "made": fact(found.status_entry),
        "latest": fact(found.latest_entry),
        "picture": fact(found.mobile_sync_entry),
        "next": fact(found.next_entry),
    }


def _show_moment(
    happened: list[TimelineEntry],
    plan_id: str,
    examinee_id: str | None,
    moment: float,
    beginning: Beginning,
    output: Format,
) -> None:
    by_examinee: dict[str, list[TimelineEntry]] = {}
    for one in happened:
        by_examinee.setdefault(one.examinee_id, []).append(one)
    found = {who: status_at(who, theirs, moment) for who, theirs in sorted(by_examinee.items())}
    if output is Format.JSON:
        common = {"planId": plan_id, "logSince": beginning.since}
        if examinee_id is not None:
            print_json({**common, **found[examinee_id]})
        else:
            print_json([{**common, **one} for one in found.values()])
    elif examinee_id is not None:
        for line in _in_words(examinee_id, status_at_time(by_examinee[examinee_id], moment), moment, beginning):
            console().print(text(line))
    else:
        console().print(_draw_moments(plan_id, list(found.values()), moment))


def _in_words(examinee_id: str, found: StatusAtTime, moment: float, beginning: Beginning) -> list[str]:
    lines = [
        f"{examinee_id} at {local_time(moment)} {zone_name(moment)}: {found.status}, mobile sync {found.mobile_sync}"
    ]
    if found.status_entry is not None:
        ago = duration_text(moment - parse_time(found.status_entry.logged))
        lines.append(f"  because  {_line(found.status_entry)} (version {found.status_entry.version}), {ago} before")
    elif beginning.since is not None:
        lines.append(
            f"  because  the log, which goes back to {local_time(beginning.since)}, holds no connection until then"
        )
    if found.latest_entry is not None and found.latest_entry is not found.status_entry:
        lines.append(f"  last     {_line(found.latest_entry)} (version {found.latest_entry.version})")
    if found.mobile_sync_entry is not None:
        lines.append(f"  picture  {_line(found.mobile_sync_entry)} (version {found.mobile_sync_entry.version})")
    if found.next_entry is not None:
        later = duration_text(parse_time(found.next_entry.logged) - moment)
        lines.append(f"  next     {_line(found.next_entry)} (version {found.next_entry.version}), {later} after")
    else:
        lines.append("  next     nothing, up to the end of the log")
    return lines


def _line(one: TimelineEntry) -> str:
    return f"{local_time(one.logged)}  {_words(one.what, one.text)}"


def _words(what: str, text: str) -> str:
    """The text with its times as the columns have them; what somebody has written stays as it was written."""
    return text if what in _QUOTES else with_local_times(text)


def _draw_moments(plan_id: str, found: list[dict[str, Any]], moment: float) -> RenderableType:
    def text(fact: dict[str, Any] | None) -> str | None:
        return _words(fact["what"], fact["text"]) if fact is not None else None

    rows = [
        (
            one["examineeId"],
            one["status"],
            local_time(one["since"]),
            text(one["made"]),
            text(one["latest"]) if one["latest"] != one["made"] else None,
            one["mobileSync"],
        )
        for one in found
    ]
    title = f"plan {plan_id} at {local_time(moment)} {zone_name(moment)}"
    return table(["examinee", "status", "since", "because", "last", "mobile sync"], rows, title=title)
