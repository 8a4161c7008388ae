"""The courses of a load run. Each causes losses and recoveries, and leaves its figures in the report."""

from __future__ import annotations

import asyncio
import itertools
import random
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from actors.runtime.store.state_store import StateStore
from cli.load.baseline import BaselinePath
from cli.load.clients import REDIS_PATIENCE_SECONDS, REDIS_POLL_SECONDS, REDIS_SAMPLE_POLL_SECONDS, LoadClients
from cli.load.fleet import Fleet
from cli.load.ledger import ConnectionChange, RunPhase
from cli.load.percentiles import Percentiles, per_second
from cli.load.process_costs import cpu_times, resident_bytes, settled_bytes, spent
from cli.load.report import Baseline, LoadReport

PAUSE_SECONDS = 0.02
"""Between rounds, so that what follows a frame (acks, the examinee's own state) is done with."""
POLLED_EVERY = 4
AWAY_SECONDS = 1.0
REDIS_SAMPLE = 50
"""Polling all of a hall would take the time of those who are measured."""
BARE_ROUNDS = 3
BARE_SAMPLES = 500


@dataclass(frozen=True, slots=True)
class LoadRun:
    """What a scenario works with. `processes`: pids by role, the fleet's and the load's own, as they are now."""

    hall: LoadClients
    store: StateStore
    report: LoadReport
    processes: Callable[[], Mapping[str, Sequence[int]]]
    bare: BaselinePath | None
    progress: Callable[[str], None]


async def one_by_one(run: LoadRun, repeat: int) -> None:
    """One loss and recovery at a time, `repeat` times; a message of the bare path after each."""
    hall, report = run.hall, run.report
    await _fill(run)
    in_redis: list[float] = []
    bare: list[float] = []
    run.progress(f"{repeat} losses and recoveries, one at a time")
    with _measured(run):
        for number in range(repeat):
            examinee = 1 + number % hall.count
            await _round(hall, examinee, RunPhase.MEASURED)
            if run.bare is not None:
                await asyncio.sleep(PAUSE_SECONDS)
                bare.append(await run.bare.one())
            if number % POLLED_EVERY == 0:
                polling = asyncio.create_task(hall.lost_in_redis(run.store, examinee))
                in_redis += await _found(polling, await _round(hall, examinee, RunPhase.POLLED))
    report.redis_latency = Percentiles.of(in_redis)
    report.notes.append(
        f"redisLatencyMs: rounds of their own (not in latencyMs), in which Redis is polled every "
        f"{REDIS_POLL_SECONDS * 1000:g} ms plus a round trip"
    )
    _figures(run)
    if bare:
        report.notes.append("baseline: one message after each round, from before its publish to the receiver's frame")
        report.compare(Baseline(Percentiles.of(bare)))


async def _round(hall: LoadClients, examinee: int, phase: RunPhase) -> float | None:
    hall.phase = phase
    await asyncio.sleep(PAUSE_SECONDS)
    lost_at = await hall.lose(examinee)
    await hall.connect([examinee])
    return lost_at


async def _found(polling: asyncio.Task[float], lost_at: float | None) -> list[float]:
    """The seconds from the loss to Redis; none when it was not told, or when Redis does not have it."""
    await asyncio.wait({polling}, timeout=REDIS_PATIENCE_SECONDS)
    if polling.done():
        return [await polling - lost_at] if lost_at is not None else []
    polling.cancel()
    return []  # the comparison at the end says so


