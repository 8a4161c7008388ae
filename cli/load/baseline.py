"""Measure the engines alone, without our logic, for `examwire load --baseline`.

Four processes, as lean as nats-py, redis-py and websockets allow: `publisher` publishes to a stream and awaits the
ack; `keeper` pulls, reads and writes Redis in one round trip each, publishes to another stream and acks; `sender` pulls
that stream and sends to a WebSocket; `receiver` records the arrival. Broker, stream settings, Redis, payload sizes and
uvloop are the same as for the roles.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import Any, cast

import nats
import uvloop
from nats.aio.client import Client
from nats.aio.msg import Msg
from redis.asyncio import Redis
from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection, serve

from actors.runtime.broker.connection import Bus
from cli.load.process import LoadProcess
from cli.load.workers import raise_file_limit, read_commands, write_event
from protocol.broker.streams import SOCKET, STATE_MANAGERS, STATUS
from protocol.errors import RoleFailed
from protocol.messages.codec import MAX_BATCH_MESSAGES

IN = dataclasses.replace(
    STATUS,
    name="LOADBASE_IN",
    subjects=("loadbase.in",),
    description="examwire load",
    first_seq_from_clock=False,
    subject_transform=None,
)
OUT = dataclasses.replace(SOCKET, name="LOADBASE_OUT", subjects=("loadbase.out",), description="examwire load")
_READER = dataclasses.replace(STATE_MANAGERS[0], pin_seconds=None, max_ack_pending=10_000)
KEEPER = dataclasses.replace(_READER, stream=IN.name, name="keeper", filters=IN.subjects, description="")
SENDER = dataclasses.replace(_READER, stream=OUT.name, name="sender", filters=OUT.subjects, description="")

PULL_SECONDS = 30
PATIENCE_SECONDS = 20.0
WARM_UP = 30
HISTORY = "x" * 450  # the size of a record's history after a loss

_WRITE = """
local rev = redis.call('HGET', KEYS[1], 'rev')
redis.call('HSET', KEYS[1], unpack(ARGV, 2))
return 1"""


# -- the processes -------------------------------------------------------------------------------------


def _message(number: int) -> dict[str, Any]:
    """Return a message with the fields and size of a loss."""
    return {
        "type": "connection_status",
        "data": {
            "planId": "P001",
            "examineeId": f"E{number:05d}",
            "timestamp": "2026-01-01T09:15:00.000Z",
            "socketId": f"SOCK001-{number:016x}",
            "status": "DISCONNECTED",
            "reason": "SOCKET_CLOSED",
            "serverId": "SOCK001",
            "incarnation": "0123456789abcdef",
            "clientId": f"load-E{number:05d}",
            "connectionNo": number,
        },
    }


async def publisher(nats_url: str) -> None:
    """Publish on command `publish` (`first`, `count`): all messages at once, in arrays of up to 256."""
    nc = await nats.connect(nats_url)
    js = nc.jetstream()
    tasks: set[asyncio.Task[None]] = set()

    async def publish(first: int, count: int) -> None:
        numbers = range(first, first + count)
        at = time.time()
        await asyncio.gather(
            *(_publish(js, "loadbase.in", batch) for batch in _cut(numbers)),
        )
        write_event("published", first=first, count=count, at=at)

    def obey(command: dict[str, Any]) -> None:
        task = asyncio.get_running_loop().create_task(publish(command["first"], command["count"]))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    write_event("ready")
    await read_commands(obey)
    await nc.close()


def _cut(numbers: range) -> list[range]:
    return [numbers[start : start + MAX_BATCH_MESSAGES] for start in range(0, len(numbers), MAX_BATCH_MESSAGES)]


async def _publish(js: Any, subject: str, numbers: range) -> None:
    messages = [_message(number) for number in numbers]
    payload = json.dumps(messages[0] if len(messages) == 1 else messages).encode()
    await js.publish(subject, payload, headers={"Nats-Msg-Id": f"{subject}:{numbers[0]}"})


async def _pull(nc: Client, stream: str, consumer: str) -> AsyncIterator[Msg]:
    """Yield the messages of a durable consumer, with one long pull open all the time."""
    inbox = nc.new_inbox()
    sub = await nc.subscribe(inbox)
    request = json.dumps({"batch": 256, "expires": PULL_SECONDS * 10**9}).encode()
    left = 0
    messages = aiter(sub.messages)
    while True:
        if left <= 0:
            await nc.publish(f"$JS.API.CONSUMER.MSG.NEXT.{stream}.{consumer}", request, reply=inbox)
            left = 256
        msg = await anext(messages)
        if msg.reply:
            left -= 1
            yield msg
        else:  # the pull has expired
            left = 0


async def keeper(nats_url: str, redis_url: str) -> None:
    """Read and write Redis, publish to the second stream and ack, for each message."""
    nc = await nats.connect(nats_url)
    js = nc.jetstream()
    redis = Redis.from_url(redis_url, decode_responses=True)
    await redis.ping()
    working = asyncio.create_task(_keep(nc, js, redis))
    write_event("ready")
    await _until_stdin_ends(working)
    await redis.aclose()
    await nc.close()


async def _keep(nc: Client, js: Any, redis: Redis) -> None:
    async for msg in _pull(nc, IN.name, KEEPER.name):
        parsed = json.loads(msg.data)
        items = [message["data"] for message in (parsed if isinstance(parsed, list) else [parsed])]
        pipe = redis.pipeline(transaction=False)
        for item in items:
            pipe.hmget(f"loadbase:{item['examineeId']}", ["rev", "history"])
        records = await pipe.execute()
        pipe = redis.pipeline(transaction=False)
        for item, (rev, _history) in zip(items, records, strict=True):
            fields = {**item, "rev": str(int(rev or 0) + 1), "history": HISTORY}
            flat = [str(part) for pair in fields.items() for part in pair]
            pipe.eval(_WRITE, 1, f"loadbase:{item['examineeId']}", rev or "0", *flat)
            pipe.hset(f"loadbase:socket:{item['socketId']}", mapping={"status": "DISCONNECTED", "version": "1"})
        await pipe.execute()
        sequence = msg.metadata.sequence.stream
        await js.publish("loadbase.out", msg.data, headers={"Nats-Msg-Id": f"out:{sequence}"})
        await msg.ack()


async def sender(nats_url: str) -> None:
    """Send the messages of the second stream to a WebSocket client, the receiver."""
    nc = await nats.connect(nats_url)
    clients: set[ServerConnection] = set()

    async def serve_one(client: ServerConnection) -> None:
        clients.add(client)
        await client.wait_closed()
        clients.discard(client)

    async def send() -> None:
        async for msg in _pull(nc, OUT.name, SENDER.name):
            for client in clients:
                await client.send(msg.data, text=True)
            await msg.ack()

    async with serve(serve_one, "127.0.0.1", 0, compression=None) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        working = asyncio.create_task(send())
        write_event("ready", url=f"ws://127.0.0.1:{port}")
        await _until_stdin_ends(working)
    await nc.close()


async def receiver(url: str) -> None:
    """Report the arrival time of each frame."""
    async with connect(url, compression=None, proxy=None, max_size=None) as ws:
        working = asyncio.create_task(_receive(ws))
        write_event("ready")
        await _until_stdin_ends(working)


async def _receive(ws: Any) -> None:
    async for frame in ws:
        parsed = json.loads(frame)
        at = time.time()
        messages = parsed if isinstance(parsed, list) else [parsed]
        write_event("seen", numbers=[message["data"]["connectionNo"] for message in messages], at=at)


async def _until_stdin_ends(working: asyncio.Task[None]) -> None:
    waiting = asyncio.create_task(read_commands(lambda _: None))
    await asyncio.wait({working, waiting}, return_when=asyncio.FIRST_COMPLETED)
    if working.done():
        await working  # raises what stopped it
    working.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await working


# -- in the process of `examwire load` -----------------------------------------------------------------


class BaselinePath:
    """The four processes, and the messages sent through them. `stop` deletes their streams and keys.

    Example::

        baseline = BaselinePath(nats_url, redis_url, environment)
        await baseline.start()
        seconds = await baseline.send_one()
        await baseline.stop()
    """

    def __init__(self, nats_url: str, redis_url: str, environment: Mapping[str, str]) -> None:
        self._nats_url = nats_url
        self._redis_url = redis_url
        self._environment = environment
        self._processes: dict[str, LoadProcess] = {}
        self._bus: Bus | None = None
        self._next = 0
        self._sent: dict[int, float] = {}
        self._seen: dict[int, float] = {}
        self._changed = asyncio.Event()
        self._broken: str | None = None

    async def start(self) -> None:
        """Create the streams, start the processes, and send `WARM_UP` messages. Raises `RoleFailed`."""
        self._bus = await Bus.connect(self._nats_url, "load-baseline")
        for stream in (IN, OUT):
            await self._bus.apply_stream(stream)
        for consumer in (KEEPER, SENDER):
            await self._bus.apply_consumer(consumer, anew=True)
        await self._start("keeper", nats_url=self._nats_url, redis_url=self._redis_url)
        ready = await self._start("sender", nats_url=self._nats_url)
        await self._start("receiver", url=ready["url"])
        await self._start("publisher", nats_url=self._nats_url)
        for _ in range(WARM_UP):
            await self.send_one()

    async def _start(self, kind: str, **config: str) -> dict[str, Any]:
        process = LoadProcess(
            f"baseline {kind}",
            "cli.load.baseline",
            [kind, json.dumps(config)],
            self._environment,
            self._on_event,
        )
        self._processes[kind] = process
        return await process.start()

    def _on_event(self, process: LoadProcess, event: dict[str, Any]) -> None:
        match event["event"]:
            case "published":
                for number in range(event["first"], event["first"] + event["count"]):
                    self._sent[number] = event["at"]
            case "seen":
                for number in event["numbers"]:
                    self._seen.setdefault(number, event["at"])
            case _:
                self._broken = f"{process.name} ended with {event.get('code')}; its log is on stderr"
        self._changed.set()

    async def send_one(self) -> float:
        """Send one message; return the seconds from the publish to the receiver's frame."""
        (latency,) = (await self._send(1)).latencies
        return latency

    async def send_many(self, count: int) -> BaselineTimings:
        """Send `count` messages at once, in arrays."""
        return await self._send(count)

    async def _send(self, count: int) -> BaselineTimings:
        first, self._next = self._next, self._next + count
        self._processes["publisher"].tell(do="publish", first=first, count=count)
        numbers = range(first, first + count)
        while not (self._seen.keys() >= set(numbers) and first in self._sent):
            if self._broken:
                raise RoleFailed(self._broken)
            self._changed.clear()
            try:
                async with asyncio.timeout(PATIENCE_SECONDS):
                    await self._changed.wait()
            except TimeoutError:
                raise RoleFailed(f"baseline: nothing arrived within {PATIENCE_SECONDS:g} s") from None
        at = self._sent[first]
        return BaselineTimings(
            [self._seen[number] - at for number in numbers], [self._seen[number] for number in numbers]
        )

    def pids(self) -> list[int]:
        return [process.pid for process in self._processes.values()]

    async def stop(self) -> None:
        """End the processes and delete the streams and keys. Can be repeated."""
        for process in reversed(self._processes.values()):
            await process.stop()
        self._processes.clear()
        bus, self._bus = self._bus, None
        if bus is not None:
            await bus.close()
            await _clean_up(self._nats_url, self._redis_url, self._next)


@dataclasses.dataclass(frozen=True, slots=True)
class BaselineTimings:
    """Latency in seconds and arrival time of each message."""

    latencies: Sequence[float]
    arrivals: Sequence[float]


async def _clean_up(nats_url: str, redis_url: str, count: int) -> None:
    nc = await nats.connect(nats_url)
    js = nc.jetstream()
    for stream in (IN, OUT):
        await js.delete_stream(stream.name)
    await nc.close()
    redis = Redis.from_url(redis_url)
    for numbers in _cut(range(count)):
        messages = [_message(number)["data"] for number in numbers]
        await redis.delete(
            *(f"loadbase:{message['examineeId']}" for message in messages),
            *(f"loadbase:socket:{message['socketId']}" for message in messages),
        )
    await redis.aclose()


KINDS: dict[str, Callable[..., Awaitable[None]]] = {
    "publisher": publisher,
    "keeper": keeper,
    "sender": sender,
    "receiver": receiver,
}


def main() -> None:
    """Run the process named by the argument KIND, with the JSON object CONFIG as its arguments."""
    _, kind, config = sys.argv
    raise_file_limit()
    uvloop.run(cast(Any, KINDS[kind](**json.loads(config))))


if __name__ == "__main__":
    main()
