"""`examwire dead-letters`: list, show, replay and discard messages that could not be processed."""

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
from cli.shared.output import (
    Column,
    Columns,
    ExitCode,
    Format,
    NotFound,
    OutputOption,
    console,
    print_json,
    say,
    show,
    table,
    text,
    without_empty,
)
from cli.shared.times import local_time, zone_name
from protocol.broker.dead_letters import group_reason
from protocol.errors import ConfigurationError, ProtocolError
from protocol.log.version import version_of

if TYPE_CHECKING:
    from rich.console import RenderableType


app = typer.Typer(no_args_is_help=True, rich_markup_mode=None)

SourceOption = Annotated[
    str | None, typer.Option("--source", help="Only letters whose message came from this stream.", metavar="STREAM")
]
ReasonOption = Annotated[
    str | None, typer.Option("--reason", help="Only letters whose reason contains this text.", metavar="TEXT")
]
NumbersArgument = Annotated[
    list[int] | None, typer.Argument(metavar="NUMBER", help="The numbers of the letters.", show_default=False)
]
AllOption = Annotated[bool, typer.Option("--all", help="All letters that match --source and --reason.")]
YesOption = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask for confirmation.")]


@app.callback()
def dead_letters() -> None:
    """Messages that could not be processed. List them, show the reason, replay or discard them."""


@app.command("ls")
@takes_settings("nats_url", "data_dir", running=True)
def list_letters(
    settings: Settings,
    source: SourceOption = None,
    reason: ReasonOption = None,
    by_reason: Annotated[bool, typer.Option("--by-reason", help="Count the letters of each reason.")] = False,
    limit: Annotated[int, typer.Option("--limit", metavar="N", min=1, help="Show at most this many.")] = 50,
    offset: Annotated[int, typer.Option("--offset", metavar="N", min=0, help="Skip this many of the newest.")] = 0,
    output: OutputOption = Format.TABLE,
) -> None:
    """List the dead letters, newest first."""

    async def work(admin: DeadLetterAdmin) -> None:
        letters = [letter async for letter in admin.letters(source=source, wanted=_with_reason(reason))]
        if by_reason:
            groups = _by_reason(letters)
            show(groups, lambda: _draw_reasons(groups, len(letters)), output)
            return
        page = letters[::-1][offset : offset + limit]
        show([summary_of(letter) for letter in page], lambda: _draw_letters(page, offset, len(letters)), output)

    _run_with_admin(settings, work)


@app.command("show")
@takes_settings("nats_url", "data_dir", running=True)
def show_letter(
    settings: Settings,
    number: Annotated[int, typer.Argument(metavar="NUMBER", help="The number of the letter.", show_default=False)],
    output: OutputOption = Format.TABLE,
) -> None:
    """Show a dead letter with its reason, source and payload.

    Example: examwire dead-letters show 7

    Exit code 3: there is no letter with this number.
    """

    async def work(admin: DeadLetterAdmin) -> None:
        stored_letter = await admin.letter(number)
        missing_text: str | None = None
        try:
            payload = (await admin.payload(stored_letter)).decode(errors="backslashreplace")
        except ProtocolError as error:
            payload, missing_text = stored_letter.letter.payload, error.detail
        parsed = _parsed(payload)
        if output is Format.JSON:
            print_json({**summary_of(stored_letter), "payload": payload, "message": parsed, "cut": missing_text})
            return
        rows = [(name, value) for name, value in _lines(stored_letter) if value not in (None, "")]
        terminal = console()
        terminal.print(table(["field", Column(f"dead letter {stored_letter.number}", wrap=True)], rows))
        if missing_text is not None:
            terminal.print(text(f"only the beginning of the payload: {missing_text}"))
        payload_text = json.dumps(parsed, ensure_ascii=False, indent=2) if parsed is not None else payload
        terminal.print(text(payload_text, lines=parsed is not None))

    _run_with_admin(settings, work)


