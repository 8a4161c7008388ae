"""The texts of timeline entries about an examinee: for each fact, what was decided about it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from protocol.log.entry_text import EntryText
from protocol.log.timeline_entry import EntryKind
from protocol.messages.facts import (
    ActionFact,
    CaptureReview,
    ConnectionFact,
    ConnectionStatus,
    ConnectionStatusCode,
    Enrol,
    ExamineeFinish,
    ExamineeResume,
    FinishReason,
    HelpClose,
    HelpRequest,
    HelpTake,
    MobileSyncCode,
    MobileSyncExtend,
    MobileSyncFact,
    MobileSyncStatus,
    MobileSyncTimeout,
    MobileSyncWait,
    Notice,
    NoticeConfirmed,
    NoticeFact,
    Readmit,
    ReconnectAttempt,
    ReconnectExhausted,
    Remove,
    Restate,
    UnstableTimeout,
)
from protocol.messages.proctor_events import ExamineeConnected
from protocol.rules.connection_state import ConnectionState, server_id_of
from protocol.rules.history import Outcome
from protocol.rules.mobile_sync import MobileSyncState
from protocol.rules.notices import NoticesState, RecordedNotice
from protocol.texts import person

# -- the connection ---------------------------------------------------------------------------------------


def describe_connection(before: ConnectionState, outcome: Outcome[ConnectionState], fact: ConnectionFact) -> EntryText:
    """Describe what a fact did to the connection, whose state was `before`."""
    text = _describe_connection(before, outcome, fact)
    after = outcome.state
    if not after.unstable or before.unstable or after.away_share is None:
        return text
    unstable = f"; unstable: away {after.away_share:.0%} of the last {after.unstable_window} s"
    return replace(text, text=text.text + unstable)


def _describe_connection(before: ConnectionState, outcome: Outcome[ConnectionState], fact: ConnectionFact) -> EntryText:
    after = outcome.state
    match fact:
        case ConnectionStatus(status=ConnectionStatusCode.CONNECTED):
            return _describe_connected(before, outcome, fact)
        case ConnectionStatus():
            return _describe_disconnected(before, after, fact)
        case ReconnectAttempt():
            return _describe_attempt(before, after, fact)
        case ReconnectExhausted():
            return _describe_exhausted(before, after)
        case UnstableTimeout():
            if after == before:
                return EntryText(EntryKind.NO_EFFECT, "a check for stability that is out of date: no effect")
            return EntryText(EntryKind.STABLE, f"stable again since {fact.timestamp}")
        case Enrol():
            return _describe_enrol(before, after, fact)
        case Readmit():
            return _describe_readmit(before, after, fact)
        case Remove():
            return _describe_remove(before, after, fact)
        case ExamineeFinish():
            return _describe_finish(before, after, fact)
        case ExamineeResume():
            return _describe_resume(before, fact)
        case Restate():
            return EntryText(EntryKind.RESTATED, f"state repeated: {after.view().status}")


def _describe_finish(before: ConnectionState, after: ConnectionState, fact: ExamineeFinish) -> EntryText:
    details = _action_details(fact)
    if after.finished is None or before.finished is not None:
        why = "removed" if before.removed else "finished already"
        return EntryText(EntryKind.NO_EFFECT, f"a finish without effect: {why}", details)
    match fact.reason:
        case FinishReason.HANDED_IN:
            text = "handed in"
        case FinishReason.PLAN_ENDED:
            text = "finished: the exam has ended"
        case FinishReason.DECIDED:
            text = f"finished by {_who(fact)}"
    return EntryText(EntryKind.FINISHED, text, {**details, "reason": fact.reason.value})


def _describe_resume(before: ConnectionState, fact: ExamineeResume) -> EntryText:
    details = _action_details(fact)
    if before.finished is None:
        return EntryText(EntryKind.NO_EFFECT, "a resume without effect: not finished", details)
    return EntryText(EntryKind.RESUMED, f"resumed by {_who(fact)}", details)


def _describe_connected(
    before: ConnectionState, outcome: Outcome[ConnectionState], fact: ConnectionStatus
) -> EntryText:
    info = fact.client_info
    server_id = server_id_of(fact)
    where: dict[str, Any] = {
        "socket_id": fact.socket_id,
        "server_id": server_id,
        "ip_address": info.ip_address if info else None,
        "user_agent": info.user_agent if info else None,
    }
    if not outcome.events:
        if outcome.state.finished is not None and outcome.state != before:
            return EntryText(EntryKind.RETURNED, f"connected on {server_id}, still finished", where)
        if before.exhausted or before.removed:
            why = f"removed by {before.removed_by}" if before.removed else "shut out until readmitted"
            return EntryText(EntryKind.REFUSED, f"came back on {server_id}, and was refused: {why}", where)
        if fact.socket_id == before.socket_id:
            return EntryText(EntryKind.NO_EFFECT, f"announced again by {server_id}: no effect", where)
        return EntryText(
            EntryKind.NO_EFFECT, "late connect of a socket that its client had left already: no effect", where
        )
    event = outcome.events[0]
    assert isinstance(event, ExamineeConnected)
    differs = f"; another {' and another '.join(event.differs)} than before" if event.differs else ""
    if event.outage_seconds is not None:
        lasted = f"after {event.outage_seconds:g} s"
        details = {**where, "seconds": event.outage_seconds}
        if event.migrated:
            text = f"arrived on {server_id} {lasted}: moved from {before.server_id}{differs}"
            return EntryText(EntryKind.ARRIVED, text, details)
        text = f"recovered {lasted} on {server_id} ({before.reason}){differs}"
        return EntryText(EntryKind.RECOVERED, text, {**details, "reason": before.reason})
    if event.replaced is not None:
        return EntryText(
            EntryKind.REPLACED, f"a newer connection on {server_id} took over from {before.socket_id}{differs}", where
        )
    return EntryText(EntryKind.JOINED, f"joined on {server_id}{differs}", where)


def _describe_disconnected(before: ConnectionState, after: ConnectionState, fact: ConnectionStatus) -> EntryText:
    server_id = server_id_of(fact)
    details: dict[str, Any] = {"socket_id": fact.socket_id, "server_id": server_id, "reason": fact.reason}
    if after == before:
        if before.status is None:
            text = "end of a socket of an examinee who has no connection: no effect"
        elif fact.socket_id == before.socket_id:
            text = f"the socket's end was known already ({before.reason}): no effect"
        else:
            text = "late disconnect of a replaced socket: no effect"
        return EntryText(EntryKind.NO_EFFECT, text, details)
    details["reason"] = after.reason
    details["close_code"] = fact.close_code
    if after.finished is not None:
        return EntryText(EntryKind.LEFT, f"left {server_id} after finishing ({after.reason})", details)
    if after.status is ConnectionStatusCode.MIGRATING:
        return EntryText(EntryKind.MIGRATING, f"sent away by {server_id}, which is being drained", details)
    code = f", close code {fact.close_code}" if fact.close_code is not None else ""
    unknown = " (when it was opened is not in the log)" if before.status is None else ""
    return EntryText(EntryKind.LOST, f"lost: {after.reason} on {server_id}{code}{unknown}", details)


def _describe_attempt(before: ConnectionState, after: ConnectionState, fact: ReconnectAttempt) -> EntryText:
    details = {
        "attempt": fact.attempt,
        "max_attempts": fact.max_attempts,
        "next_attempt_at": fact.next_attempt_at,
        "reason": before.reason,
    }
    count = f"attempt {fact.attempt} of {fact.max_attempts}"
    if after == before:
        return EntryText(EntryKind.NO_EFFECT, f"{count} of an outage that is over: no effect", details)
    if after.status is ConnectionStatusCode.MIGRATING:
        return EntryText(EntryKind.NO_EFFECT, f"{count}: on the way to another server", details)
    if before.status is not after.status:
        where = {"server_id": before.server_id, "socket_id": before.socket_id}
        text = f"lost: sent away by {before.server_id} and not arrived anywhere since {before.since}"
        return EntryText(EntryKind.LOST, text, {**details, **where})
    return EntryText(EntryKind.RECONNECTING, f"reconnecting: {count}", details)


def _describe_exhausted(before: ConnectionState, after: ConnectionState) -> EntryText:
    details = {"attempt": before.attempt, "max_attempts": before.max_attempts, "reason": before.reason}
    if after == before:
        return EntryText(EntryKind.NO_EFFECT, "the attempts of an outage that is over are used up: no effect", details)
    return EntryText(EntryKind.SHUT_OUT, "shut out: all attempts are used up", {**details, "reason": after.reason})


def _describe_readmit(before: ConnectionState, after: ConnectionState, fact: Readmit) -> EntryText:
    if after == before:
        return EntryText(
            EntryKind.NO_EFFECT,
            f"readmitted by {_who(fact)}, but not shut out: no effect",
            _action_details(fact),
        )
    undone = " after the removal" if before.removed else ""
    return EntryText(EntryKind.READMITTED, f"readmitted by {_who(fact)}{undone}", _action_details(fact))


def _describe_remove(before: ConnectionState, after: ConnectionState, fact: Remove) -> EntryText:
    details = {**_action_details(fact), "reason": fact.reason}
    if after == before:
        return EntryText(EntryKind.NO_EFFECT, f"removed by {_who(fact)} again: no effect", details)
    why = f": {fact.reason}" if fact.reason else ""
    return EntryText(EntryKind.REMOVED, f"removed by {_who(fact)}{why}", details)


def _describe_enrol(before: ConnectionState, after: ConnectionState, fact: Enrol) -> EntryText:
    details = {"by": fact.by, "action_id": fact.action_id, "name": after.name}
    by = f" by {fact.by}" if fact.by else ""
    name = f" as {after.name}" if after.name else ""
    if after.labels:
        name += f" ({', '.join(f'{label} {value}' for label, value in after.labels.items())})"
    if after == before:
        return EntryText(EntryKind.NO_EFFECT, f"enrolled{by} again{name}: no effect", details)
    again = "enrolled" if not before.enrolled else "changed by the roster"
    if before.enrolled and after.name != before.name:
        again = "renamed by the roster"
    return EntryText(EntryKind.ENROLLED, f"{again}{by}{name}", details)


def _action_details(decided: ActionFact | Notice | RecordedNotice) -> dict[str, Any]:
    return {"by": decided.by, "by_name": decided.by_name, "action_id": decided.action_id}


def _who(decided: ActionFact | Notice | RecordedNotice) -> str:
    return person(decided.by, decided.by_name)


# -- mobile sync ------------------------------------------------------------------------------------------

_OUTCOMES = {
    MobileSyncCode.WAITING: EntryKind.SYNC_WAITING,
    MobileSyncCode.COMPLETED: EntryKind.SYNC_COMPLETED,
    MobileSyncCode.FAILED: EntryKind.SYNC_FAILED,
    MobileSyncCode.TIMED_OUT: EntryKind.SYNC_TIMED_OUT,
}


def describe_mobile_sync(before: MobileSyncState, after: MobileSyncState, fact: MobileSyncFact) -> EntryText:
    """Describe what a fact did to the mobile sync."""
    if isinstance(fact, Restate):
        return EntryText(EntryKind.RESTATED, f"mobile sync repeated: {after.view().status}")
    if after == before:
        return EntryText(EntryKind.NO_EFFECT, _describe_without_effect(before, fact))
    assert after.status is not None
    details = {
        "reason": after.reason,
        "device_id": after.device_id,
        "image_url": after.shown_image_url,
        "deadline": after.deadline,
    }
    if isinstance(fact, MobileSyncExtend):
        before_that = f" from {before.deadline}" if before.deadline is not None else ""
        text = f"mobile sync extended by {_who(fact)}{before_that} to {after.deadline}"
        return EntryText(EntryKind.SYNC_EXTENDED, text, {**details, **_action_details(fact)})
    if isinstance(fact, CaptureReview):
        return _describe_review(fact, after, {**details, **_action_details(fact)})
    match after.status:
        case MobileSyncCode.WAITING:
            challenge = f", with {after.challenge} in it" if after.challenge is not None else ""
            text = f"mobile sync: waiting for a picture until {after.deadline}{challenge}"
        case MobileSyncCode.COMPLETED if after.capture_id == before.capture_id is not None:
            newest = after.captures[-1]
            text = f"another picture from {newest.device_id} kept, which nobody asked for; the first one counts"
            of_newest = {"device_id": newest.device_id, "capture_id": newest.capture_id}
            return EntryText(EntryKind.SYNC_KEPT, text, {**details, **of_newest})
        case MobileSyncCode.COMPLETED:
            counting = after.capture(after.capture_id)
            when = f", {_WHEN[counting.when]}" if counting is not None and counting.when in _WHEN else ""
            text = f"mobile sync completed: a picture from {after.device_id}{when}"
            details["capture_id"] = after.capture_id
        case MobileSyncCode.FAILED:
            text = f"mobile sync failed: {after.reason}"
        case MobileSyncCode.TIMED_OUT:
            text = f"mobile sync timed out: no picture until {after.deadline}"
    return EntryText(_OUTCOMES[after.status], text, details)


_WHEN = {"before": "sent before the stage", "after": "sent after the deadline"}


def _describe_review(fact: CaptureReview, after: MobileSyncState, details: dict[str, Any]) -> EntryText:
    which = f"picture {fact.capture_id[:12]}"
    details = {**details, "capture_id": fact.capture_id}
    if fact.verdict == "accepted":
        return EntryText(EntryKind.SYNC_ACCEPTED, f"{which} accepted by {fact.by}", details)
    why = f" ({fact.reason})" if fact.reason else ""
    again = f"; another one is waited for until {after.deadline}" if after.status is MobileSyncCode.WAITING else ""
    details = {**details, "reason": fact.reason}
    return EntryText(EntryKind.SYNC_REJECTED, f"{which} rejected by {fact.by}{why}{again}", details)


def _describe_without_effect(
    before: MobileSyncState,
    fact: MobileSyncWait | MobileSyncStatus | MobileSyncExtend | CaptureReview | MobileSyncTimeout,
) -> str:
    match fact:
        case CaptureReview():
            return f"picture {fact.capture_id[:12]} {fact.verdict} again by {fact.by}: no effect"
        case MobileSyncExtend():
            return f"mobile sync extended by {_who(fact)}, which is {before.view().status}: no effect"
        case MobileSyncWait():
            return f"entered mobile sync again: it stays {before.view().status}"
        case MobileSyncTimeout():
            return "deadline of a mobile sync stage that is over: no effect"
        case _:
            return f"mobile sync {fact.status.value} again: no effect"


# -- messages of proctors, and help -----------------------------------------------------------------------


def describe_notices(before: NoticesState, after: NoticesState, fact: NoticeFact) -> EntryText:
    """Describe what a fact did to the notices."""
    match fact:
        case Restate():
            return EntryText(EntryKind.RESTATED, "messages repeated")
        case HelpRequest() | HelpTake() | HelpClose():
            return _describe_help(before, after, fact)
        case Notice():
            details = {**_action_details(fact), "notice": fact.text}
            if after == before:
                return EntryText(EntryKind.NO_EFFECT, f"notice by {_who(fact)} again: no effect", details)
            return EntryText(EntryKind.NOTICE, f"notice by {_who(fact)}: {fact.text}", details)
        case NoticeConfirmed():
            if after == before:
                text = "a notice confirmed again: no effect"
                return EntryText(EntryKind.NO_EFFECT, text, {"action_id": fact.action_id})
            known = after.find(fact.action_id)
            if known is None:
                text = "a message to several confirmed"
                return EntryText(EntryKind.NOTICE_CONFIRMED, text, {"action_id": fact.action_id})
            details = {**_action_details(known), "notice": known.text}
            return EntryText(
                EntryKind.NOTICE_CONFIRMED,
                f"notice by {_who(known)} confirmed: {known.text}",
                details,
            )


def _describe_help(before: NoticesState, after: NoticesState, fact: HelpRequest | HelpTake | HelpClose) -> EntryText:
    """Describe a request for help, or what became of it."""
    by = fact.examinee_id if isinstance(fact, HelpRequest) else fact.by
    details = {"by": by, "action_id": fact.action_id}
    said = f": {fact.text}" if isinstance(fact, HelpRequest) and fact.text else ""
    if after == before:
        match fact:
            case HelpRequest():
                text = f"asked for help again{said}: no effect"
            case HelpTake():
                text = f"{by} takes a request for help that is theirs already, or not open: no effect"
            case HelpClose():
                text = f"{by} closes a request for help that is not open: no effect"
        return EntryText(EntryKind.NO_EFFECT, text, details)
    match fact:
        case HelpRequest():
            return EntryText(EntryKind.HELP_REQUESTED, f"asks for help{said}", {**details, "notice": fact.text})
        case HelpTake():
            return EntryText(EntryKind.HELP_TAKEN, f"{by} has taken the request for help", details)
        case HelpClose():
            text = "withdraws the request for help" if by == fact.examinee_id else f"request for help closed by {by}"
            return EntryText(EntryKind.HELP_CLOSED, text, details)


# -- what is not known here -------------------------------------------------------------------------------


def describe_newer(kind: str) -> EntryText:
    """Describe a fact of a type or with a content that only a newer release understands."""
    return EntryText(EntryKind.NEWER, f"{kind}: only the newer release that has written it knows what it means")
