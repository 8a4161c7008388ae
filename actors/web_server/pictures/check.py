"""Check that an upload is a picture: decode it, within limits, before it is announced. All functions block.

Limits that a header cannot show (minutes or gigabytes to decode) are enforced on the process that runs this:
`actors.web_server.pictures.decoder_process`.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from PIL import Image
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile

from actors.web_server.pictures.limits import (
    MAX_PARTS,
    CostlyPicture,
    DamagedPicture,
    NotAPicture,
    PictureLimits,
    PictureTooLarge,
    UnsupportedPicture,
)
from actors.web_server.pictures.metadata import with_end, with_orientation, without_metadata
from actors.web_server.pictures.png import PNG_START, read_png

JPEG_QUALITY = 90
PNG_COST = 20
"""Decoding and encoding a pixel of a PNG takes about as long as this many scans over a pixel of a JPEG."""
_JPEG_START = b"\xff\xd8\xff"
_HEIC_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"mif2", b"msf1")
_OTHER_STARTS = (
    (rb"RIFF....WEBP", "WebP"),
    (rb"GIF8[79]a", "GIF"),
    (rb"II\*\0|MM\0\*", "TIFF or raw"),
    (rb"BM....\0\0\0\0", "BMP"),
    (rb"\xff\x0a|\0\0\0\x0cJXL ", "JPEG XL"),
)
# In a JPEG's scan, 0xFF is data when a zero follows, and a restart marker belongs to the scan (T.81, B.1.1.5). TEM
# (0x01) stands alone as well: what follows is no length, and nothing may be hidden behind one.
_MARKER = re.compile(rb"\xff[^\x00\x01\xd0-\xd7\xff]")
_START_OF_SCAN, _END_OF_IMAGE, _SEQUENTIAL, _PROGRESSIVE = 0xDA, 0xD9, (0xC0, 0xC1), (0xC2, 0xCA)
# Ones only: no code of a JPEG is made of them (T.81, C.2), so hardly a block can be decoded from these.
_LOOK_AHEAD = b"\xff\x00" * 12


def jpeg_of(content: bytes, limits: PictureLimits) -> bytes:
    """Check that `content` is a complete JPEG or PNG. Return the JPEG to keep.

    A JPEG is returned without its metadata and otherwise unchanged. A PNG is converted to sRGB, over white where it is
    transparent; of an animated PNG its default image. The orientation is kept. The limits are applied to the header and
    the markers, before anything is decoded. Raises `NotAPicture`, `PictureTooLarge` or `CostlyPicture`, and nothing
    else.

    A truncated picture is always refused. With an end marker appended it is still refused when it is a JPEG of one
    scan (as of cameras), and when a progressive JPEG lacks whole scans; within the last scan only fine detail is
    missing. Damage within a scan that libjpeg conceals (with grey) is not detected.
    """
    if content.startswith(_JPEG_START):
        content = with_end(content)
        _without_end(content, limits.scans)
        content = without_metadata(content)
        sound, scans = _without_end(content, limits.scans)
        image = _opened(JpegImageFile, sound, limits.pixels)
        _check_cost(image.width * image.height * scans, limits)
        coefficients = image.width * image.height * len(image.getbands())
        # Decoding at 1/8 size still reads every coefficient, so a cut is found, in half the time and 1/64 the memory.
        image.draft("L", (max(1, image.width // 8), max(1, image.height // 8)))
        try:
            _loaded(image)
        except DamagedPicture:
            if scans > 1:
                _check_memory(coefficients)
            raise
        return content
    if content.startswith(PNG_START):
        png = read_png(content)
        image = _opened(PngImageFile, png.content, limits.pixels)
        _check_cost(image.width * image.height * PNG_COST * png.passes, limits)
        with _only_our_errors():
            picture = png.opaque(image)
        jpeg = with_orientation(_converted(picture, limits.jpeg_bytes), png.orientation)
        if limits.jpeg_bytes is not None and len(jpeg) > limits.jpeg_bytes:
            raise PictureTooLarge(f"more than {limits.jpeg_bytes} bytes as a JPEG")
        return jpeg
    if (other := _format_of(content)) is not None:
        raise UnsupportedPicture(f"a {other} picture")
    raise NotAPicture("neither a JPEG nor a PNG" if content else "the body is empty")


def _format_of(content: bytes) -> str | None:
    """Return the name of another format of pictures, by the first bytes; `None` when they are no picture."""
    if content[4:8] == b"ftyp":  # ISO/IEC 14496-12; the brands of HEIF are in ISO/IEC 23008-12
        brand = content[8:12]
        return "AVIF" if brand in (b"avif", b"avis") else "HEIC" if brand in _HEIC_BRANDS else None
    return next((name for start, name in _OTHER_STARTS if re.match(start, content, re.DOTALL)), None)


def _check_cost(cost: int, limits: PictureLimits) -> None:
    if limits.cost is not None and cost > limits.cost:
        raise CostlyPicture(f"takes {cost} steps")


def _check_memory(coefficients: int) -> None:
    """Raise `PictureTooLarge` when there is no memory for these, of which libjpeg keeps all in a JPEG of several scans.

    libjpeg reports a lack of memory as it reports damage.
    """
    with _only_our_errors():
        bytearray(2 * coefficients)


def _without_end(content: bytes, max_scans: int) -> tuple[bytes, int]:
    """Remove the end marker of a JPEG, so that a cut is found. Return the JPEG and the number of its scans.

    At an end marker libjpeg fills missing pixels with grey. Without the marker it asks for more bytes, and Pillow
    reports a truncated file; when all pixels are decoded, Pillow accepts that the marker is missing. A few bytes are
    appended because the decoder reads ahead. A JPEG of several scans (progressive) is returned unchanged: its decoder
    reads up to the marker before it begins. Raises `DamagedPicture`, and `PictureTooLarge` for too many scans or
    segments.
    """
    position, segments, scans, sequential = 2, 0, 0, False
    progress: _Progress | None = None
    while (match := _MARKER.search(content, position)) is not None:
        marker = content[match.end() - 1]
        if marker == _END_OF_IMAGE:
            if progress is not None and not progress.complete:
                raise DamagedPicture("the JPEG is cut off: not all of its scans are there")
            one_scan = sequential and scans == 1
            return (content[: match.start()] + _LOOK_AHEAD if one_scan else content), scans
        position = match.end() + int.from_bytes(content[match.end() : match.end() + 2], "big")
        segments += 1
        scans += marker == _START_OF_SCAN
        if segments > MAX_PARTS:
            raise PictureTooLarge(f"a JPEG of more than {MAX_PARTS} segments")
        if scans > max_scans:
            raise PictureTooLarge(f"a JPEG of more than {max_scans} scans")
        sequential = sequential or marker in _SEQUENTIAL
        if marker in _PROGRESSIVE and progress is None:
            progress = _Progress(content[match.end() + 2 : position])
        elif marker == _START_OF_SCAN and progress is not None:
            progress.add_scan(content[match.end() + 2 : position])
    raise DamagedPicture("the JPEG is cut off")


class _Progress:
    """The coefficients that the scans of a progressive JPEG contain (T.81, B.2.2, B.2.3 and G.1.1.1).

    Each scan contains a band of coefficients of some components, down to a bit; later scans contain the lower bits.
    Encoders write all bits of each component: a picture without its last scans was cut.
    """

    def __init__(self, frame: bytes) -> None:
        components = frame[6::3][: frame[5]] if len(frame) > 5 else b""
        # The lowest bit received of each coefficient; 16: no bit yet.
        self._lowest = {component: [16] * 64 for component in components}

    def add_scan(self, header: bytes) -> None:
        """Add the coefficients of a scan, by its header. An invalid header is ignored: the decoder refuses it."""
        count = header[0] if header else 0
        if len(header) < 4 + 2 * count:
            return
        first, last, bits = header[1 + 2 * count : 4 + 2 * count]
        for component in header[1 : 1 + 2 * count : 2]:
            for coefficient in range(first, min(last, 63) + 1):
                self._lowest.setdefault(component, [0] * 64)[coefficient] = bits & 0x0F

    @property
    def complete(self) -> bool:
        return not any(any(lowest) for lowest in self._lowest.values())


def _opened(plugin: Callable[[io.BytesIO], ImageFile], content: bytes, max_pixels: int) -> ImageFile:
    # The plugin instead of Image.open, which would accept other formats and has a pixel limit in a global variable.
    with _only_our_errors():
        image = plugin(io.BytesIO(content))
    if image.width < 1 or image.height < 1:
        raise DamagedPicture(f"{image.width} x {image.height} pixels are no picture")
    if image.width * image.height > max_pixels:
        raise PictureTooLarge(f"{image.width} x {image.height} pixels; at most {max_pixels} are allowed")
    return image


def _loaded(image: ImageFile) -> ImageFile:
    with _only_our_errors():
        image.load()
    return image


def _converted(picture: Image.Image, max_bytes: int | None) -> bytes:
    target = _Bounded(max_bytes)
    try:
        with _only_our_errors():
            picture.save(target, "JPEG", quality=JPEG_QUALITY, subsampling="4:4:4")
    except DamagedPicture:
        if target.full:
            raise PictureTooLarge(f"more than {max_bytes} bytes as a JPEG") from None
        raise
    return target.getvalue()


class _Bounded(io.BytesIO):
    """A buffer of at most `most` bytes; `full` when more were written."""

    def __init__(self, most: int | None) -> None:
        super().__init__()
        self._most = most
        self.full = False

    def write(self, content: Any, /) -> int:
        if self._most is not None and self.tell() + len(content) > self._most:
            self.full = True
            raise OSError("more bytes than are allowed")
        return super().write(content)


@contextmanager
def _only_our_errors() -> Iterator[None]:
    """Raise each error of Pillow as ours: it raises OSError, SyntaxError, ValueError, struct.error, zlib.error, ..."""
    try:
        yield
    except MemoryError as error:
        raise PictureTooLarge("it takes more memory to decode than is allowed") from error
    except Exception as error:
        raise DamagedPicture(f"it cannot be decoded ({type(error).__name__}: {error})"[:300]) from error
