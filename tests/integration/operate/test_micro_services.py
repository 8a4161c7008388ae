"""The stock tools see the actors: micro services answer as ADR-32 says."""

from __future__ import annotations

import json
import re
import time
from datetime import datetime

from actors.runtime.broker.connection import Bus
from protocol.broker import subjects
from tests.integration.support.system import System

NAME = re.compile(r"^[a-zA-Z0-9_-]+$")
SEMVER = re.compile(r"^(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)(-[0-9A-Za-z.-]+)?(\+[0-9A-Za-z.-]+)?$")
COUNTS = ("num_requests", "num_errors", "processing_time", "average_processing_time")


async def test_micro_services_follow_adr_32(system: System, bus: Bus) -> None:
    """What `nats service ls|info|stats` ask for, by the schemas `io.nats.micro.v1.*_response`."""
    await bus.request(subjects.control("state-manager.sm1"), b"{}")
    for verb in ("PING", "INFO", "STATS"):
        await _answers_by_the_schema(bus, verb)


async def _answers_by_the_schema(bus: Bus, verb: str) -> None:
    everyone = [json.loads(answer) for answer in await bus.request_many(f"$SRV.{verb}", wait=0.2)]
    assert {answer["metadata"]["address"] for answer in everyone} >= {"socket.SOCK001", "state-manager.sm1"}
    for answer in everyone:
        assert answer["type"] == f"io.nats.micro.v1.{verb.lower()}_response"
        assert NAME.match(answer["name"])
        assert SEMVER.match(answer["version"])
        assert answer["id"]
        assert all(isinstance(value, str) for value in answer["metadata"].values())
        if verb == "INFO":
            assert answer["description"]
            for endpoint in answer["endpoints"]:
                assert NAME.match(endpoint["name"])
                assert endpoint["subject"]
                assert isinstance(endpoint["metadata"], dict)
        if verb == "STATS":
            started = datetime.fromisoformat(answer["started"])
            assert abs(started.timestamp() - time.time()) < 120
            assert {endpoint["name"] for endpoint in answer["endpoints"]} >= {"inspect", "control"}
            for endpoint in answer["endpoints"]:
                assert all(isinstance(endpoint[count], int) and endpoint[count] >= 0 for count in COUNTS)
                assert isinstance(endpoint["last_error"], str)
                assert endpoint["data"]["address"] == answer["metadata"]["address"]
    state_manager = next(answer for answer in everyone if answer["metadata"]["address"] == "state-manager.sm1")
    answer_by_id = json.loads(await bus.request(f"$SRV.{verb}.state-manager.{state_manager['id']}"))
    assert answer_by_id["id"] == state_manager["id"]
    if verb == "STATS":
        (control,) = [endpoint for endpoint in answer_by_id["endpoints"] if endpoint["name"] == "control"]
        assert control["num_requests"] == 1
        assert control["processing_time"] > 0
    assert len(await bus.request_many(f"$SRV.{verb}.socket-server", wait=0.2)) == 2
