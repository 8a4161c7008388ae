"""Clocks that are wrong: ages go by the broker's, deadlines by the log's, whatever a server's own clock says."""

from __future__ import annotations

import asyncio
import json
import os
import re
import sys
import time
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from email.utils import parsedate_to_datetime
from typing import Any
from unittest.mock import AsyncMock

import httpx
import pytest

from actors.runtime.broker.connection import Bus
from actors.runtime.config.settings import Settings
from actors.runtime.store.state_store import StateStore
from protocol.broker.streams import STATUS
from protocol.errors import BrokerUnavailable
from protocol.records import keys
from protocol.times import parse_time
from tests.integration.bad_input.support import crafted
from tests.integration.support.clients.phones import capture_path, picture, upload_path
from tests.integration.support.command_line import Invoke
from tests.integration.support.server_process import ServerProcess, join
from tests.integration.support.system import RawClient, System, eventually
from tests.support.faked_clock import clock_ahead, needs_faketime
from tests.support.metrics import sample

HOUR = 3600.0


@pytest.fixture
async def system(settings: Settings, bus: Bus, store: StateStore) -> AsyncIterator[System]:
    async with System(settings, servers=("SOCK002",)) as system:
        yield system


@asynccontextmanager
async def server(system: System, ahead: float) -> AsyncIterator[ServerProcess]:
    """SOCK001, a process whose clock is so far ahead."""
    process = await ServerProcess.start(system.settings, variables=clock_ahead(ahead))
    try:
        await eventually(lambda: system.server_is("SOCK001", "READY"), "SOCK001 READY in Redis")
        yield process
    finally:
        if process.process.returncode is None:
            process.process.terminate()
        await process.process.communicate()


async def watching(system: System, url: str) -> RawClient:
    proctor = await RawClient.open(url)
    system.clients.append(proctor)
    await proctor.hello(system.token("proctor", "kim"), "proctor-1")
    await proctor.expect("plan_snapshot")
    return proctor


@needs_faketime
@pytest.mark.parametrize("ahead", [2 * HOUR, -150.0])
async def test_a_socket_server_whose_clock_is_wrong_serves_its_clients_like_any_other(
    system: System, ahead: float
) -> None:
    began = time.time()
    async with server(system, ahead) as process:
        first_proctor, second_proctor = await watching(system, process.url), await system.proctor("SOCK002", name="lee")
        examinee = await join(system, process.url, "E001")
        other = await system.examinee("E002", "SOCK002")
        for proctor in (first_proctor, second_proctor):
            for examinee_id in ("E001", "E002"):
                connected = await proctor.expect("examinee_connected", examineeId=examinee_id)
                assert began - 2 < parse_time(connected["data"]["timestamp"]) < time.time() + 2

        await examinee.say("mobile_sync_wait")
        waiting = await examinee.expect("mobile_sync_status", status="WAITING")
        seconds_left = parse_time(waiting["data"]["deadline"]) - time.time()
        assert abs(seconds_left - system.settings.mobile_sync.timeout_seconds) < 15
        await first_proctor.say("notify", examineeId="E001", requestId="n1", text="hello")
        notice = await examinee.expect("notice", text="hello")
        assert abs(parse_time(notice["data"]["timestamp"]) - time.time()) < 15

        # Away on the one and back on the other: the outage is as long as it was.
        examinee.abort()
        loss = await second_proctor.expect("examinee_disconnected", examineeId="E001")
        returning = await system.examinee("E001", "SOCK002", client_id="browser-E001", connection_no=2)
        recovered = await second_proctor.expect(
            "examinee_connected", after=second_proctor.frames.index(loss), examineeId="E001"
        )
        outage = parse_time(recovered["data"]["timestamp"]) - parse_time(loss["data"]["timestamp"])
        assert -0.5 < outage < 15
        assert abs(parse_time((await system.progress())["lastActiveTime"]) - time.time()) < 15
        for client in (first_proctor, second_proctor, other, returning):
            assert client.websocket.close_code is None


@needs_faketime
async def test_a_token_is_valid_by_the_brokers_clock(system: System) -> None:
    now = int(time.time())
    cases: list[tuple[float, dict[str, Any]]] = [(2 * HOUR, {"exp": now + 60}), (-150.0, {"iat": now})]
    for ahead, claims in cases:
        async with server(system, ahead) as process:
            client = await RawClient.open(process.url)
            system.clients.append(client)
            await client.hello(crafted(system.settings, **claims))


@needs_faketime
async def test_a_server_with_a_wrong_clock_is_reported(system: System, invoke: Invoke) -> None:
    async with server(system, -150.0) as process:
        result = await invoke("doctor", "-o", "json")
        clocks = [finding for finding in json.loads(result.stdout)["findings"] if finding["check"] == "clocks"]
        (warning,) = [clock["found"] for clock in clocks if clock["state"] == "warning"]
        assert re.fullmatch(
            r"the clock of socket.SOCK001 is (150|149|15[01])[.0-9]* s behind the broker's, .*", warning
        )
        process.process.terminate()
        code, log = await process.ended()
    assert code == 0
    (line,) = [line for line in log.splitlines() if "the broker's" in line]
    assert re.search(r"this machine's clock is 1(50|49)[.]\d s behind the broker's", line), log


