"""Headers that come twice, or are none: 400 at both doors, one line in the log, and never a traceback."""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import AsyncIterator
from urllib.parse import urlsplit

import pytest

from actors.runtime.broker.connection import Bus
from actors.runtime.config.settings import Settings
from actors.runtime.http.single_headers import SINGLE
from actors.runtime.store.state_store import StateStore
from protocol.messages.frames import CONNECT_PATH, REQUEST_BYTES
from tests.integration.bad_input.support import Neighbours
from tests.integration.support.clients.phones import open_site
from tests.integration.support.system import System, eventually

HANDSHAKE = {
    "Host": "127.0.0.1",
    "Upgrade": "websocket",
    "Connection": "Upgrade",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Protocol": "examwire.v1",
}
VALUES = {
    "host": ("127.0.0.1", "evil.example"),
    "origin": ("http://127.0.0.1", "https://evil.example"),
    "user-agent": ("Browser/1", "Browser/2"),
    "authorization": ("Bearer one", "Bearer two"),
    "content-length": ("0", "0"),
    "sec-websocket-key": (HANDSHAKE["Sec-WebSocket-Key"], HANDSHAKE["Sec-WebSocket-Key"]),
    "sec-websocket-version": ("13", "8"),
}
WEIRD = [
    b"Host: [", b"Host: ]:\xff", b"Host:", b"Origin: http://[", b"Origin: \xe9\xff", b"Origin:", b"User-Agent: \xff",
    b"Authorization: Bearer", b"Authorization: Bearer \xff", b"Authorization: Bearer a.b.c", b"Authorization: \xff",
    b"Authorization: Bearer eyJhbGciOiJIUzI1NiIsImtpZCI6W119.e30.AA", b"Sec-WebSocket-Key: \xff", b"Upgrade: ,;=",
    b"Sec-WebSocket-Protocol: examwire.token.", b"Sec-WebSocket-Protocol: ,,;", b"Connection: \xff",
    b"X-Forwarded-For: ,", b"Expect: 100-continue",
    b"Sec-WebSocket-Extensions: ;;", b"no colon", b" folded: line", b"Na me: value", b": value", b"Nul: a\x00b",
    b"Content-Length: 7", b"Content-Length: -1", b"Transfer-Encoding: chunked", b"Transfer-Encoding: \xff",
]  # fmt: skip
"""Lines added to a request that is one without them."""


async def answer_to(url: str, request: bytes) -> tuple[int, bytes]:
    """The status that this request is answered with, and all that came; 0 when nothing did."""
    at = urlsplit(url)
    reader, writer = await asyncio.open_connection(at.hostname, at.port)
    writer.write(request)
    answer = b""
    try:
        async with asyncio.timeout(20):
            while b"\r\n\r\n" not in answer and (more := await reader.read(65536)):
                answer += more
    except ConnectionResetError:
        pass
    writer.close()
    return (int(answer.split(b" ", 2)[1]) if answer.startswith(b"HTTP/1.1 ") else 0), answer


def head_of(path: str, headers: list[tuple[str, str]], *more: bytes) -> bytes:
    lines = [f"GET {path} HTTP/1.1".encode(), *(f"{name}: {value}".encode() for name, value in headers), *more]
    return b"\r\n".join(lines) + b"\r\n\r\n"


def doubled(name: str, headers: dict[str, str]) -> list[tuple[str, str]]:
    """The headers with two of this name."""
    rest_headers = [(other, value) for other, value in headers.items() if other.lower() != name]
    return [*rest_headers, *((name, value) for value in VALUES.get(name, ("x", "x")))]


def tracebacks(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.exc_info or record.levelno >= logging.ERROR]


