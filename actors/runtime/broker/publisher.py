"""Publish into streams, with acks received on our own inbox: a broken connection or a refusal fails at once."""

from __future__ import annotations

import asyncio
import logging
import re
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import nats.errors
import pydantic_core

from actors.runtime.broker.nats_client import NatsClient
from actors.runtime.broker.refusals import Refusals
from actors.runtime.broker.wire import Arrival
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


class Sent:
    """Messages that were sent, and what has come for each, in the same order: its ack, or why there is none.

    `first` is the number of the first ack. `missing`: so many messages have no answer yet. `failed`: one of them was
    not stored.
    """

    __slots__ = ("_complete", "answers", "failed", "first", "messages", "missing")

    def __init__(self, messages: Sequence[Outgoing], first: int) -> None:
        self.messages = messages
        self.first = first
        self.answers: list[bytes | Exception | None] = [None] * len(messages)
        self.missing = len(messages)
        self.failed = False
        self._complete: asyncio.Future[None] | None = None

    def answer(self, number: int, answer: bytes | Exception) -> None:
        """Note what has come for the ack of this number; the first answer counts."""
        place = number - self.first
        if self.answers[place] is not None:
            return
        self.answers[place] = answer
        self.failed |= isinstance(answer, Exception) or answer.startswith(b'{"error"')
        self.missing -= 1
        if not self.missing and self._complete is not None and not self._complete.done():
            self._complete.set_result(None)

    async def wait(self, timeout: float) -> None:
        """Wait until every message has its answer, but for at most `timeout` seconds."""
        if not self.missing:
            return
        loop = asyncio.get_running_loop()
        self._complete = loop.create_future()
        timer = loop.call_later(timeout, _give_up, self._complete)
        try:
            await self._complete
        finally:
            timer.cancel()


def _give_up(complete: asyncio.Future[None]) -> None:
    if not complete.done():
        complete.set_result(None)


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
        self._unacknowledged: dict[int, Sent] = {}
        """What waits for an ack, by the number of the ack."""

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
        sent = Sent(messages, self._ack_no + 1)
        self._ack_no += len(messages)
        if self.refusals.lasting is not None:
            for number in range(sent.first, sent.first + len(messages)):
                sent.answer(number, self.refusals.lasting)
            return sent
        publications = [
            (message.subject, message.payload, f"{self._ack_inbox}{number}", message.all_headers())
            for number, message in enumerate(messages, sent.first)
        ]
        self._unacknowledged.update(dict.fromkeys(range(sent.first, sent.first + len(messages)), sent))
        if self._nc.publish_now(publications):
            return sent
        for number, publication in enumerate(publications, sent.first):
            try:
                await self._nc.publish(*publication)
            except nats.errors.Error as error:
                self._unacknowledged.pop(number, None)
                sent.answer(number, BrokerUnavailable(f"{publication[0]}: not sent ({type(error).__name__})"))
        return sent

    async def _collect(self, sent: Sent, timeout: float) -> list[Result]:
        await sent.wait(timeout)
        if sent.missing:
            for number in range(sent.first, sent.first + len(sent.messages)):
                self._unacknowledged.pop(number, None)
        return [_result(message, answer) for message, answer in zip(sent.messages, sent.answers, strict=True)]

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
        publications = [
            (message.subject, message.payload, "", _in_batch(message, batch, number))
            for number, message in enumerate(messages[:-1], 1)
        ]
        try:
            if not self._nc.publish_now(publications):
                for publication in publications:
                    await self._nc.publish(*publication)
        except nats.errors.Error as error:
            raise BrokerUnavailable(f"{messages[0].subject}: not sent ({type(error).__name__})") from error
        last = messages[-1]
        commit = {**_in_batch(last, batch, len(messages)), "Nats-Batch-Commit": "1"}
        return await self.publish(Outgoing(last.subject, last.payload, headers=commit))

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
            self._nc.subscribe_direct(f"{self._ack_inbox}*", self._acknowledged)

    def _acknowledged(self, arrival: Arrival) -> None:
        number = int(arrival.subject[len(self._ack_inbox) :])
        sent = self._unacknowledged.pop(number, None)
        if sent is None:
            return
        if arrival.headers and arrival.headers.get("Status") == "503":
            why = "no stream has this subject: start the queue server first, which creates the streams"
            sent.answer(number, BrokerUnavailable(why))
        else:
            sent.answer(number, arrival.data)

    def _fail_unacknowledged(self, why: str) -> None:
        unacknowledged, self._unacknowledged = self._unacknowledged, {}
        for number, sent in unacknowledged.items():
            sent.answer(number, BrokerUnavailable(why))

    def _refused(self, error: Exception) -> bool:
        """Fail what waits for a refused request; return whether the error is about a permission."""
        subject = self.refusals.report(error)
        lasting = self.refusals.lasting
        if subject is None and lasting is None:
            return "permissions violation" in str(error).lower()
        for number, sent in list(self._unacknowledged.items()):
            subject_sent = sent.messages[number - sent.first].subject
            if lasting is not None or subject_sent.lower() == subject:
                del self._unacknowledged[number]
                sent.answer(number, lasting or self.refusals.refusal("publish", subject_sent))
        return True


def _in_batch(message: Outgoing, batch: str, number: int) -> dict[str, str]:
    """Return the headers of a message as the `number`th of an atomic batch."""
    return {**(message.all_headers() or {}), "Nats-Batch-Id": batch, "Nats-Batch-Sequence": str(number)}


def _raise_refusal(results: Sequence[Result]) -> None:
    for result in results:
        if isinstance(result, NotPermitted):
            raise result


def _result(message: Outgoing, answer: bytes | Exception | None) -> Result:
    if answer is None:
        return NotAnswered(f"{message.subject}: not acknowledged in time")
    if isinstance(answer, NotPermitted):
        return answer
    if isinstance(answer, Exception):
        return NotAnswered(f"{message.subject}: {answer}")
    try:
        ack = pydantic_core.from_json(answer)
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
