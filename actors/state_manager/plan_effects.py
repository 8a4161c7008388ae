"""What the beginning and the end of a plan do to its examinees, and the schedules of both.

Which examinees are finished or resumed is read from Redis when the plan's fact is processed. The records then hold all
facts before it, and no later one: portions about one plan are processed in the order of the log.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from actors.runtime.broker.connection import Outgoing
from actors.runtime.store.state_store import StateStore
from actors.state_manager.decisions import Decision
from protocol.broker import subjects
from protocol.close_codes import CloseCode
from protocol.messages.base import Message
from protocol.messages.facts import ConnectionStatusCode, ExamineeFinish, ExamineeResume, FinishReason
from protocol.messages.plan_facts import BY_PLAN, BY_SCHEDULE, PlanClose, PlanFact, PlanOpen
from protocol.messages.session_messages import SessionClose
from protocol.records import keys
from protocol.rules.effects import FinishExaminees, ResumeExaminees, SchedulePlan, SendPlanNotice, SendPlanState
from protocol.rules.plan_state import Phase, PlanState
from protocol.times import format_time, parse_time

EXAMINEES_A_READ = 1000
_STILL_THERE = (ConnectionStatusCode.CONNECTED, ConnectionStatusCode.MIGRATING, ConnectionStatusCode.FINISHED)


class Progress(NamedTuple):
    """The part of an examinee's connection record that says whether the end of the plan is about them."""

    examinee_id: str
    status: str | None
    finished: str | None
    live_socket_id: str | None
    server_id: str | None


class PlanEffects:
    """Makes the messages that follow from facts about plans.

    Example::

        outgoing = await PlanEffects(store).messages(decision)
    """

    def __init__(self, store: StateStore) -> None:
        self._store = store

    async def messages(self, decision: Decision) -> list[Outgoing]:
        """Return the schedules, and the facts about examinees. Raises `StateUnavailable`, `StateDamaged`."""
        outgoing: list[Outgoing] = []
        for effect in decision.effects:
            match effect:
                case SchedulePlan():
                    outgoing.append(_schedule(effect))
                case FinishExaminees():
                    outgoing += await self._finish(effect, decision.plans[effect.plan_id])
                case ResumeExaminees():
                    outgoing += await self._resume(effect, decision.plans[effect.plan_id])
                case _:
                    pass
        return outgoing

    async def _finish(self, effect: FinishExaminees, plan: PlanState) -> list[Outgoing]:
        """Finish who is there and whose time is up; of whom was finished before, close the socket that is open."""
        now = parse_time(effect.timestamp)
        over = [
            progress
            for progress in await self._read(effect.plan_id, lambda progress: progress.status in _STILL_THERE)
            if plan.phase_of(progress.examinee_id, now) is Phase.OVER
        ]
        facts: list[Message] = [
            ExamineeFinish(
                plan_id=effect.plan_id,
                examinee_id=progress.examinee_id,
                by=BY_PLAN,
                reason=FinishReason.PLAN_ENDED,
                timestamp=effect.timestamp,
            )
            for progress in over
            if not progress.finished
        ]
        closes: dict[str, list[Message]] = {}
        for progress in over:
            if progress.finished and progress.live_socket_id and progress.server_id:
                close = SessionClose(socket_id=progress.live_socket_id, code=CloseCode.EXAM_OVER)
                closes.setdefault(progress.server_id, []).append(close)
        outgoing = self._facts("finish", effect.plan_id, effect.version, facts)
        for server_id, messages in closes.items():
            message_id = functools.partial(_message_id, "over", effect.version)
            outgoing += Outgoing.batches(subjects.socket_server(server_id), messages, message_id)
        return outgoing

    async def _resume(self, effect: ResumeExaminees, plan: PlanState) -> list[Outgoing]:
        now = parse_time(effect.timestamp)
        facts: list[Message] = [
            ExamineeResume(
                plan_id=effect.plan_id, examinee_id=progress.examinee_id, by=BY_PLAN, timestamp=effect.timestamp
            )
            for progress in await self._read(
                effect.plan_id,
                lambda progress: progress.finished == FinishReason.PLAN_ENDED,
                effect.examinee_id,
            )
            if plan.phase_of(progress.examinee_id, now) is not Phase.OVER
        ]
        return self._facts("resume", effect.plan_id, effect.version, facts)

    async def _read(
        self, plan_id: str, wanted: Callable[[Progress], bool], examinee_id: str | None = None
    ) -> list[Progress]:
        examinees = [examinee_id] if examinee_id else sorted(await self._store.members(keys.plan_examinees(plan_id)))
        records: list[Progress] = []
        for start in range(0, len(examinees), EXAMINEES_A_READ):
            names = examinees[start : start + EXAMINEES_A_READ]
            rows = await self._store.fields(
                [keys.progress(plan_id, name) for name in names],
                ("connStatusCode", "finished", "liveSocketId", "serverId"),
            )
            records += [
                progress for name, row in zip(names, rows, strict=True) if wanted(progress := Progress(name, *row))
            ]
        return records

    @staticmethod
    def _facts(prefix: str, plan_id: str, version: int, facts: Sequence[Message]) -> list[Outgoing]:
        subject = subjects.status_plan(plan_id, subjects.MANAGER)
        return Outgoing.batches(subject, facts, functools.partial(_message_id, prefix, version))


