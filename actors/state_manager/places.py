"""Write records together with their sockets and the index."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from actors.runtime.store.state_store import Saved, StateStore
from protocol.messages.facts import (
    ConnectionStatus,
)
from protocol.records import keys
from protocol.records.placement import VersionedMessage, index_updates, socket_writes
from protocol.records.writes import Index, RecordWrite
from protocol.rules.connection_state import server_id_of


async def save_records(
    store: StateStore,
    items: Sequence[VersionedMessage],
    records: Sequence[RecordWrite] = (),
    unread: Mapping[str, int] | None = None,
) -> Saved:
    """Write records with the sockets and the index entries of these facts; return the result of `StateStore.save`.

    A CONNECTED that arrives late, or again, must not restore the entry of a socket that has ended since. Whoever ended
    it wrote the socket's record before removing the entry: a refused socket write therefore removes its own entry.
    """
    sockets = socket_writes(items)
    saved = await store.save(records, sockets, index_updates(items), unread)
    refused = {socket.key for socket, verdict in zip(sockets, saved.sockets, strict=True) if verdict is False}
    overtaken = Index()
    for item in items:
        message = item.message
        if isinstance(message, ConnectionStatus) and keys.socket(message.plan_id, message.socket_id) in refused:
            overtaken.set_entry(keys.server_sockets(server_id_of(message)), message.socket_id, item.version, None)
    if overtaken.entries:
        await store.save([], [], overtaken)
    return saved
