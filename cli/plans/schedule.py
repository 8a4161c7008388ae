"""`examwire plans schedule`, `open` and `close`: the beginning, the end and the policy of a plan."""

from __future__ import annotations

import asyncio
import json
import time
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import pydantic
import typer

from actors.runtime.broker.connection import Bus
from actors.runtime.config.settings import Settings
from actors.runtime.store.state_store import StateStore
from cli.plans.decisions import (
    ActionIdOption,
    PlanArgument,
    conflict,
    new_action_id,
    operator_name,
    plan_sentence,
    plan_state,
    publish,
    read_plan,
    wait_applied,
    zoned_moment,
)
from cli.plans.plan_text import plan_json
from cli.shared.live_actors import connected
from cli.shared.options import takes_settings
from cli.shared.output import Format, OutputOption, paragraph, show
from cli.shared.times import parse_time_option
from protocol.errors import ConfigurationError
from protocol.ids import check_id
from protocol.messages.plan_facts import PlanClose, PlanFact, PlanOpen, PlanPolicy, PlanSchedule
from protocol.rules import plan as plan_rules
from protocol.rules.action_ids import already_applied
from protocol.rules.plan_state import PlanState
from protocol.texts import clean_line, is_readable
from protocol.times import YEAR_3000, format_time, parse_time

_ZONE = "Local time of this machine, such as 2026-12-01 09:00, or RFC 3339."

NameOption = Annotated[str | None, typer.Option("--name", metavar="NAME", help="What people call the exam.")]
StartsAtOption = Annotated[
    str | None, typer.Option("--starts-at", metavar="TIME", help=f"When the exam begins. {_ZONE}")
]
EndsAtOption = Annotated[str | None, typer.Option("--ends-at", metavar="TIME", help=f"When the exam ends. {_ZONE}")]
PolicyOption = Annotated[
    list[str] | None,
    typer.Option("--policy", metavar="KEY=VALUE", help="A rule of this plan, such as graceSeconds=60. Repeatable."),
]
PolicyFileOption = Annotated[
    Path | None, typer.Option("--policy-file", metavar="FILE", help="The rules of this plan as JSON or TOML.")
]


@takes_settings("nats_url", "redis_url", "data_dir", running=True)
def schedule(
    settings: Settings,
    plan_id: PlanArgument,
    name: NameOption = None,
    starts_at: StartsAtOption = None,
    ends_at: EndsAtOption = None,
    policy: PolicyOption = None,
    policy_file: PolicyFileOption = None,
    new: Annotated[bool, typer.Option("--new", help="Create the plan if it is unknown.")] = False,
    action_id: ActionIdOption = None,
    output: OutputOption = Format.TABLE,
) -> None:
    """Set the name, the times and the policy of a plan. Options that are left out change nothing.

    \b
    Examples:
      examwire plans schedule P001 --ends-at "2026-12-01 11:00"
      examwire plans schedule P001 --policy backoffSeconds=5,10,20

    The exam begins and ends by itself at these times. Exit code 2: a time or a rule is wrong, and nothing has changed;
    3: the plan is unknown.
    """
    check_id("planId", plan_id)
    fact = schedule_fact(plan_id, name, starts_at, ends_at, policy or (), policy_file, new_action_id(action_id))
    if fact is None:
        raise ConfigurationError("nothing is given: --name, --starts-at, --ends-at, --policy or --policy-file")

    async def work() -> PlanState:
        async with connected(settings, "plans schedule") as bus:
            store = StateStore(settings.redis_url, settings.redis)
            try:
                plan = await (plan_state if new else read_plan)(store, plan_id)
                check_schedule(plan, fact, bus.clock.now())
                return await decide_plan(bus, store, plan, fact)
            finally:
                await store.close()

    _show(asyncio.run(work()), fact, output)


@takes_settings("nats_url", "redis_url", "data_dir", running=True)
def open_plan(
    settings: Settings, plan_id: PlanArgument, action_id: ActionIdOption = None, output: OutputOption = Format.TABLE
) -> None:
    """Begin the exam of a plan now, or open a closed plan again.

    Example: examwire plans open P001

    Examinees whom the end of the plan has finished continue; those who have handed in stay finished. Exit code 2: it is
    open already; 3: the plan is unknown.
    """
    _decide(settings, plan_id, "open", PlanOpen, new_action_id(action_id), output)


