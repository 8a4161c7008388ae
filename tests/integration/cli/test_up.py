"""`examwire up` as a process: what it starts, keeps running, and leaves behind (nothing)."""

from __future__ import annotations

import asyncio
import json
import os
import random
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import psutil
import pytest
from typer.testing import CliRunner, Result

from actors.client.examinee import ExamineeClient
from actors.runtime.config.settings import load_settings
from actors.runtime.config.tokens import issue_token
from cli.local.engines import NatsServer, RedisServer
from cli.main import app
from protocol.messages.frames import Welcome
from tests.integration.support.up import Up, eventually, left_of, role_and_name, running

ROLES = {"queue-server", "state-manager", "SOCK001", "SOCK002", "web-server"}
WATCHES = {"reconnect-watch", "lease-watch", "advisory-watch"}
KINDS = {"queue-server", "retention", "state-manager", *WATCHES, "socket-server", "web-server"}


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    """The one that those tests share which leave it running."""
    with running(tmp_path_factory.mktemp("shared") / "data", "--plan", "P007") as up:
        yield up


def examwire(*arguments: str, **variables: str) -> Result:
    """`examwire ...`, in this process."""
    return CliRunner().invoke(app, arguments, env=variables, catch_exceptions=False)


def free_ports(count: int) -> int:
    """The first of so many free ports in a row, below those that the system gives away by itself."""
    chance = random.Random(os.getpid())
    for _ in range(100):
        base = chance.randrange(20000, 32000)
        with ExitStack() as bound:
            try:
                for port in range(base, base + count):
                    bound.enter_context(socket.create_server(("127.0.0.1", port)))
            except OSError:
                continue
            return base
    raise AssertionError(f"no {count} free ports in a row")


def answers(url: str) -> bool:
    """Whether something listens there."""
    parts = urlsplit(url)
    try:
        with socket.create_connection((parts.hostname or "", parts.port or 0), timeout=1):
            return True
    except OSError:
        return False


def readiness(up: Up) -> str:
    """Where the web server says whether it is ready."""
    return str(up.ready["metricsUrl"]).replace("/metrics", "/readyz")


# -- what there is --------------------------------------------------------------------------------------


def test_the_ready_line_has_all_addresses(up: Up) -> None:
    ready = up.ready
    assert list(ready) == [
        *("event", "natsUrl", "redisUrl", "webUrl", "metricsUrl", "dataDir", "socketServers", "planId", "pages")
    ]
    assert (ready["event"], ready["planId"], ready["dataDir"]) == ("ready", "P007", str(up.data_dir))
    assert [list(server) for server in ready["socketServers"]] == [["serverId", "url"]] * 2
    assert [server["serverId"] for server in ready["socketServers"]] == ["SOCK001", "SOCK002"]
    written = json.loads((up.data_dir / "ready.json").read_text())
    for name in ("secretMark", "topology"):  # for commands beside it, and nobody else
        assert written.pop(name)
    assert written == ready
    urls = [ready["natsUrl"], ready["redisUrl"], ready["webUrl"], *(server["url"] for server in ready["socketServers"])]
    assert [urlsplit(url).scheme for url in urls] == ["nats", "redis", "http", "ws", "ws"]
    assert all(answers(url) for url in urls)
    for url in (f"{ready['webUrl']}/healthz", readiness(up), ready["metricsUrl"]):
        assert httpx.get(url).status_code == 200
    # What the process measures is nobody's business who can reach the pages.
    for path in ("/metrics", "/readyz"):
        assert httpx.get(ready["webUrl"] + path).status_code == 404


def test_the_cli_finds_it_by_its_data_directory(up: Up) -> None:
    data_dir_flags = ("--data-dir", str(up.data_dir))
    assert examwire("streams", "diff", *data_dir_flags).exit_code == 0
    actors = json.loads(examwire("actors", "ls", "-o", "json", *data_dir_flags).stdout)
    assert {actor["kind"] for actor in actors} == KINDS
    assert {actor["state"] for actor in actors} <= {"running", "listed"}  # nobody is silent
    assert {"socket.SOCK001", "socket.SOCK002"} <= {actor["address"] for actor in actors}


