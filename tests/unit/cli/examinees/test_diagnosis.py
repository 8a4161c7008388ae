"""Why somebody is red, in plain words; and the report as CSV by the book."""

from __future__ import annotations

import pytest

from cli.examinees.diagnosis import MEANINGS, DiagnosisInput, diagnose
from protocol.log.entries import LogEntry
from protocol.log.timeline import Timeline
from protocol.messages.facts import ExamineeFact, FinishReason, LossReason
from protocol.messages.plan_facts import PlanFact
from protocol.rules.connection_state import ConnectionState
from tests.unit.support import facts
from tests.unit.support.facts import DAWN, at


def seen(*logged: ExamineeFact | PlanFact, second: float = 124, record: bool = True) -> DiagnosisInput:
    """What is known `second` seconds after the morning began, when Redis is as the log says."""
    timeline = Timeline()
    entries = [timeline.add(LogEntry(10 * n, DAWN, fact)) for n, fact in enumerate(logged, 1)]
    person = timeline.examinees.get("E001")
    state = person.connection if person is not None else ConnectionState()
    inputs = DiagnosisInput(
        "P001", "E001", DAWN + second, happened=[entry for entry in entries if entry is not None], by_log=state
    )
    inputs.plan = timeline.plan
    if record:
        inputs.record = {
            "connStatusCode": state.shown_status.value if state.shown_status else "",
            "lastActiveTime": state.since or "",
            "socketId": state.socket_id or "",
            "serverId": state.server_id or "",
            "reason": state.reason or "",
            "since": state.since or "",
            "reconnectAttempt": str(state.attempt),
            "maxAttempts": str(state.max_attempts or ""),
            "nextAttemptAt": state.next_attempt_at or "",
            "exhausted": str(int(state.exhausted)),
            "removed": str(int(state.removed)),
            "finished": state.finished.value if state.finished else "",
            "finishedAt": state.finished_at or "",
            "finishedBy": state.finished_by or "",
            "version": str(state.version),
        }
        inputs.server = {"statusCode": "READY"}
    inputs.session = {"details": {"socketId": state.socket_id}} if state.live else {}
    return inputs


JOINED = facts.connected("SOCK001-a")
TIMED_OUT = facts.disconnected("SOCK001-a", 0, "PING_TIMEOUT")


def test_a_loss_is_explained_with_duration_reason_attempt_and_server() -> None:
    inputs = seen(JOINED, TIMED_OUT, facts.attempt(20, 3, 120, of=5))
    inputs.others_gone, inputs.others_of_server = 12, 11
    diagnosis = diagnose(inputs)
    assert diagnosis.headline.startswith(
        "E001 is DISCONNECTED for 2 min 4 s: PING_TIMEOUT - the browser stopped answering"
    )
    assert "Attempt 3 of 5, the next at" in diagnosis.headline
    assert "The last server was SOCK001, which is READY." in diagnosis.headline
    assert "12 others of the plan are disconnected, too, 11 of them from the same server." in diagnosis.headline
    assert diagnosis.advice == [MEANINGS["PING_TIMEOUT"][1]]
    assert diagnosis.disagreements == []


def test_without_redis_the_log_says_the_same() -> None:
    logged = (JOINED, TIMED_OUT, facts.attempt(20, 3, 120, of=5))
    from_log = diagnose(seen(*logged, record=False)).headline
    assert from_log == diagnose(seen(*logged)).headline.replace(", which is READY", "")


def test_a_shut_out_examinee_is_explained_with_the_loss_and_the_advice_to_readmit() -> None:
    diagnosis = diagnose(seen(JOINED, TIMED_OUT, facts.exhausted(20, 60)))
    assert "shut out: all reconnect attempts are used up. The loss: PING_TIMEOUT" in diagnosis.headline
    assert "`examwire examinees readmit P001 E001`" in diagnosis.advice[0]
    diagnosis = diagnose(seen(JOINED, TIMED_OUT, facts.exhausted(20, 60), facts.readmit(70, by="kim")))
    assert "readmitted by kim, and not back yet" in diagnosis.headline


@pytest.mark.parametrize("record", [True, False])
def test_a_removal_is_explained_with_operator_and_reason(record: bool) -> None:
    diagnosis = diagnose(seen(JOINED, facts.remove(4, by="anna", reason="talking"), record=record))
    assert diagnosis.headline == "E001 is removed from the exam for 2 min, by anna: talking."
    assert "Readmit them" in diagnosis.advice[0]
    never = diagnose(seen(facts.enrol("Kim"), facts.remove(4, by="anna"), record=record))
    assert never.headline == "E001 is removed from the exam, and has never been connected, by anna."


def test_other_statuses_are_explained() -> None:
    assert diagnose(seen(JOINED)).headline.startswith("E001 is CONNECTED since")
    migrating = diagnose(seen(JOINED, facts.disconnected("SOCK001-a", 122, "SERVER_DRAINING")))
    assert "MIGRATING for 2.0 s" in migrating.headline
    assert "never been connected" in diagnose(seen(facts.wait(0))).headline
    nothing = DiagnosisInput("P001", "E001", DAWN)
    assert nothing.never_seen
    assert "cannot be determined" in diagnose(nothing).headline


