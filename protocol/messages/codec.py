"""Payloads: one message or a JSON array of messages; whatever is ready together travels together."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import pydantic
import pydantic_core

from protocol.errors import ErrorCode, InvalidField, ProtocolError
from protocol.messages.base import Message
from protocol.texts import has_lone_surrogate

MAX_BATCH_MESSAGES = 256
MAX_BATCH_BYTES = 256 * 1024


@dataclass(frozen=True, slots=True)
class Malformed:
    """An element of a payload that is no message we know; its neighbours are not affected."""

    index: int
    error: ProtocolError
    raw: bytes


class Element(NamedTuple):
    """A message, and the `{"type", "data"}` that it was parsed from, with fields that only newer readers know."""

    message: Message
    parsed: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Codec:
    """Decodes the messages of one direction, by `type`."""

    models: dict[str, type[Message]]

    @classmethod
    def of(cls, models: Iterable[type[Message]]) -> Codec:
        return cls({model.type: model for model in models})

    def decode_batch(self, payload: bytes | str) -> list[Message | Malformed]:
        """The messages of a payload in their order; an element's place is its `index` (see `versions`)."""
        return [one if isinstance(one, Malformed) else one.message for one in self.decode_elements(payload)]

    def decode_elements(self, payload: bytes | str) -> list[Element | Malformed]:
        """As `decode_batch`, each message with what it was parsed from."""
        raw = _to_bytes(payload)
        try:
            parsed = parse_json(raw)
        except ValueError as error:
            return [Malformed(0, ProtocolError(ErrorCode.INVALID_JSON, f"not JSON: {error}"), raw)]
        elements = parsed if isinstance(parsed, list) else [parsed]
        if len(elements) > MAX_BATCH_MESSAGES:
            detail = f"an array of {len(elements)} messages; at most {MAX_BATCH_MESSAGES} travel together"
            return [Malformed(0, ProtocolError(ErrorCode.TOO_LARGE, detail), raw)]
        decoded: list[Element | Malformed] = []
        for index, element in enumerate(elements):
            try:
                decoded.append(Element(self.from_element(element), element))
            except ProtocolError as error:
                decoded.append(Malformed(index, error, encode_element(element)))
        return decoded

    def decode_one(self, payload: bytes | str) -> Message:
        """The single message of a payload. Raises `ProtocolError` with the code, the field and what was wrong."""
        try:
            parsed = parse_json(_to_bytes(payload))
        except ValueError as error:
            raise ProtocolError(ErrorCode.INVALID_JSON, f"not JSON: {error}") from None
        return self.from_element(parsed)

    def from_element(self, element: Any) -> Message:
        """A message from its parsed `{"type", "data"}`. Raises `ProtocolError`."""
        if isinstance(element, _Damaged):
            raise element.error
        if not isinstance(element, dict):
            raise ProtocolError(ErrorCode.INVALID_MESSAGE, 'a message is an object {"type", "data"}')
        kind = element.get("type")
        if not isinstance(kind, str):
            raise ProtocolError(ErrorCode.INVALID_MESSAGE, "must be a string", "type")
        model = self.models.get(kind)
        if model is None:
            raise ProtocolError(ErrorCode.UNKNOWN_TYPE, f"{kind[:64]!r} is not known here", "type")
        data = element.get("data", {})
        if not isinstance(data, dict):
            raise ProtocolError(ErrorCode.INVALID_MESSAGE, "must be an object", "data")
        try:
            return model.model_validate(data)
        except pydantic.ValidationError as error:
            raise field_error(error) from None


def parse_json(raw: bytes) -> Any:
    """JSON as Python values. Raises `ValueError`.

    Half of a surrogate pair in a string is JSON (RFC 8259, 8.2) and no text. pydantic's parser refuses all of a payload
    for it and does not say where. Here it spoils only its own element of an array (`from_element` refuses it by the
    field's name), so that whoever sent it is told which of their messages that was.
    """
    try:
        return pydantic_core.from_json(raw, allow_inf_nan=False)
    except ValueError as error:
        if not _ESCAPED_SURROGATE.search(raw):
            raise
        try:
            parsed = json.loads(raw.decode(), parse_constant=_refuse_constant)
            return [_mark_damaged(one) for one in parsed] if isinstance(parsed, list) else _mark_damaged(parsed)
        except (ValueError, RecursionError):
            raise error from None


