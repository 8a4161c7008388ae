"""When the exam runs for an examinee: once for each sitting, from its beginning to their own end."""

from __future__ import annotations

from dataclasses import dataclass

from protocol.rules.plan_state import PlanState
from protocol.times import parse_time


@dataclass(frozen=True, slots=True)
class Window:
    """When the exam runs, in ms since the epoch; `None`: without a bound."""

    begin: int | None = None
    end: int | None = None

    def part(self, begin: int, end: int) -> tuple[int, int] | None:
        """Return the part of the window between two moments; `None`: it lies outside."""
        first = begin if self.begin is None else max(self.begin, begin)
        last = end if self.end is None else min(self.end, end)
        return (first, last) if first <= last else None

    def runs_at(self, moment: int) -> bool:
        """Return whether the exam runs at a moment: its end is not part of it."""
        return (self.begin is None or self.begin <= moment) and (self.end is None or moment < self.end)


@dataclass(slots=True)
class _Sitting:
    """The plan as it was in one sitting. `opened`: when it was opened again; `closed`: when it was closed."""

    plan: PlanState
    opened: int | None = None
    closed: int | None = None


class ExamWindows:
    """Collects the sittings of a plan from its states, in the order of the log.

    The times that count are those at the end of a sitting: more time that was given counts from the beginning.

    Example::

        windows = ExamWindows()
        windows.add(plan_state, moment)  # after each fact about the plan; ms since the epoch
        windows.of("E001")
    """

    def __init__(self) -> None:
        self._sittings = [_Sitting(PlanState())]

    def add(self, plan: PlanState, moment: int) -> None:
        """Take note of the state of the plan after a fact at `moment`."""
        sitting = self._sittings[-1]
        if sitting.closed is not None:
            if plan.closed:
                return  # what is changed now is for the next sitting
            self._sittings.append(_Sitting(plan, opened=moment))
            return
        sitting.plan = plan
        if plan.closed:
            sitting.closed = moment

    def of(self, examinee_id: str) -> list[Window]:
        """Return the windows of an examinee, in order; without any plan, one without bounds."""
        windows = []
        for sitting in self._sittings:
            begin = _latest(sitting.opened, _to_ms(sitting.plan.start_of(examinee_id)))
            end = _earliest(sitting.closed, _to_ms(sitting.plan.end_of(examinee_id)))
            if begin is None or end is None or begin < end:
                windows.append(Window(begin, end))
        return windows


def _latest(*moments: int | None) -> int | None:
    return max((moment for moment in moments if moment is not None), default=None)


def _earliest(*moments: int | None) -> int | None:
    return min((moment for moment in moments if moment is not None), default=None)


def _to_ms(timestamp: str | None) -> int | None:
    return None if timestamp is None else round(parse_time(timestamp) * 1000)
