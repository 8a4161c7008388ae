"""Publish into streams, with acks received on our own inbox: a broken connection or a refusal fails at once."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import nats.errors
from nats.aio.msg import Msg

from actors.runtime.broker.nats_client import NatsClient, retrieve_exception
from actors.runtime.broker.refusals import Refusals
from actors.runtime.telemetry.metrics import PUBLISH_FAILURES, PUBLISH_REFUSALS, PUBLISHES
from protocol.errors import BrokerUnavailable, NotAnswered, NotPermitted, StreamFull, WrongLastSequence
from protocol.messages.base import Message
from protocol.messages.codec import encode, encode_batches, join_batch

log = logging.getLogger("examwire.bus")

WRONG_LAST_SEQUENCE = 10071
_LAST_SEQUENCE = re.compile(r"wrong last sequence: ([0-9]+)$")
STORE_FAILED = 10077
FULL = frozenset({10002, 10023, 10028, 10047})
"""Error codes: the storage of the account (10002) or of the server is used up, and no stream takes a message."""
PUBLISH_SECONDS = 5.0
ATOMIC_MESSAGES = 500


@dataclass(frozen=True, slots=True)
class PubAck:
    """NATS has stored a message, or had stored it before (`duplicate`)."""

    stream: str
    sequence: int
    duplicate: bool = False


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A payload for a subject. `of` and `batches` encode messages; other payloads are given as they are.

    `message_id` makes a retry within the stream's duplicate window have no effect.

    Outgoing.of(subjects.status_server("SOCK001"), status, message_id="lost:1")
    Outgoing.batches(subjects.status_plan("P001"), facts)
    """

    subject: str
    payload: bytes
    message_id: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        subject: str,
        *messages: Message,
        message_id: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Outgoing:
        """One payload of these messages: a lone message as it is, several as an array."""
        return cls(subject, join_batch([encode(message) for message in messages]), message_id, headers or {})

    @classmethod
    def batches(
        cls, subject: str, messages: Sequence[Message], message_id: Callable[[bytes], str] | None = None
    ) -> list[Outgoing]:
        """These messages in the fewest payloads of at most 256 messages and 256 KiB each.

        `message_id` makes the id of a payload.
        """
        return [
            cls(subject, payload, message_id(payload) if message_id is not None else None)
            for payload in encode_batches(messages)
        ]

    def all_headers(self) -> dict[str, str] | None:
        headers = dict(self.headers)
        if self.message_id is not None:
            headers["Nats-Msg-Id"] = self.message_id
        return headers or None


@dataclass(frozen=True, slots=True)
class Sent:
    """Messages that were sent, and their acks in the same order: `waiting`. `first` is the number of the first ack."""

    messages: Sequence[Outgoing]
    first: int
    waiting: list[asyncio.Future[bytes]]


Result = PubAck | BrokerUnavailable | WrongLastSequence | NotPermitted
"""Result of publishing one message: its ack, or the error as a value."""


