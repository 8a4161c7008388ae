"""The web server itself: pictures for proctors, health, metrics, its entry among the services, start and stop."""

from __future__ import annotations

import asyncio
import json
import shutil
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from prometheus_client import generate_latest

from actors.runtime.broker.connection import Bus
from actors.runtime.config.settings import Settings, load_settings
from actors.runtime.store.state_store import StateStore
from actors.runtime.telemetry.metrics import REGISTRY
from actors.web_server.server import WebServer
from cli.local.engines import NatsServer, RedisServer
from protocol.errors import ConfigurationError, NoResponders, RoleFailed
from protocol.messages.frames import Role
from protocol.records import keys
from tests.integration.support.clients.phones import Site, capture_path, open_site, picture, problem, upload_path
from tests.integration.support.system import System, eventually


@pytest.fixture
async def site(settings: Settings, bus: Bus, store: StateStore) -> AsyncIterator[Site]:
    async with open_site(settings, bus, store) as site:
        yield site


# -- pictures for proctors -------------------------------------------------------------------------------


async def test_a_proctor_of_the_plan_sees_the_picture_fresh_and_as_nothing_but_a_picture(site: Site) -> None:
    content = picture()
    await site.put(content)
    response = await site.get()
    assert (response.status_code, response.content) == (200, content)
    assert response.headers["content-type"] == "image/jpeg"
    assert response.headers["cache-control"] == "no-store"
    assert response.headers["x-content-type-options"] == "nosniff"
    newer = picture()
    await site.put(newer)
    assert (await site.get()).content == newer


@pytest.mark.parametrize(
    ("role", "subject", "plan_id"),
    [
        ("proctor", "T001", "P002"),
        ("examinee", "E002", "P001"),
        ("examinee", "E001", "P002"),
        ("mobile", "E001", "P001"),
        ("operator", "E001", "P001"),
    ],
)
async def test_nobody_but_proctors_and_the_examinee_sees_it(site: Site, role: Role, subject: str, plan_id: str) -> None:
    await site.put(picture())
    response = await site.http.get(capture_path(), headers=site.bearer(role, subject, plan_id))
    assert (response.status_code, problem(response)["code"]) == (403, "FORBIDDEN")
    bare = await site.http.get(capture_path())
    assert (bare.status_code, problem(bare)["code"]) == (401, "UNAUTHORIZED")


async def test_a_missing_picture_is_404_and_a_bad_id_400(site: Site) -> None:
    none = await site.get()
    assert (none.status_code, problem(none)["code"]) == (404, "NOT_FOUND")
    for field, path in {"planId": capture_path("P.1"), "examineeId": capture_path("P001", "../../secret")}.items():
        bad_id_response = await site.http.get(path, headers=site.bearer("proctor", "proctor-1"))
        assert (bad_id_response.status_code, problem(bad_id_response)["field"]) == (400, field)


# -- every address ---------------------------------------------------------------------------------------


async def test_head_answers_as_get_does_without_the_body(site: Site) -> None:
    await site.put(picture())
    for path in (capture_path(), "/healthz"):
        headers = site.bearer("proctor", "proctor-1")
        got, head = await site.http.get(path, headers=headers), await site.http.head(path, headers=headers)
        assert (head.status_code, head.content) == (200, b"")
        assert head.headers["content-type"] == got.headers["content-type"]
        assert head.headers["content-length"] == got.headers["content-length"]


@pytest.mark.parametrize(
    "path",
    ["/nowhere", "/metrics", "/readyz", "/v1/plans", "/healthz/", "/v1/plans/P001/captures/E001/other.gif", "/%ff"],
)
async def test_an_unknown_address_is_a_problem_document(site: Site, path: str) -> None:
    response = await site.http.get(path)
    assert (response.status_code, problem(response)["code"]) == (404, "NOT_FOUND")


