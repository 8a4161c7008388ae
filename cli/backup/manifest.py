"""The directory of a backup: its manifest, the hash of each file, and whether it is complete.

While a backup is written, its directory has the file `INCOMPLETE`; `manifest.json` is written last. So a backup that
was broken off is recognised, and may be taken again into the same directory.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Annotated, Any

import pydantic
from filelock import FileLock, Timeout

from protocol.errors import ConfigurationError, ExamwireError

BACKUP_FORMAT = 1
MANIFEST, INCOMPLETE = "manifest.json", "INCOMPLETE"
STREAMS, FILES, PICTURES = "streams", "files", "pictures.tar"
READ_BYTES = 1024 * 1024


class DamagedBackup(ExamwireError):
    """A backup is not complete, or a file of it is not what was written."""


class SavedFile(pydantic.BaseModel):
    """A file of a backup. `name`: its path in the directory of the backup."""

    name: Annotated[str, pydantic.StringConstraints(pattern=r"^[\w-][\w.-]*(/[\w-][\w.-]*)*$")]
    sha256: str
    bytes: int


class SavedStream(pydantic.BaseModel):
    """A stream of a backup. `config` and `state` as NATS has given them; `file`: what NATS has sent."""

    name: str
    file: SavedFile
    config: dict[str, Any]
    state: dict[str, Any]

    @property
    def messages(self) -> int:
        return int(self.state["messages"])


class SavedPictures(pydantic.BaseModel):
    """The pictures of a directory, as a tar file. `directory`: where they were."""

    file: SavedFile
    count: int
    directory: str


class Manifest(pydantic.BaseModel):
    """What a backup holds; `manifest.json`.

    `acknowledged`: for each core consumer of STATUS the sequence up to which it was done before the first stream was
    saved. `missing`: what a restore on another machine needs, and a backup cannot hold.

    Example::

        manifest = read_manifest(Path("/backup/monday"))
        manifest.streams[0].messages
    """

    format: int = BACKUP_FORMAT
    examwire: str
    message_format: int
    nats: str
    created: str
    ended: str
    streams: list[SavedStream]
    acknowledged: dict[str, int]
    pictures: SavedPictures | None
    files: list[SavedFile]
    missing: list[str]

    @property
    def all_files(self) -> list[SavedFile]:
        pictures = [self.pictures.file] if self.pictures is not None else []
        return [*(stream.file for stream in self.streams), *pictures, *self.files]


class NewFile:
    """A file of a backup while it is written; readable by its owner only.

    Example::

        with NewFile(directory, "files/secret") as file:
            file.write(secret)
        file.saved.sha256
    """

    def __init__(self, directory: Path, name: str) -> None:
        self._name = name
        path = directory / name
        path.parent.mkdir(mode=0o700, exist_ok=True)
        self._file: IO[bytes] = os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb")
        self._digest = hashlib.sha256()
        self.size = 0

    def __enter__(self) -> NewFile:
        return self

    def __exit__(self, *_: object) -> None:
        with self._file:
            self._file.flush()
            os.fsync(self._file.fileno())

    def write(self, content: bytes) -> int:
        self._file.write(content)
        self._digest.update(content)
        self.size += len(content)
        return len(content)

    @property
    def saved(self) -> SavedFile:
        return SavedFile(name=self._name, sha256=self._digest.hexdigest(), bytes=self.size)


@contextlib.contextmanager
def new_backup(directory: Path) -> Iterator[None]:
    """Prepare the directory for a backup, and hold it while the backup is written.

    Raises `ConfigurationError` when it cannot be used: it holds other things, a complete backup, or one that is being
    written.
    """
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        entries = {path.name for path in directory.iterdir()}
        if MANIFEST in entries:
            raise ConfigurationError(f"{directory} holds a backup already: choose another directory")
        if INCOMPLETE not in entries and entries:
            raise ConfigurationError(f"{directory} is not empty: choose another directory")
        # The kernel's lock only, as in `cli.local.data_dir`.
        lock = FileLock(
            directory / INCOMPLETE, blocking=False, fallback_to_soft=False, mode=0o600, preserve_lock_file=True
        )
        with lock:
            _remove_half(directory)
            yield
    except Timeout:
        raise ConfigurationError(f"another backup is being written to {directory}: choose another directory") from None
    except OSError as error:
        raise DamagedBackup(
            f"the backup was not written: {error.strerror or error}: {error.filename or directory}"
        ) from error


def _remove_half(directory: Path) -> None:
    """Remove what a backup that was broken off has left."""
    for folder in (STREAMS, FILES):
        for path in sorted((directory / folder).rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()
    for name in (PICTURES, f".{MANIFEST}"):
        (directory / name).unlink(missing_ok=True)


def write_manifest(directory: Path, manifest: Manifest) -> None:
    """Write the manifest: from now on the backup is complete. Every other file is on the disk already."""
    aside = directory / f".{MANIFEST}"
    with os.fdopen(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
        file.write(manifest.model_dump_json(indent=2))
        file.flush()
        os.fsync(file.fileno())
    for folder in {(directory / file.name).parent for file in manifest.all_files} | {directory}:
        _sync(folder)
    aside.rename(directory / MANIFEST)
    (directory / INCOMPLETE).unlink()
    _sync(directory)


def read_manifest(directory: Path) -> Manifest:
    """Read the manifest of a backup. Raises `ConfigurationError`: no backup; `DamagedBackup`: not a complete one."""
    path = directory / MANIFEST
    try:
        content = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        if (directory / INCOMPLETE).exists():
            raise DamagedBackup(f"the backup in {directory} did not come to its end: take another one") from None
        raise ConfigurationError(f"{directory} is no backup: it has no {MANIFEST}") from None
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read: {error.strerror}") from None
    try:
        data = pydantic.TypeAdapter(dict[str, Any]).validate_json(content)
        number = data.get("format")
        if isinstance(number, int) and number > BACKUP_FORMAT:
            release = data.get("examwire")
            raise ConfigurationError(
                f"{directory} was written by a newer release ({release}): restore it with that one"
            )
        return Manifest.model_validate(data)
    except pydantic.ValidationError as error:
        raise DamagedBackup(f"{path} is damaged: {error.errors(include_url=False)[0]['msg']}") from None


def verify(directory: Path, manifest: Manifest) -> None:
    """Compare every file with its hash. Raises `DamagedBackup` naming the first that differs."""
    for saved in manifest.all_files:
        path = directory / saved.name
        try:
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise DamagedBackup(f"{path} cannot be read: {error.strerror}: nothing was restored") from None
        if digest != saved.sha256:
            raise DamagedBackup(f"{path} is damaged (its SHA-256 is not that of the manifest): nothing was restored")


def _sync(directory: Path) -> None:
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
