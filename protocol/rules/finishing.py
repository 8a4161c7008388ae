"""Rules of the end of the exam for one examinee, and of going on with it."""

from __future__ import annotations

from dataclasses import replace

from protocol.close_codes import CloseCode
from protocol.messages.facts import ConnectionStatusCode, ExamineeFinish, ExamineeResume, FinishReason
from protocol.messages.proctor_events import ExamineeFinished, ExamineeResumed
from protocol.rules.action_ids import already_applied, with_action
from protocol.rules.connection_state import RESUMED, ConnectionState
from protocol.rules.effects import CloseSocket, Effect, SendSessionState
from protocol.rules.history import Outcome


def finish(state: ConnectionState, version: int, fact: ExamineeFinish) -> Outcome[ConnectionState]:
    """Apply the end of the exam for an examinee: from now on the end of a socket is no loss.

    Whoever hands in may stay connected. When the plan has ended, the socket is closed.
    """
    if state.finished is not None or state.removed or already_applied(state.actions, fact):
        return Outcome(state)
    finished = replace(
        state,
        plan_id=fact.plan_id,
        examinee_id=fact.examinee_id,
        finished=fact.reason,
        finished_at=fact.timestamp,
        finished_by=fact.by,
        finished_by_name=fact.by_name,
        flags=() if fact.reason is FinishReason.DECIDED else state.flags,
        outages=(),
        unstable=False,
        away_share=None,
        # Late facts about an outage no longer match `loss_version`: nobody waits for this examinee any more.
        loss_version=version,
        attempt=0,
        max_attempts=None,
        next_attempt_at=None,
        exhausted=False,
        actions=with_action(state.actions, fact),
        version=version,
    )
    return Outcome(finished, (finished_event(finished, version, action_id=fact.action_id),), _told(finished, version))


def _told(state: ConnectionState, version: int) -> tuple[Effect, ...]:
    if not state.live:
        return ()
    assert state.socket_id is not None
    assert state.server_id is not None
    if state.finished is FinishReason.PLAN_ENDED:
        return (CloseSocket(state.server_id, state.socket_id, CloseCode.EXAM_OVER, version),)
    return (SendSessionState(state.plan_id, state.examinee_id, state.server_id, state.socket_id, version),)


def finished_event(
    state: ConnectionState, version: int, *, action_id: str | None = None, restated: bool | None = None
) -> ExamineeFinished:
    """Return the `examinee_finished` event: by whom, why and since when."""
    assert state.finished is not None
    assert state.finished_by is not None
    assert state.finished_at is not None
    return ExamineeFinished(
        **state.about(),
        by=state.finished_by,
        by_name=state.finished_by_name,
        reason=state.finished,
        action_id=action_id,
        timestamp=state.finished_at,
        restated=restated,
        version=version,
    )


def resume(state: ConnectionState, version: int, fact: ExamineeResume) -> Outcome[ConnectionState]:
    """Apply that a finished examinee goes on. For others it has no effect."""
    if state.finished is None or already_applied(state.actions, fact):
        return Outcome(state)
    away = state.status is not None and not state.live
    resumed = replace(
        state,
        status=ConnectionStatusCode.DISCONNECTED if away else state.status,
        reason=RESUMED if away else None,
        since=fact.timestamp if away else state.since,
        loss_version=version,
        finished=None,
        finished_at=None,
        finished_by=None,
        finished_by_name=None,
        flags=(),
        actions=with_action(state.actions, fact),
        version=version,
    )
    event = ExamineeResumed(
        **resumed.about(),
        by=fact.by,
        by_name=fact.by_name,
        action_id=fact.action_id,
        connection=resumed.view(),
        timestamp=fact.timestamp,
        version=version,
    )
    return Outcome(resumed, (event,), _told(resumed, version))
