"""The state store: the one place that touches Redis. A script has keys of one slot (`shards`), so clusters work."""

from __future__ import annotations

import itertools
from collections.abc import Awaitable, Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, cast

from redis.exceptions import ResponseError

from actors.runtime.config.sections import RedisSettings
from actors.runtime.store import scripts
from actors.runtime.store.connection import RedisConnections, is_temporary
from actors.runtime.store.log_mark import LogMark
from actors.runtime.store.shards import TOUCHES_A_SCRIPT, WRITES_A_SCRIPT, OneServer, Shards
from actors.runtime.store.state_mark import StateMark
from protocol.errors import StateDamaged, StateUnavailable
from protocol.records import keys
from protocol.records.writes import (
    Guard,
    GuardedWrite,
    Index,
    RecordWrite,
    SocketWrite,
    StoredHash,
    StoredRecord,
    Touch,
)

SCAN_COUNT = 1000


class Saved(NamedTuple):
    """Result of a write: for each record, and for each socket, whether it was written; False: somebody was quicker.

    A damaged one is returned as its error. `changed`: records with another rev than the one that was to be compared.
    """

    records: Sequence[bool | StateDamaged]
    sockets: Sequence[bool | StateDamaged]
    changed: Collection[str] = ()


class StateStore:
    """The records in Redis (docs/architecture.md, "State in Redis").

    Every method raises `StateUnavailable` when Redis does not answer (try again), and `StateDamaged` when a key has
    the wrong type or content (an operator must look at it). Reads raise `StateLost` when Redis may have lost records
    (`actors.runtime.store.state_mark`); the methods `raw_*` do not check that, because repair and audit use them.

    Example::

        store = StateStore("redis://127.0.0.1:6379/0")
        fields = await store.entries(keys.progress("P001", "E001"))
        await store.close()
    """

    def __init__(self, url: str, options: RedisSettings | None = None) -> None:
        """Prepare the connections; they open at the first command. Raises `ConfigurationError`.

        `url`: see `actors.runtime.config.redis_url`; `options`: the settings `redis.*`.
        """
        self._connections = RedisConnections(url, options or RedisSettings())
        self._redis = self._connections.client
        self._run = self._connections.run
        self._places = Shards(self._redis) if self._connections.is_cluster else OneServer()
        self.mark = StateMark(self._redis, self._run, self._connections.name, self._places)
        self.log_mark = LogMark(self._redis, self._run)
        self.url = url

    async def close(self) -> None:
        """Close all connections. Harmless when repeated."""
        await self._connections.close()

    async def ping(self) -> None:
        """Ping Redis. Raises `StateUnavailable`."""
        await self._connections.ping()

    async def time(self) -> float:
        """Return the time of Redis' clock, in seconds since the epoch."""
        seconds, microseconds = await self._run(cast(Awaitable[Any], self._redis.time()))
        return float(int(seconds) + int(microseconds) / 1e6)

    async def server_info(self) -> tuple[dict[str, Any], str | None]:
        """Return INFO of the server (of a cluster: of one node), and its `save` setting if it may be read."""
        info = await self._run(cast(Awaitable[Any], self._redis.info()))
        try:
            saves = (await self._run(self._redis.config_get("save"))).get("save")
        except StateDamaged:  # a managed Redis refuses CONFIG
            saves = None
        return cast(dict[str, Any], info), saves

    async def load(self, record_keys: Sequence[str]) -> list[StoredRecord | StateDamaged]:
        """Return the records at `record_keys`, in order, in one round trip; a damaged record as its error."""
        if not record_keys:
            return []
        pipe = self._redis.pipeline(transaction=False)
        groups = self._places.groups(record_keys)
        for group in groups:
            pipe.eval(scripts.LOAD, len(group), *group)
        answers = await self.mark.execute(pipe, record_keys)
        loaded: list[StoredRecord | StateDamaged] = []
        for group, answer in zip(groups, answers, strict=True):
            records = [answer] * len(group) if isinstance(answer, Exception) else answer
            loaded.extend(map(_stored_record, group, records))
        return loaded

    async def changed(self, revs: Mapping[str, int]) -> set[str]:
        """Return which of these records have another `rev` than this one, or are damaged."""
        pipe = self._redis.pipeline(transaction=False)
        groups = self._compare(pipe, revs)
        return _changed(groups, await self.mark.execute(pipe, revs)) if groups else set()

    def _compare(self, pipe: Any, revs: Mapping[str, int]) -> list[Sequence[str]]:
        groups = self._places.groups(list(revs))
        for group in groups:
            pipe.eval(scripts.CHANGED, len(group), *group, *(revs[key] for key in group))
        return groups

    async def save(
        self,
        records: Sequence[RecordWrite],
        sockets: Sequence[SocketWrite] = (),
        index: Index | None = None,
        unread: Mapping[str, int] | None = None,
    ) -> Saved:
        """Write records in one round trip, after the message of the log that `log_mark` owes.

        Additions to the index are written before the records and removals after them, so that the index never misses
        an existing record.

        `unread`: the decision was made from copies instead of a read that checks the mark; the revs of those that are
        not written. Then the mark is checked, and these revs are compared, after the writes. Raises `StateLost` when
        the mark is not valid: what was written stays, and nothing may follow from it.
        """
        pipe = self._redis.pipeline(transaction=False)
        if self._connections.is_cluster:
            await self.log_mark.settle()  # other nodes need not be quicker
        owed = self.log_mark.add_to(pipe)
        added_keys = _add_to_index(pipe, index) if index is not None else []
        record_groups = self._places.groups([record.key for record in records], WRITES_A_SCRIPT)
        _write_groups(
            pipe, scripts.COMPARE_AND_SET, record_groups, ([w.expected_rev, *_counted(w.fields)] for w in records)
        )
        socket_groups = self._places.groups([socket.key for socket in sockets], WRITES_A_SCRIPT)
        arguments = ([write.version, write.keep_seconds, *_counted(write.fields)] for write in sockets)
        _write_groups(pipe, scripts.SET_IF_NEWER, socket_groups, arguments)
        removed_keys = _remove_from_index(pipe, index) if index is not None else []
        compared = self._compare(pipe, unread) if unread else []
        if len(pipe) == (owed is not None):
            return Saved([], [])
        if unread is None:
            answers = await self._run(pipe.execute(raise_on_error=False))
        else:
            answers = await self.mark.execute(pipe, [*(record.key for record in records), *unread])
        if owed is not None:
            _raise_damage([keys.LOG], answers[:1])
            self.log_mark.was_noted(owed)
            answers = answers[1:]
        changed = _changed(compared, answers[len(answers) - len(compared) :])
        answers = answers[: len(answers) - len(compared)]
        begin, end = len(added_keys), len(answers) - len(removed_keys)
        _raise_damage([*added_keys, *removed_keys], [*answers[:begin], *answers[end:]])
        written = answers[begin:end]
        return Saved(
            _verdicts(record_groups, written[: len(record_groups)]),
            _verdicts(socket_groups, written[len(record_groups) :]),
            changed,
        )

    async def touch(self, touches: Sequence[Touch]) -> int:
        """Apply touches and return how many took effect. Damaged records are skipped: `load` reports them."""
        pipe = self._redis.pipeline(transaction=False)
        groups = self._places.groups([touch.key for touch in touches], TOUCHES_A_SCRIPT)
        arguments = ([t.guard, t.value, *_counted({t.time_field: t.time, **t.fields})] for t in touches)
        _write_groups(pipe, scripts.TOUCH, groups, arguments)
        answers = await self._run(pipe.execute(raise_on_error=False)) if touches else []
        return sum(verdict is True for verdict in _verdicts(groups, answers))

    async def members(self, key: str) -> list[str]:
        """Return the members of a set, sorted."""
        pipe = self._redis.pipeline(transaction=False)
        pipe.smembers(key)
        (answer,) = await self._read([key], pipe)
        return sorted(answer)

    async def entries(self, key: str) -> dict[str, str]:
        """Return the fields of a hash; empty when the key does not exist."""
        return (await self.hashes([key]))[0]

    async def hashes(self, hash_keys: Sequence[str]) -> list[dict[str, str]]:
        """Return the fields of several hashes, in order, in one round trip."""
        if not hash_keys:
            return []
        pipe = self._redis.pipeline(transaction=False)
        for key in hash_keys:
            pipe.hgetall(key)
        return cast(list[dict[str, str]], await self._read(hash_keys, pipe))

    async def fields(self, hash_keys: Sequence[str], names: Sequence[str]) -> list[list[str | None]]:
        """Return the values of the fields `names` of several hashes, in order, in one round trip."""
        if not hash_keys:
            return []
        pipe = self._redis.pipeline(transaction=False)
        for key in hash_keys:
            pipe.hmget(key, *names)
        return cast(list[list[str | None]], await self._read(hash_keys, pipe))

    async def copies(
        self, hash_keys: Sequence[str], members: Sequence[tuple[str, str]], entries: Sequence[tuple[str, str]]
    ) -> tuple[list[dict[str, str] | StateDamaged], list[bool], list[str | None]]:
        """Return in one round trip hashes (one of the wrong type as its error), and what indexes say about them.

        `members`: sets, each with the value that may be in it. `entries`: hashes, each with the name of a field.
        """
        pipe = self._redis.pipeline(transaction=False)
        for key in hash_keys:
            pipe.hgetall(key)
        for key, value in members:
            pipe.sismember(key, value)
        for key, name in entries:
            pipe.hget(key, name)
        index_keys = [key for key, _ in (*members, *entries)]
        answers = await self.mark.execute(pipe, [*hash_keys, *index_keys]) if len(pipe) else []
        index_answers = answers[len(hash_keys) :]
        _raise_damage(index_keys, index_answers)
        hashes = [
            _damage(key, answer) if isinstance(answer, Exception) else answer
            for key, answer in zip(hash_keys, answers, strict=False)
        ]
        return hashes, [answer == 1 for answer in index_answers[: len(members)]], index_answers[len(members) :]

    async def servers(self) -> list[dict[str, str]]:
        """Return the records of all servers that have ever announced themselves, with their `serverId`."""
        ids = await self.members(keys.SERVERS)
        records = await self.hashes([keys.server_status(server_id) for server_id in ids])
        return [{"serverId": server_id, **record} for server_id, record in zip(ids, records, strict=True) if record]

    async def _read(self, read_keys: Sequence[str], pipe: Any) -> list[Any]:
        answers = await self.mark.execute(pipe, read_keys)
        _raise_damage(read_keys, answers)
        return answers

    # -- for repair and audit, which compare Redis with the log ----------------------------------------

    async def raw_hashes(self, hash_keys: Sequence[str]) -> list[dict[str, str] | StateDamaged]:
        """Return hashes without checking the mark; a key of the wrong type as its error."""
        pipe = self._redis.pipeline(transaction=False)
        for key in hash_keys:
            pipe.hgetall(key)
        answers = await self._run(pipe.execute(raise_on_error=False)) if hash_keys else []
        return [
            _damage(key, answer) if isinstance(answer, Exception) else answer
            for key, answer in zip(hash_keys, answers, strict=True)
        ]

    async def raw_members(self, set_keys: Sequence[str]) -> list[set[str] | StateDamaged]:
        """Return sets without checking the mark; a key of the wrong type as its error."""
        pipe = self._redis.pipeline(transaction=False)
        for key in set_keys:
            pipe.smembers(key)
        answers = await self._run(pipe.execute(raise_on_error=False)) if set_keys else []
        return [
            _damage(key, answer) if isinstance(answer, Exception) else set(answer)
            for key, answer in zip(set_keys, answers, strict=True)
        ]

    async def raw_keys(self, pattern: str) -> list[str]:
        """Return all keys that match a glob pattern. SCAN goes through every key, without blocking Redis.

        This finds records that no index names. Raises `StateDamaged` when the user may not SCAN.
        """
        matching: list[str] = []
        scan = self._redis.scan_iter(match=pattern, count=SCAN_COUNT)
        while True:
            try:
                matching.append(await self._run(anext(scan)))
            except StopAsyncIteration:
                return matching

    async def raw_delete(self, delete_keys: Sequence[str]) -> None:
        """Delete keys, whatever they hold."""
        for start in range(0, len(delete_keys), SCAN_COUNT):
            pipe = self._redis.pipeline(transaction=False)
            portion = delete_keys[start : start + SCAN_COUNT]
            for key in portion:
                pipe.unlink(key)
            _raise_damage(portion, await self._run(pipe.execute(raise_on_error=False)))

    async def replace(self, replacements: Sequence[GuardedWrite]) -> list[bool]:
        """Overwrite hashes, also keys of the wrong type. Return for each whether it was unchanged since it was read."""
        pipe = self._redis.pipeline(transaction=False)
        for write in replacements:
            pipe.eval(
                scripts.REPLACE, 1, write.key, write.guard, write.expected, write.keep_seconds, *_flat(write.fields)
            )
        answers = await self._run(pipe.execute(raise_on_error=False)) if replacements else []
        _raise_damage([write.key for write in replacements], answers)
        return [answer == 1 for answer in answers]

    async def restore(self, hashes: Sequence[StoredHash]) -> list[bool]:
        """Write hashes where there are none. Return for each whether it is in Redis now; False: another one is."""
        pipe = self._redis.pipeline(transaction=False)
        for stored in hashes:
            pipe.eval(scripts.RESTORE, 1, stored.key, stored.guard, stored.keep_seconds, *_flat(stored.fields))
        answers = await self._run(pipe.execute(raise_on_error=False)) if hashes else []
        _raise_damage([stored.key for stored in hashes], answers)
        return [answer != 0 for answer in answers]

    async def delete_unchanged(self, guards: Sequence[Guard]) -> list[bool]:
        """Delete keys. Return for each whether it was unchanged since it was read."""
        pipe = self._redis.pipeline(transaction=False)
        for guard in guards:
            pipe.eval(scripts.DELETE_UNCHANGED, 1, guard.key, guard.field, guard.value or "")
        answers = await self._run(pipe.execute(raise_on_error=False)) if guards else []
        _raise_damage([guard.key for guard in guards], answers)
        return [answer == 1 for answer in answers]

    async def delete_wrong_types(self, types: Mapping[str, str]) -> None:
        """Delete the keys that do not have their type in `types` (`set` or `hash`), so that they can be written."""
        pipe = self._redis.pipeline(transaction=False)
        for key, redis_type in types.items():
            pipe.eval(scripts.DELETE_WRONG_TYPE, 1, key, redis_type)
        if types:
            _raise_damage(list(types), await self._run(pipe.execute(raise_on_error=False)))

    async def remove_members(self, members: Mapping[str, Sequence[str]]) -> None:
        """Remove members from sets; `members` maps the key of a set to them."""
        pipe = self._redis.pipeline(transaction=False)
        for key, values in members.items():
            pipe.srem(key, *values)
        if members:
            _raise_damage(list(members), await self._run(pipe.execute(raise_on_error=False)))


