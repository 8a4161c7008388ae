"""The data directory belongs to one `examwire up` at a time, also after a kill -9."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil
from filelock import FileLock, Timeout

from cli.local.processes import Child
from protocol.errors import RoleFailed

ORPHAN_SECONDS = 10.0


class DataDirLock:
    """The data directory is this process's alone: a lock that the kernel lifts when the process ends.

    The lock's file holds who we are and which children we have, for the `up` that comes after a kill -9.
    """

    def __init__(self, directory: Path) -> None:
        """Raises `RoleFailed` when another `up` has it."""
        directory.mkdir(parents=True, exist_ok=True)
        self._path = directory / "up.lock"
        # The kernel's lock only: one that is a file by itself would outlive a process that was killed.
        self._lock = FileLock(self._path, blocking=False, fallback_to_soft=False, preserve_lock_file=True)
        try:
            self._lock.acquire()
        except Timeout:
            holder = self._read().get("pid", "unknown")
            raise RoleFailed(
                f"another `examwire up` (pid {holder}) is using {directory}: stop it, or choose another --data-dir"
            ) from None
        self._end_orphans()

    def _read(self) -> dict[str, Any]:
        try:
            read = json.loads(self._path.read_text())
        except ValueError:
            return {}  # empty, or its writer was killed while it wrote
        return read if isinstance(read, dict) else {}

    def record(self, children: Sequence[Child]) -> None:
        """Write down the processes that there are now."""
        alive = [identity for child in children if (identity := _identity(child.pid)) is not None]
        self._path.write_text(json.dumps({"pid": os.getpid(), "children": alive}))

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
        self._path.write_text("")
        self._lock.release()


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
