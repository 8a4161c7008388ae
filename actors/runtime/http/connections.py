"""Connections to the web server: how many there may be, and what each of them has to do in time.

uvicorn has no deadline for a request's headers and no limit that would tell the silent from the busy. Here a connection
is either idle (nothing asked yet, or everything answered) or has a request in hand. Idle ones have to bring the headers
of a request in time, and make room for new ones when there are too many: the one that has been idle longest goes first.
So whoever opens connections and says nothing shuts nobody out. One with a request in hand only has to take its answer
at some pace; how a body may come is the affair of whoever reads it (`actors.web_server.api.mobile_upload`).
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections import defaultdict
from collections.abc import Sequence
from http import HTTPStatus
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from actors.runtime.actor.process_facts import fd_limit
from actors.runtime.config.settings import WebSettings
from actors.runtime.http.client_addresses import Network, client_address, counted_as, is_trusted
from actors.web_server.metrics import CONNECTIONS, CONNECTIONS_ENDED

log = logging.getLogger("examwire.web")

LOOK_SECONDS = 0.5
SLOW_SECONDS, SLOW_BYTES = 20.0, 16 * 1024
"""So much of an answer has to be taken within so long, while there is that much left."""
PERIOD_BYTES = 4 * 1024
"""So much has to move for an idle connection to have its time once more: the end of an answer, or of a body that was
answered before it was there."""
FAREWELL_SECONDS = 1.0
FD_RESERVE = 256
"""File descriptors that are no connection: engines, files of the process, decoders."""
LOG_SECONDS = 60.0


class Slot:
    """A connection from its acceptance to its end. `address`: whom it counts for; none behind a trusted proxy."""

    __slots__ = ("address", "idle_since", "opening", "protocol", "unsent", "unsent_since")

    def __init__(self, address: str | None) -> None:
        self.address = address
        self.idle_since: float | None = None
        self.opening: asyncio.Task[None] | None = None
        self.protocol: GuardedProtocol | None = None
        self.unsent = 0
        self.unsent_since = 0.0


class Connections:
    """All connections of one web server, and who has to go."""

    def __init__(self, settings: WebSettings, trusted_proxies: Sequence[Network]) -> None:
        # An upload has a file beside its connection.
        files = fd_limit()
        self._most = max(1, min(settings.max_connections, (files - min(FD_RESERVE, files // 4)) // 2))
        self._most_of_one = settings.max_connections_per_address
        self._header_seconds = settings.header_seconds
        self._proxies = trusted_proxies
        self._all: set[Slot] = set()
        self._by_address: dict[str, set[Slot]] = defaultdict(set)
        # Those that have been idle longest come first.
        self._idle: dict[Slot, None] = {}
        self._idle_by_address: dict[str, dict[Slot, None]] = defaultdict(dict)
        self._unsent: set[Slot] = set()
        self._said = -LOG_SECONDS
        CONNECTIONS.set_function(lambda: len(self._all))

    def __len__(self) -> int:
        return len(self._all)

    def admit(self, peer: str) -> Slot | None:
        """A slot for a new connection; `None` when all there may be have a request in hand."""
        # Who is behind a proxy is known when the headers are there, so the proxy has to limit its clients.
        address = None if is_trusted(peer, self._proxies) else counted_as(client_address(peer, (), ()))
        if address is not None and len(self._by_address[address]) >= self._most_of_one:
            if not self.make_room(address):
                self._refused(f"{peer} has {self._most_of_one} connections, all of them with a request in hand")
                return None
        elif len(self._all) >= self._most and not self.make_room():
            self._refused(f"there are {self._most} connections, all of them with a request in hand")
            return None
        slot = Slot(address)
        self._all.add(slot)
        if address is not None:
            self._by_address[address].add(slot)
        self._now_idle(slot, time.monotonic())
        return slot

    def opened(self, slot: Slot, protocol: GuardedProtocol) -> bool:
        """The connection can be spoken on from now; whether it may."""
        slot.protocol = protocol
        return slot in self._all

    def make_room(self, address: str | None = None) -> bool:
        """End the connection that has been idle longest (of an address); whether there was one."""
        idle = self._idle if address is None else self._idle_by_address.get(address, {})
        longest = next(iter(idle), None)
        if longest is None:
            return False
        self._end(longest, "crowded_out")
        return True

    def release(self, slot: Slot) -> None:
        """The connection is gone. Harmless when repeated."""
        self._all.discard(slot)
        self._unsent.discard(slot)
        self._no_longer_idle(slot)
        if slot.address is not None and (own := self._by_address.get(slot.address)) is not None:
            own.discard(slot)
            if not own:
                del self._by_address[slot.address]

    def has_request(self, slot: Slot, in_hand: bool) -> None:
        """A request has come, or the last one was answered, and most of the answer was taken."""
        if in_hand:
            self._no_longer_idle(slot)
        elif slot.idle_since is None and slot in self._all:
            self._now_idle(slot, time.monotonic())

    def waits_for_peer(self, slot: Slot, unsent: int | None) -> None:
        """So many bytes of an answer wait for the peer to take them; `None`: it took enough."""
        self._unsent.discard(slot)
        if unsent is not None and slot in self._all:
            slot.unsent, slot.unsent_since = unsent, time.monotonic()
            self._unsent.add(slot)

    async def look(self) -> None:
        """For ever: end those whose time is over."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            self.end_overdue(time.monotonic())

    def end_overdue(self, now: float) -> None:
        """End those that were idle too long, and those that take their answer too slowly."""
        while (slot := next(iter(self._idle), None)) is not None:
            assert slot.idle_since is not None
            if slot.idle_since + self._header_seconds > now:
                break
            if slot.protocol is not None and slot.protocol.goes_on():
                self._no_longer_idle(slot)
                self._now_idle(slot, now)
            else:
                self._end(slot, "no_request_in_time")
        for slot in list(self._unsent):
            if slot.unsent_since + SLOW_SECONDS > now or slot.protocol is None:
                continue
            unsent = slot.protocol.unsent
            if slot.unsent - unsent < SLOW_BYTES:
                self._end(slot, "reads_too_slowly")
            else:
                slot.unsent, slot.unsent_since = unsent, now

    def _end(self, slot: Slot, reason: str) -> None:
        CONNECTIONS_ENDED.labels(reason).inc()
        self.release(slot)
        if slot.protocol is not None:
            slot.protocol.end(told=reason == "no_request_in_time")
        elif slot.opening is not None:
            slot.opening.cancel()

    def _now_idle(self, slot: Slot, now: float) -> None:
        slot.idle_since = now
        if slot.protocol is not None:
            slot.unsent = slot.protocol.unsent
        self._idle[slot] = None
        if slot.address is not None:
            self._idle_by_address[slot.address][slot] = None

    def _no_longer_idle(self, slot: Slot) -> None:
        slot.idle_since = None
        self._idle.pop(slot, None)
        if slot.address is not None and (own := self._idle_by_address.get(slot.address)) is not None:
            own.pop(slot, None)
            if not own:
                del self._idle_by_address[slot.address]

    def _refused(self, why: str) -> None:
        CONNECTIONS_ENDED.labels("refused").inc()
        now = time.monotonic()
        if now - self._said >= LOG_SECONDS:
            self._said = now
            log.warning("connections are refused: %s", why)


