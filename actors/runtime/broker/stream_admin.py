"""Create, update, compare and read streams and consumers of JetStream, by the specs of `protocol.broker.streams`."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import nats.errors
import nats.js.errors
import pydantic_core
from nats.js.api import ConsumerInfo
from nats.js.client import JetStreamContext

from actors.runtime.broker.nats_client import NatsClient
from actors.runtime.broker.stream_specs import PinnedConfig, beginning, consumer_config, plain, stream_config
from actors.runtime.broker.stream_state import ConsumerState, PinnedState, StorageState, StoredMessage, StreamState
from protocol.broker.streams import MAX_BYTES, PIN_GROUP, ConsumerSpec, StreamSpec
from protocol.errors import BrokerUnavailable, ConfigurationError, ConsumerGone, NotAnswered
from protocol.messages.progress import ConsumerProgress
from protocol.times import parse_time

log = logging.getLogger("examwire.bus")

PAGE = 256  # consumers in one answer of the server
API_SECONDS = 2.0
ELECTION_SECONDS = 5.0
"""Seconds that a request is repeated while there is no leader: during an election, or while a cluster forms."""
NOT_ENABLED, NO_STREAM = (10076, 10039), 10059
NO_PEERS, NO_CLUSTER = 10005, 10074  # not enough nodes yet; more than one copy without a cluster

NO_STORAGE = 10047

T = TypeVar("T")


class NoStorage(BrokerUnavailable):
    """The server cannot reserve the bytes of the stream."""


class StreamAdmin:
    """The part of the bus that manages streams and consumers.

    Example::

        await bus.apply_stream(STATUS, replicas=3)
        state = await bus.stream_state("STATUS")
        stored = await bus.message_at("STATUS", state.last)
    """

    _js: JetStreamContext
    _nc: NatsClient
    name: str

    async def _request(self, target: str, request: Callable[[], Awaitable[T]], *, repeat: bool = True) -> T:
        """Send a request to the JetStream API and return the answer; repeat it while there is no leader.

        `what`: its object, for errors. `repeat`: the request is idempotent, so it is repeated after a timeout too.
        Raises `NotAnswered`, and nats-py's `APIError` when the server refuses.
        """
        ends = time.monotonic() + ELECTION_SECONDS
        delay = 0.1
        while True:
            try:
                return await request()
            except nats.js.errors.ServiceUnavailableError as error:
                if error.err_code in NOT_ENABLED:
                    raise BrokerUnavailable(
                        f"{target}: {error.description}: start nats-server with JetStream"
                    ) from error
                trouble: Exception = error
            except nats.js.errors.APIError as error:
                if error.err_code != NO_PEERS or "storage" in (error.description or ""):
                    raise
                trouble = error
            except (TimeoutError, nats.errors.Error) as error:
                trouble = error
                if not repeat or not isinstance(error, TimeoutError):
                    ends = 0.0
            if time.monotonic() + delay > ends:
                raise NotAnswered(f"{target}: not answered ({trouble!r})") from trouble
            await asyncio.sleep(delay)
            delay = min(delay * 2, 1.0)

    async def stream_config(self, name: str) -> dict[str, Any] | None:
        """Return the configuration of a stream on the server (times in seconds); `None`: no such stream."""
        try:
            info = await self._request(f"stream {name}", lambda: self._js.stream_info(name))
        except nats.js.errors.NotFoundError:
            return None
        except nats.js.errors.APIError as error:
            raise BrokerUnavailable(f"stream {name}: {error}") from error
        return plain(info.config)

    async def apply_stream(self, spec: StreamSpec, *, first_seq: int | None = None, replicas: int = 1) -> None:
        """Create a stream with `replicas` copies, or update an existing one.

        `first_seq` applies only when it is created. Raises `NoStorage` when NATS cannot reserve `max_bytes`,
        `BrokerUnavailable`, or `ConfigurationError` when several copies are wanted without a cluster.
        """
        config = stream_config(spec, replicas)
        target = f"stream {spec.name}"
        try:
            exists = await self.stream_config(spec.name) is not None
            created = config.evolve(first_seq=first_seq) if first_seq and not exists else config
            if spec.guarded and not (exists and (await self.stream_state(spec.name)).size > spec.max_bytes / 2):
                # Has NATS room for it? It is asked, and then told not to keep the bound.
                bounded = created.evolve(max_bytes=spec.max_bytes)
                put = self._js.update_stream if exists else self._js.add_stream
                await self._request(target, lambda: put(bounded))
                exists = True
            if exists:
                await self._request(target, lambda: self._js.update_stream(config))
            else:
                await self._request(target, lambda: self._js.add_stream(created))
        except nats.js.errors.APIError as error:
            if error.err_code == NO_CLUSTER:
                raise ConfigurationError(
                    f"nats.replicas: {replicas} copies need a cluster: {error.description}"
                ) from error
            if error.err_code in (NO_STORAGE, NO_PEERS):
                raise NoStorage(f"stream {spec.name}: NATS cannot reserve {spec.max_bytes} bytes") from error
            raise BrokerUnavailable(f"stream {spec.name}: not applied ({error})") from error

    async def consumer_config(self, stream: str, name: str) -> dict[str, Any] | None:
        """Return the configuration of a durable consumer (times in seconds); `None`: no such consumer."""
        subject = f"$JS.API.CONSUMER.INFO.{stream}.{name}"
        try:
            target = f"consumer {stream}/{name}"
            info = await self._request(target, lambda: self._nc.api_request(subject, API_SECONDS))
        except nats.js.errors.NotFoundError:
            return None
        except nats.js.errors.APIError as error:
            raise BrokerUnavailable(f"consumer {stream}/{name}: {error}") from error
        return plain(PinnedConfig.from_response(info["config"]))

    async def consumer_ready(self, stream: str, name: str) -> None:
        """Wait until the consumer exists: the queue server creates it."""
        delay = 0.05
        complained = False
        while True:
            try:
                if await self.consumer_config(stream, name) is not None:
                    return
            except BrokerUnavailable as error:
                log.debug("%s: %s", self.name, error)
            delay = min(delay * 1.5, 1.0)
            if delay == 1.0 and not complained:
                complained = True
                log.warning("%s: waiting for consumer %s/%s: does the queue server run?", self.name, stream, name)
            await asyncio.sleep(delay)

    async def apply_consumer(self, spec: ConsumerSpec, *, anew: bool = False, first: int | None = None) -> None:
        """Create a durable consumer, or update it in place; `anew` deletes it first, with its backlog.

        `first`: the sequence at which a created consumer begins; by default the spec decides.
        """
        target = f"consumer {spec.stream}/{spec.name}"
        if anew:
            await self.delete_consumer(spec.stream, spec.name)
        existing = None if anew else await self.consumer_config(spec.stream, spec.name)
        while True:
            config = beginning(consumer_config(spec), existing, first)
            try:
                await self._request(target, lambda config=config: self._js.add_consumer(spec.stream, config))  # type: ignore[misc]
            except nats.js.errors.APIError as error:
                if existing is None:  # another process may have created it meanwhile, with another beginning
                    existing = await self.consumer_config(spec.stream, spec.name)
                    if existing is not None:
                        continue
                raise BrokerUnavailable(f"{target}: not applied ({error})") from error
            else:
                return

    async def pinned_state(self, stream: str, name: str) -> PinnedState:
        """Return which client reads a pinned consumer now; sent once. Raises `BrokerUnavailable`, `ConsumerGone`."""
        subject, target = f"$JS.API.CONSUMER.INFO.{stream}.{name}", f"consumer {stream}/{name}"
        try:
            info = await self._nc.api_request(subject, API_SECONDS)
        except nats.js.errors.NotFoundError as error:
            raise ConsumerGone(f"{target} does not exist") from error
        except (TimeoutError, nats.errors.Error) as error:
            raise BrokerUnavailable(f"{target}: not answered ({error!r})") from error
        groups = info.get("priority_groups") or [{}]
        return PinnedState(
            groups[0].get("pinned_client_id"),
            info["ack_floor"]["stream_seq"],
            info["num_pending"],
            info["num_ack_pending"],
        )

    async def reset_consumer(self, stream: str, name: str) -> None:
        """Redeliver all messages that are not acknowledged, in order from the ack floor (NATS ADR-60).

        Raises `BrokerUnavailable`, `ConsumerGone`.
        """
        subject, target = f"$JS.API.CONSUMER.RESET.{stream}.{name}", f"consumer {stream}/{name}"
        try:
            await self._request(target, lambda: self._nc.api_request(subject, API_SECONDS))
        except nats.js.errors.NotFoundError as error:
            raise ConsumerGone(f"{target} does not exist") from error
        except nats.js.errors.APIError as error:
            raise BrokerUnavailable(f"{target}: not reset ({error})") from error

    async def unpin_consumer(self, stream: str, name: str) -> None:
        """Let another client of its priority group read the consumer. Raises `BrokerUnavailable`."""
        subject, target = f"$JS.API.CONSUMER.UNPIN.{stream}.{name}", f"consumer {stream}/{name}"
        body = pydantic_core.to_json({"group": PIN_GROUP})
        try:
            await self._nc.api_request(subject, API_SECONDS, body)
        except (TimeoutError, nats.errors.Error) as error:
            raise BrokerUnavailable(f"{target}: not released ({error!r})") from error

    async def delete_consumer(self, stream: str, name: str) -> None:
        """Delete a consumer if it exists."""
        try:
            await self._request(f"consumer {stream}/{name}", lambda: self._js.delete_consumer(stream, name))
        except nats.js.errors.NotFoundError:
            return
        except nats.js.errors.APIError as error:
            raise BrokerUnavailable(f"consumer {stream}/{name}: not deleted ({error})") from error

    async def ack_floor(self, stream: str, consumer: str) -> int:
        """Return the stream sequence up to which all deliveries of the consumer are acknowledged."""
        try:
            info = await self._request(
                f"consumer {stream}/{consumer}", lambda: self._js.consumer_info(stream, consumer)
            )
        except nats.js.errors.NotFoundError as error:
            raise ConsumerGone(f"consumer {stream}/{consumer} does not exist") from error
        except nats.js.errors.APIError as error:
            raise BrokerUnavailable(f"consumer {stream}/{consumer}: {error}") from error
        return info.ack_floor.stream_seq if info.ack_floor else 0

    async def consumer_progress(self, stream: str, consumer: str) -> ConsumerProgress | None:
        """Return the progress of a consumer by the broker; `None`: no such consumer. Raises `BrokerUnavailable`."""
        subject = f"$JS.API.CONSUMER.INFO.{stream}.{consumer}"
        try:
            # The raw answer: its `ts` is the time by the server's clock.
            info = await self._request(
                f"consumer {stream}/{consumer}", lambda: self._nc.api_request(subject, API_SECONDS)
            )
        except nats.js.errors.NotFoundError:
            return None
        except nats.js.errors.APIError as error:
            raise BrokerUnavailable(f"consumer {stream}/{consumer}: {error}") from error
        return ConsumerProgress(
            parse_time(info["ts"]),
            info["num_pending"],
            info["num_ack_pending"],
            info["ack_floor"]["stream_seq"],
            info["delivered"]["consumer_seq"],
        )

    async def stream_state(self, name: str) -> StreamState:
        """Return the state of a stream. Raises `BrokerUnavailable`, also when there is no such stream."""
        try:
            info = await self._request(f"stream {name}", lambda: self._js.stream_info(name))
        except nats.js.errors.APIError as error:
            raise BrokerUnavailable(f"stream {name}: {error}") from error
        state = info.state
        leader = info.cluster.leader if info.cluster else None
        replicas = info.config.num_replicas or 1
        followers = (info.cluster.replicas or []) if info.cluster else []
        current = 1 + sum(bool(follower.current) and not follower.offline for follower in followers)
        limit = int((info.config.metadata or {}).get(MAX_BYTES) or info.config.max_bytes or 0)
        return StreamState(
            state.first_seq,
            state.last_seq,
            state.messages,
            state.bytes,
            replicas,
            leader,
            current,
            limit if limit > 0 else None,
            info.config.max_age or 0.0,
            round(info.created.timestamp(), 3) if info.created is not None else 0.0,
        )

    async def stream_subjects(self, name: str, pattern: str) -> list[str]:
        """Return the subjects of a stream that match a pattern and have messages. Raises `BrokerUnavailable`."""
        try:
            info = await self._request(f"stream {name}", lambda: self._js.stream_info(name, subjects_filter=pattern))
        except nats.js.errors.APIError as error:
            raise BrokerUnavailable(f"stream {name}: {error}") from error
        return list(info.state.subjects or {})

    async def storage_state(self) -> StorageState:
        """Return the bytes on disk of all streams of this account. Raises `BrokerUnavailable`."""
        try:
            info = await self._request("JetStream", self._js.account_info)
        except nats.js.errors.APIError as error:
            raise BrokerUnavailable(f"JetStream does not return its storage ({error!r})") from error
        return StorageState(info.storage, info.limits.max_storage if info.limits.max_storage > 0 else None)

    async def broker_time(self, stream: str) -> float:
        """Return the time of the stream leader's clock, in seconds since the epoch. Raises `BrokerUnavailable`."""
        return parse_time((await self._stream_info(stream))["ts"])

    async def leader_age(self, stream: str) -> float:
        """Return for how many seconds the stream has had its leader; infinite without a cluster.

        Without a leader nothing can be published, so a lease that expires meanwhile is not evidence of a lost server.
        Raises `BrokerUnavailable`.
        """
        info = await self._stream_info(stream)
        since = (info.get("cluster") or {}).get("leader_since")
        return parse_time(info["ts"]) - parse_time(since) if since else math.inf

    async def _stream_info(self, stream: str) -> dict[str, Any]:
        """Return the server's answer about a stream as JSON; `ts` is the time of its clock."""
        subject = f"$JS.API.STREAM.INFO.{stream}"
        try:
            info = await self._request(f"stream {stream}", lambda: self._nc.api_request(subject, API_SECONDS))
        except nats.js.errors.APIError as error:
            raise BrokerUnavailable(f"stream {stream}: {error}") from error
        return dict(info)

    async def answers_about(self, stream: str, subject: str) -> bool:
        """Ask the leader of a stream whether the stream exists. `subject`: a subject of it that may be read.

        Raises `NotAnswered` at once when there is no leader or NATS does not answer.
        """
        try:
            await self._js.get_msg(stream, subject=subject)
        except nats.js.errors.ServiceUnavailableError as error:
            why = error.description or "nobody answers for JetStream: is it enabled?"
            raise NotAnswered(f"nobody leads the stream {stream} ({why})") from error
        except nats.js.errors.APIError as error:
            return error.err_code != NO_STREAM
        except (TimeoutError, nats.errors.Error) as error:
            raise NotAnswered(f"NATS does not answer about the stream {stream} ({type(error).__name__})") from error
        return True

    async def consumer_states(self, stream: str) -> list[ConsumerState]:
        """Return the states of all consumers of a stream, by name. Raises `BrokerUnavailable`."""
        states: dict[str, ConsumerState] = {}
        offset = 0
        while True:
            try:
                page = await self._page(stream, offset)
            except nats.js.errors.APIError as error:
                raise BrokerUnavailable(f"consumers of {stream}: {error}") from error
            for info in page:
                config = info.config
                filters = config.filter_subjects or ([config.filter_subject] if config.filter_subject else [])
                states[info.name] = ConsumerState(
                    stream,
                    info.name,
                    config.description or "",
                    tuple(filters),
                    config.metadata or {},
                    info.num_pending or 0,
                    info.num_ack_pending or 0,
                    info.num_redelivered or 0,
                    info.num_waiting or 0,
                    info.ack_floor.stream_seq if info.ack_floor else 0,
                    info.delivered.stream_seq if info.delivered else 0,
                    info.created.timestamp(),
                    info.delivered.last_active.timestamp() if info.delivered and info.delivered.last_active else None,
                )
            offset += len(page)
            if len(page) < PAGE:
                return [states[name] for name in sorted(states)]

    async def _page(self, stream: str, offset: int) -> list[ConsumerInfo]:
        return await self._request(f"consumers of {stream}", lambda: self._js.consumers_info(stream, offset=offset))

    async def delete_message(self, stream: str, sequence: int) -> bool:
        """Delete one message of a stream. Return False when it did not exist. Raises `BrokerUnavailable`."""
        try:
            target = f"stream {stream}, message {sequence}"
            return bool(await self._request(target, lambda: self._js.delete_msg(stream, sequence), repeat=False))
        except nats.js.errors.APIError as error:
            if await self.message_at(stream, sequence) is None:
                return False
            raise BrokerUnavailable(f"stream {stream}: {sequence} not deleted ({error})") from error

    async def purge_stream(self, stream: str, subject: str = ">", up_to: int | None = None) -> int:
        """Remove the messages on a subject (wildcards allowed), up to a sequence; return how many.

        Raises `BrokerUnavailable`.
        """
        body: dict[str, Any] = {"filter": subject} if subject != ">" else {}
        if up_to is not None:
            body["seq"] = up_to + 1  # the first one that stays
        try:
            answer = await self._request(
                f"stream {stream}",
                lambda: self._nc.api_request(
                    f"$JS.API.STREAM.PURGE.{stream}", API_SECONDS, pydantic_core.to_json(body)
                ),
            )
        except nats.js.errors.APIError as error:
            raise BrokerUnavailable(f"stream {stream}: {subject} not removed ({error})") from error
        return int(answer.get("purged") or 0)

    async def last_message(self, stream: str, subject: str) -> StoredMessage | None:
        """Return the newest message on a subject of a stream."""
        return await self._get(stream, subject=subject)

    async def message_at(self, stream: str, sequence: int) -> StoredMessage | None:
        """Return the message at a sequence; `None` when it was deleted or has expired."""
        return await self._get(stream, seq=sequence)

    async def next_message(self, stream: str, subject: str, first: int) -> StoredMessage | None:
        """Return the oldest message on a subject (wildcards allowed) from sequence `first` on."""
        return await self._get(stream, seq=first, subject=subject, next=True)

    async def _get(self, stream: str, **where: Any) -> StoredMessage | None:
        try:
            # Not a direct get: the leader answers, so the answer is never stale.
            raw = await self._request(f"stream {stream}", lambda: self._js.get_msg(stream, **where))
        except nats.js.errors.NotFoundError:
            return None
        except nats.js.errors.APIError as error:
            raise BrokerUnavailable(f"stream {stream}: {error}") from error
        stored_at = raw.time.timestamp() if raw.time is not None else 0.0
        return StoredMessage(raw.subject or "", raw.seq or 0, raw.data or b"", raw.headers or {}, stored_at)
