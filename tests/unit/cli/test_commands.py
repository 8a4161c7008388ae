"""Tokens, settings and exit codes on the command line; no network."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from actors.runtime.config.settings import Settings, load_settings
from actors.runtime.config.tokens import TokenVerifier
from cli.local.up import LocalSystem
from cli.main import app
from cli.shared import live_actors
from cli.shared.options import NoRunningSystem, takes_settings, with_running_engines
from cli.shared.output import ExitCode, NotFound, exit_code_of
from protocol.errors import (
    BrokerUnavailable,
    ConfigurationError,
    ExamwireError,
    InvalidField,
    NoResponders,
    RoleFailed,
    StateDamaged,
    StateUnavailable,
)

Invoke = Callable[..., Result]


@pytest.fixture
def invoke(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Invoke:
    """Run `examwire …` in an empty directory without any EXAMWIRE_ variable."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str, **variables: str) -> Result:
        return CliRunner().invoke(app, list(arguments), env=variables, catch_exceptions=False)

    return run


# -- token ----------------------------------------------------------------------------------------------


def test_a_token_and_nothing_else_is_printed(invoke: Invoke, tmp_path: Path) -> None:
    result = invoke("token", "examinee", "P001", "E001", "--data-dir", str(tmp_path / "data"))
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.count("\n") == 1
    claims = TokenVerifier(load_settings(data_dir=tmp_path / "data")).verify(result.stdout.strip())
    assert (claims.role, claims.plan, claims.sub) == ("examinee", "P001", "E001")


@pytest.mark.parametrize(
    ("duration", "seconds"), [("90", 90), ("90s", 90), ("30m", 1800), ("12h", 43200), ("2d", 172800)]
)
def test_a_token_lasts_as_long_as_asked(invoke: Invoke, tmp_path: Path, duration: str, seconds: int) -> None:
    result = invoke("token", "mobile", "P001", "E001", "--data-dir", str(tmp_path), "--expires", duration, "-o", "json")
    issued = json.loads(result.stdout)
    payload = TokenVerifier(load_settings(data_dir=tmp_path)).verify(issued["token"])
    longer = json.loads(invoke("token", "mobile", "P001", "E001", "--data-dir", str(tmp_path), "-o", "json").stdout)
    twelve_hours = TokenVerifier(load_settings(data_dir=tmp_path)).verify(longer["token"])
    assert twelve_hours.exp - payload.exp == pytest.approx(43200 - seconds, abs=5)
    assert (issued["role"], issued["planId"], issued["subject"]) == ("mobile", "P001", "E001")


@pytest.mark.parametrize("role", ["proctor", "operator"])
def test_a_proctor_and_an_operator_are_named_by_their_role_unless_told(
    invoke: Invoke, tmp_path: Path, role: str
) -> None:
    result = invoke("token", role, "P001", "--data-dir", str(tmp_path))
    assert TokenVerifier(load_settings(data_dir=tmp_path)).verify(result.stdout.strip()).sub == role


