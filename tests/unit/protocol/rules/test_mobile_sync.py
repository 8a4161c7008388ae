"""Mobile sync (document 18), by scenario. Versions are the places in the log."""

from __future__ import annotations

import pytest

from protocol.messages.facts import MobileSyncCode, MobileSyncFact, MobileSyncStatus
from protocol.messages.proctor_events import Event, MobileSyncCompleted
from protocol.messages.views import ReviewView, Verdict
from protocol.records.kinds import MOBILE_SYNC
from protocol.rules.effects import ScheduleTimeout, SendMobileSync
from protocol.rules.mobile_sync import MobileSyncState
from tests.unit.support.facts import (
    EXAMINEE,
    PLAN,
    at,
    extend,
    restate,
    review,
    timed_out,
    upload_failed,
    uploaded,
    wait,
)
from tests.unit.support.scenario import Scenario


class Log(Scenario[MobileSyncState, MobileSyncFact]):
    """Facts about one examinee's mobile sync in order."""

    def __init__(self, *facts: MobileSyncFact) -> None:
        super().__init__(MOBILE_SYNC, facts)

    def event(self) -> Event:
        assert SendMobileSync(PLAN, EXAMINEE, self.version) in self.effects, "the examinee is told too"
        return super().event()


def test_entering_the_stage_waits_with_a_deadline() -> None:
    log = Log(wait(0, 120))
    event = log.event()
    assert isinstance(event, MobileSyncStatus)
    assert (event.status, event.deadline) == (MobileSyncCode.WAITING, at(120))
    assert ScheduleTimeout(PLAN, EXAMINEE, at(120), 1) in log.effects
    assert log.state.view().status == "WAITING"
    assert MobileSyncState().view().status == "NONE"


def test_entering_again_while_waiting_keeps_the_deadline_and_publishes_the_state() -> None:
    log = Log(wait(0, 120))
    before = log.state
    log.add(wait(60, 120))
    assert log.state == before
    assert log.events == ()
    assert log.effects == (SendMobileSync(PLAN, EXAMINEE, 2),)


def test_an_upload_completes_the_stage() -> None:
    log = Log(wait(), uploaded("a", 30))
    event = log.event()
    assert isinstance(event, MobileSyncCompleted)
    assert (event.device_id, event.timestamp, event.image_url) == ("M001", at(30), "/captures/E001/sync_cap.jpg")
    assert (log.state.model, log.state.os_version, log.state.capture_id) == ("iPhone 12", "iOS 15.0", "a" * 64)
    assert log.effects == (SendMobileSync(PLAN, EXAMINEE, 2),)


def test_an_upload_before_the_stage_counts() -> None:
    log = Log(uploaded())
    assert isinstance(log.event(), MobileSyncCompleted)
    log.add(wait(10))
    assert log.state.status is MobileSyncCode.COMPLETED
    assert log.events == ()
    assert log.effects == (SendMobileSync(PLAN, EXAMINEE, 2),), "the examinee learns that there is nothing to wait for"


def test_a_retry_of_the_same_upload_has_one_effect() -> None:
    log = Log(wait(), uploaded("a", 30))
    assert log.changes_nothing(uploaded("a", 31))
    assert log.state.timestamp == at(30)


def test_a_picture_that_nobody_asked_for_is_kept_and_told_but_does_not_count() -> None:
    log = Log(wait(), uploaded("a", 30), uploaded("b", 40))
    event = log.event()
    assert isinstance(event, MobileSyncCompleted)
    assert (log.state.capture_id, event.timestamp) == ("a" * 64, at(30))
    assert [capture.capture_id[0] for capture in event.captures or ()] == ["a", "b"]
    assert log.changes_nothing(uploaded("b", 41))


def test_a_failed_upload_is_published_with_its_reason_and_may_be_repeated() -> None:
    log = Log(wait(), upload_failed(20, "IMAGE_STORE_FAILED"))
    event = log.event()
    assert isinstance(event, MobileSyncStatus)
    assert (event.status, event.reason) == (MobileSyncCode.FAILED, "IMAGE_STORE_FAILED")
    assert log.state.deadline == at(120)
    log.add(uploaded("a", 30))
    assert isinstance(log.event(), MobileSyncCompleted)
    assert log.state.reason is None


def test_a_failure_without_a_reason_is_an_upload_that_failed() -> None:
    assert Log(wait(), upload_failed(20, None)).state.reason == "IMAGE_UPLOAD_FAILED"


def test_a_failed_second_upload_does_not_undo_the_picture_that_is_there() -> None:
    assert Log(wait(), uploaded()).changes_nothing(upload_failed(40))


@pytest.mark.parametrize("before", [(wait(),), (wait(), upload_failed(20))])
def test_the_deadline_ends_a_stage_without_a_picture(before: tuple[MobileSyncFact, ...]) -> None:
    log = Log(*before, timed_out(1, 120))
    event = log.event()
    assert isinstance(event, MobileSyncStatus)
    assert (event.status, event.reason, event.timestamp) == (MobileSyncCode.TIMED_OUT, "SYNC_TIMEOUT", at(120))


