"""Alerts, their tests, the runbook and the dashboard belong together; promtool has the last word where it is there."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from cli.main import app

ROOT = Path(__file__).parents[3]
DIRECTORY = ROOT / "docs" / "observability"
ALERTS = (DIRECTORY / "alerts.yml").read_text()
RUNBOOK = (ROOT / "docs" / "runbook.md").read_text()
DASHBOARD = json.loads((DIRECTORY / "grafana" / "dashboards" / "examwire.json").read_text())
NAMES = re.findall(r"^ +- alert: (\w+)$", ALERTS, re.MULTILINE)
promtool = pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed (Debian: prometheus)")


def rule(name: str) -> str:
    """The text of one rule."""
    return re.split(r"^ +- (?:alert|name): ", ALERTS[ALERTS.index(f"- alert: {name}\n") + 2 :], flags=re.MULTILINE)[0]


def anchors(level: int, text: str) -> list[str]:
    """The anchors of the headings of a level, as renderers of Markdown make them."""
    headings = re.findall(rf"^{'#' * level} (.+)$", text, re.MULTILINE)
    return [re.sub(r"[^\w\- ]", "", heading).lower().replace(" ", "-") for heading in headings]


# -- alerts ---------------------------------------------------------------------------------------------


def test_every_alert_has_its_name_once() -> None:
    assert len(NAMES) > 25
    assert len(set(NAMES)) == len(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_an_alert_has_a_severity_a_summary_and_a_runbook_link(name: str) -> None:
    text = rule(name)
    assert re.search(r"severity: (critical|warning)}", text)
    for annotation in ("summary", "description"):
        assert re.search(rf'{annotation}: "[^"]{{15,}}"', text), annotation
    assert f"runbook_url: docs/runbook.md#{name.lower()}\n" in text


@pytest.mark.parametrize("name", NAMES)
def test_an_alert_is_tested_quiet_and_firing(name: str) -> None:
    tests = (DIRECTORY / "alerts_test.yml").read_text()
    samples = re.findall(rf'ALERTS{{alertname="{name}", alertstate="firing"}}\'\n.*\n +exp_samples:( \[\])?', tests)
    assert " []" in samples
    assert "" in samples


def test_the_runbook_has_an_entry_for_each_alert_and_for_no_other() -> None:
    alerts = RUNBOOK.split("\n## Alerts: ", 1)[1]
    assert sorted(anchors(3, alerts)) == sorted(name.lower() for name in NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_an_entry_of_the_runbook_has_all_its_paragraphs(name: str) -> None:
    entry = re.split(r"^##", RUNBOOK.split(f"\n### {name}\n", 1)[1], flags=re.MULTILINE)[0]
    for part in ("*Means.*", "*Look at.*", "*Do.*"):
        assert part in entry


def test_links_of_the_runbook_exist() -> None:
    existing = {anchor for level in (1, 2, 3) for anchor in anchors(level, RUNBOOK)}
    links = re.findall(r"\]\(([^)]+)\)", RUNBOOK)
    assert {link[1:] for link in links if link.startswith("#")} <= existing
    for link in links:
        assert link.startswith("#") or (ROOT / "docs" / link).exists(), link


def test_the_runbook_s_commands_exist() -> None:
    named = {tuple(command.split()) for command in re.findall(r"examwire ([a-z-]+(?: [a-z-]+)?)", RUNBOOK)}
    assert len(named) > 15
    for words in sorted(named):
        result = CliRunner().invoke(app, [*words, "--help"])
        assert result.exit_code == 0, words


# -- the dashboard --------------------------------------------------------------------------------------


def panels() -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = DASHBOARD["panels"]
    return rows


def test_the_dashboard_is_one_that_grafana_provisions() -> None:
    assert DASHBOARD["schemaVersion"] >= 39
    assert (DASHBOARD["uid"], DASHBOARD["id"]) == ("examwire", None)
    provider = (DIRECTORY / "grafana" / "provisioning" / "dashboards" / "examwire.yml").read_text()
    assert "type: file" in provider
    source = (DIRECTORY / "grafana" / "provisioning" / "datasources" / "prometheus.yml").read_text()
    (uid,) = re.findall(r"uid: (\w+)", source)
    for panel in panels():
        if panel["type"] != "row":
            used = {panel["datasource"]["uid"], *(target["datasource"]["uid"] for target in panel["targets"])}
            assert used == {uid}, panel["title"]


def test_its_panels_have_a_place_of_their_own_and_something_to_show() -> None:
    assert len({panel["id"] for panel in panels()}) == len(panels())
    used_cells: set[tuple[int, int]] = set()
    for panel in panels():
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert max(x for x, _ in cells) < 24
        assert not cells & used_cells, panel["title"]
        used_cells |= cells
        if panel["type"] != "row":
            references = [target["refId"] for target in panel["targets"]]
            assert references
            assert len(set(references)) == len(references)
    rows = [panel["title"] for panel in panels() if panel["type"] == "row"]
    assert rows == [
        *("What proctors see", "Socket servers", "State managers", "Streams and queues", "Engines", "Uploads"),
        "Processes",
    ]


def metrics_in(text: str) -> set[str]:
    """The metrics of ours that a text names."""
    return {re.sub(r"_(bucket|sum|count)$", "", name) for name in re.findall(r"examwire_[a-z_]+", text)}


def test_every_metric_of_alerts_and_dashboard_is_read_by_a_test() -> None:
    # That a role exports them is held by tests/integration/telemetry/test_prometheus.py.
    read = metrics_in("".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py")))
    assert metrics_in(ALERTS + json.dumps(DASHBOARD)) - read == set()


# -- promtool -------------------------------------------------------------------------------------------


@promtool
@pytest.mark.parametrize(
    "arguments",
    [("check", "config", "prometheus.yml"), ("check", "rules", "alerts.yml"), ("test", "rules", "alerts_test.yml")],
)
def test_promtool_accepts_the_rules(arguments: tuple[str, ...]) -> None:
    result = subprocess.run(
        ["promtool", *arguments], cwd=DIRECTORY, capture_output=True, text=True, timeout=180, check=False
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert "SUCCESS" in result.stdout