@asynccontextmanager
async def role(settings: Settings, name: str, ahead: float, *arguments: str) -> AsyncIterator[dict[str, str]]:
    """A role's process whose clock is so far ahead; its ready line."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "cli.main", "run", name, "--json", *arguments),
        *("--nats-url", settings.nats_url, "--redis-url", settings.redis_url, "--data-dir", str(settings.data_dir)),
        stdout=PIPE,
        env={**os.environ, **clock_ahead(ahead)},
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(60):
            yield json.loads(await process.stdout.readline())
    finally:
        process.terminate()
        await process.communicate()


@needs_faketime
@pytest.mark.parametrize("ahead", [90.0, -2 * HOUR])
async def test_a_web_server_whose_clock_is_wrong_takes_pictures_until_the_deadline(
    system: System, ahead: float
) -> None:
    settings = system.settings
    examinee = await system.examinee("E001", "SOCK002")
    await examinee.say("mobile_sync_wait")
    await examinee.expect("mobile_sync_status", status="WAITING")
    async with role(settings, "web-server", ahead) as ready, httpx.AsyncClient(base_url=ready["url"]) as http:
        bearer = {"Authorization": f"Bearer {system.token('examinee', 'E001')}"}
        stage = (await http.get("/v1/plans/P001/examinees/E001/mobile-stage", headers=bearer)).json()
        assert 0 < settings.mobile_sync.timeout_seconds - stage["secondsLeft"] < 15
        answer = await http.post("/v1/plans/P001/examinees/E001/phone-code", headers=bearer)
        assert answer.status_code == 201, answer.text
        assert abs(parse_time(answer.json()["expiresAt"]) - parse_time(stage["deadline"])) < 2
        assert abs(parsedate_to_datetime(answer.headers["Date"]).timestamp() - time.time()) < 15
        joined = await http.post(f"/v1/phone-codes/{answer.json()['code']}")
        phone = {"Authorization": f"Bearer {joined.json()['token']}"}
        stored = await http.put(upload_path(), content=picture(), headers=phone)
        assert stored.status_code == 201, stored.text
        assert abs(parse_time(stored.json()["timestamp"]) - time.time()) < 15
        proctor = {"Authorization": f"Bearer {system.token('proctor', 'kim')}"}
        assert (await http.get(capture_path(), headers=proctor)).status_code == 200
        timeline = (await http.get("/v1/plans/P001/examinees/E001/timeline", headers=proctor)).json()
        assert abs(parse_time(timeline["asOf"]) - time.time()) < 15
        await examinee.expect("mobile_sync_completed")


@needs_faketime
@pytest.mark.parametrize("ahead", [2 * HOUR, -150.0])
async def test_a_state_manager_with_a_wrong_clock_publishes_right_times(
    settings: Settings, bus: Bus, store: StateStore, ahead: float
) -> None:
    async with System(settings, servers=("SOCK002",)) as system:
        for name in ("state-manager", "reconnect-watch", "lease-watch"):
            await system.stop(name)
        async with role(settings, "state-manager", ahead, "--name", "wrong"):
            proctor = await system.proctor("SOCK002")
            examinee = await system.examinee("E001", "SOCK002")
            await examinee.say("mobile_sync_wait")
            waiting = await examinee.expect("mobile_sync_status", status="WAITING")
            seconds_left = parse_time(waiting["data"]["deadline"]) - time.time()
            assert abs(seconds_left - settings.mobile_sync.timeout_seconds) < 15
            examinee.abort()
            attempt = await proctor.expect("examinee_reconnecting", examineeId="E001")
            until = parse_time(attempt["data"]["nextAttemptAt"]) - time.time()
            assert abs(until - settings.reconnect.backoff_seconds[0]) < 15
            assert (await store.entries(keys.mobile_sync("P001", "E001")))["deadline"] == waiting["data"]["deadline"]


@needs_faketime
async def test_a_queue_server_with_a_slow_clock_creates_a_log_that_begins_now(settings: Settings, bus: Bus) -> None:
    before = time.time() * 1000
    async with role(settings, "queue-server", -2 * HOUR, "--name", "wrong"):
        state = await bus.stream_state(STATUS.name)
        assert before - 5000 < state.first < time.time() * 1000 + 5000


async def test_the_age_of_a_message_is_by_the_brokers_clock_and_its_drop_is_logged(
    settings: Settings, bus: Bus, store: StateStore, caplog: pytest.LogCaptureFixture
) -> None:
    socket = settings.socket.model_copy(update={"queue_expire_seconds": 60})
    async with System(settings.model_copy(update={"socket": socket}), servers=("SOCK001",)) as system:
        server = system.server("SOCK001")
        examinee, proctor = await system.examinee("E001", "SOCK001"), await system.proctor("SOCK001")
        # It thinks that it is two hours later: the clock of the broker's machine was set back, say.
        server._bus.clock._ahead = (server._bus.clock._ahead or 0.0) + 2 * HOUR
        await proctor.say("notify", examineeId="E001", requestId="n1", text="one")
        await examinee.expect("notice", text="one")
        await proctor.expect("notice", text="one")
        assert "expireTime" not in caplog.text
        # And now it is.
        dropped = sample("examwire_socket_expired_messages_total")
        clock = server._bus.clock
        clock._ahead = (clock._ahead or 0.0) + 2 * HOUR
        server._bus.clock.measure = AsyncMock(side_effect=BrokerUnavailable("away"))  # type: ignore[method-assign]
        await proctor.say("notify", examineeId="E001", requestId="n2", text="two")

        async def said() -> bool:
            return sample("examwire_socket_expired_messages_total") > dropped

        await eventually(said, "the messages are counted as expired")
        assert "older than 60 s (expireTime)" in caplog.text
        assert system.failures == []
