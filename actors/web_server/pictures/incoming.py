"""Receive a picture: write its bytes to a temporary file and hash them until it is complete."""

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
"""An upload takes minutes; an older unfinished file belongs to a process that was killed."""


class StoreFailed(ExamwireError):
    """The file system or the bucket cannot store the picture (full, read only, not permitted, ...)."""


class Incoming:
    """An upload: written to a temporary file and hashed. End it with `discard`. All methods block.

    `now`: the clock for the file's age; the clocks of machines that share the directory may differ.

    Example::

        incoming = Incoming(uploads, "P001", "E001")
        incoming.write(content)
        incoming.move_to(directory / f"{incoming.capture_id}.jpg")
    """

    def __init__(self, directory: Path, plan_id: str, examinee_id: str, now: Callable[[], float] = time.time) -> None:
        """Create the temporary file in `directory`. Raises `StoreFailed`."""
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
        """The SHA-256 (hex) of the bytes received so far; a conversion does not change it."""
        return self._digest.hexdigest()

    def write(self, content: bytes) -> None:
        """Append received bytes. Raises `StoreFailed`."""
        self._digest.update(content)
        with store_errors(self._aside):
            self._file.write(content)
            self._touch()

    def replace(self, jpeg: bytes) -> None:
        """Replace the received bytes by a JPEG; the captureId stays. Raises `StoreFailed`."""
        with store_errors(self._aside):
            self._file.seek(0)
            self._file.truncate()
            self._file.write(jpeg)
            self._touch()

    def content(self) -> bytes:
        """Return the content of the temporary file. Raises `StoreFailed`."""
        with store_errors(self._aside):
            self._file.seek(0)
            self._touch()
            return self._file.read()

    def move_to(self, target: Path) -> None:
        """Sync the temporary file and rename it to `target`, in one step. Raises `StoreFailed`."""
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
        """Remove the temporary file; no effect after `move_to`. Never raises: the caller cannot mend anything."""
        with suppress(OSError):  # what could not be flushed is about to be removed
            self._file.close()
        with suppress(OSError):  # a later sweep takes what cannot be removed now
            self._aside.unlink(missing_ok=True)


@contextmanager
def store_errors(path: Path) -> Iterator[None]:
    """Raise an `OSError` of the context as `StoreFailed`."""
    try:
        yield
    except OSError as error:
        raise StoreFailed(f"{path}: {error.strerror or error}") from error


def delete_files_older(directory: Path, before: float) -> int:
    """Delete the unfinished uploads that are older than `before` (seconds since the epoch). Return how many.

    Raises `StoreFailed`.
    """
    removed = 0
    with store_errors(directory):
        for path in directory.rglob(".upload-*.part"):
            with suppress(FileNotFoundError):  # another web server has removed it meanwhile
                if path.stat().st_mtime < before:
                    path.unlink()
                    removed += 1
    return removed