@pytest.mark.parametrize(
    "command",
    [
        ("token", "proctor", "P007"),
        ("simulate", "--duration", "1"),
        ("plans", "create", "P007", "--roster", "roster.csv", "--tokens", "tokens.csv"),
    ],
    ids=lambda command: command[0],
)
def test_a_command_with_another_secret_makes_no_token(up: Up, command: tuple[str, ...], tmp_path: Path) -> None:
    (tmp_path / "roster.csv").write_text("examineeId\nE001\n")
    arguments = [str(tmp_path / word) if word.endswith(".csv") else word for word in command]
    other = "a secret that the terminal of `up` does not know"
    result = examwire(*arguments, "--data-dir", str(up.data_dir), EXAMWIRE_SECRET=other)
    assert (result.exit_code, result.stdout) == (2, "")
    assert "another secret" in result.stderr
    assert "EXAMWIRE_SECRET" in result.stderr
    assert not (tmp_path / "tokens.csv").exists()


async def test_an_examinee_is_seen_by_the_cli_while_connected(up: Up) -> None:
    data_dir_flags = ("--data-dir", str(up.data_dir))
    token = issue_token(load_settings(data_dir=up.data_dir), "examinee", "P007", "E001")

    async def plan() -> dict[str, Any]:
        result = await asyncio.to_thread(examwire, "plans", "show", "P007", "-o", "json", *data_dir_flags)
        rows: dict[str, Any] = json.loads(result.stdout)
        (row,) = rows["examinees"]
        return dict(row)

    async with ExamineeClient(up.ready["socketServers"][1]["url"], token) as client:
        assert client.welcome is not None
        servers = {server["url"] for server in up.ready["socketServers"]}
        assert set(client.welcome.endpoints) == servers  # both, from the first client on
        shown_session = await asyncio.to_thread(
            examwire, "actors", "show", "session.P007.E001", "-o", "json", *data_dir_flags
        )
        assert json.loads(shown_session.stdout)["kind"] == "examinee-session"
        listed = await asyncio.to_thread(
            examwire, "actors", "ls", "--kind", "examinee-session", "-o", "json", *data_dir_flags
        )
        assert [session["address"] for session in json.loads(listed.stdout)] == ["session.P007.E001"]
        async with asyncio.timeout(20):
            while (row := await plan())["status"] != "CONNECTED":
                pass
        assert row["serverId"] == "SOCK002"
    async with asyncio.timeout(20):
        while (row := await plan())["status"] != "DISCONNECTED":
            pass
    assert row["reason"] == "CLIENT_CLOSED"
    no_session = await asyncio.to_thread(examwire, "actors", "show", "session.P007.E001", *data_dir_flags)
    assert no_session.exit_code == 3


def test_a_second_up_on_the_same_data_directory_is_refused(up: Up) -> None:
    command = [sys.executable, "-m", "cli.main", "up", "--data-dir", str(up.data_dir)]
    second = subprocess.run(command, capture_output=True, text=True, timeout=90, check=False)
    assert (second.returncode, second.stdout) == (1, "")
    assert f"another `examwire up` (pid {up.process.pid}) is using {up.data_dir}" in second.stderr
    assert "Traceback" not in second.stderr
    assert httpx.get(readiness(up)).status_code == 200
    assert (up.data_dir / "ready.json").exists()


# -- what is kept running -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["SOCK001", "web-server"])
def test_a_killed_role_restarts_on_its_port(up: Up, name: str) -> None:
    url = up.ready["webUrl"] if name == "web-server" else up.ready["socketServers"][0]["url"]
    killed = up.pid_of(name)
    os.kill(killed, signal.SIGKILL)
    eventually(lambda: f"{name} is ready again" in up.stderr, f"{name} is started again")
    assert up.pid_of(name) != killed
    assert answers(url)
    assert f"{name} ended (signal SIGKILL) and is started again" in up.stderr


