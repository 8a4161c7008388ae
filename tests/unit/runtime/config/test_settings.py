from __future__ import annotations

from pathlib import Path

import pytest

from actors.runtime.config.settings import Settings, load_settings
from protocol.errors import ConfigurationError

FIXED = {
    "nats_url",
    "redis_url",
    "secret",
    "data_dir",
    "socket.host",
    "socket.port",
    "socket.public_url",
    "socket.ping_interval_seconds",
    "socket.ping_timeout_seconds",
    "reconnect.max_attempts",
    "reconnect.backoff_seconds",
    "reconnect.jitter",
    "mobile_sync.timeout_seconds",
    "mobile_sync.max_bytes",
    "server.lease_seconds",
    "web.host",
    "web.port",
    "metrics.port",
}


@pytest.fixture(autouse=True)
def _nothing_configured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No variable and no file of the machine the tests run on."""
    import os

    for name in list(os.environ):
        if name.startswith("EXAMWIRE_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


def configure(monkeypatch: pytest.MonkeyPatch, path: Path, text: str) -> None:
    path.write_text(text)
    monkeypatch.setenv("EXAMWIRE_CONFIG", str(path))


def value(settings: Settings, name: str) -> object:
    node: object = settings
    for part in name.split("."):
        node = getattr(node, part)
    return node


@pytest.mark.parametrize("name", sorted(FIXED))
def test_every_documented_setting_exists(name: str) -> None:
    value(load_settings(), name)


def test_settings_have_the_documented_defaults() -> None:
    settings = load_settings()
    assert (settings.socket.ping_interval_seconds, settings.socket.ping_timeout_seconds) == (5, 5)
    assert settings.reconnect.max_attempts == 5
    assert settings.reconnect.backoff_seconds == [5, 10, 20, 40, 60]
    assert settings.mobile_sync.timeout_seconds == 120
    assert settings.mobile_sync.max_bytes == 20 * 1024 * 1024
    assert settings.server.lease_seconds == 3
    assert (settings.socket.host, settings.web.host, settings.metrics.host) == ("127.0.0.1",) * 3
    assert settings.data_dir == Path(".examwire")


def test_a_flag_overrides_a_variable_overrides_the_file_overrides_the_default(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    configure(
        monkeypatch,
        tmp_path / "exam.toml",
        'nats_url = "nats://file"\nredis_url = "redis://file"\n'
        '[socket]\nhost = "127.0.0.2"\nport = 1111\nping_interval_seconds = 1\n',
    )
    monkeypatch.setenv("EXAMWIRE_REDIS_URL", "redis://variable")
    monkeypatch.setenv("EXAMWIRE_SOCKET__PORT", "2222")
    monkeypatch.setenv("EXAMWIRE_SOCKET__PING_INTERVAL_SECONDS", "2")
    settings = load_settings(**{"socket.ping_interval_seconds": 3.0, "socket.public_url": None})
    assert (settings.nats_url, settings.redis_url) == ("nats://file", "redis://variable")
    assert settings.socket.host == "127.0.0.2"
    assert settings.socket.port == 2222
    assert settings.socket.ping_interval_seconds == 3
    assert settings.socket.ping_timeout_seconds == 5
    assert settings.socket.public_url is None


def test_the_file_of_the_working_directory_is_read(tmp_path: Path) -> None:
    (tmp_path / "examwire.toml").write_text("[reconnect]\nmax_attempts = 2\n")
    assert load_settings().reconnect.max_attempts == 2
    assert load_settings().reconnect.jitter == 0.3


def test_a_list_is_given_as_json_in_a_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EXAMWIRE_RECONNECT__BACKOFF_SECONDS", "[0.5, 1]")
    assert load_settings().reconnect.backoff_seconds == [0.5, 1]


@pytest.mark.parametrize(
    ("name", "bad"),
    [
        ("socket.port", 65536),
        ("socket.port", -1),
        ("socket.ping_interval_seconds", 0),
        ("socket.ping_timeout_seconds", "soon"),
        ("reconnect.max_attempts", 0),
        ("reconnect.backoff_seconds", []),
        ("reconnect.backoff_seconds", [5, -1]),
        ("reconnect.jitter", 1.5),
        ("mobile_sync.timeout_seconds", -1),
        ("mobile_sync.max_bytes", 0),
        ("server.lease_seconds", 0),
        ("web.port", "http"),
        ("socket.prot", 1),
        ("sockets.port", 1),
    ],
)
def test_an_invalid_value_is_refused_naming_the_setting(name: str, bad: object) -> None:
    with pytest.raises(ConfigurationError) as raised:
        load_settings(**{name: bad})
    assert str(raised.value).startswith(name if not name.startswith("sockets") else "sockets")


@pytest.mark.parametrize(
    ("variable", "bad", "name"),
    [
        ("EXAMWIRE_SOCKET__PORT", "http", "socket.port"),
        ("EXAMWIRE_SERVER__LEASE_SECONDS", "0", "server.lease_seconds"),
        ("EXAMWIRE_SOCKET__PROT", "1", "socket.prot"),
        ("EXAMWIRE_RECONNECT__BACKOFF_SECONDS", "5,10", "reconnect"),
    ],
)
def test_an_invalid_variable_is_refused_naming_the_setting(
    monkeypatch: pytest.MonkeyPatch, variable: str, bad: str, name: str
) -> None:
    monkeypatch.setenv(variable, bad)
    with pytest.raises(ConfigurationError, match=name):
        load_settings()


def test_all_invalid_values_are_reported_at_once() -> None:
    with pytest.raises(ConfigurationError) as raised:
        load_settings(**{"web.port": -1, "metrics.port": -1})
    assert "web.port" in str(raised.value)
    assert "metrics.port" in str(raised.value)


def test_an_invalid_file_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = tmp_path / "exam.toml"
    configure(monkeypatch, path, "[web]\nport = 70000\n")
    with pytest.raises(ConfigurationError, match=r"web\.port"):
        load_settings()
    configure(monkeypatch, path, "[web\n")
    with pytest.raises(ConfigurationError):
        load_settings()
    monkeypatch.setenv("EXAMWIRE_CONFIG", str(tmp_path / "gone.toml"))
    with pytest.raises(ConfigurationError, match=r"gone\.toml"):
        load_settings()


def test_the_secret_is_not_shown_by_printing_the_settings() -> None:
    settings = load_settings(secret="never-in-a-log-file-or-a-traceback!")
    assert "never-in-a-log" not in f"{settings!r} {settings}"
    with pytest.raises(ConfigurationError) as raised:
        load_settings(secret="never-in-a-log-file-or-a-traceback!", **{"web.port": -1})
    assert "never-in-a-log" not in str(raised.value)
