"""How an examinee's mobile sync stage stands, as it is recorded: for uploads, for codes, and for phones that ask.

A phone has no socket. It asks here now and then, so that what it counts down is what the proctor has given, and so that
it learns that the examinee was removed, or let in again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from actors.runtime.config.tokens import TokenVerifier
from actors.runtime.store.state_store import StateStore
from actors.web_server.problems import REMOVED, Problem
from actors.web_server.requests import claims_of, ids_of, recorded
from protocol.errors import ErrorCode
from protocol.messages.facts import MobileSyncCode
from protocol.records import keys
from protocol.times import format_time, parse_time

_CAN_BE_LATE = (MobileSyncCode.WAITING, MobileSyncCode.FAILED, MobileSyncCode.TIMED_OUT)


@dataclass(frozen=True, slots=True)
class MobileStage:
    """`record`: the examinee's mobile_sync record, empty when there is none. `removed`: a proctor has removed them."""

    record: Mapping[str, str] = field(default_factory=dict)
    removed: bool = False

    @property
    def status(self) -> str | None:
        return self.record.get("status")

    @property
    def deadline(self) -> float | None:
        """Seconds since the epoch."""
        try:
            return parse_time(self.record.get("deadline", ""))
        except ValueError:
            return None

    @property
    def capture_id(self) -> str | None:
        """Of the picture that counts."""
        return self.record.get("captureId")

    def over(self, moment: float) -> bool:
        """Whether a picture that came at `moment` (seconds since the epoch) came too late."""
        if self.status not in _CAN_BE_LATE:
            return False
        deadline = self.deadline
        return deadline is not None and deadline < moment

    def refuse_removed(self) -> None:
        """Whoever was removed is shut out, and so is their phone. Raises 403."""
        if self.removed:
            detail = "a proctor has removed this examinee from the exam; only a proctor can let them in again"
            raise Problem(403, REMOVED, detail)


class MobileStages:
    """Reads stages from Redis, and tells phones of them."""

    def __init__(self, store: StateStore, verifier: TokenVerifier, now: Callable[[], float]) -> None:
        """`now`: seconds since the epoch, by the clock that deadlines go by (the broker's)."""
        self._store = store
        self._now = now
        self._verifier = verifier

    def routes(self) -> list[Route]:
        return [Route("/v1/plans/{plan_id:path}/examinees/{examinee_id:path}/mobile-stage", self.tell)]

    async def read(self, plan_id: str, examinee_id: str) -> MobileStage:
        """As it is recorded. Raises a 503 `Problem` when Redis does not answer in time, or not with the truth."""
        wanted = [keys.mobile_sync(plan_id, examinee_id), keys.progress(plan_id, examinee_id)]
        stage, progress = await recorded(plan_id, examinee_id, self._store.hashes(wanted))
        return MobileStage(stage, progress.get("removed") == "1")

    async def as_known(self, plan_id: str, examinee_id: str) -> MobileStage | None:
        """As `read`; `None` while nobody knows, which is no reason to turn a phone away: the log decides."""
        try:
            return await self.read(plan_id, examinee_id)
        except Problem:
            return None

    async def tell(self, request: Request) -> Response:
        """`GET /v1/plans/{planId}/examinees/{examineeId}/mobile-stage`, by the phone or the examinee.

        `status` (NONE: not entered yet), `deadline` and the `secondsLeft` until then (negative after it), `removed`.
        """
        claims = claims_of(self._verifier, request)
        plan_id, examinee_id = ids_of(request)
        if not claims.may_upload_for(plan_id, examinee_id):
            raise Problem(403, ErrorCode.FORBIDDEN, "the token is not for this examinee")
        stage = await self.read(plan_id, examinee_id)
        told: dict[str, object] = {"status": stage.status or "NONE", "removed": stage.removed}
        if (deadline := stage.deadline) is not None:
            told |= {"deadline": format_time(deadline), "secondsLeft": round(deadline - self._now(), 3)}
        return JSONResponse(told, headers={"Cache-Control": "no-store"})
