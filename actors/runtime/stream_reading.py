"""Reading a stream from a place on, without a consumer: batched direct gets (NATS ADR-31).

Nothing is created on the server and nothing is acknowledged: any number of readers may read while the system runs.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

import pydantic_core

from actors.runtime.stream_admin import Stored
from protocol.errors import BrokerUnavailable

if TYPE_CHECKING:
    from nats.aio.msg import Msg

    from actors.runtime.bus import Bus

BATCH = 512
BATCH_BYTES = 4 * 1024 * 1024
ANSWER_SECONDS = 5.0


async def read_stream(
    bus: Bus, stream: str, *, subject: str = ">", first: int = 1, since: str | None = None, last: int | None = None
) -> AsyncIterator[Stored]:
    """The messages of `stream` on `subject` (wildcards allowed), in order.

    From sequence `first` on, or from the first one stored at `since` (RFC 3339) or later; up to sequence `last`, or
    to what is the stream's last when this begins. Raises `BrokerUnavailable`.
    """
    if last is None:
        last = (await bus.stream_state(stream)).last
    place: dict[str, Any] = {"start_time": since} if since is not None else {"seq": max(1, first)}
    while True:
        body = {**place, "next_by_subj": subject, "batch": BATCH, "max_bytes": BATCH_BYTES}
        batch = await _direct_get(bus, stream, body)
        for stored in batch:
            if stored.sequence > last:
                return
            yield stored
        if not batch or batch[-1].sequence >= last:
            return
        place = {"seq": batch[-1].sequence + 1}


async def _direct_get(bus: Bus, stream: str, body: dict[str, Any]) -> list[Stored]:
    found: list[Stored] = []
    end: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def collect(msg: Msg) -> None:
        headers = msg.headers or {}
        status = headers.get("Status")
        if status is None:
            found.append(
                Stored(
                    headers["Nats-Subject"],
                    int(headers["Nats-Sequence"]),
                    msg.data,
                    headers,
                    headers.get("Nats-Time-Stamp"),
                )
            )
        elif end.done():
            return
        elif status in ("204", "404"):  # the end of the batch; nothing there
            end.set_result(None)
        else:
            detail = "nobody answers" if status == "503" else headers.get("Description", "").strip()
            end.set_exception(BrokerUnavailable(f"stream {stream}: cannot be read ({status} {detail})"))

    inbox = bus.new_inbox()
    sub = await bus.subscribe(inbox, collect)
    try:
        await bus.publish_core(f"$JS.API.DIRECT.GET.{stream}", pydantic_core.to_json(body), reply=inbox)
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
