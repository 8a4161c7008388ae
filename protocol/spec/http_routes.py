"""The routes of the web server, as data: their parameters, the roles that may use them, and their answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from protocol.access.phone_codes import LENGTH, LONGEST_SECONDS
from protocol.errors import ErrorCode
from protocol.ids import ID_PATTERN
from protocol.log.timeline_entry import EntryKind, TimelineEntry
from protocol.messages.base import Wire
from protocol.messages.facts import DeviceInfo, MobileSyncCode
from protocol.messages.frames import Role
from protocol.spec.examples import CAPTURE_ID, ENDPOINTS, IMAGE_URL
from protocol.spec.http_bodies import (
    Admission,
    Alive,
    Endpoints,
    MobileSyncStage,
    PhoneCodeMade,
    PhoneToken,
    StoredCapture,
    TimelineOfExaminee,
)
from protocol.times import TIMESTAMP_PATTERN

Schema = dict[str, Any]

INTERNAL_ERROR = "INTERNAL_ERROR"
"""The code of a 500, with which any route may answer."""

_ID: Schema = {"type": "string", "pattern": ID_PATTERN}
_TIME: Schema = {"type": "string", "pattern": TIMESTAMP_PATTERN}
_SWITCH: Schema = {"type": "string", "enum": ["true", "false"], "default": "false"}
_TEXT: Schema = {"type": "string", "maxLength": 256}

PATH_PARAMETERS: dict[str, tuple[str, Schema]] = {
    "planId": ("The plan.", _ID),
    "examineeId": ("The examinee.", _ID),
    "captureId": ("The picture.", {"type": "string", "pattern": "^[0-9a-f]{64}$"}),
    "code": (f"The code: {LENGTH} letters and digits; case, dashes and spaces do not matter.", {"type": "string"}),
}


@dataclass(frozen=True, slots=True)
class Query:
    """A parameter of the query string."""

    name: str
    description: str
    schema: Schema
    required: bool = False


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer to a successful request: the `model` of its JSON body, or the `media_type` of another body."""

    status: int
    description: str
    model: type[Wire] | None = None
    media_type: str = "application/json"
    example: Wire | str | None = None
    headers: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class HttpRoute:
    """A method of an address.

    `who`: the roles that may use it; when empty, no token is needed. `problems`: each error status with its codes.
    """

    method: str
    path: str
    operation_id: str
    summary: str
    description: str
    answer: Answer
    who: tuple[Role, ...] = ()
    query: tuple[Query, ...] = ()
    body: tuple[str, ...] = ()
    problems: tuple[tuple[int, tuple[str, ...]], ...] = ()


_TOKEN = ((400, (ErrorCode.INVALID_FIELD,)), (401, (ErrorCode.UNAUTHORIZED,)), (403, (ErrorCode.FORBIDDEN,)))
_TOKEN_OR_REMOVED = (*_TOKEN[:2], (403, (ErrorCode.FORBIDDEN, "REMOVED", "CROSS_SITE_REQUEST")))
_UNAVAILABLE = (503, (ErrorCode.UNAVAILABLE,))
_EXAMINEE = "/v1/plans/{planId}/examinees/{examineeId}"
_MOMENT = "2026-11-22T09:02:11.000Z"

