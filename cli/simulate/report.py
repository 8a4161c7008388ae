"""What a simulation found out: whether what proctors see is what is true."""

from __future__ import annotations

from collections import Counter

from rich.console import Group, RenderableType

from cli.shared.output import paragraph, table
from cli.simulate.examinee import SimulatedExaminee
from cli.simulate.proctor import SimulatedProctor
from protocol.client.plan_view import ExamineeView
from protocol.messages.base import Wire

MAX_NAMED = 50


class ProctorReport(Wire):
    """What one proctor saw. `interrupted`: it was away or resynchronised, so only its view is judged."""

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
    """The outcome.

    `ok`: all proctors agree with each other and with the truth, nothing is missing or doubled. `missing`: sockets that
    opened or ended without a proctor being told; `doubled`: events that came twice; `late`: older than one that came
    before. `wrong`: where a view differs from the truth. `notices`: messages sent to examinees; `unconfirmed`: those
    that did not come in time, `confirmed_twice`: told so more than once. `failures`: what examinees could not do;
    `unfinished`: acts that were still to come. `messages`: those that were not confirmed, or more than once, by name.
    """

    plan_id: str
    seed: int
    seconds: float
    examinees: int
    connected: int
    opened: int
    ended: int
    uploads: int
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
    """Where a proctor's view differs from the truth."""
    wrong = []
    for one in examinees:
        seen = proctor.view.examinees.get(one.examinee_id) or ExamineeView(one.examinee_id)
        if seen.connected != one.client.connected:
            truth = "connected" if one.client.connected else "not connected"
            wrong.append(f"{one.examinee_id} is {truth}, seen as {seen.status}")
        elif seen.connected and seen.socket_id != one.truth.current:
            wrong.append(f"{one.examinee_id} is on socket {one.truth.current}, seen on {seen.socket_id}")
        if one.client.connected and seen.mobile_sync != one.client.mobile_sync.status:
            wrong.append(f"{one.examinee_id} mobile sync {one.client.mobile_sync.status}, seen as {seen.mobile_sync}")
    return wrong


def missing_in(proctor: SimulatedProctor, examinees: list[SimulatedExaminee]) -> list[str]:
    """Sockets whose beginning or end, and confirmations, that a proctor who was always there was not told of."""
    if proctor.interrupted:
        return []
    missing = []
    for one in examinees:
        missing += [f"{one.examinee_id} connected on {socket}" for socket in one.truth.opened - proctor.opened]
        missing += [f"{one.examinee_id} lost on {socket}" for socket in one.ended() - proctor.ended]
        missing += [f"{one.examinee_id} confirmed {action}" for action in one.confirmed - proctor.confirmed.keys()]
    return sorted(missing)


def _views_agree(proctors: list[SimulatedProctor], examinees: list[SimulatedExaminee]) -> bool:
    ids = [one.examinee_id for one in examinees]
    seen = {
        tuple(
            (known.status, known.socket_id, known.exhausted, known.mobile_sync, known.mobile_sync_version)
            for known in (proctor.view.examinees.get(one) or ExamineeView(one) for one in ids)
        )
        for proctor in proctors
    }
    return len(seen) == 1


