"""`examwire actors tail`: show the messages that an actor handles, live."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator
from typing import Annotated, Any

import typer

from actors.runtime.broker.connection import Bus
from actors.runtime.config.settings import Settings
from cli.shared.live_actors import address_of, ask, connected, entry_at, is_session, session_at, session_ids
from cli.shared.options import takes_settings
from cli.shared.output import Format, NotFound, OutputOption, print_json, run_until_interrupted, say, say_cropped
from cli.shared.times import local_time, parse_duration
from protocol.errors import BrokerUnavailable, NoResponders
from protocol.messages.codec import Codec, Malformed
from protocol.messages.operator_requests import Handled, Tail

TAIL_SECONDS = 10.0  # an actor ends a tail that was not renewed for this long
RENEW_SECONDS = 2.0
WAITING = 10_000  # lines; more are dropped and counted

HEAD = f"{'time':<12}  {'message':<22}  {'took':>12}  about"

SHOWN = Codec.of((Handled,))


@takes_settings("nats_url", "data_dir", running=True)
def tail(
    settings: Settings,
    address: Annotated[
        str,
        typer.Argument(
            metavar="ADDRESS",
            help="An address from `actors ls`, a serverId, session.PLAN_ID.EXAMINEE_ID or proctor.PLAN_ID.SOCKET_ID.",
            show_default=False,
        ),
    ],
    per_second: Annotated[
        int,
        typer.Option("--per-second", metavar="N", min=1, max=1000, help="Show at most this many; the rest is counted."),
    ] = 200,
    lasting: Annotated[
        str | None, typer.Option("--for", metavar="DURATION", help="Stop after this time.", show_default=False)
    ] = None,
    output: OutputOption = Format.TABLE,
) -> None:
    """Show each message that an actor handles, live.

    \b
    Examples:
      examwire actors tail SOCK001 --for 30s
      examwire actors tail session.P001.E0042

    Each line has the type, the ids, the duration and the error. A batch is one line with its counts and first
    messages. The command waits for an actor that has ended to start again, and follows an examinee who reconnects to
    another server. A terminal shows as much of a line as fits, and with -o wide all of it. Ctrl-C ends it. With -o
    json: one object a line.
    """
    until = time.monotonic() + parse_duration(lasting) if lasting is not None else None
    if is_session(address):
        session_ids(address)

    async def work() -> None:
        async with connected(settings, "actors tail") as bus:
            if output is not Format.JSON and sys.stdout.isatty():
                say(HEAD)
            async for handled in follow(bus, address, per_second, until):
                if output is Format.JSON:
                    print_json(handled.data(), lines=True)
                else:
                    say_cropped(line_of(handled), output)

    run_until_interrupted(work())


async def follow(bus: Bus, address: str, per_second: int, until: float | None = None) -> AsyncIterator[Handled]:
    """Yield the messages that the actor at `address` handles from now on, until `until` (`time.monotonic()`).

    Raises `NotFound` when the actor does not run at the beginning. If it ends later, stderr says so, and the tail
    waits for it.
    """
    queue: asyncio.Queue[Handled] = asyncio.Queue(WAITING)
    left_out = 0

    async def on_message(msg: Any) -> None:
        nonlocal left_out
        for handled in SHOWN.decode_batch(msg.data):
            if isinstance(handled, Malformed):
                continue  # of a newer version
            assert isinstance(handled, Handled)
            if queue.full():
                left_out += 1 + handled.left_out
            else:
                queue.put_nowait(
                    handled.model_copy(update={"left_out": handled.left_out + left_out}) if left_out else handled
                )
                left_out = 0

    inbox = bus.new_inbox()
    subscription = await bus.subscribe(inbox, on_message)
    tail = Tail(inbox=inbox, seconds=TAIL_SECONDS, per_second=per_second)
    server = await _begin(bus, address, tail)
    renewal = asyncio.create_task(_renew(bus, address, tail, server))
    try:
        while until is None or time.monotonic() < until:
            remaining = None if until is None else max(0.0, until - time.monotonic())
            next_message = asyncio.ensure_future(queue.get())
            await asyncio.wait({next_message, renewal}, timeout=remaining, return_when=asyncio.FIRST_COMPLETED)
            if next_message.done():
                yield next_message.result()
                continue
            next_message.cancel()
            if renewal.done():
                await renewal  # ends only by an error
    finally:
        renewal.cancel()
        if bus.connected:
            await subscription.unsubscribe()


async def _begin(bus: Bus, address: str, tail: Tail) -> str:
    """Start or renew the tail; return the address of the actor that answers."""
    if is_session(address):
        session = await session_at(bus, address)
        await ask(bus, session.server, tail.model_copy(update={"session": address}))
        return session.server
    server = address_of(await entry_at(bus, address))
    await ask(bus, server, tail)
    return server


async def _renew(bus: Bus, address: str, tail: Tail, known_server: str | None) -> None:
    while True:
        await asyncio.sleep(min(1.0, RENEW_SECONDS) if known_server is None else RENEW_SECONDS)
        try:
            server = await _begin(bus, address, tail)
        except (NotFound, NoResponders, BrokerUnavailable) as error:
            if known_server is not None:
                say(f"examwire: {error}; waiting for it", err=True)
            known_server = None
        else:
            if server != known_server:
                say(f"examwire: {address} is at {server} now", err=True)
            known_server = server


def line_of(handled: Handled) -> str:
    """Format a line: `09:15:02.123  connection_status  0.412 ms  P001/E001 CONNECTED SOCK001-5f2c v123`."""
    about = _batch(handled.about) if "first" in handled.about else _about(handled.about)
    clock = local_time(handled.time) + handled.time[19:23]  # with the milliseconds: a burst is within a second
    parts = [clock, f"{handled.message:<22}", f"{handled.took:>9.3f} ms", about]
    if handled.error is not None:
        parts.append(f"FAILED {handled.error}")
    if handled.left_out:
        parts.append(f"({handled.left_out} more were left out)")
    return "  ".join(part for part in parts if part)


def _batch(about: dict[str, Any]) -> str:
    """Format a batch: `3 connection_status: P001/E001 ...; P001/E002 ...; ...` (counts, then the first messages)."""
    counts = ", ".join(f"{count} {kind}" for kind, count in about["types"].items())
    shown = [_about(element["about"]) for element in about["first"]]
    if about["messages"] > len(shown):
        shown.append("...")
    words = [f"{counts}: {'; '.join(shown)}"]
    if about["deliveries"] > 1:
        words.append(f"in {about['deliveries']} deliveries")
    words += [f"{name}={about[name]}" for name in ("redelivered", "notRead") if name in about]
    return " ".join(words)


def _about(about: dict[str, Any]) -> str:
    """Format the fields of a message: ids, status, reason and socket as bare values, other fields as name=value."""
    rest = dict(about)
    whom = "/".join(str(rest.pop(name)) for name in ("planId", "examineeId") if name in rest)
    words = [whom, *(str(rest.pop(name)) for name in ("status", "reason", "socketId") if name in rest)]
    if "version" in rest:
        words.append(f"v{rest.pop('version')}")
    if "serverId" in rest and "socketId" in about:
        del rest["serverId"]  # the socketId begins with it
    words += [f"{name}={value}" for name, value in rest.items()]
    return " ".join(word for word in words if word)