def test_the_deadline_does_not_undo_a_picture() -> None:
    assert Log(wait(), uploaded()).changes_nothing(timed_out(1))


def test_a_repeated_timeout_ends_the_stage_once() -> None:
    log = Log(wait(), timed_out(1))
    assert log.changes_nothing(timed_out(1, 121))


def test_a_timer_of_an_earlier_stage_has_no_effect() -> None:
    log = Log(wait(0), timed_out(1), wait(200))
    assert (log.state.status, log.state.wait_version) == (MobileSyncCode.WAITING, 3)
    assert ScheduleTimeout(PLAN, EXAMINEE, at(320), 3) in log.effects
    assert log.changes_nothing(timed_out(1, 201))
    log.add(timed_out(3, 320))
    assert log.state.status is MobileSyncCode.TIMED_OUT


def test_a_timer_without_a_stage_has_no_effect() -> None:
    assert Log().changes_nothing(timed_out(1))
    assert Log(uploaded()).changes_nothing(timed_out(0))
    assert Log(upload_failed()).changes_nothing(timed_out(1))


def test_a_stage_that_failed_or_timed_out_can_be_entered_again() -> None:
    for ended in (upload_failed(20), timed_out(1)):
        log = Log(wait(), ended, wait(200))
        assert (log.state.status, log.state.reason, log.state.deadline) == (MobileSyncCode.WAITING, None, at(320))


def test_a_picture_that_comes_after_the_deadline_is_recorded() -> None:
    log = Log(wait(), timed_out(1), uploaded("a", 130))
    assert isinstance(log.event(), MobileSyncCompleted)


# -- more time --------------------------------------------------------------------------------------------


def test_more_time_moves_the_deadline_and_has_a_timer_of_its_own() -> None:
    log = Log(wait(0, 120), extend(60, 30, by="S007", action="x1"))
    event = log.event()
    assert isinstance(event, MobileSyncStatus)
    assert (event.status, event.deadline, event.by, event.action_id) == (MobileSyncCode.WAITING, at(180), "S007", "x1")
    assert ScheduleTimeout(PLAN, EXAMINEE, at(180), 2) in log.effects
    assert SendMobileSync(PLAN, EXAMINEE, 2) in log.effects
    assert log.changes_nothing(timed_out(1, 120)), "the old timer fires and changes nothing"
    assert log.add(timed_out(2, 180)).state.status is MobileSyncCode.TIMED_OUT


@pytest.mark.parametrize("ended", [timed_out(1, 120), upload_failed(20)])
def test_more_time_opens_a_stage_again_that_ended_without_a_picture(ended: MobileSyncFact) -> None:
    log = Log(wait(0, 120), ended, extend(60, 300))
    assert (log.state.status, log.state.reason, log.state.deadline) == (MobileSyncCode.WAITING, None, at(360))
    assert isinstance(log.add(uploaded("a", 310)).event(), MobileSyncCompleted)


def test_the_same_extension_again_gives_no_more_time() -> None:
    log = Log(wait(0, 120), extend(60, 30, action="x1"))
    assert log.changes_nothing(extend(60, 31, action="x1"))
    assert log.add(extend(60, 32, action="x2")).state.deadline == at(240)


def test_an_extension_is_remembered_when_the_stage_is_entered_anew() -> None:
    log = Log(wait(0, 120), extend(60, 30, action="x1"), timed_out(2, 180), wait(200, 120))
    assert log.changes_nothing(extend(60, 210, action="x1"))


def test_a_stage_that_was_not_entered_or_is_completed_is_not_extended() -> None:
    assert Log().changes_nothing(extend())
    assert Log(wait(), uploaded()).changes_nothing(extend())


@pytest.mark.parametrize("status", [MobileSyncCode.WAITING, MobileSyncCode.TIMED_OUT])
def test_only_uploads_are_reported_from_outside(status: MobileSyncCode) -> None:
    claimed = upload_failed().model_copy(update={"status": status})
    assert Log().changes_nothing(claimed)
    assert Log(wait()).changes_nothing(claimed)


def test_a_completion_without_a_device_or_picture_is_told_by_its_status() -> None:
    bare = uploaded(device=None).model_copy(update={"capture_info": None, "capture_id": None})
    log = Log(wait(), bare)
    event = log.event()
    assert isinstance(event, MobileSyncStatus)
    assert event.status is MobileSyncCode.COMPLETED
    assert (log.state.image_url, log.state.model, log.state.os_version) == (None, None, None)
    log.add(bare).event()


def test_a_restatement_of_an_open_stage_schedules_its_timer() -> None:
    """What began it may have been a dead letter; the schedule of a stage that has one is set to the same moment."""
    log = Log(wait(0, 120), upload_failed(10), restate(50, "mobile_sync"))
    log.event()
    assert ScheduleTimeout(PLAN, EXAMINEE, at(120), 1) in log.effects


