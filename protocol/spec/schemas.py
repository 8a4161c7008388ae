"""JSON schemas of the models, as they are on the wire.

Two things of pydantic's own schemas are not true of our wire: `type` is no field of a model (a message is
`{"type", "data"}`), and a field that is `None` by default is left out instead of being written as `null`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal

from pydantic.json_schema import CoreRef, DefsRef, GenerateJsonSchema, JsonSchemaMode, models_json_schema
from pydantic_core import CoreSchema, core_schema

from protocol.messages.base import Message, Wire
from protocol.messages.codec import MAX_BATCH_MESSAGES

Schema = dict[str, Any]
Direction = Literal["read", "written"]
"""`read`: what is accepted from somebody else, with defaults left out. `written`: what is sent, with all that is not
empty."""

REFERENCE = "#/components/schemas/{model}"
PUBLISHED_NAMES = {"TimelineEntry": "Happening", "EntryKind": "What", "MobileSyncStage": "StageTold"}
"""Models whose schema keeps the name under which it was first published: others generate code from these names."""
_MODES: Mapping[Direction, JsonSchemaMode] = {"read": "validation", "written": "serialization"}


class _WireSchema(GenerateJsonSchema):
    """A field that is `None` by default is left out when it is; one without a default is written as `null`.

    Tuples are as draft 7 of JSON Schema has them, which AsyncAPI builds on.
    """

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False  # it would only repeat the field's name

    def default_schema(self, schema: core_schema.WithDefaultSchema) -> Schema:
        if _may_be_left_out(schema):
            return self.generate_inner(_without_null(schema["schema"]))
        return super().default_schema(schema)

    def field_is_required(
        self,
        field: core_schema.ModelField | core_schema.DataclassField | core_schema.TypedDictField,
        total: bool,
    ) -> bool:
        if self.mode == "serialization":
            return not _may_be_left_out(field["schema"])
        return super().field_is_required(field, total)

    def get_defs_ref(self, core_mode_ref: tuple[CoreRef, JsonSchemaMode]) -> DefsRef:
        reference, mode = core_mode_ref
        for name, published in PUBLISHED_NAMES.items():
            reference = CoreRef(reference.replace(f".{name}:", f".{published}:"))
        return super().get_defs_ref((reference, mode))

    def tuple_schema(self, schema: core_schema.TupleSchema) -> Schema:
        found = super().tuple_schema(schema)
        if "prefixItems" in found:
            found["items"] = found.pop("prefixItems")
        return found


def _may_be_left_out(schema: CoreSchema) -> bool:
    return schema["type"] == "default" and schema.get("default") is None and "default_factory" not in schema


def _without_null(schema: CoreSchema) -> CoreSchema:
    match schema["type"]:
        case "nullable":
            inner: CoreSchema = schema["schema"]
            return inner
        case "function-before":
            return _without_null(schema["schema"])
        case _:
            return schema


class Components:
    """Schemas that a document refers to by name. `schemas` are for its `components`."""

    def __init__(self) -> None:
        self.schemas: dict[str, Schema] = {}
        self._references: dict[tuple[type[Wire], JsonSchemaMode], Schema] = {}

    def add(self, *, read: Iterable[type[Wire]] = (), written: Iterable[type[Wire]] = ()) -> None:
        """Take in models and what they consist of. Raises `ValueError` when a name is taken by another schema."""
        wanted: list[tuple[type[Wire], JsonSchemaMode]] = []
        wanted += [(model, _MODES["read"]) for model in dict.fromkeys(read)]
        wanted += [(model, _MODES["written"]) for model in dict.fromkeys(written)]
        references, found = models_json_schema(
            wanted,
            by_alias=True,
            ref_template=REFERENCE,
            schema_generator=_WireSchema,
        )
        for key, reference in references.items():
            assert issubclass(key[0], Wire)
            self._references[key[0], key[1]] = reference
        for name, schema in found.get("$defs", {}).items():
            self.name(name, {**schema, "title": name})

    def name(self, name: str, schema: Schema) -> Schema:
        """Put a schema under a name; a reference to it. Raises `ValueError` when the name is taken by another one."""
        if self.schemas.setdefault(name, schema) != schema:
            raise ValueError(f"two different schemas would be called {name}")
        return {"$ref": REFERENCE.format(model=name)}

    def of(self, model: type[Wire], direction: Direction) -> Schema:
        """A reference to a model that was taken in."""
        return self._references[model, _MODES[direction]]

    def message(self, group: str, model: type[Message], direction: Direction) -> Schema:
        """A reference to `{"type": …, "data": …}` of a message, under `{group}.{type}`."""
        data = self.of(model, direction)
        content = self.schemas[data["$ref"].rpartition("/")[2]]
        # A frame whose fields may all be left out may leave out `data` as well.
        may_leave_out = direction == "read" and not content.get("required")
        return self.name(
            f"{group}.{model.type}",
            {
                "type": "object",
                "properties": {"type": {"const": model.type}, "data": data},
                "required": ["type"] if may_leave_out else ["type", "data"],
            },
        )


def array_of(messages: Iterable[Schema]) -> Schema:
    """What is ready together travels together (`protocol.messages.codec`)."""
    return {"type": "array", "minItems": 1, "maxItems": MAX_BATCH_MESSAGES, "items": {"oneOf": list(messages)}}
