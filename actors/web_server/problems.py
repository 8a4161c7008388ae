"""Problem documents (RFC 9457): the one form of every HTTP error, `application/problem+json`.

`type` is `about:blank`, so `title` is the status in words; `code` is the stable word a program acts on (`ErrorCode`, or
one of the codes here that only HTTP has), `field` names the culprit of a 400 in wire spelling.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from actors.web_server.pictures.incoming import StoreFailed
from actors.web_server.pictures.limits import DamagedPicture, NotAPicture, PictureTooLarge, UnsupportedPicture
from protocol.errors import BrokerUnavailable, ErrorCode, ExamwireError, InvalidField, InvalidToken

INTERNAL_ERROR = "INTERNAL_ERROR"
UPLOAD_STALLED = "UPLOAD_STALLED"
TOO_MANY_REQUESTS = "TOO_MANY_REQUESTS"
EXPIRED = "EXPIRED"
NOT_WAITING = "NOT_WAITING"
REMOVED = "REMOVED"
REJECTED = "REJECTED"
ALREADY_STORED = "ALREADY_STORED"
OTHER_DEVICE = "OTHER_DEVICE"
USED_UP = "USED_UP"
NO_SECRET = "NO_SECRET"
CROSS_SITE_REQUEST = "CROSS_SITE_REQUEST"
RETRY_AFTER = {"Retry-After": "2"}


class Problem(ExamwireError):
    """An HTTP error. `more` are further members of the document."""

    def __init__(
        self,
        status: int,
        code: str,
        detail: str,
        *,
        field: str | None = None,
        headers: Mapping[str, str] | None = None,
        more: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.code = str(code)
        self.detail = detail
        self.field = field
        self.headers = dict(headers or {})
        self.more = dict(more or {})

    def response(self) -> Response:
        document = {
            "type": "about:blank",
            "title": HTTPStatus(self.status).phrase,
            "status": self.status,
            "detail": self.detail,
            "code": self.code,
            **({"field": self.field} if self.field else {}),
            **self.more,
        }
        headers = {"Cache-Control": "no-store", **self.headers}
        return JSONResponse(document, self.status, headers, media_type="application/problem+json")


def problem_of(error: Exception) -> Problem:
    """Return the problem document for an error. An unexpected error is a 500 without details."""
    match error:
        case Problem():
            return error
        case InvalidField():
            return Problem(400, error.code, error.detail, field=error.field)
        case InvalidToken():
            return Problem(
                401, ErrorCode.UNAUTHORIZED, str(error), headers={"WWW-Authenticate": 'Bearer realm="examwire"'}
            )
        case PictureTooLarge():
            return Problem(413, ErrorCode.IMAGE_TOO_LARGE, f"{error}; send a smaller picture")
        case DamagedPicture():
            return Problem(415, ErrorCode.IMAGE_DAMAGED, f"the picture is damaged: {error}; send another one")
        case UnsupportedPicture():
            return Problem(415, ErrorCode.IMAGE_NOT_SUPPORTED, f"this is {error}; send a JPEG or PNG")
        case NotAPicture():
            return Problem(415, ErrorCode.NOT_AN_IMAGE, f"this is no picture: {error}; send a JPEG or PNG")
        case StoreFailed():
            detail = "the picture could not be stored; it is not known to anybody: try again later"
            return Problem(507, ErrorCode.STORE_FAILED, detail)
        case BrokerUnavailable():
            detail = "the picture could not be announced; send the same request again, it has one effect"
            return Problem(503, ErrorCode.UNAVAILABLE, detail, headers=RETRY_AFTER)
        case HTTPException(status_code=404):
            return Problem(404, ErrorCode.NOT_FOUND, "there is nothing at this address")
        case HTTPException(status_code=405):
            detail = "this address does not take that method"
            return Problem(405, ErrorCode.NOT_ALLOWED, detail, headers=error.headers)
        case _:
            return Problem(500, INTERNAL_ERROR, "internal error; it has been logged")


async def _answer(_request: Request, error: Exception) -> Response:
    return problem_of(error).response()


PROBLEM_HANDLERS: dict[Any, Callable[[Request, Exception], Awaitable[Response]]] = {
    HTTPException: _answer,
    ExamwireError: _answer,
    Exception: _answer,
}
"""For Starlette's `exception_handlers`."""
