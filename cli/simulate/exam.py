"""The exam of a simulation: a waiting room, a beginning and an end, which the broker's schedules bring."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from actors.runtime.broker.connection import Bus, Outgoing
from cli.simulate.proctor import ProctorView, SimulatedProctor
from protocol.broker import subjects
from protocol.client.exam_clock import ExamPhase
from protocol.messages.frames import ReconnectPolicy
from protocol.messages.plan_facts import PlanPolicy, PlanSchedule, PlanStatusCode
from protocol.times import format_time, parse_time

BY = "examwire simulate"
WAITING_ROOM_SECONDS = 5.0
EXAM_SECONDS = 50.0
MORE_SECONDS = 30
"""So much more everybody gets when there is still something to do shortly before the end."""
SOON_SECONDS = 8.0
LAST_SECONDS = 2.0
"""When nothing is left to do, the exam ends so soon."""
ANSWER_SECONDS = 20.0
RESUMES_A_SECOND = 20
"""So many examinees of an earlier exam a proctor can let go on; the server limits it to somewhat more."""
LONGEST_LADDER_SECONDS = 10.0
QUICK = PlanPolicy(max_attempts=3, backoff_seconds=(2.0, 2.0, 2.0))
"""The ladder of the exam, where the usual one takes longer than a person would wait for."""


class SimulatedExam:
    """Sets up the plan as an exam, and ends it.

    Example::

        exam = SimulatedExam(bus, "P001", proctors)
        await exam.set_up(["E001", "E002"], seconds=50)
        await exam.end(soon=True)
    """

    def __init__(self, bus: Bus, plan_id: str, proctors: Sequence[SimulatedProctor]) -> None:
        self.over = False
        self._bus = bus
        self._plan_id = plan_id
        self._proctor = proctors[0]
        self._proctors = proctors
        self._usual: ReconnectPolicy | None = None

    async def set_up(self, examinees: Sequence[str], seconds: float) -> None:
        """Schedule the exam, and let those go on who have finished an earlier one. Raises `TimeoutError`."""
        ladder = self._proctor.welcome.reconnect
        if sum(ladder.backoff_seconds[: ladder.max_attempts]) > LONGEST_LADDER_SECONDS:
            self._usual = ladder

        def finished(view: ProctorView) -> list[str]:
            return [name for name in examinees if name in view.examinees and view.examinees[name].status == "FINISHED"]

        resuming = len(finished(self._proctor.view)) / RESUMES_A_SECOND
        begins = self._bus.clock.now() + WAITING_ROOM_SECONDS + resuming
        starts_at = format_time(begins)
        await self._schedule(
            starts_at=starts_at,
            ends_at=format_time(begins + seconds),
            policy=QUICK if self._usual is not None else None,
        )
        await self._proctor.until(lambda view: _starts_at(view) == starts_at, ANSWER_SECONDS)
        for examinee_id in finished(self._proctor.view):
            await self._proctor.client.resume(examinee_id)
        await self._proctor.until(lambda view: not finished(view), ANSWER_SECONDS + resuming)

    async def keep_open(self, stories: asyncio.Event) -> None:
        """Give everybody more time while there is still something to do, until `stories` is set."""
        while not stories.is_set():
            phase, left = self._proctor.client.exam
            if phase is ExamPhase.RUNNING and left is not None and left < SOON_SECONDS:
                await self._give_more_time(_ends_at(self._proctor.view))
            try:
                async with asyncio.timeout(1.0):
                    await stories.wait()
            except TimeoutError:
                continue

    async def _give_more_time(self, ends_at: str | None) -> None:
        await self._proctor.client.extend_exam(MORE_SECONDS)
        await self._proctor.until(lambda view: _ends_at(view) != ends_at, ANSWER_SECONDS)

    async def end(self, *, soon: bool) -> None:
        """Wait for the end, which comes in a moment if it is to come `soon`. Raises `TimeoutError`."""
        now = self._bus.clock.now()
        left = self._proctor.client.exam.seconds or 0.0
        if soon:
            # The schedule of a plan that has not begun must not end before it begins.
            begins = parse_time(_starts_at(self._proctor.view) or format_time(now))
            left = max(now, begins) + LAST_SECONDS - now
            await self._schedule(ends_at=format_time(now + left))
        for proctor in self._proctors:
            await proctor.until(_closed, left + ANSWER_SECONDS)
        self.over = True
        if self._usual is not None:
            usual = self._usual
            await self._schedule(
                policy=PlanPolicy(
                    max_attempts=usual.max_attempts,
                    backoff_seconds=tuple(usual.backoff_seconds),
                    jitter=usual.jitter,
                )
            )

    async def _schedule(
        self, *, starts_at: str | None = None, ends_at: str | None = None, policy: PlanPolicy | None = None
    ) -> None:
        fact = PlanSchedule(
            plan_id=self._plan_id,
            by=BY,
            timestamp=format_time(self._bus.clock.now()),
            starts_at=starts_at,
            ends_at=ends_at,
            policy=policy,
        )
        address = subjects.status_plan(self._plan_id, subjects.OPERATOR)
        await self._bus.publish_until_stored([Outgoing.of(address, fact)])


def _starts_at(view: ProctorView) -> str | None:
    return view.plan.starts_at if view.plan is not None else None


def _ends_at(view: ProctorView) -> str | None:
    return view.plan.ends_at if view.plan is not None else None


def _closed(view: ProctorView) -> bool:
    return view.plan is not None and view.plan.status is PlanStatusCode.CLOSED
