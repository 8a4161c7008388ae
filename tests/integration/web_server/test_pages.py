"""Pages and their files over HTTP, what they ask about a plan, and a real page's Origin at a real socket server."""

from __future__ import annotations

import asyncio
import csv
import gzip
import io
from collections.abc import AsyncIterator
from urllib.parse import urlsplit

import httpx
import pytest
from redis.asyncio import Redis
from websockets.exceptions import InvalidStatus

from actors.runtime.broker.connection import Bus
from actors.runtime.config.settings import Settings
from actors.runtime.store.state_store import StateStore
from actors.web_server.pages import DIRECTORY, EMBEDDABLE, PAGES
from actors.web_server.server import WebServer
from protocol.messages.frames import Role
from protocol.records import keys
from tests.integration.support.clients.phones import Site, open_site, problem
from tests.integration.support.settings import changed
from tests.integration.support.system import RawClient, System, eventually


@pytest.fixture
async def site(settings: Settings, bus: Bus, store: StateStore) -> AsyncIterator[Site]:
    async with open_site(settings, bus, store) as site:
        yield site


@pytest.fixture
async def exam(settings: Settings, bus: Bus) -> AsyncIterator[tuple[System, Site]]:
    """Everything, with a web server."""
    async with System(settings) as system:
        server = await system.start("web-server", lambda own: WebServer(settings, own, system.store))
        assert isinstance(server, WebServer)
        site = Site(server, settings, bus)
        yield system, site
        await site.http.aclose()
        assert system.failures == []


async def announce(settings: Settings, server_id: str, **fields: str) -> None:
    """A socket server's record, as the state manager would have written it."""
    redis = Redis.from_url(settings.redis_url)
    await redis.sadd(keys.SERVERS, server_id)
    await redis.hset(keys.server_status(server_id), items=[part for pair in fields.items() for part in pair])
    await redis.aclose()


# -- pages and their files -------------------------------------------------------------------------------


async def test_a_page_comes_with_a_strict_policy(site: Site) -> None:
    for path in PAGES:
        check_headers(path, await site.http.get(path))
        if path != "/":
            moved = await site.http.get(f"{path}/?lang=ko", follow_redirects=False)
            # Without a host: behind a proxy the server does not know its own name.
            assert (moved.status_code, moved.headers["location"]) == (308, f"{path}?lang=ko")


def check_headers(path: str, response: httpx.Response) -> None:
    assert response.status_code == 200
    assert response.headers["content-type"] == "text/html; charset=utf-8"
    assert response.headers["cache-control"] == "no-cache"
    assert response.headers["referrer-policy"] == "no-referrer"
    assert response.headers["x-content-type-options"] == "nosniff"
    assert response.headers["cross-origin-opener-policy"] == "same-origin"
    assert ("camera=(self)" in response.headers["permissions-policy"]) is (path == "/phone")
    rules = dict(rule.split(" ", 1) for rule in response.headers["content-security-policy"].split("; "))
    assert (rules["default-src"], rules["script-src"], rules["frame-ancestors"]) == ("'none'", "'self'", "'none'")
    assert "access-control-allow-origin" not in response.headers
    assert "{{" not in response.text


async def test_a_page_may_connect_to_all_socket_servers_also_restarting_ones(site: Site) -> None:
    async def connect_sources() -> list[str]:
        policy = (await site.http.get("/examinee")).headers["content-security-policy"]
        (sources,) = [rule.split(" ")[1:] for rule in policy.split("; ") if rule.startswith("connect-src ")]
        return sorted(sources)

    assert await connect_sources() == ["'self'"]
    assert (await site.http.get("/v1/endpoints")).status_code == 503
    await announce(site.settings, "S1", statusCode="READY", url="ws://127.0.0.1:9001/v1/connect", startTime="2")
    await announce(site.settings, "S2", statusCode="STOPPED", url="wss://exam.example/v1/connect", startTime="1")
    for number in range(40):  # names of old
        await announce(site.settings, f"OLD{number:02}", statusCode="LOST", url=f"ws://old{number}:1", startTime="0")

    async def known() -> bool:
        return "ws://127.0.0.1:9001" in await connect_sources() and "wss://exam.example" in await connect_sources()

    await eventually(known, "the page may connect to both")
    assert sum("//old" in source for source in await connect_sources()) < 40
    response = await site.http.get("/v1/endpoints", headers={"Origin": "https://exam.example"})
    assert response.json() == {
        "socketServers": ["ws://127.0.0.1:9001/v1/connect"],
        "mobileSyncSeconds": 120.0,
        "maxPictureBytes": 20 * 1024 * 1024,
    }
    assert response.headers["access-control-allow-origin"] == "*"  # addresses are no secret
    assert response.headers["cache-control"] == "no-store"


async def test_without_a_ready_server_endpoints_answer_503(site: Site) -> None:
    response = await site.http.get("/v1/endpoints")
    assert (response.status_code, problem(response)["code"]) == (503, "UNAVAILABLE")
    assert int(response.headers["retry-after"]) > 0
    assert response.headers["access-control-allow-origin"] == "*"


