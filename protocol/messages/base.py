"""The base of all messages: `{"type": …, "data": {…}}` on the wire, in camelCase there and snake_case here.

Readers ignore unknown fields, so that actors of different versions can work together. What a reader must know to
understand a message at all has a number, its `format`. The messages are in `facts`, `plan_facts`, `proctor_events`,
`server_messages`, `session_messages`, `frames` and `operator_requests`.
"""

from __future__ import annotations

import unicodedata
from functools import cache
from typing import Annotated, Any, ClassVar, get_args

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field
from pydantic.alias_generators import to_camel

from protocol.messages.trace_context import Traceparent

FORMAT = 1
"""The newest format of messages and records that this release understands.

It grows when there is something that a reader must know: a new type of message, a new value of an enum, a new required
field, a changed meaning. A new optional field needs no new format (CONTRIBUTING.md, "Change what is stored").
"""

Text = Annotated[str, Field(max_length=256)]
Reason = Annotated[str, Field(pattern=r"^[A-Z][A-Z0-9_]{0,63}$")]

NAME_PATTERN = r"^[^\x00-\x1f\x7f]{1,100}$"
"""A name is shown on one line: 1 to 100 characters, no control characters."""

Name = Annotated[str, Field(pattern=NAME_PATTERN)]

MAX_LABELS = 8
MAX_LABEL_NAME = 32


def check_label_name(name: str) -> str:
    """Return the name of a label: a letter of any script, then letters, digits, `-` and `_`. Raises `ValueError`."""
    letters = name[:1].isalpha() and all(
        character in "-_" or unicodedata.category(character)[0] in "LMN" for character in name
    )
    if not letters or len(name) > MAX_LABEL_NAME:
        raise ValueError(f"must begin with a letter and have at most {MAX_LABEL_NAME} letters, digits, - and _")
    return name


LabelName = Annotated[str, AfterValidator(check_label_name), Field(min_length=1, max_length=MAX_LABEL_NAME)]

Labels = Annotated[dict[LabelName, Name], Field(max_length=MAX_LABELS)]
"""What the roster says of an examinee besides the name, by the name of the label: `{"room": "A", "seat": "12"}`."""

NoticeText = Annotated[str, Field(min_length=1, max_length=1000)]
"""A message between people."""

Version = Annotated[int, Field(ge=0, lt=2**53, strict=True)]
"""A place in the log (`protocol.log.version`); JavaScript counts exactly up to 2^53."""

ActionId = Annotated[str, Field(min_length=1, max_length=64)]
"""Names one action of a person; a retry repeats the id, and the action still has one effect."""


def unknown_as(stand_in: str, *known: str) -> BeforeValidator:
    """Read a value that only a newer release knows as `stand_in`: for views, which must not fail because of it."""
    return BeforeValidator(lambda value: stand_in if isinstance(value, str) and value not in known else value)


class Wire(BaseModel):
    """The base of every model that is part of a payload."""

    model_config = ConfigDict(
        alias_generator=to_camel,
        validate_by_name=True,
        validate_by_alias=True,
        extra="ignore",
        allow_inf_nan=False,  # JSON has no such numbers: they would be written as null
    )

    def has_unknown(self) -> bool:
        """Return whether it, or a part of it, keeps fields that this release does not know (`Stored`)."""
        if self.__pydantic_extra__:
            return True
        for name in _stored_parts(type(self)):
            part = getattr(self, name)
            if part is not None and part.has_unknown():
                return True
        return False


class Message(Wire):
    """A message: `type` is its name on the wire, its fields are its `data`.

    class Stop(Message):
        type: ClassVar[str] = "stop"
    """

    type: ClassVar[str]
    format: ClassVar[int] = 1
    """The format that a reader must know to understand this type. Readers that do not leave it to newer ones."""

    def required_format(self) -> int:
        """Return the format that a reader must know to understand this message.

        A message overrides it when that depends on its content: a value of an enum that is newer than the type.
        """
        return self.format

    def data(self) -> dict[str, Any]:
        """Return the `data` object as JSON-ready values, without `null`s."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)


class Stored(Wire):
    """The base of what is stored in the log and in records: fields that only newer releases know are kept."""

    model_config = ConfigDict(extra="allow")


@cache
def _stored_parts(model: type[Wire]) -> tuple[str, ...]:
    """Return the fields of a model that hold a part which keeps unknown fields, or `None`."""
    return tuple(
        name
        for name, field in model.model_fields.items()
        for option in (field.annotation, *get_args(field.annotation))
        if isinstance(option, type) and issubclass(option, Stored)
    )


class Traced(Message):
    """A message that may be part of a trace (W3C `traceparent`); absent when it is not traced."""

    traceparent: Traceparent = None
