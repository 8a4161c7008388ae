"""Whole outcomes of the rules of mobile sync, notices and socket servers: state, events and effects."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from protocol.messages.facts import (
    ConnectionStatusCode,
    MobileSyncCode,
    MobileSyncFact,
    MobileSyncStatus,
    Notice,
    NoticeConfirmed,
    NoticeFact,
)
from protocol.messages.proctor_events import (
    Event,
    MobileSyncCompleted,
)
from protocol.messages.server_messages import ServerStatus, ServerStatusCode
from protocol.messages.views import (
    MobileSyncView,
    NoticesView,
    NoticeView,
    ReviewView,
)
from protocol.rules import mobile_sync, notices, socket_server
from protocol.rules.effects import (
    Effect,
    EndSessions,
    ScheduleTimeout,
    SendMobileSync,
    SendNotice,
)
from protocol.rules.mobile_sync import Capture, MobileSyncState
from protocol.rules.notices import NoticesState, RecordedNotice
from protocol.rules.socket_server import ServerState
from tests.unit.support import facts
from tests.unit.support.facts import EXAMINEE, PLAN, at

A, B = "SOCK001-a", "SOCK002-b"
ID: dict[str, Any] = {"plan_id": PLAN, "examinee_id": EXAMINEE}
CONNECTED, DISCONNECTED = ConnectionStatusCode.CONNECTED, ConnectionStatusCode.DISCONNECTED
MIGRATING = ConnectionStatusCode.MIGRATING
V = 50
"""The version of every fact below."""

# -- the mobile sync ---------------------------------------------------------------------------------------

URL = "/captures/E001/sync_cap.jpg"
WAITING = MobileSyncState(
    **ID,
    status=MobileSyncCode.WAITING,
    timestamp=at(0),
    deadline=at(120),
    wait_version=10,
    actions=("mobile_sync_extend a0",),
    version=20,
)
FAILED = replace(
    WAITING,
    status=MobileSyncCode.FAILED,
    device_id="M009",
    image_url="/old",
    model="Old",
    os_version="Old",
    capture_id="f" * 64,
    reason="OLD",
)
TIMED_OUT = replace(WAITING, status=MobileSyncCode.TIMED_OUT, reason="SYNC_TIMEOUT")
COMPLETED = replace(
    WAITING,
    status=MobileSyncCode.COMPLETED,
    device_id="M001",
    timestamp=at(30),
    image_url=URL,
    model="iPhone 12",
    os_version="iOS 15.0",
    capture_id="a" * 64,
)
CAPTURE = Capture("a" * 64, at(30), "in", "M001")
REJECTED = replace(CAPTURE, verdict="rejected", reason="BLURRED", by="S002")
SEND = SendMobileSync(PLAN, EXAMINEE, V)
MOBILE_SYNC_STATUS: dict[str, Any] = {**ID, "deadline": at(120), "version": V}

MobileSyncCase = tuple[MobileSyncState, MobileSyncFact, MobileSyncState, tuple[Event, ...], tuple[Effect, ...]]
MOBILE_SYNC_CASES: dict[str, MobileSyncCase] = {
    "the stage is entered anew": (
        TIMED_OUT,
        facts.wait(200),
        MobileSyncState(
            **ID,
            status=MobileSyncCode.WAITING,
            timestamp=at(200),
            deadline=at(320),
            wait_version=V,
            actions=("mobile_sync_extend a0",),
            version=V,
        ),
        (MobileSyncStatus(**ID, status=MobileSyncCode.WAITING, timestamp=at(200), deadline=at(320), version=V),),
        (ScheduleTimeout(PLAN, EXAMINEE, at(320), V), SEND),
    ),
    "a reload while waiting": (WAITING, facts.wait(30), WAITING, (), (SEND,)),
    "a reload after the picture": (COMPLETED, facts.wait(30), COMPLETED, (), (SEND,)),
    "an upload": (
        FAILED,
        facts.uploaded("a", 30),
        replace(COMPLETED, reason=None, captures=(CAPTURE,), version=V),
        (
            MobileSyncCompleted(
                **ID, device_id="M001", timestamp=at(30), image_url=URL, captures=[CAPTURE.view()], version=V
            ),
        ),
        (SEND,),
    ),
    "the same upload": (COMPLETED, facts.uploaded("a", 40), COMPLETED, (), ()),
    "a rejection": (
        replace(COMPLETED, captures=(CAPTURE,)),
        facts.review("a", "rejected", 40, by="S002", action="r1", challenge="4711"),
        replace(
            COMPLETED,
            status=MobileSyncCode.WAITING,
            timestamp=at(40),
            deadline=at(130),
            captures=(REJECTED,),
            challenge="4711",
            wait_version=V,
            actions=("mobile_sync_extend a0", "capture_review r1"),
            version=V,
        ),
        (
            MobileSyncStatus(
                **ID,
                status=MobileSyncCode.WAITING,
                device_id="M001",
                timestamp=at(40),
                deadline=at(130),
                capture_id="a" * 64,
                by="S002",
                action_id="r1",
                captures=[REJECTED.view()],
                review=ReviewView(capture_id="a" * 64, verdict="rejected", reason="BLURRED", by="S002"),
                challenge="4711",
                version=V,
            ),
        ),
        (ScheduleTimeout(PLAN, EXAMINEE, at(130), V), SEND),
    ),
    "a failed upload": (
        WAITING,
        facts.upload_failed(30),
        replace(
            WAITING,
            status=MobileSyncCode.FAILED,
            device_id="M001",
            timestamp=at(30),
            reason="IMAGE_STORE_FAILED",
            version=V,
        ),
        (
            MobileSyncStatus(
                **MOBILE_SYNC_STATUS,
                status=MobileSyncCode.FAILED,
                device_id="M001",
                timestamp=at(30),
                reason="IMAGE_STORE_FAILED",
            ),
        ),
        (SEND,),
    ),
    "a failed upload of an unknown device": (
        FAILED,
        facts.upload_failed(30, None).model_copy(update={"device_id": None}),
        replace(FAILED, timestamp=at(30), reason="IMAGE_UPLOAD_FAILED", version=V),
        (
            MobileSyncStatus(
                **MOBILE_SYNC_STATUS,
                status=MobileSyncCode.FAILED,
                device_id="M009",
                timestamp=at(30),
                reason="IMAGE_UPLOAD_FAILED",
            ),
        ),
        (SEND,),
    ),
    "a failed second upload": (COMPLETED, facts.upload_failed(40), COMPLETED, (), ()),
    "an extension": (
        replace(FAILED, deadline=at(100)),
        facts.extend(60, 30, by="S002", action="a1"),
        replace(
            FAILED,
            status=MobileSyncCode.WAITING,
            timestamp=at(30),
            deadline=at(160),
            reason=None,
            wait_version=V,
            actions=("mobile_sync_extend a0", "mobile_sync_extend a1"),
            version=V,
        ),
        (
            MobileSyncStatus(
                **ID,
                status=MobileSyncCode.WAITING,
                device_id="M009",
                timestamp=at(30),
                deadline=at(160),
                by="S002",
                action_id="a1",
                version=V,
            ),
        ),
        (ScheduleTimeout(PLAN, EXAMINEE, at(160), V), SEND),
    ),
    "a repeated extension": (FAILED, facts.extend(60, 30, action="a0"), FAILED, (), ()),
    "the deadline": (
        FAILED,
        facts.timed_out(10, 121),
        replace(FAILED, status=MobileSyncCode.TIMED_OUT, timestamp=at(121), reason="SYNC_TIMEOUT", version=V),
        (
            MobileSyncStatus(
                **MOBILE_SYNC_STATUS,
                status=MobileSyncCode.TIMED_OUT,
                device_id="M009",
                timestamp=at(121),
                reason="SYNC_TIMEOUT",
            ),
        ),
        (SEND,),
    ),
    "the deadline of another stage": (FAILED, facts.timed_out(11, 121), FAILED, (), ()),
    "a restatement while waiting": (
        WAITING,
        facts.restate(30, "mobile_sync"),
        replace(WAITING, version=V),
        (MobileSyncStatus(**MOBILE_SYNC_STATUS, status=MobileSyncCode.WAITING, timestamp=at(0)),),
        (ScheduleTimeout(PLAN, EXAMINEE, at(120), 10), SEND),
    ),
    "a restatement of a failure": (
        FAILED,
        facts.restate(30, "mobile_sync"),
        replace(FAILED, version=V),
        (
            MobileSyncStatus(
                **MOBILE_SYNC_STATUS, status=MobileSyncCode.FAILED, device_id="M009", timestamp=at(0), reason="OLD"
            ),
        ),
        (ScheduleTimeout(PLAN, EXAMINEE, at(120), 10), SEND),
    ),
    "a restatement of a picture": (
        COMPLETED,
        facts.restate(30, "mobile_sync"),
        replace(COMPLETED, version=V),
        (MobileSyncCompleted(**ID, device_id="M001", timestamp=at(30), image_url=URL, version=V),),
        (SEND,),
    ),
    "a restatement of nothing": (
        MobileSyncState(),
        facts.restate(30, "mobile_sync"),
        MobileSyncState(),
        (),
        (),
    ),
}


@pytest.mark.parametrize("name", list(MOBILE_SYNC_CASES))
def test_the_outcome_of_a_fact_about_the_mobile_sync(name: str) -> None:
    before, fact, state, events, effects = MOBILE_SYNC_CASES[name]
    outcome = mobile_sync.apply(before, V, fact)
    assert outcome.state == state
    assert outcome.events == events
    assert outcome.effects == effects


def test_the_view_of_a_mobile_sync_has_all_fields() -> None:
    assert replace(FAILED, capture_id="a" * 64, captures=(REJECTED,), challenge="4711").view() == MobileSyncView(
        status="FAILED",
        device_id="M009",
        timestamp=at(0),
        reason="OLD",
        deadline=at(120),
        captures=[REJECTED.view()],
        review=ReviewView(capture_id="a" * 64, verdict="rejected", reason="BLURRED", by="S002"),
        challenge="4711",
        version=20,
    )
    assert COMPLETED.view().image_url == URL
    assert MobileSyncState().view() == MobileSyncView()


# -- notices -----------------------------------------------------------------------------------------------

OLD_NOTICE = RecordedNotice("a1", "Please look up.", "S001", at(1))
SENT = NoticesState(**ID, kept=(OLD_NOTICE,), sent=3, actions=("notice a1",), version=20)
CONFIRMED = replace(SENT, kept=(replace(OLD_NOTICE, confirmed_at=at(9)),))

NoticesCase = tuple[NoticesState, NoticeFact, NoticesState, tuple[Event, ...], tuple[Effect, ...]]
NOTICES_CASES: dict[str, NoticesCase] = {
    "a notice": (
        SENT,
        facts.notice("a2", "Show your desk.", 12, by="S002"),
        NoticesState(
            **ID,
            kept=(OLD_NOTICE, RecordedNotice("a2", "Show your desk.", "S002", at(12))),
            sent=4,
            actions=("notice a1", "notice a2"),
            version=V,
        ),
        (
            Notice(
                **ID,
                timestamp=at(12),
                action_id="a2",
                text="Show your desk.",
                by="S002",
                unconfirmed=["a1", "a2"],
                sent=4,
                version=V,
            ),
        ),
        (SendNotice(PLAN, EXAMINEE, "a2", V),),
    ),
    "a confirmation": (
        SENT,
        facts.notice_confirmed("a1", 9),
        replace(CONFIRMED, version=V),
        (NoticeConfirmed(**ID, timestamp=at(9), action_id="a1", by="S001", unconfirmed=[], sent=3, version=V),),
        (),
    ),
    "a repeated confirmation": (CONFIRMED, facts.notice_confirmed("a1", 12), CONFIRMED, (), ()),
    "a restatement of an unconfirmed notice": (
        SENT,
        facts.restate(30, "notices"),
        replace(SENT, version=V),
        (
            Notice(
                **ID,
                timestamp=at(1),
                action_id="a1",
                text="Please look up.",
                by="S001",
                unconfirmed=["a1"],
                sent=3,
                restated=True,
                version=V,
            ),
        ),
        (SendNotice(PLAN, EXAMINEE, "a1", V),),
    ),
    "a restatement of a confirmed notice": (
        CONFIRMED,
        facts.restate(30, "notices"),
        replace(CONFIRMED, version=V),
        (
            NoticeConfirmed(
                **ID,
                timestamp=at(9),
                action_id="a1",
                by="S001",
                unconfirmed=[],
                sent=3,
                restated=True,
                version=V,
            ),
        ),
        (),
    ),
}


@pytest.mark.parametrize("name", list(NOTICES_CASES))
def test_the_outcome_of_a_fact_about_notices(name: str) -> None:
    before, fact, state, events, effects = NOTICES_CASES[name]
    outcome = notices.apply(before, V, fact)
    assert outcome.state == state
    assert outcome.events == events
    assert outcome.effects == effects


def test_the_views_of_notices_have_all_fields() -> None:
    assert CONFIRMED.kept[0].view() == NoticeView(
        action_id="a1", text="Please look up.", by="S001", sent_at=at(1), confirmed_at=at(9)
    )
    assert SENT.open() == [OLD_NOTICE.view()]
    assert CONFIRMED.open() == []
    assert SENT.view() == NoticesView(unconfirmed=["a1"], sent=3, version=20)
    assert NoticesState().view() == NoticesView()


# -- a socket server ---------------------------------------------------------------------------------------

READY_SERVER = ServerState(
    server_id="SOCK001",
    server_type="OTHER",
    status=ServerStatusCode.READY,
    incarnation="i1",
    start_time=at(-9),
    queue_id="old_Q",
    cpu_usage=0.5,
    memory_usage=0.6,
    network_status="SLOW",
    url="ws://old",
    reason="old",
    version=20,
)
NEWS = ServerStatus(
    server_id="SOCK001",
    server_type="SOCKET",
    status=ServerStatusCode.STARTING,
    incarnation="i2",
    start_time=at(0),
    timestamp=at(1),
    queue_id="new_Q",
    cpu_usage=0.0,
    memory_usage=0.0,
    network_status="BAD",
    url="ws://new",
)
ALL_NEW = ServerState(
    server_id="SOCK001",
    server_type="SOCKET",
    status=ServerStatusCode.STARTING,
    incarnation="i2",
    start_time=at(0),
    queue_id="new_Q",
    cpu_usage=0.0,
    memory_usage=0.0,
    network_status="BAD",
    url="ws://new",
    version=V,
)
SAME_PROCESS = NEWS.model_copy(update={"status": ServerStatusCode.READY, "incarnation": "i1", "reason": "new"})


@pytest.mark.parametrize(
    ("before", "fact", "state", "effects"),
    [
        (READY_SERVER, NEWS, ALL_NEW, (EndSessions("SOCK001", "SERVER_RESTARTED", at(1), V),)),
        (replace(READY_SERVER, incarnation="i2"), NEWS, ALL_NEW, ()),
        (
            READY_SERVER,
            SAME_PROCESS,
            replace(
                READY_SERVER,
                queue_id="new_Q",
                cpu_usage=0.0,
                memory_usage=0.0,
                network_status="BAD",
                url="ws://new",
                reason="new",
                version=V,
            ),
            (),
        ),
        (
            READY_SERVER,
            facts.server(ServerStatusCode.LOST, second=1),
            replace(READY_SERVER, status=ServerStatusCode.LOST, reason=None, version=V),
            (EndSessions("SOCK001", "SERVER_LOST", at(1), V),),
        ),
        (
            READY_SERVER,
            facts.server(ServerStatusCode.FAILED, second=1, reason="SUBSCRIBE_FAILED"),
            replace(READY_SERVER, status=ServerStatusCode.FAILED, reason="SUBSCRIBE_FAILED", version=V),
            (EndSessions("SOCK001", "SERVER_STOPPED", at(1), V),),
        ),
        (
            ServerState(),
            facts.server(ServerStatusCode.READY, second=1),
            ServerState(
                server_id="SOCK001", status=ServerStatusCode.READY, incarnation="i1", start_time=at(0), version=V
            ),
            (),
        ),
    ],
)
def test_the_outcome_of_a_server_status(
    before: ServerState, fact: ServerStatus, state: ServerState, effects: tuple[Effect, ...]
) -> None:
    outcome = socket_server.apply(before, V, fact)
    assert (outcome.state, outcome.events, outcome.effects) == (state, (), effects)


def test_what_readers_see_of_a_record() -> None:
    assert mobile_sync.visible_part(COMPLETED) == (MobileSyncCode.COMPLETED, "a" * 64, at(120), (), None)
    assert notices.visible_part(SENT) == (3, ("a1",), (), None)
    assert socket_server.visible_part(READY_SERVER) == (ServerStatusCode.READY, "i1")
