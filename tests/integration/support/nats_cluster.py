"""nats-servers by the configuration of nats/: its users, a cluster of three nodes, with or without TLS."""

from __future__ import annotations

import contextlib
import json
import os
import random
import socket
import urllib.error
import urllib.request
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from pydantic import SecretStr

from actors.runtime.config.settings import Settings
from cli.local.engines import Engine, _greets, nats_server_binary
from cli.operate.nats_permissions import SERVER_IDS
from protocol.broker.permissions import SYSTEM_USER, BrokerRole, password_variable, user_of, users
from tests.support.certificates import Certificates
from tests.support.polling import wait_until

CONFIGURATIONS = Path(__file__).parents[3] / "nats"
EVERYONE = [user.user for user in users(SERVER_IDS)] + [SYSTEM_USER]


def settled_port() -> int:
    """A free port below those that the system hands out for outgoing connections: a node must get it again after
    its death, with a load of connections around it.
    """
    while True:
        port = random.randrange(12_000, 32_000)
        with contextlib.suppress(OSError), socket.socket() as probe:
            probe.bind(("127.0.0.1", port))
            return port


def password_of(user: str) -> str:
    """The password that these servers know."""
    return f"secret-of-{user}"


def logged_in(settings: Settings, user: str, **more: Any) -> Settings:
    """The settings of the role that this user belongs to."""
    section = settings.nats.model_copy(update={"user": user, "password": SecretStr(password_of(user)), **more})
    return settings.model_copy(update={"nats": section})


def user_of_actor(name: str) -> str:
    """Whose connection the actor `name` of a `System` has."""
    if name in SERVER_IDS:
        return user_of(BrokerRole.SOCKET_SERVER, name)
    return name if name in EVERYONE else BrokerRole.STATE_MANAGER  # the watches live in its process


class ConfiguredNats(Engine):
    """One nats-server by a file of nats/."""

    name = "nats-server"

    def __init__(
        self, directory: Path, configuration: str, server_name: str, certificates: Certificates | None = None
    ) -> None:
        super().__init__(directory, settled_port())
        self.server_name = server_name
        self.configuration = CONFIGURATIONS / configuration
        self.http_port = settled_port()
        self.tls = certificates is not None
        self.environment = {
            **os.environ,
            **{password_variable(user): password_of(user) for user in EVERYONE},
            "NATS_NAME": server_name,
            "NATS_LISTEN": f"127.0.0.1:{self.port}",
            "NATS_HTTP": f"127.0.0.1:{self.http_port}",
            "NATS_STORE": str(directory / "jetstream"),
        }
        if certificates is not None:
            self.environment |= {
                "NATS_TLS_CERT": str(certificates.certificate),
                "NATS_TLS_KEY": str(certificates.key),
                "NATS_TLS_CA": str(certificates.ca),
            }

    def command(self) -> list[str]:
        return [str(nats_server_binary()), "-c", str(self.configuration)]

    def answers(self) -> bool:
        return _greets(self.port, b"", b"INFO")

    def healthy(self) -> bool:
        """Whether JetStream is up to date here (and, in a cluster, has a leader)."""
        return self.health() == "ok"

    def health(self) -> str:
        """What /healthz says: ok, or what is wrong."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.http_port}/healthz", timeout=1) as answer:
                return str(json.load(answer)["status"])
        except urllib.error.HTTPError as error:
            with error:
                return error.read().decode(errors="replace")
        except OSError as error:
            return str(error)

    def neighbours(self) -> set[str]:
        """The nodes that this one has a route to, by name."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.http_port}/routez", timeout=10) as answer:
            return {route["remote_name"] for route in json.load(answer)["routes"]}

    @property
    def url(self) -> str:
        return f"{'tls' if self.tls else 'nats'}://127.0.0.1:{self.port}"


class NatsCluster:
    """Three nodes. `with NatsCluster(...) as cluster`: they are started, or only the first `start` of them."""

    def __init__(self, directory: Path, *, certificates: Certificates | None = None, start: int = 3) -> None:
        configuration = "cluster.conf" if certificates else "cluster-plain.conf"
        names = ("nats-1", "nats-2", "nats-3")
        self.nodes = {name: ConfiguredNats(directory / name, configuration, name, certificates) for name in names}
        routes = {name: f"127.0.0.1:{settled_port()}" for name in names}
        for name, node in self.nodes.items():
            assert node.environment is not None
            node.environment["NATS_CLUSTER_LISTEN"] = routes[name]
            node.environment["NATS_ROUTES"] = f"[{', '.join(f'nats://{route}' for route in routes.values())}]"
        self._start = start

    def __enter__(self) -> Self:
        try:
            for node in list(self.nodes.values())[: self._start]:
                node.start()
            if self._start == len(self.nodes):
                self.formed()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for node in self.nodes.values():
            node.kill()

    def formed(self) -> None:
        """Wait until every node has JetStream up to date."""
        healthy = wait_until(lambda: all(node.healthy() for node in self.nodes.values()), 90)
        assert healthy, {name: (node.health(), node.log_path.read_text()[-2000:]) for name, node in self.nodes.items()}

    @property
    def url(self) -> str:
        return ",".join(node.url for node in self.nodes.values())
