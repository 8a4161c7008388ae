"""`examwire actors drain` and `stop`: asking an actor to end, and waiting until it has."""

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

LOOK_SECONDS = 0.5
ENDING_SECONDS = 60.0  # beyond the pace of a drain: the last clients, the outbox, the end of the process
RECORD_SECONDS = 5.0

AddressArgument = Annotated[
    str, typer.Argument(metavar="ADDRESS", help="An address that `actors ls` shows, or a serverId.", show_default=False)
]
WaitOption = Annotated[bool, typer.Option("--wait/--no-wait", help="Wait until it has ended.")]


class StopFailed(ExamwireError):
    """What was asked to end is still there, or has ended otherwise than in good order."""


@takes_settings("nats_url", "data_dir", running=True)
def drain(
    settings: Settings,
    address: AddressArgument,
    over: Annotated[str, typer.Option("--over", metavar="DURATION", help="Send the clients away evenly in.")] = "30s",
    force: Annotated[bool, typer.Option("--force", help="Also when no other server is READY.")] = False,
    wait: WaitOption = True,
    output: OutputOption = Format.TABLE,
) -> None:
    """Move the clients of a socket server to the others, at a pace, then end its process.

    The clients are told where to go, and proctors see them as migrating, not as disconnected. Exit code 1 when it is
    refused (no other server is READY), or when the server did not end in good order; 3 when there is no such server.
    Ctrl-C ends the waiting, not the drain.
    """
    seconds = 0.0 if over.strip() in ("0", "0s") else parse_duration(over)
    if seconds > 3600:
        raise typer.BadParameter(f"{over!r} is more than an hour", param_hint="--over")

    async def work() -> None:
        async with connected(settings, "actors drain") as bus:
            entry = await entry_at(bus, address)
            if kind_of(entry) != "socket-server":
                raise ConfigurationError(f"{address_of(entry)} is a {kind_of(entry)}: only socket servers are drained")
            before = await inspection_of(bus, entry)
            done = await ask(bus, address_of(entry), Drain(over_seconds=seconds, force=force))
            say(done.text, err=True)
            clients = done.details.get("clients", _clients(before))
            result: Row = {"address": address_of(entry), "overSeconds": seconds, "clients": clients}
            if wait:
                began = time.monotonic()
                with _DrainProgress(address_of(entry)) as progress:
                    await _ended(bus, entry, seconds + ENDING_SECONDS, progress)
                result["clients"] = progress.drain.get("clients", result["clients"])
                result["state"] = await _how_it_ended(bus, before)
                result["seconds"] = round(time.monotonic() - began, 1)
                text = f"its clients, {result['clients']}, were sent to other servers in {result['seconds']:g} s"
            else:
                result["state"] = "DRAINING"
                text = f"{result['clients']} clients are being sent to other servers"
            if output is Format.JSON:
                print_json(result)
            else:
                say(f"{address_of(entry)}: {result['state']}: {text}")

    _to_the_end(work, "the drain, if it has begun, goes on")


@takes_settings("nats_url", "data_dir", running=True)
def stop(
    settings: Settings,
    address: AddressArgument,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    wait: WaitOption = True,
    output: OutputOption = Format.TABLE,
) -> None:
    """Have the process of an actor end in good order, as SIGTERM does; what supervises it may start it again.

    The clients of a socket server are dropped: `actors drain` moves them away first. Exit code 1 when it is refused
    or the actor is still there after a minute, 3 when there is none at this address.
    """

    async def work() -> None:
        async with connected(settings, "actors stop") as bus:
            entry = await entry_at(bus, address)
            before = await inspection_of(bus, entry)
            if not yes:
                # In a thread: the connection is kept alive while somebody thinks.
                await asyncio.to_thread(typer.confirm, _warning(entry, before), abort=True, err=True)
            done = await ask(bus, address_of(entry), Stop())
            say(done.text, err=True)
            if wait:
                await _ended(bus, entry, ENDING_SECONDS, lambda _: True)
            result = {"address": address_of(entry), "state": "ended" if wait else "ending"}
            if output is Format.JSON:
                print_json(result)
            else:
                say(f"{address_of(entry)}: {result['state']}")

    _to_the_end(work, "what was asked for goes on")


def _to_the_end(work: Callable[[], Awaitable[None]], otherwise: str) -> None:
    """Run a command that Ctrl-C does not complete: then it says what goes on, and its exit code is not 0."""
    done = False

    async def whole() -> None:
        nonlocal done
        await work()
        done = True

    run_until_interrupted(whole())
    if not done:
        say(f"examwire: not waited for: {otherwise}", err=True)
        raise typer.Exit(ExitCode.FAILED)


def _warning(entry: ServiceEntry, inspection: Row) -> str:
    if kind_of(entry) == "socket-server" and (clients := _clients(inspection)):
        server = address_of(entry).partition(".")[2]
        return (
            f"{clients} clients are connected to {server} and will be dropped, and proctors will see them as "
            f"disconnected; `examwire actors drain {server}` moves them first. Stop it all the same?"
        )
    return f"Stop the process of {address_of(entry)}, and every actor in it?"


def _clients(inspection: Row) -> int:
    details = inspection.get("details", {})
    return int(details.get("examinees", 0)) + int(details.get("proctors", 0))


async def _ended(bus: Bus, entry: ServiceEntry, seconds: float, progress: Callable[[Row], bool]) -> None:
    """Wait until nobody answers for this very process any more (its successor answers elsewhere).

    `progress` is shown each inspection, and says whether the time counts.
    """
    deadline = time.monotonic() + seconds
    misses = 0
    while misses < 2:  # once may be a reconnect of its
        if time.monotonic() > deadline:
            raise StopFailed(f"{address_of(entry)} is still there after {seconds:g} s: look at its log")
        try:
            if not progress(json.loads(await bus.request(entry.metadata["inspect"], timeout=2.0))):
                deadline = time.monotonic() + seconds
            misses = 0
        except NoResponders:
            misses += 1
        except BrokerUnavailable:
            misses = 0  # NATS is away, or the process is busy with its end
        await asyncio.sleep(LOOK_SECONDS)


async def _how_it_ended(bus: Bus, before: Row) -> str:
    """STOPPED when the log says so of this very process. Raises `StopFailed` when it does not."""
    details = before["details"]
    server_id, incarnation = details["serverId"], details["incarnation"]
    deadline = time.monotonic() + RECORD_SECONDS
    while True:
        last = None
        async for stored in read_stream(bus, "STATUS", subject=subjects.status_server(server_id)):
            said = json.loads(stored.payload)
            for one in said if isinstance(said, list) else [said]:
                if one.get("data", {}).get("incarnation") == incarnation:
                    last = one["data"].get("status")
        if last == "STOPPED":
            return "STOPPED"
        if time.monotonic() > deadline:
            raise StopFailed(
                f"{server_id} is gone, but the last that the log says of it is {last}: look at its own log"
            )
        await asyncio.sleep(LOOK_SECONDS)


class _DrainProgress:
    """How far a drain is, on stderr: in place on a terminal, else a line when it has changed. `drain`: as last seen."""

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
            # The escapes are ours; the rest is an address and numbers.
            typer.echo(f"\r\033[K{text}" if self._in_place else text, err=True, nl=not self._in_place)
        return not waiting
