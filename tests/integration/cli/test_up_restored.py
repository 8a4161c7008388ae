"""`examwire up` on a broker that was restored from an older copy of its data."""

from __future__ import annotations

import asyncio
import json
import shutil
import signal
from pathlib import Path

from typer.testing import CliRunner

from actors.client.examinee import ExamineeClient
from actors.runtime.config.settings import load_settings
from actors.runtime.config.tokens import issue_token
from cli.main import app
from tests.integration.support.up import Up, running
from tests.support.engine_copy import copy_while_stopped


async def connect(up: Up, *examinees: str) -> None:
    """Connect examinees and leave again, so that the log and Redis have something of them."""
    settings = load_settings(data_dir=up.data_dir)
    for examinee in examinees:
        token = issue_token(settings, "examinee", "P001", examinee)
        async with ExamineeClient(up.ready["socketServers"][0]["url"], token) as client:
            assert client.welcome is not None


def test_up_starts_with_an_older_log_and_says_what_is_missing(tmp_path: Path) -> None:
    data_dir = tmp_path / "data"
    with running(data_dir) as up:
        asyncio.run(connect(up, "E001"))
        copy_while_stopped(up.pid_of("nats-server"), data_dir / "nats" / "jetstream", tmp_path / "copy")
        asyncio.run(connect(up, "E001", "E002"))
        assert up.end(signal.SIGINT) == 0
    shutil.rmtree(data_dir / "nats" / "jetstream")
    shutil.copytree(tmp_path / "copy", data_dir / "nats" / "jetstream")
    with running(data_dir) as up:
        gap = up.ready["logGap"]
        assert gap["upTo"] - gap["after"] >= 4  # the second visit of E001, and E002
        assert f"the facts from {gap['missingFrom']} to {gap['missingTo']} are missing" in up.stderr
        verified = CliRunner().invoke(app, ["state", "verify", "--data-dir", str(data_dir), "-o", "json"])
        assert verified.exit_code == 0, verified.stdout
        assert json.loads(verified.stdout)["kept"] >= 2
        report = CliRunner().invoke(app, ["plans", "report", "P001", "--data-dir", str(data_dir), "-o", "json"])
        assert [each["upTo"] for each in json.loads(report.stdout)["logGaps"]] == [gap["upTo"]]
        timeline = CliRunner().invoke(app, ["plans", "timeline", "P001", "E001", "--data-dir", str(data_dir)])
        assert "are missing: the log was restored from an older copy" in timeline.stderr
        doctor = CliRunner().invoke(app, ["doctor", "--data-dir", str(data_dir), "-o", "json"])
        (finding,) = [each for each in json.loads(doctor.stdout)["findings"] if each["check"] == "log"]
        assert (finding["state"], gap["missingFrom"] in finding["found"]) == ("warning", True)
        asyncio.run(connect(up, "E001"))
        assert up.end(signal.SIGINT) == 0
    with running(data_dir) as up:
        assert "logGap" not in up.ready
