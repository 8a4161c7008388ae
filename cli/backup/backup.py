"""`examwire backup`: save the streams, pictures and secrets of an installation while an exam runs.

The order in which the streams are saved makes them fit together (docs/backup.md, "What fits together, and why"):

1. How far the readers of the log are, before anything else. A restore sets them back to there, so every effect of what
   happens meanwhile is made again.
2. The checkpoints and all other streams. Nothing in them is newer than the log that is saved after them.
3. The log, STATUS.
4. The pictures: each picture that the log names was stored before.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import typer

from actors.runtime.broker.connection import Bus
from actors.runtime.broker.consumers.stream_snapshot import save_stream
from actors.runtime.config.settings import PREFIX, Settings, setting_fields, settings_file, value_of
from cli.backup.engines import engines_to_read
from cli.backup.manifest import (
    FILES,
    PICTURES,
    STREAMS,
    Manifest,
    NewFile,
    SavedFile,
    SavedPictures,
    SavedStream,
    new_backup,
    write_manifest,
)
from cli.backup.pictures import save_pictures
from cli.local.up import PORTS_FILE
from cli.shared.live_actors import connected
from cli.shared.options import takes_settings
from cli.shared.output import Format, NotFound, OutputOption, say, show
from protocol.broker.streams import (
    ADVISORY,
    CAPTURES_BUCKET,
    CHECKPOINT,
    DEADLETTER,
    LEASE,
    PHONE,
    RECONNECT,
    RECORDS,
    SOCKET,
    STATE_MANAGERS,
    STATUS,
    bucket_stream,
)
from protocol.messages.base import FORMAT
from protocol.times import format_time

SAVED_STREAMS = (
    *(spec.name for spec in (RECORDS, CHECKPOINT, DEADLETTER, ADVISORY, PHONE, RECONNECT, LEASE, SOCKET)),
    STATUS.name,
    bucket_stream(CAPTURES_BUCKET),
)
"""In the order in which they are saved."""
PROGRESS_SECONDS = 2.0
SECRET, TLS = "secret", "tls"


@takes_settings("nats_url", "data_dir", "captures.store", running=True)
def backup(
    settings: Settings,
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="A new or empty directory.", show_default=False)],
    without_pictures: Annotated[bool, typer.Option("--without-pictures", help="Leave out pictures in files.")] = False,
    output: OutputOption = Format.TABLE,
) -> None:
    """Save streams, pictures and secrets while an exam runs.

    Example: examwire backup /backup/2026-11-30

    All streams with their consumers, the pictures, and the secrets of the data directory. Redis is not in it: it is
    made again from the streams. Files may be read by their owner only. The manifest is written last: a backup that was
    interrupted is recognised, and may be repeated into the same directory.

    Exit code 1: not written, 2: the directory is in use, 4: NATS cannot be reached.
    """
    with new_backup(directory), engines_to_read(settings) as reached:
        manifest = asyncio.run(_save(reached, directory, without_pictures))
    size = sum(file.bytes for file in manifest.all_files)
    result = {
        "directory": str(directory),
        "created": manifest.created,
        "bytes": size,
        "streams": {stream.name: stream.messages for stream in manifest.streams},
        "lastSequence": next(s.state["last_seq"] for s in manifest.streams if s.name == STATUS.name),
        "pictures": manifest.pictures.count if manifest.pictures is not None else None,
        "missing": manifest.missing,
    }
    show(result, lambda: _text(directory, manifest, size), output)


def _text(directory: Path, manifest: Manifest, size: int) -> str:
    messages = sum(stream.messages for stream in manifest.streams)
    pictures = f", {manifest.pictures.count} pictures" if manifest.pictures is not None else ""
    lines = [f"{directory}: {messages} messages of {len(manifest.streams)} streams{pictures}, {size} bytes"]
    if manifest.missing:
        lines += ["Not in it, and needed on another machine:", *(f"  {thing}" for thing in manifest.missing)]
    return "\n".join(lines)


async def _save(settings: Settings, directory: Path, without_pictures: bool) -> Manifest:
    async with connected(settings, "backup") as bus:
        return await Backup(settings, bus, directory).write(without_pictures=without_pictures)


class Backup:
    """Writes a backup, stream by stream; nothing is held in memory but a few chunks.

    Example::

        with new_backup(directory):
            manifest = await Backup(settings, bus, directory).write()
    """

    def __init__(self, settings: Settings, bus: Bus, directory: Path) -> None:
        self._settings = settings
        self._bus = bus
        self._directory = directory

    async def write(self, *, without_pictures: bool = False) -> Manifest:
        """Write everything and return the manifest.

        Raises `NotFound` when NATS has no log, `BrokerUnavailable`, `SnapshotFailed`, `NotPermitted`, and `OSError`
        when a file cannot be written.
        """
        if await self._bus.stream_config(STATUS.name) is None:
            raise NotFound(f"NATS at {self._settings.nats_url} has no stream {STATUS.name}: there is nothing to save")
        await self._bus.clock.measure()
        created = format_time(self._bus.clock.now())
        consumers = {consumer.name for consumer in STATE_MANAGERS}
        acknowledged = {
            state.name: state.ack_floor
            for state in await self._bus.consumer_states(STATUS.name)
            if state.name in consumers
        }
        saved = [await self._save_stream(name) for name in SAVED_STREAMS]
        pictures = None if without_pictures else await asyncio.to_thread(self._save_pictures)
        manifest = Manifest(
            examwire=version("examwire"),
            message_format=FORMAT,
            nats=str(self._bus.server_info.get("version", "")),
            created=created,
            ended=format_time(self._bus.clock.now()),
            streams=[stream for stream in saved if stream is not None],
            acknowledged=acknowledged,
            pictures=pictures,
            files=self._save_files(),
            missing=_missing(self._settings, without_pictures),
        )
        write_manifest(self._directory, manifest)
        return manifest

    async def _save_stream(self, name: str) -> SavedStream | None:
        with NewFile(self._directory, f"{STREAMS}/{name}") as file:
            progress = Progress(name)

            def write(chunk: bytes) -> None:
                file.write(chunk)
                progress.tell(lambda: f"{file.size} bytes")

            about = await save_stream(self._bus, name, write)
        if about is None:
            (self._directory / STREAMS / name).unlink()
            return None
        progress.end(f"{about['state']['messages']} messages, {file.size} bytes")
        return SavedStream(name=name, file=file.saved, config=about["config"], state=about["state"])

    def _save_pictures(self) -> SavedPictures | None:
        """Save the pictures of the data directory; those in NATS are a stream."""
        directory = self._settings.data_dir / "captures"
        if not directory.is_dir():
            return None
        progress = Progress("pictures")
        with NewFile(self._directory, PICTURES) as file:
            count = save_pictures(directory, file, lambda number: progress.tell(lambda: str(number)))
        progress.end(f"{count}, {file.size} bytes")
        return SavedPictures(file=file.saved, count=count, directory=str(directory.absolute()))

    def _save_files(self) -> list[SavedFile]:
        """Save the token secret, the trial certificate, the ports and the settings file, as far as they exist."""
        data_dir = self._settings.data_dir
        sources = {SECRET: data_dir / SECRET, PORTS_FILE: data_dir / PORTS_FILE, "examwire.toml": settings_file()}
        sources |= {f"{TLS}/{path.name}": path for path in sorted((data_dir / TLS).glob("*")) if path.is_file()}
        saved = []
        for name, source in sources.items():
            if source.is_file():
                (self._directory / FILES).mkdir(mode=0o700, exist_ok=True)
                with NewFile(self._directory, f"{FILES}/{name}") as file:
                    file.write(source.read_bytes())
                saved.append(file.saved)
        return saved


class Progress:
    """Tells on stderr how far something is, at most every `PROGRESS_SECONDS`.

    Example::

        progress = Progress("STATUS")
        progress.tell(lambda: "12 messages")
        progress.end("20 messages")
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._told = self._began = time.monotonic()

    def tell(self, text: Callable[[], str]) -> None:
        now = time.monotonic()
        if now - self._told >= PROGRESS_SECONDS:
            self._told = now
            say(f"{self._name}: {text()} …", err=True)

    def end(self, text: str) -> None:
        say(f"{self._name}: {text}, {time.monotonic() - self._began:.1f} s", err=True)


def _missing(settings: Settings, without_pictures: bool) -> list[str]:
    """Return what a restore on another machine needs besides the backup; no values."""
    missing = [
        f"{name}: {value_of(settings, name)}"
        for name, _ in setting_fields()
        if name.endswith("_file") and value_of(settings, name) is not None
    ]
    missing += [f"the variable {name}" for name in sorted(os.environ) if name.upper().startswith(PREFIX)]
    if settings.nats.user is not None or settings.nats.credentials_file is not None:
        missing.append("the configuration of NATS with its users and passwords")
    if settings.captures.store == "directory":
        captures = settings.data_dir / "captures"
        if without_pictures:
            missing.append(f"the pictures in {captures}")
        elif not captures.is_dir():
            missing.append(f"the pictures: {captures} does not exist here; run it where the web server runs")
    return missing
