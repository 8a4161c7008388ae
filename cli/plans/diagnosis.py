"""Explain an examinee's status to an operator: the cause and what to do, from Redis, the log and the live session."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from cli.shared.times import duration_text, local_time
from protocol.log.timeline_entry import EntryKind, TimelineEntry
from protocol.messages.facts import ConnectionStatusCode, LossReason, MobileSyncCode
from protocol.rules.connection_state import READMITTED, ConnectionState
from protocol.times import parse_time

MEANINGS: dict[str, tuple[str, str]] = {
    LossReason.SOCKET_CLOSED: (
        "the connection broke: the network failed, or the browser ended without closing it",
        "The page reconnects by itself. If not: have them reload the exam page, and check their network.",
    ),
    LossReason.CLIENT_CLOSED: (
        "the browser closed the connection itself: the page was closed, reloaded or left",
        "Have them open the exam page again.",
    ),
    LossReason.PING_TIMEOUT: (
        "the browser stopped answering, but its connection was not closed",
        "Check their network and computer (Wi-Fi, cable, sleep mode). The page reconnects by itself.",
    ),
    LossReason.SLOW_CLIENT: (
        "the browser read too slowly, so the server closed the connection",
        "Their network is too slow or their computer is busy: close other programs.",
    ),
    LossReason.PROTOCOL_ERROR: (
        "the client sent an invalid message, or its session failed",
        "Have them reload the exam page. If it happens again: see the log of the socket server.",
    ),
    LossReason.SERVER_ISOLATED: (
        "the socket server lost NATS and moved its clients to other servers",
        "Check that server's network and NATS: `examwire actors ls`, `examwire doctor`.",
    ),
    LossReason.SERVER_DRAINING: (
        "the socket server was drained, and the client did not reach another server in time",
        "Have them reload the exam page. Check that another server is READY: `examwire actors ls`.",
    ),
    LossReason.SERVER_STOPPED: (
        "the socket server was stopped without a drain",
        "The page reconnects by itself if another server is READY: `examwire actors ls`.",
    ),
    LossReason.SERVER_RESTARTED: (
        "the socket server ended and was started again",
        "The page reconnects by itself. See that server's log for the reason.",
    ),
    LossReason.SERVER_LOST: (
        "the socket server sent no heartbeat and counts as lost",
        "Check that server and its machine: `examwire actors ls`. The page reconnects to another server.",
    ),
    LossReason.KICKED: ("an operator ended the connection", "The page reconnects by itself after its first backoff."),
    "UNKNOWN": ("the reason has expired from the log", "Have them reload the exam page."),
}


READMIT_ADVICE = "A proctor must readmit them; then have them reload the exam page."


@dataclass(slots=True)
class DiagnosisInput:
    """The data about one examinee from all sources; `None` means that the source did not answer.

    `record`, `picture`, `server`: hashes from Redis. `session`: the inspection of the live session, empty when there
    is none. `by_log`: the connection state computed from the log. `others_gone`: other disconnected examinees of the
    plan, `others_of_server`: how many of these were on the same server.
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
        """The status from Redis, or from the log when Redis is unavailable."""
        if self.record is not None:
            return self.record.get("connStatusCode") or "NEVER"
        return self.by_log.view().status if self.by_log is not None else "UNKNOWN"

    @property
    def never_seen(self) -> bool:
        """Whether no source that answered knows the examinee."""
        return not self.record and not self.picture and not self.happened and not self.session and not self.letters


@dataclass(slots=True)
class Diagnosis:
    """A headline of one or two sentences, advice, and the points on which the sources disagree."""

    headline: str
    advice: list[str] = field(default_factory=list)
    disagreements: list[str] = field(default_factory=list)


def diagnose(data: DiagnosisInput) -> Diagnosis:
    """Explain an examinee's status.

    Example::

        diagnosis = diagnose(DiagnosisInput("P001", "E0042", time.time(), record=record))
        print(diagnosis.headline, *diagnosis.advice)
    """
    diagnosis = _by_status(data)
    _compare(data, diagnosis)
    if data.letters:
        diagnosis.advice.append(
            f"Dead letter{'s' * (len(data.letters) > 1)} {', '.join(map(str, data.letters))} about them: "
            "`examwire dead-letters show NUMBER`."
        )
    return diagnosis


def _by_status(data: DiagnosisInput) -> Diagnosis:
    examinee_id = data.examinee_id
    match data.status:
        case ConnectionStatusCode.CONNECTED:
            last_active = _value(data, "lastActiveTime")
            heard = f", last heard from {_ago(data, last_active)} ago" if last_active else ""
            return Diagnosis(
                f"{examinee_id} is CONNECTED since {_since(data)} on {_where(data)}{heard}.", _picture_advice(data)
            )
        case ConnectionStatusCode.MIGRATING:
            text = (
                f"{examinee_id} is MIGRATING for {_long(data)}: {_where(data)} is drained, and the client is expected "
                "on another server."
            )
            return Diagnosis(text, ["Wait: a client that does not arrive within the first attempt counts as lost."])
        case ConnectionStatusCode.DISCONNECTED:
            return _gone(data)
        case "NEVER":
            if _value(data, "removed") == "1":
                return _removed(data, f"{examinee_id} is removed from the exam, and has never been connected")
            return Diagnosis(
                f"{examinee_id} has never been connected.", ["Have them open the exam page with their own token."]
            )
        case _:
            return Diagnosis(f"The status of {examinee_id} cannot be determined now.")


