"""What is removed from a picture before it is stored, and what stays: pixels, colours, orientation."""

from __future__ import annotations

import io
import struct
from typing import Any

import pytest
from PIL import Image, ImageCms
from PIL.PngImagePlugin import PngInfo

from actors.web_server.pictures.check import jpeg_of
from actors.web_server.pictures.limits import NotAPicture, PictureLimits
from actors.web_server.pictures.metadata import without_metadata

LIMITS = PictureLimits(4_000_000, jpeg_bytes=4_000_000)
PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
SECRETS = (
    b"37.5665",
    b"MAKERNOTE",
    b"serial-4711",
    b"ns.adobe.com/xap",
    b"a comment",
    b"MPF\0",
    b"behind the end",
)


def gradient(mode: str = "RGB") -> Image.Image:
    return Image.linear_gradient("L").resize((64, 48)).convert(mode)


def jpeg(mode: str = "RGB", **more: Any) -> bytes:
    content = io.BytesIO()
    gradient(mode).save(content, "JPEG", quality=88, **more)
    return content.getvalue()


def exif(orientation: int) -> Image.Exif:
    """Exif data of a phone: where it was, its maker's notes, its serial number."""
    data = Image.Exif()
    data[0x0112], data[0x010F], data[0xA431] = orientation, "Phone", "serial-4711"
    data.get_ifd(0x8825)[1] = "N 37.5665"
    data.get_ifd(0x8769)[0x927C] = b"MAKERNOTE" * 20
    return data


def segment(marker: int, payload: bytes) -> bytes:
    return bytes((0xFF, marker)) + (len(payload) + 2).to_bytes(2, "big") + payload


def of_a_phone(orientation: int, mode: str = "RGB", **more: Any) -> bytes:
    """A JPEG with everything that phones write into it."""
    plain = jpeg(mode, exif=exif(orientation), icc_profile=PROFILE, comment=b"a comment", **more)
    xmp = segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0<x:xmpmeta>37.5665</x:xmpmeta>")
    more_pictures = segment(0xE2, b"MPF\0" + b"x" * 30)
    thumbnail = segment(0xE0, b"JFXX\0\x10" + jpeg())
    return plain[:2] + xmp + more_pictures + thumbnail + plain[2:] + jpeg() + b"behind the end"


def pixels(content: bytes) -> bytes:
    return Image.open(io.BytesIO(content)).tobytes()


@pytest.mark.filterwarnings("ignore:Image appears to be a malformed MPO")
@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
@pytest.mark.parametrize("more", [{}, {"progressive": True}, {"mode": "L"}, {"mode": "CMYK"}])
def test_a_phones_picture_keeps_pixels_colours_and_orientation_and_nothing_else(
    orientation: int, more: dict[str, Any]
) -> None:
    sent = of_a_phone(orientation, **more)
    kept = jpeg_of(sent, LIMITS)
    image = Image.open(io.BytesIO(kept))
    assert (image.format, dict(image.getexif())) == ("JPEG", {0x0112: orientation} if orientation > 1 else {})
    assert image.info["icc_profile"] == PROFILE
    assert pixels(kept) == pixels(sent), "compressed once"
    for secret in SECRETS:
        assert secret in sent, secret
        assert secret not in kept, secret
    assert kept.count(b"\xff\xd8\xff") == 1, "no thumbnail"
    assert without_metadata(kept) is kept


def with_trailer(
    picture: bytes, *, film: bytes = b"ftypmp42 37.5665" + b"\xff\xd8\xff\xda\xff\xd9\xff\xc0" * 3
) -> bytes:
    """The picture with the trailer of a Galaxy phone: blocks, a directory of them (SEFH), its length and SEFT."""
    blocks = [b"\0\0\1\x0aImage_UTC_Data1700000000000", b"\0\0\x30\x0aMotionPhoto_Data" + film]
    places = [sum(map(len, blocks[number:])) for number in range(len(blocks))]
    entries = (block[:4] + struct.pack("<II", place, len(block)) for block, place in zip(blocks, places, strict=True))
    directory = b"SEFH" + struct.pack("<II", 106, len(blocks)) + b"".join(entries)
    return picture + b"".join(blocks) + directory + struct.pack("<I", len(directory)) + b"SEFT"


@pytest.mark.parametrize("progressive", [False, True])
def test_a_panorama_without_an_end_marker_before_its_trailer_is_whole(progressive: bool) -> None:
    plain = jpeg(progressive=progressive)
    assert jpeg_of(with_trailer(plain[:-2]), LIMITS) == plain
    assert jpeg_of(with_trailer(plain), LIMITS) == plain
    for cut in (with_trailer(plain[:-120]), with_trailer(plain[:-2])[:-1], with_trailer(plain[:300])):
        with pytest.raises(NotAPicture):
            jpeg_of(cut, LIMITS)


@pytest.mark.parametrize(("length", "count"), [(0, 2), (11, 2), (2**32 - 1, 2), (36, 0), (36, 3), (36, 2**32 - 1)])
def test_a_trailer_whose_directory_makes_no_sense_does_not_count(length: int, count: int) -> None:
    sent = with_trailer(jpeg()[:-2], film=b"film")
    directory = sent.index(b"SEFH")
    broken = sent[: directory + 8] + struct.pack("<I", count) + sent[directory + 12 : -8] + struct.pack("<I", length)
    with pytest.raises(NotAPicture):
        jpeg_of(broken + b"SEFT", LIMITS)


def test_a_picture_without_metadata_is_kept_as_it_is() -> None:
    plain = jpeg(restart_marker_blocks=2)
    assert jpeg_of(plain, LIMITS) is plain


BROKEN_EXIF = (b"", b"MM\0*", b"II*\0\xff\xff\xff\xff", b"II*\0\x08\0\0\0\x05\0\x12\x01\x03\0", b"no TIFF")


@pytest.mark.parametrize("broken", BROKEN_EXIF)
def test_broken_exif_data_count_as_upright(broken: bytes) -> None:
    plain = jpeg()
    sent = plain[:2] + segment(0xE1, b"Exif\0\0" + broken) + plain[2:]
    assert jpeg_of(sent, LIMITS) == plain


def test_exif_data_may_be_padded_with_any_byte() -> None:
    sent = jpeg(exif=exif(6)).replace(b"Exif\0\0", b"Exif\0\1")
    assert Image.open(io.BytesIO(jpeg_of(sent, LIMITS))).getexif()[0x0112] == 6


def test_an_orientation_that_does_not_exist_counts_as_upright() -> None:
    assert Image.open(io.BytesIO(jpeg_of(jpeg(exif=exif(9)), LIMITS))).getexif() == {}


def png(mode: str = "RGB", **more: Any) -> bytes:
    content, texts = io.BytesIO(), PngInfo()
    texts.add_text("Location", "37.5665")
    gradient(mode).save(content, "PNG", pnginfo=texts, **more)
    return content.getvalue()


def test_a_png_gives_its_orientation_to_the_jpeg_and_none_of_its_texts() -> None:
    kept = jpeg_of(png(exif=exif(6), icc_profile=PROFILE), LIMITS)
    image = Image.open(io.BytesIO(kept))
    assert (dict(image.getexif()), image.size) == ({0x0112: 6}, (64, 48))
    for secret in SECRETS:
        assert secret not in kept, secret
