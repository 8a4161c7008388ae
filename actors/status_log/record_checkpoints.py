"""Checkpoints of the records in Redis, in the stream RECORDS: read them, or write some of them.

One message for each record and each socket that facts write, in the state that a manager found in Redis, and one
manifest for each part of the log: all facts of the part up to its `sequence` are in these messages. A message may be
newer than that, which does no harm: facts go into a record by their version, twice has the effect of once. So a lost
Redis comes back from the messages of a part and the facts after its manifest, also those that the log has dropped.

Each batch is stored as a whole or not at all. It ends with the manifest, and expects the manifest that its writer has
read before it read Redis. So of two writers one is refused, and what a purge deletes is not written back by a writer
that had read it before: who purges writes the manifest anew, then deletes.
"""

from __future__ import annotations

import logging
import zlib
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import pydantic
import pydantic_core

from actors.runtime.broker.connection import Bus, Outgoing
from actors.runtime.broker.consumers.stream_reader import read_stream
from actors.runtime.broker.stream_state import StoredMessage
from protocol.broker import subjects
from protocol.broker.streams import RECORDS

log = logging.getLogger("examwire.checkpoints")

FORMAT = 1
"""The newest format of a manifest that this release understands; it writes the same."""
COMPRESSED_BYTES = 64 * 1024
"""Larger payloads are compressed: the record of a plan with times of its own for 15,000 examinees has megabytes."""
_ENCODING = "Examwire-Encoding"


class Manifest(pydantic.BaseModel):
    """Up to where the checkpoints of a part are complete: all facts of the part up to `sequence` of STATUS.

    0: the first checkpoint is still being made. `live`, of the part of the servers: the live sessions of each plan.
    """

    sequence: int
    format: int = FORMAT
    time: str = ""
    live: dict[str, int] | None = None


_BEGUN = Manifest(sequence=0)


class SocketPlace(NamedTuple):
    """The entry of a socket in the index of its server's sockets (`keys.server_sockets`)."""

    server: str
    value: str


@dataclass(frozen=True, slots=True)
class CheckpointedKey:
    """A key of Redis, a hash, as it was at a checkpoint.

    `fields` is empty when a plan has no record: the message then only names the plan. `member`: the examinee of the
    record is in the set of the plan's examinees. `entry`: of a socket that had not ended. `sequence`: the place of the
    message in RECORDS; of two messages of a key the later one is the newer one.
    """

    key: str
    fields: Mapping[str, str]
    member: bool = False
    entry: SocketPlace | None = None
    sequence: int = 0

    def encode(self) -> Outgoing:
        """Return the message in RECORDS."""
        content: dict[str, Any] = {"fields": self.fields}
        if self.member:
            content["member"] = True
        if self.entry is not None:
            content["entry"] = self.entry._asdict()
        payload = pydantic_core.to_json(content)
        if len(payload) <= COMPRESSED_BYTES:
            return Outgoing(subjects.record(self.key), payload)
        return Outgoing(subjects.record(self.key), zlib.compress(payload, 1), headers={_ENCODING: "zlib"})

    @classmethod
    def decode(cls, stored: StoredMessage) -> CheckpointedKey:
        """Read a message of RECORDS. Raises `ValueError`."""
        key = subjects.record_key(stored.subject)
        if key is None:
            raise ValueError("no subject of a record")
        try:
            payload = zlib.decompress(stored.payload) if stored.headers.get(_ENCODING) == "zlib" else stored.payload
            content = pydantic_core.from_json(payload)
            entry = SocketPlace(**content["entry"]) if content.get("entry") is not None else None
            return cls(key, dict(content["fields"]), content.get("member") is True, entry, stored.sequence)
        except (AttributeError, KeyError, TypeError, zlib.error) as error:
            raise ValueError(f"no checkpoint: {error!r}") from error


@dataclass(frozen=True, slots=True)
class PartCheckpoint:
    """The manifest of a part as a writer needs it. `place`: its place in RECORDS, which the next write expects.

    `manifest` is `None` when there is none, or none that can be read; `newer`: a newer release has written it.
    """

    part: str
    manifest: Manifest | None
    place: int = 0
    newer: bool = False
    payload: bytes = b""
    """The manifest as it is stored."""


