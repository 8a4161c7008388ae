"""Rows of a snapshot that are made of records in which a newer release has stored values of its own."""

from __future__ import annotations

import json

from protocol.messages.frames import SERVER_FRAMES, PlanSnapshot
from protocol.records.snapshot_rows import MOBILE_SYNC_FIELDS, NOTICES_FIELDS, PROGRESS_FIELDS, examinee_row

CAPTURE = {"captureId": "0" * 64, "time": "2026-12-01T09:00:00.000Z", "when": "while", "verdict": "doubted"}
PROGRESS = {"connStatusCode": "PAUSED", "flags": "address,network", "version": "7"}
PICTURE = {"status": "CHECKED", "captures": json.dumps([CAPTURE]), "version": "8"}


def test_values_that_only_a_newer_release_knows_are_read_as_unknown() -> None:
    progress, picture = [PROGRESS.get(name) for name in PROGRESS_FIELDS], [PICTURE.get(n) for n in MOBILE_SYNC_FIELDS]
    row = examinee_row("E001", progress, picture, [None] * len(NOTICES_FIELDS))
    assert (row.status, row.connection.status, row.connection.flags) == ("UNKNOWN", "UNKNOWN", ["address", "other"])
    assert (row.mobile_sync.status, row.version, row.mobile_sync.version) == ("UNKNOWN", 7, 8)
    assert row.mobile_sync.captures is not None
    assert [(capture.when, capture.verdict) for capture in row.mobile_sync.captures] == [("unknown", "unknown")]


def test_a_client_reads_a_snapshot_in_which_a_newer_server_says_such_values() -> None:
    view = {"status": "PAUSED", "version": 7}
    row = {"examineeId": "E001", "status": "PAUSED", "connection": view, "version": 7}
    row |= {"mobileSync": {"status": "CHECKED"}, "reconnect": {}}
    data = {"planId": "P001", "examinees": [row]}
    snapshot = SERVER_FRAMES.decode_one(json.dumps({"type": "plan_snapshot", "data": data}))
    assert isinstance(snapshot, PlanSnapshot)
    assert [(seen.status, seen.mobile_sync.status) for seen in snapshot.examinees] == [("UNKNOWN", "UNKNOWN")]
