"""`examwire examinees notify`: a message to examinees, as a proctor sends it from the wall."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Annotated

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
    publish,
    read_connections,
    read_plan,
    read_states,
    wait_applied,
)
from cli.plans.finishing import Examinees, ids_are, known_examinees
from cli.shared.live_actors import connected
from cli.shared.options import takes_settings
from cli.shared.output import Format, OutputOption, paragraph, show
from protocol.errors import ConfigurationError, InvalidField
from protocol.ids import check_id
from protocol.messages.facts import Notice
from protocol.messages.plan_facts import MAX_LISTED, PlanNotice
from protocol.records import keys
from protocol.records.kinds import NOTICES, PLAN_NOTICES
from protocol.rules.action_ids import already_applied
from protocol.texts import required_lines
from protocol.times import format_time

MAX_TEXT = 1000


@takes_settings("nats_url", "redis_url", "data_dir", running=True)
def notify(
    settings: Settings,
    plan_id: PlanArgument,
    text: Annotated[str, typer.Option("--text", metavar="TEXT", help="The message.", show_default=False)],
    examinees: Examinees = None,
    everybody: Annotated[bool, typer.Option("--all", help="To everybody in the plan.")] = False,
    by: ByOption = None,
    action_id: ActionIdOption = None,
    output: OutputOption = Format.TABLE,
) -> None:
    """Show a message to examinees, until they confirm it.

    \b
    Examples:
      examwire examinees notify P001 E0042 --text "Please call the proctor."
      examwire examinees notify P001 --all --text "Ten minutes are left."

    Whoever is away reads it after connecting again. Exit code 2: there is nobody to tell; 3: the plan or an examinee is
    unknown, and nothing is sent.
    """
    check_id("planId", plan_id)
    if bool(examinees) == everybody:
        raise ConfigurationError("give either the examinees, or --all")
    named = list(dict.fromkeys(check_id("examineeId", examinee_id) for examinee_id in examinees or ()))
    if len(named) > MAX_LISTED:
        raise ConfigurationError(f"{len(named)} examinees; at most {MAX_LISTED} at once, or --all")
    message = _checked(text)
    action, who = new_action_id(action_id), decided_by("examinees notify", by)

    async def work() -> tuple[list[str], int]:
        async with connected(settings, "examinees notify") as bus:
            store = StateStore(settings.redis_url, settings.redis)
            try:
                await read_plan(store, plan_id)
                ids = await known_examinees(store, plan_id, named)
                if not ids:
                    raise conflict(f"plan {plan_id}: nobody to notify: the plan has no examinees")
                common = {"plan_id": plan_id, **who, "action_id": action, "timestamp": format_time(bus.clock.now())}
                fact: Notice | PlanNotice
                if len(named) == 1:
                    fact = Notice(examinee_id=named[0], text=message, **common)
                else:
                    fact = PlanNotice(examinees=named or None, text=message, **common)
                if not already_applied(await _sent(store, fact), fact):
                    await publish(bus, [fact])
                await wait_applied(
                    lambda: _sent(store, fact),
                    lambda actions: already_applied(actions, fact),
                    f"the message to {len(ids)} examinees of plan {plan_id}",
                )
                states = await read_connections(store, plan_id, ids)
                return ids, sum(state.live for state in states.values())
            finally:
                await store.close()

    ids, live = asyncio.run(work())
    value = {"planId": plan_id, "notified": ids, "connected": live, "text": message, "actionId": action}
    show(value, lambda: paragraph(_sentences(plan_id, ids, live)), output)


async def _sent(store: StateStore, fact: Notice | PlanNotice) -> tuple[str, ...]:
    """Return the actions of the record of the messages that a message goes into."""
    if isinstance(fact, Notice):
        (notices,) = await read_states(store, NOTICES, [keys.notices(fact.plan_id, fact.examinee_id)])
        return notices.actions
    (plan_notices,) = await read_states(store, PLAN_NOTICES, [keys.plan_notices(fact.plan_id)])
    return plan_notices.actions


def _checked(text: str) -> str:
    try:
        message = required_lines(text).strip()
    except ValueError as error:
        raise InvalidField("--text", str(error)) from None
    if len(message) > MAX_TEXT:
        raise InvalidField("--text", f"has {len(message)} characters; at most {MAX_TEXT}")
    return message


def _sentences(plan_id: str, ids: Sequence[str], live: int) -> list[str]:
    lines = [f"plan {plan_id}: {ids_are(ids)} notified"]
    if away := len(ids) - live:
        lines.append(f"{away} of them not connected now: they read it after connecting")
    return lines
