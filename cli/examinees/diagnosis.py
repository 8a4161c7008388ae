"""Explain an examinee's status to an operator: the cause and what to do, from Redis, the log and the live session."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from cli.shared.times import duration_text, local_time
from protocol.log.timeline_entry import EntryKind, TimelineEntry
from protocol.messages.facts import ConnectionStatusCode, FinishReason, LossReason, MobileSyncCode
from protocol.rules.connection_state import READMITTED, RESUMED, ConnectionState
from protocol.rules.plan_state import Phase, PlanState
from protocol.texts import person
from protocol.times import parse_time

MEANINGS: dict[str, tuple[str, str]] = {
    LossReason.SOCKET_CLOSED: (
        "the connection broke: the network failed, or the browser ended without closing it",
        "The page reconnects by itself. If not: have them reload the exam page, and check their network.",
    ),
    LossReason.CLIENT_CLOSED: (
        "their browser closed the connection: the page was closed, reloaded or left",
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


@dataclass(slots=True)
class DiagnosisInput:
    """The data about one examinee from all sources; `None` means that the source did not answer.

    `record`, `picture`, `server`: hashes from Redis. `session`: the inspection of the live session, empty when there
    is none. `by_log`: the connection state computed from the log. `plan`: the plan, from Redis or else from the log.
    `others_gone`: other disconnected examinees of the plan, `others_of_server`: how many of these were on the same
    server.
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
    plan: PlanState | None = None
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
    def phase(self) -> Phase:
        """Where the examinee is in the exam; a plan that is not known is taken for open."""
        return (self.plan or PlanState()).phase_of(self.examinee_id, self.now)

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
    diagnosis.advice += _marks(data.record or {})
    if data.letters:
        diagnosis.advice.append(
            f"Dead letter{'s' * (len(data.letters) > 1)} {', '.join(map(str, data.letters))} about them: "
            "`examwire dead-letters show NUMBER`."
        )
    return diagnosis


def _marks(record: Mapping[str, str]) -> list[str]:
    """Return what the record says besides the status: away too often, or connected from elsewhere than before."""
    marks = []
    if record.get("unstable") == "1":
        share = float(record.get("awayShare") or 0)
        marks.append(f"Unstable: away for {share:.0%} of the last minutes. Check their network.")
    if flags := record.get("flags"):
        differs = " and another ".join(flags.split(","))
        now = ", ".join(filter(None, (record.get("ipAddress"), record.get("userAgent"))))
        marks.append(f"Connected from another {differs} than before ({now}). Check who sits there.")
    return marks


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
        case ConnectionStatusCode.FINISHED:
            return _finished(data)
        case ConnectionStatusCode.DISCONNECTED:
            return _gone(data)
        case "NEVER":
            if _value(data, "removed") == "1":
                return _removed(data, f"{examinee_id} is removed from the exam, and has never been connected")
            return _never_came(data)
        case _:
            return Diagnosis(f"The status of {examinee_id} cannot be determined now.")


def _finished(data: DiagnosisInput) -> Diagnosis:
    by, at = _value(data, "finishedBy"), _value(data, "finishedAt")
    match _value(data, "finished"):
        case FinishReason.HANDED_IN:
            how = "handed in"
        case FinishReason.PLAN_ENDED:
            how = "is finished, because the exam has ended"
        case _:
            how = f"was finished by {by}"
    when = f" at {local_time(at)}, {_ago(data, at)} ago" if at else ""
    still = "still" if data.session and data.session.get("details") else "no longer"
    text = f"{data.examinee_id} {how}{when}. They are {still} connected, which does not matter any more."
    go_on = f"To let them continue: `examwire plans resume {data.plan_id} {data.examinee_id}`, or Resume on the wall."
    if data.plan is not None and data.plan.closed:
        go_on = f"The plan is closed. To let everybody continue: `examwire plans open {data.plan_id}`."
    return Diagnosis(text, [f"Nothing to do. {go_on}"])


def _never_came(data: DiagnosisInput) -> Diagnosis:
    text, advice = f"{data.examinee_id} has never been connected", "Have them open the exam page with their own token."
    match data.phase:
        case Phase.BEFORE:
            return Diagnosis(f"{text}; {_begins(data)}.", [f"{advice} They wait there until it begins."])
        case Phase.OVER:
            return Diagnosis(f"{text}, and the exam is over for them{_ended(data)}.", [_more_time(data)])
        case Phase.RUNNING:
            return Diagnosis(f"{text}.", [advice])


