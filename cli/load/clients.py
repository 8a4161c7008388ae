"""The clients of a load run: worker processes with examinees' sockets, proctors, and comparisons with Redis."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from actors.runtime.store.state_store import StateStore
from cli.load.ledger import ConnectionChange, Ledger, ObservedEvent, RunPhase
from cli.load.process import LoadProcess
from cli.load.workers import examinee_id, plan_of
from protocol.errors import RoleFailed, StateLost
from protocol.messages.facts import ConnectionStatusCode
from protocol.records import keys

PATIENCE_SECONDS = 20.0
"""Without any event for this long, outstanding events count as missing."""
REDIS_PATIENCE_SECONDS = 2.0
"""Redis is written before proctors are notified, so it is up to date shortly after their frames."""
REDIS_POLL_SECONDS = 0.001
REDIS_CHUNK = 256
REDIS_SAMPLE_POLL_SECONDS = 0.02
_AWAY = (ConnectionStatusCode.DISCONNECTED, ConnectionStatusCode.MIGRATING)
CONNECTIONS_A_GENERATION = 1_000_000
"""Added to `connectionNo` for each generation of worker processes, so that new connections are newer."""


class LoadClients:
    """Examinees 1 to `count` in `workers` processes, connected to the servers at `urls`, and proctors of their plans.

    The examinees are in the `plan_ids` in turn. Each plan has `proctors` of them, by default one on each of
    `proctor_urls`, which are the first two servers by default. While one proctor moves away from a drained server, the
    other one still sees all events. `module`: what the worker processes run.

    Example::

        clients = LoadClients(["P001"], 100, urls, workers=2, environment=environment)
        await clients.open()
        await clients.connect(range(1, 101))
        await clients.close()
    """

    def __init__(
        self,
        plan_ids: Sequence[str],
        count: int,
        urls: Sequence[str],
        workers: int,
        environment: Mapping[str, str],
        *,
        proctors: int | None = None,
        proctor_urls: Sequence[str] | None = None,
        module: str = "cli.load.workers",
    ) -> None:
        self.plan_ids = list(plan_ids)
        self.count = count
        self.ledger = Ledger()
        self.phase = RunPhase.SET_UP
        self.welcomed: dict[RunPhase, list[tuple[float, float]]] = {phase: [] for phase in RunPhase}
        self.refusals = 0
        self.resyncs = 0
        self.not_admitted: set[int] = set()
        self._urls = list(urls)
        self._proctor_urls = list(proctor_urls or urls[:2])
        self.proctors_a_plan = proctors or len(self._proctor_urls)
        self._module = module
        self._environment = dict(environment)
        self._share = -(-count // workers)
        self._generation = 0
        self._workers: list[LoadProcess] = []
        self._standby: list[LoadProcess] = []
        self._proctors: dict[str, LoadProcess] = {}
        self._proctor_no = 0
        self._views: dict[LoadProcess, dict[str, dict[str, str | None]]] = {}
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
        """Start the proctors and the worker processes. Raises `RoleFailed`."""
        await asyncio.gather(*(self.watch(url) for url in self._proctor_urls[: self.proctors_a_plan]))
        await self.stand_by()
        self._workers, self._standby = self._standby, []

    async def watch(self, url: str) -> None:
        """Start the proctors on the server at `url`; they replace earlier ones, which may have moved."""
        self._proctor_no += 1
        name = f"load-proctor-{self._proctor_no}"
        place, places = self._proctor_urls.index(url), len(self._proctor_urls)
        # The first proctor of a plan on each server reports; what the others have seen is compared at the end.
        seats = [
            (plan_id, f"{name}-{plan}-{number}", number == place)
            for plan, plan_id in enumerate(self.plan_ids)
            for number in range(place, self.proctors_a_plan, places)
        ]
        process = self._process(name, "proctors", {"url": url, "seats": seats})
        self._starting.add(process)
        await process.start()
        self._starting.discard(process)
        former, self._proctors[url] = self._proctors.get(url), process
        if former is not None:
            await former.stop()

    @property
    def watched(self) -> list[str]:
        """The servers on which proctors were started."""
        return list(self._proctors)

    async def stand_by(self) -> None:
        """Start the worker processes that take over after `vanish`, so that their start is not measured."""
        for number, first in enumerate(range(1, self.count + 1, self._share), 1):
            count = min(self._share, self.count + 1 - first)
            if first + count > self.count:
                count += len(self.plan_ids)  # the examinees that mark the end
            config = {"plan_ids": self.plan_ids, "urls": self._urls, "first": first, "count": count}
            self._standby.append(self._process(f"examinees {number}", "examinees", config))
        await asyncio.gather(*(process.start() for process in self._standby))

    def _process(self, name: str, kind: str, config: Mapping[str, Any]) -> LoadProcess:
        return LoadProcess(name, self._module, [kind, json.dumps(config)], self._environment, self._on_event)

    def processes(self) -> dict[str, list[int]]:
        """Return the pids of the worker processes by kind."""
        proctors = [process.pid for process in self._proctors.values()]
        return {
            "load: proctors": proctors,
            "load: seats": [process.pid for process in (*self._workers, *self._standby)],
        }

    async def close(self) -> None:
        """End all processes. Can be repeated."""
        for process in (*self._workers, *self._gone, *self._standby, *self._proctors.values(), *self._starting):
            await process.stop()

    def _worker_of(self, number: int) -> LoadProcess:
        return self._workers[min((number - 1) // self._share, len(self._workers) - 1)]

    def _on_event(self, process: LoadProcess, event: dict[str, Any]) -> None:
        match event["event"]:
            case "seen":
                for row in event["rows"]:
                    self.ledger.observe(ObservedEvent(*row), event["by"])
            case "snapshot":
                for row in event["rows"]:
                    self.ledger.observe_snapshot(ObservedEvent(*row), event["by"])
                self.resyncs += event["last"]
            case "connected":
                phase = RunPhase(event["phase"])
                self.refusals += event["refusals"]
                self.not_admitted.update(event["failed"])
                for number, started, welcomed, socket_id in event["rows"]:
                    self.ledger.cause(examinee_id(number), ConnectionChange.RECOVERED, started, phase)
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
                self.ledger.cause(name, ConnectionChange.RECOVERED, event["left"], self.phase, migrated=True)
                self.migrations.append(event["welcomed"] - event["left"])
                self._socket_ids[number] = event["socketId"]
            case "view":
                self._views[process] = {name: dict(rows) for name, rows in event["views"].items()}
            case "checked":
                self._checked[process.pid] = event["gone"]
            case _:
                self._broken = f"{process.name} ended with {event.get('code')}; its log is on stderr"
        self._changed.set()

    async def until(self, done: Callable[[], bool]) -> bool:
        """Wait until `done` is true; return False after `PATIENCE_SECONDS` without any event. Raises `RoleFailed`."""
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

    # -- examinees -----------------------------------------------------------------------------------

    async def connect(self, numbers: Sequence[int], *, wait_for_proctors: bool = True) -> None:
        """Connect examinees. `wait_for_proctors`: wait until a proctor has received every event caused so far."""
        by_process: dict[LoadProcess, list[int]] = {}
        for number in numbers:
            by_process.setdefault(self._worker_of(number), []).append(number)
        for process, batch in by_process.items():
            start = self._generation * CONNECTIONS_A_GENERATION
            process.tell(do="connect", numbers=batch, connectionNo=self._next_no(batch, start), phase=self.phase)
        await self.until(lambda: all(number in self._socket_ids or number in self.not_admitted for number in numbers))
        if wait_for_proctors:
            await self.until(lambda: self.ledger.outstanding <= 0)

    def _next_no(self, numbers: Sequence[int], start: int) -> int:
        number = max([start, *(self._connection_no.get(number, 0) for number in numbers)]) + 1
        # Refused connections count, too, so leave room for them.
        self._connection_no.update(dict.fromkeys(numbers, number + 1000))
        return number

    async def lose(self, number: int) -> float | None:
        """Break an examinee's connection and wait for a proctor's frame; return the time of the break, or `None`."""
        name = examinee_id(number)
        known_losses = self.ledger.reported(name, ConnectionChange.LOST)
        self._dropped_at.pop(number, None)
        self._worker_of(number).tell(do="drop", number=number, phase=self.phase)
        reported = await self.until(
            lambda: number in self._dropped_at and self.ledger.reported(name, ConnectionChange.LOST) > known_losses
        )
        return self._dropped_at[number] if reported else None

    def vanish(self) -> float:
        """Kill all worker processes, so that the kernel closes all sockets at once; return the time."""
        at = time.time()
        for process in self._workers:
            process.kill()
        for number in self._socket_ids:
            self.ledger.cause(examinee_id(number), ConnectionChange.LOST, at, self.phase)
        self._socket_ids.clear()
        self._gone += self._workers
        self._workers, self._standby = self._standby, []
        self._generation += 1
        return at

    async def mark_end(self) -> None:
        """Connect one more examinee of each plan: when its event arrives, all earlier events have arrived."""
        self.phase = RunPhase.END
        await self.connect(range(self.count + 1, self.count + 1 + len(self.plan_ids)))

    async def unexpectedly_lost(self) -> int:
        """Return the number of sockets that were closed without our doing."""
        self._checked.clear()
        for process in self._workers:
            process.tell(do="check")
        await self.until(lambda: len(self._checked) == len(self._workers))
        return sum(len(examinees) for examinees in self._checked.values())

    async def wrongly_seen(self) -> int:
        """Return the number of examinees that a proctor sees wrongly, summed over all proctors."""
        self._views.clear()
        for process in self._proctors.values():
            process.tell(do="view")
        await self.until(lambda: len(self._views) == len(self._proctors))
        numbers = [
            number for number in range(1, self.count + 1 + len(self.plan_ids)) if number not in self.not_admitted
        ]
        expected: dict[str, dict[str, str | None]] = {plan_id: {} for plan_id in self.plan_ids}
        for number in numbers:
            expected[plan_of(self.plan_ids, number)][examinee_id(number)] = self._socket_ids.get(number)
        return sum(
            view.get(examinee) != socket_id
            for views in self._views.values()
            for name, view in views.items()
            for examinee, socket_id in expected[self._plan_of_proctor(name)].items()
        )

    def _plan_of_proctor(self, name: str) -> str:
        return self.plan_ids[int(name.split("-")[-2])]

    # -- Redis ---------------------------------------------------------------------------------------

    async def disagreements(self, store: StateStore) -> int:
        """Return the number of examinees with a wrong status, or a wrong socket if connected, in Redis."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + REDIS_PATIENCE_SECONDS
        numbers = [
            number for number in range(1, self.count + 1 + len(self.plan_ids)) if number not in self.not_admitted
        ]
        while True:
            wrong = 0
            for start in range(0, len(numbers), REDIS_CHUNK):
                batch = numbers[start : start + REDIS_CHUNK]
                records = await self._in_redis(store, batch, ["connStatusCode", "socketId"])
                for number, (status, socket_id) in zip(batch, records, strict=True):
                    true_id = self._socket_ids.get(number)
                    if true_id is None:
                        wrong += status not in (None, "", *_AWAY)
                    else:
                        wrong += (status, socket_id) != (ConnectionStatusCode.CONNECTED, true_id)
            if not wrong or loop.time() > deadline:
                return wrong
            await asyncio.sleep(REDIS_SAMPLE_POLL_SECONDS)

    async def lost_in_redis(self, store: StateStore, number: int) -> float:
        """Poll Redis about every millisecond; return the time at which it has an examinee's loss."""
        while await self._not_lost(store, [number]):  # noqa: ASYNC110 - Redis is what is polled
            await asyncio.sleep(REDIS_POLL_SECONDS)
        return time.time()

    async def lost_in_redis_of(self, store: StateStore, numbers: Sequence[int], found_at: list[float]) -> None:
        """Poll Redis until it has all losses of `numbers`; append the time of each to `found_at`."""
        remaining = list(numbers)
        while remaining:
            still_missing = await self._not_lost(store, remaining)
            found_at += [time.time()] * (len(remaining) - len(still_missing))
            remaining = still_missing
            await asyncio.sleep(REDIS_SAMPLE_POLL_SECONDS)

    async def all_lost_in_redis(self, store: StateStore, numbers: Sequence[int]) -> float | None:
        """Return the time at which Redis has all losses; `None` when that takes too long."""
        deadline = time.time() + REDIS_PATIENCE_SECONDS
        for start in range(0, len(numbers), REDIS_CHUNK):
            remaining: Sequence[int] = numbers[start : start + REDIS_CHUNK]
            while remaining := await self._not_lost(store, remaining):
                if time.time() > deadline:
                    return None
                await asyncio.sleep(REDIS_SAMPLE_POLL_SECONDS)
        return time.time()

    async def _not_lost(self, store: StateStore, numbers: Sequence[int]) -> list[int]:
        records = await self._in_redis(store, numbers, ["connStatusCode"])
        return [number for number, (status,) in zip(numbers, records, strict=True) if status not in _AWAY]

    async def _in_redis(
        self, store: StateStore, numbers: Sequence[int], names: Sequence[str]
    ) -> Sequence[Sequence[str | None]]:
        try:
            return await store.fields(
                [keys.progress(plan_of(self.plan_ids, number), examinee_id(number)) for number in numbers], names
            )
        except StateLost:  # Redis was emptied or replaced, and is not rebuilt from the log yet
            return [[None] * len(names) for _ in numbers]

    @property
    def connected(self) -> list[int]:
        """The numbers of the connected examinees, in order."""
        return sorted(self._socket_ids)
