"""What the processes of a real `up` measure, held against alerts and dashboard, and a real Prometheus on it."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.integration.support.up import Up, running

DIRECTORY = Path(__file__).parents[3] / "docs" / "observability"
prometheus_there = pytest.mark.skipif(
    shutil.which("prometheus") is None, reason="prometheus is not installed (Debian: prometheus)"
)


@dataclass
class Prometheus:
    """A running one, by its HTTP API."""

    http: httpx.Client

    def get(self, path: str, **parameters: str) -> Any:
        body = self.http.get(f"/api/v1/{path}", params=parameters).json()
        assert body["status"] == "success", body
        return body["data"]

    def ready(self) -> bool:
        try:
            return self.http.get("/-/ready").status_code == 200
        except httpx.TransportError:
            return False

    def firing(self) -> set[tuple[str, str]]:
        """(alert, instance) of those that fire."""
        alerts = self.get("query", query='ALERTS{alertstate="firing"}')["result"]
        return {(alert["metric"]["alertname"], alert["metric"].get("instance", "")) for alert in alerts}


def until(condition: Any, description: str, seconds: float = 30.0) -> Any:
    deadline = time.monotonic() + seconds
    while not (result := condition()):
        assert time.monotonic() < deadline, f"not within {seconds} s: {description}"
        time.sleep(0.1)
    return result


@contextmanager
def prometheus(directory: Path, targets: Path) -> Iterator[Prometheus]:
    """Our configuration and our alerts, at a quicker pace than an exam needs."""
    directory.mkdir()
    config = (DIRECTORY / "prometheus.yml").read_text()
    config = re.sub(r"(scrape_interval|scrape_timeout): \w+", r"\1: 1s", config)
    config = re.sub(r"evaluation_interval: \w+", "evaluation_interval: 250ms", config)
    (directory / "prometheus.yml").write_text(config.replace("targets/*.json", str(targets)))
    (directory / "alerts.yml").write_text(re.sub(r"for: \w+", "for: 250ms", (DIRECTORY / "alerts.yml").read_text()))
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    options = [f"--storage.tsdb.path={directory}/data", f"--web.listen-address={address}", "--log.level=warn"]
    with (directory / "log").open("w") as log:
        process = subprocess.Popen(["prometheus", "--config.file=prometheus.yml", *options], cwd=directory, stderr=log)
    try:
        # Without `verify`, no certificates are loaded.
        with httpx.Client(base_url=f"http://{address}", trust_env=False, verify=False, timeout=20) as http:
            server = Prometheus(http)
            until(lambda: process.poll() is not None or server.ready(), "Prometheus is ready")
            assert process.poll() is None, (directory / "log").read_text()
            yield server
    finally:
        process.terminate()
        process.wait(timeout=20)


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    with running(tmp_path_factory.mktemp("metrics") / "data") as up:
        yield up


def targets_of(up: Up) -> list[dict[str, Any]]:
    targets: list[dict[str, Any]] = json.loads((up.data_dir / "prometheus-targets.json").read_text())
    return targets


def expositions(up: Up) -> dict[str, str]:
    """What each process says of itself, by its name."""
    return {
        target["labels"]["instance"]: httpx.get(f"http://{target['targets'][0]}/metrics", trust_env=False).text
        for target in targets_of(up)
    }


def expressions() -> dict[str, str]:
    """Every PromQL expression of the dashboard and of the alerts, by where it stands."""
    named = {}
    dashboard = json.loads((DIRECTORY / "grafana" / "dashboards" / "examwire.json").read_text())
    for panel in dashboard["panels"]:
        for target in panel.get("targets", []):
            named[f"{panel['title']} {target['refId']}"] = target["expr"].replace("$__rate_interval", "1m")
    for annotation in dashboard["annotations"]["list"]:
        if "expr" in annotation:
            named[annotation["name"]] = annotation["expr"]
    alerts = (DIRECTORY / "alerts.yml").read_text()
    for name, block, one_line in re.findall(
        r"- alert: (\w+)\n(?:\s+#.*\n)*\s+expr: (?:\|\n((?:\s{10,}.*\n)+)|(.+)\n)", alerts
    ):
        named[name] = block or one_line
    assert len(named) > 100
    return named


def test_every_process_has_metrics_and_health_of_its_own(up: Up) -> None:
    names = ["queue-server", "state-manager", "SOCK001", "SOCK002", "web-server"]
    roles = ["queue-server", "state-manager", "socket-server", "socket-server", "web-server"]
    targets = targets_of(up)
    assert [(target["labels"]["instance"], target["labels"]["role"]) for target in targets] == list(
        zip(names, roles, strict=True)
    )
    for target in targets:
        for path in ("healthz", "readyz"):
            answer = httpx.get(f"http://{target['targets'][0]}/{path}", trust_env=False)
            assert (answer.status_code, answer.json()["role"]) == (200, target["labels"]["role"])
    texts = expositions(up)
    # Each tells what it is and what it does, and nothing of what others do.
    own = {
        "queue-server": "examwire_stream_messages",
        "state-manager": "examwire_losses_total",
        "SOCK001": "examwire_socket_connections",
        "SOCK002": "examwire_socket_connections",
        "web-server": "examwire_web_uploads_total",
    }
    for name, metric in own.items():
        assert {address for address, text in texts.items() if f"# TYPE {metric} " in text} == {
            other for other, its in own.items() if its == metric
        }
        for common in ("examwire_build_info", "examwire_event_loop_lag_seconds", "process_open_fds"):
            assert f"# TYPE {common} " in texts[name]
    web = httpx.get(up.ready["metricsUrl"], trust_env=False).text
    assert "examwire_web_uploads_total" in web


def test_every_metric_of_alerts_and_dashboard_is_exported_by_a_role(up: Up) -> None:
    text = "\n".join(expositions(up).values())
    types = dict(re.findall(r"^# TYPE (\w+) (\w+)$", text, re.MULTILINE))
    metric_names = set(types) | {"up", "ALERTS"}
    metric_names |= {f"{name}{end}" for name, kind in types.items() if kind == "histogram" for end in _HISTOGRAM}
    labels: dict[str, set[str]] = {}
    for name, labels_text in re.findall(r"^(\w+)\{([^}]*)\}", text, re.MULTILINE):
        labels.setdefault(name, set()).update(re.findall(r"(\w+)=", labels_text))
    target = {"job", "role", "instance"}
    for where, expression in expressions().items():
        names = re.findall(r"\b(?:examwire_|process_|python_)\w+", expression)
        assert names or "up{" in expression or "ALERTS" in expression, where
        assert set(names) <= metric_names, where
        for name, selector in re.findall(r"\b((?:examwire|process)_\w+)\{([^}]+)\}", expression):
            if name in labels or name.startswith("process_"):
                assert set(re.findall(r"(\w+)(?:=|!=|=~|!~)\"", selector)) <= labels.get(name, set()) | target, where


_HISTOGRAM = ("_bucket", "_sum", "_count")


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed (Debian: prometheus)")
def test_promtool_accepts_the_metrics_of_every_role(up: Up) -> None:
    for name, text in expositions(up).items():
        result = subprocess.run(
            ["promtool", "check", "metrics"], input=text, capture_output=True, text=True, timeout=20
        )
        assert (result.returncode, result.stdout, result.stderr) == (0, "", ""), name


@prometheus_there
def test_prometheus_scrapes_every_role_and_a_stopped_server_raises_alerts(up: Up, tmp_path: Path) -> None:
    with prometheus(tmp_path / "prometheus", up.data_dir / "prometheus-targets.json") as scraper:

        def all_up() -> bool:
            targets = scraper.get("targets", state="active")["activeTargets"]
            return len(targets) == 5 and {target["health"] for target in targets} == {"up"}

        until(all_up, "all targets are up")
        until(lambda: scraper.get("query", query="sum(examwire_socket_accepting)")["result"], "scraped")
        for where, expression in expressions().items():
            assert isinstance(scraper.get("query", query=expression)["result"], list), where
        groups = scraper.get("rules")["groups"]
        assert {rule["health"] for group in groups for rule in group["rules"]} <= {"ok", "unknown"}
        until(lambda: scraper.firing() == set(), "what fired before the first scrape is quiet")

        frozen = up.pid_of("SOCK002")
        os.kill(frozen, signal.SIGSTOP)
        try:
            until(lambda: {("RoleDown", "SOCK002"), ("SocketServerLost", "")} <= scraper.firing(), "both alerts fire")
            assert ("RoleDown", "SOCK001") not in scraper.firing()
        finally:
            os.kill(frozen, signal.SIGCONT)
        until(lambda: ("RoleDown", "SOCK002") not in scraper.firing(), "it answers again")
        assert {rule["health"] for group in scraper.get("rules")["groups"] for rule in group["rules"]} == {"ok"}
