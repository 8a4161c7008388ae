"""Supervised child processes: the roles and the embedded engines of `examwire up`.

Each is started, watched, started again with backoff and on its old port when it dies, and stopped in order. On
Linux the kernel ends them with their parent, even after a kill -9; elsewhere the next `up` ends what is left
(`DataDirClaim`).
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import fcntl
import json
import logging
import os
import signal
import sys
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import psutil

from actors.runtime.supervision import Intensity
from cli.engines import Engine
from protocol.errors import RoleFailed

T = TypeVar("T")
log = logging.getLogger("examwire.children")

READY_SECONDS = 30.0
STOP_SECONDS = 25.0  # a role drains for 20 s at most
ENGINE_STOP_SECONDS = 10.0
ORPHAN_SECONDS = 10.0

# Loaded before any fork: between fork and exec nothing may be loaded safely.
_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None


def _die_at_once_with(parent: int) -> Callable[[], None]:
    """For a child before exec: be killed when `up` (pid `parent`) ends.

    SIGKILL, for the engines go at the same moment: a drain would wait for a broker that is not there, and hold the
    ports that the next `up` wants. What it leaves undone is what the next start-up makes good.
    """

    def arrange() -> None:
        if _LIBC is not None:
            _LIBC.prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
            if os.getppid() != parent:
                os._exit(1)

    return arrange


class Child(ABC):
    """A process that can be started again after it has ended."""

    def __init__(self, name: str) -> None:
        self.name = name

    @property
    @abstractmethod
    def pid(self) -> int | None:
        """Its process, if there is one."""

    @abstractmethod
    async def start(self) -> None:
        """Return when it is ready. Raises `RoleFailed`."""

    @abstractmethod
    async def ended(self) -> str:
        """Wait until it has ended; says how."""

    @abstractmethod
    async def stop(self) -> None:
        """SIGTERM, and SIGKILL after a deadline. Harmless when it is not running."""

    @abstractmethod
    def kill(self) -> None:
        """SIGKILL, now."""


class RoleProcess(Child):
    """`examwire run ROLE …` with its ready line in `ready`. Its logs go to our stderr.

    `ports` maps a key of the ready line that holds a URL to the setting of its port: what was picked at the first
    start is asked for at the next one, since clients know it by then.
    """

    def __init__(
        self,
        name: str,
        arguments: Sequence[str],
        environment: Mapping[str, str],
        ports: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(name)
        self.ready: dict[str, Any] = {}
        self._arguments = list(arguments)
        self._environment = dict(environment)
        self._ports = dict(ports or {})
        self._process: asyncio.subprocess.Process | None = None
        self._reading: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process is not None else None

    async def start(self) -> None:
        # -P: a folder `cli` or `protocol` where somebody happens to stand must not be taken for ours.
        command = [sys.executable, "-P", "-m", "cli.main", "run", *self._arguments, "--json"]
        self._process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            env={**os.environ, **self._environment},
            start_new_session=True,  # Ctrl-C is for `up`, which stops the roles in order
            preexec_fn=_die_at_once_with(os.getpid()),
        )
        assert self._process.stdout is not None
        try:
            line = await asyncio.wait_for(self._process.stdout.readline(), READY_SECONDS)
        except TimeoutError:
            await self.stop()
            raise RoleFailed(f"{self.name} was not ready within {READY_SECONDS:g} s; its log is on stderr") from None
        if not line:
            how = await self.ended()
            raise RoleFailed(f"{self.name} ended with {how} before it was ready; the reason is above, on stderr")
        try:
            self.ready = json.loads(line)
        except ValueError:
            await self.stop()
            raise RoleFailed(f"{self.name} began with {line[:200]!r} instead of its ready line") from None
        for key, setting in self._ports.items():
            if key in self.ready:
                self._environment[setting] = str(urlsplit(self.ready[key]).port)
        self._reading = asyncio.create_task(self._read_on(self._process.stdout), name=f"stdout:{self.name}")

    async def _read_on(self, stdout: asyncio.StreamReader) -> None:
        """Keep the pipe empty: a full one would block the role."""
        while line := await stdout.readline():
            log.info("%s: %s", self.name, line.decode(errors="replace").rstrip())

    async def ended(self) -> str:
        assert self._process is not None
        return _how(await self._process.wait())

    async def stop(self) -> None:
        process = self._process
        if process is None:
            return
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):  # it has ended by itself just now
                process.terminate()
            try:
                await asyncio.wait_for(process.wait(), STOP_SECONDS)
            except TimeoutError:
                log.warning("%s did not stop within %g s and is killed", self.name, STOP_SECONDS)
                self.kill()
                await process.wait()
        if self._reading is not None:
            await self._reading

    def kill(self) -> None:
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()


class EngineProcess(Child):
    """An embedded engine. What blocks runs in one thread of its own, in order.

    The thread lives until the engine has been stopped: to Linux, the parent that an engine dies with is the thread
    that started it.
    """

    def __init__(self, engine: Engine) -> None:
        super().__init__(engine.name)
        self.engine = engine
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=engine.name)

    @property
    def pid(self) -> int | None:
        return self.engine.pid

    async def start(self) -> None:
        await self._in_thread(self.engine.start)

    async def ended(self) -> str:
        process = self.engine.process
        assert process is not None
        while (code := process.poll()) is None:  # noqa: ASYNC110 - a Popen has nothing that could be awaited
            await asyncio.sleep(0.1)
        return _how(code)

    async def stop(self) -> None:
        await self._in_thread(lambda: self.engine.stop(ENGINE_STOP_SECONDS))
        self._thread.shutdown(wait=False)

    def kill(self) -> None:
        self.engine.kill()

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)


def _how(code: int) -> str:
    return f"exit code {code}" if code >= 0 else f"signal {signal.Signals(-code).name}"


GOOD_END = _how(0)


class Keeper:
    """Keeps children running. More than `intensity.restarts` within its period: `wait` raises `RoleFailed`.

    A child that has ended in good order (exit code 0) is started again as well; that is no failure and not counted.
    `on_change` is told whenever there are other processes than before.
    """

    def __init__(self, intensity: Intensity, on_change: Callable[[list[Child]], None]) -> None:
        self.intensity = intensity
        self.children: list[Child] = []
        self._on_change = on_change
        self._keeping: dict[Child, asyncio.Task[None]] = {}
        self._gave_up: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def start(self, *children: Child) -> None:
        """Start children at the same time, and keep them from then on. Raises the first `RoleFailed`."""
        self.children.extend(children)
        starting = [asyncio.create_task(self._start(child), name=f"start:{child.name}") for child in children]
        try:
            await asyncio.gather(*starting)
        finally:  # one has failed, or we are told to stop: the others need not go on
            for task in starting:
                task.cancel()
            await asyncio.gather(*starting, return_exceptions=True)

    async def _start(self, child: Child) -> None:
        try:
            await child.start()
        finally:
            self._on_change(self.children)
        self._keeping[child] = asyncio.create_task(self._keep(child), name=f"keep:{child.name}")

    async def _keep(self, child: Child) -> None:
        recent: deque[float] = deque()
        how = await child.ended()
        while True:
            if how == GOOD_END:  # somebody drained it, or asked it to end: a restart, and no failure
                log.warning("%s ended in good order and is started again", child.name)
            else:
                now = time.monotonic()
                recent.append(now)
                while recent[0] < now - self.intensity.period:
                    recent.popleft()
                if len(recent) > self.intensity.restarts:
                    times, period = len(recent), self.intensity.period
                    self._give_up(f"{child.name} ended {times} times within {period:g} s, at last: {how}")
                    return
                delay = min(self.intensity.backoff * 2 ** (len(recent) - 1), self.intensity.backoff_max)
                log.warning("%s ended (%s) and is started again in %.1f s", child.name, how, delay)
                await asyncio.sleep(delay)
            try:
                await child.start()
            except RoleFailed as error:
                how = str(error)
                continue
            finally:
                self._on_change(self.children)
            log.warning("%s is ready again", child.name)
            how = await child.ended()

    def _give_up(self, reason: str) -> None:
        if not self._gave_up.done():
            self._gave_up.set_exception(RoleFailed(reason))

    async def wait(self) -> None:
        """Until a child cannot be kept; raises `RoleFailed` saying which."""
        await asyncio.shield(self._gave_up)

    async def stop(self, *order: Sequence[Child]) -> None:
        """Stop keeping, and stop the children group after group; those of a group together."""
        for task in self._keeping.values():
            task.cancel()
        if self._keeping:
            await asyncio.wait(self._keeping.values())
        for group in order:
            await _all(child.stop() for child in group)
        if self._gave_up.done():
            self._gave_up.exception()  # told by `wait`, if anybody waited
        else:
            self._gave_up.cancel()

    def kill(self) -> None:
        """SIGKILL for all, in no order."""
        for child in self.children:
            child.kill()


async def _all(work: Any) -> None:
    """Await all, and only then raise what the first of them raised."""
    results = await asyncio.gather(*work, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result


class DataDirClaim:
    """The data directory is this process's alone: a lock that the kernel lifts when the process ends.

    The lock's file holds who we are and which children we have, for the `up` that comes after a kill -9.
    """

    def __init__(self, directory: Path) -> None:
        """Raises `RoleFailed` when another `up` has it."""
        directory.mkdir(parents=True, exist_ok=True)
        self._path = directory / "up.lock"
        self._file = self._path.open("a+")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = self._read().get("pid", "unknown")
            self._file.close()
            raise RoleFailed(
                f"another `examwire up` (pid {holder}) is using {directory}: stop it, or choose another --data-dir"
            ) from None
        self._end_orphans()

    def _read(self) -> dict[str, Any]:
        self._file.seek(0)
        try:
            read = json.loads(self._file.read())
        except ValueError:
            return {}  # empty, or its writer was killed while it wrote
        return read if isinstance(read, dict) else {}

    def record(self, children: Sequence[Child]) -> None:
        """Write down the processes that there are now."""
        alive = [identity for child in children if (identity := _identity(child.pid)) is not None]
        self._file.seek(0)
        self._file.truncate()
        self._file.write(json.dumps({"pid": os.getpid(), "children": alive}))
        self._file.flush()

    def _end_orphans(self) -> None:
        """Children of an `up` that was killed are about to end; they must not share its data with ours."""
        orphans = []
        for pid, created in self._read().get("children", []):
            with contextlib.suppress(psutil.NoSuchProcess):
                process = psutil.Process(pid)
                if process.create_time() == created and process.status() != psutil.STATUS_ZOMBIE:
                    process.terminate()
                    orphans.append(process)
        deadline = time.monotonic() + ORPHAN_SECONDS
        while orphans and time.monotonic() < deadline:
            orphans = [one for one in orphans if _alive(one)]
            time.sleep(0.02)
        for process in orphans:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()

    def release(self) -> None:
        """The file stays: removing it would let two processes lock two files of one name."""
        self._file.seek(0)
        self._file.truncate()
        self._file.close()


def _identity(pid: int | None) -> tuple[int, float] | None:
    """A pid alone may be somebody else's by now; with its creation time it is this process."""
    if pid is None:
        return None
    try:
        return pid, psutil.Process(pid).create_time()
    except psutil.NoSuchProcess:
        return None


def _alive(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
