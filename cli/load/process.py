"""Worker processes of a load run, which read commands and write events as JSON lines."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from protocol.errors import RoleFailed

READY_SECONDS = 60.0


class LoadProcess:
    """A worker process: `python -m module arguments`. Commands go to its stdin; `on_event` gets each line of stdout.

    When the process ends by itself, `on_event` gets `{"event": "ended", "code": ...}`.

    Example::

        process = LoadProcess("worker 1", "cli.load.workers", [kind, config], environment, on_event)
        await process.start()
        process.tell(do="check")
    """

    def __init__(
        self,
        name: str,
        module: str,
        arguments: Sequence[str],
        environment: Mapping[str, str],
        on_event: Callable[[LoadProcess, dict[str, Any]], None],
    ) -> None:
        self.name = name
        self._command = [sys.executable, "-P", "-m", module, *arguments]
        self._environment = dict(environment)
        self._on_event = on_event
        self._process: asyncio.subprocess.Process | None = None
        self._reading: asyncio.Task[None] | None = None
        self._ready: asyncio.Future[dict[str, Any]] | None = None
        self._wanted = True

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    async def start(self) -> dict[str, Any]:
        """Start the process, wait for its ready line, and return it. Raises `RoleFailed`."""
        # Created first, so that `stop` finds it after any failure.
        self._ready = asyncio.get_running_loop().create_future()
        self._process = await asyncio.create_subprocess_exec(
            *self._command,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env=self._environment,
            start_new_session=True,  # Ctrl-C reaches only `examwire load`; the end of stdin ends this process
            limit=2**24,
        )
        self._reading = asyncio.create_task(self._read(self._process), name=f"read:{self.name}")
        try:
            async with asyncio.timeout(READY_SECONDS):
                return await asyncio.shield(self._ready)
        except TimeoutError:
            raise RoleFailed(f"{self.name} was not ready within {READY_SECONDS:g} s; its log is on stderr") from None

    async def _read(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        assert self._ready is not None
        while line := await process.stdout.readline():
            event = json.loads(line)
            if event["event"] == "ready":
                self._ready.set_result(event)
            else:
                self._on_event(self, event)
        code = await process.wait()
        if not self._ready.done():
            self._ready.set_exception(RoleFailed(f"{self.name} ended with {code} before it was ready; see above"))
        elif self._wanted:
            self._on_event(self, {"event": "ended", "code": code})

    def tell(self, **command: Any) -> None:
        """Send a command to the process."""
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(command).encode() + b"\n")

    def kill(self) -> None:
        """Send SIGKILL: the kernel closes the sockets of the process at once."""
        self._wanted = False
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()

    async def stop(self) -> None:
        """Kill the process and wait until it has ended. Can be repeated."""
        self.kill()
        if self._reading is not None:
            await self._reading
        if self._ready is not None and self._ready.done() and not self._ready.cancelled():
            self._ready.exception()  # mark it as retrieved, in case nobody waits for it
