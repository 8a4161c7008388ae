"""Encode and decode payloads: one message, or a JSON array of messages that were ready together."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import pydantic
import pydantic_core

from protocol.errors import ErrorCode, InvalidField, NewerFormat, ProtocolError
from protocol.messages.base import FORMAT, Message
from protocol.texts import has_lone_surrogate

MAX_BATCH_MESSAGES = 256
MAX_BATCH_BYTES = 256 * 1024


@dataclass(frozen=True, slots=True)
class Malformed:
    """An element of a payload that is not a valid message; its neighbours are not affected."""

    index: int
    error: ProtocolError
    raw: bytes

    @property
    def newer(self) -> bool:
        """Whether only a newer release understands it: leave it to that one."""
        return isinstance(self.error, NewerFormat)


class Element(NamedTuple):
    """A message, and the `{"type", "data"}` it was parsed from, which may have fields of newer versions."""

    message: Message
    parsed: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Codec:
    """Decodes the messages of one direction, by `type`. `keeps_unknown`: what is stored keeps its unknown fields.

    codec = Codec.of((Drain, Stop))
    codec.decode_one(b'{"type":"stop"}')  # Stop()
    codec.decode_batch(b'[{"type":"stop"},{"type":"stop"}]')  # [Stop(), Stop()]
    """

    models: dict[str, type[Message]]
    keeps_unknown: bool = False

    @classmethod
    def of(cls, models: Iterable[type[Message]], *, keeps_unknown: bool = False) -> Codec:
        """Make a codec of these messages."""
        return cls({model.type: model for model in models}, keeps_unknown)

    def decode_batch(self, payload: bytes | str) -> list[Message | Malformed]:
        """Return the messages of a payload in order, with a `Malformed` in the place of each that is not valid."""
        return [
            element if isinstance(element, Malformed) else element.message for element in self.decode_elements(payload)
        ]

    def decode_elements(self, payload: bytes | str) -> list[Element | Malformed]:
        """Return the messages of a payload as `decode_batch` does, each with the object it was parsed from."""
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
        """Return the only message of a payload. Raises `ProtocolError` with the code, the detail and the field."""
        try:
            parsed = parse_json(_to_bytes(payload))
        except ValueError as error:
            raise ProtocolError(ErrorCode.INVALID_JSON, f"not JSON: {error}") from None
        return self.from_element(parsed)

    def from_element(self, element: Any) -> Message:
        """Return a message from its parsed `{"type", "format"?, "data"}`.

        Raises `ProtocolError`: `NewerFormat` when only a newer release understands it.
        """
        if isinstance(element, _Damaged):
            raise element.error
        if not isinstance(element, dict):
            raise ProtocolError(ErrorCode.INVALID_MESSAGE, 'a message is an object {"type", "data"}')
        kind = element.get("type")
        if not isinstance(kind, str):
            raise ProtocolError(ErrorCode.INVALID_MESSAGE, "must be a string", "type")
        if "format" in element:
            check_format(element["format"], f"{kind[:64]!r}")
        model = self.models.get(kind)
        if model is None:
            raise ProtocolError(ErrorCode.UNKNOWN_TYPE, f"{kind[:64]!r} is not known here", "type")
        data = element.get("data", {})
        if not isinstance(data, dict):
            raise ProtocolError(ErrorCode.INVALID_MESSAGE, "must be an object", "data")
        try:
            return model.model_validate(data, extra=None if self.keeps_unknown else "ignore")
        except pydantic.ValidationError as error:
            raise field_error(error) from None


def check_format(number: Any, what: str) -> None:
    """Raise `NewerFormat` when `what` has a format that this release does not know; `InvalidField` when it is none."""
    if not isinstance(number, int) or isinstance(number, bool) or number < 1:
        raise InvalidField("format", "must be a number from 1 on")
    if number > FORMAT:
        raise NewerFormat(f"{what} has format {number}; this release knows formats up to {FORMAT}", "format")


def parse_json(raw: bytes) -> Any:
    """Parse JSON to Python values. Raises `ValueError`.

    A lone surrogate in a string (RFC 8259, 8.2) is valid JSON, but not text. pydantic's parser refuses the whole
    payload for it and does not say where it is. Here only the element of the array that holds it is refused
    (`Codec.from_element`, with the field's name), so that the sender learns which message was wrong.
    """
    try:
        return pydantic_core.from_json(raw, allow_inf_nan=False)
    except ValueError as error:
        if not _ESCAPED_SURROGATE.search(raw):
            raise
        try:
            parsed = json.loads(raw.decode(), parse_constant=_refuse_constant)
            if isinstance(parsed, list):
                return [_mark_damaged(element) for element in parsed]
            return _mark_damaged(parsed)
        except (ValueError, RecursionError):
            raise error from None


_ESCAPED_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")


class _Damaged(dict[str, Any]):
    """A parsed object with a lone surrogate in it, and the error to raise for it."""

    def __init__(self, element: dict[str, Any], error: ProtocolError) -> None:
        super().__init__(element)
        self.error = error


def _mark_damaged(element: Any) -> Any:
    """Return the element, as `_Damaged` if it holds a lone surrogate."""
    path = _find_lone_surrogate(element)
    if path is None:
        return element
    detail = "has half of a surrogate pair, which is no character"
    if not isinstance(element, dict) or path == "type":
        error = ProtocolError(ErrorCode.INVALID_JSON, f"not JSON: {detail}")
        return _Damaged(element if isinstance(element, dict) else {"element": element}, error)
    return _Damaged(element, InvalidField(path, detail))


def _find_lone_surrogate(value: Any, path: str = "") -> str | None:
    """Return the path (`data.text`) of the first string of parsed JSON that holds a lone surrogate."""
    if isinstance(value, str):
        return path if has_lone_surrogate(value) else None
    members = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, member in members:
        if isinstance(name, str) and has_lone_surrogate(name):
            return path or "data"
        if (inner := _find_lone_surrogate(member, f"{path}.{name}" if path else str(name))) is not None:
            return inner
    return None


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not a number")


def encode_element(element: Any) -> bytes:
    """Encode parsed JSON as JSON again, also with the lone surrogates that `parse_json` accepts."""
    try:
        return pydantic_core.to_json(element)
    except ValueError:
        return json.dumps(element).encode()


def extract_element(payload: bytes, index: int) -> bytes:
    """Return one message of a payload; the whole payload when it is not an array or not JSON."""
    try:
        parsed = parse_json(payload)
    except ValueError:
        return payload
    return encode_element(parsed[index]) if isinstance(parsed, list) else payload


def _to_bytes(payload: bytes | str) -> bytes:
    # A lone surrogate has no UTF-8. "surrogatepass" encodes it, so that the parser refuses it as invalid JSON.
    return payload if isinstance(payload, bytes) else payload.encode(errors="surrogatepass")


def field_error(error: pydantic.ValidationError, prefix: str = "data") -> ProtocolError:
    """Return the first of a pydantic error's messages as a `ProtocolError` with the field's path."""
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    parts = [str(part) for part in first["loc"]]
    path = ".".join([prefix, *parts] if prefix else parts)
    return ProtocolError(ErrorCode.INVALID_FIELD, first["msg"], path)


def encode(message: Message) -> bytes:
    """Encode a message as UTF-8 JSON: `{"type": …, "data": {…}}`, with `"format"` when it is not 1."""
    body = message.__pydantic_serializer__.to_json(message, by_alias=True, exclude_none=True)
    if (number := message.required_format()) > 1:
        return b'{"type":"%s","format":%d,"data":%s}' % (message.type.encode(), number, body)
    return b'{"type":"%s","data":%s}' % (message.type.encode(), body)


def encode_data(kind: str, data: dict[str, Any]) -> bytes:
    """Encode a message of format 1 from its `data`, as `encode` encodes its model.

    For what is sent thousands of times at once. `data` is valid, and has the fields in the model's order, no `None`.
    """
    return b'{"type":"%s","data":%s}' % (kind.encode(), pydantic_core.to_json(data))


def join_batch(encoded: Sequence[bytes]) -> bytes:
    """Join encoded messages to one payload: an array, or the message itself when it is the only one."""
    return encoded[0] if len(encoded) == 1 else b"[" + b",".join(encoded) + b"]"


def split_batches(sizes: Sequence[int]) -> list[slice]:
    """Split encoded messages, of these sizes in bytes, into slices that each fit into one payload."""
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
    """Encode messages in the fewest payloads of at most 256 messages and 256 KiB each."""
    encoded = [encode(message) for message in messages]
    return [join_batch(encoded[cut]) for cut in split_batches([len(message) for message in encoded])]
