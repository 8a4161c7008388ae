"""Publish an operator's decisions about a plan and its examinees, and wait until they are applied."""

from __future__ import annotations

import asyncio
import getpass
import time
import uuid
from collections.abc import Callable, Sequence
from typing import Annotated, Any, TypeVar

import typer

from actors.runtime.broker.connection import Bus, Outgoing
from actors.runtime.broker.publisher import PubAck
from actors.runtime.store.state_store import StateStore
from cli.plans.plan_text import plan_json, plan_text, read_plans
from cli.shared.suggestions import not_found
from cli.shared.times import local_time, zone_name
from protocol.broker import subjects
from protocol.errors import BrokerUnavailable, ErrorCode, InvalidField, ProtocolError, StateDamaged
from protocol.messages.facts import ActionFact, Notice
from protocol.messages.plan_facts import PlanFact
from protocol.records import keys
from protocol.records.kinds import CONNECTION, RecordKind
from protocol.rules.action_ids import message_id
from protocol.rules.connection_state import ConnectionState
from protocol.rules.history import StoredState, fold
from protocol.rules.plan_state import PlanState
from protocol.texts import check_token, clean_line, is_readable
from protocol.times import parse_time

S = TypeVar("S", bound=StoredState)
CHUNK = 500
APPLIED_SECONDS = 15.0
POLL_SECONDS = 0.1

PlanArgument = Annotated[str, typer.Argument(metavar="PLAN_ID", help="The plan.", show_default=False)]
ActionIdOption = Annotated[
    str | None,
    typer.Option(
        "--action-id",
        metavar="ID",
        help="Id of this decision: the same command with the same id has one effect. [default: a new id]",
    ),
]

ByOption = Annotated[
    str | None,
    typer.Option("--by", metavar="NAME", help="Who decides, for the wall and the timeline. [default: the user]"),
]


class NotApplied(BrokerUnavailable):
    """A decision is in the log, and no state manager has applied it yet."""


def conflict(detail: str) -> ProtocolError:
    """Return the error for a decision that the present state of the plan does not allow."""
    return ProtocolError(ErrorCode.CONFLICT, detail)


def new_action_id(given: str | None) -> str:
    """Return the id of a decision: the given one if it is valid, else a new one. Raises `InvalidField`."""
    if given is None:
        return uuid.uuid4().hex
    try:
        check_token(given)
    except ValueError as error:
        raise InvalidField("--action-id", str(error)) from None
    if not 1 <= len(given) <= 64:
        raise InvalidField("--action-id", "must be 1 to 64 characters")
    return given


def operator_name(command: str) -> str:
    """Return who decides, for the timeline: the system's user and the command, such as `kim (plans finish)`."""
    return f"{_user()} ({command})"[:256]


def decided_by(command: str, name: str | None) -> dict[str, str | None]:
    """Return `by` and `by_name` of a fact: the system's user with the command, and `--by` as the name people read.

    With a name, people read `Kim Ha-neul (root, plans finish)`. Raises `InvalidField`.
    """
    if name is None:
        return {"by": operator_name(command), "by_name": None}
    cleaned = clean_line(name).strip()
    if not is_readable(cleaned) or len(cleaned) > 100:
        raise InvalidField("--by", "must be 1 to 100 characters that can be seen")
    return {"by": f"{_user()}, {command}"[:256], "by_name": cleaned}


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "operator"


# -- reading ----------------------------------------------------------------------------------------------


async def read_plan(store: StateStore, plan_id: str) -> PlanState:
    """Return the state of a plan; that of one that nobody has set up is open. Raises `NotFound`."""
    if plan_id not in (plans := await store.members(keys.PLANS)):
        advice = (
            f"create it with `examwire plans create {plan_id} --roster FILE`, or set it up without a roster with "
            f"`examwire plans schedule {plan_id} --new`"
        )
        raise not_found("plan", plan_id, plans, advice)
    return await plan_state(store, plan_id)


async def plan_state(store: StateStore, plan_id: str) -> PlanState:
    """Return the recorded state of a plan. Raises `StateUnavailable`, `StateDamaged`."""
    (state,) = await read_plans(store, [plan_id])
    return state


async def read_connections(store: StateStore, plan_id: str, examinees: Sequence[str]) -> dict[str, ConnectionState]:
    """Return the connection of each of these examinees, by id. Raises `StateUnavailable`, `StateDamaged`."""
    record_keys = [keys.progress(plan_id, examinee_id) for examinee_id in examinees]
    return dict(zip(examinees, await read_states(store, CONNECTION, record_keys), strict=True))


async def read_states(store: StateStore, kind: RecordKind[S, Any], record_keys: Sequence[str]) -> list[S]:
    """Return the states of records of one kind. Raises `StateUnavailable`, `StateDamaged`."""
    states: list[S] = []
    for start in range(0, len(record_keys), CHUNK):
        batch = record_keys[start : start + CHUNK]
        for key, stored in zip(batch, await store.load(batch), strict=True):
            if isinstance(stored, StateDamaged):
                raise stored
            try:
                states.append(fold(kind.read(stored.history), kind.rule))
            except ValueError as error:
                raise StateDamaged(f"{key}: {error}", keys.parse_key(key)) from None
    return states


# -- deciding ---------------------------------------------------------------------------------------------


async def publish(bus: Bus, facts: Sequence[ActionFact | Notice | PlanFact]) -> None:
    """Put decisions into the log. Raises `BrokerUnavailable`; the same actionId again has one effect."""
    outgoing = [
        Outgoing.of(subjects.status_plan(fact.plan_id, subjects.OPERATOR), fact, message_id=message_id(fact))
        for fact in facts
    ]
    for result in await bus.publish_many(outgoing):
        if isinstance(result, PubAck):
            continue
        if not isinstance(result, BrokerUnavailable):
            raise result
        action = facts[0].action_id
        raise BrokerUnavailable(f"{result}; give --action-id {action} when you repeat it, so that it has one effect")


async def wait_applied(read: Callable[[], Any], applied: Callable[[Any], bool], what: str) -> Any:
    """Read until `applied` says so, and return what was read. Raises `NotApplied` after `APPLIED_SECONDS`."""
    deadline = time.monotonic() + APPLIED_SECONDS
    while True:
        value = await read()
        if applied(value):
            return value
        if time.monotonic() > deadline:
            raise NotApplied(
                f"{what} is in the log, but not applied after {APPLIED_SECONDS:g} s; it is applied as soon as a "
                "state manager works: `examwire actors ls`, `examwire doctor`"
            )
        await asyncio.sleep(POLL_SECONDS)


# -- showing ----------------------------------------------------------------------------------------------


def zoned_moment(moment: str | None) -> str:
    """Return a time for people with this machine's zone: `09:00:00 KST (UTC+09:00)`."""
    return f"{local_time(moment)} {zone_name(parse_time(moment))}" if moment else ""


def plan_sentence(plan: PlanState) -> str:
    """Return `plan P001: Algebra: open, from 2026-12-01 09:00:00 to ...; times in KST (UTC+09:00)`."""
    return f"plan {plan.plan_id}: {plan_text(plan_json(plan))}; times in {zone_name()}"
