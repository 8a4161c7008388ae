"""Payloads of NATS channels that are no messages, as data: markers, advisories of NATS, pictures."""

from __future__ import annotations

from dataclasses import dataclass

from protocol.broker.streams import CAPTURES_BUCKET
from protocol.messages.base import Wire
from protocol.messages.inspection import Inspection
from protocol.spec.schemas import INTEGER, TEXT, Direction, Schema


@dataclass(frozen=True, slots=True)
class BarePayload:
    """A payload that is not a `{"type", "data"}`; `model` or `schema` describes it."""

    name: str
    summary: str
    model: type[Wire] | None = None
    direction: Direction = "written"
    schema: Schema | None = None
    example: object = None
    content_type: str = "application/json"


NOTHING = BarePayload(
    "nothing",
    "No payload; readers ignore one.",
    schema={**TEXT, "maxLength": 0},
    example="",
    content_type="text/plain",
)
REPLAY_MARKER = BarePayload(
    "replay_marker",
    "The dead letter has been replayed: a second replay finds this, and is refused by the broker.",
    schema={
        "type": "object",
        "properties": {"letter": INTEGER, "time": TEXT},
        "required": ["letter", "time"],
    },
    example={"letter": 17, "time": "2026-11-22T09:30:00.000Z"},
)
INSPECTION = BarePayload("inspection", "How the actor is.", model=Inspection)
CHUNK = BarePayload(
    "chunk",
    "At most 128 KiB of a JPEG.",
    schema={**TEXT, "description": "Bytes, not text."},
    content_type="application/octet-stream",
)
META = BarePayload(
    "object_info",
    "The metadata of the object.",
    schema={
        "type": "object",
        "properties": dict.fromkeys(("name", "bucket", "nuid", "digest"), TEXT) | {"size": INTEGER},
        "required": ["name", "bucket", "nuid"],
        "additionalProperties": True,
    },
    example={"name": "P001/E001/sync_cap.jpg", "bucket": CAPTURES_BUCKET, "nuid": "4qUCOFxPcR9b", "size": 0},
)


def advisory(key: str, summary: str) -> BarePayload:
    """Return the payload of an advisory of NATS."""
    required = ("type", "stream", "consumer", "stream_seq", "deliveries")
    properties: Schema = {name: INTEGER if name in ("stream_seq", "deliveries") else TEXT for name in required}
    return BarePayload(
        key,
        f"{summary} The fields that examwire reads.",
        schema={"type": "object", "properties": properties, "required": list(required), "additionalProperties": True},
        example={
            "type": "io.nats.jetstream.advisory.v1.max_deliver",
            "stream": "RECONNECT",
            "consumer": "reconnect-watch",
            "stream_seq": 12,
            "deliveries": 5,
        },
    )
