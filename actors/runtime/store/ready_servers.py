"""The READY socket servers: the addresses that clients may connect to."""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Iterable

from actors.runtime.store.state_store import StateStore
from protocol.errors import StateDamaged, StateUnavailable
from protocol.messages.server_messages import ServerStatusCode

log = logging.getLogger("examwire.endpoints")

REFRESH_SECONDS = 1.0
EARLY_READS, EARLY_SECONDS = 50, 0.1
"""A server that has just started reads so often, so many seconds apart: the others of a system start beside it."""
GONE = (ServerStatusCode.STOPPED, ServerStatusCode.FAILED, ServerStatusCode.LOST)
GONE_KEPT = 32


class ReadyServers:
    """The URLs of socket servers, read from Redis each second.

    `own`: this server. `ready`: all READY servers. `others`: `ready` without this server; servers are distinguished by
    their serverIds, because behind one proxy all have the same URL. `known`: `ready`, and servers that may be READY
    again, so that a page loaded now may connect to them; of servers that are gone, the newest `GONE_KEPT`.

    Example::

        servers = ReadyServers(store, "SOCK001")
        await servers.read()
    """

    def __init__(self, store: StateStore, server_id: str | None = None) -> None:
        self._store = store
        self._server_id = server_id
        self.own = ""
        self.ready: list[str] = []
        self.others: list[str] = []
        self.known: list[str] = []

    @property
    def all(self) -> list[str]:
        """The URL of this server, then those of the others."""
        return _urls([self.own, *self.others])

    async def follow(self) -> None:
        """Read the servers each second, at first more often, until cancelled."""
        for number in itertools.count():
            await self.read()
            await asyncio.sleep(EARLY_SECONDS if number < EARLY_READS else REFRESH_SECONDS)

    async def read(self) -> None:
        """Read the servers once. When Redis does not answer, the URLs stay as they are."""
        try:
            servers = await self._store.servers()
        except (StateUnavailable, StateDamaged) as error:
            log.debug("using the last known endpoints: %s", error)
            return
        with_url = [server for server in servers if server.get("url")]
        ready = [server for server in with_url if server.get("statusCode") == ServerStatusCode.READY]
        self.ready = _urls(server["url"] for server in ready)
        self.others = _urls(server["url"] for server in ready if server["serverId"] != self._server_id)
        ended_servers = [server for server in with_url if server.get("statusCode") in GONE]
        newest = sorted(ended_servers, key=lambda server: server.get("startTime", ""))[-GONE_KEPT:]
        self.known = _urls(server["url"] for server in with_url if server not in ended_servers or server in newest)


def _urls(urls: Iterable[str]) -> list[str]:
    """Return each URL once, in order."""
    return list(dict.fromkeys(urls))
