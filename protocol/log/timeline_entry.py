"""What happened to an examinee, as a reader of the log is told it, and how things stood at a moment."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from protocol.messages.base import Wire
from protocol.times import format_time


class What(StrEnum):
    """What a fact came to."""

    ENROLLED = "ENROLLED"
    JOINED = "JOINED"
    RECOVERED = "RECOVERED"
    ARRIVED = "ARRIVED"
    REPLACED = "REPLACED"
    REFUSED = "REFUSED"
    LOST = "LOST"
    MIGRATING = "MIGRATING"
    RECONNECTING = "RECONNECTING"
    SHUT_OUT = "SHUT_OUT"
    REMOVED = "REMOVED"
    READMITTED = "READMITTED"
    SYNC_WAITING = "SYNC_WAITING"
    SYNC_EXTENDED = "SYNC_EXTENDED"
    SYNC_COMPLETED = "SYNC_COMPLETED"
    SYNC_FAILED = "SYNC_FAILED"
    SYNC_TIMED_OUT = "SYNC_TIMED_OUT"
    NOTICE = "NOTICE"
    NOTICE_CONFIRMED = "NOTICE_CONFIRMED"
    RESTATED = "RESTATED"
    NO_EFFECT = "NO_EFFECT"


class Happening(Wire):
    """One fact and what was decided about it.

    `text` says it to people. `effect`: it changed what is recorded, or refused somebody. `status` and `mobileSync` are
    those after it. `seconds`: how long the outage (or the migration) lasted that this ends. `by`: who has decided it,
    with the action `actionId`; of a confirmation, whose message was confirmed.
    """

    version: int
    logged: str
    time: str
    plan_id: str
    examinee_id: str
    what: What
    effect: bool
    text: str
    status: str
    mobile_sync: str
    reason: str | None = None
    socket_id: str | None = None
    server_id: str | None = None
    ip_address: str | None = None
    attempt: int | None = None
    max_attempts: int | None = None
    next_attempt_at: str | None = None
    by: str | None = None
    action_id: str | None = None
    name: str | None = None
    notice: str | None = None
    seconds: float | None = None
    device_id: str | None = None
    image_url: str | None = None
    deadline: str | None = None


@dataclass(frozen=True, slots=True)
class Moment:
    """The status of an examinee at a moment of the log, and why.

    `made` is the fact that made the connection's status so, `latest` the last one about it (an attempt, say), `picture`
    the one that made the mobile sync's. `following` is what came next.
    """

    status: str
    mobile_sync: str
    made: Happening | None = None
    latest: Happening | None = None
    picture: Happening | None = None
    following: Happening | None = None


def at_moment(happenings: Iterable[Happening], moment: float) -> Moment:
    """Of one examinee's happenings in order: what was decided up to `moment` (seconds since the epoch, by `logged`)."""
    limit = format_time(moment)
    made = latest = picture = following = None
    for one in happenings:
        if not one.effect:
            continue
        if one.logged > limit:
            following = one
            break
        if one.what.name.startswith("SYNC_"):
            picture = one
            continue
        if one.what in (What.NOTICE, What.NOTICE_CONFIRMED):
            continue
        if made is None or made.status != one.status or one.what is What.REPLACED:
            made = one
        latest = one
    return Moment(
        made.status if made is not None else "NEVER",
        picture.mobile_sync if picture is not None else "NONE",
        made,
        latest,
        picture,
        following,
    )