async def test_files_are_compressed_and_cached_by_etag(site: Site) -> None:
    path, content = "/static/common/base.css", (DIRECTORY / "static" / "common/base.css").read_bytes()
    plain = await site.http.get(path, headers={"Accept-Encoding": "identity"})
    assert (plain.content, plain.headers["content-type"]) == (content, "text/css; charset=utf-8")
    assert plain.headers["cache-control"] == "no-cache"
    async with site.http.stream("GET", path, headers={"Accept-Encoding": "gzip"}) as packed:
        raw = b"".join([part async for part in packed.aiter_raw()])
        assert (packed.headers["content-encoding"], gzip.decompress(raw)) == ("gzip", content)
        assert len(raw) < len(content) / 2
    unchanged = await site.http.get(path, headers={"Accept-Encoding": "gzip", "If-None-Match": packed.headers["etag"]})
    assert (unchanged.status_code, unchanged.content) == (304, b"")
    head = await site.http.head(path, headers={"Accept-Encoding": "identity"})
    assert (head.status_code, head.content, head.headers["etag"]) == (200, b"", plain.headers["etag"])
    assert head.headers["content-length"] == str(len(content))


async def test_files_have_their_type_and_only_embeddable_ones_allow_other_sites(
    site: Site,
) -> None:
    served = sorted((DIRECTORY / "static").rglob("*"))
    for file in [path for path in served if path.is_file()]:
        name = file.relative_to(DIRECTORY / "static").as_posix()
        response = await site.http.get(f"/static/{name}")
        assert (response.status_code, response.content) == (200, file.read_bytes()), name
        assert response.headers["x-content-type-options"] == "nosniff"
        policy = response.headers["cross-origin-resource-policy"]
        assert policy == ("cross-origin" if name in EMBEDDABLE else "same-origin")
        assert ("access-control-allow-origin" in response.headers) is (name in EMBEDDABLE)
        if name.endswith(".js"):
            assert response.headers["content-type"] == "text/javascript; charset=utf-8"
    assert (await site.http.get("/favicon.ico")).headers["content-type"] == "image/svg+xml"


NOWHERE = [
    *("/static/", "/static/none.js", "/static/../proctor.html", "/static/%2e%2e/proctor.html", "/proctor.html"),
    *("/static/..%2f..%2fweb_server.py", "/static//etc/passwd", "/static/common/base.css/", "/static/%00"),
]


async def test_nothing_else_is_served(site: Site) -> None:
    for path in NOWHERE:
        answer = await answer_to(site, path)
        assert answer.startswith(b"HTTP/1.1 404 "), path
        assert b"application/problem+json" in answer, path


