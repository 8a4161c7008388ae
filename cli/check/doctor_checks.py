"""What `examwire doctor` makes of what it was told: pure judgements, each with what was found and what to do now."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from actors.runtime.broker.clock import TOLERATED_SECONDS
from actors.runtime.broker.stream_admin import ConsumerState, StreamState
from actors.runtime.config.settings import is_loopback
from cli.operate.streams import TopologyComparison as Difference
from cli.shared.findings import Finding, State, failed, ok, unknown, warning
from protocol.broker.streams import NATS_VERSION
from protocol.messages.codec import MAX_BATCH_BYTES
from protocol.messages.inspection import ProcessFacts

REDIS_VERSION = (7, 0)
MAX_PAYLOAD = 1024 * 1024
CLOCK_SECONDS = 0.5
FULL, NEARLY_FULL = 0.95, 0.8
FD_RESERVE = 256
BACKLOG = 5000
GIB = 1024**3
ROLES = {
    "queue-server": "nobody makes queues: no socket server can start",
    "state-manager": "nothing reaches Redis or the proctors",
    "reconnect-watch": "nobody counts attempts to come back",
    "lease-watch": "nobody notices that a server died",
    "web-server": "nobody takes pictures",
}


# -- engines --------------------------------------------------------------------------------------------


def judge_nats(info: Mapping[str, Any], servers: Sequence[str]) -> Iterator[Finding]:
    """`info`: what the server says of itself when a client connects."""
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
        found = f"{payload} bytes; a batch has up to {MAX_BATCH_BYTES}, and a dead letter more"
        yield failed("nats.max_payload", found, "set max_payload: 1MB in nats-server's configuration")
    elif payload < MAX_PAYLOAD:
        yield warning("nats.max_payload", f"{payload} bytes: large dead letters will not fit", "set max_payload: 1MB")
    else:
        yield ok("nats.max_payload", f"{payload} bytes")
    away = [url for url in servers if not is_loopback(_host(url))]
    if away and not info.get("auth_required"):
        found = f"{', '.join(away)} asks nobody for a password"
        yield warning("nats.users", found, "give each role its user (nats/permissions.conf)")


def judge_account(account: Mapping[str, Any]) -> Iterator[Finding]:
    """`$JS.API.INFO`: what the account may use of JetStream, and uses."""
    if error := account.get("error"):
        yield failed("nats.jetstream", str(error.get("description", error)), "enable JetStream for this account")
        return
    # An account may have limits for each number of copies (`R1`, `R3`) instead of one for all.
    for tier, usage in {"": account, **(account.get("tiers") or {})}.items():
        limits = usage.get("limits", {})
        for used, limit, what in (
            ("storage", "max_storage", "bytes of storage"),
            ("streams", "max_streams", "streams"),
            ("consumers", "max_consumers", "consumers"),
        ):
            most, there = int(limits.get(limit, -1)), int(usage.get(used, 0))
            if most > 0 and there >= NEARLY_FULL * most:
                judge = failed if there >= FULL * most else warning
                found = f"{there} of {most} {what} in use{tier and f' by streams of {tier}'}"
                yield judge("nats.account", found, f"raise {limit} of the account")
    yield ok("nats.account", f"{account.get('streams', 0)} streams, {account.get('storage', 0)} bytes stored")


def judge_sync(varz: Mapping[str, Any] | None, configured: str | None = None) -> Finding:
    """`/varz` of nats-server's monitoring, where it can be reached; else `sync_interval` of a server of ours."""
    advice = "set `sync_interval: always` in the jetstream block: then an ack means on disk"
    if varz is None and configured is None:
        return unknown(
            "nats.sync", "not visible: monitoring is not reachable (--nats-monitoring URL)", f"see that: {advice}"
        )
    config = ((varz or {}).get("jetstream") or {}).get("config") or {}
    if config.get("sync_always") or (varz is None and configured == "always"):
        return ok("nats.sync", "an acknowledged message is on disk (sync_interval: always)")
    interval = configured if varz is None else f"{int(config.get('sync_interval', 0)) / 1e9:g} s"
    return warning("nats.sync", f"disks are synchronised every {interval}: what was acknowledged may be lost", advice)


