"""Under which names and addresses this machine can be reached. Nothing is sent to find out."""

from __future__ import annotations

import ipaddress
import socket

import psutil

LOOPBACK_NAMES = ("localhost", "127.0.0.1", "::1")
_SOMEWHERE = ("192.0.2.1", 9)  # TEST-NET-1: a route is looked up, no packet leaves


def is_wildcard(host: str) -> bool:
    """Whether what listens there can be reached under all addresses of the machine."""
    return host in ("", "0.0.0.0", "::")


def lan_addresses() -> list[str]:
    """The machine's addresses besides loopback and link-local ones, IPv4 first; the one of the default route leads."""
    found: list[str] = []
    up = {name for name, stats in psutil.net_if_stats().items() if stats.isup}
    for interface, addresses in psutil.net_if_addrs().items():
        for one in addresses:
            if interface not in up or one.family not in (socket.AF_INET, socket.AF_INET6):
                continue
            address = ipaddress.ip_address(one.address.partition("%")[0])
            if not (address.is_loopback or address.is_link_local or address.is_unspecified):
                found.append(str(address))
    primary = _of_default_route()
    return sorted(set(found), key=lambda one: (":" in one, one != primary, one))


def own_names(host: str) -> frozenset[str]:
    """Names and addresses, in lower case, of what listens on `host`: different spellings of the same machine."""
    if is_wildcard(host):
        return frozenset({*LOOPBACK_NAMES, *lan_addresses(), socket.gethostname().lower()})
    if host in LOOPBACK_NAMES:
        return frozenset(LOOPBACK_NAMES)
    return frozenset({host.lower()})


def reachable_host(host: str) -> str:
    """The address to give to others for what listens on `host`: of a wildcard, the one in the local network."""
    if not is_wildcard(host):
        return host
    lan = lan_addresses()
    if lan and (host != "0.0.0.0" or ":" not in lan[0]):
        return lan[0]
    return "::1" if host == "::" else "127.0.0.1"


def in_url(host: str) -> str:
    """An address as it stands in a URL: IPv6 in brackets."""
    return f"[{host}]" if ":" in host else host


def _of_default_route() -> str | None:
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.connect(_SOMEWHERE)
            return str(probe.getsockname()[0])
    except OSError:  # no route to anywhere
        return None
