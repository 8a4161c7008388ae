"""Check that Redis has lost nothing, by a mark in a hash (`protocol.records.keys.STATE`).

A state manager that has brought Redis up to the log writes the mark: the `run_id` of the Redis process, and the
sequence up to which the log is applied. A Redis that was emptied has no mark. One that was restored from a snapshot, an
append-only file or a replica has the mark of another process. In both cases reading raises `StateLost` until a state
manager has repaired it (`actors.state_manager.recovery.repair`). Every read checks the mark, in the same round trip,
after the keys; that costs Redis 15 microseconds.

While a repair runs, the same hash says which plans and parts of the log are whole already
(`actors.runtime.store.repair_marks`), and which state manager repairs which part.

A cluster has marks on every shard (`actors.runtime.store.shards`), and is whole when all of them are valid.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

from redis.exceptions import ResponseError

from actors.runtime.store.repair_marks import Whole, needed_marks
from actors.runtime.store.shards import OneServer, Shards
from protocol.errors import StateLost, StateUnavailable
from protocol.log.partitions import PARTS
from protocol.times import format_time

_RUN = "string.match(redis.call('INFO', 'server'), 'run_id:(%x+)')"

# Check a mark: 2 valid, 1 written for another Redis process, 0 no mark. While a repair runs, 2 if what is needed is
# whole. KEYS[1] mark; ARGV: the marks of the repair that are needed, alternatives separated by |
_CHECK = f"""
local known = redis.call('HGET', KEYS[1], 'run')
if known and string.find(redis.call('INFO', 'server'), 'run_id:' .. known, 1, true) then return 2 end
local verdict = known and 1 or 0
if #ARGV == 0 then return verdict end
local run = {_RUN}
for _, needed in ipairs(ARGV) do
  local valid = false
  for mark in string.gmatch(needed, '[^|]+') do
    if redis.call('HGET', KEYS[1], mark) == run then valid = true end
  end
  if not valid then return verdict end