@pytest.mark.parametrize("role", ["examinee", "mobile"])
def test_an_examinee_and_a_mobile_need_a_subject(invoke: Invoke, role: str) -> None:
    result = invoke("token", role, "P001")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "SUBJECT" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("token", "examinee", "P.1", "E001"), "planId"),
        (("token", "examinee", "P001", "E*"), "sub"),
        (("token", "examinee", "P001", "E" * 65), "sub"),
        (("token", "teacher", "P001", "E001"), "teacher"),
        (("token", "proctor", "P001", "--expires", "soon"), "soon"),
        (("token", "proctor", "P001", "--expires", "0"), "0"),
        (("plans", "show", "P>1"), "planId"),
        (("actors", "show", "session.P001"), "session.P001"),
        (("actors", "show", "session.P001.*"), "examineeId"),
        (("up", "--plan", "P 1"), "planId"),
        (("run", "socket-server", "--server-id", "plan"), "serverId"),
        (("run", "socket-server"), "--server-id"),
        (("run", "state-manager", "--name", "a.b"), "name"),
        (("run", "socket-server", "--server-id", "S", "--socket-port", "99999"), "socket.port"),
        (("run", "queue-server", "--reconnect-backoff-seconds", "5,x"), "reconnect.backoff_seconds"),
        (("up", "--reconnect-max-attempts", "0"), "reconnect.max_attempts"),
        (("nonsense",), "nonsense"),
    ],
)
def test_a_usage_error_is_exit_code_2_and_names_the_culprit(
    invoke: Invoke, arguments: tuple[str, ...], named: str
) -> None:
    result = invoke(*arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert named in result.stderr
    assert "Traceback" not in result.stderr


def test_no_token_is_signed_here_when_an_issuer_is_configured(invoke: Invoke) -> None:
    result = invoke("token", "proctor", "P001", EXAMWIRE_TOKEN__PUBLIC_KEY_FILE="issuer.pem")
    assert result.exit_code == 2
    assert "issuer" in result.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ("run", "socket-server", "--server-id", "S1", "--socket-host", "0.0.0.0"),
        ("run", "web-server", "--web-host", "::"),
        ("run", "queue-server", "--metrics-host", "0.0.0.0"),
        ("run", "state-manager", "--metrics-host", "::", "--metrics-port", "0"),
        ("run", "socket-server", "--server-id", "S1", "--metrics-host", "0.0.0.0"),
        ("run", "web-server", "--metrics-host", "192.0.2.1"),
        ("up", "--web-host", "0.0.0.0"),
        ("up", "--socket-host", "192.0.2.1"),
        ("up", "--metrics-host", "0.0.0.0"),
    ],
)
def test_a_role_without_a_configured_secret_does_not_listen_beyond_loopback(
    invoke: Invoke, tmp_path: Path, arguments: tuple[str]
) -> None:
    result = invoke(*arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert "beyond loopback" in result.stderr
    assert list(tmp_path.iterdir()) == []  # it refused before it did anything


def test_a_full_disk_is_named_by_the_data_dir(invoke: Invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fill(system: LocalSystem, json_ready: bool) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")  # a write names no file

    monkeypatch.setattr(LocalSystem, "run", fill)
    monkeypatch.setattr("cli.local.up.configure_logging", lambda *_: None)  # it is for the whole process
    result = invoke("up", "--data-dir", "data")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == "examwire: the data directory data cannot be written: No space left on device\n"


def test_a_role_that_logs_json_says_also_what_is_wrong_with_its_settings_as_json() -> None:
    variables = {"EXAMWIRE_LOG__FORMAT": "json", "EXAMWIRE_WEB__PORT": "many"}
    command = [sys.executable, "-m", "cli.main", "run", "web-server"]
    result = subprocess.run(command, env={**os.environ, **variables}, capture_output=True, text=True, timeout=60)
    assert (result.returncode, result.stdout) == (2, "")
    assert "web.port" in json.loads(result.stderr)["message"]


# -- config ---------------------------------------------------------------------------------------------


def test_config_show_says_where_each_value_comes_from(invoke: Invoke, tmp_path: Path) -> None:
    (tmp_path / "examwire.toml").write_text(
        'nats_url = "nats://file:1"\n[web]\nport = 1\n[server]\nlease_seconds = 7\n'
    )
    result = invoke(
        *("config", "show", "--origin", "-o", "json", "--socket-port", "9", "--reconnect-backoff-seconds", "1,2.5"),
        EXAMWIRE_SOCKET__PORT="8",
        EXAMWIRE_WEB__PORT="2",
    )
    config = json.loads(result.stdout)
    assert config["socket.port"] == {"value": 9, "origin": "flag --socket-port"}
    assert config["reconnect.backoff_seconds"]["value"] == [1.0, 2.5]
    assert config["web.port"] == {"value": 2, "origin": "variable EXAMWIRE_WEB__PORT"}
    assert config["server.lease_seconds"] == {"value": 7, "origin": "file examwire.toml"}
    assert config["nats_url"] == {"value": "nats://file:1", "origin": "file examwire.toml"}
    assert config["reconnect.jitter"] == {"value": 0.3, "origin": "default"}


@pytest.mark.parametrize("output", ["json", "table"])
def test_config_show_masks_secrets(invoke: Invoke, output: str) -> None:
    secret = "s3cret-" * 6
    result = invoke(
        *("config", "show", "-o", output),
        EXAMWIRE_SECRET=secret,
        EXAMWIRE_REDIS_URL="redis://user:pass-word@redis:6379/0",
        EXAMWIRE_NATS_URL="nats://tok-en@one:4222,nats://user:pass-word@two:4222",
    )
    assert result.exit_code == 0
    for hidden in (secret, "pass-word", "tok-en"):
        assert hidden not in result.stdout
    assert "redis://user:***@redis:6379/0" in result.stdout
    assert "nats://***@one:4222,nats://user:***@two:4222" in result.stdout


def test_the_whole_tree_is_shown(invoke: Invoke) -> None:
    tree = json.loads(invoke("config", "show", "-o", "json").stdout)
    assert tree["reconnect"] == {"max_attempts": 5, "backoff_seconds": [5, 10, 20, 40, 60], "jitter": 0.3}
    assert tree["secret"] is None


def test_a_file_that_is_not_there_is_a_usage_error(invoke: Invoke) -> None:
    result = invoke("config", "show", EXAMWIRE_CONFIG="missing.toml")
    assert result.exit_code == 2
    assert "missing.toml" in result.stderr


def test_the_engines_of_a_running_up_are_found_by_its_data_dir_unless_told(invoke: Invoke, tmp_path: Path) -> None:
    # Ports 1 and 2 of loopback: nobody listens there, and the error names what was tried.
    (tmp_path / "data").mkdir()
    ready = {
        "natsUrl": "nats://127.0.0.1:1",
        "redisUrl": "redis://127.0.0.1:1/0",
        "webUrl": "http://127.0.0.1:1",
        "planId": "P001",
        "socketServers": [],
    }
    (tmp_path / "data" / "ready.json").write_text(json.dumps(ready))
    by_data_dir = invoke("plans", "ls", "--data-dir", "data")
    by_flag = invoke("plans", "ls", "--data-dir", "data", "--redis-url", "redis://127.0.0.1:2/0")
    assert (by_data_dir.exit_code, by_flag.exit_code) == (4, 4)
    assert "127.0.0.1:1/0" in by_data_dir.stderr
    assert "127.0.0.1:2/0" in by_flag.stderr


def test_a_broken_ready_file_is_named(invoke: Invoke, tmp_path: Path) -> None:
    (tmp_path / "ready.json").write_text("{}")
    result = invoke("plans", "ls", "--data-dir", ".")
    assert result.exit_code == 2
    assert "ready.json" in result.stderr


# -- errors and the rest --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (RoleFailed("x"), ExitCode.FAILED),
        (StateDamaged("x"), ExitCode.FAILED),
        (ConfigurationError("x"), ExitCode.USAGE),
        (InvalidField("planId", "x"), ExitCode.USAGE),
        (NotFound("x"), ExitCode.NOT_FOUND),
        (BrokerUnavailable("x"), ExitCode.UNREACHABLE),
        (StateUnavailable("x"), ExitCode.UNREACHABLE),
        (NoResponders("x"), ExitCode.UNREACHABLE),
    ],
)
def test_each_error_has_its_exit_code(error: ExamwireError, code: ExitCode) -> None:
    assert exit_code_of(error) is code


