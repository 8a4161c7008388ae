"""Outages of examinees, and the time to compensate: the evidence in a dispute.

*An outage* goes from the time that the loss gives (`timestamp` of the DISCONNECTED: when a server noticed it) to the
time of the CONNECTED that ended it: the very seconds that proctors were told. A migration that arrives is none; one
that ends in a loss is an outage from the beginning of the migration. Who is shut out is in the same outage until they
are connected again. Who is removed or has finished is kept away by a decision, not by a network: an outage ends there,
and another one begins if they are readmitted or resumed and not connected.

*What counts* lies within the exam of this examinee (`exam_windows`: from its start to their own end, once for each
sitting) and within the window of the report; an outage that has not ended lasts to the end of both. Parts that overlap
(the clocks of two servers) count once. *The time to be compensated* is the sum of these parts in whole seconds, rounded
up once, at the end. An outage that the examinee's own client began (`CLIENT_CLOSED`: it closed the connection) is
compensated only if the plan's policy says so. All of it is counted in whole milliseconds, as times are written.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from protocol.log.entries import LogEntry, NewerFact
from protocol.log.exam_windows import ExamWindows, Window
from protocol.log.timeline import ReplayedExaminee, Timeline
from protocol.log.timeline_entry import EntryKind
from protocol.messages.base import Wire
from protocol.messages.facts import ConnectionStatusCode, Enrol, LossReason
from protocol.messages.plan_facts import PlanFact
from protocol.rules.connection_state import ConnectionState
from protocol.rules.plan_state import PlanState
from protocol.times import format_time, parse_time


class EndStatus(StrEnum):
    """How the exam ended for an examinee, or where they are now.

    HANDED_IN, DECIDED, PLAN_ENDED: finished, as in `FinishReason`. LOST: not connected. NEVER_CAME: on the roster only.
    """

    HANDED_IN = "HANDED_IN"
    DECIDED = "DECIDED"
    PLAN_ENDED = "PLAN_ENDED"
    CONNECTED = "CONNECTED"
    MIGRATING = "MIGRATING"
    LOST = "LOST"
    REMOVED = "REMOVED"
    NEVER_CAME = "NEVER_CAME"


FINISHED = frozenset({EndStatus.HANDED_IN, EndStatus.DECIDED, EndStatus.PLAN_ENDED})


Part = tuple[int, int]
"""From when to when, in ms since the epoch."""


@dataclass(slots=True)
class Outage:
    """From `begin` to `end` (ms since the epoch; `None`: it goes on), for `reason`."""

    begin: int
    reason: str
    end: int | None = None

    def part(self, begin: int, end: int) -> Part | None:
        """Return the part of the outage that lies in a window; `None`: it lies outside."""
        own_end = end if self.end is None else self.end
        first, last = max(self.begin, begin), min(own_end, end)
        return (first, last) if last > first else None


@dataclass(frozen=True, slots=True)
class _StatusChange:
    """The status of an examinee from `moment` on; `by`: who finished their exam, `at` when (ms since the epoch)."""

    moment: int
    status: EndStatus
    by: str | None = None
    at: int | None = None


@dataclass(slots=True)
class _Examinee:
    """What is known of an examinee. `listed`: the first fact of all, `first`: the first that is not the roster's."""

    listed: int
    first: int | None = None
    statuses: list[_StatusChange] = field(default_factory=list)
    unstable: list[int] = field(default_factory=list)
    outages: list[Outage] = field(default_factory=list)
    happened: list[tuple[int, EntryKind]] = field(default_factory=list)
    pictures: list[tuple[int, str, str, str | None]] = field(default_factory=list)


