"""`examwire plans archive`: write everything that is kept about a plan into one ZIP file."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import secrets
import zipfile
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import IO, Annotated, Any

import pydantic_core
import typer

from actors.runtime.broker.connection import Bus
from actors.runtime.config.settings import Settings
from actors.runtime.store.state_store import StateStore
from actors.status_log.plan_log import PlanLog, read_plan
from actors.web_server.pictures.store import PictureStore
from cli.plans.timeline import as_json
from cli.shared.live_actors import connected
from cli.shared.options import takes_settings
from cli.shared.output import Format, OutputOption, show
from cli.shared.suggestions import not_found
from protocol.errors import ConfigurationError, ExamwireError
from protocol.ids import check_id
from protocol.log.entries import decode_status
from protocol.log.outage_csv import outages_csv
from protocol.log.outages import Outages
from protocol.log.timeline import Timeline
from protocol.log.version import version_of
from protocol.messages.codec import Malformed, parse_json
from protocol.records import keys
from protocol.texts import csv_table
from protocol.times import format_time

EXAMINEES_A_READ = 200
PART_BYTES = 256 * 1024
HIDDEN = ("history", "rev", "liveSocketId")
ROSTER = ("examineeId", "name")
MANIFEST = "manifest.json"
_COUNTED = {"timelineEntries": "timeline entries"}


class NotArchived(ExamwireError):
    """The archive was not written, and nothing of it is left."""


@takes_settings("nats_url", "redis_url", "data_dir", "captures.store", running=True)
def archive(
    settings: Settings,
    plan_id: Annotated[str, typer.Argument(metavar="PLAN_ID", help="The plan.", show_default=False)],
    path: Annotated[Path, typer.Argument(metavar="FILE", help="The ZIP file to write.", show_default=False)],
    without_pictures: Annotated[bool, typer.Option("--without-pictures", help="Leave out the pictures.")] = False,
    output: OutputOption = Format.TABLE,
) -> None:
    """Write everything that is kept about a plan into a ZIP file.

    Example: examwire plans archive P001 P001.zip

    It holds the roster, records, report, timeline, facts and pictures. manifest.json lists each file with its SHA-256.
    The file appears when it is complete; one that exists is not overwritten. Pictures in a directory are read from
    data_dir: run it where the web server runs. Exit code 1: not written, 3: the plan is unknown.
    """
    check_id("planId", plan_id)
    if path.exists():
        raise ConfigurationError(f"{path} exists already: choose another name")
    if not path.absolute().parent.is_dir():
        raise ConfigurationError(f"the directory {path.absolute().parent} does not exist")

    async def work() -> dict[str, Any]:
        async with connected(settings, "plans archive") as bus:
            store = StateStore(settings.redis_url, settings.redis)
            pictures = None if without_pictures else _pictures(settings, bus)
            try:
                with _new_file(path) as file:
                    return await Archive(bus, store, pictures, plan_id).write(file)
            finally:
                if pictures is not None:
                    pictures.close()
                await store.close()

    manifest = asyncio.run(work())
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    counts: dict[str, int] = manifest["counts"]
    result = {"planId": plan_id, "file": str(path), "sha256": digest, "bytes": path.stat().st_size, **counts}
    text = ", ".join(f"{number} {_COUNTED.get(name, name)}" for name, number in counts.items())
    show(result, lambda: f"{path}: {text}\nSHA-256 {digest}", output)


def _pictures(settings: Settings, bus: Bus) -> PictureStore:
    from actors.web_server.server import picture_store

    return picture_store(settings, bus)


@contextmanager
def _new_file(path: Path) -> Iterator[IO[bytes]]:
    """Write a file under another name, and give it its own when it is complete and on the disk.

    Raises `NotArchived` when a file of that name has appeared meanwhile, or the disk is full.
    """
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        with part.open("xb") as file:
            os.fchmod(file.fileno(), 0o600)
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.link(part, path)  # unlike a rename, this overwrites nothing
    except FileExistsError:
        raise NotArchived(f"{path} has appeared meanwhile and is not overwritten") from None
    except OSError as error:
        raise NotArchived(f"{path} was not written: {error.strerror or error}") from error
    finally:
        part.unlink(missing_ok=True)


@dataclass(slots=True)
class _Entry:
    """A file of the archive while it is written."""

    file: IO[bytes]
    digest: Any
    size: int = 0

    def write(self, content: bytes) -> None:
        self.file.write(content)
        self.digest.update(content)
        self.size += len(content)

    def line(self, value: Any) -> None:
        self.write(pydantic_core.to_json(value) + b"\n")


class Archive:
    """Writes what is kept about a plan, file by file; nothing is held in memory but one picture at a time.

    Example::

        manifest = await Archive(bus, store, pictures, "P001").write(file)
    """

    def __init__(self, bus: Bus, store: StateStore, pictures: PictureStore | None, plan_id: str) -> None:
        self._bus = bus
        self._store = store
        self._pictures = pictures
        self._plan_id = plan_id
        self._files: list[dict[str, Any]] = []
        self._recorded: set[tuple[str, str]] = set()

    async def write(self, file: IO[bytes]) -> dict[str, Any]:
        """Write the archive and return its manifest. Raises `NotFound`, `NotArchived`, and when an engine is away."""
        if self._plan_id not in (plans := await self._store.members(keys.PLANS)):
            raise not_found("plan", self._plan_id, plans, "`examwire plans ls` lists the plans")
        created = format_time(self._bus.clock.now())
        beginning = await PlanLog(self._bus, self._plan_id).beginning()
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
            counts = {"examinees": await self._write_records(archive)}
            counts["facts"] = await self._write_facts(archive)
            counts["timelineEntries"] = await self._write_timeline(archive, beginning.truncated)
            counts["pictures"] = await self._write_pictures(archive) if self._pictures is not None else 0
            manifest = {
                "planId": self._plan_id,
                "created": created,
                "examwire": version("examwire"),
                "logSince": beginning.since,
                "logTruncated": beginning.truncated,
                "logGaps": [gap.model_dump(mode="json", by_alias=True) for gap in beginning.gaps],
                "withPictures": self._pictures is not None,
                "counts": counts,
                "files": self._files,
            }
            archive.writestr(MANIFEST, json.dumps(manifest, indent=2, ensure_ascii=False))
        return manifest

    @contextmanager
    def _entry(self, archive: zipfile.ZipFile, name: str, compression: int = zipfile.ZIP_DEFLATED) -> Iterator[_Entry]:
        about = zipfile.ZipInfo(name)
        about.compress_type = compression
        about.external_attr = 0o600 << 16
        with archive.open(about, "w", force_zip64=True) as file:
            entry = _Entry(file, hashlib.sha256())
            yield entry
        self._files.append({"name": name, "sha256": entry.digest.hexdigest(), "bytes": entry.size})

    # -- records --------------------------------------------------------------------------------------

    async def _write_records(self, archive: zipfile.ZipFile) -> int:
        """Write the records as JSON lines, and the roster as it can be read by `plans create`."""
        plan = await self._store.entries(keys.plan(self._plan_id))
        own_times = json.loads(plan.get("ownTimes") or "{}")
        rows: list[dict[str, str]] = []
        with self._entry(archive, "records.jsonl") as records:
            records.line({"plan": _visible(plan)})
            records.line({"planNotices": _visible(await self._store.entries(keys.plan_notices(self._plan_id)))})
            async for examinee_id, progress, mobile_sync, notices in self._examinees():
                records.line(
                    {
                        "examineeId": examinee_id,
                        "progress": _visible(progress),
                        "mobileSync": _visible(mobile_sync),
                        "notices": _visible(notices),
                    }
                )
                rows.append(_roster_row(examinee_id, progress, own_times.get(examinee_id, {})))
                if mobile_sync.get("captureId"):
                    self._recorded.add((examinee_id, mobile_sync["captureId"]))
        header = [*ROSTER, *sorted({name for row in rows for name in row if name not in ROSTER})]
        with self._entry(archive, "roster.csv") as roster:
            roster.write(csv_table(header, ([row.get(name) for name in header] for row in rows)))
        return len(rows)

    async def _examinees(self) -> AsyncIterator[tuple[str, dict[str, str], dict[str, str], dict[str, str]]]:
        """Yield each examinee with their three records."""
        names = await self._store.members(keys.plan_examinees(self._plan_id))
        for start in range(0, len(names), EXAMINEES_A_READ):
            portion = names[start : start + EXAMINEES_A_READ]
            self._bus.progress("writing records", start + len(portion), len(names))
            progress, mobile_sync, notices = [
                await self._store.hashes([make(self._plan_id, name) for name in portion])
                for make in (keys.progress, keys.mobile_sync, keys.notices)
            ]
            for examinee in zip(portion, progress, mobile_sync, notices, strict=True):
                yield examinee

    # -- the log --------------------------------------------------------------------------------------

    async def _write_facts(self, archive: zipfile.ZipFile) -> int:
        """Write every fact as it is in the log, with its version and the log's time."""
        count = 0
        with self._entry(archive, "facts.jsonl") as facts:
            async for stored in read_plan(self._bus, self._plan_id):
                for index, message in enumerate(decode_status(stored.subject, stored.payload, stored.time)):
                    about = {"version": version_of(stored.sequence, index), "logged": format_time(stored.time)}
                    if isinstance(message, Malformed):
                        if message.newer:
                            facts.line({**about, **parse_json(message.raw)})
                            count += 1
                        continue
                    data = message.model_dump(mode="json", by_alias=True, exclude_none=True)
                    facts.line({**about, "type": message.type, "data": data})
                    count += 1
        return count

    async def _write_timeline(self, archive: zipfile.ZipFile, truncated: bool) -> int:
        """Write what happened as JSON lines, and the outages of each examinee as CSV."""
        timeline, outages, count = Timeline(truncated=truncated), Outages(truncated=truncated), 0
        with self._entry(archive, "timeline.jsonl") as lines:
            async for fact in PlanLog(self._bus, self._plan_id).new_entries():
                outages.add(fact)
                if (happening := timeline.add(fact)) is not None:
                    lines.line(as_json(happening))
                    count += 1
        with self._entry(archive, "report.csv") as report:
            end = self._bus.clock.now()
            report.write(outages_csv(self._plan_id, outages.rows(outages.begin or end, end)))
        return count

    # -- pictures -------------------------------------------------------------------------------------

    async def _write_pictures(self, archive: zipfile.ZipFile) -> int:
        """Write all pictures, also those that were replaced. Raises `NotArchived` when a recorded one is not found."""
        assert self._pictures is not None
        count = 0
        pictures = sorted(await self._pictures.pictures(self._plan_id), key=lambda each: each.stored_at)
        for number, picture in enumerate(pictures, start=1):
            self._bus.progress("writing pictures", number, len(pictures))
            content = await self._pictures.read(self._plan_id, picture.examinee_id, picture.capture_id)
            if content is None:
                continue  # removed meanwhile
            name = f"pictures/{picture.examinee_id}/{picture.capture_id}.jpg"
            with self._entry(archive, name, zipfile.ZIP_STORED) as entry:
                entry.write(content)
            self._recorded.discard((picture.examinee_id, picture.capture_id))
            count += 1
        if self._recorded:
            raise NotArchived(
                f"{len(self._recorded)} pictures of plan {self._plan_id} are recorded, but not in the store: run the "
                "command where the web server runs, or leave them out with --without-pictures"
            )
        return count


def _visible(record: dict[str, str]) -> dict[str, str]:
    return {name: value for name, value in record.items() if name not in HIDDEN}


def _roster_row(examinee_id: str, progress: dict[str, str], own: dict[str, Any]) -> dict[str, str]:
    """Return an examinee's line of the roster, with their labels and their own times."""
    row = {"examineeId": examinee_id, "name": progress.get("name", "")}
    row |= {name: str(value) for name, value in json.loads(progress.get("labels") or "{}").items()}
    row |= {name: own[name] for name in ("startsAt", "endsAt") if own.get(name)}
    if own.get("extraSeconds"):
        row["extraMinutes"] = f"{own['extraSeconds'] / 60:g}"
    return row
