"""Redis as it is run in production, from the same binary: behind TLS, with a replica and a Sentinel, as a cluster."""

from __future__ import annotations

import asyncio
import shutil
import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Self, cast

from redis.asyncio import Redis

from cli.local.engines import RedisServer, redis_server_binary
from tests.integration.support.nats_cluster import settled_port
from tests.integration.support.system import eventually
from tests.support.certificates import Certificates

MASTER = "mymaster"
SLOTS = 16384


async def ask(server: RedisServer, *command: str | int) -> Any:
    """The answer of one server to one command, whatever it is part of."""
    async with Redis(port=server.port, decode_responses=True) as redis:
        return await cast(Any, redis).execute_command(*command)


class Node(RedisServer):
    """A server with further options on its command line."""

    def __init__(self, directory: Path, *options: str, binary: Path | None = None) -> None:
        super().__init__(directory, settled_port(), binary=binary)
        self.options = options

    def command(self) -> list[str]:
        return [*super().command(), *self.options]


class SentinelServer(RedisServer):
    """A Sentinel that decides alone, quickly."""

    name = "sentinel"

    def __init__(self, directory: Path, master: RedisServer) -> None:
        super().__init__(directory)
        self.master = master

    def command(self) -> list[str]:
        config = self.directory / "sentinel.conf"
        config.write_text(
            f"port {self.port}\nbind 127.0.0.1\ndir {self.directory.resolve()}\n"
            f"sentinel monitor {MASTER} 127.0.0.1 {self.master.port} 1\n"
            f"sentinel down-after-milliseconds {MASTER} 400\nsentinel failover-timeout {MASTER} 2000\n"
        )
        return [str(redis_server_binary()), str(config.resolve()), "--sentinel"]


class SentinelGroup:
    """A master, its replica and a Sentinel. `url` names the Sentinel."""

    def __init__(self, directory: Path) -> None:
        self.master = Node(directory / "master")
        self.replica = Node(directory / "replica", "--replicaof", "127.0.0.1", str(self.master.port))
        self.sentinel = SentinelServer(directory / "sentinel", self.master)
        self.url = f"redis+sentinel://127.0.0.1:{self.sentinel.port}/{MASTER}/0"

    async def __aenter__(self) -> Self:
        for server in (self.master, self.replica):
            server.start()

        async def in_step() -> bool:
            return bool((await ask(self.replica, "INFO", "replication"))["master_link_status"] == "up")

        await eventually(in_step, "the replica follows")
        self.sentinel.start()

        async def known() -> bool:
            state = await ask(self.sentinel, "SENTINEL MASTER", MASTER)
            return bool(state["num-slaves"] == 1)

        await eventually(known, "the Sentinel knows the replica")
        return self

    async def __aexit__(self, *_: object) -> None:
        for server in (self.sentinel, self.replica, self.master):
            server.stop()

    async def role(self, server: RedisServer) -> str:
        return str((await ask(server, "INFO", "replication"))["role"])


class Cluster:
    """Three masters with all slots among them, and no replicas."""

    def __init__(self, directory: Path) -> None:
        self.nodes = [self._node(directory / f"node-{number}") for number in range(3)]
        self.url = "redis+cluster://" + ",".join(f"127.0.0.1:{node.port}" for node in self.nodes)

    @staticmethod
    def _node(directory: Path) -> Node:
        options = ("--cluster-enabled", "yes", "--cluster-node-timeout", "1000", "--cluster-port", str(settled_port()))
        return Node(directory, *options)

    async def __aenter__(self) -> Self:
        share = SLOTS // len(self.nodes) + 1
        for node in self.nodes:
            node.start()
        for number, node in enumerate(self.nodes):
            await ask(node, "CLUSTER ADDSLOTSRANGE", number * share, min(SLOTS, (number + 1) * share) - 1)
            await ask(node, "CLUSTER SET-CONFIG-EPOCH", number + 1)
        for other in self.nodes[1:]:
            await ask(self.nodes[0], "CLUSTER MEET", "127.0.0.1", other.port, other.options[-1])

        async def whole() -> bool:
            return all([await self._says_ok(node) for node in self.nodes])

        await eventually(whole, "the cluster is whole", 15)
        return self

    async def __aexit__(self, *_: object) -> None:
        for node in self.nodes:
            node.stop()

    async def keys_held(self) -> list[int]:
        """How many keys each node holds."""
        return [await ask(node, "DBSIZE") for node in self.nodes]

    @staticmethod
    async def _says_ok(node: Node) -> bool:
        info = await ask(node, "CLUSTER INFO")
        return bool(info["cluster_state"] == "ok" and info["cluster_size"] == "3")


@asynccontextmanager
async def tls_before(port: int, certificates: Certificates, host: str = "127.0.0.1") -> AsyncIterator[int]:
    """TLS on the port this gives, for a server on `port` that has none built in (the wheel's has not).

    A client must show a certificate of the same CA.
    """
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(certificates.ca))
    context.load_cert_chain(certificates.certificate, certificates.key)
    context.verify_mode = ssl.CERT_REQUIRED

    async def copy(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        try:
            while data := await source.read(65536):
                target.write(data)
                await target.drain()
        except (ConnectionError, ssl.SSLError):
            return
        finally:
            target.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        behind_reader, behind_writer = await asyncio.open_connection("127.0.0.1", port)
        await asyncio.gather(copy(reader, behind_writer), copy(behind_reader, writer))

    served: set[asyncio.Task[None]] = set()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(serve(reader, writer))
        served.add(task)

    server = await asyncio.start_server(accept, host, 0, ssl=context)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        await asyncio.gather(*served)  # their clients have gone


def debian_redis() -> Path | None:
    """The redis-server of the machine, if there is one besides the wheel's valkey."""
    program = shutil.which("redis-server")
    return Path(program) if program is not None else None


def tls_options(certificates: Certificates) -> Sequence[str]:
    """Options of a server with TLS built in; its port without is another one."""
    return (
        "--tls-cert-file",
        str(certificates.certificate),
        "--tls-key-file",
        str(certificates.key),
        "--tls-ca-cert-file",
        str(certificates.ca),
        "--tls-auth-clients",
        "yes",
    )
