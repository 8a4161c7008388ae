"""The scenarios of `examwire load`. Each causes losses and recoveries and adds its figures to the report."""

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
from cli.load.process_costs import cpu_times, microseconds_each, resident_bytes, settled_bytes, spent
from cli.load.report import Baseline, LoadReport

PAUSE_SECONDS = 0.02
"""Pause between rounds, so that work after a frame (acks, the examinee's own state) is not measured."""
POLLED_EVERY = 4
AWAY_SECONDS = 1.0
REDIS_SAMPLE = 50
"""Number of examinees for which Redis is polled: polling all would slow the measurement."""
BARE_ROUNDS = 3
BARE_SAMPLES = 500


@dataclass(frozen=True, slots=True)
class LoadRun:
    """The objects that a scenario uses. `processes` returns the current pids by role.

    Without `store` nobody looks into Redis: another system than ours is measured in the same way.
    """

    clients: LoadClients
    store: StateStore | None
    report: LoadReport
    processes: Callable[[], Mapping[str, Sequence[int]]]
    baseline: BaselinePath | None
    progress: Callable[[str], None]


async def one_by_one(run: LoadRun, repeat: int) -> None:
    """Cause one loss and recovery at a time, `repeat` times; after each, send one message of the baseline."""
    clients, report = run.clients, run.report
    await _fill(run)
    in_redis: list[float] = []
    baseline_seconds: list[float] = []
    run.progress(f"{repeat} losses and recoveries, one at a time")
    with _measured(run):
        for number in range(repeat):
            examinee = 1 + number % clients.count
            await _round(clients, examinee, RunPhase.MEASURED)
            if run.baseline is not None:
                await asyncio.sleep(PAUSE_SECONDS)
                baseline_seconds.append(await run.baseline.send_one())
            if run.store is not None and number % POLLED_EVERY == 0:
                polling = asyncio.create_task(clients.lost_in_redis(run.store, examinee))
                in_redis += await _found(polling, await _round(clients, examinee, RunPhase.POLLED))
    report.redis_latency = Percentiles.of(in_redis)
    report.notes.append(
        f"redisLatencyMs: rounds of their own (not in latencyMs), in which Redis is polled every "
        f"{REDIS_POLL_SECONDS * 1000:g} ms plus a round trip"
    )
    _figures(run)
    if baseline_seconds:
        report.notes.append("baseline: one message after each round, from before its publish to the receiver's frame")
        report.compare(Baseline(Percentiles.of(baseline_seconds)))


async def _round(clients: LoadClients, examinee: int, phase: RunPhase) -> float | None:
    clients.phase = phase
    await asyncio.sleep(PAUSE_SECONDS)
    lost_at = await clients.lose(examinee)
    await clients.connect([examinee])
    return lost_at


async def _found(polling: asyncio.Task[float], lost_at: float | None) -> list[float]:
    """Return the seconds from the loss to Redis as a list; empty if the loss was not reported or is not in Redis."""
    await asyncio.wait({polling}, timeout=REDIS_PATIENCE_SECONDS)
    if polling.done():
        return [await polling - lost_at] if lost_at is not None else []
    polling.cancel()
    return []  # the comparison at the end reports it


async def hall_outage(run: LoadRun) -> None:
    """Close all sockets at once, wait until all losses are reported and in Redis, then reconnect all."""
    clients, report = run.clients, run.report
    baseline = await _bare_burst(run)
    await _fill(run)
    run.progress("starting the processes for the reconnects")
    await clients.stand_by()
    numbers = clients.connected
    run.progress(f"closing {len(numbers)} sockets at once")
    clients.phase = RunPhase.MEASURED
    with _measured(run):
        vanished_at = clients.vanish()
        in_redis, sample_size, all_in_redis = await _until_all_are_lost(run, numbers)
        run.progress("reconnecting all")
        with _costs(run, "reconnect", len(numbers)):
            await clients.connect(numbers)
    report.redis_latency = Percentiles.of(at - vanished_at for at in in_redis)
    _figures(run)
    loss_times = clients.ledger.times(ConnectionChange.LOST)
    last_frame = max(loss_times, default=vanished_at)
    if loss_times:
        report.losses_per_second_overall = round(len(loss_times) / (last_frame - vanished_at), 1)
    report.notes += [
        "lossesPerSecond: count / (last frame - first frame) at the proctor; the last one came "
        f"{last_frame - vanished_at:.3f} s after the sockets vanished",
        f"redisLatencyMs: {sample_size} examinees by chance, polled every {REDIS_SAMPLE_POLL_SECONDS * 1000:g} ms",
        f"Redis was found to hold all losses {all_in_redis - vanished_at:.3f} s after the sockets vanished"
        if all_in_redis is not None
        else "Redis did not come to hold all losses",
        "connectsPerSecond: those who come back",
    ]
    report.connects_per_second = _connects(clients, RunPhase.MEASURED)
    if baseline is not None:
        report.compare(baseline)


