"""Decide about examinees who have connected where or when they cannot stay.

Nobody else would end them: their server was declared gone before, or their exam was over. The records of the server and
the plan are read after the index and the examinee's record are written. So either this sees the end of the server or of
the plan, or whoever processes that end sees the examinee.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from actors.runtime.store.record_cache import RecordCache, read_copy
from actors.runtime.store.state_store import StateStore
from actors.state_manager.decisions import Decision
from actors.status_log.status_log import StatusLog
from protocol.close_codes import CloseCode
from protocol.errors import NewerRecord
from protocol.log.partitions import part_of
from protocol.messages.facts import ConnectionStatus, ConnectionStatusCode, ExamineeFinish, FinishReason, LossReason
from protocol.messages.plan_facts import BY_PLAN
from protocol.records import keys
from protocol.records.kinds import RecordKind
from protocol.records.placement import VersionedMessage, record_kind
from protocol.records.writes import StoredRecord
from protocol.rules.connection_state import server_id_of
from protocol.rules.effects import CloseSocket
from protocol.rules.history import fold
from protocol.rules.plan_state import Phase, PlanState
from protocol.rules.socket_server import ServerState
from protocol.times import parse_time

log = logging.getLogger("examwire.state_manager")


class ConnectChecks:
    """Ends examinees who have connected and cannot stay. Raises `StateUnavailable`, `BrokerUnavailable`.

    Example::

        await ConnectChecks(store, status_log, cache).check(facts, decision)
    """

    def __init__(self, store: StateStore, log: StatusLog, cache: RecordCache) -> None:
        self._store = store
        self._log = log
        self._cache = cache

    async def check(self, items: Sequence[VersionedMessage], decision: Decision) -> None:
        """Add to `decision` what ends them, or leaves them to a newer state manager."""
        connected = {
            item.version: item.message
            for item in items
            if isinstance(item.message, ConnectionStatus) and item.message.status is ConnectionStatusCode.CONNECTED
        }
        if not connected:
            return
        holders = {keys.server_status(server_id_of(message)) for message in connected.values()}
        states = await self._states(sorted(holders | {keys.plan(message.plan_id) for message in connected.values()}))
        for version, message in connected.items():
            for key in (keys.server_status(server_id_of(message)), keys.plan(message.plan_id)):
                if isinstance(newer := states[key], NewerRecord):
                    decision.newer[version] = f"{key}: {newer}"
        connected = {version: message for version, message in connected.items() if version not in decision.newer}
        await self._end_orphans(connected, states, decision)
        _finish_late_comers(connected, states, decision)

    async def _states(self, record_keys: Sequence[str]) -> dict[str, Any]:
        """Return the states of these records, by key.

        `None` stands for one that does not exist or cannot be read, a `NewerRecord` for one of a newer release. A copy
        counts only if Redis confirms it now: these records are also written by managers of other partitions.
        """
        copies = {key: copy for key in record_keys if (copy := self._cache.get(key)) is not None}
        changed = await self._store.changed({key: copy.rev for key, copy in copies.items()})
        states = {key: fold(copy.history, _kind_of(key).rule) for key, copy in copies.items() if key not in changed}
        unknown = [key for key in record_keys if key not in states]
        for key, record in zip(unknown, await self._store.load(unknown), strict=True):
            states[key] = None
            if isinstance(record, StoredRecord):
                kind = _kind_of(key)
                try:
                    copy = read_copy(kind, record, part_of(keys.parse_key(key).plan_id))
                    states[key] = fold(copy.history, kind.rule) if copy.exists else None
                    self._cache.keep(key, copy)
                except NewerRecord as newer:
                    states[key] = newer
                except ValueError as damage:  # says nothing about those who connect
                    log.error("%s: %s", key, damage)
        return states

    async def _end_orphans(
        self, connected: Mapping[int, ConnectionStatus], states: Mapping[str, Any], decision: Decision
    ) -> None:
        """Disconnect examinees whose CONNECTED came after their server was declared gone."""
        asked: dict[str, ServerState] = {}
        for version, message in connected.items():
            holder = server_id_of(message)
            server: ServerState | None = states[keys.server_status(holder)]
            if server is None or server.holds_sessions_of(message.incarnation):
                continue
            # The record may lack a STARTING that another batch is at work with. Nobody is called lost on that: the log
            # has everything that was said before this.
            if holder not in asked:
                asked[holder] = await self._log.server(holder)
            server = asked[holder]
            if not server.holds_sessions_of(message.incarnation):
                restarted = server.incarnation != message.incarnation
                reason = LossReason.SERVER_RESTARTED if restarted else LossReason.SERVER_LOST
                ended = message.model_copy(
                    update={"status": ConnectionStatusCode.DISCONNECTED, "reason": reason.value, "client_info": None}
                )
                decision.follow_ups.append((f"orphan:{version}", ended))


def _kind_of(key: str) -> RecordKind[Any, Any]:
    kind = record_kind(keys.parse_key(key))
    assert kind is not None
    return kind


def _finish_late_comers(
    connected: Mapping[int, ConnectionStatus], states: Mapping[str, Any], decision: Decision
) -> None:
    """Finish examinees who connected when their exam was over; close the socket of who was finished before."""
    for version, message in connected.items():
        plan: PlanState | None = states[keys.plan(message.plan_id)]
        if plan is None or plan.phase_of(message.examinee_id, parse_time(message.timestamp)) is not Phase.OVER:
            continue
        connection = decision.connections.get(message.examinee)
        if connection is not None and connection.finished is not None:
            over = CloseSocket(server_id_of(message), message.socket_id, CloseCode.EXAM_OVER, version)
            decision.effects.append(over)
        else:
            finish = ExamineeFinish(
                plan_id=message.plan_id,
                examinee_id=message.examinee_id,
                by=BY_PLAN,
                reason=FinishReason.PLAN_ENDED,
                timestamp=message.timestamp,
            )
            decision.follow_ups.append((f"late:{version}", finish))
