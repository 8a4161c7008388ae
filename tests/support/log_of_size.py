"""Write a log of a chosen size into STATUS within seconds: days of exams, as an installation has them.

On each day every examinee of a day's plans is enrolled, connects, enters the mobile sync stage, is lost and recovers,
and on all days but the last finishes and leaves. At the end of the last day everybody is still connected. The
consumers of the state managers have acknowledged everything, as if the messages had been worked off.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

from actors.runtime.broker.connection import Bus, Outgoing
from protocol.broker import subjects
from protocol.broker.streams import DAY, STATE_MANAGERS
from protocol.messages.base import Message
from protocol.messages.codec import encode, encode_batches
from protocol.messages.facts import (
    ClientInfo,
    ConnectionStatus,
    ConnectionStatusCode,
    Enrol,
    ExamineeFinish,
    FinishReason,
    LossReason,
    MobileSyncWait,
)
from protocol.messages.plan_facts import PlanClose, PlanOpen, PlanSchedule
from protocol.messages.server_messages import ServerStatus, ServerStatusCode
from protocol.times import format_time

ATOMIC_MESSAGES = 1000
"""The most messages that nats-server takes in one atomic batch."""
SERVERS = ("SOCK001", "SOCK002")
INCARNATION = "log-of-size"
# Stand for the values in encoded messages: encoding a message a hundred thousand times takes minutes.
_PLAN, _EXAMINEE, _SERVER = "PPPPPP", "EEEEEE", "SSSSSS"
_SOCKET = "SSSSSS-socket"
_TIME = "2000-01-01T00:00:00.000Z"


@dataclass(frozen=True, slots=True)
class LogSize:
    """How large a log is. A day has `examinees` in `plans`; each of them has about `messages_each` messages.

    So the log spans `messages` / (`examinees` * `messages_each`) days, of which today is the last.
    """

    messages: int
    examinees: int = 15_000
    plans: int = 50
    messages_each: int = 10

    @property
    def days(self) -> int:
        return max(1, round(self.messages / (self.examinees * self.messages_each)))


@dataclass(frozen=True, slots=True)
class WrittenLog:
    """What was written: the plans with their examinees, and those of the last day, where everybody is connected.

    `last`: the sequence of the last message. `messages`: how many were written.
    """

    plans: dict[str, list[str]]
    live_plans: list[str]
    messages: int
    last: int
    seconds: float


async def write_log(bus: Bus, size: LogSize) -> WrittenLog:
    """Write a log into the stream STATUS, which exists and which nobody reads yet.

    Example::

        await apply_topology(bus, settings)
        written = await write_log(bus, LogSize(150_000))  # in 3 s; a million in half a minute
    """
    began = time.monotonic()
    days = [_Day(size, day) for day in range(size.days)]
    count = last = 0
    batch: list[Outgoing] = []
    for message in _messages(days, size):
        batch.append(message)
        if len(batch) == ATOMIC_MESSAGES:
            last = (await bus.publish_atomic(batch)).sequence
            count += len(batch)
            batch = []
    if batch:
        last = (await bus.publish_atomic(batch)).sequence
        count += len(batch)
    for spec in STATE_MANAGERS:
        await bus.apply_consumer(spec, anew=True, first=last + 1)
    plans = {plan_id: examinees for day in days for plan_id, examinees in day.plans.items()}
    return WrittenLog(plans, list(days[-1].plans), count, last, time.monotonic() - began)


def _messages(days: list[_Day], size: LogSize) -> Iterator[Outgoing]:
    for server_id in SERVERS:
        for status in (ServerStatusCode.STARTING, ServerStatusCode.READY):
            yield Outgoing.of(subjects.status_server(server_id), _server_status(server_id, status, days[0].began))
    for day in days:
        yield from day.messages(last=day is days[-1])


class _Day:
    """The exams of one day."""

    def __init__(self, size: LogSize, number: int) -> None:
        self.began = time.time() - (size.days - 1 - number) * DAY - 3600
        each = size.examinees // size.plans
        self.plans = {
            f"D{number}-P{plan:03}": [f"E{plan:03}{examinee:04}" for examinee in range(each)]
            for plan in range(size.plans)
        }
        # The first two messages are CONNECTED and the mobile sync; those of the end take the place of the last loss.
        self._losses = (size.messages_each - 2) // 2

    def messages(self, *, last: bool) -> Iterator[Outgoing]:
        for plan_id, examinees in self.plans.items():
            manager = subjects.status_plan(plan_id, subjects.WEB)
            began, ends = format_time(self.began), format_time(self.began + 4 * 3600)
            schedule = PlanSchedule(
                plan_id=plan_id, timestamp=began, by="operator", name=plan_id, starts_at=began, ends_at=ends
            )
            yield Outgoing.of(manager, schedule, PlanOpen(plan_id=plan_id, timestamp=began, by="operator"))
            roster = [
                Enrol(plan_id=plan_id, examinee_id=examinee_id, timestamp=began, name=f"Name of {examinee_id}")
                for examinee_id in examinees
            ]
            yield from (Outgoing(manager, payload) for payload in encode_batches(roster))
        yield from self._round(_CONNECTED, 60, 0)
        yield from self._round(_MOBILE_SYNC, 120, 0)
        for number in range(self._losses - (0 if last else 1)):
            yield from self._round(_LOST, 600 * (number + 1), number)
            yield from self._round(_CONNECTED, 600 * (number + 1) + 20, number + 1)
        if last:
            return
        yield from self._round(_FINISHED, 13_000, self._losses)
        yield from self._round(_LOST, 13_010, self._losses - 1)
        for plan_id in self.plans:
            close = PlanClose(plan_id=plan_id, timestamp=format_time(self.began + 14_000), by="operator")
            yield Outgoing.of(subjects.status_plan(plan_id, subjects.WEB), close)

    def _round(self, template: bytes, second: float, socket: int) -> Iterator[Outgoing]:
        """Yield one message of each examinee, in the order of the plans' first, second, … examinees."""
        moment = format_time(self.began + second).encode()
        each = max(map(len, self.plans.values()))
        subjects_of_origin = {
            (plan_id, server): subjects.status_plan(plan_id, subjects.socket_origin(server))
            for plan_id in self.plans
            for server in SERVERS
        }
        by_server = {
            server: template.replace(_TIME.encode(), moment)
            .replace(_SOCKET.encode(), f"{server}-{_PLAN}-{_EXAMINEE}-{socket}".encode())
            .replace(_SERVER.encode(), server.encode())
            for server in SERVERS
        }
        for number in range(each):
            server = SERVERS[(number + socket) % len(SERVERS)]
            for plan_id, examinees in self.plans.items():
                examinee_id = examinees[number]
                payload = by_server[server].replace(_PLAN.encode(), plan_id.encode())
                payload = payload.replace(_EXAMINEE.encode(), examinee_id.encode())
                yield Outgoing(subjects_of_origin[plan_id, server], payload)


