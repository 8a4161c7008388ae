"""Read the findings of `examwire doctor` by check and state."""

from __future__ import annotations

from cli.shared.findings import Finding, State

OK, WARNING, FAILED, UNKNOWN = State.OK, State.WARNING, State.FAILED, State.UNKNOWN


def states(findings: list[Finding], check: str) -> set[State]:
    """Return the states of a check's findings."""
    return {finding.state for finding in findings if finding.check == check}


def told(findings: list[Finding], check: str, state: State) -> str:
    """Return the text of a check's findings in a state; each must have advice, unless it is OK."""
    matching = [finding for finding in findings if (finding.check, finding.state) == (check, state)]
    assert matching, [finding for finding in findings if finding.check == check]
    assert state is OK or all(finding.advice for finding in matching)
    return "\n".join(finding.found for finding in matching)
