"""`examwire up` as a process, and what belongs to it."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import psutil

T = TypeVar("T")
READY_SECONDS = 90.0


def eventually(condition: Callable[[], T], description: str, seconds: float = 30.0) -> T:
    """Poll until `condition` returns something true, and return it."""
    deadline = time.monotonic() + seconds
    while not (result := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds} s: {description}")
        time.sleep(0.05)
    return result


class Up:
    """One `examwire up`."""

    def __init__(self, data_dir: Path, *arguments: str, **variables: str) -> None:
        self.data_dir = data_dir
        self.stderr_path = data_dir.with_name(f"{data_dir.name}.stderr")
        with self.stderr_path.open("ab") as stderr:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "cli.main", "up", "--data-dir", str(data_dir), *arguments],
                stdout=subprocess.PIPE,
                stderr=stderr,
                env={**os.environ, **variables},
                start_new_session=True,
            )
        self.ready: dict[str, Any] = {}

    def first_line(self) -> str:
        assert self.process.stdout is not None
        readable, _, _ = select.select([self.process.stdout], [], [], READY_SECONDS)
        assert readable, f"no line on stdout within {READY_SECONDS} s; stderr: {self.stderr}"
        return self.process.stdout.readline().decode()

    def wait_ready(self) -> dict[str, Any]:
        line = self.first_line()
        assert line, f"ended with {self.ended()} before it was ready: {self.stderr}"
        self.ready = json.loads(line)
        return self.ready

    @property
    def stderr(self) -> str:
        return self.stderr_path.read_text()

    def pid_of(self, name: str) -> int:
        """The process of a role (`SOCK001`, `web-server`) or an engine (`nats-server`, `valkey-server`)."""
        (pid,) = [process.pid for process in left_of(self.data_dir) if name in role_and_name(process)]
        return int(pid)

    def end(self, number: signal.Signals) -> int:
        self.process.send_signal(number)
        return self.ended()

    def ended(self) -> int:
        """The exit code, waiting for it."""
        code = self.process.wait(timeout=60)
        if self.process.stdout is not None:
            self.process.stdout.close()
        return code


def left_of(data_dir: Path) -> list[Any]:
    """The living processes that have to do with a data directory: told of it, or (engines) at home in it."""
    processes = []
    for process in psutil.process_iter():
        try:
            words = [*process.cmdline(), process.environ().get("EXAMWIRE_DATA_DIR", ""), process.cwd()]
            if process.status() != psutil.STATUS_ZOMBIE and any(str(data_dir) in word for word in words):
                processes.append(process)
        except psutil.Error:
            continue  # it has ended meanwhile, or is not ours to look into
    return processes


def role_and_name(process: Any) -> list[str]:
    """What tells the processes of one `up` apart; `up` itself has none of these words as an argument."""
    try:
        return [Path(process.exe()).name, *process.cmdline()]
    except psutil.Error:  # it has ended since
        return []


@contextmanager
def running(data_dir: Path, *arguments: str, **variables: str) -> Iterator[Up]:
    """An `up` that is ready; whatever the test does, nothing stays."""
    up = Up(data_dir, "--json", *arguments, **variables)
    try:
        up.wait_ready()
        yield up
    finally:
        if up.process.poll() is None:
            up.end(signal.SIGTERM)
        for process in left_of(data_dir):
            process.kill()
