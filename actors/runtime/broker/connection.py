"""The bus: the connection to NATS. Other packages use subjects, bytes and our errors instead of nats-py."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import nats
import nats.errors
import nats.js.errors
import pydantic
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.micro.request import Request as MicroRequest
from nats.micro.service import EndpointConfig, Service, ServiceConfig

from actors.runtime.broker.clock import BrokerClock
from actors.runtime.broker.nats_client import NatsClient
from actors.runtime.broker.publisher import Outgoing, PubAck, Publishing, Sent
from actors.runtime.broker.refusals import Refusals
from actors.runtime.broker.stream_admin import API_SECONDS, StreamAdmin
from actors.runtime.broker.wire import Arrival, OnArrival
from actors.runtime.config.nats_login import login
from actors.runtime.config.sections import NatsSettings
from actors.runtime.config.settings import Settings
from actors.runtime.telemetry.progress import Progress, no_progress
from protocol.errors import BrokerAbsent, BrokerUnavailable, NoResponders, NotPermitted

__all__ = ["Bus", "Outgoing", "PubAck", "Respond", "Sent", "ServiceEntry"]

log = logging.getLogger("examwire.bus")

CLOSE_SECONDS = 2.0

Respond = Callable[[bytes], Awaitable[bytes]]


@dataclass(frozen=True, slots=True)
class ServiceEntry:
    """An actor in the list of NATS micro services.

    Example::

        entries = await bus.services()
        [entry.metadata["address"] for entry in entries]
    """

    name: str
    id: str
    version: str
    metadata: dict[str, str]
    description: str = ""


class _ServiceInfo(pydantic.BaseModel):
    name: str
    id: str
    version: str
    metadata: dict[str, str] | None = None
    description: str | None = None


class Bus(Publishing, StreamAdmin):
    """A connection to NATS that reconnects by itself until it is closed. `connected`: whether it is connected now.

    Example::

        bus = await Bus.connect("nats://127.0.0.1:4222", "web-server")
        answer = await bus.request("queue.create", payload)
        await bus.close()
    """

    def __init__(self, client: NatsClient, name: str) -> None:
        super().__init__(client, client.refusals, name)
        self._js = client.jetstream(timeout=API_SECONDS)
        self.clock = BrokerClock(name, lambda subject, seconds: self.request(subject, timeout=seconds))
        self.connected_at = time.monotonic()
        self.disconnected_at: float | None = None
        self.on_reconnected: list[Callable[[], Awaitable[None]]] = []
        self.progress: Progress = no_progress
        """Told how far the reading of a stream is (`read_stream`), and other work that takes long."""
        self.ended: BrokerUnavailable | None = None
        """Set when the client has given up and will not connect again."""
        self._gone = asyncio.Event()
        self._closing = False

    # -- connection ----------------------------------------------------------------------------------

    @classmethod
    async def connect(
        cls, at: Settings | str, name: str, *, wait: float = 30.0, dead_seconds: float | None = None
    ) -> Bus:
        """Connect, trying for `wait` seconds. `at`: settings, or the URL of a broker without users.

        `dead_seconds`: the connection is lost after so long without an answer to a ping; by default `DEAD_SECONDS`.
        Raises `BrokerUnavailable` naming the servers and what went wrong (`BrokerAbsent`: nobody listens),
        `ConfigurationError`.
        """
        url, settings = (at, NatsSettings()) if isinstance(at, str) else (at.nats_url, at.nats)
        credentials = login(url, settings)
        client = NatsClient(Refusals(name, credentials.user, credentials.inbox_prefix), dead_seconds)
        bus: Bus | None = None
        last_error: Exception | None = None
        complained = False

        async def disconnected() -> None:
            if bus is not None and bus.disconnected_at is None and not bus._closing:
                bus.disconnected_at = time.monotonic()
                bus._fail_unacknowledged("the connection to NATS broke before the ack")
                client.fail_requests()
                client.refusals.forget()
                log.warning("%s: lost the connection to NATS", name)

        async def reconnected() -> None:
            nonlocal complained
            complained = False
            if bus is None:
                return
            seconds = time.monotonic() - (bus.disconnected_at or time.monotonic())
            bus.disconnected_at, bus.connected_at = None, time.monotonic()
            where = client.connected_url.netloc if client.connected_url is not None else "closed again"
            log.warning("%s: connected to NATS again after %.1f s (%s)", name, seconds, where)
            for callback in bus.on_reconnected:
                await callback()

        async def failed(error: Exception) -> None:
            nonlocal last_error, complained
            if _is_refusal(error) and not complained:
                complained = True
                log.error("%s: NATS refuses the connection; trying again: %s", name, error)
            if _is_cause(error) or not _is_cause(last_error):
                last_error = error
            if bus is None or not bus._refused(error):
                log.debug("%s: nats: %r", name, error)

        async def closed() -> None:
            if bus is not None and not bus._closing:
                # nats-py gives up when the server refuses the user: it was deleted, or its credentials have expired.
                bus.ended = BrokerUnavailable(
                    f"NATS has closed the connection of {name} permanently: {client.last_error}"
                )
                log.error("%s", bus.ended)
                bus._fail_unacknowledged(str(bus.ended))
                bus._gone.set()

        connecting = client.connect(
            servers=list(credentials.urls),
            name=name,
            max_reconnect_attempts=-1,
            reconnect_time_wait=cast(Any, 0.25),  # annotated int, used as seconds for sleep()
            connect_timeout=2,
            pending_size=16 * 1024 * 1024,
            inbox_prefix=credentials.inbox_prefix,
            disconnected_cb=disconnected,
            reconnected_cb=reconnected,
            error_cb=failed,
            closed_cb=closed,
            **credentials.options,
        )
        try:
            async with asyncio.timeout(wait):
                await connecting
        except (OSError, TimeoutError, asyncio.CancelledError, nats.errors.Error) as error:
            task = asyncio.current_task()
            if isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling():
                raise  # else the client was closed for good, because the broker refuses it
            servers_text = ", ".join(credentials.urls)
            if _is_refusal(last_error):
                user_text = f"the user {credentials.user!r}" if credentials.user else "a connection without a user"
                raise BrokerUnavailable(
                    f"NATS at {servers_text} refuses {user_text}: set nats.user and nats.password"
                ) from error
            if isinstance(last_error, ssl.SSLError):
                raise BrokerUnavailable(
                    f"no TLS with NATS at {servers_text}: {last_error}; see nats.ca_file"
                ) from error
            raise BrokerAbsent(
                f"no NATS server at {servers_text} within {wait:g} s: start it or set nats_url"
            ) from error
        bus = cls(client, name)
        with contextlib.suppress(BrokerUnavailable):  # without streams yet, or without JetStream
            await bus.clock.measure()
        return bus

    async def gone(self) -> None:
        """Wait until the client gives up on NATS, then raise `BrokerUnavailable`. Never returns."""
        await self._gone.wait()
        assert self.ended is not None
        raise self.ended

    async def close(self) -> None:
        """Flush and close. Harmless when repeated, or without a connection."""
        if self._closing:
            return
        self._closing = True
        try:
            if not self.connected or not await self._flushed():
                await self._nc.abandon()
                return
            async with asyncio.timeout(CLOSE_SECONDS):
                await self._nc.close()
        except TimeoutError:
            self._nc.abort()
        except (OSError, nats.errors.Error) as error:  # in the middle of a reconnect
            log.debug("%s: closed without a connection to NATS: %r", self.name, error)

    async def _flushed(self) -> bool:
        try:
            async with asyncio.timeout(CLOSE_SECONDS):
                await self._nc.flush()
        except (OSError, RuntimeError, TimeoutError, nats.errors.Error):
            log.warning("%s: closed before everything was flushed", self.name)
            return False
        return True

    @property
    def connected(self) -> bool:
        """Whether the connection works now."""
        return self._nc.is_connected and self.disconnected_at is None

    @property
    def steady_seconds(self) -> float:
        """How many seconds the connection has worked without a stall of this process or of the broker.

        Messages that others sent before that may have been delayed.
        """
        if not self.connected:
            return 0.0
        return min(time.monotonic() - self.connected_at, asyncio.get_running_loop().time() - self._nc.stalled_at)

    @property
    def server_info(self) -> dict[str, Any]:
        """The INFO of the connected server: version, max_payload, jetstream, auth_required, ..."""
        return self._nc.server_info

    async def round_trip(self) -> float:
        """Ping the server and return the seconds until the answer. Raises `BrokerUnavailable`."""
        if not self.connected:
            raise BrokerUnavailable("NATS is away")
        try:
            return float(await self._nc.rtt(timeout=2))
        except (TimeoutError, OSError, RuntimeError, nats.errors.Error) as error:
            # nats-py writes the ping at once; uvloop calls a connection that has just broken a RuntimeError.
            raise BrokerUnavailable(f"NATS does not answer a ping: {error!r}") from error

    # -- publishing ----------------------------------------------------------------------------------

    async def publish_core(self, subject: str, payload: bytes, reply: str = "") -> None:
        """Publish without an ack. Raises `BrokerUnavailable` when the message cannot be buffered."""
        try:
            await self._nc.publish(subject, payload, reply=reply)
        except nats.errors.Error as error:
            raise BrokerUnavailable(f"{subject}: not sent ({type(error).__name__})") from error

    async def publish_to_each(self, subjects: Sequence[str], payload: bytes) -> None:
        """Publish the same payload on each of these subjects without an ack. Raises `BrokerUnavailable`."""
        if not self._nc.publish_now([(subject, payload, "", None) for subject in subjects]):
            for subject in subjects:
                await self.publish_core(subject, payload)

    async def request(self, subject: str, payload: bytes = b"", timeout: float = 5.0) -> bytes:
        """Send a request and return the answer.

        Raises `NoResponders` when nobody listens, `BrokerUnavailable` when nobody answers, `NotPermitted`.
        """
        try:
            return (await self._nc.request(subject, payload, timeout=timeout)).data
        except nats.errors.NoRespondersError as error:
            raise NoResponders(f"nobody listens on {subject}") from error
        except (TimeoutError, nats.errors.Error) as error:
            raise BrokerUnavailable(f"{subject}: no answer within {timeout:g} s ({type(error).__name__})") from error

    async def request_many(self, subject: str, wait: float = 0.5) -> list[bytes]:
        """Send a request to everybody; return the answers until none comes for `wait` seconds.

        Raises `BrokerUnavailable` or `NotPermitted`.
        """
        answers: list[bytes] = []
        refused: list[NotPermitted] = []
        arrived = asyncio.Event()

        def refuse(refusal: NotPermitted) -> None:
            refused.append(refusal)
            arrived.set()

        async def collect(msg: Msg) -> None:
            if not (msg.headers and msg.headers.get("Status") == "503"):
                answers.append(msg.data)
            arrived.set()

        inbox = self._nc.new_inbox()
        sub = await self._nc.subscribe(inbox, cb=collect)
        try:
            with self.refusals.watch(subject, refuse):
                await self.publish_core(subject, b"", reply=inbox)
                while not refused:
                    try:
                        async with asyncio.timeout(wait):
                            await arrived.wait()
                    except TimeoutError:
                        return answers
                    arrived.clear()
            raise refused[0]
        finally:
            await sub.unsubscribe()

    def new_inbox(self) -> str:
        """Return a new subject for replies to this connection."""
        return str(self._nc.new_inbox())

    # -- answering -----------------------------------------------------------------------------------

    async def subscribe(self, subject: str, handler: Callable[[Msg], Awaitable[None]]) -> Subscription:
        """Subscribe with core NATS; each subscription has its own task."""
        return await self._nc.subscribe(subject, cb=handler)

    def subscribe_direct(self, subject: str, handler: OnArrival) -> int:
        """Subscribe with core NATS, and have each message handed over as it is received, before the next one is read.

        Return the handle for `unsubscribe_direct`. It survives a reconnect, and there may be thousands.
        """
        return self._nc.subscribe_direct(subject, handler)

    def unsubscribe_direct(self, handle: int) -> None:
        """End a direct subscription. Harmless when repeated, or without a connection."""
        self._nc.unsubscribe_direct(handle)

    def respond(self, request: Arrival, answer: bytes) -> None:
        """Answer a request that a direct subscription has got, without waiting."""
        if request.reply:
            self._nc.respond(request.reply, answer)

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
        Raises `BrokerUnavailable` or `NotPermitted`; nothing is left half announced then.
        """
        refused: list[NotPermitted] = []

        def stats(_endpoint: Any) -> dict[str, Any]:
            return details()  # nats-py calls it and takes the result as it is

        service = Service(
            self._nc,
            ServiceConfig(name=name, version=version, description=description, metadata=metadata, stats_handler=stats),
        )
        try:
            with self.refusals.watch_all(refused.append):
                await self._announce(service, endpoints)
        except (TimeoutError, nats.errors.Error) as error:
            await self.remove_service(service)
            raise BrokerUnavailable(f"{name}: not announced ({type(error).__name__})") from error
        refused_subscriptions = [refusal for refusal in refused if refusal.verb == "subscription"]
        if refused_subscriptions:
            await self.remove_service(service)
            raise refused_subscriptions[0]
        return service

    async def _announce(self, service: Service, endpoints: Mapping[str, tuple[str, Respond]]) -> None:
        await service.start()
        for endpoint, (subject, handler) in endpoints.items():
            await service.add_endpoint(
                EndpointConfig(name=endpoint, subject=subject, handler=_micro_handler(handler), metadata={})
            )
        await self._nc.flush(timeout=5)  # refusals arrive before the answer to this

    async def remove_service(self, service: object) -> None:
        """Withdraw a service that `add_service` announced."""
        assert isinstance(service, Service)
        if not self.connected:
            # Its subscriptions end with the connection; stopping it would wait for the broker.
            return
        try:
            await service.stop()
        except nats.errors.Error as error:
            log.debug("%s: service not removed: %r", self.name, error)

    async def services(self, wait: float = 0.5) -> list[ServiceEntry]:
        """List the actors that answer the INFO request of NATS micro services."""
        entries = []
        for answer in await self.request_many("$SRV.INFO", wait):
            try:
                info = _ServiceInfo.model_validate_json(answer)
            except pydantic.ValidationError as error:
                log.warning("an answer to $SRV.INFO is invalid: %s", error.errors()[0]["msg"])
                continue
            entries.append(ServiceEntry(info.name, info.id, info.version, info.metadata or {}, info.description or ""))
        return sorted(entries, key=lambda entry: (entry.name, entry.metadata.get("address", ""), entry.id))


def _is_cause(error: Exception | None) -> bool:
    """Return whether an error explains those that follow: a server that refuses the user also closes the connection."""
    return _is_refusal(error) or isinstance(error, ssl.SSLError)


def _is_refusal(error: Exception | None) -> bool:
    return "authorization violation" in str(error).lower()


def _micro_handler(handler: Respond) -> Callable[[MicroRequest], Awaitable[None]]:
    async def handle(request: MicroRequest) -> None:
        await request.respond(await handler(request.data))

    return handle