async def hall_outage(run: LoadRun) -> None:
    """All sockets end at once; when all of that is told and in Redis, all come back."""
    hall, report = run.hall, run.report
    bare = await _bare_burst(run)
    await _fill(run)
    run.progress("processes to come back with are started")
    await hall.stand_by()
    numbers = hall.connected
    run.progress(f"{len(numbers)} sockets vanish")
    hall.phase = RunPhase.MEASURED
    with _measured(run):
        vanished_at = hall.vanish()
        sample = random.Random(hall.count).sample(numbers, min(REDIS_SAMPLE, len(numbers)))
        in_redis: list[float] = []
        reading = asyncio.create_task(hall.lost_in_redis_of(run.store, sample, in_redis))
        before = cpu_times(run.processes())
        await hall.until(lambda: hall.ledger.outstanding <= 0)
        until_told = spent(before, cpu_times(run.processes()))
        await asyncio.wait({reading}, timeout=REDIS_PATIENCE_SECONDS)
        if reading.done():
            await reading  # raises what Redis had against it
        reading.cancel()
        all_in_redis = await hall.all_lost_in_redis(run.store, numbers)
        run.progress("all come back")
        await hall.connect(numbers)
    report.redis_latency = Percentiles.of(at - vanished_at for at in in_redis)
    _figures(run)
    told = hall.ledger.times(ConnectionChange.LOST)
    last_frame = max(told, default=vanished_at)
    if told:
        report.losses_per_second_overall = round(len(told) / (last_frame - vanished_at), 1)
    report.notes += [
        "lossesPerSecond: count / (last frame - first frame) at the proctor; the last one came "
        f"{last_frame - vanished_at:.3f} s after the sockets vanished",
        "CPU seconds until the last loss was told: "
        + ", ".join(f"{role} {seconds:.2f}" for role, seconds in until_told.items()),
        f"redisLatencyMs: {len(sample)} examinees by chance, polled every {REDIS_SAMPLE_POLL_SECONDS * 1000:g} ms",
        f"Redis was found to hold all losses {all_in_redis - vanished_at:.3f} s after the sockets vanished"
        if all_in_redis is not None
        else "Redis did not come to hold all losses",
        "connectsPerSecond: those who come back",
    ]
    report.connects_per_second = _connects(hall, RunPhase.MEASURED)
    if bare is not None:
        report.compare(bare)


async def steady(run: LoadRun, rate: float, duration: float) -> None:
    """`rate` losses a second for `duration` seconds, spread over all; each comes back a second later."""
    hall, report = run.hall, run.report
    bare = await _bare_pace(run, rate, duration)
    await _fill(run)
    in_redis: list[float] = []
    run.progress(f"{rate:g} losses and recoveries a second for {duration:g} s")
    hall.phase = RunPhase.MEASURED
    with _measured(run):
        await _lose_and_recover(run, rate, lambda number: number < int(rate * duration), in_redis)
        await hall.until(lambda: hall.ledger.outstanding <= 0)
    report.redis_latency = Percentiles.of(in_redis)
    report.notes.append(
        f"redisLatencyMs: every fourth loss at most, polled every {REDIS_POLL_SECONDS * 1000:g} ms plus a round trip"
    )
    _figures(run)
    if bare is not None:
        report.compare(bare)


async def rolling_restart(run: LoadRun, fleet: Fleet, rate: float, over_seconds: float) -> None:
    """Every socket server in turn is drained and replaced by its successor, while losses and recoveries go on."""
    hall = run.hall
    await _fill(run)
    hall.phase = RunPhase.MEASURED
    over = asyncio.Event()
    with _measured(run):
        losing = asyncio.create_task(_lose_and_recover(run, rate, lambda _: not over.is_set(), None))
        try:
            for server, url in zip(fleet.servers, fleet.socket_urls, strict=True):
                run.progress(f"{server.name} is drained over {over_seconds:g} s")
                await fleet.renew(server, over_seconds, run.store)
                if url in hall.watched:
                    await hall.watch(url)  # the proctor has moved; the next drain must not move both at once
        finally:
            over.set()
            await losing
        await hall.until(lambda: hall.ledger.outstanding <= 0)
    _figures(run)


async def _lose_and_recover(
    run: LoadRun, rate: float, go_on: Callable[[int], bool], in_redis: list[float] | None
) -> None:
    """`rate` losses a second as long as `go_on`, asked with the number of the next one; each comes back a second later.

    With `in_redis`, the seconds until Redis had a loss are noted there, of every fourth one at most.
    """
    hall = run.hall
    order = list(range(1, hall.count + 1))
    random.Random(hall.count).shuffle(order)
    polling = asyncio.Lock()
    away: set[int] = set()

    async def lose_and_recover(examinee: int, polled: bool) -> None:
        if in_redis is not None and polled and not polling.locked():
            async with polling:
                watching = asyncio.create_task(hall.lost_in_redis(run.store, examinee))
                in_redis.extend(await _found(watching, await hall.lose(examinee)))
        else:
            await hall.lose(examinee)
        await asyncio.sleep(AWAY_SECONDS)
        await hall.connect([examinee], all_told=False)
        away.discard(examinee)

    loop = asyncio.get_running_loop()
    async with asyncio.TaskGroup() as group:
        started = loop.time()
        for number in itertools.count():
            if not go_on(number):
                break
            await asyncio.sleep(started + number / rate - loop.time())
            examinee = order[number % len(order)]
            if examinee in away:
                continue  # fewer examinees than the rate takes
            away.add(examinee)
            group.create_task(lose_and_recover(examinee, number % POLLED_EVERY == 0))


