"""Find the address of a client: the peer's, or behind trusted proxies the address that they forward."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

UNKNOWN = "unknown"
"""The address of clients whose address is not known."""


def networks_of(texts: Iterable[str]) -> tuple[Network, ...]:
    """Parse the networks of a setting `trusted_proxies`; an address is a network of one address."""
    return tuple(ipaddress.ip_network(text, strict=False) for text in texts)


def is_trusted(address: str, trusted_proxies: Sequence[Network]) -> bool:
    """Return whether the peer is a trusted proxy, whose `X-Forwarded-*` headers are used."""
    if not trusted_proxies:
        return False
    try:
        parsed = _parse(address)
    except ValueError:
        return False
    return any(parsed in network for network in trusted_proxies)


def client_address(peer: str, forwarded: Sequence[str], trusted_proxies: Sequence[Network]) -> str:
    """Return the peer, or behind trusted proxies the last address in X-Forwarded-For that is not a proxy's.

    `forwarded`: the values of all X-Forwarded-For lines. An invalid address becomes `unknown`, an IPv4-mapped IPv6
    address (`::ffff:192.0.2.1`) the IPv4 address.
    """
    address = peer
    if forwarded and trusted_proxies:
        hops = [hop.strip() for hop in ",".join(forwarded).split(",") if hop.strip()]
        while hops and is_trusted(address, trusted_proxies):
            address = hops.pop()
    try:
        return str(_parse(address))
    except ValueError:
        return UNKNOWN


def counted_as(address: str) -> str:
    """Return the key of an address for limits per client: for IPv6 its /64, which one customer has."""
    if ":" not in address:
        return address
    return str(ipaddress.ip_network((address.partition("%")[0], 64), strict=False))


def _parse(address: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """Parse an address, with or without a port (`192.0.2.1:1234`, `[2001:db8::1]:1234`). Raises `ValueError`."""
    if address.startswith("["):
        address = address[1:].partition("]")[0]
    elif address.count(":") == 1:
        address = address.partition(":")[0]
    parsed = ipaddress.ip_address(address)
    if isinstance(parsed, ipaddress.IPv6Address) and parsed.ipv4_mapped is not None:
        return parsed.ipv4_mapped
    return parsed
