"""Standard streams that a command can write to whatever they are: full, closed, or of an encoding without Korean."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from typing import TYPE_CHECKING, TextIO

from protocol.errors import ExamwireError

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer


class OutputFailed(ExamwireError):
    """stdout cannot be written to: its disk is full, for example."""


class OutputClosed(ExamwireError):
    """The reader of stdout has seen enough, as `| head` does. This is no failure of the command."""


def prepare_streams() -> None:
    """Replace stdout and stderr of this process, and what is closed of the standard streams.

    Writing to stdout raises `OutputClosed` or `OutputFailed`, and never an `OSError`; what stderr cannot take is
    dropped. Characters that the encoding does not have are written as escapes. A stream that is closed is like
    /dev/null: without that, the next file or socket would get its number.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest free number: this one
    if sys.stdin is None:
        sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115 - as long as the process
    sys.stdout = _text_stream(_Stdout(1, "w", closefd=False), sys.stdout)
    sys.stderr = _text_stream(_Stderr(2, "w", closefd=False), sys.stderr)


def _text_stream(file: io.FileIO, replaced: TextIO | None) -> TextIO:
    """Return a stream that writes to a file, with the encoding that Python has chosen for the one it replaces."""
    return io.TextIOWrapper(
        io.BufferedWriter(file),
        encoding=replaced.encoding if replaced is not None else "utf-8",
        errors="backslashreplace",
        line_buffering=isinstance(replaced, io.TextIOWrapper) and replaced.line_buffering,
    )


class _Stdout(io.FileIO):
    def write(self, content: ReadableBuffer, /) -> int | None:  # type: ignore[override]  # so it is in typeshed, too
        try:
            return super().write(content)
        except BrokenPipeError:
            _discard(self)
            raise OutputClosed("the reader of the output has gone") from None
        except OSError as error:
            _discard(self)
            raise OutputFailed(f"the output cannot be written: {error.strerror}") from None


class _Stderr(io.FileIO):
    def write(self, content: ReadableBuffer, /) -> int | None:  # type: ignore[override]  # so it is in typeshed, too
        try:
            return super().write(content)
        except OSError:  # nobody can be told that the place for errors takes none
            _discard(self)
            return super().write(content)


def _discard(file: io.FileIO) -> None:
    """Let what is still buffered for a file, and what follows, go to /dev/null."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, file.fileno())
    os.close(nowhere)


def can_write_everything(stream: TextIO) -> bool:
    """Return whether a stream has every character: its encoding is one of Unicode."""
    with contextlib.suppress(LookupError):
        return (stream.encoding or "utf-8").lower().startswith("utf")
    return False