@app.command("replay")
@takes_settings("nats_url", "redis_url", "data_dir", running=True)
def replay_letters(
    settings: Settings,
    numbers: NumbersArgument = None,
    payload_file: Annotated[
        Path | None,
        typer.Option("--payload", "--edit", metavar="FILE", help="Send this payload instead. - reads stdin."),
    ] = None,
    all_letters: AllOption = False,
    source: SourceOption = None,
    reason: ReasonOption = None,
    force: Annotated[bool, typer.Option("--force", help="Replay even if newer facts outdate it.")] = False,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Wait for the outcome and print it.")] = True,
    yes: YesOption = False,
    output: OutputOption = Format.TABLE,
) -> None:
    """Publish dead letters again and remove them. Repeating a replay has no second effect.

    \b
    Examples:
      examwire dead-letters replay 7
      examwire dead-letters replay --all --reason timeout

    A letter that fails again returns under a new number. Exit code 1: refused or returned, 3: no such letter, 5: sent
    but not handled yet.
    """
    if payload_file is not None and (all_letters or len(numbers or []) != 1):
        raise ConfigurationError("--payload works for one letter: give one NUMBER")
    payload = _read(payload_file) if payload_file is not None else None

    async def work(admin: DeadLetterAdmin) -> None:
        numbers_to_replay = await _chosen(admin, numbers, all_letters, source, reason)
        if all_letters and not yes:
            typer.confirm(f"Replay {len(numbers_to_replay)} dead letters?", abort=True, err=True)
        store = StateStore(settings.redis_url, settings.redis)
        try:
            results = [await _replay(admin, store, number, payload, force, wait) for number in numbers_to_replay]
        finally:
            await store.close()
        _finish(results, output)

    _run_with_admin(settings, work)


@app.command("discard")
@takes_settings("nats_url", "data_dir", running=True)
def discard_letters(
    settings: Settings,
    numbers: NumbersArgument = None,
    all_letters: AllOption = False,
    source: SourceOption = None,
    reason: ReasonOption = None,
    yes: YesOption = False,
    output: OutputOption = Format.TABLE,
) -> None:
    """Delete dead letters for good.

    \b
    Examples:
      examwire dead-letters discard 7 8
      examwire dead-letters discard --all --source STATUS

    Exit code 3: one of the letters does not exist.
    """

    async def work(admin: DeadLetterAdmin) -> None:
        numbers_to_discard = await _chosen(admin, numbers, all_letters, source, reason)
        if numbers_to_discard and not yes:
            typer.confirm(f"Delete {_letter_count(numbers_to_discard)} for good?", abort=True, err=True)
        _finish([await _discard(admin, number) for number in numbers_to_discard], output)

    _run_with_admin(settings, work)


async def _discard(admin: DeadLetterAdmin, number: int) -> dict[str, Any]:
    try:
        letter = (await admin.letter(number)).letter
    except NoSuchLetter as error:
        return {"letter": number, "outcome": "not found", "text": str(error)}
    if not await admin.discard(number):
        return {"letter": number, "outcome": "not found", "text": "another operator has removed it"}
    text = "discarded"
    if letter.is_in_log:
        text += "; its fact stays in the log: `examwire state rebuild` applies it, unless it is applied already"
    return {"letter": number, "outcome": "discarded", "text": text}


# -- replaying --------------------------------------------------------------------------------------------


async def _replay(
    admin: DeadLetterAdmin, store: StateStore, number: int, payload: bytes | None, force: bool, wait: bool
) -> dict[str, Any]:
    try:
        replay = await admin.replay(number, payload, force=force)
    except NoSuchLetter as error:
        return {"letter": number, "outcome": "not found", "text": str(error)}
    except NotReplayed as error:
        return {"letter": number, "outcome": "refused", "text": str(error)}
    except ProtocolError as error:
        return {"letter": number, "outcome": "refused", "field": error.field, "text": f"not replayed: {error}"}
    result: dict[str, Any] = {
        "letter": number,
        "stream": replay.stream,
        "subject": replay.subject,
        "number": replay.sequence,
        "version": version_of(replay.sequence) if replay.stream == "STATUS" else None,
    }
    if not wait:
        return {**result, "outcome": "already" if replay.already else "sent", "text": _describe_replay(replay)}
    outcome = await admin.wait_for_outcome(replay, store)
    status, text = _describe_outcome(replay, outcome)
    return {**result, "outcome": status, "returned": outcome.returned and outcome.returned.number, "text": text}


def _describe_replay(replay: Replay) -> str:
    message = f"{replay.stream} {replay.sequence} on {replay.subject}"
    return f"was replayed before as {message}; removed" if replay.already else f"sent as {message}"


def _describe_outcome(replay: Replay, outcome: ReplayOutcome) -> tuple[str, str]:
    """The outcome for programs, and its text."""
    sent_text = _describe_replay(replay)
    if outcome.returned is not None:
        returned = outcome.returned
        return "returned", f"{sent_text}: failed again, now dead letter {returned.number}: {returned.letter.reason}"
    if not outcome.handled:
        if replay.stream == "SOCKET" and not outcome.readers:
            return "sent", f"{sent_text}; no socket server receives this subject now"
        return "pending", f"{sent_text}; not handled yet: check that a state manager runs (examwire actors ls)"
    handled_text = "; ".join(outcome.applied) or f"handled by {outcome.readers} reader{'s' * (outcome.readers != 1)}"
    return "already" if replay.already else "handled", f"{sent_text}; {handled_text}"


