"""What counts as a picture, and how its file gets to its place."""

from __future__ import annotations

import errno
import hashlib
import io
import os
import struct
import time
import zlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from actors import captures
from actors.captures import CaptureStore, NotAPicture, PictureTooLarge, StoreFailed, jpeg_of

MAX_PIXELS = 1_000_000


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


@pytest.mark.parametrize("content", [JPEG, PROGRESSIVE, JPEG + b"a video that some phones append" * 99])
def test_a_jpeg_is_kept_byte_for_byte(content: bytes) -> None:
    assert jpeg_of(content, MAX_PIXELS) == content


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"])
def test_a_png_of_any_mode_becomes_a_jpeg_of_the_same_size(mode: str) -> None:
    kept = opened(jpeg_of(encoded(Image.new(mode, (48, 32)), "PNG"), MAX_PIXELS))
    assert (kept.format, kept.size) == ("JPEG", (48, 32))


def test_what_is_transparent_in_a_png_becomes_white_and_16_bits_keep_their_brightness() -> None:
    transparent = opened(jpeg_of(encoded(Image.new("RGBA", (8, 8), (255, 0, 0, 0)), "PNG"), MAX_PIXELS))
    assert transparent.getpixel((4, 4)) == (255, 255, 255)
    palette = Image.new("P", (8, 8))
    see_through = opened(jpeg_of(encoded(palette, "PNG", transparency=0), MAX_PIXELS))
    assert see_through.getpixel((4, 4)) == (255, 255, 255)
    grey = opened(jpeg_of(encoded(Image.new("I;16", (8, 8), 0x8000), "PNG"), MAX_PIXELS))
    assert grey.getpixel((4, 4)) == (128, 128, 128)


@pytest.mark.parametrize("content", [JPEG, PROGRESSIVE, PNG], ids=["jpeg", "progressive", "png"])
def test_a_picture_cut_anywhere_is_none(content: bytes) -> None:
    for length in range(len(content)):
        with pytest.raises(NotAPicture):
            jpeg_of(content[:length], MAX_PIXELS)


def test_a_png_with_any_one_byte_changed_is_none() -> None:
    small = encoded(NOISE.crop((0, 0, 6, 4)), "PNG")
    for place in range(len(small)):
        damaged = bytearray(small)
        damaged[place] ^= 0x41
        with pytest.raises(NotAPicture):
            jpeg_of(bytes(damaged), MAX_PIXELS)


@pytest.mark.parametrize("kind", ["GIF", "BMP", "WEBP", "TIFF"])
def test_other_formats_are_refused(kind: str) -> None:
    with pytest.raises(NotAPicture, match="neither a JPEG nor a PNG"):
        jpeg_of(encoded(NOISE, kind), MAX_PIXELS)


