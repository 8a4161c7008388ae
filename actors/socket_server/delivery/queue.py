"""A socket server's queue, `SOCK001_Q`: created by the queue server, read here, growing with the plans it serves."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Sequence
from typing import Any

from actors.runtime.broker.connection import Bus
from actors.runtime.broker.consumers.consumer import Delivery
from actors.runtime.broker.consumers.ordered import OrderedConsumer
from protocol.broker import subjects
from protocol.broker.streams import REDELIVERY_SECONDS, queue_id
from protocol.errors import BrokerUnavailable, ConsumerGone, ErrorCode, NoResponders, ProtocolError
from protocol.messages.codec import Codec, encode
from protocol.messages.frames import Error
from protocol.messages.progress import HeldDeliveries
from protocol.messages.server_messages import QueueConfig, QueueCreate, QueueCreated

log = logging.getLogger("examwire.server_queue")

ANSWERS = Codec.of((QueueCreated, Error))
IDLE_PLAN_SECONDS = 60.0


class QueueRefused(ProtocolError):
    """The queue server answered with an error."""


class ServerQueue:
    """Asks the queue server for what this server needs; one request at a time.

    `not_ours` is called when it refuses, for another process holds the lease.
    """

    def __init__(
        self,
        bus: Bus,
        server_id: str,
        incarnation: str,
        config: QueueConfig,
        not_ours: Callable[[], None] = lambda: None,
    ) -> None:
        self._bus = bus
        self._server_id = server_id
        self._incarnation = incarnation
        self.config = config
        self._proctor_plans: set[str] = set()
        self._examinee_plans: set[str] = set()
        self._not_ours = not_ours
        self._asked: tuple[frozenset[str], frozenset[str]] | None = None
        self._asking = asyncio.Lock()
        self._idle_since: dict[tuple[str, bool], float] = {}
        self._readers: dict[str, OrderedConsumer] = {}
        self.consumers: list[str] = []

    @property
    def plans(self) -> dict[str, list[str]]:
        return {"proctors": sorted(self._proctor_plans), "examinees": sorted(self._examinee_plans)}

    async def create(self, *, reset: Sequence[str] = ()) -> None:
        """Ask the queue server; the consumers in `reset` drop their backlog.

        Raises `QueueRefused`, `NoResponders` or `BrokerUnavailable`.
        """
        async with self._asking:
            await self._create(reset)

    async def _create(self, reset: Sequence[str] = ()) -> None:
        wanted = (frozenset(self._proctor_plans), frozenset(self._examinee_plans))
        request = QueueCreate(
            server_id=self._server_id,
            queue_id=queue_id(self._server_id),
            config=self.config,
            incarnation=self._incarnation,
            proctor_plans=sorted(wanted[0]),
            examinee_plans=sorted(wanted[1]),
            reset=list(reset),
        )
        answer = ANSWERS.decode_one(await self._bus.request(subjects.QUEUE_CREATE, encode(request), timeout=5.0))
        if isinstance(answer, Error):
            if answer.code == ErrorCode.NOT_ALLOWED:
                self._not_ours()
            raise QueueRefused(answer.code, answer.message, answer.field)
        assert isinstance(answer, QueueCreated)
        self._asked = wanted
        self.consumers = answer.consumers

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
                    await self._create()
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
        """What arrives on one of the queue's consumers, in order. Raises `ConsumerGone`."""
        own = {"examwire.incarnation": self._incarnation}
        reader = self._readers[consumer] = OrderedConsumer(
            self._bus, "SOCKET", consumer, max_messages=512, metadata=own, keep_alive=REDELIVERY_SECONDS / 4
        )
        return aiter(reader)

    def in_hand(self, consumer: str) -> HeldDeliveries:
        """What is delivered of one of the queue's consumers and not handed over yet."""
        reader = self._readers.get(consumer)
        return reader.in_hand() if reader is not None else HeldDeliveries()

    async def create_surely(self, *, reset: Sequence[str] = ()) -> None:
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


class QueueReader:
    """Reads every consumer of a queue, by a loop each that `spawn` starts. `put` takes a batch.

    `dropped` is awaited when the messages of a consumer were dropped, or may have been: too many waited, or one of
    the queue's consumers had vanished.
    """

    def __init__(
        self,
        queue: ServerQueue,
        spawn: Callable[[Coroutine[Any, Any, None], str], object],
        put: Callable[[list[Delivery]], Awaitable[None]],
        dropped: Callable[[str], Awaitable[None]],
    ) -> None:
        self._queue = queue
        self._spawn = spawn
        self._put = put
        self._dropped = dropped
        self._reading: set[str] = set()

    def follow(self) -> None:
        """Read the consumers that the queue has got since."""
        for consumer in self._queue.consumers:
            if consumer not in self._reading:
                self._reading.add(consumer)
                self._spawn(self._read(consumer), f"queue:{consumer}")

    async def _read(self, consumer: str) -> None:
        queue = self._queue
        while True:
            try:
                async with contextlib.aclosing(queue.batches(consumer)) as batches:
                    async for deliveries in batches:
                        await self._put(deliveries)
                        if deliveries[-1].pending > queue.config.max_size:
                            log.error("%s: %d messages wait; dropping them", consumer, deliveries[-1].pending)
                            await queue.create_surely(reset=[consumer])
                            await self._dropped(consumer)
                            break  # what was fetched before belongs to the backlog, and would be counted again
            except ConsumerGone as gone:
                if consumer not in queue.consumers:
                    self._reading.discard(consumer)  # the queue has shrunk
                    return
                log.error("%s; having it made again", gone)
                await queue.create_surely()
                for one in queue.consumers:
                    # Others may have vanished with it, and are there again before their readers have noticed.
                    await self._dropped(one)
