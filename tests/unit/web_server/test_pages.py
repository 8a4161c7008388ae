"""What pages may load and connect to, how their files are sent, and which pages may connect to a socket server."""

from __future__ import annotations

import gzip
import re
from pathlib import Path

import pytest
from starlette.requests import Request

from actors.runtime.config.sections import SocketSettings
from actors.runtime.config.settings import load_settings
from actors.sessions.limits.address_limits import Limits
from actors.web_server.bodies import Body, takes_gzip
from actors.web_server.pages import DIRECTORY, EMBEDDABLE, PAGES, connect_source, content_security_policy
from protocol.errors import ConfigurationError

LIMITS = Limits.of(SocketSettings())


@pytest.mark.parametrize(
    ("url", "source"),
    [
        ("ws://127.0.0.1:8001/v1/connect", "ws://127.0.0.1:8001"),
        ("wss://exam.example/v1/connect", "wss://exam.example"),
        ("wss://[2001:db8::1]:9000/v1/connect", "wss:"),
        ("https://exam.example", None),
        ("ws://", None),
        ("ws://a;script-src:1", None),
        ("ws://a'b", None),
        ("ws://[::1", None),
        ("ws://a:99999", None),
        ("", None),
    ],
)
def test_the_source_of_a_socket_server(url: str, source: str | None) -> None:
    assert connect_source(url) == source


def test_a_policy_allows_our_own_origin_and_the_socket_servers() -> None:
    urls = ["ws://a:1/v1/connect", "ws://b:2/v1/connect", "ws://a:1/v1/connect", "ws://x; script-src *"]
    policy = dict(rule.split(" ", 1) for rule in content_security_policy(urls, ["wss://*.exam.example"]).split("; "))
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == "'self'"
    assert policy["connect-src"].split() == ["'self'", "ws://a:1", "ws://b:2", "wss://*.exam.example"]
    assert not {"unsafe-inline", "unsafe-eval", "*"} & set(re.split(r"[ ']", " ".join(policy.values())))


@pytest.mark.parametrize("source", ["https://a", "wss://a b", "wss://a;x", "*", "wss://a/path"])
def test_an_invalid_further_source_is_refused(source: str) -> None:
    with pytest.raises(ConfigurationError, match=r"web\.connect_sources"):
        load_settings(**{"web.connect_sources": [source]})


@pytest.mark.parametrize(
    ("header", "taken"),
    [
        ("gzip", True),
        ("deflate, gzip;q=0.5, br", True),
        ("GZIP", True),
        ("*", True),
        ("*;q=0.1", True),
        ("gzip;q=0", False),
        ("*, gzip;q=0", False),
        ("br", False),
        ("gzip;q=much", False),
        ("", False),
    ],
)
def test_gzip_is_sent_only_to_clients_that_accept_it(header: str, taken: bool) -> None:
    assert takes_gzip(request({"accept-encoding": header})) is taken


def request(headers: dict[str, str]) -> Request:
    raw = [(name.encode(), value.encode()) for name, value in headers.items()]
    return Request({"type": "http", "headers": raw, "method": "GET", "path": "/"})


def test_each_encoding_has_its_own_etag_and_a_match_is_answered_304() -> None:
    content = b"body { margin: 0 }\n" * 100
    body = Body.of(content, text=True)
    plain = body.answer(request({}), "text/css", {})
    packed = body.answer(request({"accept-encoding": "gzip"}), "text/css", {})
    assert (plain.body, gzip.decompress(bytes(packed.body))) == (content, content)
    assert packed.headers["content-encoding"] == "gzip"
    assert plain.headers["vary"] == packed.headers["vary"] == "Accept-Encoding"
    assert plain.headers["etag"] != packed.headers["etag"]
    for etag in (plain.headers["etag"], f'"x", W/{plain.headers["etag"]}', "*"):
        unchanged = body.answer(request({"if-none-match": etag}), "text/css", {"Cache-Control": "no-cache"})
        assert (unchanged.status_code, unchanged.body) == (304, b"")
        assert unchanged.headers["etag"] == plain.headers["etag"]
        assert unchanged.headers["cache-control"] == "no-cache"
    assert body.answer(request({"if-none-match": packed.headers["etag"]}), "text/css", {}).status_code == 200


def test_content_that_gzip_does_not_shrink_is_sent_uncompressed() -> None:
    assert Body.of(b"short", text=True).packed is None
    assert Body.of(b"\x89PNG" * 1000, text=False).packed is None


# -- the files that are there ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", PAGES.values())
def test_a_page_has_nothing_inline_and_loads_only_files_that_are_there(name: str) -> None:
    text = (DIRECTORY / name).read_text()
    assert not re.search(r"<style|\sstyle=|\son[a-z]+=|javascript:", text)
    assert not re.search(r"<script(?![^>]*\bsrc=)", text)
    loaded = re.findall(r'<(?:script|link|img)[^>]*?(?:src|href)="([^"]+)"', text)
    assert loaded
    for address in loaded:
        assert address.startswith("/static/"), address
        assert (DIRECTORY / address.removeprefix("/")).is_file(), address


def test_modules_import_existing_files_and_embeddable_ones_only_embeddable_ones() -> None:
    static = DIRECTORY / "static"
    modules = sorted(static.rglob("*.js"))
    assert modules
    for module in modules:
        for imported in re.findall(
            r'^(?:import|export)\b[^;]*?\bfrom\s+"([^"]+)"|^import "([^"]+)"', module.read_text(), re.M
        ):
            address = "".join(imported)
            target = Path(module.parent / address).resolve() if address.startswith(".") else DIRECTORY / address[1:]
            assert target.is_file(), f"{module.name}: {address}"
            if (name := module.relative_to(static).as_posix()) in EMBEDDABLE:
                imported_name = target.relative_to(static.resolve()).as_posix()
                assert imported_name in EMBEDDABLE, f"{name}: {address} is not for other sites"
