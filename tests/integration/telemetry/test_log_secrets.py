"""Real roles at --log-level debug, with real connections, uploads and mistakes: nothing they write holds a secret."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import jwt
import pytest
from typer.testing import CliRunner
from websockets.exceptions import ConnectionClosed, InvalidStatus

from actors.runtime.broker.connection import Bus
from actors.runtime.broker.consumers.stream_reader import read_stream
from actors.runtime.config.settings import Settings, load_settings
from actors.runtime.config.tokens import issue_token
from cli.local.engines import NatsServer, RedisServer
from cli.main import app
from protocol.broker import subjects
from protocol.messages.codec import encode
from protocol.messages.operator_requests import Kick
from tests.integration.support.clients.phones import picture, upload_path
from tests.integration.support.system import RawClient
from tests.integration.support.up import Up

SECRET = "kWq7-never-to-be-read-in-any-log-9fZ"
NATS_PASSWORD, REDIS_PASSWORD = "nats-pass-4711", "redis-pass-0815"


class NatsWithUser(NatsServer):
    def command(self) -> list[str]:
        command = super().command()
        with Path(command[-1]).open("a") as config:
            config.write(f'authorization {{ user: exam, password: "{NATS_PASSWORD}" }}\n')
        return command

    @property
    def url(self) -> str:
        return super().url.replace("nats://", f"nats://exam:{NATS_PASSWORD}@")


class RedisWithPassword(RedisServer):
    def command(self) -> list[str]:
        return [*super().command(), "--requirepass", REDIS_PASSWORD]

    def answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1):
                return True
        except OSError:
            return False

    @property
    def url(self) -> str:
        return super().url.replace("redis://", f"redis://:{REDIS_PASSWORD}@")


@pytest.fixture
def up(tmp_path: Path) -> Iterator[Up]:
    nats, redis = NatsWithUser(tmp_path / "nats"), RedisWithPassword(tmp_path / "redis")
    nats.start()
    redis.start()
    running = Up(
        tmp_path / "data",
        *("--json", "--log-level", "debug", "--log-format", "json"),
        EXAMWIRE_SECRET=SECRET,
        EXAMWIRE_NATS_URL=nats.url,
        EXAMWIRE_REDIS_URL=redis.url,
    )
    yield running
    if running.process.poll() is None:
        running.end(signal.SIGKILL)
    nats.stop()
    redis.stop()


class Tokens:
    """Makes tokens and remembers them."""

    def __init__(self, data_dir: Path) -> None:
        self._settings = load_settings(secret=SECRET, data_dir=data_dir)
        self.used: list[str] = []

    def of(self, role: Any, subject: str, *, seconds: float = 3600.0) -> str:
        return self.keep(issue_token(self._settings, role, "P001", subject, seconds=seconds))

    def keep(self, token: str) -> str:
        self.used.append(token)
        return token


async def test_no_secret_is_written_by_any_role(up: Up, tmp_path: Path) -> None:
    ready = up.wait_ready()
    tokens = Tokens(tmp_path / "data")
    first, second = (server["url"] for server in ready["socketServers"])
    texts = await _connections(first, second, tokens)
    texts += await _uploads(ready["webUrl"], tokens)

    bus = await Bus.connect(ready["natsUrl"], "test")
    entries = await bus.services()
    texts += [(await bus.request(entry.metadata["inspect"])).decode() for entry in entries]
    texts.append((await bus.request(subjects.control("socket.SOCK001"), encode(Kick(socket_id="SOCK001-x")))).decode())
    for stream in ("STATUS", "SOCKET", "DEADLETTER"):
        texts += [f"{stored.payload!r} {stored.headers}" async for stored in read_stream(bus, stream)]
    await bus.close()
    async with httpx.AsyncClient(trust_env=False) as http:
        texts.append((await http.get(ready["metricsUrl"])).text)

    code, findings = await asyncio.to_thread(_doctor, tmp_path / "data")
    texts.append(str(findings))
    assert code in (0, 5), findings  # nothing has failed; the machine may be short of something

    assert up.end(signal.SIGTERM) == 0
    written = up.stderr + "\n".join(texts)
    lines = [json.loads(line) for line in up.stderr.splitlines()]
    # The loggers that see secrets were there to be looked at, at their most talkative.
    assert {"websockets.server", "examwire.clients"} <= {line["logger"] for line in lines if line["level"] == "debug"}
    assert {line["role"] for line in lines} >= {"socket-server", "web-server", "state-manager", "queue-server"}
    for token in tokens.used:
        header, payload, signature = token.split(".")
        for part in (token, payload, signature, signature[:16], signature[-16:]):
            assert part not in written, f"{part} of {jwt.decode(token, options={'verify_signature': False})}"
        assert header not in written
    for secret in (SECRET, NATS_PASSWORD, REDIS_PASSWORD, base64.b64encode(SECRET.encode()).decode()):
        assert secret not in written
    of_e001 = [line for line in lines if line.get("examinee") == "E001"]
    assert {line.get("plan") for line in of_e001} == {"P001"}
    assert any(line.get("reason") == "SOCKET_CLOSED" and line["socket"].startswith("SOCK00") for line in of_e001)


def _doctor(data_dir: Path) -> tuple[int, Any]:
    arguments = ["doctor", "-o", "json", "--data-dir", str(data_dir)]
    result = CliRunner().invoke(app, arguments, env={"EXAMWIRE_SECRET": SECRET}, catch_exceptions=False)
    return result.exit_code, json.loads(result.stdout)


async def _connections(first: str, second: str, tokens: Tokens) -> list[str]:
    """Everything that can be done right and wrong with a token on a socket; the frames that were the answers."""
    frames: list[str] = []
    examinee = await RawClient.open(first)
    await examinee.hello(tokens.of("examinee", "E001"))
    await examinee.expect("session_state")
    await examinee.say("hello", token=tokens.of("examinee", "E001"), clientId="again", connectionNo=2)
    await examinee.say("mobile_sync_wait", planId="P002", token=tokens.of("mobile", "E001"))
    await examinee.expect("error", requestType="mobile_sync_wait")
    examinee.abort()
    by_header = {"Authorization": f"Bearer {tokens.of('proctor', 'T1')}"}
    proctor = await RawClient.open(second, additional_headers=by_header)
    await proctor.say("hello", clientId="T1", connectionNo=1)
    await proctor.expect("plan_snapshot")
    await proctor.say("readmit", examineeId=tokens.of("examinee", "E001"))  # in the wrong place
    await proctor.expect("error")
    frames += [str(frame) for frame in proctor.frames]
    await proctor.close()
    forged = jwt.encode({"sub": "E001", "role": "examinee", "plan": "P001", "aud": "examwire", "exp": 2**31}, "x" * 40)
    for token in (tokens.of("examinee", "E001", seconds=-60), tokens.keep(forged), tokens.of("mobile", "E001")):
        refused = await RawClient.open(first)
        await refused.say("hello", token=token, clientId="b", connectionNo=1)
        await refused.closed()
        frames += [str(frame) for frame in refused.frames]
    for hello in (
        f'{{"type":"hello","data":{{"token":"{tokens.of("examinee", "E002")}"',
        json.dumps({"type": "hello", "data": {"token": tokens.of("examinee", "E003"), "clientId": "*"}}),
        json.dumps(
            {"type": "hello", "data": {"clientId": "c", "connectionNo": "x", "token": tokens.of("examinee", "E4")}}
        ),
    ):
        broken = await RawClient.open(first)
        await broken.websocket.send(hello)
        await broken.closed()
        frames += [str(frame) for frame in broken.frames]
    bearer = {"Authorization": f"Bearer {tokens.of('examinee', 'E005')}"}
    with pytest.raises((InvalidStatus, ConnectionClosed)):
        await RawClient.open(first.replace("/v1/connect", "/v2/connect"), additional_headers=bearer)
    return frames


async def _uploads(web_url: str, tokens: Tokens) -> list[str]:
    answers = []
    async with httpx.AsyncClient(base_url=web_url, trust_env=False, timeout=20) as http:
        for token, body, path in (
            (tokens.of("mobile", "E001"), picture(), upload_path()),
            (tokens.of("mobile", "E001"), b"no picture", upload_path()),
            (tokens.of("mobile", "E009"), picture(), upload_path()),
            (tokens.of("mobile", "E001", seconds=-60), picture(), upload_path()),
            (tokens.of("mobile", "E001"), picture(), upload_path(plan_id="P 1")),
        ):
            answer = await http.put(path, content=body, headers={"Authorization": f"Bearer {token}"})
            answers.append(answer.text)
        basic = base64.b64encode(tokens.of("mobile", "E001").encode()).decode()
        answers.append((await http.put(upload_path(), headers={"Authorization": f"Basic {basic}"})).text)
    assert "captureId" in answers[0]
    assert all('"status"' in answer for answer in answers)
    return answers


async def test_an_unknown_variable_is_logged_at_the_start_of_a_role(settings: Settings, tmp_path: Path) -> None:
    variables = {"EXAMWIRE_NATS_URL": settings.nats_url, "EXAMWIRE_REDIS_URL": settings.redis_url}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", "-m", "cli.main", "run", "queue-server", "--name", "qs", "--json"),
        cwd=tmp_path,
        env=os.environ | variables | {"EXAMWIRE_SOKCET__PORT": "1"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        assert process.stdout is not None
        ready = await asyncio.wait_for(process.stdout.readline(), 30)
    finally:
        if process.returncode is None:
            process.terminate()
        _, stderr = await process.communicate()
    assert json.loads(ready)["event"] == "ready"
    warning = next(line for line in stderr.decode().splitlines() if "WARNING" in line)
    assert "EXAMWIRE_SOKCET__PORT is not a setting" in warning
    assert "did you mean EXAMWIRE_SOCKET__PORT?" in warning
