"""The history of a record: facts may arrive in any order, the state is always that of their order in the log.

Any number of state managers can work without a leader because of this. Each record in Redis holds the state up to a
`floor` and the few facts above it. Every message up to the floor is acknowledged, so none of them can still arrive. A
fact is put in its place by its version, and the state is the fold of the facts in that order. A fact that arrives twice
finds its place taken; a late one is put between the others. The rules (`connection`, `mobile_sync`, `notices`,
`socket_server`) only ever see facts in order.

Example::

    insertion = insert(history, connection.apply, version, fact, connection.visible_part)
    insertion.history  # to be written, if `insertion.changed`
    insertion.events  # to be published
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from operator import attrgetter
from typing import Any, ClassVar, Generic, Self, TypeVar, get_args, get_type_hints

from protocol.messages.base import Message, Stored
from protocol.messages.facts import Restate
from protocol.messages.proctor_events import Event
from protocol.rules.effects import Effect

MOST_UNFOLDED = 32
"""So many acknowledged facts at most are kept because this release does not understand them whole."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredState:
    """The base of states, and of the parts of states, that are stored in records.

    `unknown_fields`: stored fields that only newer releases know, as parsed JSON. They are written again.
    """

    format: ClassVar[int] = 1
    """The format that a reader must know to understand what is stored (`protocol.messages.base.FORMAT`)."""

    unknown_fields: Mapping[str, Any] | None = field(default=None, compare=False, repr=False)

    def changed(self, **changes: Any) -> Self:
        """Return the state with these fields changed: `dataclasses.replace` in half the time, for the hot rules."""
        places, values_of = _fields_of(type(self))
        values = list(values_of(self))
        for name, value in changes.items():
            values[places[name]] = value
        return type(self)(*values, unknown_fields=self.unknown_fields)

    def required_format(self) -> int:
        """Return the format that a reader must know to understand this state."""
        return self.format

    def has_unknown(self) -> bool:
        """Return whether it, or a part of it, has fields that this release does not know."""
        if self.unknown_fields is not None:
            return True
        for name in _parts_of(type(self)):
            part = getattr(self, name)
            if isinstance(part, tuple):
                if any(element.unknown_fields is not None for element in part):
                    return True
            elif part is not None and part.has_unknown():
                return True
        return False


_FIELDS: dict[type, tuple[Mapping[str, int], Callable[[Any], tuple[Any, ...]]]] = {}


def _fields_of(state: type[StoredState]) -> tuple[Mapping[str, int], Callable[[Any], tuple[Any, ...]]]:
    """Return the places of the fields that are given by place, and what reads all of them."""
    known = _FIELDS.get(state)
    if known is None:
        names = [one.name for one in fields(state) if not one.kw_only]
        known = _FIELDS[state] = {name: place for place, name in enumerate(names)}, attrgetter(*names)
    return known


_PARTS: dict[type, tuple[str, ...]] = {}


def _parts_of(state: type) -> tuple[str, ...]:
    """Return the fields of a state that hold a part which keeps unknown fields, `None`, or a tuple of such parts."""
    parts = _PARTS.get(state)
    if parts is None:
        parts = _PARTS[state] = tuple(
            name
            for name, hint in get_type_hints(state).items()
            for option in (hint, *get_args(hint))
            if isinstance(option, type) and issubclass(option, StoredState | Stored)
        )
    return parts


S = TypeVar("S", bound=StoredState)
F = TypeVar("F", bound=Message)


@dataclass(frozen=True, slots=True)
class Outcome(Generic[S]):
    """The result of applying one fact: the state after it, the events for proctors, and the effects to carry out."""

    state: S
    events: tuple[Event, ...] = ()
    effects: tuple[Effect, ...] = ()


@dataclass(frozen=True, slots=True)
class NewerFact:
    """A fact of a record that only a newer release understands, as it stood there. It keeps its place for that one.

    Here it changes nothing: what follows from it is in the state that the newer release has made, as far as that goes.
    """

    type: str
    data: Mapping[str, Any]
    format: int

    def required_format(self) -> int:
        """Return the format that a reader must know to understand it."""
        return self.format

    def has_unknown(self) -> bool:
        """Return that it is not understood whole."""
        return True


Rule = Callable[[S, int, F], Outcome[S]]
"""A pure transition: state, version and fact give an `Outcome`."""


