"""The queue of a socket server, `SOCK001_Q`: created by the queue server, extended with each plan that is served."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Sequence

from actors.runtime.broker.consumers.consumer import Delivery
from actors.runtime.broker.consumers.ordered import OrderedConsumer
from actors.sessions.context import ServerContext
from actors.socket_server.lease import LeaseKeeper
from protocol.broker import subjects
from protocol.broker.streams import REDELIVERY_SECONDS, queue_id
from protocol.errors import BrokerUnavailable, ErrorCode, NoResponders, ProtocolError
from protocol.messages.codec import Codec, encode
from protocol.messages.frames import Error
from protocol.messages.progress import HeldDeliveries
from protocol.messages.server_messages import QueueConfig, QueueCreate, QueueCreated

log = logging.getLogger("examwire.server_queue")

ANSWERS = Codec.of((QueueCreated, Error))

IDLE_PLAN_SECONDS = 60.0
"""A plan without clients is given up after so long: its hall may be coming back."""


class QueueRefused(ProtocolError):
    """The queue server answered with an error."""


class ServerQueue:
    """Asks the queue server for the consumers that this server needs, one request at a time.

    queue = ServerQueue(context, lease)
    await queue.create()
    await queue.serve("P001", proctors=True)
    async for deliveries in queue.batches("SOCK001_Q"): ...

    `consumers` are the names of the consumers that it has; `changed` is set when there may be others.
    """

    def __init__(self, context: ServerContext, lease: LeaseKeeper) -> None:
        socket = context.settings.socket
        self._bus = context.bus
        self._server_id = context.server_id
        self._incarnation = context.incarnation
        self._lease = lease
        self.config = QueueConfig(
            max_size=socket.queue_max_size,
            expire_time=socket.queue_expire_seconds,
            priority=socket.queue_priority,
        )
        self.consumers: list[str] = []
        self.changed = asyncio.Event()
        self._proctor_plans: set[str] = set()
        self._examinee_plans: set[str] = set()
        self._created_for: tuple[frozenset[str], frozenset[str]] | None = None
        self._request = asyncio.Lock()
        self._idle_since: dict[tuple[str, bool], float] = {}
        self._open_consumers: dict[str, OrderedConsumer] = {}

    @property
    def plans(self) -> dict[str, list[str]]:
        """The plans whose messages come here, for proctors and for examinees."""
        return {"proctors": sorted(self._proctor_plans), "examinees": sorted(self._examinee_plans)}

    async def create(self, *, reset: Sequence[str] = ()) -> None:
        """Have the consumers created, or brought to what is needed; those in `reset` drop their backlog.

        Raises `QueueRefused`, `NoResponders` or `BrokerUnavailable`.
        """
        async with self._request:
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
                self._lease.renew_soon()  # another process seems to hold it
            raise QueueRefused(answer.code, answer.message, answer.field)
        assert isinstance(answer, QueueCreated)
        self._created_for = wanted
        self.consumers = answer.consumers
        self.changed.set()

    async def serve(self, plan_id: str, *, proctors: bool) -> None:
        """Have the messages for the proctors (or examinees) of a plan delivered here.

        Raises what `create` raises. Many callers at once lead to one request.
        """
        plans = self._proctor_plans if proctors else self._examinee_plans
        self._idle_since.pop((plan_id, proctors), None)
        plans.add(plan_id)
        async with self._request:
            if self._created_for is None or plan_id not in self._created_for[0 if proctors else 1]:
                try:
                    await self._create()
                except BaseException:
                    plans.discard(plan_id)
                    raise

    def serves(self, plan_id: str, *, proctors: bool) -> bool:
        """Return whether the messages of a plan are delivered here already. The plan counts as in use again."""
        self._idle_since.pop((plan_id, proctors), None)
        return self._created_for is not None and plan_id in self._created_for[0 if proctors else 1]

    async def shrink(self, proctor_plans: set[str], examinee_plans: set[str]) -> None:
        """Give up plans without clients for `IDLE_PLAN_SECONDS`. The arguments are the plans that have clients."""
        now = time.monotonic()
        given_up = False
        for plans, in_use, proctors in (
            (self._proctor_plans, proctor_plans, True),
            (self._examinee_plans, examinee_plans, False),
        ):
            for plan_id in sorted(plans - in_use):
                since = self._idle_since.setdefault((plan_id, proctors), now)
                if now - since > IDLE_PLAN_SECONDS:
                    plans.discard(plan_id)
                    del self._idle_since[plan_id, proctors]
                    given_up = True
        if given_up:
            await self.create()

    def batches(self, consumer: str) -> AsyncGenerator[list[Delivery], None]:
        """Yield what arrives on one of the consumers, in order. Raises `ConsumerGone`."""
        own = {"examwire.incarnation": self._incarnation}
        opened = self._open_consumers[consumer] = OrderedConsumer(
            self._bus, "SOCKET", consumer, max_messages=512, metadata=own, keep_alive=REDELIVERY_SECONDS / 4
        )
        return aiter(opened)

    def unsettled(self, consumer: str) -> HeldDeliveries:
        """Return what one of the consumers has delivered, and is not acknowledged yet."""
        opened = self._open_consumers.get(consumer)
        return opened.in_hand() if opened is not None else HeldDeliveries()

    async def create_surely(self, *, reset: Sequence[str] = ()) -> None:
        """Create as `create` does, and try again until it succeeds."""
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
