"""Redis for the state managers, in memory: every access is a step, and between two steps anything can happen."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

from actors.runtime.store.state_mark import Mark, StateMark
from actors.runtime.store.state_store import StateStore
from protocol.errors import StateDamaged, StateLost
from protocol.records.writes import GuardedWrite, Index, RecordWrite, SocketWrite, StoredRecord


class _Pause:
    def __await__(self) -> Generator[Any, None, None]:
        yield


async def pause() -> None:
    """A point at which the process may lose the processor, or its life."""
    await _Pause()


@dataclass
class Marked:
    """The fields of the mark: as if by a state manager that found an empty log."""

    run: int | None = 0
    applied: int = 0
    repairs: dict[str, int] = field(default_factory=dict)


class MemoryMark(StateMark):
    """What the scripts of the mark do."""

    def __init__(self, store: MemoryStore) -> None:
        self._store = store

    @property
    def whole(self) -> bool:
        return self._store.marked.run == self._store.process

    def check(self) -> None:
        if not self.whole:
            raise StateLost("not whole")

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
    """What the scripts of the state store do to Redis, without Redis. `process` numbers the Redis processes."""

    mark: MemoryMark

    def __init__(self) -> None:
        self.rows: dict[str, dict[str, str]] = {}
        self.sets: dict[str, set[str]] = {}
        self.marked = Marked()
        self.process = 0
        self.mark = MemoryMark(self)
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

    async def load(self, record_keys: Sequence[str]) -> list[StoredRecord | StateDamaged]:
        await pause()
        self.mark.check()
        found = [self.rows.get(key, {}) for key in record_keys]
        return [StoredRecord(int(one.get("rev", 0)), one.get("history")) for one in found]

    async def save(
        self, records: Sequence[RecordWrite], sockets: Sequence[SocketWrite] = (), index: Index | None = None
    ) -> tuple[list[bool | StateDamaged], list[bool | StateDamaged]]:
        await pause()
        for key, members in (index.members if index else {}).items():
            self.sets.setdefault(key, set()).update(members)
        self._index(index, keep=True)
        verdicts: list[bool | StateDamaged] = []
        for record in records:
            await pause()  # a pipeline is no transaction
            known = self.rows.setdefault(record.key, {})
            quickest = int(known.get("rev", 0)) == record.expected_rev
            if quickest:
                known.update(record.fields)
            verdicts.append(quickest)
        of_sockets: list[bool | StateDamaged] = []
        for socket in sockets:
            await pause()
            known = self.rows.setdefault(socket.key, {})
            newest = int(known.get("version", 0)) <= socket.version
            if newest:
                known.update({"version": str(socket.version), **socket.fields})
            of_sockets.append(newest)
        await pause()
        self._index(index, keep=False)
        return verdicts, of_sockets

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

    async def entries(self, key: str) -> dict[str, str]:
        await pause()
        self.mark.check()
        return dict(self.rows.get(key, {}))

    async def raw_hashes(self, hash_keys: Sequence[str]) -> list[dict[str, str] | StateDamaged]:
        await pause()
        return [dict(self.rows.get(key, {})) for key in hash_keys]

    async def replace(self, replacements: Sequence[GuardedWrite]) -> list[bool]:
        await pause()
        verdicts = []
        for one in replacements:
            await pause()
            known = self.rows.setdefault(one.key, {})
            verdicts.append(known.get(one.guard, "0") == one.expected)
            if verdicts[-1]:
                known.update(one.fields)
        await pause()
        return verdicts

    async def clear_unless(self, kinds: Mapping[str, str]) -> None:
        await pause()
