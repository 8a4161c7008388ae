from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

import pytest

from actors.runtime.actor.actor import Actor, on
from actors.runtime.actor.supervisor import ChildSpec, Intensity, Restart, Supervisor
from protocol.errors import RoleFailed
from tests.unit.support.waiting import until

QUICK = Intensity(restarts=3, period=60, backoff=0.001, backoff_max=0.004)


@dataclass(frozen=True)
class Fail:
    error: Exception


class Diary(list[str]):
    """What the actors of a test did, in order."""


class Worker(Actor):
    kind = "worker"

    def __init__(self, name: str, diary: Diary) -> None:
        super().__init__(name)
        self.diary = diary
        self.start_error: Exception | None = None
        self.stop_error: Exception | None = None

    async def on_start(self) -> None:
        if self.start_error is not None:
            self.diary.append(f"{self.address} does not start")
            raise self.start_error
        self.diary.append(f"{self.address} starts")

    async def on_stop(self) -> None:
        self.diary.append(f"{self.address} stops")
        if self.stop_error is not None:
            raise self.stop_error

    @on(Fail)
    async def fail(self, message: Fail) -> None:
        raise message.error


@pytest.fixture
def diary() -> Diary:
    return Diary()


def child(supervisor: Supervisor, name: str) -> Worker:
    actor = supervisor.children[name]
    assert isinstance(actor, Worker)
    return actor


def spec(name: str, diary: Diary, restart: Restart = "permanent") -> ChildSpec[Worker]:
    return ChildSpec(name, lambda: Worker(name, diary), restart)


async def test_children_start_in_order_and_stop_in_reverse(diary: Diary) -> None:
    supervisor = Supervisor("s")
    for name in ("a", "b", "c"):
        await supervisor.start_child(spec(name, diary))
    await supervisor.stop()
    assert diary == ["a starts", "b starts", "c starts", "c stops", "b stops", "a stops"]
    await supervisor.wait()


async def test_stopping_twice_is_harmless(diary: Diary) -> None:
    supervisor = Supervisor("s")
    await supervisor.start_child(spec("a", diary))
    await asyncio.gather(supervisor.stop(), supervisor.stop())
    await supervisor.stop()
    assert diary == ["a starts", "a stops"]


async def test_the_other_children_stop_when_one_fails_to_stop(diary: Diary) -> None:
    supervisor = Supervisor("s")
    await supervisor.start_child(spec("a", diary))
    worker = await supervisor.start_child(spec("b", diary))
    assert isinstance(worker, Worker)
    worker.stop_error = RuntimeError("stuck")
    await supervisor.stop()
    assert diary[-2:] == ["b stops", "a stops"]


async def test_a_failed_child_is_restarted_and_its_siblings_are_not(diary: Diary) -> None:
    supervisor = Supervisor("s", QUICK)
    siblings = [await supervisor.start_child(spec(name, diary)) for name in ("a", "c")]
    failing = await supervisor.start_child(spec("b", diary))
    failing.tell(Fail(RuntimeError("boom")))
    await until(lambda: diary.count("b starts") == 2)
    await until(lambda: supervisor.children["b"].restarts == 1)
    assert diary == ["a starts", "c starts", "b starts", "b stops", "b starts"]
    assert [supervisor.children["a"], supervisor.children["c"]] == siblings
    assert supervisor.children["b"] is not failing
    assert supervisor.children["b"].last_error == "RuntimeError: boom"
    assert [sibling.restarts for sibling in siblings] == [0, 0]
    await supervisor.stop()


async def test_the_wait_before_a_restart_doubles_up_to_a_limit(diary: Diary) -> None:
    supervisor = Supervisor("s", Intensity(restarts=4, period=60, backoff=0.02, backoff_max=0.05))
    await supervisor.start_child(spec("a", diary))
    delays: list[float] = []
    for restart in range(1, 5):
        began = time.monotonic()
        child(supervisor, "a").tell(Fail(RuntimeError("boom")))
        await until(lambda expected=restart: diary.count("a starts") == expected + 1)  # type: ignore[misc]
        await until(lambda: "a" in supervisor.children and supervisor.children["a"].running)
        delays.append(time.monotonic() - began)
    assert [wait >= least for wait, least in zip(delays, (0.02, 0.04, 0.05, 0.05), strict=True)] == [True] * 4
    await supervisor.stop()