@pytest.mark.parametrize("record", [True, False])
def test_a_finish_is_explained_with_who_and_when_and_how_to_go_on(record: bool) -> None:
    handed_in = facts.finish(4, "E001", reason=FinishReason.HANDED_IN)
    diagnosis = diagnose(seen(JOINED, handed_in, record=record))
    assert diagnosis.headline.startswith("E001 handed in at ")
    assert ", 2 min ago. They are still connected, " in diagnosis.headline
    assert "examwire plans resume P001 E001" in diagnosis.advice[0]
    assert diagnosis.disagreements == []
    decided = diagnose(seen(JOINED, facts.finish(4, "kim"), facts.disconnected("SOCK001-a", 9), record=record))
    assert decided.headline.startswith("E001 was finished by kim at ")
    assert "They are no longer connected" in decided.headline
    ended = facts.finish(4, "plan", reason=FinishReason.PLAN_ENDED)
    closed = diagnose(seen(JOINED, facts.close_plan(4), ended, record=record))
    assert "because the exam has ended" in closed.headline
    assert "examwire plans open P001" in closed.advice[0]
    resumed = diagnose(seen(JOINED, facts.finish(4, "kim"), TIMED_OUT, facts.resume(9, "anna"), record=record))
    assert "finished, then resumed by anna, and not back yet" in resumed.headline


def test_before_the_start_and_after_the_end_a_loss_is_explained_as_such() -> None:
    gone = (JOINED, facts.disconnected("SOCK001-a", 60, "CLIENT_CLOSED"))
    before = diagnose(seen(facts.schedule(600, 900), *gone))
    assert "Before the exam nothing of it counts: the exam begins for them at" in before.headline
    running = diagnose(seen(facts.schedule(50, 900), *gone))
    assert running.headline.endswith("The last server was SOCK001, which is READY.")
    assert running.advice[1] == "By the policy of the plan such an outage is not compensated."
    over = diagnose(seen(facts.schedule(0, 100), *gone))
    assert "The exam is over for them since" in over.headline
    assert "examwire plans extend P001" in over.advice[0]
    closed = diagnose(seen(*gone, facts.close_plan(70, reason="a fire")))
    assert "closed by operator at" in closed.headline
    assert ": a fire; until then it counted." in closed.headline
    never = diagnose(seen(facts.enrol("Kim"), facts.schedule(600, 900)))
    assert "has never been connected; the exam begins for them at" in never.headline
    assert "over for them" in diagnose(seen(facts.enrol("Kim"), facts.close_plan(5))).headline


def test_a_waiting_or_failed_picture_gives_advice() -> None:
    for picture, word in (
        ({"status": "WAITING", "deadline": at(200)}, "waits for a picture"),
        ({"status": "FAILED", "reason": "IMAGE_STORE_FAILED"}, "IMAGE_STORE_FAILED"),
        ({"status": "TIMED_OUT"}, "timed out"),
    ):
        inputs = seen(JOINED)
        inputs.picture = picture
        assert word in diagnose(inputs).advice[0]


def test_every_reason_of_a_loss_has_a_meaning() -> None:
    assert set(LossReason) - {LossReason.RECONNECT_LIMIT_EXCEEDED} <= set(MEANINGS)
    odd = diagnose(seen(JOINED, facts.disconnected("SOCK001-a", 0, "CAT_ON_KEYBOARD")))
    assert "CAT_ON_KEYBOARD" in odd.headline


@pytest.mark.parametrize(
    ("session", "version", "word"),
    [
        ({}, "10", "no live session answers"),
        ({"details": {"socketId": "SOCK001-z"}}, "10", "is just replacing the other"),
        ({"details": {"socketId": "SOCK001-a"}}, "9", "the state managers are behind"),
    ],
)
def test_disagreeing_sources_are_reported(session: dict[str, object], version: str, word: str) -> None:
    inputs = seen(JOINED)
    assert diagnose(inputs).disagreements == []
    inputs.session = session
    assert inputs.record is not None
    inputs.record["version"] = version
    (disagreement,) = diagnose(inputs).disagreements
    assert word in disagreement
    assert "state verify" in disagreement


def test_a_live_session_of_a_disconnected_examinee_is_a_disagreement() -> None:
    inputs = seen(JOINED, TIMED_OUT)
    inputs.session = {"details": {"socketId": "SOCK001-b"}}
    assert "a live session answers (SOCK001-b)" in diagnose(inputs).disagreements[0]


def test_who_is_unstable_or_came_from_elsewhere_is_named() -> None:
    inputs = seen(JOINED)
    assert inputs.record is not None
    inputs.record |= {"unstable": "1", "awayShare": "0.312", "flags": "address,device", "ipAddress": "10.0.0.2"}
    advice = diagnose(inputs).advice
    assert "Unstable: away for 31% of the last minutes. Check their network." in advice
    assert "Connected from another address and another device than before (10.0.0.2). Check who sits there." in advice
