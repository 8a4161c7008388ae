"""Dead letters: what can never be processed, put aside with its reason and where it came from."""

from __future__ import annotations

import hashlib

import pydantic_core

from actors.runtime.bus import Outgoing
from protocol import subjects

MAX_PAYLOAD_BYTES = 64 * 1024
"""Of the payload, so much is kept: written as JSON it may grow sixfold, and must pass the broker's limit of 1 MB."""


def dead_letter(stream: str, subject: str, number: int, payload: bytes, reason: str, *, by: str = "") -> Outgoing:
    """A letter for `deadletter.{stream}`; the message id makes the same letter, written again, have no effect.

    `number` is the place in the stream, where the whole payload is found if it was cut (`size` says so). `by` tells
    several readers of one message apart.
    """
    body = {
        "source": {"stream": stream, "subject": subject, "number": number},
        "reason": reason[:1024],
        "payload": payload[:MAX_PAYLOAD_BYTES].decode(errors="replace"),
        "size": len(payload),
    }
    message_id = f"dead:{stream}:{number}:{by}:{hashlib.sha256(payload).hexdigest()[:16]}"
    return Outgoing(subjects.deadletter(stream), pydantic_core.to_json(body), message_id)
