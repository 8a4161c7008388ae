"""The dead letter watch: writes a dead letter for every message that a consumer has given up.

NATS publishes an advisory when it gives up (`MAX_DELIVERIES`: delivered as often as allowed and never acknowledged;
`MSG_TERMINATED`: terminated by a reader). The stream ADVISORY stores these advisories.
"""

from __future__ import annotations

import logging
from typing import Any

from actors.runtime.actor.actor import Actor, on
from actors.runtime.actor.receiver import Consumer
from actors.runtime.broker.connection import Bus, Outgoing
from actors.runtime.broker.consumers.consumer import Delivery
from actors.runtime.broker.dead_letter import dead_letter
from protocol.broker.stream_codecs import Advisory, decode_advisory
from protocol.broker.streams import ADVISORY_WATCH, DEADLETTER
from protocol.broker.subjects import TERMINATED

log = logging.getLogger("examwire.advisory_watch")


class DeadLetterWatch(Actor):
    """Writes a dead letter with the message, the consumer and the reason. Several may run: they share the consumer.

    watch = DeadLetterWatch(bus, "aw1")
    await supervisor.start_child(ChildSpec("advisory-watch", lambda: watch))
    """

    kind = "advisory-watch"
    receives = (Consumer(ADVISORY_WATCH, decode_advisory),)

    def __init__(self, bus: Bus, name: str) -> None:
        super().__init__(f"advisory-watch.{name}", bus)
        self._bus = bus
        self.letters = 0

    def details(self) -> dict[str, Any]:
        return {"putAside": self.letters}

    @on(Advisory)
    async def write_dead_letter(self, advisory: Advisory, delivery: Delivery) -> None:
        """Write the dead letter for the message that an advisory names."""
        if (letter := await self._letter(advisory, delivery.subject)) is not None:
            await self._bus.publish_until_stored([letter])
            self.letters += 1

    async def _letter(self, advisory: Advisory, subject: str) -> Outgoing | None:
        """Make the letter; `None` if the message needs none."""
        consumer = f"consumer {advisory.consumer} of {advisory.stream}"
        if advisory.stream == DEADLETTER.name:
            return None  # a letter about a letter would make the reader that failed fail again
        reason = f"{consumer} gave up after {advisory.deliveries} deliveries"
        stored = await self._bus.message_at(advisory.stream, advisory.stream_seq)
        if subject.startswith(f"{TERMINATED}."):
            if stored is None:
                return None  # it was deleted or has expired while a reader had it: nobody gave it up
            reason = f"terminated by {consumer}: {advisory.reason or 'without a reason'}"
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
