"""The report of a simulation: compares the proctors' views with the real state of the examinees."""

from __future__ import annotations

from collections import Counter

from rich.console import Group, RenderableType

from cli.shared.output import paragraph, table
from cli.simulate.examinee import SimulatedExaminee
from cli.simulate.proctor import SimulatedProctor
from protocol.client.plan_view import ExamineeView
from protocol.messages.base import Wire
from protocol.messages.facts import ConnectionStatusCode, FinishReason
from protocol.messages.plan_facts import PlanStatusCode

MAX_NAMED = 50


class ProctorReport(Wire):
    """Results of one proctor. `interrupted`: it reconnected or resynchronised, so only its view is checked."""

    name: str
    server_id: str
    events: dict[str, int]
    doubled: int
    late: int
    connected: int
    interrupted: bool
    missing: list[str]
    wrong: list[str]


class SimulateReport(Wire):
    """The result of a simulation.

    `ok`: all views are equal and right, and no event is missing or doubled. `exam`: it played a whole exam;
    `handed_in` and `ended_by_plan`: how the exam ended for its examinees. `missing`: sockets that opened or ended, and
    examinees or the whole exam that ended, without an event; `doubled`: events that came twice; `late`: events older
    than an earlier one. `wrong`: where a view differs from the real state. `notices`: messages sent to examinees;
    `unconfirmed`: those without a confirmation; `confirmed_twice`: those with several. `messages`: a text for each of
    these. `failures`: actions that failed; `unfinished`: actions that were not performed.
    """

    plan_id: str
    seed: int
    seconds: float
    examinees: int
    connected: int
    opened: int
    ended: int
    uploads: int
    exam: bool
    handed_in: int
    ended_by_plan: int
    notices: int
    unconfirmed: int
    confirmed_twice: int
    events: dict[str, int]
    agree: bool
    missing: int
    doubled: int
    late: int
    proctors: list[ProctorReport]
    messages: list[str]
    failures: list[str]
    unfinished: int
    ok: bool


def wrong_in(proctor: SimulatedProctor, examinees: list[SimulatedExaminee]) -> list[str]:
    """Return the differences between a proctor's view and the real state."""
    differences = []
    for examinee in examinees:
        row = proctor.view.examinees.get(examinee.examinee_id) or ExamineeView(examinee.examinee_id)
        finished = examinee.truth.finished
        if finished is not None:
            if (row.status, row.reason) != (ConnectionStatusCode.FINISHED, finished):
                differences.append(
                    f"{examinee.examinee_id} is FINISHED, {finished}, seen as {row.status}, {row.reason}"
                )
        elif row.connected != examinee.client.connected:
            truth = "connected" if examinee.client.connected else "not connected"
            differences.append(f"{examinee.examinee_id} is {truth}, seen as {row.status}")
        elif row.connected and row.socket_id != examinee.truth.current:
            differences.append(f"{examinee.examinee_id} is on socket {examinee.truth.current}, seen on {row.socket_id}")
        if examinee.client.connected and row.mobile_sync != examinee.client.mobile_sync.status:
            differences.append(
                f"{examinee.examinee_id} mobile sync {examinee.client.mobile_sync.status}, seen as {row.mobile_sync}"
            )
    return differences


def missing_in(proctor: SimulatedProctor, examinees: list[SimulatedExaminee], *, exam: bool = False) -> list[str]:
    """Return what happened without an event, unless the proctor was interrupted; of an `exam` also its end."""
    if exam and (proctor.view.plan is None or proctor.view.plan.status is not PlanStatusCode.CLOSED):
        return ["the end of the exam"]
    if proctor.interrupted:
        return []
    missing = []
    for examinee in examinees:
        missing += [
            f"{examinee.examinee_id} connected on {socket}" for socket in examinee.truth.opened - proctor.opened
        ]
        missing += [f"{examinee.examinee_id} lost on {socket}" for socket in examinee.ended() - proctor.ended]
        missing += [
            f"{examinee.examinee_id} confirmed {action}" for action in examinee.confirmed - proctor.confirmed.keys()
        ]
        if examinee.truth.finished is not None and examinee.examinee_id not in proctor.finished:
            missing.append(f"{examinee.examinee_id} finished")
    return sorted(missing)


def _views_agree(proctors: list[SimulatedProctor], examinees: list[SimulatedExaminee]) -> bool:
    ids = [examinee.examinee_id for examinee in examinees]
    views = {
        tuple(
            (row.status, row.socket_id, row.exhausted, row.mobile_sync, row.mobile_sync_version)
            for row in (proctor.view.examinees.get(examinee) or ExamineeView(examinee) for examinee in ids)
        )
        for proctor in proctors
    }
    return len(views) == 1


