"""What counts as a picture."""

from __future__ import annotations

import io
import struct
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from actors.runtime.config.sections import MobileSyncSettings
from actors.web_server.pictures import check
from actors.web_server.pictures.limits import (
    MAX_PARTS,
    CostlyPicture,
    DamagedPicture,
    NotAPicture,
    PictureLimits,
    PictureTooLarge,
    UnsupportedPicture,
)
from actors.web_server.pictures.png import BAND_ROWS

MAX_PIXELS = 1_000_000


def jpeg_of(content: bytes, max_pixels: int, **more: int) -> bytes:
    return check.jpeg_of(content, PictureLimits(max_pixels, **more))


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    target = io.BytesIO()
    image.save(target, kind, **options)
    return target.getvalue()


def opened(content: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(content))
    image.load()
    return image


NOISE = Image.effect_noise((48, 32), 60).convert("RGB")
JPEG = encoded(NOISE, "JPEG")
PROGRESSIVE = encoded(NOISE, "JPEG", progressive=True)
PNG = encoded(NOISE, "PNG")


def png_chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png_announcing(width: int, height: int) -> bytes:
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    data = png_chunk(b"IDAT", zlib.compress(b"\0" * 1000))
    return b"\x89PNG\r\n\x1a\n" + header + data + png_chunk(b"IEND", b"")


def jpeg_announcing(width: int, height: int) -> bytes:
    frame = JPEG.index(b"\xff\xc0") + 5  # marker, length, precision, then height and width
    return JPEG[:frame] + struct.pack(">HH", height, width) + JPEG[frame + 4 :]


# -- is it a picture -------------------------------------------------------------------------------------


@pytest.mark.parametrize("content", [JPEG, PROGRESSIVE])
def test_a_jpeg_is_kept_byte_for_byte_without_what_is_behind_its_end(content: bytes) -> None:
    assert jpeg_of(content, MAX_PIXELS) is content
    assert jpeg_of(content + b"a video that some phones append" * 99, MAX_PIXELS) == content


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"])
def test_a_png_of_any_mode_becomes_a_jpeg_of_the_same_size(mode: str) -> None:
    converted = opened(jpeg_of(encoded(Image.new(mode, (48, 32)), "PNG"), MAX_PIXELS))
    assert (converted.format, converted.size) == ("JPEG", (48, 32))


def test_transparency_becomes_white_and_16_bit_pngs_keep_their_brightness() -> None:
    transparent = opened(jpeg_of(encoded(Image.new("RGBA", (8, 8), (255, 0, 0, 0)), "PNG"), MAX_PIXELS))
    assert transparent.getpixel((4, 4)) == (255, 255, 255)
    palette = Image.new("P", (8, 8))
    see_through = opened(jpeg_of(encoded(palette, "PNG", transparency=0), MAX_PIXELS))
    assert see_through.getpixel((4, 4)) == (255, 255, 255)
    grey = opened(jpeg_of(encoded(Image.new("I;16", (8, 8), 0x8000), "PNG"), MAX_PIXELS))
    assert grey.getpixel((4, 4)) == (128, 128, 128)


@pytest.mark.parametrize("content", [JPEG, PROGRESSIVE, PNG], ids=["jpeg", "progressive", "png"])
def test_a_truncated_picture_is_refused(content: bytes) -> None:
    for length in range(len(content)):
        with pytest.raises(DamagedPicture if length >= 8 else NotAPicture):
            jpeg_of(content[:length], MAX_PIXELS)


