"""The outage report as a CSV table for spreadsheets."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from protocol.log.outages import OutageRow
from protocol.texts import csv_table

COLUMNS = [
    *("planId", "examineeId", "outages", "outageSeconds", "longestSeconds", "compensateSeconds", "stillDisconnected"),
    *("ongoingSeconds", "reasons", "attempts", "shutOut", "removals", "readmissions", "migrations"),
    *("mobileSync", "mobileSyncTime", "mobileSyncReason", "firstSeen", "complete"),
    *("endStatus", "finishedBy", "finishedAt", "windowStart", "windowEnd"),
    *("clientClosedOutages", "clientClosedSeconds", "unstable", "name"),
]


def outages_csv(plan_id: str, rows: Iterable[OutageRow]) -> bytes:
    """Return the outage report of a plan as CSV; no cell can be taken for a formula.

    The labels of the roster come last, each in a column of its name, or `label NAME` if there is such a column.
    """
    rows = list(rows)
    labels = list(dict.fromkeys(label for row in rows for label in row.labels))
    header = [*COLUMNS, *(f"label {label}" if label in COLUMNS else label for label in labels)]
    return csv_table(header, (_cells(plan_id, row, labels) for row in rows))


def _cells(plan_id: str, row: OutageRow, labels: list[str]) -> list[object]:
    values = {**row.model_dump(by_alias=True), "planId": plan_id, "reasons": format_reasons(row)}
    return [*(_cell(values[name]) for name in COLUMNS), *(row.labels.get(label) for label in labels)]


def format_reasons(row: OutageRow) -> str:
    """Return the reasons of a row's outages with their counts: `PING_TIMEOUT 1; SOCKET_CLOSED 2`."""
    return "; ".join(f"{reason} {count}" for reason, count in sorted(row.reasons.items()))


def _cell(value: Any) -> Any:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.3f}"
    return value
