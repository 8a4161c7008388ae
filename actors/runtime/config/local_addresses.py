"""Find the names and addresses under which this machine can be reached. Nothing is sent for it."""

from __future__ import annotations

import ipaddress
import socket

import psutil

LOOPBACK_NAMES = ("localhost", "127.0.0.1", "::1")
_REMOTE_ADDRESS = ("192.0.2.1", 9)  # TEST-NET-1: a route is looked up, no packet leaves


def is_wildcard(host: str) -> bool:
    """Return whether a socket bound to `host` listens on all addresses of the machine."""
    return host in ("", "0.0.0.0", "::")


def lan_addresses() -> list[str]:
    """Return the addresses of this machine, without loopback and link-local ones.

    IPv4 comes first, and in it the address of the default route.
    """
    lan: set[str] = set()
    up = {name for name, stats in psutil.net_if_stats().items() if stats.isup}
    for interface, interface_addresses in psutil.net_if_addrs().items():
        for interface_address in interface_addresses:
            if interface not in up or interface_address.family not in (socket.AF_INET, socket.AF_INET6):
                continue
            address = ipaddress.ip_address(interface_address.address.partition("%")[0])
            if not (address.is_loopback or address.is_link_local or address.is_unspecified):
                lan.add(str(address))
    primary = _default_route_address()
    return sorted(lan, key=lambda text: (":" in text, text != primary, text))


def own_names(host: str) -> frozenset[str]:
    """Return the names and addresses, in lower case, that reach a socket bound to `host`."""
    if is_wildcard(host):
        return frozenset({*LOOPBACK_NAMES, *lan_addresses(), socket.gethostname().lower()})
    if host in LOOPBACK_NAMES:
        return frozenset(LOOPBACK_NAMES)
    return frozenset({host.lower()})


def reachable_host(host: str) -> str:
    """Return the address at which others reach a socket bound to `host`; for a wildcard, the one in the LAN."""
    if not is_wildcard(host):
        return host
    lan = lan_addresses()
    if lan and (host != "0.0.0.0" or ":" not in lan[0]):
        return lan[0]
    return "::1" if host == "::" else "127.0.0.1"


def in_url(host: str) -> str:
    """Return an address as it is written in a URL: IPv6 in brackets."""
    return f"[{host}]" if ":" in host else host


def _default_route_address() -> str | None:
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.connect(_REMOTE_ADDRESS)
            return str(probe.getsockname()[0])
    except OSError:  # there is no default route
        return None