@takes_settings("nats_url", "redis_url", "data_dir", running=True)
def close(
    settings: Settings,
    plan_id: PlanArgument,
    reason: Annotated[str | None, typer.Option("--reason", metavar="TEXT", help="Why, for the timeline.")] = None,
    action_id: ActionIdOption = None,
    output: OutputOption = Format.TABLE,
) -> None:
    """End the exam of a plan now, for everybody.

    Example: examwire plans close P001 --reason "fire alarm"

    Examinees who are still there are finished and disconnected. `plans open` opens it again. Exit code 2: it is closed
    already; 3: the plan is unknown.
    """
    text = clean_line(reason).strip() if reason is not None else None
    if text is not None and len(text) > 256:
        raise ConfigurationError("--reason: must be at most 256 characters")
    _decide(settings, plan_id, "close", PlanClose, new_action_id(action_id), output, reason=text or None)


def _decide(
    settings: Settings,
    plan_id: str,
    command: str,
    kind: type[PlanFact],
    action_id: str,
    output: Format,
    **fields: Any,
) -> None:
    check_id("planId", plan_id)

    async def work() -> tuple[PlanState, PlanFact]:
        async with connected(settings, f"plans {command}") as bus:
            store = StateStore(settings.redis_url, settings.redis)
            try:
                plan = await read_plan(store, plan_id)
                now = format_time(bus.clock.now())
                by = operator_name(f"plans {command}")
                fact = kind(plan_id=plan_id, by=by, action_id=action_id, timestamp=now, **fields)
                return await decide_plan(bus, store, plan, fact), fact
            finally:
                await store.close()

    plan, fact = asyncio.run(work())
    _show(plan, fact, output)


async def decide_plan(bus: Bus, store: StateStore, plan: PlanState, fact: PlanFact) -> PlanState:
    """Publish a fact about a plan and return the plan once it is applied. A repetition changes nothing.

    Raises `ProtocolError` (CONFLICT) when it would have no effect, `NotApplied`, `BrokerUnavailable`.
    """
    if already_applied(plan.actions, fact):
        return plan
    changed = plan_rules.apply(plan, plan.version + 1, fact)  # type: ignore[arg-type]
    if changed.state.version == plan.version:
        raise conflict(_why_not(plan, fact))
    await publish(bus, [fact])
    applied: PlanState = await wait_applied(
        lambda: plan_state(store, fact.plan_id),
        lambda state: already_applied(state.actions, fact) or state.version > plan.version,
        f"{fact.type} of plan {fact.plan_id}",
    )
    return applied


def _why_not(plan: PlanState, fact: PlanFact) -> str:
    if isinstance(fact, PlanOpen):
        return f"plan {fact.plan_id} is open already"
    if isinstance(fact, PlanClose):
        return f"plan {fact.plan_id} is closed already, since {zoned_moment(plan.closed_at)} by {plan.closed_by}"
    return f"{fact.type} would change nothing about plan {fact.plan_id}"


def _show(plan: PlanState, fact: PlanFact, output: Format) -> None:
    show(
        {"planId": plan.plan_id, **plan_json(plan), "actionId": fact.action_id},
        lambda: paragraph([plan_sentence(plan)]),
        output,
    )


# -- times and policy -------------------------------------------------------------------------------------


def schedule_fact(
    plan_id: str,
    name: str | None,
    starts_at: str | None,
    ends_at: str | None,
    policy: Sequence[str],
    policy_file: Path | None,
    action_id: str,
) -> PlanSchedule | None:
    """Return the fact of these options; `None` when nothing is given. Raises `ConfigurationError`."""
    if name is not None:
        name = clean_line(name).strip()
        if not is_readable(name) or len(name) > 100:
            raise ConfigurationError("--name: must be 1 to 100 characters that can be seen")
    begins, ends = moment_option(starts_at, "--starts-at"), moment_option(ends_at, "--ends-at")
    if begins is not None and ends is not None and parse_time(ends) <= parse_time(begins):
        raise ConfigurationError(f"--ends-at: {zoned_moment(ends)} is not later than {zoned_moment(begins)}")
    rules = read_policy(policy, policy_file)
    if (name, begins, ends, rules) == (None, None, None, None):
        return None
    return PlanSchedule(
        plan_id=plan_id,
        name=name,
        starts_at=begins,
        ends_at=ends,
        policy=rules,
        by=operator_name("plans schedule"),
        action_id=action_id,
        timestamp=format_time(time.time()),
    )


def moment_option(text: str | None, option: str) -> str | None:
    """Return the time of an option as RFC 3339. Raises `ConfigurationError`."""
    if text is None:
        return None
    seconds = parse_time_option(text, option)
    if not 0 <= seconds < YEAR_3000:
        raise ConfigurationError(f"{option}: {text!r} is not between the years 1970 and 3000")
    return format_time(seconds)


