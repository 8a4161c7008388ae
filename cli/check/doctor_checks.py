"""The rules of `examwire doctor`: pure functions that turn collected data into findings with advice."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from actors.runtime.broker.clock import TOLERATED_SECONDS
from actors.runtime.broker.stream_state import ConsumerState, StreamState
from actors.runtime.config.settings import is_loopback
from actors.runtime.store.log_mark import KnownLog
from cli.operate.streams import TopologyComparison
from cli.shared.findings import Finding, State, failed, ok, unknown, warning
from protocol.broker.streams import DAY, NATS_VERSION, StreamSpec
from protocol.log.gap import LogGap
from protocol.messages.codec import MAX_BATCH_BYTES
from protocol.messages.inspection import ProcessFacts
from protocol.times import format_time, parse_time

REDIS_VERSION = (7, 0)
MAX_PAYLOAD = 1024 * 1024
CLOCK_SECONDS = 0.5
FULL, NEARLY_FULL = 0.95, 0.8
FD_RESERVE = 256
BACKLOG = 5000
GAP_SECONDS = 24 * 3600.0
"""So long a gap of the log is a finding."""
GIB = 1024**3
ROLES = {
    "queue-server": "no queues are created, so no socket server can start",
    "state-manager": "no change reaches Redis or the proctors",
    "reconnect-watch": "reconnect attempts are not counted",
    "lease-watch": "the loss of a server is not detected",
    "web-server": "no pages are served and no pictures received",
}


# -- engines --------------------------------------------------------------------------------------------


def judge_nats(info: Mapping[str, Any], servers: Sequence[str]) -> Iterator[Finding]:
    """Check version and configuration. `info`: the INFO of the server when a client connects."""
    version = str(info.get("version", ""))
    if _version(version) < NATS_VERSION:
        needed = ".".join(map(str, NATS_VERSION))
        yield failed("nats.version", f"nats-server {version}", f"install {needed} or newer")
    else:
        yield ok("nats.version", f"nats-server {version}")
    if not info.get("jetstream"):
        yield failed("nats.jetstream", "JetStream is not enabled", "add a jetstream block (nats/single.conf)")
    payload = int(info.get("max_payload", 0))
    if payload < 2 * MAX_BATCH_BYTES:
        problem = f"{payload} bytes; a batch needs up to {MAX_BATCH_BYTES}, a dead letter more"
        yield failed("nats.max_payload", problem, "set max_payload: 1MB in nats-server's configuration")
    elif payload < MAX_PAYLOAD:
        yield warning("nats.max_payload", f"{payload} bytes: large dead letters will not fit", "set max_payload: 1MB")
    else:
        yield ok("nats.max_payload", f"{payload} bytes")
    remote = [url for url in servers if not is_loopback(_host(url))]
    if remote and not info.get("auth_required"):
        problem = f"{', '.join(remote)} requires no password"
        yield warning("nats.users", problem, "give each role its user (nats/permissions.conf)")


def judge_account(account: Mapping[str, Any]) -> Iterator[Finding]:
    """Check the account's JetStream limits. `account`: the answer of `$JS.API.INFO`."""
    if error := account.get("error"):
        yield failed("nats.jetstream", str(error.get("description", error)), "enable JetStream for this account")
        return
    # An account may have one limit for all streams, or one for each number of copies (`R1`, `R3`).
    for tier, usage in {"": account, **(account.get("tiers") or {})}.items():
        limits = usage.get("limits", {})
        for used, limit, what in (
            ("storage", "max_storage", "bytes of storage"),
            ("streams", "max_streams", "streams"),
            ("consumers", "max_consumers", "consumers"),
        ):
            maximum, used_amount = int(limits.get(limit, -1)), int(usage.get(used, 0))
            if maximum > 0 and used_amount >= NEARLY_FULL * maximum:
                judge = failed if used_amount >= FULL * maximum else warning
                problem = f"{used_amount} of {maximum} {what} in use{tier and f' by streams of {tier}'}"
                yield judge("nats.account", problem, f"raise {limit} of the account")
    yield ok("nats.account", f"{account.get('streams', 0)} streams, {account.get('storage', 0)} bytes stored")


