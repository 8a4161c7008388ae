"""Facts that only a newer release understands, as the readers of the log show them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from protocol.log.entries import LogEntry, read_entries
from protocol.log.outages import Outages
from protocol.log.timeline import Timeline
from protocol.messages.codec import encode
from tests.unit.support import facts
from tests.unit.support.facts import DAWN, at

CHECKED: dict[str, Any] = {
    "type": "browser_checked",
    "format": 1000,
    "data": {"planId": "P001", "examineeId": "E001", "timestamp": at(1), "browser": {"name": "x"}},
}


def entries(*newer: dict[str, Any], subject: str = "status.plan.P001") -> list[LogEntry]:
    """A connection, these facts, and a loss, in one message of the log."""
    payload = [encode(facts.connected("SOCK001-a")), *(json.dumps(each).encode() for each in newer)]
    payload.append(encode(facts.disconnected("SOCK001-a", 2)))
    return list(read_entries(subject, 7, DAWN, b"[" + b",".join(payload) + b"]"))


def test_a_timeline_names_them_and_goes_on() -> None:
    timeline = Timeline()
    about_plan = CHECKED | {"data": CHECKED["data"] | {"examineeId": None}}
    shown = [timeline.add(entry) for entry in entries(CHECKED, about_plan)]
    assert [(entry.what, entry.examinee_id, entry.status) for entry in shown if entry is not None] == [
        ("JOINED", "E001", "CONNECTED"),
        ("NEWER", "E001", "CONNECTED"),
        ("NEWER", None, "OPEN"),
        ("LOST", "E001", "DISCONNECTED"),
    ]
    assert shown[1] is not None
    assert shown[1].text == "browser_checked: only the newer release that has written it knows what it means"
    assert [timeline.add(entry) for entry in entries(CHECKED, about_plan)] == [None] * 4, "each counts once"


def test_a_report_leaves_them_out_and_counts_them() -> None:
    outages = Outages()
    for entry in entries(CHECKED):
        outages.add(entry)
    (row,) = outages.rows(DAWN, DAWN + 10)
    assert (outages.newer, row.outages, row.ongoing_seconds) == (1, 1, 8.0)


def test_those_about_an_examinee_belong_to_their_timeline() -> None:
    (entry,) = [entry for entry in entries(CHECKED) if entry.version == 7 * 256 + 1]
    assert (entry.needed_for("E001"), entry.concerns("E001")) == (True, True)
    assert (entry.needed_for("E002"), entry.concerns("E002")) == (False, False)


@pytest.mark.parametrize("data", [{"planId": "P002"}, {"examineeId": "*"}, {"timestamp": "soon"}])
def test_what_names_another_plan_or_no_time_is_no_fact(data: dict[str, Any]) -> None:
    assert len(entries(CHECKED | {"data": CHECKED["data"] | data})) == 2
    assert len(entries({"type": "browser_checked", "format": 1000, "data": []})) == 2
