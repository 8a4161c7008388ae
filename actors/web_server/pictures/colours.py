"""The colours of a PNG: what its chunks say about them (PNG 3, 11.3.2), and how they become sRGB.

Followed is what Chromium does, which is what a proctor would see of the original: the first of cICP, iCCP, sRGB and
gAMA (with cHRM or without) that is valid counts. A cHRM without gAMA does not.
"""

from __future__ import annotations

import io
import math
import struct
import zlib
from collections.abc import Callable, Iterator

from PIL import Image, ImageCms

MAX_PROFILE_BYTES = 4 * 1024 * 1024
COLOUR_CHUNKS = (b"cICP", b"iCCP", b"sRGB", b"gAMA", b"cHRM")
_GREY_MODES = ("1", "L", "LA")

Point = tuple[float, float]
Curve = Callable[[float], float]
"""From a stored value to light; both in [0, 1]."""

_D65, _C, _EQUAL, _DCI_WHITE = (0.3127, 0.329), (0.31, 0.316), (1 / 3, 1 / 3), (0.314, 0.351)
_PRIMARIES: dict[int, tuple[Point, Point, Point, Point]] = {  # ITU-T H.273, table 2: red, green, blue, white
    1: ((0.64, 0.33), (0.3, 0.6), (0.15, 0.06), _D65),
    4: ((0.67, 0.33), (0.21, 0.71), (0.14, 0.08), _C),
    5: ((0.64, 0.33), (0.29, 0.6), (0.15, 0.06), _D65),
    6: ((0.63, 0.34), (0.31, 0.595), (0.155, 0.07), _D65),
    7: ((0.63, 0.34), (0.31, 0.595), (0.155, 0.07), _D65),
    8: ((0.681, 0.319), (0.243, 0.692), (0.145, 0.049), _C),
    9: ((0.708, 0.292), (0.17, 0.797), (0.131, 0.046), _D65),
    10: ((1.0, 0.0), (0.0, 1.0), (0.0, 0.0), _EQUAL),
    11: ((0.68, 0.32), (0.265, 0.69), (0.15, 0.06), _DCI_WHITE),
    12: ((0.68, 0.32), (0.265, 0.69), (0.15, 0.06), _D65),
    22: ((0.63, 0.34), (0.295, 0.605), (0.155, 0.077), _D65),
}
_BRADFORD = ((0.8951, 0.2664, -0.1614), (-0.7502, 1.7135, 0.0367), (0.0389, -0.0685, 1.0296))
_D50 = (0.9642, 1.0, 0.8249)

Vector = tuple[float, float, float]
Matrix = tuple[Vector, Vector, Vector]


class SrgbConversion:
    """Converts the pixels of a PNG to sRGB, by the chunks about its colours (`COLOUR_CHUNKS`: the first of each kind).

    Example::

        conversion = SrgbConversion({b"gAMA": payload}, image.mode)
        rgb = conversion.rgb_of(band)
    """

    def __init__(self, chunks: dict[bytes, bytes], mode: str) -> None:
        self._transform: ImageCms.ImageCmsTransform | None = None
        self._of_grey = False
        for profile in _profiles(chunks, grey=mode in _GREY_MODES):
            grey = profile[16:20] == b"GRAY"
            try:
                source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
                target = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
                self._transform = ImageCms.ImageCmsTransform(source, target, "L" if grey else "RGB", "RGB")
            except (ImageCms.PyCMSError, OSError, ValueError):
                continue  # a profile that cannot be used does not count
            self._of_grey = grey
            return

    @property
    def needed(self) -> bool:
        """Whether the pixels are not sRGB already."""
        return self._transform is not None

    def rgb_of(self, band: Image.Image) -> Image.Image:
        """Return the pixels in sRGB, without their transparency."""
        if self._transform is None:
            return band.convert("RGB")
        if self._of_grey:
            return self._transform.apply(band.convert("L"))
        rgb = band.convert("RGB")
        return self._transform.apply(rgb, rgb)


