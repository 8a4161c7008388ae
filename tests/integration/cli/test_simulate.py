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
from cli.simulate import exam
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


async def test_a_whole_exam_shows_every_action_and_proctors_see_the_real_state(
    system: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exam, "WAITING_ROOM_SECONDS", 1.0)
    web = await system.start("web-server", lambda bus: WebServer(system.settings, bus, system.store))
    assert isinstance(web, WebServer)
    urls = tuple(system.server(server_id).url for server_id in ("SOCK001", "SOCK002"))
    report = await simulate(
        SimulateOptions(system.settings, urls, web.url, examinees=8, proctors=3, seed=11, speed=5.0, exam=True)
    )
    assert report.ok, report
    assert (report.failures, report.unfinished, report.connected) == ([], 0, 0)
    assert report.handed_in > 0
    assert report.handed_in + report.ended_by_plan == 8
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
        "examinee_finished",
        "plan_state",
    } == set(report.events)
    assert report.notices == report.events["notice"] == report.events["notice_confirmed"] > 0
    assert [proctor.server_id for proctor in report.proctors] == ["SOCK001", "SOCK002", "SOCK001"]
    assert all(proctor.events["examinee_connected"] == report.opened for proctor in report.proctors)
    assert all(proctor.events["examinee_finished"] == 8 for proctor in report.proctors)


async def test_a_simulation_that_ends_with_examinees_absent_is_judged_correctly(system: System) -> None:
    options = SimulateOptions(
        system.settings, (system.server("SOCK001").url,), examinees=10, duration=2.0, seed=3, speed=4.0
    )
    report = await simulate(options)
    assert report.ok, report
    assert report.seconds < 30


async def test_an_unreachable_socket_server_is_reported(settings: Settings) -> None:
    with pytest.raises(NoSystem, match="unreachable"):
        await simulate(SimulateOptions(settings, (f"ws://127.0.0.1:{free_port()}",), examinees=1))


def test_a_missing_system_is_reported(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["simulate", "--data-dir", str(tmp_path)])
    assert result.exit_code == 4
    assert "no `examwire up` runs" in result.stderr
    assert result.stdout == ""


def test_a_system_that_has_ended_is_reported(tmp_path: Path) -> None:
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
