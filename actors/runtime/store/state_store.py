"""The state store: the one place that touches Redis. Every script touches one key, so Redis Cluster works."""

from __future__ import annotations

from collections.abc import Awaitable, Mapping, Sequence
from typing import Any, cast

import pydantic_core
from redis.exceptions import ResponseError

from actors.runtime.config.sections import RedisSettings
from actors.runtime.store.connection import RedisConnections, passing
from actors.runtime.store.shards import OneServer, Shards
from actors.runtime.store.state_mark import StateMark
from protocol.errors import StateDamaged, StateUnavailable
from protocol.records import keys
from protocol.records.writes import GuardedWrite, Index, RecordWrite, SocketWrite, StoredRecord, Touch

SCANNED = 1000

# Fields travel as one JSON argument: redis-py packs each argument in Python, and a record has twenty of them twice.
_SET_FIELDS = """
local flat = {}
for name, value in pairs(cjson.decode(%s)) do
  flat[#flat + 1] = name
  flat[#flat + 1] = value
end
redis.call('HSET', KEYS[1], unpack(flat))
"""

# Compare the record's `rev` and set. KEYS[1] record; ARGV: expected rev, fields as JSON
_COMPARE_AND_SET = f"""
local rev = redis.call('HGET', KEYS[1], 'rev')
if (rev or '0') ~= ARGV[1] then return 0 end
{_SET_FIELDS % "ARGV[2]"}
return 1"""

# Set unless something newer is there. KEYS[1] socket; ARGV: version, seconds to keep it (0: forever), fields as JSON
_SET_IF_NEWER = f"""
local known = redis.call('HGET', KEYS[1], 'version')
if known and tonumber(known) > tonumber(ARGV[1]) then return 0 end
{_SET_FIELDS % "ARGV[3]"}
redis.call('HSET', KEYS[1], 'version', ARGV[1])
if ARGV[2] == '0' then redis.call('PERSIST', KEYS[1]) else redis.call('EXPIRE', KEYS[1], ARGV[2]) end
return 1"""

# Set or remove entries `version value`, each unless a newer one is there. ARGV[1]: [[name, version, value or ''], ...]
_INDEX = """
for _, entry in ipairs(cjson.decode(ARGV[1])) do
  local known = redis.call('HGET', KEYS[1], entry[1])
  if not known or tonumber(string.match(known, '^%d+') or '0') <= entry[2] then
    if entry[3] == '' then
      redis.call('HDEL', KEYS[1], entry[1])
    else
      redis.call('HSET', KEYS[1], entry[1], string.format('%.0f', entry[2]) .. ' ' .. entry[3])
    end
  end
end
return 1"""

# Write whatever is there, if it still is what was seen. KEYS[1] hash; ARGV: field, its value ('0': none, or no hash at
# all), seconds to keep it (0: forever), fields as JSON
_REPLACE = f"""
if redis.call('TYPE', KEYS[1]).ok ~= 'hash' then
  if ARGV[2] ~= '0' then return 0 end
  redis.call('DEL', KEYS[1])
end
if (redis.call('HGET', KEYS[1], ARGV[1]) or '0') ~= ARGV[2] then return 0 end
{_SET_FIELDS % "ARGV[4]"}
if ARGV[3] == '0' then redis.call('PERSIST', KEYS[1]) else redis.call('EXPIRE', KEYS[1], ARGV[3]) end
return 1"""

# Make room for a set or a hash. KEYS[1] key; ARGV: the type that it should have
_CLEAR = """
if redis.call('TYPE', KEYS[1]).ok == ARGV[1] then return 0 end
return redis.call('DEL', KEYS[1])"""

# Set fields where another one holds a value, forward in time. ARGV: guard, value, time field, time, field value …
_TOUCH = """
if redis.call('HGET', KEYS[1], ARGV[1]) ~= ARGV[2] then return 0 end
local known = redis.call('HGET', KEYS[1], ARGV[3])
if known and known > ARGV[4] then return 0 end
redis.call('HSET', KEYS[1], unpack(ARGV, 3))
return 1"""