class Publishing:
    """The part of the bus that publishes into streams.

    Example::

        ack = await bus.publish(Outgoing("status.plan.P001", payload, message_id="P001-17"))
    """

    def __init__(self, client: NatsClient, refusals: Refusals, name: str) -> None:
        self._nc = client
        self.name = name
        self.refusals = refusals
        self._ack_inbox = ""
        self._ack_no = 0
        self._batch_no = 0
        self._batch_prefix = f"{secrets.token_hex(8)}-"
        self._unacknowledged: dict[str, tuple[str, asyncio.Future[bytes]]] = {}

    async def publish(self, message: Outgoing, timeout: float = PUBLISH_SECONDS) -> PubAck:
        """Publish into a stream and wait for its ack.

        Raises `BrokerUnavailable` (retry with the same message id), `WrongLastSequence` or `NotPermitted`.
        """
        (result,) = await self.publish_many([message], timeout)
        if isinstance(result, PubAck):
            return result
        try:
            raise result
        finally:
            del result  # else its traceback and this frame keep one another

    async def last_sequence(self, subject: str) -> int:
        """Return the last sequence of the subject's stream. It needs permission to publish, not to read the stream.

        It publishes with an expected sequence that is impossible: nothing is stored, and the refusal names the last
        one. Raises `BrokerUnavailable` or `NotPermitted`.
        """
        try:
            await self.publish(Outgoing(subject, b"", headers={"Nats-Expected-Last-Sequence": str(2**63 - 1)}))
        except WrongLastSequence as refusal:
            if match := _LAST_SEQUENCE.search(str(refusal)):
                return int(match[1])
            raise BrokerUnavailable(f"{refusal}: the last sequence is not given") from refusal
        raise BrokerUnavailable(f"{subject}: the broker does not compare sequences")

    async def publish_many(self, messages: Sequence[Outgoing], timeout: float = PUBLISH_SECONDS) -> list[Result]:
        """Publish all messages at once and wait for the acks. Returns one result a message, in order.

        When the connection breaks, messages without an ack fail at once instead of after `timeout` seconds.
        """
        began = time.perf_counter()
        results = await self._collect(await self.send(messages), timeout)
        PUBLISHES.observe(time.perf_counter() - began)
        return results

    async def send(self, messages: Sequence[Outgoing]) -> Sent:
        """Send messages, in order, without waiting for the acks; `confirm` waits for them."""
        await self._listen_for_acks()
        loop = asyncio.get_running_loop()
        sent = Sent(messages, self._ack_no + 1, [])
        self._ack_no += len(messages)
        for number, message in enumerate(messages, sent.first):
            token = str(number)
            future: asyncio.Future[bytes] = loop.create_future()
            future.add_done_callback(retrieve_exception)
            sent.waiting.append(future)
            if self.refusals.lasting is not None:
                future.set_exception(self.refusals.lasting)
                continue
            self._unacknowledged[token] = message.subject, future
            try:
                await self._nc.publish(
                    message.subject, message.payload, reply=self._ack_inbox + token, headers=message.all_headers()
                )
            except nats.errors.Error as error:
                self._unacknowledged.pop(token, None)
                future.set_exception(BrokerUnavailable(f"{message.subject}: not sent ({type(error).__name__})"))
        return sent

    async def _collect(self, sent: Sent, timeout: float) -> list[Result]:
        if sent.waiting:
            await asyncio.wait(sent.waiting, timeout=timeout)
        for number in range(sent.first, sent.first + len(sent.messages)):
            self._unacknowledged.pop(str(number), None)
        return [_result(message, future) for message, future in zip(sent.messages, sent.waiting, strict=True)]

    async def confirm(self, sent: Sent) -> None:
        """Wait until all messages are stored; publish those again, with the same message id, that are not.

        Raises `NotPermitted`.
        """
        if missing := await self.settle(sent):
            await self.publish_until_stored(missing)

    async def settle(self, sent: Sent) -> list[Outgoing]:
        """Wait for the acks and return the messages without one. Raises `NotPermitted`."""
        results = await self._collect(sent, PUBLISH_SECONDS)
        _raise_refusal(results)
        return [
            message for message, result in zip(sent.messages, results, strict=True) if not isinstance(result, PubAck)
        ]

    async def publish_in_batches(self, messages: Sequence[Outgoing]) -> None:
        """Publish messages of one stream with `allow_atomic` until all are stored, in atomic batches.

        A batch has one ack and one write to disk. NATS refuses a batch as a whole when it has stored one of its message
        ids before; its messages are then published one by one, as after any other error. Raises `NotPermitted`.
        """
        for start in range(0, len(messages), ATOMIC_MESSAGES):
            batch = messages[start : start + ATOMIC_MESSAGES]
            if len(batch) >= 3:
                try:
                    await self.publish_atomic(batch)
                except (BrokerUnavailable, WrongLastSequence) as error:
                    log.debug("%s: atomic batch refused: %s", self.name, error)
                else:
                    continue
            await self.publish_until_stored(batch)

    async def publish_atomic(self, messages: Sequence[Outgoing]) -> PubAck:
        """Store all messages, of one stream with `allow_atomic`, or none; return the ack of the last one.

        Raises `WrongLastSequence` when one of them expects another sequence, `BrokerUnavailable`, or `NotPermitted`.
        """
        refused: list[NotPermitted] = []
        with self.refusals.watch_all(refused.append):
            try:
                return await self._publish_atomic(messages)
            except BrokerUnavailable:
                # NATS answers only the last message of a batch; a refused one before it is reported as a gap.
                subjects = {message.subject.lower(): message.subject for message in messages}
                for refusal in refused:
                    if refusal.verb == "publish" and refusal.subject in subjects:
                        raise self.refusals.refusal("publish", subjects[refusal.subject]) from None
                raise

    async def publish_fillers(self, subject: str, count: int, seconds: int) -> PubAck:
        """Store `count` empty messages, at most 1000, as one atomic batch; they expire after `seconds`.

        Raises `BrokerUnavailable` or `NotPermitted`.
        """
        self._batch_no += 1
        batch = f"{self._batch_prefix}{self._batch_no}"
        common = f"Nats-TTL: {seconds}s\r\nNats-Batch-Id: {batch}\r\nNats-Batch-Sequence: ".encode()
        try:
            await self._nc.publish_copies(subject, [b"%b%d\r\n" % (common, number) for number in range(1, count)])
        except nats.errors.Error as error:
            raise BrokerUnavailable(f"{subject}: not sent ({type(error).__name__})") from error
        commit = {"Nats-Batch-Id": batch, "Nats-Batch-Sequence": str(count), "Nats-Batch-Commit": "1"}
        return await self.publish(Outgoing(subject, b"", headers={"Nats-TTL": f"{seconds}s", **commit}))

    async def _publish_atomic(self, messages: Sequence[Outgoing]) -> PubAck:
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

    async def publish_until_stored(self, messages: Sequence[Outgoing]) -> list[PubAck]:
        """Publish, and repeat with the same message ids until every message is stored, however long it takes.

        Returns the acks in order. Raises `NotPermitted`, which no retry would change.
        """
        acks: dict[int, PubAck] = {}
        missing = list(range(len(messages)))
        delay = 0.05
        while missing:
            results = await self.publish_many([messages[index] for index in missing])
            _raise_refusal(results)
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
        _, future = self._unacknowledged.pop(msg.subject[len(self._ack_inbox) :], ("", None))
        if future is None or future.done():
            return
        if msg.headers and msg.headers.get("Status") == "503":
            future.set_exception(
                BrokerUnavailable("no stream has this subject: start the queue server first, which creates the streams")
            )
        else:
            future.set_result(msg.data)

    def _fail_unacknowledged(self, why: str) -> None:
        for _, future in self._unacknowledged.values():
            if not future.done():
                future.set_exception(BrokerUnavailable(why))
        self._unacknowledged.clear()

    def _refused(self, error: Exception) -> bool:
        """Fail what waits for a refused request; return whether the error is about a permission."""
        subject = self.refusals.report(error)
        lasting = self.refusals.lasting
        if subject is None and lasting is None:
            return "permissions violation" in str(error).lower()
        for token, (subject_sent, future) in list(self._unacknowledged.items()):
            if (lasting is not None or subject_sent.lower() == subject) and not future.done():
                future.set_exception(lasting or self.refusals.refusal("publish", subject_sent))
                del self._unacknowledged[token]
        return True