def report_of(
    plan_id: str,
    seed: int,
    seconds: float,
    examinees: list[SimulatedExaminee],
    proctors: list[SimulatedProctor],
    *,
    exam: bool = False,
) -> SimulateReport:
    """Compare each proctor's view with the real state, and return the report."""
    reports = [
        ProctorReport(
            name=proctor.name,
            server_id=proctor.welcome.server_id,
            events=dict(sorted(proctor.view.events.items())),
            doubled=proctor.view.doubled,
            late=proctor.view.late,
            connected=sum(_is_connected(proctor, item.examinee_id) for item in examinees),
            interrupted=proctor.interrupted,
            missing=missing_in(proctor, examinees, exam=exam)[:MAX_NAMED],
            wrong=wrong_in(proctor, examinees)[:MAX_NAMED],
        )
        for proctor in proctors
    ]
    missing = sum(len(missing_in(proctor, examinees, exam=exam)) for proctor in proctors)
    doubled, late = sum(item.doubled for item in reports), sum(item.late for item in reports)
    agree = _views_agree(proctors, examinees) and not any(item.wrong for item in reports)
    events: Counter[str] = Counter()
    for item in reports:
        events |= Counter(item.events)
    sent = set[str]().union(*(proctor.notices for proctor in proctors))
    unconfirmed = sent - set[str]().union(*(item.confirmed | item.unread for item in examinees))
    twice = {action for action in sent if any(proctor.confirmed[action] > 1 for proctor in proctors)}
    messages = [f"message {item} to {_addressee(item, proctors)} was not confirmed" for item in sorted(unconfirmed)]
    messages += [f"message {item} was confirmed, and that was told more than once" for item in sorted(twice)]
    failures = [failure for item in examinees for failure in item.failures]
    failures += [error for proctor in proctors for error in proctor.errors]
    return SimulateReport(
        plan_id=plan_id,
        seed=seed,
        seconds=round(seconds, 1),
        examinees=len(examinees),
        connected=sum(item.client.connected for item in examinees),
        opened=sum(len(item.truth.opened) for item in examinees),
        ended=sum(len(item.ended()) for item in examinees),
        uploads=sum(item.uploads for item in examinees),
        exam=exam,
        handed_in=sum(item.truth.finished is FinishReason.HANDED_IN for item in examinees),
        ended_by_plan=sum(item.truth.finished is FinishReason.PLAN_ENDED for item in examinees),
        notices=len(sent),
        unconfirmed=len(unconfirmed),
        confirmed_twice=len(twice),
        events=dict(sorted(events.items())),
        agree=agree,
        missing=missing,
        doubled=doubled,
        late=late,
        proctors=reports,
        messages=messages[:MAX_NAMED],
        failures=failures,
        unfinished=sum(max(0, len(item.story) - item.performed) for item in examinees),
        ok=agree and not missing and not doubled and not late and not twice and not unconfirmed,
    )


def _addressee(action_id: str, proctors: list[SimulatedProctor]) -> str:
    rows = (row for proctor in proctors for row in proctor.view.examinees.values())
    return next((row.examinee_id for row in rows if action_id in row.unconfirmed), "nobody that a proctor sees")


def _is_connected(proctor: SimulatedProctor, examinee_id: str) -> bool:
    row = proctor.view.examinees.get(examinee_id)
    return row is not None and row.connected


def _end_text(report: SimulateReport) -> str:
    if not report.exam:
        return f"{report.connected} connected at the end"
    return f"{report.handed_in} handed in, {report.ended_by_plan} stayed to the end"


def draw_report(report: SimulateReport) -> RenderableType:
    """Return the report as a table and text."""
    kinds = sorted({kind for proctor in report.proctors for kind in proctor.events})
    rows: list[list[object]] = [[kind, *(proctor.events.get(kind, 0) for proctor in report.proctors)] for kind in kinds]
    rows.append(["sees connected", *(proctor.connected for proctor in report.proctors)])
    rows.append(["missing", *(len(proctor.missing) for proctor in report.proctors)])
    rows.append(["doubled", *(proctor.doubled for proctor in report.proctors)])
    rows.append(["late", *(proctor.late for proctor in report.proctors)])
    heads = [f"{proctor.name} on {proctor.server_id}" for proctor in report.proctors]
    verdict = (
        "OK: all proctors see the real state; no event is missing or doubled" if report.ok else "FAILED: see below"
    )
    closed = f"plan {report.plan_id} is closed; `examwire plans open {report.plan_id}` opens it again"
    lines = [
        f"{report.examinees} examinees in {report.seconds:g} s (seed {report.seed}): {report.opened} connections, "
        f"{report.ended} losses, {report.uploads} pictures, {report.notices} messages "
        f"({report.unconfirmed} not confirmed); {_end_text(report)}",
        *([f"{report.unfinished} actions were not performed"] if report.unfinished else []),
        verdict,
        *(f"  {proctor.name}: {line}" for proctor in report.proctors for line in [*proctor.wrong, *proctor.missing]),
        *([] if report.agree else ["  the proctors' views differ from each other or from the real state"]),
        *(f"  {message}" for message in report.messages),
        *(f"  failed: {failure}" for failure in report.failures),
        *([closed] if report.exam else []),
    ]
    return Group(table(["event", *heads], rows, title=f"plan {report.plan_id}"), paragraph(lines))
