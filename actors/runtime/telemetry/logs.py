"""Logging of a process: to stderr, as text or JSON, one event a line, without secrets.

Plain `logging`. An event about an examinee, a socket or a version names them by `extra` (`FIELDS`); both formats show
them. The formatter masks secrets in the finished line and its traceback, so lines of libraries are masked too.
"""

from __future__ import annotations

import asyncio
import json
import logging
import sys
import threading
import warnings
from collections import Counter
from types import TracebackType
from typing import Any, Literal, TextIO

from actors.runtime.config.masking import masked
from protocol.texts import escape, escape_json
from protocol.times import format_time

FIELDS = ("plan", "examinee", "socket", "server", "version", "reason", "stream", "sequence")
"""The attributes of a log record (`extra=`) that both formats show."""

Level = Literal["debug", "info", "warning", "error"]
Format = Literal["text", "json"]


class _Formatter(logging.Formatter):
    """The part that both formats share."""

    def __init__(self, role: str, name: str) -> None:
        super().__init__()
        self._role = role
        self._name = name

    def text_of(self, record: logging.LogRecord) -> str:
        return masked(_without_frames(record).getMessage())

    def trouble_of(self, record: logging.LogRecord) -> str | None:
        """Return the traceback, and the stack when `stack_info` asks for it."""
        parts = [self.formatException(record.exc_info)] if record.exc_info and record.exc_info[0] else []
        parts += [self.formatStack(record.stack_info)] if record.stack_info else []
        return masked("\n".join(parts)) if parts else None


class TextFormatter(_Formatter):
    """`2026-01-05 09:00:00,123 WARNING SOCK001 examwire.clients: what happened [plan=P001 examinee=E001]`"""

    def format(self, record: logging.LogRecord) -> str:
        about = " ".join(f"{name}={masked(str(value))}" for name, value in _fields(record).items())
        text = f"{self.text_of(record)} [{about}]" if about else self.text_of(record)
        # Control characters in the message are escaped: it stays one line.
        line = f"{self.formatTime(record)} {record.levelname:<7} {self._name} {record.name}: {escape(text)}"
        trouble = self.trouble_of(record)
        return f"{line}\n{escape(trouble, lines=True)}" if trouble else line


class JsonFormatter(_Formatter):
    """One object a line: `time` (RFC 3339), `level`, `logger`, `message`, `role`, `name`, the fields, `traceback`."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": format_time(record.created),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": self.text_of(record),
            "role": self._role,
            "name": self._name,
        }
        for name, value in _fields(record).items():
            line[name] = value if isinstance(value, int) else masked(str(value))
        if (trouble := self.trouble_of(record)) is not None:
            line["traceback"] = trouble
        return escape_json(json.dumps(line, ensure_ascii=False))


def configure_logging(role: str, name: str, level: Level, form: Format = "text") -> None:
    """Log to stderr; `name` distinguishes this process from others of its role. May be called again."""
    handler = _Handler(sys.stderr)
    handler.setFormatter(JsonFormatter(role, name) if form == "json" else TextFormatter(role, name))
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    # Each of them logs every connection; `LogSummary` counts connections and logs one line a second.
    for library in ("websockets", "uvicorn"):
        logging.getLogger(library).setLevel(logging.DEBUG if level == "debug" else logging.WARNING)
    # Python would print these in several lines, and without masking.
    sys.excepthook = _log_uncaught
    threading.excepthook = _log_uncaught_in_thread
    sys.unraisablehook = _log_unraisable
    warnings.showwarning = _log_warning


def logs_json() -> bool:
    """Return whether this process logs JSON: then nothing else may be written to stderr."""
    return any(isinstance(handler.formatter, JsonFormatter) for handler in logging.getLogger().handlers)


def log_last_words(text: str) -> None:
    """Write a line before the process is ended, also when a thread that hangs holds the lock of the log."""
    record = logging.makeLogRecord({"name": "examwire", "levelname": "CRITICAL", "msg": text})
    for handler in logging.getLogger().handlers:
        print(handler.format(record), file=sys.stderr, flush=True)


class _Handler(logging.StreamHandler[TextIO]):
    """Logs a record of a library that cannot be formatted as a line, too; Python would print a traceback."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - of the library
        error = sys.exception()
        if isinstance(error, OSError):
            return  # stderr takes nothing
        text = f"a log record cannot be formatted ({error}): {record.msg!r} with {record.args!r}"
        about = {"name": record.name, "levelname": record.levelname, "msg": "%s", "args": (text,)}
        self.stream.write(self.format(logging.makeLogRecord(about)) + self.terminator)
        self.flush()


def _log_uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, error, trace)
        return
    logging.getLogger("examwire").critical("the process ends", exc_info=(kind, error, trace))


def _log_uncaught_in_thread(hook: threading.ExceptHookArgs) -> None:
    if hook.exc_value is not None:
        trouble = (hook.exc_type, hook.exc_value, hook.exc_traceback)
        logging.getLogger("examwire").error("a thread ended: %s", hook.thread, exc_info=trouble)


def _log_unraisable(unraisable: sys.UnraisableHookArgs) -> None:
    error = unraisable.exc_value
    trouble = (type(error), error, unraisable.exc_traceback) if error is not None else None
    text = unraisable.err_msg or "Exception ignored in"  # Python's words
    logging.getLogger("examwire").error("%s: %r", text, unraisable.object, exc_info=trouble)


def _log_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: object = None,
    line: object = None,
) -> None:
    logging.getLogger("py.warnings").warning("%s:%d: %s: %s", filename, lineno, category.__name__, message)


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    attributes = vars(record)
    return {name: attributes[name] for name in FIELDS if attributes.get(name) is not None}


def _without_frames(record: logging.LogRecord) -> logging.LogRecord:
    """Replace frames by their size: websockets logs parts of them at DEBUG, and masking needs a whole token."""
    if not record.name.startswith("websockets") or not isinstance(record.args, tuple):
        return record
    args = tuple(_frame(arg) if type(arg).__module__ == "websockets.frames" else arg for arg in record.args)
    copy = logging.makeLogRecord(vars(record))
    copy.args = args
    return copy


def _frame(frame: Any) -> str:
    return f"{frame.opcode.name} [{len(frame.data)} bytes]"


class LogSummary:
    """Counts events that may come by the thousand, and logs one line a second while they do.

    `count("ended", "PING_TIMEOUT")` ends up as `1 s: ended 3998 (SOCKET_CLOSED 3990, PING_TIMEOUT 8)`.
    """

    def __init__(self, log: logging.Logger, who: str, **fields: str) -> None:
        self._log = log
        self._who = who
        self._fields = fields
        self._counts: dict[str, Counter[str]] = {}

    def count(self, what: str, kind: str = "") -> None:
        """Count one event. Needs a running event loop."""
        if not self._counts:
            asyncio.get_running_loop().call_later(1.0, self._log_counts)
        self._counts.setdefault(what, Counter())[kind] += 1

    def _log_counts(self) -> None:
        parts = []
        for what, kinds in self._counts.items():
            named = ", ".join(f"{kind} {count}" for kind, count in kinds.most_common() if kind)
            parts.append(f"{what} {kinds.total()}" + (f" ({named})" if named else ""))
        self._counts = {}
        self._log.info("%s: within 1 s: %s", self._who, "; ".join(parts), extra=self._fields)