def judge_storage(varz: Mapping[str, Any] | None) -> Finding | None:
    """`/varz` of nats-server's monitoring: what all accounts together may store on that server."""
    jetstream = (varz or {}).get("jetstream") or {}
    most = int((jetstream.get("config") or {}).get("max_storage", 0))
    used = int((jetstream.get("stats") or {}).get("storage", 0))
    if most <= 0 or used < NEARLY_FULL * most:
        return None
    judge = failed if used >= FULL * most else warning
    advice = "raise max_file_store of nats-server, or make room: when it is full every write is refused"
    return judge("nats.storage", f"{used} of {most} bytes that the server may store are in use", advice)


def judge_stream_room(name: str, used: int, most: int, refuses: bool) -> Finding | None:
    """A stream with a limit in bytes; `refuses`: at it new messages are refused, else the oldest go."""
    if most <= 0 or used < NEARLY_FULL * most:
        return None
    found = f"stream {name}: {used} of {most} bytes in use"
    if not refuses:
        return warning("streams", f"{found}: the oldest messages go", "raise its limit, if they are still needed")
    judge = failed if used >= FULL * most else warning
    return judge("streams", f"{found}: then it refuses what is new", "raise its limit, or make room")


def judge_redis(name: str, info: Mapping[str, Any], saves: str | None) -> Iterator[Finding]:
    """INFO of one server; `saves`: its `save` setting where it may be read."""
    valkey = info.get("valkey_version")
    version = str(valkey or info.get("redis_version", ""))
    product = "Valkey" if valkey else "Redis"
    if not valkey and _version(version) < REDIS_VERSION:
        yield failed("redis.version", f"{name}: {product} {version}", "install Redis 7 or newer, or Valkey")
    else:
        yield ok("redis.version", f"{name}: {product} {version}")
    if info.get("role", "master") != "master":
        yield failed("redis.role", f"{name} is a replica: nothing can be written", "let redis_url name the master")
    if info.get("aof_enabled"):
        if info.get("aof_last_write_status", "ok") != "ok":
            yield failed("redis.persistence", f"{name}: the last write to its file failed", "look at its disk and log")
        else:
            yield ok("redis.persistence", f"{name}: append-only file")
    elif saves:
        found = f"{name}: snapshots only ({saves}): a restart loses minutes, until they are rebuilt from the log"
        yield warning("redis.persistence", found, "set appendonly yes")
    else:
        found = f"{name}: nothing is kept over a restart; the state would be rebuilt from the log"
        yield warning("redis.persistence", found, "set appendonly yes")
    policy, most = str(info.get("maxmemory_policy", "noeviction")), int(info.get("maxmemory", 0))
    if policy != "noeviction":
        found = f"{name}: {policy} lets records vanish when memory is short"
        judge = failed if most else warning
        yield judge("redis.eviction", found, "set maxmemory-policy noeviction")
    else:
        yield ok("redis.eviction", f"{name}: noeviction")
    used = int(info.get("used_memory", 0))
    if most and used >= NEARLY_FULL * most:
        judge = failed if used >= FULL * most else warning
        yield judge("redis.memory", f"{name}: {used} of {most} bytes in use", "raise maxmemory")
    clients, most_clients = int(info.get("connected_clients", 0)), int(info.get("maxclients", 0))
    if most_clients and clients >= NEARLY_FULL * most_clients:
        judge = failed if clients >= FULL * most_clients else warning
        yield judge("redis.clients", f"{name}: {clients} of {most_clients} connections in use", "raise maxclients")


# -- clocks ---------------------------------------------------------------------------------------------


def judge_clock(whose: str, offset: float, uncertain: float, off_broker: float = 0.0) -> Finding:
    """`offset`: how far ahead of ours that clock is, give or take `uncertain` (half the round trip), in seconds.

    `off_broker`: how far ahead of the broker's it is at least.
    """
    if abs(off_broker) > TOLERATED_SECONDS:
        side = "ahead of" if off_broker > 0 else "behind"
        found = f"the clock of {whose} is {_seconds(off_broker)} {side} the broker's, by which the exam goes"
        return warning("clocks", found, "synchronise the clocks (NTP): its log lines and certificates go by it")
    far = abs(offset) - uncertain
    side = "ahead of" if offset > 0 else "behind"
    if far > CLOCK_SECONDS:
        found = f"the clock of {whose} is {_seconds(offset)} {side} this machine's"
        return warning("clocks", found, "synchronise the clocks (NTP): outages and deadlines are measured with them")
    return ok("clocks", f"{whose} {abs(offset) + uncertain:.3f} s")


