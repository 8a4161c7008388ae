"""`examwire queues`: durable consumers with their pending messages and readers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from actors.runtime.broker.connection import Bus
from actors.runtime.broker.stream_state import ConsumerState
from actors.runtime.config.settings import Settings
from cli.shared.live_actors import Row, connected, inspections
from cli.shared.options import takes_settings
from cli.shared.output import (
    Column,
    Columns,
    ExitCode,
    Format,
    NotFound,
    OutputOption,
    WatchOption,
    cell,
    run_until_interrupted,
    show,
    state_cell,
    table,
    watch,
)
from cli.shared.times import local_time
from protocol.broker.streams import SOCKET, STREAMS, queue_id, queue_server_id
from protocol.errors import BrokerUnavailable
from protocol.times import format_time

if TYPE_CHECKING:
    from rich.console import RenderableType

UNREAD_LOOKS = 4  # a reader between two pulls looks absent for a moment
UNREAD_SECONDS = 0.3
MAX_FILTERS = 64  # filters that are searched for the oldest message

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None)


@app.callback()
def queues() -> None:
    """Queues (durable consumers): pending messages, readers."""


@app.command("ls")
@takes_settings("nats_url", "data_dir", running=True)
def list_queues(settings: Settings, watching: WatchOption = False, output: OutputOption = Format.TABLE) -> None:
    """List the queues, fullest first.

    Example: examwire queues ls --watch

    Exit code 5: a queue has no reader.
    """

    async def work() -> None:
        async with connected(settings, "queues ls") as bus:
            if watching:
                await watch(lambda: queues_of(bus), lambda rows: rows, _draw, output, every=1.0)
            rows = await queues_of(bus)
            show(rows, lambda: _draw(rows), output)
            if not all(row["read"] for row in rows):
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
            help="A name from `queues ls`, or a serverId for all consumers of its queue.",
            show_default=False,
        ),
    ],
    output: OutputOption = Format.TABLE,
) -> None:
    """Show a queue: filters, position, age of the oldest message.

    Example: examwire queues show SOCK001

    A queue with priority high has two consumers for each 64 plans. Exit code 3: no such queue.
    """

    async def work() -> None:
        async with connected(settings, "queues show") as bus:
            matching = [row for row in await queues_of(bus) if _is_called(row, name)]
            if not matching:
                raise NotFound(f"no queue {name}: `examwire queues ls` lists the queues")
            for row in matching:
                row["oldestWaiting"] = await _oldest_waiting(bus, row)
            show(matching, lambda: _draw_fields(matching), output)

    run_until_interrupted(work())


async def queues_of(bus: Bus) -> list[Row]:
    """Return every durable consumer of our streams: unread ones first, then by pending messages.

    Raises `BrokerUnavailable`.
    """
    states = await _states(bus)
    readers: dict[str, list[str]] = {}
    for actor in await inspections(bus, await bus.services()):
        for consumer in actor.get("details", {}).get("consumers", ()):
            readers.setdefault(consumer, []).append(actor["address"])
    unread = await _unread(bus, states)
    rows = [_row(state, readers.get(_name(state), []), read=_name(state) not in unread) for state in states]
    return sorted(rows, key=lambda row: (row["read"], -row["pending"], row["queue"]))


async def _states(bus: Bus) -> list[ConsumerState]:
    answers = await asyncio.gather(*(bus.consumer_states(stream.name) for stream in STREAMS), return_exceptions=True)
    if all(isinstance(answer, BaseException) for answer in answers):
        raise BrokerUnavailable(f"no streams found ({answers[0]}): check that a queue server runs")
    states: list[ConsumerState] = []
    for answer in answers:
        if isinstance(answer, BrokerUnavailable):
            continue  # `examwire streams diff` reports a missing stream
        if isinstance(answer, BaseException):
            raise answer
        states += answer
    return states


async def _unread(bus: Bus, states: Sequence[ConsumerState]) -> set[str]:
    """Return the queues without an open pull in any of several looks, and without a delivery between them."""
    states_before = {_name(state): state for state in states}
    unread = {name for name, state in states_before.items() if not state.pulls_waiting}
    for _ in range(UNREAD_LOOKS):
        if not unread:
            break
        await asyncio.sleep(UNREAD_SECONDS)
        for state in await _states(bus):
            if state.pulls_waiting or state.delivered != states_before.get(_name(state), state).delivered:
                unread.discard(_name(state))
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
    """Return the serverId of a queue that belongs to a socket server."""
    return queue_server_id(state.name) if state.stream == SOCKET.name else None


def _is_called(row: Row, name: str) -> bool:
    stream, _, consumer = row["queue"].partition("/")
    return name in (row["queue"], consumer, row["server"]) or (
        stream == SOCKET.name and row["server"] is not None and name == queue_id(row["server"])
    )


async def _oldest_waiting(bus: Bus, row: Row) -> Row | None:
    """Return the first message that is still to be delivered, and its time."""
    if not row["pending"]:
        return None
    stream = row["queue"].partition("/")[0]
    filters = row["filters"][:MAX_FILTERS] or [">"]
    next_messages = await asyncio.gather(
        *(bus.next_message(stream, message, row["delivered"] + 1) for message in filters)
    )
    waiting_messages = [message for message in next_messages if message is not None]
    if not waiting_messages:
        return None
    oldest = min(waiting_messages, key=lambda message: message.sequence)
    return {"sequence": oldest.sequence, "subject": oldest.subject, "time": format_time(oldest.time)}


def _draw(rows: Sequence[Row]) -> RenderableType:
    columns: Columns = [
        *("queue", "waiting", "unacked", Column("read by", keep=True), Column("redelivered", wide=True)),
        *(Column("plans", wide=True), Column("last delivered", wide=True), Column("age", wide=True)),
        Column("settings", crop=True, wide=True),
    ]
    return table(
        columns,
        [
            (
                row["queue"],
                row["pending"],
                row["unacknowledged"],
                (", ".join(row["readBy"]) or "somebody") if row["read"] else state_cell("NOBODY"),
                row["redelivered"],
                len(row["plans"]) or None,
                local_time(row["lastDelivered"]),
                _age(row["ageSeconds"]),
                " ".join(f"{name}={value}" for name, value in row["config"].items()),
            )
            for row in rows
        ],
    )


def _age(seconds: float) -> str:
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"


def _draw_fields(queues: Sequence[Row]) -> RenderableType:
    rows: list[tuple[object, ...]] = []
    for row in queues:
        rows += [(name, cell(value)) for name, value in row.items()]
        rows.append(("", ""))
    return table(["field", Column("value", wrap=True)], rows[:-1])
