"""Payloads of the log without one examinee: the others keep their facts and their places."""

from __future__ import annotations

import json
from typing import Any

import pytest

from actors.retention.redaction import REMOVED, redact

OTHER = {"type": "readmit", "data": {"planId": "P001", "examineeId": "E002"}}
OWN = {"type": "readmit", "data": {"planId": "P001", "examineeId": "E001"}}


def redacted(*elements: dict[str, Any]) -> Any:
    payload = json.dumps(list(elements) if len(elements) > 1 else elements[0]).encode()
    result = redact(payload, "E001", "deleted-1")
    return "as it was" if result == payload else result if result is None else json.loads(result)


def test_the_facts_of_others_keep_their_places() -> None:
    assert redacted(OWN, OTHER, OWN) == [REMOVED, OTHER, REMOVED]
    assert redacted(OTHER, OTHER) == redacted(OTHER) == "as it was"
    assert redacted(OWN) is redacted(OWN, OWN) is None


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ({"examineeId": "E001", "seconds": 60}, {"examineeId": "deleted-1", "seconds": 60}),
        ({"examinees": ["E001", "E002"]}, {"examinees": ["deleted-1", "E002"]}),
    ],
)
def test_facts_about_the_plan_stay_with_another_id(data: dict[str, Any], expected: dict[str, Any]) -> None:
    kind = "plan_notice" if "examinees" in data else "exam_extend"
    assert redacted({"type": kind, "data": data}) == {"type": kind, "data": expected}


def test_earlier_notes_about_the_examinee_go() -> None:
    assert redacted({"type": "plan_purged", "data": {"planId": "P001", "examineeId": "E001"}}) is None


def test_what_is_no_json_stays() -> None:
    assert redact(b"E001 {", "E001", "deleted-1") == b"E001 {"
