"""Findings of the checks `examwire doctor` and `examwire config check`: a state, a text, and advice."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from cli.shared.output import Format, print_json
from cli.shared.times import with_local_times


class State(StrEnum):
    """State of a finding. `unknown`: it cannot be checked from here; this does not change the exit code."""

    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Finding:
    """Result of one check: `found` says what was seen, `advice` what to do (empty: nothing)."""

    check: str
    state: State
    found: str
    advice: str = ""

    def to_json(self) -> dict[str, str]:
        return {"check": self.check, "state": self.state.value, "found": self.found, "advice": self.advice}


def ok(check: str, found: str) -> Finding:
    return Finding(check, State.OK, found)


def warning(check: str, found: str, advice: str) -> Finding:
    return Finding(check, State.WARNING, found, advice)


def failed(check: str, found: str, advice: str) -> Finding:
    return Finding(check, State.FAILED, found, advice)


def unknown(check: str, found: str, advice: str = "") -> Finding:
    return Finding(check, State.UNKNOWN, found, advice)


def worst(findings: Iterable[Finding]) -> State:
    """Return the worst state: FAILED, else WARNING, else OK."""
    states = {finding.state for finding in findings}
    return State.FAILED if State.FAILED in states else State.WARNING if State.WARNING in states else State.OK


def show_findings(findings: Sequence[Finding], output: Format) -> None:
    """Print the findings as JSON, or as a table with the number of each state below."""
    if output is Format.JSON:
        print_json({"state": worst(findings).value, "findings": [finding.to_json() for finding in findings]})
        return
    from cli.shared.output import Column, console, table, text

    styles = {State.OK: "green", State.WARNING: "yellow", State.FAILED: "bold red", State.UNKNOWN: "dim"}
    rows = [
        (
            finding.check,
            text(finding.state.value, styles[finding.state]),
            with_local_times(finding.found),
            finding.advice,
        )
        for finding in findings
    ]
    terminal = console()
    terminal.print(table(["check", "state", Column("found", wrap=True), Column("what to do", wrap=True)], rows))
    counts = Counter(finding.state for finding in findings)
    terminal.print(", ".join(f"{counts[state]} {state.value}" for state in State if counts[state]))
