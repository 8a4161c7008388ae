"""`examwire doctor` against real trouble: each check is shown something that is really wrong."""

from __future__ import annotations

import asyncio
import json
import os
import re
import resource
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest
from nats.js.api import DiscardPolicy
from pydantic import SecretStr
from redis.asyncio import Redis
from typer.testing import CliRunner

from actors.queue_server.server import QueueServer
from actors.queue_server.topology import apply_topology
from actors.runtime.actor.process_facts import process_facts
from actors.runtime.broker.connection import Bus, Outgoing
from actors.runtime.broker.dead_letter import dead_letter
from actors.runtime.config.sections import NatsSettings
from actors.runtime.config.settings import Settings, load_settings
from actors.runtime.store.state_store import StateStore
from actors.runtime.telemetry.metrics import REGISTRY
from actors.web_server.server import WebServer
from cli.check.doctor import HealthCheck
from cli.check.doctor_checks import (
    GIB,
    judge_account,
    judge_clock,
    judge_disk,
    judge_memory,
    judge_nats,
    judge_process,
    judge_redis,
)
from cli.local.engines import NatsServer, free_port
from cli.main import app
from cli.shared.findings import Finding, State, worst
from protocol.broker import subjects
from protocol.errors import StreamFull
from protocol.messages.inspection import ProcessFacts
from protocol.records import keys
from tests.integration.support.settings import changed
from tests.integration.support.system import System, eventually

PERMISSIONS = Path(__file__).parents[3] / "nats" / "permissions.conf"
OK, WARNING, FAILED, UNKNOWN = State.OK, State.WARNING, State.FAILED, State.UNKNOWN


def states(findings: list[Finding], check: str) -> set[State]:
    return {finding.state for finding in findings if finding.check == check}


def told(findings: list[Finding], check: str, state: State) -> str:
    """The text of the findings of a check in a state; each of them must say what to do."""
    matching = [finding for finding in findings if (finding.check, finding.state) == (check, state)]
    assert matching, [finding for finding in findings if finding.check == check]
    assert state is OK or all(finding.advice for finding in matching)
    return "\n".join(finding.found for finding in matching)


def included_from(directory: Path) -> str:
    """The file with the users, as nats-server's `include` wants it: relative to the including one."""
    return os.path.relpath(PERMISSIONS, directory)


class ConfiguredNats(NatsServer):
    """nats-server with more in its configuration, or something of it replaced."""

    def __init__(self, directory: Path, *, more: str = "", replaced: tuple[str, str] = ("", "")) -> None:
        super().__init__(directory, sync_always="always" in more)
        self.more = more
        self.replaced = replaced

    def command(self) -> list[str]:
        command = super().command()
        config = Path(command[-1])
        text = config.read_text()
        assert self.replaced[0] in text
        config.write_text(text.replace(*self.replaced) + self.more if self.replaced[0] else text + self.more)
        return command


@contextmanager
def nats(directory: Path, **options: Any) -> Iterator[NatsServer]:
    server = ConfiguredNats(directory, **options)
    server.start()
    try:
        yield server
    finally:
        server.stop()


@asynccontextmanager
async def redis_with(url: str, **options: str) -> AsyncIterator[None]:
    """Settings of Redis for a moment."""
    raw = Redis.from_url(url, decode_responses=True)
    before = {name: str((await raw.config_get(name))[name]) for name in options}
    for name, value in options.items():
        await raw.config_set(name, value)
    try:
        yield
    finally:
        for name, value in before.items():
            await raw.config_set(name, value)
        await raw.aclose()


# -- a whole system -------------------------------------------------------------------------------------