@pytest.mark.parametrize("name", sorted(SINGLE))
async def test_a_handshake_with_a_repeated_header_is_a_bad_request(
    system: System, neighbours: Neighbours, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    spelled = doubled(name, HANDSHAKE)
    for headers in (spelled, [(header.upper(), value) for header, value in spelled]):
        status, answer = await answer_to(system.server("SOCK001").url, head_of(CONNECT_PATH, headers))
        assert (status, name.encode() in answer) == (400, True), answer
    assert tracebacks(caplog) == []


async def test_each_kind_of_header_gets_exactly_one_answer(
    system: System, neighbours: Neighbours, caplog: pytest.LogCaptureFixture
) -> None:
    url = system.server("SOCK001").url
    headers = list(HANDSHAKE.items())
    for line in WEIRD:
        status, answer = await answer_to(url, head_of(CONNECT_PATH, headers, line))
        assert status in (101, 400, 403, 426), (line, answer)
    for first, second in itertools.combinations(WEIRD, 2):
        status, answer = await answer_to(url, head_of(CONNECT_PATH, headers[1:], first, second))
        assert status in (101, 400, 403, 426), (first, second, answer)
    for request in (b"\r\n\r\n", b"nonsense\r\n\r\n", b"GET\r\n\r\n", b"\xff\xfe\r\n\r\n", b"GET / HTTP/2.0\r\n\r\n"):
        assert (await answer_to(url, request))[0] == 400, request
    assert tracebacks(caplog) == []


async def test_a_request_with_too_many_bytes_is_refused(system: System, neighbours: Neighbours) -> None:
    url = system.server("SOCK001").url
    headers = list(HANDSHAKE.items())
    longer = [("X-Padding", "x" * 4000)] * (REQUEST_BYTES // 4000 + 1)
    assert (await answer_to(url, head_of(CONNECT_PATH, [*headers, *longer])))[0] == 431
    assert (await answer_to(url, head_of(CONNECT_PATH, [*headers, ("X-Padding", "x" * 9000)])))[0] == 431
    assert (await answer_to(url, head_of(CONNECT_PATH + "?" + "x" * 9000, headers)))[0] in (414, 431)
    assert (await answer_to(url, head_of(CONNECT_PATH, headers) + b"\x89\x80\x00\x00\x00\x00"))[0] == 400
    almost = [*headers, *[("X-Padding", "x" * 4000)] * 3]
    assert (await answer_to(url, head_of(CONNECT_PATH, almost)))[0] == 101


async def test_bad_requests_are_one_line_in_the_log(
    system: System, neighbours: Neighbours, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    for _ in range(20):
        await answer_to(system.server("SOCK001").url, head_of(CONNECT_PATH, doubled("user-agent", HANDSHAKE)))

    def told() -> list[str]:
        return [
            record.getMessage()
            for record in caplog.records
            if record.name == "examwire.clients" and "400" in record.message
        ]

    async def some() -> bool:
        return bool(told())

    await eventually(some, "a line about them")
    assert len(told()) <= 3, "one a second, however many there are"


@pytest.fixture
async def web_url(settings: Settings, bus: Bus, store: StateStore) -> AsyncIterator[str]:
    async with open_site(settings, bus, store) as site:
        yield site.server.url


async def test_the_web_server_refuses_a_repeated_header(web_url: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    plain = {"Host": "127.0.0.1"}
    # The same Content-Length twice is one (RFC 9110, 8.6).
    for name, path in itertools.product(sorted(SINGLE - {"content-length"}), ("/healthz", "/v1/plans/P001/report")):
        status, answer = await answer_to(web_url, head_of(path, doubled(name, plain)))
        assert status == 400, (name, path, answer)
    two = [*plain.items(), ("Content-Length", "0"), ("Content-Length", "1")]
    assert (await answer_to(web_url, head_of("/healthz", two)))[0] == 400
    for line in WEIRD:
        status, answer = await answer_to(web_url, head_of("/v1/plans/P001/report", list(plain.items()), line))
        assert status in (400, 401, 404), (line, answer)
    assert tracebacks(caplog) == []
