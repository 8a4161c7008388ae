"""Tell an examinee's page whether a connection would be admitted after it was refused.

After RECONNECT_LIMIT_EXCEEDED or REMOVED a client does not reconnect by itself: each attempt would be refused. Its page
polls this endpoint, and connects when a proctor has readmitted the examinee.
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
"""Fields of the progress record; a connection is refused when one of them is `1`."""


class ExamineeApi:
    """The endpoint for examinees.

    Example::

        routes = ExamineeApi(store, verifier).routes()
    """

    def __init__(self, store: StateStore, verifier: TokenVerifier) -> None:
        self._store = store
        self._verifier = verifier

    def routes(self) -> list[Route]:
        return [Route("/v1/plans/{plan_id:path}/examinees/{examinee_id:path}/admission", self.admission)]

    async def admission(self, request: Request) -> Response:
        """`GET /v1/plans/{planId}/examinees/{examineeId}/admission`, by the examinee: `{admitted}`.

        `admitted`: a connection would be admitted by the state in Redis. 503 while that is unknown.
        """
        claims = claims_of(self._verifier, request)
        plan_id, examinee_id = ids_of(request)
        if not claims.is_examinee(plan_id, examinee_id):
            raise Problem(403, ErrorCode.FORBIDDEN, "the token is not this examinee's")
        reading = self._store.fields([keys.progress(plan_id, examinee_id)], SHUT_OUT)
        [values] = await recorded(plan_id, examinee_id, reading)
        return JSONResponse({"admitted": "1" not in values}, headers={"Cache-Control": "no-store"})
