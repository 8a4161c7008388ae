"""The queue of a socket server, `SOCK001_Q`: created by the queue server, extended with each plan that is served."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Iterable, Sequence

from actors.runtime.broker.consumers.consumer import Delivery
from actors.runtime.broker.consumers.ordered import OrderedConsumer
from actors.sessions.context import ServerContext
from actors.socket_server.lease import LeaseKeeper
from protocol.broker import subjects
from protocol.broker.streams import PLANS_A_LANE, REDELIVERY_SECONDS, SOCKET, queue_ids
from protocol.errors import BrokerUnavailable, ErrorCode, NoResponders, NotPermitted, ProtocolError
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


Use = tuple[str, bool]
"""What a queue receives: the messages of a plan, for its proctors (True) or its examinees."""


class _Lane:
    """Some of the plans of a queue, and the consumers that bring their messages. `created_for`: those that they bring.

    `created_for` is `None` before the consumers are created.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.wanted: set[Use] = set()
        self.plans: set[str] = set()
        self.created_for: frozenset[Use] | None = None
        self.consumers: list[str] = []

    def add(self, use: Use) -> None:
        self.wanted.add(use)
        self.plans.add(use[0])

    def discard(self, use: Use) -> None:
        self.wanted.discard(use)
        if not self.wanted & {(use[0], True), (use[0], False)}:
            self.plans.discard(use[0])


