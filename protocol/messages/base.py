"""The wire between actors: `{"type": …, "data": {…}}`, camelCase on it, snake_case here.

Types and fields of the documents are kept to the letter; each message names its document. Fields that the
documents do not have are additions of ours, and fields we do not know are ignored, so that versions can mix.
What is said is in `facts`, `events`, `server_messages`, `session_messages`, `frames` and `control`.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from protocol.messages.trace_context import Traceparent

Text = Annotated[str, Field(max_length=256)]
Reason = Annotated[str, Field(pattern=r"^[A-Z][A-Z0-9_]{0,63}$")]

NAME_PATTERN = r"^[^\x00-\x1f\x7f]{1,100}$"
"""Shown to people on one line: no control characters, and no more of it than fits."""

Name = Annotated[str, Field(pattern=NAME_PATTERN)]

Version = Annotated[int, Field(ge=0, lt=2**53, strict=True)]
"""A place in the log (`protocol.log.version`); JavaScript counts exactly up to 2^53."""

ActionId = Annotated[str, Field(min_length=1, max_length=64)]
"""Made by whoever acts, the same for a retry: an action has one effect, however often it is said."""


class Wire(BaseModel):
    """Anything that has a place in a payload."""

    model_config = ConfigDict(
        alias_generator=to_camel,
        validate_by_name=True,
        validate_by_alias=True,
        extra="ignore",
        allow_inf_nan=False,  # JSON has no such numbers: they would be written as null
    )


class Message(Wire):
    """One message; `type` is its name on the wire, the fields are its `data`."""

    type: ClassVar[str]

    def data(self) -> dict[str, Any]:
        """The `data` object as JSON-ready values, `null`s left out."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)


class Traced(Message):
    """What may be part of a trace (W3C `traceparent`, an addition); absent when nothing is traced."""

    traceparent: Traceparent = None
