"""The outage report as a table for spreadsheets: RFC 4180, UTF-8, with a header."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from typing import Any

from protocol.log.csv_cells import spreadsheet_text
from protocol.log.outages import OutageRow

COLUMNS = [
    *("planId", "examineeId", "outages", "outageSeconds", "longestSeconds", "compensateSeconds", "stillDisconnected"),
    *("ongoingSeconds", "reasons", "attempts", "shutOut", "removals", "readmissions", "migrations"),
    *("mobileSync", "mobileSyncTime", "mobileSyncReason", "firstSeen", "complete"),
]


def outages_csv(plan_id: str, rows: Iterable[OutageRow]) -> bytes:
    """RFC 4180 in UTF-8, with a header; no cell is a formula to a spreadsheet."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS)
    writer.writeheader()
    for row in rows:
        values = {**row.model_dump(by_alias=True), "planId": plan_id, "reasons": format_reasons(row)}
        writer.writerow({name: _cell(values[name]) for name in COLUMNS})
    return text.getvalue().encode()


def format_reasons(row: OutageRow) -> str:
    """`PING_TIMEOUT 1; SOCKET_CLOSED 2`."""
    return "; ".join(f"{reason} {count}" for reason, count in sorted(row.reasons.items()))


def _cell(value: Any) -> Any:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.3f}"
    return spreadsheet_text(value) if isinstance(value, str) else value