async def test_a_drained_server_restarts_and_its_examinee_stays_on_the_other_server(up: Up) -> None:
    drained, other = up.ready["socketServers"][1], up.ready["socketServers"][0]
    before = up.pid_of("SOCK002")
    token = issue_token(load_settings(data_dir=up.data_dir), "examinee", "P001", "E777")
    data_dir_flags = ("--data-dir", str(up.data_dir))
    async with ExamineeClient(drained["url"], token) as examinee:
        draining = asyncio.create_task(
            asyncio.to_thread(examwire, "actors", "drain", "SOCK002", "--over", "0s", *data_dir_flags)
        )
        while not isinstance(await examinee.receive(), Welcome):
            pass
        assert examinee.welcome is not None
        assert (examinee.welcome.server_id, examinee.url) == ("SOCK001", other["url"])
        done = await draining
        assert done.exit_code == 0, done.stderr
        await asyncio.to_thread(eventually, lambda: "SOCK002 is ready again" in up.stderr, "SOCK002 is started again")
        assert "SOCK002 ended cleanly and is started again" in up.stderr
        assert up.pid_of("SOCK002") != before
        assert answers(drained["url"])
        plan = await asyncio.to_thread(examwire, "plans", "show", "P001", "-o", "json", *data_dir_flags)
        (row,) = [examinee for examinee in json.loads(plan.stdout)["examinees"] if examinee["examineeId"] == "E777"]
        assert (row["status"], row["serverId"]) == ("CONNECTED", "SOCK001")
    assert up.process.poll() is None


@pytest.mark.parametrize(("engine", "program"), [("nats-server", "nats-server"), ("redis-server", "valkey-server")])
def test_a_killed_engine_restarts_on_its_port_and_the_roles_reconnect(up: Up, engine: str, program: str) -> None:
    os.kill(up.pid_of(program), signal.SIGKILL)
    eventually(lambda: f"{engine} is ready again" in up.stderr, f"{engine} is started again")
    data_dir_flags = ("--data-dir", str(up.data_dir))
    for command in (("streams", "diff"), ("plans", "ls")):  # roles and state need a moment to find out, and to repair
        eventually(lambda asked=command: examwire(*asked, *data_dir_flags).exit_code == 0, " ".join(command))  # type: ignore[misc]
    eventually(lambda: httpx.get(readiness(up)).status_code == 200, "the web server is ready again")


# -- how it ends ----------------------------------------------------------------------------------------


def test_ctrl_c_during_the_start_leaves_no_process(tmp_path: Path) -> None:
    up = Up(tmp_path / "data", "--json")
    eventually(
        lambda: any("queue-server" in role_and_name(process) for process in left_of(up.data_dir)), "it is starting"
    )
    assert up.end(signal.SIGINT) == 0
    assert left_of(up.data_dir) == []
    assert "Traceback" not in up.stderr


def test_after_sigkill_no_process_is_left_and_the_next_up_uses_the_same_ports(tmp_path: Path) -> None:
    base = free_ports(10)
    ports = [str(base + offset) for offset in (0, 1, 2, 3, 5)]  # two socket servers, five roles with metrics
    options = ["--nats-port", "--redis-port", "--web-port", "--socket-port", "--metrics-port"]
    arguments = [part for pair in zip(options, ports, strict=True) for part in pair]
    with running(tmp_path / "data", *arguments) as first:
        processes = left_of(first.data_dir)
        assert first.end(signal.SIGKILL) == -9
        with running(tmp_path / "data", *arguments) as second:
            # What the first had is gone, though the second did not wait for us to look.
            assert not [
                process.pid
                for process in processes
                if process.is_running() and process.status() != psutil.STATUS_ZOMBIE
            ]
            for name, address in first.ready.pop("pages").items():  # with tokens of their own
                assert second.ready["pages"][name].partition("#")[0] == address.partition("#")[0]
            assert {name: value for name, value in second.ready.items() if name != "pages"} == first.ready
            assert second.ready["socketServers"][1]["url"].startswith(f"ws://127.0.0.1:{int(ports[3]) + 1}/")
            assert httpx.get(readiness(second)).status_code == 200
            assert b"process_cpu_seconds_total" in httpx.get(f"http://127.0.0.1:{int(ports[4]) + 4}/metrics").content
            assert second.end(signal.SIGKILL) == -9
            eventually(lambda: left_of(second.data_dir) == [], "the kernel ends all children")


