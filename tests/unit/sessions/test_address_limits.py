"""How many may connect from one address, and how fast."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from actors.runtime.http.client_addresses import client_address, counted_as, networks_of
from actors.sessions.limits import address_limits
from actors.sessions.limits.address_limits import AddressLimits, AddressSlot, Limits

LIMITS = Limits(
    accept_per_second=1000.0,
    accept_per_address=1000.0,
    max_connections=1000,
    max_connections_per_address=1000,
    max_strangers_per_address=50,
)


class Wire:
    """A transport that is only ever dropped."""

    def __init__(self) -> None:
        self.dropped = False

    def abort(self) -> None:
        self.dropped = True


def wire() -> Any:
    return cast(Any, Wire())


def stranger(limits: AddressLimits, address: str = "192.0.2.1") -> AddressSlot | str:
    """A connection that is let in, or why it is not."""
    slot = limits.arrive(address, wire(), proxy=False)
    if slot is None:
        return "dropped"
    reason = limits.refuse(slot, known=False)
    if reason is not None:
        slot.leave()
    return reason or slot


def let_in(limits: AddressLimits, address: str = "192.0.2.1") -> AddressSlot:
    slot = stranger(limits, address)
    assert isinstance(slot, AddressSlot), slot
    return slot


async def test_a_hall_behind_one_address_gets_in_and_greets() -> None:
    limits = AddressLimits(LIMITS)
    for _ in range(500):
        let_in(limits).hello_accepted()
    limits.close()


async def test_strangers_of_one_address_are_limited_beside_identified_clients() -> None:
    limits = AddressLimits(LIMITS)
    for _ in range(100):
        let_in(limits).hello_accepted()
    strangers = [let_in(limits) for _ in range(50)]
    assert stranger(limits) == "address_full"
    assert isinstance(stranger(limits, "192.0.2.2"), AddressSlot)
    strangers[0].leave()
    let_in(limits)
    strangers[1].hello_accepted()
    let_in(limits)
    limits.close()


async def test_strangers_take_a_quarter_of_the_places_from_however_many_addresses() -> None:
    limits = AddressLimits(LIMITS)
    answers = [stranger(limits, f"192.0.{number // 200}.{number % 200}") for number in range(400)]
    assert sum(isinstance(answer, AddressSlot) for answer in answers) == 250
    assert set(answers[250:]) == {"full"}
    identified = limits.arrive("198.51.100.1", wire(), proxy=False)
    assert identified is not None
    assert limits.refuse(identified, known=True) is None
    limits.close()


async def test_an_identified_client_replaces_a_stranger_when_the_server_is_full(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    limits = AddressLimits(Limits(1000.0, 1000.0, 2, 1000, 50))
    let_in(limits).hello_accepted()
    idle = let_in(limits)
    assert stranger(limits) == "full"
    monkeypatch.setattr(address_limits, "YOUNG_SECONDS", 0.0)
    identified = limits.arrive("192.0.2.7", wire(), proxy=False)
    assert identified is not None
    assert limits.refuse(identified, known=True) is None
    assert cast(Any, idle.transport).dropped
    identified.hello_accepted()
    monkeypatch.setattr(address_limits, "YOUNG_SECONDS", 100.0)
    another = limits.arrive("192.0.2.7", wire(), proxy=False)
    assert another is not None
    assert limits.refuse(another, known=True) == "full"
    limits.close()


async def test_counts_end_at_nought_in_whatever_order_connections_end() -> None:
    limits = AddressLimits(LIMITS)
    slots = [let_in(limits, f"192.0.2.{number % 7}") for number in range(100)]
    for slot in slots[::2]:
        slot.hello_accepted()
    for slot in [*slots, *slots[::3]]:  # some are told twice
        slot.leave()
    assert limits._identified == 0
    assert not limits._strangers
    assert not limits._waiting
    assert all(
        not address.strangers and not address.waiting and address.identified == 0
        for address in limits._addresses.values()
    )
    limits.close()


async def test_connections_faster_than_answers_are_dropped_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(address_limits, "CONNECTS_PER_SECOND", 100.0)
    limits = AddressLimits(Limits(50.0, 50.0, 1000, 1000, 1000))
    answers = [stranger(limits) for _ in range(300)]
    assert answers.count("address_too_fast") + answers.count("too_fast") > 10
    assert answers[-1] == "dropped"
    assert isinstance(stranger(limits, "192.0.2.2"), AddressSlot) or stranger(limits, "192.0.2.2") == "too_fast"
    limits.close()


async def test_an_address_where_somebody_has_identified_goes_before_those_where_nobody_has() -> None:
    limits = AddressLimits(Limits(100.0, 100.0, 1000, 1000, 1000))
    let_in(limits, "192.0.2.1").hello_accepted()
    answers = [stranger(limits, f"198.51.100.{number}") for number in range(80)]
    assert "too_fast" in answers
    assert isinstance(stranger(limits, "192.0.2.1"), AddressSlot)
    limits.close()


async def test_strangers_cannot_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(address_limits, "MOST_ADDRESSES", 100)
    limits = AddressLimits(LIMITS)
    kept = let_in(limits, "203.0.113.1")
    for number in range(1000):
        slot = limits.arrive(f"2001:db8:{number:x}::1", wire(), proxy=False)
        assert slot is not None
        slot.leave()
    assert len(limits._addresses) <= 100
    assert kept.address is limits._addresses["203.0.113.1"]
    await asyncio.sleep(0)
    limits.close()


@pytest.mark.parametrize(
    ("peer", "forwarded", "address", "counted"),
    [
        ("192.0.2.7", [], "192.0.2.7", "192.0.2.7"),
        ("192.0.2.7", ["203.0.113.9"], "192.0.2.7", "192.0.2.7"),
        ("10.0.0.1", ["1.1.1.1, 203.0.113.9, 10.0.0.2"], "203.0.113.9", "203.0.113.9"),
        ("10.0.0.1", ["203.0.113.9:4711"], "203.0.113.9", "203.0.113.9"),
        ("10.0.0.1", ["[2001:db8::1]:4711"], "2001:db8::1", "2001:db8::/64"),
        ("::ffff:10.0.0.1", ["203.0.113.9"], "203.0.113.9", "203.0.113.9"),
        ("10.0.0.1", ["nonsense"], "unknown", "unknown"),
        ("10.0.0.1", [" , "], "10.0.0.1", "10.0.0.1"),
        ("fe80::1%eth0", [], "fe80::1%eth0", "fe80::/64"),
        ("", [], "unknown", "unknown"),
    ],
)
def test_the_client_address_is_the_forwarded_one_of_a_trusted_proxy(
    peer: str, forwarded: list[str], address: str, counted: str
) -> None:
    client = client_address(peer, forwarded, networks_of(["10.0.0.0/8"]))
    assert (client, counted_as(client)) == (address, counted)
