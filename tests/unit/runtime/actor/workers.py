"""Actors that work on jobs, and a bus in memory that brings them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from actors.runtime.actor.actor import Actor, on
from actors.runtime.actor.receiver import Batch, Consumer, Receiver, Requests
from actors.runtime.broker.connection import Bus, Outgoing, PubAck, Respond
from actors.runtime.broker.consumers.consumer import Delivery
from protocol.broker.streams import ConsumerSpec
from protocol.errors import ErrorCode, NewerFormat, ProtocolError
from protocol.messages.codec import Malformed

SPEC = ConsumerSpec("WORK", "workers")


@dataclass(frozen=True)
class Job:
    name: str


@dataclass(frozen=True)
class Expired:
    name: str


def decode(subject: str, payload: bytes, headers: Mapping[str, str]) -> Sequence[Job | Expired | Malformed]:
    """An array of names. A name that begins with `-` has expired; anything that is no string is malformed.

    An object is of a newer release.
    """
    if payload == b"crash":
        raise RuntimeError("the codec is broken")
    return [
        Malformed(index, NewerFormat("an object"), json.dumps(name).encode())
        if isinstance(name, dict)
        else Malformed(index, ProtocolError(ErrorCode.INVALID_MESSAGE, "no name"), json.dumps(name).encode())
        if not isinstance(name, str)
        else Expired(name[1:])
        if name.startswith("-")
        else Job(name)
        for index, name in enumerate(json.loads(payload))
    ]


class MemoryBus(Bus):
    """Brings what is put into `arriving`; collects dead letters and announcements."""

    def __init__(self) -> None:
        self.name = "test"
        self.diary: list[str] = []
        self.arriving: asyncio.Queue[list[Delivery]] = asyncio.Queue()
        self.published: list[Outgoing] = []
        self.endpoints: dict[str, tuple[str, Respond]] = {}
        self._next = 0

    async def consumer_ready(self, stream: str, name: str) -> None:
        self.diary.append(f"ready {stream}/{name}")

    async def add_service(self, name: str, **options: Any) -> object:
        self.diary.append("announced")
        self.endpoints = dict(options["endpoints"])
        return self

    async def remove_service(self, service: object) -> None:
        self.diary.append("withdrawn")

    async def publish_until_stored(self, messages: Sequence[Outgoing]) -> list[PubAck]:
        self.published += messages
        return [PubAck("DEADLETTER", 1) for _ in messages]

    @property
    def letters(self) -> list[dict[str, Any]]:
        return [json.loads(message.payload) for message in self.published]

    def delivery(self, *names: object, attempt: int = 1, raw: bytes | None = None) -> Delivery:
        """A delivery that writes into the diary how it was settled."""
        self._next += 1
        payload = raw if raw is not None else json.dumps(names).encode()
        return Delivery("work.1", payload, {}, self._next, attempt, 0, 0.0, str(self._next), self._settled, set())

    async def _settled(self, numbers: Sequence[str], verdict: bytes) -> None:
        kind, _, options = verdict.decode().partition(" ")
        for number in numbers:
            if kind == "-NAK":
                self.diary.append(f"again {number} in {json.loads(options)['delay'] / 1e9:g} s")
            else:
                assert kind == "+ACK"
                self.diary.append(f"ack {number}")


@dataclass(frozen=True, slots=True)
class FromMemory(Consumer[Any]):
    """A consumer whose deliveries come from a `MemoryBus`."""

    async def open(self, bus: Bus) -> AsyncGenerator[list[Delivery], None]:
        assert isinstance(bus, MemoryBus)
        while True:
            yield await bus.arriving.get()


class Worker(Actor):
    """Writes down the jobs that it does; `errors`: what the next handler of a job of this name raises."""

    kind = "worker"
    receives: tuple[Consumer[Any] | Requests, ...] = (FromMemory(SPEC, decode),)

    def __init__(self, bus: MemoryBus) -> None:
        super().__init__("worker.1", bus)
        self.diary = bus.diary
        self.errors: dict[str, list[BaseException]] = {}

    def work(self, name: str) -> None:
        if self.errors.get(name):
            raise self.errors[name].pop(0)
        self.diary.append(name)

    @on(Job)
    async def do(self, job: Job) -> None:
        await asyncio.sleep(0)
        self.work(job.name)

    @on(Expired)
    def expire(self, expired: Expired, delivery: Delivery) -> None:
        self.diary.append(f"{expired.name} expired, attempt {delivery.attempt}")


class Jobs(Batch[Any]):
    pass


class BatchWorker(Worker):
    """Does all jobs of a batch at once."""

    kind = "batch-worker"
    receives = (FromMemory(SPEC, decode, batch=Jobs),)

    @on(Jobs)
    async def do_all(self, jobs: Jobs) -> None:
        names = [job.name for received in jobs.received for job in received.messages]
        for name in names:
            if self.errors.get(name):
                raise self.errors[name].pop(0)
        self.diary.append(",".join(names))


async def running(worker: Worker) -> list[BaseException]:
    """Start a worker; the errors with which it fails."""
    failures: list[BaseException] = []
    await worker.start(lambda _, error: failures.append(error))
    worker.diary.clear()
    return failures


def receiver(worker: Worker, bus: MemoryBus) -> Receiver[Any]:
    (consumer,) = worker.receives
    assert isinstance(consumer, Consumer)
    return Receiver(worker, bus, consumer)
