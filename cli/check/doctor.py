"""`examwire doctor`: check the running system, and say what to do about each problem."""

from __future__ import annotations

from typing import Annotated

import typer

from actors.runtime.config.settings import Settings
from cli.check.health_check import HealthCheck
from cli.shared.findings import Finding, State, show_findings, worst
from cli.shared.options import takes_settings
from cli.shared.output import ExitCode, Format, OutputOption, run_until_interrupted

SETTINGS = ("nats_url", "redis_url", "data_dir", "reconnect.max_attempts", "reconnect.backoff_seconds")


@takes_settings(*SETTINGS, running=True)
def doctor(
    settings: Settings,
    nats_monitoring: Annotated[
        str | None,
        typer.Option(
            "--nats-monitoring",
            metavar="URL",
            help="Monitoring address of nats-server. [default: port 8222 of its host]",
        ),
    ] = None,
    output: OutputOption = Format.TABLE,
) -> None:
    """Check the running system, and say what to do.

    Example: examwire doctor --data-dir .examwire

    Checks engines, clocks, streams, permissions, roles, lag, file descriptors and secrets.

    Safe during an exam: it changes nothing, but writes one probe message to the broker. Exit code 0: all checks
    passed, 1: a check failed, 4: neither NATS nor Redis can be reached, 5: warnings only.
    """
    check = HealthCheck(settings, monitoring=nats_monitoring)
    findings: list[Finding] = []

    async def work() -> None:
        findings.extend(await check.run())

    run_until_interrupted(work())
    show_findings(findings, output)
    if check.nothing_reached:
        raise typer.Exit(ExitCode.UNREACHABLE)
    if (state := worst(findings)) is not State.OK:
        raise typer.Exit(ExitCode.FAILED if state is State.FAILED else ExitCode.DEGRADED)