async def test_more_failures_than_the_intensity_allows_raise_role_failed(diary: Diary) -> None:
    supervisor = Supervisor("the role", QUICK)
    sibling = await supervisor.start_child(spec("a", diary))
    await supervisor.start_child(spec("b", diary))
    waiting = asyncio.create_task(supervisor.wait())
    for number in range(4):
        await until(lambda: "b" in supervisor.children and supervisor.children["b"].running)
        child(supervisor, "b").tell(Fail(RuntimeError(f"boom {number}")))
        await until(lambda expected=number: diary.count("b stops") == expected + 1)  # type: ignore[misc]
    with pytest.raises(RoleFailed, match=r"the role: b failed 4 times within 60 s, last with RuntimeError: boom 3"):
        await asyncio.wait_for(waiting, 20)
    assert sibling.running, "what to do with the rest is the role's to decide"
    assert diary.count("b starts") == 4
    await supervisor.stop()
    assert diary[-1] == "a stops"


async def test_failures_far_apart_do_not_escalate(diary: Diary) -> None:
    supervisor = Supervisor("s", Intensity(restarts=1, period=0.02, backoff=0.001, backoff_max=0.001))
    await supervisor.start_child(spec("a", diary))
    for number in range(1, 4):
        child(supervisor, "a").tell(Fail(RuntimeError("boom")))
        await until(lambda expected=number: diary.count("a starts") == expected + 1)  # type: ignore[misc]
        restarted = time.monotonic()
        await until(lambda start=restarted: time.monotonic() - start > 0.03)  # type: ignore[misc]
    assert supervisor.children["a"].restarts == 3
    await supervisor.stop()
    await supervisor.wait()


async def test_an_error_of_the_first_start_is_raised_and_there_is_no_restart(diary: Diary) -> None:
    def factory() -> Worker:
        worker = Worker("a", diary)
        worker.start_error = RuntimeError("no port")
        return worker

    supervisor = Supervisor("s", QUICK)
    with pytest.raises(RuntimeError, match="no port"):
        await supervisor.start_child(ChildSpec("a", factory))
    assert diary == ["a does not start"]
    await supervisor.stop()
    assert diary == ["a does not start", "a stops"], "what it had acquired is released"


async def test_a_restart_that_fails_counts_as_one_more_failure(diary: Diary) -> None:
    workers: list[Worker] = []

    def factory() -> Worker:
        worker = Worker("a", diary)
        worker.start_error = RuntimeError("no port") if workers else None
        workers.append(worker)
        return worker

    supervisor = Supervisor("s", QUICK)
    (await supervisor.start_child(ChildSpec("a", factory))).tell(Fail(RuntimeError("boom")))
    with pytest.raises(RoleFailed, match="no port"):
        await asyncio.wait_for(supervisor.wait(), 2)
    assert len(workers) == 1 + QUICK.restarts
    await supervisor.stop()


async def test_a_temporary_child_is_not_restarted(diary: Diary) -> None:
    supervisor = Supervisor("s", QUICK)
    worker = await supervisor.start_child(spec("a", diary, "temporary"))
    worker.tell(Fail(RuntimeError("boom")))
    await until(lambda: "a stops" in diary)
    assert "a" not in supervisor.children
    await supervisor.stop()
    assert diary == ["a starts", "a stops"]


async def test_a_transient_child_is_restarted_unless_it_raises_role_failed(diary: Diary) -> None:
    supervisor = Supervisor("s", QUICK)
    await supervisor.start_child(spec("a", diary, "transient"))
    child(supervisor, "a").tell(Fail(RuntimeError("boom")))
    await until(lambda: diary.count("a starts") == 2 and supervisor.children["a"].running)
    child(supervisor, "a").tell(Fail(RoleFailed("queue could not be created")))
    with pytest.raises(RoleFailed, match="queue could not be created"):
        await asyncio.wait_for(supervisor.wait(), 1)
    assert diary.count("a starts") == 2
    await supervisor.stop()