def judge_sync(varz: Mapping[str, Any] | None, configured: str | None = None) -> Finding:
    """Check when messages are written to disk: by `/varz`, or by the `sync_interval` of an embedded server."""
    advice = "set `sync_interval: always` in the jetstream block, so that an ack means on disk"
    if varz is None and configured is None:
        return unknown(
            "nats.sync", "unknown: the monitoring cannot be reached (--nats-monitoring URL)", f"check: {advice}"
        )
    config = ((varz or {}).get("jetstream") or {}).get("config") or {}
    if config.get("sync_always") or (varz is None and configured == "always"):
        return ok("nats.sync", "an acknowledged message is on disk (sync_interval: always)")
    interval = configured if varz is None else f"{int(config.get('sync_interval', 0)) / 1e9:g} s"
    return warning("nats.sync", f"the disk is synchronised every {interval}: acknowledged messages may be lost", advice)


def judge_storage(varz: Mapping[str, Any] | None) -> Finding | None:
    """Check the storage limit of the whole server, from `/varz`."""
    jetstream = (varz or {}).get("jetstream") or {}
    maximum = int((jetstream.get("config") or {}).get("max_storage", 0))
    used = int((jetstream.get("stats") or {}).get("storage", 0))
    if maximum <= 0 or used < NEARLY_FULL * maximum:
        return None
    judge = failed if used >= FULL * maximum else warning
    advice = "raise max_file_store of nats-server, or free space: a full server refuses every write"
    return judge("nats.storage", f"{used} of {maximum} bytes of the server's storage are in use", advice)


def judge_log(
    known: KnownLog, last: int, gaps: Sequence[LogGap], now: float, created: float = 0.0, installation: float = 0.0
) -> Finding:
    """Check that the log holds what Redis knows of it.

    `last`: its last sequence; `now`: the time of its broker; `created`, `installation`: when STATUS and CHECKPOINT were
    created.
    """
    if known.is_of_another_installation(created, installation):
        problem = f"Redis holds the records of another installation, whose log was created {format_time(known.created)}"
        advice = "correct redis_url, or empty this Redis; docs/runbook.md#redisofanotherinstallation"
        return failed("log", problem, advice)
    advice = "docs/runbook.md#logbehindredis"
    if known.mending or known.reached > last:
        missing = max(0, known.reached - last)
        problem = f"the log ends at {last}, and Redis knows message {known.reached}: {missing} messages are missing"
        return failed("log", problem, f"keep a state manager running, which mends it; {advice}")
    recent = [gap for gap in gaps if now - parse_time(gap.timestamp) < GAP_SECONDS]
    if recent:
        return warning("log", "; ".join(map(str, recent)), f"say so to whoever reads reports of that day; {advice}")
    return ok("log", f"it holds all that Redis knows, up to message {last}")


def judge_redis(name: str, info: Mapping[str, Any], saves: str | None) -> Iterator[Finding]:
    """Check version, persistence, eviction and limits. `info`: INFO; `saves`: the `save` setting if readable."""
    valkey = info.get("valkey_version")
    version = str(valkey or info.get("redis_version", ""))
    product = "Valkey" if valkey else "Redis"
    if not valkey and _version(version) < REDIS_VERSION:
        yield failed("redis.version", f"{name}: {product} {version}", "install Redis 7 or newer, or Valkey")
    else:
        yield ok("redis.version", f"{name}: {product} {version}")
    if info.get("role", "master") != "master":
        yield failed("redis.role", f"{name} is a replica and refuses writes", "set redis_url to the master")
    if info.get("aof_enabled"):
        if info.get("aof_last_write_status", "ok") != "ok":
            yield failed("redis.persistence", f"{name}: the last write to disk failed", "check its disk and log")
        else:
            yield ok("redis.persistence", f"{name}: append-only file")
    elif saves:
        problem = f"{name}: snapshots only ({saves}): a restart loses minutes, which are rebuilt from the log"
        yield warning("redis.persistence", problem, "set appendonly yes")
    else:
        problem = f"{name}: no persistence: after a restart the state is rebuilt from the log"
        yield warning("redis.persistence", problem, "set appendonly yes")
    policy, maximum = str(info.get("maxmemory_policy", "noeviction")), int(info.get("maxmemory", 0))
    if policy != "noeviction":
        problem = f"{name}: {policy} deletes records when memory is short"
        judge = failed if maximum else warning
        yield judge("redis.eviction", problem, "set maxmemory-policy noeviction")
    else:
        yield ok("redis.eviction", f"{name}: noeviction")
    used = int(info.get("used_memory", 0))
    if maximum and used >= NEARLY_FULL * maximum:
        judge = failed if used >= FULL * maximum else warning
        yield judge("redis.memory", f"{name}: {used} of {maximum} bytes in use", "raise maxmemory")
    clients, max_clients = int(info.get("connected_clients", 0)), int(info.get("maxclients", 0))
    if max_clients and clients >= NEARLY_FULL * max_clients:
        judge = failed if clients >= FULL * max_clients else warning
        yield judge("redis.clients", f"{name}: {clients} of {max_clients} connections in use", "raise maxclients")


