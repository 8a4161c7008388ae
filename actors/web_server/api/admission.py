"""What the examinee's page asks by HTTP: whether it may come back after it was shut out.

A client never connects again by itself after RECONNECT_LIMIT_EXCEEDED or REMOVED: each try would be refused. So the
page asks here, now and then, and connects when a proctor has let the examinee in.
"""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from actors.runtime.config.tokens import TokenVerifier
from actors.runtime.store.state_store import StateStore
from actors.web_server.problems import Problem
from actors.web_server.requests import claims_of, ids_of, recorded
from protocol.errors import ErrorCode
from protocol.records import keys

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
        claims = claims_of(self._verifier, request)
        plan_id, examinee_id = ids_of(request)
        if not claims.is_examinee(plan_id, examinee_id):
            raise Problem(403, ErrorCode.FORBIDDEN, "the token is not this examinee's")
        reading = self._store.fields([keys.progress(plan_id, examinee_id)], SHUT_OUT)
        [found] = await recorded(plan_id, examinee_id, reading)
        return JSONResponse({"admitted": "1" not in found}, headers={"Cache-Control": "no-store"})
