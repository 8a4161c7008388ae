"""Payloads: one message or a JSON array of messages; whatever is ready together travels together."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import pydantic
import pydantic_core

from protocol.errors import ErrorCode, ProtocolError
from protocol.facts import STATUS_MESSAGES
from protocol.server_messages import Lease
from protocol.session_messages import SOCKET_MESSAGES
from protocol.wire import Message

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
        raw = _raw(payload)
        try:
            parsed = pydantic_core.from_json(raw, allow_inf_nan=False)
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
                decoded.append(Malformed(index, error, pydantic_core.to_json(element)))
        return decoded

    def decode_one(self, payload: bytes | str) -> Message:
        """The single message of a payload. Raises `ProtocolError` with the code, the field and what was wrong."""
        try:
            parsed = pydantic_core.from_json(_raw(payload), allow_inf_nan=False)
        except ValueError as error:
            raise ProtocolError(ErrorCode.INVALID_JSON, f"not JSON: {error}") from None
        return self.from_element(parsed)

    def from_element(self, element: Any) -> Message:
        """A message from its parsed `{"type", "data"}`. Raises `ProtocolError`."""
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


def _raw(payload: bytes | str) -> bytes:
    # A lone surrogate has no UTF-8: encoded all the same, the parser refuses it like any other bad payload.
    return payload if isinstance(payload, bytes) else payload.encode(errors="surrogatepass")


def field_error(error: pydantic.ValidationError, prefix: str = "data") -> ProtocolError:
    """The first complaint of a pydantic error as one clear error with its field."""
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    path = ".".join([prefix, *(str(part) for part in first["loc"])] if prefix else [str(p) for p in first["loc"]])
    return ProtocolError(ErrorCode.INVALID_FIELD, first["msg"], path)


STATUS_CODEC = Codec.of(STATUS_MESSAGES)
SOCKET_CODEC = Codec.of(SOCKET_MESSAGES)
LEASE_CODEC = Codec.of((Lease,))


def encode(message: Message) -> bytes:
    """`{"type": …, "data": {…}}` as UTF-8 JSON."""
    body = message.__pydantic_serializer__.to_json(message, by_alias=True, exclude_none=True)
    return b'{"type":"%s","data":%s}' % (message.type.encode(), body)


def join(encoded: Sequence[bytes]) -> bytes:
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
    return [join(encoded[cut]) for cut in split_batches([len(one) for one in encoded])]