def _begins(data: DiagnosisInput) -> str:
    start = data.plan.start_of(data.examinee_id) if data.plan is not None else None
    return f"the exam begins for them at {local_time(start)}" if start else "the exam has not begun"


def _ended(data: DiagnosisInput) -> str:
    plan = data.plan or PlanState()
    if plan.closed:
        why = f": {plan.closed_reason}" if plan.closed_reason else ""
        return f": closed by {plan.closed_by} at {local_time(plan.closed_at)}{why}"
    return f" since {local_time(plan.end_of(data.examinee_id))}"


def _more_time(data: DiagnosisInput) -> str:
    if data.plan is not None and data.plan.closed:
        return f"To let them in, open the plan again: `examwire plans open {data.plan_id}`."
    return f"To let them in, give them more time: `examwire plans extend {data.plan_id}`, or More time on the wall."


def _gone(data: DiagnosisInput) -> Diagnosis:
    """Explain a disconnected examinee by the phase of the exam: only while it runs is it something to act on."""
    diagnosis = _loss(data)
    match data.phase:
        case Phase.BEFORE:
            note = f" Before the exam nothing of it counts: {_begins(data)}."
            return Diagnosis(diagnosis.headline + note, diagnosis.advice)
        case Phase.OVER:
            note = f" The exam is over for them{_ended(data)}; until then it counted."
            return Diagnosis(diagnosis.headline + note, [f"Nothing to do. {_more_time(data)}"])
        case Phase.RUNNING:
            return diagnosis


def _loss(data: DiagnosisInput) -> Diagnosis:
    examinee_id, reason = data.examinee_id, _value(data, "reason") or "UNKNOWN"
    loss = _lost(data)
    if _value(data, "exhausted") == "1":
        cause = f" The loss: {loss.reason} - {_meaning(loss.reason)[0]}." if loss is not None and loss.reason else ""
        return Diagnosis(
            f"{examinee_id} is DISCONNECTED for {_long(data)} and shut out: all reconnect attempts are used up."
            f"{cause} The last server was {_where(data)}.",
            [_readmit_advice(data)],
        )
    if _value(data, "removed") == "1":
        return _removed(data, f"{examinee_id} is removed from the exam for {_long(data)}")
    if reason == READMITTED:
        by = _last_by(data, EntryKind.READMITTED)
        return Diagnosis(
            f"{examinee_id} is DISCONNECTED for {_long(data)}: shut out, then readmitted{f' by {by}' if by else ''}, "
            "and not back yet.",
            ["Have them reload the exam page: after a refusal it does not reconnect by itself."],
        )
    if reason == RESUMED:
        by = _last_by(data, EntryKind.RESUMED)
        return Diagnosis(
            f"{examinee_id} is DISCONNECTED for {_long(data)}: finished, then resumed{f' by {by}' if by else ''}, "
            "and not back yet.",
            ["Have them open the exam page again."],
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
    if reason == LossReason.CLIENT_CLOSED:
        compensated = data.plan is not None and data.plan.policy.compensate_client_closed
        diagnosis.advice.append(
            f"By the policy of the plan such an outage is {'' if compensated else 'not '}compensated."
        )
    return diagnosis


def _removed(data: DiagnosisInput, text: str) -> Diagnosis:
    removal = next((entry for entry in reversed(data.happened or ()) if entry.what is EntryKind.REMOVED), None)
    by = f", by {_last_by(data, EntryKind.REMOVED)}" if removal is not None else ""
    reason = f": {removal.reason}" if removal is not None and removal.reason else ""
    return Diagnosis(
        f"{text}{by}{reason}.",
        [_readmit_advice(data)],
    )


def _readmit_advice(data: DiagnosisInput) -> str:
    return (
        f"Readmit them, on the wall or by `examwire examinees readmit {data.plan_id} {data.examinee_id}`; "
        "then have them reload the exam page."
    )


def _last_by(data: DiagnosisInput, what: EntryKind) -> str | None:
    """Return who decided something last, as people read it."""
    entry = next((entry for entry in reversed(data.happened or ()) if entry.what is what), None)
    return person(entry.by, entry.by_name) if entry is not None and entry.by is not None else None


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
    if data.status == ConnectionStatusCode.FINISHED:
        return  # whether they are connected is no matter
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
        "finished": state.finished.value if state.finished else None,
        "finishedAt": state.finished_at,
        "finishedBy": state.finished_by,
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
