"""`examwire examinees readmit` and `remove`: who may connect to the exam, decided by an operator."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from actors.runtime.config.settings import Settings
from cli.plans.decisions import ActionIdOption, ByOption, PlanArgument
from cli.plans.finishing import Decision, Examinees, decide_each
from cli.shared.options import takes_settings
from cli.shared.output import Format, OutputOption
from protocol.errors import InvalidField
from protocol.messages.facts import ActionFact, Readmit, Remove
from protocol.rules.connection_state import ConnectionState
from protocol.rules.plan_state import PlanState
from protocol.texts import clean_line, is_readable

MAX_REASON = 256

AllShutOut = Annotated[bool, typer.Option("--all", help="All who have used up their attempts, but not those removed.")]


@takes_settings("nats_url", "redis_url", "data_dir", running=True)
def readmit(
    settings: Settings,
    plan_id: PlanArgument,
    examinees: Examinees = None,
    everybody: AllShutOut = False,
    by: ByOption = None,
    action_id: ActionIdOption = None,
    output: OutputOption = Format.TABLE,
) -> None:
    """Let examinees connect again who are shut out or removed.

    \b
    Examples:
      examwire examinees readmit P001 E0042 --by "Kim Ha-neul"
      examwire examinees readmit P001 --all

    Exit code 2: nobody of them is shut out or removed; 3: the plan or an examinee is unknown, and nobody is readmitted.
    """

    def make(examinee_id: str, common: dict[str, Any]) -> ActionFact:
        return Readmit(examinee_id=examinee_id, **common)

    def check(_plan: PlanState, _now: float, state: ConnectionState) -> str | None:
        if state.removed:
            return "removed from the exam: give the id to readmit" if everybody else None
        return None if state.exhausted else "not shut out"

    then = "To come back, they reload the exam page."
    decision = Decision("examinees readmit", "readmitted", make, check, action_id, by, output, everybody, then=then)
    decide_each(settings, decision, plan_id, examinees)


@takes_settings("nats_url", "redis_url", "data_dir", running=True)
def remove(
    settings: Settings,
    plan_id: PlanArgument,
    examinees: Examinees = None,
    reason: Annotated[
        str | None, typer.Option("--reason", metavar="TEXT", help="Why, for the proctors.", show_default=False)
    ] = None,
    by: ByOption = None,
    action_id: ActionIdOption = None,
    output: OutputOption = Format.TABLE,
) -> None:
    """Remove examinees from the exam, and close their connections.

    Example: examwire examinees remove P001 E0042 --reason "wrong person"

    New connections of theirs are refused. `examwire examinees readmit` undoes it. Exit code 2: all of them are removed
    already; 3: the plan or an examinee is unknown, and nobody is removed.
    """
    why = clean_line(reason).strip() if reason is not None else None
    if why is not None and not (is_readable(why) and len(why) <= MAX_REASON):
        raise InvalidField("--reason", f"must be 1 to {MAX_REASON} characters that can be seen")

    def make(examinee_id: str, common: dict[str, Any]) -> ActionFact:
        return Remove(examinee_id=examinee_id, reason=why, **common)

    def check(_plan: PlanState, _now: float, state: ConnectionState) -> str | None:
        return "removed already" if state.removed else None

    decision = Decision("examinees remove", "removed", make, check, action_id, by, output, has_all=False)
    decide_each(settings, decision, plan_id, examinees)
