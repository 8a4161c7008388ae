"""`examwire restore`: put a backup back, on this machine or another one.

Everything is verified before anything is touched. From then until the end the broker has the stream RESTORING: a
restore that was interrupted is recognised by it. No queue server starts until the restore has been repeated.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import typer

from actors.runtime.actor.addresses import AddressBook
from actors.runtime.broker.connection import Bus, Outgoing
from actors.runtime.broker.consumers.stream_snapshot import (
    RESTORE_DEAD_SECONDS,
    SnapshotFailed,
    delete_stream,
    restore_stream,
    stream_subjects,
)
from actors.runtime.broker.stream_state import ConsumerState
from actors.runtime.config.settings import Settings
from actors.runtime.store.state_store import StateStore
from actors.state_manager.recovery.log_mending import fill_log
from actors.status_log.status_log import StatusLog
from cli.backup.backup import SAVED_STREAMS, SECRET, Progress
from cli.backup.engines import embedded_redis, engines_to_write
from cli.backup.manifest import FILES, Manifest, SavedStream, read_manifest, verify
from cli.backup.pictures import restore_pictures
from cli.shared.live_actors import address_of, connected
from cli.shared.options import takes_settings
from cli.shared.output import Format, OutputOption, say, show
from cli.shared.times import local_time
from protocol.broker import subjects
from protocol.broker.streams import (
    ADVISORY_WATCH,
    LEASE_WATCH,
    RECONNECT_WATCH,
    RESTORING,
    STATE_MANAGERS,
    STATUS,
)
from protocol.errors import ConfigurationError, ExamwireError
from protocol.log.gap import LogGap
from protocol.messages.base import FORMAT
from protocol.records import keys
from protocol.rules import socket_server
from protocol.times import format_time, parse_time

LEAST_MISSING, MESSAGES_A_SECOND, MOST_MISSING = 20_000, 50, 1_000_000
"""How many messages the log may have got between the backup and its loss: more than it can have. A day of 15,000
examinees has 150,000."""
CONSUMER_SECONDS = 10.0
EMPTY_REDIS_BYTES = 500
"""The files of a Redis that holds nothing are smaller."""


class NotRestored(ExamwireError):
    """A restore was refused and has changed nothing, or was broken off and can be repeated; the text says which."""


@takes_settings("nats_url", "redis_url", "data_dir", "nats.replicas")
def restore(
    settings: Settings,
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="The backup.", show_default=False)],
    replace: Annotated[
        bool, typer.Option("--replace", help="Delete what the target holds: streams, Redis, the token secret.")
    ] = False,
    keep_redis: Annotated[
        bool, typer.Option("--keep-redis", help="Keep Redis: only NATS was lost, and Redis is newer than the backup.")
    ] = False,
    output: OutputOption = Format.TABLE,
) -> None:
    """Put a backup back while no process of examwire runs.

    \b
    Examples:
      examwire restore /backup/2026-11-30 --data-dir .examwire
      examwire restore /backup/2026-11-30 --nats-url nats://n1 --replace

    Without --nats-url it goes into the data directory, for `examwire up`. It verifies every file first. It refuses a
    target that holds something, unless --replace. Redis is emptied; state managers write it again when they start.
    Servers of the backup count as lost, so everybody who was connected is disconnected until they connect again.

    Exit code 1: refused, or a file is damaged, 2: no backup, or of a newer release, 4: an engine cannot be reached.
    """
    manifest = read_manifest(directory)
    if manifest.message_format > FORMAT:
        raise ConfigurationError(
            f"{directory} was written by a newer release ({manifest.examwire}): restore it with that one"
        )
    verify(directory, manifest)
    say(f"{directory}: {len(manifest.all_files)} files are verified", err=True)
    with engines_to_write(settings) as reached:
        result = asyncio.run(_restore(reached, directory, manifest, replace=replace, keep_redis=keep_redis))
    show(result, lambda: _text(settings, manifest, result), output)


def _text(settings: Settings, manifest: Manifest, result: dict[str, Any]) -> str:
    lines = [f"The state of {local_time(manifest.created)} is restored: {sum(result['streams'].values())} messages."]
    if result["servers"]:
        lines.append(f"Lost since then: {', '.join(result['servers'])}. Examinees connect again by themselves.")
    if manifest.missing:
        lines += ["Not in the backup, and needed:", *(f"  {thing}" for thing in manifest.missing)]
    target = f"examwire up --data-dir {settings.data_dir}" if "nats_url" not in settings.model_fields_set else ""
    lines.append(f"Now: {target or 'start the queue server, then the other roles'}; then: examwire state verify")
    return "\n".join(lines)


async def _restore(
    settings: Settings, directory: Path, manifest: Manifest, *, replace: bool, keep_redis: bool
) -> dict[str, Any]:
    async with connected(settings, "restore", dead_seconds=RESTORE_DEAD_SECONDS) as bus:
        store = StateStore(settings.redis_url, settings.redis)
        try:
            return await Restore(settings, bus, store, directory, manifest).run(replace=replace, keep_redis=keep_redis)
        finally:
            await store.close()


class Restore:
    """Restores a verified backup into the engines and the data directory of `settings`.

    Example::

        result = await Restore(settings, bus, store, directory, manifest).run()
    """

    def __init__(self, settings: Settings, bus: Bus, store: StateStore, directory: Path, manifest: Manifest) -> None:
        self._settings = settings
        self._bus = bus
        self._store = store
        self._directory = directory
        self._manifest = manifest
        self._embedded_redis = embedded_redis(settings)

    async def run(self, *, replace: bool = False, keep_redis: bool = False) -> dict[str, Any]:
        """Restore everything. May be repeated after it was broken off.

        Raises `NotRestored`, `ConfigurationError` (nothing was changed), and the errors of the engines.
        """
        await self._check_broker()
        interrupted = await self._bus.stream_config(RESTORING.name) is not None
        streams = await self._existing_streams()
        redis_keys = [] if keep_redis else await self._redis_keys()
        if not replace:
            losses = [] if interrupted else [text for text in streams.values() if text is not None]
            losses += [redis_keys[0]] if redis_keys else []
            losses += self._files_that_differ()
            if losses:
                raise NotRestored(
                    "the target is not empty, and nothing was changed; --replace deletes: " + "; ".join(losses)
                )
        await self._bus.apply_stream(RESTORING, replicas=self._settings.nats.replicas)
        try:
            restored = await self._restore_streams(list(streams))
            if not keep_redis:
                await self._empty_redis()
            pictures = await asyncio.to_thread(self._restore_pictures)
            self._restore_files()
        except (OSError, SnapshotFailed) as error:
            raise NotRestored(f"{error}; the restore did not come to its end: repeat it") from error
        await self._set_readers_back()
        if not keep_redis:  # else state managers know where the log must go on
            await self._go_on_above()
        servers = await self._end_servers()
        await delete_stream(self._bus, RESTORING.name)
        return {"created": self._manifest.created, "streams": restored, "pictures": pictures, "servers": servers}

    # -- before anything is changed -----------------------------------------------------------------------

    async def _check_broker(self) -> None:
        there, needed = (_release(text) for text in (self._bus.server_info.get("version", ""), self._manifest.nats))
        if there < needed:
            raise ConfigurationError(
                f"the backup is of nats-server {self._manifest.nats}, and an older one cannot read it: this is "
                f"{self._bus.server_info.get('version')}"
            )
        if services := await self._bus.services():
            names = ", ".join(sorted({address_of(entry) for entry in services})[:5])
            raise NotRestored(f"nothing was changed: processes of examwire are running ({names}): stop them first")

    async def _existing_streams(self) -> dict[str, str | None]:
        """Return the streams of ours that exist; for those with messages, what would be lost."""
        existing: dict[str, str | None] = {}
        for name in {*SAVED_STREAMS, *(stream.name for stream in self._manifest.streams)}:
            if await self._bus.stream_config(name) is None:
                continue
            state = await self._bus.stream_state(name)
            existing[name] = None
            if state.messages:
                newest = await self._bus.message_at(name, state.last)
                until = f" until {local_time(newest.time)}" if newest is not None else ""
                existing[name] = f"the stream {name} with {state.messages} messages{until}"
        return existing

    async def _redis_keys(self) -> list[str]:
        """Return what would be lost in Redis, as at most one text."""
        if self._embedded_redis is not None:
            held = sum(path.stat().st_size for path in (self._embedded_redis / "appendonlydir").glob("*"))
            return [f"the Redis in {self._embedded_redis}"] if held > EMPTY_REDIS_BYTES else []
        count = sum([len(await self._store.raw_keys(pattern)) for pattern in keys.EVERY_KEY])
        return [f"{count} keys of Redis (or --keep-redis)"] if count else []

    def _files_that_differ(self) -> list[str]:
        saved, present = self._directory / FILES / SECRET, self._settings.data_dir / SECRET
        if saved.is_file() and present.is_file() and saved.read_bytes() != present.read_bytes():
            return [f"the token secret {present}"]
        return []

    # -- the streams --------------------------------------------------------------------------------------

    async def _restore_streams(self, existing: list[str]) -> dict[str, int]:
        for name in existing:
            await delete_stream(self._bus, name)
        restored = {}
        for stream in self._manifest.streams:
            progress = Progress(stream.name)
            restored[stream.name] = await self._restore_stream(stream)
            progress.end(f"{restored[stream.name]} messages")
        return restored

    async def _restore_stream(self, stream: SavedStream) -> int:
        # The queue server applies the bounds of the target's settings when it starts; until then they stop nothing.
        config = {**stream.config, "num_replicas": self._settings.nats.replicas, "max_bytes": -1}
        with (self._directory / stream.file.name).open("rb") as file:

            def read(size: int) -> bytes:
                self._bus.progress(f"restoring {stream.name}", file.tell(), stream.file.bytes)
                return file.read(size)

            state = await restore_stream(self._bus, config, stream.state, read)
        if state["last_seq"] < stream.state["last_seq"]:
            raise SnapshotFailed(
                f"stream {stream.name}: ends at {state['last_seq']} instead of {stream.state['last_seq']}"
            )
        return int(state["messages"])

    async def _set_readers_back(self) -> None:
        """Have the log read from where it was when the backup began: its effects are younger than the other streams."""
        # A cluster brings the restored consumers a moment later: they must not come after those that are made here.
        deadline = time.monotonic() + CONSUMER_SECONDS
        names = self._manifest.acknowledged.keys()
        while names - {state.name for state in await self._bus.consumer_states(STATUS.name)}:
            if time.monotonic() > deadline:
                break
            await asyncio.sleep(0.1)
        for consumer in STATE_MANAGERS:
            if (acknowledged := self._manifest.acknowledged.get(consumer.name)) is not None:
                await self._bus.apply_consumer(consumer, anew=True, first=acknowledged + 1)
        for watch in (LEASE_WATCH, RECONNECT_WATCH, ADVISORY_WATCH):
            if await self._bus.stream_config(watch.stream) is None:
                continue
            last = (await self._bus.stream_state(watch.stream)).last
            if is_ahead(await self._bus.consumer_states(watch.stream), watch.name, last):
                await self._bus.apply_consumer(watch, anew=True)

    async def _go_on_above(self) -> None:
        """Have the log go on above what was in it after the backup: open pages know those versions."""
        # NATS 2.14 also saves what is stored while it saves: the manifest may name an earlier end.
        last = (await self._bus.stream_state(STATUS.name)).last
        now = self._bus.clock.now()
        since = parse_time(self._manifest.created)
        up_to = last + min(MOST_MISSING, LEAST_MISSING + round(MESSAGES_A_SECOND * max(0.0, now - since)))
        progress = Progress("versions")
        await fill_log(self._bus, up_to)
        gap = LogGap(
            after=last,
            up_to=up_to,
            missing_from=self._manifest.created,
            missing_to=format_time(now),
            timestamp=format_time(now),
        )
        headers = {"Nats-TTL": "never"}
        await self._bus.publish(Outgoing(subjects.LOG_GAP, gap.encode(), f"gap:{up_to}", headers))
        await self._bus.purge_stream(STATUS.name, subjects.LOG_FILLER)
        progress.end(f"the log continues after message {up_to}; {up_to - last} numbers are left out")

    async def _end_servers(self) -> list[str]:
        """Declare every socket server lost that the log says is running, and return their ids."""
        log, actors, lost = StatusLog(self._bus), AddressBook(self._bus), []
        for subject in await stream_subjects(self._bus, STATUS.name, subjects.status_server("*")):
            server_id = subject.rpartition(".")[2]
            server = await log.server(server_id)
            if server.incarnation is None or server.status not in socket_server.ALIVE:
                continue
            now = format_time(self._bus.clock.now())
            message = socket_server.lost(server_id, server, now)
            await actors.tell(subject, message, message_id=f"restored:{server_id}:{server.version}")
            lost.append(server_id)
        return lost

    # -- everything else ----------------------------------------------------------------------------------

    async def _empty_redis(self) -> None:
        if self._embedded_redis is not None:
            with contextlib.suppress(FileNotFoundError):
                await asyncio.to_thread(shutil.rmtree, self._embedded_redis)
            return
        for pattern in keys.EVERY_KEY:
            await self._store.raw_delete(await self._store.raw_keys(pattern))

    def _restore_pictures(self) -> int | None:
        pictures = self._manifest.pictures
        if pictures is None:
            return None
        progress = Progress("pictures")
        count = restore_pictures(self._directory / pictures.file.name, self._settings.data_dir / "captures")
        progress.end(str(count))
        return count

    def _restore_files(self) -> None:
        """Put the files of the data directory back. The settings file is not: it may name other engines."""
        for saved in self._manifest.files:
            name = saved.name.removeprefix(f"{FILES}/")
            if name == "examwire.toml":
                continue
            target = self._settings.data_dir / name
            target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            aside = target.with_name(f".{target.name}.restored")
            shutil.copyfile(self._directory / saved.name, aside)
            aside.chmod(0o600)
            aside.replace(target)


def is_ahead(states: Iterable[ConsumerState], consumer: str, last: int) -> bool:
    """Return whether a consumer has read beyond the end of its stream, so that it would skip what comes next.

    NATS 2.14 saves consumers after the messages, with what they have read meanwhile.
    """
    return any(state.name == consumer and max(state.delivered, state.ack_floor) > last for state in states)


def _release(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(".")[:2] if part.isdigit())
