"""The limits of a picture, and the errors with which one is refused."""

from __future__ import annotations

from dataclasses import dataclass

from protocol.errors import ExamwireError

MAX_SCANS = 100
"""Encoders make about ten. Each scan of a progressive JPEG may be a few bytes and takes a walk over all its pixels."""

MAX_PARTS = 20_000
"""Segments of a JPEG or chunks of a PNG. Cameras write some hundred; going through five million takes 12 s."""


class NotAPicture(ExamwireError):
    """The bytes are no picture; the text says what is wrong."""


class UnsupportedPicture(NotAPicture):
    """The bytes are a picture, but neither a JPEG nor a PNG; the text names the format."""


class DamagedPicture(NotAPicture):
    """The bytes are a JPEG or PNG that is cut off or cannot be decoded; the text says what is wrong."""


class PictureTooLarge(ExamwireError):
    """More bytes, pixels, scans, time or memory than are allowed."""


class CostlyPicture(ExamwireError):
    """The picture is within the limits, but exceeds the caller's cost limit; it was not decoded."""


@dataclass(frozen=True, slots=True)
class PictureLimits:
    """The limits of a picture. `cost`: pixels times scans; beyond it a picture is a `CostlyPicture`.

    Example::

        jpeg = jpeg_of(content, PictureLimits(pixels=52_000_000, cost=600_000_000))
    """

    pixels: int
    scans: int = MAX_SCANS
    jpeg_bytes: int | None = None
    """The most bytes of a PNG that was converted into a JPEG."""
    cost: int | None = None
