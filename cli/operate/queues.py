"""`examwire queues`: what waits for whom."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from actors.runtime.broker.connection import Bus
from actors.runtime.broker.stream_admin import ConsumerState
from actors.runtime.config.settings import Settings
from cli.shared.live_actors import Row, connected, inspections
from cli.shared.options import takes_settings
from cli.shared.output import (
    ExitCode,
    Format,
    NotFound,
    OutputOption,
    WatchOption,
    cell,
    run_until_interrupted,
    show,
    table,
    watch,
)
from protocol.broker.streams import STREAMS, broadcast_consumer, queue_id
from protocol.errors import BrokerUnavailable
from protocol.times import format_time

if TYPE_CHECKING:
    from rich.console import RenderableType

UNREAD_LOOKS = 4  # a reader between two of its pulls is none that has gone
UNREAD_SECONDS = 0.3
MAX_FILTERS = 64  # that are looked through for the oldest message

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None)


@app.callback()
def queues() -> None:
    """The queues of the socket servers and the other durable consumers: what waits, who reads, since when."""


@app.command("ls")
@takes_settings("nats_url", "data_dir", running=True)
def list_queues(settings: Settings, watching: WatchOption = False, output: OutputOption = Format.TABLE) -> None:
    """List the queues, those with most waiting first. Exit code 5 when one of them is read by nobody."""

    async def work() -> None:
        async with connected(settings, "queues ls") as bus:
            if watching:
                await watch(lambda: queues_of(bus), lambda found: found, _draw, output, every=1.0)
            found = await queues_of(bus)
            show(found, lambda: _draw(found), output)
            if not all(row["read"] for row in found):
                raise typer.Exit(ExitCode.DEGRADED)

    run_until_interrupted(work())


@app.command("show")
@takes_settings("nats_url", "data_dir", running=True)
def show_queue(
    settings: Settings,
    name: Annotated[
        str,
        typer.Argument(
            metavar="QUEUE",
            help="A name that `queues ls` shows, or a serverId: all that belongs to its queue.",
            show_default=False,
        ),
    ],
    output: OutputOption = Format.TABLE,
) -> None:
    """Show a queue: what it receives, how far it is, and how long its oldest message has been waiting.

    With priority high a server's queue is two consumers. Exit code 3 when there is no such queue.
    """

    async def work() -> None:
        async with connected(settings, "queues show") as bus:
            matching = [row for row in await queues_of(bus) if _is_called(row, name)]
            if not matching:
                raise NotFound(f"no queue {name}: `examwire queues ls` shows those that there are")
            for row in matching:
                row["oldestWaiting"] = await _oldest_waiting(bus, row)
            show(matching, lambda: _draw_fields(matching), output)

    run_until_interrupted(work())


async def queues_of(bus: Bus) -> list[Row]:
    """Every durable consumer of our streams, those with most waiting first. Raises `BrokerUnavailable`."""
    states = await _states(bus)
    readers: dict[str, list[str]] = {}
    for actor in await inspections(bus, await bus.services()):
        for consumer in actor.get("details", {}).get("consumers", ()):
            readers.setdefault(consumer, []).append(actor["address"])
    unread = await _unread(bus, states)
    rows = [_row(one, readers.get(_name(one), []), read=_name(one) not in unread) for one in states]
    return sorted(rows, key=lambda row: (row["read"], -row["pending"], row["queue"]))


async def _states(bus: Bus) -> list[ConsumerState]:
    answers = await asyncio.gather(*(bus.consumer_states(stream.name) for stream in STREAMS), return_exceptions=True)
    if all(isinstance(answer, BaseException) for answer in answers):
        raise BrokerUnavailable(f"no streams here ({answers[0]}): does a queue server run?")
    found: list[ConsumerState] = []
    for answer in answers:
        if isinstance(answer, BrokerUnavailable):
            continue  # `examwire streams diff` names a stream that is missing
        if isinstance(answer, BaseException):
            raise answer
        found += answer
    return found


async def _unread(bus: Bus, states: Sequence[ConsumerState]) -> set[str]:
    """Queues on which nobody waits, however often one looks, and from which nothing is taken meanwhile."""
    before = {_name(one): one for one in states}
    unread = {name for name, one in before.items() if not one.pulls_waiting}
    for _ in range(UNREAD_LOOKS):
        if not unread:
            break
        await asyncio.sleep(UNREAD_SECONDS)
        for one in await _states(bus):
            if one.pulls_waiting or one.delivered != before.get(_name(one), one).delivered:
                unread.discard(_name(one))
    return unread


def _name(state: ConsumerState) -> str:
    return f"{state.stream}/{state.name}"


def _row(state: ConsumerState, readers: list[str], *, read: bool) -> Row:
    config = {
        name.removeprefix("examwire."): int(value) if value.isdigit() else value
        for name, value in state.metadata.items()
        if name in ("examwire.maxSize", "examwire.expireTime", "examwire.priority")
    }
    plans = {filtered.split(".")[2] for filtered in state.filters if filtered.startswith("socket.plan.")}
    return {
        "queue": _name(state),
        "server": _server_of(state),
        "description": state.description,
        "pending": state.pending,
        "unacknowledged": state.unacknowledged,
        "redelivered": state.redelivered,
        "read": read,
        "readBy": readers,
        "pullsWaiting": state.pulls_waiting,
        "ageSeconds": round(time.time() - state.created, 1),
        "lastDelivered": format_time(state.last_delivered) if state.last_delivered is not None else None,
        "delivered": state.delivered,
        "ackFloor": state.ack_floor,
        "plans": sorted(plans),
        "filters": list(state.filters),
        "config": config,
        "incarnation": state.metadata.get("examwire.incarnation"),
    }


def _server_of(state: ConsumerState) -> str | None:
    """The serverId of a queue `SOCK001_Q` or `SOCK001_Q_BROADCAST`."""
    if state.stream != "SOCKET":
        return None
    base = state.name.removesuffix(broadcast_consumer(""))
    server = (base if base != state.name else state.name.removesuffix(queue_id(""))).removesuffix(queue_id(""))
    return server or None


def _is_called(row: Row, name: str) -> bool:
    stream, _, consumer = row["queue"].partition("/")
    return name in (row["queue"], consumer, row["server"]) or (
        stream == "SOCKET" and row["server"] is not None and name == queue_id(row["server"])
    )


async def _oldest_waiting(bus: Bus, row: Row) -> Row | None:
    """The first message that is still to be delivered, and how long it has been there."""
    if not row["pending"]:
        return None
    stream = row["queue"].partition("/")[0]
    filters = row["filters"][:MAX_FILTERS] or [">"]
    found = await asyncio.gather(*(bus.next_message(stream, one, row["delivered"] + 1) for one in filters))
    waiting = [one for one in found if one is not None]
    if not waiting:
        return None
    oldest = min(waiting, key=lambda one: one.sequence)
    return {"sequence": oldest.sequence, "subject": oldest.subject, "time": format_time(oldest.time)}


def _draw(found: Sequence[Row]) -> RenderableType:
    columns = ["queue", "waiting", "unacked", "redelivered", "read by", "plans", "last delivered", "age", "settings"]
    return table(
        columns,
        [
            (
                row["queue"],
                row["pending"],
                row["unacknowledged"],
                row["redelivered"],
                (", ".join(row["readBy"]) or "somebody") if row["read"] else "NOBODY",
                len(row["plans"]) or None,
                row["lastDelivered"],
                _age(row["ageSeconds"]),
                " ".join(f"{name}={value}" for name, value in row["config"].items()),
            )
            for row in found
        ],
    )


def _age(seconds: float) -> str:
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"


def _draw_fields(found: Sequence[Row]) -> RenderableType:
    rows: list[tuple[object, ...]] = []
    for row in found:
        rows += [(name, cell(value)) for name, value in row.items()]
        rows.append(("", ""))
    return table(["field", "value"], rows[:-1])
