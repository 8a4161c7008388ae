"""The engines that a backup reads and a restore writes: those of the settings, or those of `examwire up`."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from actors.runtime.config.settings import Settings
from cli.local.data_dir import DataDirLock
from cli.local.engines import NatsServer
from cli.local.processes import EngineProcess
from cli.shared.running_system import READY_FILE

NATS, REDIS = "nats", "redis"
"""The folders of the embedded engines in a data directory (`cli.local.up`)."""


@contextmanager
def engines_to_read(settings: Settings) -> Iterator[Settings]:
    """Yield settings whose `nats_url` answers, also when `examwire up` does not run on the data directory.

    Raises `RoleFailed` when the embedded NATS does not start.
    """
    embedded = settings.data_dir.absolute() / NATS
    running = (settings.data_dir / READY_FILE).is_file()
    if "nats_url" in settings.model_fields_set or running or not (embedded / "jetstream").is_dir():
        yield settings
        return
    with _embedded_nats(settings) as url:
        yield settings.model_copy(update={"nats_url": url})


@contextmanager
def engines_to_write(settings: Settings) -> Iterator[Settings]:
    """Yield settings whose `nats_url` answers; without one, the embedded NATS of the data directory runs meanwhile.

    Raises `RoleFailed` when `examwire up` runs on the data directory.
    """
    if "nats_url" in settings.model_fields_set:
        yield settings
        return
    # Not each message is written to the disk by itself, but all of them in the end: a restore can be repeated.
    with _embedded_nats(settings, sync_always=False) as url:
        yield settings.model_copy(update={"nats_url": url})
    os.sync()


@contextmanager
def _embedded_nats(settings: Settings, *, sync_always: bool = True) -> Iterator[str]:
    data_dir = settings.data_dir.absolute()
    lock = DataDirLock(data_dir)
    try:
        (data_dir / READY_FILE).unlink(missing_ok=True)  # left by an `up` that was killed
        nats = NatsServer(data_dir / NATS, sync_always=sync_always)
        nats.start()
        lock.record([EngineProcess(nats)])  # whoever kills this command leaves it for a moment
        try:
            yield nats.url
        finally:
            nats.stop()
    finally:
        lock.release()


def embedded_redis(settings: Settings) -> Path | None:
    """Return the directory of the embedded Redis; `None` when `redis_url` names another one."""
    return None if "redis_url" in settings.model_fields_set else settings.data_dir.absolute() / REDIS
