"""What a check has found, and what to do now: for `examwire doctor` and `examwire config check`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from cli.shared.output import Format, print_json


class State(StrEnum):
    """`unknown`: it cannot be seen from here; that alone is no reason to worry, and changes no exit code."""

    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Finding:
    """One check's outcome. `advice` is empty when there is nothing to do."""

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
    """FAILED over WARNING over OK."""
    states = {finding.state for finding in findings}
    return State.FAILED if State.FAILED in states else State.WARNING if State.WARNING in states else State.OK


def show_findings(findings: Sequence[Finding], output: Format) -> None:
    """Every finding, and below a table how many of each."""
    if output is Format.JSON:
        print_json({"state": worst(findings).value, "findings": [finding.to_json() for finding in findings]})
        return
    from cli.shared.output import console, table, text

    drawn = table(["check", "", "found", "what to do"], [])
    styles = {State.OK: "green", State.WARNING: "yellow", State.FAILED: "bold red", State.UNKNOWN: "dim"}
    for one in findings:
        drawn.add_row(text(one.check), text(one.state.value, styles[one.state]), text(one.found), text(one.advice))
    target = console()
    target.print(drawn)
    counts = Counter(finding.state for finding in findings)
    target.print(", ".join(f"{counts[state]} {state.value}" for state in State if counts[state]))
