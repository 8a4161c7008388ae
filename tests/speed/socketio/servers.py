"""Start Socket.IO's servers and their Redis."""

from __future__ import annotations

import asyncio
import atexit
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from cli.local.engines import RedisServer
from protocol.errors import RoleFailed

SOURCES = Path(__file__).parent
READY_SECONDS = 30.0


class PlainRedis(RedisServer):
    """A Redis that keeps nothing on disk: Socket.IO's servers only pass messages on through it."""

    def command(self) -> list[str]:
        return [*super().command(), "--appendonly", "no"]


@dataclass(frozen=True, slots=True)
class SocketIoServers:
    """The running servers. `processes`: pids by the names of our roles."""

    urls: list[str]
    processes: dict[str, list[int]]


@cache
def installed() -> Path:
    """Install the packages into a temporary directory, once for each process. Needs `npm` and its registry."""
    directory = Path(tempfile.mkdtemp(prefix="examwire-socketio-"))
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    for name in ("package.json", "server.js"):
        shutil.copy(SOURCES / name, directory)
    command = ["npm", "install", "--no-package-lock", "--no-audit", "--no-fund", "--silent"]
    subprocess.run(command, cwd=directory, check=True)
    return directory


@asynccontextmanager
async def socketio_servers(count: int, secret: str) -> AsyncIterator[SocketIoServers]:
    """Start `count` servers with a Redis, and stop them at the end."""
    directory = installed()
    async with AsyncExitStack() as stack:
        data = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="examwire-redis-")))
        redis = PlainRedis(data)
        redis.start()
        stack.callback(redis.stop)
        assert redis.pid is not None
        urls, pids = [], []
        for number in range(1, count + 1):
            environment = {**os.environ, "REDIS_URL": redis.url, "SECRET": secret, "SERVER_ID": f"NODE{number:03d}"}
            process = await asyncio.create_subprocess_exec(
                "node", "server.js", cwd=directory, env=environment, stdout=asyncio.subprocess.PIPE
            )
            stack.push_async_callback(process.wait)
            stack.callback(process.kill)
            assert process.stdout is not None
            async with asyncio.timeout(READY_SECONDS):
                line = await process.stdout.readline()
            if not line:
                raise RoleFailed("node ended before it was ready; the reason is on stderr")
            urls.append(json.loads(line)["url"])
            pids.append(process.pid)
        yield SocketIoServers(urls, {"socket-server": pids, "redis-server": [redis.pid]})