@pytest.mark.parametrize("command", [("streams", "diff"), ("actors", "ls"), ("dead-letters", "ls")])
def test_a_broker_that_is_not_there_is_exit_code_4_in_one_line(
    invoke: Invoke, command: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live_actors, "CONNECT_SECONDS", 0.1)
    result = invoke(*command, "--nats-url", "nats://127.0.0.1:1")
    assert (result.exit_code, result.stdout) == (4, "")
    assert result.stderr.startswith("examwire: no NATS server at nats://127.0.0.1:1")
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("command", "data_dir"),
    [
        ("up", "a-file"),
        ("up", "a-file/in-it"),
        ("up", "/proc/examwire"),
        ("plans ls", "a-file"),
    ],
)
def test_a_data_dir_that_cannot_be_made_is_an_error_of_one_line(
    invoke: Invoke, tmp_path: Path, command: str, data_dir: str
) -> None:
    (tmp_path / "a-file").touch()
    result = invoke(*command.split(), "--data-dir", data_dir, EXAMWIRE_SECRET="x" * 40)
    assert result.exit_code == ExitCode.USAGE
    assert result.stderr.startswith(f"examwire: data_dir: {data_dir}")
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("away", "flag", "url"),
    [
        (BrokerUnavailable("no NATS."), "--nats-url", "nats://127.0.0.1:1"),
        (StateUnavailable("no Redis"), "--redis-url", "redis://127.0.0.1:1/0"),
    ],
)
def test_in_a_wrong_directory_the_error_names_the_data_dir_and_the_flag(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, away: ExamwireError, flag: str, url: str
) -> None:
    @takes_settings("nats_url", "redis_url", "data_dir", running=True)
    def command(settings: Settings) -> None:
        raise away

    monkeypatch.chdir(tmp_path)
    untold: dict[str, str | None] = {"nats_url": None, "redis_url": None, "data_dir": None}
    with pytest.raises(NoRunningSystem) as error:
        command(**untold)
    assert exit_code_of(error.value) is ExitCode.UNREACHABLE
    for part in (str(away).rstrip("."), ".examwire/ready.json", "--data-dir", flag):
        assert part in str(error.value)
    # Who has said where it is knows what to look at.
    with pytest.raises(type(away), match=f"^{away}$"):
        command(**{**untold, flag.removeprefix("--").replace("-", "_"): url})


