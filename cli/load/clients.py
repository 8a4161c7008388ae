"""The hall under load: the processes with the examinees' sockets, the proctors, and what Redis says."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from actors.runtime.store.state_store import StateStore
from cli.load.ledger import ConnectionChange, Ledger, ObservedEvent, RunPhase
from cli.load.process import LoadProcess
from cli.load.workers import examinee_id
from protocol.errors import RoleFailed, StateLost
from protocol.messages.facts import ConnectionStatusCode
from protocol.records import keys

PATIENCE_SECONDS = 20.0
"""Nothing has happened for so long: what is outstanding will not come."""
REDIS_PATIENCE_SECONDS = 2.0
"""Redis is written before anybody is told, so after the frames it needs no more than a moment."""
REDIS_POLL_SECONDS = 0.001
REDIS_CHUNK = 256
REDIS_SAMPLE_POLL_SECONDS = 0.02
_AWAY = (ConnectionStatusCode.DISCONNECTED, ConnectionStatusCode.MIGRATING)
CONNECTIONS_A_GENERATION = 1_000_000
"""A process that takes over counts its connections on from here, so that they are newer than all before."""


class LoadClients:
    """Examinees 1..`count` on the servers at `urls`, seats in `workers` processes, a proctor on each of the first two.

    What one proctor misses while it moves away from a server that is drained, the other one sees.
    """

    def __init__(
        self, plan_id: str, count: int, urls: Sequence[str], workers: int, environment: Mapping[str, str]
    ) -> None:
        self.plan_id = plan_id
        self.count = count
        self.ledger = Ledger()
        self.phase = RunPhase.SET_UP
        self.welcomed: dict[RunPhase, list[tuple[float, float]]] = {phase: [] for phase in RunPhase}
        self.refusals = 0
        self.resyncs = 0
        self.not_admitted: set[int] = set()
        self._urls = list(urls)
        self._environment = dict(environment)
        self._share = -(-count // workers)
        self._generation = 0
        self._seats: list[LoadProcess] = []
        self._standby: list[LoadProcess] = []
        self._proctors: dict[str, LoadProcess] = {}
        self._proctor_no = 0
        self._views: dict[str, dict[str, str | None]] = {}
        self.migrations: list[float] = []
        self._connection_no: dict[int, int] = {}
        self._socket_ids: dict[int, str] = {}
        self._dropped_at: dict[int, float] = {}
        self._gone: list[LoadProcess] = []
        self._starting: set[LoadProcess] = set()
        self._changed = asyncio.Event()
        self._broken: str | None = None
        self._checked: dict[int, list[int]] = {}

    # -- processes -----------------------------------------------------------------------------------

    async def open(self) -> None:
        """The proctors watch and the processes have their tokens. Raises `RoleFailed`."""
        await asyncio.gather(*(self.watch(url) for url in self._urls[:2]))
        await self.stand_by()
        self._seats, self._standby = self._standby, []

    async def watch(self, url: str) -> None:
        """Have a proctor on the server at `url`, a new one if there was one who may have moved."""
        self._proctor_no += 1
        name = f"load-proctor-{self._proctor_no}"
        process = self._process(name, "proctor", {"plan_id": self.plan_id, "url": url, "name": name})
        self._starting.add(process)
        await process.start()
        self._starting.discard(process)
        former, self._proctors[url] = self._proctors.get(url), process
        if former is not None:
            await former.stop()

    @property
    def watched(self) -> list[str]:
        """The servers that proctors began on."""
        return list(self._proctors)

    async def stand_by(self) -> None:
        """Start the processes that take over the seats after `vanish`, so that their start costs no time then."""
        for number, first in enumerate(range(1, self.count + 1, self._share), 1):
            count = min(self._share, self.count + 1 - first)
            if first + count > self.count:
                count += 1  # and the one that marks the end
            config = {"plan_id": self.plan_id, "urls": self._urls, "first": first, "count": count}
            self._standby.append(self._process(f"seats {number}", "seats", config))
        await asyncio.gather(*(process.start() for process in self._standby))

    def _process(self, name: str, kind: str, config: Mapping[str, Any]) -> LoadProcess:
        return LoadProcess(name, "cli.load.workers", [kind, json.dumps(config)], self._environment, self._told)

    def processes(self) -> dict[str, list[int]]:
        """The pids of the load's own processes."""
        proctors = [process.pid for process in self._proctors.values()]
        return {"load: proctors": proctors, "load: seats": [process.pid for process in (*self._seats, *self._standby)]}

    async def close(self) -> None:
        """End all processes. Harmless when repeated."""
        for process in (*self._seats, *self._gone, *self._standby, *self._proctors.values(), *self._starting):
            await process.stop()

    def _seat_of(self, number: int) -> LoadProcess:
        return self._seats[min((number - 1) // self._share, len(self._seats) - 1)]

    def _told(self, process: LoadProcess, event: dict[str, Any]) -> None:
        match event["event"]:
            case "seen":
                for row in event["rows"]:
                    self.ledger.see(ObservedEvent(*row), process.name)
            case "snapshot":
                for row in event["rows"]:
                    self.ledger.cover(ObservedEvent(*row), process.name)
                self.resyncs += event["last"]
            case "connected":
                phase = RunPhase(event["phase"])
                self.refusals += event["refusals"]
                self.not_admitted.update(event["failed"])
                for number, started, welcomed, socket_id in event["rows"]:
                    self.ledger.cause(examinee_id(number), ConnectionChange.BACK, started, phase)
                    self.welcomed[phase].append((started, welcomed))
                    self._socket_ids[number] = socket_id
            case "dropped":
                del self._socket_ids[event["number"]]
                self.ledger.cause(
                    examinee_id(event["number"]), ConnectionChange.LOST, event["at"], RunPhase(event["phase"])
                )
                self._dropped_at[event["number"]] = event["at"]
            case "moved":
                number, name = event["number"], examinee_id(event["number"])
                self.ledger.cause(name, ConnectionChange.LOST, event["left"], self.phase, migrated=True)
                self.ledger.cause(name, ConnectionChange.BACK, event["left"], self.phase, migrated=True)
                self.migrations.append(event["welcomed"] - event["left"])
                self._socket_ids[number] = event["socketId"]
            case "view":
                self._views[process.name] = dict(event["rows"])
            case "checked":
                self._checked[process.pid] = event["gone"]
            case _:
                self._broken = f"{process.name} ended with {event.get('code')}; its log is on stderr"
        self._changed.set()

    async def until(self, done: Callable[[], bool]) -> bool:
        """Wait for `done`; False when nothing at all has happened for a while. Raises `RoleFailed`."""
        while not done():
            if self._broken:
                raise RoleFailed(self._broken)
            self._changed.clear()
            try:
                async with asyncio.timeout(PATIENCE_SECONDS):
                    await self._changed.wait()
            except TimeoutError:
                return False
        return True

    # -- what examinees do ---------------------------------------------------------------------------

    async def connect(self, numbers: Sequence[int], *, all_told: bool = True) -> None:
        """Connect examinees, and wait until the proctor was told of all that was caused so far."""
        by_process: dict[LoadProcess, list[int]] = {}
        for number in numbers:
            by_process.setdefault(self._seat_of(number), []).append(number)
        for process, some in by_process.items():
            start = self._generation * CONNECTIONS_A_GENERATION
            process.tell(do="connect", numbers=some, connectionNo=self._next_no(some, start), phase=self.phase)
        await self.until(lambda: all(one in self._socket_ids or one in self.not_admitted for one in numbers))
        if all_told:
            await self.until(lambda: self.ledger.outstanding <= 0)

    def _next_no(self, numbers: Sequence[int], start: int) -> int:
        number = max([start, *(self._connection_no.get(one, 0) for one in numbers)]) + 1
        # Tries that were refused count as well, so leave room for them.
        self._connection_no.update(dict.fromkeys(numbers, number + 1000))
        return number

    async def lose(self, number: int) -> float | None:
        """Break one examinee's connection and wait for the proctor's frame. When it was, or `None`: not told."""
        name = examinee_id(number)
        told = self.ledger.told(name, ConnectionChange.LOST)
        self._dropped_at.pop(number, None)
        self._seat_of(number).tell(do="drop", number=number, phase=self.phase)
        seen = await self.until(
            lambda: number in self._dropped_at and self.ledger.told(name, ConnectionChange.LOST) > told
        )
        return self._dropped_at[number] if seen else None

    def vanish(self) -> float:
        """Kill every process with seats: the kernel closes all sockets at once. When it was."""
        at = time.time()
        for process in self._seats:
            process.kill()
        for number in self._socket_ids:
            self.ledger.cause(examinee_id(number), ConnectionChange.LOST, at, self.phase)
        self._socket_ids.clear()
        self._gone += self._seats
        self._seats, self._standby = self._standby, []
        self._generation += 1
        return at

    async def mark_end(self) -> None:
        """One more examinee connects: what was published before has reached the proctor before."""
        self.phase = RunPhase.END
        await self.connect([self.count + 1])

    async def unexpectedly_lost(self) -> int:
        """How many sockets are closed that nobody of ours closed."""
        self._checked.clear()
        for process in self._seats:
            process.tell(do="check")
        await self.until(lambda: len(self._checked) == len(self._seats))
        return sum(len(gone) for gone in self._checked.values())

    async def wrongly_seen(self) -> int:
        """How many examinees a proctor sees otherwise than they are, all proctors together."""
        self._views.clear()
        for process in self._proctors.values():
            process.tell(do="view")
        await self.until(lambda: len(self._views) == len(self._proctors))
        numbers = [one for one in range(1, self.count + 2) if one not in self.not_admitted]
        truth = {examinee_id(one): self._socket_ids.get(one) for one in numbers}
        return sum(view.get(name) != socket_id for view in self._views.values() for name, socket_id in truth.items())

    # -- what Redis says -----------------------------------------------------------------------------

    async def disagreements(self, store: StateStore) -> int:
        """How many examinees Redis has otherwise than they are (status, and the socket of those connected)."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + REDIS_PATIENCE_SECONDS
        numbers = [one for one in range(1, self.count + 2) if one not in self.not_admitted]
        while True:
            wrong = 0
            for start in range(0, len(numbers), REDIS_CHUNK):
                some = numbers[start : start + REDIS_CHUNK]
                found = await self._in_redis(store, some, ["connStatusCode", "socketId"])
                for number, (status, socket_id) in zip(some, found, strict=True):
                    true_id = self._socket_ids.get(number)
                    if true_id is None:
                        wrong += status not in (None, "", *_AWAY)
                    else:
                        wrong += (status, socket_id) != (ConnectionStatusCode.CONNECTED, true_id)
            if not wrong or loop.time() > deadline:
                return wrong
            await asyncio.sleep(REDIS_SAMPLE_POLL_SECONDS)

    async def lost_in_redis(self, store: StateStore, number: int) -> float:
        """When Redis was first found to have one examinee's loss, asked every ms or so."""
        while await self._not_lost(store, [number]):  # noqa: ASYNC110 - Redis is what is polled
            await asyncio.sleep(REDIS_POLL_SECONDS)
        return time.time()

    async def lost_in_redis_of(self, store: StateStore, numbers: Sequence[int], found_at: list[float]) -> None:
        """Note when each loss of some was first found in Redis, until all are."""
        waiting = list(numbers)
        while waiting:
            still = await self._not_lost(store, waiting)
            found_at += [time.time()] * (len(waiting) - len(still))
            waiting = still
            await asyncio.sleep(REDIS_SAMPLE_POLL_SECONDS)

    async def all_lost_in_redis(self, store: StateStore, numbers: Sequence[int]) -> float | None:
        """When all losses were found in Redis: read in turn, again from one that is not there; `None`: never."""
        deadline = time.time() + REDIS_PATIENCE_SECONDS
        for start in range(0, len(numbers), REDIS_CHUNK):
            waiting: Sequence[int] = numbers[start : start + REDIS_CHUNK]
            while waiting := await self._not_lost(store, waiting):
                if time.time() > deadline:
                    return None
                await asyncio.sleep(REDIS_SAMPLE_POLL_SECONDS)
        return time.time()

    async def _not_lost(self, store: StateStore, numbers: Sequence[int]) -> list[int]:
        found = await self._in_redis(store, numbers, ["connStatusCode"])
        return [number for number, (status,) in zip(numbers, found, strict=True) if status not in _AWAY]

    async def _in_redis(
        self, store: StateStore, numbers: Sequence[int], names: Sequence[str]
    ) -> Sequence[Sequence[str | None]]:
        try:
            return await store.fields([keys.progress(self.plan_id, examinee_id(one)) for one in numbers], names)
        except StateLost:  # emptied, or another one: until it is brought up to the log, it knows of nobody
            return [[None] * len(names) for _ in numbers]

    @property
    def connected(self) -> list[int]:
        """The numbers of the examinees that are connected."""
        return sorted(self._socket_ids)
