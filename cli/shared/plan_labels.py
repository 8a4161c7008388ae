"""Read the labels of a plan's examinees from Redis."""

from __future__ import annotations

from actors.runtime.config.settings import Settings
from actors.runtime.store.state_store import StateStore
from protocol.records import keys
from protocol.records.snapshot_rows import labels_of

CHUNK = 1000


async def label_values(settings: Settings, plan_id: str) -> dict[str, set[str]]:
    """Return the values that the examinees of a plan have, by label. Raises `StateUnavailable`, `StateDamaged`."""
    store = StateStore(settings.redis_url, settings.redis)
    try:
        ids = await store.members(keys.plan_examinees(plan_id))
        known: dict[str, set[str]] = {}
        for start in range(0, len(ids), CHUNK):
            records = [keys.progress(plan_id, examinee_id) for examinee_id in ids[start : start + CHUNK]]
            for (stored,) in await store.fields(records, ("labels",)):
                for label, value in labels_of(stored).items():
                    known.setdefault(label, set()).add(value)
        return known
    finally:
        await store.close()
