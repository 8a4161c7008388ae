"""An examinee who is deleted: their plan, whose record was renamed, folds to the same as its log with the new name."""

from __future__ import annotations

import json
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from actors.retention.redaction import redact
from protocol.messages.codec import encode
from protocol.messages.facts import STATUS_CODEC
from protocol.messages.plan_facts import PlanFact, PlanPurged
from protocol.rules import plan, plan_notices
from protocol.rules.plan_notices import PlanNoticesState
from protocol.rules.plan_state import PlanState
from tests.unit.support.facts import at, close_plan, extend_exam, open_plan, plan_notice, schedule, window

BEGINS = PlanPurged(plan_id="P001", examinee_id="E001", begins=True, alias="deleted-1", by="kim", timestamp=at(900))
ENDED = PlanPurged(plan_id="P001", examinee_id="E001", by="kim", timestamp=at(901))

_facts = st.sampled_from(
    [
        schedule(60, 3660),
        window("E001", extra=600),
        window("E002", extra=60),
        extend_exam(300, "E001"),
        extend_exam(60),
        open_plan(),
        close_plan(),
    ]
)


def fold(facts: list[tuple[int, PlanFact]]) -> PlanState:
    state = PlanState()
    for version, fact in facts:
        state = plan.apply(state, version, fact).state  # type: ignore[arg-type]
    return state


@given(st.lists(_facts, max_size=8))
def test_a_plan_folds_to_the_same_before_and_after_the_facts_are_redacted(facts: list[PlanFact]) -> None:
    log: list[tuple[int, PlanFact]] = list(enumerate(facts, 1))
    purged = [*log, (100, BEGINS)]
    for version, fact in log:
        payload = redact(encode(fact), "E001", "deleted-1")
        assert payload is not None
        redacted = STATUS_CODEC.decode_one(payload)
        assert isinstance(redacted, PlanFact)
        purged[version - 1] = version, redacted
    assert fold(purged) == fold([*log, (100, BEGINS)])
    rest = purged[:-1]  # the fact that began it is deleted last
    assert fold([*rest, (101, ENDED)]) == fold([*log, (100, BEGINS), (101, ENDED)])
    assert "E001" not in json.dumps([own.examinee_id for own in fold(purged).own_times])


def test_a_message_to_listed_examinees_never_becomes_one_for_everybody() -> None:
    sent = plan_notices.apply(PlanNoticesState(), 1, plan_notice("a1", examinees=["E001"])).state
    renamed = plan_notices.apply(sent, 2, BEGINS).state
    assert renamed == replace(sent, kept=(replace(sent.kept[0], examinees=["deleted-1"]),))
    assert plan_notices.apply(renamed, 3, ENDED).state == renamed
