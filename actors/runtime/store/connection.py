"""Connections to Redis: a server, a Unix socket, the master that Sentinels name, or a cluster.

At most `CONNECTIONS` commands run at a time, and hiredis packs them. An error is one of three: `StateUnavailable` (try
again later), `StateDamaged` (a key has the wrong type), or `ConfigurationError` at the start.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Iterable
from typing import Any, cast

import hiredis
from redis.asyncio import Connection, ConnectionPool, Redis, RedisCluster, SSLConnection, UnixDomainSocketConnection
from redis.asyncio.cluster import ClusterNode
from redis.asyncio.connection import AbstractConnection
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import (
    MasterNotFoundError,
    Sentinel,
    SentinelConnectionPool,
    SentinelManagedConnection,
    SentinelManagedSSLConnection,
)
from redis.backoff import NoBackoff
from redis.exceptions import (
    AskError,
    ClusterError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisClusterException,
    RedisError,
    ResponseError,
    TryAgainError,
)

from actors.runtime.config.redis_url import RedisAddress, parse_redis_url, without_password
from actors.runtime.config.sections import RedisSettings
from protocol.errors import ConfigurationError, StateDamaged, StateUnavailable

CONNECTIONS = 16
ANSWER_SECONDS = 5.0
CONNECT_SECONDS = 2
SENTINEL_SECONDS = 1.0
_TEMPORARY = (OutOfMemoryError, ReadOnlyError, TryAgainError, AskError, ClusterError, RedisClusterException)


class RedisConnections:
    """The Redis connections of a process. `client` is a `Redis`, or a `RedisCluster`, which has the same commands.

    Raises `ConfigurationError` when the URL is not valid. It connects at the first command.

    Example::

        connections = RedisConnections("redis://127.0.0.1:6379/0", RedisSettings())
        fields = await connections.run(connections.client.hgetall("plan:P001"))
    """

    def __init__(self, url: str, options: RedisSettings) -> None:
        try:
            self._address = parse_redis_url(url)
        except ValueError as error:
            raise ConfigurationError(f"redis_url: {error}") from None
        self.name = without_password(url)
        # The pools of Sentinels and of cluster nodes raise when no connection is free; this semaphore waits.
        self._turns = asyncio.Semaphore(CONNECTIONS)
        self._sentinel: Sentinel | None = None
        common: dict[str, Any] = {
            "username": self._address.username,
            "password": self._address.password,
            "socket_timeout": None,  # one deadline for a whole pipeline (`run`) instead of one for each answer
            "socket_connect_timeout": CONNECT_SECONDS,
            "decode_responses": True,
        }
        self.client: Redis
        if self.is_cluster:
            self.client = cast(Redis, _cluster(self._address, options, common))
        else:
            common |= {"db": self._address.db, "retry": Retry(NoBackoff(), 1), "max_connections": CONNECTIONS}
            self.client = Redis(connection_pool=self._pool(options, common))

    @property
    def is_cluster(self) -> bool:
        """Whether the URL names a cluster."""
        return self._address.kind == "cluster"

    async def run(self, command: Awaitable[Any]) -> Any:
        """Run a command or pipeline of `client` and return its answer. Raises `StateUnavailable` or `StateDamaged`."""
        try:
            async with asyncio.timeout(ANSWER_SECONDS), self._turns:
                return await command
        except (ResponseError, RedisClusterException) as error:
            if is_temporary(error):
                raise StateUnavailable(f"Redis at {self.name} cannot serve now: {error}") from error
            raise StateDamaged(str(error)) from error
        except (RedisError, OSError, TimeoutError) as error:
            raise StateUnavailable(f"Redis at {self.name} does not answer: {_describe(error)}") from error
        finally:
            if inspect.iscoroutine(command):
                command.close()  # it was never started

    async def ping(self) -> None:
        """Ping Redis; in a cluster, every master. Raises `StateUnavailable`."""
        targets = {"target_nodes": RedisCluster.PRIMARIES} if self.is_cluster else {}
        await self.run(cast(Any, self.client).execute_command("PING", **targets))

    async def close(self) -> None:
        """Close all connections. Harmless when repeated."""
        await self.client.aclose()
        if not self.is_cluster:
            await self.client.connection_pool.disconnect()
        if self._sentinel is not None:
            await self._sentinel.aclose()

    def _pool(self, options: RedisSettings, common: dict[str, Any]) -> ConnectionPool:
        address = self._address
        if address.kind == "sentinel":
            secret = options.sentinel_password
            credentials = {
                "username": options.sentinel_username,
                "password": secret.get_secret_value() if secret is not None else None,
            }
            limits = {"socket_timeout": SENTINEL_SECONDS, "socket_connect_timeout": SENTINEL_SECONDS}
            tls = {"ssl": True, **_tls(options)} if address.tls else {}
            self._sentinel = Sentinel(  # type: ignore[no-untyped-call]
                address.nodes, sentinel_kwargs={**credentials, **limits, **tls, "retry": Retry(NoBackoff(), 0)}
            )
            managed = SentinelManagedSSLConnection if address.tls else SentinelManagedConnection
            return SentinelConnectionPool(  # type: ignore[no-untyped-call]
                address.service,
                self._sentinel,
                connection_class=_with_hiredis(managed),
                **common,
                **(_tls(options) if address.tls else {}),
            )
        if address.kind == "unix":
            unix_connection = _with_hiredis(UnixDomainSocketConnection)
            return ConnectionPool(connection_class=unix_connection, path=address.path, **common)
        ((host, port),) = address.nodes
        if address.tls:
            return ConnectionPool(
                connection_class=_with_hiredis(SSLConnection), host=host, port=port, **common, **_tls(options)
            )
        return ConnectionPool(connection_class=_with_hiredis(Connection), host=host, port=port, **common)


def is_temporary(error: Exception) -> bool:
    """Return whether an error is about the present condition of Redis, and not about the key.

    Out of memory, a replica, a failover, a slot that is being moved, a script that runs too long, part of a cluster.
    """
    return isinstance(error, _TEMPORARY) or str(error).split(" ", 1)[0] in ("BUSY", "MISCONF")


def _describe(error: Exception) -> str:
    if isinstance(error, MasterNotFoundError):  # its own text lists the connection pool of each Sentinel
        return "no Sentinel can be reached that knows a living master of this name"
    if isinstance(error, TimeoutError):
        return f"nothing within {ANSWER_SECONDS:g} s"
    return f"{type(error).__name__}: {error}"


def _cluster(address: RedisAddress, options: RedisSettings, common: dict[str, Any]) -> RedisCluster:
    client = RedisCluster(
        startup_nodes=[ClusterNode(host, port) for host, port in address.nodes],
        max_connections=CONNECTIONS,
        retry=Retry(NoBackoff(), 1),
        # When a master is down, only the keys in its slots are unavailable.
        require_full_coverage=False,
        ssl=address.tls,
        **(_tls(options) if address.tls else {}),
        **common,
    )
    connection_class = _with_hiredis(SSLConnection if address.tls else Connection)
    client.connection_kwargs["connection_class"] = connection_class  # for nodes that are discovered later
    for node in client.nodes_manager.startup_nodes.values():
        node.connection_class = connection_class
    return client


def _tls(options: RedisSettings) -> dict[str, Any]:
    """Return the TLS options of redis-py: check the server's name and certificate.

    Without a CA file the machine's trusted certificates are used.
    """
    files = {"ssl_ca_certs": options.ca_file, "ssl_certfile": options.cert_file, "ssl_keyfile": options.key_file}
    return {name: str(path) for name, path in files.items() if path is not None} | {"ssl_check_hostname": True}


def _with_hiredis(connection_class: type[AbstractConnection]) -> type[Any]:
    """Return a subclass that packs commands with hiredis: redis-py's asyncio packs in Python, ten times slower."""

    class HiredisConnection(connection_class):  # type: ignore[misc,valid-type]
        def pack_command(self, *args: Any) -> list[bytes]:
            return [hiredis.pack_command((*str(args[0]).split(), *args[1:]))]

        def pack_commands(self, commands: Iterable[Iterable[Any]]) -> list[bytes]:
            return [b"".join(piece for command in commands for piece in self.pack_command(*command))]

    return HiredisConnection