def _add_to_index(pipe: Any, index: Index) -> list[str]:
    """Add the new members and entries to the pipeline. Return the key of each command."""
    command_keys = []
    for key, values in index.members.items():
        pipe.sadd(key, *values)
        command_keys.append(key)
    for key, entries in index.entries.items():
        added = [(name, version, value) for name, (version, value) in entries.items() if value is not None]
        if added:
            pipe.eval(scripts.INDEX, 1, key, *itertools.chain.from_iterable(added))
            command_keys.append(key)
    return command_keys


def _remove_from_index(pipe: Any, index: Index) -> list[str]:
    """Add the removals of entries to the pipeline. Return the key of each command."""
    command_keys = []
    for key, entries in index.entries.items():
        removed = [(name, version, "") for name, (version, value) in entries.items() if value is None]
        if removed:
            pipe.eval(scripts.INDEX, 1, key, *itertools.chain.from_iterable(removed))
            command_keys.append(key)
    return command_keys


def _stored_record(key: str, answer: Any) -> StoredRecord | StateDamaged:
    """Return a record of the answer of `scripts.LOAD`: `rev` and `history`, or the text of an error."""
    if isinstance(answer, str):
        answer = ResponseError(answer)
    if isinstance(answer, Exception):
        return _damage(key, answer)
    rev = answer[0] or "0"
    if rev.isascii() and rev.isdigit():
        return StoredRecord(int(rev), answer[1])
    return StateDamaged(f"{key}: {rev!r} is not a revision", keys.parse_key(key))


