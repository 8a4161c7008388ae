"""Read a stream from a sequence on, or at some sequences, without a consumer: direct gets (NATS ADR-31).

Nothing is created on the server and nothing is acknowledged, so readers do not disturb the running system.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import UTC, datetime
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
SINGLE_GETS = 256
"""So many gets of single messages are sent before their answers have come."""
LEADER_GETS = 64
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
    begin: int | None = None
    behind_since: float | None = None
    while True:
        body = {"seq": next_sequence, "next_by_subj": subject, "batch": BATCH, "max_bytes": BATCH_BYTES}
        batch = await _direct_get(bus, stream, [body])
        for stored in batch:
            if stored.sequence > last:
                break
            yield stored
        if batch:
            begin = batch[0].sequence if begin is None else begin
            bus.progress(f"reading {stream}", min(batch[-1].sequence, last) - begin, last - begin)
            if batch[-1].sequence >= last:
                return
            next_sequence, behind_since = batch[-1].sequence + 1, None
            continue
        newest = await bus.last_message(stream, subject)
        if newest is None or newest.sequence < next_sequence:
            bus.progress(f"reading {stream}", last, last)
            return
        now = time.monotonic()
        behind_since = behind_since or now
        if now - behind_since > ANSWER_SECONDS:
            raise BrokerUnavailable(f"stream {stream}: the copy that answers has been behind for {ANSWER_SECONDS:g} s")
        await asyncio.sleep(0.1)


async def read_messages(bus: Bus, stream: str, sequences: Sequence[int]) -> list[StoredMessage]:
    """Return the messages at these sequences, in this order, without those that are gone.

    A copy of the stream that is behind may miss one, so the leader is asked for those. Raises `BrokerUnavailable` or
    `NotPermitted`.
    """
    messages: dict[int, StoredMessage] = {}
    for start in range(0, len(sequences), SINGLE_GETS):
        bodies = [{"seq": sequence} for sequence in sequences[start : start + SINGLE_GETS]]
        messages.update((stored.sequence, stored) for stored in await _direct_get(bus, stream, bodies))
    missing = [sequence for sequence in sequences if sequence not in messages]
    for start in range(0, len(missing), LEADER_GETS):
        part = missing[start : start + LEADER_GETS]
        answers = await asyncio.gather(*(bus.message_at(stream, sequence) for sequence in part))
        messages.update((stored.sequence, stored) for stored in answers if stored is not None)
    return [messages[sequence] for sequence in sequences if sequence in messages]


async def first_since(bus: Bus, stream: str, subject: str, moment: float) -> StoredMessage | None:
    """Return the oldest message on a subject that was stored at `moment` (seconds since the epoch) or later."""
    since = datetime.fromtimestamp(moment, UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
    body = {"start_time": since, "next_by_subj": subject}
    return next(iter(await _direct_get(bus, stream, [body])), None)


async def _direct_get(bus: Bus, stream: str, bodies: Sequence[Mapping[str, Any]]) -> list[StoredMessage]:
    """Send direct gets and return the messages of all answers.

    Either one get of a batch, which a status ends, or gets of single messages with one answer each.
    """
    messages: list[StoredMessage] = []
    missing = 0 if "batch" in bodies[0] else len(bodies)
    end: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    end.add_done_callback(retrieve_exception)

    async def collect(msg: Msg) -> None:
        nonlocal missing
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
        elif status not in ("204", "404") and not end.done():  # not the end of a batch, and not "no message"
            detail = "nobody answers" if status == "503" else headers.get("Description", "").strip()
            end.set_exception(BrokerUnavailable(f"stream {stream}: cannot be read ({status} {detail})"))
        missing -= 1
        if (missing == 0 or (missing < 0 and status is not None)) and not end.done():
            end.set_result(None)

    def refused(refusal: NotPermitted) -> None:
        if not end.done():
            end.set_exception(refusal)

    subject = f"$JS.API.DIRECT.GET.{stream}"
    inbox = bus.new_inbox()
    sub = await bus.subscribe(inbox, collect)
    try:
        with bus.refusals.watch(subject, refused):
            for body in bodies:
                await bus.publish_core(subject, pydantic_core.to_json(body), reply=inbox)
            answered: tuple[int, int] | None = None
            while not end.done():
                if answered == (len(messages), missing):
                    raise BrokerUnavailable(f"stream {stream}: not read within {ANSWER_SECONDS:g} s")
                answered = len(messages), missing
                await asyncio.wait({end}, timeout=ANSWER_SECONDS)
        await end
    finally:
        if bus.connected:
            await sub.unsubscribe()
    return messages
