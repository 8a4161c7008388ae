"""A role's metrics and health, and what is counted where it happens."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import httpx
import pytest

from actors.runtime.actor.supervisor import ChildSpec, Supervisor
from actors.runtime.broker.connection import Bus
from actors.runtime.config.settings import Settings
from actors.runtime.role.metrics_server import MetricsServer
from actors.runtime.role.probes import Probes
from actors.runtime.store.state_store import StateStore
from actors.runtime.telemetry.metrics import REGISTRY
from actors.state_manager.manager import StateManager
from cli.local.engines import NatsServer, RedisServer
from protocol.broker import subjects
from protocol.broker.streams import STATE_MANAGERS, STREAMS
from protocol.errors import BrokerUnavailable, RoleFailed
from protocol.messages.server_messages import ServerStatusCode
from tests.integration.support.system import System, eventually
from tests.support.metrics import sample
from tests.support.nats_faults import fail_pings


async def test_a_ping_on_a_broken_connection_counts_as_engine_down(bus: Bus, monkeypatch: pytest.MonkeyPatch) -> None:
    # As uvloop says it, before nats-py has noticed.
    broken = RuntimeError("unable to perform operation on <TCPTransport closed=True>; the handler is closed")
    fail_pings(monkeypatch, bus, broken)
    with pytest.raises(BrokerUnavailable):  # which the probes count; anything else would end them
        await bus.round_trip()


async def test_readiness_names_what_is_missing_and_liveness_stays_ok(
    own_engines: tuple[NatsServer, RedisServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("actors.runtime.role.probes.PROBE_SECONDS", 0.2)
    nats, redis = own_engines
    supervisor = Supervisor("role")
    needing, degrading = (MetricsServer("role", "127.0.0.1", 0, needs_redis=needs) for needs in (True, False))

    async def readiness(server: MetricsServer) -> tuple[int, list[str], list[str]]:
        response = await http.get(server.url.replace("/metrics", "/readyz"))
        body = response.json()
        return response.status_code, body.get("missing", []), body.get("degraded", [])

    async def becomes(server: MetricsServer, *expected: Any) -> None:
        async def so() -> bool:
            return await readiness(server) == expected

        await eventually(so, f"{expected}")

    async with httpx.AsyncClient(trust_env=False, timeout=10) as http:
        for server in (needing, degrading):
            await server.start(supervisor)
            assert await readiness(server) == (503, ["start", "nats", *(["redis"] if server is needing else [])], (
                [] if server is needing else ["redis"]
            ))  # fmt: skip
        bus, store = await Bus.connect(nats.url, "role"), StateStore(redis.url)
        probes = Probes(bus, store)
        probes.start()
        for server in (needing, degrading):
            server.watch(bus, store)
            server.started = True
            assert await readiness(server) == (200, [], [])
        scrapes = sample("examwire_scrape_seconds_count")
        assert "examwire_engine_up" in (await http.get(needing.url)).text
        assert sample("examwire_scrape_seconds_count") == scrapes + 1
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
        await probes.stop()
        for server in (needing, degrading):
            await server.stop()
            await server.stop()
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
    for consumer in STATE_MANAGERS:
        await bus.apply_consumer(consumer)
    actor = await supervisor.start_child(ChildSpec("manager", lambda: StateManager(settings, bus, store, "sm1")))
    server.started = True
    async with httpx.AsyncClient(trust_env=False) as http:
        ready = server.url.replace("/metrics", "/readyz")
        assert (await http.get(ready)).status_code == 200
        await actor.stop()
        response = await http.get(ready)
        assert (response.status_code, response.json()["missing"]) == (503, ["manager"])
    await server.stop()
    await supervisor.stop()


async def test_invalid_requests_to_the_metrics_server_are_refused() -> None:
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

    host = b" HTTP/1.1\r\nHost: x\r\n"
    head = await ask(b"HEAD /metrics" + host + b"\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"\r\ncache-control: no-store\r\n" in head
    assert head.endswith(b"\r\n\r\n")
    assert b"examwire_build_info" in await ask(b"GET /metrics?x=1 HTTP/1.0\r\n\r\n")
    asks_for_more = await ask(
        b"GET /metrics" + host + b"Accept: application/openmetrics-text;version=1.0.0\r\nAccept-Encoding: gzip\r\n\r\n"
    )
    assert b"\r\ncontent-type: text/plain; version=0.0.4; charset=utf-8\r\n" in asks_for_more.lower()
    assert b"examwire_build_info" in asks_for_more
    assert (await ask(b"POST /metrics" + host + b"Content-Length: 9\r\n\r\n")).startswith(b"HTTP/1.1 405 ")
    assert (await ask(b"GET /metrics" + host + b"Content-Length: 9\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
    assert (await ask(b"GET /" + host + b"\r\n")).startswith(b"HTTP/1.1 404 ")
    assert (await ask(b"GET /metrics/" + host + b"\r\n")).startswith(b"HTTP/1.1 404 ")
    for broken in (b"\r\n\r\n", b"nonsense\r\n\r\n", b"GET /metrics HTTP/1.1\r\n", b"GET /" + b"x" * 200_000):
        answer = await ask(broken)
        assert answer == b"" or answer.startswith(b"HTTP/1.1 400 "), broken[:30]
    assert (await ask(b"GET /healthz" + host + b"\r\n")).startswith(b"HTTP/1.1 200 ")  # none of it did harm
    await server.stop()


def test_a_taken_metrics_port_is_reported_with_its_address() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        with pytest.raises(RoleFailed, match=f"role: metrics cannot be served on 127.0.0.1:{port}"):
            MetricsServer("role", "127.0.0.1", port, needs_redis=False)


async def test_what_happens_to_examinees_is_counted_where_it_happens(
    settings: Settings, bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("actors.queue_server.metrics.ASK_SECONDS", 0.2)

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
            "settled": sample("examwire_state_stage_seconds_count", stage="settle"),
            "passed_on": sample("examwire_state_stage_seconds_count", stage="tell"),
        }

    async with System(settings) as system:
        before = counted()
        proctor = await system.proctor("SOCK002")
        first = await system.examinee("E001", "SOCK001")
        second = await system.examinee("E002", "SOCK002")
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
        assert now.pop("settled") == now.pop("passed_on") > 0
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

        second.abort()  # the reconnect watch has it until it comes back
        limit = (await bus.stream_state("STATUS")).limit or 0

        async def streams() -> bool:
            # The queue server asks every few seconds.
            queue = {"stream": "SOCKET", "consumer": "SOCK001_Q"}
            awaited = {"stream": "RECONNECT", "consumer": "reconnect-watch"}
            return (
                sample("examwire_stream_messages", stream="STATUS") > 4
                and sample("examwire_stream_last_sequence", stream="STATUS") > 4
                and 0 < sample("examwire_stream_size_bytes", stream="STATUS") < limit
                and sample("examwire_stream_limit_bytes", stream="STATUS") == limit
                and sample("examwire_stream_age_limit_seconds", stream="SOCKET") == 3600
                and sample("examwire_stream_replicas", stream="STATUS") == 1
                and sample("examwire_stream_replicas_current", stream="STATUS") == 1
                and sample("examwire_stream_up", stream="DEADLETTER") == 1
                and sample("examwire_consumer_waiting_pulls", **queue) == 1
                and sample("examwire_consumer_pending_messages", **queue) == 0
                and sample("examwire_consumer_unacknowledged_messages", **awaited) == 1
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