async def test_stopping_while_a_child_waits_for_its_restart_leaves_nothing_behind(diary: Diary) -> None:
    supervisor = Supervisor("s", Intensity(backoff=30, backoff_max=30))
    (await supervisor.start_child(spec("a", diary))).tell(Fail(RuntimeError("boom")))
    await until(lambda: "a stops" in diary)
    async with asyncio.timeout(20):
        await supervisor.stop()
    await until(lambda: not [task for task in asyncio.all_tasks() if task.get_name().startswith("restart:")])
    assert diary == ["a starts", "a stops"]


async def test_a_child_that_fails_to_stop_is_restarted(diary: Diary) -> None:
    """NATS away: the actor fails, and withdrawing its presence fails too."""
    supervisor = Supervisor("s", QUICK)
    worker = await supervisor.start_child(spec("a", diary))
    assert isinstance(worker, Worker)
    worker.stop_error = RuntimeError("stuck")
    worker.tell(Fail(RuntimeError("boom")))
    await until(lambda: worker.failed)
    (restart,) = [task for task in asyncio.all_tasks() if task.get_name() == "restart:a"]
    await asyncio.wait({restart}, timeout=20)
    await supervisor.stop()
    assert restart.exception() is None
    assert diary.count("a starts") == 2


async def test_a_child_that_has_just_failed_is_released_when_the_supervisor_stops(diary: Diary) -> None:
    supervisor = Supervisor("s", QUICK)
    worker = await supervisor.start_child(spec("a", diary))
    worker.tell(Fail(RuntimeError("boom")))
    await until(lambda: worker.failed)
    await supervisor.stop()
    assert diary == ["a starts", "a stops"]


async def test_a_restarted_child_keeps_its_place_in_the_order(diary: Diary) -> None:
    supervisor = Supervisor("s", QUICK)
    await supervisor.start_child(spec("a", diary))
    await supervisor.start_child(spec("b uses a", diary))
    child(supervisor, "a").tell(Fail(RuntimeError("boom")))
    await until(lambda: diary.count("a starts") == 2 and supervisor.children["a"].running)
    await supervisor.stop()
    assert diary[-2:] == ["b uses a stops", "a stops"]


async def test_failures_of_a_child_stay_counted_after_its_restarts(diary: Diary) -> None:
    workers: list[Worker] = []

    def factory() -> Worker:
        worker = Worker("a", diary)
        worker.start_error = RuntimeError("no port") if len(workers) == 1 else None
        workers.append(worker)
        return worker

    supervisor = Supervisor("s", QUICK)
    (await supervisor.start_child(ChildSpec("a", factory))).tell(Fail(ValueError("boom")))
    await until(lambda: len(workers) == 3 and workers[2].running)
    inspection = supervisor.children["a"].inspection()
    assert (inspection.restarts, inspection.failed, inspection.last_error) == (2, 2, "RuntimeError: no port")
    assert inspection.last_error_at is not None
    assert inspection.last_error_at <= inspection.since
    await supervisor.stop()


async def test_a_restarted_child_shows_the_failures_of_its_predecessor_from_its_start_on(diary: Diary) -> None:
    """It is announced while it starts, so it can be inspected before it runs."""
    inspections: list[tuple[int, str | None]] = []

    class Announced(Worker):
        async def on_start(self) -> None:
            await super().on_start()
            inspections.append((self.inspection().restarts, self.inspection().last_error))

    supervisor = Supervisor("s", QUICK)
    (await supervisor.start_child(ChildSpec("a", lambda: Announced("a", diary)))).tell(Fail(ValueError("boom")))
    await until(lambda: len(inspections) == 2)
    assert inspections == [(0, None), (1, "ValueError: boom")]
    await supervisor.stop()