def test_help_lists_every_command_and_the_exit_codes(invoke: Invoke) -> None:
    result = invoke("--help")
    assert result.exit_code == 0
    for name in ("up", "run", "simulate", "load", "token", "plans", "actors", "streams", "config", "version"):
        assert f"\n  {name} " in result.stdout
    assert "5 degraded" in result.stdout


def test_the_version_is_printed(invoke: Invoke) -> None:
    assert invoke("version").stdout == "0.1.0\n"


@pytest.mark.parametrize(
    ("arguments", "left_out"),
    [
        (("token", "proctor", "P001"), {"nats", "redis", "websockets", "starlette", "uvicorn", "PIL", "rich"}),
        (("plans", "ls", "--help"), {"nats", "prometheus_client", "jwt", "PIL", "rich"}),
        (("plans", "timeline", "--help"), {"redis", "jwt", "PIL", "rich"}),
        (("run", "queue-server", "--help"), {"nats", "redis", "websockets", "starlette", "PIL", "rich"}),
        (("up", "--help"), {"nats", "redis", "websockets", "starlette", "cli.local.trial_certificate", "PIL", "rich"}),
    ],
)
def test_a_command_loads_only_its_own_modules(tmp_path: Path, arguments: tuple[str, ...], left_out: set[str]) -> None:
    """It starts in a fraction of a second because of it."""
    script = (
        "import sys; from cli.main import app\n"
        f"app({[*arguments]!r}, standalone_mode=False)\n"
        f"print('loaded:', sorted({left_out!r} & set(sys.modules)))"
    )
    result = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=True
    )
    assert result.stdout.splitlines()[-1] == "loaded: []"


def test_the_ladder_of_a_running_up_holds_for_its_engine_unless_told(tmp_path: Path) -> None:
    ready = {
        "natsUrl": "nats://127.0.0.1:1",
        "redisUrl": "redis://127.0.0.1:1/0",
        "webUrl": "http://127.0.0.1:1",
        "planId": "P001",
        "socketServers": [],
        "topology": {
            "reconnect.max_attempts": 3,
            "reconnect.backoff_seconds": [2.0, 2.0, 2.0],
            "data_dir": "elsewhere",
        },
    }
    (tmp_path / "ready.json").write_text(json.dumps(ready))
    flags = {"data_dir": tmp_path}
    by_data_dir = with_running_engines(load_settings(**flags))
    assert (by_data_dir.reconnect.max_attempts, by_data_dir.reconnect.backoff_seconds) == (3, [2.0, 2.0, 2.0])
    assert by_data_dir.data_dir == tmp_path
    by_flag = with_running_engines(load_settings(**flags, **{"reconnect.max_attempts": 4}))
    assert (by_flag.reconnect.max_attempts, by_flag.reconnect.backoff_seconds) == (4, [2.0, 2.0, 2.0])
    other = with_running_engines(load_settings(**flags, nats_url="nats://127.0.0.1:2"))
    assert other.reconnect.max_attempts == 5