async def answer_to(site: Site, path: str) -> bytes:
    """What a GET of exactly this path is answered with: httpx would tidy it up."""
    parts = urlsplit(site.server.url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
    answer = await asyncio.wait_for(reader.read(), 10)
    writer.close()
    await writer.wait_closed()
    return answer


async def test_a_page_takes_no_other_method(site: Site) -> None:
    response = await site.http.post("/proctor")
    assert (response.status_code, problem(response)["code"]) == (405, "NOT_ALLOWED")


# -- what happened ---------------------------------------------------------------------------------------


async def test_a_proctor_reads_an_examinees_timeline_and_outages(exam: tuple[System, Site]) -> None:
    system, site = exam
    watching = site.bearer("proctor", "T1")
    path = "/v1/plans/P001/examinees/E001/timeline"
    client = await system.examinee("E001")
    client.abort()
    await system.status("E001", "DISCONNECTED")
    await system.examinee("E001", connection_no=2)
    await system.status("E001", "CONNECTED")
    await system.examinee("E002")
    await system.status("E002", "CONNECTED")
    timeline = (await site.http.get(path, headers=watching)).json()
    assert (timeline["planId"], timeline["examineeId"], timeline["older"], timeline["complete"]) == (
        "P001",
        "E001",
        0,
        True,
    )
    assert [entry["what"] for entry in timeline["entries"]] == ["JOINED", "LOST", "RECOVERED"]
    assert {entry["examineeId"] for entry in timeline["entries"]} == {"E001"}
    assert (timeline["outages"]["outages"], timeline["outages"]["stillDisconnected"]) == (1, False)
    assert timeline["outages"]["outageSeconds"] == timeline["entries"][2]["seconds"]
    newest = (await site.http.get(f"{path}?limit=1", headers=watching)).json()
    assert ([entry["what"] for entry in newest["entries"]], newest["older"]) == (["RECOVERED"], 2)
    assert newest["outages"] == timeline["outages"]
    earlier = (await site.http.get(f"{path}?limit=1&before={newest['before']}", headers=watching)).json()
    assert (earlier["entries"], earlier["outages"]) == (timeline["entries"][1:2], None)
    first = (await site.http.get(f"{path}?before={earlier['before']}", headers=watching)).json()
    assert (first["entries"], first["before"]) == (timeline["entries"][:1], None)


async def test_the_report_is_a_table_of_everybodys_outages(exam: tuple[System, Site]) -> None:
    system, site = exam
    watching = site.bearer("proctor", "T1")
    for examinee_id in ("E001", "-E2"):
        client = await system.examinee(examinee_id)
        if examinee_id == "E001":
            client.abort()
            await system.status("E001", "DISCONNECTED")
    response = await site.http.get("/v1/plans/P001/report.csv", headers=watching)
    assert response.headers["content-type"] == "text/csv; charset=utf-8"
    assert response.headers["content-disposition"] == 'attachment; filename="outages-P001.csv"'
    assert response.headers["cache-control"] == "no-store"
    rows = list(csv.DictReader(io.StringIO(response.content.decode("utf-8-sig"))))
    assert [(row["examineeId"], row["outages"], row["stillDisconnected"]) for row in rows] == [
        ("'-E2", "0", "no"),  # no formula to a spreadsheet
        ("E001", "1", "yes"),
    ]
    affected = await site.http.get("/v1/plans/P001/report.csv?affected=true", headers=watching)
    assert [row["examineeId"] for row in csv.DictReader(io.StringIO(affected.content.decode("utf-8-sig")))] == ["E001"]
    early = await site.http.get("/v1/plans/P001/report.csv?to=2024-01-01T00:00:00Z", headers=watching)
    assert (early.status_code, len(early.text.splitlines())) == (200, 1)


TIMELINE, REPORT = "/v1/plans/{}/examinees/{}/timeline", "/v1/plans/{}/report.csv"


async def test_nobody_else_reads_them(site: Site) -> None:
    strangers: list[tuple[Role, str]] = [
        ("proctor", "P002"),
        ("examinee", "P001"),
        ("mobile", "P001"),
        ("operator", "P001"),
    ]
    for path in (TIMELINE.format("P001", "E001"), REPORT.format("P001")):
        for role, plan_id in strangers:
            response = await site.http.get(path, headers=site.bearer(role, "E001", plan_id))
            assert (response.status_code, problem(response)["code"]) == (403, "FORBIDDEN")
        bare = await site.http.get(path)
        assert (bare.status_code, problem(bare)["code"]) == (401, "UNAUTHORIZED")


DOES_NOT_FIT = [
    (TIMELINE.format("P.1", "E001"), "planId"),
    (TIMELINE.format("P001", "a%2Fb"), "examineeId"),
    (TIMELINE.format("P001", "E001") + "?limit=0", "limit"),
    (TIMELINE.format("P001", "E001") + "?limit=many", "limit"),
    (TIMELINE.format("P001", "E001") + "?limit=100000", "limit"),
    (TIMELINE.format("P001", "E001") + "?all=yes", "all"),
    (REPORT.format("P%201"), "planId"),
    (REPORT.format("P001") + "?from=yesterday", "from"),
    (REPORT.format("P001") + "?to=2024-01-01", "to"),
    (REPORT.format("P001") + "?ignoreBelowSeconds=nan", "ignoreBelowSeconds"),
    (REPORT.format("P001") + "?affected=1", "affected"),
]


async def test_an_invalid_parameter_is_named(site: Site) -> None:
    for path, field in DOES_NOT_FIT:
        response = await site.http.get(path, headers=site.bearer("proctor", "T1"))
        assert (response.status_code, problem(response)["code"]) == (400, "INVALID_FIELD"), path
        assert problem(response)["field"] == field


async def test_an_examinee_without_facts_is_not_found(site: Site) -> None:
    for path in (TIMELINE.format("P001", "E001"), REPORT.format("P001")):
        response = await site.http.get(path, headers=site.bearer("proctor", "T1"))
        assert (response.status_code, problem(response)["code"]) == (404, "NOT_FOUND")


# -- a page of the web server at a socket server ---------------------------------------------------------


async def test_a_page_of_the_web_server_may_connect_to_the_socket_servers_and_a_strangers_page_may_not(
    exam: tuple[System, Site],
) -> None:
    system, site = exam
    own = site.server.url
    for origin in (own, own.replace("127.0.0.1", "localhost"), own.replace("http:", "https:")):
        client = await system.raw("SOCK001", origin=origin)
        await client.hello(system.token("examinee", "E001"))
    with pytest.raises(InvalidStatus) as refused:
        await RawClient.open(system.server("SOCK001").url, origin="https://evil.example")
    assert refused.value.response.status_code == 403


async def test_our_own_pages_may_connect_with_configured_origins(
    settings: Settings, bus: Bus, store: StateStore
) -> None:
    platform = "https://platform.example"
    named = changed(settings, {"socket.origins": [platform]})
    async with System(named, servers=("SOCK001",)) as system:
        server = await system.start("web-server", lambda bus: WebServer(named, bus, store))
        assert isinstance(server, WebServer)
        for origin in (platform, server.url, server.url.replace("127.0.0.1", "localhost")):
            client = await system.raw("SOCK001", origin=origin)
            await client.hello(system.token("examinee", "E001"))
        with pytest.raises(InvalidStatus):
            await RawClient.open(system.server("SOCK001").url, origin="https://evil.example")
