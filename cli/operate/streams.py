"""`examwire streams`: compare the streams and consumers on the broker with those that the code declares."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any, Literal

import typer

from actors.queue_server.topology import apply_topology, topology_consumers, topology_streams
from actors.runtime.broker.connection import Bus
from actors.runtime.broker.stream_specs import config_difference, consumer_config, stream_config
from actors.runtime.config.settings import Settings
from cli.shared.live_actors import Row, connected
from cli.shared.options import takes_settings
from cli.shared.output import (
    Column,
    Columns,
    ExitCode,
    Format,
    OutputOption,
    WatchOption,
    run_until_interrupted,
    say,
    show,
    state_cell,
    table,
    watch,
    without_empty,
)
from cli.shared.running_system import TOPOLOGY_SETTINGS
from cli.shared.times import local_time
from protocol.broker.streams import DAY, MAX_BYTES, StreamSpec
from protocol.times import format_time

if TYPE_CHECKING:
    from rich.console import RenderableType

FLAGS = ("nats_url", "data_dir", *TOPOLOGY_SETTINGS)

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None)


@dataclass(frozen=True, slots=True)
class TopologyComparison:
    """A stream or consumer (`STREAM/consumer`): the broker's configuration against the declared one.

    `fields`: the fields that differ, name to (actual value, declared value).
    """

    kind: Literal["stream", "consumer"]
    name: str
    state: Literal["same", "differs", "missing"]
    fields: dict[str, tuple[Any, Any]]

    def to_json(self) -> dict[str, Any]:
        fields = {name: {"found": found, "wanted": wanted} for name, (found, wanted) in self.fields.items()}
        return {"kind": self.kind, "name": self.name, "state": self.state, "fields": fields}


@app.callback()
def streams() -> None:
    """JetStream streams: list, compare, create, update.

    These are the streams and consumers that the code declares, without the queues of socket servers.
    """


@app.command("ls")
@takes_settings("nats_url", "data_dir", running=True)
def list_streams(settings: Settings, watching: WatchOption = False, output: OutputOption = Format.TABLE) -> None:
    """List the streams with size and bound, first and last message.

    Example: examwire streams ls --watch

    Exit code 5: a stream is missing.
    """

    async def work() -> None:
        async with connected(settings, "streams ls") as bus:

            async def fetch() -> list[Row]:
                return [await _stream(bus, stream) for stream in topology_streams(settings)]

            if watching:
                await watch(fetch, lambda rows: rows, _draw_streams, output, every=1.0)
            rows = await fetch()
            show(rows, lambda: _draw_streams(rows), output)
            if any(row["state"] != "there" for row in rows):
                raise typer.Exit(ExitCode.DEGRADED)

    run_until_interrupted(work())


@app.command("diff")
@takes_settings(*FLAGS, running=True)
def diff(settings: Settings, output: OutputOption = Format.TABLE) -> None:
    """Compare the broker's streams and consumers with the declared ones.

    Exit code 5: one is missing or differs.
    """

    async def work() -> None:
        async with connected(settings, "streams diff") as bus:
            findings = await compare_topology(bus, settings)
        _show(findings, output)
        if any(finding.state != "same" for finding in findings):
            raise typer.Exit(ExitCode.DEGRADED)

    run_until_interrupted(work())


@app.command("apply")
@takes_settings(*FLAGS, running=True)
def apply(settings: Settings, output: OutputOption = Format.TABLE) -> None:
    """Create missing streams and consumers and update those that differ. Prints the differences found.

    Exit code 5: some differences remain.
    """

    async def work() -> None:
        async with connected(settings, "streams apply") as bus:
            before = await compare_topology(bus, settings)
            await apply_topology(bus, settings)
            after = await compare_topology(bus, settings)
        _show(before, output)
        remaining = [finding.name for finding in after if finding.state != "same"]
        if remaining:
            say(f"examwire: still not as declared: {', '.join(remaining)}", err=True)
            raise typer.Exit(ExitCode.DEGRADED)

    run_until_interrupted(work())


async def compare_topology(bus: Bus, settings: Settings) -> list[TopologyComparison]:
    """Compare every declared stream and consumer with the broker. Raises `BrokerUnavailable`."""
    findings = []
    for stream in topology_streams(settings):
        actual = await bus.stream_config(stream.name)
        wanted = stream_config(stream, settings.nats.replicas)
        if actual is not None:
            bound = (actual.get("metadata") or {}).get(MAX_BYTES)
            if stream.guarded and bound is not None:  # compare it as if NATS knew it
                wanted = wanted.evolve(max_bytes=stream.max_bytes, metadata=None)
                actual["max_bytes"] = int(bound)
            # A small disk gets smaller bounds; a log that is nearly full is kept for a shorter time.
            if 0 < actual.get("max_bytes", -1) < stream.max_bytes:
                wanted = wanted.evolve(max_bytes=actual["max_bytes"])
            if stream.guarded and 0 < actual.get("max_age", 0.0) < stream.max_age:
                wanted = wanted.evolve(max_age=actual["max_age"])
        findings.append(_finding("stream", stream.name, wanted, actual))
    for consumer in topology_consumers():
        name = f"{consumer.stream}/{consumer.name}"
        actual = await bus.consumer_config(consumer.stream, consumer.name)
        findings.append(_finding("consumer", name, consumer_config(consumer), actual))
    return findings


def _finding(
    kind: Literal["stream", "consumer"], name: str, wanted: Any, actual: dict[str, Any] | None
) -> TopologyComparison:
    if actual is None:
        return TopologyComparison(kind, name, "missing", {})
    difference = config_difference(wanted, actual)
    fields = {
        field: (_plain(actual_value), _plain(wanted_value))
        for field, (actual_value, wanted_value) in difference.items()
    }
    return TopologyComparison(kind, name, "differs" if fields else "same", fields)


def _plain(value: Any) -> Any:
    return value.value if isinstance(value, Enum) else value


def _show(findings: list[TopologyComparison], output: Format) -> None:
    rows: list[tuple[object, ...]] = []
    for finding in findings:
        fields = finding.fields or {"": (None, None)}
        rows += [
            (finding.name, finding.kind, state_cell(finding.state), field or None, actual, wanted)
            for field, (actual, wanted) in fields.items()
        ]
    columns: Columns = [
        *("name", Column("kind", wide=True), Column("state", keep=True), "field"),
        *(Column("found", wrap=True), Column("wanted", wrap=True)),
    ]
    show([finding.to_json() for finding in findings], lambda: table(*without_empty(columns, rows)), output)


async def _stream(bus: Bus, spec: StreamSpec) -> Row:
    name = spec.name
    if await bus.stream_config(name) is None:
        return {"stream": name, "description": spec.description, "state": "missing"}
    state = await bus.stream_state(name)
    first = await bus.message_at(name, state.first) if state.messages else None
    last = await bus.message_at(name, state.last) if state.messages else None
    return {
        "stream": name,
        "description": spec.description,
        "state": "there",
        "messages": state.messages,
        "bytes": state.size,
        "maxBytes": state.limit,
        "maxAgeSeconds": state.max_age or None,
        "whenFull": spec.at_bound,
        "firstSequence": state.first,
        "lastSequence": state.last,
        "firstTime": format_time(first.time) if first is not None else None,
        "lastTime": format_time(last.time) if last is not None else None,
        "replicas": state.replicas,
        "leader": state.leader,
    }


def _draw_streams(rows: Sequence[Row]) -> RenderableType:
    columns: Columns = [
        *("stream", Column("messages", keep=True), "MiB", "of MiB", "days", "last", Column("what", crop=True)),
        *(Column("first", wide=True), Column("replicas", wide=True), Column("leader", wide=True)),
    ]
    return table(
        columns,
        [
            (
                row["stream"],
                row["messages"] if "messages" in row else state_cell(row["state"]),
                _scaled(row.get("bytes"), 2**20),
                _scaled(row.get("maxBytes"), 2**20),
                _scaled(row.get("maxAgeSeconds"), DAY),
                local_time(row.get("lastTime")),
                row["description"],
                local_time(row.get("firstTime")),
                row.get("replicas"),
                row.get("leader"),
            )
            for row in rows
        ],
    )


def _scaled(value: float | None, unit: float) -> str | None:
    return f"{value / unit:,.1f}" if value is not None else None