def check_schedule(plan: PlanState, fact: PlanSchedule, now: float) -> None:
    """Check times against the present and what Redis has. Raises `ConfigurationError`."""
    if already_applied(plan.actions, fact):
        return
    for option, moment in (("--starts-at", fact.starts_at), ("--ends-at", fact.ends_at)):
        if moment is not None and parse_time(moment) <= now:
            instead = "`examwire plans open` begins" if option == "--starts-at" else "`examwire plans close` ends"
            raise ConfigurationError(
                f"{option}: {zoned_moment(moment)} is in the past; {instead} plan {fact.plan_id} now"
            )
    keeps_end = fact.ends_at is None and not (plan.closed and fact.starts_at is not None)
    starts_at = fact.starts_at or plan.starts_at
    ends_at = plan.ends_at if keeps_end else fact.ends_at
    if starts_at is not None and ends_at is not None and parse_time(ends_at) <= parse_time(starts_at):
        option, moment, other, held = "--starts-at", starts_at, "the end", ends_at
        if fact.ends_at is not None:
            option, moment, other, held = "--ends-at", ends_at, "the beginning", starts_at
        order = "not earlier" if option == "--starts-at" else "not later"
        raise ConfigurationError(
            f"{option}: {zoned_moment(moment)} is {order} than {other} of plan {fact.plan_id}, {zoned_moment(held)}; "
            "give both times"
        )


def news_of(plan: PlanState, fact: PlanSchedule | None) -> PlanSchedule | None:
    """Return the part of a schedule that the plan does not have yet; `None`: it has all of it."""
    if fact is None:
        return None
    known = {name: None for name in ("name", "starts_at", "ends_at") if getattr(fact, name) == getattr(plan, name)}
    fact = fact.model_copy(update=known)
    return None if (fact.name, fact.starts_at, fact.ends_at, fact.policy) == (None,) * 4 else fact


def after_schedule(plan: PlanState, fact: PlanSchedule | None, now: float) -> PlanState:
    """Return the plan as a schedule would make it. Raises `ConfigurationError` as `check_schedule` does."""
    if fact is None:
        return plan
    check_schedule(plan, fact, now)
    return plan_rules.apply(plan, plan.version + 1, fact).state


def read_policy(pairs: Sequence[str], path: Path | None) -> PlanPolicy | None:
    """Return the policy of `KEY=VALUE` options and a file; an option wins. Raises `ConfigurationError`."""
    values: dict[str, Any] = dict(_policy_file(path)) if path is not None else {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not equals:
            raise ConfigurationError(f"--policy: {pair!r} is not KEY=VALUE")
        value = _policy_value(key.strip(), text.strip())
        repeated = key.strip() == "cannedTexts" and any(other.startswith("cannedTexts=") for other in pairs)
        values[key.strip()] = [*values.get("cannedTexts", []), *value] if repeated else value
    if not values:
        return None
    known = {field.alias or name: name for name, field in PlanPolicy.model_fields.items()}
    if unknown := sorted(values.keys() - known.keys()):
        raise ConfigurationError(f"policy: {', '.join(unknown)} is unknown; known are {', '.join(sorted(known))}")
    try:
        return PlanPolicy.model_validate_json(json.dumps(values))
    except pydantic.ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise ConfigurationError(f"policy: {'.'.join(map(str, first['loc']))}: {first['msg']}") from None


def _policy_value(key: str, text: str) -> Any:
    if key == "cannedTexts" and not text.startswith("["):
        return [text]
    if key == "backoffSeconds" and not text.startswith("["):
        text = f"[{text}]"
    try:
        return json.loads(text)
    except ValueError:
        return text  # the check of the policy says what it must be


def _policy_file(path: Path) -> Mapping[str, Any]:
    try:
        content = path.read_text(encoding="utf-8-sig")
        values = tomllib.loads(content) if path.suffix == ".toml" else json.loads(content)
    except OSError as error:
        raise ConfigurationError(f"--policy-file: {path} cannot be read: {error.strerror}") from None
    except ValueError as error:
        kind = "TOML" if path.suffix == ".toml" else "JSON"
        raise ConfigurationError(f"--policy-file: {path} is not {kind}: {error}") from None
    if not isinstance(values, dict):
        raise ConfigurationError(f"--policy-file: {path} holds no object of rules")
    return values
