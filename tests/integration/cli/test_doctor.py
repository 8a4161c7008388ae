"""`examwire doctor` on a whole system: roles, clocks, versions, dead letters, secrets, exit codes."""

from __future__ import annotations

import asyncio
import json
import os
import re
import resource
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis
from typer.testing import CliRunner

from actors.queue_server.server import QueueServer
from actors.queue_server.topology import apply_topology
from actors.runtime.broker.connection import Bus, Outgoing
from actors.runtime.broker.dead_letter import dead_letter
from actors.runtime.config.settings import Settings, load_settings
from actors.runtime.store.state_store import StateStore
from actors.web_server.server import WebServer
from cli.check import health_check
from cli.check.health_check import HealthCheck
from cli.main import app
from cli.shared import live_actors
from protocol.broker import subjects
from protocol.records import keys
from tests.integration.support.findings import FAILED, OK, WARNING, states, told
from tests.integration.support.settings import changed
from tests.integration.support.system import System


async def test_a_socket_server_that_refuses_our_pages_is_reported(
    settings: Settings, bus: Bus, store: StateStore
) -> None:
    """Every socket server is tried as a page of the running web server would, whatever its settings say."""

    async with System(settings) as system:
        web = await system.start("web-server", lambda bus: WebServer(settings, bus, store))
        assert isinstance(web, WebServer)
        findings = await HealthCheck(settings).run()
        assert "SOCK001, SOCK002" in told(findings, "pages", OK)
        assert web.url in told(findings, "pages", OK)
        # Other addresses of the pages than the socket servers know: a proxy that nobody has told them of.
        public = changed(settings, {"web.public_url": "https://exam.example:443/"})
        findings = await HealthCheck(public).run()
        refused = told(findings, "pages", FAILED)
        assert "SOCK001 refuses our own pages at https://exam.example" in refused
        assert "SOCK002" in refused
    async with System(public, servers=("SOCK001",)) as system:
        await system.start("web-server", lambda bus: WebServer(public, bus, store))
        assert "https://exam.example" in told(await HealthCheck(public).run(), "pages", OK)


async def test_a_healthy_system_has_only_ok_findings(settings: Settings, bus: Bus, store: StateStore) -> None:
    async with System(settings) as system:
        await system.examinee()
        findings = await HealthCheck(settings).run()
        problems = [finding for finding in findings if finding.state in (WARNING, FAILED)]
        # The tests' System has no web server, and that is all there is to say.
        assert [(finding.check, finding.state) for finding in problems] == [("roles", WARNING)], problems
        assert "web-server" in problems[0].found
        assert "SOCK001, SOCK002" in told(findings, "roles", OK)
        for check in (
            "nats.version",
            "redis.eviction",
            "clocks",
            "streams",
            "checkpoints",
            "versions",
            "fds",
            "lag",
            "dead letters",
        ):
            assert states(findings, check) == {OK}, check
        assert states(findings, "checkpoints") == {OK}
        assert states(findings, "state") == {OK}


async def test_missing_roles_are_named(settings: Settings, bus: Bus, store: StateStore) -> None:
    async with System(settings, servers=("SOCK001",)) as system:
        assert "only SOCK001" in told(await HealthCheck(settings).run(), "roles", WARNING)
        await system.stop("state-manager")
        client = await system.raw()
        await client.hello(system.token("examinee", "E001"))  # its CONNECTED waits in the log
        findings = await HealthCheck(settings).run()
        assert "no state-manager runs" in told(findings, "roles", FAILED)
        assert "STATUS/state-manager" in told(findings, "lag", FAILED)


async def test_a_server_that_is_ready_in_redis_but_does_not_run_is_reported(
    settings: Settings, bus: Bus, store: StateStore
) -> None:
    async with System(settings, servers=("SOCK001",)):
        raw = Redis.from_url(settings.redis_url)
        for server_id, status in (("SOCK008", "LOST"), ("SOCK009", "READY")):
            await raw.sadd(keys.SERVERS, server_id)
            await raw.hset(keys.server_status(server_id), "statusCode", status)
        await raw.aclose()
        findings = await HealthCheck(settings).run()
        assert "SOCK009 is READY in Redis, but no process answers" in told(findings, "roles", FAILED)
        assert "SOCK008 is LOST" in told(findings, "roles", WARNING)


async def test_each_clock_with_an_offset_is_reported(settings: Settings, bus: Bus, store: StateStore) -> None:
    async with System(settings, servers=("SOCK001",)):
        slow = await HealthCheck(settings, clock=lambda: time.time() - 3).run()
        text = told(slow, "clocks", WARNING)
        for whose in ("NATS", "Redis", r"[a-z-]+[.][a-zA-Z0-9]+"):  # one of the actors: they are one process here
            assert re.search(f"the clock of {whose} is (3|2[.]99|3[.]0)[0-9]* s ahead of this machine's", text)
        assert len(text.splitlines()) == 3


