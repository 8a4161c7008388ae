"""Limits for the connections of an HTTP server: their number, and the time that each step may take.

uvicorn has no deadline for a request's headers, and its connection limit counts idle connections too. Here a connection
is either idle (it has not sent a whole request, or its answer was sent) or busy (its request is being answered). An
idle connection has to send the headers of a request in time. When there are too many connections, the one that has been
idle longest is closed, so connections that send nothing do not keep clients out. A busy connection has to read its
answer at a minimum speed. The minimum speed of a body is enforced by its reader
(`actors.web_server.api.mobile_upload`).
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from actors.runtime.http.client_addresses import Network, client_address, counted_as, is_trusted

log = logging.getLogger("examwire.http")

CHECK_SECONDS = 0.5
PERIOD_BYTES = 4 * 1024
"""An idle connection that has moved this much gets a new deadline: it still reads an answer, or still sends the rest of
a body that was answered early."""
CLOSE_SECONDS = 1.0
LOG_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """The number of connections, and the time that a client may take.

    `most`: connections at once; `most_of_address`: those of one client address. `header_seconds`: from the connection,
    or the last answer, to the end of a request's headers. A client has to read `answer_bytes` of a waiting answer
    within every `answer_seconds`. When no connection is idle, a new one is refused; with `end_busy` the oldest busy
    one is closed for it instead.

    Example::

        ConnectionLimits(most=64, most_of_address=64, header_seconds=5.0)
    """

    most: int
    most_of_address: int
    header_seconds: float
    answer_seconds: float = 20.0
    answer_bytes: int = 16 * 1024
    end_busy: bool = False


class Slot:
    """The state of a connection, from its acceptance to its end.

    `address`: the client address whose limit applies, `None` behind a trusted proxy. `unsent`: the number of bytes
    that waited for the client at the last check.

    Example::

        slot = connections.admit("192.0.2.1")
        connections.release(slot)
    """

    __slots__ = ("address", "idle_since", "opening", "protocol", "unsent", "unsent_since")

    def __init__(self, address: str | None) -> None:
        self.address = address
        self.idle_since: float | None = None
        self.opening: asyncio.Task[None] | None = None
        self.protocol: HttpProtocol | None = None
        self.unsent = 0
        self.unsent_since = 0.0


class Connections:
    """The connections of one HTTP server: admits or refuses new ones, and closes those that exceed a limit.

    `on_end` is called with the reason when a connection is refused or closed by a limit: `no_request_in_time`,
    `crowded_out`, `reads_too_slowly`, `refused`.

    Example::

        connections = Connections(limits, trusted_proxies=(), on_end=lambda reason: ENDED.labels(reason).inc())
        slot = connections.admit("192.0.2.1")
    """

    def __init__(
        self, limits: ConnectionLimits, trusted_proxies: Sequence[Network], on_end: Callable[[str], None]
    ) -> None:
        self.limits = limits
        self._proxies = trusted_proxies
        self._on_end = on_end
        self._all: dict[Slot, None] = {}  # the oldest first
        self._by_address: dict[str, set[Slot]] = defaultdict(set)
        self._idle: dict[Slot, None] = {}  # those idle longest first
        self._idle_by_address: dict[str, dict[Slot, None]] = defaultdict(dict)
        self._unsent: set[Slot] = set()
        self._logged_at = -LOG_SECONDS

    def __len__(self) -> int:
        return len(self._all)

    def admit(self, peer: str) -> Slot | None:
        """Return a slot for a new connection from the address `peer`; `None` when every connection is busy."""
        # The client behind a proxy is known only from the headers: the proxy has to limit connections per client.
        address = None if is_trusted(peer, self._proxies) else counted_as(client_address(peer, (), ()))
        if address is not None and len(self._by_address[address]) >= self.limits.most_of_address:
            if not self.make_room(address):
                self._refuse(f"{peer} has {self.limits.most_of_address} connections, all of them busy")
                return None
        elif len(self._all) >= self.limits.most and not self.make_room():
            self._refuse(f"there are {self.limits.most} connections, all of them busy")
            return None
        slot = Slot(address)
        self._all[slot] = None
        if address is not None:
            self._by_address[address].add(slot)
        self._set_idle(slot, time.monotonic())
        return slot

    def opened(self, slot: Slot, protocol: HttpProtocol) -> bool:
        """Set the protocol of a connection. Return False when the connection was closed meanwhile."""
        slot.protocol = protocol
        return slot in self._all

    def make_room(self, address: str | None = None) -> bool:
        """Close the connection that has been idle longest (of one client address). Return False when none is idle."""
        idle = self._idle if address is None else self._idle_by_address.get(address, {})
        slot = next(iter(idle), None)
        if slot is None and self.limits.end_busy:
            slot = next((slot for slot in self._all if address is None or slot.address == address), None)
        if slot is None:
            return False
        self._end(slot, "crowded_out")
        return True

    def release(self, slot: Slot) -> None:
        """Remove a connection that has ended. Harmless when repeated."""
        self._all.pop(slot, None)
        self._unsent.discard(slot)
        self._set_busy(slot)
        if slot.address is not None and (slots := self._by_address.get(slot.address)) is not None:
            slots.discard(slot)
            if not slots:
                del self._by_address[slot.address]

    def set_busy(self, slot: Slot, busy: bool) -> None:
        """Mark a connection busy (a request has arrived) or idle (the client has read most of the answer)."""
        if busy:
            self._set_busy(slot)
        elif slot.idle_since is None and slot in self._all:
            self._set_idle(slot, time.monotonic())

    def set_unsent(self, slot: Slot, unsent: int | None) -> None:
        """Record that `unsent` bytes of an answer wait for the client; `None`: it has read enough."""
        self._unsent.discard(slot)
        if unsent is not None and slot in self._all:
            slot.unsent, slot.unsent_since = unsent, time.monotonic()
            self._unsent.add(slot)

    async def check(self) -> None:
        """Close connections that exceed a time limit, until cancelled."""
        while True:
            await asyncio.sleep(CHECK_SECONDS)
            self.end_overdue(time.monotonic())

    def end_overdue(self, now: float) -> None:
        """Close connections that were idle too long, and those that read their answer too slowly."""
        while (slot := next(iter(self._idle), None)) is not None:
            assert slot.idle_since is not None
            if slot.idle_since + self.limits.header_seconds > now:
                break
            if slot.protocol is not None and slot.protocol.makes_progress():
                self._set_busy(slot)
                self._set_idle(slot, now)
            else:
                self._end(slot, "no_request_in_time")
        for slot in list(self._unsent):
            if slot.unsent_since + self.limits.answer_seconds > now or slot.protocol is None:
                continue
            unsent = slot.protocol.unsent
            if slot.unsent - unsent < self.limits.answer_bytes:
                self._end(slot, "reads_too_slowly")
            else:
                slot.unsent, slot.unsent_since = unsent, now

    def abort_all(self) -> None:
        """Close every connection at once, busy ones too."""
        for slot in list(self._all):
            self._abort(slot, with_answer=False)

    def _end(self, slot: Slot, reason: str) -> None:
        self._on_end(reason)
        self._abort(slot, with_answer=reason == "no_request_in_time")

    def _abort(self, slot: Slot, *, with_answer: bool) -> None:
        self.release(slot)
        if slot.protocol is not None:
            slot.protocol.end(with_answer=with_answer)
        elif slot.opening is not None:
            slot.opening.cancel()

    def _set_idle(self, slot: Slot, now: float) -> None:
        slot.idle_since = now
        if slot.protocol is not None:
            slot.unsent = slot.protocol.unsent
        self._idle[slot] = None
        if slot.address is not None:
            self._idle_by_address[slot.address][slot] = None

    def _set_busy(self, slot: Slot) -> None:
        slot.idle_since = None
        self._idle.pop(slot, None)
        if slot.address is not None and (slots := self._idle_by_address.get(slot.address)) is not None:
            slots.pop(slot, None)
            if not slots:
                del self._idle_by_address[slot.address]

    def _refuse(self, why: str) -> None:
        self._on_end("refused")
        now = time.monotonic()
        if now - self._logged_at >= LOG_SECONDS:
            self._logged_at = now
            log.warning("connections are refused: %s", why)


class HttpProtocol(H11Protocol):
    """uvicorn's protocol for one connection; it tells `Connections` when the connection becomes busy or idle.

    Example::

        protocol = HttpProtocol(slot, connections, config=config, server_state=state, app_state={})
        protocol.end(with_answer=False)
    """

    def __init__(self, slot: Slot, connections: Connections, **options: Any) -> None:
        """`options` are those of uvicorn's `H11Protocol`."""
        super().__init__(**options)
        self._slot = slot
        self._connections = connections
        self._received = self._received_before = 0

    @property
    def unsent(self) -> int:
        """Bytes that wait for the client to read them."""
        return self.transport.get_write_buffer_size()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if self._connections.opened(self._slot, self):
            return
        transport.abort()  # it was closed during its handshake

    def connection_lost(self, exc: Exception | None) -> None:
        self._connections.release(self._slot)
        super().connection_lost(exc)
        # Both refer back to this protocol: without these circles its memory is free without a garbage collection.
        self._slot.protocol = None
        self.cycle = None  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        self._received += len(data)
        super().data_received(data)
        self._update()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._update()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._connections.set_unsent(self._slot, self.unsent)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._connections.set_unsent(self._slot, None)
        self._update()

    def _update(self) -> None:
        answering = self.cycle is not None and not self.cycle.response_complete
        self._connections.set_busy(self._slot, answering or self.flow.write_paused)

    def makes_progress(self) -> bool:
        """Return whether an idle connection has moved `PERIOD_BYTES` of an answer or a body since the last call."""
        sent, self._slot.unsent = self._slot.unsent - self.unsent, self.unsent
        received, self._received_before = self._received - self._received_before, self._received
        if self.unsent:
            return sent >= PERIOD_BYTES
        return self.conn.their_state is h11.SEND_BODY and received >= PERIOD_BYTES

    def end(self, *, with_answer: bool) -> None:
        """Close the connection; with `with_answer`, answer 408 first when the client has begun a request."""
        begun = self.conn.their_state is h11.IDLE and bool(self.conn.trailing_data[0])
        if with_answer and begun and not self.transport.is_closing():
            self.transport.write(short_answer(408, "REQUEST_TIMEOUT", "the request's headers did not come in time"))
            self.transport.close()
            self.loop.call_later(CLOSE_SECONDS, self.transport.abort)
        else:
            self.transport.abort()


def short_answer(status: int, code: str, detail: str) -> bytes:
    """Return an HTTP answer with a problem document (RFC 9457), for requests that do not reach the application.

    It announces that the connection is closed.
    """
    phrase = HTTPStatus(status).phrase
    body = json.dumps(
        {"type": "about:blank", "title": phrase, "status": status, "detail": detail, "code": code}
    ).encode()
    head = (
        f"HTTP/1.1 {status} {phrase}\r\nContent-Type: application/problem+json\r\nContent-Length: {len(body)}\r\n"
        "Cache-Control: no-store\r\nRetry-After: 2\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + body