def plan_messages(decision: Decision) -> Iterable[Outgoing]:
    """Yield what all examinees of a plan are told: its state, once, and messages of proctors to them."""
    newest = {effect.plan_id: effect for effect in decision.effects if isinstance(effect, SendPlanState)}
    for effect in decision.effects:
        match effect:
            case SendPlanState() if effect is newest[effect.plan_id] and effect.plan_id in decision.plans:
                plan = decision.plans[effect.plan_id]
                address = subjects.socket_examinees(effect.plan_id)
                yield Outgoing.of(address, plan.event(), message_id=f"ps:{address}:{effect.version}")
            case SendPlanNotice() if (notices := decision.plan_notices.get(effect.plan_id)) is not None:
                if (notice := notices.find(effect.action_id)) is not None:
                    address = subjects.socket_examinees(effect.plan_id)
                    message_id = f"pn:{address}:{effect.version}:{effect.action_id}"
                    yield Outgoing.of(address, notices.event(notice), message_id=message_id)
            case _:
                pass


def purge_messages(decision: Decision) -> Iterable[Outgoing]:
    """Yield what tells socket servers that a plan, or an examinee, was deleted."""
    for version, fact in decision.purges:
        told = fact.model_copy(update={"version": version, "alias": None})
        for address in (subjects.socket_examinees(fact.plan_id), subjects.socket_proctors(fact.plan_id)):
            yield Outgoing.of(address, told, message_id=f"purged:{address}:{version}")


def _schedule(effect: SchedulePlan) -> Outgoing:
    # NATS takes whole seconds; rounding up never ends an exam early.
    moment = format_time(-(-parse_time(effect.at) // 1))
    fact: PlanFact
    if effect.opens:
        fact = PlanOpen(plan_id=effect.plan_id, timestamp=effect.at, by=BY_SCHEDULE, schedule_version=effect.version)
    else:
        fact = PlanClose(plan_id=effect.plan_id, timestamp=effect.at, by=BY_SCHEDULE, schedule_version=effect.version)
    return Outgoing.of(
        # A subject for each: an earlier schedule, published late, must not replace this one.
        subjects.status_timer(effect.plan_id, subjects.WHOLE_PLAN, f"{fact.type}-{effect.version}"),
        fact,
        message_id=f"timer:{fact.type}:{effect.version}",
        headers={
            # An exam may be weeks away: the schedule must not go with the old facts of the log.
            "Nats-TTL": "never",
            "Nats-Schedule": f"@at {moment[:19]}Z",
            "Nats-Schedule-Target": subjects.status_plan(effect.plan_id, subjects.TIMER),
        },
    )


def _message_id(prefix: str, version: int, payload: bytes) -> str:
    return f"{prefix}:{version}:{hashlib.sha256(payload).hexdigest()[:16]}"
