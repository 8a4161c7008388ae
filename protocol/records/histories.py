"""The `history` of a record as JSON. What only newer releases know survives a read and a write.

A history that this release does not understand whole is marked `unknown`, and keeps its facts (`compact`): a release
that understands it folds them anew. What needs to be known to read it at all is its `format`, as in messages.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields, replace
from enum import StrEnum
from types import UnionType
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

import pydantic_core
from pydantic import BaseModel

from protocol.errors import NewerFormat, NewerRecord, ProtocolError
from protocol.messages.base import FORMAT, Message
from protocol.messages.codec import check_format
from protocol.messages.facts import STATUS_CODEC
from protocol.rules.connection_state import ConnectionState
from protocol.rules.history import History, NewerFact, StoredState

S = TypeVar("S", bound=StoredState)


def dump_history(history: History[Any, Any]) -> str:
    """Return a history as JSON, without fields at their default."""
    stored: dict[str, Any] = {
        "base": _stored_fields(history.base),
        "floor": history.floor,
        "facts": [_stored_fact(version, fact) for version, fact in history.facts],
    }
    if history.facts and history.head is not None:
        stored["head"] = _stored_fields(history.head)
    if FORMAT > 1 and (required := history.required_format()) > 1:
        stored["format"] = required
    if history.unknown:
        stored["unknown"] = True
    if history.late:
        stored["late"] = history.late
    if history.newest_event:
        stored["newestTold"] = history.newest_event
    if history.restatement_due:
        stored["owed"] = True
    if history.first_version:
        stored["first"] = history.first_version
    if history.kept:
        stored["kept"] = history.kept
    return pydantic_core.to_json(stored, by_alias=True, exclude_none=True).decode()


def _stored_fact(version: int, fact: Message | NewerFact) -> tuple[Any, ...]:
    """Return a fact with its version and type, and its format when that is not 1."""
    number = fact.required_format()
    content = fact.data if isinstance(fact, NewerFact) else fact
    return (version, fact.type, content) if number == 1 else (version, fact.type, content, number)


def _restored_fact(version: int, kind: str, data: Any, number: int = 1) -> tuple[int, Message | NewerFact]:
    """Return what `_stored_fact` has stored."""
    if number > FORMAT:
        return int(version), NewerFact(kind, data, number)
    return int(version), STATUS_CODEC.from_element({"type": kind, "data": data})


def blank_state(state: type[S]) -> S:
    """Return the state before all facts, always the same one."""
    blank: S = _layout_of(state).blank
    return blank


def _stored_fields(state: StoredState) -> dict[str, Any]:
    """Return the fields of a state that are not at their default. A default never changes, or old records would."""
    layout = _layout_of(type(state))
    if state is layout.blank:
        return {}
    stored = {name: value for name, default in layout.defaults if (value := getattr(state, name)) != default}
    for name in layout.composed:
        if name in stored:
            part = stored[name]
            stored[name] = list(map(_stored_part, part)) if isinstance(part, tuple) else _stored_part(part)
    return stored if state.unknown_fields is None else {**state.unknown_fields, **stored}


def _stored_part(part: StoredState) -> dict[str, Any]:
    """Return the fields of a part of a state that are not `None`."""
    stored = {name: value for name in _layout_of(type(part)).names if (value := getattr(part, name)) is not None}
    return stored if part.unknown_fields is None else {**part.unknown_fields, **stored}


def load_history(state: type[S], stored: str | bytes, floor: int = 0) -> History[S, Any]:
    """Return the history of JSON that `dump_history` wrote.

    When every fact is up to `floor`, as in most records, the facts are not decoded. Raises `NewerRecord` when only a
    newer release understands it; `ValueError` when it is damaged.
    """
    first = 0
    try:
        parsed = pydantic_core.from_json(stored)
        first = int(parsed.get("first", 0))
        if "format" in parsed:
            check_format(parsed["format"], "the history")
        unknown, kept = "unknown" in parsed, int(parsed.get("kept", 0))
        newest_event, restatement_due = int(parsed.get("newestTold", 0)), bool(parsed.get("owed", False))
        head = _restore(state, parsed["head"]) if "head" in parsed else None
        if head is not None and not unknown and parsed["facts"][-1][0] <= floor:
            return History(head, floor, (), (), newest_event, restatement_due, first, kept, unknown=head.has_unknown())
        facts = tuple(_restored_fact(*fact) for fact in parsed["facts"])
        late = tuple(int(version) for version in parsed.get("late", ()))
        base = _restore(state, parsed["base"])
        history = History(base, int(parsed["floor"]), facts, late, newest_event, restatement_due, first, kept, head)
        if history.has_unknown():
            return replace(history, unknown=True)
        # What was unknown to an older release is not to this one: the head is not all that follows from the facts.
        return replace(history, head=None) if unknown else history
    except (NewerFormat, _NewerValue) as error:
        raise NewerRecord(str(error), first) from error
    except (AttributeError, IndexError, KeyError, OverflowError, TypeError, ProtocolError) as error:
        raise ValueError(f"not a history: {error!r}") from error


class _NewerValue(Exception):
    """A field of a state has a value that this release does not know."""


_RETIRED_FIELDS: Mapping[type, tuple[str, ...]] = {ConnectionState: ("incarnation", "browser_info")}
"""Fields that earlier releases wrote into histories; they are ignored."""


def _restore(state: type[S], values: dict[str, Any]) -> S:
    """Make a state from its JSON object, which lacks the fields that are `None`."""
    layout = _layout_of(state)
    if values == {}:
        return blank_state(state)
    for name in _RETIRED_FIELDS.get(state, ()):
        values.pop(name, None)
    for name, enum in layout.enums:
        if (value := values.get(name)) is not None:
            try:
                values[name] = enum(value)
            except ValueError:
                if not isinstance(value, str):
                    raise
                raise _NewerValue(f"{name} is {value!r}") from None
    for name, model in layout.models:
        if values.get(name) is not None:
            values[name] = model.model_validate(values[name])
    for name, part in layout.parts:
        if values.get(name) is not None:
            values[name] = _make(part, values[name])
    for name, element in layout.tuples:
        if name in values:
            items = values[name]
            values[name] = tuple(_make(element, item) for item in items) if element is not None else tuple(items)
    return _make(state, values)


def _make(kind: type[S], values: dict[str, Any]) -> S:
    """Make a state, or a part of one, of its fields; those that it does not have are its `unknown_fields`."""
    try:
        return kind(**values)
    except TypeError:
        known = _layout_of(kind).names
        unknown = {name: value for name, value in values.items() if name not in known}
        if not unknown:
            raise
        return kind(**{name: value for name, value in values.items() if name in known}, unknown_fields=unknown)


@dataclass(frozen=True, slots=True)
class _Layout:
    """How the fields of a state, or of a part of one, are stored.

    `names`: of all its fields. `blank`: the state before all facts. `defaults`: what the fields of a state hold when
    they are not stored. `enums`, `models`, `parts`, `tuples`: the fields that hold a member of an enum, a pydantic
    model, a part, or a tuple, with the enum, model or part; of a tuple that of its elements (`None`: plain values).
    `composed`: those of parts.
    """

    names: tuple[str, ...]
    blank: Any
    defaults: tuple[tuple[str, Any], ...]
    enums: tuple[tuple[str, type[StrEnum]], ...]
    models: tuple[tuple[str, type[BaseModel]], ...]
    parts: tuple[tuple[str, type[StoredState]], ...]
    tuples: tuple[tuple[str, type[StoredState] | None], ...]
    composed: tuple[str, ...]


_LAYOUTS: dict[type, _Layout] = {}


def _layout_of(kind: type[StoredState]) -> _Layout:
    if (layout := _LAYOUTS.get(kind)) is not None:
        return layout
    stored = [one for one in fields(kind) if one.compare]
    hints = get_type_hints(kind)
    # Whatever a field may hold besides `None`.
    types = {one.name: [option for option in _options(hints[one.name]) if isinstance(option, type)] for one in stored}
    tuples = {name: get_args(hint)[0] for name, hint in hints.items() if get_origin(hint) is tuple}
    required = any(one.default is MISSING and one.default_factory is MISSING for one in stored)
    parts = tuple((name, one) for name, of in types.items() for one in of if issubclass(one, StoredState))
    blank = None if required else kind()
    layout = _LAYOUTS[kind] = _Layout(
        names=tuple(types),
        blank=blank,
        defaults=() if required else tuple((name, getattr(blank, name)) for name in types),
        enums=tuple((name, one) for name, of in types.items() for one in of if issubclass(one, StrEnum)),
        models=tuple((name, one) for name, of in types.items() for one in of if issubclass(one, BaseModel)),
        parts=parts,
        tuples=tuple((name, one if _is_part(one) else None) for name, one in tuples.items()),
        composed=tuple(name for name, one in (*parts, *tuples.items()) if _is_part(one)),
    )
    return layout


def _options(hint: Any) -> tuple[Any, ...]:
    return get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)


def _is_part(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, StoredState)
