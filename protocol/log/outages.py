"""Outages of examinees, and the time to compensate: the evidence in a dispute.

*An outage* goes from the time that the loss gives (`timestamp` of the DISCONNECTED: when a server noticed it) to the
time of the CONNECTED that ended it: the very seconds that proctors were told. A migration that arrives is none; one
that ends in a loss is an outage from the beginning of the migration. Who is shut out is in the same outage until they
are connected again. Who is removed is kept away by a decision, not by a network: an outage ends there, and another
one begins if a proctor readmits them. *In a window*, each outage counts with the part that lies within; one that has
not ended lasts to the window's end. Parts that overlap (the clocks of two servers) count once. *The time to be
compensated* is the sum of these parts in whole seconds, rounded up once, at the end. All of it is counted in whole
milliseconds, as times are written.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from protocol.log.entries import LogEntry
from protocol.log.timeline import Timeline
from protocol.log.timeline_entry import EntryKind
from protocol.messages.base import Wire
from protocol.messages.facts import ConnectionStatusCode, Enrol
from protocol.rules.connection_state import ConnectionState
from protocol.times import format_time, parse_time


@dataclass(slots=True)
class Outage:
    """From `begin` to `end` (ms since the epoch; `None`: it goes on), for `reason`."""

    begin: int
    reason: str
    end: int | None = None

    def part(self, begin: int, end: int) -> tuple[int, int] | None:
        """Return the part of the outage that lies in a window; `None`: it lies outside."""
        own_end = end if self.end is None else self.end
        first, last = max(self.begin, begin), min(own_end, end)
        return (first, last) if last > first else None


@dataclass(slots=True)
class _Examinee:
    first: int
    outages: list[Outage] = field(default_factory=list)
    happened: list[tuple[int, EntryKind]] = field(default_factory=list)
    pictures: list[tuple[int, str, str, str | None]] = field(default_factory=list)


class OutageRow(Wire):
    """One examinee in a window; seconds with milliseconds, except `compensateSeconds`.

    `reasons`: reason to number of outages. `ongoingSeconds`: the part of `outageSeconds` of the outage that had not
    ended. `complete`: false when the log does not hold how the first connection began, for that has expired.
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
    first_seen: str
    complete: bool


class OutageTotals(Wire):
    """The sums over all examinees; `affected` have at least one outage."""

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
        self._examinees: dict[str, _Examinee] = {}

    def add(self, entry: LogEntry) -> None:
        """Add an entry; an entry that was added before changes nothing."""
        fact = entry.fact
        known = self._timeline.examinees.get(fact.examinee_id)
        before = known.connection if known is not None else ConnectionState()
        happening = self._timeline.add(entry)
        if happening is None or isinstance(fact, Enrol):
            return  # an examinee who is only on the roster was never seen
        now = _to_ms(fact.timestamp)
        examinee = self._examinees.setdefault(fact.examinee_id, _Examinee(now))
        examinee.first = min(examinee.first, now)  # the clocks of two servers
        examinee.happened.append((now, happening.what))
        if happening.what.name.startswith("SYNC_"):
            examinee.pictures.append((now, happening.mobile_sync, happening.time, happening.reason))
        after = self._timeline.examinees[fact.examinee_id].connection
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
        """The time of the first fact in seconds since the epoch; `None`: there is none."""
        first = min((examinee.first for examinee in self._examinees.values()), default=None)
        return None if first is None else first / 1000

    def rows(self, begin: float, end: float, *, ignore_below: float = 0.0) -> list[OutageRow]:
        """Return a row for each examinee seen before the window's end, by id; times in seconds since the epoch.

        An outage that lasted less than `ignore_below` seconds, in all or so far, is left out.
        """
        first, last = round(begin * 1000), round(end * 1000)
        rows = []
        for examinee_id, examinee in sorted(self._examinees.items()):
            if examinee.first <= last:
                complete = self._timeline.examinees[examinee_id].complete
                rows.append(_row(examinee_id, examinee, first, last, round(ignore_below * 1000), complete))
        return rows


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
    )


def _row(examinee_id: str, examinee: _Examinee, begin: int, end: int, ignore_below: int, complete: bool) -> OutageRow:
    counted: list[tuple[Outage, int, int]] = []
    still_disconnected = False
    for outage in examinee.outages:
        still_disconnected |= outage.begin <= end and (outage.end is None or outage.end > end)
        part = outage.part(begin, end)
        lasted = (end if outage.end is None else outage.end) - outage.begin
        if part is not None and lasted >= ignore_below:
            counted.append((outage, *part))
    total = union_length(parts := [(first, last) for _, first, last in counted])
    ongoing = [last - first for outage, first, last in counted if outage.end is None or outage.end > end]
    happened = Counter(what for when, what in examinee.happened if begin <= when <= end)
    picture = next((picture for picture in reversed(examinee.pictures) if picture[0] <= end), None)
    return OutageRow(
        examinee_id=examinee_id,
        outages=len(counted),
        outage_seconds=total / 1000,
        longest_seconds=max((last - first for first, last in parts), default=0) / 1000,
        ongoing_seconds=max(ongoing, default=0) / 1000,
        still_disconnected=still_disconnected,
        compensate_seconds=-(-total // 1000),
        reasons=dict(Counter(outage.reason for outage, _, _ in counted)),
        attempts=happened[EntryKind.RECONNECTING],
        shut_out=happened[EntryKind.SHUT_OUT],
        removals=happened[EntryKind.REMOVED],
        readmissions=happened[EntryKind.READMITTED],
        migrations=happened[EntryKind.MIGRATING],
        mobile_sync=picture[1] if picture is not None else "NONE",
        mobile_sync_time=picture[2] if picture is not None else None,
        mobile_sync_reason=picture[3] if picture is not None else None,
        first_seen=format_time(examinee.first / 1000),
        complete=complete,
    )


def union_length(parts: Iterable[tuple[int, int]]) -> int:
    """Return the length that at least one of the parts covers."""
    covered, reached = 0, None
    for first, last in sorted(parts):
        begin = first if reached is None else max(first, reached)
        covered += max(0, last - begin)
        reached = last if reached is None else max(reached, last)
    return covered


def _is_away(state: ConnectionState) -> bool:
    return state.status is ConnectionStatusCode.DISCONNECTED and not state.removed


def _to_ms(timestamp: str) -> int:
    return round(parse_time(timestamp) * 1000)
