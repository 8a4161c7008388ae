"""What is counted, and by which labels; without a network."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass

import pytest
from prometheus_client import Metric

import actors.queue_server.metrics
import actors.state_manager.manager
import actors.state_manager.metrics
import actors.web_server.metrics
from actors.runtime.actor.actor import Actor, on
from actors.runtime.actor.registry import ACTORS, ActorRegistry
from actors.runtime.actor.supervisor import ChildSpec, Intensity, Supervisor
from actors.runtime.role.probes import _lag
from actors.runtime.telemetry.metrics import REGISTRY
from actors.sessions.metrics import count_close, observe_told
from actors.state_manager.metrics import count_told
from protocol.broker.passed_on import PlanEvent
from protocol.messages.facts import LossReason
from protocol.messages.proctor_events import ExamineeConnected, ExamineeDisconnected, ExamineeMigrating
from protocol.times import format_time
from tests.support.metrics import sample
from tests.unit.support.waiting import until

NOW = "2024-01-01T09:15:00.000Z"
ABOUT = {"plan_id": "P001", "examinee_id": "E001", "socket_id": "SOCK001-1", "timestamp": NOW}

# Whatever may be told apart. None of them names, or could ever name, an examinee, a plan or a socket.
LABELS = {
    *("client", "code", "consumer", "engine", "event", "found", "kind", "le", "method", "outcome", "reason", "route"),
    *("stage", "status", "step", "stream"),
    *("implementation", "major", "minor", "patchlevel", "version"),
}


@dataclass(frozen=True)
class Job:
    go: asyncio.Event | None = None


@dataclass(frozen=True)
class Broken:
    pass


class Worker(Actor):
    """Does a job when it may."""

    kind = "metered-worker"
    mailbox_capacity = 10

    @on(Job)
    async def work(self, job: Job) -> None:
        if job.go is not None:
            await job.go.wait()

    @on(Broken)
    def breaks(self, _message: Broken) -> None:
        raise RuntimeError("as told")


def families() -> Mapping[str, Metric]:
    return {family.name: family for family in REGISTRY.collect()}


# -- actors ---------------------------------------------------------------------------------------------


async def test_handled_messages_are_counted_by_kind_and_outlive_their_actor() -> None:
    kind = {"kind": Worker.kind}
    workers = [Worker(f"worker.{number}") for number in range(3)]
    handled_before = sample("examwire_actor_handled_messages_total", **kind)
    go = asyncio.Event()
    for worker in workers:
        await worker.start()
    for _ in range(6):
        workers[0].tell(Job(go))
    workers[1].tell(Job())
    await until(lambda: workers[1].handled == 1 and len(workers[0].mailbox) == 5)
    assert sample("examwire_actors", **kind) == 3
    assert sample("examwire_actor_mailbox_messages", **kind) == 5
    assert sample("examwire_actor_mailbox_fill_ratio", **kind) == 0.5  # of the fullest, not of all
    go.set()
    await until(lambda: workers[0].handled == 6)
    for worker in workers:
        await worker.stop()
        await worker.stop()  # counts once
    assert sample("examwire_actors", **kind) == 0
    assert sample("examwire_actor_handled_messages_total", **kind) - handled_before == 7


async def test_an_actor_that_nobody_stopped_is_not_kept_alive() -> None:
    registry = ActorRegistry()
    worker = Worker("worker.1")
    registry.add(worker)
    assert registry.running(Worker.kind) == [worker]
    del worker
    assert registry.running(Worker.kind) == []


async def test_an_actor_that_never_started_leaves_no_trace() -> None:
    worker = Worker("worker.1")
    await worker.stop()
    assert worker not in ACTORS.running(Worker.kind)


async def test_failures_and_restarts_count_by_kind_and_begin_at_zero() -> None:
    supervisor = Supervisor("role", Intensity(backoff=0.001))
    first = await supervisor.start_child(ChildSpec("worker", lambda: Worker("worker.1")))
    names = ("examwire_actor_failures_total", "examwire_actor_restarts_total")
    before = [REGISTRY.get_sample_value(name, {"kind": Worker.kind}) for name in names]
    assert None not in before  # or their first event would be no increase
    first.tell(Broken())
    await until(lambda: supervisor.children["worker"] is not first and supervisor.children["worker"].running)
    assert [sample(name, kind=Worker.kind) for name in names] == [(value or 0) + 1 for value in before]
    await supervisor.stop()


async def test_a_loop_that_stood_still_is_late() -> None:
    measuring = asyncio.create_task(_lag())
    count = sample("examwire_event_loop_lag_seconds_count")
    await until(lambda: sample("examwire_event_loop_lag_seconds_count") > count)
    over = sample("examwire_event_loop_lag_seconds_bucket", le="+Inf") - sample(
        "examwire_event_loop_lag_seconds_bucket", le="0.1"
    )
    time.sleep(0.4)  # noqa: ASYNC251 - this is the trouble that is measured
    await until(lambda: sample("examwire_event_loop_lag_max_seconds") >= 0.2)
    measuring.cancel()
    assert (
        sample("examwire_event_loop_lag_seconds_bucket", le="+Inf")
        - sample("examwire_event_loop_lag_seconds_bucket", le="0.1")
        > over
    )


# -- sockets and examinees ------------------------------------------------------------------------------


def test_a_code_of_a_client_s_own_choice_is_no_series_of_its_own() -> None:
    before = sample("examwire_socket_closes_total", code="other")
    count_close(4999)
    count_close(3000)
    assert sample("examwire_socket_closes_total", code="other") == before + 2
    assert REGISTRY.get_sample_value("examwire_socket_closes_total", {"code": "4999"}) is None
    closes = sample("examwire_socket_closes_total", code="1006")
    count_close(1006)
    assert sample("examwire_socket_closes_total", code="1006") == closes + 1


def test_the_latency_excludes_restated_events() -> None:
    name = "examwire_proctor_latency_seconds"
    counts = [sample(f"{name}_count", event=event) for event in ("loss", "connection")]
    total = sample(f"{name}_sum", event="loss")
    moment = time.time()

    def event(kind: str, seconds_ago: float = 0.0, **data: object) -> PlanEvent:
        return PlanEvent.of(
            {"type": kind, "data": {"timestamp": format_time(moment - seconds_ago), "version": 1, **data}}
        )

    observe_told(
        [
            event("examinee_disconnected", 0.2),
            event("examinee_disconnected", 300, restated=True),
            event("examinee_connected", 0.1),
            event("examinee_reconnecting", 1),
            event("examinee_disconnected", timestamp="soon"),
            event("examinee_disconnected", timestamp=None),
        ],
        moment,
    )
    assert [sample(f"{name}_count", event=event) for event in ("loss", "connection")] == [counts[0] + 1, counts[1] + 1]
    assert sample(f"{name}_sum", event="loss") - total == pytest.approx(0.2, abs=0.002)
    # A clock ahead of ours makes no negative time.
    observe_told([event("examinee_disconnected", -5)], moment)
    assert sample(f"{name}_sum", event="loss") - total == pytest.approx(0.2, abs=0.002)


def test_losses_and_recoveries_count_by_reason_but_not_restated_ones() -> None:
    def lost(reason: str | None, restated: bool | None = None) -> ExamineeDisconnected:
        return ExamineeDisconnected(**ABOUT, reason=reason, restated=restated, version=1)

    def counted() -> list[float]:
        return [
            sample("examwire_losses_total", reason="PING_TIMEOUT"),
            sample("examwire_losses_total", reason="other"),
            sample("examwire_recoveries_total", reason="PING_TIMEOUT"),
            sample("examwire_outage_seconds_sum"),
            *(sample("examwire_migrations_total", step=step) for step in ("sent", "arrived", "lost")),
        ]

    before = counted()
    recovery = ExamineeConnected(**ABOUT, recovered=True, recovered_from="PING_TIMEOUT", outage_seconds=12.5, version=3)
    count_told(
        [
            lost("PING_TIMEOUT"),
            lost("PING_TIMEOUT"),
            lost("PING_TIMEOUT", restated=True),
            lost("whatever somebody wrote E4711"),
            lost(LossReason.SERVER_DRAINING),
            recovery,
            ExamineeConnected(**ABOUT, version=4),
            ExamineeConnected(**ABOUT, migrated=True, outage_seconds=0.3, version=5),
            ExamineeMigrating(**ABOUT, version=6),
            ExamineeMigrating(**ABOUT, version=7),
        ]
    )
    assert [now - then for now, then in zip(counted(), before, strict=True)] == [2, 1, 1, 12.5, 2, 1, 1]


# -- names and labels -----------------------------------------------------------------------------------


def test_no_label_can_name_an_examinee() -> None:
    assert actors.queue_server.metrics.BROKER is not None  # every module that has metrics is loaded
    assert actors.state_manager.metrics.FACTS is not None
    assert actors.web_server.metrics.UPLOADS is not None
    used = {
        label for family in families().values() for family_sample in family.samples for label in family_sample.labels
    }
    assert used <= LABELS


def test_names_have_base_units_and_help() -> None:
    for name, family in families().items():
        assert name.startswith(("examwire_", "process_", "python_"))
        assert family.documentation
        assert not name.endswith(("_ms", "_milliseconds", "_kib", "_percent", "_mb"))
        if family.type == "histogram" and name != "examwire_state_batch_messages":
            assert name.endswith("_seconds"), name
