"""A picture while it arrives: bytes that are counted, hashed and kept in a file of their own until it is whole."""

from __future__ import annotations

import hashlib
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from protocol.errors import ExamwireError

STALE_SECONDS = 3600.0
"""An upload takes minutes; what is older and not finished belongs to a process that was killed."""


class StoreFailed(ExamwireError):
    """The file system or the bucket did not take the capture (full, read only, not permitted, ...)."""


class Incoming:
    """An upload on its way: written to a file aside, hashed as it comes. End it with `discard`. Everything blocks.

    `now`: the clock by which the file's age counts; those of the machines that share the directory may differ.
    """

    def __init__(self, directory: Path, plan_id: str, examinee_id: str, now: Callable[[], float] = time.time) -> None:
        """`directory`: where the file aside is. Raises `StoreFailed`."""
        self.plan_id = plan_id
        self.examinee_id = examinee_id
        self._now = now
        self._digest = hashlib.sha256()
        with store_errors(directory):
            directory.mkdir(parents=True, exist_ok=True)
            # Buffered on purpose: its lock makes a discard() wait for a write that is still going on in a thread.
            self._file = tempfile.NamedTemporaryFile(  # noqa: SIM115
                "w+b", dir=directory, prefix=".upload-", suffix=".part", delete=False
            )
            self._aside = Path(self._file.name)
            self._touch()

    @property
    def capture_id(self) -> str:
        """SHA-256 (hex) of what was received so far; a conversion does not change it."""
        return self._digest.hexdigest()

    def write(self, content: bytes) -> None:
        """Append. Raises `StoreFailed`."""
        self._digest.update(content)
        with store_errors(self._aside):
            self._file.write(content)
            self._touch()

    def replace(self, jpeg: bytes) -> None:
        """Keep this instead of what was received; the captureId stays. Raises `StoreFailed`."""
        with store_errors(self._aside):
            self._file.seek(0)
            self._file.truncate()
            self._file.write(jpeg)
            self._touch()

    def content(self) -> bytes:
        """What is in the file aside. Raises `StoreFailed`."""
        with store_errors(self._aside):
            self._file.seek(0)
            self._touch()
            return self._file.read()

    def move_to(self, target: Path) -> None:
        """Give the file its name, whole and for good. Raises `StoreFailed`."""
        with store_errors(target):
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
            self._touch()  # its age counts from here, not from when it came
            os.replace(self._aside, target)

    def _touch(self) -> None:
        moment = self._now()
        os.utime(self._aside, (moment, moment))

    def discard(self) -> None:
        """Remove the file aside; nothing happens after `move_to`. Raises nothing: there is nobody to act on it."""
        with suppress(OSError):  # what could not be flushed is about to be removed
            self._file.close()
        with suppress(OSError):  # a later sweep takes what cannot be removed now
            self._aside.unlink(missing_ok=True)


@contextmanager
def store_errors(path: Path) -> Iterator[None]:
    """Trouble with files as `StoreFailed`."""
    try:
        yield
    except OSError as error:
        raise StoreFailed(f"{path}: {error.strerror or error}") from error


def delete_files_older(directory: Path, before: float) -> int:
    removed = 0
    with store_errors(directory):
        for path in directory.rglob(".upload-*.part"):
            with suppress(FileNotFoundError):  # another web server on the same files was quicker
                if path.stat().st_mtime < before:
                    path.unlink()
                    removed += 1
    return removed
