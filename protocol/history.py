"""Facts in any order, one outcome: what makes any number of state managers safe without a leader.

Each record in Redis holds the state up to a `floor` (every message up to there is acknowledged, so none can come
late) and the few facts above it. A fact takes its place by version, and the state is the fold of the facts in
that order, whatever the order they arrived in: a duplicate finds its place taken, a late one is put where it
belongs. The rules (`connection`, `mobile_sync`, `servers`) only ever see facts in order.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

from protocol.effects import Effect
from protocol.messages import Event, Message, Restate

S = TypeVar("S")
F = TypeVar("F", bound=Message)


@dataclass(frozen=True, slots=True)
class Outcome(Generic[S]):
    """What one fact did: the state after it, what to tell proctors, what else to do."""

    state: S
    events: tuple[Event, ...] = ()
    effects: tuple[Effect, ...] = ()


Rule = Callable[[S, int, F], Outcome[S]]


@dataclass(frozen=True, slots=True)
class History(Generic[S, F]):
    """`base`: the fold of every fact up to `floor`. `facts`: those above it, by version.

    `owed`: a late fact changed what was told before, and nothing newer has told it right since.
    """

    base: S
    floor: int = 0
    facts: tuple[tuple[int, F], ...] = ()
    owed: bool = False


@dataclass(frozen=True, slots=True)
class Insertion(Generic[S, F]):
    """The history with a fact in it, and what follows.

    `changed`: the history is to be written. `late`: newer facts were there already. `restate`: what was told
    last no longer holds, and nothing newer will say so.
    """

    history: History[S, F]
    state: S
    events: tuple[Event, ...] = ()
    effects: tuple[Effect, ...] = ()
    changed: bool = False
    late: bool = False
    restate: bool = False


def fold(history: History[S, F], rule: Rule[S, F]) -> S:
    """The state that a history amounts to."""
    state = history.base
    for version, fact in history.facts:
        state = rule(state, version, fact).state
    return state


def compact(history: History[S, F], rule: Rule[S, F], floor: int) -> History[S, F]:
    """Fold the facts up to `floor` into the base. `floor` must not pass an unacknowledged message."""
    if floor <= history.floor or not history.facts or history.facts[0][0] > floor:
        return history
    settled = sum(1 for version, _ in history.facts if version <= floor)
    base = fold(replace(history, facts=history.facts[:settled]), rule)
    return History(base, floor, history.facts[settled:], history.owed)


def insert(
    history: History[S, F], rule: Rule[S, F], version: int, fact: F, told: Callable[[S], Any]
) -> Insertion[S, F]:
    """Put a fact in its place.

    `told` is the part of a state that events tell; it decides whether a late fact calls for a restatement.
    """
    if version <= history.floor:  # acknowledged before: all its effects were completed
        return Insertion(history, fold(history, rule))
    facts = history.facts
    if not facts or version > facts[-1][0]:
        before = fold(history, rule)
        outcome = rule(before, version, fact)
        told_right = isinstance(fact, Restate) or told(outcome.state) != told(before)
        grown = History(history.base, history.floor, (*facts, (version, fact)), history.owed and not told_right)
        return Insertion(grown, outcome.state, outcome.events, outcome.effects, changed=True)

    place = bisect_left(facts, version, key=lambda known: known[0])
    if facts[place][0] == version:
        # Delivered again: whoever wrote it may have died before telling, so ask for the same things once more.
        without = replace(history, facts=(*facts[:place], *facts[place + 1 :]))
        again = insert(without, rule, version, fact, told)
        return replace(again, history=history, changed=False, restate=history.owed)

    facts = (*facts[:place], (version, fact), *facts[place:])
    old_state, old_events, old_effects, _ = _replay(history, rule, told)
    new_state, new_events, new_effects, last_change = _replay(replace(history, facts=facts), rule, told)
    # Clients drop an event that is older than one they have seen: is the last change among those?
    newest_told = max((event.version or 0 for event in old_events), default=0)
    owed = history.owed or (told(new_state) != told(old_state) and last_change <= newest_told)
    return Insertion(
        History(history.base, history.floor, facts, owed),
        new_state,
        tuple(event for event in new_events if event not in old_events),
        tuple(effect for effect in new_effects if effect not in old_effects),
        changed=True,
        late=True,
        restate=owed,
    )


def _replay(
    history: History[S, F], rule: Rule[S, F], told: Callable[[S], Any]
) -> tuple[S, list[Event], list[Effect], int]:
    """The state, all events and effects, and the version that last changed what is to be told."""
    state = history.base
    events: list[Event] = []
    effects: list[Effect] = []
    last_change = 0
    for version, fact in history.facts:
        outcome = rule(state, version, fact)
        if told(outcome.state) != told(state):
            last_change = version
        state = outcome.state
        events.extend(outcome.events)
        effects.extend(outcome.effects)
    return state, events, effects, last_change
