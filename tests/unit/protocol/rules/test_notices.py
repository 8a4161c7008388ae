"""Messages of proctors, by scenario: each is shown, confirmed once, and told in full by its newest event."""

from __future__ import annotations

from protocol.messages.facts import Notice, NoticeConfirmed, NoticeFact
from protocol.messages.plan_facts import PlanNotice
from protocol.messages.proctor_events import HelpClosed, HelpRequested, HelpTaken
from protocol.messages.views import HelpView, NoticesView
from protocol.records.kinds import NOTICES, PLAN_NOTICES
from protocol.rules.action_ids import MAX_ACTIONS, message_id
from protocol.rules.effects import SendHelp, SendNotice
from protocol.rules.notices import MAX_CONFIRMED_PLAN_NOTICES, NoticesState
from tests.unit.support.facts import (
    EXAMINEE,
    PLAN,
    at,
    help_close,
    help_request,
    help_take,
    notice,
    notice_confirmed,
    plan_notice,
    readmit,
    restate,
    restate_plan,
)
from tests.unit.support.scenario import Scenario


class Log(Scenario[NoticesState, NoticeFact]):
    """Facts about the messages to one examinee in order."""

    def __init__(self, *facts: NoticeFact) -> None:
        super().__init__(NOTICES, facts)

    def event(self) -> Notice | NoticeConfirmed | HelpRequested | HelpTaken | HelpClosed:
        event = super().event()
        assert isinstance(event, Notice | NoticeConfirmed | HelpRequested | HelpTaken | HelpClosed)
        return event


def test_a_message_is_sent_to_the_examinee_and_the_proctors() -> None:
    log = Log(notice("a1", "Please look up.", 5, by="S007"))
    event = log.event()
    assert isinstance(event, Notice)
    assert (event.action_id, event.text, event.by, event.timestamp) == ("a1", "Please look up.", "S007", at(5))
    assert (event.unconfirmed, event.sent) == (["a1"], 1)
    assert log.effects == (SendNotice(PLAN, EXAMINEE, "a1", 1),)
    (shown,) = log.state.open()
    assert (shown.action_id, shown.sent_at, shown.confirmed_at) == ("a1", at(5), None)


def test_a_confirmation_names_the_messages_proctor_and_sends_the_examinee_nothing() -> None:
    log = Log(notice("a1", by="S007"), notice("a2"), notice_confirmed("a1", 9))
    event = log.event()
    assert isinstance(event, NoticeConfirmed)
    assert (event.action_id, event.by, event.timestamp) == ("a1", "S007", at(9))
    assert (event.unconfirmed, event.sent) == (["a2"], 2)
    assert log.effects == ()
    assert [one.action_id for one in log.state.open()] == ["a2"]


def test_the_same_action_again_has_no_second_effect() -> None:
    log = Log(notice("a1"))
    assert log.changes_nothing(notice("a1", "another text", 60))
    log.add(notice_confirmed("a1", 70))
    assert log.changes_nothing(notice("a1"))
    assert log.changes_nothing(notice_confirmed("a1", 80))


def test_a_confirmation_of_a_message_to_several_is_kept_beside_the_messages() -> None:
    log = Log(notice("a1"), notice_confirmed("p1", 9))
    event = log.event()
    assert isinstance(event, NoticeConfirmed)
    assert (event.action_id, event.by, event.timestamp) == ("p1", None, at(9))
    assert (event.unconfirmed, event.sent, event.confirmed_plan_notices) == (["a1"], 1, ["p1"])
    assert log.changes_nothing(notice_confirmed("p1", 10))
    for number in range(2, MAX_CONFIRMED_PLAN_NOTICES + 2):
        log.add(notice_confirmed(f"p{number}", 11))
    assert log.state.confirmed_plan_notices[0] == "p2"
    assert len(log.state.confirmed_plan_notices) == MAX_CONFIRMED_PLAN_NOTICES


