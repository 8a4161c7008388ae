"""Compute the history of a repaired record from the log and from what Redis held beyond it. No I/O."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from actors.status_log.projection import Projection, ReplayedRecord
from actors.status_log.status_log import LogExtent
from protocol.errors import NewerRecord, StateDamaged
from protocol.log.version import floor_version
from protocol.messages.base import Message
from protocol.records.kinds import RecordKind
from protocol.rules.history import History, NewerFact, compact, fold, insert

log = logging.getLogger("examwire.state_repair")


def restored_history(
    replayed: ReplayedRecord, stored: History[Any, Any] | None, projection: Projection
) -> History[Any, Any] | None:
    """Merge the replayed record with the one found in Redis; `None`: that one is ahead of the replayed part of the log.

    Facts that have expired from the log, or that it has lost, are taken from the record found.
    """
    log_alone = replayed.history(projection.floor)
    if stored is None:
        return in_flight(log_alone, projection.extent)
    if stored.floor > projection.end:
        return None
    if stored.kept or 0 < stored.first_version < projection.beginning:
        return in_flight(with_facts(stored, replayed.kind, replayed.facts, stored.floor), projection.extent)
    newer = [(version, fact) for version, fact in stored.facts if version > projection.end]
    history = with_facts(log_alone, replayed.kind, newer, 0)
    # It was decided from a wrong state, so the last event that proctors were sent may be wrong too.
    wrong = replayed.kind.visible_part(fold(stored, replayed.kind.rule)) != replayed.kind.visible_part(
        replayed.state_of(stored)
    )
    history = in_flight(history, projection.extent)
    newest_event = max(history.newest_event, stored.newest_event)
    restatement_due = history.restatement_due or stored.restatement_due or wrong
    return replace(history, newest_event=newest_event, restatement_due=restatement_due)


def merged_history(
    checkpointed: History[Any, Any], stored: History[Any, Any] | None, kind: RecordKind[Any, Any]
) -> History[Any, Any]:
    """Merge a checkpointed record with another one that is found in its place."""
    if stored is None:
        return checkpointed
    newest = max([checkpointed.floor, *(version for version, _ in checkpointed.facts)])
    if stored.floor > newest:
        return stored  # it goes on from there
    merged = with_facts(checkpointed, kind, stored.facts, 0)
    # A record that began later began on an empty Redis: it was decided from a wrong state, and so was its last event.
    begun_anew = stored.first_version > checkpointed.first_version
    seen, true = (kind.visible_part(fold(history, kind.rule)) for history in (stored, merged))
    return replace(
        merged,
        newest_event=max(merged.newest_event, stored.newest_event),
        restatement_due=merged.restatement_due or stored.restatement_due or (begun_anew and seen != true),
    )


def with_facts(
    history: History[Any, Any] | None,
    kind: RecordKind[Any, Any],
    facts: Iterable[tuple[int, Message | NewerFact]],
    settled: int,
) -> History[Any, Any]:
    """Insert facts into a history, each at its version."""
    grown = compact(history if history is not None else kind.empty(), kind.rule, settled)
    for version, fact in facts:
        grown = insert(grown, kind.rule, version, fact, kind.visible_part).history
    return grown


def holds(history: History[Any, Any] | None, version: int) -> bool:
    """Return whether a history contains the fact of this version."""
    return history is not None and (version <= history.floor or any(version == known for known, _ in history.facts))


def in_flight(history: History[Any, Any], extent: LogExtent) -> History[Any, Any]:
    """Mark the facts that are still being processed: their events may have been published in any order.

    All but the newest count as late, so their redelivery publishes again what followed from them. If the newest one
    leads to no event, no later event corrects a wrong one: a restatement is due.
    """
    least, most = floor_version(extent.acknowledged), floor_version(extent.delivered)
    at_work = [version for version, _ in history.facts if least < version <= most]
    if len(at_work) < 2:
        return history
    late = tuple(sorted({*history.late, *at_work[:-1]}))
    return replace(history, late=late, restatement_due=history.restatement_due or history.newest_event < at_work[-1])


def read_history(
    kind: RecordKind[Any, Any], key: str, stored: dict[str, str] | StateDamaged
) -> History[Any, Any] | None:
    """Read the history of a record; `None` when there is none, or it cannot be read.

    Raises `NewerRecord`: leave it as it is.
    """
    if isinstance(stored, StateDamaged):
        log.warning("%s", stored)
        return None
    if "history" not in stored:
        return None
    try:
        return kind.read(stored["history"])
    except NewerRecord:
        raise
    except ValueError as error:
        log.warning("%s: %s", key, error)
        return None


def lease_fields(fields: Mapping[str, str], known: Mapping[str, str]) -> dict[str, str]:
    """Keep the fields that leases have written to the record of the same socket or process: the log lacks them."""
    if fields.get("liveSocketId") and all(fields[name] == known.get(name) for name in ("liveSocketId", "since")):
        return {"lastActiveTime": max(fields["lastActiveTime"], known.get("lastActiveTime", ""))}
    if fields.get("incarnation") and fields["incarnation"] == known.get("incarnation"):
        return {name: known[name] for name in ("cpuUsage", "memoryUsage", "networkStatus") if known.get(name)}
    return {}
