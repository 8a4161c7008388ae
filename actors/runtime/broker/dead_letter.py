"""Dead letters: what can never be processed, put aside with its reason and where it came from."""

from __future__ import annotations

from collections.abc import Mapping

from actors.runtime.broker.connection import Outgoing
from actors.runtime.broker.consumers.consumer import Delivery
from actors.runtime.config.masking import masked
from actors.runtime.telemetry.metrics import DEAD_LETTERS
from protocol.broker import subjects
from protocol.broker.dead_letters import Letter, Source, digest_of, replay_count

MAX_PAYLOAD_BYTES = 64 * 1024
"""Of the payload, so much is kept: written as JSON it may grow sixfold, and must pass the broker's limit of 1 MB."""


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
    """A letter for `deadletter.{stream}`; the message id makes the same letter, written again, have no effect.

    `number` is the place in the stream, where the whole payload is found if it was cut, `index` the place in an array
    of messages. `by` tells several readers of one message apart. `headers` are the message's: they say whether it is
    a replayed one. `consumer` and `deliveries`: who gave up on it, and after how many.
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
    """A letter for a delivery that cannot be processed, or for the message `payload` at `index` of it."""
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