ROUTES: tuple[HttpRoute, ...] = (
    HttpRoute(
        "PUT",
        f"{_EXAMINEE}/mobile-sync",
        "uploadCapture",
        "Upload the picture of the mobile sync stage",
        "The body is the JPEG or PNG itself. Answered with 201 when the picture is stored and that fact is durably in "
        "the log; then the waiting examinee and the proctors get an event. A repeated request (after a 408, a 503, or "
        "no answer) has no second effect. The token's `sub` is the examineeId. 403 REMOVED: a proctor has removed the "
        "examinee; pictures are refused until a proctor readmits them (see `…/mobile-stage`). 409 ALREADY_STORED: "
        "there is a picture, and no proctor has asked for another one; REJECTED: a proctor has not accepted this one. "
        "Of a JPEG the compressed pixels, the orientation and the colour profile are kept, and all other metadata are "
        "removed; a PNG is converted to sRGB. 413: too many bytes, "
        "pixels or scans, or too much time or memory to decode. 429: too many new pictures of this examinee (10 a "
        "minute by default; a repeated one does not count), or too many uploads at once.",
        Answer(
            201,
            "The picture is stored.",
            StoredCapture,
            example=StoredCapture(
                status=MobileSyncCode.COMPLETED,
                device_id="M001",
                timestamp=_MOMENT,
                image_url=IMAGE_URL,
                device_info=DeviceInfo(model="iPhone 12", os_version="iOS 15.0"),
                capture_id=CAPTURE_ID,
            ),
            headers=("Location",),
        ),
        who=("mobile", "examinee"),
        query=(
            Query("deviceId", "The id of the phone.", _ID, required=True),
            Query("model", "The phone's model, for people.", _TEXT),
            Query("osVersion", "The phone's operating system, for people.", _TEXT),
        ),
        body=("image/jpeg", "image/png", "application/octet-stream"),
        problems=(
            *_TOKEN_OR_REMOVED,
            (408, ("UPLOAD_STALLED",)),
            (409, (ErrorCode.DEADLINE_PASSED, "ALREADY_STORED", "REJECTED")),
            (413, (ErrorCode.IMAGE_TOO_LARGE,)),
            (415, (ErrorCode.NOT_AN_IMAGE, ErrorCode.IMAGE_NOT_SUPPORTED, ErrorCode.IMAGE_DAMAGED)),
            (429, ("TOO_MANY_REQUESTS",)),
            _UNAVAILABLE,
            (507, (ErrorCode.STORE_FAILED,)),
        ),
    ),
    HttpRoute(
        "GET",
        "/v1/plans/{planId}/captures/{examineeId}/sync_cap.jpg",
        "getCapture",
        "The examinee's current picture",
        "For proctors of the plan, and for the examinee.",
        Answer(200, "The picture.", media_type="image/jpeg"),
        who=("proctor", "examinee"),
        problems=(*_TOKEN, (404, (ErrorCode.NOT_FOUND,)), _UNAVAILABLE, (507, (ErrorCode.STORE_FAILED,))),
    ),
    HttpRoute(
        "GET",
        "/v1/plans/{planId}/captures/{examineeId}/{captureId}.jpg",
        "getCaptureById",
        "One of the examinee's pictures",
        "For proctors of the plan. Every picture is kept until its plan or its examinee is purged.",
        Answer(200, "The picture.", media_type="image/jpeg"),
        who=("proctor",),
        problems=(*_TOKEN, (404, (ErrorCode.NOT_FOUND,)), _UNAVAILABLE, (507, (ErrorCode.STORE_FAILED,))),
    ),
    HttpRoute(
        "POST",
        f"{_EXAMINEE}/phone-code",
        "makePhoneCode",
        "A code that pairs a phone with this examinee",
        "For the examinee, while the mobile sync stage is open. A code is valid until the stage ends, and at most "
        f"{LONGEST_SECONDS / 60:g} minutes; 10 a minute for each examinee. 501: tokens come from an issuer, and "
        "no secret is configured to sign tokens of phones.",
        Answer(
            201,
            "The code.",
            PhoneCodeMade,
            example=PhoneCodeMade(
                code="7KQM-2XWP",
                url="https://exam.example/phone#code=7KQM2XWP",
                expires_at="2026-11-22T09:03:00.000Z",
                seconds_left=118,
                qr_svg='<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 41 41"><path d="M4 4h7"/></svg>',
            ),
        ),
        who=("examinee",),
        problems=(
            *_TOKEN_OR_REMOVED,
            (409, ("NOT_WAITING", ErrorCode.DEADLINE_PASSED)),
            (429, ("TOO_MANY_REQUESTS",)),
            (501, ("NO_SECRET",)),
            _UNAVAILABLE,
        ),
    ),
    HttpRoute(
        "POST",
        "/v1/phone-codes/{code}",
        "redeemPhoneCode",
        "A phone's token for a code",
        "Needs no token, only the code. The first device that redeems it may do so again; any other is refused with "
        "409 OTHER_DEVICE. 410 USED_UP: the picture is there. Only wrong codes are limited: 1000 at once "
        "and 50 a second, of all phones together. Beyond that, answers are delayed by up to 10 s, and then refused "
        "with 429. 403 CROSS_SITE_REQUEST: the request comes from a page of another site.",
        Answer(
            200,
            "The token.",
            PhoneToken,
            example=PhoneToken(
                token="eyJhbGciOiJIUzI1NiJ9.e30.c2lnbmF0dXJl",
                plan_id="P001",
                examinee_id="E001",
                deadline="2026-11-22T09:03:00.000Z",
                seconds_left=97.214,
            ),
        ),
        query=(Query("deviceId", "The id of the phone, as of the upload.", _ID),),
        problems=(
            (400, (ErrorCode.INVALID_FIELD,)),
            (403, ("REMOVED", "CROSS_SITE_REQUEST")),
            (404, (ErrorCode.NOT_FOUND,)),
            (409, ("OTHER_DEVICE",)),
            (410, ("EXPIRED", "USED_UP")),
            (429, ("TOO_MANY_REQUESTS",)),
            (501, ("NO_SECRET",)),
            _UNAVAILABLE,
        ),
    ),
    HttpRoute(
        "GET",
        f"{_EXAMINEE}/mobile-stage",
        "getMobileStage",
        "The state of the mobile sync stage",
        "For the phone, which has no socket: the time left, also after a proctor has given more time, whether a "
        "proctor has asked for another picture, and whether the examinee was removed. Ask at most every 8 s.",
        Answer(
            200,
            "The recorded state.",
            MobileSyncStage,
            example=MobileSyncStage(
                status=MobileSyncCode.WAITING, removed=False, deadline="2026-11-22T09:03:00.000Z", seconds_left=97.214
            ),
        ),
        who=("mobile", "examinee"),
        problems=(*_TOKEN, _UNAVAILABLE),
    ),
    HttpRoute(
        "GET",
        f"{_EXAMINEE}/admission",
        "getAdmission",
        "Whether the examinee may connect again",
        "For the examinee after 4504 or 4508: the client does not reconnect by itself, but asks here from time to "
        "time, and connects when a proctor has readmitted the examinee.",
        Answer(200, "The recorded state.", Admission, example=Admission(admitted=False)),
        who=("examinee",),
        problems=(*_TOKEN, _UNAVAILABLE),
    ),
    HttpRoute(
        "GET",
        "/v1/endpoints",
        "getEndpoints",
        "The socket servers to connect to",
        "For everybody, from any origin. Try the first one first, and the others when it cannot be reached.",
        Answer(
            200,
            "The READY socket servers.",
            Endpoints,
            example=Endpoints(socket_servers=ENDPOINTS, mobile_sync_seconds=120, max_picture_bytes=20 * 1024 * 1024),
            headers=("Access-Control-Allow-Origin",),
        ),
        problems=(_UNAVAILABLE,),
    ),
    HttpRoute(
        "GET",
        f"{_EXAMINEE}/timeline",
        "getTimeline",
        "What happened to an examinee",
        "For proctors of the plan, from the log: the newest entries, and the outages in the whole log.",
        Answer(
            200,
            "The newest entries.",
            TimelineOfExaminee,
            example=TimelineOfExaminee(
                plan_id="P001",
                examinee_id="E001",
                as_of=_MOMENT,
                log_since="2026-11-15T00:00:00.000Z",
                log_gaps=[],
                complete=True,
                older=12,
                before=451263979520000,
                entries=[
                    TimelineEntry(
                        version=451263979520000,
                        logged="2026-11-22T09:00:03.124Z",
                        time="2026-11-22T09:00:03.120Z",
                        plan_id="P001",
                        examinee_id="E001",
                        what=EntryKind.RECOVERED,
                        effect=True,
                        text="recovered after 3.4 s on SOCK001 (SOCKET_CLOSED)",
                        status="CONNECTED",
                        mobile_sync="NONE",
                        seconds=3.4,
                    )
                ],
                outages=None,
            ),
        ),
        who=("proctor",),
        query=(
            Query(
                "limit",
                "The most entries to return.",
                {"type": "integer", "minimum": 1, "maximum": 2000, "default": 200},
            ),
            Query("all", "Include facts that had no effect.", _SWITCH),
            Query(
                "before",
                "Return entries older than this version: the `before` of an earlier answer.",
                {"type": "integer", "minimum": 1, "maximum": 2**53},
            ),
        ),
        problems=(*_TOKEN, (404, (ErrorCode.NOT_FOUND,)), _UNAVAILABLE),
    ),
    HttpRoute(
        "GET",
        "/v1/plans/{planId}/report.csv",
        "getReport",
        "Outages and the time to be compensated",
        "For proctors of the plan: a CSV file (RFC 4180, UTF-8 with a BOM) with a header and one line per examinee.",
        Answer(
            200,
            "The table.",
            media_type="text/csv",
            example="planId,examineeId,outages,outageSeconds\r\nP001,E001,1,3.400\r\n",
            headers=("Content-Disposition",),
        ),
        who=("proctor",),
        query=(
            Query("from", "Begin of the window; default: the first fact.", _TIME),
            Query("to", "End of the window; default, and at most: now.", _TIME),
            Query(
                "ignoreBelowSeconds", "Shorter outages do not count.", {"type": "number", "minimum": 0, "default": 0}
            ),
            Query("affected", "Only examinees with an outage.", _SWITCH),
        ),
        problems=(*_TOKEN, (404, (ErrorCode.NOT_FOUND,)), _UNAVAILABLE),
    ),
    HttpRoute(
        "GET",
        "/healthz",
        "getHealth",
        "The process is alive",
        "Every role also has this on its metrics port, with /readyz and /metrics.",
        Answer(200, "Alive.", Alive, example=Alive(status="alive")),
    ),
)
"""All routes except the pages and their files."""