async def test_a_silent_actor_and_another_version_are_reported(
    settings: Settings, bus: Bus, store: StateStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live_actors, "ANSWER_SECONDS", 0.5)

    async def never(_request: bytes) -> bytes:
        await asyncio.Event().wait()
        return b""

    await apply_topology(bus, settings)
    service = await bus.add_service(
        "queue-server",
        version="9.9.9",
        description="hangs",
        metadata={"address": "queue-server.hangs", "kind": "queue-server", "inspect": "inspect.hangs"},
        endpoints={"inspect": ("inspect.hangs", never)},
        details=dict,
    )
    findings = await HealthCheck(settings).run()
    await bus.remove_service(service)
    assert "queue-server.hangs is listed, but does not answer" in told(findings, "actors", FAILED)
    assert "9.9.9: queue-server.hangs" in told(findings, "versions", WARNING)
    assert "no queue-server runs" in told(findings, "roles", FAILED)


async def test_a_low_limit_of_file_descriptors_is_reported(
    settings: Settings, bus: Bus, store: StateStore, tmp_path: Path
) -> None:
    queue_server = QueueServer(settings, bus)
    await queue_server.start()
    command = [sys.executable, "-P", "-m", "cli.main", "run", "socket-server", "--server-id", "SOCK001", "--json"]
    variables = {"EXAMWIRE_NATS_URL": settings.nats_url, "EXAMWIRE_REDIS_URL": settings.redis_url}
    process = await asyncio.create_subprocess_exec(
        *command,
        cwd=tmp_path,
        env=os.environ | variables,
        stdout=asyncio.subprocess.PIPE,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (300, 300)),
    )
    try:
        assert process.stdout is not None
        ready = json.loads(await asyncio.wait_for(process.stdout.readline(), 20))
        assert ready["event"] == "ready"
        findings = await HealthCheck(settings).run()
        assert "socket.SOCK001: 300 file descriptors" in told(findings, "fds", WARNING)
    finally:
        process.terminate()
        await process.wait()
        await queue_server.stop()


# -- letters, secrets, unreachable ----------------------------------------------------------------------


async def test_dead_letters_are_counted(settings: Settings, bus: Bus, store: StateStore) -> None:
    await apply_topology(bus, settings)
    assert states(await HealthCheck(settings).run(), "dead letters") == {OK}
    letter = dead_letter("STATUS", subjects.status_plan("P001"), 1, b"{", "not JSON")
    assert isinstance(letter, Outgoing)
    await bus.publish(letter)
    assert told(await HealthCheck(settings).run(), "dead letters", WARNING).startswith("1, the newest of 20")


async def test_secrets_and_settings_are_checked(settings: Settings, tmp_path: Path) -> None:
    short = load_settings(nats_url=settings.nats_url, redis_url=settings.redis_url, secret="short", data_dir=tmp_path)
    findings = await HealthCheck(short).run()
    assert "at least 32" in told(findings, "settings", FAILED)
    (tmp_path / "secret").write_text("x" * 40)
    (tmp_path / "secret").chmod(0o644)
    readable = load_settings(nats_url=settings.nats_url, redis_url=settings.redis_url, data_dir=tmp_path)
    assert "other users may read" in told(await HealthCheck(readable).run(), "settings", FAILED)
    (tmp_path / "secret").chmod(0o600)
    assert "the token secret is in" in told(await HealthCheck(readable).run(), "secrets", OK)


def run_doctor(*arguments: str, **engines: str) -> tuple[int, dict[str, Any]]:
    result = CliRunner().invoke(app, ["doctor", "-o", "json", *arguments], env=engines, catch_exceptions=False)
    return result.exit_code, json.loads(result.stdout)


def test_the_exit_code_follows_the_worst_finding(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health_check, "CONNECT_SECONDS", 0.1)
    nowhere = {"EXAMWIRE_NATS_URL": "nats://127.0.0.1:1", "EXAMWIRE_REDIS_URL": "redis://127.0.0.1:1"}
    code, answer = run_doctor("--data-dir", str(tmp_path), **nowhere)
    assert (code, answer["state"]) == (4, "failed")
    code, answer = run_doctor("--data-dir", str(tmp_path), **nowhere | {"EXAMWIRE_REDIS_URL": settings.redis_url})
    assert (code, answer["state"]) == (1, "failed")
    assert {finding["check"]: finding["state"] for finding in answer["findings"]}["redis"] == "ok"
