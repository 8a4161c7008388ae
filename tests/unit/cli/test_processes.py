"""Supervised child processes: kept, given up, stopped in order; a data directory is one process's alone."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from actors.runtime.actor.supervisor import Intensity
from cli.local.data_dir import DataDirLock
from cli.local.process_supervisor import ProcessSupervisor, SupersededBackoff
from cli.local.processes import Child
from protocol.errors import RoleFailed, RoleSuperseded

EAGER = Intensity(restarts=3, period=60.0, backoff=0.001, backoff_max=0.001)


class FakeChild(Child):
    """A process made of an event; `broken` starts from now on fail."""

    def __init__(self, name: str, journal: list[str]) -> None:
        super().__init__(name)
        self.journal = journal
        self.starts = 0
        self.broken = False
        self.started = asyncio.Event()
        self._dead = asyncio.Event()
        self._how = ""

    @property
    def pid(self) -> int | None:
        return None

    async def start(self) -> None:
        await asyncio.sleep(0)
        self.starts += 1
        if self.broken:
            raise RoleFailed(f"{self.name} is broken")
        self._dead = asyncio.Event()
        self.started.set()
        self.journal.append(f"start {self.name}")

    async def ended(self) -> str:
        await self._dead.wait()
        return self._how

    def die(self, code: int = 1) -> None:
        self._how = f"exit code {code}"
        self.started.clear()
        self._dead.set()

    async def stop(self) -> None:
        self.journal.append(f"stop {self.name}")

    def kill(self) -> None:
        self.journal.append(f"kill {self.name}")


@pytest.fixture
async def keeper() -> ProcessSupervisor:
    return ProcessSupervisor(EAGER, lambda children: None)


async def test_a_child_that_dies_is_started_again_and_its_siblings_are_left_alone(keeper: ProcessSupervisor) -> None:
    journal: list[str] = []
    child, sibling = FakeChild("one", journal), FakeChild("other", journal)
    await keeper.start(child, sibling)
    child.die()
    await asyncio.wait_for(child.started.wait(), 5)
    assert (child.starts, sibling.starts) == (2, 1)
    await keeper.stop([child, sibling])


async def test_a_child_that_keeps_dying_is_given_up(keeper: ProcessSupervisor) -> None:
    child = FakeChild("state-manager", [])
    await keeper.start(child)
    for _ in range(EAGER.restarts):
        child.die()
        await asyncio.wait_for(child.started.wait(), 5)
    child.die()
    with pytest.raises(RoleFailed, match="state-manager ended 4 times within 60 s, at last: exit code 1"):
        await asyncio.wait_for(keeper.wait(), 5)
    await keeper.stop([child])


async def test_a_child_that_ends_in_good_order_is_started_again_however_often(keeper: ProcessSupervisor) -> None:
    """A rolling restart, again and again: each drained server ends with 0."""
    child = FakeChild("SOCK001", [])
    await keeper.start(child)
    for _ in range(2 * EAGER.restarts):
        child.die(code=0)
        await asyncio.wait_for(child.started.wait(), 5)
    for _ in range(EAGER.restarts):
        child.die()
        await asyncio.wait_for(child.started.wait(), 5)
    assert child.starts == 1 + 3 * EAGER.restarts
    child.die()
    with pytest.raises(RoleFailed, match="SOCK001 ended 4 times"):
        await asyncio.wait_for(keeper.wait(), 5)
    await keeper.stop([child])


async def test_a_child_that_cannot_start_again_is_given_up_with_its_reason(keeper: ProcessSupervisor) -> None:
    child = FakeChild("web-server", [])
    await keeper.start(child)
    child.broken = True
    child.die()
    with pytest.raises(RoleFailed, match="web-server is broken"):
        await asyncio.wait_for(keeper.wait(), 5)
    assert child.starts == 1 + EAGER.restarts
    await keeper.stop([child])


async def test_the_first_start_is_not_tried_again(keeper: ProcessSupervisor) -> None:
    good, bad = FakeChild("good", []), FakeChild("bad", [])
    bad.broken = True
    with pytest.raises(RoleFailed, match="bad is broken"):
        await keeper.start(good, bad)
    assert bad.starts == 1
    await keeper.stop([good, bad])


async def test_children_are_stopped_group_after_group_and_not_started_again(keeper: ProcessSupervisor) -> None:
    journal: list[str] = []
    engine, server, web = (FakeChild(name, journal) for name in ("engine", "server", "web"))
    await keeper.start(engine)
    await keeper.start(server, web)
    server.die()
    await keeper.stop([web], [server], [engine])
    assert journal[-3:] == ["stop web", "stop server", "stop engine"]
    await asyncio.sleep(0.01)  # longer than the backoff
    assert server.starts == 1


# -- the data directory ---------------------------------------------------------------------------------


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    """A process that would stay."""
    process = subprocess.Popen(["sleep", "600"])
    yield process
    process.kill()
    process.wait()


def test_a_data_directory_is_refused_while_another_process_has_it(tmp_path: Path) -> None:
    claim = DataDirLock(tmp_path)
    claim.record([])
    with pytest.raises(RoleFailed, match=rf"another `examwire up` \(pid {os.getpid()}\) is using"):
        DataDirLock(tmp_path)
    claim.release()
    DataDirLock(tmp_path).release()


def test_children_that_an_up_left_behind_are_ended(tmp_path: Path, sleeper: subprocess.Popen[bytes]) -> None:
    saved = {"pid": 1, "children": [[sleeper.pid, psutil.Process(sleeper.pid).create_time()]]}
    (tmp_path / "up.lock").write_text(json.dumps(saved))
    DataDirLock(tmp_path).release()
    assert sleeper.wait(timeout=20) == -15


def test_a_process_that_has_the_pid_of_a_former_child_is_spared(
    tmp_path: Path, sleeper: subprocess.Popen[bytes]
) -> None:
    (tmp_path / "up.lock").write_text(json.dumps({"pid": 1, "children": [[sleeper.pid, 1.5]]}))
    DataDirLock(tmp_path).release()
    assert sleeper.poll() is None


def test_half_a_lock_file_is_no_obstacle(tmp_path: Path) -> None:
    (tmp_path / "up.lock").write_text('{"pid": 12, "chil')
    DataDirLock(tmp_path).release()


class Rivalled(FakeChild):
    """A child whose name another process has."""

    def __init__(self, name: str, journal: list[str]) -> None:
        super().__init__(name, journal)
        self.gives_way = False

    def give_way(self) -> None:
        self.gives_way = True

    async def start(self) -> None:
        if self.broken:
            self.starts += 1
            raise RoleSuperseded(f"{self.name} is held by another process")
        await super().start()


async def test_a_superseded_child_stays_down_and_does_not_make_its_keeper_give_up() -> None:
    child = Rivalled("SOCK001", [])
    delays: list[float] = []
    keeper = ProcessSupervisor(EAGER, lambda _: None, SupersededBackoff(0.001, 0.004))
    sleep = asyncio.sleep

    async def slept(seconds: float) -> None:
        if seconds > 0:
            delays.append(seconds)
        await sleep(0)

    await keeper.start(child)
    assert not child.gives_way
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("cli.local.process_supervisor.asyncio.sleep", slept)
        child.broken = True
        child.die(6)
        while child.starts < 8:  # more often than a keeper lets a child fail
            await sleep(0)
        assert child.gives_way
        child.broken = False
        await child.started.wait()
    assert delays[:5] == [0.001, 0.002, 0.004, 0.004, 0.004]
    assert not keeper._gave_up.done()
    await keeper.stop([child])
    await keeper.stop([child])  # harmless
