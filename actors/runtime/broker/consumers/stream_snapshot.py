"""Save a stream of the broker as one file of bytes, and restore it: the snapshot API of JetStream.

The bytes are the broker's own (compressed by it): messages with their sequences and times, and the consumers. Both ways
go chunk by chunk, so memory stays flat. While a stream is saved it goes on: what is stored meanwhile is not in it.
The API is described in the NATS documentation ("JetStream API reference", `STREAM.SNAPSHOT` and `STREAM.RESTORE`).
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pydantic_core

from protocol.errors import BrokerUnavailable, ExamwireError, StreamFull

if TYPE_CHECKING:
    from nats.aio.msg import Msg

    from actors.runtime.broker.connection import Bus

API = "$JS.API.STREAM"
CHUNK_BYTES = 128 * 1024
WINDOW_BYTES = 2 * 1024 * 1024
"""So much the broker sends before the first of it is acknowledged."""
API_SECONDS = 5.0
CHECK_SECONDS = 120.0
"""Before it sends anything, a broker may read the whole stream to verify its checksums."""
QUIET_SECONDS = 20.0
RESTORE_DEAD_SECONDS = 30.0
LEAST_CHUNK_BYTES, QUICK_SECONDS = 8 * 1024, 0.1
RESTORE_SECONDS = 3600.0
"""After the last chunk the broker may read the whole stream once more."""
NO_STREAM, NO_STORAGE = 10059, (10023, 10047)


class SnapshotFailed(ExamwireError):
    """The broker could not save or restore a stream; the text has its reason."""


async def save_stream(bus: Bus, stream: str, write: Callable[[bytes], object]) -> dict[str, Any] | None:
    """Save a stream with its consumers: `write` gets the bytes. Return its `config` and `state`; `None`: no stream.

    Raises `BrokerUnavailable`, `SnapshotFailed` when it cannot be read or chunks were lost, `NotPermitted`, and what
    `write` raises.
    """
    if await bus.stream_config(stream) is None:  # in a cluster nobody answers a request to save it
        return None
    end: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    chunks = 0

    async def receive(msg: Msg) -> None:
        nonlocal chunks
        if end.done():
            return
        headers = msg.headers or {}
        if not msg.data:
            status = headers.get("Status", "204")
            if status == "204":
                end.set_result(None)
            else:
                reason = headers.get("Description", "").strip()
                end.set_exception(SnapshotFailed(f"stream {stream}: NATS ended its snapshot: {status} {reason}"))
            return
        chunks += 1
        # The subject of the ack ends with the number of the chunk; the last chunk needs no ack.
        if msg.reply and msg.reply.rpartition(".")[2] != str(chunks):
            end.set_exception(SnapshotFailed(f"stream {stream}: a part of its snapshot was lost on the way: try again"))
            return
        try:
            write(msg.data)
            if msg.reply:
                await bus.publish_core(msg.reply, b"")
        except (OSError, ExamwireError) as error:
            end.set_exception(error)

    inbox = bus.new_inbox()
    subscription = await bus.subscribe(inbox, receive)
    try:
        about = await _api(
            bus,
            f"{API}.SNAPSHOT.{stream}",
            {"deliver_subject": inbox, "chunk_size": CHUNK_BYTES, "window_size": WINDOW_BYTES, "jsck": True},
            CHECK_SECONDS,
        )
        _raise_error(stream, about)
        received = -1
        while not end.done():
            if received == chunks:
                raise BrokerUnavailable(f"stream {stream}: nothing of its snapshot within {QUIET_SECONDS:g} s")
            received = chunks
            await asyncio.wait({end}, timeout=QUIET_SECONDS)
        await end
    finally:
        end.cancel()
        if bus.connected:
            await subscription.unsubscribe()
    return {"config": about["config"], "state": about["state"]}


async def restore_stream(
    bus: Bus, config: dict[str, Any], state: dict[str, Any], read: Callable[[int], bytes]
) -> dict[str, Any]:
    """Create a stream that does not exist from the bytes of `save_stream`; return the state that it has then.

    `read` returns the next bytes, at most so many, and nothing at the end. The broker stores a part before it answers,
    and answers nothing else on this connection meanwhile: connect with `dead_seconds=RESTORE_DEAD_SECONDS`. An attempt
    that was broken off may leave a part of the stream. Raises `BrokerUnavailable`, `SnapshotFailed`,
    `StreamFull` when the broker has no room, `NotPermitted`, and what `read` raises.
    """
    name = config["name"]
    beginning = await _api(bus, f"{API}.RESTORE.{name}", {"config": config, "state": state}, API_SECONDS)
    _raise_error(name, beginning)
    size = LEAST_CHUNK_BYTES
    while chunk := read(size):
        began = time.monotonic()
        if answer := await bus.request(beginning["deliver_subject"], chunk, QUIET_SECONDS):
            _raise_error(name, json.loads(answer))
        # A broker that writes each message to a slow disk gives up on a part that takes 5 s.
        quick = time.monotonic() - began < QUICK_SECONDS
        size = min(2 * size, CHUNK_BYTES) if quick else max(size // 2, LEAST_CHUNK_BYTES)
    result = await _api(bus, beginning["deliver_subject"], None, RESTORE_SECONDS)
    _raise_error(name, result)
    return dict(result["state"])


async def delete_stream(bus: Bus, stream: str) -> None:
    """Delete a stream if it exists. Raises `BrokerUnavailable`, `SnapshotFailed`, `NotPermitted`."""
    answer = await _api(bus, f"{API}.DELETE.{stream}", None, API_SECONDS)
    if answer.get("error", {}).get("err_code") != NO_STREAM:
        _raise_error(stream, answer)


async def stream_subjects(bus: Bus, stream: str, pattern: str) -> list[str]:
    """Return the subjects of a stream that match a pattern and have messages; at most 100,000 of them.

    Raises `BrokerUnavailable`, `SnapshotFailed`, `NotPermitted`.
    """
    answer = await _api(bus, f"{API}.INFO.{stream}", {"subjects_filter": pattern}, API_SECONDS)
    if answer.get("error", {}).get("err_code") == NO_STREAM:
        return []
    _raise_error(stream, answer)
    return sorted(answer["state"].get("subjects") or {})


async def _api(bus: Bus, subject: str, body: dict[str, Any] | None, seconds: float) -> dict[str, Any]:
    payload = b"" if body is None else pydantic_core.to_json(body)
    return dict(json.loads(await bus.request(subject, payload, seconds)))


def _raise_error(stream: str, answer: dict[str, Any]) -> None:
    if (error := answer.get("error")) is None:
        return
    text = f"stream {stream}: NATS refuses: {error.get('description')}"
    raise StreamFull(text) if error.get("err_code") in NO_STORAGE else SnapshotFailed(text)
