"""What the examinee's page asks by HTTP: whether it may come back after it was shut out.

A client never connects again by itself after RECONNECT_LIMIT_EXCEEDED or REMOVED: each try would be refused. So the
page asks here, now and then, and connects when a proctor has let the examinee in.
"""

from __future__ import annotations

import asyncio
import logging

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from actors.problems import RETRY_AFTER, Problem
from actors.runtime.state_store import StateStore
from actors.runtime.tokens import TokenVerifier, bearer
from protocol import keys
from protocol.errors import ErrorCode, StateDamaged, StateUnavailable
from protocol.ids import check_id

log = logging.getLogger("examwire.web")

REDIS_SECONDS = 2.0
SHUT_OUT = ("exhausted", "removed")
"""Fields of the progress record; `1` in one of them means that a connection would be refused."""


class ExamineeApi:
    """Answers examinees about themselves."""

    def __init__(self, store: StateStore, verifier: TokenVerifier) -> None:
        self._store = store
        self._verifier = verifier

    def routes(self) -> list[Route]:
        return [Route("/v1/plans/{plan_id:path}/examinees/{examinee_id:path}/admission", self.admission)]

    async def admission(self, request: Request) -> Response:
        """`GET /v1/plans/{planId}/examinees/{examineeId}/admission`, by the examinee: `{admitted}`.

        `admitted`: a connection would be let in, as far as is recorded. 503 while nobody knows.
        """
        claims = self._verifier.verify(bearer(request.headers.get("authorization")))
        plan_id = check_id("planId", request.path_params["plan_id"])
        examinee_id = check_id("examineeId", request.path_params["examinee_id"])
        if not claims.is_examinee(plan_id, examinee_id):
            raise Problem(403, ErrorCode.FORBIDDEN, "the token is not this examinee's")
        try:
            async with asyncio.timeout(REDIS_SECONDS):
                [found] = await self._store.fields([keys.progress(plan_id, examinee_id)], SHUT_OUT)
        except (StateUnavailable, StateDamaged, TimeoutError) as error:
            log.warning("plan %s, examinee %s: admission not known: %r", plan_id, examinee_id, error)
            raise Problem(
                503, ErrorCode.UNAVAILABLE, "what is recorded cannot be read now", headers=RETRY_AFTER
            ) from None
        return JSONResponse({"admitted": "1" not in found}, headers={"Cache-Control": "no-store"})
