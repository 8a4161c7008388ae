"""Save the pictures of a directory as a tar file, and put them back."""

from __future__ import annotations

import os
import re
import secrets
import tarfile
from collections.abc import Callable
from pathlib import Path, PurePosixPath

from actors.web_server.pictures.store import CAPTURE_ID, FILE_NAME
from cli.backup.manifest import DamagedBackup, NewFile

NAME = re.compile(rf"[^/]+/[^/]+/({CAPTURE_ID.pattern}|{re.escape(FILE_NAME.removesuffix('.jpg'))})\.jpg")


def save_pictures(directory: Path, file: NewFile, progress: Callable[[int], None]) -> int:
    """Write every picture of `directory` into a tar file; return how many. `progress` gets the number so far.

    `sync_cap.jpg` is a second name of the picture stored last: in the tar file, too.
    """
    count = 0
    with tarfile.open(fileobj=file, mode="w|", format=tarfile.PAX_FORMAT) as archive:  # type: ignore[call-overload]
        for folder in sorted(directory.glob("*/*/")):
            names: dict[int, str] = {}
            # The second name last: it refers to one of the others.
            for path in sorted(folder.glob("*.jpg"), key=lambda path: (path.name == FILE_NAME, path.name)):
                name = path.relative_to(directory).as_posix()
                if NAME.fullmatch(name) is None:
                    continue
                try:
                    content = path.open("rb")
                except FileNotFoundError:
                    continue  # removed meanwhile
                with content:
                    status = os.fstat(content.fileno())
                    about = tarfile.TarInfo(name)
                    about.mode, about.mtime = 0o600, status.st_mtime
                    if path.name == FILE_NAME and status.st_ino in names:
                        about.type, about.linkname = tarfile.LNKTYPE, names[status.st_ino]
                        archive.addfile(about)
                    else:
                        about.size = status.st_size
                        archive.addfile(about, content)
                        count += path.name != FILE_NAME
                    names[status.st_ino] = name
                archive.members = []  # it would remember each
            progress(count)
    return count


def restore_pictures(source: Path, directory: Path) -> int:
    """Put the pictures of a tar file into `directory`; return how many. Others that are there stay.

    Raises `DamagedBackup`, and `OSError` when they cannot be written. May be repeated.
    """
    count = 0
    try:
        with tarfile.open(source, mode="r|") as archive:
            while (member := archive.next()) is not None:
                archive.members = []  # type: ignore[attr-defined]
                if NAME.fullmatch(member.name) is None or ".." in PurePosixPath(member.name).parts:
                    raise DamagedBackup(f"{source}: {member.name} is no picture")
                target = directory / member.name
                target.parent.mkdir(parents=True, exist_ok=True)
                aside = target.with_name(f".restore-{secrets.token_hex(4)}.part")
                try:
                    if member.islnk():
                        os.link(target.with_name(PurePosixPath(member.linkname).name), aside)
                    elif (content := archive.extractfile(member)) is not None:
                        with os.fdopen(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                            while part := content.read(1024 * 1024):
                                file.write(part)
                        os.utime(aside, (member.mtime, member.mtime))
                    else:
                        raise DamagedBackup(f"{source}: {member.name} is no picture")
                    aside.replace(target)
                finally:
                    aside.unlink(missing_ok=True)
                count += target.name != FILE_NAME
    except tarfile.TarError as error:
        raise DamagedBackup(f"{source} is damaged: {error}") from None
    return count
