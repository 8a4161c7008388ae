"""The endpoints of stored pictures: the one that counts, and each by its captureId."""

from __future__ import annotations

import logging

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from actors.runtime.config.tokens import TokenVerifier
from actors.runtime.store.state_store import StateStore
from actors.web_server.api.mobile_stage import MobileStages
from actors.web_server.pictures.store import CAPTURE_ID, FILE_NAME, PictureStore
from actors.web_server.problems import RETRY_AFTER, Problem
from actors.web_server.requests import claims_of, ids_of, within_limits
from protocol.access.claims import Claims
from protocol.errors import BrokerUnavailable, ErrorCode, InvalidField

log = logging.getLogger("examwire.web")

_NO_PICTURE = "there is no such picture of this examinee"


class CaptureApi:
    """Gives pictures to proctors, and to an examinee their own that counts.

    Example::

        routes = CaptureApi(pictures, store, stages, verifier).routes()
    """

    def __init__(
        self, pictures: PictureStore, store: StateStore, stages: MobileStages, verifier: TokenVerifier
    ) -> None:
        self._pictures = pictures
        self._store = store
        self._stages = stages
        self._verifier = verifier

    def routes(self) -> list[Route]:
        captures = "/v1/plans/{plan_id:path}/captures/{examinee_id:path}"
        return [Route(f"{captures}/{FILE_NAME}", self.current), Route(captures + "/{capture_id}.jpg", self.capture)]

    async def current(self, request: Request) -> Response:
        """`GET /v1/plans/{planId}/captures/{examineeId}/sync_cap.jpg`, for proctors of the plan and the examinee."""
        claims = claims_of(self._verifier, request)
        plan_id, examinee_id = ids_of(request)
        if not claims.may_see_picture_of(plan_id, examinee_id):
            raise Problem(403, ErrorCode.FORBIDDEN, "the token does not allow to see this picture")
        await self._check_limits(claims, examinee_id)
        # The one that counts by the record; while nobody knows, the one that was stored last.
        stage = await self._stages.as_known(plan_id, examinee_id)
        return await self._answer(plan_id, examinee_id, stage.capture_id if stage is not None else None)

    async def capture(self, request: Request) -> Response:
        """`GET /v1/plans/{planId}/captures/{examineeId}/{captureId}.jpg`, for proctors of the plan."""
        claims = claims_of(self._verifier, request)
        plan_id, examinee_id = ids_of(request)
        if not claims.may_watch(plan_id):
            raise Problem(403, ErrorCode.FORBIDDEN, "the token does not allow to see this picture")
        await self._check_limits(claims, examinee_id)
        capture_id = request.path_params["capture_id"]
        if CAPTURE_ID.fullmatch(capture_id) is None:
            raise InvalidField("captureId", "must be a SHA-256: 64 digits from 0 to f")
        return await self._answer(plan_id, examinee_id, capture_id)

    async def _check_limits(self, claims: Claims, examinee_id: str) -> None:
        """Raise a 404 `Problem`, as for a picture that does not exist, when the token is limited to other examinees."""
        if not await within_limits(self._store, claims, [examinee_id]):
            raise Problem(404, ErrorCode.NOT_FOUND, _NO_PICTURE)

    async def _answer(self, plan_id: str, examinee_id: str, capture_id: str | None) -> Response:
        """Answer with a picture; without a `capture_id` with the one stored last. Raises a `Problem`, `StoreFailed`."""
        try:
            content = await self._pictures.read(plan_id, examinee_id, capture_id)
        except BrokerUnavailable as error:
            log.warning("plan %s, examinee %s: picture not fetched: %s", plan_id, examinee_id, error)
            detail = "the picture cannot be fetched now"
            raise Problem(503, ErrorCode.UNAVAILABLE, detail, headers=RETRY_AFTER) from None
        if content is None:
            raise Problem(404, ErrorCode.NOT_FOUND, _NO_PICTURE)
        headers = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}
        return Response(content, headers=headers, media_type="image/jpeg")
