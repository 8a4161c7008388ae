"""How many connect from one address, and how fast: those who have not greeted tightly, those who have generously.

A hall of thousands may come from one address, behind one NAT. So whoever has said a valid hello hardly counts, and
whoever shows a valid token in the handshake goes before those who show none.
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
"""From the connection to the end of its request."""

YOUNG_SECONDS = 1.0
"""A client that is on its way says hello sooner. Older ones that have not make room for a newer one."""

KNOWN_SECONDS = 3600.0
"""An address from which somebody has greeted goes so long before those from which nobody has."""

CONNECTS_PER_SECOND = 4000.0
"""More of one address are dropped unread. Each costs about 0.1 ms, and may be of one who has a token to show."""

WAITING_FOR_STRANGERS = 4
"""Times `max_strangers_per_address`: so many may wait for the answer to their request, whatever it will be."""

MOST_ADDRESSES = 50_000
LOGGED = 5


@dataclass(frozen=True, slots=True)
class Limits:
    """Of a socket server: see the settings of the same names."""

    accept_per_second: float
    accept_per_address: float
    max_connections: int
    max_connections_per_address: int
    max_strangers_per_address: int

    @classmethod
    def of(cls, socket: SocketSettings) -> Limits:
        return cls(**{name: getattr(socket, name) for name in cls.__dataclass_fields__})


class Transport(Protocol):
    """What can be dropped."""

    def abort(self) -> None: ...


class Address:
    """One address, with what it has used up. `greeted`: connections that have said a valid hello."""

    __slots__ = ("checks", "connects", "greeted", "greeted_at", "handshakes", "key", "strangers", "waiting")

    def __init__(self, key: str, limits: Limits) -> None:
        self.key = key
        self.waiting: dict[AddressSlot, None] = {}
        self.strangers: dict[AddressSlot, None] = {}
        self.greeted = 0
        self.greeted_at: float | None = None
        self.handshakes = _pace(limits.accept_per_address)
        self.checks = _pace(limits.accept_per_second / 2)
        self.connects = _pace(CONNECTS_PER_SECOND)


class AddressSlot:
    """The place of one connection in the counts of its address.

    It waits for its request to be answered, then is a stranger, then has greeted. `ip`: the client's address as it is.
    `shown`: the valid token that its handshake has shown, and what it says, until then.
    """

    __slots__ = ("_limits", "address", "greeted", "ip", "shown", "since", "transport")

    def __init__(self, limits: AddressLimits, address: Address, ip: str, transport: Transport, since: float) -> None:
        self._limits = limits
        self.address = address
        self.ip = ip
        self.transport = transport
        self.since = since
        self.greeted = False
        self.shown: tuple[str, Claims] | None = None

    def greet(self) -> None:
        """The client has said a valid hello."""
        self.shown = None
        self._limits.greeted(self)

    def leave(self) -> None:
        """The connection has ended, or is being ended."""
        self._limits.leave(self)

    def hit(self, limit: str) -> None:
        """The client has hit a limit of its own; the log names its address."""
        self._limits.hit(self, limit)


class AddressLimits:
    """Counts connections by address from their begin (`arrive`) to their end (`leave`)."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        # Strangers may take half of what is accepted in a second, and a quarter of the places.
        self._handshakes = _pace(limits.accept_per_second)
        self._connects = _pace(2 * CONNECTS_PER_SECOND)
        self._strangers_handshakes = _pace(limits.accept_per_second / 2)
        self._most_strangers = max(100, limits.max_connections // 4)
        self._addresses: dict[str, Address] = {}
        self._waiting: dict[AddressSlot, None] = {}
        self._strangers: dict[AddressSlot, None] = {}
        self._greeted = 0
        self._hit: Counter[str] = Counter()
        self._timer: asyncio.TimerHandle | None = None

    def arrive(self, address: str, transport: Transport, *, proxy: bool) -> AddressSlot | None:
        """A place for a new connection; `None`: its address makes so many that it is to be dropped at once.

        `proxy`: it is a trusted one's, and the client's address is not known yet (`belongs_to`).
        """
        loop = asyncio.get_running_loop()
        source = self._address(address)
        if not proxy:
            # Generous: one who has a token must be able to show it.
            most = WAITING_FOR_STRANGERS * self._limits.max_strangers_per_address
            too_fast = not source.connects.take() or not (self._is_known(source) or self._connects.take())
            if too_fast or (len(source.waiting) >= most and not self._make_room(source.waiting)):
                self._drop(source, "connects")
                return None
        place = AddressSlot(self, source, address, transport, loop.time())
        source.waiting[place] = None
        self._waiting[place] = None
        if self._timer is None:
            self._timer = loop.call_later(1.0, self._look)
        return place

    def belongs_to(self, place: AddressSlot, address: str) -> None:
        """The trusted proxy has said whose connection it is."""
        place.ip = address
        place.address.waiting.pop(place, None)
        place.address = self._address(address)
        place.address.waiting[place] = None

    def refuse(self, place: AddressSlot, *, known: bool) -> str | None:
        """Why a handshake is refused now; `None`: it is let in. `known`: it has shown a valid token.

        Ask first as a stranger: to look at a token costs more, and is only needed when that is refused.
        """
        source = place.address
        reason = self._room(source, known=known) or self._rate(source, known=known)
        if reason is not None:
            self._hit_by(source)
            return reason
        source.waiting.pop(place, None)
        self._waiting.pop(place, None)
        source.strangers[place] = None
        self._strangers[place] = None
        return None

    def _room(self, source: Address, *, known: bool) -> str | None:
        limits, strangers = self._limits, self._strangers
        if source.greeted + len(source.strangers) >= limits.max_connections_per_address:
            return "address_full"
        if self._greeted + len(strangers) >= limits.max_connections and not (known and self._make_room(strangers)):
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

    def may_check(self, place: AddressSlot) -> bool:
        """Whether something dearer than a refusal may be done for the client (a token checked, a close frame sent)."""
        return place.address.checks.take()

    def greeted(self, place: AddressSlot) -> None:
        """See `AddressSlot.greet`."""
        self.leave(place)
        place.greeted = True
        source = place.address
        source.greeted += 1
        source.greeted_at = asyncio.get_running_loop().time()
        self._greeted += 1

    def leave(self, place: AddressSlot) -> None:
        """See `AddressSlot.leave`."""
        source = place.address
        if place.greeted:
            place.greeted = False
            source.greeted -= 1
            self._greeted -= 1
            return
        for places in (source.waiting, self._waiting, source.strangers, self._strangers):
            places.pop(place, None)

    def hit(self, place: AddressSlot, limit: str) -> None:
        """See `AddressSlot.hit`."""
        self._drop(place.address, limit)

    def close(self) -> None:
        """Drop whoever has not said what it wants."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for place in list(self._waiting):
            place.transport.abort()

    def _address(self, address: str) -> Address:
        key = counted_as(address)
        source = self._addresses.get(key)
        if source is None:
            if len(self._addresses) >= MOST_ADDRESSES:
                self._forget()
            source = self._addresses[key] = Address(key, self._limits)
        return source

    def _make_room(self, places: dict[AddressSlot, None]) -> bool:
        """Drop the oldest of these, if it has had its time."""
        oldest = next(iter(places), None)
        if oldest is None or asyncio.get_running_loop().time() - oldest.since < YOUNG_SECONDS:
            return False
        self._drop(oldest.address, "idle")
        self.leave(oldest)
        oldest.transport.abort()
        return True

    def _is_known(self, source: Address) -> bool:
        if source.greeted or source.greeted_at is None:
            return source.greeted > 0
        return asyncio.get_running_loop().time() - source.greeted_at < KNOWN_SECONDS

    def _drop(self, source: Address, limit: str) -> None:
        LIMITS_HIT.labels(limit).inc()
        self._hit_by(source)

    def _hit_by(self, source: Address) -> None:
        if len(self._hit) < MOST_ADDRESSES:
            self._hit[source.key] += 1

    def _look(self) -> None:
        """Once a second while somebody waits: drop those whose request does not come, and say who has hit limits."""
        loop = asyncio.get_running_loop()
        late = loop.time() - REQUEST_SECONDS
        for place in list(self._waiting):
            if place.since > late:
                break
            self._drop(place.address, "request_late")
            self.leave(place)
            place.transport.abort()
        hit, self._hit = self._hit, Counter()
        if hit:
            most = ", ".join(f"{address} {times}" for address, times in hit.most_common(LOGGED))
            log.warning("limits were hit %d times within 1 s, by %d addresses: %s", hit.total(), len(hit), most)
        self._timer = loop.call_later(1.0, self._look) if self._waiting or hit else None

    def _forget(self) -> None:
        """Addresses without connections: memory is not for strangers to fill."""
        for key, source in list(self._addresses.items()):
            if not source.waiting and not source.strangers and not self._is_known(source):
                del self._addresses[key]
        idle = [
            key
            for key, source in self._addresses.items()
            if not source.waiting and not source.strangers and not source.greeted
        ]
        for key in idle[: max(0, len(self._addresses) - MOST_ADDRESSES // 2)]:
            del self._addresses[key]


def _pace(per_second: float) -> TokenBucket:
    return TokenBucket(per_second, max(1.0, per_second))  # less than one a second still lets one in
