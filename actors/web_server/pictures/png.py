"""Read a PNG: its chunks without metadata, and its pixels opaque and in sRGB."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from PIL import Image, ImageChops
from PIL.ImageFile import ImageFile
from PIL.PngImagePlugin import PngImageFile

from actors.web_server.pictures.colours import COLOUR_CHUNKS, SrgbConversion
from actors.web_server.pictures.limits import MAX_PARTS, DamagedPicture, PictureTooLarge
from actors.web_server.pictures.metadata import UPRIGHT, orientation_of_exif

PNG_START = b"\x89PNG\r\n\x1a\n"
BAND_ROWS = 256
"""A PNG is converted in bands of this many rows, so that at most two pictures are in memory."""
_GREY, _RGB, _PALETTE = 0, 2, 3


@dataclass(slots=True)
class Png:
    """A PNG: `content` is without the chunks that its pixels do not need, what they say is in the other fields.

    Example::

        png = read_png(content)
        picture = png.opaque(PngImageFile(io.BytesIO(png.content)))
    """

    content: bytes
    depth: int
    colour_type: int
    orientation: int = UPRIGHT
    colours: dict[bytes, bytes] = field(default_factory=dict)
    """The chunks that say what the colours are."""
    transparent: tuple[int, ...] = ()
    """The samples of the one colour that is transparent (tRNS); of a palette Pillow knows it."""

    @property
    def passes(self) -> int:
        """How often the pixels are decoded."""
        return 2 if self.transparent and self.depth == 16 else 1

    def opaque(self, image: ImageFile) -> Image.Image:
        """Return the pixels of the opened `content` as RGB in sRGB, over white where they are transparent.

        Raises the errors of Pillow.
        """
        low_equal = self._low_bytes_equal() if self.passes == 2 else None
        if self.depth == 16 and self.colour_type == _GREY:
            _decode_as(image, "L", "L;16B")  # the high bytes
        image.load()
        conversion = SrgbConversion(self.colours, image.mode)
        if image.mode == "RGB" and not self.transparent and not conversion.needed:
            return image
        # In place, where that is possible: memory is limited.
        paper = image if image.mode == "RGB" else Image.new("RGB", image.size, "white")
        for box in _bands(image):
            band = image.crop(box)
            if band.mode == "P":
                band = band.convert("RGBA" if band.has_transparency_data else "RGB")
            alpha = band.getchannel("A") if band.mode in ("LA", "RGBA") else None
            paper.paste(conversion.rgb_of(band), box, alpha)
            if self.transparent:
                see_through = _equal(band, self._key)
                if low_equal is not None:
                    see_through = ImageChops.darker(see_through, low_equal.crop(box))
                paper.paste("white", box, see_through)
        return paper

    @property
    def _key(self) -> Sequence[int]:
        """The transparent colour in the 8 bits that are decoded."""
        if self.depth == 16:
            return [sample >> 8 for sample in self.transparent]
        most = 2**self.depth - 1
        return [(sample & most) * 255 // most for sample in self.transparent]

    def _low_bytes_equal(self) -> Image.Image:
        """Return where the low bytes of 16 bits are those of the transparent colour; Pillow decodes the high bytes."""
        low = PngImageFile(io.BytesIO(self.content))
        mode = "L" if self.colour_type == _GREY else "RGB"
        _decode_as(low, mode, f"{mode};16L" if mode == "RGB" else "L;16")
        equal = Image.new("L", low.size)
        for box in _bands(low):
            equal.paste(_equal(low.crop(box), [sample & 0xFF for sample in self.transparent]), box)
        return equal


def read_png(content: bytes) -> Png:
    """Read the chunks of a PNG. Raises `DamagedPicture` and `PictureTooLarge`.

    Texts and animations are never unpacked. Pillow accepts a PNG whose end is missing, so this goes through the chunks
    to IEND and checks their CRCs. Of the chunks about colours and orientation the first of a kind before the pixels
    counts, as in Chromium.
    """
    essential = bytearray(PNG_START)
    view = memoryview(content)
    place = len(PNG_START)
    png: Png | None = None
    exif: bytes | None = None
    pixels = False
    for _ in range(MAX_PARTS):
        if len(content) < place + 12:
            raise DamagedPicture("the PNG is cut off")
        (length,) = struct.unpack_from(">I", content, place)
        end = place + 8 + length
        if len(content) < end + 4:
            raise DamagedPicture("the PNG is cut off")
        if zlib.crc32(view[place + 4 : end]) != struct.unpack_from(">I", content, end)[0]:
            raise DamagedPicture("a chunk of the PNG is damaged")
        kind = content[place + 4 : place + 8]
        if png is None:
            if kind != b"IHDR" or length != 13:
                raise DamagedPicture("the PNG has no header")
            png = Png(b"", depth=content[place + 16], colour_type=content[place + 17])
        pixels = pixels or kind == b"IDAT"
        if kind in COLOUR_CHUNKS and not pixels:
            png.colours.setdefault(kind, content[place + 8 : end])
        elif kind == b"eXIf" and exif is None and not pixels:
            exif = content[place + 8 : end]
            png.orientation = orientation_of_exif(exif)
        elif kind == b"tRNS" and png.colour_type != _PALETTE:
            png.transparent = png.transparent or _samples(content[place + 8 : end], png.colour_type)
        # Chunks whose name begins with a capital are critical: a decoder that does not know one has to refuse it.
        elif kind == b"tRNS" or kind[:1].isupper():
            essential += view[place : end + 4]
        if kind == b"IEND":
            png.content = bytes(essential)
            return png
        place = end + 4
    raise PictureTooLarge(f"a PNG of more than {MAX_PARTS} chunks")


def _samples(payload: bytes, colour_type: int) -> tuple[int, ...]:
    """Return the transparent colour in a tRNS chunk; nothing when it is not of this colour type."""
    size = {_GREY: 2, _RGB: 6}.get(colour_type, 0)
    return struct.unpack(f">{size // 2}H", payload) if len(payload) == size else ()


def _decode_as(image: ImageFile, mode: str, raw_mode: str) -> None:
    """Let Pillow decode an opened picture into `mode`, from `raw_mode`."""
    image._mode = mode
    image.tile = [tile._replace(args=raw_mode) for tile in image.tile]


def _bands(image: Image.Image) -> Iterator[tuple[int, int, int, int]]:
    for top in range(0, image.height, BAND_ROWS):
        yield (0, top, image.width, min(top + BAND_ROWS, image.height))


def _equal(image: Image.Image, colour: Sequence[int]) -> Image.Image:
    """Return 255 where a pixel has this colour, and 0 elsewhere."""
    bands = image.convert("L").split() if image.mode == "1" else image.split()
    equal = [
        band.point([255 * (value == sample) for value in range(256)])
        for band, sample in zip(bands, colour, strict=True)
    ]
    result = equal[0]
    for other in equal[1:]:
        result = ImageChops.darker(result, other)
    return result
