"""Store objects of some megabytes in a JetStream stream, in the format of the NATS object store (NATS ADR-20).

An object consists of chunks on a subject of their own and of one message with its metadata, which replaces the previous
one. So an object is either whole or not there, and a reader never mixes two versions. `nats object ls` and every client
library can read it. `sweep` removes chunks that no object uses: of a replaced object, or of an interrupted put.

nats-py's own object store is not used: its `put` deletes the replaced chunks at once, and a `get` that is reading them
waits for ever; it also needs permission to create consumers.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import logging
import secrets
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import pydantic
from pydantic import Field

from actors.runtime.broker.connection import Bus, Outgoing, PubAck
from actors.runtime.broker.consumers.stream_reader import read_stream
from actors.runtime.broker.stream_state import StoredMessage
from protocol.broker.streams import bucket_stream
from protocol.errors import BrokerUnavailable

log = logging.getLogger("examwire.object_store")

CHUNK_BYTES = 128 * 1024
CHUNKS_AT_ONCE = 16
PUT_SECONDS = 20.0
GET_ATTEMPTS = 5
_DIGEST = "SHA-256="


@dataclass(frozen=True, slots=True)
class StoredObject:
    """An object's metadata. `stored_at`: seconds by the broker's clock. `link`: the name of the object it points to."""

    name: str
    size: int
    nuid: str
    digest: str
    sequence: int
    stored_at: float
    link: str | None = None


class ObjectStore:
    """A bucket that the queue server has created. Every method raises `BrokerUnavailable` and `NotPermitted`.

    Example::

        pictures = ObjectStore(bus, "captures")
        await pictures.put("P001/E001/sync_cap.jpg", content)
    """

    def __init__(self, bus: Bus, bucket: str) -> None:
        self._bus = bus
        self._bucket = bucket
        self._stream = bucket_stream(bucket)

    async def put(self, name: str, content: bytes) -> None:
        """Store an object; it replaces one of the same name. Raises `StreamFull` as well."""
        nuid = secrets.token_hex(11)
        chunks = [content[start : start + CHUNK_BYTES] for start in range(0, len(content), CHUNK_BYTES)]
        for first in range(0, len(chunks), CHUNKS_AT_ONCE):
            await self._publish(
                [Outgoing(self._chunks(nuid), chunk) for chunk in chunks[first : first + CHUNKS_AT_ONCE]]
            )
        digest = _DIGEST + base64.urlsafe_b64encode(hashlib.sha256(content).digest()).decode()
        about = {"nuid": nuid, "size": len(content), "chunks": len(chunks), "digest": digest}
        await self._publish_metadata(name, {**about, "options": {"max_chunk_size": CHUNK_BYTES}})

    async def link(self, name: str, target: str) -> None:
        """Have `name` point to another object of the bucket."""
        link = {"link": {"bucket": self._bucket, "name": target}}
        await self._publish_metadata(name, {"nuid": secrets.token_hex(11), "size": 0, "chunks": 0, "options": link})

    async def get(self, name: str) -> bytes | None:
        """Return the whole object, or `None`. A link is followed once."""
        for attempt in range(GET_ATTEMPTS):
            if attempt:
                await asyncio.sleep(0.05 * 2**attempt)  # it was replaced meanwhile, or a replica is behind
            stored = await self._about(name)
            if stored is not None and stored.link is not None:
                stored = await self._about(stored.link)
            if stored is None or stored.link is not None:
                await self._check_bucket()
                return None
            content = b"".join([chunk async for chunk in self._read(stored)])
            if _DIGEST + base64.urlsafe_b64encode(hashlib.sha256(content).digest()).decode() == stored.digest:
                return content
        raise BrokerUnavailable(f"object {name} of {self._bucket}: not read completely within {GET_ATTEMPTS} attempts")

    async def objects(self) -> list[StoredObject]:
        """Return all objects and links."""
        objects: dict[str, StoredObject] = {}
        async for stored in read_stream(self._bus, self._stream, subject=f"$O.{self._bucket}.M.>"):
            about = _parsed(stored)
            if about is not None:
                objects[stored.subject] = about
        return list(objects.values())

    async def remove(self, stored: StoredObject) -> bool:
        """Remove an object; return False when it was replaced or removed meanwhile."""
        removed = await self._purge(self._meta(stored.name), up_to=stored.sequence)
        if removed and stored.link is None:
            await self._purge(self._chunks(stored.nuid))
        return removed

    async def sweep(self, before: float) -> int:
        """Remove chunks that no object uses and that were stored `before` (seconds); return how many objects' worth."""
        known = {stored.nuid for stored in await self.objects()}
        removed = 0
        async for subject in self._chunk_subjects():
            if subject.rpartition(".")[2] in known:
                continue
            newest = await self._bus.last_message(self._stream, subject)
            if newest is not None and newest.time < before:
                removed += await self._purge(subject)
        return removed

    async def _publish_metadata(self, name: str, about: Mapping[str, Any]) -> None:
        payload = json.dumps({"name": name, "bucket": self._bucket, **about}).encode()
        await self._publish([Outgoing(self._meta(name), payload, headers={"Nats-Rollup": "sub"})])

    async def _publish(self, messages: list[Outgoing]) -> None:
        for result in await self._bus.publish_many(messages, PUT_SECONDS):
            if not isinstance(result, PubAck):
                raise result

    async def _about(self, name: str) -> StoredObject | None:
        stored = await self._bus.last_message(self._stream, self._meta(name))  # of the leader: nobody is ahead of it
        return _parsed(stored) if stored is not None else None

    async def _check_bucket(self) -> None:
        """Raise `BrokerUnavailable` when there is no bucket, which is not the same as an empty one."""
        if await self._bus.stream_config(self._stream) is None:
            raise BrokerUnavailable(
                f"there is no bucket {self._bucket}: set mobile_sync.store to nats for the queue server, too"
            )

    async def _read(self, about: StoredObject) -> AsyncIterator[bytes]:
        async for stored in read_stream(self._bus, self._stream, subject=self._chunks(about.nuid), last=about.sequence):
            yield stored.payload

    async def _chunk_subjects(self) -> AsyncIterator[str]:
        offset = 0
        while True:
            request = {"subjects_filter": self._chunks("*"), "offset": offset}
            answer = await self._ask(f"$JS.API.STREAM.INFO.{self._stream}", request)
            for subject in answer["state"].get("subjects") or {}:
                yield subject
            offset += int(answer.get("limit") or 0)  # the server's page; without one this is all
            if not answer.get("limit") or offset >= int(answer.get("total") or 0):
                return

    async def _purge(self, subject: str, *, up_to: int | None = None) -> bool:
        """Remove the messages on a subject, up to a sequence; return False when there was none."""
        request: dict[str, Any] = {"filter": subject}
        if up_to is not None:
            request["seq"] = up_to + 1  # the first one that stays
        answer = await self._ask(f"$JS.API.STREAM.PURGE.{self._stream}", request)
        return bool(answer.get("purged"))

    async def _ask(self, subject: str, request: Mapping[str, Any]) -> dict[str, Any]:
        answer: dict[str, Any] = json.loads(await self._bus.request(subject, json.dumps(request).encode()))
        if "error" in answer:
            raise BrokerUnavailable(f"bucket {self._bucket}: {answer['error'].get('description', 'refused')}")
        return answer

    def _meta(self, name: str) -> str:
        return f"$O.{self._bucket}.M.{base64.urlsafe_b64encode(name.encode()).decode()}"

    def _chunks(self, nuid: str) -> str:
        return f"$O.{self._bucket}.C.{nuid}"


class _Link(pydantic.BaseModel):
    name: str | None = None


class _Options(pydantic.BaseModel):
    link: _Link | None = None


class _Info(pydantic.BaseModel):
    """The fields of an object's metadata that are used here."""

    name: str
    nuid: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
    size: Annotated[int, Field(ge=0, lt=2**53)]
    digest: str = ""
    deleted: bool = False
    options: _Options | None = None


def _parsed(stored: StoredMessage) -> StoredObject | None:
    """Parse an object's metadata; `None` when another client has marked it as deleted, or when it is malformed."""
    try:
        about = _Info.model_validate_json(stored.payload)
    except pydantic.ValidationError as error:
        wrong = error.errors(include_url=False, include_input=False)[0]["msg"]
        log.warning("%s %d is not about an object and is ignored: %s", stored.subject, stored.sequence, wrong)
        return None
    if about.deleted:
        return None
    link = about.options.link if about.options is not None else None
    return StoredObject(
        about.name,
        about.size,
        about.nuid,
        about.digest,
        stored.sequence,
        stored.time,
        link.name if link is not None else None,
    )
