"""An exam in which examinees keep dropping and coming back, and what is true about it."""

from __future__ import annotations

import asyncio
import random

from tests.integration.support.system import RawClient, System, eventually

EXAMINEES = [f"E{number:03}" for number in range(24)]


class Exam:
    """Examinees who keep dropping and coming back, and what is true about them."""

    def __init__(self, system: System, seed: int, plan_id: str = "P001") -> None:
        self.system = system
        self.plan_id = plan_id
        self.random = random.Random(seed)
        self.clients: dict[str, RawClient] = {}
        self.numbers = dict.fromkeys(EXAMINEES, 0)
        self.losses = dict.fromkeys(EXAMINEES, 0)
        self.connects = dict.fromkeys(EXAMINEES, 0)

    def server_for(self, examinee_id: str) -> str:
        return self.random.choice(["SOCK001", "SOCK002"])

    async def join(self, examinee_id: str) -> None:
        server_id = self.server_for(examinee_id)
        self.numbers[examinee_id] += 1
        while True:
            try:
                client = await self.system.raw(server_id)
                token = self.system.token("examinee", examinee_id, self.plan_id)
                await client.hello(token, f"browser-{examinee_id}", self.numbers[examinee_id])
            except Exception:  # refused while NATS is away: 503, come back
                await asyncio.sleep(0.1)
                continue
            break
        self.clients[examinee_id] = client
        self.connects[examinee_id] += 1

    def drop(self, examinee_id: str) -> None:
        self.clients.pop(examinee_id).abort()
        self.losses[examinee_id] += 1

    async def step(self) -> None:
        examinee_id = self.random.choice(EXAMINEES)
        if examinee_id in self.clients:
            self.drop(examinee_id)
        else:
            await self.join(examinee_id)

    async def everybody_agrees(self, proctors: list[RawClient]) -> None:
        """Redis, the log and every proctor's screen, once things are quiet."""
        for examinee_id in EXAMINEES:
            expected = "CONNECTED" if examinee_id in self.clients else "DISCONNECTED"
            await self.system.status(examinee_id, expected, self.plan_id)

            async def seen(examinee_id: str = examinee_id) -> bool:
                return all(
                    self._count(proctor, examinee_id) == (self.connects[examinee_id], self.losses[examinee_id])
                    for proctor in proctors
                )

            try:
                await eventually(seen, f"{examinee_id}: each recovery and each loss is seen once")
            except AssertionError as error:
                frames = [proctor.about(examinee_id) for proctor in proctors]
                raise AssertionError(
                    f"{error}: {self.connects[examinee_id]} {self.losses[examinee_id]} {frames}"
                ) from None
        for proctor in proctors:
            for examinee_id in EXAMINEES:
                versions = [frame["data"]["version"] for frame in proctor.about(examinee_id)]
                assert versions == sorted(set(versions)), f"{examinee_id}: doubled or out of order"

    def _count(self, proctor: RawClient, examinee_id: str) -> tuple[int, int]:
        frames = proctor.about(examinee_id)
        kinds = [frame["type"] for frame in frames]
        # A loss whose server could not tell of it in time is seen as the replacement by the next connection.
        replaced = sum("replaced" in frame["data"] for frame in frames)
        return kinds.count("examinee_connected"), kinds.count("examinee_disconnected") + replaced