# -- streams and consumers ------------------------------------------------------------------------------


FILLED = 0.5


def judge_streams(differences: Sequence[Difference]) -> Iterator[Finding]:
    """What `streams diff` says."""
    wrong = [one for one in differences if one.state != "same"]
    for one in wrong:
        judge = failed if one.state == "missing" else warning
        fields = ", ".join(f"{name} is {there}, not {wanted}" for name, (there, wanted) in one.fields.items())
        found = f"{one.kind} {one.name} is missing" if one.state == "missing" else f"{one.kind} {one.name}: {fields}"
        yield judge("streams", found, "start a queue server, or `examwire streams apply`")
    if not wrong:
        yield ok("streams", f"{len(differences)} streams and consumers are as declared")


def judge_fill(name: str, state: StreamState) -> Finding | None:
    """How full a stream is that may hold so many bytes only; the oldest messages go at the bound."""
    if state.limit is None or state.size <= state.limit * FILLED:
        return None
    found = f"stream {name}: {state.size / 2**20:,.0f} of {state.limit / 2**20:,.0f} MiB are used"
    return warning("streams", found, "who fills it? (runbook: StreamNearItsBound); or raise nats.status_max_bytes")


def judge_backlog(consumer: ConsumerState, stuck: bool) -> Finding | None:
    """How far a durable consumer is. `stuck`: messages wait, and for a while nobody has asked for any."""
    name = f"{consumer.stream}/{consumer.name}"
    waiting = consumer.pending + consumer.unacknowledged
    if stuck:
        found = f"{name}: {consumer.pending} messages wait, and nobody reads"
        return failed("lag", found, f"start what reads it ({consumer.description or 'see `examwire queues ls`'})")
    if waiting > BACKLOG:
        return warning(
            "lag", f"{name}: {waiting} messages wait", "`examwire actors top`: who is slow, or waits for what?"
        )
    return None


# -- actors ---------------------------------------------------------------------------------------------


def judge_roles(actors: Sequence[Mapping[str, Any]], servers: Sequence[Mapping[str, str]]) -> Iterator[Finding]:
    """`actors`: inspections (`examwire actors ls`); `servers`: their records in Redis."""
    kinds = {str(actor["kind"]) for actor in actors if actor.get("state") == "running"}
    for kind, what in ROLES.items():
        if kind not in kinds:
            judge = warning if kind == "web-server" else failed
            role = kind if kind in ("queue-server", "web-server") else "state-manager"
            yield judge("roles", f"no {kind} runs: {what}", f"start one: examwire run {role}")
    alive = {
        str(actor.get("details", {}).get("serverId"))
        for actor in actors
        if actor["kind"] == "socket-server" and actor.get("state") == "running"
    }
    ready = {server["serverId"] for server in servers if server.get("statusCode") == "READY"}
    for server_id in sorted(ready - alive):
        found = f"{server_id} is READY in Redis, but no such process answers"
        yield failed(
            "roles", found, "`examwire plans ls`, the server's log; if a state manager runs, it will be LOST soon"
        )
    for server in servers:
        if server.get("statusCode") in ("LOST", "FAILED"):
            found = f"{server['serverId']} is {server['statusCode']} {server.get('reason', '')}".rstrip()
            yield warning("roles", found, f"start it: examwire run socket-server --server-id {server['serverId']}")
    serving = sorted(ready & alive)
    if not serving:
        yield failed("roles", "no socket server is READY: nobody can connect", "start one: examwire run socket-server")
    elif len(serving) == 1:
        yield warning("roles", f"only {serving[0]} is READY: its clients have nowhere else to go", "start a second one")
    else:
        yield ok("roles", f"READY: {', '.join(serving)}; " + ", ".join(kind for kind in ROLES if kind in kinds))


