"""A socket server's queue, `SOCK001_Q`: created by the queue server, read here, growing with the plans it serves."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator

from actors.runtime.bus import Bus
from actors.runtime.pull import Delivery, PullConsumer
from protocol import subjects
from protocol.codec import Codec, encode
from protocol.errors import BrokerUnavailable, ConsumerGone, NoResponders, ProtocolError
from protocol.frames import Error
from protocol.messages import QueueConfig, QueueCreate, QueueCreated
from protocol.streams import queue_id

log = logging.getLogger("examwire.server_queue")

ANSWERS = Codec.of((QueueCreated, Error))
IDLE_PLAN_SECONDS = 60.0


class QueueRefused(ProtocolError):
    """The queue server answered with an error."""


class ServerQueue:
    """`serve_proctors` and `serve_examinees` return when messages for that plan will arrive here."""

    def __init__(self, bus: Bus, server_id: str, incarnation: str, config: QueueConfig) -> None:
        self._bus = bus
        self._server_id = server_id
        self._incarnation = incarnation
        self.config = config
        self._proctor_plans: set[str] = set()
        self._examinee_plans: set[str] = set()
        self._asked: tuple[frozenset[str], frozenset[str]] | None = None
        self._asking = asyncio.Lock()
        self._idle_since: dict[tuple[str, bool], float] = {}
        self.consumers: list[str] = []
        self.changed = asyncio.Event()

    @property
    def plans(self) -> dict[str, list[str]]:
        return {"proctors": sorted(self._proctor_plans), "examinees": sorted(self._examinee_plans)}

    async def create(self, *, reset: bool = False) -> None:
        """Ask the queue server. Raises `QueueRefused`, `NoResponders` or `BrokerUnavailable`."""
        async with self._asking:
            await self._create(reset)

    async def _create(self, reset: bool) -> None:
        wanted = (frozenset(self._proctor_plans), frozenset(self._examinee_plans))
        request = QueueCreate(
            server_id=self._server_id,
            queue_id=queue_id(self._server_id),
            config=self.config,
            incarnation=self._incarnation,
            proctor_plans=sorted(wanted[0]),
            examinee_plans=sorted(wanted[1]),
            reset=reset,
        )
        answer = ANSWERS.decode_one(await self._bus.request(subjects.QUEUE_CREATE, encode(request), timeout=5.0))
        if isinstance(answer, Error):
            raise QueueRefused(answer.code, answer.message, answer.field)
        assert isinstance(answer, QueueCreated)
        self._asked = wanted
        if answer.consumers != self.consumers:
            self.consumers = answer.consumers
            self.changed.set()

    async def serve(self, plan_id: str, *, proctors: bool) -> None:
        """Have the messages for a plan's proctors (or examinees) delivered here.

        Raises what `create` raises. Many callers at once lead to one request.
        """
        plans = self._proctor_plans if proctors else self._examinee_plans
        self._idle_since.pop((plan_id, proctors), None)
        plans.add(plan_id)
        async with self._asking:
            if self._asked is None or plan_id not in self._asked[0 if proctors else 1]:
                try:
                    await self._create(reset=False)
                except BaseException:
                    plans.discard(plan_id)
                    raise

    def serves(self, plan_id: str, *, proctors: bool) -> bool:
        """Whether that is so already; the plan stays a little longer."""
        self._idle_since.pop((plan_id, proctors), None)
        return self._asked is not None and plan_id in self._asked[0 if proctors else 1]

    async def shrink(self, proctor_plans: set[str], examinee_plans: set[str]) -> None:
        """Give up plans that nobody here has belonged to for a while (a hall may be coming back)."""
        now = time.monotonic()
        gone = False
        for plans, held, proctors in (
            (self._proctor_plans, proctor_plans, True),
            (self._examinee_plans, examinee_plans, False),
        ):
            for plan_id in sorted(plans - held):
                since = self._idle_since.setdefault((plan_id, proctors), now)
                if now - since > IDLE_PLAN_SECONDS:
                    plans.discard(plan_id)
                    del self._idle_since[plan_id, proctors]
                    gone = True
        if gone:
            await self.create()

    def batches(self, consumer: str) -> AsyncGenerator[list[Delivery], None]:
        """What arrives on one of the queue's consumers. Raises `ConsumerGone`."""
        own = {"examwire.incarnation": self._incarnation}
        return aiter(PullConsumer(self._bus, "SOCKET", consumer, max_messages=512, metadata=own))

    async def create_surely(self, *, reset: bool = False) -> None:
        """`create`, tried again until it succeeds: the queue is needed again while the server runs."""
        delay = 0.1
        while True:
            try:
                await self.create(reset=reset)
            except (BrokerUnavailable, NoResponders, ProtocolError) as error:
                log.warning("%s: %s; trying again", queue_id(self._server_id), error)
                await asyncio.sleep(delay)
                delay = min(delay * 2, 2.0)
            else:
                return


__all__ = ["ConsumerGone", "QueueRefused", "ServerQueue"]