@pytest.mark.parametrize("before", [(wait(0, 120), uploaded(second=10)), (upload_failed(10),)])
def test_a_restatement_without_an_open_stage_schedules_no_timer(before: tuple[MobileSyncFact, ...]) -> None:
    log = Log(*before, restate(50, "mobile_sync"))
    log.event()
    assert log.effects == (SendMobileSync(PLAN, EXAMINEE, log.version),)


# -- what a proctor says ------------------------------------------------------------------------------------


def test_a_rejected_picture_opens_the_stage_again_and_says_why() -> None:
    log = Log(wait(0, 120), uploaded("a", 30), review("a", "rejected", 200, by="kim", action="r1", challenge="4711"))
    event = log.event()
    assert isinstance(event, MobileSyncStatus)
    assert (event.status, event.deadline, event.challenge) == (MobileSyncCode.WAITING, at(290), "4711")
    assert (event.by, event.action_id) == ("kim", "r1")
    assert event.review == ReviewView(capture_id="a" * 64, verdict="rejected", reason="BLURRED", by="kim")
    assert ScheduleTimeout(PLAN, EXAMINEE, at(290), 3) in log.effects
    assert log.state.view().image_url is None, "none counts"
    assert log.changes_nothing(uploaded("a", 210)), "the rejected picture, sent again"
    assert log.changes_nothing(timed_out(1, 210)), "the timer of the first stage"
    log.add(uploaded("b", 220))
    assert (log.state.status, log.state.capture_id) == (MobileSyncCode.COMPLETED, "b" * 64)
    assert log.state.review() is None, "nobody has looked at the new one"
    assert [(capture.verdict, capture.challenge) for capture in log.state.captures] == [
        ("rejected", None),
        (None, "4711"),
    ]


def test_an_accepted_picture_stays_and_says_by_whom() -> None:
    log = Log(wait(), uploaded("a", 30), review("a", "accepted", 40, by="kim", action="r1"))
    event = log.event()
    assert isinstance(event, MobileSyncCompleted)
    assert (event.by, event.action_id, event.timestamp) == ("kim", "r1", at(30))
    assert event.review == ReviewView(capture_id="a" * 64, verdict="accepted", by="kim")


@pytest.mark.parametrize("verdict", ["accepted", "rejected"])
def test_the_same_verdict_of_another_proctor_has_no_effect(verdict: Verdict) -> None:
    log = Log(wait(), uploaded("a", 30), review("a", verdict, 40, by="kim", action="r1"))
    assert log.changes_nothing(review("a", verdict, 50, by="lee", action="r2"))
    assert log.changes_nothing(review("a", verdict, 50, by="kim", action="r1"))


def test_a_proctor_may_change_their_mind_until_another_picture_has_come() -> None:
    log = Log(wait(), uploaded("a", 30), review("a", "rejected", 40), review("a", "accepted", 50))
    assert (log.state.status, log.state.timestamp) == (MobileSyncCode.COMPLETED, at(30))
    assert log.changes_nothing(timed_out(3, 130))
    log.add(review("a", "rejected", 60)).add(uploaded("b", 70)).add(review("a", "accepted", 80))
    assert log.state.capture_id == "b" * 64


def test_a_verdict_on_a_picture_that_does_not_count_leaves_the_stage_as_it_is() -> None:
    log = Log(wait(), uploaded("a", 30), uploaded("b", 31), review("b", "rejected", 40))
    assert log.state.status is MobileSyncCode.COMPLETED
    assert log.effects == (SendMobileSync(PLAN, EXAMINEE, 4),), "no deadline"
    assert log.changes_nothing(review("c", "rejected", 50)), "a picture that was never sent"


def test_a_record_says_when_each_picture_came_and_names_the_newest_few() -> None:
    log = Log(uploaded("a"), wait(10, 120), review("a", "rejected", 20))  # until 110
    for capture, second, received in (("b", 100, None), ("c", 120, 109.0), ("d", 121, 111.0)):
        log.add(uploaded(capture, second, received=received))
    assert [capture.when for capture in log.state.captures] == ["before", "in", "in", "after"]
    for capture in "ef01":
        log.add(uploaded(capture, 130))
    assert [capture.capture_id[0] for capture in log.state.captures] == ["b", "e", "f", "0", "1"]
    assert log.state.capture_id == "b" * 64, "the one that counts is always named"


def test_a_stage_that_is_entered_anew_keeps_its_pictures_and_has_a_challenge_of_its_own() -> None:
    log = Log(wait(0, 120, "1111"), uploaded("a", 30), review("a", "rejected", 40, challenge="2222"))
    log.add(timed_out(3, 130)).add(wait(200, 120, "3333"))
    assert (log.state.challenge, log.state.captures[0].challenge) == ("3333", "1111")
    assert log.state.view().review == ReviewView(capture_id="a" * 64, verdict="rejected", reason="BLURRED", by="S001")
