"""Which pages of browsers may connect, by their `Origin`."""

from __future__ import annotations

import pytest

from actors.runtime.config.local_addresses import lan_addresses, own_names
from actors.runtime.config.settings import load_settings
from actors.socket_server.handshake.origins import AllowedOrigins, page_hosts


@pytest.mark.parametrize(
    ("listens", "origin", "host", "allowed"),
    [
        ("127.0.0.1", "http://127.0.0.1:8000", "127.0.0.1:9001", True),
        ("127.0.0.1", "https://127.0.0.1:8000", "127.0.0.1:9001", True),
        ("127.0.0.1", "http://localhost:8000", "127.0.0.1:9001", True),
        ("127.0.0.1", "http://[::1]:8000", "127.0.0.1:9001", True),
        ("::1", "http://[::1]:8000", "[::1]:9001", True),
        ("::1", "https://[::1]", "[::1]:9001", True),
        ("::1", "http://[::2]:8000", "[::1]:9001", False),
        ("10.1.2.3", "https://exam.example", "exam.example", True),
        ("10.1.2.3", "https://EXAM.example:444", "exam.example:9001", True),
        ("10.1.2.3", "https://evil.example", "exam.example", False),
        ("10.1.2.3", "https://exam.example.evil.example", "exam.example", False),
        ("10.1.2.3", "http://localhost:3000", "exam.example", False),
        ("0.0.0.0", "http://localhost:3000", "exam.example", False),
        ("0.0.0.0", "http://localhost:8000", "127.0.0.1:9001", True),
        ("127.0.0.1", "null", "127.0.0.1:9001", False),
        ("127.0.0.1", "http://[bad", "127.0.0.1:9001", False),
        ("127.0.0.1", "http://127.0.0.1", "", False),
    ],
)
def test_pages_of_the_same_host_may_connect_whatever_their_port(
    listens: str, origin: str, host: str, allowed: bool
) -> None:
    assert AllowedOrigins([], own_names(listens)).allow(origin, host) is allowed


@pytest.mark.parametrize(
    ("origin", "host", "allowed"),
    [
        ("https://platform.example", "sock1.exam.example", True),  # the one that was added
        ("https://exam.example", "sock1.exam.example", True),  # the web server's own
        ("https://sock1.exam.example", "10.0.0.7:8001", True),  # behind a proxy that names another host
        ("http://10.1.2.3:8000", "sock1.exam.example", True),
        ("http://sock1.exam.example:8000", "sock1.exam.example", True),
        ("https://evil.example", "sock1.exam.example", False),
        ("https://exam.example.evil.example", "sock1.exam.example", False),
        ("null", "sock1.exam.example", False),
        ("", "", False),
    ],
)
def test_own_pages_may_connect_also_where_origins_are_named(origin: str, host: str, allowed: bool) -> None:
    settings = load_settings(
        **{
            "socket.origins": ["https://platform.example"],
            "socket.public_url": "wss://sock1.exam.example/v1/connect",
            "web.public_url": "https://exam.example",
            "web.host": "10.1.2.3",
        }
    )
    origins = AllowedOrigins(settings.socket.origins, own_names("0.0.0.0"), page_hosts(settings))
    assert origins.allow(origin, host) is allowed


def test_a_page_opened_on_this_machine_may_connect_to_its_address_in_the_network() -> None:
    lan = lan_addresses()
    if not lan:
        pytest.skip("this machine is in no network")
    host = f"[{lan[0]}]" if ":" in lan[0] else lan[0]
    assert AllowedOrigins([], own_names("0.0.0.0")).allow("http://localhost:8000", f"{host}:9001")
    assert not AllowedOrigins([], own_names("127.0.0.1")).allow("http://localhost:8000", f"{host}:9001")