# -- clocks ---------------------------------------------------------------------------------------------


def judge_clock(whose: str, offset: float, uncertain: float, off_broker: float = 0.0) -> Finding:
    """Check a clock. `offset`: seconds ahead of ours, plus or minus `uncertain` (half the round trip).

    `off_broker`: the minimum offset from the broker's clock.
    """
    if abs(off_broker) > TOLERATED_SECONDS:
        side = "ahead of" if off_broker > 0 else "behind"
        problem = f"the clock of {whose} is {_seconds(off_broker)} {side} the broker's, which the exam uses"
        return warning("clocks", problem, "synchronise the clocks (NTP): its log lines and certificates use its own")
    far = abs(offset) - uncertain
    side = "ahead of" if offset > 0 else "behind"
    if far > CLOCK_SECONDS:
        problem = f"the clock of {whose} is {_seconds(offset)} {side} this machine's"
        return warning("clocks", problem, "synchronise the clocks (NTP), so that log lines can be compared")
    return ok("clocks", f"{whose} {abs(offset) + uncertain:.3f} s")


# -- streams and consumers ------------------------------------------------------------------------------


FILLED = 0.7
CHECKPOINT_SECONDS = 600.0
"""A checkpoint of the records that is older is reported, as by the alert CheckpointsOld."""


def judge_streams(differences: Sequence[TopologyComparison]) -> Iterator[Finding]:
    """Check streams and consumers against the declared ones. `differences`: the result of `streams diff`."""
    differences_found = [comparison for comparison in differences if comparison.state != "same"]
    for comparison in differences_found:
        judge = failed if comparison.state == "missing" else warning
        fields = ", ".join(f"{name} is {actual}, not {wanted}" for name, (actual, wanted) in comparison.fields.items())
        problem = (
            f"{comparison.kind} {comparison.name} is missing"
            if comparison.state == "missing"
            else f"{comparison.kind} {comparison.name}: {fields}"
        )
        yield judge("streams", problem, "start a queue server, or `examwire streams apply`")
    if not differences_found:
        yield ok("streams", f"{len(differences)} streams and consumers are as declared")


def judge_bound(spec: StreamSpec, state: StreamState) -> Iterator[Finding]:
    """Check how much of its bound a stream uses, and whether STATUS is kept for less time than declared."""
    name, size = spec.name, f"{state.size / 2**20:,.0f} MiB"
    if state.limit is None:
        yield failed("streams", f"stream {name}: {size} are used, without a bound", "start a queue server")
    elif state.size > FILLED * state.limit:
        problem = f"stream {name}: {size} of {state.limit / 2**20:,.0f} MiB are used; when it is full, {spec.at_bound}"
        judge = failed if (spec.refuse_when_full or spec.guarded) and state.size > FULL * state.limit else warning
        yield judge("streams", problem, "see StreamNearItsBound in the runbook")
    if spec.guarded and 0 < state.max_age < spec.max_age:
        problem = f"stream {name}: kept for {state.max_age / DAY:.1f} days, not {spec.max_age / DAY:.0f}"
        yield warning("streams", problem, "see LogKeptShorter in the runbook")


