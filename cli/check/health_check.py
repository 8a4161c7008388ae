"""The checks of `examwire doctor`: engines, streams, clocks, roles, lag and secrets of a running system."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import urlopen

import psutil

from actors.queue_server.topology import topology_streams
from actors.runtime import VERSION
from actors.runtime.actor.process_facts import process_facts
from actors.runtime.broker.connection import Bus, Outgoing, ServiceEntry
from actors.runtime.broker.stream_state import ConsumerState
from actors.runtime.config.local_addresses import in_url
from actors.runtime.config.nats_login import login
from actors.runtime.config.settings import Settings
from actors.runtime.config.tokens import check_token_keys
from actors.runtime.store.state_store import StateStore
from actors.status_log.record_checkpoints import RecordCheckpoints
from actors.status_log.status_log import StatusLog
from cli.check.config_check import find_contradictions
from cli.check.doctor_checks import (
    judge_account,
    judge_actor,
    judge_backlog,
    judge_bound,
    judge_checkpoints,
    judge_clock,
    judge_dead_letters,
    judge_disk,
    judge_log,
    judge_memory,
    judge_nats,
    judge_newer,
    judge_process,
    judge_redis,
    judge_roles,
    judge_storage,
    judge_streams,
    judge_sync,
    judge_versions,
    merge_ok,
)
from cli.check.doctor_pages import check_page_origins
from cli.check.state_check import check_state
from cli.local.engines import NatsServer
from cli.operate.streams import compare_topology
from cli.shared.findings import Finding, State, failed, ok, unknown, warning
from cli.shared.live_actors import inspection_of
from protocol.broker import subjects
from protocol.broker.streams import CHECKPOINT, DEADLETTER, RESTORING, SOCKET, STATUS
from protocol.errors import (
    BrokerUnavailable,
    ConfigurationError,
    NoResponders,
    NotPermitted,
    StateDamaged,
    StateLost,
    StateUnavailable,
    StreamFull,
)
from protocol.log.partitions import PARTS
from protocol.messages.inspection import ProcessFacts
from protocol.times import format_time, parse_time

CONNECT_SECONDS = 2.0
MONITORING_SECONDS = 1.0
STUCK_SECONDS = 1.0


class HealthCheck:
    """Runs all checks once. `clock`: seconds since the epoch on this machine.

    Example::

        findings = await HealthCheck(settings).run()
    """

    def __init__(
        self, settings: Settings, *, monitoring: str | None = None, clock: Callable[[], float] = time.time
    ) -> None:
        self._settings = settings
        self._monitoring = monitoring
        self._clock = clock
        self._refused: list[str] = []
        self._bus: Bus | None = None
        self._broker: tuple[float, float] | None = None  # offset of the broker's clock from ours, and its uncertainty
        self._store: StateStore | None = None
        self._entries: list[ServiceEntry] = []
        self._actors: list[dict[str, Any]] = []

    @property
    def nothing_reached(self) -> bool:
        return self._bus is None and self._store is None

    async def run(self) -> list[Finding]:
        """Run every check. A check that cannot run yields a finding, and the others continue."""
        findings = [*self._settings_and_machine()]
        try:
            findings += await self._reach()
            for check in self._checks():
                findings += [finding async for finding in self._examined(check)]
        finally:
            if self._bus is not None:
                await self._bus.close()
            if self._store is not None:
                await self._store.close()
        if self._bus is not None:
            findings += self._permissions()
        findings = merge_ok(findings, "clocks", "maximum offset from this machine's clock:")
        return merge_ok(findings, "fds", "in use:")

    def _checks(self) -> Iterator[Callable[[], AsyncIterator[Finding]]]:
        """Yield the checks whose engine is reachable."""
        jetstream = self._bus is not None and bool(self._bus.server_info.get("jetstream"))
        if self._bus is not None:
            yield self._nats
        if jetstream:
            yield self._writes
            yield self._streams
            yield self._checkpoints
            yield self._letters
        if self._store is not None:
            yield self._redis
        if jetstream and self._store is not None:
            yield self._log
        if self._bus is not None:
            if jetstream:
                yield self._nats_clock
            yield self._actors_here
            yield self._roles
        if self._store is not None:
            yield self._state
        if jetstream:
            yield self._lag
        if self._store is not None:
            yield self._redis_clock

    async def _examined(self, check: Callable[[], AsyncIterator[Finding]]) -> AsyncIterator[Finding]:
        name = check.__name__.strip("_").replace("_", " ")
        try:
            async for finding in check():
                yield finding
        except NotPermitted as error:
            self._refused.append(str(error))
            yield unknown(name, "the NATS user has no permission for this check")
        except (BrokerUnavailable, NoResponders) as error:
            yield failed(name, str(error), "check NATS and JetStream")
        except (StateUnavailable, StateDamaged) as error:
            yield failed(name, str(error), "check Redis, then run `examwire state verify`")

    # -- settings and this machine -------------------------------------------------------------------

    def _settings_and_machine(self) -> Iterator[Finding]:
        wrong = [finding for finding in find_contradictions(self._settings) if finding.state is not State.OK]
        for finding in wrong:
            yield Finding("settings", finding.state, f"{finding.check}: {finding.found}", finding.advice)
        if not wrong:
            yield ok("settings", "the settings are consistent")
        yield self._secret()
        directory = self._settings.data_dir.absolute()
        while not directory.exists():
            directory = directory.parent
        disk, memory = psutil.disk_usage(str(directory)), psutil.virtual_memory()
        yield judge_disk(str(directory), disk.free, disk.total)
        yield judge_memory(memory.available, memory.total)
        yield from judge_process("this command", process_facts(), None)

    def _secret(self) -> Finding:
        settings = self._settings
        path: Path | None = settings.token.jwks_file or settings.token.public_key_file
        try:
            check_token_keys(settings, needed=(settings.data_dir / "secret").is_file())
        except ConfigurationError as error:
            return failed("secrets", str(error), "run `examwire config check`: no role starts with this")
        if path is not None:
            return ok("secrets", f"tokens are checked with the issuer's key in {path}")
        if settings.secret is not None:
            return ok("secrets", "the token secret is configured")
        path = settings.data_dir / "secret"
        if not path.is_file():
            return unknown("secrets", f"no secret is configured, and {path} does not exist yet")
        return ok("secrets", f"the token secret is in {path}; other machines need the same one")

    # -- engines -------------------------------------------------------------------------------------

    async def _reach(self) -> list[Finding]:
        findings = []
        try:
            self._bus = await Bus.connect(self._settings, "examwire doctor", wait=CONNECT_SECONDS)
            findings.append(ok("nats", f"{self._settings.nats_url.rpartition('@')[2]} answers"))
        except (BrokerUnavailable, ConfigurationError) as error:
            advice = "start it, or set nats_url; a server with a long log answers only when it has read it"
            findings.append(failed("nats", str(error), advice))
        store = StateStore(self._settings.redis_url, self._settings.redis)
        try:
            await store.ping()
            self._store = store
            findings.append(ok("redis", f"{self._settings.redis_url.rpartition('@')[2]} answers"))
        except (StateUnavailable, StateDamaged) as error:
            await store.close()
            advice = "start it, or set redis_url; while it is loading its data, wait"
            findings.append(failed("redis", str(error), advice))
        return findings

    async def _nats(self) -> AsyncIterator[Finding]:
        bus = self._bus
        assert bus is not None
        for finding in judge_nats(bus.server_info, login(self._settings.nats_url, self._settings.nats).urls):
            yield finding
        if not bus.server_info.get("jetstream"):
            return
        varz = await asyncio.to_thread(self._varz)
        yield judge_sync(varz, self._embedded_sync())
        if (storage := judge_storage(varz)) is not None:
            yield storage
        for finding in judge_account(json.loads(await bus.request("$JS.API.INFO"))):
            yield finding

    async def _writes(self) -> AsyncIterator[Finding]:
        """Write a probe: a storage limit of the whole server is only visible in a failing write."""
        assert self._bus is not None
        if await self._bus.stream_config(CHECKPOINT.name) is None:
            return  # the check of the streams reports it
        try:
            await self._bus.publish(Outgoing(subjects.PROBE, b""), CONNECT_SECONDS)
        except StreamFull as error:
            advice = "raise max_file_store of nats-server or the account's limit, or free disk space"
            yield failed("nats.writes", f"a probe was refused: {error}", advice)
        except BrokerUnavailable as error:
            yield failed("nats.writes", f"a probe was not stored: {error}", "see nats-server's log and check its disk")
        else:
            yield ok("nats.writes", "a probe was stored")

    def _embedded_sync(self) -> str | None:
        """Return the `sync_interval` of the broker if `examwire up` started it on this data directory."""
        (url, *others) = login(self._settings.nats_url, self._settings.nats).urls
        return NatsServer.synchronises(self._settings.data_dir / "nats", url) if not others else None

    def _varz(self) -> dict[str, Any] | None:
        """Return `/varz` of nats-server's monitoring; `None` when it cannot be reached."""
        url = self._monitoring
        if url is None:
            host = urlsplit(login(self._settings.nats_url, self._settings.nats).urls[0]).hostname or "127.0.0.1"
            url = f"http://{in_url(host)}:8222"
        try:
            with urlopen(f"{url.rstrip('/')}/varz", timeout=MONITORING_SECONDS) as answer:
                varz = json.load(answer)
        except (OSError, ValueError):
            return None
        return varz if isinstance(varz, dict) and "jetstream" in varz else None

    async def _redis(self) -> AsyncIterator[Finding]:
        assert self._store is not None
        info, saves = await self._store.server_info()
        for finding in judge_redis(self._settings.redis_url.rpartition("@")[2], info, saves):
            yield finding

    async def _streams(self) -> AsyncIterator[Finding]:
        assert self._bus is not None
        if await self._bus.stream_config(RESTORING.name) is not None:
            problem = "a restore has begun and has not come to its end: streams may be incomplete"
            yield failed("streams", problem, "repeat `examwire restore`; docs/backup.md")
        for finding in judge_streams(await compare_topology(self._bus, self._settings)):
            yield finding
        for spec in topology_streams(self._settings):
            state = await self._bus.stream_state(spec.name)
            for finding in judge_bound(spec, state):
                yield finding
            if state.current < state.replicas:
                problem = f"stream {spec.name}: {state.current} of {state.replicas} copies are up to date"
                yield warning("streams", problem, "check that all NATS servers run; a returning server catches up")

    async def _checkpoints(self) -> AsyncIterator[Finding]:
        assert self._bus is not None
        newest: dict[str, float | None] = {}
        for part in PARTS:
            manifest = await RecordCheckpoints(self._bus).manifest(part)
            newest[part] = parse_time(manifest.time) if manifest is not None else None
        first = await self._bus.next_message(STATUS.name, "status.>", 1)
        yield judge_checkpoints(newest, first.time if first is not None else None, self._bus.clock.now())

    async def _log(self) -> AsyncIterator[Finding]:
        assert self._bus is not None
        assert self._store is not None
        known = await self._store.log_mark.read()  # first: the log is never shorter than what was known before
        state = await self._bus.stream_state(STATUS.name)
        installation = await self._bus.stream_state(CHECKPOINT.name)
        gaps = await StatusLog(self._bus).gaps()
        yield judge_log(known, state.last, gaps, self._bus.clock.now(), state.created, installation.created)

    # -- roles ---------------------------------------------------------------------------------------

    async def _actors_here(self) -> AsyncIterator[Finding]:
        bus = self._bus
        assert bus is not None
        self._entries = await bus.services()
        self._actors = list(await asyncio.gather(*(inspection_of(bus, entry) for entry in self._entries)))
        versions: dict[str, set[str]] = {}
        for entry, actor in zip(self._entries, self._actors, strict=True):
            versions.setdefault(entry.version, set()).add(str(actor["address"]))
            for finding in judge_actor(actor):
                yield finding
        yield judge_versions(versions, VERSION)
        yield judge_newer(self._actors)
        async for finding in self._processes(bus):
            yield finding

    async def _processes(self, bus: Bus) -> AsyncIterator[Finding]:
        asked: set[tuple[str, int]] = set()
        for entry in self._entries:
            if (subject := entry.metadata.get("inspect")) is None:
                continue
            before = self._clock()
            try:
                answer = await bus.request(f"{subject}.process", timeout=CONNECT_SECONDS)
            except (NoResponders, BrokerUnavailable):
                continue  # an older version, or a silent actor, which is reported already
            after = self._clock()
            facts = ProcessFacts.model_validate_json(answer)
            if (facts.host, facts.pid) in asked:
                continue
            asked.add((facts.host, facts.pid))
            address = entry.metadata.get("address", entry.name)
            holds = self._settings.socket.max_connections if entry.metadata.get("kind") == "socket-server" else None
            for finding in judge_process(address, facts, holds):
                yield finding
            offset, uncertain = parse_time(facts.time) - (before + after) / 2, (after - before) / 2
            yield judge_clock(address, offset, uncertain, self._off_broker(offset, uncertain))

    async def _roles(self) -> AsyncIterator[Finding]:
        if self._store is None:
            yield unknown("roles", "which servers are READY is stored in Redis, which cannot be reached")
            return
        try:
            servers = await self._store.servers()
        except StateLost:
            yield unknown("roles", "which servers are READY is not known until Redis is repaired")
            return
        for finding in judge_roles(self._actors, servers):
            yield finding
        async for finding in check_page_origins(self._actors, servers, self._settings):
            yield finding

    async def _state(self) -> AsyncIterator[Finding]:
        assert self._store is not None
        async for finding in check_state(self._store, self._actors):
            yield finding

    async def _lag(self) -> AsyncIterator[Finding]:
        first = {(consumer.stream, consumer.name): consumer for consumer in await self._consumers()}
        idle = {key for key, consumer in first.items() if _unread(consumer)}
        if idle:  # a busy reader has a short gap between two pulls, so look again
            await asyncio.sleep(STUCK_SECONDS)
        second = {(consumer.stream, consumer.name): consumer for consumer in await self._consumers()} if idle else first
        reported = False
        for key, consumer in second.items():
            still = key in idle and _unread(consumer) and consumer.delivered == first[key].delivered
            if (finding := judge_backlog(consumer, still)) is not None:
                reported = True
                yield finding
        if not reported:
            waiting = sum(consumer.pending + consumer.unacknowledged for consumer in second.values())
            yield ok("lag", f"{waiting} messages wait in {len(second)} consumers")

    async def _consumers(self) -> list[ConsumerState]:
        assert self._bus is not None
        return [consumer for stream in (STATUS, SOCKET) for consumer in await self._bus.consumer_states(stream.name)]

    async def _letters(self) -> AsyncIterator[Finding]:
        assert self._bus is not None
        state = await self._bus.stream_state(DEADLETTER.name)
        newest = await self._bus.message_at(DEADLETTER.name, state.last) if state.messages else None
        yield judge_dead_letters(state.messages, format_time(newest.time) if newest is not None else None)

    # -- clocks and permissions ----------------------------------------------------------------------

    async def _nats_clock(self) -> AsyncIterator[Finding]:
        assert self._bus is not None
        before = self._clock()
        answer = json.loads(await self._bus.request(f"$JS.API.STREAM.INFO.{STATUS.name}"))
        after = self._clock()
        if "ts" in answer:
            # RFC 3339 with nanoseconds: more digits than Python parses.
            broker_time = parse_time(answer["ts"][:26].rstrip("Z") + "Z")
            self._broker = broker_time - (before + after) / 2, (after - before) / 2
            yield judge_clock("NATS", *self._broker)

    def _off_broker(self, offset: float, uncertain: float) -> float:
        """Return the minimum offset from the broker's clock of a clock that is `offset` ahead of ours; 0 if none."""
        if self._broker is None:
            return 0.0
        apart, unsure = offset - self._broker[0], uncertain + self._broker[1]
        return 0.0 if abs(apart) <= unsure else apart - unsure if apart > 0 else apart + unsure

    async def _redis_clock(self) -> AsyncIterator[Finding]:
        assert self._store is not None
        before = self._clock()
        redis_time = await self._store.time()
        after = self._clock()
        yield judge_clock("Redis", redis_time - (before + after) / 2, (after - before) / 2)

    def _permissions(self) -> list[Finding]:
        advice = "log in as the operator: EXAMWIRE_NATS__USER=operator and its password"
        refused = [warning("permissions", message, advice) for message in dict.fromkeys(self._refused)]
        return refused or [ok("permissions", "the NATS user has all permissions for these checks")]


def _unread(consumer: ConsumerState) -> bool:
    return consumer.pending > 0 and consumer.pulls_waiting == 0
