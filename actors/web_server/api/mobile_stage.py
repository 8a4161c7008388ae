"""Read an examinee's mobile sync stage from Redis: for uploads, for phone codes, and for phones that poll it.

A phone has no socket. It polls this endpoint to show the current deadline, which a proctor may extend, and whether the
examinee was removed or readmitted.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import pydantic_core
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from actors.runtime.config.tokens import TokenVerifier
from actors.runtime.store.state_store import StateStore
from actors.web_server.problems import ALREADY_STORED, REJECTED, REMOVED, Problem
from actors.web_server.requests import claims_of, ids_of, recorded
from protocol.errors import ErrorCode
from protocol.messages.facts import MobileSyncCode
from protocol.messages.plan_facts import PlanStatusCode
from protocol.messages.views import CaptureView, ReviewView
from protocol.records import keys
from protocol.times import format_time, parse_time

_CAN_BE_LATE = (MobileSyncCode.WAITING, MobileSyncCode.FAILED, MobileSyncCode.TIMED_OUT)


@dataclass(frozen=True, slots=True)
class MobileStage:
    """A mobile sync stage. `record`: the mobile_sync record, empty before the stage; `removed`: by a proctor.

    `exam_over`: the exam is over for the examinee, or the plan is closed.

    Example::

        stage = await stages.read("P001", "E001")
        stage.status, stage.deadline, stage.removed
    """

    record: Mapping[str, str] = field(default_factory=dict)
    removed: bool = False
    exam_over: bool = False

    @property
    def status(self) -> str | None:
        return self.record.get("status")

    @property
    def deadline(self) -> float | None:
        """The deadline in seconds since the epoch; `None`: there is none."""
        try:
            return parse_time(self.record.get("deadline", ""))
        except ValueError:
            return None

    @property
    def capture_id(self) -> str | None:
        """The captureId of the picture that counts."""
        return self.record.get("captureId")

    @property
    def captures(self) -> dict[str, CaptureView]:
        """The newest pictures by captureId."""
        views = pydantic_core.from_json(self.record.get("captures") or "[]")
        return {view.capture_id: view for view in map(CaptureView.model_validate, views)}

    @property
    def review(self) -> ReviewView | None:
        """What a proctor says about the picture that counts."""
        review = self.record.get("review")
        return ReviewView.model_validate_json(review) if review else None

    @property
    def has_picture(self) -> bool:
        """Whether there is a picture that no proctor has rejected."""
        return self.status == MobileSyncCode.COMPLETED

    def over(self, moment: float) -> bool:
        """Return whether a picture received at `moment` (seconds since the epoch) is too late."""
        if self.status not in _CAN_BE_LATE:
            return False
        deadline = self.deadline
        return deadline is not None and deadline < moment

    def refuse_removed(self) -> None:
        """Refuse the phone of a removed examinee. Raises a 403 `Problem`."""
        if self.removed:
            detail = "a proctor has removed this examinee from the exam; only a proctor can let them in again"
            raise Problem(403, REMOVED, detail)

    def asked(self) -> dict[str, object]:
        """Return what a phone is told of the picture: what it must show, and what a proctor says about the last one."""
        asked: dict[str, object] = {}
        if challenge := self.record.get("challenge"):
            asked["challenge"] = challenge
        if (review := self.review) is not None:
            asked["review"] = review.model_dump(by_alias=True, exclude_none=True, exclude={"by", "by_name"})
        return asked

    def refuse_unasked(self, capture_id: str) -> None:
        """Refuse a rejected picture, and one beside the picture that is there. Raises a 409 `Problem`.

        A repeated upload of a picture that is there is not refused.
        """
        known = self.captures.get(capture_id)
        if known is not None and known.verdict == "rejected":
            why = f" ({known.reason})" if known.reason else ""
            raise Problem(409, REJECTED, f"a proctor has not accepted this picture{why}; take another one")
        if self.has_picture and known is None and capture_id != self.capture_id:
            raise Problem(409, ALREADY_STORED, "there is a picture, and no proctor has asked for another one")


class MobileStages:
    """Reads stages from Redis, and answers phones that poll them.

    Example::

        stages = MobileStages(store, verifier, bus.clock.now)
        stage = await stages.read("P001", "E001")
    """

    def __init__(self, store: StateStore, verifier: TokenVerifier, now: Callable[[], float]) -> None:
        """`now`: the broker's clock, which deadlines use, in seconds since the epoch."""
        self._store = store
        self._now = now
        self._verifier = verifier

    def routes(self) -> list[Route]:
        return [Route("/v1/plans/{plan_id:path}/examinees/{examinee_id:path}/mobile-stage", self.tell)]

    async def read(self, plan_id: str, examinee_id: str) -> MobileStage:
        """Read a stage. Raises a 503 `Problem` when Redis does not answer in time, or may have lost records."""
        record_keys = [keys.mobile_sync(plan_id, examinee_id), keys.progress(plan_id, examinee_id)]
        stage, progress = await recorded(plan_id, examinee_id, self._store.hashes(record_keys))
        reading = self._store.fields([keys.plan(plan_id)], ("status",))
        ((plan_status,),) = await recorded(plan_id, examinee_id, reading)
        over = plan_status == PlanStatusCode.CLOSED or bool(progress.get("finished"))
        return MobileStage(stage, progress.get("removed") == "1", over)

    async def as_known(self, plan_id: str, examinee_id: str) -> MobileStage | None:
        """Read a stage; `None` while Redis is unavailable. Phones are still accepted then: the log decides later."""
        try:
            return await self.read(plan_id, examinee_id)
        except Problem:
            return None

    async def tell(self, request: Request) -> Response:
        """`GET /v1/plans/{planId}/examinees/{examineeId}/mobile-stage`, by the phone or the examinee.

        `status` (NONE: not entered yet), `deadline` and the `secondsLeft` until then (negative after it), `removed`,
        `over` when the exam is, the `challenge` that the picture must show, and the `review` of the one that counts.
        """
        claims = claims_of(self._verifier, request)
        plan_id, examinee_id = ids_of(request)
        if not claims.may_upload_for(plan_id, examinee_id):
            raise Problem(403, ErrorCode.FORBIDDEN, "the token is not for this examinee")
        stage = await self.read(plan_id, examinee_id)
        answer: dict[str, object] = {"status": stage.status or "NONE", "removed": stage.removed, **stage.asked()}
        if stage.exam_over:
            answer["over"] = True
        if (deadline := stage.deadline) is not None:
            answer |= {"deadline": format_time(deadline), "secondsLeft": round(deadline - self._now(), 3)}
        return JSONResponse(answer, headers={"Cache-Control": "no-store"})
