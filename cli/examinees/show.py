"""`examwire examinees show`: explain one examinee's status, and show all data about them."""

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
from cli.examinees.diagnosis import Diagnosis, DiagnosisInput, diagnose
from cli.operate.dead_letter_admin import DeadLetterAdmin
from cli.plans.plan_text import plan_json, plan_text, read_plans
from cli.plans.timeline import as_json, cells, read_entries
from cli.shared.live_actors import connected, session_at
from cli.shared.options import takes_settings
from cli.shared.output import (
    Column,
    Columns,
    ExitCode,
    Format,
    NotFound,
    OutputOption,
    cell,
    console,
    print_json,
    say,
    table,
    text,
)
from cli.shared.suggestions import not_found
from cli.shared.times import zone_name
from protocol.broker import subjects
from protocol.errors import BrokerUnavailable, StateDamaged, StateUnavailable
from protocol.ids import check_id
from protocol.log.timeline import Timeline
from protocol.messages.facts import ConnectionStatusCode
from protocol.records import keys
from protocol.records.snapshot_rows import labels_of

LAST = 10
CHUNK = 500
HIDDEN = ("history", "rev", "liveSocketId", "labels")  # fields for the state manager only


@takes_settings("nats_url", "redis_url", "data_dir", running=True)
def show_examinee(
    settings: Settings,
    plan_id: Annotated[str, typer.Argument(metavar="PLAN_ID", help="The plan.", show_default=False)],
    examinee_id: Annotated[str, typer.Argument(metavar="EXAMINEE_ID", help="The examinee.", show_default=False)],
    output: OutputOption = Format.TABLE,
) -> None:
    """Explain an examinee's status and what to do. Then show the record, session and latest timeline entries.

    Example: examwire examinees show P001 E0042

    Sources: Redis, the log of record, the live session and the dead letters. Exit code 3: the examinee is unknown, 4:
    neither Redis nor NATS can be reached, 5: one of them cannot be reached, so the answer is incomplete.
    """
    check_id("planId", plan_id)
    check_id("examineeId", examinee_id)

    async def work() -> ExitCode:
        data = DiagnosisInput(plan_id, examinee_id, time.time())
        errors = await asyncio.gather(_from_redis(settings, data), _from_nats(settings, data))
        if all(error is not None for error in errors):
            raise errors[1] or errors[0] or AssertionError
        if data.never_seen and not data.unavailable:
            raise await _unknown(settings, data)
        diagnosis = diagnose(data)
        if output is Format.JSON:
            print_json(_as_json(data, diagnosis))
        else:
            _print(data, diagnosis, output)
        for message in data.unavailable:
            say(f"examwire: {message}", err=True)
        return ExitCode.DEGRADED if data.unavailable else ExitCode.OK

    code = asyncio.run(work())
    if code is not ExitCode.OK:
        raise typer.Exit(code)


# -- asking -----------------------------------------------------------------------------------------------


async def _unknown(settings: Settings, data: DiagnosisInput) -> NotFound:
    """Return the error for a plan or an examinee that nobody knows."""
    store = StateStore(settings.redis_url, settings.redis)
    try:
        if data.plan_id not in (plans := await store.members(keys.PLANS)):
            return not_found("plan", data.plan_id, plans, "`examwire plans ls` lists the plans")
        examinees = await store.members(keys.plan_examinees(data.plan_id))
        advice = f"`examwire plans show {data.plan_id}` lists the examinees"
        return not_found(f"in plan {data.plan_id}, examinee", data.examinee_id, examinees, advice)
    finally:
        await store.close()


async def _from_redis(settings: Settings, data: DiagnosisInput) -> StateUnavailable | None:
    store = StateStore(settings.redis_url, settings.redis)
    try:
        progress = await _readable(data, store.entries, keys.progress(data.plan_id, data.examinee_id))
        try:
            (data.plan,) = await read_plans(store, [data.plan_id])
        except StateDamaged as error:
            data.unavailable.append(f"{error}: repair it with `examwire state rebuild --plan {data.plan_id}`")
        data.picture = await _readable(data, store.entries, keys.mobile_sync(data.plan_id, data.examinee_id))
        if progress is not None and progress.get("serverId"):
            data.server = await _readable(data, store.entries, keys.server_status(progress["serverId"]))
        if progress is not None and progress.get("connStatusCode") == ConnectionStatusCode.DISCONNECTED:
            await _count_others(store, data, progress.get("serverId"))
        data.record = progress
    except StateUnavailable as error:
        data.unavailable.append(f"{error}; this answer uses the log only")
        return error
    finally:
        await store.close()
    return None


async def _readable(
    data: DiagnosisInput, read_hash: Callable[[str], Awaitable[dict[str, str]]], key: str
) -> dict[str, str] | None:
    try:
        return await read_hash(key)
    except StateDamaged as error:
        data.unavailable.append(f"{error}: repair it with `examwire state rebuild --plan {data.plan_id}`")
        return None