def _raise_refusal(results: Sequence[Result]) -> None:
    for result in results:
        if isinstance(result, NotPermitted):
            raise result


def _result(message: Outgoing, future: asyncio.Future[bytes]) -> Result:
    if not future.done():
        future.cancel()
        return NotAnswered(f"{message.subject}: not acknowledged in time")
    if (failure := future.exception()) is not None:
        if isinstance(failure, NotPermitted):
            return failure
        return NotAnswered(f"{message.subject}: {failure}")
    try:
        ack = json.loads(future.result())
        if "error" in ack:
            code, text = ack["error"].get("err_code"), ack["error"].get("description", "")
            return _counted(str(ack.get("stream", "")), _publish_error(message.subject, code, text))
        return PubAck(str(ack["stream"]), int(ack["seq"]), bool(ack.get("duplicate", False)))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        return BrokerUnavailable(f"{message.subject}: not an ack: {error!r}")


def _counted(stream: str, refused: Result) -> Result:
    if isinstance(refused, BrokerUnavailable):
        PUBLISH_REFUSALS.labels(stream, "full" if isinstance(refused, StreamFull) else "other").inc()
    return refused


def _publish_error(subject: str, code: int | None, text: str) -> Result:
    if code == WRONG_LAST_SEQUENCE:
        return WrongLastSequence(f"{subject}: {text}")
    if code == STORE_FAILED and text in ("maximum bytes exceeded", "maximum messages exceeded"):
        return StreamFull(f"{subject}: {text}")
    if code in FULL:
        return StreamFull(f"{subject}: JetStream is full and refuses every write ({text})")
    return BrokerUnavailable(f"{subject}: not stored ({text})")
