"""The bus: the one place that touches nats-py. Everything above it speaks subjects, bytes and our errors."""

from __future__ import annotations

import asyncio
import copy
import json
import logging
import secrets
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import nats
import nats.errors
import nats.js.errors
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.micro.request import Request as MicroRequest
from nats.micro.service import EndpointConfig, Service, ServiceConfig

from actors.runtime.metrics import PUBLISH_FAILURES, PUBLISHES
from actors.runtime.stream_admin import StreamAdmin
from protocol.errors import BrokerUnavailable, NoResponders, WrongLastSequence

log = logging.getLogger("examwire.bus")

WRONG_LAST_SEQUENCE = 10071
PUBLISH_SECONDS = 5.0
ATOMIC_MESSAGES = 500
Respond = Callable[[bytes], Awaitable[bytes]]


@dataclass(frozen=True, slots=True)
class PubAck:
    """The broker's word that a message is stored; `duplicate`: it was there already."""

    stream: str
    sequence: int
    duplicate: bool = False


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A message to publish. `message_id` makes a retry within the stream's duplicate window have no effect."""

    subject: str
    payload: bytes
    message_id: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)

    def all_headers(self) -> dict[str, str] | None:
        headers = dict(self.headers)
        if self.message_id is not None:
            headers["Nats-Msg-Id"] = self.message_id
        return headers or None


@dataclass(frozen=True, slots=True)
class Sent:
    """Messages on their way: `waiting` are their acks."""

    messages: Sequence[Outgoing]
    first: int
    waiting: list[asyncio.Future[bytes]]


@dataclass(frozen=True, slots=True)
class ServiceEntry:
    """One actor as the NATS micro protocol lists it."""

    name: str
    id: str
    version: str
    metadata: dict[str, str]
    description: str = ""


