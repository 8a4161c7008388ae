"""Views of an examinee's records, as clients get them.

A value of a status that only a newer release knows is read as unknown: so a server or a client of an older release
shows the rest of the examinee, and all others.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field

from protocol.messages.base import Text, Version, Wire, unknown_as

CaptureId = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
"""The SHA-256 of a picture as it was sent, in hex."""

Challenge = Annotated[str, Field(min_length=1, max_length=32)]
"""A number or a word that a picture must show."""

Verdict = Literal["accepted", "rejected"]


class RejectReason(StrEnum):
    """Usual reasons why another picture is asked for. Pages have a text for each in their own language."""

    TOO_DARK = "TOO_DARK"
    BLURRED = "BLURRED"
    INCOMPLETE = "INCOMPLETE"
    WRONG_SUBJECT = "WRONG_SUBJECT"
    NO_CHALLENGE = "NO_CHALLENGE"


ViewedVerdict = Annotated[Literal["accepted", "rejected", "unknown"], unknown_as("unknown", "accepted", "rejected")]

Difference = Annotated[
    Literal["address", "browser", "device", "other"], unknown_as("other", "address", "browser", "device")
]
"""What is not as at the examinee's connection before: the address, the `User-Agent`, or the client (`clientId`)."""

ConnectionCode = Annotated[
    Literal["CONNECTED", "DISCONNECTED", "MIGRATING", "FINISHED", "NEVER", "UNKNOWN"],
    unknown_as("UNKNOWN", "CONNECTED", "DISCONNECTED", "MIGRATING", "FINISHED", "NEVER"),
]
"""Where an examinee is. UNKNOWN: only a newer release knows."""

StageCode = Annotated[
    Literal["NONE", "WAITING", "COMPLETED", "FAILED", "TIMED_OUT", "UNKNOWN"],
    unknown_as("UNKNOWN", "NONE", "WAITING", "COMPLETED", "FAILED", "TIMED_OUT"),
]
"""How far the mobile sync is. UNKNOWN: only a newer release knows."""

When = Annotated[Literal["before", "in", "after", "unknown"], unknown_as("unknown", "before", "in", "after")]

Share = Annotated[float, Field(ge=0, le=1)]


class ConnectionView(Wire):
    """`connection` of a `session_state` or of a row of a `plan_snapshot`; `ipAddress` only in the latter.

    `closeCode`: that of the close frame by which the connection ended. `flags`: in what the newest connection that
    differs from the one before it differs, until a proctor readmits, removes, finishes or resumes the examinee.
    FINISHED: since `since`, as `finishedBy` said (`plan`: the plan has ended), for `reason` (a `FinishReason`).
    """

    status: ConnectionCode = "NEVER"
    socket_id: str | None = None
    server_id: str | None = None
    ip_address: str | None = None
    reason: str | None = None
    since: str | None = None
    finished_by: str | None = None
    finished_by_name: str | None = None
    close_code: int | None = None
    flags: list[Difference] | None = None
    version: Version = 0


class CaptureView(Wire):
    """A picture that was sent. Its address is `/captures/{examineeId}/{captureId}.jpg`, relative to the plan.

    `when`: before the stage, in it, or after its deadline. `challenge`: what it had to show. `verdict`, `reason`, `by`
    (and `byName`, for people): of the proctor who has looked at it.
    """

    capture_id: CaptureId
    time: str
    device_id: str | None = None
    when: When
    challenge: Challenge | None = None
    verdict: ViewedVerdict | None = None
    reason: Text | None = None
    by: str | None = None
    by_name: str | None = None


class ReviewView(Wire):
    """What a proctor says about the picture that counts, or that counted until it was rejected."""

    capture_id: CaptureId | None = None
    verdict: ViewedVerdict
    reason: Text | None = None
    by: str | None = None
    by_name: str | None = None


class MobileSyncView(Wire):
    """`captures`: the newest pictures, oldest first; all are kept. `challenge`: what the picture must show."""

    status: StageCode = "NONE"
    device_id: str | None = None
    timestamp: str | None = None
    image_url: str | None = None
    reason: str | None = None
    deadline: str | None = None
    captures: list[CaptureView] | None = None
    review: ReviewView | None = None
    challenge: Challenge | None = None
    version: Version = 0


class ReconnectView(Wire):
    """`count`: how often the examinee has recovered; while disconnected, `attempt` of `maxAttempts` is under way.

    `unstable`: away for more of the last minutes than the plan allows; `awayShare`: that share, as far as it was known
    at the last event.
    """

    count: int = 0
    attempt: int = 0
    max_attempts: int | None = None
    next_attempt_at: str | None = None
    exhausted: bool = False
    unstable: bool | None = None
    away_share: Share | None = None


class NoticeView(Wire):
    """A recorded message of a proctor."""

    action_id: str
    text: str
    by: str
    by_name: str | None = None
    sent_at: str
    confirmed_at: str | None = None


class HelpView(Wire):
    """An open request for help of an examinee, made `since`; `takenBy`: the proctor who is on it."""

    request_id: str
    text: str | None = None
    since: str
    taken_by: str | None = None
    taken_by_name: str | None = None


class NoticesView(Wire):
    """`notices` of a row of a `plan_snapshot`; the fields are those of the event `notice`."""

    unconfirmed: list[str] = Field(default=[])
    sent: int = 0
    confirmed_plan_notices: list[str] = Field(default=[])
    help: HelpView | None = None
    version: Version = 0
