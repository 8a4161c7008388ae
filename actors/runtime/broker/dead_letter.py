"""Dead letters: messages that cannot be processed, kept with the reason and where they came from."""

from __future__ import annotations

from collections.abc import Mapping

from actors.runtime.broker.connection import Outgoing
from actors.runtime.broker.consumers.consumer import Delivery
from actors.runtime.config.masking import masked
from actors.runtime.telemetry.metrics import DEAD_LETTERS
from protocol.broker import subjects
from protocol.broker.dead_letters import Letter, Source, digest_of, replay_count

MAX_PAYLOAD_BYTES = 64 * 1024
"""The part of a payload that is kept. As JSON it may grow sixfold, and NATS takes at most 1 MB."""


def dead_letter(
    stream: str,
    subject: str,
    number: int,
    payload: bytes,
    reason: str,
    *,
    by: str = "",
    index: int | None = None,
    headers: Mapping[str, str] | None = None,
    consumer: str | None = None,
    deliveries: int | None = None,
) -> Outgoing:
    """Make a letter for `deadletter.{stream}`; its message id makes a second copy have no effect.

    `number` is the message's sequence in the stream, which still holds the whole payload; `index` its place in an
    array of messages. `by` names the reader, when several read a message. `headers` are the message's own: they say
    whether it is a replay. `consumer` and `deliveries`: the consumer that gave up, and after how many deliveries.
    """
    DEAD_LETTERS.labels(stream).inc()
    digest = digest_of(payload)
    replays, replay_of = replay_count(headers or {})
    letter = Letter(
        source=Source(stream=stream, subject=subject, number=number, index=index),
        reason=masked(reason)[:1024],
        payload=payload[:MAX_PAYLOAD_BYTES].decode(errors="replace"),
        size=len(payload),
        digest=digest,
        consumer=consumer,
        deliveries=deliveries,
        replays=replays,
        replay_of=replay_of,
    )
    place = "" if index is None else f":{index}"
    message_id = f"dead:{stream}:{number}{place}:{by}:{digest[:16]}"
    body = letter.model_dump_json(by_alias=True, exclude_none=True)
    return Outgoing(subjects.deadletter(stream), body.encode(), message_id)


def letter_of(delivery: Delivery, stream: str, payload: bytes, reason: str, index: int | None = None) -> Outgoing:
    """Make a letter for a delivery that cannot be processed, or for the message `payload` at `index` in it."""
    return dead_letter(
        stream,
        delivery.subject,
        delivery.sequence,
        payload,
        reason,
        index=index,
        headers=delivery.headers,
        deliveries=delivery.attempt,
    )
