"""Limits of connections by address: tight before a valid hello, generous after it.

A hall of thousands may come from one address, behind one NAT. So a client whose hello was valid hardly counts, and a
client that shows a valid token in its handshake goes before those that show none. A client is a stranger from the
answer to its request until its hello is accepted.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from dataclasses import dataclass
from typing import Protocol

from actors.runtime.config.sections import SocketSettings
from actors.runtime.http.client_addresses import counted_as
from actors.runtime.token_bucket import TokenBucket
from actors.sessions.metrics import LIMITS_HIT
from protocol.access.claims import Claims

log = logging.getLogger("examwire.address_limits")

REQUEST_SECONDS = 5.0
"""A request must be complete so many seconds after its connection began."""

YOUNG_SECONDS = 1.0
"""Clients usually say hello sooner. A stranger that is older makes room for a newer one."""

KNOWN_SECONDS = 3600.0
"""For so long after a valid hello, its address goes before those without one."""

CONNECTS_PER_SECOND = 4000.0
"""More connections from one address are dropped unread. Each costs about 0.1 ms, and its client may have a token."""

WAITING_FOR_STRANGERS = 4
"""Times `max_strangers_per_address`: so many connections of an address may wait for the answer to their request."""

MOST_ADDRESSES = 50_000
LOGGED_ADDRESSES = 5


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of a socket server: the settings `socket.*` of the same names."""

    accept_per_second: float
    accept_per_address: float
    max_connections: int
    max_connections_per_address: int
    max_strangers_per_address: int

    @classmethod
    def of(cls, socket: SocketSettings) -> Limits:
        """Take the limits from the settings."""
        return cls(**{name: getattr(socket, name) for name in cls.__dataclass_fields__})


class Transport(Protocol):
    """A connection that can be dropped."""

    def abort(self) -> None: ...


class Address:
    """One address and what it has used up. `identified`: its connections whose hello was accepted."""

    __slots__ = ("checks", "connects", "handshakes", "identified", "identified_at", "key", "strangers", "waiting")

    def __init__(self, key: str, limits: Limits) -> None:
        self.key = key
        self.waiting: dict[AddressSlot, None] = {}
        self.strangers: dict[AddressSlot, None] = {}
        self.identified = 0
        self.identified_at: float | None = None
        self.handshakes = _throttle(limits.accept_per_address)
        self.checks = _throttle(limits.accept_per_second / 2)
        self.connects = _throttle(CONNECTS_PER_SECOND)


class AddressSlot:
    """The slot of one connection in the counts of its address: waiting for an answer, then a stranger, then identified.

    `ip` is the client's address. `shown` is the valid token of its handshake with its claims, until the hello.
    """

    __slots__ = ("_limits", "address", "identified", "ip", "shown", "since", "transport")

    def __init__(self, limits: AddressLimits, address: Address, ip: str, transport: Transport, since: float) -> None:
        self._limits = limits
        self.address = address
        self.ip = ip
        self.transport = transport
        self.since = since
        self.identified = False
        self.shown: tuple[str, Claims] | None = None

    def hello_accepted(self) -> None:
        """Count the connection as identified from now on."""
        self.shown = None
        self._limits.hello_accepted(self)

    def leave(self) -> None:
        """Give the slot back: the connection has ended, or is being ended. Harmless when repeated."""
        self._limits.leave(self)

    def hit(self, limit: str) -> None:
        """Count that the client has hit a limit of its own; the log names its address."""
        self._limits.hit(self, limit)


