"""examwire.js in node, over real WebSockets, against the real system (`client_library_live.mjs`)."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path
from typing import Any

import pytest

from actors.runtime.broker.connection import Bus
from actors.runtime.config.settings import Settings
from tests.integration.support.settings import changed
from tests.integration.support.system import System
from tests.unit.pages.test_js import node_binary, why_no_node

SCRIPT = Path(__file__).parents[1] / "support" / "clients" / "client_library_live.mjs"
SECONDS = 60.0


async def test_the_javascript_client_works_with_a_real_server(settings: Settings, bus: Bus) -> None:
    if (reason := why_no_node()) is not None:
        pytest.skip(reason)
    quick = changed(settings, {"secret": settings.secret, "reconnect.backoff_seconds": [1.0, 1.0, 2.0]})
    async with System(quick) as system:
        live = {
            "urls": [system.server(server_id).url for server_id in ("SOCK001", "SOCK002")],
            "tokens": {
                "proctor": system.token("proctor", "anna"),
                "examinee": system.token("examinee", "E001"),
                "other": system.token("examinee", "E002"),
            },
        }
        node = await asyncio.create_subprocess_exec(
            *(str(node_binary()), "--experimental-websocket", "--no-warnings", str(SCRIPT)),
            env={**os.environ, "EXAMWIRE_LIVE": json.dumps(live)},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        steps: dict[str, dict[str, Any]] = {}
        try:
            async with asyncio.timeout(SECONDS):
                assert node.stdout is not None
                async for line in node.stdout:
                    happened = json.loads(line)
                    steps[happened.pop("what")] = happened
                    if "both are there" in steps and "SOCK001" in system.actors:
                        await system.stop("SOCK001")
                assert node.stderr is not None
                complaints = (await node.stderr.read()).decode()
                assert await node.wait() == 0, complaints
        finally:
            if node.returncode is None:
                node.kill()
                await node.wait()
        assert system.failures == []

    assert steps["both are there"] == {"server": "SOCK001", "beat": quick.socket.ping_interval_seconds}
    assert steps["both are back"] == {"server": "SOCK002", "no": 2, "proctorOn": "SOCK002"}
    assert steps["waiting for the phone"]["deadline"]
    assert steps["waiting for the phone"]["sameForProctor"] is True
    replaced = steps["replaced"]
    assert (replaced["status"]["code"], replaced["status"]["remedy"]) == (4503, "USER")
    assert replaced["insists"] is False, "only a person may insist"
    assert steps["accepted"]["accepted"]["requestType"] == "readmit"
    assert steps["refused"]["refused"] == {"code": "NOT_FOUND", "field": "data.examineeId"}
    assert steps["stranger"]["status"]["remedy"] == "TOKEN"
    assert steps["end"]["counts"]["doubled"] == 0
    assert steps["end"]["counts"]["told"] >= 3
