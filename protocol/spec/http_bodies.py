"""What the web server answers, as models (the requests have no JSON bodies)."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from protocol.ids import Id
from protocol.log.outages import OutageRow
from protocol.log.timeline_entry import TimelineEntry
from protocol.messages.base import Wire
from protocol.messages.facts import DeviceInfo, MobileSyncCode
from protocol.times import Timestamp


class StoredCapture(Wire):
    """The picture as it is recorded (document 18.5). `imageUrl` is relative to the plan's address.

    `captureId` is the SHA-256 of the stored picture: the same for a retry.
    """

    status: Literal[MobileSyncCode.COMPLETED]
    device_id: Id
    timestamp: Timestamp
    image_url: str
    device_info: DeviceInfo
    capture_id: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Endpoints(Wire):
    """`socketServers`: WebSocket addresses of the READY ones, in an order to try them that differs each time.

    `mobileSyncSeconds`: how long the mobile sync stage lasts. `maxPictureBytes`: the largest picture that is taken.
    """

    socket_servers: Annotated[list[str], Field(min_length=1)]
    mobile_sync_seconds: float
    max_picture_bytes: int


class TimelineOfExaminee(Wire):
    """The newest `entries` in the order of the log, and the `outages` of all of it up to `asOf`.

    `older`: how many entries there are before these. `logSince`: the log goes back to here. `complete`: false when
    the beginning of the first connection has expired there.
    """

    plan_id: Id
    examinee_id: Id
    as_of: Timestamp
    log_since: Timestamp | None
    complete: bool
    older: int
    entries: list[TimelineEntry]
    outages: OutageRow | None


class PhoneCodeMade(Wire):
    """`code` for people (`ABCD-EFGH`), `url` of the phone's page with the code in its fragment, and that as a QR code.

    `secondsLeft`: until `expiresAt`, for a client whose clock is wrong.
    """

    code: Annotated[str, Field(pattern=r"^[2-9A-HJKMNP-Z]{4}-[2-9A-HJKMNP-Z]{4}$")]
    url: str
    expires_at: Timestamp
    seconds_left: int
    qr_svg: str


class PhoneToken(Wire):
    """A token of role `mobile` for the examinee that the code was made for, and how long the stage lasts."""

    token: str
    plan_id: Id
    examinee_id: Id
    deadline: Timestamp
    seconds_left: float


class MobileSyncStage(Wire):
    """How the mobile sync stage stands. `status` NONE: it was not entered yet.

    `secondsLeft` until the `deadline`, negative after it, for a phone whose clock is wrong. `removed`: a proctor has
    removed the examinee, and nothing is taken until one has let them in again.
    """

    status: MobileSyncCode | Literal["NONE"]
    removed: bool
    deadline: Timestamp | None = None
    seconds_left: float | None = None


class Admission(Wire):
    """`admitted`: a connection of this examinee would be let in, as far as is recorded."""

    admitted: bool


class Alive(Wire):
    """The process answers."""

    status: Literal["alive"]


class ProblemDocument(Wire):
    """RFC 9457. `code` is for programs; `field` names the culprit, where there is one."""

    type: Literal["about:blank"]
    title: str
    status: int
    detail: str
    code: str
    field: str | None = None