class Bus(StreamAdmin):
    """A connection to NATS that keeps trying. `connected` tells whether it is there now."""

    def __init__(self, client: Client, name: str) -> None:
        self._nc = client
        self._js = client.jetstream(timeout=PUBLISH_SECONDS)
        self.name = name
        self.connected_at = time.monotonic()
        self.disconnected_at: float | None = None
        self.on_reconnected: list[Callable[[], Awaitable[None]]] = []
        self._closing = False
        self._ack_inbox = ""
        self._ack_no = 0
        self._batch_no = 0
        self._batch_prefix = f"{secrets.token_hex(8)}-"
        self._unacknowledged: dict[str, asyncio.Future[bytes]] = {}
        self._shared: Subscription | None = None
        self._shared_handlers: dict[int, Respond] = {}

    # -- connection ----------------------------------------------------------------------------------

    @classmethod
    async def connect(cls, url: str, name: str, *, wait: float = 30.0) -> Bus:
        """Connect, trying for `wait` seconds. Raises `BrokerUnavailable` naming the URL."""
        client = Client()
        bus: Bus | None = None

        async def disconnected() -> None:
            if bus is not None and bus.disconnected_at is None and not bus._closing:
                bus.disconnected_at = time.monotonic()
                bus._fail_unacknowledged()
                log.warning("%s: cut off from NATS", name)

        async def reconnected() -> None:
            if bus is None:
                return
            away = time.monotonic() - (bus.disconnected_at or time.monotonic())
            bus.disconnected_at, bus.connected_at = None, time.monotonic()
            log.warning("%s: NATS is back after %.1f s", name, away)
            for callback in bus.on_reconnected:
                await callback()

        async def failed(error: Exception) -> None:
            log.debug("%s: nats: %r", name, error)

        connecting = client.connect(
            servers=[part.strip() for part in url.split(",")],
            name=name,
            max_reconnect_attempts=-1,
            reconnect_time_wait=cast(Any, 0.25),  # annotated int, used as seconds for sleep()
            connect_timeout=2,
            ping_interval=5,
            max_outstanding_pings=2,
            pending_size=16 * 1024 * 1024,
            disconnected_cb=disconnected,
            reconnected_cb=reconnected,
            error_cb=failed,
        )
        try:
            await asyncio.wait_for(connecting, wait)
        except (OSError, TimeoutError, nats.errors.Error) as error:
            raise BrokerUnavailable(f"no NATS server at {url} within {wait:g} s: start it or set nats_url") from error
        bus = cls(client, name)
        return bus

    async def close(self) -> None:
        """Flush what was published and close. Harmless when repeated or cut off."""
        if self._closing:
            return
        self._closing = True
        try:
            if self.connected:
                await asyncio.wait_for(self._nc.flush(), 2)
        except (TimeoutError, nats.errors.Error):
            log.warning("%s: closed before everything was flushed", self.name)
        try:
            await self._nc.close()
        except (OSError, nats.errors.Error) as error:  # in the middle of a reconnect
            log.debug("%s: closed while NATS was away: %r", self.name, error)

    @property
    def connected(self) -> bool:
        return self._nc.is_connected and self.disconnected_at is None

    async def round_trip(self) -> float:
        """Seconds to the server and back. Raises `BrokerUnavailable`."""
        try:
            return float(await self._nc.rtt(timeout=2))
        except (TimeoutError, nats.errors.Error) as error:
            raise BrokerUnavailable(f"NATS does not answer a ping: {error!r}") from error

    # -- publishing ----------------------------------------------------------------------------------

    async def publish(self, message: Outgoing, timeout: float = PUBLISH_SECONDS) -> PubAck:
        """Publish into a stream and wait for its ack.

        Raises `BrokerUnavailable` (retry with the same message id) or `WrongLastSequence`.
        """
        (result,) = await self.publish_many([message], timeout)
        if isinstance(result, PubAck):
            return result
        raise result

    async def publish_many(
        self, messages: Sequence[Outgoing], timeout: float = PUBLISH_SECONDS
    ) -> list[PubAck | BrokerUnavailable | WrongLastSequence]:
        """Publish all at once and wait for all acks: one result a message, in order; an error is a value here.

        When the connection breaks, what is not acknowledged fails at once instead of after `timeout` seconds.
        """
        began = time.perf_counter()
        results = await self._collect(await self.send(messages), timeout)
        PUBLISHES.observe(time.perf_counter() - began)
        return results

    async def send(self, messages: Sequence[Outgoing]) -> Sent:
        """Put messages on their way, in order, without waiting for the acks; `confirm` does that."""
        await self._listen_for_acks()
        loop = asyncio.get_running_loop()
        sent = Sent(messages, self._ack_no + 1, [])
        self._ack_no += len(messages)
        for number, message in enumerate(messages, sent.first):
            token = str(number)
            future: asyncio.Future[bytes] = loop.create_future()
            sent.waiting.append(future)
            self._unacknowledged[token] = future
            try:
                await self._nc.publish(
                    message.subject, message.payload, reply=self._ack_inbox + token, headers=message.all_headers()
                )
            except nats.errors.Error as error:
                self._unacknowledged.pop(token, None)
                future.set_exception(BrokerUnavailable(f"{message.subject}: not sent ({type(error).__name__})"))
        return sent

    async def _collect(self, sent: Sent, timeout: float) -> list[PubAck | BrokerUnavailable | WrongLastSequence]:
        if sent.waiting:
            await asyncio.wait(sent.waiting, timeout=timeout)
        for number in range(sent.first, sent.first + len(sent.messages)):
            self._unacknowledged.pop(str(number), None)
        return [_result(message, future) for message, future in zip(sent.messages, sent.waiting, strict=True)]

    async def confirm(self, sent: Sent) -> None:
        """Wait until everything that was sent is stored; what is not is published again with the same message id."""
        results = await self._collect(sent, PUBLISH_SECONDS)
        missing = [
            message for message, result in zip(sent.messages, results, strict=True) if not isinstance(result, PubAck)
        ]
        if missing:
            await self.publish_surely(missing)

    async def publish_together(self, messages: Sequence[Outgoing]) -> None:
        """`publish_surely` for many messages of one stream with `allow_atomic`: one ack and one flush for all.

        The broker refuses a batch as a whole when one of its message ids is known already; then, or when anything
        else is wrong, they go one by one.
        """
        for start in range(0, len(messages), ATOMIC_MESSAGES):
            some = messages[start : start + ATOMIC_MESSAGES]
            if len(some) >= 3:
                try:
                    await self.publish_atomic(some)
                except (BrokerUnavailable, WrongLastSequence) as error:
                    log.debug("%s: atomic batch refused: %s", self.name, error)
                else:
                    continue
            await self.publish_surely(some)

    async def publish_atomic(self, messages: Sequence[Outgoing]) -> PubAck:
        """Store all messages, of one stream with `allow_atomic`, or none; the ack is that of the last one.

        Raises `WrongLastSequence` when one of them expects another (nothing is stored then), `BrokerUnavailable`.
        """
        self._batch_no += 1
        batch = f"{self._batch_prefix}{self._batch_no}"
        try:
            for number, message in enumerate(messages[:-1], 1):
                headers = message.all_headers() or {}
                headers |= {"Nats-Batch-Id": batch, "Nats-Batch-Sequence": str(number)}
                await self._nc.publish(message.subject, message.payload, headers=headers)
        except nats.errors.Error as error:
            raise BrokerUnavailable(f"{messages[0].subject}: not sent ({type(error).__name__})") from error
        last = messages[-1]
        commit = {"Nats-Batch-Id": batch, "Nats-Batch-Sequence": str(len(messages)), "Nats-Batch-Commit": "1"}
        return await self.publish(Outgoing(last.subject, last.payload, last.message_id, {**last.headers, **commit}))

    async def publish_surely(self, messages: Sequence[Outgoing]) -> list[PubAck]:
        """`publish_many`, tried again with the same message ids until every one is stored, however long it takes."""
        acks: dict[int, PubAck] = {}
        missing = list(range(len(messages)))
        delay = 0.05
        while missing:
            results = await self.publish_many([messages[index] for index in missing])
            failures = {}
            for index, result in zip(missing, results, strict=True):
                if isinstance(result, PubAck):
                    acks[index] = result
                else:
                    failures[index] = result
            if failures:
                PUBLISH_FAILURES.inc(len(failures))
                log.warning("%s: %d messages to publish again: %s", self.name, len(failures), failures[min(failures)])
                await asyncio.sleep(delay)
                delay = min(delay * 2, 1.0)
            missing = list(failures)
        return [acks[index] for index in range(len(messages))]

    async def _listen_for_acks(self) -> None:
        if not self._ack_inbox:
            self._ack_inbox = f"{self._nc.new_inbox()}."
            await self._nc.subscribe(f"{self._ack_inbox}*", cb=self._acknowledged)

    async def _acknowledged(self, msg: Msg) -> None:
        future = self._unacknowledged.pop(msg.subject[len(self._ack_inbox) :], None)
        if future is None or future.done():
            return
        if msg.headers and msg.headers.get("Status") == "503":
            future.set_exception(BrokerUnavailable("no stream takes this subject"))
        else:
            future.set_result(msg.data)

    def _fail_unacknowledged(self) -> None:
        for future in self._unacknowledged.values():
            if not future.done():
                future.set_exception(BrokerUnavailable("the connection to NATS broke before the ack"))
        self._unacknowledged.clear()

    async def publish_core(self, subject: str, payload: bytes, reply: str = "") -> None:
        """Publish without waiting for anybody. Raises `BrokerUnavailable` when not even buffered."""
        try:
            await self._nc.publish(subject, payload, reply=reply)
        except nats.errors.Error as error:
            raise BrokerUnavailable(f"{subject}: not sent ({type(error).__name__})") from error

    async def request(self, subject: str, payload: bytes = b"", timeout: float = 5.0) -> bytes:
        """Ask and wait. Raises `NoResponders` when nobody listens, `BrokerUnavailable` when nobody answers."""
        try:
            return (await self._nc.request(subject, payload, timeout=timeout)).data
        except nats.errors.NoRespondersError as error:
            raise NoResponders(f"nobody listens on {subject}") from error
        except (TimeoutError, nats.errors.Error) as error:
            raise BrokerUnavailable(f"{subject}: no answer within {timeout:g} s ({type(error).__name__})") from error

    async def request_many(self, subject: str, wait: float = 0.5) -> list[bytes]:
        """Ask everybody; whoever answers within `wait` seconds of the last answer is in the list."""
        answers: list[bytes] = []
        arrived = asyncio.Event()

        async def collect(msg: Msg) -> None:
            if not (msg.headers and msg.headers.get("Status") == "503"):
                answers.append(msg.data)
            arrived.set()

        inbox = self._nc.new_inbox()
        sub = await self._nc.subscribe(inbox, cb=collect)
        try:
            await self.publish_core(subject, b"", reply=inbox)
            while True:
                try:
                    await asyncio.wait_for(arrived.wait(), wait)
                except TimeoutError:
                    return answers
                arrived.clear()
        finally:
            await sub.unsubscribe()

    def new_inbox(self) -> str:
        """A subject that only this connection listens on."""
        return str(self._nc.new_inbox())

    # -- answering -----------------------------------------------------------------------------------

    async def subscribe(self, subject: str, handler: Callable[[Msg], Awaitable[None]]) -> Subscription:
        """Core subscription with a task of its own (`actors.runtime.pull` and tests use it)."""
        return await self._nc.subscribe(subject, cb=handler)

    async def answer(self, subject: str, handler: Respond) -> int:
        """Answer requests on a subject, by the thousand: all of these share one queue and one task.

        A subscription of nats-py has a queue and a task of its own (5 KiB, 45 µs), too much for one an examinee.
        These differ only in subject and id, and survive a reconnect like any other. Returns a handle for `hush`.
        """
        nc = self._nc
        if self._shared is None:
            self._shared = await nc.subscribe(f"{nc.new_inbox()}.shared", cb=self._answer_shared)
        nc._sid += 1
        light = copy.copy(self._shared)
        light._id, light._subject = nc._sid, subject
        nc._subs[light._id] = light
        self._shared_handlers[light._id] = handler
        await nc._send_subscribe(light)
        return light._id

    async def hush(self, handle: int) -> None:
        """Stop answering on the subject of a handle of `answer`."""
        self._shared_handlers.pop(handle, None)
        if self._nc._subs.pop(handle, None) is not None and self.connected:
            await self._nc._send_unsubscribe(handle)

    async def _answer_shared(self, msg: Msg) -> None:
        handler = self._shared_handlers.get(msg.sid)
        if handler is not None and msg.reply:
            await msg.respond(await handler(msg.data))

    async def add_service(
        self,
        name: str,
        *,
        version: str,
        description: str,
        metadata: dict[str, str],
        endpoints: Mapping[str, tuple[str, Respond]],
        details: Callable[[], dict[str, Any]],
    ) -> object:
        """Announce an actor as a NATS micro service, so that `nats service ls|info|stats` sees it too.

        `endpoints` maps a name to (subject, handler). `details` goes into the stats of every endpoint.
        Raises `BrokerUnavailable`; nothing is left half announced then.
        """

        def stats(_endpoint: Any) -> dict[str, Any]:
            return details()  # nats-py calls it and takes the result as it is

        service = Service(
            self._nc,
            ServiceConfig(
                name=name, version=version, description=description, metadata=metadata, stats_handler=stats
            ),
        )
        try:
            await service.start()
            for endpoint, (subject, handler) in endpoints.items():
                await service.add_endpoint(
                    EndpointConfig(name=endpoint, subject=subject, handler=_micro_handler(handler), metadata={})
                )
        except nats.errors.Error as error:
            await self.remove_service(service)
            raise BrokerUnavailable(f"{name}: not announced ({type(error).__name__})") from error
        return service

    async def remove_service(self, service: object) -> None:
        """Take back what `add_service` announced."""
        assert isinstance(service, Service)
        if not self.connected:
            # Its subscriptions end with this connection; asking would wait for a broker that is not there.
            return
        try:
            await service.stop()
        except nats.errors.Error as error:
            log.debug("%s: service not taken back: %r", self.name, error)

    async def services(self, wait: float = 0.5) -> list[ServiceEntry]:
        """The actors that answer the NATS micro protocol's INFO right now."""
        entries = []
        for answer in await self.request_many("$SRV.INFO", wait):
            info = json.loads(answer)
            metadata = info.get("metadata") or {}
            entries.append(
                ServiceEntry(info["name"], info["id"], info["version"], metadata, info.get("description", ""))
            )
        return sorted(entries, key=lambda entry: (entry.name, entry.metadata.get("address", ""), entry.id))


def _result(message: Outgoing, future: asyncio.Future[bytes]) -> PubAck | BrokerUnavailable | WrongLastSequence:
    if not future.done():
        future.cancel()
        return BrokerUnavailable(f"{message.subject}: not acknowledged in time")
    if (failure := future.exception()) is not None:
        return BrokerUnavailable(f"{message.subject}: {failure}")
    ack = json.loads(future.result())
    if "error" in ack:
        return _publish_error(message.subject, ack["error"].get("err_code"), ack["error"].get("description", ""))
    return PubAck(ack["stream"], ack["seq"], ack.get("duplicate", False))


def _publish_error(subject: str, code: int | None, text: str) -> BrokerUnavailable | WrongLastSequence:
    if code == WRONG_LAST_SEQUENCE:
        return WrongLastSequence(f"{subject}: {text}")
    return BrokerUnavailable(f"{subject}: not stored ({text})")


def _micro_handler(handler: Respond) -> Callable[[MicroRequest], Awaitable[None]]:
    async def handle(request: MicroRequest) -> None:
        await request.respond(await handler(request.data))

    return handle