class OutageRow(Wire):
    """One examinee in a window; seconds with milliseconds, except `compensateSeconds`.

    `reasons`: reason to number of outages. `ongoingSeconds`: the part of `outageSeconds` of the outage that had not
    ended. `complete`: false when the log does not hold how the first connection began, for that has expired.
    `firstSeen` is absent for an examinee who is only on the roster. `clientClosedOutages` and `clientClosedSeconds`:
    those of the outages that the examinee's own client began. `unstable`: how often the examinee became unstable, that
    is, was away for more than the policy's share of its window. `endStatus`: at the end of the window; `finishedBy` and
    `finishedAt` if they have finished. `windowStart` and `windowEnd`: when the exam ran for them (absent: no bound).
    `name` and `labels`: as the roster says.
    """

    examinee_id: str
    outages: int
    outage_seconds: float
    longest_seconds: float
    ongoing_seconds: float
    still_disconnected: bool
    compensate_seconds: int
    reasons: dict[str, int]
    attempts: int
    shut_out: int
    removals: int
    readmissions: int
    migrations: int
    mobile_sync: str
    mobile_sync_time: str | None
    mobile_sync_reason: str | None
    first_seen: str | None
    complete: bool
    client_closed_outages: int
    client_closed_seconds: float
    unstable: int
    end_status: EndStatus
    finished_by: str | None
    finished_at: str | None
    window_start: str | None
    window_end: str | None
    name: str | None
    labels: dict[str, str]


class OutageTotals(Wire):
    """The sums over all examinees; `affected` have at least one outage. `finished` counts every kind of end.

    `unstable`: how many examinees were unstable at least once.
    """

    examinees: int
    affected: int
    outages: int
    outage_seconds: float
    longest_seconds: float
    compensate_seconds: int
    still_disconnected: int
    shut_out: int
    removals: int
    readmissions: int
    migrations: int
    client_closed_outages: int
    client_closed_seconds: float
    unstable: int
    finished: int
    lost: int
    never_came: int


@dataclass(frozen=True, slots=True)
class Enrolled:
    """What Redis knows of somebody on the roster, which may have left the log. `came`: they have been connected."""

    name: str | None
    labels: Mapping[str, str]
    came: bool


class Outages:
    """Collects outages from the entries of a plan's log, in its order.

    Example::

        outages = Outages()
        for entry in log_entries:
            outages.add(entry)
        outages.rows(begin, end)  # seconds since the epoch
    """

    def __init__(self, *, truncated: bool = False) -> None:
        self._timeline = Timeline(truncated=truncated)
        self._windows = ExamWindows()
        self._examinees: dict[str, _Examinee] = {}
        self._first_about_plan: int | None = None
        self.newer = 0
        """The number of facts that only a newer release understands: they are left out."""

    @property
    def plan(self) -> PlanState:
        """The state of the plan after the facts that were added."""
        return self._timeline.plan

    def add(self, entry: LogEntry) -> None:
        """Add an entry; an entry that was added before changes nothing."""
        fact = entry.fact
        if isinstance(fact, NewerFact):
            self.newer += 1
            return
        now = _to_ms(fact.timestamp)
        if isinstance(fact, PlanFact):
            if self._timeline.add(entry) is not None:
                self._windows.add(self.plan, now)
                self._first_about_plan = self._first_about_plan or now
            return
        known = self._timeline.examinees.get(fact.examinee_id)
        before = known.connection if known is not None else ConnectionState()
        happening = self._timeline.add(entry)
        if happening is None:
            return
        examinee = self._examinees.setdefault(fact.examinee_id, _Examinee(now))
        examinee.listed = min(examinee.listed, now)  # the clocks of two servers
        after = self._timeline.examinees[fact.examinee_id].connection
        finished_at = None if after.finished_at is None else _to_ms(after.finished_at)
        examinee.statuses.append(_StatusChange(now, _end_status(after), after.finished_by, finished_at))
        if isinstance(fact, Enrol):
            return  # an examinee who is only on the roster was never seen
        examinee.first = now if examinee.first is None else min(examinee.first, now)
        examinee.happened.append((now, happening.what))
        if after.unstable and not before.unstable:
            examinee.unstable.append(now)
        if happening.what.name.startswith("SYNC_"):
            examinee.pictures.append((now, happening.mobile_sync, happening.time, happening.reason))
        is_away = _is_away(after)
        open_outage = examinee.outages[-1] if examinee.outages and examinee.outages[-1].end is None else None
        if is_away and open_outage is None:
            migrated = before.status is ConnectionStatusCode.MIGRATING
            reason = before.reason if migrated else after.reason
            assert reason is not None
            assert after.since is not None
            examinee.outages.append(Outage(_to_ms(after.since), reason))
        elif open_outage is not None and not is_away:
            open_outage.end = max(open_outage.begin, now)

    @property
    def begin(self) -> float | None:
        """The time of the first connection, or else of the first fact, in seconds since the epoch; `None`: no fact."""
        seen = [examinee.first for examinee in self._examinees.values() if examinee.first is not None]
        known = [examinee.listed for examinee in self._examinees.values()]
        first = min(seen or known, default=self._first_about_plan)
        return None if first is None else first / 1000

    def rows(
        self, begin: float, end: float, *, ignore_below: float = 0.0, roster: Mapping[str, Enrolled] | None = None
    ) -> list[OutageRow]:
        """Return a row for each examinee known before the window's end, by id; times in seconds since the epoch.

        An outage that lasted less than `ignore_below` seconds, in all or so far, is left out. `roster`: the names and
        labels that the log does not hold, and who never came.
        """
        report = round(begin * 1000), round(end * 1000)
        roster = roster or {}
        never = [_StatusChange(report[1], EndStatus.NEVER_CAME)]
        absent = {name: _Examinee(report[1], statuses=never) for name in roster if not roster[name].came}
        examinees = absent | self._examinees
        rows = [
            _row(
                examinee_id,
                examinee,
                report,
                self._windows.of(examinee_id),
                ignore_below=round(ignore_below * 1000),
                client_closed_counts=bool(self.plan.policy.compensate_client_closed),
                person=self._timeline.examinees.get(examinee_id) or ReplayedExaminee(end),
            )
            for examinee_id, examinee in sorted(examinees.items())
            if examinee.listed <= report[1]
        ]
        return [_named(row, roster.get(row.examinee_id)) for row in rows]


