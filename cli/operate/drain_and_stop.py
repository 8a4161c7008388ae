"""`examwire actors drain` and `stop`: ask an actor to end, and wait until it has ended."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Annotated

import typer

from actors.runtime.broker.connection import Bus, ServiceEntry
from actors.runtime.broker.consumers.stream_reader import read_stream
from actors.runtime.config.settings import Settings
from cli.shared.live_actors import Row, address_of, ask, connected, entry_at, inspection_of, kind_of
from cli.shared.options import takes_settings
from cli.shared.output import ExitCode, Format, OutputOption, print_json, run_until_interrupted, say
from cli.shared.times import parse_duration
from protocol.broker import subjects
from protocol.errors import BrokerUnavailable, ConfigurationError, ExamwireError, NoResponders
from protocol.messages.operator_requests import Drain, Stop
from protocol.messages.server_messages import ServerStatusCode

LOOK_SECONDS = 0.5
ENDING_SECONDS = 60.0  # after the drain itself: the last clients, the outbox, the end of the process
RECORD_SECONDS = 5.0

AddressArgument = Annotated[
    str, typer.Argument(metavar="ADDRESS", help="An address from `actors ls`, or a serverId.", show_default=False)
]
WaitOption = Annotated[bool, typer.Option("--wait/--no-wait", help="Wait until it has ended.")]


class StopFailed(ExamwireError):
    """The actor still runs, or it ended without a clean shutdown."""


@takes_settings("nats_url", "data_dir", running=True)
def drain(
    settings: Settings,
    address: AddressArgument,
    over: Annotated[str, typer.Option("--over", metavar="DURATION", help="Spread the drain over this time.")] = "30s",
    force: Annotated[bool, typer.Option("--force", help="Drain even if no other server is READY.")] = False,
    wait: WaitOption = True,
    output: OutputOption = Format.TABLE,
) -> None:
    """Move the clients of a socket server away, then end its process.

    Example: examwire actors drain SOCK001 --over 60s

    The clients move to the other servers. Proctors see them as migrating, not as disconnected. Ctrl-C stops the
    waiting, not the drain. Exit code 1: refused (no other server is READY), or the server did not end cleanly, 3: no
    such server.
    """
    seconds = 0.0 if over.strip() in ("0", "0s") else parse_duration(over)
    if seconds > 3600:
        raise typer.BadParameter(f"{over!r} is more than an hour", param_hint="--over")

    async def work() -> None:
        async with connected(settings, "actors drain") as bus:
            entry = await entry_at(bus, address)
            if kind_of(entry) != "socket-server":
                raise ConfigurationError(
                    f"{address_of(entry)} is a {kind_of(entry)}: only socket servers can be drained"
                )
            inspection_before = await inspection_of(bus, entry)
            answer = await ask(bus, address_of(entry), Drain(over_seconds=seconds, force=force))
            say(answer.text, err=True)
            clients = answer.details.get("clients", _clients(inspection_before))
            result: Row = {"address": address_of(entry), "overSeconds": seconds, "clients": clients}
            if wait:
                began = time.monotonic()
                with _DrainProgress(address_of(entry)) as progress:
                    await _ended(bus, entry, seconds + ENDING_SECONDS, progress)
                result["clients"] = progress.drain.get("clients", result["clients"])
                result["state"] = await _how_it_ended(bus, inspection_before)
                result["seconds"] = round(time.monotonic() - began, 1)
                text = f"{result['clients']} clients were sent to other servers in {result['seconds']:g} s"
            else:
                result["state"] = ServerStatusCode.DRAINING.value
                text = f"{result['clients']} clients are being sent to other servers"
            if output is Format.JSON:
                print_json(result)
            else:
                say(f"{address_of(entry)}: {result['state']}: {text}")

    _run_or_report(work, "a drain that has begun continues")


@takes_settings("nats_url", "data_dir", running=True)
def stop(
    settings: Settings,
    address: AddressArgument,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask for confirmation.")] = False,
    wait: WaitOption = True,
    output: OutputOption = Format.TABLE,
) -> None:
    """End the process of an actor cleanly, as SIGTERM does. A supervisor may start it again.

    Example: examwire actors stop state-manager.a1b2c3

    The clients of a socket server are disconnected: use `actors drain` to move them first. Exit code 1: refused, or
    the actor still runs after a minute, 3: no actor has this address.
    """

    async def work() -> None:
        async with connected(settings, "actors stop") as bus:
            entry = await entry_at(bus, address)
            inspection_before = await inspection_of(bus, entry)
            if not yes:
                # In a thread, so that the connection stays alive while the question is open.
                await asyncio.to_thread(typer.confirm, _warning(entry, inspection_before), abort=True, err=True)
            answer = await ask(bus, address_of(entry), Stop())
            say(answer.text, err=True)
            if wait:
                await _ended(bus, entry, ENDING_SECONDS, lambda _: True)
            result = {"address": address_of(entry), "state": "ended" if wait else "ending"}
            if output is Format.JSON:
                print_json(result)
            else:
                say(f"{address_of(entry)}: {result['state']}")

    _run_or_report(work, "the actor continues to stop")


def _run_or_report(work: Callable[[], Awaitable[None]], continues: str) -> None:
    """Run a command. On Ctrl-C, say what continues without it, and end with exit code 1."""
    completed = False

    async def run_to_completion() -> None:
        nonlocal completed
        await work()
        completed = True

    run_until_interrupted(run_to_completion())
    if not completed:
        say(f"examwire: stopped waiting: {continues}", err=True)
        raise typer.Exit(ExitCode.FAILED)


def _warning(entry: ServiceEntry, inspection: Row) -> str:
    if kind_of(entry) == "socket-server" and (clients := _clients(inspection)):
        server = address_of(entry).partition(".")[2]
        return (
            f"{clients} clients of {server} will be disconnected, and proctors will see that; "
            f"`examwire actors drain {server}` moves them first. Stop {server} anyway?"
        )
    return f"Stop the process of {address_of(entry)}, and every actor in it?"


def _clients(inspection: Row) -> int:
    details = inspection.get("details", {})
    return int(details.get("examinees", 0)) + int(details.get("proctors", 0))


async def _ended(bus: Bus, entry: ServiceEntry, seconds: float, progress: Callable[[Row], bool]) -> None:
    """Wait until this process no longer answers (a successor answers on another subject).

    `progress` gets each inspection, and returns whether the time counts towards `seconds`.
    """
    deadline = time.monotonic() + seconds
    misses = 0
    while misses < 2:  # one miss may be a reconnect
        if time.monotonic() > deadline:
            raise StopFailed(f"{address_of(entry)} still runs after {seconds:g} s: see its log")
        try:
            if not progress(json.loads(await bus.request(entry.metadata["inspect"], timeout=2.0))):
                deadline = time.monotonic() + seconds
            misses = 0
        except NoResponders:
            misses += 1
        except BrokerUnavailable:
            misses = 0  # NATS is unreachable, or the process is busy shutting down
        await asyncio.sleep(LOOK_SECONDS)


async def _how_it_ended(bus: Bus, inspection_before: Row) -> str:
    """Return STOPPED when the log has this status for this process. Raises `StopFailed` when it has not."""
    details = inspection_before["details"]
    server_id, incarnation = details["serverId"], details["incarnation"]
    deadline = time.monotonic() + RECORD_SECONDS
    while True:
        last_status = None
        async for message in read_stream(bus, "STATUS", subject=subjects.status_server(server_id)):
            payload = json.loads(message.payload)
            for message in payload if isinstance(payload, list) else [payload]:
                if message.get("data", {}).get("incarnation") == incarnation:
                    last_status = message["data"].get("status")
        if last_status == ServerStatusCode.STOPPED:
            return ServerStatusCode.STOPPED.value
        if time.monotonic() > deadline:
            raise StopFailed(f"{server_id} has ended, but its last status in the log is {last_status}: see its log")
        await asyncio.sleep(LOOK_SECONDS)


class _DrainProgress:
    """Show the progress of a drain on stderr: in place on a terminal, else one line for each change.

    `drain`: the drain's details in the latest inspection.
    """

    def __init__(self, address: str) -> None:
        self._address = address
        self._said = ""
        self.drain: Row = {}
        self._in_place = sys.stderr.isatty()

    def __enter__(self) -> _DrainProgress:
        return self

    def __exit__(self, *_: object) -> None:
        if self._in_place and self._said:
            typer.echo("", err=True)

    def __call__(self, inspection: Row) -> bool:
        self.drain = inspection.get("details", {}).get("drain") or self.drain
        text = f"{self._address}: {_clients(inspection)} clients left"
        waiting = bool(self.drain.get("waiting"))
        if waiting:
            text += ", waiting for another server to become READY"
        if text != self._said:
            self._said = text
            # The text holds an address and numbers only, so nothing needs to be escaped.
            typer.echo(f"\r\033[K{text}" if self._in_place else text, err=True, nl=not self._in_place)
        return not waiting
