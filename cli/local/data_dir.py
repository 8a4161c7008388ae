"""Lock the data directory for one `examwire up`, and end the children of one that was killed with SIGKILL."""

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

from actors.runtime.config.settings import make_data_dir
from cli.local.processes import Child
from protocol.errors import RoleFailed

ORPHAN_SECONDS = 10.0


class DataDirLock:
    """An exclusive lock on a data directory. The kernel releases it when the process ends.

    The lock file holds the pids of this process and its children, so that the next `up` can end children that
    survived a SIGKILL of their parent.

    Example::

        lock = DataDirLock(Path(".examwire"))
        lock.record(children)
        lock.release()
    """

    def __init__(self, directory: Path) -> None:
        """Take the lock. Raises `RoleFailed` when another `up` has it, `ConfigurationError` without a directory."""
        make_data_dir(directory)
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
            content = json.loads(self._path.read_text("utf-8"))
        except ValueError:
            return {}  # empty, or the writer was killed while writing
        return content if isinstance(content, dict) else {}

    def record(self, children: Sequence[Child]) -> None:
        """Write the pids of the running children to the lock file."""
        alive = [identity for child in children if (identity := _identity(child.pid)) is not None]
        self._path.write_text(json.dumps({"pid": os.getpid(), "children": alive}), "utf-8")

    def _end_orphans(self) -> None:
        """End children of a killed `up`, so that they do not use the data together with ours."""
        orphans = []
        for pid, created in self._read().get("children", []):
            with contextlib.suppress(psutil.NoSuchProcess):
                process = psutil.Process(pid)
                if process.create_time() == created and process.status() != psutil.STATUS_ZOMBIE:
                    process.terminate()
                    orphans.append(process)
        deadline = time.monotonic() + ORPHAN_SECONDS
        while orphans and time.monotonic() < deadline:
            orphans = [process for process in orphans if _alive(process)]
            time.sleep(0.02)
        for process in orphans:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()

    def release(self) -> None:
        """Release the lock. The file stays: without it, two processes could lock two files of the same name."""
        self._path.write_text("", "utf-8")
        self._lock.release()


def _identity(pid: int | None) -> tuple[int, float] | None:
    """Return pid and creation time, which identify a process even after its pid is reused."""
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
