"""Redis as it is run in production, from the same binary: behind TLS, with a replica and a Sentinel, as a cluster."""

from __future__ import annotations

import asyncio
import shutil
import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Self, cast

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from redis.asyncio import Redis

from cli.engines import RedisServer, free_port, redis_server_binary
from tests.integration.system import eventually

MASTER = "mymaster"
SLOTS = 16384


async def ask(server: RedisServer, *command: str | int) -> Any:
    """The answer of one server to one command, whatever it is part of."""
    async with Redis(port=server.port, decode_responses=True) as redis:
        return await cast(Any, redis).execute_command(*command)


class Node(RedisServer):
    """A server with further options on its command line."""

    def __init__(self, directory: Path, *options: str, binary: Path | None = None) -> None:
        super().__init__(directory, binary=binary)
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
        options = ("--cluster-enabled", "yes", "--cluster-node-timeout", "1000", "--cluster-port", str(free_port()))
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


class Certificates:
    """A CA, a server's certificate for 127.0.0.1 and a client's, as PEM files."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True)
        self.directory = directory
        self._ca_key = ec.generate_private_key(ec.SECP256R1())
        self._ca_name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test CA")])
        self.ca = self._write("ca", self._ca_key, self._ca_name, None)[0]
        self.server = self._issued("server", ExtendedKeyUsageOID.SERVER_AUTH)
        self.client = self._issued("client", ExtendedKeyUsageOID.CLIENT_AUTH)

    def server_context(self) -> ssl.SSLContext:
        """TLS that wants to see the client's certificate."""
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(self.ca))
        context.load_cert_chain(*self.server)
        context.verify_mode = ssl.CERT_REQUIRED
        return context

    def _issued(self, name: str, usage: x509.ObjectIdentifier) -> tuple[Path, Path]:
        key = ec.generate_private_key(ec.SECP256R1())
        return self._write(name, key, x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]), usage)

    def _write(
        self, name: str, key: ec.EllipticCurvePrivateKey, subject: x509.Name, usage: x509.ObjectIdentifier | None
    ) -> tuple[Path, Path]:
        now = datetime.now(UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._ca_name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(hours=1))
            .not_valid_after(now + timedelta(hours=1))
            .add_extension(x509.BasicConstraints(ca=usage is None, path_length=None), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self._ca_key.public_key()), critical=False
            )
        )
        if usage is None:
            only_signs = dict.fromkeys(
                ("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement"),
                False,
            )
            usages = x509.KeyUsage(
                **only_signs, key_cert_sign=True, crl_sign=True, encipher_only=False, decipher_only=False
            )
            builder = builder.add_extension(usages, critical=True)
        else:
            builder = builder.add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
            names = x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))])
            builder = builder.add_extension(names, critical=False)
        certificate, private = self.directory / f"{name}.pem", self.directory / f"{name}.key"
        certificate.write_bytes(builder.sign(self._ca_key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
        private.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        return certificate, private


@asynccontextmanager
async def tls_before(port: int, certificates: Certificates) -> AsyncIterator[int]:
    """TLS on the port this gives, for a server on `port` that has none built in (the wheel's has not)."""

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

    server = await asyncio.start_server(accept, "127.0.0.1", 0, ssl=certificates.server_context())
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        await asyncio.gather(*served)  # their clients have gone


def debian_redis() -> Path | None:
    """The redis-server of the machine, if there is one besides the wheel's valkey."""
    found = shutil.which("redis-server")
    return Path(found) if found is not None else None


def tls_options(certificates: Certificates) -> Sequence[str]:
    """Options of a server with TLS built in; its port without is another one."""
    certificate, key = certificates.server
    return (
        "--tls-cert-file",
        str(certificate),
        "--tls-key-file",
        str(key),
        "--tls-ca-cert-file",
        str(certificates.ca),
        "--tls-auth-clients",
        "yes",
    )