class RecordCheckpoints:
    """Reads the checkpoints. Raises `BrokerUnavailable`, `NotPermitted`.

    Example::

        checkpoints = RecordCheckpoints(bus)
        manifest = await checkpoints.manifest(part)
        for plan_id in await checkpoints.plans(part):
            async for checkpointed in checkpoints.read(part, plan_id):
                print(checkpointed.key, checkpointed.fields)
    """

    def __init__(self, bus: Bus) -> None:
        self._bus = bus

    async def manifest(self, part: str) -> Manifest | None:
        """Return the manifest of a part; `None`: its checkpoints are not complete up to anywhere."""
        manifest = (await self.checkpoint(part)).manifest
        return manifest if manifest is not None and manifest.sequence > 0 else None

    async def plans(self, part: str) -> list[str]:
        """Return the plans that a part has checkpoints of, sorted; the part of the servers has none."""
        named = await self._bus.stream_subjects(RECORDS.name, subjects.record_of_any_plan(part))
        return sorted(subject.split(".")[2] for subject in named)

    async def read(self, part: str, plan_id: str | None = None) -> AsyncIterator[CheckpointedKey]:
        """Yield the keys of a part, or of one plan of it. A key that is written meanwhile comes twice, newer at last.

        A message that cannot be read is left out, and said.
        """
        pattern = subjects.records_of_part(part) if plan_id is None else subjects.records_of_plan(plan_id)
        first, place = 1, -1
        while True:
            # A message that is replaced meanwhile has a new place at the end: read on until nobody has written.
            newest = (await self.checkpoint(part)).place
            if newest == place:
                return
            place = newest
            async for stored in read_stream(self._bus, RECORDS.name, subject=pattern, first=first):
                first = stored.sequence + 1
                try:
                    yield CheckpointedKey.decode(stored)
                except ValueError as error:
                    log.error("the checkpoint on %s cannot be read: %s", stored.subject, error)

    async def checkpoint(self, part: str) -> PartCheckpoint:
        """Return the manifest of a part with its place in RECORDS, for who writes the next one."""
        stored = await self._bus.last_message(RECORDS.name, subjects.records_checkpoint(part))
        if stored is None:
            return PartCheckpoint(part, None)
        try:
            manifest = Manifest.model_validate_json(stored.payload)
        except pydantic.ValidationError as error:
            log.error("the checkpoints of part %s are made anew, their manifest cannot be read: %s", part, error)
            return PartCheckpoint(part, None, stored.sequence, payload=stored.payload)
        if manifest.format > FORMAT:
            log.warning("the checkpoints of part %s are those of a newer release: not used", part)
            return PartCheckpoint(part, None, stored.sequence, newer=True, payload=stored.payload)
        return PartCheckpoint(part, manifest, stored.sequence, payload=stored.payload)

    async def write(
        self, checkpoint: PartCheckpoint, manifest: Manifest | None, records: Sequence[Outgoing] = ()
    ) -> PartCheckpoint:
        """Store checkpoints and the manifest after them, if the part's is still the one in `checkpoint`.

        `None`: the manifest stays what it is. At most 999 records, and some MB of them. Raises `WrongLastSequence` when
        somebody else has written the manifest: nothing is stored then.
        """
        subject = subjects.records_checkpoint(checkpoint.part)
        expected = {
            "Nats-Expected-Last-Subject-Sequence": str(checkpoint.place),
            "Nats-Expected-Last-Subject-Sequence-Subject": subject,
        }
        if manifest is not None:
            payload = manifest.model_dump_json(exclude_none=True).encode()
        else:
            begun = _BEGUN.model_dump_json(exclude_none=True).encode()
            manifest, payload = checkpoint.manifest, checkpoint.payload or begun
        if not records:
            ack = await self._bus.publish(Outgoing(subject, payload, headers=expected))
        else:
            first = replace(records[0], headers={**records[0].headers, **expected})
            ack = await self._bus.publish_atomic([first, *records[1:], Outgoing(subject, payload)])
        return replace(checkpoint, manifest=manifest, place=ack.sequence, payload=payload)
