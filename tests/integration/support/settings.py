"""Settings that differ from the test's own in what the test is about."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from actors.runtime.config.settings import Settings, load_settings


def changed(settings: Settings, changes: Mapping[str, Any]) -> Settings:
    """The same engines and data directory; `changes` by their dotted names, everything else at its default."""
    return load_settings(
        nats_url=settings.nats_url, redis_url=settings.redis_url, data_dir=settings.data_dir, **changes
    )