def test_a_second_ctrl_c_stops_by_force_and_the_next_up_has_the_same_addresses(tmp_path: Path) -> None:
    flags = ("--socket-ping-interval-seconds", "4", "--web-public-url", "http://exam.localhost")  # but no ports
    with running(tmp_path / "data", *flags) as first:
        os.kill(first.pid_of("web-server"), signal.SIGSTOP)  # it will not drain
        first.process.send_signal(signal.SIGINT)
        eventually(lambda: not (first.data_dir / "ready.json").exists(), "it is stopping")
        assert first.end(signal.SIGINT) == 1
        eventually(lambda: left_of(first.data_dir) == [], "no process is left")
        assert "stopped by force" in first.stderr
    before = first.stderr
    with running(tmp_path / "data", *flags) as second:
        addresses = [first.ready["webUrl"], first.ready["socketServers"]]
        assert [second.ready["webUrl"], second.ready["socketServers"]] == addresses
        # Redis has begun anew with all that it had: servers are ready only when that was found, and nobody need know.
        assert "Redis" not in second.stderr.removeprefix(before)


def test_a_role_that_cannot_start_ends_up_with_the_reason(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        up = Up(tmp_path / "data", "--json", "--web-port", str(port))
        assert up.first_line() == ""
        assert up.ended() == 1
    assert str(port) in up.stderr
    assert "examwire: web-server ended with exit code 1 before it was ready" in up.stderr
    assert "Traceback" not in up.stderr
    assert left_of(tmp_path / "data") == []


def test_a_role_that_fails_too_often_ends_up(tmp_path: Path) -> None:
    with running(tmp_path / "data") as up:
        killed_pids: set[int] = set()
        deadline = time.monotonic() + 60
        while up.process.poll() is None and time.monotonic() < deadline:
            for process in left_of(up.data_dir):
                if process.pid not in killed_pids and "web-server" in role_and_name(process):
                    killed_pids.add(process.pid)
                    process.kill()
            time.sleep(0.1)
        assert up.ended() == 1
        assert "examwire: web-server ended 6 times within 60 s" in up.stderr
        assert left_of(up.data_dir) == []


# -- for people, and elsewhere --------------------------------------------------------------------------


def test_the_output_has_each_token_once_and_commands_that_work_and_ctrl_c_stops_all(tmp_path: Path) -> None:
    up = Up(tmp_path / "data", "--plan", "P002")
    try:
        assert up.process.stdout is not None
        lines = [up.first_line()]
        while "ready.json" not in lines[-1]:
            lines.append(up.process.stdout.readline().decode())
            assert lines[-1], up.stderr
        ready = json.loads((tmp_path / "data" / "ready.json").read_text())
        for page in ready["pages"].values():
            assert "".join(lines).count(page) == 1
            assert httpx.get(page).status_code == 200
        assert "".join(lines).count("eyJ") == 2 * 2  # the head and the claims of each token
        (simulate,) = [line for line in lines if " simulate " in line]
        pasted = [*shlex.split(simulate)[1:], "--help"]
        assert "--data-dir" in subprocess.run(pasted, capture_output=True, text=True, timeout=60, check=True).stdout
        assert len(left_of(up.data_dir)) == 1 + len(ROLES) + 2
    finally:
        assert up.end(signal.SIGINT) == 0
    assert left_of(up.data_dir) == []
    assert not (up.data_dir / "ready.json").exists()
    assert "Traceback" not in up.stderr
    assert "ended (" not in up.stderr  # nobody was taken for dead


def test_external_engines_are_used_instead_of_embedded_ones(
    tmp_path: Path, own_engines: tuple[NatsServer, RedisServer]
) -> None:
    nats, redis = own_engines
    with running(tmp_path / "data", "--nats-url", nats.url, EXAMWIRE_REDIS_URL=redis.url) as up:
        assert (up.ready["natsUrl"], up.ready["redisUrl"]) == (nats.url, redis.url)
        assert len(left_of(up.data_dir)) == 1 + len(ROLES)
        assert up.end(signal.SIGTERM) == 0
    assert nats.answers()
    assert redis.answers()
