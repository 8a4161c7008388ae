"""Is it a picture? What phones send is decoded, within limits, before anybody hears of it. Everything here blocks."""

from __future__ import annotations

import io
import re
import struct
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from PIL import Image
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile

from protocol.errors import ExamwireError

JPEG_QUALITY = 90
_JPEG_START = b"\xff\xd8\xff"
_PNG_START = b"\x89PNG\r\n\x1a\n"
# In a JPEG's scan, 0xFF is data when a zero follows, and a restart marker belongs to the scan (T.81, B.1.1.5).
_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
_START_OF_SCAN, _END_OF_IMAGE, _SEQUENTIAL, _PROGRESSIVE = 0xDA, 0xD9, (0xC0, 0xC1), (0xC2, 0xCA)
# Ones only: no code of a JPEG is made of them (T.81, C.2), so hardly a block can be decoded from these.
_LOOK_AHEAD = b"\xff\x00" * 12


class NotAPicture(ExamwireError):
    """The bytes are no complete JPEG or PNG; the text says what is wrong with them."""


class PictureTooLarge(ExamwireError):
    """More bytes than are allowed, or a header that announces too many pixels; nothing of it was decoded."""


def jpeg_of(content: bytes, max_pixels: int) -> bytes:
    """Check that `content` is a whole JPEG or PNG picture; the JPEG to keep.

    A JPEG comes back byte for byte, a PNG converted (over white where it is transparent). The pixel limit is applied
    to the header, before anything is decoded. Raises `NotAPicture` or `PictureTooLarge`, and nothing else.

    A cut is always found, in a JPEG of one scan (what cameras make) also when somebody put an end marker behind it; in
    a progressive one then only if whole scans are missing: what the last one lacks is fine detail. Damage within a
    scan that libjpeg can bridge (it fills with grey) is not found.
    """
    if content.startswith(_JPEG_START):
        image = _opened(JpegImageFile, _without_end(content), max_pixels)
        # Decoding at an eighth still reads every coefficient, so a cut is found, in half the time and 1/64 the memory.
        image.draft("L", (max(1, image.width // 8), max(1, image.height // 8)))
        _loaded(image)
        return content
    if content.startswith(_PNG_START):
        _check_png_chunks(content)
        return _converted(_loaded(_opened(PngImageFile, content, max_pixels)))
    raise NotAPicture("neither a JPEG nor a PNG" if content else "the body is empty")


def _without_end(content: bytes) -> bytes:
    """A JPEG whose end marker is taken off, so that the decoder has to find all pixels before it.

    At an end marker libjpeg fills what is missing with grey and is content. Without one it asks for more, and Pillow
    says that the file is truncated; but with all pixels decoded, Pillow does not mind that the marker is missing. A few
    bytes stand in for those that the decoder likes to have ahead of what it uses. A JPEG of several scans
    (progressive) stays as it is: its decoder reads up to the marker before it begins. Raises `NotAPicture`.
    """
    place, scans, sequential = 2, 0, False
    progress: _Progress | None = None
    while (found := _MARKER.search(content, place)) is not None:
        marker = content[found.end() - 1]
        if marker == _END_OF_IMAGE:
            if progress is not None and not progress.complete:
                raise NotAPicture("the JPEG is cut off: not all of its scans are there")
            return content[: found.start()] + _LOOK_AHEAD if sequential and scans == 1 else content
        place = found.end() + int.from_bytes(content[found.end() : found.end() + 2], "big")
        scans += marker == _START_OF_SCAN
        sequential = sequential or marker in _SEQUENTIAL
        if marker in _PROGRESSIVE and progress is None:
            progress = _Progress(content[found.end() + 2 : place])
        elif marker == _START_OF_SCAN and progress is not None:
            progress.scan(content[found.end() + 2 : place])
    raise NotAPicture("the JPEG is cut off")


class _Progress:
    """How far the scans of a progressive JPEG have come (T.81, B.2.2, B.2.3 and G.1.1.1).

    Each scan brings a band of coefficients of some components, up to a bit; later ones bring the lower bits. Encoders
    end when all of each component is there: a picture without its last scans is one that was cut.
    """

    def __init__(self, frame: bytes) -> None:
        components = frame[6::3][: frame[5]] if len(frame) > 5 else b""
        # The lowest bit that has come of each coefficient; none has.
        self._lowest = {component: [16] * 64 for component in components}

    def scan(self, header: bytes) -> None:
        """Take in what a scan brings. A header that is none is the decoder's to refuse."""
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
    # The plugin itself instead of Image.open: no other format can be meant, and Image.open has a pixel limit of its
    # own that warns or raises by a global variable.
    with _only_our_errors():
        image = plugin(io.BytesIO(content))
    if image.width < 1 or image.height < 1:
        raise NotAPicture(f"{image.width} x {image.height} pixels are no picture")
    if image.width * image.height > max_pixels:
        raise PictureTooLarge(f"{image.width} x {image.height} pixels; at most {max_pixels} are allowed")
    return image


def _loaded(image: ImageFile) -> ImageFile:
    with _only_our_errors():
        image.load()
    return image


def _converted(picture: Image.Image) -> bytes:
    with _only_our_errors():
        if picture.mode.startswith("I"):  # 16 bits a pixel: convert() would clip instead of scaling
            picture = picture.point(lambda value: value / 256).convert("L")
        if picture.has_transparency_data:
            picture = picture.convert("RGBA")
            paper = Image.new("RGB", picture.size, "white")
            paper.paste(picture, mask=picture.getchannel("A"))
            picture = paper
        target = io.BytesIO()
        picture.convert("RGB").save(target, "JPEG", quality=JPEG_QUALITY)
        return target.getvalue()


@contextmanager
def _only_our_errors() -> Iterator[None]:
    """Pillow answers bad input with OSError, SyntaxError, ValueError, struct.error, zlib.error, MemoryError, ..."""
    try:
        yield
    except Exception as error:
        raise NotAPicture(f"it cannot be decoded ({type(error).__name__}: {error})"[:300]) from error


def _check_png_chunks(content: bytes) -> None:
    """Pillow is content when the pixels are there; the end of a PNG may be missing. Walk to IEND, checking CRCs."""
    place = len(_PNG_START)
    while True:
        if len(content) < place + 12:
            raise NotAPicture("the PNG is cut off")
        (length,) = struct.unpack_from(">I", content, place)
        end = place + 8 + length
        if len(content) < end + 4:
            raise NotAPicture("the PNG is cut off")
        if zlib.crc32(memoryview(content)[place + 4 : end]) != struct.unpack_from(">I", content, end)[0]:
            raise NotAPicture("a chunk of the PNG is damaged")
        if content[place + 4 : place + 8] == b"IEND":
            return
        place = end + 4
