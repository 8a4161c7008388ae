"""The colours of a PNG: what its chunks say about them (PNG 3, 11.3.2), and how they become sRGB.

Followed is what Chromium does, which is what a proctor would see of the original: the first of cICP, iCCP, sRGB and
gAMA (with cHRM or without) that is valid counts. A cHRM without gAMA does not.
"""

from __future__ import annotations

import io
import math
import struct
import zlib
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from typing import TypeVar

from PIL import Image, ImageCms, ImageFilter

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
_FULL_RANGE = b"\0\1"
"""The last two bytes of cICP: RGB, and of full range."""
_BRADFORD = ((0.8951, 0.2664, -0.1614), (-0.7502, 1.7135, 0.0367), (0.0389, -0.0685, 1.0296))
_D50 = (0.9642, 1.0, 0.8249)

Part = TypeVar("Part")
Result = TypeVar("Result")
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
        self._table = _hdr_table(*chunks[b"cICP"][:2]) if _is_hdr(chunks.get(b"cICP", b"")) else None
        if self._table is not None:
            return
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
        return self._transform is not None or self._table is not None

    def rgb_of(self, band: Image.Image) -> Image.Image:
        """Return the pixels in sRGB, without their transparency."""
        if self._table is not None:
            return band.convert("RGB").filter(self._table)
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
    return None if primaries is None or curve is None or payload[2:] != _FULL_RANGE else rgb_profile(primaries, curve)


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


def _adapted(primaries: tuple[Point, Point, Point, Point]) -> Matrix:
    """Return red, green and blue as XYZ, adapted to D50 (Bradford). Raises `ZeroDivisionError`."""
    red, green, blue, white = (_from_chromaticity(point) for point in primaries)
    corners: Matrix = (red, green, blue)
    shares = _times(_inverse(_transposed(corners)), white)
    seen, wanted = _times(_BRADFORD, white), _times(_BRADFORD, _D50)

    def scaled(corner: Vector, share: float) -> Vector:
        cone = _times(_BRADFORD, corner)
        parts = zip(cone, wanted, seen, strict=True)
        return _times(_inverse(_BRADFORD), _of_three(lambda part: part[0] * share * part[1] / part[2], list(parts)))

    adapted = _of_three(lambda pair: scaled(*pair), list(zip(corners, shares, strict=True)))
    if any(abs(part) >= 32_000 for column in adapted for part in column):
        raise ZeroDivisionError("the primaries lie on one line")
    return adapted


def _from_chromaticity(point: Point) -> Vector:
    x, y = point
    # A point with y = 0 has no brightness, but may be a corner (of primaries 10).
    return (x / y, 1.0, (1 - x - y) / y) if y else (x, 0.0, 1 - x)


def _times(matrix: Matrix, vector: Vector) -> Vector:
    x, y, z = vector
    return _of_three(lambda row: row[0] * x + row[1] * y + row[2] * z, matrix)


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


def _power(exponent: float) -> Curve:
    return lambda value: value**exponent


_CURVES: dict[int, Curve] = {  # ITU-T H.273, table 3; the curves of television as Chromium shows them
    **dict.fromkeys((1, 6, 11, 14, 15), _power(2.4)),
    4: _power(2.2),
    5: _power(2.8),
    7: _smpte_240,
    8: _power(1.0),
    13: _srgb,
    17: lambda value: 52.37 / 48 * value**2.6,
}


# -- HDR on an ordinary screen ---------------------------------------------------------------------------------

_PQ, _HLG, _WIDE = 16, 18, 9
"""Transfers of SMPTE ST 2084 and ARIB STD-B67, and the primaries of ITU-R BT.2020 (H.273)."""
_WHITE_NITS, _PEAK_NITS = 203, 1000
_TABLE_SIZE = 33


def _is_hdr(cicp: bytes) -> bool:
    return len(cicp) == 4 and cicp[0] in _PRIMARIES and cicp[1] in (_PQ, _HLG) and cicp[2:] == _FULL_RANGE


@cache
def _hdr_table(primaries: int, transfer: int) -> ImageFilter.Color3DLUT:
    """Return a table from PQ or HLG to sRGB.

    As Chromium does, white (203 nits) becomes half of the light, and what is brighter is compressed up to 1000 nits, by
    the brightest of red, green and blue in BT.2020. It takes about 0.3 s.
    """
    to_wide = _between(primaries, _WIDE)
    to_srgb = _between(_WIDE, 1)

    def converted(*values: float) -> Vector:
        light = _of_three(_pq_light if transfer == _PQ else _hlg_light, values)
        wide = _times(to_wide, light)
        if transfer == _HLG:
            brightness = max(0.0, 0.2627 * wide[0] + 0.678 * wide[1] + 0.0593 * wide[2])
            wide = _of_three(lambda part: part * brightness**0.2 * _PEAK_NITS / _WHITE_NITS, wide)
        share = _share_of_light(max(wide))
        return _of_three(lambda part: _encoded_srgb(part * share), _times(to_srgb, wide))

    return ImageFilter.Color3DLUT.generate(_TABLE_SIZE, converted)


def _share_of_light(brightest: float) -> float:
    """Return the factor for a pixel whose brightest colour is so many times white."""
    if brightest <= 1:
        return 0.5
    compressed = min(1.0, math.log(brightest) / math.log(_PEAK_NITS / _WHITE_NITS)) ** 0.86
    return float(0.5 + 0.5 * compressed) / brightest


def _pq_light(value: float) -> float:
    """Return the light of a value, in units of white (ST 2084)."""
    power = value ** (32 / 2523)
    light = max(power - 3424 / 4096, 0.0) / (2413 / 128 - 2392 / 128 * power)
    return float(10_000 * light ** (16_384 / 2610) / _WHITE_NITS)


def _hlg_light(value: float) -> float:
    """Return the light of the scene for a value, in [0, 1] (ARIB STD-B67)."""
    return value * value / 3 if value <= 0.5 else (math.exp((value - 0.55991073) / 0.17883277) + 0.28466892) / 12


def _encoded_srgb(light: float) -> float:
    within = min(1.0, max(0.0, light))
    return 12.92 * within if within <= 0.0031308 else float(1.055 * within ** (1 / 2.4) - 0.055)


def _between(source: int, target: int) -> Matrix:
    """Return the matrix from linear values of some primaries to those of others."""
    forth, back = (_transposed(_adapted(_PRIMARIES[primaries])) for primaries in (source, target))
    inverse = _inverse(back)
    return _transposed(_of_three(lambda column: _times(inverse, column), _transposed(forth)))


def _of_three(function: Callable[[Part], Result], parts: Sequence[Part]) -> tuple[Result, Result, Result]:
    first, second, third = map(function, parts)
    return first, second, third
