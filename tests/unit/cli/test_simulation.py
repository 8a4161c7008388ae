"""What examinees of a simulation do is replayable, and its report would notice what is wrong."""

from __future__ import annotations

import random
from io import StringIO

import pytest
from rich.console import Console

from cli.simulate.examinee import SimulatedExaminee, SimulationTarget
from cli.simulate.live_view import describe, phase_text
from cli.simulate.proctor import SimulatedProctor
from cli.simulate.report import SimulateReport, draw_report, report_of
from cli.simulate.stories import Action, deal_stories
from protocol.client.exam_clock import ExamMoment, ExamPhase
from protocol.messages.base import Message
from protocol.messages.facts import FinishReason, NoticeConfirmed
from protocol.messages.frames import Accepted, ReconnectPolicy, Welcome
from protocol.messages.plan_facts import PlanStatusCode
from protocol.messages.proctor_events import (
    ExamineeConnected,
    ExamineeDisconnected,
    ExamineeFinished,
    ExamineeMigrating,
    HelpClosed,
    HelpRequested,
    HelpTaken,
    PlanStateEvent,
    ReplacedSocket,
)
from protocol.messages.views import HelpView, MobileSyncView

NOW = "2024-01-01T09:00:00Z"
PLACE = SimulationTarget(("ws://a", "ws://b"), None, "P001", lambda role, subject: "token")


def proctor_of(*messages: Message, name: str = "T1") -> SimulatedProctor:
    proctor = SimulatedProctor(name, "ws://a", "token")
    policy = ReconnectPolicy(max_attempts=1, backoff_seconds=[1], jitter=0)
    proctor.client.welcome = Welcome(
        role="proctor", plan_id="P001", server_id="SOCK001", socket_id="SOCK001-1", heartbeat_seconds=5,
        reconnect=policy, endpoints=[],
    )  # fmt: skip
    for message in messages:
        proctor.client._update(message)
        proctor._take_in(message)
    return proctor


def examinee_of(proctor: SimulatedProctor, *sockets: str, current: str | None = None) -> SimulatedExaminee:
    """An examinee who is not connected any more and had these sockets."""
    examinee = SimulatedExaminee("E001", PLACE, (Action.BREAKS,), proctor, random.Random(1))
    examinee.truth.opened.update(sockets)
    examinee.truth.current = current
    return examinee


def connected(socket: str, version: int, replaced: str | None = None) -> ExamineeConnected:
    return ExamineeConnected(
        plan_id="P001", examinee_id="E001", socket_id=socket, server_id="SOCK001", timestamp=NOW, version=version,
        replaced=ReplacedSocket(socket_id=replaced) if replaced else None,
    )  # fmt: skip


def lost(socket: str, version: int) -> ExamineeDisconnected:
    return ExamineeDisconnected(
        plan_id="P001", examinee_id="E001", socket_id=socket, timestamp=NOW, reason="SOCKET_CLOSED", version=version
    )


def report(examinee: SimulatedExaminee, *proctors: SimulatedProctor, exam: bool = False) -> SimulateReport:
    return report_of("P001", 1, 1.0, [examinee], list(proctors), exam=exam)


def drawn(simulated: SimulateReport) -> str:
    """What people are shown of it."""
    page = StringIO()
    Console(file=page, width=200).print(draw_report(simulated))
    return page.getvalue()


def test_a_seed_replays_the_stories() -> None:
    stories, repeated, other_seed = (deal_stories(30, random.Random(seed)) for seed in (7, 7, 8))
    assert stories == repeated
    assert stories != other_seed


@pytest.mark.parametrize("seed", range(5))
def test_eight_examinees_show_everything(seed: int) -> None:
    assert {story[0] for story in deal_stories(len(Action), random.Random(seed))} == set(Action)
    assert len(Action) == 8


def test_a_loss_that_every_proctor_was_told_of_is_in_order() -> None:
    events = (connected("S-1", 1), lost("S-1", 2))
    first, second = proctor_of(*events), proctor_of(*events, name="T2")
    result = report(examinee_of(first, "S-1", current="S-1"), first, second)
    assert (result.ok, result.agree, result.missing, result.opened, result.ended) == (True, True, 0, 1, 1)


def test_a_replaced_socket_has_ended() -> None:
    proctor = proctor_of(connected("S-1", 1), connected("S-2", 2, replaced="S-1"), lost("S-2", 3))
    assert report(examinee_of(proctor, "S-1", "S-2", current="S-2"), proctor).ok


