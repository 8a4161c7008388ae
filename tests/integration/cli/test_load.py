"""`examwire load` with few examinees: everything is accounted for, and nothing is left behind. Never about timing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
from typer.testing import CliRunner

from actors.runtime.config.settings import Settings
from actors.runtime.store.state_store import StateStore
from cli.main import app
from protocol.records.keys import PLANS
from tests.integration.support.up import Up
from tests.integration.support.up import running as running_up
from tests.support.polling import wait_until

SECRET = "a secret of the load's tests, long enough"
EXAMINEES = "30"
DEADLINE_SECONDS = 150.0


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "cli.main", "load", *arguments, "-o", "json"]


def load(directory: Path, *arguments: str) -> tuple[int, dict[str, Any]]:
    """Exit code and report of a run whose temporary files go under `directory`."""
    result = subprocess.run(
        command(*arguments),
        env={**os.environ, "TMPDIR": str(directory), "EXAMWIRE_SECRET": SECRET},
        capture_output=True,
        text=True,
        timeout=DEADLINE_SECONDS,
        check=False,
    )
    assert result.stdout, f"exit code {result.returncode} without a report; stderr:\n{result.stderr}"
    return result.returncode, json.loads(result.stdout)


def assert_accounted_for(report: dict[str, Any]) -> None:
    names = ("missing", "doubled", "outOfOrder", "redisDisagrees", "viewsDisagree", "unexpectedLosses", "notAdmitted")
    assert {name: report[name] for name in names} == dict.fromkeys(names, 0)
    assert report["correct"] is True


def assert_percentiles(percentiles: dict[str, float], samples: int) -> None:
    assert percentiles["samples"] == samples
    assert 0 < percentiles["p50"] <= percentiles["p95"] <= percentiles["p99"]


ROLES = {"nats-server", "redis-server", "queue-server", "state-manager", "socket-server"}


def test_one_by_one_accounts_for_every_loss_and_compares_with_the_bare_path(tmp_path: Path) -> None:
    code, report = load(tmp_path, "one-by-one", "--examinees", EXAMINEES, "--repeat", "6", "--baseline")
    assert code == 0
    assert_accounted_for(report)
    assert report["scenario"] == "one-by-one"
    assert report["examinees"] == 30
    assert_percentiles(report["latencyMs"], 6)
    assert_percentiles(report["recoveryLatencyMs"], 6)
    in_redis = report["redisLatencyMs"]
    assert in_redis["samples"] in (1, 2)  # who is back before anybody has looked is in none
    assert_percentiles(in_redis, in_redis["samples"])
    assert_percentiles(report["baseline"]["latencyMs"], 6)
    assert report["ratio"] == report["baseline"]["ratio"] > 0
    assert report["cpuSeconds"].keys() >= ROLES
    assert report["cpuMicrosecondsEach"]["loss and recovery"].keys() >= ROLES
    assert report["kibPerConnection"] is not None
    assert list(tmp_path.iterdir()) == []


def test_a_rolling_restart_while_losses_go_on_moves_everybody_and_alarms_nobody(tmp_path: Path) -> None:
    several = ("--plans", "2", "--proctors", "3", "--managers", "2")
    code, report = load(tmp_path, "rolling-restart", "--examinees", EXAMINEES, "--rate", "5", "--over", "1", *several)
    assert code == 0
    assert_accounted_for(report)
    assert (report["servers"], report["managers"], report["plans"], report["proctors"]) == (2, 2, 2, 3)
    assert report["falseAlarms"] == 0
    # Half of them are on the first server; the second has many when its turn comes, on a quick machine all.
    assert report["migrated"] > 15
    assert_percentiles(report["migrationMs"], report["migrated"])
    assert report["lossesPerSecond"] > 0
    assert list(tmp_path.iterdir()) == []


# -- a system that runs already ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    """A running system of two socket servers."""
    with running_up(tmp_path_factory.mktemp("up") / "data", EXAMWIRE_SECRET=SECRET) as up:
        yield up


def at(up: Up, redis_url: str | None = None) -> list[str]:
    """The flags that name the engines and socket servers of a running system."""
    flags = ["--nats-url", up.ready["natsUrl"], "--redis-url", redis_url or up.ready["redisUrl"]]
    for server in up.ready["socketServers"]:
        flags += ["--socket-url", server["url"]]
    return flags


async def test_a_hall_outage_of_a_running_system_is_told_in_full_and_everybody_comes_back(
    up: Up, tmp_path: Path
) -> None:
    code, report = load(tmp_path, "hall-outage", "--examinees", EXAMINEES, "--workers", "2", "--baseline", *at(up))
    assert code == 0
    assert_accounted_for(report)
    assert report["servers"] == 2
    assert_percentiles(report["latencyMs"], 30)
    assert_percentiles(report["recoveryLatencyMs"], 30)
    assert_percentiles(report["redisLatencyMs"], 30)
    assert_percentiles(report["baseline"]["latencyMs"], 90)
    assert report["connectsPerSecond"] > 0
    assert report["kibPerConnection"] is None  # somebody else's process
    # The time until the first frame counts as well, so it cannot be more.
    assert report["lossesPerSecondOverall"] > 0
    assert report["lossesPerSecond"] is None or report["lossesPerSecondOverall"] <= report["lossesPerSecond"]
    store = StateStore(up.ready["redisUrl"])
    assert report["planId"] in await store.members(PLANS)
    await store.close()


def test_a_steady_load_reconnects_everybody_it_disconnects(up: Up, tmp_path: Path) -> None:
    arguments = ("--examinees", EXAMINEES, "--rate", "10", "--duration", "2", "--plan", "P-steady", "--baseline")
    code, report = load(tmp_path, "steady", *arguments, *at(up))
    assert code == 0
    assert_accounted_for(report)
    assert report["planId"] == "P-steady"
    assert_percentiles(report["latencyMs"], 20)
    assert_percentiles(report["recoveryLatencyMs"], 20)
    assert report["lossesPerSecond"] > 0
    assert report["ratio"] > 0


def test_a_redis_with_wrong_records_fails_the_run(
    up: Up, settings: Settings, store: StateStore, tmp_path: Path
) -> None:
    arguments = ("--examinees", "5", "--rate", "2", "--duration", "1", *at(up, settings.redis_url))
    code, report = load(tmp_path, "steady", *arguments)
    assert code == 1
    assert report["redisDisagrees"] == 6  # and the one that marks the end
    assert report["missing"] == report["doubled"] == 0


# -- nothing is left behind ----------------------------------------------------------------------------


@contextmanager
def running(directory: Path) -> Iterator[tuple[subprocess.Popen[str], list[psutil.Process]]]:
    """A run in its measured part, and the processes that it has started."""
    process = subprocess.Popen(
        command("one-by-one", "--examinees", "3", "--repeat", "100000"),
        env={**os.environ, "TMPDIR": str(directory)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    children: list[psutil.Process] = []
    try:
        assert process.stderr is not None
        for line in process.stderr:
            if "one at a time" in line:
                break
        children = psutil.Process(process.pid).children(recursive=True)
        yield process, children
    finally:
        process.kill()
        for child in children:
            if child.is_running():
                child.kill()
        process.wait()
        assert process.stderr is not None
        process.stderr.close()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_processes_of_a_run_end_with_it_however_it_ends(tmp_path: Path, number: signal.Signals) -> None:
    with running(tmp_path) as (process, children):
        assert len(children) >= len(ROLES) + 2  # and the proctor, and the seats
        process.send_signal(number)
        assert process.wait(DEADLINE_SECONDS) != 0
        all_ended = lambda: not any(child.is_running() and child.status() != psutil.STATUS_ZOMBIE for child in children)  # noqa: E731
        assert wait_until(all_ended, 20.0)
    if number is not signal.SIGKILL:
        assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "arguments",
    [
        ("one-by-one", "--nats-url", "nats://127.0.0.1:4222"),
        ("one-by-one", "--socket-url", "ws://127.0.0.1:8001"),
        ("one-by-one", "--plan", "P.1"),
        ("one-by-one", "--examinees", "0"),
        ("two-by-two",),
        ("rolling-restart", "--servers", "1"),
        ("hall-outage", "--servers", "1,2"),
        ("hall-outage", "--apart"),
        ("rolling-restart", "--socket-url", "ws://127.0.0.1:8001", "--redis-url", "redis://127.0.0.1:6379"),
    ],
)
def test_contradicting_flags_are_a_usage_error(arguments: tuple[str, ...]) -> None:
    result = CliRunner().invoke(app, ["load", *arguments])
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr
