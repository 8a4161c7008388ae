"""Delete the records of a plan, or of one examinee, from Redis: what a `plan_purged` in the log asks for.

Only what follows from facts up to the purge is deleted. So it may be done again at any time, also when the same planId
is in use again: a record that began later stays.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from actors.runtime.store.state_store import StateStore
from protocol.errors import NewerRecord, StateDamaged, StateLost
from protocol.ids import RecordRef
from protocol.messages.plan_facts import PlanPurged
from protocol.records import keys
from protocol.records.placement import record_kind
from protocol.records.writes import Guard, Index

log = logging.getLogger("examwire.state_manager")

KEYS_A_TRIP = 200
ATTEMPTS = 5

Hash = dict[str, str] | StateDamaged


@dataclass(frozen=True, slots=True)
class Purge:
    """What is deleted: everything about a plan, or about one examinee of it, from facts up to `version`."""

    plan_id: str
    examinee_id: str | None
    version: int

    @classmethod
    def of(cls, fact: PlanPurged, version: int) -> Purge:
        return cls(fact.plan_id, fact.examinee_id, version)

    def is_about(self, record: RecordRef, stored_hash: Hash) -> bool:
        """Return whether a key of the plan is to be deleted, unless it began later."""
        if self.examinee_id is None:
            return True
        if record.kind == "socket":
            return isinstance(stored_hash, dict) and stored_hash.get("examineeId") == self.examinee_id
        return record.examinee_id == self.examinee_id


class PlanPurge:
    """Deletes records. Raises `StateUnavailable`, `StateLost`, `StateDamaged`.

    Example::

        deleted = await PlanPurge(store).run(Purge("P001", None, version))
    """

    def __init__(self, store: StateStore) -> None:
        self._store = store

    async def run(self, purge: Purge) -> int:
        """Delete the keys and the entries of the indexes; return how many keys."""
        if not await self._store.mark.holds([keys.plan(purge.plan_id)]):
            raise StateLost("records are deleted when Redis has been brought up to the log")
        return await self.delete(purge)

    async def delete(self, purge: Purge) -> int:
        """Do it also while Redis is not whole: a repair does."""
        deleted = 0
        await self._remove_socket_entries(purge)
        for _ in range(ATTEMPTS):
            found = await self._found(purge)
            number, conflicts = await self._delete(purge, found)
            deleted += number
            if not conflicts:
                break
        await self._remove_members(purge)
        return deleted

    async def _found(self, purge: Purge) -> list[str]:
        """Return the keys of the plan: by searching, or where that is not allowed, by the index."""
        plan_id = purge.plan_id
        try:
            return [keys.plan(plan_id), *await self._store.raw_keys(f"{keys.plan(plan_id)}:*")]
        except StateDamaged as error:
            log.warning("plan %s: records that are in no index expire by themselves: %s", plan_id, error)
        (examinees,) = await self._store.raw_members([keys.plan_examinees(plan_id)])
        found = [keys.plan(plan_id), keys.plan_notices(plan_id)]
        for examinee_id in examinees if isinstance(examinees, set) else ():
            found += [make(plan_id, examinee_id) for make in (keys.progress, keys.mobile_sync, keys.notices)]
        return found

    async def _delete(self, purge: Purge, found: Sequence[str]) -> tuple[int, int]:
        """Delete these keys; return how many, and how many were written meanwhile."""
        wanted = [key for key in found if keys.parse_key(key).kind != "plan_examinees"]
        deleted = conflicts = 0
        for portion in _portions(wanted):
            guards: list[Guard] = []
            for key, stored_hash in zip(portion, await self._store.raw_hashes(portion), strict=True):
                record = keys.parse_key(key)
                if stored_hash and purge.is_about(record, stored_hash) and not _began_later(record, stored_hash, purge):
                    guards.append(unchanged(key, stored_hash))
            verdicts = await self._store.delete_unchanged(guards)
            deleted += sum(verdicts)
            conflicts += len(verdicts) - sum(verdicts)
        return deleted, conflicts

    async def _remove_socket_entries(self, purge: Purge) -> None:
        """Remove the sockets from the indexes of the servers: the end of a server is no loss of them."""
        (servers,) = await self._store.raw_members([keys.SERVERS])
        index_keys = [keys.server_sockets(server) for server in sorted(servers if isinstance(servers, set) else ())]
        removed = Index()
        for key, entries in zip(index_keys, await self._store.raw_hashes(index_keys), strict=True):
            for socket_id in _entries_of(purge, entries):
                removed.set_entry(key, socket_id, purge.version, None)
        if removed.entries:
            await self._store.save([], [], removed)

    async def _remove_members(self, purge: Purge) -> None:
        """Remove examinees without a record from the index, and the plan when nothing is left of it."""
        key = keys.plan_examinees(purge.plan_id)
        (members,) = await self._store.raw_members([key])
        listed = sorted(members if isinstance(members, set) else ())
        if purge.examinee_id is not None:
            listed = [examinee_id for examinee_id in listed if examinee_id == purge.examinee_id]
        gone: list[str] = []
        for portion in _portions(listed):
            kept = [
                await self._store.raw_hashes([make(purge.plan_id, examinee_id) for examinee_id in portion])
                for make in (keys.progress, keys.mobile_sync, keys.notices)
            ]
            gone += [name for name, *hashes in zip(portion, *kept, strict=True) if not any(hashes)]
        if gone:
            await self._store.remove_members({key: gone})
        if purge.examinee_id is None and len(gone) == len(listed):
            plan_record = (await self._store.raw_hashes([keys.plan(purge.plan_id)]))[0]
            if not plan_record:
                await self._store.remove_members({keys.PLANS: [purge.plan_id]})


def _began_later(record: RecordRef, stored_hash: Hash, purge: Purge) -> bool:
    """Return whether the first fact of a record came after the purge."""
    if isinstance(stored_hash, StateDamaged):
        return False
    kind = record_kind(record)
    if kind is None:
        return int(stored_hash.get("version", "0")) > purge.version
    try:
        return kind.read(stored_hash.get("history")).first_version > purge.version
    except NewerRecord as newer:
        return newer.first_version > purge.version
    except ValueError:
        return False


def unchanged(key: str, stored_hash: Hash) -> Guard:
    """Return the condition for deleting a key that nobody has written since it was read."""
    if isinstance(stored_hash, StateDamaged):
        return Guard(key, "rev", None)
    field = "rev" if "rev" in stored_hash else "version"
    return Guard(key, field, stored_hash.get(field, "0"))


def _entries_of(purge: Purge, entries: Mapping[str, str] | StateDamaged) -> Iterable[str]:
    for socket_id, entry in ({} if isinstance(entries, StateDamaged) else entries).items():
        number, _, text = entry.partition(" ")
        try:
            examinee = keys.SocketEntry.decode(text).examinee
        except ValueError:
            continue
        of_this = examinee.plan_id == purge.plan_id and purge.examinee_id in (None, examinee.examinee_id)
        if of_this and int(number) <= purge.version:
            yield socket_id


def _portions(items: Sequence[str]) -> Iterable[Sequence[str]]:
    return (items[start : start + KEYS_A_TRIP] for start in range(0, len(items), KEYS_A_TRIP))
