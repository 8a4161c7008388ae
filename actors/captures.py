"""Captures: is it a picture, and the files it is kept in. Everything here blocks; the web server calls it in threads.

A capture lives at `{directory}/{planId}/{examineeId}/sync_cap.jpg` and appears there in one step: it is written aside
in the same directory, synced, renamed, and the directories are synced, so a crash leaves the old picture or the new.
"""

from __future__ import annotations

import hashlib
import io
import os
import struct
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from PIL import Image
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile

from protocol.errors import ExamwireError

FILE_NAME = "sync_cap.jpg"
JPEG_QUALITY = 90
STALE_SECONDS = 3600.0
_JPEG_START = b"\xff\xd8\xff"
_PNG_START = b"\x89PNG\r\n\x1a\n"


class NotAPicture(ExamwireError):
    """The bytes are no complete JPEG or PNG; the text says what is wrong with them."""


class PictureTooLarge(ExamwireError):
    """More bytes than are allowed, or a header that announces too many pixels; nothing of it was decoded."""


class StoreFailed(ExamwireError):
    """The file system did not take the capture (disk full, read only, ...)."""


def jpeg_of(content: bytes, max_pixels: int) -> bytes:
    """Check that `content` is a whole JPEG or PNG picture; the JPEG to keep.

    A JPEG comes back byte for byte, a PNG converted (over white where it is transparent). The pixel limit is applied
    to the header, before anything is decoded. Raises `NotAPicture` or `PictureTooLarge`, and nothing else. A cut is
    always found; damage within a JPEG's scan that libjpeg can bridge (it fills with grey) is not.
    """
    if content.startswith(_JPEG_START):
        image = _opened(JpegImageFile, content, max_pixels)
        # Decoding at an eighth still reads every coefficient, so a cut is found, in half the time and 1/64 the memory.
        image.draft("L", (max(1, image.width // 8), max(1, image.height // 8)))
        _loaded(image)
        return content
    if content.startswith(_PNG_START):
        _check_png_chunks(content)
        return _converted(_loaded(_opened(PngImageFile, content, max_pixels)))
    raise NotAPicture("neither a JPEG nor a PNG" if content else "the body is empty")


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


class Incoming:
    """An upload on its way: written to a file aside, hashed as it comes. End it with `commit` or `discard`."""

    def __init__(self, directory: Path) -> None:
        """Raises `StoreFailed`."""
        self._target = directory / FILE_NAME
        self._digest = hashlib.sha256()
        with _store_errors(directory):
            directory.mkdir(parents=True, exist_ok=True)
            # Buffered on purpose: its lock makes a discard() wait for a write that is still going on in a thread.
            self._file = tempfile.NamedTemporaryFile(  # noqa: SIM115
                "w+b", dir=directory, prefix=".upload-", suffix=".part", delete=False
            )
        self._aside = Path(self._file.name)

    @property
    def capture_id(self) -> str:
        """SHA-256 (hex) of what was received so far; a conversion does not change it."""
        return self._digest.hexdigest()

    def write(self, content: bytes) -> None:
        """Append. Raises `StoreFailed`."""
        self._digest.update(content)
        with _store_errors(self._aside):
            self._file.write(content)

    def keep_jpeg(self, max_pixels: int) -> None:
        """Check what was received and convert it if need be. Raises as `jpeg_of`, and `StoreFailed`."""
        with _store_errors(self._aside):
            self._file.seek(0)
            received = self._file.read()
        jpeg = jpeg_of(received, max_pixels)
        if jpeg is not received:
            with _store_errors(self._aside):
                self._file.seek(0)
                self._file.truncate()
                self._file.write(jpeg)

    def commit(self) -> None:
        """Put the file in its place, for good: it is there after a power cut too. Raises `StoreFailed`."""
        directory = self._target.parent
        with _store_errors(self._target):
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
            os.replace(self._aside, self._target)
            # The directories above may be as new as the file.
            for one in (directory, directory.parent, directory.parent.parent):
                _sync_directory(one)

    def discard(self) -> None:
        """Remove the file aside; nothing happens after a commit. Raises nothing: there is nobody to act on it."""
        with suppress(OSError):  # what could not be flushed is about to be removed
            self._file.close()
        with suppress(OSError):  # the sweep of a later start takes what cannot be removed now
            self._aside.unlink(missing_ok=True)


class CaptureStore:
    """The captures of all plans under one directory. Ids are checked before they get here (`protocol.ids`)."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def begin(self, plan_id: str, examinee_id: str) -> Incoming:
        """A new upload of an examinee. Raises `StoreFailed`."""
        return Incoming(self.directory / plan_id / examinee_id)

    def read(self, plan_id: str, examinee_id: str) -> bytes | None:
        """The capture, whole, or `None`. Raises `StoreFailed` when it is there and cannot be read."""
        path = self.directory / plan_id / examinee_id / FILE_NAME
        with _store_errors(path):
            try:
                return path.read_bytes()
            except FileNotFoundError:
                return None

    def sweep(self) -> int:
        """Remove what a killed process left of its uploads, an hour old or more; how many files."""
        removed = 0
        oldest = time.time() - STALE_SECONDS
        with _store_errors(self.directory):
            for path in self.directory.glob("*/*/.upload-*.part"):
                with suppress(FileNotFoundError):  # another web server on the same files was quicker
                    if path.stat().st_mtime < oldest:
                        path.unlink()
                        removed += 1
        return removed


@contextmanager
def _store_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StoreFailed(f"{path}: {error.strerror or error}") from error


def _sync_directory(directory: Path) -> None:
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
