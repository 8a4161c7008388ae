"""The advisory watch: a message that a consumer has given up goes to the dead letters.

NATS only says that it happened (`MAX_DELIVERIES`: delivered as often as allowed and never acknowledged;
`MSG_TERMINATED`: a reader said "never again"); a stream keeps these advisories for us.
"""

from __future__ import annotations

import logging
import time
from typing import Any

import pydantic

from actors.dead_letter import dead_letter
from actors.runtime.actor import Actor
from actors.runtime.bus import Bus, Outgoing
from actors.runtime.presence import Presence
from actors.runtime.pull import Delivery, PullConsumer
from protocol.errors import BrokerUnavailable
from protocol.streams import ADVISORY_WATCH, DEADLETTER, RECONNECT_EXHAUSTED
from protocol.subjects import TERMINATED

log = logging.getLogger("examwire.advisory_watch")

AGAIN_SECONDS = 1.0
NORMAL = RECONNECT_EXHAUSTED.filters  # an examinee who did not come back: the reconnect watch deals with those


class Advisory(pydantic.BaseModel):
    """The fields of an advisory that matter here (`io.nats.jetstream.advisory.v1.max_deliver` and `.terminated`)."""

    stream: str
    consumer: str
    stream_seq: int
    deliveries: int
    reason: str | None = None


class AdvisoryWatch(Actor):
    """Puts what consumers gave up aside, with who gave up and why. Several may run: they share the consumer."""

    kind = "advisory-watch"

    def __init__(self, bus: Bus, name: str) -> None:
        super().__init__(f"advisory-watch.{name}")
        self._bus = bus
        self._presence = Presence(bus, self)
        self.put_aside = self.normal = 0

    async def on_start(self) -> None:
        await self._bus.consumer_ready(ADVISORY_WATCH.stream, ADVISORY_WATCH.name)
        await self._presence.announce()
        self.spawn(self._follow(), "follow")

    async def on_stop(self) -> None:
        await self._presence.withdraw()

    def details(self) -> dict[str, Any]:
        return {
            "consumers": [f"{ADVISORY_WATCH.stream}/{ADVISORY_WATCH.name}"],
            "putAside": self.put_aside,
            "normal": self.normal,
        }

    async def _follow(self) -> None:
        async for deliveries in PullConsumer(self._bus, ADVISORY_WATCH.stream, ADVISORY_WATCH.name):
            for delivery in deliveries:
                began = time.perf_counter()
                try:
                    if delivery.subject in NORMAL:
                        self.normal += 1
                    elif (letter := await self._letter(delivery)) is not None:
                        await self._bus.publish_surely([letter])
                        self.put_aside += 1
                except BrokerUnavailable as error:
                    log.warning("%s: %s: later: %s", self.address, delivery.subject, error)
                    await delivery.nak(delay=AGAIN_SECONDS)
                else:
                    await delivery.ack()
                self.account_for(delivery, began)

    async def _letter(self, delivery: Delivery) -> Outgoing | None:
        try:
            advisory = Advisory.model_validate_json(delivery.payload)
        except pydantic.ValidationError as error:
            log.error("%s: %s is no advisory: %s", self.address, delivery.subject, error)
            reason = f"no advisory: {error.errors()[0]['msg']}"
            return dead_letter("ADVISORY", delivery.subject, delivery.sequence, delivery.payload, reason)
        who = f"consumer {advisory.consumer} of {advisory.stream}"
        if advisory.stream == DEADLETTER.name:
            return None  # a reader of the letters that fails with each would be given a new one for each
        reason = f"{who} gave up after {advisory.deliveries} deliveries"
        stored = await self._bus.message_at(advisory.stream, advisory.stream_seq)
        if delivery.subject.startswith(f"{TERMINATED}."):
            if stored is None:
                return None  # it was deleted, or has expired, while somebody was at it: nobody has given it up
            reason = f"terminated by {who}: {advisory.reason or 'without a reason'}"
        elif stored is None:
            reason += "; the message is not in the stream any more"
        log.error("%s: message %d: %s", self.address, advisory.stream_seq, reason)
        return dead_letter(
            advisory.stream,
            stored.subject if stored is not None else "",
            advisory.stream_seq,
            stored.payload if stored is not None else b"",
            reason,
            by=advisory.consumer,
            headers=stored.headers if stored is not None else None,
            consumer=advisory.consumer,
            deliveries=advisory.deliveries,
        )
