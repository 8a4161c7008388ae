"""A PNG becomes a JPEG in sRGB that looks as Chromium shows the original; the expected values are Chromium's (156)."""

from __future__ import annotations

import io
import itertools
import struct

import pytest
from PIL import Image

from actors.web_server.pictures import colours
from actors.web_server.pictures.check import jpeg_of
from actors.web_server.pictures.colours import MAX_PROFILE_BYTES, rgb_profile
from actors.web_server.pictures.limits import DamagedPicture, PictureLimits
from tests.support import pngs
from tests.support.pngs import FIELD, GREY, GREY_ALPHA, PALETTE, RGB_ALPHA, SRGB, Chunk

LIMITS = PictureLimits(4_000_000, jpeg_bytes=4_000_000)
ORANGE = (200, 100, 50)
IN_P3 = (215, 93, 31)
EXCHANGED = (50, 100, 200)
LIGHTER = (227, 168, 122)
"""Orange of linear values."""
Pixel = tuple[int, ...]


def shown(png: bytes) -> list[Pixel]:
    """Return the colour of each field of the JPEG that is kept."""
    kept = Image.open(io.BytesIO(jpeg_of(png, LIMITS)))
    assert (kept.mode, "icc_profile" in kept.info) == ("RGB", False)
    pixels = [kept.getpixel((place + FIELD // 2, FIELD // 2)) for place in range(0, kept.width, FIELD)]
    return [pixel for pixel in pixels if isinstance(pixel, tuple)]


def assert_alike(actual: list[Pixel], expected: list[Pixel], tolerance: int = 4) -> None:
    """Within what JPEG changes, by default."""
    samples = zip(itertools.chain(*actual), itertools.chain(*expected), strict=True)
    assert all(abs(one - other) <= tolerance for one, other in samples), actual


def icc(space: bytes = b"RGB ") -> bytes:
    """A profile of red and blue exchanged, with the values of sRGB otherwise."""
    red, green, blue, white = colours._PRIMARIES[1]
    made = rgb_profile((blue, green, red, white), colours._srgb)
    assert made is not None
    return made[:16] + space + made[20:]


WRONG_SIZE = struct.pack(">I", MAX_PROFILE_BYTES + 1) + icc()[4:] + b"\0" * (MAX_PROFILE_BYTES + 1 - len(icc()))
P3_PRIMARIES = pngs.chromaticities(*pngs.DISPLAY_P3)


@pytest.mark.parametrize(
    ("chunks", "expected"),
    {
        "nothing": ((), ORANGE),
        "profile": ((pngs.profile(icc()),), EXCHANGED),
        "profile cut off": ((pngs.profile(icc()[:-1]),), ORANGE),
        "profile of grey": ((pngs.profile(icc(b"GRAY")),), ORANGE),
        "profile of nonsense": ((pngs.profile(icc()[:200] + b"?" * (len(icc()) - 200)),), ORANGE),
        "profile over the limit": ((pngs.profile(WRONG_SIZE),), ORANGE),
        "no profile": (((b"iCCP", b"no name"),), ORANGE),
        "gamma": ((pngs.gamma(1),), LIGHTER),
        "gamma of sRGB": ((pngs.gamma(0.45455),), ORANGE),
        "gamma 0": ((pngs.gamma(0), P3_PRIMARIES), ORANGE),
        "chromaticities only": ((P3_PRIMARIES,), ORANGE),
        "gamma and chromaticities": ((pngs.gamma(0.45455), P3_PRIMARIES), (216, 93, 24)),
        "chromaticities of one point": ((pngs.gamma(1), pngs.chromaticities(*[0.3] * 8)), ORANGE),
        "sRGB before gamma": ((pngs.gamma(1), SRGB), ORANGE),
        "profile before sRGB": ((SRGB, pngs.profile(icc())), EXCHANGED),
        "broken profile, then gamma": ((pngs.profile(b""), pngs.gamma(1)), LIGHTER),
        "code points before the profile": ((pngs.profile(icc()), pngs.code_points(12, 13)), IN_P3),
        "unknown code points": ((pngs.code_points(3, 13), pngs.profile(icc())), EXCHANGED),
        "limited range": ((pngs.code_points(12, 13, full_range=False),), ORANGE),
        "the first of two": ((pngs.gamma(1), pngs.gamma(0.3)), LIGHTER),
    }.values(),
)
def test_colours_are_those_that_a_browser_shows(chunks: tuple[Chunk, ...], expected: Pixel) -> None:
    assert_alike(shown(pngs.png([ORANGE], chunks=chunks)), [expected])


@pytest.mark.parametrize(
    ("transfer", "expected"),
    [
        *((television, (1, 28, 121, 165, 218)) for television in (1, 6, 11, 14, 15)),
        (4, (3, 35, 129, 171, 221)),
        (5, (0, 17, 106, 154, 212)),
        (7, (25, 58, 141, 179, 224)),
        (8, (56, 110, 188, 213, 239)),
        (9, (10, 40, 128, 170, 220)),
        (13, (10, 40, 128, 170, 220)),
        (17, (1, 23, 118, 166, 224)),
    ],
)
def test_curves_of_code_points_are_those_of_a_browser(transfer: int, expected: Pixel) -> None:
    stored = [(value,) * 3 for value in (10, 40, 128, 170, 220)]
    png = pngs.png(stored, chunks=[pngs.code_points(1, transfer)])
    assert_alike(shown(png), [(value,) * 3 for value in expected])


@pytest.mark.parametrize(
    ("primaries", "transfer", "grey", "expected"),
    [
        (1, 16, 132, [(76, 26, 9), (114, 137, 94), (26, 61, 163), (250, 106, 212)]),
        (9, 18, 99, [(84, 36, 21), (89, 102, 84), (0, 67, 105), (164, 87, 134)]),
    ],
)
def test_hdr_looks_as_in_a_browser_on_an_ordinary_screen(
    primaries: int, transfer: int, grey: int, expected: list[Pixel]
) -> None:
    greys = [(value,) * 3 for value in (0, 128, 255)]
    stored = [*greys, (100, 60, 40), (120, 130, 110), (60, 90, 140), (170, 120, 160)]
    kept = shown(pngs.png(stored, chunks=[pngs.code_points(primaries, transfer)]))
    assert_alike(kept, [(0, 0, 0), (grey,) * 3, (255, 255, 255), *expected], tolerance=9)


@pytest.mark.parametrize(
    ("primaries", "expected"),
    [
        (1, [(200, 100, 50), (60, 180, 120)]),
        (4, [(232, 93, 30), (0, 178, 118)]),
        (5, [(203, 100, 51), (46, 180, 121)]),
        (6, [(196, 102, 49), (73, 178, 120)]),
        (7, [(196, 102, 49), (73, 178, 120)]),
        (8, [(222, 92, 32), (0, 184, 116)]),
        (9, [(241, 76, 29), (0, 189, 112)]),
        (10, [(255, 0, 61), (0, 238, 98)]),
        (11, [(211, 93, 32), (0, 183, 114)]),
        (12, [(215, 93, 31), (0, 183, 114)]),
        (22, [(202, 102, 49), (52, 177, 120)]),
    ],
)
def test_primaries_of_code_points_are_those_of_a_browser(primaries: int, expected: list[Pixel]) -> None:
    png = pngs.png([ORANGE, (60, 180, 120)], chunks=[pngs.code_points(primaries, 13)])
    assert_alike(shown(png), expected)


@pytest.mark.parametrize("depth", [8, 16])
def test_grey_is_converted_also_by_a_profile_of_grey(depth: int) -> None:
    samples = [[0], [128 * (257 if depth == 16 else 1)]]
    assert_alike(shown(pngs.png(samples, depth, GREY, [pngs.gamma(1)])), [(0, 0, 0), (188, 188, 188)])
    curve = b"curv\0\0\0\0\0\0\0\0"  # linear
    tags = struct.pack(">I4sII", 1, b"kTRC", 144, len(curve)) + curve
    grey = struct.pack(">I", 128 + len(tags)) + icc(b"GRAY")[4:128] + tags
    assert_alike(shown(pngs.png(samples, depth, GREY, [pngs.profile(grey)])), [(0, 0, 0), (188, 188, 188)])


def test_what_is_half_transparent_is_mixed_with_white_in_srgb() -> None:
    linear = [pngs.gamma(1)]
    assert_alike(shown(pngs.png([(128, 0, 0, 128)], 8, RGB_ALPHA, linear)), [(221, 127, 127)])
    assert_alike(shown(pngs.png([(128, 128)], 8, GREY_ALPHA, linear)), [(221, 221, 221)])
    palette = [pngs.gamma(1), (b"PLTE", bytes((128, 0, 0, 255, 255, 255))), (b"tRNS", bytes((128,)))]
    assert_alike(shown(pngs.png([[0]], 8, PALETTE, palette)), [(221, 127, 127)])


@pytest.mark.parametrize(
    ("depth", "colour_type", "key", "other"),
    [
        (8, pngs.RGB, (10, 20, 30), (10, 20, 31)),
        (16, pngs.RGB, (0x1010, 0x2020, 0x3030), (0x1010, 0x2020, 0x3031)),
        (16, pngs.RGB, (0x1010, 0x2020, 0x3030), (0x1110, 0x2020, 0x3030)),
        (8, GREY, (40,), (41,)),
        (16, GREY, (0x2828,), (0x2829,)),
        (16, GREY, (0x2828,), (0x2928,)),
    ],
)
def test_the_transparent_colour_becomes_white_and_its_neighbour_does_not(
    depth: int, colour_type: int, key: Pixel, other: Pixel
) -> None:
    transparent = (b"tRNS", struct.pack(f">{len(key)}H", *key))
    kept = shown(pngs.png([key, other], depth, colour_type, [transparent]))
    visible = tuple(sample >> (depth - 8) for sample in other) * (3 // len(other))
    assert_alike(kept, [(255, 255, 255), visible])


def with_late(chunk: Chunk) -> bytes:
    """A PNG with a chunk behind its pixels."""
    end = pngs.chunk(b"IEND", b"")
    return pngs.png([ORANGE]).replace(end, pngs.chunk(*chunk) + end)


def test_what_comes_behind_the_pixels_or_a_second_time_does_not_count() -> None:
    transparent = [(b"tRNS", struct.pack(">3H", *colour)) for colour in ((10, 20, 30), ORANGE)]
    assert_alike(shown(pngs.png([ORANGE, (10, 20, 30)], chunks=transparent)), [ORANGE, (255, 255, 255)])
    assert_alike(shown(with_late(pngs.profile(icc()))), [ORANGE])


def test_a_png_without_a_header_is_refused() -> None:
    whole = pngs.png([ORANGE])
    for start in (b"", pngs.chunk(b"IHDR", b"\0" * 12), pngs.chunk(*pngs.gamma(1))):
        with pytest.raises(DamagedPicture, match="header"):
            jpeg_of(whole[:8] + start + whole[33:], LIMITS)


def test_the_orientation_is_the_one_that_a_browser_applies() -> None:
    def kept(*chunks: Chunk) -> int:
        image = Image.open(io.BytesIO(jpeg_of(pngs.png([ORANGE], chunks=chunks), LIMITS)))
        return int(image.getexif().get(0x0112, 1))

    assert [kept(pngs.orientation(value)) for value in range(1, 10)] == [1, 2, 3, 4, 5, 6, 7, 8, 1]
    assert kept(pngs.orientation(6), pngs.orientation(3)) == 6
    several_values = pngs.orientation(6)[1].replace(b"\0\0\0\1\0\6", b"\0\0\0\2\0\6")
    assert kept((b"eXIf", several_values)) == 1
    late = jpeg_of(with_late(pngs.orientation(6)), LIMITS)
    assert dict(Image.open(io.BytesIO(late)).getexif()) == {}
