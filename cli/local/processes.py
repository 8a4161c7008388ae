"""Child processes: the roles and the embedded engines of `examwire up`, each of which can be started again.

On Linux the kernel ends them with their parent, even after a kill -9; elsewhere the next `up` ends what is left
(`cli.local.data_dir`).
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import json
import logging
import os
import signal
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar
from urllib.parse import urlsplit

from actors.runtime.config.settings import variable_of
from cli.local.engines import Engine
from cli.shared.output import ExitCode
from protocol.errors import RoleFailed, RoleSuperseded

T = TypeVar("T")
log = logging.getLogger("examwire.children")

READY_SECONDS = 30.0
STOP_SECONDS = 25.0  # a role drains for 20 s at most
ENGINE_STOP_SECONDS = 10.0

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

    def give_way(self) -> None:  # noqa: B027 - most have no rivals
        """From now on start only when no other process does the same under the same name."""


class RoleProcess(Child):
    """`examwire run ROLE …` with its ready line in `ready`. Its logs go to our stderr.

    `ports` maps a key of the ready line that holds a port, or a URL with one, to the setting of the port: what was
    picked at the first start is asked for at the next one, since clients, or a proxy before it, know it by then.
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

    def port_of(self, key: str) -> int:
        """The port that the ready line tells under a key."""
        told = self.ready[key]
        return told if isinstance(told, int) else urlsplit(told).port or 0

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
            async with asyncio.timeout(READY_SECONDS):
                line = await self._process.stdout.readline()
        except TimeoutError:
            await self.stop()
            raise RoleFailed(f"{self.name} was not ready within {READY_SECONDS:g} s; its log is on stderr") from None
        if not line:
            how = await self.ended()
            if how == SUPERSEDED_END:
                raise RoleSuperseded(
                    f"{self.name}: another process runs under its name; the reason is above, on stderr"
                )
            raise RoleFailed(f"{self.name} ended with {how} before it was ready; the reason is above, on stderr")
        try:
            self.ready = json.loads(line)
        except ValueError:
            await self.stop()
            raise RoleFailed(f"{self.name} began with {line[:200]!r} instead of its ready line") from None
        for key, setting in self._ports.items():
            if key in self.ready:
                self._environment[setting] = str(self.port_of(key))
        self._reading = asyncio.create_task(self._read_on(self._process.stdout), name=f"stdout:{self.name}")

    async def _read_on(self, stdout: asyncio.StreamReader) -> None:
        """Keep the pipe empty: a full one would block the role."""
        while line := await stdout.readline():
            log.info("%s: %s", self.name, line.decode(errors="replace").rstrip())

    def give_way(self) -> None:
        self._environment[variable_of("server.takeover")] = "false"

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
                async with asyncio.timeout(STOP_SECONDS):
                    await process.wait()
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
SUPERSEDED_END = _how(ExitCode.SUPERSEDED)