def test_a_request_for_help_is_asked_taken_and_closed() -> None:
    log = Log(help_request("h1", 5, text="Page 3 does not load."))
    asked = log.event()
    assert isinstance(asked, HelpRequested)
    assert (asked.by, asked.request_id, asked.timestamp) == (EXAMINEE, "h1", at(5))
    assert asked.help == HelpView(request_id="h1", text="Page 3 does not load.", since=at(5))
    assert log.effects == (SendHelp(PLAN, EXAMINEE, 1),)
    taken = log.add(help_take("h1", 7, by="kim", action="t1")).event()
    assert isinstance(taken, HelpTaken)
    assert (taken.by, taken.action_id, taken.timestamp) == ("kim", "t1", at(7))
    assert taken.help is not None
    assert taken.help.taken_by == "kim"
    closed = log.add(help_close("h1", 9, by="kim", action="c1")).event()
    assert isinstance(closed, HelpClosed)
    assert (closed.by, closed.action_id, closed.timestamp, closed.help) == ("kim", "c1", at(9), None)
    assert log.effects == (SendHelp(PLAN, EXAMINEE, 3),)


def test_only_one_request_is_open_and_only_the_open_one_is_taken_or_closed() -> None:
    log = Log(help_request("h1"))
    assert log.changes_nothing(help_request("h1"))
    assert log.changes_nothing(help_request("h2"))
    assert log.changes_nothing(help_take("h2"))
    assert log.changes_nothing(help_close("h2"))
    log.add(help_take("h1", by="kim"))
    assert log.changes_nothing(help_take("h1", by="kim"))  # on another page
    log = Log(help_request("h1"), help_take("h1", by="kim", action="t1"))
    taken = log.add(help_take("h1", by="lee", action="t2")).event()  # kim has left
    assert taken.help is not None
    assert taken.help.taken_by == "lee"
    assert log.changes_nothing(help_take("h1", by="kim", action="t1"))  # a retry that comes late
    log.add(help_close("h1", by=EXAMINEE))
    assert log.changes_nothing(help_close("h1"))
    assert log.changes_nothing(help_take("h1"))
    assert log.changes_nothing(help_request("h1"))
    assert log.add(help_request("h2")).event().help == HelpView(request_id="h2", since=at(0))


def test_those_who_help_are_named() -> None:
    named = {"by_name": "김감독"}
    log = Log(help_request("h1"), help_take("h1", by="kim").model_copy(update=named))
    taken = log.event()
    assert isinstance(taken, HelpTaken)
    assert taken.help is not None
    assert (taken.by_name, taken.help.taken_by_name) == ("김감독", "김감독")
    closed = log.add(help_close("h1", by="kim").model_copy(update=named)).event()
    assert isinstance(closed, HelpClosed)
    assert closed.by_name == "김감독"
    told = log.add(notice("a1").model_copy(update=named)).event()
    assert isinstance(told, Notice)
    assert told.by_name == "김감독"


def test_an_examinee_is_shown_the_messages_to_the_plan_that_are_for_them_and_not_confirmed() -> None:
    messages = (
        plan_notice("p1", "For all."),
        plan_notice("p2", "For you.", [EXAMINEE, "E002"]),
        plan_notice("p3", "For others.", ["E002"]),
    )
    state = Scenario(PLAN_NOTICES, messages).state
    assert [(one.action_id, one.text, one.by, one.sent_at) for one in state.open(EXAMINEE, ["p1"])] == [
        ("p2", "For you.", "T1", at(0))
    ]
    assert [one.action_id for one in state.open("E003", [])] == ["p1"]
    found = state.find("p3")
    assert found is not None
    assert found.text == "For others."
    assert state.find("p4") is None


def test_a_message_to_several_is_told_with_its_version_and_to_whom_it_goes() -> None:
    named = plan_notice("p1", examinees=[EXAMINEE]).model_copy(update={"by_name": "김감독"})
    scenario = Scenario(PLAN_NOTICES, [named])
    told = scenario.event()
    assert isinstance(told, PlanNotice)
    assert (told.plan_id, told.action_id, told.examinees, told.by_name, told.version) == (
        PLAN,
        "p1",
        [EXAMINEE],
        "김감독",
        1,
    )
    (shown,) = scenario.state.open(EXAMINEE, [])
    assert shown.by_name == "김감독"
    again = scenario.add(plan_notice("p2")).add(restate_plan()).events
    assert [(event.action_id, event.version) for event in again if isinstance(event, PlanNotice)] == [
        ("p1", 3),
        ("p2", 3),
    ]
    assert Scenario(PLAN_NOTICES, []).changes_nothing(restate_plan())


