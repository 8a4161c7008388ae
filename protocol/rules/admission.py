"""Who may sit the exam: what the roster and proctors have decided about one examinee's connection."""

from __future__ import annotations

from dataclasses import replace

from protocol.close_codes import CloseCode
from protocol.messages.facts import ConnectionStatusCode, Enrol, Readmit, Remove
from protocol.messages.proctor_events import ExamineeEnrolled, ExamineeReadmitted, ExamineeRemoved
from protocol.rules.action_ids import already_applied, with_action
from protocol.rules.connection_state import READMITTED, REMOVED, ConnectionState
from protocol.rules.effects import CloseSocket, Effect
from protocol.rules.history import Outcome


def enrol(state: ConnectionState, version: int, fact: Enrol) -> Outcome[ConnectionState]:
    """The roster names the examinee; told only when that says something new."""
    name = fact.name or state.name
    if state.enrolled and name == state.name:
        return Outcome(state)
    enrolled = replace(
        state, plan_id=fact.plan_id, examinee_id=fact.examinee_id, name=name, enrolled=True, version=version
    )
    return Outcome(enrolled, (enrolled_event(enrolled, version, fact.timestamp, by=fact.by, action_id=fact.action_id),))


def enrolled_event(
    state: ConnectionState,
    version: int,
    timestamp: str,
    *,
    by: str | None = None,
    action_id: str | None = None,
    restated: bool | None = None,
) -> ExamineeEnrolled:
    """The event of one line of the roster, with what is so beside."""
    return ExamineeEnrolled(
        plan_id=state.plan_id,
        examinee_id=state.examinee_id,
        name=state.name,
        by=by,
        action_id=action_id,
        connection=state.view(),
        reconnect=state.reconnect_view(),
        removed=state.removed,
        timestamp=timestamp,
        restated=restated,
        version=version,
    )


def readmit(state: ConnectionState, version: int, fact: Readmit) -> Outcome[ConnectionState]:
    """Whoever was shut out or removed is let in again; nobody else needs to be."""
    if not (state.exhausted or state.removed) or already_applied(state.actions, fact):
        return Outcome(state)
    # No new ladder: whoever was let in by a person may take the time it takes. What is still said about the old
    # ladder, which can be long after the message ids of its messages are forgotten, finds its outage gone.
    readmitted = replace(
        state,
        exhausted=False,
        removed=False,
        reason=READMITTED if state.status is not None else None,
        # Who was removed was kept away by a decision: what keeps them away from now on is another matter.
        since=fact.timestamp if state.removed and state.status is not None else state.since,
        loss_version=version,
        attempt=0,
        max_attempts=None,
        actions=with_action(state.actions, fact),
        version=version,
    )
    event = ExamineeReadmitted(
        plan_id=fact.plan_id,
        examinee_id=fact.examinee_id,
        status="DISCONNECTED" if state.status is not None else "NEVER",
        by=fact.by,
        action_id=fact.action_id,
        timestamp=fact.timestamp,
        name=state.name,
        version=version,
    )
    return Outcome(readmitted, (event,))


def remove(state: ConnectionState, version: int, fact: Remove) -> Outcome[ConnectionState]:
    """Nobody is let in under this id any more, and who is connected is closed."""
    if state.removed or already_applied(state.actions, fact):
        return Outcome(state)
    been_there = state.status is not None
    # What is still said about an outage of before finds it gone: nobody is waited for any more.
    removed = replace(
        state,
        plan_id=fact.plan_id,
        examinee_id=fact.examinee_id,
        status=ConnectionStatusCode.DISCONNECTED if been_there else None,
        reason=REMOVED if been_there else None,
        since=fact.timestamp if been_there else None,
        loss_version=version,
        attempt=0,
        max_attempts=None,
        next_attempt_at=None,
        exhausted=False,
        removed=True,
        removed_by=fact.by,
        removed_why=fact.reason,
        actions=with_action(state.actions, fact),
        version=version,
    )
    effects: tuple[Effect, ...] = ()
    if state.live and state.socket_id is not None and state.server_id is not None:
        effects = (CloseSocket(state.server_id, state.socket_id, CloseCode.REMOVED, version),)
    return Outcome(removed, (removed_event(removed, version, fact.timestamp, action_id=fact.action_id),), effects)


def removed_event(
    state: ConnectionState, version: int, timestamp: str, *, action_id: str | None = None, restated: bool | None = None
) -> ExamineeRemoved:
    """The event that tells that an examinee is shut out, by whom and why."""
    return ExamineeRemoved(
        plan_id=state.plan_id,
        examinee_id=state.examinee_id,
        status="DISCONNECTED" if state.status is not None else "NEVER",
        by=state.removed_by or "",
        action_id=action_id,
        reason=state.removed_why,
        timestamp=timestamp,
        restated=restated,
        name=state.name,
        version=version,
    )
