"""`examwire simulate` against the real system."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from actors.runtime.broker.connection import Bus
from actors.runtime.config.settings import Settings
from actors.web_server.server import WebServer
from cli.local.engines import free_port
from cli.main import app
from cli.simulate.simulate import NoSystem, SimulateOptions, simulate
from tests.integration.support.settings import changed
from tests.integration.support.system import System


@pytest.fixture
async def system(bus: Bus, settings: Settings) -> AsyncIterator[System]:
    quick = changed(
        settings,
        {
            "reconnect.max_attempts": 3,
            "reconnect.backoff_seconds": [0.5, 0.7, 0.9],
            "socket.ping_interval_seconds": 0.4,
            "socket.ping_timeout_seconds": 0.4,
            "mobile_sync.timeout_seconds": 2.5,
        },
    )
    async with System(quick) as system:
        yield system
        assert system.failures == []


async def test_every_act_is_shown_and_what_proctors_see_is_true(system: System) -> None:
    web = await system.start("web-server", lambda bus: WebServer(system.settings, bus, system.store))
    assert isinstance(web, WebServer)
    urls = tuple(system.server(server_id).url for server_id in ("SOCK001", "SOCK002"))
    report = await simulate(
        SimulateOptions(system.settings, urls, web.url, examinees=8, proctors=3, seed=11, speed=5.0)
    )
    assert report.ok, report
    assert (report.failures, report.unfinished, report.connected) == ([], 0, 8)
    assert {
        "examinee_connected",
        "examinee_disconnected",
        "examinee_reconnecting",
        "examinee_reconnect_exhausted",
        "examinee_readmitted",
        "mobile_sync_status",
        "mobile_sync_completed",
        "notice",
        "notice_confirmed",
    } == set(report.events)
    assert report.notices == report.events["notice"] == report.events["notice_confirmed"] > 0
    assert [proctor.server_id for proctor in report.proctors] == ["SOCK001", "SOCK002", "SOCK001"]
    assert all(proctor.events["examinee_connected"] == report.opened for proctor in report.proctors)


async def test_a_duration_ends_it_with_some_away_and_the_truth_is_still_seen(system: System) -> None:
    options = SimulateOptions(
        system.settings, (system.server("SOCK001").url,), examinees=10, duration=2.0, seed=3, speed=4.0
    )
    report = await simulate(options)
    assert report.ok, report
    assert report.seconds < 30


async def test_a_socket_server_that_is_not_there_cannot_be_tried(settings: Settings) -> None:
    with pytest.raises(NoSystem, match="unreachable"):
        await simulate(SimulateOptions(settings, (f"ws://127.0.0.1:{free_port()}",), examinees=1))


def test_the_command_says_so_when_nothing_runs(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["simulate", "--data-dir", str(tmp_path)])
    assert result.exit_code == 4
    assert "no `examwire up` runs" in result.stderr
    assert result.stdout == ""


def test_the_command_says_so_when_what_ran_is_gone(tmp_path: Path) -> None:
    closed_port = f"127.0.0.1:{free_port()}"
    ready = {
        "natsUrl": "nats://127.0.0.1:1",
        "redisUrl": "redis://127.0.0.1:1/0",
        "socketServers": [{"serverId": "SOCK001", "url": f"ws://{closed_port}/v1/connect"}],
        "webUrl": f"http://{closed_port}",
        "planId": "P001",
    }
    (tmp_path / "ready.json").write_text(json.dumps(ready))
    result = CliRunner().invoke(app, ["simulate", "--data-dir", str(tmp_path), "-o", "json"])
    assert result.exit_code == 4
    assert closed_port in result.stderr
