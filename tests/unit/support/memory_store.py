"""Redis for the state managers, in memory: every access is a step, and between two steps anything can happen."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from fnmatch import fnmatch

from actors.runtime.store.repair_marks import Whole, needed_marks, part_mark
from actors.runtime.store.state_mark import Mark, StateMark
from actors.runtime.store.state_store import Saved, StateStore
from protocol.errors import StateDamaged, StateLost, StateUnavailable
from protocol.log.partitions import PARTS
from protocol.records.keys import parse_key
from protocol.records.writes import Guard, GuardedWrite, Index, RecordWrite, SocketWrite, StoredRecord
from tests.unit.support.stepped_loop import pause

REFUSALS = 3


@dataclass
class Marked:
    """The fields of the mark: as if by a state manager that found an empty log.

    `marks`: the process in which something is whole already. `ends`: up to where each part is. `claims`: who repairs a
    part, and how often it was refused to others since: time stands still, so a claim ends after `REFUSALS`.
    """

    run: int | None = 0
    applied: int = 0
    repairs: dict[str, int] = field(default_factory=dict)
    marks: dict[str, int] = field(default_factory=dict)
    ends: dict[str, int] = field(default_factory=dict)
    claims: dict[str, tuple[str, int]] = field(default_factory=dict)


class MemoryMark(StateMark):
    """What the scripts of the mark do."""

    def __init__(self, store: MemoryStore) -> None:
        self._store = store

    @property
    def whole(self) -> bool:
        return self._store.marked.run == self._store.process

    def check(self, read_keys: Collection[str]) -> None:
        if not self._holds(read_keys):
            raise StateLost("not whole")

    def _valid(self) -> set[str]:
        return {mark for mark, process in self._store.marked.marks.items() if process == self._store.process}

    def _holds(self, read_keys: Collection[str]) -> bool:
        valid = self._valid()
        return self.whole or all(valid.intersection(needed.split("|")) for needed in needed_marks(read_keys))

    async def holds(self, read_keys: Collection[str]) -> bool:
        await pause()
        return self._holds(read_keys)

    async def whole_so_far(self) -> Whole:
        await pause()
        return Whole(everything=self.whole, marks=self._valid())

    async def claim(self, repair: str, parts: Sequence[str], most: int | None = None) -> list[str]:
        await pause()
        claims = self._store.marked.claims
        claimed: list[str] = []
        for part in parts:
            if most is not None and len(claimed) == most:
                break
            owner, refused = claims.get(part, (repair, 0))
            if owner == repair or refused >= REFUSALS:
                claims[part] = repair, 0
                claimed.append(part)
            else:
                claims[part] = owner, refused + 1
        return claimed

    async def add(self, repair: str, marks: Sequence[str]) -> bool:
        await pause()
        if not self.whole and self._store.marked.repairs.get(repair) != self._store.process:
            return False
        self._store.marked.marks.update(dict.fromkeys(marks, self._store.process))
        return True

    async def end_part(self, repair: str, part: str, sequence: int) -> bool | None:
        if not await self.add(repair, [part_mark(part)]):
            return None
        marked = self._store.marked
        marked.ends[part] = sequence
        if not self.whole and self._valid().issuperset(map(part_mark, PARTS)):
            self._store.marked = Marked(self._store.process, min(marked.ends.values()))
        return self.whole

    async def is_whole(self) -> bool:
        await pause()
        return self.whole

    def advance_now(self, sequence: int) -> None:
        if self.whole:
            self._store.marked.applied = max(self._store.marked.applied, sequence)

    async def begin(self, repair: str) -> Mark:
        await pause()
        if self.whole:
            return Mark(True)
        marked = self._store.marked
        marked.repairs[repair] = self._store.process
        return Mark(False, None if marked.run is None else marked.applied)

    async def end(self, repair: str, sequence: int) -> bool:
        await pause()
        marked = self._store.marked
        if marked.repairs.get(repair) != self._store.process:
            return False
        self._store.marked = Marked(self._store.process, max(marked.applied, sequence))
        return True


class MemoryStore(StateStore):
    """What the scripts of the state store do to Redis, without Redis. `process` numbers the Redis processes.

    `damaged`: keys of the wrong type. `refused`: records whose facts no process can work on: `refusal` is raised.
    `fail_next`: so many accesses find Redis away. `lost_answers`: so many writes are done, and are not answered.
    """

    mark: MemoryMark

    def __init__(self) -> None:
        self.rows: dict[str, dict[str, str]] = {}
        self.sets: dict[str, set[str]] = {}
        self.marked = Marked()
        self.process = 0
        self.mark = MemoryMark(self)
        self.damaged: set[str] = set()
        self.refused: set[str] = set()
        self.refusal: Exception = ArithmeticError("a fact that makes the rules fail")
        self.fail_next = self.lost_answers = 0
        self.saved = self._snapshot()

    def lose_everything(self) -> None:
        """FLUSHALL, or a server that starts empty."""
        self.rows, self.sets, self.marked = {}, {}, Marked(run=None)

    def save_snapshot(self) -> None:
        self.saved = self._snapshot()

    def come_back_from_snapshot(self) -> None:
        """Another process with what was saved at some time."""
        self.rows, self.sets, self.marked = deepcopy(self.saved)
        self.process += 1

    def _snapshot(self) -> tuple[dict[str, dict[str, str]], dict[str, set[str]], Marked]:
        return deepcopy((self.rows, self.sets, self.marked))

    async def _access(self) -> None:
        await pause()
        if self.fail_next > 0:
            self.fail_next -= 1
            raise StateUnavailable("Redis is away")

    async def load(self, record_keys: Sequence[str]) -> list[StoredRecord | StateDamaged]:
        if not record_keys:
            return []
        await self._access()
        self.mark.check(record_keys)
        if self.refused.intersection(record_keys):
            raise self.refusal
        loaded: list[StoredRecord | StateDamaged] = []
        for key in record_keys:
            row = self.rows.get(key, {})
            record = StoredRecord(int(row.get("rev", 0)), row.get("history"))
            loaded.append(_damage(key) if key in self.damaged else record)
        return loaded

    async def changed(self, revs: Mapping[str, int]) -> set[str]:
        if not revs:
            return set()
        await self._access()
        self.mark.check(revs)
        return {key for key, rev in revs.items() if key in self.damaged or self._rev(key) != rev}

    def _rev(self, key: str) -> int:
        return int(self.rows.get(key, {}).get("rev", 0))

    async def save(
        self,
        records: Sequence[RecordWrite],
        sockets: Sequence[SocketWrite] = (),
        index: Index | None = None,
        unread: Mapping[str, int] | None = None,
    ) -> Saved:
        if not (records or sockets or unread or (index and (index.members or index.entries))):
            return Saved([], [])
        await self._access()
        for key in [*(index.members if index else ()), *(index.entries if index else ())]:
            if key in self.damaged:
                raise _damage(key)
        for key, members in (index.members if index else {}).items():
            self.sets.setdefault(key, set()).update(members)
        self._index(index, keep=True)
        verdicts: list[bool | StateDamaged] = []
        for record in records:
            await pause()  # a pipeline is no transaction
            if record.key in self.damaged:
                verdicts.append(_damage(record.key))
                continue
            stored = self.rows.setdefault(record.key, {})
            quickest = int(stored.get("rev", 0)) == record.expected_rev
            if quickest:
                stored.update(record.fields)
            verdicts.append(quickest)
        of_sockets: list[bool | StateDamaged] = []
        for socket in sockets:
            await pause()
            stored = self.rows.setdefault(socket.key, {})
            newest = int(stored.get("version", 0)) <= socket.version
            if newest:
                stored.update({"version": str(socket.version), **socket.fields})
            of_sockets.append(newest)
        await pause()
        self._index(index, keep=False)
        if self.lost_answers > 0:
            self.lost_answers -= 1
            raise StateUnavailable("Redis has written, and its answer is lost")
        changed: set[str] = set()
        if unread is not None:
            await pause()
            changed = {key for key, rev in unread.items() if key in self.damaged or self._rev(key) != rev}
            self.mark.check([*(record.key for record in records), *unread])
        return Saved(verdicts, of_sockets, changed)

    def _index(self, index: Index | None, *, keep: bool) -> None:
        for key, entries in (index.entries if index else {}).items():
            held = self.rows.setdefault(key, {})
            for name, (version, value) in entries.items():
                if (value is not None) != keep or (name in held and int(held[name].split(" ")[0]) > version):
                    continue
                if value is None:
                    held.pop(name, None)
                else:
                    held[name] = f"{version} {value}"

    async def members(self, key: str) -> list[str]:
        await self._access()
        self.mark.check([key])
        return sorted(self.sets.get(key, ()))

    async def entries(self, key: str) -> dict[str, str]:
        await self._access()
        self.mark.check([key])
        return dict(self.rows.get(key, {}))

    async def fields(self, hash_keys: Sequence[str], names: Sequence[str]) -> list[list[str | None]]:
        await self._access()
        self.mark.check(hash_keys)
        return [[self.rows.get(key, {}).get(name) for name in names] for key in hash_keys]

    async def raw_hashes(self, hash_keys: Sequence[str]) -> list[dict[str, str] | StateDamaged]:
        await self._access()
        return [_damage(key) if key in self.damaged else dict(self.rows.get(key, {})) for key in hash_keys]

    async def replace(self, replacements: Sequence[GuardedWrite]) -> list[bool]:
        await self._access()
        verdicts = []
        for replacement in replacements:
            await pause()
            if replacement.key in self.damaged:
                self.damaged.discard(replacement.key)
                self.rows.pop(replacement.key, None)
            stored = self.rows.setdefault(replacement.key, {})
            verdicts.append(stored.get(replacement.guard, "0") == replacement.expected)
            if verdicts[-1]:
                stored.update(replacement.fields)
        await pause()
        return verdicts

    async def delete_unchanged(self, guards: Sequence[Guard]) -> list[bool]:
        if guards:
            await self._access()
        verdicts = []
        for guard in guards:
            await pause()
            stored = None if guard.key in self.damaged else self.rows.get(guard.key, {})
            unchanged = guard.value is None if stored is None else stored.get(guard.field, "0") == guard.value
            verdicts.append(unchanged)
            if unchanged:
                self.rows.pop(guard.key, None)
                self.damaged.discard(guard.key)
        return verdicts

    async def raw_keys(self, pattern: str) -> list[str]:
        await self._access()
        return [key for key in (*self.rows, *self.sets) if fnmatch(key, pattern)]

    async def raw_members(self, set_keys: Sequence[str]) -> list[set[str] | StateDamaged]:
        await self._access()
        return [_damage(key) if key in self.damaged else set(self.sets.get(key, ())) for key in set_keys]

    async def remove_members(self, members: Mapping[str, Sequence[str]]) -> None:
        await self._access()
        for key, values in members.items():
            self.sets.get(key, set()).difference_update(values)

    async def delete_wrong_types(self, kinds: Mapping[str, str]) -> None:
        await self._access()
        for key in kinds.keys() & self.damaged:
            self.damaged.discard(key)
            self.rows.pop(key, None)
            self.sets.pop(key, None)


def _damage(key: str) -> StateDamaged:
    return StateDamaged(f"{key}: WRONGTYPE", parse_key(key))