def _outcome(rule: Rule[S, F], state: S, version: int, fact: F | NewerFact) -> Outcome[S]:
    return Outcome(state) if isinstance(fact, NewerFact) else rule(state, version, fact)


@dataclass(frozen=True, slots=True)
class History(Generic[S, F]):
    """What a record holds. `base`: the fold of every fact up to `floor`. `facts`: the later ones, by version.

    `late`: versions of the `facts` that arrived after newer ones. `newest_event`: the newest version of any event that
    was published, also of events that a late fact has made untrue since. `restatement_due`: a late fact changed what
    clients were told, and no newer event has corrected it yet. `first_version`: the version of the record's first fact
    (0: unknown); by it a reader knows whether a log that drops old messages still holds the whole record. `kept`: the
    record holds facts up to this version that the log has lost (`protocol.log.gap`; 0: none), so it is never made from
    the log alone. `head`: the fold of everything, kept so that a fact that arrives in order costs one transition.
    `unknown`: it holds something that only newer releases understand whole (`has_unknown`).
    """

    base: S
    floor: int = 0
    facts: tuple[tuple[int, F | NewerFact], ...] = ()
    late: tuple[int, ...] = ()
    newest_event: int = 0
    restatement_due: bool = False
    first_version: int = 0
    kept: int = 0
    head: S | None = field(default=None, compare=False)
    unknown: bool = field(default=False, compare=False)

    def required_format(self) -> int:
        """Return the format that a reader must know to go on from its states. Each fact has a format of its own."""
        return max(self.base.required_format(), 1 if self.head is None else self.head.required_format())

    def has_unknown(self) -> bool:
        """Return whether it holds something that only newer releases understand whole."""
        if self.base.has_unknown() or (self.head is not None and self.head.has_unknown()):
            return True
        return any(fact.has_unknown() for _, fact in self.facts)


@dataclass(frozen=True, slots=True)
class Insertion(Generic[S, F]):
    """The result of inserting one fact: the new history, its state, and what has to be published and done.

    `changed`: the history must be written. `late`: newer facts were present already. `restate`: what clients were told
    last is not true any more, and no newer event will correct it.
    """

    history: History[S, F]
    state: S
    events: tuple[Event, ...] = ()
    effects: tuple[Effect, ...] = ()
    changed: bool = False
    late: bool = False
    restate: bool = False


def fold(history: History[S, F], rule: Rule[S, F]) -> S:
    """Return the state after all facts of a history."""
    if history.head is not None:
        return history.head
    state = history.base
    for version, fact in history.facts:
        state = _outcome(rule, state, version, fact).state
    return state


def compact(history: History[S, F], rule: Rule[S, F], floor: int) -> History[S, F]:
    """Fold the facts up to `floor` into the base. Every message up to `floor` must be acknowledged.

    What this release does not understand whole is kept for one that does: no fact is folded from the first one on that
    has unknown fields, and none at all when a state has some. At most `MOST_UNFOLDED` of them are kept.
    """
    if not history.facts or history.facts[0][0] > floor:
        return history
    everything = history.facts[-1][0] <= floor and not history.unknown  # as in most records
    settled = len(history.facts) if everything else _foldable(history, floor)
    if settled == len(history.facts):
        return History(
            fold(history, rule),
            floor,
            (),
            (),
            history.newest_event,
            history.restatement_due,
            history.first_version,
            history.kept,
            history.head,
            history.unknown,
        )
    if settled == 0:
        return history
    floor = min(floor, history.facts[settled][0] - 1)
    base = fold(replace(history, facts=history.facts[:settled], head=None), rule)
    late = tuple(version for version in history.late if version > floor)
    return replace(history, base=base, floor=floor, facts=history.facts[settled:], late=late)


def _foldable(history: History[Any, Any], floor: int) -> int:
    """Return how many facts, from the oldest on, can be folded and lose nothing that newer releases know."""
    settled = sum(1 for version, _ in history.facts if version <= floor)
    if not history.unknown:
        return settled
    if history.base.has_unknown() or (history.head is not None and history.head.has_unknown()):
        return max(0, settled - MOST_UNFOLDED)
    return foldable(history.facts, settled)