def _profiles(chunks: dict[bytes, bytes], *, grey: bool) -> Iterator[bytes]:
    """Yield the ICC profiles that may describe the colours, the one that counts first; none: the colours are sRGB."""
    if (profile := _profile_of_cicp(chunks.get(b"cICP", b""))) is not None:
        yield profile
    if (profile := _profile_of_iccp(chunks.get(b"iCCP", b""), grey=grey)) is not None:
        yield profile
    if b"sRGB" not in chunks and (profile := _profile_of_gamma(chunks.get(b"gAMA", b""), chunks.get(b"cHRM", b""))):
        yield profile


def _profile_of_cicp(payload: bytes) -> bytes | None:
    """Return a profile for code points of ITU-T H.273; `None` for those that have none here, and for limited range."""
    if len(payload) != 4:
        return None
    primaries, curve = _PRIMARIES.get(payload[0]), _CURVES.get(payload[1])
    if primaries is None or curve is None or payload[2:] != b"\0\1":
        return None
    return rgb_profile(primaries, curve)


def _profile_of_iccp(compressed: bytes, *, grey: bool) -> bytes | None:
    """Return the ICC profile in an iCCP chunk (PNG 3, 11.3.2.3), if it is for such pixels."""
    name, _, rest = compressed.partition(b"\0")
    if not 1 <= len(name) <= 79 or rest[:1] != b"\0":
        return None
    unpacker = zlib.decompressobj()
    try:
        profile = unpacker.decompress(rest[1:], MAX_PROFILE_BYTES)
    except zlib.error:
        return None
    whole = unpacker.eof and len(profile) >= 128 and struct.unpack_from(">I", profile)[0] == len(profile)
    fits = profile[16:20] in ((b"GRAY", b"RGB ") if grey else (b"RGB ",))
    return profile if whole and fits else None


def _profile_of_gamma(gamma: bytes, chromaticities: bytes) -> bytes | None:
    """Return a profile for the chunks gAMA and cHRM; `None` when the colours are sRGB, or the chunks make no sense."""
    if len(gamma) != 4 or (stored := struct.unpack(">I", gamma)[0]) == 0:
        return None
    exponent = 100_000 / stored
    if len(chromaticities) != 32:
        return None if stored == 45_455 else rgb_profile(_PRIMARIES[1], lambda value: value**exponent)
    white, red, green, blue = ((x / 100_000, y / 100_000) for x, y in struct.iter_unpack(">II", chromaticities))
    return rgb_profile((red, green, blue, white), lambda value: value**exponent)


# -- making a profile ------------------------------------------------------------------------------------------


def rgb_profile(primaries: tuple[Point, Point, Point, Point], curve: Curve) -> bytes | None:
    """Return an ICC profile (ICC.1, 8.3.3: matrix and curves) of red, green, blue, white and their common curve.

    `None`: the points are no colour space.
    """
    try:
        columns = _adapted(primaries)
    except ZeroDivisionError:
        return None
    values = (min(1.0, max(0.0, curve(value / 255))) for value in range(256))
    table = b"curv\0\0\0\0" + struct.pack(">I256H", 256, *(round(65_535 * value) for value in values))
    text = b"desc\0\0\0\0\0\0\0\2p\0".ljust(92, b"\0")
    tags = {b"desc": text, b"cprt": b"text\0\0\0\0-\0\0\0", b"wtpt": _xyz(_D50)}
    tags |= {name: _xyz(column) for name, column in zip((b"rXYZ", b"gXYZ", b"bXYZ"), columns, strict=True)}
    tags |= dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), table)
    directory, data = struct.pack(">I", len(tags)), b""
    behind = 128 + 4 + 12 * len(tags)
    for name, tag in tags.items():
        directory += name + struct.pack(">II", behind + len(data), len(tag))
        data += tag
    size = behind + len(data)
    header = struct.pack(">I4xI4s4s4s12x4s28x", size, 0x0240_0000, b"mntr", b"RGB ", b"XYZ ", b"acsp") + _xyz(_D50)[8:]
    return header.ljust(128, b"\0") + directory + data


def _xyz(value: Vector) -> bytes:
    return b"XYZ \0\0\0\0" + struct.pack(">3i", *(round(65_536 * part) for part in value))


