"""The READY socket servers: where a client may go when this one is gone."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable

from actors.runtime.store.state_store import StateStore
from protocol.errors import StateDamaged, StateUnavailable
from protocol.messages.server_messages import ServerStatusCode

log = logging.getLogger("examwire.endpoints")

REFRESH_SECONDS = 1.0
GONE = (ServerStatusCode.STOPPED, ServerStatusCode.FAILED, ServerStatusCode.LOST)
GONE_KEPT = 32


class ReadyServers:
    """`own` is this server's URL, `ready` those of all READY servers as Redis last told, `others` without this server.

    Servers are told apart by their serverIds: behind one proxy, all have the same URL.

    `known` has those besides that are not READY now and may be again: a page that was loaded meanwhile will want to
    connect to them. Of those that are gone (there may be many names of old), the newest.
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
        """This server, and then the others."""
        return _urls([self.own, *self.others])

    async def follow(self) -> None:
        """Keep up to date until cancelled."""
        while True:
            await self.read()
            await asyncio.sleep(REFRESH_SECONDS)

    async def read(self) -> None:
        """Ask Redis once; with Redis away everything stays as it was."""
        try:
            servers = await self._store.servers()
        except (StateUnavailable, StateDamaged) as error:
            log.debug("endpoints as they were: %s", error)
            return
        with_url = [server for server in servers if server.get("url")]
        ready = [server for server in with_url if server.get("statusCode") == ServerStatusCode.READY]
        self.ready = _urls(server["url"] for server in ready)
        self.others = _urls(server["url"] for server in ready if server["serverId"] != self._server_id)
        gone = [server for server in with_url if server.get("statusCode") in GONE]
        newest = sorted(gone, key=lambda server: server.get("startTime", ""))[-GONE_KEPT:]
        self.known = _urls(server["url"] for server in with_url if server not in gone or server in newest)


def _urls(urls: Iterable[str]) -> list[str]:
    """Each once, in their order."""
    return list(dict.fromkeys(urls))