def foldable(facts: Sequence[tuple[int, Message | NewerFact]], settled: int) -> int:
    """Return how many of the oldest facts, of which so many are settled, are folded into a base.

    The rest, from the first one on that has fields which this release does not know, is kept for a newer one.
    """
    understood = next((n for n, (_, fact) in enumerate(facts[:settled]) if fact.has_unknown()), settled)
    return max(understood, settled - MOST_UNFOLDED)


def insert(
    history: History[S, F], rule: Rule[S, F], version: int, fact: F | NewerFact, visible_part: Callable[[S], Any]
) -> Insertion[S, F]:
    """Put a fact in its place.

    `visible_part` returns the part of a state that clients are told. A late fact that changes it needs a restatement.
    """
    if version <= history.floor:  # acknowledged before, so all its effects were completed
        return Insertion(history, fold(history, rule))
    facts = history.facts
    first_version = history.first_version if facts or history.floor else version
    if not facts or version > facts[-1][0]:
        before = fold(history, rule)
        outcome = _outcome(rule, before, version, fact)
        corrected = isinstance(fact, Restate) or visible_part(outcome.state) != visible_part(before)
        grown = History(
            history.base,
            history.floor,
            (*facts, (version, fact)),
            history.late,
            _newest_event(history, outcome.events),
            history.restatement_due and not corrected,
            first_version,
            history.kept,
            outcome.state,
            history.unknown or fact.has_unknown(),
        )
        return Insertion(grown, outcome.state, outcome.events, outcome.effects, changed=True)

    place = bisect_left(facts, version, key=lambda entry: entry[0])
    before, _, _, earlier_change = _replay(history.base, facts[:place], rule, visible_part)
    if facts[place][0] == version:
        # Delivered again. The state manager that wrote it may have died before it published, so the same events and
        # effects are returned once more; for a late fact, also those of the facts after it.
        repeated = facts[place:] if version in history.late else facts[place : place + 1]
        _, events, effects, _ = _replay(before, repeated, rule, visible_part)
        return Insertion(history, fold(history, rule), tuple(events), tuple(effects), restate=history.restatement_due)

    newer = facts[place:]
    old_state, old_events, old_effects, old_change = _replay(before, newer, rule, visible_part, earlier_change)
    newer = ((version, fact), *newer)
    new_state, new_events, new_effects, new_change = _replay(before, newer, rule, visible_part, earlier_change)
    told: dict[int | None, list[Event]] = {}
    for event in old_events:
        told.setdefault(event.version, []).append(event)
    new_only = tuple(event for event in new_events if event not in told.get(event.version, ()))
    carried_out = set(old_effects)
    # Clients drop an event that is older than one they have seen, so the event of the last change may not reach them.
    # Nobody knows which untrue newer events they have seen: the same state by another fact is restated, too.
    moved = (visible_part(new_state), new_change) != (visible_part(old_state), old_change)
    restatement_due = history.restatement_due or (moved and new_change <= history.newest_event)
    grown = replace(
        history,
        facts=(*facts[:place], *newer),
        late=(*history.late, version),
        newest_event=_newest_event(history, new_only),
        restatement_due=restatement_due,
        first_version=min(first_version, version),
        head=new_state,
        unknown=history.unknown or fact.has_unknown(),
    )
    return Insertion(
        grown,
        new_state,
        new_only,
        tuple(effect for effect in new_effects if effect not in carried_out),
        changed=True,
        late=True,
        restate=restatement_due,
    )


def _newest_event(history: History[S, F], events: Iterable[Event]) -> int:
    """Return the newest version among the events that were published before and these."""
    newest = history.newest_event
    for event in events:
        assert event.version is not None
        newest = max(newest, event.version)
    return newest


def _replay(
    state: S,
    facts: Iterable[tuple[int, F | NewerFact]],
    rule: Rule[S, F],
    visible_part: Callable[[S], Any],
    last_change: int = 0,
) -> tuple[S, list[Event], list[Effect], int]:
    """Apply facts to a state again.

    Return the state after them, their events and effects, and the version of the last fact that changed the visible
    part; `last_change`: of the last one before them.
    """
    events: list[Event] = []
    effects: list[Effect] = []
    visible = visible_part(state)
    for version, fact in facts:
        outcome = _outcome(rule, state, version, fact)
        if outcome.state is not state:
            state, before = outcome.state, visible
            if (visible := visible_part(state)) != before:
                last_change = version
        events.extend(outcome.events)
        effects.extend(outcome.effects)
    return state, events, effects, last_change
