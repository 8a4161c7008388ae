"""Delete what is past its retention: plans after `retention.days`, purges that died, servers long gone.

It runs in the role `queue-server`. Several may run: one of them does the work of an hour, and notes it in the stream
CHECKPOINT, together with what was announced. A plan is deleted at the earliest `NOTICE_SECONDS` after that.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, field
from typing import Any

import pydantic
from prometheus_client import Counter, Gauge

from actors.retention.purger import NotPurged, Purger
from actors.runtime.actor.service import Service
from actors.runtime.broker.connection import Bus, Outgoing
from actors.runtime.broker.consumers.stream_reader import read_stream
from actors.runtime.config.settings import Settings
from actors.runtime.store.state_store import StateStore
from actors.runtime.telemetry.metrics import REGISTRY
from actors.status_log.checkpoint_writes import CheckpointWrites
from actors.status_log.status_log import facts_of
from protocol.broker import subjects
from protocol.broker.streams import CHECKPOINT, DAY, STATUS
from protocol.errors import (
    BrokerUnavailable,
    ConsumerGone,
    NotPermitted,
    StateDamaged,
    StateLost,
    StateUnavailable,
    WrongLastSequence,
)
from protocol.messages.facts import ConnectionStatusCode
from protocol.messages.plan_facts import PlanPurged, PlanStatusCode
from protocol.messages.server_messages import ServerStatusCode
from protocol.records import keys
from protocol.records.placement import VersionedMessage
from protocol.records.writes import Guard, Index
from protocol.rules.plan import deleted_at
from protocol.times import format_time, parse_time

log = logging.getLogger("examwire.retention")

PASS_SECONDS = 3600.0
AGAIN_SECONDS = 300.0
REPAIR_SECONDS = 10.0
NOTICE_SECONDS = DAY
ANNOUNCED_BEFORE = 7 * DAY
INTERRUPTED_SECONDS = 600.0
BY = "retention"
EXAMINEES_A_READ = 1000
_THERE = (ConnectionStatusCode.CONNECTED, ConnectionStatusCode.MIGRATING)
_GONE = (ServerStatusCode.STOPPED, ServerStatusCode.LOST, ServerStatusCode.FAILED)

DUE = Gauge(
    "examwire_plans_to_be_purged", "Plans that the retention deletes within the next seven days", registry=REGISTRY
)
PURGES = Counter("examwire_plans_purged_total", "Plans that the retention has deleted", registry=REGISTRY)
FAILURES = Counter(
    "examwire_retention_failures_total", "Passes of the retention that did not come to their end", registry=REGISTRY
)


class _Pass(pydantic.BaseModel):
    """What the last pass has noted: when it was, and the plans that were announced, and when (RFC 3339)."""

    at: str
    announced: dict[str, str] = {}


@dataclass(slots=True)
class PassReport:
    """Result of a pass. `due`: plans and when they are deleted (seconds since the epoch)."""

    due: dict[str, float] = field(default_factory=dict)
    purged: list[str] = field(default_factory=list)
    servers: list[str] = field(default_factory=list)


class Retention(Service):
    """Purges plans whose retention is over, and says so before.

    Example::

        retention = Retention(settings, bus, store, "q1")
        await retention.start(on_failure)
    """

    kind = "retention"

    def __init__(self, settings: Settings, bus: Bus, store: StateStore, name: str) -> None:
        super().__init__(f"retention.{name}", bus)
        self._bus = bus
        self._store = store
        self._keep_seconds = settings.retention.days * DAY
        self._last = PassReport()

    async def on_start(self) -> None:
        self.spawn(self._run(), "passes")

    def details(self) -> dict[str, Any]:
        return {"due": {plan_id: format_time(at) for plan_id, at in self._last.due.items()}}

    async def _run(self) -> None:
        while True:
            try:
                await self.run_pass()
            except StateLost as error:  # at a first start, or after a loss: a state manager is at it
                log.debug("%s: %s", self.address, error)
                await asyncio.sleep(REPAIR_SECONDS)
            except (BrokerUnavailable, NotPermitted, ConsumerGone, StateUnavailable, StateDamaged, NotPurged) as error:
                FAILURES.inc()
                log.warning("%s: plans past their retention are not deleted yet: %s", self.address, error)
                await asyncio.sleep(AGAIN_SECONDS)
            else:
                await asyncio.sleep(PASS_SECONDS)

    async def run_pass(self) -> PassReport:
        """Do the work of an hour, unless another process has done it."""
        report = PassReport()
        noted = await self._bus.last_message(CHECKPOINT.name, subjects.RETENTION)
        now = self._bus.clock.now()
        last = _Pass.model_validate_json(noted.payload) if noted is not None else None
        if last is not None and 0 <= now - parse_time(last.at) < PASS_SECONDS / 2:
            return report
        announced = last.announced if last is not None else {}
        await self._finish_interrupted(now)
        if self._keep_seconds > 0:
            report.due = await self._due_plans(now)
            await self._forget_servers(now, report)
        soon = {plan_id: at for plan_id, at in report.due.items() if at <= now + ANNOUNCED_BEFORE}
        for plan_id in soon.keys() - announced.keys():
            log.warning(
                "plan %s is deleted at %s: archive it before, or set retention.days",
                plan_id,
                format_time(max(soon[plan_id], now + NOTICE_SECONDS)),
                extra={"plan": plan_id},
            )
        announced = {plan_id: announced.get(plan_id, format_time(now)) for plan_id in soon}
        try:
            await self._bus.publish(
                Outgoing(
                    subjects.RETENTION,
                    _Pass(at=format_time(now), announced=announced).model_dump_json().encode(),
                    headers={
                        "Nats-Expected-Last-Subject-Sequence": str(noted.sequence if noted is not None else 0),
                    },
                )
            )
        except WrongLastSequence:
            return PassReport()  # another process was quicker
        DUE.set(len(soon))
        self._last = report
        for plan_id, at in sorted(soon.items()):
            if at <= now and parse_time(announced[plan_id]) <= now - min(NOTICE_SECONDS, self._keep_seconds / 2):
                await Purger(self._bus, self._store, BY).purge(plan_id)
                PURGES.inc()
                report.purged.append(plan_id)
                log.warning("plan %s was deleted: its retention is over", plan_id, extra={"plan": plan_id})
        return report

    # -- plans ----------------------------------------------------------------------------------------

    async def _due_plans(self, now: float) -> dict[str, float]:
        """Return when each plan is deleted: those that are closed, and those that were left without an end."""
        due: dict[str, float] = {}
        for plan_id in await self._store.members(keys.PLANS):
            record = await self._store.entries(keys.plan(plan_id))
            if record.get("status") == PlanStatusCode.CLOSED:
                at = deleted_at(record.get("closedAt"), self._keep_seconds)
            else:
                at = await self._left_at(plan_id, record, now)
            if at is not None:
                due[plan_id] = at
        return due

    async def _left_at(self, plan_id: str, record: dict[str, str], now: float) -> float | None:
        """Return when a plan that nobody has closed is deleted; `None`: it may still be in use."""
        oldest = now - self._keep_seconds
        times = [parse_time(record[name]) for name in ("startsAt", "endsAt") if record.get(name)]
        if any(time > oldest for time in times):
            return None
        newest = await self._bus.last_message(STATUS.name, f"status.plan.{plan_id}.>")
        if newest is not None and newest.time > oldest:
            return None
        if newest is None and not await self._log_goes_back_to(oldest):
            return None  # nobody knows when its last fact was
        statuses = await self._statuses(plan_id)
        if not any(statuses) or any(status in _THERE for status in statuses):
            return None  # a roster that waits for its exam, or an exam that somebody sits
        return (newest.time if newest is not None else oldest) + self._keep_seconds

    async def _log_goes_back_to(self, moment: float) -> bool:
        for pattern in (subjects.status_server("*"), "status.plan.>"):  # schedules are kept beyond the age of the log
            first = await self._bus.next_message(STATUS.name, pattern, 1)
            if first is not None and first.time <= moment:
                return True
        return False

    async def _statuses(self, plan_id: str) -> set[str | None]:
        """Return the connection statuses that examinees of a plan have; empty or `None`: of those who never came."""
        examinees = await self._store.members(keys.plan_examinees(plan_id))
        statuses: set[str | None] = set()
        for start in range(0, len(examinees), EXAMINEES_A_READ):
            portion = [keys.progress(plan_id, name) for name in examinees[start : start + EXAMINEES_A_READ]]
            statuses.update(status for (status,) in await self._store.fields(portion, ("connStatusCode",)))
        return statuses

    async def _finish_interrupted(self, now: float) -> None:
        """Go on with purges that have begun and not ended."""
        begun: dict[tuple[str, str | None], float] = {}
        pattern = subjects.status_plans_from(subjects.PURGE)
        async for stored in read_stream(self._bus, STATUS.name, subject=pattern):
            for item in facts_of(stored):
                if isinstance(item, VersionedMessage) and isinstance(item.message, PlanPurged):
                    about = (item.message.plan_id, item.message.examinee_id)
                    if item.message.begins:
                        begun[about] = stored.time
                    else:
                        begun.pop(about, None)
        for (plan_id, examinee_id), at in begun.items():
            if at < now - INTERRUPTED_SECONDS:
                log.warning("the purge of plan %s goes on", plan_id, extra={"plan": plan_id})
                await Purger(self._bus, self._store, BY).purge(plan_id, examinee_id)

    # -- servers --------------------------------------------------------------------------------------

    async def _forget_servers(self, now: float, report: PassReport) -> None:
        """Remove the records of servers that have ended, and of which the log has nothing any more."""
        if not await self._log_goes_back_to(now - self._keep_seconds):
            return
        for server in await self._store.servers():
            server_id = server["serverId"]
            if server.get("statusCode") not in _GONE:
                continue
            if await self._bus.last_message(STATUS.name, subjects.status_server(server_id)) is not None:
                continue
            # One that starts at this moment changes its record, and is put back.
            await self._store.remove_members({keys.SERVERS: [server_id]})
            guard = Guard(keys.server_status(server_id), "rev", server.get("rev", "0"))
            if (await self._store.delete_unchanged([guard]))[0]:
                await CheckpointWrites(self._bus, self._store).rewrite([guard.key])
                report.servers.append(server_id)
            else:
                await self._store.save([], [], Index(members={keys.SERVERS: {server_id}}))
