"""Reading a stream from a place on, without a consumer: batched direct gets (NATS ADR-31).

Nothing is created on the server and nothing is acknowledged: any number of readers may read while the system runs.
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
    """The messages of `stream` on `subject` (wildcards allowed), in order.

    From sequence `first` on, up to sequence `last`, or to what is the stream's last when this begins. Raises
    `BrokerUnavailable` or `NotPermitted`.

    Any copy of the stream may answer, and one may be a little behind: where the reading ends, its leader is asked.
    """
    if last is None:
        last = (await bus.stream_state(stream)).last
    following = max(1, first)
    behind_since: float | None = None
    while True:
        body = {"seq": following, "next_by_subj": subject, "batch": BATCH, "max_bytes": BATCH_BYTES}
        batch = await _direct_get(bus, stream, body)
        for stored in batch:
            if stored.sequence > last:
                return
            yield stored
        if batch:
            if batch[-1].sequence >= last:
                return
            following, behind_since = batch[-1].sequence + 1, None
            continue
        newest = await bus.last_message(stream, subject)
        if newest is None or newest.sequence < following:
            return
        now = time.monotonic()
        behind_since = behind_since or now
        if now - behind_since > ANSWER_SECONDS:
            raise BrokerUnavailable(f"stream {stream}: the copy that answers has been behind for {ANSWER_SECONDS:g} s")
        await asyncio.sleep(0.1)


async def _direct_get(bus: Bus, stream: str, body: dict[str, Any]) -> list[StoredMessage]:
    found: list[StoredMessage] = []
    end: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    end.add_done_callback(retrieve_exception)

    async def collect(msg: Msg) -> None:
        headers = msg.headers or {}
        status = headers.get("Status")
        if status is None:
            found.append(
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
        elif status in ("204", "404"):  # the end of the batch; nothing there
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
            heard = -1
            while not end.done():
                if heard == len(found):
                    raise BrokerUnavailable(f"stream {stream}: not read within {ANSWER_SECONDS:g} s")
                heard = len(found)
                await asyncio.wait({end}, timeout=ANSWER_SECONDS)
        await end
    finally:
        if bus.connected:
            await sub.unsubscribe()
    return found