def _finish(results: list[dict[str, Any]], output: Format) -> None:
    if output is Format.JSON:
        print_json(results)
    for result in results:
        failed = result["outcome"] in ("not found", "refused", "returned", "pending")
        if output is not Format.JSON or failed:
            say(f"{result['letter']}: {result['text']}", err=failed)
    outcomes = {result["outcome"] for result in results}
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
    admin: DeadLetterAdmin, numbers: list[int] | None, all_letters: bool, source: str | None, reason: str | None
) -> list[int]:
    if all_letters == bool(numbers):
        raise ConfigurationError("give one or more NUMBERs, or --all (with --source and --reason to limit it)")
    if not all_letters and (source or reason):
        raise ConfigurationError("--source and --reason need --all")
    if numbers:
        return list(dict.fromkeys(numbers))
    return [letter.number async for letter in admin.letters(source=source, wanted=_with_reason(reason))]


def _with_reason(text: str | None) -> Callable[[StoredLetter], bool]:
    return lambda stored_letter: text is None or text.lower() in stored_letter.letter.reason.lower()


def _letter_count(numbers: list[int]) -> str:
    return f"dead letter {numbers[0]}" if len(numbers) == 1 else f"{len(numbers)} dead letters"


def _read(path: Path) -> bytes:
    try:
        return sys.stdin.buffer.read() if str(path) == "-" else path.read_bytes()
    except OSError as error:
        raise ConfigurationError(f"--payload: {path} cannot be read: {error.strerror}") from None


# -- showing ----------------------------------------------------------------------------------------------


def summary_of(stored_letter: StoredLetter) -> dict[str, Any]:
    """Return a letter without its payload, ready for JSON."""
    letter = stored_letter.letter.model_dump(mode="json", by_alias=True, exclude={"payload", "digest"})
    return {"number": stored_letter.number, "time": stored_letter.time, **letter}


def _by_reason(letters: list[StoredLetter]) -> list[dict[str, Any]]:
    groups: dict[tuple[str, str], dict[str, Any]] = {}
    for letter in letters:
        name = group_reason(letter.letter.reason)
        group = groups.setdefault(
            (letter.letter.source.stream, name),
            {
                "reason": name,
                "source": letter.letter.source.stream,
                "count": 0,
                "first": letter.time,
                "firstNumber": letter.number,
            },
        )
        group |= {"count": group["count"] + 1, "last": letter.time, "lastNumber": letter.number}
    return sorted(groups.values(), key=lambda group: -int(group["count"]))


def _draw_reasons(groups: list[dict[str, Any]], total: int) -> RenderableType:
    rows = [
        (
            group["count"],
            group["lastNumber"],
            local_time(group["last"]),
            group["source"],
            group["reason"],
            local_time(group["first"]),
        )
        for group in groups
    ]
    title = f"{total} dead letters, {len(groups)} reasons; times in {zone_name()}"
    columns: Columns = [
        "count",
        "newest",
        "last",
        "source",
        Column("reason", crop=True, keep=True),
        Column("first", wide=True),
    ]
    return table(columns, rows, title=title)


def _draw_letters(page: list[StoredLetter], offset: int, total: int) -> RenderableType:
    rows = [
        (
            letter.number,
            local_time(letter.time),
            f"{letter.letter.source.stream} {letter.letter.source.number}",
            letter.letter.reason,
            letter.letter.replays or None,
            letter.letter.source.subject,
            letter.letter.size,
        )
        for letter in page
    ]
    range_text = f"{offset + 1} to {offset + len(page)} of {total}" if page else f"none of {total}"
    title = f"dead letters, newest first: {range_text}; times in {zone_name()}"
    columns: Columns = [
        *("number", "when", "source", Column("reason", crop=True, keep=True), "replays"),
        *(Column("subject", wide=True), Column("bytes", wide=True)),
    ]
    return table(*without_empty(columns, rows), title=title)


def _lines(stored_letter: StoredLetter) -> list[tuple[str, object]]:
    letter, source = stored_letter.letter, stored_letter.letter.source
    replays = None
    if letter.replays:
        replays = f"{letter.replays} times before, last as dead letter {letter.replay_of}"
    return [
        ("when", f"{local_time(stored_letter.time)} {zone_name()}"),
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
        return pydantic_core.from_json(payload)  # json.loads recurses without limit in nested arrays
    except ValueError:
        return None


def _run_with_admin(settings: Settings, work: Callable[[DeadLetterAdmin], Awaitable[None]]) -> None:
    async def main() -> None:
        async with connected(settings, "dead-letters") as bus:
            try:
                await work(DeadLetterAdmin(bus))
            except NoSuchLetter as error:
                raise NotFound(str(error)) from error

    asyncio.run(main())
