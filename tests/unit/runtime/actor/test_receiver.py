"""What the runtime does with the messages of a consumer. Without a broker: deliveries and bus are fakes."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import pytest

from actors.runtime.actor.actor import Actor, on
from actors.runtime.actor.receiver import Deliveries, Received, Retry
from actors.runtime.broker.consumers.consumer import Delivery
from protocol.errors import BrokerUnavailable, NotPermitted
from tests.support.metrics import sample
from tests.unit.runtime.actor.workers import (
    SPEC,
    BatchWorker,
    Expired,
    FromMemory,
    Job,
    Jobs,
    MemoryBus,
    Worker,
    decode,
    receiver,
    running,
)
from tests.unit.support.waiting import until

# -- single messages --------------------------------------------------------------------------------------


async def test_an_actor_is_announced_when_its_consumers_exist_and_then_reads_them(bus: MemoryBus) -> None:
    worker = Worker(bus)
    await worker.start()
    assert bus.diary == ["ready WORK/workers", "announced"]
    await bus.arriving.put([bus.delivery("a"), bus.delivery("b")])
    await until(lambda: "ack 2" in bus.diary)
    await worker.stop()
    assert bus.diary[2:] == ["a", "ack 1", "b", "ack 2", "withdrawn"]


async def test_a_delivery_is_acknowledged_after_the_handlers_of_all_its_messages(bus: MemoryBus) -> None:
    worker = Worker(bus)
    await running(worker)
    await receiver(worker, bus).take([bus.delivery("a", "b"), bus.delivery("c")])
    assert bus.diary == ["a", "b", "ack 1", "c", "ack 2"]


async def test_a_handler_may_take_the_delivery(bus: MemoryBus) -> None:
    worker = Worker(bus)
    await running(worker)
    await receiver(worker, bus).take([bus.delivery("-a", attempt=3)])
    assert bus.diary == ["a expired, attempt 3", "ack 1"]
    with pytest.raises(TypeError, match="handles Expired only with its delivery"):
        worker.tell(Expired("a"))


async def test_a_delivery_without_a_message_is_acknowledged(bus: MemoryBus) -> None:
    worker = Worker(bus)
    await running(worker)
    await receiver(worker, bus).take([bus.delivery()])
    assert bus.diary == ["ack 1"]


@pytest.mark.parametrize("error", [BrokerUnavailable("away"), OSError("away"), TimeoutError()])
async def test_after_an_error_of_an_engine_a_delivery_comes_again(bus: MemoryBus, error: Exception) -> None:
    worker = Worker(bus)
    failures = await running(worker)
    worker.errors["a"] = [error]
    await receiver(worker, bus).take([bus.delivery("a"), bus.delivery("b")])
    assert bus.diary == ["again 1 in 1 s", "b", "ack 2"]
    assert (bus.letters, failures, worker.handled, worker.failed) == ([], [], 1, 0)


async def test_what_a_newer_release_has_written_is_counted_and_no_dead_letter(
    bus: MemoryBus, caplog: pytest.LogCaptureFixture
) -> None:
    worker = Worker(bus)
    await running(worker)
    before = sample("examwire_newer_messages_skipped_total", stream="WORK")
    await receiver(worker, bus).take([bus.delivery({"name": "x"}, "a", {"name": "y"}), bus.delivery({"name": "z"})])
    assert (bus.diary, bus.letters) == (["a", "ack 1", "ack 2"], [])
    assert sample("examwire_newer_messages_skipped_total", stream="WORK") - before == 3
    assert sum("newer release" in record.getMessage() for record in caplog.records) == 1


async def test_a_handler_may_ask_for_the_delivery_again(bus: MemoryBus) -> None:
    worker = Worker(bus)
    failures = await running(worker)
    worker.errors["a"] = [Retry(0.25)]
    await receiver(worker, bus).take([bus.delivery("a")])
    assert bus.diary == ["again 1 in 0.25 s"]
    assert (bus.letters, failures, worker.handled, worker.failed) == ([], [], 0, 0)


async def test_a_message_that_makes_its_handler_raise_becomes_a_dead_letter_and_the_others_go_on(
    bus: MemoryBus,
) -> None:
    worker = Worker(bus)
    failures = await running(worker)
    worker.errors["b"] = [ValueError("bad b")]
    await receiver(worker, bus).take([bus.delivery("a", "b", "c")])
    assert bus.diary == ["a", "c", "ack 1"]
    (letter,) = bus.letters
    assert letter["source"] == {"stream": "WORK", "subject": "work.1", "number": 1, "index": 1}
    assert (letter["payload"], letter["reason"]) == ('"b"', "worker failed with ValueError: bad b")
    assert (worker.handled, worker.failed, worker.last_error) == (2, 1, "ValueError: bad b")
    assert failures == []


async def test_an_invalid_message_becomes_a_dead_letter_and_the_others_are_handled(bus: MemoryBus) -> None:
    worker = Worker(bus)
    await running(worker)
    await receiver(worker, bus).take([bus.delivery("a", 7, "c")])
    assert bus.diary == ["a", "c", "ack 1"]
    (letter,) = bus.letters
    assert (letter["payload"], letter["reason"], letter["source"]["index"]) == ("7", "no name", 1)
    assert (worker.handled, worker.failed) == (2, 0)


async def test_a_message_that_comes_twice_has_one_dead_letter(bus: MemoryBus) -> None:
    worker = Worker(bus)
    await running(worker)
    delivery = bus.delivery(7)
    await receiver(worker, bus).take([delivery])
    await receiver(worker, bus).take([delivery])
    assert len({message.message_id for message in bus.published}) == 1


async def test_a_codec_that_raises_makes_a_dead_letter_of_the_payload(bus: MemoryBus) -> None:
    worker = Worker(bus)
    failures = await running(worker)
    await receiver(worker, bus).take([bus.delivery(raw=b"crash"), bus.delivery("b")])
    assert bus.diary == ["ack 1", "b", "ack 2"]
    (letter,) = bus.letters
    assert letter["payload"] == "crash"
    assert "RuntimeError: the codec is broken" in letter["reason"]
    assert (worker.failed, failures) == (1, [])


async def test_a_message_without_a_handler_becomes_a_dead_letter(bus: MemoryBus) -> None:
    class Deaf(Worker):
        receives = (FromMemory(SPEC, lambda subject, payload, headers: ["no handler takes a string"]),)

    deaf = Deaf(bus)
    await running(deaf)
    await receiver(deaf, bus).take([bus.delivery("a")])
    assert bus.diary == ["ack 1"]
    assert "worker has no handler for str" in bus.letters[0]["reason"]


async def test_a_refusal_of_the_broker_fails_the_actor_and_the_delivery_stays_unsettled(bus: MemoryBus) -> None:
    worker = Worker(bus)
    failures = await running(worker)
    worker.errors["a"] = [NotPermitted("may not publish")]
    await bus.arriving.put([bus.delivery("a")])
    await until(lambda: bool(failures))
    assert isinstance(failures[0], NotPermitted)
    assert (bus.diary, bus.letters) == ([], [])


async def test_a_stop_leaves_unhandled_deliveries_unsettled(bus: MemoryBus) -> None:
    class Slow(Worker):
        @on(Job)
        async def wait(self, job: Job) -> None:
            self.diary.append(f"{job.name} begins")
            await asyncio.Event().wait()

    slow = Slow(bus)
    failures = await running(slow)
    await bus.arriving.put([bus.delivery("a"), bus.delivery("b")])
    await until(lambda: "a begins" in bus.diary)
    await slow.stop()
    assert bus.diary == ["a begins", "withdrawn"]
    assert (failures, bus.letters) == ([], [])


async def test_local_messages_and_deliveries_are_handled_one_after_the_other(bus: MemoryBus) -> None:
    worker = Worker(bus)
    await running(worker)
    taking = asyncio.create_task(receiver(worker, bus).take([bus.delivery("a", "b")]))
    await asyncio.sleep(0)
    await worker.ask(Job("told"))
    await taking
    assert sorted(bus.diary) == ["a", "ack 1", "b", "told"]
    assert worker.handled == 3


# -- batches ----------------------------------------------------------------------------------------------


async def test_a_batch_is_handed_over_at_once_and_counts_as_its_messages(bus: MemoryBus) -> None:
    worker = BatchWorker(bus)
    await running(worker)
    await receiver(worker, bus).take([bus.delivery("a", "b"), bus.delivery(), bus.delivery("c")])
    assert bus.diary == ["ack 2", "a,b,c", "ack 1", "ack 3"]
    assert worker.handled == 3


async def test_the_size_of_a_batch_is_limited(bus: MemoryBus) -> None:
    class OneByOne(BatchWorker):
        receives = (FromMemory(SPEC, decode, batch=Jobs, batch_deliveries=1),)

    worker = OneByOne(bus)
    await running(worker)
    await receiver(worker, bus).take([bus.delivery("a", "b"), bus.delivery("c")])
    assert bus.diary == ["a,b", "ack 1", "c", "ack 2"]


async def test_no_deliveries_are_no_batch(bus: MemoryBus) -> None:
    worker = BatchWorker(bus)
    await running(worker)
    await receiver(worker, bus).take([])
    assert bus.diary == []


async def test_of_a_batch_that_fails_only_the_message_that_fails_becomes_a_dead_letter(bus: MemoryBus) -> None:
    worker = BatchWorker(bus)
    failures = await running(worker)
    worker.errors["b"] = [ValueError("bad b")] * 3  # in the batch, in its delivery, and on its own
    await receiver(worker, bus).take([bus.delivery("x"), bus.delivery("a", "b", "c")])
    assert bus.diary == ["x", "ack 1", "a", "c", "ack 2"]
    (letter,) = bus.letters
    assert (letter["payload"], letter["source"]["index"]) == ('"b"', 1)
    assert (worker.handled, worker.failed, failures) == (3, 1, [])


async def test_a_batch_comes_again_after_an_error_of_an_engine(bus: MemoryBus) -> None:
    worker = BatchWorker(bus)
    await running(worker)
    worker.errors["b"] = [BrokerUnavailable("away")]
    await receiver(worker, bus).take([bus.delivery("a"), bus.delivery("b")])
    assert bus.diary == ["again 1 in 1 s", "again 2 in 1 s"]


async def test_a_handler_that_acknowledges_settles_its_deliveries_itself(bus: MemoryBus) -> None:
    class Choosy(BatchWorker):
        receives = (FromMemory(SPEC, decode, batch=Jobs, handler_acks=True),)

        @on(Jobs)
        async def do_some(self, jobs: Jobs) -> None:
            await self.do_all(jobs)
            await jobs.deliveries[0].ack()

    worker = Choosy(bus)
    await running(worker)
    await receiver(worker, bus).take([bus.delivery("a"), bus.delivery("b")])
    assert bus.diary == ["a,b", "ack 1"]
    worker.errors["c"] = [BrokerUnavailable("away")]
    await receiver(worker, bus).take([bus.delivery("c")])
    assert bus.diary[2:] == ["again 3 in 1 s"]
    worker.errors["d"] = [ValueError("bad")]
    await receiver(worker, bus).take([bus.delivery("d")])
    assert bus.diary[3:] == ["ack 4"], "a dead letter does not come again"


async def test_the_first_delivery_of_a_message_may_wait(bus: MemoryBus) -> None:
    class Patient(BatchWorker):
        receives = (FromMemory(SPEC, decode, batch=Jobs, first_delay=0.05),)

    worker = Patient(bus)
    await running(worker)
    await bus.arriving.put([bus.delivery("new"), bus.delivery("repeated", attempt=2)])
    await until(lambda: "ack 1" in bus.diary)
    assert bus.diary == ["repeated", "ack 2", "new", "ack 1"]


def test_a_delivery_knows_whether_its_messages_are_all_that_it_holds(bus: MemoryBus) -> None:
    assert Received(bus.delivery("a"), ["a"], [0], 1).whole
    assert not Received(bus.delivery("a", 7), ["a"], [0], 2).whole


# -- deliveries that the handler settles itself ---------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Portion:
    deliveries: list[Delivery]


class Settler(Actor):
    """Acknowledges deliveries by itself, when `allowed` is set."""

    kind = "settler"
    mailbox_capacity = 1

    def __init__(self, bus: MemoryBus) -> None:
        super().__init__("settler.1", bus)
        self.receives = (Deliveries([SPEC], Portion, bus.arriving.get),)
        self.allowed = asyncio.Event()
        self.at_work = 0
        self.portions: list[int] = []

    @on(Portion)
    async def settle(self, portion: Portion) -> None:
        self.at_work += 1
        assert self.at_work == 1, "handlers overlap"
        await self.allowed.wait()
        for delivery in portion.deliveries:
            await delivery.ack()
        self.portions.append(len(portion.deliveries))
        self.at_work -= 1


async def test_deliveries_are_handed_over_as_they_come_and_settled_by_the_handler_alone() -> None:
    bus = MemoryBus()
    settler = Settler(bus)
    await settler.start()
    assert bus.diary == ["ready WORK/workers", "announced"]
    assert settler.inspection().details["consumers"] == ["WORK/workers"]
    bus.arriving.put_nowait([bus.delivery("a"), bus.delivery(raw=b"no message at all")])
    bus.arriving.put_nowait([bus.delivery("b")])
    await until(lambda: settler.at_work == 1)
    assert bus.diary[2:] == [], "settled before the handler has done so"
    settler.allowed.set()
    await until(lambda: settler.portions == [2, 1])
    assert bus.diary[2:] == ["ack 1", "ack 2", "ack 3"]
    assert bus.published == []
    await settler.stop()


async def test_a_stop_leaves_deliveries_that_are_not_settled_to_the_next_reader() -> None:
    bus = MemoryBus()
    settler = Settler(bus)
    await settler.start()
    for name in "abc":
        bus.arriving.put_nowait([bus.delivery(name)])
    await until(lambda: settler.at_work == 1)
    await settler.stop()
    assert bus.diary == ["ready WORK/workers", "announced", "withdrawn"]