def report_of(
    plan_id: str,
    seed: int,
    seconds: float,
    examinees: list[SimulatedExaminee],
    proctors: list[SimulatedProctor],
) -> SimulateReport:
    """Compare what each proctor sees with what is true now."""
    told = [
        ProctorReport(
            name=proctor.name,
            server_id=proctor.welcome.server_id,
            events=dict(sorted(proctor.view.events.items())),
            doubled=proctor.view.doubled,
            late=proctor.view.late,
            connected=sum(_is_connected(proctor, one.examinee_id) for one in examinees),
            interrupted=proctor.interrupted,
            missing=missing_in(proctor, examinees)[:MAX_NAMED],
            wrong=wrong_in(proctor, examinees)[:MAX_NAMED],
        )
        for proctor in proctors
    ]
    missing = sum(len(missing_in(proctor, examinees)) for proctor in proctors)
    doubled, late = sum(one.doubled for one in told), sum(one.late for one in told)
    agree = _views_agree(proctors, examinees) and not any(one.wrong for one in told)
    events: Counter[str] = Counter()
    for one in told:
        events |= Counter(one.events)
    sent = set[str]().union(*(proctor.notices for proctor in proctors))
    unconfirmed = sent - set[str]().union(*(one.confirmed | one.unread for one in examinees))
    twice = {action for action in sent if any(proctor.confirmed[action] > 1 for proctor in proctors)}
    messages = [f"message {one} to {_addressee(one, proctors)} was not confirmed" for one in sorted(unconfirmed)]
    messages += [f"message {one} was confirmed, and that was told more than once" for one in sorted(twice)]
    failures = [failure for one in examinees for failure in one.failures]
    failures += [error for proctor in proctors for error in proctor.errors]
    return SimulateReport(
        plan_id=plan_id,
        seed=seed,
        seconds=round(seconds, 1),
        examinees=len(examinees),
        connected=sum(one.client.connected for one in examinees),
        opened=sum(len(one.truth.opened) for one in examinees),
        ended=sum(len(one.ended()) for one in examinees),
        uploads=sum(one.uploads for one in examinees),
        notices=len(sent),
        unconfirmed=len(unconfirmed),
        confirmed_twice=len(twice),
        events=dict(sorted(events.items())),
        agree=agree,
        missing=missing,
        doubled=doubled,
        late=late,
        proctors=told,
        messages=messages[:MAX_NAMED],
        failures=failures,
        unfinished=sum(max(0, len(one.story) - one.told) for one in examinees),
        ok=agree and not missing and not doubled and not late and not twice and not unconfirmed,
    )


def _addressee(action_id: str, proctors: list[SimulatedProctor]) -> str:
    seen = (one for proctor in proctors for one in proctor.view.examinees.values())
    return next((one.examinee_id for one in seen if action_id in one.unconfirmed), "nobody that a proctor sees")


def _is_connected(proctor: SimulatedProctor, examinee_id: str) -> bool:
    seen = proctor.view.examinees.get(examinee_id)
    return seen is not None and seen.connected


def draw_report(report: SimulateReport) -> RenderableType:
    """The report for people."""
    kinds = sorted({kind for proctor in report.proctors for kind in proctor.events})
    rows: list[list[object]] = [[kind, *(proctor.events.get(kind, 0) for proctor in report.proctors)] for kind in kinds]
    rows.append(["sees connected", *(proctor.connected for proctor in report.proctors)])
    rows.append(["missing", *(len(proctor.missing) for proctor in report.proctors)])
    rows.append(["doubled", *(proctor.doubled for proctor in report.proctors)])
    rows.append(["late", *(proctor.late for proctor in report.proctors)])
    heads = [f"{proctor.name} on {proctor.server_id}" for proctor in report.proctors]
    verdict = (
        "all proctors agree with each other and with the truth; nothing missing, nothing doubled"
        if report.ok
        else "NOT in order: see below"
    )
    lines = [
        f"{report.examinees} examinees in {report.seconds:g} s (seed {report.seed}): {report.opened} connections, "
        f"{report.ended} losses, {report.uploads} pictures, {report.notices} messages "
        f"({report.unconfirmed} not confirmed); {report.connected} connected at the end",
        *([f"{report.unfinished} acts were still to come"] if report.unfinished else []),
        verdict,
        *(f"  {proctor.name}: {line}" for proctor in report.proctors for line in [*proctor.wrong, *proctor.missing]),
        *([] if report.agree else ["  what the proctors see is not the same, or not what is true"]),
        *(f"  {message}" for message in report.messages),
        *(f"  could not: {failure}" for failure in report.failures),
    ]
    return Group(table(["event", *heads], rows, title=f"plan {report.plan_id}"), paragraph(lines))
