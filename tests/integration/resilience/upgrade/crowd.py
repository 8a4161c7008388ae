"""Examinees who keep dropping and coming back while servers change, and the proctors who watch them."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import Counter
from collections.abc import AsyncIterator, Coroutine
from typing import Any

from websockets.exceptions import WebSocketException

from actors.runtime.config.tokens import issue_token
from protocol.messages.frames import Role
from tests.integration.resilience.upgrade.installation import Installation
from tests.integration.support.system import RawClient, eventually

PLAN = "P001"
STEP_SECONDS = 0.1
STEPS_MEANWHILE, STEPS_AFTERWARDS = 60, 12
ATTEMPTS = 200


class Crowd:
    """`connects` and `losses` count for each examinee what proctors must be told once.

    `checked`: how many connections a newer server took. An examinee whose server sends them away comes back by another
    one at once, which is no loss. `finished`: who has handed in. `closed`: servers that take nobody now, and whose
    clients are not dropped.
    """

    def __init__(self, installation: Installation, size: int) -> None:
        self._installation = installation
        self._random = random.Random(11)
        self.examinees = [f"E{number:03}" for number in range(size)]
        self.closed: set[str] = set()
        self.connects: Counter[str] = Counter()
        self.losses: Counter[str] = Counter()
        self.checked: Counter[str] = Counter()
        self.finished: list[str] = []
        self._numbers: Counter[str] = Counter()
        self.clients: dict[str, tuple[str, RawClient]] = {}
        self._proctors: dict[str, list[RawClient]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._failures: list[BaseException] = []

    # -- clients -------------------------------------------------------------------------------------

    def _open_servers(self) -> list[str]:
        return [name for name in self._installation.roles if name.startswith("SOCK") and name not in self.closed]

    async def _connect(
        self, role: Role, subject: str, number: int, server_id: str | None = None
    ) -> tuple[str, RawClient]:
        for _ in range(ATTEMPTS):
            chosen = server_id if server_id in self._open_servers() else self._random.choice(self._open_servers())
            try:
                client = await RawClient.open(self._installation.roles[chosen].ready["url"])
                token = issue_token(self._installation.settings, role, PLAN, subject)
                await client.hello(token, f"browser-{subject}", number)
            except (OSError, WebSocketException, AssertionError) as error:  # it has just closed its door: the next one
                refusal = f"{chosen}: {error}"
                await asyncio.sleep(STEP_SECONDS)
                continue
            return chosen, client
        raise AssertionError(f"{subject} cannot connect: {refusal}")

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._over)

    def _over(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._failures.append(error)

    async def join(self, examinee_id: str) -> RawClient:
        """Connect an examinee, and again whenever their server sends them away."""
        self._numbers[examinee_id] += 1
        server_id, client = await self._connect("examinee", examinee_id, self._numbers[examinee_id])
        self.clients[examinee_id] = server_id, client
        self.connects[examinee_id] += 1
        self.checked[examinee_id] += self._installation.roles[server_id].release.newer
        self._spawn(self._follow(examinee_id, client))
        return client

    async def _follow(self, examinee_id: str, client: RawClient) -> None:
        await asyncio.wait({client._reader})
        if self.clients.get(examinee_id, (None, None))[1] is client:  # sent away, not dropped
            await self.join(examinee_id)

    def drop(self, examinee_id: str) -> None:
        """Cut an examinee's connection."""
        _, client = self.clients.pop(examinee_id)
        client.abort()
        self.losses[examinee_id] += 1

    async def finish(self, examinee_id: str, server_id: str) -> None:
        """Let another examinee hand in by a server, and leave."""
        _, client = await self._connect("examinee", examinee_id, 1, server_id)
        await client.say("finish", requestId=f"finish-{examinee_id}")
        await client.expect("accepted")
        await client.close()
        self.finished.append(examinee_id)

    async def watch(self, name: str, home: str) -> None:
        """Connect a proctor, who stays at `home` whenever that server takes clients."""
        connections = self._proctors[name] = []
        await self._watch_once(name, home, connections)
        self._spawn(self._watch(name, home, connections))

    async def _watch(self, name: str, home: str, connections: list[RawClient]) -> None:
        while True:
            await asyncio.wait({connections[-1]._reader})
            await self._watch_once(name, home, connections)

    async def _watch_once(self, name: str, home: str, connections: list[RawClient]) -> None:
        _, client = await self._connect("proctor", name, len(connections) + 1, home)
        connections.append(client)
        await client.expect("plan_snapshot")

    async def send_home(self, name: str) -> None:
        """Let a proctor leave the server that took them in, for their own."""
        connections = self._proctors[name]
        before = len(connections)
        await connections[-1].close()

        async def is_back() -> bool:
            return len(connections) > before and any(f["type"] == "plan_snapshot" for f in connections[-1].frames)

        await eventually(is_back, f"{name} is back")

    async def end(self) -> None:
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for _, client in self.clients.values():
            await client.close()
        for connections in self._proctors.values():
            await connections[-1].close()

    # -- churn ---------------------------------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def churning(self) -> AsyncIterator[None]:
        """Drop somebody or let somebody come back, meanwhile and afterwards; in the end everybody is connected."""
        stop = asyncio.Event()

        async def churn() -> None:
            for _ in range(STEPS_MEANWHILE):  # not as long as it takes: on a busy machine that would be thousands
                if not stop.is_set():
                    await self._step()
                    await asyncio.sleep(STEP_SECONDS)

        churning = asyncio.create_task(churn())
        try:
            yield
        finally:
            stop.set()
            await churning
        for _ in range(STEPS_AFTERWARDS):
            await self._step()
            await asyncio.sleep(STEP_SECONDS)
        for examinee_id in self.examinees:
            if examinee_id not in self.clients:
                await self.join(examinee_id)

    async def _step(self) -> None:
        examinee_id = self._random.choice(self.examinees)
        if examinee_id not in self.clients:
            await self.join(examinee_id)
            return
        server_id, client = self.clients[examinee_id]
        if server_id not in self.closed and not client._reader.done():
            self.drop(examinee_id)

    # -- what proctors were told ---------------------------------------------------------------------

    def told(self) -> dict[str, Counter[str]]:
        """Return how often proctors were told what: for each type of event a count by examinee, each version once."""
        events = {
            (frame["type"], frame["data"]["examineeId"], frame["data"]["version"]): frame
            for connections in self._proctors.values()
            for client in connections
            for frame in client.frames
            if "version" in frame["data"] and "examineeId" in frame["data"] and not frame["data"].get("restated")
        }
        counts: dict[str, Counter[str]] = {}
        for (kind, examinee_id, _), frame in events.items():
            # A loss whose server was slower to tell than the next server is seen as a replacement.
            lost = kind == "examinee_connected" and "replaced" in frame["data"]
            counts.setdefault(kind, Counter())[examinee_id] += 1
            counts.setdefault("examinee_disconnected", Counter())[examinee_id] += lost
        return counts

    def _counted(self, counts: dict[str, Counter[str]], kind: str) -> Counter[str]:
        return +Counter({name: count for name, count in counts.get(kind, {}).items() if name in self.connects})

    def heard(self, name: str, kind: str) -> bool:
        """Return whether a proctor was told an event of this type."""
        return any(frame["type"] == kind for client in self._proctors[name] for frame in client.frames)

    def check_order(self) -> None:
        """Check that no proctor was told an event twice, or after a newer one about the same examinee.

        An event that the proctor's server did not know comes in its own order.
        """
        for name, connections in self._proctors.items():
            for client in connections:
                for examinee_id in self.examinees:
                    for unknown in (True, False):
                        frames = [f for f in client.about(examinee_id) if (f["type"] == "examinee_checked") is unknown]
                        versions = [frame["data"]["version"] for frame in frames]
                        assert versions == sorted(set(versions)), f"{name}: {examinee_id}: {frames}"

    async def everything_told(self, step: str, seconds: float = 40.0) -> None:
        """Wait until each loss and each recovery was told once. Raises `AssertionError` with what is missing."""

        async def told() -> bool:
            if self._failures:
                raise self._failures[0]
            counts = self.told()
            return (
                self._counted(counts, "examinee_connected") == +self.connects
                and self._counted(counts, "examinee_disconnected") == +self.losses
            )

        try:
            await eventually(told, f"{step}: each loss and each recovery is told once", seconds)
        except AssertionError as error:
            counts = self.told()
            connected, lost = (self._counted(counts, f"examinee_{kind}") for kind in ("connected", "disconnected"))
            raise AssertionError(
                f"{error}: {self.losses.total() - lost.total()} of {self.losses.total()} losses and "
                f"{self.connects.total() - connected.total()} of {self.connects.total()} recoveries are missing; "
                f"losses {self.losses - lost} too few, {lost - self.losses} too many; "
                f"recoveries {self.connects - connected} too few, {connected - self.connects} too many"
            ) from None
        self.check_order()
