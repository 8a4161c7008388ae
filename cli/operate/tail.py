"""`examwire actors tail`: each message that an actor handles, as it happens."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Annotated, Any

import typer

from actors.runtime.broker.connection import Bus
from actors.runtime.config.settings import Settings
from cli.shared.live_actors import address_of, ask, connected, entry_at, is_session, session_at, session_ids
from cli.shared.options import takes_settings
from cli.shared.output import Format, NotFound, OutputOption, print_json, run_until_interrupted, say
from cli.shared.times import parse_duration
from protocol.errors import BrokerUnavailable, NoResponders
from protocol.messages.codec import Codec, Malformed
from protocol.messages.operator_requests import Handled, Tail

TAIL_SECONDS = 10.0  # so long an actor goes on for a command that has gone
RENEW_SECONDS = 2.0
WAITING = 10_000  # lines; who reads more slowly is told how many were left out

SHOWN = Codec.of((Handled,))


@takes_settings("nats_url", "data_dir", running=True)
def tail(
    settings: Settings,
    address: Annotated[
        str,
        typer.Argument(
            metavar="ADDRESS",
            help="An address that `actors ls` shows, a serverId, session.PLAN.EXAMINEE or proctor.PLAN.SOCKET_ID.",
            show_default=False,
        ),
    ],
    per_second: Annotated[
        int, typer.Option("--per-second", min=1, max=1000, help="At most so many; the others are counted.")
    ] = 200,
    lasting: Annotated[
        str | None, typer.Option("--for", metavar="DURATION", help="End after so long.", show_default=False)
    ] = None,
    output: OutputOption = Format.TABLE,
) -> None:
    """Show each message that an actor handles: when, what, about whom, how long it took, and its error.

    Until Ctrl-C. Of a batch: how many messages, of which types, and the first few. An actor that ends is waited for;
    an examinee who comes back is followed to another server. One JSON object a line with -o json.
    """
    until = time.monotonic() + parse_duration(lasting) if lasting is not None else None
    if is_session(address):
        session_ids(address)

    async def work() -> None:
        async with connected(settings, "actors tail") as bus:
            async for handled in follow(bus, address, per_second, until):
                if output is Format.JSON:
                    print_json(handled.data(), lines=True)
                else:
                    say(line_of(handled))

    run_until_interrupted(work())


async def follow(bus: Bus, address: str, per_second: int, until: float | None = None) -> AsyncIterator[Handled]:
    """What the actor at `address` handles, from now on; until `until` by `time.monotonic()`.

    Raises `NotFound` when it is not there at the beginning; later it is waited for, and stderr says so.
    """
    waiting: asyncio.Queue[Handled] = asyncio.Queue(WAITING)
    missed = 0

    async def arrived(msg: Any) -> None:
        nonlocal missed
        for one in SHOWN.decode_batch(msg.data):
            if isinstance(one, Malformed):
                continue  # of a newer version
            assert isinstance(one, Handled)
            if waiting.full():
                missed += 1 + one.left_out
            else:
                waiting.put_nowait(one.model_copy(update={"left_out": one.left_out + missed}) if missed else one)
                missed = 0

    inbox = bus.new_inbox()
    subscription = await bus.subscribe(inbox, arrived)
    tail = Tail(inbox=inbox, seconds=TAIL_SECONDS, per_second=per_second)
    place = await _begin(bus, address, tail)
    renewing = asyncio.create_task(_renew(bus, address, tail, place))
    try:
        while until is None or time.monotonic() < until:
            left = None if until is None else max(0.0, until - time.monotonic())
            next_one = asyncio.ensure_future(waiting.get())
            await asyncio.wait({next_one, renewing}, timeout=left, return_when=asyncio.FIRST_COMPLETED)
            if next_one.done():
                yield next_one.result()
                continue
            next_one.cancel()
            if renewing.done():
                await renewing  # it goes on for ever, unless something is broken
    finally:
        renewing.cancel()
        if bus.connected:
            await subscription.unsubscribe()


async def _begin(bus: Bus, address: str, tail: Tail) -> str:
    """Ask for the tail where the actor is now; returns the address of whoever answers for it."""
    if is_session(address):
        session = await session_at(bus, address)
        await ask(bus, session.server, tail.model_copy(update={"session": address}))
        return session.server
    found = address_of(await entry_at(bus, address))
    await ask(bus, found, tail)
    return found


async def _renew(bus: Bus, address: str, tail: Tail, place: str | None) -> None:
    while True:
        await asyncio.sleep(min(1.0, RENEW_SECONDS) if place is None else RENEW_SECONDS)
        try:
            found = await _begin(bus, address, tail)
        except (NotFound, NoResponders, BrokerUnavailable) as error:
            if place is not None:
                say(f"examwire: {error}; waiting for it", err=True)
            place = None
        else:
            if found != place:
                say(f"examwire: {address} is at {found} now", err=True)
            place = found


def line_of(handled: Handled) -> str:
    """`09:15:02.123  connection_status  0.412 ms  P001/E001 CONNECTED SOCK001-5f2c v123` for people."""
    about = _batch(handled.about) if "first" in handled.about else _about(handled.about)
    parts = [handled.time[11:23], f"{handled.message:<22}", f"{handled.took:>9.3f} ms", about]
    if handled.error is not None:
        parts.append(f"FAILED {handled.error}")
    if handled.left_out:
        parts.append(f"({handled.left_out} more were left out)")
    return "  ".join(part for part in parts if part)


def _batch(about: dict[str, Any]) -> str:
    """`3 connection_status: P001/E001 ...; P001/E002 ...; ...` - how many of what, and the first of them."""
    counts = ", ".join(f"{count} {kind}" for kind, count in about["types"].items())
    shown = [_about(one["about"]) for one in about["first"]]
    if about["messages"] > len(shown):
        shown.append("...")
    words = [f"{counts}: {'; '.join(shown)}"]
    if about["deliveries"] > 1:
        words.append(f"in {about['deliveries']} deliveries")
    words += [f"{name}={about[name]}" for name in ("redelivered", "notRead") if name in about]
    return " ".join(words)


def _about(about: dict[str, Any]) -> str:
    """Whom first, then what, then where: only the values whose meaning one sees, the others with their name."""
    rest = dict(about)
    whom = "/".join(str(rest.pop(name)) for name in ("planId", "examineeId") if name in rest)
    words = [whom, *(str(rest.pop(name)) for name in ("status", "reason", "socketId") if name in rest)]
    if "version" in rest:
        words.append(f"v{rest.pop('version')}")
    if "serverId" in rest and "socketId" in about:
        del rest["serverId"]  # the socket's id begins with it
    words += [f"{name}={value}" for name, value in rest.items()]
    return " ".join(word for word in words if word)
