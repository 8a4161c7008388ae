"""What a process logs: fields, both formats, and no secret."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import jwt
import pytest
from websockets.frames import Frame, Opcode

from actors.runtime.config import masking
from actors.runtime.config.masking import hide, masked
from actors.runtime.config.settings import load_settings, token_secret
from actors.runtime.telemetry.logs import JsonFormatter, LogSummary, TextFormatter

TOKEN = jwt.encode({"sub": "E001", "role": "examinee", "plan": "P001", "exp": 2_000_000_000}, "k" * 32)
SPACED = "ewogICJhbGciOiAiSFMyNTYiCn0." + TOKEN.partition(".")[2]  # another library's JSON, with spaces


@pytest.fixture(autouse=True)
def _nothing_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(masking, "_hidden", set())


@pytest.fixture
def log() -> Iterator[tuple[logging.Logger, io.StringIO, logging.StreamHandler[io.StringIO]]]:
    logger, stream = logging.Logger("examwire.test"), io.StringIO()
    handler = logging.StreamHandler(stream)
    logger.addHandler(handler)
    yield logger, stream, handler
    handler.close()


Log = tuple[logging.Logger, io.StringIO, logging.StreamHandler[io.StringIO]]


def test_a_line_for_people_ends_with_what_it_is_about(log: Log) -> None:
    logger, stream, handler = log
    handler.setFormatter(TextFormatter("socket-server", "SOCK001"))
    logger.warning("reads too slowly: %d bytes wait", 9, extra={"plan": "P001", "examinee": "E001", "socket": None})
    line = stream.getvalue()
    assert line.endswith("SOCK001 examwire.test: reads too slowly: 9 bytes wait [plan=P001 examinee=E001]\n")
    assert " WARNING " in line


def test_a_line_of_json_is_one_object_with_the_fields(log: Log) -> None:
    logger, stream, handler = log
    handler.setFormatter(JsonFormatter("state-manager", "sm-1"))
    logger.error('two\nlines \u00fc "quoted"', extra={"plan": "P001", "version": 2**52, "reason": "X"})
    assert stream.getvalue().count("\n") == 1
    line: dict[str, Any] = json.loads(stream.getvalue())
    assert line.pop("time").endswith("Z")
    assert line == {
        "level": "error",
        "logger": "examwire.test",
        "message": 'two\nlines \u00fc "quoted"',
        "role": "state-manager",
        "name": "sm-1",
        "plan": "P001",
        "version": 2**52,
        "reason": "X",
    }


@pytest.mark.parametrize("formatter", [TextFormatter, JsonFormatter])
def test_a_traceback_is_masked_too(log: Log, formatter: type[TextFormatter | JsonFormatter]) -> None:
    logger, stream, handler = log
    handler.setFormatter(formatter("web-server", "web-server"))
    try:
        raise ValueError(f"no good: {TOKEN}")
    except ValueError:
        logger.exception("failed with %s", {"token": TOKEN}, extra={"reason": TOKEN})
    assert "Traceback" in stream.getvalue()
    assert TOKEN.split(".")[2] not in stream.getvalue()
    assert "eyJ" not in stream.getvalue()


@pytest.mark.parametrize(
    ("text", "secret"),
    [
        (f"hello {TOKEN} there", TOKEN),
        (f"cut off: {TOKEN[:60]}", TOKEN[:60]),
        (f"cut off: {TOKEN[:20]}...", TOKEN[:20]),
        (SPACED, SPACED),
        ("< Authorization: Bearer abc", "abc"),
        ("(b'authorization', b'Basic dXNlcjpwYXNz')", "dXNlcjpwYXNz"),
        ("Proxy-Authorization: Digest username=u", "username"),
        ("sent Bearer 0123456789abcdef0123", "0123456789abcdef0123"),
        ("nats://user:pa@ss@host:4222", "pa@ss"),
        ("nats://s3cr3t@host:4222,tls://a:b0b@other:4222", "s3cr3t"),
        ("nats://s3cr3t@host:4222,tls://a:b0b@other:4222", "b0b"),
        ("rediss://:hunter2@redis/0 does not answer", "hunter2"),
        ('{"type":"hello","data":{"token":"opaque","connectionNo":1}}', "opaque"),
        (r'"{\"token\":\"opaque\"}"', "opaque"),
        ("{'password': 'opaque'}", "opaque"),
        ("GET /v1?access_token=opaque&x=1", "opaque"),
        ("Hello(token='opaque', client_id='c')", "opaque"),
    ],
)
def test_texts_that_look_like_secrets_are_masked(text: str, secret: str) -> None:
    assert secret not in masked(text)
    assert masking.MASK in masked(text)
    assert masked(masked(text)) == masked(text)


@pytest.mark.parametrize(
    "text",
    [
        "SOCK001: FAILED could not be recorded: status.server.SOCK001: not acknowledged in time",
        "session.P001.E001 reads too slowly: 4194305 bytes wait",
        "nats://127.0.0.1:4222 and redis://127.0.0.1:6379/0",
        "token: the issuer's keys cannot be read: [Errno 2] No such file or directory: 'issuer.pem'",
        "secret: must have at least 32 characters (RFC 7518, section 3.2)",
        "the token names a key that the issuer does not have",
        "$JS.API.CONSUMER.MSG.NEXT.STATUS.state-manager: no answer within 5 s",
        "/usr/lib/python3.11/site-packages/websockets/asyncio/connection.py",
        "ws://[::1]:8001/v1/connect",
    ],
)
def test_other_texts_are_not_masked(text: str) -> None:
    assert masked(text) == text


def test_secrets_of_the_settings_are_masked_everywhere(tmp_path: Path) -> None:
    generated = token_secret(load_settings(data_dir=tmp_path))
    load_settings(
        redis_url="redis://:correct-horse@host", secret="a configured secret of enough length", data_dir=tmp_path
    )
    for secret in (generated, "correct-horse", "a configured secret of enough length"):
        assert masked(f"x{secret}y") == "x***y"


def test_a_short_password_does_not_eat_words(tmp_path: Path) -> None:
    hide("nats")
    assert masked("cut off from nats") == "cut off from nats"
    assert masked("redis://:nats@host") == "redis://:***@host"


def test_frames_are_logged_by_their_size(log: Log) -> None:
    _, stream, handler = log
    handler.setFormatter(TextFormatter("socket-server", "SOCK001"))
    library = logging.Logger("websockets.server", logging.DEBUG)
    library.addHandler(handler)
    hello = json.dumps({"type": "hello", "data": {"connectionNo": 1, "clientId": "c", "token": TOKEN}}).encode()
    library.debug("< %s", Frame(Opcode.TEXT, hello))
    assert stream.getvalue().endswith(f"< TEXT [{len(hello)} bytes]\n")


DYING = f"""
import asyncio, logging, threading, warnings
from actors.runtime.telemetry.logs import configure_logging, log_last_words
configure_logging('web-server', 'w', 'info', 'json')

