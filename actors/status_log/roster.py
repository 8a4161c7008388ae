"""Read from Redis who is enrolled in a plan: the log keeps that for `retention.days` and a week only."""

from __future__ import annotations

from actors.runtime.store.state_store import StateStore
from protocol.log.outages import Enrolled
from protocol.records import keys
from protocol.records.snapshot_rows import labels_of

CHUNK = 1000


async def read_enrolled(store: StateStore, plan_id: str) -> dict[str, Enrolled]:
    """Return who is on the roster of a plan, by examineeId. Raises `StateUnavailable`, `StateDamaged`."""
    ids = await store.members(keys.plan_examinees(plan_id))
    enrolled: dict[str, Enrolled] = {}
    for start in range(0, len(ids), CHUNK):
        batch = ids[start : start + CHUNK]
        records = [keys.progress(plan_id, examinee_id) for examinee_id in batch]
        fields = await store.fields(records, ("enrolled", "name", "labels", "connStatusCode"))
        for examinee_id, (is_enrolled, name, labels, status) in zip(batch, fields, strict=True):
            if is_enrolled == "1":
                enrolled[examinee_id] = Enrolled(name or None, labels_of(labels), came=bool(status))
    return enrolled