async def _count_others(store: StateStore, data: DiagnosisInput, server_id: str | None) -> None:
    ids = [
        examinee_id
        for examinee_id in await store.members(keys.plan_examinees(data.plan_id))
        if examinee_id != data.examinee_id
    ]
    for start in range(0, len(ids), CHUNK):
        record_keys = [keys.progress(data.plan_id, examinee_id) for examinee_id in ids[start : start + CHUNK]]
        for status, server in await store.fields(record_keys, ("connStatusCode", "serverId")):
            if status == ConnectionStatusCode.DISCONNECTED:
                data.others_gone += 1
                data.others_of_server += server == server_id


async def _from_nats(settings: Settings, data: DiagnosisInput) -> BrokerUnavailable | None:
    try:
        async with connected(settings, "examinees show") as bus:
            await asyncio.gather(_ask_session(bus, data), _read_log(bus, data), _find_letters(bus, data))
    except BrokerUnavailable as error:
        data.unavailable.append(f"{error}; this answer lacks the log, the live session and the dead letters")
        return error
    return None


async def _ask_session(bus: Bus, data: DiagnosisInput) -> None:
    try:
        session = await session_at(bus, subjects.session(data.plan_id, data.examinee_id))
    except NotFound:
        data.session = {}
    else:
        data.session = session.inspection


async def _read_log(bus: Bus, data: DiagnosisInput) -> None:
    plan_log = PlanLog(bus, data.plan_id)
    timeline = Timeline(truncated=(await plan_log.beginning()).truncated)
    data.happened = await read_entries(plan_log, timeline, data.examinee_id)
    person = timeline.examinees.get(data.examinee_id)
    data.plan = data.plan or timeline.plan
    data.by_log = person.connection if person is not None else None


async def _find_letters(bus: Bus, data: DiagnosisInput) -> None:
    admin = DeadLetterAdmin(bus)
    numbers = [
        letter.number
        async for letter in admin.letters(wanted=lambda letter: letter.letter.mentions(data.plan_id, data.examinee_id))
    ]
    data.letters = numbers


# -- showing ----------------------------------------------------------------------------------------------


def _as_json(data: DiagnosisInput, diagnosis: Diagnosis) -> dict[str, Any]:
    return {
        "planId": data.plan_id,
        "examineeId": data.examinee_id,
        "status": data.status,
        "headline": diagnosis.headline,
        "advice": diagnosis.advice,
        "disagreements": diagnosis.disagreements,
        "labels": labels_of(data.record.get("labels")) if data.record is not None else None,
        "record": _visible(data.record),
        "mobileSync": _visible(data.picture),
        "plan": plan_json(data.plan) if data.plan is not None else None,
        "session": data.session,
        "server": _visible(data.server),
        "timeline": [as_json(entry) for entry in (data.happened or ())[-LAST:]] if data.happened is not None else None,
        "deadLetters": data.letters,
        "unavailable": data.unavailable,
    }


def _print(data: DiagnosisInput, diagnosis: Diagnosis, output: Format) -> None:
    terminal = console(output)

    def print_line(line: str) -> None:
        terminal.print(text(line))

    print_line(diagnosis.headline)
    for line in diagnosis.disagreements:
        print_line(f"  note: {line}")
    for line in diagnosis.advice:
        print_line(f"  what to do: {line}")
    if data.plan is not None and data.plan.version:
        print_line(f"plan: {plan_text(plan_json(data.plan))}")
    print_line("")
    for title, values in (
        ("labels", labels_of(data.record.get("labels")) or None if data.record is not None else None),
        ("record", _visible(data.record)),
        ("live session", _session_lines(data.session)),
        ("server", _visible(data.server)),
        ("mobile sync", _visible(data.picture)),
    ):
        if values:
            terminal.print(
                table([title, Column("", wrap=True)], [(name, cell(value)) for name, value in values.items() if value])
            )
        elif values is not None:
            print_line(f"{title}: none")
        else:
            continue
        print_line("")
    if data.happened is not None:
        entries = [entry for entry in data.happened if entry.effect][-LAST:]
        title = f"the last {len(entries)} of {len(data.happened)} timeline entries; times in {zone_name()}"
        columns: Columns = [
            *("log time", Column("what", wrap=True), "status"),
            *(Column("socket", wide=True), Column("address", wide=True), Column("version", wide=True)),
        ]
        rows = [(row[0], *row[2:]) for row in map(cells, entries)]
        terminal.print(table(columns, rows, title=title))


def _visible(record: dict[str, str] | None) -> dict[str, str] | None:
    return {name: value for name, value in record.items() if name not in HIDDEN} if record is not None else None


def _session_lines(session: dict[str, Any] | None) -> dict[str, Any] | None:
    if not session:
        return session
    details = session.get("details") or {}
    return {
        "socketId": details.get("socketId"),
        "serverId": details.get("serverId"),
        "since": session.get("since"),
        "state": session.get("state"),
        "lastError": session.get("lastError"),
    }
