"""`examwire dead-letters`: what could not be processed, why, and what to do with it."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import pydantic_core
import typer

from actors.runtime.config.settings import Settings
from actors.runtime.store.state_store import StateStore
from cli.operate.dead_letter_admin import (
    DeadLetterAdmin,
    NoSuchLetter,
    NotReplayed,
    Replay,
    ReplayOutcome,
    StoredLetter,
)
from cli.shared.live_actors import connected
from cli.shared.options import takes_settings
from cli.shared.output import ExitCode, Format, NotFound, OutputOption, console, print_json, say, show, table, text
from cli.shared.times import local_time, zone_name
from protocol.broker.dead_letters import group_reason
from protocol.errors import ConfigurationError, ProtocolError
from protocol.log.version import version_of

if TYPE_CHECKING:
    from rich.console import RenderableType

REASON_SHOWN = 160

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None)

SourceOption = Annotated[str | None, typer.Option("--source", help="Only of this stream.", metavar="STREAM")]
ReasonOption = Annotated[str | None, typer.Option("--reason", help="Only with this text in the reason.")]
NumbersArgument = Annotated[
    list[int] | None, typer.Argument(metavar="NUMBER...", help="The letters' numbers.", show_default=False)
]
AllOption = Annotated[bool, typer.Option("--all", help="All that --source and --reason leave.")]
YesOption = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]


@app.callback()
def dead_letters() -> None:
    """Messages that could not be processed: what, why, where from, how often; replay them or throw them away."""


@app.command("ls")
@takes_settings("nats_url", "data_dir", running=True)
def list_letters(
    settings: Settings,
    source: SourceOption = None,
    reason: ReasonOption = None,
    by_reason: Annotated[bool, typer.Option("--by-reason", help="How often each reason, first and last.")] = False,
    limit: Annotated[int, typer.Option("--limit", min=1, help="So many at most.")] = 50,
    offset: Annotated[int, typer.Option("--offset", min=0, help="Leave out the newest so many.")] = 0,
    output: OutputOption = Format.TABLE,
) -> None:
    """List the dead letters, the newest first."""

    async def work(desk: DeadLetterAdmin) -> None:
        found = [one async for one in desk.letters(source=source, wanted=_with_reason(reason))]
        if by_reason:
            groups = _by_reason(found)
            show(groups, lambda: _draw_reasons(groups, len(found)), output)
            return
        page = found[::-1][offset : offset + limit]
        show([summary_of(one) for one in page], lambda: _draw_letters(page, offset, len(found)), output)

    _at_the_desk(settings, work)


@app.command("show")
@takes_settings("nats_url", "data_dir", running=True)
def show_letter(
    settings: Settings,
    number: Annotated[int, typer.Argument(metavar="NUMBER", help="The letter's number.", show_default=False)],
    output: OutputOption = Format.TABLE,
) -> None:
    """Show all of a dead letter, its payload in full where it can still be had. Exit code 3: there is none."""

    async def work(desk: DeadLetterAdmin) -> None:
        filed = await desk.letter(number)
        cut: str | None = None
        try:
            payload = (await desk.payload(filed)).decode(errors="backslashreplace")
        except ProtocolError as error:
            payload, cut = filed.letter.payload, error.detail
        parsed = _parsed(payload)
        if output is Format.JSON:
            print_json({**summary_of(filed), "payload": payload, "message": parsed, "cut": cut})
            return
        lines = [(name, value) for name, value in _lines(filed) if value not in (None, "")]
        target = console()
        target.print(table(["", f"dead letter {filed.number}"], lines))
        if cut is not None:
            target.print(text(f"only the beginning of the payload: {cut}"))
        shown = json.dumps(parsed, ensure_ascii=False, indent=2) if parsed is not None else payload
        target.print(text(shown, lines=parsed is not None))

    _at_the_desk(settings, work)


@app.command("replay")
@takes_settings("nats_url", "redis_url", "data_dir", running=True)
def replay_letters(
    settings: Settings,
    numbers: NumbersArgument = None,
    mended: Annotated[
        Path | None,
        typer.Option("--payload", "--edit", metavar="FILE", help="Send this payload instead; - reads stdin."),
    ] = None,
    every: AllOption = False,
    source: SourceOption = None,
    reason: ReasonOption = None,
    force: Annotated[bool, typer.Option("--force", help="Also when the examinee has moved on since.")] = False,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Wait and say what became of it.")] = True,
    yes: YesOption = False,
    output: OutputOption = Format.TABLE,
) -> None:
    """Send letters on their way again and take them out. One effect, however often and by whomever it is tried.

    A letter that fails again comes back as a new one. Exit code 1: refused or came back, 3: there is none, 5: sent,
    but nobody has handled it yet.
    """
    if mended is not None and (every or len(numbers or []) != 1):
        raise ConfigurationError("--payload is for one letter: give its number")
    payload = _read(mended) if mended is not None else None

    async def work(desk: DeadLetterAdmin) -> None:
        chosen = await _chosen(desk, numbers, every, source, reason)
        if every and not yes:
            typer.confirm(f"Replay {len(chosen)} dead letters?", abort=True, err=True)
        store = StateStore(settings.redis_url, settings.redis)
        try:
            results = [await _replay(desk, store, one, payload, force, wait) for one in chosen]
        finally:
            await store.close()
        _finish(results, output)

    _at_the_desk(settings, work)


@app.command("discard")
@takes_settings("nats_url", "data_dir", running=True)
def discard_letters(
    settings: Settings,
    numbers: NumbersArgument = None,
    every: AllOption = False,
    source: SourceOption = None,
    reason: ReasonOption = None,
    yes: YesOption = False,
    output: OutputOption = Format.TABLE,
) -> None:
    """Throw letters away. Exit code 3: one of them was not there."""

    async def work(desk: DeadLetterAdmin) -> None:
        chosen = await _chosen(desk, numbers, every, source, reason)
        if chosen and not yes:
            typer.confirm(f"Throw {_some(chosen)} away for good?", abort=True, err=True)
        _finish([await _discard(desk, one) for one in chosen], output)

    _at_the_desk(settings, work)


async def _discard(desk: DeadLetterAdmin, number: int) -> dict[str, Any]:
    try:
        letter = (await desk.letter(number)).letter
    except NoSuchLetter as error:
        return {"letter": number, "outcome": "not found", "text": str(error)}
    if not await desk.discard(number):
        return {"letter": number, "outcome": "not found", "text": "somebody else has taken it out"}
    text = "discarded"
    if letter.is_in_log:
        text += "; what it says stays in the log: `examwire state rebuild` applies it, if that was not done yet"
    return {"letter": number, "outcome": "discarded", "text": text}


# -- replaying --------------------------------------------------------------------------------------------


async def _replay(
    desk: DeadLetterAdmin, store: StateStore, number: int, payload: bytes | None, force: bool, wait: bool
) -> dict[str, Any]:
    try:
        replayed = await desk.replay(number, payload, force=force)
    except NoSuchLetter as error:
        return {"letter": number, "outcome": "not found", "text": str(error)}
    except NotReplayed as error:
        return {"letter": number, "outcome": "refused", "text": str(error)}
    except ProtocolError as error:
        return {"letter": number, "outcome": "refused", "field": error.field, "text": f"not replayed: {error}"}
    result: dict[str, Any] = {
        "letter": number,
        "stream": replayed.stream,
        "subject": replayed.subject,
        "number": replayed.sequence,
        "version": version_of(replayed.sequence) if replayed.stream == "STATUS" else None,
    }
    if not wait:
        return {**result, "outcome": "already" if replayed.already else "sent", "text": _sent(replayed)}
    became = await desk.became(replayed, store)
    outcome, text = _outcome(replayed, became)
    return {**result, "outcome": outcome, "returned": became.returned and became.returned.number, "text": text}


def _sent(replayed: Replay) -> str:
    place = f"{replayed.stream} {replayed.sequence} on {replayed.subject}"
    return f"had been replayed before, as {place}; taken out" if replayed.already else f"sent as {place}"


def _outcome(replayed: Replay, became: ReplayOutcome) -> tuple[str, str]:
    sent = _sent(replayed)
    if became.returned is not None:
        again = became.returned
        return "returned", f"{sent}: failed again, now dead letter {again.number}: {again.letter.reason}"
    if not became.handled:
        if replayed.stream == "SOCKET" and not became.readers:
            return "sent", f"{sent}; no socket server listens there now"
        return "pending", f"{sent}; not handled yet: does a state manager run? (examwire actors ls)"
    handled = "; ".join(became.applied) or f"handled by {became.readers} reader{'s' * (became.readers != 1)}"
    return "already" if replayed.already else "handled", f"{sent}; {handled}"


def _finish(results: list[dict[str, Any]], output: Format) -> None:
    if output is Format.JSON:
        print_json(results)
    for one in results:
        bad = one["outcome"] in ("not found", "refused", "returned", "pending")
        if output is not Format.JSON or bad:
            say(f"{one['letter']}: {one['text']}", err=bad)
    outcomes = {one["outcome"] for one in results}
    for outcome, code in (
        ("refused", ExitCode.FAILED),
        ("returned", ExitCode.FAILED),
        ("not found", ExitCode.NOT_FOUND),
        ("pending", ExitCode.DEGRADED),
    ):
        if outcome in outcomes:
            raise typer.Exit(code)


# -- choosing ---------------------------------------------------------------------------------------------


async def _chosen(
    desk: DeadLetterAdmin, numbers: list[int] | None, every: bool, source: str | None, reason: str | None
) -> list[int]:
    if every == bool(numbers):
        raise ConfigurationError("give the numbers of letters, or --all (with --source, --reason)")
    if not every and (source or reason):
        raise ConfigurationError("--source and --reason go with --all")
    if numbers:
        return list(dict.fromkeys(numbers))
    return [one.number async for one in desk.letters(source=source, wanted=_with_reason(reason))]


def _with_reason(text: str | None) -> Callable[[StoredLetter], bool]:
    return lambda filed: text is None or text.lower() in filed.letter.reason.lower()


def _some(numbers: list[int]) -> str:
    return f"dead letter {numbers[0]}" if len(numbers) == 1 else f"{len(numbers)} dead letters"


def _read(path: Path) -> bytes:
    try:
        return sys.stdin.buffer.read() if str(path) == "-" else path.read_bytes()
    except OSError as error:
        raise ConfigurationError(f"--payload: {path} cannot be read: {error.strerror}") from None


# -- showing ----------------------------------------------------------------------------------------------


def summary_of(filed: StoredLetter) -> dict[str, Any]:
    """A letter without its payload, JSON-ready."""
    letter = filed.letter.model_dump(mode="json", by_alias=True, exclude={"payload", "digest"})
    return {"number": filed.number, "time": filed.time, **letter}


def _by_reason(found: list[StoredLetter]) -> list[dict[str, Any]]:
    groups: dict[tuple[str, str], dict[str, Any]] = {}
    for one in found:
        name = group_reason(one.letter.reason)
        group = groups.setdefault(
            (one.letter.source.stream, name),
            {
                "reason": name,
                "source": one.letter.source.stream,
                "count": 0,
                "first": one.time,
                "firstNumber": one.number,
            },
        )
        group |= {"count": group["count"] + 1, "last": one.time, "lastNumber": one.number}
    return sorted(groups.values(), key=lambda group: -int(group["count"]))


def _draw_reasons(groups: list[dict[str, Any]], total: int) -> RenderableType:
    rows = [
        (
            one["count"],
            one["source"],
            one["reason"],
            local_time(one["first"]),
            local_time(one["last"]),
            one["lastNumber"],
        )
        for one in groups
    ]
    title = f"{total} dead letters, {len(groups)} reasons; times in {zone_name()}"
    return table(["count", "source", "reason", "first", "last", "newest"], rows, title=title)


def _draw_letters(page: list[StoredLetter], offset: int, total: int) -> RenderableType:
    rows = [
        (
            one.number,
            local_time(one.time),
            f"{one.letter.source.stream} {one.letter.source.number}",
            one.letter.source.subject,
            _shortened(one.letter.reason),
            one.letter.replays or None,
            one.letter.size,
        )
        for one in page
    ]
    shown = f"{offset + 1} to {offset + len(page)} of {total}" if page else f"none of {total}"
    title = f"dead letters, newest first: {shown}; times in {zone_name()}"
    return table(["number", "when", "source", "subject", "reason", "replays", "bytes"], rows, title=title)


def _lines(filed: StoredLetter) -> list[tuple[str, object]]:
    letter, source = filed.letter, filed.letter.source
    replays = None
    if letter.replays:
        replays = f"{letter.replays} times before; the last time it was dead letter {letter.replay_of}"
    return [
        ("when", f"{local_time(filed.time)} {zone_name()}"),
        ("reason", letter.reason),
        ("source", f"{source.stream} {source.number}" + (f", message {source.index + 1}" if source.index else "")),
        ("subject", source.subject),
        ("consumer", letter.consumer),
        ("deliveries", letter.deliveries),
        ("replayed", replays),
        ("bytes", letter.size),
    ]


def _parsed(payload: str) -> Any:
    try:
        return pydantic_core.from_json(payload)  # json.loads has no end of an array that is deep enough
    except ValueError:
        return None


def _shortened(text: str) -> str:
    return text if len(text) <= REASON_SHOWN else text[: REASON_SHOWN - 1] + "…"


def _at_the_desk(settings: Settings, work: Callable[[DeadLetterAdmin], Awaitable[None]]) -> None:
    async def main() -> None:
        async with connected(settings, "dead-letters") as bus:
            try:
                await work(DeadLetterAdmin(bus))
            except NoSuchLetter as error:
                raise NotFound(str(error)) from error

    asyncio.run(main())
