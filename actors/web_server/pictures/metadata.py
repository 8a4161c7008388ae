"""Remove metadata from a JPEG without decoding its pixels: location, camera, thumbnails, and what is behind its end.

Kept are the segments that the pixels need (ITU-T T.81, annex B), the colours (the ICC profile, ICC.1 annex B.4, and
Adobe's transform) and the orientation (Exif 2.3, tag 0x0112), which gets a new segment of its own.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from contextlib import suppress
from typing import NamedTuple

_EOI, _SOS, _COMMENT = 0xD9, 0xDA, 0xFE
_APP0, _APP1, _APP15 = 0xE0, 0xE1, 0xEF
# What is no marker within a scan: `actors.web_server.pictures.check` says more.
_MARKER = re.compile(rb"\xff[^\x00\x01\xd0-\xd7\xff]")
_JFIF, _ICC, _ADOBE, _EXIF = b"JFIF\0", b"ICC_PROFILE\0", b"Adobe", b"Exif\0\0"
_JFIF_BYTES, _ADOBE_BYTES = 14, 12
_ORIENTATION = 0x0112
_SHORT = 3
UPRIGHT = 1


class Segment(NamedTuple):
    """A marker segment of a JPEG: its `payload` is without marker and length; `end` is the place behind it."""

    marker: int
    payload: bytes
    start: int
    end: int


def without_metadata(jpeg: bytes) -> bytes:
    """Return a JPEG without metadata; the same object when there is nothing to remove.

    It must be complete (`actors.web_server.pictures.check`). Its compressed pixels are kept as they are.
    """
    kept = bytearray(jpeg[:2])
    exif = _exif_segment(_orientation_of(jpeg))
    for segment in _segments(jpeg):
        if segment.marker != _APP0:  # a JFIF header comes first
            kept += exif
            exif = b""
        if (payload := _kept_payload(segment)) is not None:
            kept += _segment(segment.marker, payload)
        if segment.marker == _SOS:
            # The pixels up to the next marker that is not of the scan.
            following = _MARKER.search(jpeg, segment.end)
            kept += jpeg[segment.end : following.start() if following is not None else len(jpeg)]
    kept += b"\xff\xd9"
    return jpeg if kept == jpeg else bytes(kept)


def with_end(jpeg: bytes) -> bytes:
    """Return a JPEG with an end marker, also when Samsung's trailer follows the pixels instead (panoramas of Galaxy).

    Where there is an end already, a second one does not count. A JPEG without that trailer is returned as it is.
    """
    trailer = _samsung_trailer(jpeg)
    return jpeg if trailer is None else jpeg[:trailer] + b"\xff\xd9"


def with_orientation(jpeg: bytes, orientation: int) -> bytes:
    """Return a JPEG that was made of another picture, with that one's orientation."""
    # Behind Pillow's JFIF header.
    behind = 4 + int.from_bytes(jpeg[4:6], "big") if jpeg[2:4] == b"\xff\xe0" else 2
    return jpeg[:behind] + _exif_segment(orientation) + jpeg[behind:]


def orientation_of_exif(tiff: bytes) -> int:
    """Return the orientation in the TIFF structure of Exif data; 1 (upright) when there is none that is valid."""
    with suppress(struct.error):
        order = {b"II": "<", b"MM": ">"}.get(tiff[:2])
        if order is None:
            return UPRIGHT
        (first,) = struct.unpack_from(f"{order}I", tiff, 4)
        (count,) = struct.unpack_from(f"{order}H", tiff, first)
        for entry in range(first + 2, first + 2 + 12 * count, 12):
            tag, kind, values = struct.unpack_from(f"{order}HHI", tiff, entry)
            if (tag, kind, values) == (_ORIENTATION, _SHORT, 1):
                (value,) = struct.unpack_from(f"{order}H", tiff, entry + 8)
                return int(value) if UPRIGHT <= value <= 8 else UPRIGHT
    return UPRIGHT


def _samsung_trailer(jpeg: bytes) -> int | None:
    """Return where Samsung's trailer begins; `None`: there is none.

    Its blocks are followed by a directory of them ("SEFH", version, count, and for each: type, place before the
    directory, size), the length of that, and "SEFT".
    """
    if not jpeg.endswith(b"SEFT"):
        return None
    directory = len(jpeg) - 8 - int.from_bytes(jpeg[-8:-4], "little")
    if directory < 0 or jpeg[directory : directory + 4] != b"SEFH":
        return None
    entries = jpeg[directory + 12 : -8]
    count = int.from_bytes(jpeg[directory + 8 : directory + 12], "little")
    if not count or len(entries) < 12 * count:
        return None
    first = max(place for (place,) in struct.iter_unpack("<4xI4x", entries[: 12 * count]))
    return directory - first if first <= directory else None


def _segments(jpeg: bytes) -> Iterator[Segment]:
    """Yield the marker segments in order, without the start and the end of the picture."""
    place = 2
    while (match := _MARKER.search(jpeg, place)) is not None:
        marker = jpeg[match.end() - 1]
        if marker == _EOI:
            return
        place = match.end() + int.from_bytes(jpeg[match.end() : match.end() + 2], "big")
        yield Segment(marker, jpeg[match.end() + 2 : place], match.start(), place)


def _kept_payload(segment: Segment) -> bytes | None:
    """Return what is kept of a segment; `None`: nothing."""
    payload = segment.payload
    match segment.marker:
        case 0xE0 if payload.startswith(_JFIF) and len(payload) >= _JFIF_BYTES:
            return payload[: _JFIF_BYTES - 2] + b"\0\0"  # without a thumbnail
        case 0xE2 if payload.startswith(_ICC):
            return payload
        case 0xEE if payload.startswith(_ADOBE) and len(payload) >= _ADOBE_BYTES:
            return payload[:_ADOBE_BYTES]
        case marker if _APP0 <= marker <= _APP15 or marker == _COMMENT:
            return None
        case _:
            return payload


def _orientation_of(jpeg: bytes) -> int:
    for segment in _segments(jpeg):
        if segment.marker == _SOS:
            break
        # Browsers accept any byte of padding (the sixth).
        if segment.marker == _APP1 and segment.payload.startswith(_EXIF[:-1]):
            return orientation_of_exif(segment.payload[len(_EXIF) :])
    return UPRIGHT


def _exif_segment(orientation: int) -> bytes:
    """Return a segment of Exif data that holds an orientation and nothing else; empty when that is upright."""
    if orientation == UPRIGHT:
        return b""
    tiff = b"MM\0*" + struct.pack(">IHHHIHHI", 8, 1, _ORIENTATION, _SHORT, 1, orientation, 0, 0)
    return _segment(_APP1, _EXIF + tiff)


def _segment(marker: int, payload: bytes) -> bytes:
    return b"\xff" + bytes((marker,)) + (len(payload) + 2).to_bytes(2, "big") + payload
