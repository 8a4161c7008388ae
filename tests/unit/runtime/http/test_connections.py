"""The limits of an HTTP server's connections, without a network."""

from __future__ import annotations

import time

from actors.runtime.http.connections import ConnectionLimits, Connections, Slot


class Site:
    """Connections with a few slots, and the reasons for which some were ended."""

    def __init__(self, *, end_busy: bool = False, most_of_address: int = 3) -> None:
        self.ended: list[str] = []
        limits = ConnectionLimits(3, most_of_address, header_seconds=5.0, end_busy=end_busy)
        self.connections = Connections(limits, (), self.ended.append)

    def admit(self, address: str = "192.0.2.1", *, busy: bool = False) -> Slot | None:
        slot = self.connections.admit(address)
        if slot is not None and busy:
            self.connections.set_busy(slot, True)
        return slot


def test_the_connection_idle_longest_is_closed_for_a_new_one() -> None:
    site = Site()
    slots = [site.admit() for _ in range(3)]
    assert slots[0] is not None
    site.connections.set_busy(slots[0], True)
    assert site.admit() is not None
    assert site.ended == ["crowded_out"]
    assert len(site.connections) == 3
    assert slots[1] is not None
    assert slots[1].idle_since is None, "the busy one stays, the next one has gone"


def test_a_connection_is_refused_when_all_are_busy() -> None:
    site = Site()
    for _ in range(3):
        site.admit(busy=True)
    assert site.admit() is None
    assert site.ended == ["refused"]


def test_with_end_busy_the_oldest_busy_connection_is_closed_for_a_new_one() -> None:
    site = Site(end_busy=True)
    oldest, *younger = [site.admit(busy=True) for _ in range(3)]
    assert site.admit() is not None
    assert site.ended == ["crowded_out"]
    assert len(site.connections) == 3
    assert oldest is not None
    site.connections.release(oldest)  # it has gone already
    assert len(site.connections) == 3
    assert None not in younger


def test_at_its_limit_an_address_loses_its_own_idle_connection() -> None:
    site = Site(end_busy=True, most_of_address=1)
    other = site.admit("198.51.100.7")
    assert site.admit(busy=True) is not None
    assert site.admit() is not None
    assert site.ended == ["crowded_out"]
    assert len(site.connections) == 2
    assert other is not None
    assert other.idle_since is not None


def test_a_connection_without_a_request_is_closed_after_header_seconds() -> None:
    site = Site()
    slot = site.admit()
    assert slot is not None
    site.connections.end_overdue(time.monotonic() + 4.0)
    assert site.ended == []
    site.connections.end_overdue(time.monotonic() + 6.0)
    assert site.ended == ["no_request_in_time"]
    assert len(site.connections) == 0