def judge_checkpoints(newest: Mapping[str, float | None], log_began: float | None, now: float) -> Finding:
    """Check the checkpoints of the records. `newest`: of each part when the newest was written; `None`: there is none.

    `log_began`: the time of the first message in the log, if there is one. Times in seconds since the epoch.
    """
    advice = "see the state manager's log; docs/runbook.md#checkpointsold"
    missing = [part for part, written in newest.items() if written is None]
    if missing and log_began is not None and now - log_began > CHECKPOINT_SECONDS:
        return warning("checkpoints", f"none of part {', '.join(missing)}: a lost Redis comes back slowly", advice)
    if missing:
        return ok("checkpoints", "none yet: the system is new")
    ages = {part: now - written for part, written in newest.items() if written is not None}
    oldest = max(ages, key=lambda part: ages[part])
    if ages[oldest] > CHECKPOINT_SECONDS:
        return warning("checkpoints", f"the newest of part {oldest} is {ages[oldest]:,.0f} s old", advice)
    return ok("checkpoints", f"the newest of each part is at most {max(0.0, ages[oldest]):.0f} s old")


def judge_backlog(consumer: ConsumerState, stuck: bool) -> Finding | None:
    """Check a durable consumer. `stuck`: messages are pending, and nobody pulls."""
    name = f"{consumer.stream}/{consumer.name}"
    waiting = consumer.pending + consumer.unacknowledged
    if stuck:
        problem = f"{name}: {consumer.pending} messages wait, and nobody reads"
        return failed("lag", problem, f"start its reader ({consumer.description or 'see `examwire queues ls`'})")
    if waiting > BACKLOG:
        return warning("lag", f"{name}: {waiting} messages wait", "find the slow actor with `examwire actors top`")
    return None


# -- actors ---------------------------------------------------------------------------------------------


def judge_roles(actors: Sequence[Mapping[str, Any]], servers: Sequence[Mapping[str, str]]) -> Iterator[Finding]:
    """Check that every role runs. `actors`: inspections; `servers`: the socket servers' records in Redis."""
    kinds = {str(actor["kind"]) for actor in actors if actor.get("state") == "running"}
    for kind, what in ROLES.items():
        if kind not in kinds:
            judge = warning if kind == "web-server" else failed
            role = kind if kind in ("queue-server", "web-server") else "state-manager"
            yield judge("roles", f"no {kind} runs: {what}", f"start one: `examwire run {role}`")
    alive = {
        str(actor.get("details", {}).get("serverId"))
        for actor in actors
        if actor["kind"] == "socket-server" and actor.get("state") == "running"
    }
    ready = {server["serverId"] for server in servers if server.get("statusCode") == "READY"}
    for server_id in sorted(ready - alive):
        problem = f"{server_id} is READY in Redis, but no process answers"
        yield failed("roles", problem, "see the server's log; a running state manager sets it to LOST within seconds")
    for server in servers:
        if server.get("statusCode") in ("LOST", "FAILED"):
            problem = f"{server['serverId']} is {server['statusCode']} {server.get('reason', '')}".rstrip()
            yield warning("roles", problem, f"start it: `examwire run socket-server --server-id {server['serverId']}`")
    serving = sorted(ready & alive)
    if not serving:
        yield failed(
            "roles", "no socket server is READY: nobody can connect", "start one: `examwire run socket-server`"
        )
    elif len(serving) == 1:
        yield warning("roles", f"only {serving[0]} is READY: its clients have no other server", "start a second one")
    else:
        yield ok("roles", f"READY: {', '.join(serving)}; " + ", ".join(kind for kind in ROLES if kind in kinds))


def judge_actor(actor: Mapping[str, Any]) -> Iterator[Finding]:
    """Check the inspection of one actor."""
    address = str(actor["address"])
    if actor.get("state") == "silent":
        yield failed("actors", f"{address} is listed, but does not answer", "see its log; restart it if it hangs")
        return
    if waiting := actor.get("details", {}).get("waitingFor"):
        yield failed("actors", f"{address} waits for {waiting}", f"check {waiting}")
    if actor.get("restarts"):
        problem = f"{address} was restarted {actor['restarts']} times; last error: {actor.get('lastError')}"
        yield warning("actors", problem, "see its log")