class StateStore:
    """Redis, with our errors: `StateUnavailable` (try again) and `StateDamaged` (somebody must look).

    Whatever is read raises `StateLost` when Redis is not known to be whole (`actors.runtime.store.state_mark`);
    the methods `raw_*` are for those who look into that.
    """

    def __init__(self, url: str, options: RedisSettings | None = None) -> None:
        """`url`: see `actors.runtime.config.redis_url`; `options`: the settings `redis.*`. Raises
        `ConfigurationError`."""
        self._connections = RedisConnections(url, options or RedisSettings())
        self._redis = self._connections.client
        self._run = self._connections.run
        places = Shards(self._redis) if self._connections.of_a_cluster else OneServer()
        self.mark = StateMark(self._redis, self._run, self._connections.name, places)
        self.url = url

    async def close(self) -> None:
        await self._connections.close()

    async def ping(self) -> None:
        """Raises `StateUnavailable`."""
        await self._connections.ping()

    async def time(self) -> float:
        """Redis' clock, in seconds since the epoch. Raises `StateUnavailable`."""
        seconds, microseconds = await self._run(cast(Awaitable[Any], self._redis.time()))
        return float(int(seconds) + int(microseconds) / 1e6)

    async def about(self) -> tuple[dict[str, Any], str | None]:
        """INFO of the server (of a cluster: of one of its nodes), and its `save` setting where it may be read."""
        info = await self._run(cast(Awaitable[Any], self._redis.info()))
        try:
            saves = (await self._run(self._redis.config_get("save"))).get("save")
        except StateDamaged:  # a managed Redis does not let us look
            saves = None
        return cast(dict[str, Any], info), saves

    async def load(self, record_keys: Sequence[str]) -> list[StoredRecord | StateDamaged]:
        """The records at `record_keys`, in order, in one round trip; a damaged one does not spoil the others."""
        if not record_keys:
            return []
        pipe = self._redis.pipeline(transaction=False)
        for key in record_keys:
            pipe.hmget(key, "rev", "history")
        loaded: list[StoredRecord | StateDamaged] = []
        for key, answer in zip(record_keys, await self.mark.execute(pipe, record_keys), strict=True):
            if isinstance(answer, Exception):
                loaded.append(_damage(key, answer))
                continue
            rev = answer[0] or "0"
            if rev.isascii() and rev.isdigit():
                loaded.append(StoredRecord(int(rev), answer[1]))
            else:
                loaded.append(StateDamaged(f"{key}: {rev!r} is no rev", keys.parse_key(key)))
        return loaded

    async def save(
        self, records: Sequence[RecordWrite], sockets: Sequence[SocketWrite] = (), index: Index | None = None
    ) -> tuple[list[bool | StateDamaged], list[bool | StateDamaged]]:
        """Write in one round trip: what finds things first, and what finds them no more last.

        Per write: True written, False somebody was quicker, or the damage.
        """
        pipe = self._redis.pipeline(transaction=False)
        indexed = _add_index(pipe, index) if index is not None else []
        for record in records:
            pipe.eval(_COMPARE_AND_SET, 1, record.key, record.expected_rev, _json(record.fields))
        for socket in sockets:
            pipe.eval(_SET_IF_NEWER, 1, socket.key, socket.version, socket.keep_seconds, _json(socket.fields))
        forgotten = _take_out(pipe, index) if index is not None else []
        if not len(pipe):
            return [], []
        answers = await self._run(pipe.execute(raise_on_error=False))
        last = len(answers) - len(forgotten)
        for key, answer in zip([*indexed, *forgotten], [*answers[: len(indexed)], *answers[last:]], strict=True):
            if isinstance(answer, Exception):
                raise _damage(key, answer)
        answers = answers[len(indexed) : last]
        touched = [*(record.key for record in records), *(socket.key for socket in sockets)]
        results = [
            _damage(key, answer) if isinstance(answer, Exception) else answer == 1
            for key, answer in zip(touched, answers, strict=True)
        ]
        return results[: len(records)], results[len(records) :]

    async def touch(self, touches: Sequence[Touch]) -> int:
        """Apply touches; how many took effect. A damaged record is passed over: it shows when it is loaded."""
        pipe = self._redis.pipeline(transaction=False)
        for one in touches:
            extra = _flat(one.fields)
            pipe.eval(_TOUCH, 1, one.key, one.guard, one.value, one.time_field, one.time, *extra)
        answers = await self._run(pipe.execute(raise_on_error=False)) if touches else []
        return sum(answer == 1 for answer in answers)

    async def members(self, key: str) -> list[str]:
        """The members of a set, sorted."""
        pipe = self._redis.pipeline(transaction=False)
        pipe.smembers(key)
        (answer,) = await self._read([key], pipe)
        return sorted(answer)

    async def entries(self, key: str) -> dict[str, str]:
        """A hash as it is; empty when there is none."""
        return (await self.hashes([key]))[0]

    async def hashes(self, hash_keys: Sequence[str]) -> list[dict[str, str]]:
        """Several hashes in one round trip, in order."""
        if not hash_keys:
            return []
        pipe = self._redis.pipeline(transaction=False)
        for key in hash_keys:
            pipe.hgetall(key)
        return cast(list[dict[str, str]], await self._read(hash_keys, pipe))

    async def fields(self, hash_keys: Sequence[str], names: Sequence[str]) -> list[list[str | None]]:
        """Some fields of several hashes in one round trip, in order."""
        if not hash_keys:
            return []
        pipe = self._redis.pipeline(transaction=False)
        for key in hash_keys:
            pipe.hmget(key, *names)
        return cast(list[list[str | None]], await self._read(hash_keys, pipe))

    async def servers(self) -> list[dict[str, str]]:
        """The records of all servers that ever announced themselves, with their `serverId`."""
        ids = await self.members(keys.SERVERS)
        records = await self.hashes([keys.server_status(server_id) for server_id in ids])
        return [{"serverId": server_id, **record} for server_id, record in zip(ids, records, strict=True) if record]

    async def _read(self, touched: Sequence[str], pipe: Any) -> list[Any]:
        answers = await self.mark.execute(pipe, touched)
        for key, answer in zip(touched, answers, strict=True):
            if isinstance(answer, Exception):
                raise _damage(key, answer)
        return answers

    # -- for whoever compares Redis with the log, and repairs it ---------------------------------------

    async def raw_hashes(self, hash_keys: Sequence[str]) -> list[dict[str, str] | StateDamaged]:
        """Hashes as they are, whole or not; one of the wrong type does not spoil the others."""
        pipe = self._redis.pipeline(transaction=False)
        for key in hash_keys:
            pipe.hgetall(key)
        answers = await self._run(pipe.execute(raise_on_error=False)) if hash_keys else []
        return [
            _damage(key, one) if isinstance(one, Exception) else one
            for key, one in zip(hash_keys, answers, strict=True)
        ]

    async def raw_members(self, set_keys: Sequence[str]) -> list[set[str] | StateDamaged]:
        """Sets as they are, whole or not; one of the wrong type does not spoil the others."""
        pipe = self._redis.pipeline(transaction=False)
        for key in set_keys:
            pipe.smembers(key)
        answers = await self._run(pipe.execute(raise_on_error=False)) if set_keys else []
        return [
            _damage(key, one) if isinstance(one, Exception) else set(one)
            for key, one in zip(set_keys, answers, strict=True)
        ]

    async def raw_keys(self, pattern: str) -> list[str]:
        """All keys of a glob pattern, by SCAN: it takes as long as there are keys, and holds Redis up for none of them.

        For looking into what nothing else finds. Raises `StateDamaged` when this user may not.
        """
        found: list[str] = []
        scan = self._redis.scan_iter(match=pattern, count=SCANNED)
        while True:
            try:
                found.append(await self._run(anext(scan)))
            except StopAsyncIteration:
                return found

    async def replace(self, replacements: Sequence[GuardedWrite]) -> list[bool]:
        """Write hashes whatever is there; per replacement whether it was still what had been seen."""
        pipe = self._redis.pipeline(transaction=False)
        for one in replacements:
            pipe.eval(_REPLACE, 1, one.key, one.guard, one.expected, one.keep_seconds, _json(one.fields))
        answers = await self._run(pipe.execute(raise_on_error=False)) if replacements else []
        for one, answer in zip(replacements, answers, strict=True):
            if isinstance(answer, Exception):
                raise _damage(one.key, answer)
        return [answer == 1 for answer in answers]

    async def clear_unless(self, kinds: Mapping[str, str]) -> None:
        """Take keys out that are not of their type (`set` or `hash`), so that it can be written."""
        pipe = self._redis.pipeline(transaction=False)
        for key, kind in kinds.items():
            pipe.eval(_CLEAR, 1, key, kind)
        if kinds:
            await self._read_raw(list(kinds), pipe)

    async def drop_members(self, members: Mapping[str, Sequence[str]]) -> None:
        """Take values out of sets."""
        pipe = self._redis.pipeline(transaction=False)
        for key, values in members.items():
            pipe.srem(key, *values)
        if members:
            await self._read_raw(list(members), pipe)

    async def _read_raw(self, touched: Sequence[str], pipe: Any) -> None:
        for key, answer in zip(touched, await self._run(pipe.execute(raise_on_error=False)), strict=True):
            if isinstance(answer, Exception):
                raise _damage(key, answer)


