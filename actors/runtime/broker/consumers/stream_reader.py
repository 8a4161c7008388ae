"""Read a stream from a sequence on, without a consumer: batched direct gets (NATS ADR-31).

Nothing is created on the server and nothing is acknowledged, so readers do not disturb the running system.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

import pydantic_core

from actors.runtime.broker.nats_client import retrieve_exception
from actors.runtime.broker.stream_state import StoredMessage
from protocol.errors import BrokerUnavailable, NotPermitted
from protocol.times import parse_time

if TYPE_CHECKING:
    from nats.aio.msg import Msg

    from actors.runtime.broker.connection import Bus

BATCH = 512
BATCH_BYTES = 4 * 1024 * 1024
ANSWER_SECONDS = 5.0


async def read_stream(
    bus: Bus, stream: str, *, subject: str = ">", first: int = 1, last: int | None = None
) -> AsyncIterator[StoredMessage]:
    """Iterate over the messages of `stream` on `subject` (wildcards allowed), in order.

    From sequence `first` to sequence `last`, by default the last one when this begins. Any copy of the stream may
    answer, and a copy may be behind: at the end the leader is asked whether there is more. Raises `BrokerUnavailable`
    or `NotPermitted`.
    """
    if last is None:
        last = (await bus.stream_state(stream)).last
    next_sequence = max(1, first)
    behind_since: float | None = None
    while True:
        body = {"seq": next_sequence, "next_by_subj": subject, "batch": BATCH, "max_bytes": BATCH_BYTES}
        batch = await _direct_get(bus, stream, body)
        for stored in batch:
            if stored.sequence > last:
                return
            yield stored
        if batch:
            if batch[-1].sequence >= last:
                return
            next_sequence, behind_since = batch[-1].sequence + 1, None
            continue
        newest = await bus.last_message(stream, subject)
        if newest is None or newest.sequence < next_sequence:
            return
        now = time.monotonic()
        behind_since = behind_since or now
        if now - behind_since > ANSWER_SECONDS:
            raise BrokerUnavailable(f"stream {stream}: the copy that answers has been behind for {ANSWER_SECONDS:g} s")
        await asyncio.sleep(0.1)


async def _direct_get(bus: Bus, stream: str, body: dict[str, Any]) -> list[StoredMessage]:
    messages: list[StoredMessage] = []
    end: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    end.add_done_callback(retrieve_exception)

    async def collect(msg: Msg) -> None:
        headers = msg.headers or {}
        status = headers.get("Status")
        if status is None:
            messages.append(
                StoredMessage(
                    headers["Nats-Subject"],
                    int(headers["Nats-Sequence"]),
                    msg.data,
                    headers,
                    parse_time(headers["Nats-Time-Stamp"]),
                )
            )
        elif end.done():
            return
        elif status in ("204", "404"):  # the end of the batch; no messages
            end.set_result(None)
        else:
            detail = "nobody answers" if status == "503" else headers.get("Description", "").strip()
            end.set_exception(BrokerUnavailable(f"stream {stream}: cannot be read ({status} {detail})"))

    def refused(refusal: NotPermitted) -> None:
        if not end.done():
            end.set_exception(refusal)

    subject = f"$JS.API.DIRECT.GET.{stream}"
    inbox = bus.new_inbox()
    sub = await bus.subscribe(inbox, collect)
    try:
        with bus.refusals.watch(subject, refused):
            await bus.publish_core(subject, pydantic_core.to_json(body), reply=inbox)
            received = -1
            while not end.done():
                if received == len(messages):
                    raise BrokerUnavailable(f"stream {stream}: not read within {ANSWER_SECONDS:g} s")
                received = len(messages)
                await asyncio.wait({end}, timeout=ANSWER_SECONDS)
        await end
    finally:
        if bus.connected:
            await sub.unsubscribe()
    return messages