async def test_own_pages_that_a_socket_server_refuses_are_found(
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


async def test_a_system_that_is_well_is_told_to_be(settings: Settings, bus: Bus, store: StateStore) -> None:
    async with System(settings) as system:
        await system.examinee()
        findings = await HealthCheck(settings).run()
        wrong = [one for one in findings if one.state in (WARNING, FAILED)]
        # The tests' System has no web server, and that is all there is to say.
        assert [(one.check, one.state) for one in wrong] == [("roles", WARNING)], wrong
        assert "web-server" in wrong[0].found
        assert "SOCK001, SOCK002" in told(findings, "roles", OK)
        for check in ("nats.version", "redis.eviction", "clocks", "streams", "versions", "fds", "lag", "dead letters"):
            assert states(findings, check) == {OK}, check
        assert states(findings, "state") == {OK}


async def test_who_is_missing_is_named(settings: Settings, bus: Bus, store: StateStore) -> None:
    async with System(settings, servers=("SOCK001",)) as system:
        assert "only SOCK001" in told(await HealthCheck(settings).run(), "roles", WARNING)
        await system.stop("state-manager")
        client = await system.raw()
        await client.hello(system.token("examinee", "E001"))  # its CONNECTED waits in the log
        findings = await HealthCheck(settings).run()
        assert "no state-manager runs" in told(findings, "roles", FAILED)
        assert "STATUS/state-manager" in told(findings, "lag", FAILED)


async def test_a_server_that_redis_believes_in_but_nobody_is(settings: Settings, bus: Bus, store: StateStore) -> None:
    async with System(settings, servers=("SOCK001",)):
        raw = Redis.from_url(settings.redis_url)
        for server_id, status in (("SOCK008", "LOST"), ("SOCK009", "READY")):
            await raw.sadd(keys.SERVERS, server_id)
            await raw.hset(keys.server_status(server_id), "statusCode", status)
        await raw.aclose()
        findings = await HealthCheck(settings).run()
        assert "SOCK009 is READY in Redis, but no process answers" in told(findings, "roles", FAILED)
        assert "SOCK008 is LOST" in told(findings, "roles", WARNING)


async def test_clocks_that_are_apart_are_told_for_each(settings: Settings, bus: Bus, store: StateStore) -> None:
    async with System(settings, servers=("SOCK001",)):
        slow = await HealthCheck(settings, clock=lambda: time.time() - 3).run()
        text = told(slow, "clocks", WARNING)
        for whose in ("NATS", "Redis", r"[a-z-]+[.][a-zA-Z0-9]+"):  # one of the actors: they are one process here
            assert re.search(f"the clock of {whose} is (3|2[.]99|3[.]0)[0-9]* s ahead of this machine's", text)
        assert len(text.splitlines()) == 3


async def test_an_actor_that_hangs_and_one_of_another_version(settings: Settings, bus: Bus, store: StateStore) -> None:
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


async def test_a_process_with_few_file_descriptors(
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


# -- NATS -----------------------------------------------------------------------------------------------


async def test_streams_and_consumers_that_are_not_as_declared(settings: Settings, bus: Bus, store: StateStore) -> None:
    findings = await HealthCheck(settings).run()
    assert "stream STATUS is missing" in told(findings, "streams", FAILED)
    await apply_topology(bus, settings)
    assert states(await HealthCheck(settings).run(), "streams") == {OK}
    config = (await bus._js.stream_info("SOCKET")).config
    await bus._js.update_stream(config.evolve(max_age=60.0, duplicate_window=60.0))
    await bus.delete_consumer("LEASE", "lease-watch")
    findings = await HealthCheck(settings).run()
    assert "max_age is 60.0, not 3600.0" in told(findings, "streams", WARNING)
    assert "consumer LEASE/lease-watch is missing" in told(findings, "streams", FAILED)


@pytest.mark.parametrize(("sync", "state"), [("always", OK), ("2m", WARNING)])
async def test_when_nats_writes_to_disk_is_seen_by_its_monitoring(
    settings: Settings, tmp_path: Path, sync: str, state: State
) -> None:
    port = free_port()
    monitoring = f"http://127.0.0.1:{port}"
    with nats(tmp_path / "nats", more=f"http: 127.0.0.1:{port}\n# {sync}\n") as server:
        at = settings.model_copy(update={"nats_url": server.url})
        assert states(await HealthCheck(at, monitoring=monitoring).run(), "nats.sync") == {state}
        assert states(await HealthCheck(at, monitoring="http://127.0.0.1:1").run(), "nats.sync") == {UNKNOWN}


@pytest.mark.parametrize(("sync", "state"), [("always", OK), ("2m", WARNING)])
async def test_when_the_broker_of_up_writes_to_disk_is_seen_by_its_configuration(
    settings: Settings, tmp_path: Path, sync: str, state: State
) -> None:
    unseen = "http://127.0.0.1:1"
    with nats(tmp_path / "nats", more=f"# {sync}\n") as server:
        at = settings.model_copy(update={"nats_url": server.url, "data_dir": tmp_path})
        assert states(await HealthCheck(at, monitoring=unseen).run(), "nats.sync") == {state}
    # Another broker is there now: this data directory says nothing about it.
    with nats(tmp_path / "other", more=f"# {sync}\n") as server:
        at = at.model_copy(update={"nats_url": server.url})
        assert states(await HealthCheck(at, monitoring=unseen).run(), "nats.sync") == {UNKNOWN}


async def test_a_broker_without_jetstream_and_with_small_messages(settings: Settings, tmp_path: Path) -> None:
    with nats(tmp_path / "small", replaced=("max_payload: 1MB", "max_payload: 64KB")) as server:
        findings = await HealthCheck(settings.model_copy(update={"nats_url": server.url})).run()
        assert "65536 bytes" in told(findings, "nats.max_payload", FAILED)
    with nats(tmp_path / "core", replaced=("jetstream {", "lame_duck_duration: 30s #")) as server:
        findings = await HealthCheck(settings.model_copy(update={"nats_url": server.url})).run()
        assert "not enabled" in told(findings, "nats.jetstream", FAILED)


# 64 MiB each are reserved for the log and the dead letters.
FULL_ACCOUNT = """
accounts { A { users: [{user: u, password: "the-password"}], jetstream: {max_file: 140000000} } }
no_auth_user: u
"""


@pytest.mark.parametrize(
    "limited",
    [{"replaced": ("jetstream {", "jetstream { max_file_store: 140000000,")}, {"more": FULL_ACCOUNT}],
    ids=["server", "account"],
)
async def test_a_broker_that_is_full_is_seen_by_the_doctor_and_by_the_queue_server(
    settings: Settings, store: StateStore, tmp_path: Path, limited: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("actors.queue_server.topology_watch.SAVE_SECONDS", 0.0)
    port = free_port()
    limited = {**limited, "more": f"http: 127.0.0.1:{port}\n{limited.get('more', '')}"}
    with nats(tmp_path / "nats", **limited) as server:
        little = settings.nats.model_copy(update={"status_max_bytes": 64 * 1024 * 1024})
        at = settings.model_copy(update={"nats_url": server.url, "nats": little})
        bus = await Bus.connect(at, "test")
        queue_server = QueueServer(at, bus)
        await queue_server.start()
        try:
            await see_it_full(bus, at, f"http://127.0.0.1:{port}" if "replaced" in limited else None)
        finally:
            await queue_server.stop()
            await bus.close()


async def see_it_full(bus: Bus, at: Settings, monitoring: str | None) -> None:
    async def writable(wanted: float) -> bool:
        return REGISTRY.get_sample_value("examwire_jetstream_writable") == wanted

    await eventually(lambda: writable(1.0), "probes are stored")
    assert states(await HealthCheck(at).run(), "nats.writes") == {OK}
    refused = {"stream": "SOCKET", "reason": "full"}
    before = REGISTRY.get_sample_value("examwire_publish_refusals_total", refused) or 0.0
    results = []
    for size in (900_000, 100_000, 10_000, 1000, 0):  # to the last byte: the account's limit counts each message
        results += [
            result
            for _ in range(18)
            for result in await bus.publish_many([Outgoing("socket.TEST", bytes(size)) for _ in range(10)])
        ]
    assert isinstance(results[-1], StreamFull)
    refusals = sum(isinstance(result, StreamFull) for result in results)
    assert REGISTRY.get_sample_value("examwire_publish_refusals_total", refused) == before + refusals
    findings = await HealthCheck(at).run()
    assert "JetStream is full and refuses every write" in told(findings, "nats.writes", FAILED)
    await eventually(lambda: writable(0.0), "the queue server's probe is refused")
    if monitoring is not None:  # who may look at the server itself sees it coming
        findings = await HealthCheck(at, monitoring=monitoring).run()
        assert "bytes of the server's storage" in told(findings, "nats.storage", FAILED)
    await bus._js.purge_stream("SOCKET")
    await eventually(lambda: writable(1.0), "there is room again")
    assert states(await HealthCheck(at).run(), "nats.writes") == {OK}


@pytest.mark.parametrize("refuses", [True, False])
async def test_a_stream_that_is_nearly_full_is_seen(
    settings: Settings, bus: Bus, store: StateStore, refuses: bool
) -> None:
    await apply_topology(bus, settings)
    config = (await bus._js.stream_info("DEADLETTER")).config
    discard = DiscardPolicy.NEW if refuses else DiscardPolicy.OLD
    await bus._js.update_stream(config.evolve(max_bytes=100_000, discard=discard))
    for _ in range(9):
        await bus.publish(Outgoing("deadletter.TEST", bytes(9_700)))
    text = told(await HealthCheck(settings).run(), "streams", WARNING)
    assert "stream DEADLETTER" in text
    assert ("a full stream refuses messages" if refuses else "the oldest messages are dropped") in text


async def test_what_the_user_may_not_do_is_named(settings: Settings, tmp_path: Path) -> None:
    users = (
        'authorization { users = [ { user: little, password: "little-password", '
        'permissions: { publish: { deny: ["$JS.API.INFO", "$JS.API.CONSUMER.LIST.>"] } } } ] }\n'
    )
    with nats(tmp_path / "nats", more=users) as server:
        url = server.url.replace("nats://", "nats://little:little-password@")
        findings = await HealthCheck(settings.model_copy(update={"nats_url": url})).run()
    text = told(findings, "permissions", WARNING)
    assert "'little'" in text
    assert "$js.api.info" in text.lower()
    assert all("little-password" not in one.found + one.advice for one in findings)


async def test_the_operators_user_may_see_all_that_the_doctor_asks_for(
    settings: Settings, store: StateStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in set(re.findall(r"\$(NATS_PASSWORD_\w+)", PERMISSIONS.read_text())):
        monkeypatch.setenv(variable, "one-password-for-all")
    with nats(tmp_path / "nats", more=f"include {included_from(tmp_path / 'nats')}\n") as server:

        def of(user: str) -> Settings:
            login = NatsSettings(user=user, password=SecretStr("one-password-for-all"))
            return settings.model_copy(update={"nats_url": server.url, "nats": login})

        bus = await Bus.connect(of("queue-server"), "queue-server")
        queue_server = QueueServer(of("queue-server"), bus)
        await queue_server.start()
        findings = await HealthCheck(of("operator")).run()
        assert states(findings, "permissions") == states(findings, "streams") == {OK}
        assert "queue-server" in told(findings, "fds", OK)  # its process has answered
        await queue_server.stop()
        await bus.close()


# -- Redis ----------------------------------------------------------------------------------------------


async def test_a_redis_that_forgets(settings: Settings, store: StateStore) -> None:
    async with redis_with(settings.redis_url, **{"maxmemory": "100mb", "maxmemory-policy": "allkeys-lru"}):
        assert "allkeys-lru" in told(await HealthCheck(settings).run(), "redis.eviction", FAILED)
    async with redis_with(settings.redis_url, appendonly="no"):
        assert "no persistence" in told(await HealthCheck(settings).run(), "redis.persistence", WARNING)
    async with redis_with(settings.redis_url, appendonly="no", save="900 1"):
        assert "snapshots only" in told(await HealthCheck(settings).run(), "redis.persistence", WARNING)
    async with redis_with(settings.redis_url, maxmemory="1mb"):
        assert states(await HealthCheck(settings).run(), "redis.memory") <= {WARNING, FAILED}
    assert states(await HealthCheck(settings).run(), "redis.eviction") == {OK}


async def test_a_redis_whose_state_is_gone(settings: Settings, bus: Bus, store: StateStore) -> None:
    async with System(settings, servers=("SOCK001",)) as system:
        await system.stop("state-manager")
        raw = Redis.from_url(settings.redis_url)
        await raw.flushall()
        await raw.aclose()
        assert told(await HealthCheck(settings).run(), "state", FAILED)


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


def doctor(*arguments: str, **engines: str) -> tuple[int, dict[str, Any]]:
    result = CliRunner().invoke(app, ["doctor", "-o", "json", *arguments], env=engines, catch_exceptions=False)
    return result.exit_code, json.loads(result.stdout)


def test_the_exit_code_says_how_bad_it_is(settings: Settings, tmp_path: Path) -> None:
    nowhere = {"EXAMWIRE_NATS_URL": "nats://127.0.0.1:1", "EXAMWIRE_REDIS_URL": "redis://127.0.0.1:1"}
    code, answer = doctor("--data-dir", str(tmp_path), **nowhere)
    assert (code, answer["state"]) == (4, "failed")
    code, answer = doctor("--data-dir", str(tmp_path), **nowhere | {"EXAMWIRE_REDIS_URL": settings.redis_url})
    assert (code, answer["state"]) == (1, "failed")
    assert {one["check"]: one["state"] for one in answer["findings"]}["redis"] == "ok"


# -- what cannot be had here ----------------------------------------------------------------------------


FACTS = ProcessFacts(
    host="h", pid=1, version="0.1.0", time="2026-01-05T09:00:00Z", fds_open=10, fd_limit=100, memory_bytes=1, listens={}
)


@pytest.mark.parametrize(
    ("findings", "check", "state"),
    [
        (judge_nats({"version": "2.11.9", "jetstream": True, "max_payload": 1 << 20}, []), "nats.version", FAILED),
        (judge_nats({"version": "2.14.0", "jetstream": True, "max_payload": 600_000}, []), "nats.max_payload", WARNING),
        (judge_nats({"version": "2.15.1"}, ["nats://broker:4222"]), "nats.users", WARNING),
        (judge_account({"error": {"code": 503, "description": "no"}}), "nats.jetstream", FAILED),
        (judge_account({"storage": 99, "limits": {"max_storage": 100}}), "nats.account", FAILED),
        (judge_account({"streams": 8, "limits": {"max_streams": 10}}), "nats.account", WARNING),
        (judge_redis("r", {"redis_version": "6.2.7", "aof_enabled": 1}, None), "redis.version", FAILED),
        (judge_redis("r", {"redis_version": "7.0.0", "role": "slave"}, None), "redis.role", FAILED),
        (
            judge_redis("r", {"redis_version": "7.0.0", "aof_enabled": 1, "aof_last_write_status": "err"}, None),
            "redis.persistence",
            FAILED,
        ),
        (
            judge_redis("r", {"redis_version": "7.0.0", "connected_clients": 99, "maxclients": 100}, None),
            "redis.clients",
            FAILED,
        ),
        (
            judge_redis("r", {"redis_version": "7.0.0", "maxmemory_policy": "volatile-ttl"}, ""),
            "redis.eviction",
            WARNING,
        ),
        ([judge_clock("NATS", -0.6, 0.05)], "clocks", WARNING),
        ([judge_clock("NATS", 0.6, 0.2)], "clocks", OK),
        ([judge_disk("/", GIB // 10, 100 * GIB)], "disk", FAILED),
        ([judge_disk("/", 2 * GIB, 100 * GIB)], "disk", WARNING),
        ([judge_memory(1, 100)], "memory", WARNING),
        (judge_process("a", FACTS.model_copy(update={"fds_open": 96}), None), "fds", FAILED),
        (judge_process("a", FACTS.model_copy(update={"fds_open": 85}), None), "fds", WARNING),
        (judge_process("a", FACTS.model_copy(update={"listens": {"web.host": "0.0.0.0"}}), None), "listening", OK),
    ],
)
def test_what_cannot_be_broken_here_is_judged(findings: Iterator[Finding], check: str, state: State) -> None:
    found = [finding for finding in findings if finding.check == check]
    assert worst(found) is state
    assert any(finding.state is state for finding in found)


def test_a_process_knows_itself() -> None:
    facts = process_facts()
    assert facts.pid == os.getpid()
    assert 0 < facts.fds_open < facts.fd_limit