def judge_newer(actors: Iterable[Mapping[str, Any]]) -> Finding:
    """Check how many messages the state managers leave to a newer release."""
    managers = [actor for actor in actors if actor.get("kind") == "state-manager"]
    count = sum(int(manager.get("details", {}).get("newer") or 0) for manager in managers)
    if count:
        problem = f"{count} messages of the log wait for a newer state manager, and have no effect yet"
        advice = "start a state manager of the newest release; docs/runbook.md#newermessageswait"
        return failed("newer", problem, advice)
    return ok("newer", "no message of the log waits for a newer release")


def judge_versions(versions: Mapping[str, set[str]], own: str) -> Finding:
    """Check that all processes have the same version. `versions`: version to addresses; `own`: of this command."""
    if set(versions) <= {own}:
        return ok("versions", f"all processes have {own}")
    by_version = "; ".join(
        f"{version}: {', '.join(sorted(addresses))}" for version, addresses in sorted(versions.items())
    )
    return warning(
        "versions",
        f"this command is {own}, {by_version}",
        "finish the update: different versions work together for a short time only",
    )


def judge_process(address: str, facts: ProcessFacts, connections: int | None) -> Iterator[Finding]:
    """Check a process's file descriptors and listeners. `connections`: the role's maximum number of connections."""
    used = facts.fds_open / facts.fd_limit
    advice = "raise it: ulimit -n, LimitNOFILE= of systemd, ulimits of compose"
    if used >= NEARLY_FULL:
        judge = failed if used >= FULL else warning
        yield judge("fds", f"{address}: {facts.fds_open} of {facts.fd_limit} file descriptors in use", advice)
    elif connections is not None and facts.fd_limit < connections + FD_RESERVE:
        problem = f"{address}: {facts.fd_limit} file descriptors, but socket.max_connections is {connections}"
        yield warning("fds", problem, f"{advice}; or lower socket.max_connections")
    else:
        yield ok("fds", f"{address} {facts.fds_open}/{facts.fd_limit}")
    for what, host in facts.listens.items():
        if not is_loopback(host):
            problem = f"{address}: {what} can be reached from other machines ({host})"
            advice = "keep it behind a firewall" if "metrics" in what else "check that it uses TLS"
            yield ok("listening", f"{problem}; {advice}")


# -- state, letters, this machine -----------------------------------------------------------------------


def judge_dead_letters(count: int, newest: str | None) -> Finding:
    if not count:
        return ok("dead letters", "none")
    problem = f"{count}, the newest of {newest}" if newest else str(count)
    return warning("dead letters", problem, "see `examwire dead-letters ls`, then replay or discard them")


def judge_disk(path: str, free: int, total: int) -> Finding:
    """Check the free space of the disk with `data_dir`."""
    problem = f"{path}: {free / GIB:.1f} of {total / GIB:.1f} GiB free"
    if free < 0.2 * GIB:
        return failed("disk", problem, "free disk space: soon no pictures or logs can be stored")
    if free < GIB or free < 0.05 * total:
        return warning("disk", problem, "free disk space: pictures are stored here")
    return ok("disk", problem)


def judge_memory(available: int, total: int) -> Finding:
    problem = f"{available / GIB:.1f} of {total / GIB:.1f} GiB available on this machine"
    if available < 0.1 * total:
        return warning("memory", problem, "find what uses it: on a swapping machine, servers may count as lost")
    return ok("memory", problem)


def merge_ok(findings: Iterable[Finding], check: str, begins: str) -> list[Finding]:
    """Merge the `ok` findings of one check into one, so that twenty healthy roles take one line."""
    all_findings = list(findings)
    ok_findings = [finding for finding in all_findings if finding.check == check and finding.state is State.OK]
    rest = [finding for finding in all_findings if finding not in ok_findings]
    return (
        [*rest, ok(check, f"{begins} {', '.join(finding.found for finding in ok_findings)}")] if ok_findings else rest
    )


def _seconds(difference: float) -> str:
    return f"{abs(difference):.3g} s" if abs(difference) < 1000 else f"{abs(difference):.0f} s"


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", text)[:2])


def _host(url: str) -> str:
    return re.sub(r":\d+$", "", url.rpartition("//")[2].rpartition("@")[2]).strip("[]")
