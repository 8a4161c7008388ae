"""Parse the URL of Redis: a server, a Unix socket, Sentinels that name the master, or a cluster. Pure.

| URL | means |
|---|---|
| `redis://[user:password@]host[:6379][/db]` | one server |
| `unix://[user:password@]/path/to.sock[?db=N]` | one server, by its socket |
| `redis+sentinel://[user:password@]host[:26379],host2[:26379]/mymaster[/db]` | the master that these Sentinels name |
| `redis+cluster://[user:password@]host[:6379],host2[:6379]` | a cluster; any of its nodes are enough |

`rediss`, `rediss+sentinel` and `rediss+cluster` mean the same over TLS. User and password are those of the servers,
with `%40` for an `@` and the like; those of the Sentinels are settings (`redis.sentinel_username`, …).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal
from urllib.parse import unquote

Kind = Literal["server", "unix", "sentinel", "cluster"]

_SCHEMES: dict[str, tuple[Kind, bool]] = {
    "redis": ("server", False),
    "rediss": ("server", True),
    "unix": ("unix", False),
    "redis+sentinel": ("sentinel", False),
    "rediss+sentinel": ("sentinel", True),
    "redis+cluster": ("cluster", False),
    "rediss+cluster": ("cluster", True),
}
_NODE = re.compile(r"(?P<host>\[[0-9A-Fa-f:.]+\]|[^\[\]:]+)(?::(?P<port>\d{1,5}))?")


@dataclass(frozen=True, slots=True)
class RedisAddress:
    """A parsed URL. `nodes`: (host, port) of servers or Sentinels; `service`: the name of the Sentinels' master.

    Example::

        address = parse_redis_url("redis://127.0.0.1:6379/1")
        address.kind, address.nodes, address.db  # "server", (("127.0.0.1", 6379),), 1
    """

    kind: Kind
    tls: bool
    nodes: tuple[tuple[str, int], ...] = ()
    path: str = ""
    service: str = ""
    db: int = 0
    username: str | None = None
    password: str | None = None


def parse_redis_url(url: str) -> RedisAddress:
    """Parse a URL. Raises `ValueError` that says what is wrong, without the password."""
    scheme, separator, rest = url.partition("://")
    if not separator or scheme.lower() not in _SCHEMES:
        raise ValueError(f"must begin with one of {', '.join(f'{known}://' for known in _SCHEMES)}")
    kind, tls = _SCHEMES[scheme.lower()]
    rest, _, query = rest.partition("?")
    authority, _, path = rest.partition("/")
    credentials, _, hosts = authority.rpartition("@")
    if "@" in path + query or any(sign in credentials for sign in ",@"):
        # A comma separates hosts, and URLs in a list.
        raise ValueError("user and password must be written with %2F for /, %3F for ?, %40 for @ and %2C for a comma")
    username, password = _credentials(credentials)
    if kind == "unix":
        if hosts or not path:
            raise ValueError("must be unix:///path/to.sock: three slashes, then the path")
        if query and not re.fullmatch(r"db=\d{1,5}", query):
            raise ValueError("takes only db=NUMBER after the ?")
        return RedisAddress(
            kind, tls, (), "/" + unquote(path), "", int(query[3:] or 0), username=username, password=password
        )
    if query:
        raise ValueError("takes no options after a ?: use the settings redis.*")
    nodes = _nodes(hosts, 26379 if kind == "sentinel" else 6379)
    service = ""
    if kind == "server" and len(nodes) > 1:
        raise ValueError("names several hosts: use redis+sentinel:// or redis+cluster://")
    if kind == "sentinel":
        service, _, path = path.partition("/")
        if not service:
            raise ValueError("must name the master after the Sentinels: redis+sentinel://host:26379/mymaster")
    if path and not re.fullmatch(r"\d{1,5}", path):
        raise ValueError("must end with the number of a database, such as /0")
    if kind == "cluster" and int(path or 0):
        raise ValueError("names a database, but a cluster has only 0")
    return RedisAddress(kind, tls, nodes, "", unquote(service), int(path or 0), username, password)


def without_password(url: str) -> str:
    """Return the URL without user and password."""
    scheme, _, rest = url.partition("://")
    return f"{scheme}://{rest.rpartition('@')[2]}"


def _credentials(text: str) -> tuple[str | None, str | None]:
    username, colon, password = text.partition(":")
    return unquote(username) or None, unquote(password) if colon else None


def _nodes(text: str, default_port: int) -> tuple[tuple[str, int], ...]:
    nodes = []
    for part in text.split(","):
        match = _NODE.fullmatch(part.strip())
        if match is None:
            raise ValueError(f"{part.strip()!r} is no host:port" if part.strip() else "a host is missing")
        port = int(match["port"] or default_port)
        if not 0 < port < 65536:
            raise ValueError(f"{port} is not a port")
        nodes.append((match["host"].strip("[]"), port))
    return tuple(nodes)
