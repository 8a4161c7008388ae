"""Timelines of a plan and its examinees, read from the log of record.

The facts are folded in the order of the log by the very rules that the state manager applies, so this says what was
decided, and also which facts had no effect and why. `logged` is when the log took a fact, `time` is what the fact
says itself: the moment at which a server saw it.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from protocol.log.entries import LogEntry, NewerFact
from protocol.log.entry_text import EntryText
from protocol.log.plan_texts import describe_plan, describe_plan_notice, describe_purge
from protocol.log.timeline_entry import EntryKind, TimelineEntry
from protocol.log.timeline_texts import describe_connection, describe_mobile_sync, describe_newer, describe_notices
from protocol.messages.facts import (
    ConnectionFact,
    ConnectionStatus,
    ConnectionStatusCode,
    ExamineeFact,
    MobileSyncFact,
    NoticeFact,
    Readmit,
    ReconnectAttempt,
    ReconnectExhausted,
    aspect_of,
)
from protocol.messages.plan_facts import (
    PlanClose,
    PlanFact,
    PlanNotice,
    PlanOpen,
    PlanPurged,
    PlanRecordFact,
    PlanRestate,
)
from protocol.rules import connection, mobile_sync, notices, plan
from protocol.rules.connection_state import ConnectionState, server_id_of
from protocol.rules.mobile_sync import MobileSyncState
from protocol.rules.notices import NoticesState
from protocol.rules.plan_state import PlanState
from protocol.times import format_time


@dataclass(slots=True)
class ReplayedExaminee:
    """An examinee at the place in the log that was read last.

    `first_logged`: when the log took the first fact about them (seconds since the epoch). `complete`: the log holds how
    the connection began. `last` is the version that was read last.
    """

    first_logged: float
    connection: ConnectionState = field(default_factory=ConnectionState)
    mobile_sync: MobileSyncState = field(default_factory=MobileSyncState)
    notices: NoticesState = field(default_factory=NoticesState)
    complete: bool = True
    last: int = 0


class Timeline:
    """Folds the entries of a plan's log, in its order; an entry that comes again changes nothing.

    `truncated`: the beginning of the log has expired. An examinee may then have been connected before the first fact
    about them, so a loss or an attempt that comes first is applied instead of fenced. `plan`: the state of the plan, of
    which a timeline of one examinee needs all facts, too.

    Example::

        timeline = Timeline()
        entries = [timeline.add(entry) for entry in log_entries]
        timeline.examinees["E001"].connection  # the state after them
    """

    def __init__(self, *, truncated: bool = False) -> None:
        self._truncated = truncated
        self.examinees: dict[str, ReplayedExaminee] = {}
        self.plan = PlanState()
        self._last_about_plan = 0

    def add(self, entry: LogEntry) -> TimelineEntry | None:
        """Add a fact of the log; return its timeline entry, or `None` when it was added before."""
        fact = entry.fact
        if isinstance(fact, PlanFact) or (isinstance(fact, NewerFact) and fact.examinee_id is None):
            return self._add_plan_fact(entry, fact)
        assert fact.examinee_id is not None
        person = self.examinees.get(fact.examinee_id)
        if person is None:
            person = self.examinees[fact.examinee_id] = ReplayedExaminee(entry.logged)
        if entry.version <= person.last:
            return None
        person.last = entry.version
        wording = self._fold(person, entry.version, fact)
        return TimelineEntry(
            version=entry.version,
            logged=format_time(entry.logged),
            time=fact.timestamp,
            plan_id=fact.plan_id,
            examinee_id=fact.examinee_id,
            what=wording.what,
            effect=wording.what not in (EntryKind.RESTATED, EntryKind.NO_EFFECT),
            text=wording.text,
            status=person.connection.shown_status or "NEVER",
            mobile_sync=person.mobile_sync.status or "NONE",
            **wording.details,
        )

    def _add_plan_fact(self, entry: LogEntry, fact: PlanFact | NewerFact) -> TimelineEntry | None:
        if entry.version <= self._last_about_plan:
            return None
        self._last_about_plan = entry.version
        wording = self._fold_plan(entry.version, fact)
        person = self.examinees.get(entry.examinee_id) if entry.examinee_id is not None else None
        status = self.plan.status.value
        if entry.examinee_id is not None:
            status = (person.connection.shown_status if person is not None else None) or "NEVER"
        return TimelineEntry(
            version=entry.version,
            logged=format_time(entry.logged),
            time=fact.timestamp,
            plan_id=fact.plan_id,
            examinee_id=entry.examinee_id,
            what=wording.what,
            effect=wording.what not in (EntryKind.RESTATED, EntryKind.NO_EFFECT),
            text=wording.text,
            status=status,
            mobile_sync=(person.mobile_sync.status if person is not None else None) or "NONE",
            **wording.details,
        )

    def _fold_plan(self, version: int, fact: PlanFact | NewerFact) -> EntryText:
        if isinstance(fact, NewerFact):
            return describe_newer(fact.kind)
        if isinstance(fact, PlanNotice):
            return describe_plan_notice(fact)
        if isinstance(fact, PlanPurged):
            self.plan = PlanState() if fact.examinee_id is None else plan.apply(self.plan, version, fact).state
            return describe_purge(fact)
        if isinstance(fact, PlanRestate) and fact.aspect == "plan_notices":
            return EntryText(EntryKind.RESTATED, "messages to the plan repeated")
        assert isinstance(fact, PlanRecordFact)
        if self._truncated and not self.plan.version and isinstance(fact, PlanOpen | PlanClose):
            fact = fact.model_copy(update={"schedule_version": None})  # what set the time has expired
        before = self.plan
        self.plan = plan.apply(before, version, fact).state
        return describe_plan(before, self.plan, fact)

    def _fold(self, person: ReplayedExaminee, version: int, fact: ExamineeFact | NewerFact) -> EntryText:
        if isinstance(fact, NewerFact):
            return describe_newer(fact.kind)
        match aspect_of(fact):
            case "notices":
                assert isinstance(fact, NoticeFact)
                notices_before = person.notices
                person.notices = notices.apply(notices_before, version, fact).state
                return describe_notices(notices_before, person.notices, fact)
            case "mobile_sync":
                assert isinstance(fact, MobileSyncFact)
                sync_before = person.mobile_sync
                person.mobile_sync = mobile_sync.apply(sync_before, version, fact).state
                return describe_mobile_sync(sync_before, person.mobile_sync, fact)
            case "connection":
                assert isinstance(fact, ConnectionFact)
                before = person.connection
                if before.status is None and self._truncated and (seed := _state_before_log(fact)) is not None:
                    person.complete = False
                    before = replace(seed, name=before.name, labels=before.labels, enrolled=before.enrolled)
                outcome = connection.apply(before, version, fact)
                person.connection = outcome.state
                return describe_connection(before, outcome, fact)


def _state_before_log(fact: ExamineeFact) -> ConnectionState | None:
    """Return the state before the first fact of a log whose beginning has expired; `None`: the empty state."""
    disconnected = ConnectionState(
        plan_id=fact.plan_id,
        examinee_id=fact.examinee_id,
        status=ConnectionStatusCode.DISCONNECTED,
        reason="UNKNOWN",
        since=fact.timestamp,
    )
    match fact:
        case ConnectionStatus(status=ConnectionStatusCode.DISCONNECTED):
            return replace(
                disconnected,
                status=ConnectionStatusCode.CONNECTED,
                socket_id=fact.socket_id,
                server_id=server_id_of(fact),
            )
        case ReconnectAttempt() | ReconnectExhausted():
            return replace(disconnected, loss_version=fact.loss_version)
        case Readmit():
            return replace(disconnected, exhausted=True)
    return None