def judge_actor(actor: Mapping[str, Any]) -> Iterator[Finding]:
    """One inspection."""
    address = str(actor["address"])
    if actor.get("state") == "silent":
        yield failed("actors", f"{address} is listed, but does not answer", "look at its log; restart it if it hangs")
        return
    if waiting := actor.get("details", {}).get("waitingFor"):
        yield failed("actors", f"{address} waits for {waiting}", f"see what is wrong with {waiting}")
    if actor.get("restarts"):
        found = f"{address} was restarted {actor['restarts']} times; last error: {actor.get('lastError')}"
        yield warning("actors", found, "look at its log")


def judge_versions(versions: Mapping[str, set[str]], own: str) -> Finding:
    """`versions`: version -> the addresses of who has it; `own`: this command's."""
    if set(versions) <= {own}:
        return ok("versions", f"everything here is {own}")
    told = "; ".join(f"{version}: {', '.join(sorted(who))}" for version, who in sorted(versions.items()))
    return warning(
        "versions", f"this command is {own}, {told}", "finish the update: versions mix, but only for a while"
    )


def judge_process(address: str, facts: ProcessFacts, connections: int | None) -> Iterator[Finding]:
    """`connections`: how many this role may have to hold."""
    used = facts.fds_open / facts.fd_limit
    advice = "raise it: ulimit -n, LimitNOFILE= of systemd, ulimits of compose"
    if used >= NEARLY_FULL:
        judge = failed if used >= FULL else warning
        yield judge("fds", f"{address}: {facts.fds_open} of {facts.fd_limit} file descriptors in use", advice)
    elif connections is not None and facts.fd_limit < connections + FD_RESERVE:
        found = f"{address}: {facts.fd_limit} file descriptors, but socket.max_connections is {connections}"
        yield warning("fds", found, f"{advice}; or lower socket.max_connections")
    else:
        yield ok("fds", f"{address} {facts.fds_open}/{facts.fd_limit}")
    for what, host in facts.listens.items():
        if not is_loopback(host):
            found = f"{address}: {what} can be reached from other machines ({host})"
            advice = "keep it behind a firewall" if "metrics" in what else "see that TLS is in front of it"
            yield ok("listening", f"{found}; {advice}")


# -- state, letters, this machine -----------------------------------------------------------------------


def judge_dead_letters(count: int, newest: str | None) -> Finding:
    if not count:
        return ok("dead letters", "none")
    found = f"{count}, the newest of {newest}" if newest else str(count)
    return warning("dead letters", found, "`examwire dead-letters ls`: what, why; then replay or discard them")


def judge_disk(path: str, free: int, total: int) -> Finding:
    """Where `data_dir` is."""
    found = f"{path}: {free / GIB:.1f} of {total / GIB:.1f} GiB free"
    if free < 0.2 * GIB:
        return failed("disk", found, "make room: pictures and logs cannot be stored much longer")
    if free < GIB or free < 0.05 * total:
        return warning("disk", found, "make room: pictures go there")
    return ok("disk", found)


def judge_memory(available: int, total: int) -> Finding:
    found = f"{available / GIB:.1f} of {total / GIB:.1f} GiB available on this machine"
    if available < 0.1 * total:
        return warning("memory", found, "find what takes it: a machine that swaps makes servers look lost")
    return ok("memory", found)


def merge_ok(findings: Iterable[Finding], check: str, begins: str) -> list[Finding]:
    """The findings with the `ok` ones of `check` told as one: twenty roles need no twenty lines to be well."""
    everything = list(findings)
    well = [one for one in everything if one.check == check and one.state is State.OK]
    rest = [one for one in everything if one not in well]
    return [*rest, ok(check, f"{begins} {', '.join(one.found for one in well)}")] if well else rest


def _seconds(apart: float) -> str:
    return f"{abs(apart):.3g} s" if abs(apart) < 1000 else f"{abs(apart):.0f} s"


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", text)[:2])


def _host(url: str) -> str:
    return re.sub(r":\d+$", "", url.rpartition("//")[2].rpartition("@")[2]).strip("[]")
