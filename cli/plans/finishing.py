"""`examwire plans finish`, `resume` and `extend`: the end of the exam for examinees, and more time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any

import typer

from actors.runtime.config.settings import Settings
from actors.runtime.store.state_store import StateStore
from cli.plans.decisions import (
    ActionIdOption,
    ByOption,
    PlanArgument,
    conflict,
    decided_by,
    new_action_id,
    plan_sentence,
    publish,
    read_connections,
    read_plan,
    wait_applied,
    zoned_moment,
)
from cli.plans.plan_text import plan_json
from cli.plans.schedule import decide_plan
from cli.shared.live_actors import connected
from cli.shared.options import takes_settings
from cli.shared.output import Format, NotFound, OutputOption, paragraph, show
from cli.shared.times import duration_text, parse_duration
from protocol.errors import ConfigurationError
from protocol.ids import check_id
from protocol.messages.facts import ActionFact, ExamineeFinish, ExamineeResume, FinishReason
from protocol.messages.plan_facts import ExamExtend
from protocol.records import keys
from protocol.rules.action_ids import already_applied
from protocol.rules.connection_state import ConnectionState
from protocol.rules.plan_state import Phase, PlanState
from protocol.times import format_time

NAMED = 10
MOST_EXTRA_SECONDS = 86400

Examinees = Annotated[
    list[str] | None,
    typer.Argument(metavar="[EXAMINEE_ID]...", help="The examinees.", show_default=False),
]
AllOption = Annotated[bool, typer.Option("--all", help="All examinees to whom this applies.")]


@dataclass(slots=True)
class Selection:
    """The examinees of a command: those that it concerns, and why it does not concern the others."""

    chosen: list[str] = field(default_factory=list)
    skipped: dict[str, list[str]] = field(default_factory=dict)

    def skip(self, why: str, examinee_id: str) -> None:
        self.skipped.setdefault(why, []).append(examinee_id)

    def sentences(self) -> list[str]:
        return [f"{ids_are(ids)} {why}" for why, ids in self.skipped.items()]


@dataclass(frozen=True, slots=True)
class Decision:
    """What a command decides about each examinee.

    `make` returns the fact of one examinee; `check` returns why it does not concern somebody, or `None`. `done`: the
    word for its effect. `when_closed`: also after the plan was closed. `everybody`: `--all` was given. `then`: what
    people do next.
    """

    command: str
    done: str
    make: Callable[[str, dict[str, Any]], ActionFact]
    check: Callable[[PlanState, float, ConnectionState], str | None]
    action_id: str | None
    by: str | None
    output: Format
    everybody: bool = False
    has_all: bool = True
    when_closed: bool = True
    then: str | None = None


@takes_settings("nats_url", "redis_url", "data_dir", running=True)
def finish(
    settings: Settings,
    plan_id: PlanArgument,
    examinees: Examinees = None,
    everybody: AllOption = False,
    by: ByOption = None,
    action_id: ActionIdOption = None,
    output: OutputOption = Format.TABLE,
) -> None:
    """End the exam for some examinees, or for all who came.

    \b
    Examples:
      examwire plans finish P001 E0042 E0043
      examwire plans finish P001 --all

    After that, a closed connection of theirs does not count as a loss. Exit code 2: nobody is left to finish; 3: the
    plan or an examinee is unknown, and nobody is finished.
    """

    def make(examinee_id: str, common: dict[str, Any]) -> ActionFact:
        return ExamineeFinish(examinee_id=examinee_id, reason=FinishReason.DECIDED, **common)

    def check(_plan: PlanState, _now: float, state: ConnectionState) -> str | None:
        if state.finished is not None:
            return "finished already"
        if state.removed:
            return "removed from the exam"
        return "absent: never came" if everybody and state.status is None else None

    decision = Decision("plans finish", "finished", make, check, action_id, by, output, everybody)
    decide_each(settings, decision, plan_id, examinees)


@takes_settings("nats_url", "redis_url", "data_dir", running=True)
def resume(
    settings: Settings,
    plan_id: PlanArgument,
    examinees: Examinees = None,
    everybody: AllOption = False,
    by: ByOption = None,
    action_id: ActionIdOption = None,
    output: OutputOption = Format.TABLE,
) -> None:
    """Let finished examinees of a plan continue the exam.

    \b
    Examples:
      examwire plans resume P001 E0042
      examwire plans resume P001 --all

    Exit code 2: nobody of them has finished, their time is up, or the plan is closed (`plans open` opens it again); 3:
    the plan or an examinee is unknown, and nobody is resumed.
    """

    def make(examinee_id: str, common: dict[str, Any]) -> ActionFact:
        return ExamineeResume(examinee_id=examinee_id, **common)

    def check(plan: PlanState, now: float, state: ConnectionState) -> str | None:
        if state.finished is None:
            return "not finished"
        over = plan.phase_of(state.examinee_id, now) is Phase.OVER
        return "out of time: extend the exam first" if over else None

    decision = Decision("plans resume", "resumed", make, check, action_id, by, output, everybody, when_closed=False)
    decide_each(settings, decision, plan_id, examinees)


@takes_settings("nats_url", "redis_url", "data_dir", running=True)
def extend(
    settings: Settings,
    plan_id: PlanArgument,
    duration: Annotated[
        str, typer.Argument(metavar="DURATION", help="How much more: 15m, 90s, 900.", show_default=False)
    ],
    examinee_id: Annotated[
        str | None,
        typer.Option("--examinee", metavar="EXAMINEE_ID", help="Only for this examinee. [default: everybody]"),
    ] = None,
    by: ByOption = None,
    action_id: ActionIdOption = None,
    output: OutputOption = Format.TABLE,
) -> None:
    """Give everybody, or one examinee, more time.

    \b
    Examples:
      examwire plans extend P001 15m
      examwire plans extend P001 --examinee E0042 30m

    Examinees whom the end has already finished continue. Exit code 2: the plan has no end to move, or is closed; 3: the
    plan or the examinee is unknown.
    """
    check_id("planId", plan_id)
    if examinee_id is not None:
        check_id("examineeId", examinee_id)
    seconds = parse_duration(duration)
    if seconds != int(seconds) or seconds > MOST_EXTRA_SECONDS:
        raise ConfigurationError(f"DURATION: {duration!r} must be whole seconds, at most one day")
    action = new_action_id(action_id)

    async def work() -> PlanState:
        async with connected(settings, "plans extend") as bus:
            store = StateStore(settings.redis_url, settings.redis)
            try:
                plan = await read_plan(store, plan_id)
                if examinee_id is not None:
                    await known_examinees(store, plan_id, [examinee_id])
                fact = ExamExtend(
                    plan_id=plan_id,
                    examinee_id=examinee_id,
                    seconds=int(seconds),
                    **decided_by("plans extend", by),
                    action_id=action,
                    timestamp=format_time(bus.clock.now()),
                )
                if not already_applied(plan.actions, fact):
                    _check_not_closed(plan, plan_id)
                    if (plan.ends_at if examinee_id is None else plan.end_of(examinee_id)) is None:
                        raise conflict(f"plan {plan_id} has no end to move: set one with `examwire plans schedule`")
                return await decide_plan(bus, store, plan, fact)
            finally:
                await store.close()

    plan = asyncio.run(work())
    ends_at = plan.ends_at if examinee_id is None else plan.end_of(examinee_id)
    who = examinee_id or "everybody"
    lines = [f"{duration_text(seconds)} more for {who}, until {zoned_moment(ends_at)}", plan_sentence(plan)]
    value = {
        "planId": plan.plan_id,
        **plan_json(plan),
        "examineeId": examinee_id,
        "seconds": int(seconds),
        "actionId": action,
    }
    show(value, lambda: paragraph(lines), output)


def decide_each(settings: Settings, decision: Decision, plan_id: str, examinees: Sequence[str] | None) -> None:
    """Publish a decision about each examinee whom it concerns, wait for its effect, and say it."""
    check_id("planId", plan_id)
    if bool(examinees) == decision.everybody:
        raise ConfigurationError("give either the examinees, or --all" if decision.has_all else "give the examinees")
    named = list(dict.fromkeys(check_id("examineeId", examinee_id) for examinee_id in examinees or ()))
    action_id, verb = new_action_id(decision.action_id), decision.command.split()[-1]
    by = decided_by(decision.command, decision.by)

    async def work() -> Selection:
        async with connected(settings, decision.command) as bus:
            store = StateStore(settings.redis_url, settings.redis)
            try:
                plan = await read_plan(store, plan_id)
                if not decision.when_closed:
                    _check_not_closed(plan, plan_id)
                ids = await known_examinees(store, plan_id, named)
                common = {"plan_id": plan_id, **by, "action_id": action_id, "timestamp": format_time(bus.clock.now())}
                facts = {examinee_id: decision.make(examinee_id, common) for examinee_id in ids}
                selection = Selection()
                before = await read_connections(store, plan_id, ids)
                to_decide = []
                for examinee_id, state in before.items():
                    if already_applied(state.actions, facts[examinee_id]):
                        selection.chosen.append(examinee_id)  # by an earlier try of this very command
                    elif (why := decision.check(plan, bus.clock.now(), state)) is not None:
                        selection.skip(why, examinee_id)
                    else:
                        selection.chosen.append(examinee_id)
                        to_decide.append(examinee_id)
                if not selection.chosen:
                    reasons = "; ".join(selection.sentences()) or "the plan has no examinees"
                    raise conflict(f"plan {plan_id}: nobody to {verb}: {reasons}")
                await publish(bus, [facts[examinee_id] for examinee_id in to_decide])
                await wait_applied(
                    lambda: read_connections(store, plan_id, to_decide),
                    lambda states: all(state.version > before[name].version for name, state in states.items()),
                    f"the decision about {len(to_decide)} examinees of plan {plan_id}",
                )
                return selection
            finally:
                await store.close()

    selection = asyncio.run(work())
    value = {
        "planId": plan_id,
        decision.done: selection.chosen,
        "skipped": {examinee_id: why for why, ids in selection.skipped.items() for examinee_id in ids},
        "actionId": action_id,
    }
    lines = [f"plan {plan_id}: {ids_are(selection.chosen)} {decision.done}", *selection.sentences()]
    if decision.then is not None:
        lines.append(decision.then)
    show(value, lambda: paragraph(lines), decision.output)


async def known_examinees(store: StateStore, plan_id: str, named: Sequence[str]) -> list[str]:
    """Return the named examinees, or all when none are named. Raises `NotFound` for those whom the plan does not have.

    Nothing is published before that: a mistyped id among 20 has no effect on the others.
    """
    ids = sorted(await store.members(keys.plan_examinees(plan_id)))
    if not named:
        return ids
    if unknown := [examinee_id for examinee_id in named if examinee_id not in set(ids)]:
        raise NotFound(f"{ids_are(unknown)} unknown in plan {plan_id}; nothing has changed")
    return list(named)


def _check_not_closed(plan: PlanState, plan_id: str) -> None:
    if plan.closed:
        since = f"{zoned_moment(plan.closed_at)} by {plan.closed_by}"
        raise conflict(f"plan {plan_id} is closed since {since}; open it again first: `examwire plans open {plan_id}`")


def ids_are(ids: Sequence[str]) -> str:
    """Return some ids and the right verb: `E001 is`, `E001, E002 are`, `300 examinees are`."""
    verb = "is" if len(ids) == 1 else "are"
    return f"{', '.join(ids)} {verb}" if len(ids) <= NAMED else f"{len(ids)} examinees {verb}"
