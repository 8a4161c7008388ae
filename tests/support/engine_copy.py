"""A copy of the data of an engine that runs, as a backup takes it."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path

import psutil

from tests.support.polling import wait_until


def copy_while_stopped(pid: int, source: Path, target: Path) -> None:
    """Copy a directory of an engine. The process stands still meanwhile, as it does for a snapshot of its disk.

    Otherwise a file that the engine writes and renames may vanish while it is copied.
    """
    os.kill(pid, signal.SIGSTOP)
    try:
        assert wait_until(lambda: psutil.Process(pid).status() == psutil.STATUS_STOPPED, 10)
        shutil.copytree(source, target)
    finally:
        os.kill(pid, signal.SIGCONT)
