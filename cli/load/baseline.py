"""The bare engine path that `examwire load --baseline` compares with: the same trips with none of our logic.

Four processes, as lean as nats-py, redis-py and websockets allow: `publisher` publishes into one stream and awaits the
ack; `keeper` pulls, makes one Redis round trip of reads and one of writes, publishes into another stream and acks;
`sender` pulls that and sends it on a WebSocket; `receiver` notes when it came. Same broker, same stream settings
(file storage; the broker's sync), same Redis, payloads of the same size, uvloop like the roles.
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
HISTORY = "x" * 450  # what a record's history takes after a loss

_WRITE = """
local rev = redis.call('HGET', KEYS[1], 'rev')
redis.call('HSET', KEYS[1], unpack(ARGV, 2))
return 1"""


# -- the processes -------------------------------------------------------------------------------------


def _message(number: int) -> dict[str, Any]:
    """What a loss says, in the size of ours."""
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
    """`publish` (`first`, `count`): all at once in arrays of up to 256 messages."""
    nc = await nats.connect(nats_url)
    js = nc.jetstream()
    tasks: set[asyncio.Task[None]] = set()

    async def publish(first: int, count: int) -> None:
        numbers = range(first, first + count)
        at = time.time()
        await asyncio.gather(
            *(_publish(js, "loadbase.in", some) for some in _cut(numbers)),
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
    """Messages of a durable consumer; one long pull stays open."""
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
    """Redis in the middle: read, write, tell, ack."""
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
        items = [one["data"] for one in (parsed if isinstance(parsed, list) else [parsed])]
        pipe = redis.pipeline(transaction=False)
        for item in items:
            pipe.hmget(f"loadbase:{item['examineeId']}", ["rev", "history"])
        found = await pipe.execute()
        pipe = redis.pipeline(transaction=False)
        for item, (rev, _history) in zip(items, found, strict=True):
            fields = {**item, "rev": str(int(rev or 0) + 1), "history": HISTORY}
            flat = [str(part) for pair in fields.items() for part in pair]
            pipe.eval(_WRITE, 1, f"loadbase:{item['examineeId']}", rev or "0", *flat)
            pipe.hset(f"loadbase:socket:{item['socketId']}", mapping={"status": "DISCONNECTED", "version": "1"})
        await pipe.execute()
        sequence = msg.metadata.sequence.stream
        await js.publish("loadbase.out", msg.data, headers={"Nats-Msg-Id": f"out:{sequence}"})
        await msg.ack()


async def sender(nats_url: str) -> None:
    """The stream's end: a WebSocket server with one client, the receiver."""
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
    """Notes the time of each frame."""
    async with connect(url, compression=None, proxy=None, max_size=None) as ws:
        working = asyncio.create_task(_receive(ws))
        write_event("ready")
        await _until_stdin_ends(working)


async def _receive(ws: Any) -> None:
    async for frame in ws:
        parsed = json.loads(frame)
        at = time.time()
        messages = parsed if isinstance(parsed, list) else [parsed]
        write_event("seen", numbers=[one["data"]["connectionNo"] for one in messages], at=at)


async def _until_stdin_ends(working: asyncio.Task[None]) -> None:
    waiting = asyncio.create_task(read_commands(lambda _: None))
    await asyncio.wait({working, waiting}, return_when=asyncio.FIRST_COMPLETED)
    if working.done():
        await working  # raises what stopped it
    working.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await working


# -- the side of `examwire load` -----------------------------------------------------------------------


class BaselinePath:
    """The four processes, and what goes through them. Streams and keys of its own are removed by `stop`."""

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
        """Make the streams, start the processes, send some messages through. Raises `RoleFailed`."""
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
            await self.one()

    async def _start(self, kind: str, **config: str) -> dict[str, Any]:
        process = LoadProcess(
            f"baseline {kind}",
            "cli.load.baseline",
            [kind, json.dumps(config)],
            self._environment,
            self._told,
        )
        self._processes[kind] = process
        return await process.start()

    def _told(self, process: LoadProcess, event: dict[str, Any]) -> None:
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

    async def one(self) -> float:
        """Seconds of one message from before its publish to the receiver's frame."""
        (latency,) = (await self._send(1)).latencies
        return latency

    async def many(self, count: int) -> BaselineTimings:
        """`count` messages at once, in arrays."""
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
        """End the processes and take back the streams and keys. Harmless when repeated."""
        for process in reversed(self._processes.values()):
            await process.stop()
        self._processes.clear()
        bus, self._bus = self._bus, None
        if bus is not None:
            await bus.close()
            await _clean_up(self._nats_url, self._redis_url, self._next)


@dataclasses.dataclass(frozen=True, slots=True)
class BaselineTimings:
    """Messages that went through: seconds each took, and when each arrived."""

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
            *(f"loadbase:{one['examineeId']}" for one in messages),
            *(f"loadbase:socket:{one['socketId']}" for one in messages),
        )
    await redis.aclose()


KINDS: dict[str, Callable[..., Awaitable[None]]] = {
    "publisher": publisher,
    "keeper": keeper,
    "sender": sender,
    "receiver": receiver,
}


def main() -> None:
    """`KIND` and `CONFIG`, the JSON of the kind's arguments."""
    _, kind, config = sys.argv
    raise_file_limit()
    uvloop.run(cast(Any, KINDS[kind](**json.loads(config))))


if __name__ == "__main__":
    main()
