"""`examwire examinees show`: why is this one red, and what to do."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Annotated, Any

import typer

from actors.runtime.broker.connection import Bus
from actors.runtime.config.settings import Settings
from actors.runtime.store.state_store import StateStore
from actors.status_log.plan_log import PlanLog
from cli.operate.dead_letter_admin import DeadLetterAdmin
from cli.plans.diagnosis import Diagnosis, DiagnosisInput, diagnose
from cli.plans.timeline import as_json, cells, read_entries
from cli.shared.live_actors import connected, session_at
from cli.shared.options import takes_settings
from cli.shared.output import ExitCode, Format, NotFound, OutputOption, console, print_json, say, table, text
from cli.shared.times import local_time, zone_name
from protocol.broker import subjects
from protocol.errors import BrokerUnavailable, StateDamaged, StateUnavailable
from protocol.ids import check_id
from protocol.log.timeline import Timeline
from protocol.records import keys

LAST = 10
CHUNK = 500
HIDDEN = ("history", "rev", "liveSocketId")  # what only the state manager reads

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None)


@app.callback()
def examinees() -> None:
    """One examinee: what is so, why, and what to do."""


@app.command("show")
@takes_settings("nats_url", "redis_url", "data_dir", running=True)
def show_examinee(
    settings: Settings,
    plan_id: Annotated[str, typer.Argument(metavar="PLAN_ID", help="The plan.", show_default=False)],
    examinee_id: Annotated[str, typer.Argument(metavar="EXAMINEE_ID", help="The examinee.", show_default=False)],
    output: OutputOption = Format.TABLE,
) -> None:
    """Say in plain words what an examinee's status is, why, and what to do; then all that is known about them.

    From Redis, the log of record, the live session and the dead letters. Exit code 3: never seen, 4: neither Redis
    nor NATS can be reached, 5: one of them cannot, so it is said from the other alone.
    """
    check_id("planId", plan_id)
    check_id("examineeId", examinee_id)

    async def work() -> ExitCode:
        seen = DiagnosisInput(plan_id, examinee_id, time.time())
        both = await asyncio.gather(_from_redis(settings, seen), _from_nats(settings, seen))
        if all(error is not None for error in both):
            raise both[1] or both[0] or AssertionError
        if seen.never_seen and not seen.unavailable:
            raise NotFound(f"examinee {examinee_id} of plan {plan_id} has never been seen")
        found = diagnose(seen)
        if output is Format.JSON:
            print_json(_as_json(seen, found))
        else:
            _print(seen, found)
        for trouble in seen.unavailable:
            say(f"examwire: {trouble}", err=True)
        return ExitCode.DEGRADED if seen.unavailable else ExitCode.OK

    code = asyncio.run(work())
    if code is not ExitCode.OK:
        raise typer.Exit(code)


# -- asking -----------------------------------------------------------------------------------------------


async def _from_redis(settings: Settings, seen: DiagnosisInput) -> StateUnavailable | None:
    store = StateStore(settings.redis_url, settings.redis)
    try:
        progress = await _readable(seen, store.entries, keys.progress(seen.plan_id, seen.examinee_id))
        seen.picture = await _readable(seen, store.entries, keys.mobile_sync(seen.plan_id, seen.examinee_id))
        if progress is not None and progress.get("serverId"):
            seen.server = await _readable(seen, store.entries, keys.server_status(progress["serverId"]))
        if progress is not None and progress.get("connStatusCode") == "DISCONNECTED":
            await _count_others(store, seen, progress.get("serverId"))
        seen.record = progress
    except StateUnavailable as error:
        seen.unavailable.append(f"{error}; what follows is from the log alone")
        return error
    finally:
        await store.close()
    return None


async def _readable(
    seen: DiagnosisInput, read_hash: Callable[[str], Awaitable[dict[str, str]]], key: str
) -> dict[str, str] | None:
    try:
        return await read_hash(key)
    except StateDamaged as damage:
        seen.unavailable.append(f"{damage}: the record is damaged: `examwire state rebuild --plan {seen.plan_id}`")
        return None


async def _count_others(store: StateStore, seen: DiagnosisInput, server_id: str | None) -> None:
    ids = [one for one in await store.members(keys.plan_examinees(seen.plan_id)) if one != seen.examinee_id]
    for start in range(0, len(ids), CHUNK):
        wanted = [keys.progress(seen.plan_id, one) for one in ids[start : start + CHUNK]]
        for status, server in await store.fields(wanted, ("connStatusCode", "serverId")):
            if status == "DISCONNECTED":
                seen.others_gone += 1
                seen.others_of_server += server == server_id


async def _from_nats(settings: Settings, seen: DiagnosisInput) -> BrokerUnavailable | None:
    try:
        async with connected(settings, "examinees show") as bus:
            await asyncio.gather(_ask_session(bus, seen), _read_log(bus, seen), _find_letters(bus, seen))
    except BrokerUnavailable as error:
        seen.unavailable.append(f"{error}; what follows is without the log, the live session and the dead letters")
        return error
    return None


async def _ask_session(bus: Bus, seen: DiagnosisInput) -> None:
    try:
        found = await session_at(bus, subjects.session(seen.plan_id, seen.examinee_id))
    except NotFound:
        seen.session = {}
    else:
        seen.session = found.inspection


async def _read_log(bus: Bus, seen: DiagnosisInput) -> None:
    plan_log = PlanLog(bus, seen.plan_id)
    reading = Timeline(truncated=(await plan_log.beginning()).cut)
    seen.happened = await read_entries(plan_log, reading, seen.examinee_id)
    person = reading.examinees.get(seen.examinee_id)
    seen.by_log = person.connection if person is not None else None


async def _find_letters(bus: Bus, seen: DiagnosisInput) -> None:
    desk = DeadLetterAdmin(bus)
    about = [
        one.number
        async for one in desk.letters(wanted=lambda filed: filed.letter.mentions(seen.plan_id, seen.examinee_id))
    ]
    seen.letters = about


# -- showing ----------------------------------------------------------------------------------------------


def _as_json(seen: DiagnosisInput, found: Diagnosis) -> dict[str, Any]:
    return {
        "planId": seen.plan_id,
        "examineeId": seen.examinee_id,
        "status": seen.status,
        "headline": found.headline,
        "advice": found.advice,
        "disagreements": found.disagreements,
        "record": _visible(seen.record),
        "mobileSync": _visible(seen.picture),
        "session": seen.session,
        "server": _visible(seen.server),
        "timeline": [as_json(one) for one in (seen.happened or ())[-LAST:]] if seen.happened is not None else None,
        "deadLetters": seen.letters,
        "unavailable": seen.unavailable,
    }


def _print(seen: DiagnosisInput, found: Diagnosis) -> None:
    target = console()

    def tell(line: str) -> None:
        target.print(text(line))

    tell(found.headline)
    for line in found.disagreements:
        tell(f"  note: {line}")
    for line in found.advice:
        tell(f"  what to do: {line}")
    tell("")
    for title, values in (
        ("record", _visible(seen.record)),
        ("live session", _session_lines(seen.session)),
        ("server", _visible(seen.server)),
        ("mobile sync", _visible(seen.picture)),
    ):
        if values:
            target.print(table([title, ""], [(name, value) for name, value in values.items() if value]))
        elif values is not None:
            tell(f"{title}: none")
            tell("")
    if seen.happened is not None:
        shown = [one for one in seen.happened if one.effect][-LAST:]
        title = f"the last {len(shown)} of {len(seen.happened)} happenings; times in {zone_name()}"
        columns = ["log time", "what", "status", "socket", "address", "version"]
        rows = [(row[0], *row[2:]) for row in map(cells, shown)]
        target.print(table(columns, rows, title=title))


def _visible(record: dict[str, str] | None) -> dict[str, str] | None:
    return {name: value for name, value in record.items() if name not in HIDDEN} if record is not None else None


def _session_lines(session: dict[str, Any] | None) -> dict[str, Any] | None:
    if not session:
        return session
    details = session.get("details") or {}
    return {
        "socketId": details.get("socketId"),
        "serverId": details.get("serverId"),
        "since": f"{local_time(session.get('since'))}",
        "state": session.get("state"),
        "lastError": session.get("lastError"),
    }