def sum_rows(rows: Iterable[OutageRow]) -> OutageTotals:
    """Return the sums over all rows."""
    rows = list(rows)
    return OutageTotals(
        examinees=len(rows),
        affected=sum(row.outages > 0 for row in rows),
        outages=sum(row.outages for row in rows),
        outage_seconds=round(sum(row.outage_seconds for row in rows), 3),
        longest_seconds=max((row.longest_seconds for row in rows), default=0.0),
        compensate_seconds=sum(row.compensate_seconds for row in rows),
        still_disconnected=sum(row.still_disconnected for row in rows),
        shut_out=sum(row.shut_out > 0 for row in rows),
        removals=sum(row.removals for row in rows),
        readmissions=sum(row.readmissions for row in rows),
        migrations=sum(row.migrations for row in rows),
        client_closed_outages=sum(row.client_closed_outages for row in rows),
        client_closed_seconds=round(sum(row.client_closed_seconds for row in rows), 3),
        unstable=sum(row.unstable > 0 for row in rows),
        finished=sum(row.end_status in FINISHED for row in rows),
        lost=sum(row.end_status is EndStatus.LOST for row in rows),
        never_came=sum(row.end_status is EndStatus.NEVER_CAME for row in rows),
    )


def _row(
    examinee_id: str,
    examinee: _Examinee,
    report: tuple[int, int],
    windows: Sequence[Window],
    *,
    ignore_below: int,
    client_closed_counts: bool,
    person: ReplayedExaminee,
) -> OutageRow:
    begin, end = report
    exam = [part for window in windows if (part := window.part(begin, end)) is not None]
    runs = any(window.runs_at(end) for window in windows)
    counted: list[tuple[Outage, list[Part]]] = []
    ongoing: list[Part] = []
    still_disconnected = False
    for outage in examinee.outages:
        goes_on = runs and outage.begin <= end and (outage.end is None or outage.end > end)
        still_disconnected |= goes_on
        parts = [part for window in exam if (part := outage.part(*window)) is not None]
        lasted = (end if outage.end is None else outage.end) - outage.begin
        if parts and lasted >= ignore_below:
            counted.append((outage, parts))
            ongoing += parts if goes_on else []
    client_closed = [parts for outage, parts in counted if outage.reason == LossReason.CLIENT_CLOSED]
    compensated = [
        part
        for outage, parts in counted
        for part in parts
        if client_closed_counts or outage.reason != LossReason.CLIENT_CLOSED
    ]
    happened = Counter(what for when, what in examinee.happened if any(first <= when <= last for first, last in exam))
    decided = Counter(what for when, what in examinee.happened if begin <= when <= end)
    picture = next((picture for picture in reversed(examinee.pictures) if picture[0] <= end), None)
    change = next(change for change in reversed(examinee.statuses) if change.moment <= end)
    own = _bounds([window for window in windows if window.part(begin, end) is not None] or windows, change.at)
    return OutageRow(
        examinee_id=examinee_id,
        outages=len(counted),
        outage_seconds=union_length(part for _, parts in counted for part in parts) / 1000,
        longest_seconds=max((union_length(parts) for _, parts in counted), default=0) / 1000,
        ongoing_seconds=union_length(ongoing) / 1000,
        still_disconnected=still_disconnected,
        compensate_seconds=-(-union_length(compensated) // 1000),
        reasons=dict(Counter(outage.reason for outage, _ in counted)),
        attempts=happened[EntryKind.RECONNECTING],
        shut_out=happened[EntryKind.SHUT_OUT],
        removals=decided[EntryKind.REMOVED],
        readmissions=decided[EntryKind.READMITTED],
        migrations=happened[EntryKind.MIGRATING],
        mobile_sync=picture[1] if picture is not None else "NONE",
        mobile_sync_time=picture[2] if picture is not None else None,
        mobile_sync_reason=picture[3] if picture is not None else None,
        first_seen=None if examinee.first is None else format_time(examinee.first / 1000),
        complete=person.complete,
        client_closed_outages=len(client_closed),
        client_closed_seconds=union_length(part for parts in client_closed for part in parts) / 1000,
        unstable=sum(any(first <= when <= last for first, last in exam) for when in examinee.unstable),
        end_status=change.status,
        finished_by=change.by,
        finished_at=_text(change.at),
        window_start=_text(own.begin),
        window_end=_text(own.end),
        name=person.connection.name,
        labels=dict(person.connection.labels),
    )


def _named(row: OutageRow, enrolled: Enrolled | None) -> OutageRow:
    if enrolled is None or row.name is not None or row.labels:
        return row
    return row.model_copy(update={"name": enrolled.name, "labels": dict(enrolled.labels)})


def _bounds(windows: Sequence[Window], finished_at: int | None) -> Window:
    """Return from when to when the exam ran for an examinee, over all these windows."""
    if not windows:
        return Window()
    end = windows[-1].end
    if finished_at is not None:
        end = finished_at if end is None else min(end, finished_at)
    return Window(windows[0].begin, end)


def _end_status(state: ConnectionState) -> EndStatus:
    if state.removed:
        return EndStatus.REMOVED
    if state.finished is not None:
        return EndStatus(state.finished.value)
    match state.status:
        case ConnectionStatusCode.CONNECTED:
            return EndStatus.CONNECTED
        case ConnectionStatusCode.MIGRATING:
            return EndStatus.MIGRATING
        case ConnectionStatusCode.DISCONNECTED:
            return EndStatus.LOST
        case _:
            return EndStatus.NEVER_CAME


def union_length(parts: Iterable[Part]) -> int:
    """Return the length that at least one of the parts covers."""
    covered, reached = 0, None
    for first, last in sorted(parts):
        begin = first if reached is None else max(first, reached)
        covered += max(0, last - begin)
        reached = last if reached is None else max(reached, last)
    return covered


def _is_away(state: ConnectionState) -> bool:
    away = state.status is ConnectionStatusCode.DISCONNECTED
    return away and not state.removed and state.finished is None


def _text(moment: int | None) -> str | None:
    return None if moment is None else format_time(moment / 1000)


def _to_ms(timestamp: str) -> int:
    return round(parse_time(timestamp) * 1000)