def _add_index(pipe: Any, index: Index) -> list[str]:
    touched = []
    for key, values in index.members.items():
        pipe.sadd(key, *values)
        touched.append(key)
    for key, entries in index.entries.items():
        listed = [[name, version, value] for name, (version, value) in entries.items() if value is not None]
        if listed:
            pipe.eval(_INDEX, 1, key, pydantic_core.to_json(listed))
            touched.append(key)
    return touched


def _take_out(pipe: Any, index: Index) -> list[str]:
    touched = []
    for key, entries in index.entries.items():
        listed = [[name, version, ""] for name, (version, value) in entries.items() if value is None]
        if listed:
            pipe.eval(_INDEX, 1, key, pydantic_core.to_json(listed))
            touched.append(key)
    return touched


def _json(fields: Mapping[str, str]) -> bytes:
    return pydantic_core.to_json(fields)


def _flat(fields: Mapping[str, str]) -> list[str]:
    return [part for pair in fields.items() for part in pair]


def _damage(key: str, error: Exception) -> StateDamaged:
    """An answer inside a pipeline: trouble with this key, or with Redis as a whole (then raised)."""
    if isinstance(error, ResponseError) and not passing(error):
        return StateDamaged(f"{key}: {error}", keys.parse_key(key))
    raise StateUnavailable(f"Redis refused {key}: {error!r}") from error