def test_a_row_has_the_open_request_and_the_confirmed_messages_to_several() -> None:
    asked = HelpView(request_id="h1", since=at(0))
    log = Log(help_request("h1"), notice_confirmed("p1"))
    assert log.state.view() == NoticesView(confirmed_plan_notices=["p1"], help=asked, version=2)
    assert log.add(help_close("h1")).state.view() == NoticesView(confirmed_plan_notices=["p1"], version=3)


def test_messages_and_help_tell_of_each_other() -> None:
    log = Log(help_request("h1"), notice("a1"))
    assert log.event().help == HelpView(request_id="h1", since=at(0))
    asked = log.add(help_close("h1")).event()
    assert (asked.unconfirmed, asked.sent) == (["a1"], 1)


def test_a_restatement_tells_of_help_also_without_messages() -> None:
    log = Log(help_request("h1"), help_take("h1", by="kim"), restate(50, "notices"))
    event = log.event()
    assert isinstance(event, HelpTaken)
    assert (event.restated, event.by) == (True, "kim")
    assert log.effects == (SendHelp(PLAN, EXAMINEE, 3),)
    confirmed = Log(notice_confirmed("p1"), restate(50, "notices")).event()
    assert isinstance(confirmed, NoticeConfirmed)
    assert (confirmed.restated, confirmed.timestamp, confirmed.confirmed_plan_notices) == (True, at(50), ["p1"])


def test_only_the_newest_messages_are_kept_but_more_actions_are_remembered() -> None:
    log = Log(*(notice(f"a{number}") for number in range(1, 26)))
    assert [kept.action_id for kept in log.state.kept] == [f"a{number}" for number in range(6, 26)]
    assert log.state.sent == 25
    assert log.changes_nothing(notice("a1"))
    for number in range(MAX_ACTIONS):
        log.add(notice(f"b{number}"))
    assert len(log.state.actions) == MAX_ACTIONS


def test_a_restatement_publishes_the_newest_message() -> None:
    log = Log(notice("a1"), notice("a2"), restate(50, "notices"))
    event = log.event()
    assert isinstance(event, Notice)
    assert (event.action_id, event.restated, event.unconfirmed) == ("a2", True, ["a1", "a2"])
    # They may never have been shown.
    assert log.effects == tuple(SendNotice(PLAN, EXAMINEE, one, 3) for one in ("a1", "a2"))
    log.add(notice_confirmed("a2", 60)).add(restate(70, "notices"))
    confirmed = log.event()
    assert isinstance(confirmed, NoticeConfirmed)
    assert (confirmed.restated, confirmed.unconfirmed) == (True, ["a1"])


def test_a_restatement_without_messages_publishes_nothing() -> None:
    assert Log().changes_nothing(restate(50, "notices"))


def test_the_record_holds_the_messages_for_others_to_read() -> None:
    state = Log(notice("a1", "시험지를 확인하십시오."), notice_confirmed("a1", 9), notice("a2")).state
    fields = NOTICES.fields(state)
    assert '"text": "시험지를 확인하십시오."' in fields["notices"]
    assert (fields["unconfirmed"], fields["sent"], fields["version"]) == ('["a2"]', "2", "3")


def test_only_a_retry_has_the_message_id_of_the_first_try() -> None:
    first, again = message_id(notice("a1", second=1)), message_id(notice("a1", second=9))
    others = {message_id(notice("a2")), message_id(notice_confirmed("a1")), message_id(readmit(action="a1"))}
    assert first is not None
    assert first == again
    assert first not in others
    assert message_id(readmit()) is None
