"""Write records, sockets and indexes into Redis as a replayed log says they are, merged with what is found there.

A record is replaced only if nobody has written it meanwhile, and facts are ordered by version: so any number of
processes may do this at once, and again after a crash.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from actors.runtime.broker.connection import Bus, Outgoing
from actors.runtime.store.state_store import StateStore
from actors.state_manager.recovery.purge import unchanged
from actors.state_manager.recovery.restored_record import lease_fields, read_history, restored_history
from actors.status_log.projection import Projection, ReplayedRecord
from protocol.broker import subjects
from protocol.errors import NewerRecord, StateDamaged
from protocol.messages.facts import ConnectionStatusCode
from protocol.records import keys
from protocol.records.kinds import RecordKind
from protocol.records.placement import restate_fact
from protocol.records.writes import Guard, GuardedWrite, Index, SocketWrite
from protocol.rules.history import History, fold
from protocol.times import format_time

log = logging.getLogger("examwire.state_repair")

RECORDS_A_TRIP = 200


@dataclass(slots=True)
class Repair:
    """Result of a repair. `restated`: records of examinees and plans whose state is published again.

    `found`: `whole`; `new`, nothing was ever in Redis; `restarted`, a process that holds all it was given; `replaced`,
    one that does not: `missing` facts were not in, although they had been; `lost`, one that holds nothing.
    """

    found: str
    messages: int = 0
    records: int = 0
    restated: int = 0
    missing: int = 0
    seconds: float = 0.0

    @property
    def alarming(self) -> bool:
        """Whether Redis had lost something; an ordinary restart has not."""
        return self.found in ("lost", "replaced")


class Restoration:
    """Writes what a projection holds. Raises `StateUnavailable`, `BrokerUnavailable`; may be repeated at any time.

    Example::

        restoration = Restoration(bus, store)
        await restoration.restore_index(projection.members, projection.entries)
        await restoration.restore_sockets(projection)
        await restoration.restore(projection, kinds, repair)
    """

    def __init__(self, bus: Bus, store: StateStore) -> None:
        self._bus = bus
        self._store = store

    async def restore_index(
        self, members: Mapping[str, Mapping[str, int]], entries: Mapping[str, Mapping[str, tuple[int, str]]]
    ) -> None:
        """Write what is missing; what is newer there stays."""
        await self._store.delete_wrong_types(dict.fromkeys(members, "set"))
        await self._store.delete_wrong_types(dict.fromkeys(entries, "hash"))
        for key, values in members.items():
            await self._store.save([], [], Index(members={key: set(values)}))
        for key, held in entries.items():
            await self._store.save([], [], Index(entries={key: {name: (*entry,) for name, entry in held.items()}}))
            await self.take_back(key, held)

    async def take_back(self, key: str, held: Mapping[str, tuple[int, str]]) -> None:
        """Take out entries of sockets that have ended while the log was being replayed."""
        names = sorted(held)
        for start in range(0, len(names), RECORDS_A_TRIP):
            portion = names[start : start + RECORDS_A_TRIP]
            socket_keys = [
                keys.socket(keys.SocketEntry.decode(held[name][1]).examinee.plan_id, name) for name in portion
            ]
            ended = Index()
            for name, socket in zip(portion, await self._store.raw_hashes(socket_keys), strict=True):
                if isinstance(socket, StateDamaged) or socket.get("status") != ConnectionStatusCode.DISCONNECTED:
                    continue
                if int(socket.get("version", "0")) > held[name][0]:
                    ended.set_entry(key, name, held[name][0], None)
            if ended.entries:
                await self._store.save([], [], ended)

    async def replace_sockets(self, sockets: Sequence[SocketWrite]) -> None:
        for start in range(0, len(sockets), RECORDS_A_TRIP):
            portion = sockets[start : start + RECORDS_A_TRIP]
            replacements = []
            for socket, stored in zip(
                portion, await self._store.raw_hashes([socket.key for socket in portion]), strict=True
            ):
                known = {} if isinstance(stored, StateDamaged) else stored
                last_heartbeat = max(socket.fields["lastHeartbeat"], known.get("lastHeartbeat", ""))
                written = {**socket.fields, "lastHeartbeat": last_heartbeat, "version": str(socket.version)}
                version = known.get("version", "0")
                replacements.append(GuardedWrite(socket.key, "version", version, written, socket.keep_seconds))
            await self._store.replace(replacements)  # whoever was quicker has newer words

    async def restore_sockets(self, projection: Projection) -> None:
        sockets = list(projection.sockets.values())
        for start in range(0, len(sockets), RECORDS_A_TRIP):
            portion = sockets[start : start + RECORDS_A_TRIP]
            written = (await self._store.save([], portion)).sockets
            damaged = [
                socket.key
                for socket, verdict in zip(portion, written, strict=True)
                if isinstance(verdict, StateDamaged)
            ]
            if damaged:
                await self._store.delete_wrong_types(dict.fromkeys(damaged, "hash"))
                await self._store.save([], [socket for socket in portion if socket.key in damaged])

    async def restore(
        self,
        projection: Projection,
        kinds: Mapping[str, RecordKind[Any, Any]],
        repair: Repair,
        *,
        force: bool = False,
        watch: bool = False,
    ) -> None:
        """Write these records where they differ; with `force` also those that differ only in what others read."""
        remaining = sorted(kinds)
        while remaining:
            self._bus.progress("writing records", len(kinds) - len(remaining), len(kinds))
            portion, remaining = remaining[:RECORDS_A_TRIP], remaining[RECORDS_A_TRIP:]
            if watch and await self._store.mark.is_whole():
                return  # somebody else was quicker
            stored = dict(zip(portion, await self._store.raw_hashes(portion), strict=True))
            histories: dict[str, History[Any, Any]] = {}
            deleted: list[Guard] = []
            for key in portion:
                by_log = projection.records.get(key) or ReplayedRecord(kinds[key])
                try:
                    stored_history = read_history(kinds[key], key, stored[key])
                except NewerRecord as newer:
                    log.warning("%s stays as it is: %s", key, newer)
                    continue
                if stored_history is not None and projection.goes_beyond(key):
                    log.warning("%s stays as it is: the log has facts about it that only a newer release knows", key)
                    continue
                wanted_history = restored_history(by_log, stored_history, projection)
                if (
                    key not in projection.records
                    and wanted_history is not None
                    and not wanted_history.facts
                    and is_empty(wanted_history, kinds[key])
                ):
                    if stored[key]:
                        deleted.append(unchanged(key, stored[key]))
                    continue
                if wanted_history is not None and stored_history is None and (stored[key] or by_log.dead_lettered):
                    # Facts that came while it could not be read are dead letters: no event was published for them.
                    wanted_history = replace(wanted_history, restatement_due=True)
                if wanted_history is not None and (force or wanted_history != stored_history):
                    histories[key] = wanted_history
                elif stored_history is not None and stored_history.restatement_due:
                    histories[key] = stored_history  # written before, by one who died before it was restated
            remaining += await self.write(histories, kinds, stored, repair)
            verdicts = await self._store.delete_unchanged(deleted)
            remaining += [guard.key for guard, done in zip(deleted, verdicts, strict=True) if not done]
            repair.records += sum(verdicts)
            await self.restate({key: histories[key] for key in histories if key in projection.records}, repair)
        self._bus.progress("writing records", len(kinds), len(kinds))

    async def write(
        self,
        histories: Mapping[str, History[Any, Any]],
        kinds: Mapping[str, RecordKind[Any, Any]],
        stored: Mapping[str, dict[str, str] | StateDamaged],
        repair: Repair,
    ) -> list[str]:
        """Replace records; return the keys of those that another process has written meanwhile."""
        replacements = []
        for key, history in histories.items():
            stored_hash = stored[key]
            known = {} if isinstance(stored_hash, StateDamaged) else stored_hash
            kind = kinds[key]
            fields = kind.write(history, fold(history, kind.rule), secrets.randbits(52) + 1)
            replacements.append(
                GuardedWrite(key, "rev", known.get("rev", "0"), {**fields, **lease_fields(fields, known)})
            )
        verdicts = await self._store.replace(replacements)
        repair.records += sum(verdicts)
        return [replacement.key for replacement, written in zip(replacements, verdicts, strict=True) if not written]

    async def restate(self, histories: Mapping[str, History[Any, Any]], repair: Repair) -> None:
        """Request that the states of examinees and plans are published again where the last event may be wrong."""
        requests = []
        for key, history in histories.items():
            if not history.restatement_due:
                continue
            newest = history.facts[-1][0] if history.facts else history.floor
            message = restate_fact(keys.parse_key(key), format_time(self._bus.clock.now()))
            if message is None:
                continue  # a server's record: nobody is told of it
            subject = subjects.status_plan(message.plan_id, subjects.MANAGER)
            requests.append(Outgoing.of(subject, message, message_id=f"repaired:{key}:{newest}"))
        await self._bus.confirm(await self._bus.send(requests))
        repair.restated += len(requests)


def is_empty(history: History[Any, Any], kind: RecordKind[Any, Any]) -> bool:
    """Return whether no fact has had an effect: such a record is not written."""
    return bool(fold(history, kind.rule) == kind.state())