async def _until_all_are_lost(run: LoadRun, numbers: Sequence[int]) -> tuple[list[float], int, float | None]:
    """Wait until all losses are reported and in Redis.

    Return when Redis had those of a sample, the size of the sample, and when Redis had all (`None`: not in time).
    """
    clients, store = run.clients, run.store
    in_redis: list[float] = []
    sample = random.Random(clients.count).sample(numbers, min(REDIS_SAMPLE, len(numbers)))
    reading = asyncio.create_task(clients.lost_in_redis_of(store, sample, in_redis)) if store is not None else None
    with _costs(run, "loss", len(numbers)):
        await clients.until(lambda: clients.ledger.outstanding <= 0)
    if reading is None or store is None:
        return [], 0, None
    await asyncio.wait({reading}, timeout=REDIS_PATIENCE_SECONDS)
    if reading.done():
        await reading  # raises the error of the polling, if any
    reading.cancel()
    return in_redis, len(sample), await clients.all_lost_in_redis(store, numbers)


async def steady(run: LoadRun, rate: float, duration: float) -> None:
    """Cause `rate` losses a second for `duration` seconds, spread over all examinees; each recovers a second later."""
    clients, report = run.clients, run.report
    baseline = await _bare_pace(run, rate, duration)
    await _fill(run)
    in_redis: list[float] = []
    run.progress(f"{rate:g} losses and recoveries a second for {duration:g} s")
    clients.phase = RunPhase.MEASURED
    with _measured(run):
        await _lose_and_recover(run, rate, lambda number: number < int(rate * duration), in_redis)
        await clients.until(lambda: clients.ledger.outstanding <= 0)
    report.redis_latency = Percentiles.of(in_redis)
    report.notes.append(
        f"redisLatencyMs: every fourth loss at most, polled every {REDIS_POLL_SECONDS * 1000:g} ms plus a round trip"
    )
    _figures(run)
    if baseline is not None:
        report.compare(baseline)


async def rolling_restart(run: LoadRun, fleet: Fleet, rate: float, over_seconds: float) -> None:
    """Drain and replace each socket server in turn, while losses and recoveries continue."""
    clients, store = run.clients, run.store
    assert store is not None
    await _fill(run)
    clients.phase = RunPhase.MEASURED
    finished = asyncio.Event()
    with _measured(run):
        losses = asyncio.create_task(_lose_and_recover(run, rate, lambda _: not finished.is_set(), None))
        try:
            for server, url in zip(fleet.servers, fleet.socket_urls, strict=True):
                run.progress(f"draining {server.name} over {over_seconds:g} s")
                await fleet.replace(server, over_seconds, store)
                if url in clients.watched:
                    await clients.watch(url)  # the proctor has moved; the next drain must not move both
        finally:
            finished.set()
            await losses
        await clients.until(lambda: clients.ledger.outstanding <= 0)
    _figures(run)


async def _lose_and_recover(
    run: LoadRun, rate: float, continues: Callable[[int], bool], in_redis: list[float] | None
) -> None:
    """Cause `rate` losses a second while `continues(number)` is true; each examinee recovers a second later.

    `in_redis`: gets the seconds until Redis had the loss, for at most every fourth loss.
    """
    clients = run.clients
    order = list(range(1, clients.count + 1))
    random.Random(clients.count).shuffle(order)
    polling = asyncio.Lock()
    away_examinees: set[int] = set()

    async def lose_and_recover(examinee: int, polled: bool) -> None:
        if run.store is not None and in_redis is not None and polled and not polling.locked():
            async with polling:
                watching = asyncio.create_task(clients.lost_in_redis(run.store, examinee))
                in_redis.extend(await _found(watching, await clients.lose(examinee)))
        else:
            await clients.lose(examinee)
        await asyncio.sleep(AWAY_SECONDS)
        await clients.connect([examinee], wait_for_proctors=False)
        away_examinees.discard(examinee)

    loop = asyncio.get_running_loop()
    async with asyncio.TaskGroup() as group:
        started = loop.time()
        for number in itertools.count():
            if not continues(number):
                break
            await asyncio.sleep(started + number / rate - loop.time())
            examinee = order[number % len(order)]
            if examinee in away_examinees:
                continue  # the rate is too high for the number of examinees
            away_examinees.add(examinee)
            group.create_task(lose_and_recover(examinee, number % POLLED_EVERY == 0))