class Faulty:
    def __del__(self):
        raise ValueError("unraisable {TOKEN}")

async def fail(): raise OSError("never retrieved")
async def forget(): pass
async def main():
    asyncio.create_task(fail())
    await asyncio.sleep(0)
    forget()

def die(): raise KeyError("in a thread")

warnings.warn("warned\\nof {TOKEN}")
logging.getLogger("library").warning("%d bytes", "many")
Faulty()
asyncio.run(main())
thread = threading.Thread(target=die)
thread.start()
thread.join()
log_last_words("ended")
raise RuntimeError("{TOKEN}")
"""


def test_whatever_goes_wrong_in_a_process_is_a_line_of_json_without_secrets() -> None:
    command = [sys.executable, "-W", "always", "-c", DYING]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert result.returncode == 1
    assert "eyJ" not in result.stderr
    lines = [json.loads(line) for line in result.stderr.splitlines()]
    messages = [(line["logger"], line["message"]) for line in lines]
    for logger, part in (
        ("py.warnings", "<string>:19: UserWarning: warned\nof ***"),
        ("library", "a log record cannot be formatted ("),
        ("examwire", "Exception ignored in"),
        ("py.warnings", "RuntimeWarning: coroutine 'forget' was never awaited"),
        ("asyncio", "Task exception was never retrieved"),
        ("examwire", "a thread ended"),
        ("examwire", "ended"),
        ("examwire", "the process ends"),
    ):
        assert any(name == logger and part in text for name, text in messages), (logger, messages)
    assert len(messages) == 8
    assert sorted(line["traceback"].splitlines()[-1] for line in lines if "traceback" in line) == [
        "KeyError: 'in a thread'",
        "OSError: never retrieved",
        "RuntimeError: ***",
        "ValueError: unraisable ***",
    ]


async def test_a_tally_is_one_line_for_thousands(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    logger, stream, handler = log
    handler.setFormatter(TextFormatter("socket-server", "SOCK001"))
    tally = LogSummary(logger, "socket.SOCK001", server="SOCK001")
    for number in range(4000):
        tally.count("ended", "PING_TIMEOUT" if number % 500 == 0 else "SOCKET_CLOSED")
        tally.count("let in")
    async with asyncio.timeout(20):
        while not stream.getvalue():  # noqa: ASYNC110 - a stream has nothing that could be awaited
            await asyncio.sleep(0.01)
    assert stream.getvalue().count("\n") == 1
    expected = "ended 4000 (SOCKET_CLOSED 3992, PING_TIMEOUT 8); let in 4000 [server=SOCK001]"
    assert stream.getvalue().endswith(f"socket.SOCK001: within 1 s: {expected}\n")


@pytest.mark.parametrize(("level", "lines"), [("debug", 2), ("info", 1)])
def test_only_at_debug_is_each_connection_a_line(level: str, lines: int) -> None:
    script = (
        "import logging\n"
        "from actors.runtime.telemetry.logs import configure_logging\n"
        f"configure_logging('socket-server', 'SOCK001', {level!r})\n"
        "logging.getLogger('websockets.server').info('connection closed')\n"
        "logging.getLogger('examwire.clients').info('one line a second')\n"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert len(result.stderr.splitlines()) == lines


@pytest.mark.parametrize("form", ["text", "json"])
def test_logged_texts_have_no_line_breaks_or_terminal_commands(form: Literal["text", "json"]) -> None:
    written = "bad frame: hello\n2026-01-05 09:00:00,123 ERROR forged\r\x1b[2J\u202e\u200b\ud800"
    formatter = JsonFormatter("role", "name") if form == "json" else TextFormatter("role", "name")
    record = logging.makeLogRecord(
        {"name": "x", "levelname": "INFO", "msg": "%s", "args": (written,), "reason": written}
    )
    line = formatter.format(record)
    assert all(letter.isprintable() for letter in line)
    if form == "json":
        assert json.loads(line)["message"] == written