def _adapted(primaries: tuple[Point, Point, Point, Point]) -> list[Vector]:
    """Return red, green and blue as XYZ, adapted to D50 (Bradford). Raises `ZeroDivisionError`."""
    red, green, blue, white = (_from_chromaticity(point) for point in primaries)
    corners: Matrix = (red, green, blue)
    shares = _times(_inverse(_transposed(corners)), white)
    seen, wanted = _times(_BRADFORD, white), _times(_BRADFORD, _D50)
    adapted = []
    for corner, share in zip(corners, shares, strict=True):
        cone = _times(_BRADFORD, corner)
        scaled = (
            cone[0] * share * wanted[0] / seen[0],
            cone[1] * share * wanted[1] / seen[1],
            cone[2] * share * wanted[2] / seen[2],
        )
        adapted.append(_times(_inverse(_BRADFORD), scaled))
    if any(abs(part) >= 32_000 for column in adapted for part in column):
        raise ZeroDivisionError("the primaries lie on one line")
    return adapted


def _from_chromaticity(point: Point) -> Vector:
    x, y = point
    # A point with y = 0 has no brightness, but may be a corner (of primaries 10).
    return (x / y, 1.0, (1 - x - y) / y) if y else (x, 0.0, 1 - x)


def _times(matrix: Matrix, vector: Vector) -> Vector:
    first, second, third = (sum(a * b for a, b in zip(row, vector, strict=True)) for row in matrix)
    return first, second, third


def _transposed(matrix: Matrix) -> Matrix:
    first, second, third = zip(*matrix, strict=True)
    return first, second, third


def _inverse(matrix: Matrix) -> Matrix:
    (a, b, c), (d, e, f), (g, h, i) = matrix
    determinant = a * (e * i - f * h) - b * (d * i - f * g) + c * (d * h - e * g)
    return (
        ((e * i - f * h) / determinant, (c * h - b * i) / determinant, (b * f - c * e) / determinant),
        ((f * g - d * i) / determinant, (a * i - c * g) / determinant, (c * d - a * f) / determinant),
        ((d * h - e * g) / determinant, (b * g - a * h) / determinant, (a * e - b * d) / determinant),
    )


# -- curves ----------------------------------------------------------------------------------------------------


def _srgb(value: float) -> float:
    return value / 12.92 if value <= 0.04045 else float(((value + 0.055) / 1.055) ** 2.4)


def _smpte_240(value: float) -> float:
    return value / 4 if value < 0.0913 else float(((value + 0.1115) / 1.1115) ** (1 / 0.45))


def _perceptual_quantizer(value: float) -> float:
    """SMPTE ST 2084, for an ordinary screen."""
    power = value ** (32 / 2523)
    light = max(power - 3424 / 4096, 0.0) / (2413 / 128 - 2392 / 128 * power)
    return _standard_range(10_000 * light ** (16_384 / 2610))


def _hybrid_log_gamma(value: float) -> float:
    """ARIB STD-B67 at 1000 nits, for an ordinary screen."""
    light = value * value / 3 if value <= 0.5 else (math.exp((value - 0.55991073) / 0.17883277) + 0.28466892) / 12
    return _standard_range(1000 * light**1.2)


def _standard_range(nits: float) -> float:
    """Map 203 nits (white, ITU-R BT.2408) to a half and 1000 nits to 1, as Chromium does on an ordinary screen."""
    white = nits / 203
    if white <= 1:
        return white / 2
    return float(0.5 + 0.5 * min(1.0, math.log(white) / math.log(1000 / 203)) ** 0.86)


def _power(exponent: float) -> Curve:
    return lambda value: value**exponent


_CURVES: dict[int, Curve] = {  # ITU-T H.273, table 3; the curves of television as Chromium shows them
    **dict.fromkeys((1, 6, 11, 14, 15), _power(2.4)),
    4: _power(2.2),
    5: _power(2.8),
    7: _smpte_240,
    8: _power(1.0),
    13: _srgb,
    16: _perceptual_quantizer,
    17: lambda value: 52.37 / 48 * value**2.6,
    18: _hybrid_log_gamma,
}
