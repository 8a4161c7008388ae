"""Standard streams that a command can write to whatever they are: full, closed, or of an encoding without Korean."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from typing import TextIO

from protocol.errors import ExamwireError


class OutputFailed(ExamwireError):
    """stdout cannot be written to: its disk is full, for example."""


class OutputClosed(ExamwireError):
    """The reader of stdout has seen enough, as `| head` does. This is no failure of the command."""


def prepare_streams() -> None:
    """Replace stdout and stderr of this process.

    Writing to stdout raises `OutputClosed` or `OutputFailed`, and never an `OSError`; what stderr cannot take is
    dropped. Characters that the encoding does not have are written as escapes. A stream that is closed is like
    /dev/null: without that, the next file or socket would get its number.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest free number: this one
    sys.stdout = _Stdout(1, sys.stdout)
    sys.stderr = _Stderr(2, sys.stderr)


class _Stream(io.TextIOWrapper):
    """A stream on a file number, with the encoding that Python has chosen for it."""

    def __init__(self, number: int, replaced: TextIO | None) -> None:
        super().__init__(
            io.BufferedWriter(io.FileIO(number, "w", closefd=False)),
            encoding=replaced.encoding if replaced is not None else "utf-8",
            errors="backslashreplace",
            line_buffering=isinstance(replaced, io.TextIOWrapper) and replaced.line_buffering,
        )

    def write(self, text: str, /) -> int:
        try:
            return super().write(text)
        except OSError as error:
            self._fail(error)
            return len(text)

    def flush(self) -> None:
        try:
            super().flush()
        except OSError as error:
            self._fail(error)

    def _fail(self, error: OSError) -> None:
        """Write what is still in the buffer, and what follows, to nowhere."""
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self.fileno())
        os.close(nowhere)


class _Stdout(_Stream):
    def _fail(self, error: OSError) -> None:
        super()._fail(error)
        if isinstance(error, BrokenPipeError):
            raise OutputClosed("the reader of the output has gone") from None
        raise OutputFailed(f"the output cannot be written: {error.strerror}") from None


class _Stderr(_Stream):
    """Nobody can be told that the place for errors takes none."""


def can_write_everything(stream: TextIO) -> bool:
    """Return whether a stream has every character: its encoding is one of Unicode."""
    with contextlib.suppress(LookupError):
        return (stream.encoding or "utf-8").lower().startswith("utf")
    return False