def _socket_status(status: ConnectionStatusCode, reason: LossReason | None = None) -> bytes:
    return encode(
        ConnectionStatus(
            plan_id=_PLAN,
            examinee_id=_EXAMINEE,
            socket_id=_SOCKET,
            server_id=_SERVER,
            status=status,
            reason=reason,
            timestamp=_TIME,
            client_info=ClientInfo(ip_address="192.0.2.1", user_agent="Mozilla/5.0 (X11; Linux x86_64) Firefox/140.0"),
            incarnation=INCARNATION,
            client_id=_EXAMINEE,
        )
    )


_CONNECTED = _socket_status(ConnectionStatusCode.CONNECTED)
_LOST = _socket_status(ConnectionStatusCode.DISCONNECTED, LossReason.SOCKET_CLOSED)
_MOBILE_SYNC = encode(MobileSyncWait(plan_id=_PLAN, examinee_id=_EXAMINEE, timestamp=_TIME, deadline=_TIME))
_FINISHED = encode(
    ExamineeFinish(plan_id=_PLAN, examinee_id=_EXAMINEE, timestamp=_TIME, by=_EXAMINEE, reason=FinishReason.HANDED_IN)
)


def _server_status(server_id: str, status: ServerStatusCode, began: float) -> Message:
    moment = format_time(began)
    return ServerStatus(
        server_id=server_id, status=status, incarnation=INCARNATION, start_time=moment, timestamp=moment
    )
