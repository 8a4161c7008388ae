"""`examwire up` whose socket servers share a proxy's address, and whose tokens are an issuer's."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tests.integration.cli.test_up import examwire
from tests.integration.support.up import Up, eventually, running

PUBLIC_URL = "wss://exam.example:8443/v1/connect"


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    directory = tmp_path_factory.mktemp("proxied")
    key = directory / "issuer.pem"
    public = Ed25519PrivateKey.generate().public_key()
    key.write_bytes(public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    only_its_own = {"EXAMWIRE_TOKEN__PUBLIC_KEY_FILE": str(key), "EXAMWIRE_SOCKET__PUBLIC_URL": PUBLIC_URL}
    with running(directory / "data", **only_its_own) as up:
        yield up


def listening(up: Up, name: str) -> set[int]:
    """The ports on which a role listens."""
    connections = psutil.Process(up.pid_of(name)).net_connections(kind="tcp")
    return {connection.laddr.port for connection in connections if connection.status == psutil.CONN_LISTEN}


def test_servers_behind_a_proxy_have_its_address_and_their_own_ports(up: Up) -> None:
    assert [server["url"] for server in up.ready["socketServers"]] == [PUBLIC_URL] * 2
    saved_ports = json.loads((up.data_dir / "ports.json").read_text())
    assert len({saved_ports["SOCK001"], saved_ports["SOCK002"]} - {8443}) == 2
    for name in ("SOCK001", "SOCK002", "web-server"):
        assert saved_ports[name] in listening(up, name)


def test_a_killed_server_is_back_on_its_own_port(up: Up) -> None:
    before, killed = listening(up, "SOCK001"), up.pid_of("SOCK001")
    for _ in range(2):
        restarts = up.stderr.count("SOCK001 is ready again")
        os.kill(up.pid_of("SOCK001"), signal.SIGKILL)
        eventually(lambda restarts=restarts: up.stderr.count("SOCK001 is ready again") > restarts, "started again")  # type: ignore[misc]
        assert listening(up, "SOCK001") == before
    assert up.pid_of("SOCK001") != killed
    assert up.process.poll() is None


def test_one_of_its_servers_can_be_drained(up: Up) -> None:
    data_dir_flags = ("--data-dir", str(up.data_dir))
    # SOCK001 may only just be back: then SOCK002 does not know yet that there is somewhere to go.
    eventually(lambda: examwire("actors", "drain", "SOCK002", *data_dir_flags).exit_code == 0, "SOCK002 is drained")
    eventually(lambda: "SOCK002 is ready again" in up.stderr, "SOCK002 is started again")


@pytest.mark.parametrize(
    "command",
    [
        ("token", "proctor", "P001"),
        ("simulate", "--duration", "1"),
        ("plans", "create", "P001", "--roster", "roster.csv", "--tokens", "tokens.csv"),
        ("load", "one-by-one", "--socket-url", "ws://127.0.0.1:9/v1/connect", "--redis-url", "redis://127.0.0.1:9/0"),
    ],
    ids=lambda command: command[0],
)
def test_no_token_is_signed_when_a_running_up_uses_an_issuer(up: Up, command: tuple[str, ...], tmp_path: Path) -> None:
    assert json.loads((up.data_dir / "ready.json").read_text())["issuerKeys"] is True
    (tmp_path / "roster.csv").write_text("examineeId\nE001\n")
    arguments = [str(tmp_path / word) if word.endswith(".csv") else word for word in command]
    for variables in ({}, {"EXAMWIRE_SECRET": "a secret of this terminal, long enough"}):
        result = examwire(*arguments, "--data-dir", str(up.data_dir), **variables)
        assert (result.exit_code, result.stdout) == (2, "")
        assert "issuer" in result.stderr
        assert "would be refused" in result.stderr
        assert not (tmp_path / "tokens.csv").exists()
        assert not (up.data_dir / "secret").exists()
