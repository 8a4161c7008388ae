"""What an actor answers: the requests that it declares, inspections and tails. Without a broker."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from actors.runtime.actor.actor import on
from actors.runtime.actor.receiver import Requests
from actors.runtime.actor.service import Service
from actors.runtime.actor.tail import TailFeed
from protocol.errors import ProtocolError
from protocol.messages.codec import encode
from protocol.messages.operator_requests import Done, Stop, Tail
from tests.unit.runtime.actor.workers import (
    Job,
    MemoryBus,
    Worker,
    receiver,
    running,
)
from tests.unit.support.waiting import until


class Stoppable(Worker):
    receives = (Requests("stop", "worker.stop", Stop, timeout=0.2),)

    @on(Stop)
    async def stop_now(self, request: Stop) -> Done | ProtocolError:
        self.work("stop")
        return Done(text="stopped")


async def test_a_request_is_answered_with_what_the_handler_returns(bus: MemoryBus) -> None:
    worker = Stoppable(bus)
    await running(worker)
    subject, respond = bus.endpoints["stop"]
    assert subject == "worker.stop"
    assert json.loads(await respond(encode(Stop()))) == {"type": "done", "data": {"text": "stopped", "details": {}}}
    refused = json.loads(await respond(b"{}"))
    assert (refused["type"], refused["data"]["requestType"]) == ("error", "stop")


async def test_a_request_that_takes_too_long_is_answered_with_an_error(bus: MemoryBus) -> None:
    class Slow(Stoppable):
        @on(Stop)
        async def wait(self, request: Stop) -> Done:
            await asyncio.Event().wait()
            raise AssertionError

    slow = Slow(bus)
    await running(slow)
    answer = json.loads(await bus.endpoints["stop"][1](encode(Stop())))
    assert (answer["data"]["code"], answer["data"]["message"]) == ("UNAVAILABLE", "not done within 0.2 s; ask again")
    await slow.stop()


async def test_a_request_that_an_actor_cannot_take_is_answered_with_an_error(bus: MemoryBus) -> None:
    begun = asyncio.Event()

    class Stuck(Stoppable):
        mailbox_capacity = 1

        @on(Stop)
        async def wait(self, request: Stop) -> Done:
            begun.set()
            await asyncio.Event().wait()
            raise AssertionError

    stuck = Stuck(bus)
    await running(stuck)
    respond = bus.endpoints["stop"][1]
    asked = [asyncio.ensure_future(respond(encode(Stop())))]
    await begun.wait()
    asked.append(asyncio.ensure_future(respond(encode(Stop()))))
    await until(lambda: len(stuck.mailbox) == 1)
    refused = await respond(encode(Stop()))
    await stuck.stop()
    answers = [json.loads(payload)["data"] for payload in (refused, *(await asyncio.gather(*asked)))]
    assert [(answer["code"], answer["requestType"], answer["message"]) for answer in answers] == [
        ("UNAVAILABLE", "stop", "the mailbox holds 1 messages already; ask again"),
        *[("UNAVAILABLE", "stop", "worker.1 has stopped; ask again")] * 2,
    ]


async def test_an_inspection_names_the_consumers(bus: MemoryBus) -> None:
    class Detailed(Worker):
        def details(self) -> dict[str, Any]:
            return {"jobs": 1}

    assert Detailed(bus).inspection().details == {"consumers": ["WORK/workers"], "jobs": 1}
    assert Stoppable(bus).inspection().details == {}


async def test_a_tail_shows_handled_failed_and_invalid_messages(bus: MemoryBus) -> None:
    tailed: list[dict[str, Any]] = []

    async def send(_inbox: str, payload: bytes) -> None:
        parsed = json.loads(payload)
        tailed.extend(line["data"] for line in (parsed if isinstance(parsed, list) else [parsed]))

    worker = Worker(bus)
    await running(worker)
    worker.tail = TailFeed(worker.address, send)
    worker.tail.watch(Tail(inbox="_INBOX.1", per_second=100, seconds=10))
    worker.errors["b"] = [ValueError("bad b")]
    await receiver(worker, bus).take([bus.delivery("a", "b", 7)])
    await worker.tail.flush()
    assert [(line["message"], line.get("error")) for line in tailed] == [
        ("batch", "ProtocolError: no name"),
        ("Job", None),
        ("Job", "ValueError: bad b"),
    ]


async def test_a_service_has_no_mailbox_and_is_announced_and_inspected_all_the_same(bus: MemoryBus) -> None:
    class Plain(Service):
        """Serves."""

        kind = "plain"

    plain = Plain("plain.1", bus)
    await plain.start()
    assert bus.diary == ["announced"]
    plain.count_handled(Job("a"), 0.0)
    inspection = plain.inspection()
    assert (inspection.state, inspection.handled, inspection.mailbox_depth, inspection.mailbox_capacity) == (
        "running",
        1,
        0,
        1,
    )
    await plain.stop()
    assert bus.diary == ["announced", "withdrawn"]