class GuardedProtocol(H11Protocol):
    """uvicorn's protocol, which tells `Connections` whether a request is in hand."""

    def __init__(self, slot: Slot, connections: Connections, **uvicorns: Any) -> None:
        super().__init__(**uvicorns)
        self._slot = slot
        self._guard = connections
        self._received = self._received_before = 0

    @property
    def unsent(self) -> int:
        """Bytes that wait for the peer to take them."""
        return self.transport.get_write_buffer_size()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if self._guard.opened(self._slot, self):
            return
        transport.abort()  # it had to go during its handshake

    def connection_lost(self, exc: Exception | None) -> None:
        self._guard.release(self._slot)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._received += len(data)
        super().data_received(data)
        self._tell()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._tell()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._guard.waits_for_peer(self._slot, self.unsent)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._guard.waits_for_peer(self._slot, None)
        self._tell()

    def _tell(self) -> None:
        in_hand = self.cycle is not None and not self.cycle.response_complete
        self._guard.has_request(self._slot, in_hand or self.flow.write_paused)

    def goes_on(self) -> bool:
        """Whether there is a reason to let an idle connection have its time once more."""
        taken, self._slot.unsent = self._slot.unsent - self.unsent, self.unsent
        received, self._received_before = self._received - self._received_before, self._received
        if self.unsent:
            return taken >= PERIOD_BYTES
        return self.conn.their_state is h11.SEND_BODY and received >= PERIOD_BYTES

    def end(self, *, told: bool) -> None:
        """End the connection now; `told`: with a word, when the peer has begun a request."""
        begun = self.conn.their_state is h11.IDLE and bool(self.conn.trailing_data[0])
        if told and begun and not self.transport.is_closing():
            self.transport.write(short_answer(408, "REQUEST_TIMEOUT", "the request's headers did not come in time"))
            self.transport.close()
            self.loop.call_later(FAREWELL_SECONDS, self.transport.abort)
        else:
            self.transport.abort()


def short_answer(status: int, code: str, detail: str) -> bytes:
    """An answer to whoever is not let in as far as Starlette; the connection ends with it."""
    phrase = HTTPStatus(status).phrase
    body = json.dumps(
        {"type": "about:blank", "title": phrase, "status": status, "detail": detail, "code": code}
    ).encode()
    head = (
        f"HTTP/1.1 {status} {phrase}\r\nContent-Type: application/problem+json\r\nContent-Length: {len(body)}\r\n"
        "Cache-Control: no-store\r\nRetry-After: 2\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + body