class ServerQueue:
    """Asks the queue server for the consumers that this server needs, one request at a time.

    queue = ServerQueue(context, lease)
    await queue.create()
    await queue.serve("P001", proctors=True)
    async for deliveries in queue.batches("SOCK001_Q"): ...

    `consumers` are the names of the consumers that it has; `changed` is set when there may be others. The plans are
    spread over lanes, so that one more plan costs the same however many there are; what is for the server itself comes
    on the first lane.
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
        self.changed = asyncio.Event()
        self._lanes = [_Lane(name) for name in queue_ids(context.server_id)]
        self._lane_of: dict[Use, _Lane] = {}
        self._further_lanes = True
        self._request = asyncio.Lock()
        self._idle_since: dict[Use, float] = {}
        self._open_consumers: dict[str, OrderedConsumer] = {}

    @property
    def consumers(self) -> list[str]:
        """The names of the consumers."""
        return [consumer for lane in self._lanes for consumer in lane.consumers]

    @property
    def plans(self) -> dict[str, list[str]]:
        """The plans whose messages come here, for proctors and for examinees."""
        uses = sorted(self._lane_of)
        return {
            "proctors": [plan_id for plan_id, proctors in uses if proctors],
            "examinees": [plan_id for plan_id, proctors in uses if not proctors],
        }

    def plans_of(self, consumer: str) -> set[str]:
        """Return the plans whose messages come by the lane of a consumer."""
        return {plan_id for lane in self._lanes if consumer in lane.consumers for plan_id in lane.plans}

    async def create(self, *, reset: Sequence[str] = ()) -> None:
        """Have the consumers created, or brought to what is needed; those in `reset` drop their backlog.

        Raises `QueueRefused`, `NoResponders` or `BrokerUnavailable`.
        """
        async with self._request:
            first, *further = self._lanes
            for lane in further:
                if lane.wanted or lane.consumers:
                    await self._create_further(lane, lane.wanted, reset)
            await self._create(first, reset)

    async def serve(self, plan_id: str, *, proctors: bool) -> None:
        """Have the messages for the proctors (or examinees) of a plan delivered here.

        Raises what `create` raises. Many callers at once lead to one request for each lane.
        """
        use = plan_id, proctors
        self._idle_since.pop(use, None)
        self._assign(use)
        async with self._request:
            if self._is_served(use):
                return
            lane = self._assign(use)  # again: an earlier caller may have failed
            try:
                if lane is not self._lanes[0]:
                    await self._create_further(lane, {use})
                if not self._is_served(use):
                    await self._create(self._lanes[0])
            except BaseException:
                self._forget(use)
                raise

    def serves(self, plan_id: str, *, proctors: bool) -> bool:
        """Return whether the messages of a plan are delivered here already. The plan counts as in use again."""
        use = plan_id, proctors
        self._idle_since.pop(use, None)
        return self._is_served(use)

    async def shrink(self, proctor_plans: set[str], examinee_plans: set[str]) -> None:
        """Give up plans without clients for `IDLE_PLAN_SECONDS`. The arguments are the plans that have clients."""
        now = time.monotonic()
        in_use = {(plan_id, True) for plan_id in proctor_plans} | {(plan_id, False) for plan_id in examinee_plans}
        for use in self._lane_of.keys() - in_use:
            if now - self._idle_since.setdefault(use, now) > IDLE_PLAN_SECONDS:
                self._forget(use)
        async with self._request:
            for lane in self._lanes:
                if lane.created_for is not None and lane.created_for - lane.wanted:
                    await self._create(lane)

    # -- lanes ---------------------------------------------------------------------------------------

    def _is_served(self, use: Use) -> bool:
        lane = self._lane_of.get(use)
        return lane is not None and lane.created_for is not None and use in lane.created_for

    def _assign(self, use: Use) -> _Lane:
        """Return the lane of a plan: a new one gets the first that has room or, when all are full, the smallest."""
        plan_id, proctors = use
        if (assigned := self._lane_of.get(use)) is not None:
            return assigned
        lane = self._lane_of.get((plan_id, not proctors))
        if lane is None:
            lanes = self._lanes if self._further_lanes else self._lanes[:1]
            with_room = (lane for lane in lanes if len(lane.plans) < PLANS_A_LANE)
            lane = next(with_room, None) or min(lanes, key=lambda lane: len(lane.plans))
        lane.add(use)
        self._lane_of[use] = lane
        return lane

    def _forget(self, use: Use) -> None:
        if (lane := self._lane_of.pop(use, None)) is not None:
            lane.discard(use)
        self._idle_since.pop(use, None)

    async def _create_further(self, lane: _Lane, uses: Iterable[Use], reset: Sequence[str] = ()) -> None:
        """Create a lane that is not the first; where that is not possible, move `uses` to the first one.

        A queue server of an earlier release knows no further lanes; by the permissions of one, NATS lets nobody read
        them.
        """
        try:
            await self._create(lane, reset)
            return
        except QueueRefused as refused:
            if refused.field != "data.queueId":
                raise
            log.warning("%s: %s: its plans come by the first lane", lane.name, refused)
        except NotPermitted as refused:
            log.warning("%s: %s: all plans come by the first lane", lane.name, refused)
            self._further_lanes, uses = False, lane.wanted
        for use in list(uses):
            lane.discard(use)
            self._lanes[0].add(use)
            self._lane_of[use] = self._lanes[0]
        if not self._further_lanes:
            await self._create(lane)  # without plans: what nobody may read is removed

    async def _create(self, lane: _Lane, reset: Sequence[str] = ()) -> None:
        wanted = frozenset(lane.wanted)
        request = QueueCreate(
            server_id=self._server_id,
            queue_id=lane.name,
            config=self.config,
            incarnation=self._incarnation,
            proctor_plans=sorted(plan_id for plan_id, proctors in wanted if proctors),
            examinee_plans=sorted(plan_id for plan_id, proctors in wanted if not proctors),
            reset=[consumer for consumer in reset if consumer in lane.consumers],
        )
        answer = ANSWERS.decode_one(await self._bus.request(subjects.QUEUE_CREATE, encode(request), timeout=5.0))
        if isinstance(answer, Error):
            if answer.code == ErrorCode.NOT_ALLOWED:
                self._lease.renew_soon()  # another process seems to hold it
            raise QueueRefused(answer.code, answer.message, answer.field)
        assert isinstance(answer, QueueCreated)
        if lane is not self._lanes[0]:
            for consumer in set(answer.consumers) - set(lane.consumers):
                await self._bus.consumer_config(SOCKET.name, consumer)  # raises `NotPermitted` if it cannot be read
        lane.created_for = wanted
        lane.consumers = answer.consumers
        self.changed.set()

    # -- reading -------------------------------------------------------------------------------------

    def batches(self, consumer: str) -> AsyncGenerator[list[Delivery], None]:
        """Yield what arrives on one of the consumers, in order. Raises `ConsumerGone`."""
        own = {"examwire.incarnation": self._incarnation}
        opened = self._open_consumers[consumer] = OrderedConsumer(
            self._bus, SOCKET.name, consumer, max_messages=512, metadata=own, keep_alive=REDELIVERY_SECONDS / 4
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
                log.warning("%s: %s; trying again", self._lanes[0].name, error)
                await asyncio.sleep(delay)
                delay = min(delay * 2, 2.0)
            else:
                return
