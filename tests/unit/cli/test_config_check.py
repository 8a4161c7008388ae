"""`examwire config check`: each thing that can be wrong is named, with its setting and what to do."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from typer.testing import CliRunner

from actors.runtime.config.settings import unknown_variables
from cli.main import app

SECRET = "0123456789-abcdefghij-ABCDEFGHIJ"
Check = Callable[..., tuple[int, dict[str, dict[str, str]]]]


@pytest.fixture
def check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Check:
    """Run it in an empty directory: its exit code and findings by name."""
    for name in list(os.environ):
        if name.startswith("EXAMWIRE_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)

    def run(*flags: str, **variables: str) -> tuple[int, dict[str, dict[str, str]]]:
        result = CliRunner().invoke(
            app, ["config", "check", "-o", "json", *flags], env=variables, catch_exceptions=False
        )
        report: dict[str, Any] = json.loads(result.stdout)
        return result.exit_code, {finding["check"]: finding for finding in report["findings"]}

    return run


def test_the_defaults_are_well(check: Check, tmp_path: Path) -> None:
    code, findings = check()
    assert code == 0
    assert [finding["state"] for finding in findings.values()] == ["ok"]
    assert list(tmp_path.iterdir()) == []  # nothing was made, no secret either


@pytest.mark.parametrize(
    ("variable", "meant"),
    [
        ("EXAMWIRE_SOCKET__PROT", "EXAMWIRE_SOCKET__PORT"),
        ("EXAMWIRE_SOKCET__PORT", "EXAMWIRE_SOCKET__PORT"),
        ("EXAMWIRE_NATSURL", "EXAMWIRE_NATS_URL"),
        ("examwire_secrets", "EXAMWIRE_SECRET"),
        ("EXAMWIRE_COLOUR_OF_THE_SKY", None),
    ],
)
def test_a_variable_that_is_no_setting_is_an_error_and_the_likely_one_is_named(
    check: Check, variable: str, meant: str | None
) -> None:
    code, findings = check(**{variable: "1"})
    assert code == 2
    assert findings.keys() == {variable}
    assert findings[variable]["state"] == "failed"
    if meant is not None:
        assert meant in findings[variable]["advice"]


def test_variables_of_settings_are_not_reported_as_unknown() -> None:
    variables = ("EXAMWIRE_CONFIG", "EXAMWIRE_SOCKET", "EXAMWIRE_SOCKET__PORT", "examwire_web__port", "PATH")
    assert unknown_variables(dict.fromkeys(variables, "1")) == {}


@pytest.mark.parametrize(
    ("text", "named", "advice"),
    [
        ("[socket]\nprot = 1\n", "socket.prot", "socket.port"),
        ("[sokcet]\nport = 1\n", "sokcet", ""),
        ("[web]\nport = 70000\n", "web.port", ""),
        ("[web\n", "examwire.toml", ""),
        ('redis_url = "http://x"\n', "redis_url", ""),
        ('[nats]\nca_file = "missing.pem"\n', "nats.ca_file", ""),
        ('[nats]\nuser = "operator"\n', "nats", ""),
    ],
)
def test_an_error_in_the_file_is_named(check: Check, tmp_path: Path, text: str, named: str, advice: str) -> None:
    (tmp_path / "examwire.toml").write_text(text)
    code, findings = check()
    assert code == 2
    assert findings[named]["state"] == "failed"
    assert advice in findings[named]["advice"]
    assert "examwire.toml" in findings[named]["found"] + findings[named]["check"]


def test_a_secret_in_a_file_that_others_may_read_is_a_warning(check: Check, tmp_path: Path) -> None:
    path = tmp_path / "examwire.toml"
    path.write_text(f'secret = "{SECRET}"\nredis_url = "redis://:pass@127.0.0.1"\n')
    path.chmod(0o644)
    code, findings = check()
    assert code == 5
    assert "secret" in findings["examwire.toml"]["found"]
    assert "redis_url" in findings["examwire.toml"]["found"]
    path.chmod(0o600)
    assert check()[0] == 0


@pytest.mark.parametrize(
    ("variables", "named", "state"),
    [
        ({"EXAMWIRE_SECRET": "short"}, "secret", "failed"),
        ({"EXAMWIRE_SECRET": "a" * 40}, "secret", "warning"),
        ({"EXAMWIRE_TOKEN__PUBLIC_KEY_FILE": "missing.pem"}, "token", "failed"),
        ({"EXAMWIRE_TOKEN__PUBLIC_KEY_FILE": "elliptic.pem"}, "token", "failed"),
        ({"EXAMWIRE_SOCKET__HOST": "0.0.0.0"}, "socket.host", "failed"),
        ({"EXAMWIRE_WEB__HOST": "::"}, "web.host", "failed"),
        ({"EXAMWIRE_METRICS__HOST": "192.0.2.1"}, "metrics.host", "failed"),
        ({"EXAMWIRE_NATS_URL": "http://127.0.0.1:4222"}, "nats_url", "failed"),
        ({"EXAMWIRE_NATS_URL": "nats://127.0.0.1:port"}, "nats_url", "failed"),
        ({"EXAMWIRE_NATS_URL": "nats://broker:4222"}, "nats_url", "warning"),
        ({"EXAMWIRE_REDIS_URL": "redis://store"}, "redis_url", "warning"),
        ({"EXAMWIRE_TRACING__ENDPOINT": "collector:4318"}, "tracing.endpoint", "failed"),
        ({"EXAMWIRE_SOCKET__PING_TIMEOUT_SECONDS": "20"}, "socket.ping_timeout_seconds", "warning"),
        (
            {"EXAMWIRE_SOCKET__PING_INTERVAL_SECONDS": "8", "EXAMWIRE_RECONNECT__BACKOFF_SECONDS": "[1]"}
            | {"EXAMWIRE_SOCKET__PING_TIMEOUT_SECONDS": "2"},
            "reconnect.backoff_seconds",
            "failed",
        ),
        ({"EXAMWIRE_RECONNECT__MAX_ATTEMPTS": "2"}, "reconnect.backoff_seconds", "warning"),
        ({"EXAMWIRE_RECONNECT__BACKOFF_SECONDS": "[50000]"}, "reconnect.backoff_seconds", "failed"),
        ({"EXAMWIRE_MOBILE_SYNC__TIMEOUT_SECONDS": "1000000"}, "mobile_sync.timeout_seconds", "failed"),
        ({"EXAMWIRE_SOCKET__ISOLATION_SECONDS": "1"}, "socket.isolation_seconds", "warning"),
        ({"EXAMWIRE_SOCKET__QUEUE_EXPIRE_SECONDS": "5"}, "socket.queue_expire_seconds", "warning"),
        ({"EXAMWIRE_SOCKET__PORT": "9000", "EXAMWIRE_METRICS__PORT": "9000"}, "socket.port", "failed"),
        ({"EXAMWIRE_WEB__PORT": "9000", "EXAMWIRE_METRICS__PORT": "9000"}, "web.port", "failed"),
        ({"EXAMWIRE_SOCKET__PORT": "9000", "EXAMWIRE_WEB__PORT": "9001"}, "socket.port", "warning"),
        ({"EXAMWIRE_SOCKET__PUBLIC_URL": "https://exam"}, "socket.public_url", "failed"),
        ({"EXAMWIRE_SOCKET__PUBLIC_URL": "wss://exam/v1/connect?token=x"}, "socket.public_url", "failed"),
        ({"EXAMWIRE_SOCKET__PUBLIC_URL": "ws://exam.example"}, "socket.public_url", "warning"),
        (
            {"EXAMWIRE_SOCKET__PUBLIC_URL": "wss://exam/v1/connect", "EXAMWIRE_WEB__TRUSTED_PROXIES": '["192.0.2.1"]'},
            "socket.trusted_proxies",
            "warning",
        ),
        (
            {"EXAMWIRE_WEB__PUBLIC_URL": "https://exam", "EXAMWIRE_SOCKET__TRUSTED_PROXIES": '["192.0.2.1"]'},
            "web.trusted_proxies",
            "warning",
        ),
        ({"EXAMWIRE_SOCKET__ORIGINS": '["exam.example"]'}, "socket.origins", "failed"),
        ({"EXAMWIRE_SOCKET__ORIGINS": '["*"]'}, "socket.origins", "warning"),
    ],
)
def test_each_contradiction_is_named(
    check: Check, tmp_path: Path, variables: dict[str, str], named: str, state: str
) -> None:
    public = generate_private_key(SECP256R1()).public_key()
    (tmp_path / "elliptic.pem").write_bytes(public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    code, findings = check(**variables)
    assert findings[named]["state"] == state, findings
    assert findings[named]["advice"]
    assert code == (2 if state == "failed" else 5)
    assert all("short" not in finding["found"] for finding in findings.values())


def test_a_flag_is_checked_like_a_variable(check: Check) -> None:
    code, findings = check("--socket-port", "99999")
    assert (code, findings["socket.port"]["state"]) == (2, "failed")
    assert "the flag" in findings["socket.port"]["found"]


def test_a_secret_that_others_may_read_is_refused(check: Check, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "secret").write_text(SECRET)
    (tmp_path / "data" / "secret").chmod(0o644)
    code, findings = check("--data-dir", "data")
    assert (code, findings["secret"]["state"]) == (2, "failed")
    (tmp_path / "data" / "secret").chmod(0o600)
    assert check("--data-dir", "data")[0] == 0


def test_a_section_that_is_given_as_a_whole_is_its_values_origin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    variables = {"EXAMWIRE_WEB": '{"port": 5}', "EXAMWIRE_SOCKET__ORIGINS": '["https://exam"]'}
    result = CliRunner().invoke(app, ["config", "show", "--origin", "-o", "json"], env=variables)
    config = json.loads(result.stdout)
    assert config["web.port"] == {"value": 5, "origin": "variable EXAMWIRE_WEB"}
    assert config["socket.origins"] == {"value": ["https://exam"], "origin": "variable EXAMWIRE_SOCKET__ORIGINS"}
    assert config["nats.password"] == {"value": None, "origin": "default"}
    assert config["log.format"]["value"] == "text"
    assert config["tracing.sample"]["origin"] == "default"
