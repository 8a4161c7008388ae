"""What happened to the examinees of a plan, in the words of the decisions: the log of record, read.

The facts are folded in the order of the log by the very rules that the state manager applies, so this says what was
decided, and also which facts had no effect and why. `logged` is when the log took a fact, `time` is what the fact
says itself: the moment at which a server saw it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

from protocol import connection, mobile_sync, notices
from protocol.connection import Connection
from protocol.events import ExamineeConnected
from protocol.facts import (
    ActionFact,
    Aspect,
    ConnectionStatus,
    ConnectionStatusCode,
    Enrol,
    ExamineeFact,
    MobileSyncCode,
    MobileSyncExtend,
    MobileSyncStatus,
    MobileSyncTimeout,
    MobileSyncWait,
    Notice,
    NoticeConfirmed,
    Readmit,
    ReconnectAttempt,
    ReconnectExhausted,
    Remove,
    Restate,
)
from protocol.history import Outcome
from protocol.log_entries import LogEntry
from protocol.mobile_sync import MobileSync
from protocol.notices import Notices
from protocol.times import format_time
from protocol.wire import Wire


class What(StrEnum):
    """What a fact came to."""

    ENROLLED = "ENROLLED"
    JOINED = "JOINED"
    RECOVERED = "RECOVERED"
    ARRIVED = "ARRIVED"
    REPLACED = "REPLACED"
    REFUSED = "REFUSED"
    LOST = "LOST"
    MIGRATING = "MIGRATING"
    RECONNECTING = "RECONNECTING"
    SHUT_OUT = "SHUT_OUT"
    REMOVED = "REMOVED"
    READMITTED = "READMITTED"
    SYNC_WAITING = "SYNC_WAITING"
    SYNC_EXTENDED = "SYNC_EXTENDED"
    SYNC_COMPLETED = "SYNC_COMPLETED"
    SYNC_FAILED = "SYNC_FAILED"
    SYNC_TIMED_OUT = "SYNC_TIMED_OUT"
    NOTICE = "NOTICE"
    NOTICE_CONFIRMED = "NOTICE_CONFIRMED"
    RESTATED = "RESTATED"
    NO_EFFECT = "NO_EFFECT"


class Happening(Wire):
    """One fact and what was decided about it.

    `text` says it to people. `effect`: it changed what is recorded, or refused somebody. `status` and `mobileSync` are
    those after it. `seconds`: how long the outage (or the migration) lasted that this ends. `by`: who has decided it,
    with the action `actionId`; of a confirmation, whose message was confirmed.
    """

    version: int
    logged: str
    time: str
    plan_id: str
    examinee_id: str
    what: What
    effect: bool
    text: str
    status: str
    mobile_sync: str
    reason: str | None = None
    socket_id: str | None = None
    server_id: str | None = None
    ip_address: str | None = None
    attempt: int | None = None
    max_attempts: int | None = None
    next_attempt_at: str | None = None
    by: str | None = None
    action_id: str | None = None
    name: str | None = None
    notice: str | None = None
    seconds: float | None = None
    device_id: str | None = None
    image_url: str | None = None
    deadline: str | None = None


@dataclass(slots=True)
class Person:
    """An examinee at the place in the log that was read last.

    `complete`: the log holds how the connection began. `last` is the version that was read last.
    """

    connection: Connection = field(default_factory=Connection)
    mobile_sync: MobileSync = field(default_factory=MobileSync)
    notices: Notices = field(default_factory=Notices)
    complete: bool = True
    first_logged: float = 0.0
    last: int = 0


@dataclass(frozen=True, slots=True)
class _Said:
    """The part of a happening that differs from kind to kind."""

    what: What
    text: str
    details: dict[str, Any] = field(default_factory=dict)


class Timeline:
    """Folds the log's entries, which must come in its order; one that comes again changes nothing.

    `cut`: the log's beginning has expired. Then an examinee may have been connected before the first fact about them,
    and a loss or an attempt that comes first is believed instead of fenced.
    """

    def __init__(self, *, cut: bool = False) -> None:
        self._cut = cut
        self.people: dict[str, Person] = {}

    def take(self, entry: LogEntry) -> Happening | None:
        """What an entry came to; `None` for one that was taken before."""
        fact = entry.fact
        person = self.people.get(fact.examinee_id)
        if person is None:
            person = self.people[fact.examinee_id] = Person(first_logged=entry.logged)
        if entry.version <= person.last:
            return None
        person.last = entry.version
        if _is_about(fact, "notices"):
            said, effect = _notices(person, entry)
        elif _is_about(fact, "mobile_sync"):
            said, effect = _picture(person, entry)
        else:
            said, effect = self._connection(person, entry)
        return Happening(
            version=entry.version,
            logged=format_time(entry.logged),
            time=fact.timestamp,
            plan_id=fact.plan_id,
            examinee_id=fact.examinee_id,
            what=said.what,
            effect=effect,
            text=said.text,
            status=person.connection.status or "NEVER",
            mobile_sync=person.mobile_sync.status or "NONE",
            **said.details,
        )

    def _connection(self, person: Person, entry: LogEntry) -> tuple[_Said, bool]:
        fact = entry.fact
        assert isinstance(
            fact, ConnectionStatus | ReconnectAttempt | ReconnectExhausted | Enrol | Readmit | Remove | Restate
        )
        before = person.connection
        if before.status is None and self._cut and (seed := _before_the_log(fact)) is not None:
            before, person.complete = replace(seed, name=before.name, enrolled=before.enrolled), False
        outcome = connection.apply(before, entry.version, fact)
        person.connection = outcome.state
        match fact:
            case ConnectionStatus(status=ConnectionStatusCode.CONNECTED):
                said = _on_connected(before, outcome, fact)
            case ConnectionStatus():
                said = _on_disconnected(before, outcome.state, fact)
            case ReconnectAttempt():
                said = _on_attempt(before, outcome.state, fact)
            case ReconnectExhausted():
                said = _on_exhausted(before, outcome.state)
            case Enrol():
                said = _on_enrol(before, outcome.state, fact)
            case Readmit():
                said = _on_readmit(before, outcome.state, fact)
            case Remove():
                said = _on_remove(before, outcome.state, fact)
            case Restate():
                said = _Said(What.RESTATED, f"told anew after a late fact: {outcome.state.view().status}")
        return said, said.what not in (What.RESTATED, What.NO_EFFECT)


def _is_about(fact: ExamineeFact, aspect: Aspect) -> bool:
    if isinstance(fact, Restate):
        return fact.aspect == aspect
    return isinstance(fact, _FACTS_ABOUT[aspect])


def _before_the_log(fact: ExamineeFact) -> Connection | None:
    """What must have been so before a fact that comes first in a log whose beginning has expired."""
    gone = Connection(
        plan_id=fact.plan_id,
        examinee_id=fact.examinee_id,
        status=ConnectionStatusCode.DISCONNECTED,
        socket_id="unknown",
        reason="UNKNOWN",
        since=fact.timestamp,
    )
    match fact:
        case ConnectionStatus(status=ConnectionStatusCode.DISCONNECTED):
            there = replace(gone, status=ConnectionStatusCode.CONNECTED, reason=None, socket_id=fact.socket_id)
            return replace(there, server_id=connection.server_of(fact))
        case ReconnectAttempt() | ReconnectExhausted():
            return replace(gone, loss_version=fact.loss_version)
        case Readmit():
            return replace(gone, exhausted=True)
        case _:
            return None


# -- the connection ---------------------------------------------------------------------------------------


def _on_connected(before: Connection, outcome: Outcome[Connection], fact: ConnectionStatus) -> _Said:
    info = fact.client_info
    server_id = connection.server_of(fact)
    where = {"socket_id": fact.socket_id, "server_id": server_id, "ip_address": info.ip_address if info else None}
    if not outcome.events:
        if before.exhausted or before.removed:
            why = f"removed by {before.removed_by}" if before.removed else "shut out until readmitted"
            return _Said(What.REFUSED, f"came back on {server_id}, and was refused: {why}", where)
        if fact.socket_id == before.socket_id:
            return _Said(What.NO_EFFECT, f"announced again by {server_id}: no effect", where)
        return _Said(What.NO_EFFECT, "late connect of a socket that its client had left already: no effect", where)
    event = outcome.events[0]
    assert isinstance(event, ExamineeConnected)
    if event.recovered:
        lasted = f" after {event.outage_seconds:g} s" if event.outage_seconds is not None else ""
        details = {**where, "seconds": event.outage_seconds, "reason": before.reason}
        return _Said(What.RECOVERED, f"recovered{lasted} on {server_id} ({before.reason})", details)
    if before.status is ConnectionStatusCode.MIGRATING:
        lasted = f" after {event.outage_seconds:g} s" if event.outage_seconds is not None else ""
        details = {**where, "seconds": event.outage_seconds}
        return _Said(What.ARRIVED, f"arrived on {server_id}{lasted}: moved from {before.server_id}", details)
    if event.replaced is not None:
        return _Said(What.REPLACED, f"a newer connection on {server_id} took over from {before.socket_id}", where)
    return _Said(What.JOINED, f"joined on {server_id}", where)


def _on_disconnected(before: Connection, after: Connection, fact: ConnectionStatus) -> _Said:
    server_id = connection.server_of(fact)
    details = {"socket_id": fact.socket_id, "server_id": server_id, "reason": fact.reason}
    if after == before:
        if before.status is None:
            text = "end of a socket of which the log knows no beginning: no effect"
        elif fact.socket_id == before.socket_id:
            text = f"the socket's end was known already ({before.reason}): no effect"
        else:
            text = "late disconnect of a replaced socket: no effect"
        return _Said(What.NO_EFFECT, text, details)
    details["reason"] = after.reason
    if after.status is ConnectionStatusCode.MIGRATING:
        return _Said(What.MIGRATING, f"sent away by {server_id}, which is being drained", details)
    return _Said(What.LOST, f"lost: {after.reason} on {server_id}", details)


def _on_attempt(before: Connection, after: Connection, fact: ReconnectAttempt) -> _Said:
    details = {
        "attempt": fact.attempt,
        "max_attempts": fact.max_attempts,
        "next_attempt_at": fact.next_attempt_at,
        "reason": before.reason,
    }
    count = f"attempt {fact.attempt} of {fact.max_attempts}"
    if after == before:
        return _Said(What.NO_EFFECT, f"{count} of an outage that is over: no effect", details)
    if after.status is ConnectionStatusCode.MIGRATING:
        return _Said(What.NO_EFFECT, f"{count}: on the way to another server", details)
    if before.status is not after.status:
        where = {"server_id": before.server_id, "socket_id": before.socket_id}
        text = f"lost: sent away by {before.server_id} and not arrived anywhere since {before.since}"
        return _Said(What.LOST, text, {**details, **where})
    return _Said(What.RECONNECTING, f"reconnecting: {count}", details)


def _on_exhausted(before: Connection, after: Connection) -> _Said:
    details = {"attempt": before.attempt, "max_attempts": before.max_attempts, "reason": before.reason}
    if after == before:
        return _Said(What.NO_EFFECT, "the attempts of an outage that is over are used up: no effect", details)
    return _Said(What.SHUT_OUT, "shut out: all attempts are used up", {**details, "reason": after.reason})


def _on_readmit(before: Connection, after: Connection, fact: Readmit) -> _Said:
    if after == before:
        return _Said(What.NO_EFFECT, f"readmitted by {fact.by}, but not shut out: no effect", _who(fact))
    undone = " after the removal" if before.removed else ""
    return _Said(What.READMITTED, f"readmitted by {fact.by}{undone}", _who(fact))


def _on_remove(before: Connection, after: Connection, fact: Remove) -> _Said:
    details = {**_who(fact), "reason": fact.reason}
    if after == before:
        return _Said(What.NO_EFFECT, f"removed by {fact.by}, which was so already: no effect", details)
    why = f": {fact.reason}" if fact.reason else ""
    return _Said(What.REMOVED, f"removed by {fact.by}{why}", details)


def _on_enrol(before: Connection, after: Connection, fact: Enrol) -> _Said:
    details = {"by": fact.by, "action_id": fact.action_id, "name": after.name}
    by = f" by {fact.by}" if fact.by else ""
    name = f" as {after.name}" if after.name else ""
    if after == before:
        return _Said(What.NO_EFFECT, f"enrolled{by} again{name}: no effect", details)
    again = "named otherwise by the roster" if before.enrolled else "enrolled"
    return _Said(What.ENROLLED, f"{again}{by}{name}", details)


def _who(fact: ActionFact) -> dict[str, Any]:
    return {"by": fact.by, "action_id": fact.action_id}


# -- mobile sync ------------------------------------------------------------------------------------------

_OUTCOMES = {
    MobileSyncCode.WAITING: What.SYNC_WAITING,
    MobileSyncCode.COMPLETED: What.SYNC_COMPLETED,
    MobileSyncCode.FAILED: What.SYNC_FAILED,
    MobileSyncCode.TIMED_OUT: What.SYNC_TIMED_OUT,
}


def _picture(person: Person, entry: LogEntry) -> tuple[_Said, bool]:
    fact = entry.fact
    assert isinstance(fact, MobileSyncWait | MobileSyncStatus | MobileSyncExtend | MobileSyncTimeout | Restate)
    before = person.mobile_sync
    after = person.mobile_sync = mobile_sync.apply(before, entry.version, fact).state
    if isinstance(fact, Restate):
        return _Said(What.RESTATED, f"mobile sync told anew after a late fact: {after.view().status}"), False
    if after == before or after.status is None:
        return _Said(What.NO_EFFECT, _without_effect(before, fact)), False
    details = {
        "reason": after.reason,
        "device_id": after.device_id,
        "image_url": after.image_url,
        "deadline": after.deadline,
    }
    if isinstance(fact, MobileSyncExtend):
        before_that = f" from {before.deadline}" if before.deadline is not None else ""
        text = f"mobile sync extended by {fact.by}{before_that} to {after.deadline}"
        return _Said(What.SYNC_EXTENDED, text, {**details, **_who(fact)}), True
    match after.status:
        case MobileSyncCode.WAITING:
            text = f"mobile sync: waiting for a picture until {after.deadline}"
        case MobileSyncCode.COMPLETED:
            again = "another picture" if before.status is MobileSyncCode.COMPLETED else "a picture"
            text = f"mobile sync completed: {again} from {after.device_id}"
        case MobileSyncCode.FAILED:
            text = f"mobile sync failed: {after.reason}"
        case MobileSyncCode.TIMED_OUT:
            text = f"mobile sync timed out: no picture until {after.deadline}"
    return _Said(_OUTCOMES[after.status], text, details), True


def _without_effect(
    before: MobileSync, fact: MobileSyncWait | MobileSyncStatus | MobileSyncExtend | MobileSyncTimeout
) -> str:
    match fact:
        case MobileSyncExtend():
            return f"mobile sync extended by {fact.by}, which is {before.view().status}: no effect"
        case MobileSyncWait():
            return f"entered mobile sync again: it stays {before.view().status}"
        case MobileSyncTimeout():
            return "deadline of a mobile sync stage that is over: no effect"
        case _:
            return f"mobile sync {fact.status.value} again: no effect"


# -- messages of proctors ---------------------------------------------------------------------------------


def _notices(person: Person, entry: LogEntry) -> tuple[_Said, bool]:
    fact = entry.fact
    assert isinstance(fact, Notice | NoticeConfirmed | Restate)
    before = person.notices
    after = person.notices = notices.apply(before, entry.version, fact).state
    match fact:
        case Restate():
            return _Said(What.RESTATED, "messages told anew after a late fact"), False
        case Notice():
            details = {"by": fact.by, "action_id": fact.action_id, "notice": fact.text}
            if after == before:
                return _Said(What.NO_EFFECT, f"notice by {fact.by} again: no effect", details), False
            return _Said(What.NOTICE, f"notice by {fact.by}: {fact.text}", details), True
        case NoticeConfirmed():
            known = after.find(fact.action_id)
            if known is None or after == before:
                text = "a notice confirmed again, or one that is not known: no effect"
                return _Said(What.NO_EFFECT, text, {"action_id": fact.action_id}), False
            details = {"by": known.by, "action_id": known.action_id, "notice": known.text}
            return _Said(What.NOTICE_CONFIRMED, f"notice by {known.by} confirmed: {known.text}", details), True


_FACTS_ABOUT: dict[Aspect, tuple[type[ExamineeFact], ...]] = {
    "mobile_sync": (MobileSyncWait, MobileSyncStatus, MobileSyncExtend, MobileSyncTimeout),
    "notices": (Notice, NoticeConfirmed),
}


# -- at a moment ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Moment:
    """The status of an examinee at a moment of the log, and why.

    `made` is the fact that made the connection's status so, `latest` the last one about it (an attempt, say), `picture`
    the one that made the mobile sync's. `following` is what came next.
    """

    status: str
    mobile_sync: str
    made: Happening | None = None
    latest: Happening | None = None
    picture: Happening | None = None
    following: Happening | None = None


def at_moment(happenings: Iterable[Happening], moment: float) -> Moment:
    """Of one examinee's happenings in order: what was decided up to `moment` (seconds since the epoch, by `logged`)."""
    limit = format_time(moment)
    made = latest = picture = following = None
    for one in happenings:
        if not one.effect:
            continue
        if one.logged > limit:
            following = one
            break
        if one.what.name.startswith("SYNC_"):
            picture = one
            continue
        if one.what in (What.NOTICE, What.NOTICE_CONFIRMED):
            continue
        if made is None or made.status != one.status or one.what is What.REPLACED:
            made = one
        latest = one
    return Moment(
        made.status if made is not None else "NEVER",
        picture.mobile_sync if picture is not None else "NONE",
        made,
        latest,
        picture,
        following,
    )
