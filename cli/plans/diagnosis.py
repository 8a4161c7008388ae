"""Why an examinee is red, in plain words, and what to do: from what Redis, the log and the live session say."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from cli.shared.times import duration_text, local_time
from protocol.log.timeline_entry import EntryKind, TimelineEntry
from protocol.rules.connection_state import READMITTED, ConnectionState
from protocol.times import parse_time

MEANINGS: dict[str, tuple[str, str]] = {
    "SOCKET_CLOSED": (
        "the browser or its network closed the connection",
        "Have them open the exam page again, or look at their network; the page comes back by itself.",
    ),
    "PING_TIMEOUT": (
        "nothing was heard from the browser any more, though its connection was never closed",
        "Their network or machine has stalled (Wi-Fi, cable, sleep): look there; the page comes back by itself.",
    ),
    "SLOW_CLIENT": (
        "the browser read too slowly, and was sent away to begin anew",
        "Their network is too slow, or their machine is busy: close what else runs there.",
    ),
    "PROTOCOL_ERROR": (
        "the client said what the server does not accept, or its session failed",
        "Look at the log of its socket server; is the page up to date? A reload may do.",
    ),
    "SERVER_ISOLATED": (
        "its socket server was cut off from NATS and sent its clients elsewhere",
        "Look at that server's network and at NATS: `examwire actors ls`, `examwire doctor`.",
    ),
    "SERVER_DRAINING": (
        "its socket server was drained, and it has not arrived at another one in time",
        "Have them reload the exam page; is another server READY? `examwire actors ls`.",
    ),
    "SERVER_STOPPED": (
        "its socket server was stopped without a drain",
        "The page comes back by itself if another server is READY: `examwire actors ls`.",
    ),
    "SERVER_RESTARTED": (
        "its socket server ended and was started again",
        "The page comes back by itself; why did that server end? Look at its log.",
    ),
    "SERVER_LOST": (
        "its socket server is gone: no heartbeat came any more",
        "Look at that server and its machine: `examwire actors ls`; the others take its clients over.",
    ),
    "KICKED": ("an operator ended the connection", "The page comes back by itself after its first wait."),
    "UNKNOWN": ("why it was lost has expired from the log", "Have them open the exam page again."),
}


@dataclass(slots=True)
class DiagnosisInput:
    """What is known of an examinee; `None`: whoever knows it did not answer.

    `record`, `picture`, `server`: hashes of Redis. `session`: the live session's inspection, empty when there is none.
    `by_log`: the connection that the log comes to. `plan`: how many of the plan are disconnected, and how many of these
    from the same server.
    """

    plan_id: str
    examinee_id: str
    now: float
    record: dict[str, str] | None = None
    picture: dict[str, str] | None = None
    server: dict[str, str] | None = None
    session: dict[str, Any] | None = None
    happened: list[TimelineEntry] | None = None
    by_log: ConnectionState | None = None
    letters: list[int] | None = None
    others_gone: int = 0
    others_of_server: int = 0
    unavailable: list[str] = field(default_factory=list)

    @property
    def status(self) -> str:
        """By Redis, or by the log when that is away."""
        if self.record is not None:
            return self.record.get("connStatusCode") or "NEVER"
        return self.by_log.view().status if self.by_log is not None else "UNKNOWN"

    @property
    def never_seen(self) -> bool:
        """Whether everybody who answered has never heard of them."""
        return not self.record and not self.picture and not self.happened and not self.session and not self.letters


@dataclass(slots=True)
class Diagnosis:
    """One sentence or two on top, what to do, and where the sources disagree."""

    headline: str
    advice: list[str] = field(default_factory=list)
    disagreements: list[str] = field(default_factory=list)


def diagnose(seen: DiagnosisInput) -> Diagnosis:
    """What to tell an operator."""
    found = _by_status(seen)
    _compare(seen, found)
    if seen.letters:
        found.advice.append(
            f"Dead letter{'s' * (len(seen.letters) > 1)} {', '.join(map(str, seen.letters))} about them: "
            "`examwire dead-letters show NUMBER`."
        )
    return found


def _by_status(seen: DiagnosisInput) -> Diagnosis:
    who = seen.examinee_id
    match seen.status:
        case "CONNECTED":
            heard = _value(seen, "lastActiveTime")
            last = f", last heard from {_ago(seen, heard)} ago" if heard else ""
            return Diagnosis(f"{who} is CONNECTED since {_since(seen)} on {_where(seen)}{last}.", _picture_advice(seen))
        case "MIGRATING":
            text = f"{who} is MIGRATING for {_long(seen)}: sent away by {_where(seen)}, and expected on another server."
            return Diagnosis(text, ["Wait a moment: who has not arrived after the first attempt counts as lost."])
        case "DISCONNECTED":
            return _gone(seen)
        case "NEVER":
            if _value(seen, "removed") == "1":
                return _removed(seen, f"{who} is removed from the exam, and has never been connected")
            return Diagnosis(
                f"{who} has never been connected.", ["Have they opened the exam page, with their own token?"]
            )
        case _:
            return Diagnosis(f"what {who} is cannot be seen now.")


def _gone(seen: DiagnosisInput) -> Diagnosis:
    who, reason = seen.examinee_id, _value(seen, "reason") or "UNKNOWN"
    lost = _lost(seen)
    if _value(seen, "exhausted") == "1":
        why = f" It was lost by {lost.reason}: {_meaning(lost.reason)[0]}." if lost is not None and lost.reason else ""
        return Diagnosis(
            f"{who} is DISCONNECTED for {_long(seen)} and shut out: all attempts to come back are used up.{why} "
            f"It was on {_where(seen)}.",
            ["It is refused until a proctor readmits it: have one do so, then have them open the exam page again."],
        )
    if _value(seen, "removed") == "1":
        return _removed(seen, f"{who} is removed from the exam for {_long(seen)}")
    if reason == READMITTED:
        by = next((one.by for one in reversed(seen.happened or ()) if one.what is EntryKind.READMITTED), None)
        return Diagnosis(
            f"{who} is DISCONNECTED for {_long(seen)}: shut out, then readmitted{f' by {by}' if by else ''}, and not "
            "back yet.",
            ["Have them open the exam page again: after a refusal it does not come back by itself."],
        )
    meaning, advice = _meaning(reason)
    attempt, most = _value(seen, "reconnectAttempt") or "0", _value(seen, "maxAttempts")
    following = _value(seen, "nextAttemptAt")
    trying = ""
    if attempt != "0":
        trying = f" Attempt {attempt} of {most}"
        trying += f", the next at {local_time(following)}." if following else ", the last one."
    found = Diagnosis(
        f"{who} is DISCONNECTED for {_long(seen)}: {reason} - {meaning}.{trying} It was on {_where(seen)}."
    )
    if seen.others_gone:
        same = f", {seen.others_of_server} of them from the same server" if seen.others_of_server else ""
        found.headline += f" {seen.others_gone} others of the plan are disconnected, too{same}."
    found.advice.append(advice)
    return found


def _removed(seen: DiagnosisInput, text: str) -> Diagnosis:
    last = next((one for one in reversed(seen.happened or ()) if one.what is EntryKind.REMOVED), None)
    by = f", by {last.by}" if last is not None else ""
    why = f": {last.reason}" if last is not None and last.reason else ""
    return Diagnosis(
        f"{text}{by}{why}.",
        ["It is refused until a proctor readmits it: have one do so, then have them open the exam page again."],
    )


def _picture_advice(seen: DiagnosisInput) -> list[str]:
    picture = seen.picture or {}
    match picture.get("status"):
        case "WAITING":
            return [f"Mobile sync waits for a picture from the phone until {local_time(picture.get('deadline'))}."]
        case "FAILED":
            return [f"Mobile sync failed ({picture.get('reason')}): have them send the picture again."]
        case "TIMED_OUT":
            return ["Mobile sync timed out: have them enter the stage again and send the picture."]
        case _:
            return []


def _compare(seen: DiagnosisInput, found: Diagnosis) -> None:
    verify = f"if it stays so: `examwire state verify --plan {seen.plan_id}`"
    if seen.record is not None and seen.by_log is not None:
        known = int(seen.record.get("version") or 0)
        if known < seen.by_log.version:
            found.disagreements.append(
                f"Redis is at version {known}, the log at {seen.by_log.version}: the state managers are behind "
                f"(`examwire queues ls`) or a record is damaged; {verify}"
            )
    if seen.session is None or seen.record is None:
        return
    details = seen.session.get("details") or {}
    if details and seen.status != "CONNECTED":
        found.disagreements.append(
            f"a live session answers ({details.get('socketId')}), but Redis says {seen.status}: it has just come, or "
            f"is about to be closed; {verify}"
        )
    elif not details and seen.status == "CONNECTED":
        found.disagreements.append(
            f"Redis says CONNECTED, but no live session answers: it has just gone, or its server has; {verify}"
        )
    elif details and details.get("socketId") != seen.record.get("socketId"):
        found.disagreements.append(
            f"the live session is {details.get('socketId')}, Redis says {seen.record.get('socketId')}: one is just "
            f"replacing the other; {verify}"
        )


def _value(seen: DiagnosisInput, name: str) -> str | None:
    """A field of the record, or what the log comes to in its place."""
    if seen.record is not None:
        return seen.record.get(name) or None
    state = seen.by_log or ConnectionState()
    return {
        "reason": state.reason,
        "since": state.since,
        "serverId": state.server_id,
        "reconnectAttempt": str(state.attempt),
        "maxAttempts": str(state.max_attempts) if state.max_attempts else None,
        "nextAttemptAt": state.next_attempt_at,
        "exhausted": "1" if state.exhausted else "0",
        "removed": "1" if state.removed else "0",
    }.get(name)


def _lost(seen: DiagnosisInput) -> TimelineEntry | None:
    return next(
        (one for one in reversed(seen.happened or ()) if one.what in (EntryKind.LOST, EntryKind.MIGRATING)), None
    )


def _meaning(reason: str | None) -> tuple[str, str]:
    return MEANINGS.get(reason or "UNKNOWN", ("a reason that this command does not know", "Look at the server's log."))


def _where(seen: DiagnosisInput) -> str:
    server_id = _value(seen, "serverId")
    if server_id is None:
        return "a server that is not known any more"
    if seen.server is None:
        return server_id
    status = seen.server.get("statusCode")
    return f"{server_id}, which is {status}" if status else f"{server_id}, of which nothing is recorded"


def _since(seen: DiagnosisInput) -> str:
    since = _value(seen, "since")
    return f"{local_time(since)} ({_long(seen)})" if since else "a time that is not known"


def _long(seen: DiagnosisInput) -> str:
    since = _value(seen, "since")
    return _ago(seen, since) if since else "an unknown time"


def _ago(seen: DiagnosisInput, moment: str) -> str:
    return duration_text(seen.now - parse_time(moment))