class AddressLimits:
    """Counts connections by address from their begin to their end.

    limits = AddressLimits(Limits.of(settings.socket))
    slot = limits.arrive("192.0.2.1", transport, proxy=False)  # `None`: drop the connection
    reason = limits.refuse(slot, known=False)  # `None`: let it in
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        # Strangers may take half of what is accepted in a second, and a quarter of the slots.
        self._handshakes = _throttle(limits.accept_per_second)
        self._connects = _throttle(2 * CONNECTS_PER_SECOND)
        self._strangers_handshakes = _throttle(limits.accept_per_second / 2)
        self._most_strangers = max(100, limits.max_connections // 4)
        self._addresses: dict[str, Address] = {}
        self._waiting: dict[AddressSlot, None] = {}
        self._strangers: dict[AddressSlot, None] = {}
        self._identified = 0
        self._hit: Counter[str] = Counter()
        self._timer: asyncio.TimerHandle | None = None

    def arrive(self, address: str, transport: Transport, *, proxy: bool) -> AddressSlot | None:
        """Take a slot for a new connection. `None`: drop it at once, its address makes too many.

        `proxy`: the peer is a trusted proxy, and the client's address is not known yet (`belongs_to`).
        """
        loop = asyncio.get_running_loop()
        source = self._address(address)
        if not proxy:
            # Generous: a client with a token must be able to show it.
            most = WAITING_FOR_STRANGERS * self._limits.max_strangers_per_address
            too_fast = not source.connects.take() or not (self._is_known(source) or self._connects.take())
            if too_fast or (len(source.waiting) >= most and not self._make_room(source.waiting)):
                self._count_hit(source, "connects")
                return None
        slot = AddressSlot(self, source, address, transport, loop.time())
        source.waiting[slot] = None
        self._waiting[slot] = None
        if self._timer is None:
            self._timer = loop.call_later(1.0, self._check_waiting)
        return slot

    def belongs_to(self, slot: AddressSlot, address: str) -> None:
        """Count the connection for the client's address, which a trusted proxy has named."""
        slot.ip = address
        slot.address.waiting.pop(slot, None)
        slot.address = self._address(address)
        slot.address.waiting[slot] = None

    def refuse(self, slot: AddressSlot, *, known: bool) -> str | None:
        """Return why a handshake is refused now; `None`: it is let in, as a stranger.

        `known`: it has shown a valid token. Checking a token costs more than this, so ask without one first.
        """
        source = slot.address
        reason = self._room(source, known=known) or self._rate(source, known=known)
        if reason is not None:
            self._hit_by(source)
            return reason
        source.waiting.pop(slot, None)
        self._waiting.pop(slot, None)
        source.strangers[slot] = None
        self._strangers[slot] = None
        return None

    def _room(self, source: Address, *, known: bool) -> str | None:
        limits, strangers = self._limits, self._strangers
        if source.identified + len(source.strangers) >= limits.max_connections_per_address:
            return "address_full"
        if self._identified + len(strangers) >= limits.max_connections and not (known and self._make_room(strangers)):
            return "full"
        if known:
            return None
        if len(source.strangers) >= limits.max_strangers_per_address and not self._make_room(source.strangers):
            return "address_full"
        if len(strangers) >= self._most_strangers and not self._make_room(strangers):
            return "full"
        return None

    def _rate(self, source: Address, *, known: bool) -> str | None:
        if not known:
            if not source.handshakes.take():
                return "address_too_fast"
            if not self._is_known(source) and not self._strangers_handshakes.take():
                return "too_fast"
        return None if self._handshakes.take() else "too_fast"

    def may_check(self, slot: AddressSlot) -> bool:
        """Return whether to spend more than a refusal on the client: check a token, send a close frame."""
        return slot.address.checks.take()

    def hello_accepted(self, slot: AddressSlot) -> None:
        """See `AddressSlot.hello_accepted`."""
        self.leave(slot)
        slot.identified = True
        source = slot.address
        source.identified += 1
        source.identified_at = asyncio.get_running_loop().time()
        self._identified += 1

    def leave(self, slot: AddressSlot) -> None:
        """See `AddressSlot.leave`."""
        source = slot.address
        if slot.identified:
            slot.identified = False
            source.identified -= 1
            self._identified -= 1
            return
        for slots in (source.waiting, self._waiting, source.strangers, self._strangers):
            slots.pop(slot, None)

    def hit(self, slot: AddressSlot, limit: str) -> None:
        """See `AddressSlot.hit`."""
        self._count_hit(slot.address, limit)

    def close(self) -> None:
        """Drop the connections whose request is not complete."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for slot in list(self._waiting):
            slot.transport.abort()

    def _address(self, address: str) -> Address:
        key = counted_as(address)
        source = self._addresses.get(key)
        if source is None:
            if len(self._addresses) >= MOST_ADDRESSES:
                self._forget()
            source = self._addresses[key] = Address(key, self._limits)
        return source

    def _make_room(self, slots: dict[AddressSlot, None]) -> bool:
        """Drop the oldest of these connections, unless it is young."""
        oldest = next(iter(slots), None)
        if oldest is None or asyncio.get_running_loop().time() - oldest.since < YOUNG_SECONDS:
            return False
        self._count_hit(oldest.address, "idle")
        self.leave(oldest)
        oldest.transport.abort()
        return True

    def _is_known(self, source: Address) -> bool:
        if source.identified or source.identified_at is None:
            return source.identified > 0
        return asyncio.get_running_loop().time() - source.identified_at < KNOWN_SECONDS

    def _count_hit(self, source: Address, limit: str) -> None:
        LIMITS_HIT.labels(limit).inc()
        self._hit_by(source)

    def _hit_by(self, source: Address) -> None:
        if len(self._hit) < MOST_ADDRESSES:
            self._hit[source.key] += 1

    def _check_waiting(self) -> None:
        """Once a second: drop connections whose request is late, and log which addresses have hit limits."""
        loop = asyncio.get_running_loop()
        late = loop.time() - REQUEST_SECONDS
        for slot in list(self._waiting):
            if slot.since > late:
                break
            self._count_hit(slot.address, "request_late")
            self.leave(slot)
            slot.transport.abort()
        hit, self._hit = self._hit, Counter()
        if hit:
            most = ", ".join(f"{address} {times}" for address, times in hit.most_common(LOGGED_ADDRESSES))
            log.warning("limits were hit %d times within 1 s, by %d addresses: %s", hit.total(), len(hit), most)
        self._timer = loop.call_later(1.0, self._check_waiting) if self._waiting or hit else None

    def _forget(self) -> None:
        """Forget addresses without connections: strangers must not fill the memory."""
        for key, source in list(self._addresses.items()):
            if not source.waiting and not source.strangers and not self._is_known(source):
                del self._addresses[key]
        idle = [
            key
            for key, source in self._addresses.items()
            if not source.waiting and not source.strangers and not source.identified
        ]
        for key in idle[: max(0, len(self._addresses) - MOST_ADDRESSES // 2)]:
            del self._addresses[key]


def _throttle(per_second: float) -> TokenBucket:
    return TokenBucket(per_second, max(1.0, per_second))  # with less than one a second, one is let in at once
