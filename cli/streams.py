"""`examwire streams`: what the broker has, beside what the code declares."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any, Literal, TypeVar

import typer

from actors.queue_server import apply_topology, topology_consumers, topology_streams
from actors.runtime.bus import Bus
from actors.runtime.settings import Settings
from actors.runtime.stream_admin import config_difference, consumer_config, stream_config
from cli.config import takes_settings
from cli.output import ExitCode, Format, OutputOption, run_until_interrupted, show, table
from cli.queues import list_streams

CONNECT_SECONDS = 2.0
TOPOLOGY_SETTINGS = (
    "nats_url",
    "nats.replicas",
    "captures.store",
    "data_dir",
    "reconnect.max_attempts",
    "reconnect.backoff_seconds",
)

T = TypeVar("T")
app = typer.Typer(no_args_is_help=True, rich_markup_mode=None)


@dataclass(frozen=True, slots=True)
class Finding:
    """A stream or a consumer (`STREAM/consumer`) on the broker. `fields`: name -> (found, wanted)."""

    kind: Literal["stream", "consumer"]
    name: str
    state: Literal["same", "differs", "missing"]
    fields: dict[str, tuple[Any, Any]]

    def to_json(self) -> dict[str, Any]:
        fields = {name: {"found": found, "wanted": wanted} for name, (found, wanted) in self.fields.items()}
        return {"kind": self.kind, "name": self.name, "state": self.state, "fields": fields}


@app.callback()
def streams() -> None:
    """The JetStream streams and consumers that examwire declares. Queues of socket servers are not among them."""


app.command("ls")(list_streams)


@app.command("diff")
@takes_settings(*TOPOLOGY_SETTINGS, running=True)
def diff(settings: Settings, output: OutputOption = Format.TABLE) -> None:
    """Compare the broker with the code. Exit code 5 when something is missing or differs."""
    findings = _on_bus(settings, lambda bus: compare(bus, settings))
    _show(findings, output)
    if any(finding.state != "same" for finding in findings):
        raise typer.Exit(ExitCode.DEGRADED)


@app.command("apply")
@takes_settings(*TOPOLOGY_SETTINGS, running=True)
def apply(settings: Settings, output: OutputOption = Format.TABLE) -> None:
    """Create what is missing and update what differs; prints what it found before. Exit code 5 if some of it stays."""

    async def work(bus: Bus) -> tuple[list[Finding], list[Finding]]:
        before = await compare(bus, settings)
        await apply_topology(bus, settings)
        return before, await compare(bus, settings)

    before, after = _on_bus(settings, work)
    _show(before, output)
    remaining = [finding.name for finding in after if finding.state != "same"]
    if remaining:
        typer.echo(f"examwire: still not as declared: {', '.join(remaining)}", err=True)
        raise typer.Exit(ExitCode.DEGRADED)


async def compare(bus: Bus, settings: Settings) -> list[Finding]:
    """Every declared stream and consumer as the broker has it. Raises `BrokerUnavailable`."""
    findings = []
    for stream in topology_streams(settings):
        found = await bus.stream_config(stream.name)
        findings.append(_finding("stream", stream.name, stream_config(stream, settings.nats.replicas), found))
    for consumer in topology_consumers(settings):
        name = f"{consumer.stream}/{consumer.name}"
        found = await bus.consumer_config(consumer.stream, consumer.name)
        findings.append(_finding("consumer", name, consumer_config(consumer), found))
    return findings


def _finding(kind: Literal["stream", "consumer"], name: str, wanted: Any, found: dict[str, Any] | None) -> Finding:
    if found is None:
        return Finding(kind, name, "missing", {})
    difference = config_difference(wanted, found)
    fields = {field: (_plain(there), _plain(here)) for field, (there, here) in difference.items()}
    return Finding(kind, name, "differs" if fields else "same", fields)


def _plain(value: Any) -> Any:
    return value.value if isinstance(value, Enum) else value


def _on_bus(settings: Settings, work: Callable[[Bus], Awaitable[T]]) -> T:
    results: list[T] = []

    async def connected() -> None:
        bus = await Bus.connect(settings, "examwire streams", wait=CONNECT_SECONDS)
        try:
            results.append(await work(bus))
        finally:
            await bus.close()

    run_until_interrupted(connected())
    if not results:
        raise typer.Exit(ExitCode.FAILED)  # interrupted
    return results[0]


def _show(findings: list[Finding], output: Format) -> None:
    rows: list[tuple[object, ...]] = []
    for finding in findings:
        fields = finding.fields or {"": (None, None)}
        rows += [
            (finding.kind, finding.name, finding.state, field, found, wanted)
            for field, (found, wanted) in fields.items()
        ]
    columns = ["kind", "name", "state", "field", "found", "wanted"]
    show([finding.to_json() for finding in findings], lambda: table(columns, rows), output)
