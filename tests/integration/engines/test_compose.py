"""compose.yaml without containers: its services as processes, by its commands, its variables and its users at NATS."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

from cli.local.engines import die_with_parent
from tests.integration.support.clients.phones import capture_path, picture, upload_path
from tests.integration.support.nats_cluster import ConfiguredNats, settled_port
from tests.integration.support.redis_servers import Node, ask
from tests.integration.support.system import eventually
from tests.unit.support.deployment import compose, health_command, image_environment, roles, secrets

READY_SECONDS = 60.0
PORTS = ("EXAMWIRE_SOCKET__PORT", "EXAMWIRE_WEB__PORT", "EXAMWIRE_METRICS__PORT")
HOSTS = ("EXAMWIRE_SOCKET__HOST", "EXAMWIRE_WEB__HOST", "EXAMWIRE_METRICS__HOST")


class Services:
    """The services of compose.yaml, each a process on ports of its own."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.variables = secrets() | {"CAPTURES_STORE": "nats", "LOG_FORMAT": "text"}
        self.services: dict[str, dict[str, Any]] = compose(self.variables)["services"]
        self.roles = roles({"services": self.services})
        self.processes: dict[str, asyncio.subprocess.Process] = {}
        self._addresses: dict[str, str] = {}
        self._environments: dict[str, dict[str, str]] = {}

    async def start_engines(self, stack: AsyncExitStack) -> None:
        described = self.services["nats"]
        nats = ConfiguredNats(self.directory / "nats", Path(described["command"][-1]).name, "nats")
        assert nats.environment is not None
        nats.environment |= {name: text for name, text in described["environment"].items() if "PASSWORD" in name}
        redis = Node(self.directory / "redis")
        for engine in (nats, redis):
            engine.start()
            stack.callback(engine.stop)
        await ask(redis, "CONFIG SET", "requirepass", self.variables["REDIS_PASSWORD"])
        self._addresses = {"nats:4222": f"127.0.0.1:{nats.port}", "redis:6379": f"127.0.0.1:{redis.port}"}

    async def start(self, name: str) -> None:
        with (self.directory / f"{name}.log").open("wb") as log:
            self.processes[name] = await asyncio.create_subprocess_exec(
                *self._command(self.services[name]["command"]),
                env=self.environment(name),
                cwd=self.directory,
                stdout=log,
                stderr=log,
                preexec_fn=die_with_parent,
            )

    async def healthy(self, *names: str) -> None:
        """Wait until the image's health check says so."""

        async def says(name: str) -> bool:
            process = self.processes[name]
            assert process.returncode is None, f"{name} ended:\n{self.log(name)}"
            if (await self._run(name, *health_command()))[0] == 0:
                return True
            await asyncio.sleep(0.2)  # a look is a process, and takes time from those that are starting
            return False

        for name in names:
            await eventually(lambda name=name: says(name), f"{name} healthy", READY_SECONDS)  # type: ignore[misc]

    async def operator(self, *command: str) -> tuple[int, str]:
        """`docker compose run operator …`."""
        return await self._run("operator", *self._command(command))

    def environment(self, name: str) -> dict[str, str]:
        """What Docker would give the process, with this machine's addresses."""
        if name not in self._environments:
            variables = image_environment() | self.services[name]["environment"]
            own = {port: str(settled_port()) for port in PORTS}
            data = {"EXAMWIRE_DATA_DIR": str(self.directory / name), "PATH": os.environ["PATH"], "HOME": "/nowhere"}
            variables |= own | dict.fromkeys(HOSTS, "127.0.0.1") | data
            for variable, text in variables.items():
                for inside, outside in self._addresses.items():
                    text = text.replace(inside, outside)
                if variable.endswith("PUBLIC_URL"):
                    text = f"ws://127.0.0.1:{own['EXAMWIRE_SOCKET__PORT']}/v1/connect"
                variables[variable] = text
            self._environments[name] = variables
        return self._environments[name]

    def log(self, name: str) -> str:
        return (self.directory / f"{name}.log").read_text(errors="replace")[-3000:]

    @staticmethod
    def _command(arguments: list[str] | tuple[str, ...]) -> list[str]:
        return [sys.executable, "-m", "cli.main", *arguments]

    async def _run(self, name: str, *command: str) -> tuple[int, str]:
        process = await asyncio.create_subprocess_exec(
            *command,
            env=self.environment(name),
            cwd=self.directory,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        output, _ = await process.communicate()
        assert process.returncode is not None
        return process.returncode, output.decode()


@pytest.fixture
async def services(tmp_path: Path) -> AsyncIterator[Services]:
    services = Services(tmp_path)
    async with AsyncExitStack() as stack:
        await services.start_engines(stack)
        try:
            yield services
        finally:
            for process in services.processes.values():
                if process.returncode is None:
                    process.kill()
                    await process.wait()


@pytest.mark.timeout(180)
async def test_every_service_becomes_healthy_does_its_work_and_obeys_a_stop(services: Services) -> None:
    await services.start("queue-server")
    await services.healthy("queue-server")
    other_roles = [name for name in services.roles if name != "queue-server"]
    for name in other_roles:
        await services.start(name)
    await services.healthy(*other_roles)

    code, actors = await services.operator("actors", "ls", "-o", "json")
    assert code == 0, actors
    addresses = {actor["address"] for actor in json.loads(actors)}
    assert {"socket.SOCK001", "socket.SOCK002"} <= addresses, "each socket server may announce itself"
    assert sum(address.startswith("state-manager.") for address in addresses) == 2
    code, report = await services.operator("doctor", "-o", "json")
    trouble = [finding for finding in json.loads(report)["findings"] if finding["state"] not in ("ok", "unknown")]
    assert (code, trouble) == (0, []), report

    web = services.environment("web-server")["EXAMWIRE_WEB__PORT"]
    content = picture()
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{web}", trust_env=False) as http:
        phone = (await services.operator("token", "mobile", "P001", "E001"))[1].strip()
        proctor = (await services.operator("token", "proctor", "P001"))[1].strip()
        stored = await http.put(upload_path(), content=content, headers={"Authorization": f"Bearer {phone}"})
        assert stored.status_code == 201, stored.text
        picture_response = await http.get(capture_path(), headers={"Authorization": f"Bearer {proctor}"})
        assert picture_response.content == content, (
            "the web server's user may use the bucket that the queue server made"
        )

    for name in reversed(services.processes):
        process = services.processes[name]
        process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(process.wait(), 30) == 0, services.log(name)
