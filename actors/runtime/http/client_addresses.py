"""Whose connection it is: the peer's address, or behind trusted proxies the one that they forward."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

UNKNOWN = "unknown"
"""The address of those of whom none is known."""


def networks_of(texts: Iterable[str]) -> tuple[Network, ...]:
    """The networks of a setting `trusted_proxies`; an address is a network of one."""
    return tuple(ipaddress.ip_network(one, strict=False) for one in texts)


def is_trusted(address: str, trusted_proxies: Sequence[Network]) -> bool:
    """Whether what this peer forwards is believed."""
    if not trusted_proxies:
        return False
    try:
        known = _parsed(address)
    except ValueError:
        return False
    return any(known in network for network in trusted_proxies)


def client_address(peer: str, forwarded: Sequence[str], trusted_proxies: Sequence[Network]) -> str:
    """The peer, or behind trusted proxies the last address in X-Forwarded-For that is none of them.

    `forwarded` are the values of all its lines. What is no address is `unknown`; an IPv4 address in an IPv6 one
    (`::ffff:192.0.2.1`) is the IPv4 address.
    """
    address = peer
    if forwarded and trusted_proxies:
        hops = [one.strip() for one in ",".join(forwarded).split(",") if one.strip()]
        while hops and is_trusted(address, trusted_proxies):
            address = hops.pop()
    try:
        return str(_parsed(address))
    except ValueError:
        return UNKNOWN


def counted_as(address: str) -> str:
    """What an address counts as where clients are limited: an IPv6 address as its /64, what one customer has."""
    if ":" not in address:
        return address
    return str(ipaddress.ip_network((address.partition("%")[0], 64), strict=False))


def _parsed(address: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """Some proxies add the port: `192.0.2.1:1234`, `[2001:db8::1]:1234`."""
    if address.startswith("["):
        address = address[1:].partition("]")[0]
    elif address.count(":") == 1:
        address = address.partition(":")[0]
    known = ipaddress.ip_address(address)
    if isinstance(known, ipaddress.IPv6Address) and known.ipv4_mapped is not None:
        return known.ipv4_mapped
    return known
