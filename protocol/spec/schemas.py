"""JSON schemas of the models as they are on the wire.

They differ from pydantic's schemas in two ways. A message is `{"type", "data"}`, though `type` is not a field of the
model. A field whose default is `None` is left out instead of written as `null`.
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
"""`read`: the schema of accepted messages, where fields with a default may be missing. `written`: that of sent
messages, where only fields that are `None` are missing."""

INTEGER: Schema = {"type": "integer"}
FORMAT_SCHEMA: Schema = {
    "type": "integer",
    "minimum": 1,
    "default": 1,
    "description": "What a reader must know to understand the message; one that does not know it ignores the message.",
}
TEXT: Schema = {"type": "string"}

REFERENCE = "#/components/schemas/{model}"
PUBLISHED_NAMES = {"TimelineEntry": "Happening", "EntryKind": "What", "MobileSyncStage": "StageTold"}
"""Models whose schema keeps its first published name, because others generate code from these names."""
_MODES: Mapping[Direction, JsonSchemaMode] = {"read": "validation", "written": "serialization"}


class _WireSchema(GenerateJsonSchema):
    """Generates schemas in which a field with the default `None` is optional, and one without a default may be `null`.

    Tuples have the form of JSON Schema draft 7, on which AsyncAPI is based.
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

    def model_schema(self, schema: core_schema.ModelSchema) -> Schema:
        generated = super().model_schema(schema)
        if generated.get("additionalProperties") is True:
            del generated["additionalProperties"]  # what is stored keeps unknown fields; nobody is asked to send some
        return generated

    def get_defs_ref(self, core_mode_ref: tuple[CoreRef, JsonSchemaMode]) -> DefsRef:
        reference, mode = core_mode_ref
        for name, published in PUBLISHED_NAMES.items():
            reference = CoreRef(reference.replace(f".{name}:", f".{published}:"))
        return super().get_defs_ref((reference, mode))

    def tuple_schema(self, schema: core_schema.TupleSchema) -> Schema:
        generated = super().tuple_schema(schema)
        if "prefixItems" in generated:
            generated["items"] = generated.pop("prefixItems")
        return generated


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
    """The named schemas of a document, for its `components.schemas`.

    components = Components()
    components.add(written=[QueueCreated])
    components.message("queue", QueueCreated, "written")  # {"$ref": "#/components/schemas/queue.queue_created"}
    """

    def __init__(self) -> None:
        self.schemas: dict[str, Schema] = {}
        self._references: dict[tuple[type[Wire], JsonSchemaMode], Schema] = {}

    def add(self, *, read: Iterable[type[Wire]] = (), written: Iterable[type[Wire]] = ()) -> None:
        """Add the schemas of models and of their parts. Raises `ValueError` when a name has another schema already."""
        models: list[tuple[type[Wire], JsonSchemaMode]] = []
        models += [(model, _MODES["read"]) for model in dict.fromkeys(read)]
        models += [(model, _MODES["written"]) for model in dict.fromkeys(written)]
        references, definitions = models_json_schema(
            models,
            by_alias=True,
            ref_template=REFERENCE,
            schema_generator=_WireSchema,
        )
        for key, reference in references.items():
            assert issubclass(key[0], Wire)
            self._references[key[0], key[1]] = reference
        for name, schema in definitions.get("$defs", {}).items():
            self.name(name, {**schema, "title": name})

    def name(self, name: str, schema: Schema) -> Schema:
        """Add a schema and return a reference to it. Raises `ValueError` when the name has another schema already."""
        if self.schemas.setdefault(name, schema) != schema:
            raise ValueError(f"two different schemas would be called {name}")
        return {"$ref": REFERENCE.format(model=name)}

    def of(self, model: type[Wire], direction: Direction) -> Schema:
        """Return a reference to the schema of an added model."""
        return self._references[model, _MODES[direction]]

    def message(self, group: str, model: type[Message], direction: Direction) -> Schema:
        """Add the schema `{group}.{type}` of a message, `{"type": …, "data": …}`, and return a reference to it."""
        data = self.of(model, direction)
        content = self.schemas[data["$ref"].rpartition("/")[2]]
        # When all fields are optional, `data` is optional too.
        may_leave_out = direction == "read" and not content.get("required")
        return self.name(
            f"{group}.{model.type}",
            {
                "type": "object",
                "properties": {"type": {"const": model.type}, "format": FORMAT_SCHEMA, "data": data},
                "required": ["type"] if may_leave_out else ["type", "data"],
            },
        )


def array_of(messages: Iterable[Schema]) -> Schema:
    """Return the schema of an array of these messages (`protocol.messages.codec`)."""
    return {"type": "array", "minItems": 1, "maxItems": MAX_BATCH_MESSAGES, "items": {"oneOf": list(messages)}}
