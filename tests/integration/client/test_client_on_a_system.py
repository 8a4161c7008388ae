"""The typed Python clients on a whole system: what they and the proctors see."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable

import pytest

from actors.client.client import ConnectRefused, GaveUp
from actors.client.examinee import ExamineeClient
from actors.client.proctor import ProctorClient
from actors.runtime.broker.connection import Bus, Outgoing
from actors.runtime.config.settings import Settings
from protocol.broker import subjects
from protocol.client.exam_clock import ExamPhase
from protocol.close_codes import CloseCode
from protocol.messages.facts import FinishReason, MobileSyncCode, MobileSyncStatus
from protocol.messages.frames import (
    Accepted,
    Welcome,
)
from protocol.messages.plan_facts import PlanClose, PlanFact, PlanOpen, PlanSchedule
from protocol.messages.proctor_events import (
    ExamineeConnected,
    ExamineeDisconnected,
    ExamineeFinished,
    ExamineeReadmitted,
    ExamineeReconnectExhausted,
)
from protocol.messages.session_messages import SessionState
from protocol.times import format_time
from tests.integration.support.clients.typed_clients import SECONDS, next_of
from tests.integration.support.settings import changed
from tests.integration.support.system import System, eventually

SHORT = pytest.mark.parametrize("ladder", [[0.8, 0.8]], ids=["short"])


@pytest.fixture
def ladder() -> list[float]:
    """Seconds of the attempts: time enough to come back on a busy machine. Who is to be shut out has `SHORT`."""
    return [0.5, 8.0]


@pytest.fixture
async def system(bus: Bus, settings: Settings, ladder: list[float]) -> AsyncIterator[System]:
    """A system that is quick to notice silence and gives two attempts."""
    quick = changed(
        settings,
        {
            "reconnect.max_attempts": 2,
            "reconnect.backoff_seconds": ladder,
            "reconnect.jitter": 0.1,
            "socket.ping_interval_seconds": 0.3,
            "socket.ping_timeout_seconds": 0.3,
        },
    )
    async with System(quick) as system:
        yield system
        assert system.failures == []


def examinee_of(system: System, server_id: str = "SOCK001", examinee_id: str = "E001") -> ExamineeClient:
    return ExamineeClient(system.server(server_id).url, system.token("examinee", examinee_id))


async def proctor_of(system: System, server_id: str = "SOCK001", name: str = "T1") -> ProctorClient:
    proctor = ProctorClient(system.server(server_id).url, system.token("proctor", name))
    await proctor.connect()
    async with asyncio.timeout(SECONDS):
        while not proctor.view.complete:
            await proctor.receive()
    return proctor


async def test_an_aborted_examinee_reconnects_and_proctors_of_both_servers_see_it(system: System) -> None:
    proctors = [await proctor_of(system, "SOCK001", "T1"), await proctor_of(system, "SOCK002", "T2")]
    examinee = examinee_of(system)
    await examinee.connect()
    assert (await next_of(examinee, SessionState)).reconnect.count == 0
    examinee.abort()
    assert (await next_of(examinee, SessionState)).reconnect.count == 1
    for proctor in proctors:
        assert not (await next_of(proctor, ExamineeConnected)).recovered
        assert (await next_of(proctor, ExamineeDisconnected)).reason == "SOCKET_CLOSED"
        assert (await next_of(proctor, ExamineeConnected)).recovered
        assert (proctor.view.connected(), proctor.view.doubled, proctor.view.late) == ({"E001"}, 0, 0)
        await proctor.close()
    await examinee.close()


async def test_a_silent_examinee_is_lost_by_ping_timeout_and_returns_when_it_wakes(system: System) -> None:
    proctor, examinee = await proctor_of(system, "SOCK002"), examinee_of(system)
    await examinee.connect()
    await next_of(examinee, SessionState)
    examinee.fall_silent()
    assert (await next_of(proctor, ExamineeDisconnected)).reason == "PING_TIMEOUT"
    examinee.wake()
    await next_of(examinee, SessionState)
    assert (await next_of(proctor, ExamineeConnected)).recovered
    await examinee.close()
    await proctor.close()


async def test_a_newer_client_replaces_the_older_which_does_not_reconnect(system: System) -> None:
    proctor, old, new = await proctor_of(system), examinee_of(system), examinee_of(system, "SOCK002")
    await old.connect()
    await next_of(old, SessionState)
    await new.connect()
    with pytest.raises(GaveUp, match="4503"):
        await next_of(old, Welcome)
    await next_of(proctor, ExamineeConnected)
    assert (await next_of(proctor, ExamineeConnected)).replaced is not None
    await new.close()
    await proctor.close()


@SHORT
async def test_past_the_limit_the_examinee_is_refused_until_a_proctor_readmits(system: System) -> None:
    proctor, examinee = await proctor_of(system, "SOCK002"), examinee_of(system)
    await examinee.connect()
    await next_of(examinee, SessionState)
    examinee.abort()  # and nobody receives, so it does not come back
    await next_of(proctor, ExamineeReconnectExhausted)
    assert proctor.view.examinees["E001"].exhausted
    await examinee.close()
    await examinee.connect()
    with pytest.raises(GaveUp, match="4504"):
        await next_of(examinee, SessionState)
    request_id = await proctor.readmit("E001")
    assert (await next_of(proctor, Accepted)).request_id == request_id
    if proctor.view.examinees["E001"].exhausted:
        await next_of(proctor, ExamineeReadmitted)
    await examinee.connect()
    await next_of(examinee, SessionState)
    await examinee.close()
    await proctor.close()


async def test_mobile_sync_is_sent_to_the_examinee_and_the_proctor(system: System) -> None:
    proctor, examinee = await proctor_of(system), examinee_of(system)
    await examinee.connect()
    await next_of(examinee, SessionState)
    await examinee.enter_mobile_sync()
    assert (await next_of(examinee, MobileSyncStatus)).status is MobileSyncCode.WAITING
    assert examinee.mobile_sync.status == "WAITING"
    assert (await next_of(proctor, MobileSyncStatus)).examinee_id == "E001"
    assert proctor.view.examinees["E001"].mobile_sync == "WAITING"
    await examinee.close()
    await proctor.close()


async def test_examinees_of_a_stopping_server_move_to_the_other(system: System) -> None:
    examinee = examinee_of(system, "SOCK001")

    async def knows_both() -> bool:
        await examinee.close()
        return len((await examinee.connect()).endpoints) == 2

    await eventually(knows_both, "a welcome with both endpoints")
    await next_of(examinee, SessionState)
    stopping = asyncio.create_task(system.stop("SOCK001"))
    assert (await next_of(examinee, Welcome)).server_id == "SOCK002"
    await next_of(examinee, SessionState)
    await stopping
    await examinee.close()


async def test_a_bad_token_is_refused_with_its_code(system: System) -> None:
    client = ExamineeClient(system.server("SOCK001").url, "no-token")
    with pytest.raises(ConnectRefused) as refused:
        await client.connect()
    assert refused.value.code == 4502


async def test_a_whole_exam_from_the_waiting_room_to_the_end(bus: Bus, system: System) -> None:
    proctor, examinee = await proctor_of(system), examinee_of(system, "SOCK002")
    await decide(bus, PlanSchedule, starts_at=soon(3600), ends_at=soon(7200))
    await examinee.connect()
    await until(examinee, lambda: examinee.exam.phase is ExamPhase.BEFORE)
    assert examinee.exam.seconds == pytest.approx(3600, abs=20)
    await decide(bus, PlanOpen)
    await until(examinee, lambda: examinee.exam.phase is ExamPhase.RUNNING)
    request_id = await examinee.finish()
    assert (await next_of(examinee, Accepted)).request_id == request_id
    await until(examinee, lambda: examinee.finished)
    examinee.abort()
    assert (await next_of(examinee, SessionState)).connection.status == "FINISHED"
    assert (await next_of(proctor, ExamineeFinished)).reason is FinishReason.HANDED_IN
    await proctor.resume("E001")
    await until(examinee, lambda: not examinee.finished)
    await decide(bus, PlanClose)
    with pytest.raises(GaveUp) as raised:
        await until(examinee, lambda: False)
    assert raised.value.step.code == CloseCode.EXAM_OVER
    assert examinee.exam.phase is ExamPhase.OVER
    await proctor.close()


async def until(client: ExamineeClient, holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(SECONDS):
        while not holds():
            await client.receive()


async def decide(bus: Bus, fact: type[PlanFact], **fields: str) -> None:
    message = fact(plan_id="P001", by="operator", timestamp=format_time(bus.clock.now()), **fields)
    await bus.publish_until_stored([Outgoing.of(subjects.status_plan("P001", subjects.OPERATOR), message)])


def soon(seconds: float) -> str:
    return format_time(time.time() + seconds)
