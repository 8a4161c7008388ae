"""Whether Redis holds what it was given: a mark in one hash (`protocol.keys.STATE`), read last in every round trip.

A state manager that has brought Redis up to the log leaves the Redis process' `run_id` and how much of the log is in.
A Redis that was emptied has no mark; one that came back from a snapshot, an append-only file or a replica has the mark
of another process. In both cases reading raises `StateLost` until a state manager has made it whole
(`actors.state_repair`). The check costs 15 microseconds of Redis' time a round trip.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from redis.exceptions import ResponseError

from protocol import keys
from protocol.errors import StateDamaged, StateLost, StateUnavailable
from protocol.times import format_time

_RUN = "string.match(redis.call('INFO', 'server'), 'run_id:(%x+)')"

# 2 whole, 1 another process was, 0 nobody knows. KEYS[1] mark
_CHECK = """
local run = redis.call('HGET', KEYS[1], 'run')
if not run then return 0 end
if not string.find(redis.call('INFO', 'server'), 'run_id:' .. run, 1, true) then return 1 end
return 2"""

# Note that Redis holds the log up to a sequence, if it is whole. KEYS[1] mark; ARGV: sequence
_ADVANCE = f"""
local known = redis.call('HMGET', KEYS[1], 'run', 'applied')
if not known[1] then return 0 end
if known[1] ~= {_RUN} then return 1 end
if tonumber(known[2] or '0') < tonumber(ARGV[1]) then redis.call('HSET', KEYS[1], 'applied', ARGV[1]) end
return 2"""

# A repair begins: its name, beside the process that it repairs. KEYS[1] mark; ARGV: name
_BEGIN = f"""
if redis.call('TYPE', KEYS[1]).ok ~= 'hash' then redis.call('DEL', KEYS[1]) end
local known = redis.call('HMGET', KEYS[1], 'run', 'applied')
local run = {_RUN}
if known[1] == run then return {{2, ''}} end
redis.call('HSET', KEYS[1], 'repair:' .. ARGV[1], run)
return {{known[1] and 1 or 0, known[2] or ''}}"""

# A repair is done, if Redis still is the one that it began with. KEYS[1] mark; ARGV: name, sequence, time
_END = f"""
local run = {_RUN}
if redis.call('HGET', KEYS[1], 'repair:' .. ARGV[1]) ~= run then return 0 end
local known = redis.call('HGET', KEYS[1], 'applied')
local applied = ARGV[2]
if known and tonumber(known) > tonumber(applied) then applied = known end
redis.call('DEL', KEYS[1])
redis.call('HSET', KEYS[1], 'run', run, 'applied', applied, 'wholeSince', ARGV[3])
return 1"""

_WHOLE = 2


@dataclass(frozen=True, slots=True)
class Mark:
    """What a repair finds: Redis whole, or `applied`, the sequence up to which it holds the log (`None`: unknown)."""

    whole: bool
    applied: int | None = None


class StateMark:
    """The mark in Redis. Every method raises `StateUnavailable` when Redis does not answer."""

    def __init__(self, redis: Any, run: Callable[[Awaitable[Any]], Awaitable[Any]], name: str) -> None:
        self._redis = redis
        self._run = run
        self._name = name

    async def execute(self, pipe: Any, *, checked: bool) -> list[Any]:
        """The answers of a pipeline that reads; errors are values. `checked`: raises `StateLost` unless whole."""
        if not checked:
            return list(await self._run(pipe.execute(raise_on_error=False)))
        # Last: if the mark still stands then, it stood while everything before it was read.
        pipe.eval(_CHECK, 1, keys.STATE)
        *answers, verdict = await self._run(pipe.execute(raise_on_error=False))
        if verdict != _WHOLE:
            raise self._lost(verdict)
        return list(answers)

    async def is_whole(self) -> bool:
        """Whether what Redis holds may be believed."""
        return bool(await self._script(_CHECK) == _WHOLE)

    async def advance(self, sequence: int) -> bool:
        """Note that everything up to this sequence of STATUS is acknowledged, so Redis holds it. False: not whole."""
        return bool(await self._script(_ADVANCE, sequence) == _WHOLE)

    async def begin(self, repair: str) -> Mark:
        """A repair with a unique name begins; nothing is noted when Redis is whole."""
        verdict, applied = await self._script(_BEGIN, repair)
        return Mark(verdict == _WHOLE, int(applied) if verdict == 1 and applied else None)

    async def end(self, repair: str, sequence: int) -> bool:
        """The repair has brought Redis up to this sequence. False: Redis was lost again, or somebody was quicker."""
        return bool(await self._script(_END, repair, sequence, format_time(time.time())) == 1)

    async def _script(self, script: str, *arguments: str | int) -> Any:
        try:
            return await self._run(self._redis.eval(script, 1, keys.STATE, *arguments))
        except StateDamaged:  # of the wrong type: not ours
            if script is _CHECK or script is _ADVANCE:
                return 0
            raise

    def _lost(self, verdict: Any) -> StateUnavailable:
        what = "was replaced or restarted" if verdict == 1 else "was emptied, or is new"
        if isinstance(verdict, Exception) and not (
            isinstance(verdict, ResponseError) and str(verdict).startswith("WRONGTYPE")
        ):
            return StateUnavailable(f"Redis at {self._name} cannot say whether it is whole: {verdict}")
        return StateLost(f"Redis at {self._name} {what}: a state manager must bring it up to the log first")