async def test_a_wrong_method_gets_the_allowed_ones(site: Site) -> None:
    for method, path, allowed in (
        ("POST", upload_path(), {"PUT"}),
        ("DELETE", capture_path(), {"GET", "HEAD"}),
        ("PUT", "/healthz", {"GET", "HEAD"}),
    ):
        response = await site.http.request(method, path)
        assert (response.status_code, problem(response)["code"]) == (405, "NOT_ALLOWED")
        assert set(response.headers["allow"].split(", ")) == allowed


async def test_an_internal_error_is_a_problem_without_details_and_is_logged(
    site: Site, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_arguments: object) -> bytes:
        raise RuntimeError("something about our insides")

    monkeypatch.setattr(site.server.pictures, "read", broken)
    response = await site.get()
    assert (response.status_code, problem(response)["code"]) == (500, "INTERNAL_ERROR")
    assert "insides" not in response.text
    assert "something about our insides" in caplog.text
    inspection = site.server.inspection()
    assert (inspection.failed, inspection.last_error) == (1, "RuntimeError: something about our insides")
    monkeypatch.undo()
    assert (await site.get()).status_code == 404


# -- health and metrics ----------------------------------------------------------------------------------


async def test_without_its_engines_the_web_server_is_alive_and_stops_in_time(
    own_engines: tuple[NatsServer, RedisServer], tmp_path: Path
) -> None:
    nats, redis = own_engines
    settings = load_settings(nats_url=nats.url, redis_url=redis.url, data_dir=tmp_path / "data")
    bus, store = await Bus.connect(nats.url, "web"), StateStore(redis.url)
    server = WebServer(settings, bus, store)
    await server.start()
    redis.stop()
    nats.stop()
    async with httpx.AsyncClient(base_url=server.url, trust_env=False) as http:
        assert (await http.get("/healthz")).status_code == 200
        # NATS away is no reason not to stop in time.
        await asyncio.wait_for(server.stop(), 8)
    nats.start()

    async def back() -> bool:
        return bus.connected

    await eventually(back, "the bus connected again")
    await bus.close()
    await store.close()


async def test_metrics_count_outcomes_and_name_no_examinee(site: Site) -> None:
    def counted() -> dict[str, float]:
        uploads = {
            outcome: REGISTRY.get_sample_value("examwire_web_uploads_total", {"outcome": outcome}) or 0.0
            for outcome in ("STORED", "NOT_AN_IMAGE", "UNAUTHORIZED")
        }
        answers = {
            status: REGISTRY.get_sample_value(
                "examwire_web_request_seconds_count", {"method": "PUT", "route": "upload", "status": status}
            )
            or 0.0
            for status in ("201", "415", "401")
        }
        return uploads | answers

    before = counted()
    await site.put(picture(), examinee_id="E4711", plan_id="P4711")
    await site.put(b"nonsense", examinee_id="E4711", plan_id="P4711")
    await site.put(picture(), headers={})
    await site.http.get("/P4711/E4711")
    await site.http.request("E4711", "/healthz")
    text = generate_latest(REGISTRY).decode()
    assert {name: value - before[name] for name, value in counted().items()} == dict.fromkeys(before, 1.0)
    assert 'examwire_web_uploads_total{outcome="STORED"}' in text
    assert any(line.startswith("process_resident_memory_bytes") for line in text.splitlines())
    assert "E4711" not in text
    assert "P4711" not in text


# -- the actor -------------------------------------------------------------------------------------------


async def test_a_web_server_is_listed_and_inspected_until_it_stops(site: Site, bus: Bus) -> None:
    (entry,) = [entry for entry in await bus.services() if entry.name == "web-server"]
    assert (entry.metadata["address"], entry.metadata["kind"]) == (site.server.address, "web-server")
    await site.put(picture())
    inspection = json.loads(await bus.request(entry.metadata["inspect"]))
    assert (inspection["kind"], inspection["state"], inspection["handled"]) == ("web-server", "running", 1)
    assert inspection["details"] == {"url": site.server.url, "uploads": {"STORED": 1}}
    await site.server.stop()
    await site.server.stop()  # harmless
    assert [entry for entry in await bus.services() if entry.name == "web-server"] == []
    with pytest.raises(NoResponders):
        await bus.request(entry.metadata["inspect"])


