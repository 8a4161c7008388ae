from __future__ import annotations

import pytest

from protocol.broker import subjects
from protocol.broker.streams import RECORDS
from protocol.log.partitions import PARTS, part_of
from protocol.records import keys


@pytest.mark.parametrize(
    ("key", "plan_id"),
    [
        (keys.plan("P001"), "P001"),
        (keys.plan("notices"), "notices"),
        (keys.plan_notices("P001"), "P001"),
        (keys.progress("P001", "E001"), "P001"),
        (keys.mobile_sync("P001", "plan"), "P001"),
        (keys.notices("P001", "E001"), "P001"),
        (keys.socket("P001", "SOCK001-1"), "P001"),
        (keys.server_status("SOCK001"), None),
    ],
)
def test_the_checkpoint_of_a_key_has_a_subject_of_its_part(key: str, plan_id: str | None) -> None:
    subject = subjects.record(key)
    assert subjects.record_key(subject) == key
    assert subjects.matches(subjects.records_of_part(part_of(plan_id)), subject)
    assert plan_id is None or subjects.matches(subjects.records_of_plan(plan_id), subject)
    assert subjects.matches(RECORDS.subjects[0], subject)


def test_only_an_examinees_own_checkpoints_match_their_pattern() -> None:
    pattern = subjects.records_of_examinee("P001", "E001")
    assert subjects.matches(pattern, subjects.record(keys.progress("P001", "E001")))
    assert not subjects.matches(pattern, subjects.record(keys.progress("P001", "E002")))
    assert not subjects.matches(pattern, subjects.record(keys.socket("P001", "E001")))


def test_an_index_has_no_checkpoint() -> None:
    for key in (keys.PLANS, keys.plan_examinees("P001"), keys.server_sockets("SOCK001")):
        with pytest.raises(ValueError, match="has no checkpoint"):
            subjects.record(key)


def test_how_far_a_part_is_complete_is_no_record() -> None:
    for part in PARTS:
        assert subjects.record_key(subjects.records_checkpoint(part)) is None
        assert not subjects.matches(subjects.records_of_part(part), subjects.records_checkpoint(part))