def sent_away(socket: str, version: int) -> ExamineeMigrating:
    return ExamineeMigrating(
        plan_id="P001", examinee_id="E001", socket_id=socket, server_id="SOCK001", timestamp=NOW, version=version
    )


def test_a_socket_whose_client_was_sent_away_has_ended() -> None:
    first, second = proctor_of(connected("S-1", 1), sent_away("S-1", 2)), proctor_of(connected("S-1", 1), name="T2")
    result = report(examinee_of(first, "S-1", current="S-1"), first, second)
    assert [proctor.missing for proctor in result.proctors] == [[], ["E001 lost on S-1"]]
    assert result.proctors[0].wrong == [], "on the way is not connected"


def test_a_loss_that_one_proctor_did_not_receive_is_missing_and_its_view_is_wrong() -> None:
    first, second = proctor_of(connected("S-1", 1), lost("S-1", 2)), proctor_of(connected("S-1", 1), name="T2")
    result = report(examinee_of(first, "S-1", current="S-1"), first, second)
    assert (result.ok, result.agree, result.missing) == (False, False, 1)
    assert result.proctors[1].missing == ["E001 lost on S-1"]
    assert result.proctors[1].wrong == ["E001 is not connected, seen as CONNECTED"]


def test_a_connection_without_an_event_is_missing() -> None:
    proctor = proctor_of(connected("S-2", 3), lost("S-2", 4))
    result = report(examinee_of(proctor, "S-1", "S-2", current="S-2"), proctor)
    assert result.proctors[0].missing == ["E001 connected on S-1", "E001 lost on S-1"]
    assert not result.ok


def test_an_event_that_came_twice_is_not_in_order() -> None:
    proctor = proctor_of(connected("S-1", 1), lost("S-1", 2), lost("S-1", 2))
    result = report(examinee_of(proctor, "S-1", current="S-1"), proctor)
    assert (result.ok, result.doubled, result.agree) == (False, 1, True)


def test_an_event_out_of_order_is_not_in_order() -> None:
    proctor = proctor_of(lost("S-1", 2), connected("S-1", 1))
    result = report(examinee_of(proctor, "S-1", current="S-1"), proctor)
    assert (result.ok, result.late) == (False, 1)


def test_a_proctor_who_was_away_is_judged_by_the_view_alone() -> None:
    proctor = proctor_of()
    proctor.interrupted = True
    result = report(examinee_of(proctor, "S-1", current="S-1"), proctor)
    assert (result.missing, result.ok) == (0, True)


def test_proctors_who_see_different_mobile_syncs_do_not_agree() -> None:
    first, second = proctor_of(connected("S-1", 1), lost("S-1", 2)), proctor_of(connected("S-1", 1), lost("S-1", 2))
    second.view.examinees["E001"].mobile_sync = MobileSyncView(status="COMPLETED").status
    assert not report(examinee_of(first, "S-1", current="S-1"), first, second).agree


def confirmed(action: str, version: int) -> NoticeConfirmed:
    return NoticeConfirmed(
        plan_id="P001", examinee_id="E001", action_id=action, by="T1", timestamp=NOW, unconfirmed=[], sent=1,
        version=version,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        ([confirmed("a1", 3)], (True, 0, 0)),
        ([], (False, 1, 0)),
        ([confirmed("a1", 3), confirmed("a1", 4)], (False, 0, 1)),
        ([confirmed("a2", 3)], (False, 1, 0)),
    ],
)
def test_a_message_is_in_order_when_every_proctor_was_told_of_its_confirmation_once(
    told: list[Message], expected: tuple[bool, int, int]
) -> None:
    proctor = proctor_of(connected("S-1", 1), lost("S-1", 2), *told)
    proctor.notices.add("a1")
    examinee = examinee_of(proctor, "S-1", current="S-1")
    examinee.confirmed.add("a1")
    result = report(examinee, proctor)
    assert (result.ok, result.missing, result.confirmed_twice) == expected
    assert ("message a1 was confirmed, and that was told more than once" in drawn(result)) is (expected[2] > 0)