async def test_a_port_that_is_taken_is_named(site: Site, bus: Bus, store: StateStore) -> None:
    port = int(site.server.url.rpartition(":")[2])
    web = site.settings.web.model_copy(update={"port": port})
    second = WebServer(site.settings.model_copy(update={"web": web}), bus, store)
    with pytest.raises(RoleFailed, match=rf"127\.0\.0\.1:{port}.*web\.port"):
        await second.start()
    await second.stop()


async def test_without_a_configured_secret_only_loopback_is_allowed(
    settings: Settings, bus: Bus, store: StateStore
) -> None:
    web = settings.web.model_copy(update={"host": "0.0.0.0"})
    server = WebServer(settings.model_copy(update={"web": web}), bus, store)
    with pytest.raises(ConfigurationError, match=r"web\.host"):
        await server.start()
    await server.stop()


async def test_signals_stay_those_of_the_role_and_the_port_is_free_afterwards(
    settings: Settings, bus: Bus, store: StateStore
) -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    server = WebServer(settings, bus, store)
    await server.start()
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before
    port = int(server.url.rpartition(":")[2])
    await server.stop()
    web = settings.web.model_copy(update={"port": port})
    second_server = WebServer(settings.model_copy(update={"web": web}), bus, store)
    await second_server.start()
    assert second_server.url == server.url
    await second_server.stop()


async def test_a_server_that_ends_by_itself_has_failed(settings: Settings, bus: Bus, store: StateStore) -> None:
    failures: list[BaseException] = []
    server = WebServer(settings, bus, store)
    await server.start(lambda _actor, error: failures.append(error))
    assert server._http is not None
    server._http.should_exit = True

    async def failed() -> bool:
        return bool(failures)

    await eventually(failed, "the failure reported")
    assert "ended by itself" in str(failures[0])
    await server.stop()


# -- with everybody else ---------------------------------------------------------------------------------


async def test_an_upload_with_curl_reaches_the_examinee_and_the_proctors(
    settings: Settings, bus: Bus, tmp_path: Path
) -> None:
    async with System(settings) as system:
        server = await system.start("web-server", lambda own: WebServer(settings, own, system.store))
        assert isinstance(server, WebServer)
        site = Site(server, settings, bus)
        proctors = [await system.proctor("SOCK001"), await system.proctor("SOCK002", name="proctor-2")]
        examinee = await system.examinee("E001", "SOCK002")
        await examinee.say("mobile_sync_wait", planId="P001", examineeId="E001")
        for proctor in proctors:
            await proctor.expect("mobile_sync_status", examineeId="E001", status="WAITING")

        content = picture()
        (tmp_path / "camera.jpg").write_bytes(content)
        curl = shutil.which("curl")
        if curl is None:
            assert (await site.put(content)).status_code == 201
        else:
            arguments = ["-sS", "--fail", "--noproxy", "*", "-T", str(tmp_path / "camera.jpg")]
            arguments += ["-H", f"Authorization: {site.bearer()['Authorization']}", server.url + upload_path()]
            process = await asyncio.create_subprocess_exec(curl, *arguments, stdout=asyncio.subprocess.PIPE)
            output, _ = await process.communicate()
            assert process.returncode == 0
            assert json.loads(output)["status"] == "COMPLETED"

        for client in (examinee, *proctors):
            completed = await client.expect("mobile_sync_completed", examineeId="E001")
            assert (completed["data"]["deviceId"], completed["data"]["imageUrl"]) == (
                "M001",
                "/captures/E001/sync_cap.jpg",
            )
        record = await system.store.entries(keys.mobile_sync("P001", "E001"))
        assert (record["status"], record["deviceId"], record["imageUrl"]) == (
            *("COMPLETED", "M001"),
            "/captures/E001/sync_cap.jpg",
        )
        assert json.loads(record["deviceInfo"]) == {"model": "iPhone 12", "osVersion": "iOS 15.0"}
        assert (await site.get()).content == content
        await site.http.aclose()
        assert system.failures == []
