"""Facts in any order, one outcome: what makes any number of state managers safe without a leader.

Each record in Redis holds the state up to a `floor` (every message up to there is acknowledged, so none can come
late) and the few facts above it. A fact takes its place by version, and the state is the fold of the facts in
that order, whatever the order they arrived in: a duplicate finds its place taken, a late one is put where it
belongs. The rules (`connection_rules`, `mobile_sync`, `notices`, `servers`) only ever see facts in order.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any, Generic, TypeVar

from protocol.messages.base import Message
from protocol.messages.facts import Restate
from protocol.messages.proctor_events import Event
from protocol.rules.effects import Effect

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

    `late`: those of `facts` that found newer ones there. `newest_told`: the newest version that any event ever had,
    also of events that a late fact has since made untrue. `owed`: a late fact changed what was told before, and
    nothing newer has told it right since. `first`: the version of the record's first fact (0: nobody knows), which
    tells whether a log that forgets what is old still holds the whole record. `head`: the fold of everything, kept so
    that a fact that comes in order costs one transition.
    """

    base: S
    floor: int = 0
    facts: tuple[tuple[int, F], ...] = ()
    late: tuple[int, ...] = ()
    newest_told: int = 0
    owed: bool = False
    first: int = 0
    head: S | None = field(default=None, compare=False)


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
    if history.head is not None:
        return history.head
    state = history.base
    for version, fact in history.facts:
        state = rule(state, version, fact).state
    return state


def compact(history: History[S, F], rule: Rule[S, F], floor: int) -> History[S, F]:
    """Fold the facts up to `floor` into the base. `floor` must not pass an unacknowledged message."""
    if floor <= history.floor or not history.facts or history.facts[0][0] > floor:
        return history
    if history.facts[-1][0] <= floor:
        return replace(history, base=fold(history, rule), floor=floor, facts=(), late=(), head=None)
    settled = sum(1 for version, _ in history.facts if version <= floor)
    base = fold(replace(history, facts=history.facts[:settled], head=None), rule)
    late = tuple(version for version in history.late if version > floor)
    return replace(history, base=base, floor=floor, facts=history.facts[settled:], late=late)


def insert(
    history: History[S, F], rule: Rule[S, F], version: int, fact: F, told: Callable[[S], Any]
) -> Insertion[S, F]:
    """Put a fact in its place.

    `told` is the part of a state that events tell; it decides whether a late fact calls for a restatement.
    """
    if version <= history.floor:  # acknowledged before: all its effects were completed
        return Insertion(history, fold(history, rule))
    facts = history.facts
    first = history.first if facts or history.floor else version
    if not facts or version > facts[-1][0]:
        before = fold(history, rule)
        outcome = rule(before, version, fact)
        told_right = isinstance(fact, Restate) or told(outcome.state) != told(before)
        grown = History(
            history.base,
            history.floor,
            (*facts, (version, fact)),
            history.late,
            _newest(history, outcome.events),
            history.owed and not told_right,
            first,
            outcome.state,
        )
        return Insertion(grown, outcome.state, outcome.events, outcome.effects, changed=True)

    place = bisect_left(facts, version, key=lambda known: known[0])
    if facts[place][0] == version:
        # Delivered again: whoever wrote it may have died before telling, so ask for the same things once more; for
        # one that came late, for all that may have followed from it.
        last = facts[-1][0] if version in history.late else version
        state, events, effects, _ = _replay(history, rule, told, version, last)
        return Insertion(history, state, tuple(events), tuple(effects), restate=history.owed)

    grown = replace(history, facts=(*facts[:place], (version, fact), *facts[place:]), late=(*history.late, version))
    old_state, old_events, old_effects, old_change = _replay(history, rule, told)
    new_state, new_events, new_effects, new_change = _replay(grown, rule, told)
    news = tuple(event for event in new_events if event not in old_events)
    # Clients drop an event that is older than one they have seen: is the last change among those? Which of the
    # untrue newer ones they have seen nobody knows, so the same state by another fact is told anew, too.
    moved = (told(new_state), new_change) != (told(old_state), old_change)
    owed = history.owed or (moved and new_change <= history.newest_told)
    return Insertion(
        replace(grown, newest_told=_newest(history, news), owed=owed, first=min(first, version), head=new_state),
        new_state,
        news,
        tuple(effect for effect in new_effects if effect not in old_effects),
        changed=True,
        late=True,
        restate=owed,
    )


def _newest(history: History[S, F], events: Iterable[Event]) -> int:
    newest = history.newest_told
    for event in events:
        newest = max(newest, event.version or 0)
    return newest


def _replay(
    history: History[S, F], rule: Rule[S, F], told: Callable[[S], Any], first: int = 0, last: int | None = None
) -> tuple[S, list[Event], list[Effect], int]:
    """The state, events and effects (of the facts from `first` to `last`), and the last version that changed `told`."""
    state = history.base
    events: list[Event] = []
    effects: list[Effect] = []
    last_change = 0
    for version, fact in history.facts:
        outcome = rule(state, version, fact)
        if told(outcome.state) != told(state):
            last_change = version
        state = outcome.state
        if first <= version and (last is None or version <= last):
            events.extend(outcome.events)
            effects.extend(outcome.effects)
    return state, events, effects, last_change
