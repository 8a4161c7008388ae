"""Run functions in forked processes: each has the parent's memory, and none can change it."""

from __future__ import annotations

import mmap
import os
import pickle
import resource
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from enum import StrEnum
from typing import TypeVar

T = TypeVar("T")

MEMORY = 4 << 30
"""Bytes of address space that a job may use: a mutant can make a loop that fills the memory."""


class Outcome(StrEnum):
    """How the tests of a mutant ended: one failed, one took far too long, or all passed."""

    KILLED = "killed"
    TIMED_OUT = "timed out"
    SURVIVED = "survived"


def call(function: Callable[[], T]) -> T:
    """Call a function in a forked process and return its result, which is pickled."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reader)

        def send() -> int:
            with open(writer, "wb") as pipe:
                pickle.dump(function(), pipe)
            return 0

        _leave(send)
    os.close(writer)
    with open(reader, "rb") as pipe:
        pickled = pipe.read()
    _, status = os.waitpid(pid, 0)
    if status != 0:
        raise SystemExit(f"a forked process ended with status {os.waitstatus_to_exitcode(status)}")
    result: T = pickle.loads(pickled)
    return result


def run_jobs(
    jobs: Sequence[Callable[[], bool]], width: int, report: Callable[[int, Outcome], None] = lambda *_: None
) -> list[Outcome]:
    """Run each job in a forked process without output, `width` at a time. A job returns whether its tests passed.

    `report` is called with the place of a job and its outcome when the job ends.
    """
    outcomes = dict[int, Outcome]()
    running = dict[int, int]()

    def reap() -> None:
        pid, status = os.wait()
        place = running.pop(pid)
        outcomes[place] = _outcome(os.waitstatus_to_exitcode(status))
        report(place, outcomes[place])

    for place, job in enumerate(jobs):
        if len(running) == width:
            reap()
        pid = os.fork()
        if pid == 0:
            be_quiet()
            resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
            _leave(lambda job=job: 0 if job() else 1)  # type: ignore[misc]
        running[pid] = place
    while running:
        reap()
    return [outcomes[place] for place in range(len(jobs))]


class Counter:
    """A number that a process and its forks share. Two that count at the same moment may count once."""

    def __init__(self, memory: mmap.mmap, place: int) -> None:
        self._memory = memory
        self._bytes = slice(4 * place, 4 * place + 4)

    @property
    def value(self) -> int:
        return int.from_bytes(self._memory[self._bytes], "little")

    @value.setter
    def value(self, value: int) -> None:
        self._memory[self._bytes] = value.to_bytes(4, "little")


def shared_counters(number: int) -> list[Counter]:
    memory = mmap.mmap(-1, 4 * number)
    return [Counter(memory, place) for place in range(number)]


def be_quiet() -> None:
    """Throw away what this process prints."""
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 1)
        os.dup2(nowhere.fileno(), 2)


def limit(cpu_seconds: float) -> None:
    """End this process when it goes on for far longer than a test that needs `cpu_seconds`."""
    signal.setitimer(signal.ITIMER_VIRTUAL, 2 + 5 * cpu_seconds)
    signal.alarm(60 + round(20 * cpu_seconds))


def _outcome(exit_code: int) -> Outcome:
    match exit_code:
        case 0:
            return Outcome.SURVIVED
        case 1:
            return Outcome.KILLED
        case code if code < 0:
            return Outcome.TIMED_OUT
    raise SystemExit(f"a job ended with exit code {exit_code}")


def _leave(function: Callable[[], int]) -> None:
    """End this process with the function's exit code; 70 after an exception."""
    code = 70
    try:
        code = function()
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