def _gone(data: DiagnosisInput) -> Diagnosis:
    examinee_id, reason = data.examinee_id, _value(data, "reason") or "UNKNOWN"
    loss = _lost(data)
    if _value(data, "exhausted") == "1":
        cause = f" The loss: {loss.reason} - {_meaning(loss.reason)[0]}." if loss is not None and loss.reason else ""
        return Diagnosis(
            f"{examinee_id} is DISCONNECTED for {_long(data)} and shut out: all reconnect attempts are used up."
            f"{cause} The last server was {_where(data)}.",
            [READMIT_ADVICE],
        )
    if _value(data, "removed") == "1":
        return _removed(data, f"{examinee_id} is removed from the exam for {_long(data)}")
    if reason == READMITTED:
        by = next((entry.by for entry in reversed(data.happened or ()) if entry.what is EntryKind.READMITTED), None)
        return Diagnosis(
            f"{examinee_id} is DISCONNECTED for {_long(data)}: shut out, then readmitted{f' by {by}' if by else ''}, "
            "and not back yet.",
            ["Have them reload the exam page: after a refusal it does not reconnect by itself."],
        )
    explanation, advice = _meaning(reason)
    attempt, maximum = _value(data, "reconnectAttempt") or "0", _value(data, "maxAttempts")
    next_at = _value(data, "nextAttemptAt")
    attempts = ""
    if attempt != "0":
        attempts = f" Attempt {attempt} of {maximum}"
        attempts += f", the next at {local_time(next_at)}." if next_at else ", the last one."
    diagnosis = Diagnosis(
        f"{examinee_id} is DISCONNECTED for {_long(data)}: {reason} - {explanation}.{attempts} The last server was "
        f"{_where(data)}."
    )
    if data.others_gone:
        same_server = f", {data.others_of_server} of them from the same server" if data.others_of_server else ""
        diagnosis.headline += f" {data.others_gone} others of the plan are disconnected, too{same_server}."
    diagnosis.advice.append(advice)
    return diagnosis


def _removed(data: DiagnosisInput, text: str) -> Diagnosis:
    removal = next((entry for entry in reversed(data.happened or ()) if entry.what is EntryKind.REMOVED), None)
    by = f", by {removal.by}" if removal is not None else ""
    reason = f": {removal.reason}" if removal is not None and removal.reason else ""
    return Diagnosis(
        f"{text}{by}{reason}.",
        [READMIT_ADVICE],
    )


def _picture_advice(data: DiagnosisInput) -> list[str]:
    picture = data.picture or {}
    match picture.get("status"):
        case MobileSyncCode.WAITING:
            return [f"Mobile sync waits for a picture from the phone until {local_time(picture.get('deadline'))}."]
        case MobileSyncCode.FAILED:
            return [f"Mobile sync failed ({picture.get('reason')}): have them send the picture again."]
        case MobileSyncCode.TIMED_OUT:
            return ["Mobile sync timed out: have them enter the stage again and send the picture."]
        case _:
            return []


def _compare(data: DiagnosisInput, diagnosis: Diagnosis) -> None:
    verify = f"if it stays so: `examwire state verify --plan {data.plan_id}`"
    if data.record is not None and data.by_log is not None:
        redis_version = int(data.record.get("version") or 0)
        if redis_version < data.by_log.version:
            diagnosis.disagreements.append(
                f"Redis is at version {redis_version}, the log at {data.by_log.version}: the state managers are behind "
                f"(`examwire queues ls`) or a record is damaged; {verify}"
            )
    if data.session is None or data.record is None:
        return
    details = data.session.get("details") or {}
    if details and data.status != ConnectionStatusCode.CONNECTED:
        diagnosis.disagreements.append(
            f"a live session answers ({details.get('socketId')}), but Redis says {data.status}: it has just come, or "
            f"is about to be closed; {verify}"
        )
    elif not details and data.status == ConnectionStatusCode.CONNECTED:
        diagnosis.disagreements.append(
            f"Redis says CONNECTED, but no live session answers: it has just gone, or its server has; {verify}"
        )
    elif details and details.get("socketId") != data.record.get("socketId"):
        diagnosis.disagreements.append(
            f"the live session is {details.get('socketId')}, Redis says {data.record.get('socketId')}: one is just "
            f"replacing the other; {verify}"
        )


def _value(data: DiagnosisInput, name: str) -> str | None:
    """Return a field of the record, or its value computed from the log when Redis is unavailable."""
    if data.record is not None:
        return data.record.get(name) or None
    state = data.by_log or ConnectionState()
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


def _lost(data: DiagnosisInput) -> TimelineEntry | None:
    return next(
        (entry for entry in reversed(data.happened or ()) if entry.what in (EntryKind.LOST, EntryKind.MIGRATING)), None
    )


def _meaning(reason: str | None) -> tuple[str, str]:
    return MEANINGS.get(reason or "UNKNOWN", ("a reason unknown to this command", "See the server's log."))


def _where(data: DiagnosisInput) -> str:
    server_id = _value(data, "serverId")
    if server_id is None:
        return "an unknown server"
    if data.server is None:
        return server_id
    status = data.server.get("statusCode")
    return f"{server_id}, which is {status}" if status else f"{server_id}, which has no record"


def _since(data: DiagnosisInput) -> str:
    since = _value(data, "since")
    return f"{local_time(since)} ({_long(data)})" if since else "a time that is not known"


def _long(data: DiagnosisInput) -> str:
    since = _value(data, "since")
    return _ago(data, since) if since else "an unknown time"


def _ago(data: DiagnosisInput, moment: str) -> str:
    return duration_text(data.now - parse_time(moment))