def test_a_message_that_never_came_is_not_in_order_unless_the_end_came_first() -> None:
    proctor = proctor_of(connected("S-1", 1), lost("S-1", 2))
    proctor.notices.add("a1")
    examinee = examinee_of(proctor, "S-1", current="S-1")
    proctor.view.examinees["E001"].unconfirmed = ["a1"]
    result = report(examinee, proctor)
    assert (result.ok, result.unconfirmed) == (False, 1)
    assert "message a1 to E001 was not confirmed" in drawn(result)
    examinee.unread.add("a1")
    assert (report(examinee, proctor).ok, report(examinee, proctor).unconfirmed) == (True, 0)


def test_a_message_is_sent_once_it_was_accepted() -> None:
    accepted = [Accepted(request_type="notify", request_id="a1"), Accepted(request_type="readmit", request_id="a2")]
    assert proctor_of().notices == set()  # what goes down with the connection was sent to nobody
    assert proctor_of(*accepted).notices == {"a1"}


def test_help_is_described_in_words() -> None:
    common = {
        "plan_id": "P001",
        "examinee_id": "E001",
        "request_id": "h1",
        "timestamp": NOW,
        "unconfirmed": [],
        "sent": 0,
    }
    asked = HelpView(request_id="h1", text="Page 3", since=NOW)
    assert describe(HelpRequested(**common, by="E001", help=asked, version=1)) == "asks for help: Page 3"
    assert describe(HelpTaken(**common, by="kim", help=asked, version=2)) == "is being helped by kim"
    assert describe(HelpClosed(**common, by="kim", version=3)) == "needs no more help, says kim"


def test_events_are_described_in_words() -> None:
    assert describe(lost("S-1", 2)) == "disconnected from None: SOCKET_CLOSED"
    assert describe(sent_away("S-1", 2)) == "migrating from SOCK001, which is drained"
    moved = connected("S-2", 3).model_copy(update={"migrated": True})
    assert describe(moved) == "connected on SOCK001 after a drain"
    assert describe(connected("S-2", 2, replaced="S-1")) == "connected on SOCK001, replacing its connection on None"


def finished(version: int, reason: FinishReason = FinishReason.HANDED_IN) -> ExamineeFinished:
    return ExamineeFinished(
        plan_id="P001", examinee_id="E001", by="E001", reason=reason, timestamp=NOW, version=version
    )


CLOSED = PlanStateEvent(plan_id="P001", status=PlanStatusCode.CLOSED, version=9)


def test_the_end_of_an_exam_is_no_loss_and_every_proctor_must_be_told_of_it() -> None:
    whole = proctor_of(connected("S-1", 1), finished(2), CLOSED)
    examinee = examinee_of(whole, "S-1", current="S-1")
    examinee.truth.quiet.add("S-1")
    examinee.truth.finished = FinishReason.HANDED_IN
    result = report(examinee, whole, exam=True)
    assert (result.ok, result.missing, result.handed_in, result.ended_by_plan) == (True, 0, 1, 0)
    assert "1 handed in, 0 stayed to the end" in drawn(result)
    untold = proctor_of(connected("S-1", 1), CLOSED, name="T2")
    result = report(examinee, untold, exam=True)
    assert (result.ok, result.proctors[0].missing) == (False, ["E001 finished"])
    assert result.proctors[0].wrong == ["E001 is FINISHED, HANDED_IN, seen as CONNECTED, None"]
    other_reason = proctor_of(connected("S-1", 1), finished(2, FinishReason.PLAN_ENDED), CLOSED, name="T3")
    assert len(report(examinee, other_reason, exam=True).proctors[0].wrong) == 1
    open_plan = proctor_of(connected("S-1", 1), finished(2), name="T4")
    result = report(examinee, open_plan, exam=True)
    assert (result.ok, result.proctors[0].missing) == (False, ["the end of the exam"])
    twice = proctor_of(connected("S-1", 1), finished(2), finished(2), CLOSED, name="T5")
    assert (report(examinee, twice, exam=True).ok, report(examinee, twice, exam=True).doubled) == (False, 1)


def test_the_phase_of_the_exam_is_shown_in_words() -> None:
    assert phase_text(ExamMoment(ExamPhase.BEFORE, 65.9)) == "waiting room, the exam starts in 1:05"
    assert phase_text(ExamMoment(ExamPhase.RUNNING, 41)) == "the exam runs, 0:41 left"
    assert phase_text(ExamMoment(ExamPhase.OVER)) == "the exam is over"