_ESCAPED_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")


class _Damaged(dict[str, Any]):
    """A parsed object in which there are halves of surrogate pairs, and what is said of it."""

    def __init__(self, element: dict[str, Any], error: ProtocolError) -> None:
        super().__init__(element)
        self.error = error


def _mark_damaged(element: Any) -> Any:
    """The element, as `_Damaged` if there are any in it."""
    where = _find_lone_surrogate(element)
    if where is None:
        return element
    what = "has half of a surrogate pair, which is no character"
    if not isinstance(element, dict) or where == "type":
        unnamed = ProtocolError(ErrorCode.INVALID_JSON, f"not JSON: {what}")
        return _Damaged(element if isinstance(element, dict) else {"element": element}, unnamed)
    return _Damaged(element, InvalidField(where, what))


def _find_lone_surrogate(value: Any, path: str = "") -> str | None:
    """Where a string of parsed JSON holds half of a surrogate pair (`data.text`)."""
    if isinstance(value, str):
        return path if has_lone_surrogate(value) else None
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, one in inner:
        if isinstance(name, str) and has_lone_surrogate(name):
            return path or "data"
        if (found := _find_lone_surrogate(one, f"{path}.{name}" if path else str(name))) is not None:
            return found
    return None


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no number")


def encode_element(element: Any) -> bytes:
    """Parsed JSON as JSON again, whatever `parse_json` has let through."""
    try:
        return pydantic_core.to_json(element)
    except ValueError:
        return json.dumps(element).encode()


def extract_element(payload: bytes, index: int) -> bytes:
    """One message of a payload, as it was sent; all of it, when it is no array or not JSON."""
    try:
        parsed = parse_json(payload)
    except ValueError:
        return payload
    return encode_element(parsed[index]) if isinstance(parsed, list) else payload


def _to_bytes(payload: bytes | str) -> bytes:
    # A lone surrogate has no UTF-8: encoded all the same, the parser refuses it like any other bad payload.
    return payload if isinstance(payload, bytes) else payload.encode(errors="surrogatepass")


def field_error(error: pydantic.ValidationError, prefix: str = "data") -> ProtocolError:
    """The first complaint of a pydantic error as one clear error with its field."""
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    path = ".".join([prefix, *(str(part) for part in first["loc"])] if prefix else [str(p) for p in first["loc"]])
    return ProtocolError(ErrorCode.INVALID_FIELD, first["msg"], path)


def encode(message: Message) -> bytes:
    """`{"type": …, "data": {…}}` as UTF-8 JSON."""
    body = message.__pydantic_serializer__.to_json(message, by_alias=True, exclude_none=True)
    return b'{"type":"%s","data":%s}' % (message.type.encode(), body)


def join_batch(encoded: Sequence[bytes]) -> bytes:
    """Encoded messages as one payload: a lone one as it is, several as an array."""
    return encoded[0] if len(encoded) == 1 else b"[" + b",".join(encoded) + b"]"


def split_batches(sizes: Sequence[int]) -> list[slice]:
    """Cut a sequence of encoded sizes (bytes) into runs that fit one payload each."""
    cuts: list[slice] = []
    start = total = 0
    for index, size in enumerate(sizes):
        if index > start and (index - start >= MAX_BATCH_MESSAGES or total + size + 2 > MAX_BATCH_BYTES):
            cuts.append(slice(start, index))
            start, total = index, 0
        total += size + 1
    if start < len(sizes):
        cuts.append(slice(start, len(sizes)))
    return cuts


def encode_batches(messages: Sequence[Message]) -> list[bytes]:
    """Messages as the fewest payloads of at most 256 messages and 256 KiB each."""
    encoded = [encode(message) for message in messages]
    return [join_batch(encoded[cut]) for cut in split_batches([len(one) for one in encoded])]
