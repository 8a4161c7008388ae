"""Actors on a real broker: what they receive, and how one reaches another in a different process."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, ClassVar

import pytest

from actors.runtime.actor.actor import Actor, on
from actors.runtime.actor.addresses import AddressBook
from actors.runtime.actor.receiver import Batch, Consumer, Requests, Retry
from actors.runtime.broker.connection import Bus, Outgoing
from actors.runtime.broker.consumers.consumer import Delivery
from protocol.broker import subjects
from protocol.broker.streams import DEADLETTER, ConsumerSpec, StreamSpec
from protocol.errors import BrokerUnavailable, NoResponders, ProtocolError
from protocol.messages.base import Message
from protocol.messages.codec import Codec, Malformed
from protocol.messages.facts import Enrol
from protocol.messages.frames import Error
from protocol.times import format_time
from tests.integration.support.system import eventually

STREAM = StreamSpec("WORK", ("work.>",), "Of this test", max_age=3600.0)
SPEC = ConsumerSpec(STREAM.name, "workers", ("work.one",), ack_wait=1.0)
TOGETHER = ConsumerSpec(STREAM.name, "together", ("work.many",), ack_wait=1.0)


class Job(Message):
    type: ClassVar[str] = "job"
    name: str


class Done(Message):
    type: ClassVar[str] = "done"
    name: str


CODEC = Codec.of((Job,))
ANSWERS = Codec.of((Done, Error))


def decode(_subject: str, payload: bytes, _headers: Mapping[str, str]) -> Sequence[Any | Malformed]:
    return CODEC.decode_batch(payload)


class Jobs(Batch[Job]):
    """Jobs that are done at once."""


class Worker(Actor):
    """Does jobs. A job named `broker`, `again` or `raise` fails in that way, the first time or always."""

    kind = "worker"
    receives: tuple[Consumer[Any] | Requests, ...] = (
        Consumer(SPEC, decode),
        Consumer(TOGETHER, decode, batch=Jobs),
        Requests("work", "work-now", Job),
    )

    def __init__(self, bus: Bus) -> None:
        super().__init__("worker.1", bus)
        self.done: list[str] = []

    @on(Job)
    async def do(self, job: Job) -> Done:
        if job.name == "raise":
            raise ValueError("cannot be done")
        if self.done.count(f"{job.name} tried") == 0 and job.name in ("broker", "again"):
            self.done.append(f"{job.name} tried")
            raise BrokerUnavailable("away") if job.name == "broker" else Retry(0.05)
        self.done.append(job.name)
        return Done(name=job.name)

    @on(Jobs)
    async def do_all(self, jobs: Jobs) -> None:
        self.done += [job.name for received in jobs.received for job in received.messages]


@pytest.fixture
async def worker(bus: Bus) -> AsyncIterator[Worker]:
    if await bus.stream_config(STREAM.name) is not None:
        await bus._js.delete_stream(STREAM.name)
    for stream in (STREAM, DEADLETTER):
        await bus.apply_stream(stream)
    for consumer in (SPEC, TOGETHER):
        await bus.apply_consumer(consumer)
    worker = Worker(bus)
    await worker.start()
    yield worker
    await worker.stop()


async def wait_for(worker: Worker, *done: str) -> None:
    async def all_done() -> bool:
        return set(done) <= set(worker.done)

    await eventually(all_done, f"{done}")


async def wait_until_settled(bus: Bus) -> None:
    async def nothing_waits() -> bool:
        return all(
            not state.unacknowledged and not state.pending and state.ack_floor
            for state in await bus.consumer_states(STREAM.name)
            if state.name == SPEC.name
        )

    await eventually(nothing_waits, "everything is acknowledged")


async def test_messages_are_handled_and_acknowledged(bus: Bus, worker: Worker) -> None:
    await bus.publish(Outgoing.of("work.one", Job(name="a"), Job(name="b")))
    await bus.publish(Outgoing.of("work.one", Job(name="c")))
    await wait_for(worker, "c")
    await wait_until_settled(bus)
    assert worker.done == ["a", "b", "c"]
    assert worker.handled == 3


async def test_an_error_of_an_engine_and_a_retry_bring_the_message_again(bus: Bus, worker: Worker) -> None:
    for name in ("broker", "again", "c"):
        await bus.publish(Outgoing.of("work.one", Job(name=name)))
    await wait_for(worker, "broker", "again", "c")
    await wait_until_settled(bus)
    assert sorted(worker.done) == ["again", "again tried", "broker", "broker tried", "c"]
    assert worker.handled == 3


async def test_each_message_that_fails_becomes_one_dead_letter(bus: Bus, worker: Worker) -> None:
    await bus.publish(Outgoing("work.one", b'[{"type":"job","data":{"name":"raise"}},{"type":"job"},7]'))
    await bus.publish(Outgoing.of("work.one", Job(name="c")))
    await wait_for(worker, "c")
    await wait_until_settled(bus)
    letters = []
    for number in (1, 2, 3):
        stored = await bus.message_at(DEADLETTER.name, number)
        assert stored is not None
        letters.append(json.loads(stored.payload))
    assert sorted(letter["source"]["index"] for letter in letters) == [0, 1, 2]
    assert await bus.message_at(DEADLETTER.name, 4) is None
    assert (worker.running, worker.handled, worker.failed) == (True, 1, 1)


async def test_a_batch_takes_what_has_arrived(bus: Bus, worker: Worker) -> None:
    await bus.publish_until_stored([Outgoing.of("work.many", Job(name=str(number))) for number in range(100)])
    await wait_for(worker, *(str(number) for number in range(100)))
    assert worker.done == [str(number) for number in range(100)]
    assert worker.handled == 100


async def test_messages_not_handled_before_a_stop_are_handled_by_the_next_actor(bus: Bus, worker: Worker) -> None:
    class Slow(Worker):
        @on(Job)
        async def wait(self, job: Job) -> None:
            self.done.append(job.name)
            await asyncio.Event().wait()

    await worker.stop()
    slow = Slow(bus)
    await slow.start()
    await bus.publish(Outgoing.of("work.one", Job(name="a")))
    await wait_for(slow, "a")
    await slow.stop()
    following = Worker(bus)
    await following.start()
    await wait_for(following, "a")
    await wait_until_settled(bus)
    await following.stop()


async def test_another_actor_is_told_through_the_stream_of_its_address(bus: Bus, worker: Worker) -> None:
    plan = StreamSpec("STATUS", ("status.>",), "Of this test", max_age=3600.0)
    await bus.apply_stream(plan)
    actors = AddressBook(bus)
    enrol = Enrol(plan_id="P001", examinee_id="E001", timestamp=format_time(0))
    for _ in range(2):
        await actors.tell(subjects.status_plan("P001"), enrol, message_id="enrol:1")
    stored = await bus.last_message("STATUS", subjects.status_plan("P001"))
    assert stored is not None
    assert json.loads(stored.payload)["data"]["examineeId"] == "E001"
    assert (await bus.stream_state("STATUS")).messages == 1


async def test_another_actor_is_asked_and_its_refusal_is_raised(bus: Bus, worker: Worker) -> None:
    actors = AddressBook(bus)
    assert await actors.ask("work-now", Job(name="x"), answers=ANSWERS) == Done(name="x")
    with pytest.raises(ProtocolError) as refused:
        await actors.ask("work-now", Done(name="x"), answers=ANSWERS)
    assert refused.value.field == "type"
    with pytest.raises(NoResponders):
        await actors.ask("nobody-is-here", Job(name="x"), answers=ANSWERS)


async def test_a_delivery_is_seen_by_the_handler_that_wants_it(bus: Bus, worker: Worker) -> None:
    class Curious(Worker):
        @on(Job)
        async def look(self, job: Job, delivery: Delivery) -> None:
            self.done.append(f"{job.name} on {delivery.subject}, attempt {delivery.attempt}")

    await worker.stop()
    curious = Curious(bus)
    curious.receives = (Consumer(SPEC, decode),)
    await curious.start()
    await bus.publish(Outgoing.of("work.one", Job(name="a")))
    await wait_for(curious, "a on work.one, attempt 1")
    await curious.stop()
