"""Views of an examinee's records, as clients get them."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from protocol.messages.base import Version, Wire


class ConnectionView(Wire):
    """`connection` of a `session_state` or of a row of a `plan_snapshot`; `ipAddress` only in the latter.

    FINISHED: since `since`, as `finishedBy` said (`plan`: the plan has ended), for `reason` (a `FinishReason`).
    """

    status: Literal["CONNECTED", "DISCONNECTED", "MIGRATING", "FINISHED", "NEVER"] = "NEVER"
    socket_id: str | None = None
    server_id: str | None = None
    ip_address: str | None = None
    reason: str | None = None
    since: str | None = None
    finished_by: str | None = None
    version: Version = 0


class MobileSyncView(Wire):
    status: Literal["NONE", "WAITING", "COMPLETED", "FAILED", "TIMED_OUT"] = "NONE"
    device_id: str | None = None
    timestamp: str | None = None
    image_url: str | None = None
    reason: str | None = None
    deadline: str | None = None
    version: Version = 0


class ReconnectView(Wire):
    """`count`: how often the examinee has recovered; while disconnected, `attempt` of `maxAttempts` is under way."""

    count: int = 0
    attempt: int = 0
    max_attempts: int | None = None
    next_attempt_at: str | None = None
    exhausted: bool = False


class NoticeView(Wire):
    """A recorded message of a proctor."""

    action_id: str
    text: str
    by: str
    sent_at: str
    confirmed_at: str | None = None


class NoticesView(Wire):
    """`notices` of a row of a `plan_snapshot`; the fields are those of the event `notice`."""

    unconfirmed: list[str] = Field(default=[])
    sent: int = 0
    version: Version = 0
