"""The kinds of records in Redis: their fields for readers, and their history for the state manager.

`rev` changes with each write (compare and set). `version` is the version of the fact that last changed the record.
`history` is the JSON of its `History`. docs/architecture.md, "State in Redis".
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import pydantic_core

from protocol.messages.base import Message
from protocol.messages.facts import Aspect, ConnectionFact, MobileSyncFact, NoticeFact
from protocol.messages.plan_facts import PlanNoticeFact, PlanRecordFact
from protocol.messages.server_messages import ServerStatus
from protocol.records.histories import blank_state, dump_history, load_history
from protocol.rules import (
    connection,
    connection_state,
    mobile_sync,
    notices,
    plan,
    plan_notices,
    plan_state,
    socket_server,
)
from protocol.rules.connection_state import ConnectionState
from protocol.rules.history import History, Rule, StoredState, compact
from protocol.rules.mobile_sync import MobileSyncState
from protocol.rules.notices import NoticesState
from protocol.rules.plan_notices import PlanNoticesState
from protocol.rules.plan_state import PlanState
from protocol.rules.socket_server import ServerState

S = TypeVar("S", bound=StoredState)
F = TypeVar("F", bound=Message)


@dataclass(frozen=True)
class RecordKind(Generic[S, F]):
    """A kind of record: the class of its state, its rule and its fields in Redis. `aspect`: that of an examinee."""

    state: type[S]
    rule: Rule[S, F]
    visible_part: Callable[[S], Any]
    fields: Callable[[S], dict[str, str]]
    aspect: Aspect | None = None

    def empty(self) -> History[S, F]:
        """Return the history of a record that does not exist yet."""
        return History(blank_state(self.state))

    def write(self, history: History[S, F], state: S, rev: int) -> dict[str, str]:
        """Return all fields of the record in Redis."""
        return self.changes(history, self.fields(state), rev)

    def changes(
        self, history: History[S, F], shown: Mapping[str, str], rev: int, before: Mapping[str, str] | None = None
    ) -> dict[str, str]:
        """Return the fields of the record in Redis, of which `shown` are those of the state.

        `before`: those that this release has written there; then only what has changed since is returned.
        """
        fields = dict(shown)
        if before is not None:
            fields = {name: value for name, value in shown.items() if value != before[name] or name in _MEASURED}
        fields["rev"], fields["history"] = str(rev), dump_history(history)
        return fields

    def read(self, stored: str | bytes | None, floor: int = 0) -> History[S, F]:
        """Return the history in a record's `history` field, compacted up to `floor`.

        Raises `NewerRecord` when only a newer release understands it; `ValueError` when it is damaged.
        """
        if stored is None:
            return self.empty()
        return compact(load_history(self.state, stored, floor), self.rule, floor)


_MEASURED = frozenset({"lastActiveTime", "cpuUsage", "memoryUsage", "networkStatus"})
"""Fields that the lease watch sets, too: each write of a record sets them anew."""


def _texts(**values: Any) -> dict[str, str]:
    return {name: "" if value is None else str(value) for name, value in values.items()}


def _json_of(value: Any) -> str | None:
    return None if value is None else pydantic_core.to_json(value, by_alias=True, exclude_none=True).decode()


def _connection_fields(state: ConnectionState) -> dict[str, str]:
    return _texts(
        connStatusCode=state.shown_status.value if state.shown_status else "",
        lastActiveTime=state.since,
        examineeId=state.examinee_id,
        socketId=state.socket_id,
        liveSocketId=state.socket_id if state.live else None,
        serverId=state.server_id,
        ipAddress=state.ip_address,
        userAgent=state.user_agent,
        closeCode=state.close_code,
        flags=",".join(state.flags),
        unstable=int(state.unstable),
        awayShare=state.away_share,
        reason=state.reason,
        since=state.since,
        reconnectAttempt=state.attempt,
        maxAttempts=state.max_attempts,
        nextAttemptAt=state.next_attempt_at,
        recoveries=state.recoveries,
        exhausted=int(state.exhausted),
        lossVersion=state.loss_version,
        name=state.name,
        labels=json.dumps(dict(state.labels), ensure_ascii=False) if state.labels else None,
        enrolled=int(state.enrolled),
        removed=int(state.removed),
        removedBy=state.removed_by,
        removedByName=state.removed_by_name,
        finished=state.finished.value if state.finished else None,
        finishedAt=state.finished_at,
        finishedBy=state.finished_by,
        finishedByName=state.finished_by_name,
        version=state.version,
    )


def _mobile_sync_fields(state: MobileSyncState) -> dict[str, str]:
    info = {"model": state.model, "osVersion": state.os_version}
    return _texts(
        status=state.status.value if state.status else "",
        deviceId=state.device_id,
        timestamp=state.timestamp,
        imageUrl=state.shown_image_url,
        deviceInfo=json.dumps({key: value for key, value in info.items() if value is not None}, ensure_ascii=False),
        reason=state.reason,
        deadline=state.deadline,
        captureId=state.capture_id,
        captures=_json_of(state.capture_views()),
        review=_json_of(state.review()),
        challenge=state.challenge,
        version=state.version,
    )


def _notices_fields(state: NoticesState) -> dict[str, str]:
    views = [notice.view().model_dump(by_alias=True, exclude_none=True) for notice in state.kept]
    return _texts(
        notices=json.dumps(views, ensure_ascii=False),
        unconfirmed=json.dumps(state.unconfirmed),
        sent=state.sent,
        confirmedPlanNotices=json.dumps(state.confirmed_plan_notices),
        help=state.open_help.model_dump_json(by_alias=True, exclude_none=True) if state.open_help else None,
        version=state.version,
    )


def _server_fields(state: ServerState) -> dict[str, str]:
    return _texts(
        serverType=state.server_type,
        statusCode=state.status.value if state.status else "",
        startTime=state.start_time,
        queueId=state.queue_id,
        cpuUsage=state.cpu_usage,
        memoryUsage=state.memory_usage,
        networkStatus=state.network_status,
        incarnation=state.incarnation,
        url=state.url,
        reason=state.reason,
        version=state.version,
    )


def _plan_fields(state: PlanState) -> dict[str, str]:
    own_times = {
        own.examinee_id: {"startsAt": own.starts_at, "endsAt": own.ends_at, "extraSeconds": own.extra_seconds}
        for own in state.own_times
    }
    return _texts(
        status=state.status.value,
        name=state.name,
        startsAt=state.starts_at,
        endsAt=state.ends_at,
        policy=state.policy.model_dump_json(by_alias=True, exclude_none=True),
        ownTimes=json.dumps(own_times),
        closedAt=state.closed_at,
        closedBy=state.closed_by,
        closedByName=state.closed_by_name,
        closedReason=state.closed_reason,
        closedVersion=state.closed_version,
        version=state.version,
    )


def _plan_notices_fields(state: PlanNoticesState) -> dict[str, str]:
    views = [
        notice.view().model_dump(by_alias=True, exclude_none=True)
        | ({} if notice.examinees is None else {"examinees": notice.examinees})
        for notice in state.kept
    ]
    return _texts(notices=json.dumps(views, ensure_ascii=False), version=state.version)


CONNECTION: RecordKind[ConnectionState, ConnectionFact] = RecordKind(
    ConnectionState, connection.apply, connection_state.visible_part, _connection_fields, "connection"
)
MOBILE_SYNC: RecordKind[MobileSyncState, MobileSyncFact] = RecordKind(
    MobileSyncState, mobile_sync.apply, mobile_sync.visible_part, _mobile_sync_fields, "mobile_sync"
)
NOTICES: RecordKind[NoticesState, NoticeFact] = RecordKind(
    NoticesState, notices.apply, notices.visible_part, _notices_fields, "notices"
)
SERVER: RecordKind[ServerState, ServerStatus] = RecordKind(
    ServerState, socket_server.apply, socket_server.visible_part, _server_fields
)
PLAN: RecordKind[PlanState, PlanRecordFact] = RecordKind(PlanState, plan.apply, plan_state.visible_part, _plan_fields)
PLAN_NOTICES: RecordKind[PlanNoticesState, PlanNoticeFact] = RecordKind(
    PlanNoticesState, plan_notices.apply, plan_notices.visible_part, _plan_notices_fields
)
