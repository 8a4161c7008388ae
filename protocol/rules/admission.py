"""Rules of admission: enrolment by the roster, removal and readmission by proctors."""

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
    """Apply an enrolment. An event follows only when the examinee is new or has another name or labels."""
    name = fact.name or state.name
    labels = state.labels if fact.labels is None else fact.labels
    if state.enrolled and (name, labels) == (state.name, state.labels):
        return Outcome(state)
    enrolled = replace(
        state,
        plan_id=fact.plan_id,
        examinee_id=fact.examinee_id,
        name=name,
        labels=labels,
        enrolled=True,
        version=version,
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
    """Return the `examinee_enrolled` event, which holds the whole state of the connection."""
    return ExamineeEnrolled(
        **state.about(),
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
    """Apply a readmission: an examinee who was shut out or removed may connect again. For others it has no effect."""
    if not (state.exhausted or state.removed) or already_applied(state.actions, fact):
        return Outcome(state)
    # No new attempts are counted: an examinee whom a person let in may take their time. Late facts about the old
    # attempts, which may arrive when their message ids are forgotten, no longer match `loss_version`.
    readmitted = replace(
        state,
        exhausted=False,
        removed=False,
        reason=READMITTED if state.status is not None else None,
        # The removal kept them away until now; from now on it is an outage, which begins here.
        since=fact.timestamp if state.removed and state.status is not None else state.since,
        loss_version=version,
        attempt=0,
        max_attempts=None,
        flags=(),
        actions=with_action(state.actions, fact),
        version=version,
    )
    event = ExamineeReadmitted(
        **readmitted.about(),
        status="DISCONNECTED" if state.status is not None else "NEVER",
        by=fact.by,
        by_name=fact.by_name,
        action_id=fact.action_id,
        timestamp=fact.timestamp,
        version=version,
    )
    return Outcome(readmitted, (event,))


def remove(state: ConnectionState, version: int, fact: Remove) -> Outcome[ConnectionState]:
    """Apply a removal: close the examinee's connection and refuse new ones until a proctor readmits them."""
    if state.removed or already_applied(state.actions, fact):
        return Outcome(state)
    been_there = state.status is not None
    # Late facts about an earlier outage no longer match `loss_version`: nobody waits for this examinee any more.
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
        finished=None,
        finished_at=None,
        finished_by=None,
        finished_by_name=None,
        flags=(),
        outages=(),
        unstable=False,
        away_share=None,
        removed=True,
        removed_by=fact.by,
        removed_by_name=fact.by_name,
        removed_why=fact.reason,
        actions=with_action(state.actions, fact),
        version=version,
    )
    effects: tuple[Effect, ...] = ()
    if state.live:
        assert state.socket_id is not None
        assert state.server_id is not None
        effects = (CloseSocket(state.server_id, state.socket_id, CloseCode.REMOVED, version),)
    return Outcome(removed, (removed_event(removed, version, fact.timestamp, action_id=fact.action_id),), effects)


def removed_event(
    state: ConnectionState, version: int, timestamp: str, *, action_id: str | None = None, restated: bool | None = None
) -> ExamineeRemoved:
    """Return the `examinee_removed` event: by whom, and why."""
    assert state.removed_by is not None
    return ExamineeRemoved(
        **state.about(),
        status="DISCONNECTED" if state.status is not None else "NEVER",
        by=state.removed_by,
        by_name=state.removed_by_name,
        action_id=action_id,
        reason=state.removed_why,
        timestamp=timestamp,
        restated=restated,
        version=version,
    )
