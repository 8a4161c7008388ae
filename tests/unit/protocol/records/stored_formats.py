"""What is stored, as an older release has to read it: the facts of the log, and the states of records.

`python -m tests.unit.protocol.records.stored_formats` writes it down when a release is tagged.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import MISSING, fields
from enum import StrEnum
from pathlib import Path
from typing import Any, get_args, get_type_hints

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from protocol.messages.base import FORMAT
from protocol.messages.facts import STATUS_MESSAGES
from protocol.records.kinds import CONNECTION, MOBILE_SYNC, NOTICES, PLAN, PLAN_NOTICES, SERVER
from protocol.rules.history import StoredState

RELEASED = Path(__file__).with_suffix(".json")
KINDS = (CONNECTION, MOBILE_SYNC, NOTICES, PLAN, PLAN_NOTICES, SERVER)
_TEXTS = ("title", "description", "default", "examples")

Description = dict[str, Any]


def describe() -> Description:
    """Describe what this release stores: its format, types, fields and values."""
    _, schema = models_json_schema([(model, "validation") for model in STATUS_MESSAGES], by_alias=True)
    shapes = schema["$defs"]
    types = {model.__name__: (model.type, model.format) for model in STATUS_MESSAGES}
    parts = {name: _shape(shape) for name, shape in shapes.items() if name not in types}
    return {
        "format": FORMAT,
        "facts": {types[name][0]: _shape(shapes[name]) | {"format": types[name][1]} for name in sorted(types)},
        "parts": {name: parts[name] for name in sorted(parts)},
        "states": {state.__name__: _fields(state) for state in sorted(_states(), key=lambda one: one.__name__)},
        "values": {
            enum.__name__: [value.value for value in enum] for enum in sorted(_enums(), key=lambda e: e.__name__)
        },
    }


def _shape(schema: Description) -> Description:
    """Reduce the schema of a model, or of an enum, to what decides whether something is read."""
    if "properties" not in schema:
        return {"values": schema["enum"]}
    properties = {name: json.dumps(_without_texts(one)) for name, one in schema["properties"].items()}
    return {"required": sorted(schema.get("required", ())), "fields": properties}


def _without_texts(schema: Any) -> Any:
    if isinstance(schema, dict):
        return {name: _without_texts(value) for name, value in schema.items() if name not in _TEXTS}
    return [_without_texts(value) for value in schema] if isinstance(schema, list) else schema


def _states() -> set[type[StoredState]]:
    """Return the states of all records, and their parts."""
    found: set[type[StoredState]] = set()
    waiting: list[type[StoredState]] = [kind.state for kind in KINDS]
    while waiting:
        found.add(state := waiting.pop())
        waiting += [one for one in _types_in(state) if issubclass(one, StoredState) and one not in found]
    return found


def _enums() -> set[type[StrEnum]]:
    return {one for state in _states() for one in _types_in(state) if issubclass(one, StrEnum)}


def _types_in(state: type) -> Iterator[type]:
    for hint in get_type_hints(state).values():
        yield from (one for one in (hint, *get_args(hint)) if isinstance(one, type))


def _fields(state: type[StoredState]) -> Description:
    """Return the fields of a state: the type of each, and what it holds when it is not stored."""
    return {one.name: f"{one.type} = {_default(one)}" for one in fields(state) if one.compare}


def _default(one: Any) -> str:
    if one.default is not MISSING:
        value = one.default
    elif one.default_factory is not MISSING:
        value = one.default_factory()
    else:
        return "(required)"
    return value.model_dump_json(exclude_none=True) if isinstance(value, BaseModel) else str(value)


def breaks(released: Description, present: Description) -> Iterator[str]:
    """Yield what a reader of the `released` description would not understand, or understand wrongly."""
    for type_, shape in present["facts"].items():
        if (known := released["facts"].get(type_)) is None:
            yield f"the fact {type_} is new"
        else:
            yield from _shape_breaks(f"the fact {type_}", known, shape)
    for name, shape in present["parts"].items():
        if (known := released["parts"].get(name)) is not None:
            yield from _shape_breaks(name, known, shape)
    for state, stored in present["states"].items():
        known = released["states"].get(state, stored)
        yield from (f"{state}.{name} was {known[name]!r}" for name in known if stored.get(name) != known[name])
        yield from (
            f"{state}.{name} is new and required" for name in stored if name not in known and "(req" in stored[name]
        )
    for enum, values in present["values"].items():
        yield from _value_breaks(enum, released["values"].get(enum, values), values)
    gone = [(kind, name) for kind in ("facts", "states") for name in released[kind] if name not in present[kind]]
    yield from (f"{name} ({kind}) is gone" for kind, name in gone)


def _shape_breaks(name: str, known: Description, shape: Description) -> Iterator[str]:
    if "values" in known:
        yield from _value_breaks(name, known["values"], shape.get("values", []))
        return
    for field, content in known["fields"].items():
        if shape["fields"].get(field) != content:
            yield f"{name}: {field} was {content}"
    for field in shape["required"]:
        if field not in known["required"]:
            yield f"{name}: {field} is required now"


def _value_breaks(name: str, known: list[str], values: list[str]) -> Iterator[str]:
    yield from (f"{name} has a new value {value}" for value in values if value not in known)
    yield from (f"{name} has no value {value} any more" for value in known if value not in values)


if __name__ == "__main__":
    RELEASED.write_text(json.dumps(describe(), indent=1) + "\n")