@pytest.mark.parametrize(
    "bomb",
    [png_announcing(60_000, 60_000), png_announcing(2**31 - 1, 2**31 - 1), jpeg_announcing(65_500, 65_500)],
    ids=["png", "huge png", "jpeg"],
)
def test_a_decompression_bomb_is_refused_by_its_header(bomb: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    def decoded(_image: object) -> None:
        pytest.fail("the bomb went off")

    monkeypatch.setattr(captures, "_loaded", decoded)
    with pytest.raises(PictureTooLarge, match=f"at most {MAX_PIXELS}"):
        jpeg_of(bomb, MAX_PIXELS)


def test_the_pixel_limit_is_exact_and_may_be_above_that_of_pillow() -> None:
    assert jpeg_of(JPEG, 48 * 32) == JPEG
    with pytest.raises(PictureTooLarge):
        jpeg_of(JPEG, 48 * 32 - 1)
    with pytest.raises(NotAPicture):  # 144 megapixels announced and allowed, but they are not there
        jpeg_of(png_announcing(12_000, 12_000), 10**9)


def test_a_picture_without_pixels_is_none() -> None:
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
def test_a_damaged_jpeg_is_kept_as_it_is_or_refused_with_our_errors(data: st.DataObject) -> None:
    damaged = bytearray(data.draw(st.sampled_from([JPEG, PROGRESSIVE])))
    for _ in range(data.draw(st.integers(1, 8))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    content = bytes(damaged)
    try:
        assert jpeg_of(content, MAX_PIXELS) == content
    except (NotAPicture, PictureTooLarge):
        return


@given(
    st.sampled_from([b"IHDR", b"PLTE", b"IDAT", b"tRNS", b"iCCP", b"zTXt", b"eXIf", b"acTL"]), st.binary(max_size=60)
)
def test_a_png_with_sound_chunks_of_nonsense_raises_only_our_errors(kind: bytes, content: bytes) -> None:
    nonsense = PNG[:33] + png_chunk(kind, content) + PNG[33:]
    try:
        assert jpeg_of(nonsense, MAX_PIXELS).startswith(b"\xff\xd8\xff")
    except (NotAPicture, PictureTooLarge):
        return


# -- the files -------------------------------------------------------------------------------------------


def files_in(directory: Path) -> list[str]:
    return sorted(str(path.relative_to(directory)) for path in directory.rglob("*") if path.is_file())


def keep(store: CaptureStore, content: bytes, examinee_id: str = "E001") -> str:
    incoming = store.begin("P001", examinee_id)
    incoming.write(content[:100])
    incoming.write(content[100:])
    incoming.keep_jpeg(MAX_PIXELS)
    incoming.commit()
    incoming.discard()
    return incoming.capture_id


def test_a_capture_appears_when_it_is_committed_and_not_before(tmp_path: Path) -> None:
    store = CaptureStore(tmp_path)
    incoming = store.begin("P001", "E001")
    incoming.write(JPEG)
    incoming.keep_jpeg(MAX_PIXELS)
    assert store.read("P001", "E001") is None
    incoming.commit()
    assert store.read("P001", "E001") == JPEG
    incoming.discard()
    assert files_in(tmp_path) == ["P001/E001/sync_cap.jpg"]


def test_the_capture_id_is_the_hash_of_what_was_received_also_when_it_was_converted(tmp_path: Path) -> None:
    store = CaptureStore(tmp_path)
    assert keep(store, PNG) == hashlib.sha256(PNG).hexdigest()
    kept = store.read("P001", "E001")
    assert kept is not None
    assert opened(kept).format == "JPEG"
    assert keep(store, JPEG) == hashlib.sha256(JPEG).hexdigest()
    assert store.read("P001", "E001") == JPEG


def test_a_discarded_upload_leaves_the_earlier_picture_and_nothing_else(tmp_path: Path) -> None:
    store = CaptureStore(tmp_path)
    keep(store, JPEG)
    incoming = store.begin("P001", "E001")
    incoming.write(PROGRESSIVE)
    incoming.discard()
    incoming.discard()
    assert (store.read("P001", "E001"), files_in(tmp_path)) == (JPEG, ["P001/E001/sync_cap.jpg"])


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_disk_that_fails_at_the_last_moment_leaves_the_earlier_picture(
    step: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_arguments: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    store = CaptureStore(tmp_path)
    keep(store, JPEG)
    incoming = store.begin("P001", "E001")
    incoming.write(PROGRESSIVE)
    monkeypatch.setattr(os, step, full)
    with pytest.raises(StoreFailed, match="No space left on device"):
        incoming.commit()
    incoming.discard()
    assert (store.read("P001", "E001"), files_in(tmp_path)) == (JPEG, ["P001/E001/sync_cap.jpg"])


def test_the_file_and_the_directories_above_it_are_synced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[str] = []
    really = os.fsync

    def fsync(handle: int) -> None:
        synced.append(os.readlink(f"/proc/self/fd/{handle}"))
        really(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    keep(CaptureStore(tmp_path), JPEG)
    assert Path(synced[0]).name.startswith(".upload-")
    assert synced[1:] == [str(tmp_path / "P001" / "E001"), str(tmp_path / "P001"), str(tmp_path)]


def test_a_directory_that_cannot_be_made_is_a_store_that_failed(tmp_path: Path) -> None:
    (tmp_path / "P001").write_text("in the way")
    with pytest.raises(StoreFailed):
        CaptureStore(tmp_path).begin("P001", "E001")


def test_a_capture_that_cannot_be_read_is_not_taken_for_none(tmp_path: Path) -> None:
    (tmp_path / "P001" / "E001" / "sync_cap.jpg").mkdir(parents=True)
    with pytest.raises(StoreFailed):
        CaptureStore(tmp_path).read("P001", "E001")


def test_the_sweep_takes_what_a_killed_process_left_and_nothing_younger(tmp_path: Path) -> None:
    store = CaptureStore(tmp_path)
    keep(store, JPEG)
    directory = tmp_path / "P001" / "E001"
    old, young = directory / ".upload-old.part", directory / ".upload-young.part"
    old.touch()
    young.touch()
    long_ago = time.time() - captures.STALE_SECONDS - 60
    for path in (old, directory / "sync_cap.jpg"):
        os.utime(path, (long_ago, long_ago))
    assert store.sweep() == 1
    assert files_in(tmp_path) == ["P001/E001/.upload-young.part", "P001/E001/sync_cap.jpg"]
    assert CaptureStore(tmp_path / "not there yet").sweep() == 0
