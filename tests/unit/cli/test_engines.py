"""An engine may read its log for minutes before it answers. `python` plays the engine."""

from __future__ import annotations

import asyncio
import logging
import sys
import time
from pathlib import Path

import pytest

from cli.local import engines
from cli.local.engines import Engine, RedisServer, free_port
from cli.local.processes import EngineProcess
from protocol.errors import RoleFailed
from tests.unit.support.waiting import until

ANSWERS = """
import socket, sys, time
def answer(port):
    listener = socket.create_server(("127.0.0.1", port))
    while True:
        connection, _ = listener.accept()
        connection.sendall(b"INFO")
        connection.close()
"""
LOGS = """
for restored in range(10):
    print(f"[INF] Restored {restored} of 10 parts", flush=True)
    time.sleep(0.15)
answer(int(sys.argv[1]))
"""
WORKS = """
until = time.monotonic() + 1.5
while time.monotonic() < until:
    pass
answer(int(sys.argv[1]))
"""
HANGS = "print('[INF] Restoring', flush=True); time.sleep(60)"
ENDS = "print('[FTL] the disk is full', flush=True); sys.exit(3)"


class Played(Engine):
    """An engine that is a script."""

    name = "nats-server"

    def __init__(self, directory: Path, script: str) -> None:
        super().__init__(directory, free_port())
        self._script = script

    def command(self) -> list[str]:
        return [sys.executable, "-c", ANSWERS + self._script, str(self.port)]

    def answers(self) -> bool:
        return engines._greets(self.port, b"", b"INFO")


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "SAY_SECONDS", 0.2)
    monkeypatch.setattr(engines, "QUIET_SECONDS", 0.7)


@pytest.mark.parametrize("script", [LOGS, WORKS])
def test_an_engine_that_works_is_waited_for_however_long_it_takes(
    tmp_path: Path, script: str, caplog: pytest.LogCaptureFixture
) -> None:
    engine = Played(tmp_path, script)
    began = time.monotonic()
    engine.start()
    assert time.monotonic() - began > engines.QUIET_SECONDS
    engine.stop()
    said = [record.getMessage() for record in caplog.records if record.name == "examwire.engines"]
    assert len(said) >= 3
    if script == LOGS:
        assert any(text.endswith("s: [INF] Restored 5 of 10 parts") for text in said), said


def test_an_engine_that_does_nothing_for_long_has_failed(tmp_path: Path) -> None:
    engine = Played(tmp_path, HANGS)
    with pytest.raises(RoleFailed, match=r"nats-server has done nothing for [12] s(.|\n)*Restoring"):
        engine.start()
    assert engine.process is None


def test_an_engine_that_ends_has_failed_at_once(tmp_path: Path) -> None:
    with pytest.raises(RoleFailed, match=r"nats-server ended with 3(.|\n)*the disk is full"):
        Played(tmp_path, ENDS).start()


async def test_an_engine_can_be_stopped_while_it_starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "QUIET_SECONDS", 60.0)
    process = EngineProcess(Played(tmp_path, HANGS))
    starting = asyncio.create_task(process.start())
    await until(lambda: process.pid is not None)
    async with asyncio.timeout(5):
        await process.stop()
        with pytest.raises(RoleFailed, match="was stopped"):
            await starting
    assert process.pid is None


async def test_a_redis_that_loads_its_data_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "examwire.engines")
    asked: list[bytes] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = await reader.readline()
        asked.append(request)
        if request.startswith(b"INFO"):
            writer.write(b"$54\r\n# Persistence\r\nloading:1\r\nloading_loaded_perc:42.17\r\n\r\n")
        else:
            writer.write(b"+PONG\r\n" if asked.count(request) > 40 else b"-LOADING Redis is loading the dataset\r\n")
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1")
    engine = RedisServer(tmp_path, server.sockets[0].getsockname()[1])
    # What works is a script; what answers is this test.
    monkeypatch.setattr(engine, "command", lambda: [sys.executable, "-c", "while True: pass"])
    await asyncio.to_thread(engine.start)
    engine.kill()
    server.close()
    said = [record.getMessage() for record in caplog.records]
    assert said
    assert all(text.endswith("42.17 % of the data are loaded") for text in said), said
