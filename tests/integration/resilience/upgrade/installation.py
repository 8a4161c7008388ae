"""An installation whose roles are processes, each of the release that the test chooses."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, cast

from redis.asyncio import Redis

from actors.runtime.broker.connection import Bus
from actors.runtime.config.settings import Settings
from protocol.broker.streams import DEADLETTER
from protocol.records import keys
from tests.integration.support.command_line import command_with

START_SECONDS = 60.0
ROOT = Path(__file__).parents[4]


@dataclass(frozen=True, slots=True)
class Release:
    """A tree of the repository whose roles and commands are run. `newer`: it knows what the other one does not."""

    name: str
    tree: Path
    newer: bool = False


@dataclass(slots=True)
class Role:
    """A role as a process. `ready`: its ready line."""

    release: Release
    process: Process
    ready: dict[str, Any]

    async def stop(self) -> None:
        """End the process as an operator does, with SIGTERM. Its exit code is 0."""
        self.process.send_signal(signal.SIGTERM)
        await self.ended()

    async def ended(self) -> None:
        await asyncio.wait_for(self.process.communicate(), START_SECONDS)
        assert self.process.returncode == 0, f"{self.ready}: exit code {self.process.returncode}"


class Installation:
    """Role processes on real engines. `async with Installation(settings, directory) as installation`."""

    def __init__(self, settings: Settings, logs: Path) -> None:
        self.settings = settings
        self._logs = logs
        self._variables = {
            "EXAMWIRE_NATS_URL": settings.nats_url,
            "EXAMWIRE_REDIS_URL": settings.redis_url,
            "EXAMWIRE_DATA_DIR": str(settings.data_dir),
            "EXAMWIRE_SOCKET__PORT": "0",
            "EXAMWIRE_WEB__PORT": "0",
            "EXAMWIRE_METRICS__PORT": "0",
        }
        self._invoke = command_with(self._variables)
        self.roles: dict[str, Role] = {}
        self._started: list[Process] = []

    async def __aenter__(self) -> Self:
        self.bus = await Bus.connect(self.settings, "test")
        self.redis: Redis = Redis.from_url(self.settings.redis_url, decode_responses=True)
        return self

    async def __aexit__(self, *_: object) -> None:
        for process in self._started:
            if process.returncode is None:
                process.kill()
            await process.communicate()
        await self.redis.aclose()
        await self.bus.close()

    async def start(self, name: str, release: Release) -> Role:
        """Start a role: `SOCK001`, or the name of a role (`state-manager`, `state-manager-2`)."""
        arguments = ["socket-server", "--server-id", name] if name.startswith("SOCK") else [name.rstrip("-0123456789")]
        process = await self._run(release, name, "run", *arguments, "--json")
        assert process.stdout is not None
        line = await asyncio.wait_for(process.stdout.readline(), START_SECONDS)
        assert line, f"{name} of {release.name} did not start: {self.log_of(name, release)}"
        role = self.roles[name] = Role(release, process, json.loads(line))
        return role

    async def command(self, release: Release, *arguments: str) -> Any:
        """Run a command of a release with `-o json`. Return its exit code and what it prints."""
        if release.tree == ROOT:
            result = await self._invoke(*arguments, "-o", "json")
            return result.exit_code, json.loads(result.stdout or "null")
        process = await self._run(release, arguments[0], *arguments, "-o", "json")
        output, _ = await asyncio.wait_for(process.communicate(), START_SECONDS)
        return process.returncode, json.loads(output or b"null")

    async def _run(self, release: Release, log: str, *arguments: str) -> Process:
        with self._log_path(log, release).open("ab") as stderr:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "cli.main", *arguments),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=PIPE,
                stderr=stderr,
                cwd=release.tree,  # `-m` looks here first
                env={**os.environ, "PYTHONPATH": str(release.tree), **self._variables},
            )
        self._started.append(process)
        return process

    def _log_path(self, name: str, release: Release) -> Path:
        return self._logs / f"{name}-{release.name}.log"

    def log_of(self, name: str, release: Release) -> str:
        """Return what a role or command has written to stderr."""
        return self._log_path(name, release).read_text()

    async def progress(self, examinee_id: str, plan_id: str) -> dict[str, str]:
        """Return the record of an examinee's connection."""
        return cast(dict[str, str], await self.redis.hgetall(keys.progress(plan_id, examinee_id)))

    async def dead_letters(self) -> int:
        return (await self.bus.stream_state(DEADLETTER.name)).messages
