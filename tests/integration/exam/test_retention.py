"""What is kept for too long is deleted by itself, and said so before."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress

import pytest

from actors.retention.purger import Purger
from actors.retention.retention import PASS_SECONDS, Retention
from actors.runtime.broker.connection import Bus, Outgoing
from actors.runtime.config.settings import Settings
from protocol.broker import subjects
from protocol.broker.streams import DAY
from protocol.errors import BrokerUnavailable
from protocol.messages.facts import Enrol
from protocol.messages.plan_facts import PlanClose
from protocol.records import keys
from protocol.times import format_time
from tests.integration.support.system import System, eventually
from tests.support.metrics import sample

Later = Callable[[float], None]


@pytest.fixture
def later(bus: Bus, monkeypatch: pytest.MonkeyPatch) -> Later:
    """Let the retention believe that so many days have passed."""

    def pass_days(days: float) -> None:
        monkeypatch.setattr(bus.clock, "now", lambda: time.time() + days * DAY)

    return pass_days


async def store_facts(bus: Bus, system: System, plan_id: str, *, closed: bool) -> None:
    """An enrolment; with `closed` also the end of the plan."""
    now = format_time(bus.clock.now())
    facts = [
        Enrol(plan_id=plan_id, examinee_id="E001", timestamp=now),
        PlanClose(plan_id=plan_id, by="kim", timestamp=now),
    ]
    address = subjects.status_plan(plan_id, subjects.OPERATOR)
    await bus.publish(Outgoing.of(address, *facts[: 1 + closed]))

    async def recorded() -> bool:
        record = await system.store.entries(keys.plan(plan_id) if closed else keys.progress(plan_id, "E001"))
        return record.get("status") == "CLOSED" or record.get("enrolled") == "1"

    await eventually(recorded, f"{plan_id} in Redis")


async def test_plans_are_announced_and_then_deleted_by_one_of_several(
    bus: Bus, system: System, settings: Settings, later: Later, caplog: pytest.LogCaptureFixture
) -> None:
    await store_facts(bus, system, "P001", closed=True)
    left = await system.examinee("E001", plan_id="P002")  # nobody has ever closed it
    left.abort()
    await system.status("E001", "DISCONNECTED", "P002")
    await store_facts(bus, system, "P004", closed=False)  # a roster, and nobody has come yet
    await store_facts(bus, system, "P003", closed=False)
    await system.examinee("E001", plan_id="P003")  # and here somebody still is
    await system.status("E001", "CONNECTED", "P003")
    retention = Retention(settings, bus, system.store, "q1")
    assert set((await retention.run_pass()).due) == {"P001"}
    assert "is deleted at" not in caplog.text
    later(24)
    await retention.run_pass()
    assert caplog.text.count("plan P001 is deleted at") == 1
    later(30.5)
    report = await retention.run_pass()
    assert (report.purged, set(report.due)) == (["P001"], {"P001", "P002"})
    assert (await Retention(settings, bus, system.store, "q2").run_pass()).due == {}, (
        "the other one did this hour's work"
    )
    later(30.5 + PASS_SECONDS / DAY)
    assert (await retention.run_pass()).purged == [], "it was announced an hour ago"
    later(32)
    assert (await retention.run_pass()).purged == ["P002"]
    assert await system.store.members(keys.PLANS) == ["P003", "P004"]


async def test_a_purge_that_died_is_finished(bus: Bus, system: System, settings: Settings, later: Later) -> None:
    await store_facts(bus, system, "P001", closed=True)
    with pytest.MonkeyPatch.context() as patched, suppress(InterruptedError):

        def die(*_: object) -> None:
            raise InterruptedError

        patched.setattr(Purger, "_pictures", die)
        await Purger(bus, system.store, "kim").purge("P001")
    later(0.1)
    await Retention(settings, bus, system.store, "q1").run_pass()
    newest = await bus.last_message("STATUS", "status.plan.P001.>")
    assert newest is not None
    assert b'"begins"' not in newest.payload


async def test_a_server_that_ended_long_ago_is_forgotten(
    bus: Bus, system: System, settings: Settings, later: Later
) -> None:
    await system.stop("SOCK002")
    await eventually(lambda: system.server_is("SOCK002", "STOPPED"), "SOCK002 has stopped")
    retention = Retention(settings, bus, system.store, "q1")
    later(40)
    assert (await retention.run_pass()).servers == [], "the log still has it"
    await bus.purge_stream("STATUS", subjects.status_server("SOCK002"))  # as its age does
    await bus.purge_stream("CHECKPOINT", subjects.RETENTION)
    assert (await retention.run_pass()).servers == ["SOCK002"]
    assert await system.store.members(keys.SERVERS) == ["SOCK001"]
    assert await system.store.raw_keys("SERVER_ID:SOCK002:*") == []


async def test_a_pass_that_fails_is_counted_and_ends_nothing(
    bus: Bus, system: System, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(_: Retention) -> None:
        raise BrokerUnavailable("NATS is away")

    monkeypatch.setattr(Retention, "run_pass", fail)
    before = sample("examwire_retention_failures_total")
    retention = await system.start("retention", lambda own: Retention(settings, own, system.store, "q1"))

    async def failed() -> bool:
        return sample("examwire_retention_failures_total") > before

    await eventually(failed, "the failure is counted")
    assert retention.running