async def _fill(run: LoadRun) -> None:
    """Connect all examinees, and measure the socket servers' memory for each connection."""
    clients, report = run.clients, run.report
    await clients.open()
    servers = run.processes().get("socket-server", [])
    before = resident_bytes(servers)
    run.progress(f"{clients.count} examinees connect")
    with _costs(run, "connect", clients.count):
        await clients.connect(range(1, clients.count + 1))
    report.connects_per_second = _connects(clients, RunPhase.SET_UP)
    if servers:
        connected = max(1, len(clients.connected))
        report.kib_per_connection = round((await settled_bytes(servers) - before) / connected / 1024, 2)
        report.notes.append("kibPerConnection: growth of the socket servers' RSS / connections, once it stands still")


@contextmanager
def _measured(run: LoadRun) -> Iterator[None]:
    """Measure time and CPU seconds of the block. Processes that end in it do not count."""
    report = run.report
    before, started = cpu_times(run.processes()), time.monotonic()
    yield
    report.measured_seconds, after = time.monotonic() - started, cpu_times(run.processes())
    report.cpu_seconds = spent(before, after)
    if "loss" not in report.cpu_each:  # losses and recoveries overlap
        rounds = [
            run.clients.ledger.times(ConnectionChange.LOST, phase) for phase in (RunPhase.MEASURED, RunPhase.POLLED)
        ]
        report.cpu_each["loss and recovery"] = microseconds_each(before, after, sum(map(len, rounds)))
        report.notes.append("CPU of a loss and recovery: what idle connections cost meanwhile is in it")


@contextmanager
def _costs(run: LoadRun, event: str, count: int) -> Iterator[None]:
    """Measure the CPU of each role in the block for each of `count` events."""
    before = cpu_times(run.processes())
    yield
    run.report.cpu_each[event] = microseconds_each(before, cpu_times(run.processes()), count)


def _figures(run: LoadRun) -> None:
    ledger, report = run.clients.ledger, run.report
    report.losses_per_second = per_second(ledger.times(ConnectionChange.LOST))
    report.recoveries_per_second = per_second(ledger.times(ConnectionChange.RECOVERED))
    report.latency = Percentiles.of(ledger.latencies(ConnectionChange.LOST))
    report.recovery_latency = Percentiles.of(ledger.latencies(ConnectionChange.RECOVERED))
    report.notes.append("latencyMs: the socket's end to the proctor's frame, percentiles by nearest rank")


def _connects(clients: LoadClients, phase: RunPhase) -> float | None:
    times = clients.welcomed[phase]
    if not times:
        return None
    span = max(welcomed for _, welcomed in times) - min(started for started, _ in times)
    return round(len(times) / span, 1) if span > 0 else None


async def _bare_burst(run: LoadRun) -> Baseline | None:
    """Send as many messages as there are examinees at once, in `BARE_ROUNDS` rounds; return the medians."""
    if run.baseline is None:
        return None
    run.progress(f"baseline: {BARE_ROUNDS} times {run.clients.count} messages")
    passages = [await run.baseline.send_many(run.clients.count) for _ in range(BARE_ROUNDS)]
    run.report.notes.append(
        f"baseline: {run.clients.count} messages in arrays of up to 256 before the hall fills, {BARE_ROUNDS} times; "
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
    """Send single messages at the rate of the losses and recoveries."""
    if run.baseline is None:
        return None
    count = max(1, min(BARE_SAMPLES, int(2 * rate * duration)))
    run.progress(f"baseline: {count} messages")
    run.report.notes.append(
        f"baseline: {count} messages, {2 * rate:g} a second at most, one at a time, before the hall fills"
    )
    latencies, loop = [], asyncio.get_running_loop()
    started = loop.time()
    arrivals = []
    for number in range(count):
        await asyncio.sleep(started + number / (2 * rate) - loop.time())
        latencies.append(await run.baseline.send_one())
        arrivals.append(time.time())
    return Baseline(Percentiles.of(latencies), per_second(arrivals))
