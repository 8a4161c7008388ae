"""The headers and the address parameters of the NATS channels, described."""

from __future__ import annotations

from protocol.broker.dead_letters import REPLAY_OF, REPLAYS
from protocol.log.entries import SCHEDULER
from protocol.spec.schemas import TEXT, Schema

HEADERS: dict[str, Schema] = {
    "Nats-Msg-Id": {
        **TEXT,
        "description": "The message's id: NATS ignores a second message with it in the stream's duplicate window.",
    },
    "Nats-TTL": {
        **TEXT,
        "pattern": "^(never|([0-9]+h)?([0-9]+m)?[0-9]+s)$",
        "description": "NATS deletes the message after this time; `never`: not even at the age limit of the stream.",
    },
    "Nats-Marker-Reason": {
        "enum": ["MaxAge", "Purge", "Remove"],
        "description": "Set by NATS on a marker: the last message of the subject has expired (or was removed).",
    },
    "Nats-Expected-Last-Subject-Sequence": {
        **TEXT,
        "pattern": "^[0-9]+$",
        "description": "A fence: NATS refuses the message unless the subject's newest has this sequence (0: none).",
    },
    "Nats-Expected-Last-Subject-Sequence-Subject": {
        **TEXT,
        "description": "The subject that the fence is about, when it is not that of the message.",
    },
    "Nats-Schedule": {**TEXT, "pattern": "^@at ", "description": "When NATS publishes it, as `@at <RFC 3339>`."},
    "Nats-Schedule-Target": {**TEXT, "description": "The subject on which NATS publishes it."},
    SCHEDULER: {**TEXT, "description": "Set by NATS: the subject of the schedule that published this message."},
    "Nats-Pin-Id": {**TEXT, "description": "Set by NATS: the only client that reads the consumer at present."},
    "Nats-Schedule-Next": {
        **TEXT,
        "description": "Set by NATS: when the schedule fires next; `purge`: this was the last time.",
    },
    "Nats-Batch-Id": {
        **TEXT,
        "description": "The atomic batch: NATS stores all of its messages or none (ADR-50).",
    },
    "Nats-Batch-Sequence": {**TEXT, "pattern": "^[0-9]+$"},
    "Nats-Batch-Commit": {**TEXT, "description": "Marks the last message of a batch."},
    "Nats-Rollup": {"enum": ["sub"], "description": "The message replaces all earlier ones of the subject."},
    REPLAY_OF: {**TEXT, "pattern": "^DEADLETTER:[0-9]+$", "description": "The dead letter that this replays."},
    REPLAYS: {
        **TEXT,
        "pattern": "^[0-9]+$",
        "description": "How often the payload has been replayed, this time included.",
    },
    "traceparent": {**TEXT, "description": "W3C Trace Context, when the message is traced."},
}

PARAMETERS: dict[str, str] = {
    "planId": "The plan: 1 to 64 of A-Z a-z 0-9 _ -",
    "examineeId": "The examinee: 1 to 64 of A-Z a-z 0-9 _ -",
    "serverId": "The socket server, such as SOCK001; not `plan`",
    "origin": "The publisher: `socket-{serverId}` for facts about its sockets, `people-{serverId}` for decisions of "
    "its proctors, `web`, `watch`, `manager`, `timer`, `operator`, `any`",
    "partition": "The plan's partition: FNV-1a (32 bits) of its id, modulo 8",
    "named": "The examineeId or the socketId",
    "record": "Which record it is, as in its key in Redis",
    "whose": "`examinee` or `socket`, as in the key in Redis",
    "part": "A part of the log: `servers`, or a partition of plans",
    "stateManager": "A state manager's name",
    "timer": "`mobile_sync-{version of the wait}`",
    "letter": "`{number of the dead letter}-{its time in ms}`",
    "actor": "`{kind}-{unique}`",
    "address": "An actor's address, of several tokens",
    "inbox": "An inbox under _INBOX",
    "source": "The stream of the failed message: STATUS, SOCKET, LEASE or RECONNECT",
    "digest": "Keyed digest of the code (HMAC-SHA-256 with the token secret, hexadecimal)",
    "stream": "A stream",
    "consumer": "A consumer",
    "nuid": "The id of the object's chunks",
    "object": "The object's name `{planId}/{examineeId}/{captureId}.jpg` in base64url",
}
