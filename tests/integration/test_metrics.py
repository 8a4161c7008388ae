"""Metrics and health as they are served, and a real Prometheus that scrapes a real `examwire up`."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from actors.runtime.bus import Bus
from actors.runtime.metrics import REGISTRY
from actors.runtime.metrics_server import REQUEST_BYTES, MetricsServer
from actors.runtime.settings import Settings
from actors.runtime.state_store import StateStore
from actors.runtime.supervision import ChildSpec, Supervisor
from actors.runtime.vitals import Vitals
from actors.state_manager import StateManager
from cli.engines import NatsServer, RedisServer
from protocol import subjects
from protocol.errors import BrokerUnavailable, RoleFailed
from protocol.server_messages import ServerStatusCode
from protocol.streams import STATE_MANAGER, STREAMS
from tests.integration.system import System, eventually
from tests.integration.up import Up, running

DIRECTORY = Path(__file__).parents[2] / "docs" / "observability"
prometheus_there = pytest.mark.skipif(
    shutil.which("prometheus") is None, reason="prometheus is not installed (Debian: prometheus)"
)


def sample(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0.0


# -- one process ----------------------------------------------------------------------------------------


async def test_a_ping_on_a_connection_that_has_just_broken_is_an_engine_that_is_away(
    bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(_: object) -> None:
        raise RuntimeError("unable to perform operation on <TCPTransport closed=True>; the handler is closed")

    monkeypatch.setattr(bus._nc, "_send_ping", broken)  # as uvloop says it, before nats-py has noticed
    with pytest.raises(BrokerUnavailable):  # which the vitals count; anything else would end them
        await bus.round_trip()


async def test_a_role_says_what_it_lacks_and_is_alive_all_the_while(
    own_engines: tuple[NatsServer, RedisServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("actors.runtime.vitals.PROBE_SECONDS", 0.2)
    nats, redis = own_engines
    supervisor = Supervisor("role")
    needing, degrading = (MetricsServer("role", "127.0.0.1", 0, needs_redis=needs) for needs in (True, False))

    async def readiness(server: MetricsServer) -> tuple[int, list[str], list[str]]:
        told = await http.get(server.url.replace("/metrics", "/readyz"))
        body = told.json()
        return told.status_code, body.get("missing", []), body.get("degraded", [])

    async def becomes(server: MetricsServer, *wanted: Any) -> None:
        async def so() -> bool:
            return await readiness(server) == wanted

        await eventually(so, f"{wanted}")

    async with httpx.AsyncClient(trust_env=False, timeout=10) as http:
        for server in (needing, degrading):
            await server.start(supervisor)
            assert await readiness(server) == (503, ["start", "nats", *(["redis"] if server is needing else [])], (
                [] if server is needing else ["redis"]
            ))  # fmt: skip
        bus, store = await Bus.connect(nats.url, "role"), StateStore(redis.url)
        vitals = Vitals(bus, store)
        vitals.start()
        for server in (needing, degrading):
            server.watch(bus, store)
            server.started = True
            assert await readiness(server) == (200, [], [])
        errors = sample("examwire_engine_round_trip_errors_total", engine="redis")
        redis.stop()
        await becomes(needing, 503, ["redis"], [])
        await becomes(degrading, 200, [], ["redis"])

        async def redis_is(up: float) -> bool:
            return sample("examwire_engine_up", engine="redis") == up

        await eventually(lambda: redis_is(0.0), "Redis down in the metrics")
        assert sample("examwire_engine_round_trip_errors_total", engine="redis") > errors
        reconnects = sample("examwire_nats_reconnects_total")
        nats.stop()
        await becomes(needing, 503, ["nats", "redis"], [])
        assert (await http.get(needing.url.replace("/metrics", "/healthz"))).status_code == 200
        nats.start()
        redis.start()
        await becomes(needing, 200, [], [])
        await eventually(lambda: redis_is(1.0), "Redis up in the metrics")
        assert sample("examwire_nats_reconnects_total") == reconnects + 1
        assert sample("examwire_engine_round_trip_seconds_count", engine="redis") > 0
        assert abs(sample("examwire_clock_offset_seconds")) < 0.5  # the same machine
        await vitals.stop()
        for server in (needing, degrading):
            server.stop()
            server.stop()
        with pytest.raises(httpx.ConnectError):
            await http.get(needing.url)
    await bus.close()
    await store.close()


async def test_a_role_whose_actor_has_ended_is_not_ready(settings: Settings, bus: Bus, store: StateStore) -> None:
    supervisor = Supervisor("role")
    server = MetricsServer("state-manager", "127.0.0.1", 0, needs_redis=True)
    await server.start(supervisor)
    server.watch(bus, store)
    for spec in STREAMS:
        await bus.apply_stream(spec)
    await bus.apply_consumer(STATE_MANAGER)
    actor = await supervisor.start_child(ChildSpec("manager", lambda: StateManager(settings, bus, store, "sm1")))
    server.started = True
    async with httpx.AsyncClient(trust_env=False) as http:
        ready = server.url.replace("/metrics", "/readyz")
        assert (await http.get(ready)).status_code == 200
        await actor.stop()
        told = await http.get(ready)
        assert (told.status_code, told.json()["missing"]) == (503, ["manager"])
    server.stop()
    await supervisor.stop()


async def test_what_is_no_request_for_metrics_gets_a_plain_answer_or_none() -> None:
    server = MetricsServer("role", "127.0.0.1", 0, needs_redis=False)
    await server.start(Supervisor("role"))
    port = int(server.url.split(":")[2].partition("/")[0])

    async def ask(request: bytes) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(request)
        writer.write_eof()
        try:
            return await asyncio.wait_for(reader.read(), 10)
        except ConnectionResetError:
            return b""
        finally:
            writer.close()

    head = await ask(b"HEAD /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    assert head.endswith(b"\r\n\r\n")
    assert b"examwire_build_info" in await ask(b"GET /metrics?x=1 HTTP/1.0\r\n\r\n")
    assert (await ask(b"POST /metrics HTTP/1.1\r\n\r\n")).startswith(b"HTTP/1.1 405 ")
    assert (await ask(b"GET / HTTP/1.1\r\n\r\n")).startswith(b"HTTP/1.1 404 ")
    assert (await ask(b"\r\n\r\n")).startswith(b"HTTP/1.1 405 ")
    assert await ask(b"GET /metrics HTTP/1.1\r\n") == b""  # no end of it
    assert await ask(b"GET /" + b"x" * REQUEST_BYTES * 2) == b""
    assert (await ask(b"GET /healthz HTTP/1.1\r\n\r\n")).startswith(b"HTTP/1.1 200 ")  # none of it did harm
    server.stop()


def test_a_port_that_is_taken_is_told_with_its_address() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(RoleFailed, match=f"role: metrics cannot be served on 127.0.0.1:{port}"):
            MetricsServer("role", "127.0.0.1", port, needs_redis=False)


async def test_what_happens_to_examinees_is_counted_where_it_happens(
    settings: Settings, bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("actors.queue_metrics.ASK_SECONDS", 0.2)

    def counted() -> dict[str, float]:
        return {
            "accepts": sample("examwire_socket_accepts_total", client="examinee"),
            "broken": sample("examwire_socket_closes_total", code="1006"),
            "normal": sample("examwire_socket_closes_total", code="1000"),
            "losses": sample("examwire_losses_total", reason="SOCKET_CLOSED"),
            "recoveries": sample("examwire_recoveries_total", reason="SOCKET_CLOSED"),
            "outages": sample("examwire_outage_seconds_count"),
            "told": sample("examwire_proctor_latency_seconds_count", event="loss"),
            "late": sample("examwire_proctor_latency_seconds_count", event="loss")
            - sample("examwire_proctor_latency_seconds_bucket", event="loss", le="10.0"),
            "applied": sample("examwire_state_facts_total", outcome="applied"),
            "published": sample("examwire_publish_seconds_count"),
        }

    async with System(settings) as system:
        before = counted()
        proctor = await system.proctor("SOCK002")
        first = await system.examinee("E001", "SOCK001")
        await system.examinee("E002", "SOCK002")
        assert sample("examwire_socket_connections", client="examinee") == 2
        assert sample("examwire_socket_connections", client="proctor") == 1
        assert sample("examwire_socket_accepting") == 2  # of the two servers of this process
        first.abort()
        await proctor.expect("examinee_disconnected", examineeId="E001")
        await system.examinee("E001", "SOCK002", connection_no=2)
        await proctor.expect("examinee_connected", examineeId="E001", recovered=True, recoveredFrom="SOCKET_CLOSED")
        await proctor.close()
        assert sample("examwire_socket_connections", client="examinee") == 2

        async def seen() -> dict[str, float]:
            now = {name: value - before[name] for name, value in counted().items()}
            return now if now["normal"] and now["recoveries"] else {}

        now = await eventually(seen, "the proctor's close and the recovery are counted")
        assert now.pop("published") > 0
        assert now.pop("applied") >= 4
        assert now == {
            "accepts": 3,
            "broken": 1,
            "normal": 1,
            "losses": 1,
            "recoveries": 1,
            "outages": 1,
            "told": 1,
            "late": 0,
        }

        async def streams() -> bool:
            # The queue server asks every few seconds.
            queue = {"stream": "SOCKET", "consumer": "SOCK001_Q"}
            return (
                sample("examwire_stream_messages", stream="STATUS") > 4
                and sample("examwire_stream_up", stream="DEADLETTER") == 1
                and sample("examwire_consumer_waiting_pulls", **queue) == 1
                and sample("examwire_consumer_pending_messages", **queue) == 0
                and sample("examwire_jetstream_storage_bytes") > 0
            )

        await eventually(streams, "what the broker has is told")
        dead = sample("examwire_dead_letters_total", stream="STATUS")
        await bus.publish_core(subjects.status_plan("P001"), b'{"type":"nonsense"}')

        async def put_aside() -> bool:
            return sample("examwire_dead_letters_total", stream="STATUS") == dead + 1

        await eventually(put_aside, "a dead letter is counted")
    assert sample("examwire_stream_up", stream="STATUS") == 0  # nobody asks any more, so nobody knows
    assert REGISTRY.get_sample_value("examwire_stream_up", {"stream": "STATUS"}) is None


async def test_a_refused_handshake_counts_by_its_reason_and_is_no_close(settings: Settings, bus: Bus) -> None:
    few = settings.model_copy(update={"socket": settings.socket.model_copy(update={"max_connections": 1})})
    refused = sample("examwire_socket_refusals_total", reason="full")
    async with System(few, servers=("SOCK001",)) as system:
        await system.examinee("E001")
        closes = {code: sample("examwire_socket_closes_total", code=code) for code in ("1006", "1000", "other")}
        with pytest.raises(Exception, match="503"):
            await system.raw()
        assert sample("examwire_socket_refusals_total", reason="full") == refused + 1
        assert closes == {code: sample("examwire_socket_closes_total", code=code) for code in closes}
        assert await system.server_is("SOCK001", ServerStatusCode.READY)


# -- a real up, a real Prometheus -----------------------------------------------------------------------


@dataclass
class Prometheus:
    """A running one, by its HTTP API."""

    http: httpx.Client

    def get(self, path: str, **parameters: str) -> Any:
        body = self.http.get(f"/api/v1/{path}", params=parameters).json()
        assert body["status"] == "success", body
        return body["data"]

    def ready(self) -> bool:
        try:
            return self.http.get("/-/ready").status_code == 200
        except httpx.TransportError:
            return False

    def firing(self) -> set[tuple[str, str]]:
        """(alert, instance) of those that fire."""
        found = self.get("query", query='ALERTS{alertstate="firing"}')["result"]
        return {(one["metric"]["alertname"], one["metric"].get("instance", "")) for one in found}


def until(condition: Any, what: str, seconds: float = 30.0) -> Any:
    deadline = time.monotonic() + seconds
    while not (result := condition()):
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.1)
    return result


@contextmanager
def prometheus(directory: Path, targets: Path) -> Iterator[Prometheus]:
    """Our configuration and our alerts, at a quicker pace than an exam needs."""
    directory.mkdir()
    config = (DIRECTORY / "prometheus.yml").read_text()
    config = re.sub(r"(scrape_interval|scrape_timeout): \w+", r"\1: 1s", config)
    config = re.sub(r"evaluation_interval: \w+", "evaluation_interval: 250ms", config)
    (directory / "prometheus.yml").write_text(config.replace("targets/*.json", str(targets)))
    (directory / "alerts.yml").write_text(re.sub(r"for: \w+", "for: 250ms", (DIRECTORY / "alerts.yml").read_text()))
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    options = [f"--storage.tsdb.path={directory}/data", f"--web.listen-address={address}", "--log.level=warn"]
    with (directory / "log").open("w") as log:
        process = subprocess.Popen(["prometheus", "--config.file=prometheus.yml", *options], cwd=directory, stderr=log)
    try:
        # Without `verify`, no certificates are loaded.
        with httpx.Client(base_url=f"http://{address}", trust_env=False, verify=False, timeout=20) as http:
            found = Prometheus(http)
            until(lambda: process.poll() is not None or found.ready(), "Prometheus is ready")
            assert process.poll() is None, (directory / "log").read_text()
            yield found
    finally:
        process.terminate()
        process.wait(timeout=20)


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    with running(tmp_path_factory.mktemp("metrics") / "data") as up:
        yield up


def targets_of(up: Up) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((up.data_dir / "prometheus-targets.json").read_text())
    return found


def expositions(up: Up) -> dict[str, str]:
    """What each process says of itself, by its name."""
    return {
        one["labels"]["instance"]: httpx.get(f"http://{one['targets'][0]}/metrics", trust_env=False).text
        for one in targets_of(up)
    }


def expressions() -> dict[str, str]:
    """Every PromQL expression of the dashboard and of the alerts, by where it stands."""
    found = {}
    dashboard = json.loads((DIRECTORY / "grafana" / "dashboards" / "examwire.json").read_text())
    for panel in dashboard["panels"]:
        for target in panel.get("targets", []):
            found[f"{panel['title']} {target['refId']}"] = target["expr"].replace("$__rate_interval", "1m")
    for one in dashboard["annotations"]["list"]:
        if "expr" in one:
            found[one["name"]] = one["expr"]
    alerts = (DIRECTORY / "alerts.yml").read_text()
    for name, block, one_line in re.findall(
        r"- alert: (\w+)\n(?:\s+#.*\n)*\s+expr: (?:\|\n((?:\s{10,}.*\n)+)|(.+)\n)", alerts
    ):
        found[name] = block or one_line
    assert len(found) > 100
    return found


def test_every_process_has_metrics_and_health_of_its_own(up: Up) -> None:
    names = ["queue-server", "state-manager", "SOCK001", "SOCK002", "web-server"]
    roles = ["queue-server", "state-manager", "socket-server", "socket-server", "web-server"]
    targets = targets_of(up)
    assert [(one["labels"]["instance"], one["labels"]["role"]) for one in targets] == list(
        zip(names, roles, strict=True)
    )
    for one in targets:
        for path in ("healthz", "readyz"):
            answer = httpx.get(f"http://{one['targets'][0]}/{path}", trust_env=False)
            assert (answer.status_code, answer.json()["role"]) == (200, one["labels"]["role"])
    told = expositions(up)
    # Each tells what it is and what it does, and nothing of what others do.
    own = {
        "queue-server": "examwire_stream_messages",
        "state-manager": "examwire_losses_total",
        "SOCK001": "examwire_socket_connections",
        "SOCK002": "examwire_socket_connections",
        "web-server": "examwire_web_uploads_total",
    }
    for name, metric in own.items():
        assert {one for one, text in told.items() if f"# TYPE {metric} " in text} == {
            other for other, its in own.items() if its == metric
        }
        for common in ("examwire_build_info", "examwire_event_loop_lag_seconds", "process_open_fds"):
            assert f"# TYPE {common} " in told[name]
    web = httpx.get(up.ready["metricsUrl"], trust_env=False).text
    assert "examwire_web_uploads_total" in web


def test_every_metric_that_alerts_and_dashboard_speak_of_is_told_by_some_role(up: Up) -> None:
    told = "\n".join(expositions(up).values())
    types = dict(re.findall(r"^# TYPE (\w+) (\w+)$", told, re.MULTILINE))
    there = set(types) | {"up", "ALERTS"}
    there |= {f"{name}{end}" for name, kind in types.items() if kind == "histogram" for end in _HISTOGRAM}
    labels: dict[str, set[str]] = {}
    for name, found in re.findall(r"^(\w+)\{([^}]*)\}", told, re.MULTILINE):
        labels.setdefault(name, set()).update(re.findall(r"(\w+)=", found))
    target = {"job", "role", "instance"}
    for where, expression in expressions().items():
        names = re.findall(r"\b(?:examwire_|process_|python_)\w+", expression)
        assert names or "up{" in expression or "ALERTS" in expression, where
        assert set(names) <= there, where
        for name, selector in re.findall(r"\b((?:examwire|process)_\w+)\{([^}]+)\}", expression):
            if name in labels or name.startswith("process_"):
                assert set(re.findall(r"(\w+)(?:=|!=|=~|!~)\"", selector)) <= labels.get(name, set()) | target, where


_HISTOGRAM = ("_bucket", "_sum", "_count")


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed (Debian: prometheus)")
def test_promtool_likes_the_metrics_of_every_role(up: Up) -> None:
    for name, text in expositions(up).items():
        done = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, text=True, timeout=20)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", ""), name


@prometheus_there
def test_prometheus_scrapes_them_all_and_a_server_that_stands_still_raises_alerts(up: Up, tmp_path: Path) -> None:
    with prometheus(tmp_path / "prometheus", up.data_dir / "prometheus-targets.json") as found:

        def all_up() -> bool:
            targets = found.get("targets", state="active")["activeTargets"]
            return len(targets) == 5 and {one["health"] for one in targets} == {"up"}

        until(all_up, "all targets are up")
        until(lambda: found.get("query", query="sum(examwire_socket_accepting)")["result"], "scraped")
        for where, expression in expressions().items():
            assert isinstance(found.get("query", query=expression)["result"], list), where
        groups = found.get("rules")["groups"]
        assert {rule["health"] for group in groups for rule in group["rules"]} <= {"ok", "unknown"}
        until(lambda: found.firing() == set(), "what fired before the first scrape is quiet")

        frozen = up.pid_of("SOCK002")
        os.kill(frozen, signal.SIGSTOP)
        try:
            until(lambda: {("RoleDown", "SOCK002"), ("SocketServerLost", "")} <= found.firing(), "both alerts fire")
            assert ("RoleDown", "SOCK001") not in found.firing()
        finally:
            os.kill(frozen, signal.SIGCONT)
        until(lambda: ("RoleDown", "SOCK002") not in found.firing(), "it answers again")
        assert {rule["health"] for group in found.get("rules")["groups"] for rule in group["rules"]} == {"ok"}
