"""The state manager alone: facts go into STATUS as a socket server publishes them, until all are acknowledged."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator

from actors.runtime.broker.connection import Bus, Outgoing
from actors.status_log.status_log import StatusLog
from actors.watches.reconnect_watch import GRACE_SECONDS
from protocol.broker import subjects
from protocol.broker.streams import RECONNECT_WATCH
from protocol.messages.base import Message
from protocol.messages.codec import encode
from protocol.messages.facts import ClientInfo, ConnectionStatus, ConnectionStatusCode, LossReason
from protocol.messages.server_messages import ServerStatus, ServerStatusCode
from protocol.times import format_time
from tests.speed.system import CpuMeter, Figures, Setup, fleet_of

SERVER, INCARNATION = "SOCK001", "i1"
POLL_SECONDS = 0.2
PAUSE_SECONDS = 600.0
DEADLINE_SECONDS = 120.0
_BROWSER = "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0"
_UP_TO_READY = (ServerStatusCode.STARTING, ServerStatusCode.READY)
ROUNDS = (
    ("connect", ConnectionStatusCode.CONNECTED, 1),
    ("loss", ConnectionStatusCode.DISCONNECTED, 1),
    ("reconnect", ConnectionStatusCode.CONNECTED, 2),
    ("loss again", ConnectionStatusCode.DISCONNECTED, 2),
)


async def measure(setup: Setup) -> Figures:
    """Return the CPU µs of each role for a connect and a loss."""
    async with fleet_of(setup.tree, servers=0, managers=setup.managers) as (fleet, _):
        bus = await Bus.connect(fleet.nats_url, "speed")
        try:
            log = StatusLog(bus)
            for status in _server_facts():
                await bus.publish(Outgoing.of(subjects.status_server(SERVER), status))
            await _processed(log)
            meter = CpuMeter(fleet)
            for event, status_code, connection in ROUNDS[:2] if setup.quick else ROUNDS:
                lost = status_code is ConnectionStatusCode.DISCONNECTED
                if lost:  # the attempts that begin with a loss are measured apart
                    await _pause_attempts(bus, PAUSE_SECONDS)
                for plan_id, numbers in _batches(setup):
                    facts = [_fact(plan_id, number, status_code, connection) for number in numbers]
                    await bus.confirm(await bus.send(Outgoing.batches(subjects.status_plan(plan_id), facts)))
                await _processed(log)
                await meter.settled()
                meter.note(event, setup.examinees)
                if lost and not setup.quick:
                    await _pause_attempts(bus, 0.0)
                    await _delivered(bus)
                    await asyncio.sleep(2 * GRACE_SECONDS)  # as long as the watch waits itself
                    await _processed(log)
                    await meter.settled()
                    meter.note(f"attempt after {event}", setup.examinees)
            return meter.figures
        finally:
            await bus.close()


def _batches(setup: Setup) -> Iterator[tuple[str, range]]:
    """Yield a plan and some of its examinees, the plans in turn."""
    share = -(-setup.examinees // setup.plans)
    for start in range(0, share, setup.batch):
        for plan, plan_id in enumerate(setup.plan_ids):
            first, end = plan * share, min((plan + 1) * share, setup.examinees)
            if numbers := range(first + start, min(first + start + setup.batch, end)):
                yield plan_id, numbers


def _server_facts() -> list[ServerStatus]:
    now = format_time(time.time())
    return [
        ServerStatus(
            server_id=SERVER,
            status=status,
            timestamp=now,
            incarnation=INCARNATION,
            server_type="SOCKET",
            url="ws://127.0.0.1:1",
            start_time=now,
        )
        for status in _UP_TO_READY
    ]


def _fact(plan_id: str, number: int, status: ConnectionStatusCode, connection: int) -> Message:
    lost = status is ConnectionStatusCode.DISCONNECTED
    return ConnectionStatus(
        plan_id=plan_id,
        examinee_id=f"E{number:05d}",
        socket_id=f"{SERVER}-s{connection}-{number}",
        status=status,
        timestamp=format_time(time.time()),
        client_info=None if lost else ClientInfo(ip_address="10.0.0.1", browser_info=_BROWSER),
        server_id=SERVER,
        incarnation=INCARNATION,
        reason=LossReason.SOCKET_CLOSED.value if lost else None,
    )


def loss_of(number: int) -> bytes:
    """Return the payload of an examinee's loss."""
    return encode(_fact("P001", number, ConnectionStatusCode.DISCONNECTED, 1))


async def _pause_attempts(bus: Bus, seconds: float) -> None:
    """Let the broker deliver to no reconnect watch for so long; 0: deliver again."""
    until = format_time(time.time() + seconds)
    subject = f"$JS.API.CONSUMER.PAUSE.{RECONNECT_WATCH.stream}.{RECONNECT_WATCH.name}"
    answer = json.loads(await bus.request(subject, json.dumps({"pause_until": until}).encode()))
    assert answer["paused"] is bool(seconds), answer


async def _delivered(bus: Bus) -> None:
    """Wait until the reconnect watch has got everything once."""
    async with asyncio.timeout(DEADLINE_SECONDS):
        while any(consumer.pending for consumer in await bus.consumer_states(RECONNECT_WATCH.stream)):  # noqa: ASYNC110
            await asyncio.sleep(POLL_SECONDS)  # the broker is what is polled


async def _processed(log: StatusLog) -> None:
    """Wait until the state managers have acknowledged everything."""
    async with asyncio.timeout(DEADLINE_SECONDS):
        while True:
            extent = await log.extent()
            if extent.acknowledged >= extent.last:
                return
            await asyncio.sleep(POLL_SECONDS)
