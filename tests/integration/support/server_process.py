"""A socket server as a process of its own, who joins it, and what a proctor sees of them."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Mapping
from typing import Self

from actors.runtime.config.settings import Settings
from tests.integration.support.system import RawClient, System


class ServerProcess:
    """A socket server as a process of its own, to be killed."""

    def __init__(self, process: Process, url: str) -> None:
        self.process = process
        self.url = url

    @classmethod
    async def start(
        cls, settings: Settings, server_id: str = "SOCK001", variables: Mapping[str, str] | None = None
    ) -> Self:
        ladder = ",".join(map(str, settings.reconnect.backoff_seconds))
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "cli.main", "run", "socket-server", "--server-id", server_id, "--json"),
            *("--nats-url", settings.nats_url, "--redis-url", settings.redis_url),
            *("--data-dir", str(settings.data_dir), "--server-lease-seconds", str(settings.server.lease_seconds)),
            *("--reconnect-max-attempts", str(settings.reconnect.max_attempts), "--reconnect-backoff-seconds", ladder),
            *("--socket-ping-interval-seconds", str(settings.socket.ping_interval_seconds)),
            *("--socket-ping-timeout-seconds", str(settings.socket.ping_timeout_seconds)),
            stdout=PIPE,
            stderr=PIPE,
            env={**os.environ, **(variables or {})},
        )
        assert process.stdout is not None
        line = await asyncio.wait_for(process.stdout.readline(), 20)
        return cls(process, json.loads(line)["url"])

    def stand_still(self) -> None:
        """Stop the process where it is, until `go_on`."""
        self.process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """Let it go on."""
        self.process.send_signal(signal.SIGCONT)

    async def kill(self) -> None:
        """As the kernel would."""
        if self.process.returncode is None:
            self.process.send_signal(signal.SIGKILL)
        await self.process.communicate()

    async def ended(self) -> tuple[int | None, str]:
        """Wait for its end: the exit code and what it said on stderr."""
        _, err = await asyncio.wait_for(self.process.communicate(), 20)
        return self.process.returncode, err.decode()


async def join(system: System, url: str, examinee_id: str, connection_no: int = 1) -> RawClient:
    client = await RawClient.open(url)
    system.clients.append(client)
    await client.hello(system.token("examinee", examinee_id), f"browser-{examinee_id}", connection_no)
    await client.expect("session_state")
    return client


def story(proctor: RawClient, examinee_id: str) -> list[tuple[str, str | None]]:
    """What a proctor was told about an examinee: the kind of event and its reason."""
    return [
        (event["type"].removeprefix("examinee_"), event["data"].get("reason"))
        for event in proctor.about(examinee_id)
        if event["type"] != "examinee_reconnecting"
    ]
