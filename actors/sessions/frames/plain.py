"""Plain WebSocket frames of clients (RFC 6455, 5.2): a whole text, a ping or a pong. Nearly all frames are plain.

Everything else goes to the library, from that frame on (`actors.sessions.frames.library`): fragments, binary frames,
closing, and what is not allowed. A test compares both with the library alone, for any bytes cut anywhere.
"""

from __future__ import annotations

from typing import NamedTuple

from websockets.frames import apply_mask  # type: ignore[attr-defined]  # the quick one, where there is one

TEXT, PING, PONG = 0x81, 0x89, 0x8A
"""First bytes of plain frames: the last one of its message, no extension, and the opcode."""

_MASKED = 0x80
_TWO_BYTES, _EIGHT_BYTES = 126, 127
"""In the place of a length: it follows in so many bytes. No frame may be as long as to need eight."""

_MASK_BYTES = 4

PING_FRAME = bytes((PING, 0))


class PlainFrames(NamedTuple):
    """Plain frames, each as its first byte and its payload; they end at `end` in the data.

    `only`: at most the begin of another plain frame follows.
    """

    frames: list[tuple[int, bytes]]
    end: int
    only: bool


def read_plain(data: bytes | bytearray) -> PlainFrames:
    """Read the plain frames that `data` begins with. `data` begins with a frame.

    read_plain(data).frames  # [(TEXT, b'{"type": "heartbeat"}')]
    """
    frames: list[tuple[int, bytes]] = []
    at, size = 0, len(data)
    while at < size:
        kind = data[at]
        if kind not in (TEXT, PING, PONG):
            return PlainFrames(frames, at, False)
        if size - at < 2:
            break
        length = data[at + 1] ^ _MASKED
        payload = at + 2 + _MASK_BYTES
        if length == _TWO_BYTES and kind == TEXT:
            payload += 2
            if size - at < 4:
                break
            length = int.from_bytes(data[at + 2 : at + 4], "big")
        elif length >= _TWO_BYTES:  # without a mask, larger than a frame may be, or no control frame
            return PlainFrames(frames, at, False)
        end = payload + length
        if end > size:
            break
        frames.append((kind, apply_mask(data[payload:end], data[payload - _MASK_BYTES : payload])))
        at = end
    return PlainFrames(frames, at, True)


def text_frame(payload: bytes) -> bytes:
    """Return a text as a frame of the server."""
    return _frame(TEXT, payload)


def pong_frame(payload: bytes) -> bytes:
    """Return the answer to a ping as a frame of the server."""
    return _frame(PONG, payload)


def _frame(kind: int, payload: bytes) -> bytes:
    size = len(payload)
    if size < _TWO_BYTES:
        return b"%c%c%b" % (kind, size, payload)
    if size < 1 << 16:
        return b"%c%c%b%b" % (kind, _TWO_BYTES, size.to_bytes(2, "big"), payload)
    return b"%c%c%b%b" % (kind, _EIGHT_BYTES, size.to_bytes(8, "big"), payload)
