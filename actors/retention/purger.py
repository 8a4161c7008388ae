"""Delete everything about a plan, or about one examinee of it: in Redis, in every stream, and the pictures.

The order makes that a purge which dies may simply be done again:

1. `plan_purged` with `begins` goes into the log. The state manager deletes the records in its order of work, and socket
   servers close who is still connected.
2. Timers, attempts, codes, dead letters and pictures are deleted. Nothing reads them any more.
3. The `plan_purged` that stays goes into the log, with the counts. The state manager deletes what late facts have made.
4. The checkpoints of the records are deleted, then the facts before the purge from the log. Whoever replays the log
   finds the purge at its end either way.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import pydantic

from actors.retention.redaction import Redaction
from actors.runtime.broker.connection import Bus, Outgoing
from actors.runtime.broker.consumers.stream_reader import read_stream
from actors.runtime.store.state_store import StateStore
from actors.status_log.checkpoint_writes import CheckpointWrites
from actors.status_log.status_log import StatusLog, facts_of
from protocol.access.phone_codes import PhoneCode
from protocol.broker import subjects
from protocol.broker.dead_letters import Letter
from protocol.broker.streams import DEADLETTER, PHONE, RECONNECT, SOCKET, STATUS
from protocol.errors import BrokerUnavailable, ExamwireError, NoResponders, ProtocolError
from protocol.messages.codec import encode
from protocol.messages.frames import Error
from protocol.messages.operator_requests import ANSWERS, Done, PurgePictures
from protocol.messages.plan_facts import PlanPurged
from protocol.records import keys
from protocol.records.placement import VersionedMessage
from protocol.times import format_time

log = logging.getLogger("examwire.retention")

APPLIED_SECONDS = 30.0
CLOSED_SECONDS = 10.0
QUIET_SECONDS = 1.0
POLL_SECONDS = 0.05
PICTURES_SECONDS = 60.0

Note = Callable[[str], None]


class NotPurged(ExamwireError):
    """A purge did not come to its end. It goes on when it is repeated."""


@dataclass(slots=True)
class PurgeReport:
    """What was deleted. `remarks`: what expires by itself later, one line each."""

    records: int = 0
    messages: int = 0
    pictures: int = 0
    version: int = 0
    remarks: list[str] = field(default_factory=list)


class Purger:
    """Deletes plans and examinees, in the name of `by`. `note` gets a line for each step.

    Raises `BrokerUnavailable`, `StateUnavailable`, `NotPermitted`, `NotPurged`; then it is done again.

    Example::

        report = await Purger(bus, store, "kim").purge("P001")
    """

    def __init__(self, bus: Bus, store: StateStore, by: str, note: Note = log.info) -> None:
        self._bus = bus
        self._store = store
        self._status = StatusLog(bus)
        self._checkpoints = CheckpointWrites(bus, store)
        self._by = by
        self._note = note

    async def purge(
        self, plan_id: str, examinee_id: str | None = None, *, archive_sha256: str | None = None
    ) -> PurgeReport:
        """Delete a plan, or an examinee of it."""
        report = PurgeReport(records=await self._count_records(plan_id, examinee_id))
        alias = await self._alias(plan_id, examinee_id) if examinee_id is not None else None
        connected = await self._is_connected(plan_id, examinee_id)
        begun = self._fact(plan_id, examinee_id, begins=True, alias=alias)
        first = await self._publish(begun)
        await self._applied(first)
        self._note(f"{report.records} records are deleted from Redis")
        await self._told(report)
        if connected:
            await self._quiet(plan_id)
        report.pictures = await self._pictures(plan_id, examinee_id, report)
        report.messages += await self._purge_side_streams(plan_id, examinee_id)
        redaction = Redaction(self._bus, plan_id)
        report.messages += await redaction.count(examinee_id, first)
        ended = self._fact(
            plan_id,
            examinee_id,
            records=report.records,
            messages=report.messages,
            pictures=report.pictures,
            archive_sha256=archive_sha256,
        )
        last = await self._publish(ended)
        report.version = last
        await self._applied(last)
        if examinee_id is None:
            await self._checkpoints.forget_plan(plan_id)
            await redaction.remove_plan(last)
        else:
            assert alias is not None
            await self._checkpoints.forget_examinee(plan_id, examinee_id)
            await redaction.remove_examinee(examinee_id, alias, last)
        await self._told(report)
        await self._bus.purge_stream(
            SOCKET.name,
            f"socket.plan.{plan_id}.>" if examinee_id is None else subjects.socket_examinee(plan_id, examinee_id),
        )
        self._note(f"{report.messages} messages are deleted from the streams, {report.pictures} pictures")
        return report

    async def _alias(self, plan_id: str, examinee_id: str) -> str:
        """Return the id that takes an examinee's place in facts about the plan: also after an interruption the same."""
        address = subjects.status_plan(plan_id, subjects.PURGE)
        async for stored in read_stream(self._bus, STATUS.name, subject=address):
            for item in facts_of(stored):
                fact = item.message if isinstance(item, VersionedMessage) else None
                if isinstance(fact, PlanPurged) and fact.examinee_id == examinee_id and fact.alias is not None:
                    return fact.alias
        return f"deleted-{secrets.token_hex(6)}"

    # -- the log ------------------------------------------------------------------------------------

    def _fact(self, plan_id: str, examinee_id: str | None, **fields: object) -> PlanPurged:
        return PlanPurged.model_validate(
            {
                "plan_id": plan_id,
                "examinee_id": examinee_id,
                "timestamp": format_time(self._bus.clock.now()),
                "by": self._by,
                **fields,
            }
        )

    async def _publish(self, fact: PlanPurged) -> int:
        """Put a fact into the log and return its sequence."""
        address = subjects.status_plan(fact.plan_id, subjects.PURGE)
        return (await self._bus.publish(Outgoing.of(address, fact))).sequence

    async def _applied(self, sequence: int) -> None:
        """Wait until the state managers have processed the log up to a sequence."""

        async def acknowledged() -> bool:
            return (await self._status.extent()).acknowledged >= sequence

        if not await _within(APPLIED_SECONDS, acknowledged):
            raise NotPurged(
                f"no state manager has applied the purge within {APPLIED_SECONDS:g} s: see that one runs, then repeat "
                "the command; it goes on"
            )

    async def _is_connected(self, plan_id: str, examinee_id: str | None) -> bool:
        """Return whether a server holds a socket of the plan, or of the examinee."""
        for server_id in await self._store.members(keys.SERVERS):
            for entry in (await self._store.entries(keys.server_sockets(server_id))).values():
                examinee = keys.SocketEntry.decode(entry.partition(" ")[2]).examinee
                if examinee.plan_id == plan_id and examinee_id in (None, examinee.examinee_id):
                    return True
        return False

    async def _quiet(self, plan_id: str) -> None:
        """Wait until nothing more is told about the plan: its sockets have been closed."""
        seen, since = 0, time.monotonic()

        async def nothing_new() -> bool:
            nonlocal seen, since
            newest = await self._bus.last_message(STATUS.name, f"status.plan.{plan_id}.>")
            if newest is not None and newest.sequence != seen:
                seen, since = newest.sequence, time.monotonic()
            return time.monotonic() - since > QUIET_SECONDS

        await _within(CLOSED_SECONDS, nothing_new)

    # -- the other streams ----------------------------------------------------------------------------

    async def _told(self, report: PurgeReport) -> None:
        """Wait until the socket servers have read their queues, and delete what all of them have read."""
        end = (await self._bus.stream_state(SOCKET.name)).last

        async def read() -> bool:
            return await self._read_by_all() >= end

        if not await _within(CLOSED_SECONDS, read):
            remark = "a socket server has not read its queue: messages to it expire within an hour"
            if remark not in report.remarks:
                report.remarks.append(remark)
        if (up_to := await self._read_by_all()) > 0:
            await self._bus.purge_stream(SOCKET.name, up_to=up_to)

    async def _read_by_all(self) -> int:
        """Return the sequence of SOCKET up to which every queue is read."""
        end = (await self._bus.stream_state(SOCKET.name)).last
        for state in await self._bus.consumer_states(SOCKET.name):
            if state.pending or state.unacknowledged:
                end = min(end, state.ack_floor)
        return end

    async def _purge_side_streams(self, plan_id: str, examinee_id: str | None) -> int:
        """Delete attempts, timers, codes and dead letters; return how many."""
        removed = await self._bus.purge_stream(RECONNECT.name, subjects.reconnect(plan_id, examinee_id or "*"))
        removed += await self._bus.purge_stream(STATUS.name, f"status.timer.{plan_id}.{examinee_id or '*'}.>")
        async for stored in read_stream(self._bus, PHONE.name):
            try:
                code = PhoneCode.model_validate_json(stored.payload)
            except pydantic.ValidationError:
                continue  # the marker of an expired one
            if code.plan_id == plan_id and examinee_id in (None, code.examinee_id):
                removed += await self._bus.delete_message(PHONE.name, stored.sequence)
        async for stored in read_stream(self._bus, DEADLETTER.name):
            if _is_letter_about(stored.payload, plan_id, examinee_id):
                removed += await self._bus.delete_message(DEADLETTER.name, stored.sequence)
        return removed

    # -- pictures and records -------------------------------------------------------------------------

    async def _pictures(self, plan_id: str, examinee_id: str | None, report: PurgeReport) -> int:
        """Have the web servers delete the pictures; they also do by themselves what they miss now."""
        servers = [entry for entry in await self._bus.services() if entry.metadata.get("kind") == "web-server"]
        removed = 0
        request = encode(PurgePictures(plan_id=plan_id, examinee_id=examinee_id))
        for entry in servers:
            address = entry.metadata.get("address", entry.name)
            try:
                answer = ANSWERS.decode_one(
                    await self._bus.request(subjects.control(address), request, timeout=PICTURES_SECONDS)
                )
            except (NoResponders, BrokerUnavailable, ProtocolError) as error:
                report.remarks.append(f"{address} deletes its pictures later: {error}")
                continue
            if isinstance(answer, Done):
                removed += int(answer.details.get("pictures", 0))
            elif isinstance(answer, Error):
                report.remarks.append(f"{address} deletes its pictures later: {answer.message}")
        if not servers:
            report.remarks.append("no web server runs: the next one that starts deletes its pictures")
        return removed

    async def _count_records(self, plan_id: str, examinee_id: str | None) -> int:
        if examinee_id is not None:
            makers = (keys.progress, keys.mobile_sync, keys.notices)
            return sum(map(bool, await self._store.hashes([make(plan_id, examinee_id) for make in makers])))
        found = await self._store.raw_keys(f"{keys.plan(plan_id)}:*")
        return len(found) + bool(await self._store.entries(keys.plan(plan_id)))


def _is_letter_about(payload: bytes, plan_id: str, examinee_id: str | None) -> bool:
    try:
        letter = Letter.decode(payload)
    except ProtocolError:
        return False
    if examinee_id is not None:
        return letter.mentions(plan_id, examinee_id)
    return letter.mentions_plan(plan_id)


async def _within(seconds: float, condition: Callable[[], Awaitable[bool]]) -> bool:
    """Wait until a condition holds; return False when it did not within these seconds."""
    deadline = time.monotonic() + seconds
    while not await condition():
        if time.monotonic() > deadline:
            return False
        await asyncio.sleep(POLL_SECONDS)
    return True