def _changed(groups: Sequence[Sequence[str]], answers: Sequence[Any]) -> set[str]:
    """Return the keys of the answers of `scripts.CHANGED`, one for each group."""
    changed: set[str] = set()
    for group, places in zip(groups, answers, strict=True):
        changed.update(group if isinstance(places, Exception) else (group[place - 1] for place in places))
    return changed


def _write_groups(
    pipe: Any, script: str, groups: Sequence[Sequence[str]], arguments: Iterable[Sequence[str | int]]
) -> None:
    """Add a script for each group of keys to the pipeline; `arguments`: those of each key, in order."""
    of_keys = iter(arguments)
    for group in groups:
        flat = itertools.chain.from_iterable(itertools.islice(of_keys, len(group)))
        pipe.eval(script, len(group), *group, *flat)


def _counted(fields: Mapping[str, str]) -> Sequence[str | int]:
    return [2 * len(fields), *_flat(fields)]


def _verdicts(groups: Sequence[Sequence[str]], answers: Sequence[Any]) -> list[bool | StateDamaged]:
    """Return for each key whether it was written, or its damage; `answers`: of the script of each group."""
    verdicts: list[bool | StateDamaged] = []
    for group, answer in zip(groups, answers, strict=True):
        for key, verdict in zip(group, [answer] * len(group) if isinstance(answer, Exception) else answer, strict=True):
            error = ResponseError(verdict) if isinstance(verdict, str) else verdict
            verdicts.append(_damage(key, error) if isinstance(error, Exception) else error == 1)
    return verdicts


def _flat(fields: Mapping[str, str]) -> list[str]:
    return list(itertools.chain.from_iterable(fields.items()))


def _raise_damage(answered_keys: Sequence[str], answers: Sequence[Any]) -> None:
    """Raise the first error among the answers of a pipeline that has one command for each key."""
    for key, answer in zip(answered_keys, answers, strict=True):
        if isinstance(answer, Exception):
            raise _damage(key, answer)


def _damage(key: str, error: Exception) -> StateDamaged:
    """Return the damage of a key for an error in a pipeline. Raises `StateUnavailable` when the key is not at fault."""
    if isinstance(error, ResponseError) and not is_temporary(error):
        return StateDamaged(f"{key}: {error}", keys.parse_key(key))
    raise StateUnavailable(f"Redis refused {key}: {error!r}") from error
