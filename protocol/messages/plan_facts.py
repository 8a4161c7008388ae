"""The facts about a plan as a whole in STATUS, on `status.plan.{planId}.>`: its times, its policy, its end.

docs/architecture.md, "The life of an exam".
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, ClassVar, Literal, Self, get_args

import pydantic
from pydantic import Field

from protocol.ids import Id
from protocol.messages.base import ActionId, Name, NoticeText, Stored, Text, Traced, Version
from protocol.times import Timestamp, parse_time

BY_PLAN = "plan"
"""`by` of what the end of a plan does to its examinees."""
BY_SCHEDULE = "schedule"
"""`by` of a beginning or an end that the broker's schedule brings."""

MAX_LISTED = 5000
"""So many examinees at most are listed in one `plan_notice`; without a list it is for everybody."""

Seconds = Annotated[int, Field(ge=0, le=7 * 86400, strict=True)]


def check_times(starts_at: str | None, ends_at: str | None) -> None:
    """Raise `ValueError` when an end is not after its start."""
    if starts_at is not None and ends_at is not None and parse_time(ends_at) <= parse_time(starts_at):
        raise ValueError("endsAt must be after startsAt")


class PlanStatusCode(StrEnum):
    """The status of a plan. SCHEDULED: before it begins."""

    SCHEDULED = "SCHEDULED"
    OPEN = "OPEN"
    CLOSED = "CLOSED"


class PlanPolicy(Stored):
    """What a plan does otherwise than the settings say; a field that is absent leaves the setting in force.

    `maxAttempts`, `backoffSeconds`, `jitter`: the reconnect ladder. `shutOut` false: used-up attempts refuse nobody.
    `mobileSyncSeconds`: the deadline of the picture. `graceSeconds`: so long after its end the plan closes (0).
    `compensateClientClosed`: whether outages that the examinee's own client began are compensated (false).
    `unstableShare`: away for more than this share of the last `unstableWindowSeconds`, an examinee is unstable (0.2 of
    600 s). `cannedTexts`: messages that proctors choose from. `pictureChallenge`: the picture must show a word that the
    page names (false).
    """

    model_config = pydantic.ConfigDict(frozen=True)

    max_attempts: Annotated[int, Field(ge=1, le=20, strict=True)] | None = None
    backoff_seconds: (
        Annotated[tuple[Annotated[float, Field(gt=0, le=3600)], ...], Field(min_length=1, max_length=20)] | None
    ) = None
    jitter: Annotated[float, Field(ge=0, le=1)] | None = None
    shut_out: bool | None = None
    mobile_sync_seconds: Annotated[int, Field(ge=10, le=3600, strict=True)] | None = None
    grace_seconds: Annotated[int, Field(ge=0, le=86400, strict=True)] | None = None
    compensate_client_closed: bool | None = None
    unstable_share: Annotated[float, Field(gt=0, le=1)] | None = None
    unstable_window_seconds: Annotated[int, Field(ge=60, le=86400, strict=True)] | None = None
    canned_texts: Annotated[tuple[NoticeText, ...], Field(max_length=20)] | None = None
    picture_challenge: bool | None = None


class PlanFact(Traced, Stored):
    """A fact about a plan, published on `status.plan.{planId}`.

    `by`, and `byName` for people: who decided. `actionId`: that of the request.
    """

    plan_id: Id
    timestamp: Timestamp
    by: Text
    by_name: Name | None = None
    action_id: ActionId | None = None


class PlanSchedule(PlanFact):
    """`plan_schedule`: the name, times and policy of a plan. What is absent stays as it was.

    Raises a validation error when `endsAt` is not after `startsAt`.
    """

    type: ClassVar[str] = "plan_schedule"
    name: Name | None = None
    starts_at: Timestamp | None = None
    ends_at: Timestamp | None = None
    policy: PlanPolicy | None = None

    @pydantic.model_validator(mode="after")
    def _check_order(self) -> Self:
        check_times(self.starts_at, self.ends_at)
        return self


class PlanOpen(PlanFact):
    """`plan_open`: the plan begins now, or is opened again.

    By the broker's schedule: `scheduleVersion` is the fact that set the time.
    """

    type: ClassVar[str] = "plan_open"
    schedule_version: Version | None = None


class PlanClose(PlanFact):
    """`plan_close`: the plan ends now. By the broker's schedule: `scheduleVersion` is the fact that set the time."""

    type: ClassVar[str] = "plan_close"
    reason: Text | None = None
    schedule_version: Version | None = None


class ExamExtend(PlanFact):
    """`exam_extend`: `seconds` more for one examinee, or for everybody when nobody is named."""

    type: ClassVar[str] = "exam_extend"
    examinee_id: Id | None = None
    seconds: Annotated[int, Field(ge=1, le=86400, strict=True)]


class ExamWindow(PlanFact):
    """`exam_window`: times of one examinee that differ from the plan's, as the roster says; they replace earlier ones.

    `extraSeconds`: on top of the plan's end, or of `endsAt`. Raises a validation error when `endsAt` is not after
    `startsAt`.
    """

    type: ClassVar[str] = "exam_window"
    examinee_id: Id
    starts_at: Timestamp | None = None
    ends_at: Timestamp | None = None
    extra_seconds: Seconds = 0

    @pydantic.model_validator(mode="after")
    def _check_order(self) -> Self:
        check_times(self.starts_at, self.ends_at)
        return self


class PlanNotice(PlanFact):
    """`plan_notice`: a message to everybody, or to the listed `examinees`; clients get it as an event, with `version`.

    Each examinee confirms it with `notice_confirmed`, as a message of their own.
    """

    type: ClassVar[str] = "plan_notice"
    action_id: ActionId
    text: NoticeText
    examinees: Annotated[list[Id], Field(min_length=1, max_length=MAX_LISTED)] | None = None
    version: Version | None = None


class PlanPurged(PlanFact):
    """`plan_purged`: everything about a plan, or about one examinee of it, up to this fact is deleted.

    One with `begins` comes first, and is deleted with the rest. The one that stays has the counts of what was deleted;
    `archiveSha256`: the hash of the archive that was written before, in hex. `alias`: the id that stands from now on
    for the examinee in facts about the plan. Socket servers get it as a message, with `version`.
    """

    type: ClassVar[str] = "plan_purged"
    examinee_id: Id | None = None
    begins: bool | None = None
    alias: Id | None = None
    records: Annotated[int, Field(ge=0)] = 0
    messages: Annotated[int, Field(ge=0)] = 0
    pictures: Annotated[int, Field(ge=0)] = 0
    archive_sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = None
    version: Version | None = None


class PlanRestate(PlanFact):
    """`plan_restate`: the state manager publishes the state of a plan again, because the last one may be wrong."""

    type: ClassVar[str] = "plan_restate"
    aspect: Literal["plan", "plan_notices"] = "plan"


PlanRecordFact = PlanSchedule | PlanOpen | PlanClose | ExamExtend | ExamWindow | PlanPurged | PlanRestate
PlanNoticeFact = PlanNotice | PlanPurged | PlanRestate

PLAN_FACTS: tuple[type[PlanFact], ...] = (*get_args(PlanRecordFact), PlanNotice)