async def _fill(run: LoadRun) -> None:
    """Everybody connects; what a connection costs the socket servers in memory is measured by the way."""
    hall, report = run.hall, run.report
    await hall.open()
    servers = run.processes().get("socket-server", [])
    before = resident_bytes(servers)
    run.progress(f"{hall.count} examinees connect")
    await hall.connect(range(1, hall.count + 1))
    report.connects_per_second = _connects(hall, RunPhase.SET_UP)
    if servers:
        connected = max(1, len(hall.connected))
        report.kib_per_connection = round((await settled_bytes(servers) - before) / connected / 1024, 2)
        report.notes.append("kibPerConnection: growth of the socket servers' RSS / connections, once it stands still")


@contextmanager
def _measured(run: LoadRun) -> Iterator[None]:
    """Time and CPU seconds of what is inside. Processes that end inside do not count."""
    before, started = cpu_times(run.processes()), time.monotonic()
    yield
    run.report.measured_seconds = time.monotonic() - started
    run.report.cpu_seconds = spent(before, cpu_times(run.processes()))


def _figures(run: LoadRun) -> None:
    ledger, report = run.hall.ledger, run.report
    report.losses_per_second = per_second(ledger.times(ConnectionChange.LOST))
    report.recoveries_per_second = per_second(ledger.times(ConnectionChange.BACK))
    report.latency = Percentiles.of(ledger.latencies(ConnectionChange.LOST))
    report.recovery_latency = Percentiles.of(ledger.latencies(ConnectionChange.BACK))
    report.notes.append("latencyMs: the socket's end to the proctor's frame, percentiles by nearest rank")


def _connects(hall: LoadClients, phase: RunPhase) -> float | None:
    times = hall.welcomed[phase]
    if not times:
        return None
    span = max(welcomed for _, welcomed in times) - min(started for started, _ in times)
    return round(len(times) / span, 1) if span > 0 else None


async def _bare_burst(run: LoadRun) -> Baseline | None:
    """As many messages as the outage has, at once; the median of some rounds."""
    if run.bare is None:
        return None
    run.progress(f"the bare path: {BARE_ROUNDS} times {run.hall.count} messages")
    passages = [await run.bare.many(run.hall.count) for _ in range(BARE_ROUNDS)]
    run.report.notes.append(
        f"baseline: {run.hall.count} messages in arrays of up to 256 before the hall fills, {BARE_ROUNDS} times; "
        "lossesPerSecond is the median, latencyMs holds all"
    )
    rates = [rate for passage in passages if (rate := per_second(passage.arrivals)) is not None]
    latency = Percentiles.of(seconds for passage in passages for seconds in passage.latencies)
    overall = [len(passage.latencies) / max(passage.latencies) for passage in passages]
    return Baseline(
        latency,
        round(statistics.median(rates), 1) if rates else None,
        round(statistics.median(overall), 1),
    )


async def _bare_pace(run: LoadRun, rate: float, duration: float) -> Baseline | None:
    """Messages at the pace of the losses and recoveries, one after the other."""
    if run.bare is None:
        return None
    count = max(1, min(BARE_SAMPLES, int(2 * rate * duration)))
    run.progress(f"the bare path: {count} messages")
    run.report.notes.append(
        f"baseline: {count} messages, {2 * rate:g} a second at most, one at a time, before the hall fills"
    )
    latencies, loop = [], asyncio.get_running_loop()
    started = loop.time()
    arrivals = []
    for number in range(count):
        await asyncio.sleep(started + number / (2 * rate) - loop.time())
        latencies.append(await run.bare.one())
        arrivals.append(time.time())
    return Baseline(Percentiles.of(latencies), per_second(arrivals))