@pytest.mark.parametrize(
    "options",
    [{}, {"quality": 95, "subsampling": 0}, {"restart_marker_blocks": 3}, {"quality": 5, "optimize": True}],
    ids=["plain", "fine", "restarts", "coarse"],
)
@pytest.mark.parametrize("size", [(1, 1), (48, 32), (17, 331)])
def test_a_jpeg_cut_in_its_scan_is_refused_also_with_an_end_marker(
    size: tuple[int, int], options: dict[str, object]
) -> None:
    jpeg = encoded(Image.effect_noise(size, 60).convert("RGB"), "JPEG", **options)
    assert jpeg_of(jpeg, MAX_PIXELS) == jpeg
    scan = jpeg.rindex(b"\xff\xda") + 14
    # The last block can be made up from the few bytes that stand in for what the decoder looks ahead at.
    for length in range(scan, len(jpeg) - 2 - 100, max(1, len(jpeg) // 200)):
        with pytest.raises(NotAPicture):
            jpeg_of(jpeg[:length] + b"\xff\xd9", MAX_PIXELS)


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
def test_a_progressive_jpeg_without_its_last_scans_is_refused_also_with_an_end_marker(mode: str) -> None:
    jpeg = encoded(Image.effect_noise((48, 32), 60).convert(mode), "JPEG", progressive=True)
    assert jpeg_of(jpeg, MAX_PIXELS) == jpeg
    last = jpeg.rindex(b"\xff\xda")
    for length in [*range(jpeg.index(b"\xff\xc2"), last, 7), last]:
        with pytest.raises(NotAPicture):
            jpeg_of(jpeg[:length] + b"\xff\xd9", MAX_PIXELS)


def test_a_cut_is_found_behind_a_thumbnail_and_before_appended_data() -> None:
    inside = encoded(Image.new("RGB", (160, 120), "navy"), "JPEG")
    marked = b"\xff\xe1" + struct.pack(">H", len(inside) + 8) + b"Exif\0\0" + inside
    content = JPEG[:2] + marked + JPEG[2:]
    assert jpeg_of(content + PNG + JPEG, MAX_PIXELS) == JPEG
    with pytest.raises(NotAPicture):
        jpeg_of(content[:-200] + b"\xff\xd9" + PNG + JPEG, MAX_PIXELS)


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
@pytest.mark.parametrize("size", [(1, 1), (8, 8), (17, 33), (640, 480)])
def test_complete_jpegs_of_every_kind_are_accepted(mode: str, size: tuple[int, int]) -> None:
    for image in (Image.new(mode, size), Image.effect_noise(size, 80).convert(mode)):
        for options in ({}, {"progressive": True}, {"quality": 100}, {"restart_marker_rows": 1}):
            jpeg = encoded(image, "JPEG", **options)
            assert jpeg_of(jpeg, MAX_PIXELS) == jpeg


def test_a_png_with_any_byte_changed_is_refused() -> None:
    small = encoded(NOISE.crop((0, 0, 6, 4)), "PNG")
    for place in range(len(small)):
        damaged = bytearray(small)
        damaged[place] ^= 0x41
        with pytest.raises(NotAPicture):
            jpeg_of(bytes(damaged), MAX_PIXELS)


def iso_file(brand: bytes) -> bytes:
    return b"\0\0\0\x18ftyp" + brand + b"\0\0\0\0" + brand + b"isom" + bytes(200)


@pytest.mark.parametrize(
    ("content", "name"),
    [
        *((encoded(NOISE, kind), kind) for kind in ("GIF", "BMP", "TIFF")),
        (encoded(NOISE, "WEBP"), "WebP"),
        (iso_file(b"heic"), "HEIC"),
        (iso_file(b"mif1"), "HEIC"),
        (iso_file(b"avif"), "AVIF"),
    ],
)
def test_pictures_of_another_format_are_refused_by_its_name(content: bytes, name: str) -> None:
    with pytest.raises(UnsupportedPicture, match=f"a {name}"):
        jpeg_of(content, MAX_PIXELS)


@pytest.mark.parametrize("content", [b"", b"%PDF-1.7", iso_file(b"mp42"), b"BMI is no picture", b"\xff\xd8"])
def test_what_is_no_picture_is_refused_as_such(content: bytes) -> None:
    with pytest.raises(NotAPicture) as refusal:
        jpeg_of(content, MAX_PIXELS)
    assert refusal.type is NotAPicture


@pytest.mark.parametrize(
    "bomb",
    [png_announcing(60_000, 60_000), png_announcing(2**31 - 1, 2**31 - 1), jpeg_announcing(65_500, 65_500)],
    ids=["png", "huge png", "jpeg"],
)
def test_a_decompression_bomb_is_refused_by_its_header(bomb: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    def decoded(_image: object) -> None:
        pytest.fail("the bomb went off")

    monkeypatch.setattr(check, "_loaded", decoded)
    with pytest.raises(PictureTooLarge, match=f"at most {MAX_PIXELS}"):
        jpeg_of(bomb, MAX_PIXELS)


def test_the_pixel_limit_is_exact_and_may_be_above_that_of_pillow() -> None:
    assert jpeg_of(JPEG, 48 * 32) == JPEG
    with pytest.raises(PictureTooLarge):
        jpeg_of(JPEG, 48 * 32 - 1)
    with pytest.raises(NotAPicture):  # 144 megapixels announced and allowed, but they are not there
        jpeg_of(png_announcing(12_000, 12_000), 10**9)


@pytest.mark.parametrize("size", [(8160, 6144), (8192, 6144), (6144, 8192)])
def test_pictures_of_50_megapixel_phones_are_accepted_by_default(size: tuple[int, int]) -> None:
    content = encoded(Image.new("RGB", size, "navy"), "JPEG")
    assert jpeg_of(content, MobileSyncSettings().max_pixels) == content


def with_scans(scans: int) -> bytes:
    """A progressive JPEG whose last scan comes again and again, until there are so many."""
    last = PROGRESSIVE.rindex(b"\xff\xda")
    return PROGRESSIVE[:last] + PROGRESSIVE[last:-2] * (scans - PROGRESSIVE.count(b"\xff\xda") + 1) + b"\xff\xd9"


def test_a_jpeg_may_have_a_hundred_scans_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    assert jpeg_of(with_scans(100), MAX_PIXELS) == with_scans(100)

    def decoded(_image: object) -> None:
        pytest.fail("the bomb went off")

    monkeypatch.setattr(check, "_loaded", decoded)
    for scans in (101, 3000):
        with pytest.raises(PictureTooLarge, match="more than 100 scans"):
            jpeg_of(with_scans(scans), MAX_PIXELS)


@pytest.mark.parametrize(
    "content",
    [
        JPEG[:2] + b"\xff\xfe\0\2" * MAX_PARTS + JPEG[2:],
        PNG[:33] + png_chunk(b"abCd", b"") * MAX_PARTS + PNG[33:],
    ],
    ids=["jpeg", "png"],
)
def test_a_picture_of_many_thousands_of_empty_parts_is_refused(content: bytes) -> None:
    with pytest.raises(PictureTooLarge, match=f"more than {MAX_PARTS}"):
        jpeg_of(content, MAX_PIXELS)


@pytest.mark.parametrize("lone", [b"\x01", b"\xd0", b"\xff\x01"], ids=["TEM", "restart", "filled"])
def test_markers_without_a_length_do_not_hide_later_scans(lone: bytes) -> None:
    bomb = with_scans(3000)
    place = bomb.index(b"\xff\xda")
    with pytest.raises(PictureTooLarge, match="scans"):
        jpeg_of(bomb[:place] + b"\xff" + lone + b"\xff\xff" + bomb[place:], MAX_PIXELS)


def test_costly_pictures_are_detected_before_they_are_decoded() -> None:
    scans = PROGRESSIVE.count(b"\xff\xda")
    for content, cost in ((JPEG, 48 * 32), (PROGRESSIVE, 48 * 32 * scans), (PNG, 48 * 32 * check.PNG_COST)):
        assert jpeg_of(content, MAX_PIXELS, cost=cost).startswith(b"\xff\xd8\xff")
        with pytest.raises(CostlyPicture):
            jpeg_of(content, MAX_PIXELS, cost=cost - 1)


def test_chunks_that_pixels_do_not_need_are_never_unpacked() -> None:
    bomb = zlib.compress(bytes(50_000_000), 9)
    text = png_chunk(b"zTXt", b"Comment\0\0" + bomb)
    unicode = png_chunk(b"iTXt", b"Comment\0\1\0\0\0" + bomb)
    inflate, unpacked = zlib.decompressobj, []

    class Watched:
        def __init__(self, *arguments: object) -> None:
            self._inflater = inflate()

        def decompress(self, content: bytes, *arguments: int) -> bytes:
            unpacked.append(len(content))
            return self._inflater.decompress(content, *arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(zlib, "decompressobj", Watched)
        for chunks in (text * 200, unicode * 200):
            assert opened(jpeg_of(PNG[:33] + chunks + PNG[33:], MAX_PIXELS)).size == (48, 32)
    assert unpacked == []


def test_an_animated_png_becomes_its_default_image() -> None:
    frames = [Image.new("RGB", (48, 32), (shade, 0, 0)) for shade in range(100)]
    content = encoded(frames[0], "PNG", save_all=True, append_images=frames[1:])
    assert opened(jpeg_of(content, MAX_PIXELS)).size == (48, 32)


def test_pictures_behind_the_first_of_a_jpeg_are_not_decoded() -> None:
    content = encoded(NOISE, "MPO", save_all=True, append_images=[NOISE] * 50)
    assert jpeg_of(content, 48 * 32, scans=1) == JPEG


def test_a_png_that_would_be_too_large_as_a_jpeg_is_refused() -> None:
    checks = Image.effect_noise((256, 256), 200).convert("1")
    assert len(jpeg_of(encoded(checks, "PNG"), MAX_PIXELS)) > 20_000
    with pytest.raises(PictureTooLarge, match="more than 20000 bytes as a JPEG"):
        jpeg_of(encoded(checks, "PNG"), MAX_PIXELS, jpeg_bytes=20_000)


@pytest.mark.parametrize("mode", ["LA", "RGBA", "I;16", "P"])
def test_a_png_of_many_bands_is_converted_like_one_of_a_single_band(mode: str) -> None:
    size = (40, 2 * BAND_ROWS + 7)
    source = Image.linear_gradient("L").resize(size)
    if mode == "I;16":
        source = source.convert("I").point(lambda value: value * 256).convert("I;16")
    else:
        source = source.convert(mode)
        if mode != "P":
            source.putalpha(Image.linear_gradient("L").rotate(90).resize(size))
    converted = opened(jpeg_of(encoded(source, "PNG"), MAX_PIXELS))
    for row in (0, BAND_ROWS - 1, BAND_ROWS, size[1] - 1):
        strip = source.crop((0, row, 40, row + 1))
        strip.load()
        single_band = opened(jpeg_of(encoded(strip, "PNG"), MAX_PIXELS))
        for column in (0, 20, 39):
            actual, expected = converted.getpixel((column, row)), single_band.getpixel((column, 0))
            assert isinstance(actual, tuple)
            assert isinstance(expected, tuple)
            assert all(
                abs(actual_value - expected_value) <= 6
                for actual_value, expected_value in zip(actual, expected, strict=True)
            ), (
                row,
                column,
            )


def test_a_picture_without_pixels_is_refused() -> None:
    for empty in (png_announcing(0, 0), png_announcing(0, 5), jpeg_announcing(0, 0), jpeg_announcing(5, 0)):
        with pytest.raises(NotAPicture):
            jpeg_of(empty, MAX_PIXELS)


def test_a_png_that_is_too_long_for_a_jpeg_is_refused_with_our_error() -> None:
    with pytest.raises(NotAPicture):
        jpeg_of(encoded(Image.new("L", (70_000, 1)), "PNG"), MAX_PIXELS)


@given(
    st.sampled_from([b"", b"\xff\xd8\xff", b"\xff\xd8\xff\xe0", b"\x89PNG\r\n\x1a\n", PNG[:33]]),
    st.binary(max_size=400),
)
def test_garbage_never_passes_and_raises_only_our_errors(start: bytes, rest: bytes) -> None:
    with pytest.raises((NotAPicture, PictureTooLarge)):
        jpeg_of(start + rest, MAX_PIXELS)


@given(st.data())
def test_a_damaged_jpeg_is_kept_as_it_is_checked_or_refused_with_our_errors(data: st.DataObject) -> None:
    damaged = bytearray(data.draw(st.sampled_from([JPEG, PROGRESSIVE])))
    for _ in range(data.draw(st.integers(1, 8))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    content = bytes(damaged)
    try:
        kept = jpeg_of(content, MAX_PIXELS)
        assert jpeg_of(kept, MAX_PIXELS) is kept
    except (NotAPicture, PictureTooLarge):
        return


@given(
    st.sampled_from([b"IHDR", b"PLTE", b"IDAT", b"tRNS", b"iCCP", b"gAMA", b"cICP", b"zTXt", b"eXIf", b"acTL"]),
    st.binary(max_size=60),
)
def test_a_png_with_sound_chunks_of_nonsense_raises_only_our_errors(kind: bytes, content: bytes) -> None:
    nonsense = PNG[:33] + png_chunk(kind, content) + PNG[33:]
    try:
        assert jpeg_of(nonsense, MAX_PIXELS).startswith(b"\xff\xd8\xff")
    except (NotAPicture, PictureTooLarge):
        return
