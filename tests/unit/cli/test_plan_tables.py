"""The tables of `examwire plans show` and `watch`."""

from __future__ import annotations

import io
from typing import Any

from rich.console import Console

from cli.plans.plans import draw_plan, row_of


def examinee(examinee_id: str, status: str, picture: str = "", **fields: str) -> dict[str, Any]:
    mobile_sync = {"status": picture} if picture else {}
    return row_of(examinee_id, {"connStatusCode": status, **fields}, mobile_sync)


ROWS = [
    examinee("E1", "CONNECTED"),
    examinee("E2", "CONNECTED", "TIMED_OUT"),
    examinee("E3", "DISCONNECTED", removed="1"),
    examinee("E4", "DISCONNECTED"),
    examinee("E5", "FINISHED", "FAILED"),
    examinee("E6", "MIGRATING"),
    examinee("E7", "DISCONNECTED", exhausted="1"),
]


def shown(*, urgent_first: bool) -> list[str]:
    plan = {"status": "OPEN", "version": 0, "ownTimes": {}}
    numbers = ("examinees", "connected", "disconnected", "migrating", "finished", "exhausted", "removed", "never")
    counts = {**dict.fromkeys(numbers, 0), "examinees": 7, "removed": 1, "mobileSync": {}}
    value = {"planId": "P001", "plan": plan, "counts": counts, "examinees": ROWS}
    written = io.StringIO()
    Console(file=written, width=100).print(draw_plan(value, urgent_first=urgent_first))
    return written.getvalue().splitlines()


def test_a_live_screen_has_those_who_need_attention_on_top() -> None:
    lines = shown(urgent_first=True)
    assert [line.split()[0] for line in lines[3:]] == ["E7", "E4", "E6", "E2", "E1", "E3", "E5"]
    assert "shut out" in lines[3]
    assert [line.split()[0] for line in shown(urgent_first=False)[3:]] == [f"E{number}" for number in range(1, 8)]


def test_only_what_there_is_has_a_column_or_a_number() -> None:
    title, head, _, *rows = shown(urgent_first=False)
    assert title.startswith("plan P001: 7 examinees: 1 removed; mobile sync none; times in ")
    assert head.split() == ["examinee", "status", "attempt", "mobile", "sync"]
    assert rows[2].split() == ["E3", "REMOVED"]
