"""Make the rows of a `plan_snapshot` from the fields of records in Redis."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

import pydantic_core

from protocol.messages.frames import ExamineeRow
from protocol.messages.plan_facts import PlanNotice
from protocol.messages.views import (
    ConnectionCode,
    ConnectionView,
    Difference,
    HelpView,
    MobileSyncView,
    NoticesView,
    ReconnectView,
    StageCode,
)

PROGRESS_FIELDS: tuple[str, ...] = (
    "connStatusCode",
    "lastActiveTime",
    "socketId",
    "serverId",
    "ipAddress",
    "closeCode",
    "flags",
    "unstable",
    "awayShare",
    "reason",
    "since",
    "reconnectAttempt",
    "maxAttempts",
    "nextAttemptAt",
    "exhausted",
    "recoveries",
    "name",
    "labels",
    "removed",
    "finished",
    "finishedAt",
    "finishedBy",
    "finishedByName",
    "version",
)
MOBILE_SYNC_FIELDS: tuple[str, ...] = (
    *("status", "deviceId", "timestamp", "imageUrl", "reason", "deadline"),
    *("captures", "review", "challenge", "version"),
)
NOTICES_FIELDS: tuple[str, ...] = ("unconfirmed", "sent", "confirmedPlanNotices", "help", "version")

PLAN_NOTICES_FIELDS: tuple[str, ...] = ("notices", "version")

Fields = Mapping[str, str | None]


def examinee_row(
    examinee_id: str,
    progress: Sequence[str | None],
    mobile_sync: Sequence[str | None],
    notices: Sequence[str | None],
) -> ExamineeRow:
    """Return an examinee's row from the values of `PROGRESS_FIELDS`, `MOBILE_SYNC_FIELDS` and `NOTICES_FIELDS`."""
    connection = dict(zip(PROGRESS_FIELDS, progress, strict=True))
    view = connection_view(connection)
    return ExamineeRow(
        examinee_id=examinee_id,
        name=connection["name"] or None,
        labels=labels_of(connection["labels"]) or None,
        status=view.status,
        last_active_time=connection["lastActiveTime"] or None,
        connection=view,
        mobile_sync=mobile_sync_view(dict(zip(MOBILE_SYNC_FIELDS, mobile_sync, strict=True))),
        reconnect=reconnect_view(connection),
        removed=connection["removed"] == "1",
        notices=notices_view(dict(zip(NOTICES_FIELDS, notices, strict=True))),
        version=view.version,
    )


def labels_of(stored: str | None) -> dict[str, str]:
    """Return the labels in the field `labels` of a connection record. Raises `ValueError`."""
    labels = pydantic_core.from_json(stored) if stored else {}
    if not isinstance(labels, dict):
        raise ValueError("labels: not a JSON object")
    return labels


def connection_view(fields: Fields) -> ConnectionView:
    """Return `connection` from the fields of a connection record."""
    status = cast(ConnectionCode, fields.get("connStatusCode") or "NEVER")
    if status == "FINISHED":
        return ConnectionView(
            status=status,
            ip_address=fields.get("ipAddress") or None,
            reason=fields.get("finished") or None,
            since=fields.get("finishedAt") or None,
            finished_by=fields.get("finishedBy") or None,
            finished_by_name=fields.get("finishedByName") or None,
            flags=_flags(fields),
            version=int(fields.get("version") or 0),
        )
    return ConnectionView(
        status=status,
        socket_id=fields.get("socketId") or None,
        server_id=fields.get("serverId") or None,
        ip_address=fields.get("ipAddress") or None,
        reason=fields.get("reason") or None,
        since=fields.get("since") or None,
        close_code=int(fields.get("closeCode") or 0) or None if status != "CONNECTED" else None,
        flags=_flags(fields),
        version=int(fields.get("version") or 0),
    )


def _flags(fields: Fields) -> list[Difference] | None:
    flags = fields.get("flags")
    return cast(list[Difference], flags.split(",")) if flags else None


def mobile_sync_view(fields: Fields) -> MobileSyncView:
    """Return `mobileSync` from the fields of a mobile sync record."""
    status = cast(StageCode, fields.get("status") or "NONE")
    return MobileSyncView(
        status=status,
        device_id=fields.get("deviceId") or None,
        timestamp=fields.get("timestamp") or None,
        image_url=fields.get("imageUrl") or None,
        reason=fields.get("reason") or None,
        deadline=fields.get("deadline") or None,
        captures=pydantic_core.from_json(fields.get("captures") or "null"),
        review=pydantic_core.from_json(fields.get("review") or "null"),
        challenge=fields.get("challenge") or None,
        version=int(fields.get("version") or 0),
    )


def reconnect_view(fields: Fields) -> ReconnectView:
    """Return `reconnect` from the fields of a connection record."""
    max_attempts = fields.get("maxAttempts")
    return ReconnectView(
        count=int(fields.get("recoveries") or 0),
        attempt=int(fields.get("reconnectAttempt") or 0),
        max_attempts=int(max_attempts) if max_attempts else None,
        next_attempt_at=fields.get("nextAttemptAt") or None,
        exhausted=fields.get("exhausted") == "1",
        unstable=fields.get("unstable") == "1" or None,
        away_share=float(fields.get("awayShare") or 0) or None,
    )


def notices_view(fields: Fields) -> NoticesView | None:
    """Return `notices` from the fields of a notices record; `None` when nothing was ever said."""
    version = int(fields.get("version") or 0)
    if not version:
        return None
    open_help = fields.get("help")
    return NoticesView(
        unconfirmed=pydantic_core.from_json(fields.get("unconfirmed") or "[]"),
        sent=int(fields.get("sent") or 0),
        confirmed_plan_notices=pydantic_core.from_json(fields.get("confirmedPlanNotices") or "[]"),
        help=HelpView.model_validate_json(open_help) if open_help else None,
        version=version,
    )


def plan_notices(plan_id: str, values: Sequence[str | None]) -> list[PlanNotice]:
    """Return the newest messages to several from the values of `PLAN_NOTICES_FIELDS`, as events."""
    encoded, version = values
    return [
        PlanNotice(
            plan_id=plan_id,
            timestamp=notice["sentAt"],
            by=notice["by"],
            action_id=notice["actionId"],
            text=notice["text"],
            examinees=notice.get("examinees"),
            version=int(version or 0),
        )
        for notice in pydantic_core.from_json(encoded or "[]")
    ]
