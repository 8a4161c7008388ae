"""The JSON bodies of the web server's answers (its requests have none)."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from protocol.ids import Id
from protocol.log.gap import LogGap
from protocol.log.outages import OutageRow
from protocol.log.timeline_entry import TimelineEntry
from protocol.messages.base import Wire
from protocol.messages.facts import DeviceInfo, MobileSyncCode
from protocol.messages.views import Challenge, ReviewView
from protocol.times import Timestamp


class StoredCapture(Wire):
    """The record of a stored picture. `imageUrl` is relative to the plan's address.

    `captureId` is the SHA-256 of the picture as it was sent, so a retry has the same one.
    """

    status: Literal[MobileSyncCode.COMPLETED]
    device_id: Id
    timestamp: Timestamp
    image_url: str
    device_info: DeviceInfo
    capture_id: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Endpoints(Wire):
    """`socketServers`: the WebSocket addresses of the READY socket servers, in the order to try; it differs each time.

    `mobileSyncSeconds`: how long the mobile sync stage lasts. `maxPictureBytes`: the largest picture accepted.
    """

    socket_servers: Annotated[list[str], Field(min_length=1)]
    mobile_sync_seconds: float
    max_picture_bytes: int


class TimelineOfExaminee(Wire):
    """The newest `entries` in the order of the log, and the `outages` in the whole log up to `asOf`.

    `before`: the parameter of a request for older entries; `null`: there are none. `older`: how many older entries were
    read. Of an examinee with more than 2,000 messages only the newest are read at once. `logSince`: the time of the
    oldest fact in the log. `logGaps`: the times of which it has lost the facts. `complete`: false when the beginning of
    the first connection was not read, or has expired.
    `outages`: `null` with `before`.
    """

    plan_id: Id
    examinee_id: Id
    as_of: Timestamp
    log_since: Timestamp | None
    log_gaps: list[LogGap] = Field(default=[])
    complete: bool
    older: int
    before: int | None
    entries: list[TimelineEntry]
    outages: OutageRow | None


class PhoneCodeMade(Wire):
    """A `code` to type (`ABCD-EFGH`), and the `url` of the phone's page with the code in its fragment.

    `qrSvg` is the `url` as a QR code. `secondsLeft`: until `expiresAt`, for a client whose clock is wrong.
    """

    code: Annotated[str, Field(pattern=r"^[2-9A-HJKMNP-Z]{4}-[2-9A-HJKMNP-Z]{4}$")]
    url: str
    expires_at: Timestamp
    seconds_left: int
    qr_svg: str


class PhoneToken(Wire):
    """A token of role `mobile` for the code's examinee. The stage lasts until `deadline`, in `secondsLeft`.

    `challenge`, `review`: as in the state of the stage.
    """

    token: str
    plan_id: Id
    examinee_id: Id
    deadline: Timestamp
    seconds_left: float
    challenge: Challenge | None = None
    review: ReviewView | None = None


class MobileSyncStage(Wire):
    """The state of the mobile sync stage. `status` NONE: the examinee has not entered it yet.

    `secondsLeft`: until the `deadline`, negative after it, for a phone whose clock is wrong. `removed`: a proctor has
    removed the examinee, and pictures are refused until a proctor readmits them. `challenge`: what the picture must
    show. `review`: what a proctor says about the last picture; rejected: another one is waited for. `over`: the exam
    is over for the examinee.
    """

    status: MobileSyncCode | Literal["NONE"]
    removed: bool
    challenge: Challenge | None = None
    review: ReviewView | None = None
    deadline: Timestamp | None = None
    seconds_left: float | None = None
    over: bool | None = None


class Admission(Wire):
    """`admitted`: a connection of this examinee would be accepted, by the present records."""

    admitted: bool


class Alive(Wire):
    """The process is alive."""

    status: Literal["alive"]


class ProblemDocument(Wire):
    """A problem document (RFC 9457). `code` is for programs; `field` names the invalid parameter, if any."""

    type: Literal["about:blank"]
    title: str
    status: int
    detail: str
    code: str
    field: str | None = None
