"""Child processes of `examwire up`: roles and embedded engines. Each can be restarted.

On Linux the kernel ends them with their parent, even after SIGKILL; elsewhere the next `up` ends the remaining ones
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
import time
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

READY_SECONDS = 15.0
"""So often `up` says that a role is not ready. A role that cannot become ready ends by itself."""
STOP_SECONDS = 25.0  # a role drains for 20 s at most
ENGINE_STOP_SECONDS = 10.0

# Loaded early, as loading a library between fork and exec is not safe.
_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None


def _die_at_once_with(parent: int) -> Callable[[], None]:
    """Return a function for a child before exec: have Linux kill the child when `up` (pid `parent`) ends.

    SIGKILL, because the engines end at the same moment: a drain would wait for a broker that is gone, and block the
    ports that the next `up` needs. The next start repairs what was left undone.
    """

    def arrange() -> None:
        if _LIBC is not None:
            _LIBC.prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
            if os.getppid() != parent:
                os._exit(1)

    return arrange


class Child(ABC):
    """A child process that can be started again after it has ended."""

    def __init__(self, name: str) -> None:
        self.name = name

    @property
    @abstractmethod
    def pid(self) -> int | None:
        """The pid of the process, `None` before the first start."""

    @abstractmethod
    async def start(self) -> None:
        """Start the process and return when it is ready. Raises `RoleFailed`."""

    @abstractmethod
    async def ended(self) -> str:
        """Wait until the process has ended; return its exit code or signal as text."""

    @abstractmethod
    async def stop(self) -> None:
        """Send SIGTERM, and SIGKILL after a deadline. Does nothing when the process does not run."""

    @abstractmethod
    def kill(self) -> None:
        """Send SIGKILL."""

    def give_way(self) -> None:  # noqa: B027 - only roles with a serverId need it
        """From now on, start only if no other process runs with the same name."""


class RoleProcess(Child):
    """A process `examwire run ROLE ...`, with its ready line in `ready`. It logs to our stderr.

    `ports` maps a key of the ready line, which holds a port or a URL, to the variable of the port's setting: the port
    of the first start is used again at each restart, because clients and proxies know it.

    Example::

        role = RoleProcess("SOCK001", ["socket-server", "--server-id", "SOCK001"], environment)
        await role.start()
        print(role.ready["url"])
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
        """Return the port in a field of the ready line."""
        value = self.ready[key]
        return value if isinstance(value, int) else urlsplit(value).port or 0

    async def start(self) -> None:
        # -P: do not import a folder `cli` or `protocol` of the current directory.
        command = [sys.executable, "-P", "-m", "cli.main", "run", *self._arguments, "--json"]
        self._process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            env={**os.environ, **self._environment},
            start_new_session=True,  # Ctrl-C reaches only `up`, which stops the roles in order
            preexec_fn=_die_at_once_with(os.getpid()),
        )
        assert self._process.stdout is not None
        began = time.monotonic()
        reading = asyncio.ensure_future(self._process.stdout.readline())
        try:
            while not (await asyncio.wait({reading}, timeout=READY_SECONDS))[0]:
                text = "%s is not ready after %.0f s; what it waits for is above"
                log.warning(text, self.name, time.monotonic() - began)
        finally:
            reading.cancel()
        line = reading.result()
        if not line:
            end = await self.ended()
            if end == SUPERSEDED_END:
                raise RoleSuperseded(
                    f"{self.name}: another process runs under its name; the reason is above, on stderr"
                )
            raise RoleFailed(f"{self.name} ended with {end} before it was ready; the reason is above, on stderr")
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
        """Read stdout and log it: a full pipe would block the role."""
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
            with contextlib.suppress(ProcessLookupError):  # it has just ended by itself
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
    """An embedded engine. Blocking calls run in a thread of its own.

    The thread lives as long as the engine, because Linux ends a child together with the thread that started it.
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
        self.engine.stopping.set()  # the thread may wait for its start
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
