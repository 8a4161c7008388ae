"""Keys that are none end a role before anything is started with them, in words and with exit code 2."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cli.main import app

COMMANDS = {
    "socket-server": ("run", "socket-server", "--server-id", "SOCK001"),
    "web-server": ("run", "web-server"),
    "state-manager": ("run", "state-manager"),
    "queue-server": ("run", "queue-server"),
    "up": ("up",),
}
SECRET, PUBLIC_KEY, KEY_SET = "EXAMWIRE_SECRET", "EXAMWIRE_TOKEN__PUBLIC_KEY_FILE", "EXAMWIRE_TOKEN__JWKS_FILE"


def holding(content: bytes) -> Callable[[Path], str]:
    def made(directory: Path) -> str:
        (directory / "issuer").write_bytes(content)
        return str(directory / "issuer")

    return made


def private_key(directory: Path) -> str:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    key = Ed25519PrivateKey.generate()
    return holding(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))(directory)


BAD: dict[str, tuple[str, Callable[[Path], str]]] = {
    "a secret everybody knows": (SECRET, lambda _: "changeme"),
    "an empty secret": (SECRET, lambda _: ""),
    "no such key file": (PUBLIC_KEY, lambda directory: str(directory / "nowhere.pem")),
    "a directory as key file": (PUBLIC_KEY, str),
    "a key file of garbage": (PUBLIC_KEY, holding(b"\xff\x00garbage")),
    "an empty key file": (PUBLIC_KEY, holding(b"")),
    "a private key as public key": (PUBLIC_KEY, private_key),
    "no such key set": (KEY_SET, lambda directory: str(directory / "nowhere.json")),
    "a key set of bytes": (KEY_SET, holding(b"\xff\xfe\x00")),
    "a key set that is no JSON": (KEY_SET, holding(b"not json")),
    "a key set that is a list": (KEY_SET, holding(b"[]")),
    "a key set that is null": (KEY_SET, holding(b"null")),
    "a key set without keys": (KEY_SET, holding(b'{"keys": []}')),
    "a key set of strings": (KEY_SET, holding(b'{"keys": ["abc"]}')),
    "a key set of nonsense": (KEY_SET, holding(b'{"keys": [{"kty": 5, "kid": []}]}')),
    "a key set of half a key": (KEY_SET, holding(b'{"keys": [{"kty": "RSA", "kid": "1", "n": 7}]}')),
    "a key set of a secret": (KEY_SET, holding(b'{"keys": [{"kty": "oct", "kid": "1", "k": "c2VjcmV0"}]}')),
}


@pytest.mark.parametrize("role", COMMANDS)
@pytest.mark.parametrize("name", BAD)
def test_an_invalid_key_is_named_and_nothing_is_started(
    role: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    variable, bad = BAD[name]
    data = tmp_path / "data"
    result = CliRunner().invoke(app, [*COMMANDS[role], "--data-dir", str(data)], env={variable: bad(tmp_path)})
    assert result.exit_code == 2, result.stderr
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("examwire: secret: " if variable == SECRET else "examwire: token: ")
    assert variable == SECRET or str(tmp_path) in lines[0], "which file"
    assert not data.exists(), "nothing was begun"


@pytest.mark.parametrize("role", ["socket-server", "web-server", "up"])
@pytest.mark.parametrize("content", [b"", b"short\n", b"\xff" * 48])
def test_a_damaged_secret_of_the_data_directory_is_named(
    role: str, content: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "secret").write_bytes(content)
    result = CliRunner().invoke(app, [*COMMANDS[role], "--data-dir", str(tmp_path / "data")])
    assert result.exit_code == 2, result.stderr
    assert str(tmp_path / "data" / "secret") in result.stderr


@pytest.mark.parametrize("role", ["socket-server", "web-server", "up"])
def test_an_invalid_certificate_is_named(role: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bad.pem").write_text("garbage")
    file_settings = ("CERTIFICATE_FILE", "KEY_FILE")
    variables = {
        f"EXAMWIRE_{section}__{file}": str(tmp_path / "bad.pem")
        for section in ("SOCKET", "WEB")
        for file in file_settings
    }
    result = CliRunner().invoke(app, [*COMMANDS[role], "--data-dir", str(tmp_path / "data")], env=variables)
    assert result.exit_code == 2, result.stderr
    assert str(tmp_path / "bad.pem") in result.stderr
