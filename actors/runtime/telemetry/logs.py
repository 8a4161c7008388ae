"""Logs of a process: on stderr, for people or as JSON, one event a line, and never a secret in it.

Plain `logging`: an event about an examinee, a socket or a version names them by `extra` (`FIELDS`), and both formats
show them. Masking is done by the formatter, on the line with its traceback, so whatever a library logs goes through it.
"""

from __future__ import annotations

import asyncio
import json
import logging
import sys
import threading
from collections import Counter
from types import TracebackType
from typing import Any, Literal

from actors.runtime.config.masking import masked
from protocol.texts import escape, escape_json
from protocol.times import format_time

FIELDS = ("plan", "examinee", "socket", "server", "version", "reason", "stream", "sequence")
"""What an event may be about, as attributes of a record (`extra=`)."""

Level = Literal["debug", "info", "warning", "error"]
Format = Literal["text", "json"]


class _Formatter(logging.Formatter):
    """What both formats have in common."""

    def __init__(self, role: str, name: str) -> None:
        super().__init__()
        self._role = role
        self._name = name

    def text_of(self, record: logging.LogRecord) -> str:
        return masked(_without_frames(record).getMessage())

    def trouble_of(self, record: logging.LogRecord) -> str | None:
        """The traceback, and the stack if one was asked for."""
        parts = [self.formatException(record.exc_info)] if record.exc_info and record.exc_info[0] else []
        parts += [self.formatStack(record.stack_info)] if record.stack_info else []
        return masked("\n".join(parts)) if parts else None


class TextFormatter(_Formatter):
    """`2026-01-05 09:00:00,123 WARNING SOCK001 examwire.clients: what happened [plan=P001 examinee=E001]`"""

    def format(self, record: logging.LogRecord) -> str:
        about = " ".join(f"{name}={masked(str(value))}" for name, value in _fields(record).items())
        said = f"{self.text_of(record)} [{about}]" if about else self.text_of(record)
        # Whatever others have written into it, a message is one line.
        line = f"{self.formatTime(record)} {record.levelname:<7} {self._name} {record.name}: {escape(said)}"
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
    """Have this process log to stderr; `name` tells it from others of its role. May be called again."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter(role, name) if form == "json" else TextFormatter(role, name))
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    # One line for each connection that opens and one for each that closes: `LogSummary` tells that in one a second.
    for library in ("websockets", "uvicorn"):
        logging.getLogger(library).setLevel(logging.DEBUG if level == "debug" else logging.WARNING)
    # What nobody catches would be printed by Python as it is.
    sys.excepthook = _log_uncaught
    threading.excepthook = _log_uncaught_in_thread


def _log_uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, error, trace)
        return
    logging.getLogger("examwire").critical("the process ends", exc_info=(kind, error, trace))


def _log_uncaught_in_thread(hook: threading.ExceptHookArgs) -> None:
    if hook.exc_value is not None:
        trouble = (hook.exc_type, hook.exc_value, hook.exc_traceback)
        logging.getLogger("examwire").error("a thread ended: %s", hook.thread, exc_info=trouble)


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    found = vars(record)
    return {name: found[name] for name in FIELDS if found.get(name) is not None}


def _without_frames(record: logging.LogRecord) -> logging.LogRecord:
    """websockets logs the beginning and the end of each frame at DEBUG, and a cut token is not known for one."""
    if not record.name.startswith("websockets") or not isinstance(record.args, tuple):
        return record
    shown = tuple(_frame(arg) if type(arg).__module__ == "websockets.frames" else arg for arg in record.args)
    copy = logging.makeLogRecord(vars(record))
    copy.args = shown
    return copy


def _frame(frame: Any) -> str:
    return f"{frame.opcode.name} [{len(frame.data)} bytes]"


class LogSummary:
    """Counts what may happen thousands of times at once, and logs one line a second while it does.

    `count("ended", "PING_TIMEOUT")` ends up as `1 s: ended 3998 (SOCKET_CLOSED 3990, PING_TIMEOUT 8)`.
    """

    def __init__(self, log: logging.Logger, who: str, **fields: str) -> None:
        self._log = log
        self._who = who
        self._fields = fields
        self._counts: dict[str, Counter[str]] = {}

    def count(self, what: str, kind: str = "") -> None:
        """One more of these. Needs a running loop."""
        if not self._counts:
            asyncio.get_running_loop().call_later(1.0, self._tell)
        self._counts.setdefault(what, Counter())[kind] += 1

    def _tell(self) -> None:
        parts = []
        for what, kinds in self._counts.items():
            named = ", ".join(f"{kind} {count}" for kind, count in kinds.most_common() if kind)
            parts.append(f"{what} {kinds.total()}" + (f" ({named})" if named else ""))
        self._counts = {}
        self._log.info("%s: within 1 s: %s", self._who, "; ".join(parts), extra=self._fields)
