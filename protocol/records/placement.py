"""Find the records that a fact changes: the record of its examinee or server, its socket's record, and the indexes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from protocol.ids import RecordRef
from protocol.messages.base import Message
from protocol.messages.facts import (
    ConnectionStatus,
    ConnectionStatusCode,
    Enrol,
    ExamineeFact,
    MobileSyncStatus,
    MobileSyncWait,
    Restate,
    aspect_of,
)
from protocol.messages.plan_facts import PlanFact, PlanNotice, PlanPurged, PlanRestate
from protocol.messages.server_messages import ServerStatus
from protocol.records import keys, kinds
from protocol.records.writes import Index, SocketWrite
from protocol.rules.connection_state import server_id_of

ENDED_SOCKET_SECONDS = 86400


@dataclass(frozen=True, slots=True)
class VersionedMessage:
    """A fact with its version."""

    version: int
    message: Message


def record_of(message: Message) -> tuple[str, kinds.RecordKind[Any, Any]]:
    """Return the key of the record that a fact changes, and its kind."""
    if isinstance(message, ConnectionStatus):  # almost all facts
        return keys.progress(message.plan_id, message.examinee_id), kinds.CONNECTION
    if isinstance(message, ServerStatus):
        return keys.server_status(message.server_id), kinds.SERVER
    if isinstance(message, PlanNotice) or (isinstance(message, PlanRestate) and message.aspect == "plan_notices"):
        return keys.plan_notices(message.plan_id), kinds.PLAN_NOTICES
    if isinstance(message, PlanFact):
        return keys.plan(message.plan_id), kinds.PLAN
    assert isinstance(message, ExamineeFact)
    match aspect_of(message):
        case "mobile_sync":
            return keys.mobile_sync(message.plan_id, message.examinee_id), kinds.MOBILE_SYNC
        case "notices":
            return keys.notices(message.plan_id, message.examinee_id), kinds.NOTICES
        case "connection":
            return keys.progress(message.plan_id, message.examinee_id), kinds.CONNECTION


def records_of(message: Message) -> list[tuple[str, kinds.RecordKind[Any, Any]]]:
    """Return the records that a fact changes. The purge of a plan changes none: it deletes them all.

    The purge of an examinee renames them in the records of their plan.
    """
    if isinstance(message, PlanPurged):
        if message.examinee_id is None:
            return []
        return [(keys.plan(message.plan_id), kinds.PLAN), (keys.plan_notices(message.plan_id), kinds.PLAN_NOTICES)]
    return [record_of(message)]


def record_kind(record: RecordRef) -> kinds.RecordKind[Any, Any] | None:
    """Return the kind of a record; `None` when the key does not hold a record that facts change."""
    match record.kind:
        case "connection":
            return kinds.CONNECTION
        case "mobile_sync":
            return kinds.MOBILE_SYNC
        case "notices":
            return kinds.NOTICES
        case "plan":
            return kinds.PLAN
        case "plan_notices":
            return kinds.PLAN_NOTICES
        case "server":
            return kinds.SERVER
        case _:
            return None


def restate_fact(record: RecordRef, timestamp: str) -> Restate | PlanRestate | None:
    """Return the fact that makes the state manager write a record again and publish its state.

    `None` when the record is neither an examinee's nor a plan's.
    """
    if record.kind == "plan" or record.kind == "plan_notices":
        return PlanRestate(plan_id=record.plan_id, timestamp=timestamp, by="manager", aspect=record.kind)
    kind = record_kind(record)
    if kind is None or kind.aspect is None:
        return None
    return Restate(plan_id=record.plan_id, examinee_id=record.examinee_id, timestamp=timestamp, aspect=kind.aspect)


def socket_writes(items: Iterable[VersionedMessage]) -> list[SocketWrite]:
    """Return the writes of the sockets' records, one per socket: that of its newest fact."""
    newest: dict[str, SocketWrite] = {}
    for item in items:
        message = item.message
        if isinstance(message, ConnectionStatus):
            ended = message.status is ConnectionStatusCode.DISCONNECTED
            key = keys.socket(message.plan_id, message.socket_id)
            fields = {
                "examineeId": message.examinee_id,
                "status": message.status.value,
                "lastHeartbeat": message.timestamp,
            }
            if key not in newest or newest[key].version < item.version:
                newest[key] = SocketWrite(key, item.version, fields, ENDED_SOCKET_SECONDS if ended else 0)
    return list(newest.values())


def ends_socket(message: Message) -> bool:
    """Return whether a fact is the end of a socket: a loss, but nothing to begin a record with that was purged."""
    return isinstance(message, ConnectionStatus) and message.status is ConnectionStatusCode.DISCONNECTED


def index_updates(items: Iterable[VersionedMessage]) -> Index:
    """Return the updates of the indexes for the records and sockets of these facts."""
    index = Index()
    for item in items:
        message = item.message
        if isinstance(message, ServerStatus):
            index.add_member(keys.SERVERS, message.server_id)
        elif isinstance(message, ConnectionStatus):
            index.add_member(keys.PLANS, message.plan_id)
            index.add_member(keys.plan_examinees(message.plan_id), message.examinee_id)
            sockets_key = keys.server_sockets(server_id_of(message))
            if message.status is ConnectionStatusCode.CONNECTED:
                entry = keys.SocketEntry(message.examinee, message.incarnation)
                index.set_entry(sockets_key, message.socket_id, item.version, entry.encode())
            else:
                index.set_entry(sockets_key, message.socket_id, item.version, None)
        elif isinstance(message, PlanFact) and not isinstance(message, PlanPurged | PlanRestate):
            index.add_member(keys.PLANS, message.plan_id)
        elif isinstance(message, MobileSyncWait | MobileSyncStatus | Enrol):
            index.add_member(keys.PLANS, message.plan_id)
            index.add_member(keys.plan_examinees(message.plan_id), message.examinee_id)
    return index
