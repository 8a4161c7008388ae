"""The mark of the log: which log the records in Redis follow, and the newest message of it that they may hold.

A state manager notes a message, with the time at which the broker stored it, before it writes anything that follows
from it. So a log that does not hold this message any more, or another one in its place, is behind Redis
(`actors.state_manager.recovery.log_guard`).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Any

from protocol.log.gap import LogGap
from protocol.records import keys

# Note a message unless a newer one is known. KEYS[1] mark; ARGV: sequence, time
_REACH = """
local known = redis.call('HGET', KEYS[1], 'reached')
if known and tonumber(known) >= tonumber(ARGV[1]) then return 0 end
return redis.call('HSET', KEYS[1], 'reached', ARGV[1], 'time', ARGV[2])"""

# Claim the mending for a time, or renew the claim. KEYS[1] mark; ARGV: name, milliseconds
_CLAIM = """
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local holder = redis.call('HMGET', KEYS[1], 'mender', 'menderUntil')
if holder[1] and holder[1] ~= ARGV[1] and tonumber(holder[2]) > now then return 0 end
redis.call('HSET', KEYS[1], 'mender', ARGV[1], 'menderUntil', string.format('%.0f', now + ARGV[2]))
return 1"""

CLAIM_SECONDS = 5.0
"""A claim that is not renewed ends after so long: its holder has died."""
_MENDING, _GAP = "mending", "gap"


@dataclass(frozen=True, slots=True)
class KnownLog:
    """What is known of the log: its newest message `reached`, and `time`, when the broker stored that (epoch seconds).

    `created`, `installation`: when the streams STATUS and CHECKPOINT were created; 0: unknown.
    """

    reached: int = 0
    time: float = 0.0
    created: float = 0.0
    installation: float = 0.0
    mending: bool = False
    """The log is being mended, or whoever did that has died."""

    def or_newer(self, other: KnownLog) -> KnownLog:
        """Return this, with the message of `other` if that is newer."""
        if other.reached <= self.reached:
            return self
        return replace(self, reached=other.reached, time=other.time)

    def is_of_another_installation(self, created: float, installation: float) -> bool:
        """Return whether Redis follows another log than the one of these streams STATUS and CHECKPOINT.

        Both logs existed at the same time, and so did both streams CHECKPOINT. A log that was made again is younger
        than all that Redis knows; one that was restored has its old CHECKPOINT.
        """
        if not (self.created and self.installation and installation):
            return False  # noted by nobody yet, or not permitted to be read
        return self.created != created and self.installation != installation and created <= self.time


class LogMark:
    """Reads and writes the mark. Raises `StateUnavailable`, `StateDamaged`.

    Example::

        store.log_mark.owe(KnownLog(delivery.sequence, delivery.stored_at))
        await store.save(records)  # notes it first
        (await store.log_mark.read()).reached
    """

    def __init__(self, redis: Any, run: Callable[[Awaitable[Any]], Awaitable[Any]]) -> None:
        self._redis = redis
        self._run = run
        self._owed: KnownLog | None = None
        self.noted = KnownLog()
        """The newest message that was noted as `owe` says."""

    def owe(self, known: KnownLog) -> None:
        """Have a message noted before the next `StateStore.save` writes anything, in the same round trip."""
        self._owed = known

    def add_to(self, pipe: Any) -> KnownLog | None:
        """Add what is to be noted to a pipeline, whose commands are done in order; return it for `was_noted`."""
        if self._owed is not None:
            pipe.eval(_REACH, 1, keys.LOG, self._owed.reached, f"{self._owed.time:.6f}")
        return self._owed

    def was_noted(self, owed: KnownLog) -> None:
        """Remember that this is noted."""
        self.noted = self.noted.or_newer(owed)
        if self._owed is owed:
            self._owed = None

    async def settle(self) -> None:
        """Note what no write has noted yet."""
        if (owed := self._owed) is not None:
            await self.reach(owed.reached, owed.time)
            self.was_noted(owed)

    async def reach(self, sequence: int, stored_at: float) -> None:
        """Note that the log has a message, before it has any effect on Redis."""
        await self._run(self._redis.eval(_REACH, 1, keys.LOG, sequence, f"{stored_at:.6f}"))

    async def follow(self, created: float, installation: float) -> None:
        """Note which log this is."""
        identity = {"created": f"{created:.3f}", "installation": f"{installation:.3f}"}
        await self._run(self._redis.hset(keys.LOG, mapping=identity))

    async def claim(self, name: str) -> bool:
        """Claim the mending of the log for `CLAIM_SECONDS`, or renew the claim. False: somebody else has it."""
        return bool(await self._run(self._redis.eval(_CLAIM, 1, keys.LOG, name, int(CLAIM_SECONDS * 1000))))

    async def begin_mending(self, known: KnownLog) -> None:
        """Note that the log is being mended, and the newest message of what it was before."""
        await self.reach(known.reached, known.time)
        await self._run(self._redis.hset(keys.LOG, _MENDING, "1"))

    async def end_mending(self, gap: LogGap, sequence: int, stored_at: float) -> None:
        """Note that the log is mended, up to a message of it, and which gap remains."""
        await self.reach(sequence, stored_at)
        await self._run(self._redis.hset(keys.LOG, _GAP, gap.encode()))
        await self._run(self._redis.hdel(keys.LOG, _MENDING))

    async def gap(self) -> LogGap | None:
        """Return the gap that remained when the log was mended last."""
        stored = await self._run(self._redis.hget(keys.LOG, _GAP))
        return LogGap.decode(stored) if stored else None

    async def read(self) -> KnownLog:
        """Return what is known of the log."""
        known = await self._run(self._redis.hgetall(keys.LOG))
        return KnownLog(
            int(known.get("reached", "0")),
            float(known.get("time", "0")),
            float(known.get("created", "0")),
            float(known.get("installation", "0")),
            _MENDING in known,
        )
