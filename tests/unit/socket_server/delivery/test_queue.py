"""What a socket server asks the queue server for, as its plans come and go."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from actors.socket_server.delivery import queue
from actors.socket_server.delivery.queue import ServerQueue
from protocol.broker.streams import PLANS_A_LANE, QUEUE_LANES, queue_consumers
from protocol.errors import ErrorCode, NotPermitted, ProtocolError
from protocol.messages.codec import Codec, encode
from protocol.messages.frames import error_frame
from protocol.messages.server_messages import QueueCreate, QueueCreated
from tests.unit.support.socket_sessions import fake_context

FULL = QUEUE_LANES * PLANS_A_LANE


class QueueServerDouble:
    """The bus, with a queue server on it: the filters of each consumer, and how many filters each update has.

    `knows_lanes`: it is no queue server of an earlier release; `may_read_lanes`: the permissions are not, either.
    """

    def __init__(self) -> None:
        self.filters: dict[str, tuple[str, ...]] = {}
        self.updates: list[int] = []
        self.knows_lanes = self.may_read_lanes = True

    async def request(self, subject: str, payload: bytes, timeout: float) -> bytes:
        await asyncio.sleep(0)
        request = Codec.of((QueueCreate,)).decode_one(payload)
        assert isinstance(request, QueueCreate)
        if not self.knows_lanes and request.queue_id != "SOCK001_Q":
            refusal = ProtocolError(ErrorCode.INVALID_FIELD, "must be SOCK001_Q", "data.queueId")
            return encode(error_frame(refusal))
        for consumer in (request.queue_id, f"{request.queue_id}_BROADCAST"):
            self.filters.pop(consumer, None)
        created = {spec.name: spec.filters for spec in queue_consumers(request)}
        self.filters |= created
        self.updates.append(sum(len(filters) for filters in created.values()))
        answer = QueueCreated(server_id="SOCK001", queue_id=request.queue_id, stream="SOCKET", consumers=[*created])
        return encode(answer)

    async def consumer_config(self, stream: str, name: str) -> dict[str, Any]:
        if not self.may_read_lanes:
            raise NotPermitted(f"not permitted: {name}")
        return {}

    def delivered(self) -> list[str]:
        return sorted(subject for filters in self.filters.values() for subject in filters)


@pytest.fixture
def server() -> QueueServerDouble:
    return QueueServerDouble()


@pytest.fixture
async def server_queue(server: QueueServerDouble) -> ServerQueue:
    made = ServerQueue(fake_context(bus=server), cast(Any, None))
    await made.create()
    return made


def subjects_of(*plans: str) -> list[str]:
    each = [(f"socket.plan.{plan}.examinee.*", f"socket.plan.{plan}.examinees") for plan in plans]
    proctors = [f"socket.plan.{plan}.proctors" for plan in plans]
    return sorted(["socket.SOCK001", *proctors, *(subject for pair in each for subject in pair)])


async def join(server_queue: ServerQueue, plan: str) -> None:
    await server_queue.serve(plan, proctors=False)
    await server_queue.serve(plan, proctors=True)


async def test_a_join_costs_the_same_at_ten_plans_and_at_a_thousand(
    server: QueueServerDouble, server_queue: ServerQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    plans = [f"P{number}" for number in range(1000)]
    for plan in plans:
        await join(server_queue, plan)
    assert max(server.updates) <= 3 * PLANS_A_LANE + 1, "filters that one update names"
    assert server.delivered() == subjects_of(*plans)
    assert server_queue.consumers == list(server.filters)
    assert all(
        plan in server_queue.plans_of(consumer) for plan, consumer in [("P0", "SOCK001_Q"), ("P64", "SOCK001_Q_1")]
    )

    monkeypatch.setattr(queue, "IDLE_PLAN_SECONDS", -1.0)
    server.updates.clear()
    await server_queue.shrink({*plans} - {"P70"}, {*plans} - {"P70"})
    assert len(server.updates) == 1
    assert server.updates[0] <= 3 * PLANS_A_LANE
    await join(server_queue, "P1000")
    assert "P1000" in server_queue.plans_of("SOCK001_Q_1"), "it takes the room that one has left"
    await server_queue.shrink(set(), set())
    assert server.delivered() == ["socket.SOCK001"]
    assert server_queue.consumers == ["SOCK001_Q"]


async def test_when_all_lanes_are_full_they_grow_evenly(server: QueueServerDouble, server_queue: ServerQueue) -> None:
    plans = [f"P{number}" for number in range(FULL + QUEUE_LANES)]
    await asyncio.gather(*(server_queue.serve(plan, proctors=True) for plan in plans))
    sizes = [len(filters) for name, filters in server.filters.items() if name.endswith("_BROADCAST")]
    assert sizes == [PLANS_A_LANE + 1] * QUEUE_LANES
    assert len(server.updates) <= 2 + QUEUE_LANES, "who joins at once shares one update for each lane"


@pytest.mark.parametrize("missing", ["knows_lanes", "may_read_lanes"])
async def test_beside_an_earlier_release_all_plans_come_by_the_first_lane(
    server: QueueServerDouble, server_queue: ServerQueue, missing: str
) -> None:
    setattr(server, missing, False)
    plans = [f"P{number}" for number in range(PLANS_A_LANE + 3)]
    await asyncio.gather(*(join(server_queue, plan) for plan in plans))
    assert [*server.filters] == server_queue.consumers == ["SOCK001_Q", "SOCK001_Q_BROADCAST"]
    assert server.delivered() == subjects_of(*plans)
    assert all(server_queue.serves(plan, proctors=True) for plan in plans)


async def test_when_the_queue_server_is_set_back_to_an_earlier_release_every_plan_is_served_again(
    server: QueueServerDouble, server_queue: ServerQueue
) -> None:
    plans = [f"P{number}" for number in range(PLANS_A_LANE + 3)]
    for plan in plans:
        await join(server_queue, plan)
    server.knows_lanes = False
    server.filters.clear()
    await server_queue.create()
    assert server.delivered() == subjects_of(*plans)


async def test_a_join_that_was_refused_leaves_nothing_and_can_be_repeated(
    server: QueueServerDouble, server_queue: ServerQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse(subject: str, payload: bytes, timeout: float) -> bytes:
        return encode(error_frame(ProtocolError(ErrorCode.UNAVAILABLE, "NATS is away")))

    with monkeypatch.context() as patch:
        patch.setattr(server, "request", refuse)
        with pytest.raises(queue.QueueRefused):
            await server_queue.serve("P001", proctors=False)
    assert not server_queue.serves("P001", proctors=False)
    assert server_queue.plans == {"proctors": [], "examinees": []}
    await join(server_queue, "P001")
    assert server.delivered() == subjects_of("P001")
