"""PNGs of flat fields, chunk by chunk: what Pillow does not write."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence

FIELD = 16
"""Pixels, the width and height of each field."""
GREY, RGB, PALETTE, GREY_ALPHA, RGB_ALPHA = 0, 2, 3, 4, 6

Chunk = tuple[bytes, bytes]


def png(fields: Sequence[Sequence[int]], depth: int = 8, colour_type: int = RGB, chunks: Sequence[Chunk] = ()) -> bytes:
    """Return a PNG with a field of each colour (its samples), side by side; `chunks` come before the pixels."""
    form = {8: "B", 16: "H"}[depth]
    row = b"".join(struct.pack(f">{len(samples)}{form}", *samples) * FIELD for samples in fields)
    header = struct.pack(">IIBBBBB", FIELD * len(fields), FIELD, depth, colour_type, 0, 0, 0)
    data = zlib.compress((b"\0" + row) * FIELD)
    parts = [(b"IHDR", header), *chunks, (b"IDAT", data), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(kind, payload) for kind, payload in parts)


def chunk(kind: bytes, payload: bytes) -> bytes:
    return struct.pack(">I", len(payload)) + kind + payload + struct.pack(">I", zlib.crc32(kind + payload))


def gamma(value: float) -> Chunk:
    return b"gAMA", struct.pack(">I", round(value * 100_000))


def chromaticities(*values: float) -> Chunk:
    """Of white, red, green and blue."""
    return b"cHRM", struct.pack(">8I", *(round(value * 100_000) for value in values))


def code_points(primaries: int, transfer: int, *, full_range: bool = True) -> Chunk:
    return b"cICP", bytes((primaries, transfer, 0, full_range))


def profile(icc: bytes) -> Chunk:
    return b"iCCP", b"p\0\0" + zlib.compress(icc)


def orientation(value: int) -> Chunk:
    return b"eXIf", b"MM\0*" + struct.pack(">IHHHIHHI", 8, 1, 0x0112, 3, 1, value, 0, 0)


SWAPPED = (0.3127, 0.329, 0.15, 0.06, 0.3, 0.6, 0.64, 0.33)
"""Chromaticities of sRGB with red and blue exchanged."""
DISPLAY_P3 = (0.3127, 0.329, 0.68, 0.32, 0.265, 0.69, 0.15, 0.06)
SRGB = (b"sRGB", b"\0")