end
return 2"""

# Record that Redis holds the log up to a sequence, if the mark is valid. KEYS[1] mark; ARGV: sequence
_ADVANCE = f"""
local known = redis.call('HMGET', KEYS[1], 'run', 'applied')
if not known[1] then return 0 end
if known[1] ~= {_RUN} then return 1 end
if tonumber(known[2] or '0') < tonumber(ARGV[1]) then redis.call('HSET', KEYS[1], 'applied', ARGV[1]) end
return 2"""

# Return the result of _CHECK, and the sequence up to which Redis holds the log. KEYS[1] mark
_APPLIED = f"""
local known = redis.call('HMGET', KEYS[1], 'run', 'applied')
if not known[1] then return {{0, ''}} end
if known[1] ~= {_RUN} then return {{1, ''}} end
return {{2, known[2] or ''}}"""

# Begin a repair: store its name with the run_id of the Redis process that it repairs. KEYS[1] mark; ARGV: name
_BEGIN = f"""
if redis.call('TYPE', KEYS[1]).ok ~= 'hash' then redis.call('DEL', KEYS[1]) end
local known = redis.call('HMGET', KEYS[1], 'run', 'applied')
local run = {_RUN}
if known[1] == run then return {{2, ''}} end
redis.call('HSET', KEYS[1], 'repair:' .. ARGV[1], run)
return {{known[1] and 1 or 0, known[2] or ''}}"""

# End a repair: 1 done, 2 the mark was valid already, 0 the Redis process has changed since the repair began. KEYS[1]
# mark; ARGV: name, sequence, time
_END = f"""
local run = {_RUN}
if redis.call('HGET', KEYS[1], 'run') == run then return 2 end
if redis.call('HGET', KEYS[1], 'repair:' .. ARGV[1]) ~= run then return 0 end
local known = redis.call('HGET', KEYS[1], 'applied')
local applied = ARGV[2]
if known and tonumber(known) > tonumber(applied) then applied = known end
redis.call('DEL', KEYS[1])
redis.call('HSET', KEYS[1], 'run', run, 'applied', applied, 'wholeSince', ARGV[3])
return 1"""

# Return the result of _CHECK and the marks of a repair that are valid. KEYS[1] mark
_WHOLE_SO_FAR = f"""
if redis.call('TYPE', KEYS[1]).ok ~= 'hash' then return {{0}} end
local run = {_RUN}
local fields = redis.call('HGETALL', KEYS[1])
local marks = {{}}
for at = 1, #fields, 2 do
  if fields[at + 1] == run then
    if fields[at] == 'run' then return {{2}} end
    marks[#marks + 1] = fields[at]
  end
end
return {{0, marks}}"""

# Claim parts for a repair, for some seconds; return those that nobody else has claimed. KEYS[1] mark; ARGV: name,
# seconds, how many at most, parts
_CLAIM = """
local now = tonumber(redis.call('TIME')[1])
local claimed = {}
for at = 4, #ARGV do
  if #claimed == tonumber(ARGV[3]) then break end
  local owner, since = string.match(redis.call('HGET', KEYS[1], 'claim:' .. ARGV[at]) or '', '^(%S+) (%d+)$')
  if not owner or owner == ARGV[1] or now - tonumber(since) > tonumber(ARGV[2]) then
    redis.call('HSET', KEYS[1], 'claim:' .. ARGV[at], ARGV[1] .. ' ' .. now)
    claimed[#claimed + 1] = ARGV[at]
  end
end
return claimed"""

# Mark what a repair has made whole: 1 done, 2 everything is whole, 0 the Redis process has changed since it began.
# KEYS[1] mark; ARGV: name, marks
_ADD = f"""
local run = {_RUN}
if redis.call('HGET', KEYS[1], 'run') == run then return 2 end
if redis.call('HGET', KEYS[1], 'repair:' .. ARGV[1]) ~= run then return 0 end
for at = 2, #ARGV do redis.call('HSET', KEYS[1], ARGV[at], run) end
return 1"""

# Mark a part as whole, and everything when it is the last one; the result is that of _ADD. KEYS[1] mark; ARGV: name,
# sequence, time, the part, all parts
_END_PART = f"""
local run = {_RUN}
if redis.call('HGET', KEYS[1], 'run') == run then return 2 end
if redis.call('HGET', KEYS[1], 'repair:' .. ARGV[1]) ~= run then return 0 end
redis.call('HSET', KEYS[1], 'part:' .. ARGV[4], run, 'applied:' .. ARGV[4], ARGV[2])
local applied = tonumber(ARGV[2])
for at = 5, #ARGV do
  local known = redis.call('HMGET', KEYS[1], 'part:' .. ARGV[at], 'applied:' .. ARGV[at])
  if known[1] ~= run then return 1 end
  applied = math.min(applied, tonumber(known[2]))
end
redis.call('DEL', KEYS[1])
redis.call('HSET', KEYS[1], 'run', run, 'applied', string.format('%.0f', applied), 'wholeSince', ARGV[3])
return 2"""

_WHOLE = 2
CLAIM_SECONDS = 5
"""Who has not renewed a claim for so long has died: somebody else repairs the part."""


@dataclass(frozen=True, slots=True)
class Mark:
    """State of Redis at the start of a repair: whole, or the sequence up to which it has the log (`None`: unknown)."""

    whole: bool
    applied: int | None = None


class StateMark:
    """Reads and writes the marks of a Redis (one), or of a cluster (one or more on each shard).

    Every method raises `StateUnavailable` when Redis does not answer.

    Example::

        if not await mark.is_whole():
            repair = await mark.begin("repair-1")
    """

    def __init__(
        self, redis: Any, run: Callable[[Awaitable[Any]], Awaitable[Any]], name: str, places: OneServer | Shards
    ) -> None:
        self._redis = redis
        self._run = run
        self._name = name
        self._places = places

    async def execute(self, pipe: Any, read_keys: Collection[str]) -> list[Any]:
        """Run a pipeline that reads the keys `read_keys` and return its answers; an error is a value.

        Raises `StateLost` when the mark of one of the keys is not valid.
        """
        marks, needed = self._places.marks_of(read_keys), needed_marks(read_keys)
        for mark in marks:
            # Last: a mark that is valid now was valid while the keys before it were read.
            pipe.eval(_CHECK, 1, mark, *needed)
        answers = list(await self._run(pipe.execute(raise_on_error=False)))
        verdicts = answers[len(answers) - len(marks) :]
        for verdict in verdicts:
            if verdict != _WHOLE:
                raise self._lost(verdict)
        return answers[: len(answers) - len(marks)]

    async def is_whole(self) -> bool:
        """Return whether Redis has lost nothing."""
        return all(verdict == _WHOLE for verdict in await self._script(_CHECK))

    async def holds(self, read_keys: Collection[str]) -> bool:
        """Return whether these keys can be read: Redis is whole, or a repair has made them whole already."""
        marks = self._places.marks_of(read_keys)
        return all(verdict == _WHOLE for verdict in await self._script(_CHECK, *needed_marks(read_keys), marks=marks))

    async def applied(self) -> int | None:
        """Return the sequence of STATUS up to which Redis holds the log; `None` when it is not whole."""
        # A mark of the wrong type answers with 0 alone.
        answers = [answer if isinstance(answer, list) else [answer, ""] for answer in await self._script(_APPLIED)]
        if any(verdict != _WHOLE for verdict, _ in answers):
            return None
        return min(int(applied or 0) for _, applied in answers)

    async def advance(self, sequence: int) -> bool:
        """Record that everything up to this sequence of STATUS is applied. Return False when Redis is not whole."""
        return all(verdict == _WHOLE for verdict in await self._script(_ADVANCE, sequence))

    async def begin(self, repair: str) -> Mark:
        """Begin a repair with a unique name; nothing is written to shards that are whole."""
        lost = [(verdict, applied) for verdict, applied in await self._script(_BEGIN, repair) if verdict != _WHOLE]
        known = [int(applied) for verdict, applied in lost if verdict == 1 and applied]
        # The shard that is furthest behind; one without a sequence needs the whole log.
        return Mark(whole=not lost, applied=min(known) if known and len(known) == len(lost) else None)

    async def end(self, repair: str, sequence: int) -> bool:
        """End a repair at this sequence. Return False when Redis was lost again, or repaired by another manager."""
        verdicts = await self._script(_END, repair, sequence, format_time(time.time()))
        return 1 in verdicts and 0 not in verdicts

    async def whole_so_far(self) -> Whole:
        """Return what is whole while a repair runs."""
        answers = [answer for answer in await self._script(_WHOLE_SO_FAR) if answer != [_WHOLE]]
        if not answers:
            return Whole(everything=True)
        # A mark of the wrong type, or none, answers without marks.
        marks = [set(answer[1]) if isinstance(answer, list) and len(answer) > 1 else set() for answer in answers]
        return Whole(marks=set.intersection(*marks))

    async def claim(self, repair: str, parts: Sequence[str], most: int | None = None) -> list[str]:
        """Claim parts for a repair, `most` of them; return those that no other repair has. Claim again to keep them."""
        if not parts:
            return []
        first = self._places.marks[:1]  # one place for all shards
        (claimed,) = await self._script(_CLAIM, repair, CLAIM_SECONDS, most or len(parts), *parts, marks=first)
        return claimed if isinstance(claimed, list) else []

    async def add(self, repair: str, marks: Sequence[str]) -> bool:
        """Mark what a repair has made whole. Return False when Redis was lost again."""
        return 0 not in await self._script(_ADD, repair, *marks)

    async def end_part(self, repair: str, part: str, sequence: int) -> bool | None:
        """Mark a part as whole, up to this sequence. Return whether all are now; `None`: Redis was lost again."""
        now = format_time(time.time())
        verdicts = await self._script(_END_PART, repair, sequence, now, part, *PARTS)
        return None if 0 in verdicts else all(verdict == _WHOLE for verdict in verdicts)

    async def _script(self, script: str, *arguments: str | int, marks: Sequence[str] | None = None) -> list[Any]:
        """Run a script on each mark and return its answers; 0 for a mark of the wrong type."""
        pipe = self._redis.pipeline(transaction=False)
        for mark in self._places.marks if marks is None else marks:
            pipe.eval(script, 1, mark, *arguments)
        verdicts = []
        for verdict in await self._run(pipe.execute(raise_on_error=False)):
            if isinstance(verdict, Exception) and not _is_wrong_type(verdict):
                raise self._lost(verdict)
            verdicts.append(0 if isinstance(verdict, Exception) else verdict)
        return verdicts

    def _lost(self, verdict: Any) -> StateUnavailable:
        cause = "was replaced or restarted" if verdict == 1 else "was emptied, or is new"
        if isinstance(verdict, Exception) and not _is_wrong_type(verdict):
            return StateUnavailable(f"Redis at {self._name} cannot check its mark: {verdict}")
        return StateLost(f"Redis at {self._name} {cause}: a state manager must bring it up to the log first")


def _is_wrong_type(error: Exception) -> bool:
    return isinstance(error, ResponseError) and str(error).startswith("WRONGTYPE")
